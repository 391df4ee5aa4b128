use super::*;

#[test]
fn pages_of_all_sizes_by_tables_of_all_depths() {
    for (levels, width) in [(3u8, 1), (4, 2), (5, 3)] {
        let top = 1 << (12 + 9 * (u32::from(levels) - 1)) | 0x4020_1000;
        for (level, page, large, size) in
            [(1u8, 0x1_2000, 0, 0x1000), (2, 0x60_0000, 0x80, 0x20_0000), (3, 0x8000_0000, 0x80, 0x4000_0000)]
        {
            let mut r = Rig::new();
            r.set_context(TABLE | 1, DOMAIN << 8 | width);
            r.map(top, levels, level, page | RW | large);
            let offset = top & (size - 1);
            assert_eq!(r.access_by(SOURCE, top + 0x123, true), Some((page + offset + 0x123, size - offset - 0x123)));
            assert_eq!(r.access_by(SOURCE, top | (size - 1), false), Some((page | (size - 1), 1)), "{levels} {level}");
            assert_eq!(r.fault(), None);
        }
    }
}

#[test]
fn without_translation_and_in_the_interrupt_range() {
    let mut r = Rig::new();
    assert_eq!(r.writes(0xfee0_1000), Some(0xfee0_1000));
    r.w(GCMD_REG, gcmd::QIE);
    assert_eq!((r.writes(0x1234), r.r(GSTS_REG) & gcmd::TE), (Some(0x1234), 0));
}

#[test]
fn rights_of_all_levels_count() {
    for (upper, lower) in [(1, 3), (3, 1), (2, 3), (3, 2), (1, 2)] {
        let mut r = Rig::new();
        r.map(0x1000, 4, 1, 0x1_0000 | lower);
        let at = TABLE + 0x1000;
        let table = r.load(at) & !3;
        r.store(at, table | upper);
        let rights = upper & lower;
        assert_eq!((r.reads(0x1000).is_some(), r.writes(0x1000).is_some()), (rights & 1 != 0, rights & 2 != 0));
        assert_eq!(r.fault(), if rights & 1 == 0 { Some(6) } else { Some(5) });
    }
}

/// Each case spoils something of a translation that is there.
#[test]
fn fault_reasons() {
    const HAW: u64 = 1 << 46;
    const ENTRY: u64 = CONTEXTS + 16 * SOURCE as u64;
    let good = |r: &mut Rig| r.map(0x1000, 4, 1, 0x1_0000 | RW);
    let leaf = TABLE + 0x3000 + 8;
    for (at, bits, reason, spoils) in [
        (ROOT, 0, 0x1, "no root entry"),
        (ROOT, 1 << 5 | CONTEXTS | 1, 0xa, "reserved"),
        (ROOT, HAW | CONTEXTS | 1, 0xa, "beyond the host address width"),
        (ROOT + 8, 1, 0xa, "reserved"),
        (ROOT, RAM | 1, 0x9, "a context table that is no RAM"),
        (ENTRY, 0, 0x2, "no context entry"),
        (ENTRY, TABLE | 1 << 4 | 1, 0xb, "reserved"),
        (ENTRY, TABLE | HAW | 1, 0xb, "beyond the host address width"),
        (ENTRY + 8, DOMAIN << 8 | 1 << 7 | 2, 0xb, "reserved"),
        (ENTRY + 8, DOMAIN << 8 | 1 << 24 | 2, 0xb, "reserved"),
        (ENTRY, TABLE | 1 << 2 | 1, 0x3, "a device TLB"),
        (ENTRY, TABLE | 3 << 2 | 1, 0x3, "no such type"),
        (ENTRY + 8, DOMAIN << 8, 0x3, "no such width"),
        (ENTRY + 8, DOMAIN << 8 | 4, 0x3, "no such width"),
        (ENTRY, RAM | 1, 0x7, "a table that is no RAM"),
        (TABLE, RAM | RW, 0x7, "a table that is no RAM"),
        (TABLE, (TABLE + 0x1000) | 0x80 | RW, 0xc, "a page of 512 GiB"),
        (TABLE, (TABLE + 0x1000) | 1 << 11 | RW, 0xc, "SNP of a table"),
        (TABLE + 0x1000, 0x1000 | 0x80 | RW, 0xc, "a page of 1 GiB that is not aligned"),
        (TABLE + 0x2000, 0x1000 | 0x80 | RW, 0xc, "a page of 2 MiB that is not aligned"),
        (leaf, 0x1_0000 | HAW | RW, 0xc, "beyond the host address width"),
        (leaf, 0x1_0000 | 1 << 62 | RW, 0xc, "a transient mapping"),
        (leaf, 0x1_0000 | HAW | 2, 0xc, "reserved bits count before rights"),
        (leaf, 0x1_0000 | HAW, 0x6, "of what is not present they do not count"),
        (leaf, 0x1_0000 | 2, 0x6, "no right to read"),
    ] {
        let mut r = Rig::new();
        good(&mut r);
        r.store(at, bits);
        assert_eq!((r.reads(0x1000), r.take_fault()), (None, Some((reason, frcd::T | 8, 0x1000))), "{spoils}");
        let mut r = Rig::new();
        good(&mut r);
        assert_eq!((r.reads(0x1000), r.fault()), (Some(0x1_0000), None));
    }
    let mut r = Rig::new();
    r.map(0x1000, 4, 1, 0x1_0000 | 1 << 11 | 0x7c | RW);
    assert_eq!(r.writes(0x1fff), Some(0x1_0fff), "what is ignored");
    assert_eq!((r.writes(1 << 48), r.take_fault()), (None, Some((4, 8, 1 << 48))));
    r.w(RTADDR_REG, RAM);
    assert_eq!(r.writes(0x1000), Some(0x1_0000), "it is not taken yet, and cached");
    r.w(GCMD_REG, gcmd::SRTP | gcmd::TE | gcmd::QIE);
    assert_eq!((r.access_by(9, 0, true), r.fault()), (None, Some(8)));
}

#[test]
fn pass_through() {
    let mut r = Rig::new();
    r.set_context(2 << 2 | 1, DOMAIN << 8 | 3);
    assert_eq!((r.access_by(SOURCE, 0x1234, true), r.reads(1 << 50)), (Some((0x1234, 0xdcc)), Some(1 << 50)));
    assert_eq!((r.reads(1 << 57), r.fault()), (None, Some(4)));
}

/// "Fault Processing Disable".
#[test]
fn faults_that_nobody_wants() {
    let mut r = Rig::new();
    r.set_context(TABLE | 2 | 1, DOMAIN << 8 | 2);
    assert_eq!((r.reads(0x1000), r.reads(1 << 50), r.fault()), (None, None, None));
    r.set_context(2, 0);
    r.w(CCMD_REG, INVALIDATE | 1 << 61);
    assert_eq!((r.reads(0x1000), r.fault()), (None, None));
    r.store(ROOT, 0);
    assert_eq!((r.reads(0x1000), r.fault()), (None, Some(1)), "there is no context entry that says so");
}
