//! A guest that does one thing, which an intercept is for.

use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::{Bare, Result, USER, USER_CS, USER_SS, USER_STACK};

use crate::base::{Base, GUEST, intercept, machine, put_segment, read};

/// What makes a piece of code.
pub type Asm = fn(&mut iced_x86::code_asm::CodeAssembler) -> Result;

/// A case.
#[derive(Clone, Copy)]
pub struct Case {
    /// The exit code.
    pub code: u64,
    pub base: Base,
    /// The guest has CPL 3.
    pub is_user: bool,
    /// Changes the VMCB, whose intercept is not on yet.
    pub vmcb: fn(&mut Vmcb),
    /// Changes the machine.
    pub prepare: fn(&mut Bare),
    /// What the guest does before.
    pub before: Asm,
    /// The instruction.
    pub instruction: Asm,
    pub info_1: u64,
    pub info_2: u64,
    /// nRIP is told.
    pub has_next: bool,
    /// The guest is where the instruction is, or behind it.
    pub is_behind: bool,
    /// Bytes of the instruction are told.
    pub has_bytes: bool,
}

/// The intercept of an instruction.
pub const fn of(code: u64, instruction: Asm) -> Case {
    Case {
        code,
        base: Base::Long,
        is_user: false,
        vmcb: |_| {},
        prepare: |_| {},
        before: |_| Ok(()),
        instruction,
        info_1: 0,
        info_2: 0,
        has_next: true,
        is_behind: false,
        has_bytes: false,
    }
}

impl Case {
    pub const fn in_base(self, base: Base) -> Case {
        Case { base, ..self }
    }

    pub const fn user(self) -> Case {
        Case { is_user: true, ..self }
    }

    pub const fn info(self, info_1: u64, info_2: u64) -> Case {
        Case { info_1, info_2, ..self }
    }

    pub const fn before(self, before: Asm) -> Case {
        Case { before, ..self }
    }

    pub const fn vmcb(self, vmcb: fn(&mut Vmcb)) -> Case {
        Case { vmcb, ..self }
    }

    pub const fn prepare(self, prepare: fn(&mut Bare)) -> Case {
        Case { prepare, ..self }
    }

    /// It is of no instruction: nRIP is 0.
    pub const fn without_next(self) -> Case {
        Case { has_next: false, ..self }
    }

    /// It comes behind the instruction.
    pub const fn behind(self) -> Case {
        Case { is_behind: true, has_next: false, ..self }
    }

    pub const fn with_bytes(self) -> Case {
        Case { has_bytes: true, ..self }
    }

    fn bits(&self) -> u32 {
        match self.base {
            Base::Long | Base::Nested => 64,
            Base::Real | Base::V8086 => 16,
            _ => 32,
        }
    }

    /// Where the guest begins.
    fn at(&self) -> u64 {
        if self.is_user { USER } else { GUEST }
    }

    /// A machine that is about to run it, with these intercepts; where the instruction is, and what follows: VMMCALL, HLT.
    pub fn machine(&self, codes: &[u64]) -> (Bare, u64, u64) {
        let mut v = self.base.vmcb();
        if self.is_user {
            v.set(CPL, 3);
            put_segment(&mut v, 1, [USER_CS, if self.bits() == 64 { 0x2fb } else { 0xcfb }, 0xffff_ffff, 0]);
            put_segment(&mut v, 2, [USER_SS, 0xcf3, 0xffff_ffff, 0]);
            v.set(RIP, USER);
            v.set(RSP, USER_STACK);
        }
        (self.vmcb)(&mut v);
        for code in codes {
            intercept(&mut v, *code);
        }
        let mut bare = machine("amd", &v);
        let at = bare.assemble_of(self.bits(), self.at(), &self.before);
        let next = bare.assemble_of(self.bits(), at, &self.instruction);
        bare.assemble_of(self.bits(), next, &|a| {
            a.vmmcall()?;
            a.hlt()
        });
        (self.prepare)(&mut bare);
        (bare, at, next)
    }

    /// A linear address as RIP.
    fn ip(&self, linear: u64) -> u64 {
        if self.bits() == 16 { linear - 0x1_0000 } else { linear }
    }

    /// With its intercept on, that is the exit, and it tells what it must.
    pub fn taken(&self) -> std::result::Result<(), String> {
        let (mut bare, at, next) = self.machine(&[self.code]);
        bare.machine.run(1000);
        let found = [EXITCODE, EXITINFO1, EXITINFO2, NRIP, RIP].map(|f| read(&bare, f));
        let (at, next) = (self.ip(at), self.ip(next));
        let rip = if self.is_behind { next } else { at };
        let nrip = if self.has_next { next } else { 0 };
        let info_2 = if self.code == code::IOIO { next } else { self.info_2 };
        let wanted = [self.code, self.info_1, info_2, nrip, rip];
        if found != wanted {
            let failure = crate::base::svm(&bare).failure;
            return Err(format!("{}: {found:x?}, not {wanted:x?}; {failure:?}", code::name(self.code)));
        }
        let bytes = read(&bare, FETCHED_BYTES);
        if (bytes != 0) != self.has_bytes {
            return Err(format!("{}: {bytes} bytes", code::name(self.code)));
        }
        Ok(())
    }

    /// Without the intercept, it is not.
    pub fn left_alone(&self) -> std::result::Result<(), String> {
        if self.code == code::VMMCALL || self.code == code::VMRUN {
            // The one ends all guests here, without the other none begins.
            return Ok(());
        }
        let (mut bare, ..) = self.machine(&[]);
        bare.machine.run(1000);
        let found = read(&bare, EXITCODE);
        if found == self.code { Err(code::name(self.code).to_string()) } else { Ok(()) }
    }
}
