//! VMCBs that are run, and what comes of VMRUN.

use svm_sim::Svm;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::{cr0, cr4, efer};
use x86::extension::Slot;
use x86::model::CpuModel;
use x86_bare::{Bare, CODE, GDT, IDT, KERNEL_CS, KERNEL_SS, PML4, STACK, Setup};

/// A guest that can be run. The host has 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// 64 bits.
    Long,
    /// 64 bits, with nested paging.
    Nested,
    /// Virtual-8086 mode.
    V8086,
    /// Protected mode with 32-bit paging.
    Protected,
    /// Protected mode with PAE paging.
    Pae,
    /// With nested paging, in real mode.
    Real,
    /// With nested paging, and PAE paging.
    NestedPae,
}

impl Base {
    pub const ALL: [Base; 7] = {
        use Base::*;
        [Long, Nested, V8086, Protected, Pae, Real, NestedPae]
    };
}

/// What comes of VMRUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest has run, to its VMMCALL.
    Entered,
    /// A rule is broken.
    Failed { field: &'static str, rule: &'static str },
    /// Something else: the exit code.
    Other(u64),
}

/// The VMCB.
pub const VMCB: u64 = 0x3_0000;
/// The host save area.
pub const HSAVE: u64 = 0x3_1000;
/// Another VMCB.
pub const SECOND: u64 = 0x3_2000;
/// The maps of permissions.
pub const IOPM: u64 = 0x3_4000;
pub const MSRPM: u64 = 0x3_8000;
/// Where the guest begins.
pub const GUEST: u64 = 0x1_4000;
/// The root of nested page tables that map 2 MiB to themselves: three tables, and a page table.
pub const NPT: u64 = 0x4_0000;
pub const NPT_TABLE: u64 = NPT + 0x3000;
/// Tables for other kinds of paging.
const TABLE_32: u64 = 0x4_4000;
pub const PDPT_PAE: u64 = 0x4_5000;
const DIRECTORY_PAE: u64 = 0x4_6000;
/// PDPTEs with reserved bits.
pub const BAD_PDPTES: u64 = 0x4_7000;

/// Attributes as a VMCB has them.
const CODE_64: u64 = 0x29b;
const CODE_32: u64 = 0xc9b;
const DATA: u64 = 0xc93;

pub fn put_segment(v: &mut Vmcb, i: usize, values: [u64; 4]) {
    for (field, value) in segment(i).into_iter().zip(values) {
        v.set(field, value);
    }
}

/// Sets bits of a field.
pub fn on(v: &mut Vmcb, field: Field, bits: u64) {
    v.set(field, v.get(field) | bits);
}

/// Intercepts what has this exit code.
pub fn intercept(v: &mut Vmcb, code: u64) {
    let field = Field { offset: (code / 8) as u16, size: 1 };
    on(v, field, 1 << (code % 8));
}

fn long() -> Vmcb {
    let mut v = Vmcb::default();
    intercept(&mut v, code::VMRUN);
    intercept(&mut v, code::VMMCALL);
    for (field, value) in [
        (IOPM_BASE_PA, IOPM),
        (MSRPM_BASE_PA, MSRPM),
        (GUEST_ASID, 1),
        (CR0, cr0::PE | cr0::ET | cr0::NE | cr0::WP | cr0::PG),
        (CR3, PML4),
        (CR4, cr4::PAE),
        (EFER, efer::SVME | efer::LMA | efer::LME | efer::NXE),
        (GDTR_BASE, GDT),
        (GDTR_LIMIT, 0xff),
        (IDTR_BASE, IDT),
        (IDTR_LIMIT, 0xfff),
        (RSP, STACK - 0x800),
        (RIP, GUEST),
        (RFLAGS, 2),
        (DR6, 0xffff_0ff0),
        (DR7, 0x400),
        (G_PAT, 0x0007_0406_0007_0406),
    ] {
        v.set(field, value);
    }
    for i in 0..4 {
        put_segment(&mut v, i, [KERNEL_SS, DATA, 0xffff_ffff, 0]);
    }
    put_segment(&mut v, 1, [KERNEL_CS, CODE_64, 0xffff_ffff, 0]);
    v
}

/// Nested paging is on.
pub fn nest(v: &mut Vmcb) {
    on(v, NESTED_CONTROL, nested::NP_ENABLE);
    v.set(N_CR3, NPT);
}

fn leave_long(v: &mut Vmcb) {
    put_segment(v, 1, [KERNEL_CS, CODE_32, 0xffff_ffff, 0]);
    v.set(EFER, efer::SVME);
}

