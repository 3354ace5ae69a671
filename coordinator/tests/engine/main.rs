//! The engine of a session as its clients see it: by messages, descriptors
//! and shared memory.

mod closes;
mod ends;
mod export;
mod lower;
mod peer;
mod results;
mod space;
mod streams;
mod world;
mod xattrs;
