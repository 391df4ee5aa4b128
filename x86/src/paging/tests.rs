//! The tables of the manual's section "Access Rights", row by row, and the shapes of entries.

use std::collections::BTreeMap;

use super::entry::{A, D, G, P, PS, RW, US, XD};
use super::*;

/// Memory that has what was put there, and is 0 elsewhere.
#[derive(Default)]
struct Memory(BTreeMap<u64, u64>);

impl Tables for Memory {
    type Stop = ();

    fn read(&mut self, address: u64, size: u8) -> Result<u64, ()> {
        let word = self.0.get(&(address & !7)).copied().unwrap_or(0);
        Ok(if size == 8 { word } else { word >> (8 * (address & 4)) & 0xffff_ffff })
    }

    fn write(&mut self, address: u64, size: u8, value: u64) -> Result<(), ()> {
        let word = self.0.entry(address & !7).or_default();
        let shift = 8 * (address & 4);
        *word = if size == 8 { value } else { *word & !(0xffff_ffff << shift) | value << shift };
        Ok(())
    }
}

const LINEAR: u64 = 0x12_3456_7abc;
const PAGE: u64 = 0x7_0000_1000;
const TABLES: u64 = 0x10_0000;

fn long() -> Controls {
    Controls {
        cr0: cr0::PE | cr0::PG | cr0::WP,
        cr3: TABLES,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA | efer::NXE,
        pkru: 0,
        pkrs: 0,
        pdptes: Some([0; 4]),
        physical_bits: 46,
        has_1g: true,
        has_pse36: true,
        reserves_bit_8: false,
        is_nested: false,
    }
}

const READ: Access = Access { kind: Kind::Read, user: false, implicit: false, ac: false, shadow_stack: false };
const WRITE: Access = Access { kind: Kind::Write, ..READ };
const FETCH: Access = Access { kind: Kind::Fetch, ..READ };

fn user(access: Access) -> Access {
    Access { user: true, ..access }
}

/// Tables for `LINEAR` with these flags in each entry, from level 4 down; the last one maps `PAGE`, large if it has PS.
fn tables(flags: &[u64]) -> Memory {
    let mut memory = Memory::default();
    for (i, flags) in flags.iter().enumerate() {
        let level = 4 - i as u64;
        let to = if i == 3 || flags & PS != 0 {
            PAGE & !((1 << (12 + 9 * (level - 1))) - 1)
        } else {
            TABLES + 0x1000 * (i as u64 + 1)
        };
        let at = TABLES + 0x1000 * i as u64 + (LINEAR >> (12 + 9 * (level - 1)) & 0x1ff) * 8;
        memory.0.insert(at, to | flags);
    }
    memory
}

const ALL: u64 = P | RW | US;

#[test]
fn four_levels_lead_to_a_page_and_leave_their_flags() {
    let mut m = tables(&[ALL, ALL, ALL, ALL | G]);
    let t = long().translate(&mut m, LINEAR, READ).unwrap();
    let rights = Rights { user: true, writable: true, executable: true };
    assert_eq!(
        t,
        Translated { physical: PAGE | 0xabc, size_log2: 12, read: true, write: false, global: false, rights }
    );
    assert!(m.0.values().all(|e| e & A != 0 && e & D == 0));
    let controls = Controls { cr4: cr4::PAE | cr4::PGE, ..long() };
    let t = controls.translate(&mut m, LINEAR, user(WRITE)).unwrap();
    assert!(t.write && t.global);
    assert_eq!(m.0.values().filter(|e| **e & D != 0).count(), 1);
}

