use super::*;

fn query(model: &str) -> Query {
    Query {
        model: CpuModel::parse(model).unwrap(),
        id: 3,
        cores: 6.into(),
        frequency: Frequency::default(),
        apic: true,
        cr4: 0,
        xcr0: 1,
        xss: 0,
        misc_enable: misc_enable::MONITOR,
    }
}

fn string(q: &Query, leaves: std::ops::RangeInclusive<u32>, order: [usize; 4]) -> String {
    let bytes: Vec<u8> = leaves
        .flat_map(|l| {
            let r = cpuid(q, l, 0);
            order.map(|i| r[i])
        })
        .flat_map(u32::to_le_bytes)
        .collect();
    String::from_utf8(bytes).unwrap().trim_end_matches('\0').into()
}

#[test]
fn names_are_spelled() {
    for (model, brand) in [("intel", "Intel(R) Xeon(R) Platinum 8480+"), ("amd", "AMD EPYC 9354 32-Core Processor")] {
        assert_eq!(string(&query(model), 0x8000_0002..=0x8000_0004, [0, 1, 2, 3]), brand);
    }
    let [_, b, c, d] = cpuid(&query("amd"), 0, 0);
    assert_eq!([b, d, c].map(u32::to_le_bytes).concat(), b"AuthenticAMD");
    let [_, b, c, d] = cpuid(&query("intel"), 0, 0);
    assert_eq!([b, d, c].map(u32::to_le_bytes).concat(), b"GenuineIntel");
}

/// Family, model and stepping, as "Figure 3-6. Version Information" has them.
#[test]
fn signatures() {
    for (model, family, number) in [("intel", 6, 0x8f), ("amd", 0x19, 0x11)] {
        let eax = cpuid(&query(model), 1, 0)[0];
        let base = eax >> 8 & 15;
        assert_eq!(if base == 15 { base + (eax >> 20 & 0xff) } else { base }, family);
        assert_eq!(eax >> 4 & 15 | eax >> 12 & 0xf0, number);
    }
}

#[test]
fn leaves_that_there_are_not() {
    let (intel, amd) = (query("intel"), query("amd"));
    for leaf in [0x20, 0x4000_0000, 0x4000_0001, 0x8000_0009, 0x8fff_ffff, 0xffff_ffff] {
        assert_eq!(cpuid(&intel, leaf, 1), cpuid(&intel, 0x1f, 1), "{leaf:#x}");
    }
    for leaf in [0x11, 0x4000_0000, 0x8000_0027, 0xffff_ffff, 2, 4, 0xa, 0x8000_000a] {
        assert_eq!(cpuid(&amd, leaf, 0), [0; 4], "{leaf:#x}");
    }
    for leaf in [3, 9, 0x12, 0x14, 0x19, 0x17] {
        assert_eq!(cpuid(&intel, leaf, 0), [0; 4], "{leaf:#x}");
    }
    assert!(cpuid(&intel, 1, 0)[2] & 1 << 31 == 0, "there is no hypervisor");
    let limited = Query { misc_enable: misc_enable::LIMIT_CPUID, ..intel };
    assert_eq!(cpuid(&limited, 0, 0)[0], 2);
}

#[test]
fn bits_that_follow_the_state() {
    let q = query("intel");
    assert_eq!(cpuid(&q, 1, 0)[2] >> 27 & 1, 0);
    assert_eq!(cpuid(&Query { cr4: cr4::OSXSAVE, ..q }, 1, 0)[2] >> 27 & 1, 1);
    assert_eq!(cpuid(&Query { cr4: cr4::PKE, ..q }, 7, 0)[2] >> 4 & 1, 1);
    assert_eq!(cpuid(&Query { apic: false, ..q }, 1, 0)[3] >> 9 & 1, 0);
    assert_eq!(cpuid(&Query { apic: false, ..query("amd") }, 0x8000_0001, 0)[3] >> 9 & 1, 0);
    assert_eq!(cpuid(&Query { misc_enable: misc_enable::XD_DISABLE, ..q }, 0x8000_0001, 0)[3] >> 20 & 1, 0);
    assert_eq!(cpuid(&q, 1, 0)[1], 3 << 24 | 8 << 16 | 8 << 8);
}

