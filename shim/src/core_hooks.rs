//! What the core does around a fork.

use crate::{attach, calls};

/// In the parent, before the process is copied.
pub(crate) fn before_fork() {}

/// In the parent, after; also when the fork failed.
pub(crate) fn after_fork_parent() {}

/// In the child, first of all. Only the forking thread exists.
pub(crate) fn after_fork_child() {
    attach::after_fork();
    calls::after_fork();
}

/// In the parent, before a child that shares its memory.
pub(crate) fn before_vfork() {
    attach::before_vfork();
}
