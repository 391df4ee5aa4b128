//! x86-64 (Intel 64 and IA-32 Architectures Software Developer's Manual, "SDM"; AMD64 Architecture Programmer's Manual,
//! "APM"): the processor and the PC.

pub mod apic;
mod caches;
pub mod control;
mod control_registers;
mod debug;
mod decimal;
pub mod exception;
pub mod extension;
mod far;
mod fast_calls;
mod flag_instructions;
pub mod fpu;
mod frame;
mod interrupt;
pub mod isa;
mod linear;
pub mod mode;
pub mod model;
mod model_specific;
pub mod monitor;
pub mod msr;
pub mod paging;
pub mod platform;
pub mod processor;
mod processor_instructions;
mod protection;
pub mod registers;
mod repeat;
pub mod segment;
pub mod smm;
mod system;
mod task;
pub mod vector;
pub mod xsave;
