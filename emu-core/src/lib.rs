//! The computer without an instruction set.

pub mod float;
