//! Small models of the protocols of `wire::protocol`, run in every order that the
//! memory model allows (`loom`), with the code that clients and coordinator run.
//!
//! Each model can fail: beside it stand tests that leave out a barrier, weaken the
//! orders or swap two steps, and demand that the model finds it.

mod cuts;
mod deaths;
mod mailboxes;
mod moves;
mod owners;
mod pages;
mod reuse;
mod streams;
mod world;
