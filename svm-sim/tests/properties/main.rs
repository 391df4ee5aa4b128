//! Properties: what holds whatever the VMCB, or the guests are. Cases follow from their numbers.

#[path = "../vmrun/base.rs"]
#[allow(dead_code, reason = "the tests of VMRUN use the rest")]
mod base;
mod state;
mod tags;
