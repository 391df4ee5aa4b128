//! Devices common to all machines.

pub mod uart16550;
