//! Every vector instruction against the host's own, where the host is an x86-64 with AVX2.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "the host's instructions are what the crate is compared with")]
#![allow(missing_docs, reason = "a test")]

#[macro_use]
mod host;
mod crypto;
mod float;
mod integer;
mod shuffle;
mod string;
