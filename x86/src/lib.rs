//! x86-64 (Intel 64 and IA-32 Architectures Software Developer's Manual, "SDM"; AMD64 Architecture Programmer's Manual,
//! "APM"): the processor and the PC.

pub mod apic;
mod caches;
pub mod control;
pub mod exception;
pub mod fpu;
mod interrupt;
pub mod isa;
pub mod model;
mod model_specific;
pub mod monitor;
pub mod msr;
pub mod paging;
pub mod platform;
pub mod processor;
mod processor_instructions;
pub mod registers;
pub mod segment;
mod system;
pub mod vector;
