//! "Intercept Operation": which instructions and events of a guest cause a #VMEXIT, and what it says of them.

use emu_core::engine::Step;
use x86::control::cr0;
use x86::exception::{Exception, vector};
use x86::extension::{self, Delivery, Intercept, When};
use x86::model::Feature;
use x86::processor::{P, ProcessorExt};

use crate::exit::{Decoded, Exit, code};
use crate::svm::Svm;
use crate::vmcb::*;

/// EXITINFO1 of an intercepted MOV to or from a control register: it is one ("Decode Assists").
const MOV: u64 = 1 << 63;
/// EXITINFO1 of #VMEXIT(SMI): the SMI has come from outside.
const EXTERNAL_SMI: u64 = 1 << 32;

/// Of the instructions that ask before and after their operands have been looked at, SVM takes these before: "Instruction Intercepts" says for each
/// what has been checked by then.
fn is_taken_before(what: &Intercept) -> bool {
    matches!(what, Intercept::Xsetbv | Intercept::Invpcid { .. })
}

impl Svm {
    /// Whether something that is about to happen in the guest causes a #VMEXIT.
    pub(crate) fn decide(&mut self, h: &mut P, what: &Intercept, when: When) -> Step {
        use Intercept as I;
        if what.is_asked_twice() && is_taken_before(what) != (when == When::BeforeOperands) {
            return Ok(());
        }
        match *what {
            I::Exception { exception, software, first } => return self.exception(h, exception, software, first),
            I::ExternalInterrupt { .. } => return self.event(h, code::INTR),
            I::Nmi => return self.event(h, code::NMI),
            I::Smi => {
                // "SMM-Lock": SMIs cannot be intercepted.
                if x86::smm::is_locked(h.arch) {
                    return Ok(());
                }
                let exit = Exit { info_1: EXTERNAL_SMI, ..Exit::of(code::SMI) };
                return self.take_if(h, exit);
            }
            I::Init => return self.event(h, code::INIT),
            I::TripleFault => return self.event(h, code::SHUTDOWN),
            I::FerrFreeze => return self.event(h, code::FERR_FREEZE),
            I::TaskSwitch { selector, reason, error } => return self.task_switch(h, selector, reason, error),
            I::Boundary { shadowed } => return self.boundary(h, shadowed),
            I::Over => return self.operation_is_over(h),
            I::MovToCr { cr, register, value } => return self.mov_to_cr(h, cr, register, value),
            I::Lmsw { .. } => return self.lmsw(h),
            I::Clts => return self.clts(h),
            I::Rdmsr(msr) => return self.msr(h, msr, false),
            I::Wrmsr { msr, .. } => {
                self.trap_efer_write(h, msr);
                return self.msr(h, msr, true);
            }
            I::In { port, size, string, repeats } => return self.io(h, port, size, true, string, repeats),
            I::Out { port, size, string, repeats } => return self.io(h, port, size, false, string, repeats),
            I::Pause => return self.pause(h),
            I::BusLock => return self.bus_lock(h),
            _ => {}
        }
        // The rest say all by their exit codes, or nearly.
        let exit = match *what {
            I::MovFromCr { cr, register } => {
                Exit { info_1: MOV | u64::from(register), ..Exit::instruction(code::CR_READ + u64::from(cr)) }
            }
            I::Smsw => Exit::instruction(code::CR_READ),
            I::MovFromDr { dr, register } => {
                Exit { info_1: register.into(), ..Exit::instruction(code::DR_READ + u64::from(dr)) }
            }
            I::MovToDr { dr, register } => {
                Exit { info_1: register.into(), ..Exit::instruction(code::DR_WRITE + u64::from(dr)) }
            }
            I::SoftwareInterrupt(vector) => Exit { info_1: vector.into(), ..Exit::instruction(code::INTN) },
            I::Invlpg(address) => Exit { info_1: address, ..Exit::instruction(code::INVLPG) },
            I::Gdtr { instruction, .. } => Exit::instruction(match instruction {
                0 => code::GDTR_READ,
                1 => code::IDTR_READ,
                2 => code::GDTR_WRITE,
                _ => code::IDTR_WRITE,
            }),
            I::Ldtr { instruction } => Exit::instruction(match instruction {
                0 => code::LDTR_READ,
                1 => code::TR_READ,
                2 => code::LDTR_WRITE,
                _ => code::TR_WRITE,
            }),
            // "Conditional MWAIT": the monitor is armed. The other intercept comes first.
            I::Mwait { armed } if armed && !self.vmcb.intercepts(code::MWAIT) => {
                Exit::instruction(code::MWAIT_CONDITIONAL)
            }
            I::Mwait { .. } => Exit::instruction(code::MWAIT),
            // "Idle HLT Intercept". The other intercept comes first.
            I::Hlt if !self.vmcb.intercepts(code::HLT) && self.intercepts_idle_hlt() => {
                if self.has_virtual_event() {
                    return Ok(());
                }
                Exit::instruction(code::IDLE_HLT)
            }
            I::Hlt => Exit::instruction(code::HLT),
            I::Monitor => Exit::instruction(code::MONITOR),
            I::Xsetbv => Exit::instruction(code::XSETBV),
            I::Invpcid { .. } => Exit::instruction(code::INVPCID),
            // "Illegally specified" ones alone, if not all.
            I::Invlpgb { is_legal: false } if !self.vmcb.intercepts(code::INVLPGB) => {
                Exit::instruction(code::INVLPGB_ILLEGAL)
            }
            I::Invlpgb { .. } => Exit::instruction(code::INVLPGB),
            I::Tlbsync if self.has(Feature::TlbiCtl) => Exit::instruction(code::TLBSYNC),
            I::Mcommit => Exit::instruction(code::MCOMMIT),
            I::Cpuid => Exit::instruction(code::CPUID),
            I::Invd => Exit::instruction(code::INVD),
            I::Wbinvd | I::Wbnoinvd => Exit::instruction(code::WBINVD),
            I::Rdtsc => Exit::instruction(code::RDTSC),
            I::Rdtscp => Exit::instruction(code::RDTSCP),
            I::Rdpmc => Exit::instruction(code::RDPMC),
            I::Rdpru => Exit::instruction(code::RDPRU),
            I::Pushf => Exit::instruction(code::PUSHF),
            I::Popf => Exit::instruction(code::POPF),
            I::Iret => Exit::instruction(code::IRET),
            I::Rsm => Exit::instruction(code::RSM),
            I::Icebp => Exit::instruction(code::ICEBP),
            _ => return Ok(()),
        };
        self.take_if(h, exit)
    }