#[test]
fn large_pages() {
    for (flags, size, physical) in [
        (vec![ALL, ALL, ALL | PS], 21, PAGE & !0x1f_ffff | LINEAR & 0x1f_ffff),
        (vec![ALL, ALL | PS], 30, PAGE & !0x3fff_ffff | LINEAR & 0x3fff_ffff),
    ] {
        let t = long().translate(&mut tables(&flags), LINEAR, READ).unwrap();
        assert_eq!((t.size_log2, t.physical), (size, physical));
        // Reserved bits below the address; bit 12 is PAT.
        for (bit, faults) in [(12, false), (13, true), (20, true)] {
            let mut m = tables(&flags);
            let last = *m.0.iter().next_back().unwrap().0;
            *m.0.get_mut(&last).unwrap() |= 1 << bit;
            let reserved = Err(Fail::PageFault(error::P | error::RSVD));
            assert_eq!(long().translate(&mut m, LINEAR, READ).map(drop), if faults { reserved } else { Ok(()) });
        }
    }
    let without = Controls { has_1g: false, ..long() };
    let fault = without.translate(&mut tables(&[ALL, ALL | PS]), LINEAR, READ);
    assert_eq!(fault, Err(Fail::PageFault(error::P | error::RSVD)));
}

#[test]
fn an_entry_that_is_absent_or_reserved_faults_at_its_level() {
    for level in 0..4 {
        let mut flags = [ALL; 4];
        flags[level] = RW | US;
        let mut m = tables(&flags);
        assert_eq!(long().translate(&mut m, LINEAR, user(WRITE)), Err(Fail::PageFault(error::WR | error::US)));
        // Those above have been used.
        assert_eq!(m.0.values().filter(|e| **e & A != 0).count(), level);
        for bit in [46, 51] {
            flags[level] = ALL | 1 << bit;
            let fault = long().translate(&mut tables(&flags), LINEAR, READ);
            assert_eq!(fault, Err(Fail::PageFault(error::P | error::RSVD)), "level {level}, bit {bit}");
        }
        // XD is reserved without NXE; bits 62 to 52 are ignored.
        flags[level] = ALL | XD;
        let without = Controls { efer: efer::LME | efer::LMA, ..long() };
        let fault = without.translate(&mut tables(&flags), LINEAR, READ);
        assert_eq!(fault, Err(Fail::PageFault(error::P | error::RSVD)));
        flags[level] = ALL | 0x7ff << 52;
        assert!(long().translate(&mut tables(&flags), LINEAR, READ).is_ok());
    }
    // PS where no page can be mapped.
    let mut m = tables(&[ALL; 4]);
    *m.0.first_entry().unwrap().get_mut() |= PS;
    assert_eq!(long().translate(&mut m, LINEAR, READ), Err(Fail::PageFault(error::P | error::RSVD)));
}

/// "Access Rights", one row a line: control bits, entry flags, access, whether it is allowed.
#[test]
fn rights() {
    let wp = long();
    let no_wp = Controls { cr0: cr0::PE | cr0::PG, ..long() };
    let smap = Controls { cr4: cr4::PAE | cr4::SMAP, ..long() };
    let smep = Controls { cr4: cr4::PAE | cr4::SMEP, ..long() };
    let smap_no_wp = Controls { cr0: no_wp.cr0, ..smap };
    let (supervisor, read_only) = (P | RW, P | US);
    let ac = |a: Access| Access { ac: true, ..a };
    let implicit = |a: Access| Access { implicit: true, ac: true, ..a };
    let rows = [
        (wp, supervisor, READ, true),
        (wp, ALL, READ, true),
        (smap, ALL, READ, false),
        (smap, ALL, ac(READ), true),
        (smap, ALL, implicit(READ), false),
        (smap, supervisor, READ, true),
        (wp, P, WRITE, false),
        (no_wp, P, WRITE, true),
        (wp, supervisor, WRITE, true),
        (no_wp, read_only, WRITE, true),
        (wp, read_only, WRITE, false),
        (smap, ALL, WRITE, false),
        (smap, ALL, ac(WRITE), true),
        (smap, read_only, ac(WRITE), false),
        (smap_no_wp, read_only, ac(WRITE), true),
        (smap_no_wp, read_only, WRITE, false),
        (wp, supervisor, FETCH, true),
        (wp, supervisor | XD, FETCH, false),
        (wp, ALL, FETCH, true),
        (smep, ALL, FETCH, false),
        (smep, supervisor, FETCH, true),
        (wp, ALL, user(READ), true),
        (wp, supervisor, user(READ), false),
        (wp, ALL, user(WRITE), true),
        (no_wp, read_only, user(WRITE), false),
        (wp, ALL, user(FETCH), true),
        (wp, ALL | XD, user(FETCH), false),
        (wp, supervisor, user(FETCH), false),
    ];
    for (i, (controls, flags, access, allowed)) in rows.into_iter().enumerate() {
        // The one entry that refuses may stand at any level.
        for level in 0..4 {
            let mut all = [ALL; 4];
            if flags & US == 0 || flags & RW == 0 || flags & XD != 0 {
                all[level] = flags;
            }
            let result = controls.translate(&mut tables(&all), LINEAR, access);
            assert_eq!(result.is_ok(), allowed, "row {i}, level {level}: {result:?}");
            if let Err(Fail::PageFault(code)) = result {
                assert_eq!(code & error::P, error::P);
                assert_eq!(code & error::WR != 0, access.kind == Kind::Write);
                assert_eq!(code & error::US != 0, access.user);
                assert_eq!(code & error::ID != 0, access.kind == Kind::Fetch);
            }
        }
    }
}

