use emu_core::engine::World;
use emu_core::machine::{Machine, Schedule};
use emu_core::time::Frequency;

use super::table::{ROWS, Row};
use super::*;
use crate::model::CpuModel;

fn machine(model: &str) -> Machine<X86> {
    let arch = X86::flat_64().of_model(CpuModel::parse(model).unwrap(), 0, 1, 1);
    let mut machine = Machine::new(World::new(Frequency::default()), vec![arch], Schedule::new(1000, 0));
    machine.set_waiting(0);
    machine.run(0);
    machine
}

fn at<T>(m: &mut Machine<X86>, f: impl FnOnce(&mut P) -> T) -> T {
    f(&mut m.vcpus[0].at(&mut m.world))
}

/// What a register holds at first; `None`: there is none.
#[test]
fn values_after_reset() {
    for (model, number, value) in [
        ("intel", 0x1b, Some(0xfee0_0900)),
        ("intel", 0x3a, Some(0)),
        ("intel", 0xce, Some(0x0a00_8000_0a00)),
        ("intel", 0xfe, Some(0xd0a)),
        ("amd", 0xfe, Some(0x508)),
        ("intel", 0x277, Some(0x0007_0406_0007_0406)),
        ("intel", 0x8b, Some(0)),
        ("amd", 0x8b, Some(0x0a10_11ff)),
        ("intel", 0x49, None),
        ("intel", 0x1a0, Some(0x0005_1881)),
        ("intel", 0x480, None),
        ("amd", 0x480, None),
        ("amd", 0x3a, None),
        ("amd", 0x1a0, None),
        ("intel", 0xc001_0015, None),
        ("amd", 0xc001_0015, Some(1 << 24)),
        ("amd", 0xc001_0114, Some(0x18)),
        ("amd", 0xc001_0064, Some(1 << 63 | 0x828)),
        ("amd", 0xc001_1029, Some(2)),
        ("amd", 0xc001_0117, None),
        ("intel", 0x38f, Some(0xff)),
        ("intel", 0x6e1, None),
        ("intel,+pks", 0x6e1, Some(0)),
        ("intel,-mtrr", 0x2ff, None),
        ("intel", 0x4000_0000, None),
        ("amd", 0xffff_ffff, None),
    ] {
        let mut m = machine(model);
        assert_eq!(at(&mut m, |h| read(h, number)).ok(), value, "{model}, {number:#x}");
    }
}

/// What is written, and what is read then; `None`: #GP.
#[test]
fn values_that_are_taken() {
    const LOW: u64 = 0x0000_7fff_ffff_f000;
    const HIGH: u64 = 0xffff_8000_0000_0000;
    const NON_CANONICAL: u64 = 0x0000_8000_0000_0000;
    for (model, number, value, then) in [
        ("intel", n::PAT, 0x0007_0105_0407_0006, Some(0x0007_0105_0407_0006)),
        ("intel", n::PAT, 0x02, None),
        ("intel", n::PAT, 0x08 << 56, None),
        ("intel", 0x200, 0x3f_ffff_f006, Some(0x3f_ffff_f006)),
        ("intel", 0x200, 1 << 46, None),
        ("amd", 0x200, 1 << 46, Some(1 << 46)),
        ("intel", 0x200, 0x1006 | 1 << 8, None),
        ("intel", 0x200, 2, None),
        ("intel", 0x201, 0x3f_ffff_f800, Some(0x3f_ffff_f800)),
        ("intel", 0x201, 0x400, None),
        ("intel", 0x213, 0x800, Some(0x800)),
        ("amd", 0x213, 0x800, None),
        ("intel", 0x250, 0x0606_0606_0505_0401, Some(0x0606_0606_0505_0401)),
        ("intel", 0x250, 7, None),
        ("amd", 0x250, 0x1e, None),
        ("intel", 0x2ff, 0xc06, Some(0xc06)),
        ("intel", 0x2ff, 0x100, None),
        ("intel", 0x2ff, 3, None),
        ("intel", 0x3a, 1, Some(1)),
        ("intel", 0x3a, 5, None),
        ("intel", 0x48, 0x4ff, Some(0x4ff)),
        ("intel", 0x48, 1 << 9, None),
        ("amd", 0x48, 0x87, Some(0x87)),
        ("amd", 0x48, 8, None),
        ("intel", 0x1d9, 0x5803, Some(0x5802)),
        ("intel,+lbr", 0x1d9, 0x5803, Some(0x5803)),
        ("intel", 0x1d9, 1 << 6, None),
        ("amd", 0x1d9, 1 << 6 | 3, Some(3)),
        ("intel", 0x401, 0, Some(0)),
        ("intel", 0x401, 1, None),
        ("intel", 0x400, u64::MAX, Some(u64::MAX)),
        ("intel", 0x400, 1, None),
        ("amd", 0x400, 1, Some(1)),
        ("intel", 0x402, NON_CANONICAL, Some(NON_CANONICAL)),
        ("intel", 0x403, u64::MAX, Some(u64::MAX)),
        ("intel", 0x427, 0, Some(0)),
        ("intel", 0x428, 0, None),
        ("amd", 0xc000_2000, u64::MAX, Some(u64::MAX)),
        ("amd", 0xc000_2001, 1, None),
        ("intel", n::LSTAR, LOW, Some(LOW)),
        ("intel", n::LSTAR, HIGH, Some(HIGH)),
        ("intel", n::LSTAR, NON_CANONICAL, None),
        ("intel,+la57", n::LSTAR, NON_CANONICAL, Some(NON_CANONICAL)),
        ("amd", n::CSTAR, NON_CANONICAL, None),
        ("intel", n::KERNEL_GS_BASE, NON_CANONICAL, None),
        ("intel", n::FS_BASE, HIGH, Some(HIGH)),
        ("intel", n::SYSENTER_EIP, NON_CANONICAL, None),
        ("intel", n::SYSENTER_EIP, HIGH, Some(HIGH)),
        ("amd", n::SYSENTER_EIP, NON_CANONICAL | 5, Some(5)),
        ("intel", n::TSC_AUX, 1 << 32, None),
        ("amd", n::TSC_AUX, 1 << 32 | 7, Some(7)),
        ("intel", n::EFER, 0xd00, Some(0xd00)),
        ("intel", n::EFER, 0x901, Some(0xd01)),
        ("intel", n::EFER, 1 << 12, None),
        ("amd", n::EFER, 1 << 12, None),
        ("intel", n::EFER, 0x900 | 1 << 14, None),
        ("amd", n::EFER, 0x900 | 3 << 14 | 1 << 21, Some(0xd00 | 3 << 14 | 1 << 21)),
        ("amd", n::EFER, 0x900 | 1 << 13, None),
        ("intel,-nx", n::EFER, 0x901, None),
        ("intel", 0xda0, 1 << 8, None),
        ("intel", 0xc1, 0x8000_0000, Some(0xffff_8000_0000)),
        ("intel", 0x4c1, 0x8000_0000, Some(0x8000_0000)),
        ("intel", 0x4c1, 1 << 48, None),
        ("intel", 0x186, 1 << 32, None),
        ("intel", 0x186, 1 << 22 | 0x3c, Some(1 << 22 | 0x3c)),
        ("amd", 0xc001_0200, u64::MAX, Some(0x30f_ffd7_ffff)),
        ("intel", 0x38d, 0x444, None),
        ("intel", 0x38f, 1 << 35, None),
        ("intel", 0x38e, 0, None),
        ("amd", 0xc001_0010, 1 << 23 | 1 << 18, Some(1 << 18)),
        ("amd", 0xc001_0114, 0, Some(0x18)),
    ] {
        let mut m = machine(model);
        let done = at(&mut m, |h| write(h, number, value).and_then(|()| read(h, number))).ok();
        assert_eq!(done, then, "{model}, {number:#x} = {value:#x}");
    }
}

