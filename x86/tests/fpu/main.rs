//! Every x87 instruction against the host's own, where the host is an x86-64.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "the host's instructions are what the crate is compared with")]
#![allow(missing_docs, reason = "a test")]

#[macro_use]
mod host;
mod instructions;
mod transcendental;
