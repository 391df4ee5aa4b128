//! "SMM Support": SMIs that interrupt a guest.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::{cr0, cr4};
use x86::registers::RBX;
use x86_bare::Bare;

use crate::base::{Base, HSAVE, NPT, VMCB, intercept, put_segment, read, run_until, svm};
use crate::guest::{machine, run};

const SMBASE: u64 = 0x10_0000;
const HANDLER: u64 = SMBASE + 0x8000;
const STATE: u64 = SMBASE + 0xfed8;
const HWCR: u32 = 0xc001_0015;

/// A guest that counts in RBX and then ends, in code of so many bits; it has an SMI before it counts. The handler adds 1 to what is saved of RBX.
fn interrupted(v: &Vmcb, bits: u32, prepare: fn(&mut Bare)) -> Bare {
    let mut bare = machine("amd", v, &|_| Ok(()));
    bare.assemble_of(bits, crate::base::GUEST, &|a| {
        a.add(ebx, 0x10)?;
        a.vmmcall()
    });
    bare.assemble_of(16, HANDLER, &|a| {
        // The saved RBX.
        a.mov(edi, (SMBASE + 0xffe0) as u32)?;
        a.inc(dword_ptr(edi))?;
        a.rsm()
    });
    bare.cpu().smm.base = SMBASE as u32;
    prepare(&mut bare);
    run_until(&mut bare, |bare| svm(bare).in_guest);
    bare.cpu().pending.smi = true;
    bare.machine.vcpus[0].core.check_interrupts = true;
    bare
}

#[test]
fn the_handler_runs_outside_of_the_guest_and_rsm_leads_back() {
    for (base, bits) in [
        (Base::Long, 64),
        (Base::Nested, 64),
        (Base::Protected, 32),
        (Base::Pae, 32),
        (Base::NestedPae, 32),
        (Base::Real, 16),
    ] {
        let mut bare = interrupted(&base.vmcb(), bits, |_| {});
        assert_eq!(run(&mut bare), code::VMMCALL, "{base:?}");
        assert_eq!(bare.reg(RBX), 0x11, "{base:?}");
        assert!(!bare.cpu().smm.is_on());
    }
}

#[test]
fn the_map_tells_of_the_guest() {
    for (base, state) in [(Base::Long, 2), (Base::Nested, 6)] {
        let mut v = base.vmcb();
        v.set(VINTR, 5 | vintr::V_INTR_MASKING);
        let mut bare = interrupted(&v, 64, |bare| bare.cpu().rflags |= 1 << 9);
        run(&mut bare);
        let host = |f: Field| bare.get(HSAVE + u64::from(f.offset));
        let nested = base == Base::Nested;
        assert_eq!(bare.get(STATE), state | 8, "{base:?}");
        assert_eq!(bare.get(STATE + 8), VMCB);
        assert_eq!(bare.get(STATE + 16), 5 | vintr::V_INTR_MASKING);
        let of_nested = |value| if nested { value } else { 0 };
        assert_eq!(bare.get(SMBASE + 0xff20), of_nested(0x0007_0406_0007_0406));
        assert_eq!(bare.get(SMBASE + 0xff28), host(EFER));
        assert_eq!(bare.get(SMBASE + 0xff30), host(CR4));
        assert_eq!(bare.get(SMBASE + 0xff38), of_nested(NPT));
        assert_eq!(bare.get(SMBASE + 0xff40), host(CR0));
    }
}

/// What is there if no guest is interrupted.
#[test]
fn of_the_host_it_tells_nothing() {
    let mut bare = machine("amd", &Base::Nested.vmcb(), &|_| Ok(()));
    bare.assemble_of(16, HANDLER, &|a| a.rsm());
    bare.put(STATE, u64::MAX);
    bare.cpu().smm.base = SMBASE as u32;
    bare.cpu().pending.smi = true;
    bare.machine.vcpus[0].core.check_interrupts = true;
    assert_eq!(run(&mut bare), code::VMMCALL);
    assert_eq!((bare.get(STATE), bare.get(STATE + 8), bare.get(SMBASE + 0xff38)), (0, 0, 0));
}

#[test]
fn rsm_may_lead_back_to_paged_real_mode() {
    let mut v = Base::Real.vmcb();
    v.set(NESTED_CONTROL, 0);
    v.set(CR0, cr0::ET | cr0::PG);
    v.set(CR3, Base::Protected.vmcb().get(CR3));
    v.set(CR4, cr4::PSE);
    put_segment(&mut v, 1, [0x1000, 0x9b, 0xffff, 0x1_0000]);
    let mut bare = interrupted(&v, 16, |_| {});
    assert_eq!(run(&mut bare), code::VMMCALL);
    assert_eq!(bare.reg(RBX), 0x11);
    assert_eq!(read(&bare, CR0) & (cr0::PE | cr0::PG), cr0::PG);
}

#[test]
fn an_smi_is_intercepted_unless_firmware_has_locked_it() {
    let mut v = Base::Nested.vmcb();
    intercept(&mut v, code::SMI);
    let mut bare = interrupted(&v, 64, |_| {});
    assert_eq!(run(&mut bare), code::SMI);
    assert_eq!((read(&bare, EXITINFO1), bare.reg(RBX)), (1 << 32, 0));
    assert!(bare.cpu().pending.smi, "it is pending still");
    let lock = |bare: &mut Bare| {
        let hwcr = x86::msr::read(&mut bare.at_work(), HWCR).unwrap();
        x86::msr::write(&mut bare.at_work(), HWCR, hwcr | 1).unwrap();
    };
    let mut bare = interrupted(&v, 64, lock);
    assert_eq!(run(&mut bare), code::VMMCALL);
    assert_eq!(bare.reg(RBX), 0x11);
}