#[test]
fn a_lock_holds() {
    let mut m = machine("intel");
    assert!(at(&mut m, |h| write(h, 0x3a, 1).is_ok() && write(h, 0x3a, 1).is_err()));
}

/// The TSC and its adjustment are of one piece.
#[test]
fn time_is_adjusted() {
    let mut m = machine("intel");
    at(&mut m, |h| {
        write(h, n::TSC, 1000).unwrap();
        assert_eq!((read(h, n::TSC), read(h, 0x3b)), (Ok(1000), Ok(1000)));
        write(h, 0x3b, 10).unwrap();
        assert_eq!(read(h, n::TSC), Ok(10));
    });
}

/// CPUID leaf 1 tells the microcode's revision to IA32_BIOS_SIGN_ID.
#[test]
fn the_signature_comes_by_cpuid() {
    let mut m = machine("intel");
    at(&mut m, |h| {
        write(h, n::BIOS_SIGN_ID, 0).unwrap();
        cpuid(h, 1, 0);
        assert_eq!(read(h, n::BIOS_SIGN_ID), Ok(0x2b00_0fff << 32));
    });
}

/// The table by numbers finds what a search from the first row on does.
#[test]
fn each_number_finds_its_row() {
    for model in ["intel", "amd", "intel,+arch_lbr,+msrlist,+user_msr,+pks"] {
        let m = machine(model);
        let arch = &m.vcpus[0].arch;
        let rows = ROWS.iter().flat_map(|r| [r.first.wrapping_sub(1), r.last + 1]);
        let numbers = (0..0x3000).flat_map(|n| [n, n | 0xc000_0000, n | 0xc001_0000, n | 0x4000_0000]);
        for number in rows.chain(numbers) {
            let searched = ROWS.iter().find(|r| (r.first..=r.last).contains(&number) && r.on.is_there(arch));
            let address = |r: Option<&'static Row>| r.map(std::ptr::from_ref);
            assert_eq!(address(row(arch, number)), address(searched), "{number:#x}");
        }
    }
}

proptest::proptest! {
    /// Nothing panics; what was taken is not gone because something else was refused.
    #[test]
    fn random_registers(
        amd: bool,
        accesses in proptest::collection::vec((proptest::prelude::any::<u64>(), 0usize..200, 0u32..16, 0u32..64), 1..80),
    ) {
        let mut m = machine(if amd { "amd" } else { "intel" });
        for (value, row, offset, shift) in accesses {
            let number = ROWS[row % ROWS.len()].first.wrapping_add(offset);
            at(&mut m, |h| {
                let before = read(h, number).ok();
                if write(h, number, value >> shift).is_err() && !matches!(number, n::TSC | 0xc1..=0xc8) {
                    assert_eq!(read(h, number).ok(), before, "{number:#x}");
                }
                let _ = read(h, value as u32);
                let _ = write(h, value as u32, value);
            });
        }
    }
}
