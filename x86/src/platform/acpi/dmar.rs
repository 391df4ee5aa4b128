//! "BIOS Considerations" of the VT-d specification: the DMA remapping reporting structure.

use super::Described;
use super::fixed::sdt;
use crate::platform::board::IOAPIC_ID;
use crate::platform::vtd;

/// "DMA Remapping Reporting Structure": one unit for all of PCI, for the I/O APIC and for the HPET, at the first NUMA node.
pub(super) fn dmar(board: &Described) -> Vec<u8> {
    const INTR_REMAP: u8 = 1;
    let mut body = vec![(vtd::HOST_ADDRESS_WIDTH - 1) as u8, INTR_REMAP];
    body.extend([0; 10]);
    body.extend(hardware_unit());
    // "Remapping Hardware Static Affinity Structure".
    if board.nodes.is_some() {
        body.extend([3, 0, 20, 0, 0, 0, 0, 0]);
        body.extend(vtd::BASE.to_le_bytes());
        body.extend(0u32.to_le_bytes());
    }
    sdt(b"DMAR", 1, &body)
}

/// "DMA Remapping Hardware Unit Definition Structure".
fn hardware_unit() -> Vec<u8> {
    const INCLUDE_PCI_ALL: u8 = 1;
    const IOAPIC: u8 = 3;
    const HPET: u8 = 4;
    let scopes = [scope(IOAPIC, IOAPIC_ID, vtd::IOAPIC), scope(HPET, 0, vtd::HPET)].concat();
    let mut unit = [0, 16 + scopes.len() as u16].map(u16::to_le_bytes).concat();
    unit.extend([INCLUDE_PCI_ALL, 0, 0, 0]);
    unit.extend(vtd::BASE.to_le_bytes());
    unit.extend(scopes);
    unit
}

/// "Device Scope Structure": its type, what ACPI calls it, and the requester ID.
fn scope(kind: u8, enumeration_id: u8, requester: u16) -> [u8; 8] {
    let [bus, function] = requester.to_be_bytes();
    [kind, 8, 0, 0, enumeration_id, bus, function >> 3, function & 7]
}
