//! Intel VMX (SDM vol. 3C, the chapters from "Introduction to Virtual Machine Extensions" to "VMX Instruction Reference", and the appendices
//! on VMX in vol. 3D), as an extension of the processor in `x86`.
//!
//! | here | in the manual |
//! |---|---|
//! | [`field`], [`vmcs`], [`control`] | "Virtual Machine Control Structures", appendix "Field Encoding in VMCS" |
//! | [`capability`] | appendix "VMX Capability Reporting Facility" |
//! | [`instructions`] | "VMX Instruction Reference" |
//! | [`entry`] | "VM Entries" |
//! | [`exit`] | "VM Exits", appendix "VMX Basic Exit Reasons" |
//! | [`nonroot`], `msr`, `function`, `shadowing` | "VMX Non-Root Operation" |
//! | [`apic`] | "APIC Virtualization and Virtual Interrupts" |
//! | [`ept`], [`tags`] | "VMX Support for Address Translation" |

pub mod apic;
pub mod capability;
pub mod control;
pub mod describe;
pub mod entry;
pub mod ept;
pub mod exit;
pub mod field;
mod function;
pub mod inspect;
pub mod instructions;
mod level;
mod msr;
mod msr_list;
pub mod nonroot;
mod notes;
mod shadowing;
pub mod tags;
mod timer;
pub mod vmcs;
mod vmx;

pub use vmx::{Vmx, register};
