//! AVIC: accesses to registers, delivery, IPIs, the doorbell, x2AVIC.

mod accesses;
#[path = "../vmrun/base.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod base;
mod delivery;
mod ipi;
mod rig;
mod x2apic;
