//! The processor against `/dev/kvm`, where there is one: supervisor code, from the same state, in the same memory.
//!
//! What kind of KVM it is, is probed first: some have no hardware underneath and emulate ring 0 in software, and cannot run all of it. Results
//! are labelled, what cannot be run is skipped by name, and no run lasts longer than [`kvm::LIMIT`].

#![cfg(target_os = "linux")]

mod alike;
mod compare;
mod instructions;
mod kvm;
mod paging;
mod stage;
mod transfers;
mod unlike;
