use super::*;
use crate::platform::memory::Layout;

fn board(chipset: Chipset, vcpus: u32) -> Described {
    let layout = Layout::new(chipset, 1 << 30);
    Described {
        chipset,
        vcpus,
        layout,
        nodes: None,
        iommu: None,
        virtio: (2, Transport::Mmio),
        firmware: Firmware::default(),
    }
}

fn number(bytes: &[u8], at: usize, size: usize) -> usize {
    bytes[at..at + size].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
}

/// Follows the pointers as an operating system does, and checks all sums on the way.
#[test]
fn an_operating_system_finds_all_tables() {
    const BASE: usize = 0xe_0000;
    for chipset in [Chipset::I440Fx, Chipset::Q35] {
        for vcpus in [1, 4, 300] {
            let (block, rsdp) = Tables::new(&board(chipset, vcpus)).linked(BASE as u64);
            assert!(rsdp.starts_with(b"RSD PTR "));
            assert_eq!((checksum(&rsdp[..20]), checksum(&rsdp)), (0, 0));
            let table = |at: usize| {
                let at = at - BASE;
                let table = &block[at..at + number(&block, at + 4, 4)];
                assert_eq!(checksum(table), 0);
                table
            };
            let (rsdt, xsdt) = (table(number(&rsdp, 16, 4)), table(number(&rsdp, 24, 8)));
            let entries = |root: &[u8], size| -> Vec<usize> {
                (36..root.len()).step_by(size).map(|i| number(root, i, size)).collect()
            };
            assert_eq!(entries(rsdt, 4), entries(xsdt, 8));
            let names: Vec<_> = entries(xsdt, 8).iter().map(|at| table(*at)[..4].to_vec()).collect();
            let mut expected = vec![b"FACP".to_vec(), b"APIC".to_vec(), b"HPET".to_vec()];
            expected.extend((chipset == Chipset::Q35).then(|| b"MCFG".to_vec()));
            assert_eq!(names, expected);
            let fadt = table(entries(xsdt, 8)[0]);
            let dsdt = number(fadt, 40, 4);
            assert_eq!((number(fadt, 140, 8), &table(dsdt)[..4]), (dsdt, &b"DSDT"[..]));
            let facs = number(fadt, 36, 4);
            assert_eq!((facs % 64, &block[facs - BASE..][..4]), (0, &b"FACS"[..]));
        }
    }
}

/// "Multiple APIC Description Table": every processor is there once, beyond 254 by x2APIC ID.
#[test]
fn processors_and_interrupts() {
    let madt = fixed::madt(&board(Chipset::Q35, 300));
    let (mut at, mut ids, mut kinds) = (44, Vec::new(), [0; 16]);
    while at < madt.len() {
        let (kind, len) = (madt[at], usize::from(madt[at + 1]));
        match kind {
            0 => ids.push(number(&madt, at + 3, 1)),
            9 => ids.push(number(&madt, at + 4, 4)),
            _ => {}
        }
        kinds[usize::from(kind)] += 1;
        at += len;
    }
    assert_eq!((at, ids), (madt.len(), (0..300).collect()));
    assert_eq!(kinds[..11], [255, 1, 5, 0, 1, 0, 0, 0, 0, 45, 1]);
}

/// "DMA Remapping Reporting Structure": one unit that includes all, with the I/O APIC and the HPET in its scope.
#[test]
fn dma_remapping() {
    let without = board(Chipset::Q35, 1);
    let with = Described { iommu: Some(VtdConfig::default()), ..without };
    assert_eq!(Tables::new(&with).tables.len(), Tables::new(&without).tables.len() + 1);
    let dmar = dmar::dmar(&with);
    assert_eq!((&dmar[..4], dmar[36], dmar[37], dmar.len()), (&b"DMAR"[..], 45, 1, 48 + 32));
    assert_eq!([number(&dmar, 48, 4), number(&dmar, 52, 4), number(&dmar, 56, 8)], [32 << 16, 1, 0xfed9_0000]);
    assert_eq!(dmar[64..], [3, 8, 0, 0, 0, 0xf0, 0x1f, 0, 4, 8, 0, 0, 0, 0xf0, 0x0f, 0]);
    let dmar = dmar::dmar(&Described { nodes: Some(2), ..with });
    assert_eq!((dmar[80], number(&dmar, 88, 8), number(&dmar, 96, 4)), (3, 0xfed9_0000, 0));
}