#[test]
fn a_fetch_is_told_only_where_it_can_be_refused() {
    let without = Controls { efer: efer::LME | efer::LMA, ..long() };
    let absent = tables(&[0; 4]);
    let code = |controls: Controls| match controls.translate(&mut Memory(absent.0.clone()), LINEAR, FETCH) {
        Err(Fail::PageFault(code)) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(without), 0);
    assert_eq!(code(Controls { cr4: cr4::PAE | cr4::SMEP, ..without }), error::ID);
    assert_eq!(code(long()), error::ID);
}

/// Key 3: bit 6 of PKRU is AD, bit 7 WD.
#[test]
fn protection_keys() {
    let key = 3 << 59;
    let pku = |pkru| Controls { cr4: cr4::PAE | cr4::PKE, pkru, ..long() };
    let pks = |pkrs| Controls { cr4: cr4::PAE | cr4::PKS, pkrs, ..long() };
    let no_wp = |c: Controls| Controls { cr0: cr0::PE | cr0::PG, ..c };
    let user_page = [ALL, ALL, ALL, ALL | key];
    let supervisor_page = [ALL, ALL, ALL, P | RW | key];
    let refused = |access: Access| Err(Fail::PageFault(long().error_code(access, error::P | error::PK)));
    for (controls, flags, access, allowed) in [
        (pku(1 << 6), user_page, user(READ), false),
        (pku(1 << 6), user_page, READ, false),
        (pku(1 << 6), user_page, user(FETCH), true),
        (pku(1 << 6), supervisor_page, READ, true),
        (pku(1 << 7), user_page, user(READ), true),
        (pku(1 << 7), user_page, user(WRITE), false),
        (pku(1 << 7), user_page, WRITE, false),
        (no_wp(pku(1 << 7)), user_page, WRITE, true),
        (no_wp(pku(1 << 7)), user_page, user(WRITE), false),
        (pku(3 << 8), user_page, user(WRITE), true),
        (pks(1 << 6), supervisor_page, READ, false),
        (pks(1 << 6), user_page, READ, true),
        (pks(1 << 7), supervisor_page, WRITE, false),
        (no_wp(pks(1 << 7)), supervisor_page, WRITE, true),
    ] {
        let result = controls.translate(&mut tables(&flags), LINEAR, access).map(drop);
        assert_eq!(result, if allowed { Ok(()) } else { refused(access) }, "{access:?}");
    }
}

#[test]
fn thirty_two_bits() {
    let controls = Controls { cr4: cr4::PSE, efer: 0, cr3: TABLES | 0x18, ..long() };
    let linear = 0x1234_5678;
    let mut m = Memory::default();
    m.write(TABLES + (linear >> 22) * 4, 4, (TABLES + 0x1000) | ALL).unwrap();
    m.write(TABLES + 0x1000 + (linear >> 12 & 0x3ff) * 4, 4, 0x4000_0000 | ALL).unwrap();
    let t = controls.translate(&mut m, linear, user(WRITE)).unwrap();
    assert_eq!((t.physical, t.size_log2, t.write), (0x4000_0678, 12, true));
    // PSE-36: bits 20 to 13 go above bit 31.
    m.write(TABLES + (linear >> 22) * 4, 4, 0x4000_0000 | 3 << 13 | PS | ALL).unwrap();
    let t = controls.translate(&mut m, linear, READ).unwrap();
    assert_eq!((t.physical, t.size_log2), (0x3_4000_0000 | linear & 0x3f_ffff, 22));
    let without = Controls { has_pse36: false, ..controls };
    assert_eq!(without.translate(&mut m, linear, READ), Err(Fail::PageFault(error::P | error::RSVD)));
    // Without CR4.PSE, PS is ignored.
    let plain = Controls { cr4: 0, ..controls };
    m.write(TABLES + (linear >> 22) * 4, 4, (TABLES + 0x1000) | PS | ALL).unwrap();
    assert_eq!(plain.translate(&mut m, linear, READ).unwrap().physical, 0x4000_0678);
}

