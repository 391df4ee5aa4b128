//! VMCSs that enter, and what comes of an entry.

use vmx_sim::Vmx;
use vmx_sim::capability::REVISION;
use vmx_sim::control::{Control, entry, exit, pin, primary, secondary};
use vmx_sim::exit::{ENTRY_FAILURE, Reason};
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86::control::{cr0, cr4, efer};
use x86::extension::Slot;
use x86::model::CpuModel;
use x86_bare::{Bare, CODE, GDT, IDT, KERNEL_CS, KERNEL_SS, PML4, STACK, TSS, TSS_SELECTOR};

/// A guest that is entered. The host has 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// 64 bits.
    Long,
    /// 64 bits, all that an entry can load, virtual NMIs.
    Everything,
    /// Virtual-8086 mode.
    V8086,
    /// Protected mode with 32-bit paging.
    Protected,
    /// Protected mode with PAE paging.
    Pae,
    /// With EPT, unrestricted, in real mode.
    Unrestricted,
    /// With EPT, and PAE paging.
    PaeWithEpt,
}

impl Base {
    pub const ALL: [Base; 7] = {
        use Base::*;
        [Long, Everything, V8086, Protected, Pae, Unrestricted, PaeWithEpt]
    };
}

/// What comes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest has run, to its VMCALL.
    Entered,
    /// A rule is broken: how the entry failed.
    Failed { field: Field, rule: &'static str, how: How },
    /// Something else: the exit reason.
    Other(u64),
}

/// How an entry fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// VMfail, with this VM-instruction error.
    Fail(u64),
    /// A VM exit with this qualification.
    Exit(u64),
}

/// The current VMCS.
pub const REGION: u64 = 0x3_0000;
/// Where the guest begins, and the host behind a VM exit.
pub const GUEST: u64 = 0x1_4000;
pub const HOST: u64 = 0x1_5000;
/// The root of EPT paging structures that map 2 MiB to themselves.
pub const EPT: u64 = 0x4_0000;
/// Tables for other kinds of paging.
const TABLE_32: u64 = 0x4_4000;
const PDPT_PAE: u64 = 0x4_5000;
const DIRECTORY_PAE: u64 = 0x4_6000;
/// PDPTEs with reserved bits.
pub const BAD_PDPTES: u64 = 0x4_7000;
/// A page for whatever a field must point to.
pub const PAGE: u64 = 0x5_0000;

/// Sets a control.
pub fn on(v: &mut Vmcs, c: Control) {
    v[c.field] |= 1 << c.bit;
}

/// Clears one.
pub fn off(v: &mut Vmcs, c: Control) {
    v[c.field] &= !(1 << c.bit);
}

fn segment(v: &mut Vmcs, i: usize, values: [u64; 4]) {
    for (field, value) in guest_segment(i).into_iter().zip(values) {
        v[field] = value;
    }
}

/// The VMCS of a guest of 64 bits, with no control that need not be 1.
pub fn long(vmx: &Vmx) -> Vmcs {
    let c = &vmx.capabilities;
    let mut v = Vmcs::default();
    v[PIN_CONTROLS] = c.pin.must.into();
    v[PRIMARY_CONTROLS] = c.primary.must.into();
    v[EXIT_CONTROLS] = c.exit.must.into();
    v[ENTRY_CONTROLS] = c.entry.must.into();
    on(&mut v, exit::HOST_ADDRESS_SPACE_SIZE);
    on(&mut v, entry::IA32E_MODE_GUEST);
    v[VMCS_LINK_POINTER] = u64::MAX;
    let (cr0, cr4) = (cr0::PE | cr0::ET | cr0::NE | cr0::WP | cr0::PG, cr4::PAE | cr4::VMXE);
    for (field, value) in [
        (HOST_CR0, cr0),
        (HOST_CR3, PML4),
        (HOST_CR4, cr4),
        (HOST_CS_SELECTOR, KERNEL_CS),
        (HOST_SS_SELECTOR, KERNEL_SS),
        (HOST_TR_SELECTOR, TSS_SELECTOR),
        (HOST_TR_BASE, TSS),
        (HOST_GDTR_BASE, GDT),
        (HOST_IDTR_BASE, IDT),
        (HOST_RSP, STACK),
        (HOST_RIP, HOST),
        (HOST_EFER, efer::LMA | efer::LME),
        (HOST_PAT, 0x0007_0406_0007_0406),
        (GUEST_CR0, cr0),
        (GUEST_CR3, PML4),
        (GUEST_CR4, cr4),
        (GUEST_GDTR_BASE, GDT),
        (GUEST_GDTR_LIMIT, 0xff),
        (GUEST_IDTR_BASE, IDT),
        (GUEST_IDTR_LIMIT, 0xfff),
        (GUEST_RSP, STACK),
        (GUEST_RIP, GUEST),
        (GUEST_RFLAGS, 2),
        (GUEST_DR7, 0x400),
        (GUEST_EFER, efer::LMA | efer::LME),
        (GUEST_PAT, 0x0007_0406_0007_0406),
    ] {
        v[field] = value;
    }
    for i in 0..6 {
        segment(&mut v, i, [KERNEL_SS, 0, 0xffff_ffff, 0xc093]);
    }
    segment(&mut v, 1, [KERNEL_CS, 0, 0xffff_ffff, 0xa09b]);
    segment(&mut v, LDTR, [0, 0, 0, 0x1_0000]);
    segment(&mut v, TR, [TSS_SELECTOR, TSS, 0x67, 0x8b]);
    v
}

