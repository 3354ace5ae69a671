//! Named rules one by one, a naive model, and all states of small workflows.

mod explore;
mod model;
mod naive;
mod pair;
mod rules;
mod support;
