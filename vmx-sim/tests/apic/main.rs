//! "APIC Virtualization and Virtual Interrupts", as a guest and its host see it.

mod accesses;
mod delivery;
mod ipi;
mod posted;
mod rig;
mod tpr;
mod x2apic;
