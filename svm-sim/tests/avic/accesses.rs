//! "Virtual APIC Register Accesses".

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;

use crate::base::{GUEST, NPT_TABLE};
use crate::rig::*;

const WRITE: u64 = 1 << 32;

/// Registers that can be read.
const READABLE: [u64; 43] = [
    0x20, 0x30, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0, 0x100, 0x110, 0x170, 0x180, 0x190, 0x1f0, 0x200, 0x210,
    0x270, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0, 0x500, 0x510, 0x520, 0x530,
    0x120, 0x130, 0x140, 0x150, 0x160, 0x1a0, 0x1b0, 0x220, 0x230,
];
/// Those whose writes are told of when they are done.
const TRAPS: [u64; 18] = [
    0x20, 0xc0, 0xd0, 0xe0, 0xf0, 0x280, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0, 0x500, 0x510, 0x520,
    0x530,
];
/// Those whose writes are not done.
const FAULTS: [u64; 12] = [0x00, 0x30, 0x90, 0xa0, 0x100, 0x170, 0x180, 0x200, 0x270, 0x2f0, 0x390, 0x400];

/// Code whose last instruction, of which this returns the address and length, stores to the APIC.
fn length_of_store() -> u64 {
    // MOV [disp32], imm32 with a SIB byte.
    11
}

#[test]
fn what_can_be_read() {
    for register in (0..0x1000).step_by(16) {
        let mut r = Rig::new(&|a| a.mov(eax, dword_ptr(BAR + register)));
        r.set_register(register, 0x1234_5678);
        let exit = r.enter();
        if READABLE.contains(&register) || matches!(register, 0x1c0..=0x1e0 | 0x240..=0x260) {
            assert_eq!(
                (exit[0], r.load(crate::base::VMCB + u64::from(RAX.offset), 8)),
                (code::VMMCALL, 0x1234_5678),
                "{register:#x}"
            );
        } else {
            assert_eq!(exit, [code::AVIC_NOACCEL, register, 0], "{register:#x}");
            assert_eq!(crate::base::read(&r, RIP), GUEST);
        }
    }
}

#[test]
fn what_can_be_written() {
    for register in TRAPS {
        let mut r = Rig::new(&|a| store(a, register, 0x1234_5678));
        assert_eq!(r.enter(), [code::AVIC_NOACCEL, WRITE | register, 0], "{register:#x}");
        assert_eq!(r.register(register), 0x1234_5678, "{register:#x}");
        assert_eq!(crate::base::read(&r, RIP), GUEST + length_of_store());
    }
    for register in FAULTS {
        let mut r = Rig::new(&|a| store(a, register, 0x1234_5678));
        assert_eq!(r.enter(), [code::AVIC_NOACCEL, WRITE | register, 0], "{register:#x}");
        assert_eq!(r.register(register), 0, "{register:#x}");
        assert_eq!(crate::base::read(&r, RIP), GUEST);
    }
    let mut r = Rig::new(&|a| store(a, 0x310, 0x1234_5678));
    assert_eq!((r.enter()[0], r.register(0x310)), (code::VMMCALL, 0x1234_5678));
}

#[test]
fn the_extended_table_is_a_feature() {
    let mut r = Rig::of("amd,-ext_lvt_avic_access", 0, &|a| store(a, 0x500, 1));
    assert_eq!((r.enter(), r.register(0x500)), ([code::AVIC_NOACCEL, WRITE | 0x500, 0], 0));
}

#[test]
fn parts_of_registers() {
    let mut r = Rig::new(&|a| a.mov(al, byte_ptr(BAR + 0xf1)));
    r.set_register(0xf0, 0x1234);
    assert_eq!((r.enter()[0], crate::base::read(&r, RAX) & 0xff), (code::VMMCALL, 0x12));
    let mut r = Rig::new(&|a| a.mov(rax, qword_ptr(BAR + 0xf0)));
    assert_eq!(r.enter(), [code::AVIC_NOACCEL, 0xf0, 0]);
    let mut r = Rig::new(&|a| a.mov(eax, dword_ptr(BAR + 0xf4)));
    assert_eq!(r.enter(), [code::AVIC_NOACCEL, 0xf0, 0]);
}

#[test]
fn a_fetch_is_no_access_to_a_register() {
    let mut r = Rig::new(&|a| a.jmp(BAR + 0x20));
    assert_eq!(r.enter(), [code::AVIC_NOACCEL, 0x20, 0]);
}

#[test]
fn nested_paging_comes_first() {
    let mut r = Rig::new(&|a| store(a, 0x80, 0));
    r.put(NPT_TABLE + BAR / 512, BAR | 5);
    let [exit, error, address] = r.enter();
    assert_eq!((exit, error & 7, address), (code::NPF, 7, BAR + 0x80));
}

#[test]
fn the_task_priority() {
    let mut r = Rig::new(&|a| store(a, 0x80, 0x5f));
    assert_eq!(r.enter()[0], code::VMMCALL);
    assert_eq!((crate::base::read(&r, VINTR) & 0xf, r.register(0x80), r.register(0xa0)), (5, 0x5f, 0x5f));
    let mut r = Rig::new(&|a| {
        a.mov(eax, 9)?;
        a.mov(cr8, rax)?;
        a.mov(rbx, cr8)?;
        a.mov(rax, rbx)
    });
    assert_eq!(r.enter()[0], code::VMMCALL);
    assert_eq!((crate::base::read(&r, VINTR) & 0xf, r.register(0x80), r.register(0xa0)), (9, 0x90, 0x90));
    assert_eq!(crate::base::read(&r, RAX), 9);
}

#[test]
fn without_the_feature_it_is_memory() {
    let mut r = Rig::of("amd,-avic", 0, &|a| store(a, 0x280, 7));
    assert_eq!((r.enter()[0], r.get(BAR + 0x280), r.register(0x280)), (code::VMMCALL, 7, 0));
}
