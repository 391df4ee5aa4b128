//! Properties: what holds whatever the VMCS, the fields, or the guest are. Cases follow from their numbers.

#[path = "../entry/base.rs"]
#[allow(dead_code, reason = "the tests of VM entries use the rest")]
mod base;
mod fields;
#[path = "../guest/machine.rs"]
#[allow(dead_code, reason = "the tests of guests use the rest")]
mod machine;
mod state;
mod tags;
