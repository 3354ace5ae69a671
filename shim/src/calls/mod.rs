//! The call table: every intercepted operation once, in terms of kernel
//! semantics: a value, or `-errno`, or [`NOT_OURS`].

mod attributes;
mod buffers;
mod cwd;
mod fds;
mod goal;
mod io;
mod known;
mod listing;
mod mapped;
mod mmap;
mod names;
mod open;
mod rest;
mod rings;
mod seek;
mod sockets;
mod stat;
mod target;
mod transfer;
mod xattr;

pub(crate) use attributes::*;
pub(crate) use cwd::*;
pub(crate) use fds::*;
pub(crate) use io::*;
pub(crate) use listing::*;
pub(crate) use mapped::{hand_over, leave_to_kernel};
pub(crate) use mmap::*;
pub(crate) use names::*;
pub(crate) use open::*;
pub(crate) use rings::*;
pub(crate) use seek::*;
pub(crate) use sockets::*;
pub(crate) use stat::*;
pub(crate) use transfer::*;
pub(crate) use xattr::*;

/// The call concerns no taken-over file: the door calls the next function.
pub(crate) const NOT_OURS: isize = isize::MIN;