    /// The #VMEXIT, if its intercept is on.
    #[inline]
    fn take_if(&mut self, h: &mut P, exit: Exit) -> Step {
        if self.vmcb.intercepts(exit.code) { Err(self.exit(h, exit)) } else { Ok(()) }
    }

    /// An event that stays pending.
    fn event(&mut self, h: &mut P, code: u64) -> Step {
        self.take_if(h, Exit::of(code))
    }

    /// "Exception Intercepts"; INT3, INTO and BOUND tell where the next instruction is ("State Saved on Exit"). That of the second exception comes before the two are combined into a double fault.
    fn exception(&mut self, h: &mut P, e: Exception, software: bool, first: Option<Delivery>) -> Step {
        if !software {
            // The instruction has faulted: nothing comes behind it.
            self.trap = None;
        }
        let code = code::EXCEPTION + u64::from(e.vector);
        if e.vector > 31 || !self.vmcb.intercepts(code) {
            return Ok(());
        }
        h.arch.delivering = first.filter(|_| e.vector != vector::DF);
        let is_of_instruction = software || e.vector == vector::BR;
        let mut exit = Exit { is_of_instruction, info_1: e.error.unwrap_or(0).into(), ..Exit::of(code) };
        match e.vector {
            vector::PF => {
                exit.info_2 = e.address;
                if exit.info_1 & u64::from(x86::paging::error::ID) == 0 {
                    exit.bytes = self.bytes_fetched(h);
                }
            }
            // DR6 and DR7 have been updated.
            vector::DB => extension::record_debug_exception(h, e.address),
            _ => {}
        }
        Err(self.exit(h, exit))
    }

