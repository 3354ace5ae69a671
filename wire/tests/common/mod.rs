//! What any bytes must survive: shared by the tests and the fuzz target.

use wire::limits::MAX_FRAME;
use wire::message::{Entry, Reply, Request, decode, encode};

/// Decodes `body` as all that can come over the line. What is understood is
/// encoded again to the same message.
///
/// # Panics
/// When it is not, or takes more than a frame.
pub(crate) fn survives(body: &[u8]) {
    let mut frame = vec![0; MAX_FRAME + 4];
    if let Some(request) = decode::<Request<'_>>(body) {
        let length = encode(&request, &mut frame).expect("what came in a frame fits one");
        assert_eq!(decode(&frame[4..length]), Some(request));
    }
    if let Some(reply) = decode::<Reply<'_>>(body) {
        if let Reply::Entries { packed, .. } = reply {
            entries(packed);
        }
        let length = encode(&reply, &mut frame).expect("what came in a frame fits one");
        assert_eq!(decode(&frame[4..length]), Some(reply));
    }
    entries(body);
}

/// Packed entries are taken one by one, and that ends.
fn entries(packed: &[u8]) {
    let mut rest = packed;
    while let Some((entry, tail)) = Entry::take(rest) {
        assert!(tail.len() < rest.len());
        let head = entry.head();
        assert_eq!(&rest[..head.len()], &head[..]);
        rest = tail;
    }
}
