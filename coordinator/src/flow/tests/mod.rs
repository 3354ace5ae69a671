//! Named rules one by one, a naive model, and all states of small workflows.

//mod deadlock;
//mod directories;
mod explore;
//mod failure;
//mod finality;
mod model;
//mod names;
mod naive;
mod support;
//mod waiting;