#[test]
fn pae_begins_at_its_registers() {
    let mut controls = Controls { efer: efer::NXE, ..long() };
    controls.pdptes = Some([0, TABLES | P, 0, 0]);
    let linear = 0x4567_8abc;
    let mut m = Memory::default();
    m.write(TABLES + (linear >> 21 & 0x1ff) * 8, 8, (TABLES + 0x1000) | ALL).unwrap();
    m.write(TABLES + 0x1000 + (linear >> 12 & 0x1ff) * 8, 8, PAGE | ALL).unwrap();
    let t = controls.translate(&mut m, linear, user(READ)).unwrap();
    assert_eq!((t.physical, t.size_log2), (PAGE | 0xabc, 12));
    assert_eq!(controls.translate(&mut m, linear & 0x3fff_ffff, READ), Err(Fail::PageFault(0)));
    // Bits 62 to 52 are reserved in this mode.
    m.write(TABLES + (linear >> 21 & 0x1ff) * 8, 8, (TABLES + 0x1000) | ALL | 1 << 52).unwrap();
    assert_eq!(controls.translate(&mut m, linear, READ), Err(Fail::PageFault(error::P | error::RSVD)));
}

#[test]
fn five_levels() {
    let controls = Controls { cr4: cr4::PAE | cr4::LA57, cr3: 0x20_0000, ..long() };
    let linear = 5 << 48 | LINEAR;
    let mut m = tables(&[ALL; 4]);
    m.write(0x20_0000 + 5 * 8, 8, TABLES | ALL).unwrap();
    assert_eq!(controls.translate(&mut m, linear, READ).unwrap().physical, PAGE | 0xabc);
    m.write(0x20_0000 + 5 * 8, 8, TABLES | ALL | PS).unwrap();
    assert_eq!(controls.translate(&mut m, linear, READ), Err(Fail::PageFault(error::P | error::RSVD)));
    assert!(controls.is_canonical(linear) && !long().is_canonical(linear));
}

#[test]
fn metadata_of_pointers() {
    let of = |cr3, cr4, linear| Controls { cr3, cr4: cr4 | cr4::PAE, ..long() }.without_metadata(linear);
    assert_eq!(of(0, 0, 0x7e00_0000_0000_1000), 0x7e00_0000_0000_1000);
    assert_eq!(of(cr3::LAM_U57, 0, 0x7e00_0000_0000_1000), 0x1000);
    assert_eq!(of(cr3::LAM_U57, 0, 0x7e80_0000_0000_1000), 0x0080_0000_0000_1000, "bits 56 to 47 are checked");
    assert_eq!(of(cr3::LAM_U48, 0, 0x7fff_0000_0000_1000), 0x1000);
    assert_eq!(of(cr3::LAM_U48 | cr3::LAM_U57, 0, 0x7fff_0000_0000_1000), 0x7fff_0000_0000_1000);
    assert_eq!(of(cr3::LAM_U57, 0, 0x8000_8000_0000_1000), 0x8000_8000_0000_1000, "a supervisor-mode address");
    assert_eq!(of(0, cr4::LAM_SUP, 0x8000_8000_0000_1000), 0xffff_8000_0000_1000);
    assert_eq!(of(0, cr4::LAM_SUP | cr4::LA57, 0x8100_8000_0000_1000), 0xff00_8000_0000_1000);
}