fn of_16_bits(v: &mut Vmcb, code: u64, data: u64) {
    for i in 0..4 {
        put_segment(v, i, [0x1000, if i == 1 { code } else { data }, 0xffff, 0x1_0000]);
    }
    v.set(RIP, GUEST - 0x1_0000);
    v.set(RSP, 0x1000);
}

impl Base {
    pub fn vmcb(self) -> Vmcb {
        let mut v = long();
        match self {
            Base::Long => {}
            Base::Nested => nest(&mut v),
            Base::V8086 => {
                leave_long(&mut v);
                v.set(RFLAGS, 2 | 1 << 17 | 3 << 12);
                of_16_bits(&mut v, 0xf3, 0xf3);
                v.set(CR3, TABLE_32);
                v.set(CR4, cr4::PSE);
            }
            Base::Protected => {
                leave_long(&mut v);
                v.set(CR3, TABLE_32);
                v.set(CR4, cr4::PSE);
            }
            Base::Pae => {
                leave_long(&mut v);
                v.set(CR3, PDPT_PAE);
            }
            Base::NestedPae => {
                leave_long(&mut v);
                nest(&mut v);
                v.set(CR3, PDPT_PAE);
            }
            Base::Real => {
                leave_long(&mut v);
                nest(&mut v);
                v.set(CR0, cr0::ET);
                of_16_bits(&mut v, 0x9b, 0x93);
            }
        }
        v
    }
}

/// A machine whose processor is of this model, and about to run VMRUN of the VMCB.
pub fn machine(model: &str, v: &Vmcb) -> Bare {
    machine_of(&Setup::of(model), v)
}

/// A machine whose first processor is about to run VMRUN of the VMCB.
pub fn machine_of(setup: &Setup, v: &Vmcb) -> Bare {
    let mut bare = Bare::build(setup);
    let mut svm = Svm::new(&CpuModel::parse(setup.model).unwrap());
    svm.msrs.hsave_pa = HSAVE;
    write(&mut bare, VMCB, v);
    for (at, entry) in [(NPT, NPT + 0x1007), (NPT + 0x1000, NPT + 0x2007), (NPT + 0x2000, NPT_TABLE + 7)] {
        bare.put(at, entry);
    }
    for page in (0..0x20_0000).step_by(4096) {
        bare.put(NPT_TABLE + page / 512, page | 7);
    }
    bare.put(TABLE_32, 0x87);
    bare.put(PDPT_PAE, DIRECTORY_PAE | 1);
    bare.put(DIRECTORY_PAE, 0x83);
    bare.put(BAD_PDPTES, 3);
    // VMRUN, HLT; VMMCALL, HLT.
    for (at, code) in [(CODE, [0x0f, 0x01, 0xd8, 0xf4]), (GUEST, [0x0f, 0x01, 0xd9, 0xf4])] {
        bare.machine.world.ram.write(at, &code).unwrap();
    }
    bare.set(0, VMCB);
    let cpu = bare.cpu();
    cpu.cr0 |= cr0::PG;
    cpu.efer |= efer::SVME;
    cpu.extension = Slot::with(Box::new(svm));
    bare
}

/// Writes a VMCB to memory.
pub fn write(bare: &mut Bare, at: u64, v: &Vmcb) {
    bare.machine.world.ram.write(at, v.bytes()).unwrap();
}

/// A field of the VMCB in memory.
pub fn read(bare: &Bare, f: Field) -> u64 {
    bare.load(VMCB + u64::from(f.offset), f.size)
}

/// The processor's SVM.
pub fn svm(bare: &Bare) -> &Svm {
    bare.machine.vcpus[0].arch.extension.get().unwrap().as_any().downcast_ref().unwrap()
}

/// Goes on by single instructions until something is so.
pub fn run_until(bare: &mut Bare, is_so: impl Fn(&Bare) -> bool) {
    for _ in 0..1000 {
        if is_so(bare) {
            return;
        }
        let next = bare.machine.retired() + 1;
        bare.machine.run(next);
    }
    panic!("it never is, at {:#x}", bare.machine.vcpus[0].core.pc);
}

/// What has come of VMRUN.
pub fn outcome(bare: &Bare) -> Outcome {
    match svm(bare).failure {
        Some(f) => {
            assert_eq!(read(bare, EXITCODE), code::INVALID);
            Outcome::Failed { field: f.field, rule: f.rule }
        }
        None if read(bare, EXITCODE) == code::VMMCALL => Outcome::Entered,
        None => Outcome::Other(read(bare, EXITCODE)),
    }
}