/// Sizes of XSAVE areas: (model, XCR0) to EBX of leaf 0DH, its ECX, EBX of subleaf 1.
#[test]
fn sizes_of_xsave_areas() {
    for (model, xcr0, now, most, compacted) in [
        ("intel", 1, 576, 2696, 576),
        ("intel", 7, 832, 2696, 832),
        ("intel", 0x207, 2696, 2696, 840),
        ("amd", 0x207, 2696, 2696, 840),
        ("amd,-pku", 7, 832, 832, 832),
        ("amd,-avx", 0x203, 2696, 2696, 584),
    ] {
        let q = Query { xcr0, ..query(model) };
        let (zero, one) = (cpuid(&q, 0xd, 0), cpuid(&q, 0xd, 1));
        assert_eq!((zero[1], zero[2], one[1]), (now, most, compacted), "{model}, {xcr0:#x}");
    }
    assert_eq!(cpuid(&query("intel"), 0xd, 2), [256, 576, 0, 0]);
    assert_eq!(cpuid(&query("intel,-xsave"), 0xd, 0), [0; 4]);
}

/// The TSC's frequency follows from leaf 15H to a few hertz of what it is.
#[test]
fn the_tsc_tells_its_frequency() {
    for hertz in [1_000_000, 999_999_937, 1_000_000_000, 2_500_000_000, 1_000_000_000_000] {
        let q = Query { frequency: Frequency::new(hertz).unwrap(), ..query("intel") };
        let [denominator, numerator, crystal, _] = cpuid(&q, 0x15, 0).map(u64::from);
        let told = crystal * numerator / denominator;
        assert!(hertz - told < numerator, "{hertz}: {told}");
    }
    assert_eq!(cpuid(&query("intel"), 0x15, 0), [24, 625, 38_400_000, 0]);
    assert_eq!(cpuid(&query("intel"), 0x16, 0), [1000, 1000, 100, 0]);
}

#[test]
fn topology() {
    for (leaf, model) in [(0xb, "intel"), (0x1f, "intel"), (0xb, "amd")] {
        let q = query(model);
        assert_eq!(cpuid(&q, leaf, 0), [0, 1, 0x100, 3]);
        assert_eq!(cpuid(&q, leaf, 1), [3, 6, 0x201, 3]);
        assert_eq!(cpuid(&q, leaf, 2), [0, 0, 2, 3]);
    }
    let l3 = cpuid(&query("intel"), 4, 3);
    assert_eq!((l3[0] >> 14 & 0xfff, l3[0] >> 26), (7, 7));
}

/// Leaf 4 and Fn8000_001D tell as Fn8000_0026 does which cores share the last-level cache: as many as make a power of two, all of a node.
#[test]
fn no_cache_is_shared_across_nodes() {
    for (count, nodes, sharing) in
        [(4, 1, 2), (4, 2, 1), (4, 4, 0), (6, 1, 3), (6, 2, 0), (3, 2, 1), (8, 2, 2), (12, 3, 2)]
    {
        let cores = Cores::in_nodes(count, nodes);
        assert_eq!(cores, Cores { count, sharing }, "{count} in {nodes}");
        let group = (1 << sharing) - 1;
        let [intel, amd] = ["intel", "amd"].map(|model| Query { cores, ..query(model) });
        for (q, leaf) in [(&intel, 4), (&amd, 0x8000_001d)] {
            assert_eq!([1, 2, 3].map(|cache| cpuid(q, leaf, cache)[0] >> 14 & 0xfff), [0, 0, group]);
        }
        let complex = cpuid(&amd, 0x8000_0026, 1);
        assert_eq!((complex[0], complex[1]), (sharing, count.min(1 << sharing)));
        let package = cpuid(&amd, 0xb, 1);
        assert_eq!([2, 3].map(|level| cpuid(&amd, 0x8000_0026, level)[..2] == package[..2]), [true; 2]);
    }
}

/// A feature that is switched off is told of nowhere. Of SVM's features the extension tells.
#[test]
fn features_come_and_go() {
    const SVM: u32 = 0x8000_000a;
    for model in ["intel", "amd"] {
        for row in super::super::features::ROWS.iter().filter(|r| !matches!(r.place.leaf, u32::MAX | SVM)) {
            let q = Query { cr4: 0, ..query(model) };
            let p = row.place;
            let told = cpuid(&q, p.leaf, p.subleaf)[usize::from(p.register)] >> p.bit & 1 != 0;
            if cpuid(&q, p.leaf & 0x8000_0000, 0)[0] >= p.leaf {
                assert_eq!(told, q.model.has(row.feature), "{model}: {}", row.name);
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn every_leaf_has_an_answer(leaf: u32, subleaf: u32, amd: bool, cores in 1u32..5000) {
        let q = Query { cores: cores.into(), ..query(if amd { "amd" } else { "intel" }) };
        for leaf in [leaf, leaf & 0x3f, leaf & 0x8000_003f] {
            cpuid(&q, leaf, subleaf);
        }
    }
}
