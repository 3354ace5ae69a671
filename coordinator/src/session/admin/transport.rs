//! Both ends of the admin socket.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError, AdminHandler, Entry, FileName};
use crate::session::{DiffEntry, Snapshot};

/// Name of the socket in the session's directory.
pub const SOCKET_NAME: &str = "admin.sock";

/// Longest request line: a path of `PATH_MAX`, every byte as a JSON number.
const MAX_REQUEST: u64 = 64 * 1024;
/// Longest answer line: a directory of some hundred thousand entries.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Most bytes of a file in one answer.
const MAX_READ: u32 = 1024 * 1024;
/// Connections served at a time.
const MAX_CONNECTIONS: usize = 64;
/// A client that does not take its answer for so long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    List(FileName),
    Stat(FileName),
    Read {
        path: FileName,
        offset: u64,
        len: u32,
    },
    Ps,
    Diff,
    Done(String),
    Stop,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Entries(Vec<Entry>),
    Entry(Entry),
    /// So many bytes follow the line.
    Bytes(u32),
    Snapshot(Snapshot),
    Diff(Vec<DiffEntry>),
    Done,
    Refused(AdminError),
}

/// Makes the socket in a session's directory, accessible to its user alone.
///
/// # Errors
/// As for any socket that cannot be bound.
pub fn bind(session_dir: &Path) -> io::Result<UnixListener> {
    let path = session_dir.join(SOCKET_NAME);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves connections, each in a thread of its own, until the listener is
/// shut down.
///
/// # Errors
/// Whatever ended the listener.
pub fn serve_admin(listener: &UnixListener, handler: &Arc<dyn AdminHandler>) -> io::Result<()> {
    let visitors = Visitors::default();
    loop {
        let accepted = listener.accept().and_then(|(stream, _)| {
            let (handler, visit) = (Arc::clone(handler), visitors.admit(&stream)?);
            std::thread::Builder::new()
                .name("capio-visitor".into())
                .spawn(move || {
                    if let Err(error) = serve_connection(stream, handler.as_ref()) {
                        tracing::debug!("admin connection ended: {error}");
                    }
                    drop(visit);
                })
        });
        match accepted {
            Ok(_) => {}
            Err(error) if is_transient(&error) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error),
        }
    }
}

/// All connections, in the order in which they came. Of too many, the oldest is
/// given up, so that nobody keeps others away by doing nothing.
#[derive(Clone, Default)]
struct Visitors(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    streams: VecDeque<(u64, UnixStream)>,
}

/// A connection of these; dropped when it is closed.
struct Visit {
    number: u64,
    all: Visitors,
}

impl Visitors {
    fn admit(&self, stream: &UnixStream) -> io::Result<Visit> {
        let own = stream.try_clone()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.next;
        all.next += 1;
        all.streams.push_back((number, own));
        if all.streams.len() > MAX_CONNECTIONS
            && let Some((_, oldest)) = all.streams.pop_front()
        {
            // One that is closed already cannot be closed.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        drop(all);
        let all = self.clone();
        Ok(Visit { number, all })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.streams.retain(|(number, _)| *number != self.number);
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                // No more threads for now.
                | libc::EAGAIN
        )
    )
}

fn serve_connection(stream: UnixStream, handler: &dyn AdminHandler) -> io::Result<()> {
    check_peer(&stream)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_line(&mut reader, MAX_REQUEST)? {
        let (answer, bytes) = answer(&request, handler);
        write_line(&mut writer, &answer)?;
        writer.write_all(&bytes)?;
    }
    Ok(())
}

fn answer(request: &Request, handler: &dyn AdminHandler) -> (Answer, Vec<u8>) {
    let answer = match request {
        Request::List(path) => handler.list(path.as_path()).map(Answer::Entries),
        Request::Stat(path) => handler.stat(path.as_path()).map(Answer::Entry),
        Request::Read { path, offset, len } => {
            let len = (*len).min(MAX_READ);
            return match handler.read(path.as_path(), *offset, len) {
                Ok(mut bytes) => {
                    bytes.truncate(len as usize);
                    (Answer::Bytes(bytes.len() as u32), bytes)
                }
                Err(error) => (Answer::Refused(error), Vec::new()),
            };
        }
        Request::Ps => handler.ps().map(Answer::Snapshot),
        Request::Diff => handler.diff().map(Answer::Diff),
        Request::Done(step) => handler.done(step).map(|()| Answer::Done),
        Request::Stop => handler.stop().map(|()| Answer::Done),
    };
    (answer.unwrap_or_else(Answer::Refused), Vec::new())
}

fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = getsockopt(stream, PeerCredentials)?;
    if peer.uid() == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("the session's socket belongs to user {}", peer.uid()),
    ))
}

/// One line of JSON, or `None` at the end of the stream.
fn read_line<T: DeserializeOwned>(reader: &mut impl BufRead, limit: u64) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is cut off or longer than its limit",
        ));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

fn write_line(writer: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line)
}

/// A connection to a running session.
pub struct AdminClient {
    stream: Mutex<BufReader<UnixStream>>,
}

impl AdminClient {
    /// Connects to the session of this directory.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when none is running there;
    /// `PermissionDenied` when it is another user's.
    pub fn connect(session_dir: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(session_dir.join(SOCKET_NAME))?;
        check_peer(&stream)?;
        Ok(Self {
            stream: Mutex::new(BufReader::new(stream)),
        })
    }

    fn ask(&self, request: &Request) -> Result<(Answer, Vec<u8>), AdminError> {
        self.exchange(request).map_err(|error| no_answer(&error))
    }

    fn exchange(&self, request: &Request) -> io::Result<(Answer, Vec<u8>)> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        write_line(stream.get_mut(), request)?;
        let answer = read_line(&mut *stream, MAX_ANSWER)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let mut bytes = Vec::new();
        if let Answer::Bytes(len) = answer {
            let len = u64::from(len.min(MAX_READ));
            stream.by_ref().take(len).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok((answer, bytes))
    }
}

fn no_answer(error: &io::Error) -> AdminError {
    AdminError::new(format!(
        "the session does not answer ({error}): it may be ending"
    ))
}

/// Whether the other side is gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn unexpected<T>(answer: Answer) -> Result<T, AdminError> {
    match answer {
        Answer::Refused(error) => Err(error),
        other => Err(AdminError::new(format!(
            "the session gave an unexpected answer ({other:?}): use the capio of the session's own version"
        ))),
    }
}

impl Admin for AdminClient {
    fn list(&self, path: &Path) -> Result<Vec<Entry>, AdminError> {
        match self.ask(&Request::List(path.into()))? {
            (Answer::Entries(entries), _) => Ok(entries),
            (other, _) => unexpected(other),
        }
    }

    fn stat(&self, path: &Path) -> Result<Entry, AdminError> {
        match self.ask(&Request::Stat(path.into()))? {
            (Answer::Entry(entry), _) => Ok(entry),
            (other, _) => unexpected(other),
        }
    }

    fn read(&self, path: &Path, offset: u64, len: u32) -> Result<Vec<u8>, AdminError> {
        let request = Request::Read {
            path: path.into(),
            offset,
            len,
        };
        match self.ask(&request)? {
            (Answer::Bytes(_), bytes) => Ok(bytes),
            (other, _) => unexpected(other),
        }
    }

    fn ps(&self) -> Result<Snapshot, AdminError> {
        match self.ask(&Request::Ps)? {
            (Answer::Snapshot(snapshot), _) => Ok(snapshot),
            (other, _) => unexpected(other),
        }
    }

    fn diff(&self) -> Result<Vec<DiffEntry>, AdminError> {
        match self.ask(&Request::Diff)? {
            (Answer::Diff(entries), _) => Ok(entries),
            (other, _) => unexpected(other),
        }
    }

    fn done(&self, step: &str) -> Result<(), AdminError> {
        match self.ask(&Request::Done(step.to_owned()))? {
            (Answer::Done, _) => Ok(()),
            (other, _) => unexpected(other),
        }
    }

