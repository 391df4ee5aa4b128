//! "APIC Virtualization and Virtual Interrupts", as a guest and its host see it.

mod accesses;
#[path = "../entry/base.rs"]
#[allow(dead_code, reason = "the tests of VM entries use the rest")]
mod base;
mod delivery;
mod ipi;
mod posted;
mod rig;
mod tpr;
mod x2apic;
