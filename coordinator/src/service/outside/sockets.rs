//! Who is at the other end of a socket.

use std::collections::{HashMap, HashSet};
use std::fs;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::numbers;

/// `SOCK_DIAG_BY_FAMILY`, the type of all messages but the last.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `UDIAG_SHOW_PEER`.
const SHOW_PEER: u32 = 4;
/// `UNIX_DIAG_PEER`.
const PEER: u16 = 2;
/// `TCP_LISTEN`, which sockets of the machine use as well.
const LISTENS: u8 = 10;

/// Who is at the other end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of the session, or nobody.
    Session,
    /// Somebody else, here or on another machine.
    Other,
    /// Whoever comes.
    Anybody,
}

/// Ends of a socket of the network: its own and the other, address and port.
type Ends = (String, String);

/// Sockets of this machine, by inode, as in `[1]`.
pub(super) struct Sockets {
    network: HashMap<String, Ends>,
    /// The other end, unless there is none.
    local: HashMap<String, Option<String>>,
    session: HashSet<String>,
}

impl Sockets {
    /// `own`: the processes of the session.
    pub(super) fn of(own: &HashSet<i32>) -> Self {
        Self {
            network: network(),
            local: local().unwrap_or_default(),
            session: own.iter().flat_map(|&pid| sockets_of(pid)).collect(),
        }
    }

    /// Who is at the other end of the socket with this inode.
    pub(super) fn peer(&self, inode: &str) -> Peer {
        match (self.network.get(inode), self.local.get(inode)) {
            (Some((_, other)), _) if other.ends_with(":0000") => Peer::Anybody,
            (Some(ends), _) if self.are_session(ends) => Peer::Session,
            (Some(_), _) => Peer::Other,
            (_, Some(None)) => Peer::Anybody,
            (_, Some(Some(other))) if !self.session.contains(other) => Peer::Other,
            _ => Peer::Session,
        }
    }

    /// Whether a socket of the session is the other one of these ends.
    fn are_session(&self, (own, other): &Ends) -> bool {
        let is_peer = |(inode, ends): (&String, &Ends)| {
            ends.0 == *other && ends.1 == *own && self.session.contains(inode)
        };
        self.network.iter().any(is_peer)
    }
}

fn sockets_of(pid: i32) -> Vec<String> {
    let target = |fd: String| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
    let targets = numbers(pid).into_iter().filter_map(target);
    targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:")?.to_owned()))
        .collect()
}

fn network() -> HashMap<String, Ends> {
    let mut found = HashMap::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let (Some(own), Some(other), Some(inode)) =
                (words.get(1), words.get(2), words.get(9))
            {
                found.insert(format!("[{inode}]"), (plain(own), plain(other)));
            }
        }
    }
    found
}

/// An address and port; a v4 address that is written as a v6 one as v4.
fn plain(end: &str) -> String {
    end.strip_prefix("0000000000000000FFFF0000")
        .unwrap_or(end)
        .to_owned()
}

/// Sockets of the machine alone: `/proc` does not tell who is connected to whom.
fn local() -> nix::Result<HashMap<String, Option<String>>> {
    const LENGTH: u32 = 40;
    const ALL: u32 = u32::MAX;
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let request = libc::NLM_F_REQUEST as u32 | (libc::NLM_F_DUMP as u32);
    // struct nlmsghdr, then struct unix_diag_req: all states, show the peer.
    let kind = u32::from(SOCK_DIAG_BY_FAMILY) | request << 16;
    let family = libc::AF_UNIX as u32;
    let words = [LENGTH, kind, 1, 0, family, ALL, 0, SHOW_PEER, ALL, ALL];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    nix::unistd::write(&kernel, &bytes)?;
    let (mut found, mut buffer) = (HashMap::new(), vec![0; 1 << 16]);
    loop {
        let length = nix::unistd::read(&kernel, &mut buffer)?;
        if length == 0 || !messages(buffer.get(..length).unwrap_or_default(), &mut found) {
            return Ok(found);
        }
    }
}

/// Takes the sockets from the kernel's messages; whether more are to come.
///
/// ```text
/// 0   length u32 │ type u16 │ flags u16 │ number u32 │ process u32    message
/// 16  family u8 │ kind u8 │ state u8 │ 0 │ inode u32 │ cookie u64
/// 32  length u16 │ type u16 │ value, padded to 4 bytes                attribute, ...
/// ```
fn messages(bytes: &[u8], found: &mut HashMap<String, Option<String>>) -> bool {
    let mut rest = bytes;
    while let Some(length) = u32_at(rest, 0).filter(|&length| length >= 16) {
        if u16_at(rest, 4) != Some(SOCK_DIAG_BY_FAMILY) {
            return false;
        }
        let (message, next) = rest
            .split_at_checked((length as usize).next_multiple_of(4))
            .unwrap_or((rest, &[]));
        if let (Some(&[_, kind, state, _]), Some(inode)) = (
            message.get(16..20).and_then(<[u8]>::first_chunk),
            u32_at(message, 20),
        ) {
            let open = state == LISTENS || i32::from(kind) == libc::SOCK_DGRAM;
            match peer(message.get(32..).unwrap_or_default()) {
                // Nobody has accepted it yet.
                Some(0) => {}
                Some(peer) => drop(found.insert(format!("[{inode}]"), Some(format!("[{peer}]")))),
                None if open => drop(found.insert(format!("[{inode}]"), None)),
                None => {}
            }
        }
        rest = next;
    }
    true
}

/// Inode of the other end, among the attributes of a socket.
fn peer(attributes: &[u8]) -> Option<u32> {
    let mut rest = attributes;
    while let Some(length) = u16_at(rest, 0).filter(|&length| length >= 4) {
        if u16_at(rest, 2) == Some(PEER) {
            return u32_at(rest, 4);
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|word| u16::from_ne_bytes(*word))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn inode(socket: &impl AsRawFd) -> String {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let target = fs::read_link(path).unwrap();
        target
            .to_str()
            .unwrap()
            .strip_prefix("socket:")
            .unwrap()
            .to_owned()
    }

    /// Whether this process has both ends, or the other is somebody else's.
    fn peers(socket: &impl AsRawFd) -> [Peer; 2] {
        let own = HashSet::from([std::process::id() as i32]);
        let mut sockets = Sockets::of(&own);
        let within = sockets.peer(&inode(socket));
        sockets.session = HashSet::from([inode(socket)]);
        [within, sockets.peer(&inode(socket))]
    }

    #[test]
    fn ranks_that_talk_to_each_other_do_not_wait_for_somebody_else() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peers(&one), [Peer::Session, Peer::Other]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _other = listener.accept().unwrap();
        assert_eq!(peers(&one), [Peer::Session, Peer::Other]);
    }

    #[test]
    fn who_listens_waits_for_anybody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(peers(&listener), [Peer::Anybody, Peer::Anybody]);
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        assert_eq!(peers(&listener), [Peer::Anybody, Peer::Anybody]);
    }
}
