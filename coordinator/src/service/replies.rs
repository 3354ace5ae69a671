//! Answers on their way to a client: as frames over its connection.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use tokio::io::Interest;
use tokio::net::UnixStream;
use wire::limits::MAX_FRAME;
use wire::message::{Reply, encode};

use super::engine::Answer;

/// What goes over the wire for an answer, and the descriptor that goes with it.
pub(super) fn message(answer: &Answer) -> (Reply<'_>, Option<BorrowedFd<'_>>) {
    let reply = match answer {
        Answer::Ok => Reply::Ok,
        Answer::Error(error) => Reply::Error(*error),
        Answer::Wait => Reply::Wait,
        Answer::Soon => Reply::Soon,
        Answer::Opened(ofd, fd) => return (Reply::Opened { ofd: *ofd }, Some(fd.as_fd())),
        Answer::Directory(inode, fd) => {
            return (Reply::Directory { inode: *inode }, Some(fd.as_fd()));
        }
        Answer::Native(path, inode) => Reply::Native {
            path,
            lower: inode.is_some(),
            inode: inode.unwrap_or(0),
        },
        Answer::Attributes(attributes) => Reply::Attributes(*attributes),
        Answer::Path(path) => Reply::Path(path),
        Answer::Entries(packed, last) => Reply::Entries {
            packed,
            last: *last,
        },
        Answer::Space(total, free, files) => Reply::Space {
            total: *total,
            free: *free,
            files: *files,
        },
        Answer::Value(value) => Reply::Value(value),
    };
    (reply, None)
}

/// Room that the frame of a reply takes at most, in bytes.
fn room(reply: &Reply<'_>) -> usize {
    let payload = match reply {
        Reply::Native { path, .. } | Reply::Path(path) | Reply::Value(path) => path.len(),
        Reply::Entries { packed, .. } => packed.len(),
        _ => 0,
    };
    (payload + 256).min(MAX_FRAME + 4)
}

/// The frame of a reply.
///
/// # Errors
/// It is longer than a frame may be.
pub(super) fn frame(reply: &Reply<'_>) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; room(reply)];
    let length = encode(reply, &mut frame).ok_or_else(|| io::Error::other("reply too long"))?;
    frame.truncate(length);
    Ok(frame)
}

/// Sends a reply with descriptors.
///
/// # Errors
/// The client is gone, or the reply too long.
pub(super) async fn send(
    stream: &UnixStream,
    reply: &Reply<'_>,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let frame = frame(reply)?;
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let socket = stream.as_fd().as_raw_fd();
    let mut sent = 0;
    while sent < frame.len() {
        let part = [io::IoSlice::new(frame.get(sent..).unwrap_or_default())];
        let control = if sent == 0 { control } else { &[] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let result = stream.try_io(Interest::WRITABLE, || {
            sendmsg::<()>(socket, &part, control, flags, None).map_err(io::Error::from)
        });
        match result {
            Ok(length) => sent += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.writable().await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends an answer.
///
/// # Errors
/// As [`send`].
pub(super) async fn answer(stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let (reply, descriptor) = message(answer);
    send(stream, &reply, descriptor.as_slice()).await
}

/// Sends an answer at once, or in a task of its own where the client is slow to read.
/// If that fails the connection ends, so that the client does not wait for it.
pub(super) fn answer_soon(stream: Rc<UnixStream>, what: Answer) {
    let mut sending = Box::pin(async move {
        if let Err(error) = answer(&stream, &what).await {
            tracing::debug!("an answer did not reach its client: {error}");
            // It fails where the client is gone already.
            let _ = shutdown(stream.as_raw_fd(), Shutdown::Both);
        }
    });
    let mut once = Context::from_waker(Waker::noop());
    if sending.as_mut().poll(&mut once) == Poll::Pending {
        tokio::task::spawn_local(sending);
    }
}
