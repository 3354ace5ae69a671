//! Clients that break the rules, by malice or by a bug: the coordinator goes on
//! serving, in bounded memory and time, and other sessions notice nothing.

mod admin;
mod corpus;
mod line;
mod memory;
#[path = "../engine/peer.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod peer;
mod place;
mod socket;
mod values;
#[path = "../engine/world.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod world;
