//! MSRs in a guest: exits of the instructions on them beside RDMSR and WRMSR, virtualized IA32_SPEC_CTRL, IA32_LBR_CTL.

use iced_x86::code_asm::*;
use vmx_sim::control::{entry, exit, primary, tertiary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86_bare::{Bare, Code, write_msr};

use crate::base::on;
use crate::machine::{DATA, MORE, TARGET, run, vmcs};

const SYSENTER_ESP: u64 = 0x175;
const SYSENTER_EIP: u64 = 0x176;
const SPEC_CTRL: u32 = 0x48;
const LBR_CTL: u32 = 0x14ce;
const USER_MSR_CTL: u32 = 0x1c;

fn reason(bare: &Bare) -> Option<Reason> {
    Reason::of(vmcs(bare)[EXIT_REASON])
}

fn told(bare: &Bare) -> (Option<Reason>, u64, u64) {
    let v = vmcs(bare);
    (reason(bare), v[EXIT_QUALIFICATION], v[EXIT_INSTRUCTION_INFORMATION])
}

/// Accesses to IA32_SYSENTER_EIP alone exit.
fn bitmaps(v: &mut Vmcs) {
    on(v, primary::USE_MSR_BITMAPS);
    v[MSR_BITMAPS] = TARGET;
}

fn fill(bare: &mut Bare) {
    for part in [0, 2048] {
        bare.put(TARGET + part + SYSENTER_EIP / 64 * 8, 1 << (SYSENTER_EIP % 64));
    }
    // The list, and the values to write.
    for (i, (msr, value)) in [(SYSENTER_ESP, 0x11), (SYSENTER_EIP, 0x22)].into_iter().enumerate() {
        bare.put(DATA + 8 * i as u64, msr);
        bare.put(MORE + 8 * i as u64, value);
    }
}

fn lists(v: &mut Vmcs) {
    bitmaps(v);
    on(v, primary::ACTIVATE_TERTIARY_CONTROLS);
    on(v, tertiary::ENABLE_MSR_LIST_INSTRUCTIONS);
}

const LIST: Code = &|a| {
    a.mov(rsi, DATA)?;
    a.mov(rdi, MORE)?;
    a.mov(rcx, 3u64)
};
const RDMSRLIST: [u8; 4] = [0xf2, 0x0f, 0x01, 0xc6];
const WRMSRLIST: [u8; 4] = [0xf3, 0x0f, 0x01, 0xc6];

/// What comes before the MSR that exits is done.
#[test]
fn lists_exit_at_an_msr() {
    for (instruction, expected, data) in [(RDMSRLIST, Reason::Rdmsrlist, 0), (WRMSRLIST, Reason::Wrmsrlist, 0x22)] {
        let bare = run(lists, fill, &|a| {
            LIST(a)?;
            a.db(&instruction)
        });
        let v = vmcs(&bare);
        assert_eq!((reason(&bare), v[EXIT_QUALIFICATION], v[MSR_DATA]), (Some(expected), SYSENTER_EIP, data));
        assert_eq!((bare.reg(1), v[EXIT_INSTRUCTION_LENGTH]), (2, 4));
        let is_read = expected == Reason::Rdmsrlist;
        assert_eq!((bare.get(MORE), v[GUEST_SYSENTER_ESP]), if is_read { (0, 0) } else { (0x11, 0x11) });
    }
    let without_bitmaps = |v: &mut Vmcs| {
        lists(v);
        v[primary::USE_MSR_BITMAPS.field] &= !(1 << primary::USE_MSR_BITMAPS.bit);
    };
    let bare = run(without_bitmaps, fill, &|a| {
        LIST(a)?;
        a.db(&WRMSRLIST)
    });
    let v = vmcs(&bare);
    assert_eq!((reason(&bare), v[EXIT_QUALIFICATION], v[MSR_DATA]), (Some(Reason::Wrmsrlist), 0, 0));
}

#[test]
fn lists_are_undefined_without_the_control() {
    let without = |v: &mut Vmcs| {
        bitmaps(v);
        v[EXCEPTION_BITMAP] = 1 << 6;
    };
    let bare = run(without, fill, &|a| {
        LIST(a)?;
        a.db(&RDMSRLIST)
    });
    assert_eq!(reason(&bare), Some(Reason::ExceptionOrNmi));
}

#[test]
fn instructions_that_name_a_register() {
    let msr = SYSENTER_EIP;
    // VEX.MAP7: RDMSR rbx, 176h; WRMSRNS 176h, rbx.
    for (pp, expected) in [(3, Reason::RdmsrImmediate), (2, Reason::WrmsrnsImmediate)] {
        let bare = run(bitmaps, fill, &|a| a.db(&[0xc4, 0xe7, 0x78 | pp, 0xf6, 0xc3, msr as u8, 1, 0, 0]));
        assert_eq!(told(&bare), (Some(expected), msr, 3 << 3));
        assert_eq!(vmcs(&bare)[EXIT_INSTRUCTION_LENGTH], 9);
    }
    // What no bitmap asks for goes through.
    let bare = run(bitmaps, fill, &|a| {
        a.mov(rbx, 0x33u64)?;
        a.db(&[0xc4, 0xe7, 0x7a, 0xf6, 0xc3, SYSENTER_ESP as u8, 1, 0, 0])?;
        a.vmcall()
    });
    assert_eq!((reason(&bare), vmcs(&bare)[GUEST_SYSENTER_ESP]), (Some(Reason::Vmcall), 0x33));
}

#[test]
fn user_msrs() {
    // URDMSR rdx, rbx; the bitmap of IA32_USER_MSR_CTL lets it through.
    let bare = run(
        bitmaps,
        |bare| {
            fill(bare);
            bare.put(MORE + SYSENTER_EIP / 64 * 8, 1 << (SYSENTER_EIP % 64));
        },
        &|a| {
            write_msr(a, USER_MSR_CTL, MORE | 1)?;
            a.mov(rbx, SYSENTER_EIP)?;
            a.db(&[0xf2, 0x0f, 0x38, 0xf8, 0xda])
        },
    );
    assert_eq!(told(&bare), (Some(Reason::Urdmsr), SYSENTER_EIP, 2 << 3));
}

/// The guest sees what it has written; the MSR gets what the mask leaves to it.
#[test]
fn virtualized_spec_ctrl() {
    let virtualizes = |v: &mut Vmcs| {
        bitmaps(v);
        on(v, primary::ACTIVATE_TERTIARY_CONTROLS);
        on(v, tertiary::VIRTUALIZE_IA32_SPEC_CTRL);
        (v[SPEC_CTRL_MASK], v[SPEC_CTRL_SHADOW]) = (1, 3);
        // The value that the MSR has is stored behind the exit.
        (v[EXIT_MSR_STORE_ADDRESS], v[EXIT_MSR_STORE_COUNT]) = (TARGET + 0x1000, 1);
    };
    let list = |bare: &mut Bare| bare.put(TARGET + 0x1000, SPEC_CTRL.into());
    let bare = run(virtualizes, list, &|a| {
        a.mov(ecx, SPEC_CTRL)?;
        a.rdmsr()?;
        a.mov(r8, rax)?;
        write_msr(a, SPEC_CTRL, 5)?;
        a.rdmsr()?;
        a.vmcall()
    });
    assert_eq!((reason(&bare), bare.reg(8), bare.reg(0)), (Some(Reason::Vmcall), 3, 5));
    assert_eq!((vmcs(&bare)[SPEC_CTRL_SHADOW], bare.get(TARGET + 0x1008)), (5, 4));
    // Reserved bits are #GP, and nothing changes.
    let gp = |v: &mut Vmcs| {
        virtualizes(v);
        v[EXCEPTION_BITMAP] = 1 << 13;
    };
    let bare = run(gp, list, &|a| write_msr(a, SPEC_CTRL, 1 << 40));
    assert_eq!((reason(&bare), vmcs(&bare)[SPEC_CTRL_SHADOW]), (Some(Reason::ExceptionOrNmi), 3));
}

#[test]
fn last_branch_records_are_switched() {
    let loads = |v: &mut Vmcs| {
        bitmaps(v);
        on(v, entry::LOAD_LBR_CTL);
        on(v, exit::CLEAR_LBR_CTL);
        v[GUEST_LBR_CTL] = 0x7f_0003;
    };
    let mut bare = run(loads, |_| {}, &|a| {
        a.mov(ecx, LBR_CTL)?;
        a.rdmsr()?;
        a.mov(r8, rax)?;
        write_msr(a, LBR_CTL, 1)?;
        a.vmcall()
    });
    assert_eq!((reason(&bare), bare.reg(8), vmcs(&bare)[GUEST_LBR_CTL]), (Some(Reason::Vmcall), 0x7f_0003, 1));
    assert_eq!(x86::msr::read(&mut bare.at_work(), LBR_CTL), Ok(0));
}
