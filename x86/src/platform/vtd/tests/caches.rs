use super::*;

/// A page of 4 KiB at 1000h and one of 2 MiB at 20_0000h, both read once; then their entries change.
fn changed() -> Rig {
    let mut r = Rig::new();
    r.map(0x1000, 4, 1, 0x1_0000 | RW);
    r.map(0x20_0000, 4, 2, 0x40_0000 | 0x80 | RW);
    assert_eq!(seen(&mut r), [0x1_0000, 0x40_1000]);
    r.map(0x1000, 4, 1, 0x2_0000 | RW);
    r.map(0x20_0000, 4, 2, 0x80_0000 | 0x80 | RW);
    assert_eq!(seen(&mut r), [0x1_0000, 0x40_1000], "nobody has invalidated anything");
    r
}

fn seen(r: &mut Rig) -> [u64; 2] {
    [0x1000, 0x20_1000].map(|at| r.reads(at).unwrap())
}

const OLD: [u64; 2] = [0x1_0000, 0x40_1000];
const NEW: [u64; 2] = [0x2_0000, 0x80_1000];

#[test]
fn iotlb_invalidation_by_descriptors() {
    const DID: u64 = DOMAIN << 16;
    for (low, high, expected) in [
        (1 << 4 | 2, 0, NEW),
        (2 << 4 | DID | 2, 0, NEW),
        (2 << 4 | (DOMAIN + 1) << 16 | 2, 0, OLD),
        (3 << 4 | DID | 2, 0x1000, [NEW[0], OLD[1]]),
        (3 << 4 | DID | 2, 0x2000, OLD),
        (3 << 4 | DID | 2, 1, [NEW[0], OLD[1]]),
        (3 << 4 | DID | 2, 0x2f_f000, [OLD[0], NEW[1]]),
        (3 << 4 | DID | 2, 10, NEW),
        (3 << 4 | 0xc0 | DID | 2, 1 << 6 | 18, NEW),
        (3 << 4 | (DOMAIN + 1) << 16 | 2, 18, OLD),
    ] {
        let mut r = changed();
        r.queue(low, high);
        assert_eq!((seen(&mut r), r.r(FSTS_REG)), (expected, 0), "{low:#x} {high:#x}");
    }
}

/// "IOTLB Invalidate Register": it says by which granularity.
#[test]
fn iotlb_invalidation_by_registers() {
    const DID: u64 = DOMAIN << 32;
    for (command, address, actual, expected) in [
        (1 << 60, 0, 1, NEW),
        (2 << 60 | DID, 0, 2, NEW),
        (3 << 60 | DID, 0x1000, 3, [NEW[0], OLD[1]]),
        (3 << 60 | DID, 19, 0, OLD),
        (0, 0, 0, OLD),
    ] {
        let mut r = changed();
        r.w(IVA_REG, address);
        r.w(IOTLB_REG, command);
        assert_eq!(seen(&mut r), OLD, "IVT is clear");
        r.w(IOTLB_REG, INVALIDATE | command);
        assert_eq!((r.r(IOTLB_REG) >> 57 & 3, r.r(IOTLB_REG) & INVALIDATE, seen(&mut r)), (actual, 0, expected));
    }
}

#[test]
fn context_invalidation() {
    for (granularity, domain, source, mask, hits) in [
        (1, 0, 0, 0, true),
        (2, DOMAIN, 0, 0, true),
        (2, DOMAIN + 1, 0, 0, false),
        (3, DOMAIN, 8, 0, true),
        (3, DOMAIN, 9, 0, false),
        (3, DOMAIN, 15, 3, true),
        (3, DOMAIN, 16, 3, false),
        (3, DOMAIN + 1, 8, 0, false),
    ] {
        for queued in [false, true] {
            let mut r = Rig::new();
            r.map(0x1000, 4, 1, 0x1_0000 | RW);
            assert!(r.reads(0x1000).is_some());
            r.set_context(0, 0);
            assert!(r.reads(0x1000).is_some(), "cached");
            if queued {
                r.queue(mask << 48 | source << 32 | domain << 16 | granularity << 4 | 1, 0);
            } else {
                r.w(CCMD_REG, INVALIDATE | granularity << 61 | mask << 32 | source << 16 | domain);
                assert_eq!(r.r(CCMD_REG) >> 59, granularity << 2 | granularity);
            }
            assert_eq!(r.reads(0x1000).is_none(), hits, "{granularity} {domain} {source} {mask}");
        }
    }
}

/// Translations belong to domains: another source of the same domain finds them, another domain does not.
#[test]
fn tags() {
    let mut r = changed();
    let at = CONTEXTS + 16 * 16;
    r.store(at, TABLE | 1);
    r.store(at + 8, DOMAIN << 8 | 2);
    assert_eq!(r.access_by(16, 0x1000, false).unwrap().0, OLD[0]);
    r.store(at + 16, TABLE | 1);
    r.store(at + 24, (DOMAIN + 1) << 8 | 2);
    assert_eq!(r.access_by(17, 0x1000, false).unwrap().0, NEW[0]);
}

/// What is not present is cached in caching mode only.
#[test]
fn caching_mode() {
    for caching_mode in [false, true] {
        let mut r = Rig::with(VtdConfig { caching_mode, ..VtdConfig::default() });
        r.map(0x1000, 4, 1, 0);
        r.set_context(0, 0);
        assert_eq!((r.reads(0x1000), r.fault()), (None, Some(2)));
        r.set_context(TABLE | 1, DOMAIN << 8 | 2);
        if caching_mode {
            assert_eq!((r.reads(0x1000), r.fault()), (None, Some(2)));
            r.queue(1 << 4 | 1, 0);
        }
        assert_eq!((r.reads(0x1000), r.fault()), (None, Some(6)));
        r.map(0x1000, 4, 1, 0x1_0000 | RW);
        if caching_mode {
            assert_eq!((r.reads(0x1000), r.fault()), (None, Some(6)));
            r.queue(1 << 4 | 2, 0);
        }
        assert_eq!((r.reads(0x1000), r.fault()), (Some(0x1_0000), None));
    }
}

/// A right that was cached is the right that there is.
#[test]
fn rights_are_cached() {
    let mut r = Rig::new();
    r.map(0x1000, 4, 1, 0x1_0000 | 1);
    assert!(r.reads(0x1000).is_some() && r.writes(0x1000).is_none());
    r.map(0x1000, 4, 1, 0x1_0000 | RW);
    assert_eq!((r.writes(0x1000), r.fault()), (None, Some(5)));
    r.queue(1 << 4 | 2, 0);
    assert!(r.writes(0x1000).is_some());
}
