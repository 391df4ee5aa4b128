//! RV64 with the H extension: instructions, privileged architecture, and the `virt` platform. See `docs/design.md`.

pub mod cpu;
pub mod hart;
pub mod isa;
pub mod platform;
pub mod privileged;
