//! A bare connection to the control socket, for bytes of any kind.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use wire::limits::{MAX_FRAME, VERSION};
use wire::message::{Reply, Request, decode, encode};

use crate::world::World;

/// A connection. What is answered is read only when it is asked for.
pub(crate) struct Line(pub UnixStream);

/// A request as it goes over the line.
pub(crate) fn frame(request: &Request<'_>) -> Vec<u8> {
    let mut frame = vec![0; MAX_FRAME + 4];
    let length = encode(request, &mut frame).unwrap();
    frame.truncate(length);
    frame
}

/// The greeting of a process of step `app`.
pub(crate) fn hello(app: &[u8]) -> Vec<u8> {
    let (version, forked) = (VERSION, true);
    frame(&Request::Hello {
        version,
        app,
        forked,
    })
}

impl Line {
    /// Connects, no more.
    pub(crate) fn open(world: &World) -> Self {
        let socket = world.place().join(wire::place::SOCKET);
        let stream = UnixStream::connect(socket).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        Self(stream)
    }

    /// Sends any bytes; whether they were taken.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// The body of the next answer; `None` when the coordinator has hung up.
    pub(crate) fn answer(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.fill(&mut head)?;
        let mut body = vec![0; u32::from_le_bytes(head) as usize];
        self.fill(&mut body)?;
        Some(body)
    }

    fn fill(&mut self, into: &mut [u8]) -> Option<()> {
        match self.0.read_exact(into) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("neither an answer nor an end")
            }
            Err(_) => None,
        }
    }

    /// Greets; whether that was welcome.
    pub(crate) fn greet(&mut self, app: &[u8]) -> Result<(), Option<i32>> {
        self.send(&hello(app));
        let body = self.answer().ok_or(None)?;
        match decode(&body) {
            Some(Reply::Welcome { .. }) => Ok(()),
            Some(Reply::Error(error)) => Err(Some(error)),
            other => panic!("{other:?}"),
        }
    }

    /// Whether the coordinator hangs up without another word.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.answer().is_none()
    }
}
