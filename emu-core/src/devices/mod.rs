//! Devices common to all machines.
