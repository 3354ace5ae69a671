//! What the shim and the coordinator share: messages, shared-memory layouts
//! and limits. No policy.
#![no_std]
