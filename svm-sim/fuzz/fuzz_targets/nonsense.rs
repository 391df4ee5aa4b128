//! `cargo +nightly fuzz run nonsense`: what `tests/nonsense.rs` tries for a while, for ever. The fuzzer's bytes are the choices.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/vmrun/base.rs"]
#[allow(dead_code, reason = "the tests of VMRUN use the rest")]
mod base;
#[path = "../../tests/nonsense/guest.rs"]
mod guest;

fuzz_target!(|bytes: &[u8]| guest::run(bytes));
