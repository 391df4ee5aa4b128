//! A machine whose processors have SVM, and a guest with an APIC by AVIC.

use std::ops::{Deref, DerefMut};

use emu_core::machine::End;
use iced_x86::code_asm::*;
use svm_sim::Svm;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::{cr4, efer};
use x86::extension::Slot;
pub use x86_bare::{Bare, Code, Result};
use x86_bare::{CODE, HANDLERS, Setup, page};

use crate::base::{self, Base, GUEST, VMCB, on};

/// Backing pages of the guest's virtual processors 0 and 1.
pub const PAGE: u64 = 0x5_0000;
pub const OTHER_PAGE: u64 = 0x5_1000;
/// The physical and the logical APIC ID tables.
pub const PHYSICAL: u64 = 0x5_2000;
pub const LOGICAL: u64 = 0x5_3000;
/// Where the guest sees its APIC.
pub const BAR: u64 = 0x5_4000;
/// Handlers of the guest note their vector here, one byte each, behind their number.
const TAKEN: u64 = 0x5_5000;
/// What the second processor runs, and its VMCB, host save area and stack.
const SECOND_CODE: u64 = 0x5_6000;
pub const SECOND_GUEST: u64 = 0x5_7000;
pub const SECOND_VMCB: u64 = 0x5_8000;
const SECOND_HSAVE: u64 = 0x5_9000;
const SECOND_STACK: u64 = 0x5_b000;

/// The exit code of #GP.
pub const GENERAL_PROTECTION: u64 = code::EXCEPTION + 13;

/// Bits of an entry of the physical table.
pub const VALID: u64 = 1 << 63;
pub const IS_RUNNING: u64 = 1 << 62;

pub struct Rig(pub Bare);

impl Deref for Rig {
    type Target = Bare;

    fn deref(&self) -> &Bare {
        &self.0
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Bare {
        &mut self.0
    }
}

/// A guest's VMCB.
fn vmcb(backing_page: u64, mode: u64) -> Vmcb {
    let mut v = Base::Nested.vmcb();
    on(&mut v, VINTR, vintr::AVIC_ENABLE | vintr::V_INTR_MASKING | mode);
    on(&mut v, CR4, cr4::OSFXSR);
    base::intercept(&mut v, GENERAL_PROTECTION);
    for (field, value) in [
        (AVIC_APIC_BAR, BAR),
        (AVIC_BACKING_PAGE, backing_page),
        (AVIC_LOGICAL_TABLE, LOGICAL),
        (AVIC_PHYSICAL_TABLE, PHYSICAL | 3),
    ] {
        v.set(field, value);
    }
    v
}

impl Rig {
    /// A guest with an xAPIC runs this code, and then VMMCALL.
    pub fn new(guest: Code) -> Rig {
        Rig::of("amd", 0, guest)
    }

    /// The same with an x2APIC.
    pub fn x2apic(guest: Code) -> Rig {
        Rig::of("amd", vintr::X2AVIC_ENABLE, guest)
    }

    /// The same, on a processor of some model.
    pub fn of(model: &str, mode: u64, guest: Code) -> Rig {
        svm_sim::register();
        let setup = Setup { processors: 2, page: |_| page::SUPERVISOR, ..Setup::of(model) };
        let mut bare = base::machine_of(&setup, &vmcb(PAGE, mode));
        for vector in 0..256u64 {
            bare.handler(vector, &|a| {
                // No register changes.
                a.push(rdi)?;
                a.mov(rdi, qword_ptr(TAKEN))?;
                a.mov(byte_ptr(rdi + TAKEN as i32 + 8), vector as i32)?;
                a.jmp(HANDLERS + 32 * 256)
            });
        }
        bare.assemble(HANDLERS + 32 * 256, &|a| {
            a.inc(qword_ptr(TAKEN))?;
            a.pop(rdi)?;
            a.iretq()
        });
        bare.assemble(GUEST, &|a| {
            guest(a)?;
            a.vmmcall()
        });
        bare.assemble(SECOND_CODE, &|a| a.hlt());
        bare.machine.vcpus[1].core.pc = SECOND_CODE;
        let mut other = vmcb(OTHER_PAGE, mode);
        other.set(RIP, SECOND_GUEST);
        other.set(RSP, SECOND_STACK);
        on(&mut other, RFLAGS, 1 << 9);
        base::write(&mut bare, SECOND_VMCB, &other);
        let mut r = Rig(bare);
        r.set_entry(0, VALID | IS_RUNNING | PAGE).set_entry(1, VALID | IS_RUNNING | OTHER_PAGE | 1);
        r.set_register(0xe0, u32::MAX);
        r
    }

    /// The second processor runs a guest, too: this code.
    pub fn with_other(mut self, guest: Code) -> Rig {
        self.assemble(SECOND_GUEST, guest);
        self.assemble(SECOND_CODE, &|a| {
            a.mov(eax, SECOND_VMCB as u32)?;
            a.vmrun()?;
            a.hlt()
        });
        let v = &mut self.machine.vcpus[1];
        v.arch.efer |= efer::SVME;
        let mut svm = Svm::new(&v.arch.model);
        svm.msrs.hsave_pa = SECOND_HSAVE;
        v.arch.extension = Slot::with(Box::new(svm));
        self
    }

    /// An entry of the physical table.
    pub fn set_entry(&mut self, id: u64, entry: u64) -> &mut Self {
        self.put(PHYSICAL + 8 * id, entry);
        self
    }

    /// Enters the guest. Returns EXITCODE, EXITINFO1, EXITINFO2.
    pub fn enter(&mut self) -> [u64; 3] {
        self.machine.vcpus[0].core.pc = CODE;
        self.cpu().waiting.sleeps(false);
        self.set(0, VMCB);
        assert_eq!(self.go_on(), End::Deadlock);
        assert!(!base::svm(self).in_guest, "the guest halts at {:#x}", self.machine.vcpus[0].core.pc);
        [EXITCODE, EXITINFO1, EXITINFO2].map(|f| base::read(self, f))
    }

    /// Writes a field of the VMCB.
    pub fn set_field(&mut self, f: Field, value: u64) -> &mut Self {
        self.machine.world.ram.store(VMCB + u64::from(f.offset), f.size, value).unwrap();
        self
    }

    /// Vectors that handlers have taken.
    pub fn taken(&self) -> Vec<u8> {
        (0..self.get(TAKEN)).map(|i| self.load(TAKEN + 8 + i, 1) as u8).collect()
    }

    /// A register of the backing page.
    pub fn register(&self, offset: u64) -> u64 {
        self.load(PAGE + offset, 4)
    }

    /// Writes one.
    pub fn set_register(&mut self, offset: u64, value: u32) -> &mut Self {
        self.machine.world.ram.store(PAGE + offset, 4, value.into()).unwrap();
        self
    }

    /// A vector is in ISR (100h), TMR (180h), IRR (200h).
    pub fn put_vector(&mut self, register: u64, vector: u8) -> &mut Self {
        let at = register + u64::from(vector / 32) * 16;
        let word = self.register(at) as u32 | 1 << (vector % 32);
        self.set_register(at, word)
    }

    /// Whether a backing page has it.
    pub fn has_vector(&self, page: u64, register: u64, vector: u8) -> bool {
        self.load(page + register + u64::from(vector / 32) * 16, 4) >> (vector % 32) & 1 != 0
    }
}

/// A store to the guest's APIC.
pub fn store(a: &mut CodeAssembler, offset: u64, value: u32) -> Result {
    a.mov(dword_ptr(BAR + offset), value as i32)
}
