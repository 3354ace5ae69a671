//! What the shim and the coordinator share: messages ([`message`]), the
//! layout of shared memory ([`layout`]) and the steps on it ([`protocol`]),
//! the table of names ([`names`]), limits ([`limits`]) and the place of a session on disk ([`place`]). No policy.
#![no_std]

pub mod layout;
pub mod limits;
pub mod message;
pub mod names;
pub mod place;
pub mod protocol;

#[cfg(test)]
extern crate std;