    /// "Task Switches": EXITINFO1 is the selector; EXITINFO2 says by what, and what would be pushed.
    fn task_switch(&mut self, h: &mut P, selector: u16, reason: u8, error: Option<u16>) -> Step {
        const BY_IRET: u64 = 1 << 36;
        const BY_JUMP: u64 = 1 << 38;
        const HAS_ERROR: u64 = 1 << 44;
        const RF: u64 = 1 << 48;
        let by = match reason {
            1 => BY_IRET,
            2 => BY_JUMP,
            _ => 0,
        };
        let error = error.map_or(0, |e| u64::from(e) | HAS_ERROR);
        let rf = if h.rflags() & x86::control::rflags::RF != 0 { RF } else { 0 };
        let exit = Exit { info_1: selector.into(), info_2: by | error | rf, ..Exit::of(code::TASK_SWITCH) };
        self.take_if(h, exit)
    }

    /// MOV to a control register. CR0: the selective intercept is for changes of other bits than TS and MP.
    fn mov_to_cr(&mut self, h: &mut P, cr: u8, register: u8, value: u64) -> Step {
        let info_1 = MOV | u64::from(register);
        self.take_if(h, Exit { info_1, ..Exit::instruction(code::CR_WRITE + u64::from(cr)) })?;
        if cr == 0 && self.is_selected(h, value) {
            self.take_if(h, Exit { info_1, ..Exit::instruction(code::CR0_SELECTIVE_WRITE) })?;
        }
        let trap = code::CR_WRITE_TRAP + u64::from(cr);
        if self.vmcb.intercepts(trap) {
            self.set_trap(h, trap);
        }
        Ok(())
    }

    /// Bits of CR0 change that the selective intercept is for.
    fn is_selected(&self, h: &P, value: u64) -> bool {
        (value ^ h.arch.cr0) & !(cr0::TS | cr0::MP | cr0::ET) != 0
    }

    /// LMSW: the selective intercept is for all of them.
    fn lmsw(&mut self, h: &mut P) -> Step {
        self.take_if(h, Exit::instruction(code::CR_WRITE))?;
        self.take_if(h, Exit::instruction(code::CR0_SELECTIVE_WRITE))?;
        self.trap_cr0_write(h);
        Ok(())
    }

    fn clts(&mut self, h: &mut P) -> Step {
        self.take_if(h, Exit::instruction(code::CR_WRITE))?;
        self.trap_cr0_write(h);
        Ok(())
    }

    fn trap_cr0_write(&mut self, h: &mut P) {
        if self.vmcb.intercepts(code::CR_WRITE_TRAP) {
            self.set_trap(h, code::CR_WRITE_TRAP);
        }
    }

    /// "CR and EFER write traps": behind the instruction.
    fn set_trap(&mut self, h: &mut P, code: u64) {
        self.trap = Some(code);
        h.core.check_interrupts = true;
        h.core.leave = true;
    }

    fn trap_efer_write(&mut self, h: &mut P, msr: u32) {
        const EFER: u32 = 0xc000_0080;
        if msr == EFER && self.vmcb.intercepts(code::EFER_WRITE_TRAP) {
            self.set_trap(h, code::EFER_WRITE_TRAP);
        }
    }

    /// An instruction is over.
    fn operation_is_over(&mut self, h: &mut P) -> Step {
        if h.arch.injected.is_some() {
            return Ok(());
        }
        if let Some(exit) = self.take_avic_trap() {
            return Err(self.exit(h, exit));
        }
        let Some(code) = self.trap.take() else { return Ok(()) };
        let info_1 = match code {
            code::EFER_WRITE_TRAP => h.arch.efer,
            code::CR_WRITE_TRAP => h.arch.cr0,
            c if c == code::CR_WRITE_TRAP + 3 => h.arch.cr3,
            c if c == code::CR_WRITE_TRAP + 4 => h.arch.cr4,
            c if c == code::CR_WRITE_TRAP + 8 => self.vmcb.get(VINTR) & 0xf,
            _ => 0,
        };
        Err(self.exit(h, Exit { info_1, ..Exit::of(code) }))
    }

