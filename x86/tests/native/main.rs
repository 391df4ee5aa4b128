//! Instructions against the processor that the tests run on: every form of every mnemonic, on random and on boundary values. All
//! general registers, the flags that the SDM defines, vectors, the x87's state, memory, and exceptions are compared.
//!
//! Only on x86-64 hosts with Linux and AVX. `UNDERVISOR_FUZZ_CASES` sets how many cases there are.
#![allow(unsafe_code, reason = "instructions are run by the host's processor")]
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod blocks;
mod branches;
mod compatibility;
mod each;
mod encodings;
mod host;
mod machine;
mod mode;
mod operands;
mod rights;
mod state;
mod strings;
mod undefined;
