//! NUMA nodes ("ACPI Specification 6.5", chapter "NUMA Architecture Platforms"): RAM and processors, divided evenly.

use acpi_tables::slit::SLIT;
use acpi_tables::srat::MemoryAffinity;

use super::fixed::{bytes, sdt};
use super::{Described, OEM, OEM_REVISION, OEM_TABLE};
use crate::platform::memory::{BASE_END, FOUR_GIB, Layout, SHADOW_END};

/// RAM of each node but the last is a multiple of this, in bytes.
const STEP: u64 = 2 << 20;

/// The node of a processor.
pub(super) fn node_of(vcpu: u32, vcpus: u32, nodes: u32) -> u32 {
    vcpu * nodes / vcpus
}

/// The RAM of each node: its number, base and size in bytes.
pub(super) fn memory(layout: &Layout, nodes: u32) -> Vec<(u32, u64, u64)> {
    let size = layout.low_end + layout.high();
    let share = size / u64::from(nodes) / STEP * STEP;
    // Counted as if there were no hole: first, end, and where that is.
    let parts = [(0, BASE_END, 0), (SHADOW_END, layout.low_end, SHADOW_END), (layout.low_end, size, FOUR_GIB)];
    let mut ranges = Vec::new();
    for node in 0..nodes {
        let first = share * u64::from(node);
        let end = if node + 1 == nodes { size } else { first + share };
        for (part, part_end, place) in parts {
            let (from, to) = (first.max(part), end.min(part_end));
            if from < to {
                ranges.push((node, place + (from - part), to - from));
            }
        }
    }
    ranges
}

/// "System Resource Affinity Table".
pub(super) fn srat(board: &Described, nodes: u32) -> Vec<u8> {
    const ENABLED: u32 = 1;
    let mut body = [&1u32.to_le_bytes()[..], &[0; 8]].concat();
    for id in 0..board.vcpus {
        let node = node_of(id, board.vcpus, nodes);
        match u8::try_from(id) {
            // "Processor Local APIC/SAPIC Affinity Structure".
            Ok(id) if id < 255 => {
                body.extend([0, 16, node as u8, id]);
                body.extend(ENABLED.to_le_bytes());
                body.extend([0; 8]);
            }
            // "Processor Local x2APIC Affinity Structure".
            _ => {
                body.extend([2, 24, 0, 0]);
                body.extend([node, id, ENABLED, 0, 0].map(u32::to_le_bytes).concat());
            }
        }
    }
    for (node, base, size) in memory(&board.layout, nodes) {
        body.extend(bytes(&MemoryAffinity::new(node, base, size).enabled()));
    }
    sdt(b"SRAT", 3, &body)
}

/// "System Locality Information Table": all other nodes are equally far.
pub(super) fn slit(nodes: u32) -> Vec<u8> {
    const REMOTE: u8 = 20;
    let mut table = SLIT::new(OEM, OEM_TABLE, OEM_REVISION, nodes);
    for a in 0..nodes as usize {
        (0..a).for_each(|b| table.set_distance(a, b, REMOTE));
    }
    bytes(&table)
}