    /// "MSR Intercepts": two bits for each MSR, in three ranges; what is outside of them is intercepted.
    fn msr(&mut self, h: &mut P, msr: u32, is_write: bool) -> Step {
        if !self.vmcb.intercepts(code::MSR) {
            return Ok(());
        }
        let place = match msr {
            0..=0x1fff => Some(msr),
            0xc000_0000..=0xc000_1fff => Some(0x2000 + (msr & 0x1fff)),
            0xc001_0000..=0xc001_1fff => Some(0x4000 + (msr & 0x1fff)),
            _ => None,
        };
        let exits = place.is_none_or(|n| {
            let bit = 2 * u64::from(n) + u64::from(is_write);
            self.bit_of(h, MSRPM_BASE_PA, bit)
        });
        if !exits {
            return Ok(());
        }
        if is_write {
            self.trap = None;
        }
        Err(self.exit(h, Exit { info_1: is_write.into(), ..Exit::instruction(code::MSR) }))
    }

    /// A bit of a permissions map; the low 12 bits of its address count as 0.
    fn bit_of(&self, h: &mut P, map: Field, bit: u64) -> bool {
        let base = self.vmcb.get(map) & 0x000f_ffff_ffff_f000;
        h.read_physical(base + bit / 8, 1).unwrap_or(0xff) >> (bit % 8) & 1 != 0
    }

    /// "IOIO Intercepts".
    fn io(&mut self, h: &mut P, port: u16, size: u8, input: bool, string: bool, repeats: bool) -> Step {
        if !self.vmcb.intercepts(code::IOIO) {
            return Ok(());
        }
        let first = u64::from(port);
        if !(first..first + u64::from(size)).any(|bit| self.bit_of(h, IOPM_BASE_PA, bit)) {
            return Ok(());
        }
        let (address_size, segment) = Decoded::io(h, string);
        let flags = u64::from(input) | u64::from(string) << 2 | u64::from(repeats) << 3;
        let info_1 = flags | u64::from(size) << 4 | address_size << 7 | segment << 10 | first << 16;
        let info_2 = h.ip(h.core.next_pc);
        Err(self.exit(h, Exit { info_1, info_2, ..Exit::instruction(code::IOIO) }))
    }

    /// "PAUSE Intercept Filtering". Between two PAUSEs counts what this processor does: others have their turns meanwhile.
    fn pause(&mut self, h: &mut P) -> Step {
        if !self.vmcb.intercepts(code::PAUSE) {
            return Ok(());
        }
        let reload = self.vmcb.get(PAUSE_FILTER_COUNT);
        if self.has(Feature::PauseFilter) && reload != 0 {
            let now = h.core.retired();
            let threshold = self.vmcb.get(PAUSE_FILTER_THRESHOLD);
            let (count, last) = self.pauses;
            let is_late = self.has(Feature::PfThreshold) && threshold != 0 && now.wrapping_sub(last) > threshold;
            self.pauses = (if is_late { reload } else { count.saturating_sub(1) }, now);
            if is_late || count != 0 {
                return Ok(());
            }
        }
        Err(self.exit(h, Exit::instruction(code::PAUSE)))
    }

    /// "Bus Lock Threshold": so many locks are let through. The exit comes before the instruction, which is no intercepted one: there is no nRIP.
    fn bus_lock(&mut self, h: &mut P) -> Step {
        let left = self.vmcb.get(BUS_LOCK_COUNTER);
        if left == 0 {
            let stop = self.exit(h, Exit::of(code::BUS_LOCK));
            x86::msr::not_retired(h);
            return Err(stop);
        }
        self.vmcb.set(BUS_LOCK_COUNTER, left - 1);
        Ok(())
    }

    /// "Idle HLT Intercept".
    fn intercepts_idle_hlt(&self) -> bool {
        self.has(Feature::IdleHlt) && self.vmcb.intercepts(code::IDLE_HLT)
    }
}
