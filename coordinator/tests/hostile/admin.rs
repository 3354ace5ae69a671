//! The socket for `capio ls`, `ps` and the like, asked for what makes no sense.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use coordinator::session::admin::{Admin, AdminClient, SOCKET_NAME};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::World;

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(world.place().join(SOCKET_NAME)).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream
}

/// The first line of the answer; `None`: the session has hung up.
fn ask(world: &World, line: &[u8]) -> Option<Value> {
    let mut stream = connect(world);
    stream.write_all(&[line, b"\n"].concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = Vec::new();
    reader.read_until(b'\n', &mut answer).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() <= 1 << 20, "{} bytes", rest.len());
    (!answer.is_empty()).then(|| serde_json::from_slice(&answer).unwrap())
}

fn expect_service(world: &World) {
    let client = AdminClient::connect(world.place()).unwrap();
    client.ps().unwrap();
}

#[test]
fn paths_and_numbers_that_make_no_sense_are_refused_with_a_reason() {
    let world = World::new();
    let mut peer = world.join("a");
    peer.put("f", b"content");
    let dir = world.dir().display().to_string();
    let paths = [
        json!(""),
        json!("/"),
        json!("f"),
        json!("/etc/passwd"),
        json!(format!("{dir}/../../etc/passwd")),
        json!(format!("{dir}/none")),
        json!(format!("{dir}/f/under")),
        json!(format!("{dir}/nul\0byte")),
        json!(format!("{dir}/{}", "long/".repeat(2000))),
        json!(format!("{dir}/{}", "x".repeat(5000))),
        json!([47, 255, 254, 0]),
    ];
    for path in &paths {
        for request in [
            json!({ "list": path }),
            json!({ "stat": path }),
            json!({"read": {"path": path, "offset": 0, "len": 10}}),
        ] {
            let answer = ask(&world, request.to_string().as_bytes());
            let refused = answer.as_ref().is_some_and(|answer| {
                let message = &answer["refused"]["message"];
                message.as_str().is_some_and(|text| !text.is_empty())
            });
            assert!(refused, "{request} gives {answer:?}");
        }
    }
    let file = format!("{dir}/f");
    for (offset, length) in [(u64::MAX, u32::MAX), (1 << 63, 1), (7, u32::MAX)] {
        let request = json!({"read": {"path": file, "offset": offset, "len": length}});
        let answer = ask(&world, request.to_string().as_bytes());
        assert_eq!(answer, Some(json!({"bytes": 0})), "{request}");
    }
    let nobody = json!({ "done": "nobody\u{1b}[2J".repeat(1000) });
    assert!(ask(&world, nobody.to_string().as_bytes()).is_some());
    expect_service(&world);
}

/// Requests that a client might send, with some of their bytes changed.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::sample::select(vec![
        r#"{"list":"/tmp"}"#,
        r#"{"stat":[47,116,109,112]}"#,
        r#"{"read":{"path":"/tmp/f","offset":12,"len":34}}"#,
        r#""ps""#,
        r#""diff""#,
        r#"{"done":"step"}"#,
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (requests, changes).prop_map(|(request, changes)| {
        let mut bytes = request.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

#[test]
fn no_spoilt_request_stops_a_session() {
    let world = World::new();
    let config = ProptestConfig::default();
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let tried = runner.run(&spoilt(), |bytes| {
        let _ = ask(&world, &bytes);
        Ok(())
    });
    tried.unwrap();
    expect_service(&world);
}