/// "Shadow-Stack Accesses": only dirty pages that their last entry alone write-protects, of the access's own mode; and nothing else may
/// write there.
#[test]
fn shadow_stack_pages() {
    let shadow = |a: Access| Access { shadow_stack: true, ..a };
    let cet = Controls { cr4: cr4::PAE | cr4::CET, ..long() };
    let (sup, not_writable) = (P | RW, P | US | D);
    for (flags, access, fault) in [
        ([ALL, ALL, ALL, P | US | D], shadow(user(READ)), None),
        ([ALL, ALL, ALL, P | US | D], shadow(user(WRITE)), None),
        ([ALL, ALL, ALL, P | D], shadow(WRITE), None),
        ([ALL, sup, ALL, P | US | D], shadow(WRITE), None),
        // Of the other mode.
        ([ALL, ALL, ALL, P | D], shadow(user(READ)), Some(error::P | error::US)),
        ([ALL, ALL, ALL, P | US | D], shadow(READ), Some(error::P)),
        ([ALL, ALL, ALL, P | US | D], shadow(WRITE), Some(error::P | error::WR)),
        // Writable, not dirty, not writable above.
        ([ALL, ALL, ALL, ALL | D], shadow(user(READ)), Some(error::P | error::US)),
        ([ALL, ALL, ALL, ALL | D], shadow(user(WRITE)), Some(error::P | error::US | error::WR)),
        ([ALL, ALL, ALL, P | US], shadow(user(READ)), Some(error::P | error::US)),
        ([ALL, P | US, ALL, not_writable], shadow(user(READ)), Some(error::P | error::US)),
        ([ALL, ALL, ALL, US], shadow(user(WRITE)), Some(error::US | error::WR)),
    ] {
        let result = cet.translate(&mut tables(&flags), LINEAR, access).map(|t| (t.read, t.write));
        let expected = fault.map_or(Ok((true, true)), |code| Err(Fail::PageFault(code | error::SS)));
        assert_eq!(result, expected, "{flags:x?}, {access:?}");
    }
    // Others read there, and do not write.
    for (access, writes) in [(user(READ), false), (READ, false), (user(WRITE), true), (WRITE, true)] {
        let result = cet.translate(&mut tables(&[ALL, ALL, ALL, not_writable]), LINEAR, access);
        assert_eq!(result.is_err(), writes, "{access:?}");
    }
    // Large pages have the bits in their own last entry; protection keys count.
    assert!(cet.translate(&mut tables(&[ALL, ALL, P | US | D | PS]), LINEAR, shadow(user(WRITE))).is_ok());
    let keys = Controls { cr4: cet.cr4 | cr4::PKE, pkru: 2 << 6, ..cet };
    let mut m = tables(&[ALL, ALL, ALL, not_writable | 3 << 59]);
    assert!(keys.translate(&mut m, LINEAR, shadow(user(READ))).is_ok_and(|t| !t.write));
    let refused = Err(Fail::PageFault(error::P | error::US | error::WR | error::PK | error::SS));
    assert_eq!(keys.translate(&mut m, LINEAR, shadow(user(WRITE))), refused);
}

/// Likewise of 32-bit paging, whose entries have 4 bytes.
#[test]
fn shadow_stack_pages_of_32_bits() {
    let controls = Controls { cr4: cr4::CET | cr4::PSE, efer: 0, ..long() };
    let linear = 0x40_3123u64;
    let access = Access { shadow_stack: true, user: true, ..WRITE };
    for (pde, pte, allowed) in [(ALL, P | US | D, true), (P | US, P | US | D, false), (ALL, ALL | D, false)] {
        let mut m = Memory::default();
        m.write(TABLES + 4, 4, (TABLES + 0x1000) | pde).unwrap();
        m.write(TABLES + 0x1000 + 12, 4, 0x5000 | pte).unwrap();
        assert_eq!(controls.translate(&mut m, linear, access).is_ok(), allowed, "{pde:x}, {pte:x}");
    }
    let mut m = Memory::default();
    m.write(TABLES + 4, 4, 0x80_0000 | P | US | D | PS).unwrap();
    assert!(controls.translate(&mut m, linear, access).is_ok());
}
