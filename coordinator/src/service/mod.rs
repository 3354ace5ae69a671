//! The engine of a session: shared memory, namespace, processes, and the
//! control plane that ties them together.

mod access_list;
mod admin;
mod arena;
mod attributes;
mod below;
mod calls;
mod connections;
mod cuts;
mod deadlock;
mod detour;
mod engine;
mod export;
mod extended;
mod guardian;
mod halves;
mod journal;
mod kernel;
mod known;
mod leftovers;
mod libraries;
mod mailboxes;
mod members;
mod names;
mod opens;
mod outside;
mod proc_scan;
mod processes;
mod programs;
mod records;
mod renames;
mod replies;
mod reservations;
mod returns;
mod room;
mod server;
mod shm;
mod snapshot;
mod start;
mod stats;
mod store;
mod xattrs;

pub use journal::settle;
pub use leftovers::leftovers;
pub use start::{session_dir, sessions, start};

use wire::layout::{WAIT_FINAL, WAIT_STREAM};

use crate::flow::FileKind;
use names::{Kind, Node};

/// What the state machine calls a node.
fn file_kind(node: &Node) -> FileKind {
    if matches!(node.kind, Kind::Directory(_)) {
        FileKind::Directory
    } else {
        FileKind::File
    }
}

/// What a read waits for, as the report names it.
fn wait_reason(wait: u32) -> &'static str {
    match wait {
        WAIT_FINAL => "to be final",
        WAIT_STREAM => "more bytes",
        _ => "nothing",
    }
}