    fn stop(&self) -> Result<(), AdminError> {
        match self.exchange(&Request::Stop) {
            Ok((Answer::Done, _)) => Ok(()),
            Ok((other, _)) => unexpected(other),
            // It has ended before it could say that it would.
            Err(error) if is_end(&error) => Ok(()),
            Err(error) => Err(no_answer(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fake::FakeAdmin;
    use std::os::fd::AsRawFd;

    struct Server {
        dir: tempfile::TempDir,
        listener: Arc<UnixListener>,
        thread: Option<std::thread::JoinHandle<io::Result<()>>>,
        admin: Arc<FakeAdmin>,
    }

    impl Server {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = Arc::new(bind(dir.path()).unwrap());
            let admin = Arc::new(FakeAdmin::default());
            let handler: Arc<dyn AdminHandler> = admin.clone();
            let serving = Arc::clone(&listener);
            let thread = std::thread::spawn(move || serve_admin(&serving, &handler));
            Self {
                dir,
                listener,
                thread: Some(thread),
                admin,
            }
        }

        fn client(&self) -> AdminClient {
            AdminClient::connect(self.dir.path()).unwrap()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both)
                .unwrap();
            assert!(self.thread.take().unwrap().join().unwrap().is_err());
        }
    }

    #[test]
    fn cat_gives_every_byte_of_a_file_whose_name_is_not_utf8() {
        let server = Server::start();
        let path = FileName(b"/w/odd\xff\nname".to_vec());
        let content: Vec<u8> = (0..=255)
            .cycle()
            .take(3_000_000)
            .map(|b: u16| b as u8)
            .collect();
        server.admin.add(path.as_path(), &content);
        let client = server.client();
        let mut got = Vec::new();
        loop {
            let chunk = client
                .read(path.as_path(), got.len() as u64, u32::MAX)
                .unwrap();
            if chunk.is_empty() {
                break;
            }
            got.extend(chunk);
        }
        assert!(got == content);
        assert_eq!(
            client.list(Path::new("/w")).unwrap()[0].name.0,
            b"odd\xff\nname"
        );
    }

    #[test]
    fn a_refusal_reaches_the_user_with_its_reason() {
        let server = Server::start();
        let error = server.client().stat(Path::new("/w/none")).unwrap_err();
        assert_eq!(error.errno, Some(libc::ENOENT));
        assert_eq!(error.to_string(), "/w/none: No such file or directory");
    }

    #[test]
    fn ps_done_and_stop_reach_the_session() {
        let server = Server::start();
        let client = server.client();
        assert_eq!(
            client.ps().unwrap(),
            server.admin.snapshot.lock().unwrap().clone()
        );
        client.done("align").unwrap();
        client.stop().unwrap();
        assert_eq!(*server.admin.orders.lock().unwrap(), ["done align", "stop"]);
    }

    #[test]
    fn a_session_that_ends_before_it_answers_has_been_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
        let client = AdminClient::connect(dir.path()).unwrap();
        let (mut session, _) = listener.accept().unwrap();
        let ending = std::thread::spawn(move || {
            let mut asked = [0; 1];
            session.read_exact(&mut asked).unwrap();
        });
        client.stop().unwrap();
        ending.join().unwrap();
        assert!(client.ps().is_err());
    }

    #[test]
    fn an_endless_request_is_cut_off_and_others_are_still_served() {
        let server = Server::start();
        let mut rude = UnixStream::connect(server.dir.path().join(SOCKET_NAME)).unwrap();
        // The server may close before all is written: then the write fails.
        let _ = rude.write_all(&vec![b'x'; 2 * MAX_REQUEST as usize]);
        let mut answer = Vec::new();
        let _ = rude.read_to_end(&mut answer);
        assert!(answer.is_empty());
        server.client().ps().unwrap();
    }

    #[test]
    fn visitors_who_say_nothing_do_not_keep_others_from_stopping_a_session() {
        let server = Server::start();
        let visit = |_| UnixStream::connect(server.dir.path().join(SOCKET_NAME)).unwrap();
        let silent: Vec<_> = (0..4 * MAX_CONNECTIONS).map(visit).collect();
        server.client().stop().unwrap();
        assert_eq!(*server.admin.orders.lock().unwrap(), ["stop"]);
        drop(silent);
    }

    #[test]
    fn garbage_ends_its_own_connection_and_no_other() {
        let server = Server::start();
        let nested = [vec![b'['; 60_000], b"\n".to_vec()].concat();
        let cut: &[u8] = b"{\"read\":{\"path\":[1,2";
        for rude in [&nested[..], cut, b"\xff\xfe\x00\n", b"null\n", b"\n\n\n"] {
            let mut stream = UnixStream::connect(server.dir.path().join(SOCKET_NAME)).unwrap();
            stream.write_all(rude).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.is_empty(), "{rude:?}");
            server.client().ps().unwrap();
        }
    }

    #[test]
    fn a_message_cut_off_in_the_middle_is_an_error() {
        let mut cut: &[u8] = b"\"ps\"";
        assert!(read_line::<Request>(&mut cut, MAX_REQUEST).is_err());
        let mut whole: &[u8] = b"\"ps\"\n";
        assert_eq!(
            read_line(&mut whole, MAX_REQUEST).unwrap(),
            Some(Request::Ps)
        );
    }

    #[test]
    fn names_cannot_play_tricks_on_a_terminal() {
        let name = FileName(b"a\x1b[2Jb\xffc".to_vec());
        assert_eq!(name.to_string(), "a\\u{1b}[2Jb\\xffc");
    }
}