/// EPT is on.
pub fn with_ept(v: &mut Vmcs) {
    on(v, primary::ACTIVATE_SECONDARY_CONTROLS);
    on(v, secondary::ENABLE_EPT);
    v[EPT_POINTER] = EPT | 3 << 3 | 6;
}

fn not_long(v: &mut Vmcs) {
    off(v, entry::IA32E_MODE_GUEST);
    v[guest_segment(1)[3]] = 0xc09b;
    v[GUEST_EFER] = 0;
}

impl Base {
    fn vmcs(self, vmx: &Vmx) -> Vmcs {
        let mut v = long(vmx);
        match self {
            Base::Long => {}
            Base::Everything => {
                let c = &vmx.capabilities;
                v[EXIT_CONTROLS] |= u64::from(c.exit.may & !(1 << exit::SAVE_PREEMPTION_TIMER.bit));
                v[ENTRY_CONTROLS] |= u64::from(c.entry.may);
                on(&mut v, pin::NMI_EXITING);
                on(&mut v, pin::VIRTUAL_NMIS);
                on(&mut v, primary::ACTIVATE_SECONDARY_CONTROLS);
            }
            Base::V8086 => {
                not_long(&mut v);
                v[GUEST_RFLAGS] = 2 | 1 << 17 | 3 << 12;
                for i in 0..6 {
                    segment(&mut v, i, [0x1000, 0x1_0000, 0xffff, 0xf3]);
                }
                v[GUEST_RIP] = GUEST - 0x1_0000;
                v[GUEST_RSP] = 0x1000;
                (v[GUEST_CR3], v[GUEST_CR4]) = (TABLE_32, cr4::VMXE | cr4::PSE);
            }
            Base::Protected => {
                not_long(&mut v);
                (v[GUEST_CR3], v[GUEST_CR4]) = (TABLE_32, cr4::VMXE | cr4::PSE);
            }
            Base::Pae => {
                not_long(&mut v);
                v[GUEST_CR3] = PDPT_PAE;
            }
            Base::PaeWithEpt => {
                not_long(&mut v);
                with_ept(&mut v);
                v[GUEST_CR3] = PDPT_PAE;
                v[GUEST_PDPTE0] = DIRECTORY_PAE | 1;
            }
            Base::Unrestricted => {
                not_long(&mut v);
                with_ept(&mut v);
                on(&mut v, secondary::UNRESTRICTED_GUEST);
                v[GUEST_CR0] = cr0::ET | cr0::NE;
                for i in 0..6 {
                    segment(&mut v, i, [0x1000, 0x1_0000, 0xffff, 0x93]);
                }
                segment(&mut v, 1, [0x1000, 0x1_0000, 0xffff, 0x9b]);
                v[GUEST_RIP] = GUEST - 0x1_0000;
                v[GUEST_RSP] = 0x1000;
            }
        }
        v
    }
}

/// Enters such a guest, whose VMCS is `spoil`ed before.
pub fn enter(base: Base, spoil: fn(&mut Vmcs)) -> Outcome {
    let (outcome, _) = enter_with(base, spoil, |_| {});
    outcome
}

/// Likewise, in a machine that something is done to before; and gives it back.
pub fn enter_with(base: Base, spoil: fn(&mut Vmcs), prepare: impl FnOnce(&mut Bare)) -> (Outcome, Bare) {
    let model = "intel,+la57,+pks,+arch_lbr,+msrlist,+msr_imm,+user_msr,+wrmsrns";
    let mut bare = Bare::new(model);
    let mut vmx = Vmx::new(&CpuModel::parse(model).unwrap());
    vmx.vmxon = Some(REGION - 0x1000);
    vmx.current = Some(REGION);
    vmx.vmcs = base.vmcs(&vmx);
    spoil(&mut vmx.vmcs);
    bare.put(REGION, REVISION.into());
    for (at, entry) in [(EPT, EPT + 0x1007), (EPT + 0x1000, EPT + 0x2007), (EPT + 0x2000, 0xb7)] {
        bare.put(at, entry);
    }
    bare.put(TABLE_32, 0x87);
    bare.put(PDPT_PAE, DIRECTORY_PAE | 1);
    bare.put(DIRECTORY_PAE, 0x83);
    bare.put(BAD_PDPTES, 3);
    for (at, code) in [(CODE, [0x0f, 0x01, 0xc2, 0xf4]), (GUEST, [0x0f, 0x01, 0xc1, 0xf4]), (HOST, [0xf4; 4])] {
        bare.machine.world.ram.write(at, &code).unwrap();
    }
    let cpu = &mut bare.machine.vcpus[0].arch;
    cpu.cr4 |= cr4::VMXE;
    cpu.extension = Slot::with(Box::new(vmx));
    prepare(&mut bare);
    bare.machine.run(1000);
    let vmx: &Vmx = bare.machine.vcpus[0].arch.extension.get().unwrap().as_any().downcast_ref().unwrap();
    let reason = vmx.vmcs[EXIT_REASON];
    let outcome = match vmx.failure {
        Some(f) => {
            let how = if reason & ENTRY_FAILURE != 0 {
                How::Exit(vmx.vmcs[EXIT_QUALIFICATION])
            } else {
                How::Fail(vmx.vmcs[INSTRUCTION_ERROR])
            };
            Outcome::Failed { field: f.field, rule: f.rule, how }
        }
        None if reason == Reason::Vmcall as u64 => Outcome::Entered,
        None => Outcome::Other(reason),
    };
    (outcome, bare)
}
