//! A translation of bus masters' accesses and messages, which a board may have.
//!
//! It is a device among others, with its own registers ([`Device::iommu`](crate::device::Device::iommu),
//! [`Bus::translates`](crate::bus::Bus::translates)). What goes out without a requester ID does not come here.

use crate::device::DeviceCx;

/// An access to memory by a bus master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterAccess {
    /// Whose it is.
    pub requester: u16,
    /// The first address, as the bus master has it.
    pub address: u64,
    /// How many bytes, at least 1.
    pub len: u64,
    /// It writes.
    pub writes: bool,
}

/// An IOMMU. What it has to say of an access that it refuses, it keeps in its registers.
pub trait Iommu {
    /// Where an access leads: the physical address, and how many of its bytes are there in a row, at least 1. `None` refuses it. `cx` is the
    /// IOMMU's own.
    fn translate(&mut self, access: MasterAccess, cx: &mut DeviceCx) -> Option<(u64, u64)>;

    /// A message-signalled interrupt: returns whether it is one, and is sent on or refused. Else it is a write to memory like others.
    fn message(&mut self, requester: u16, address: u64, data: u32, cx: &mut DeviceCx) -> bool;
}