/// "System Resource Affinity Table", "System Locality Information Table": every processor and every byte of RAM is in one node.
#[test]
fn nodes() {
    for (vcpus, count, gib) in [(4, 2, 1), (3, 2, 1), (8, 8, 5), (300, 8, 16), (1, 1, 1)] {
        let board = Described {
            layout: Layout::new(Chipset::Q35, gib << 30),
            nodes: Some(count),
            ..board(Chipset::Q35, vcpus)
        };
        let srat = nodes::srat(&board, count);
        assert_eq!((&srat[..4], number(&srat, 4, 4), number(&srat, 36, 4)), (&b"SRAT"[..], srat.len(), 1));
        let (mut at, mut next, mut processors, mut bytes, mut end) = (48, 0, vec![0; count as usize], 0, 0);
        while at < srat.len() {
            let (kind, len) = (srat[at], usize::from(srat[at + 1]));
            let (id, node, enabled) = match kind {
                0 => (Some(number(&srat, at + 3, 1)), number(&srat, at + 2, 1), number(&srat, at + 4, 4)),
                2 => (Some(number(&srat, at + 8, 4)), number(&srat, at + 4, 4), number(&srat, at + 12, 4)),
                1 => (None, number(&srat, at + 2, 4), number(&srat, at + 28, 4)),
                other => panic!("structure {other}"),
            };
            assert_eq!(enabled, 1);
            if let Some(id) = id {
                assert_eq!((id, kind), (next, if id < 255 { 0 } else { 2 }));
                next += 1;
                processors[node] += 1;
            } else {
                let (base, size) = (number(&srat, at + 8, 8), number(&srat, at + 16, 8));
                assert!(base >= end && node < count as usize, "ascending, and none overlaps");
                (bytes, end) = (bytes + size, base + size);
            }
            at += len;
        }
        assert_eq!((at, next), (srat.len(), vcpus as usize));
        assert_eq!(bytes as u64, (gib << 30) - 0x6_0000, "all but the hole below 1 MiB");
        let [least, most] = [processors.iter().min(), processors.iter().max()].map(|n| *n.unwrap());
        assert!(least >= 1 && most - least <= 1, "{processors:?}");
        let slit = nodes::slit(count);
        let n = count as usize;
        assert_eq!((&slit[..4], slit.len(), number(&slit, 36, 8)), (&b"SLIT"[..], 44 + n * n, n));
        let distances = (0..n * n).map(|i| if i % n == i / n { 10 } else { 20 });
        assert!(distances.eq(slit[44..].iter().copied()));
        let with = Tables::new(&board).tables.len();
        assert_eq!(with, Tables::new(&Described { nodes: None, ..board }).tables.len() + 2);
        let names_a_node = |nodes| dsdt::dsdt(&Described { nodes, ..board }).windows(4).any(|w| w == b"_PXM");
        assert!(names_a_node(Some(count)) && !names_a_node(None));
    }
}

/// A node's share is even, on both sides of the hole.
#[test]
fn memory_of_nodes() {
    const MIB: u64 = 1 << 20;
    let layout = Layout::new(Chipset::Q35, 4 << 30);
    assert_eq!(
        nodes::memory(&layout, 2),
        [(0, 0, 0xa_0000), (0, MIB, 2047 * MIB), (1, 4096 * MIB, 2048 * MIB)],
        "the hole begins at 2 GiB"
    );
    let ranges = nodes::memory(&layout, 3);
    assert_eq!(ranges[3..], [(1, 4096 * MIB, 680 * MIB), (2, 4776 * MIB, 1368 * MIB)]);
}

/// Firmware that runs the script comes to the same tables as the linker here.
#[test]
fn the_script_links_as_we_do() {
    const TABLES: usize = 0x7f_0000;
    let tables = Tables::new(&board(Chipset::Q35, 2));
    let mut files = tables.files();
    let script = files.pop().unwrap();
    assert_eq!((script.name.as_str(), script.bytes.len() % 128), ("etc/table-loader", 0));
    let name = |bytes: &[u8]| String::from_utf8(bytes.iter().take_while(|b| **b != 0).copied().collect()).unwrap();
    for entry in script.bytes.chunks(128) {
        let of = name(&entry[4..60]);
        let file = files.iter_mut().find(|f| f.name == of).unwrap();
        match number(entry, 0, 4) {
            1 => assert!(number(entry, 60, 4) >= 16),
            2 => {
                assert_eq!(name(&entry[60..116]), "etc/acpi/tables");
                let (at, size) = (number(entry, 116, 4), number(entry, 120, 1));
                let target = number(&file.bytes, at, size) + TABLES;
                file.bytes[at..at + size].copy_from_slice(&target.to_le_bytes()[..size]);
            }
            3 => {
                let [at, start, len] = [60, 64, 68].map(|i| number(entry, i, 4));
                file.bytes[at] = checksum(&file.bytes[start..start + len]);
            }
            other => panic!("command {other}"),
        }
    }
    let (block, rsdp) = tables.linked(TABLES as u64);
    assert_eq!((&files[0].bytes, &files[1].bytes), (&block, &rsdp));
}

/// Cores that CPUID says share a cache are of one node.
#[test]
fn caches_of_nodes() {
    use crate::model::Cores;
    for vcpus in 1..70 {
        for count in 1..=vcpus.min(8) {
            let Cores { sharing, .. } = Cores::in_nodes(vcpus, count);
            let node_of = |id| nodes::node_of(id, vcpus, count);
            assert!((0..vcpus).all(|id| node_of(id) == node_of(id >> sharing << sharing)), "{vcpus} in {count}");
        }
    }
}
