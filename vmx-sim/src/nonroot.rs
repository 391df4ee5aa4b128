//! "VMX Non-Root Operation": which instructions and events cause VM exits (SDM vol. 3C, "Instructions That Cause VM Exits", "Other Causes of VM
//! Exits"), and what the exit says ("Exit Qualification").

use emu_core::engine::Step;
use x86::control::{cr0, rflags};
use x86::exception::{Exception, vector};
use x86::extension::{self, Delivery, Intercept, Origin, When};
use x86::processor::{P, ProcessorExt, segments};
use x86::registers::{FS_BASE, GS_BASE, RDI, RSI};

use crate::capability::CR3_TARGETS;
use crate::control::{Control, exit, pin, primary, secondary};
use crate::exit::{Decoded, Exit, NMI_UNBLOCKING, Reason, information_of};
use crate::field::*;
use crate::vmx::Vmx;
use emu_core::engine::Stop;
use iced_x86::Mnemonic;

/// Kinds of access in the exit qualification of control-register accesses.
const MOV_FROM_CR: u64 = 1 << 4;
const CLTS: u64 = 2 << 4;
const LMSW: u64 = 3 << 4;

impl Vmx {
    /// Whether something that is about to happen in the guest causes a VM exit.
    pub(crate) fn decide(&mut self, h: &mut P, what: &Intercept, when: When) -> Step {
        use Intercept as I;
        // Of instructions that ask before and after their operands have been looked at, VMX takes all before.
        if when == When::AfterChecks && what.is_asked_twice() {
            return Ok(());
        }
        let has = |c: Control| self.vmcs.has(c);
        let exit = match *what {
            I::Exception { exception, software, first } => return self.exception(h, exception, software, first),
            I::ExternalInterrupt { .. } => return self.external_interrupt(h),
            I::Nmi => {
                if !has(pin::NMI_EXITING) {
                    return Ok(());
                }
                h.arch.pending.nmi = false;
                let information = information_of(Origin::Nmi, vector::NMI, None);
                Exit { interruption: Some((information, None)), ..Exit::of(Reason::ExceptionOrNmi) }
            }
            I::Init => {
                h.arch.pending.init = false;
                Exit::of(Reason::InitSignal)
            }
            I::Sipi(vector) => Exit::of(Reason::StartUpIpi).qualified(vector.into()),
            I::TripleFault => Exit::of(Reason::TripleFault),
            // However long the processor may take for an instruction, this takes longer.
            I::Endless if has(secondary::INSTRUCTION_TIMEOUT) => {
                Exit { resume: crate::exit::Resume::Set, ..Exit::of(Reason::InstructionTimeout) }
            }
            I::Icebp => {
                if self.vmcs[EXCEPTION_BITMAP] >> vector::DB & 1 == 0 {
                    return Ok(());
                }
                let information = information_of(Origin::PrivilegedSoftwareException, vector::DB, None);
                let exit = Exit::instruction(Reason::ExceptionOrNmi);
                Exit { interruption: Some((information, None)), ..exit }
            }
            I::TaskSwitch { selector, reason, error: _ } => {
                let exit = Exit::instruction(Reason::TaskSwitch);
                let is_of_instruction = reason != 3;
                let resume = crate::exit::Resume::AsItIs;
                Exit { is_of_instruction, resume, ..exit }.qualified(u64::from(selector) | u64::from(reason) << 30)
            }
            I::MovToCr { cr, register, value } => match self.mov_to_cr(cr, register, value) {
                Some(exit) => exit,
                None => return Ok(()),
            },
            I::MovFromCr { cr, register } => {
                let exits = match cr {
                    3 => has(primary::CR3_STORE_EXITING),
                    8 => has(primary::CR8_STORE_EXITING),
                    _ => false,
                };
                if !exits {
                    return Ok(());
                }
                let qualification = u64::from(cr) | MOV_FROM_CR | u64::from(register) << 8;
                Exit::instruction(Reason::ControlRegister).qualified(qualification)
            }
            I::Clts => {
                if self.vmcs[CR0_MASK] & self.vmcs[CR0_READ_SHADOW] & cr0::TS == 0 {
                    return Ok(());
                }
                Exit::instruction(Reason::ControlRegister).qualified(CLTS)
            }
            I::Lmsw { source, memory } => match self.lmsw(source, memory) {
                Some(exit) => exit,
                None => return Ok(()),
            },
            I::MovToDr { dr, register } if has(primary::MOV_DR_EXITING) => {
                Exit::instruction(Reason::MovDr).qualified(u64::from(dr) | u64::from(register) << 8)
            }
            I::MovFromDr { dr, register } if has(primary::MOV_DR_EXITING) => {
                Exit::instruction(Reason::MovDr).qualified(u64::from(dr) | 1 << 4 | u64::from(register) << 8)
            }
            I::Gdtr { instruction, .. } if has(secondary::DESCRIPTOR_TABLE_EXITING) => {
                let d = Decoded::at_rip(h);
                let information = d.map(|d| d.of_gdtr(instruction));
                let exit = Exit::instruction(Reason::GdtrOrIdtr).qualified(d.map_or(0, |d| d.displacement()));
                Exit { instruction_information: information, ..exit }
            }
            I::Ldtr { instruction } if has(secondary::DESCRIPTOR_TABLE_EXITING) => {
                let d = Decoded::at_rip(h);
                let information = d.map(|d| d.of_ldtr(instruction));
                let exit = Exit::instruction(Reason::LdtrOrTr).qualified(d.map_or(0, |d| d.displacement()));
                Exit { instruction_information: information, ..exit }
            }
            I::In { port, size, string, repeats } => match self.io(h, port, size, true, string, repeats) {
                Some(exit) => exit,
                None => return Ok(()),
            },
            I::Out { port, size, string, repeats } => match self.io(h, port, size, false, string, repeats) {
                Some(exit) => exit,
                None => return Ok(()),
            },
            I::Rdmsr(_)
            | I::Wrmsr { .. }
            | I::Wrmsrns { .. }
            | I::Rdmsrlist(_)
            | I::Wrmsrlist { .. }
            | I::RdmsrImmediate { .. }
            | I::WrmsrnsImmediate { .. }
            | I::Urdmsr { .. }
            | I::Uwrmsr { .. } => match self.msr_exit(h, what) {
                Some(exit) => exit,
                None => return Ok(()),
            },
            I::Cpuid => Exit::instruction(Reason::Cpuid),
            I::Hlt if has(primary::HLT_EXITING) => Exit::instruction(Reason::Hlt),
            I::Pause => {
                let exits = self.pause_exits(h);
                return if exits { Err(self.exit(h, Exit::instruction(Reason::Pause))) } else { Ok(()) };
            }
            I::Monitor if has(primary::MONITOR_EXITING) => Exit::instruction(Reason::Monitor),
            I::Mwait { armed } if has(primary::MWAIT_EXITING) => {
                Exit::instruction(Reason::Mwait).qualified(armed.into())
            }
            I::Umwait if has(primary::RDTSC_EXITING) => {
                let d = Decoded::at_rip(h);
                let is_tpause = d.is_some_and(|d| d.mnemonic() == Mnemonic::Tpause);
                let exit = Exit::instruction(if is_tpause { Reason::Tpause } else { Reason::Umwait });
                Exit { instruction_information: d.map(|d| d.of_register()), ..exit }
            }
            I::Invlpg(address) if has(primary::INVLPG_EXITING) => Exit::instruction(Reason::Invlpg).qualified(address),
            I::Invpcid { .. } if has(primary::INVLPG_EXITING) => {
                return Err(self.operand_exit(h, Reason::Invpcid));
            }
            I::Invd => Exit::instruction(Reason::Invd),
            I::Wbinvd | I::Wbnoinvd if has(secondary::WBINVD_EXITING) => Exit::instruction(Reason::Wbinvd),
            I::Rdtsc if has(primary::RDTSC_EXITING) => Exit::instruction(Reason::Rdtsc),
            I::Rdtscp if has(primary::RDTSC_EXITING) => Exit::instruction(Reason::Rdtscp),
            I::Rdpmc if has(primary::RDPMC_EXITING) => Exit::instruction(Reason::Rdpmc),
            I::Rdrand { .. } if has(secondary::RDRAND_EXITING) => {
                let information = Decoded::at_rip(h).map(|d| d.of_register());
                Exit { instruction_information: information, ..Exit::instruction(Reason::Rdrand) }
            }
            I::Rdseed { .. } if has(secondary::RDSEED_EXITING) => {
                let information = Decoded::at_rip(h).map(|d| d.of_register());
                Exit { instruction_information: information, ..Exit::instruction(Reason::Rdseed) }
            }
            I::Xsetbv => Exit::instruction(Reason::Xsetbv),
            I::Xsaves(components) if components & h.arch.xss & self.vmcs[XSS_EXITING_BITMAP] != 0 => {
                return Err(self.operand_exit(h, Reason::Xsaves));
            }
            I::Xrstors(components) if components & h.arch.xss & self.vmcs[XSS_EXITING_BITMAP] != 0 => {
                return Err(self.operand_exit(h, Reason::Xrstors));
            }
            I::Over => match self.operation_is_over(h) {
                Some(exit) => exit,
                None => return Ok(()),
            },
            I::Completed => match self.completed(h) {
                Some(exit) => exit,
                None => return Ok(()),
            },
            I::Boundary { shadowed } => match self.boundary(h, shadowed)? {
                Some(exit) => exit,
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        Err(self.exit(h, exit))
    }

    /// An exit of an instruction with an operand in memory: the qualification is its displacement.
    pub(crate) fn operand_exit(&mut self, h: &mut P, reason: Reason) -> Stop {
        let d = Decoded::at_rip(h);
        let exit = Exit::instruction(reason).qualified(d.map_or(0, |d| d.displacement()));
        self.exit(h, Exit { instruction_information: d.map(|d| d.of_vmx()), ..exit })
    }

    /// "Exceptions": the exception bitmap; page faults also by their error codes.
    fn exception(&mut self, h: &mut P, e: Exception, software: bool, first: Option<Delivery>) -> Step {
        let v = &self.vmcs;
        let bit = v[EXCEPTION_BITMAP] >> e.vector & 1 != 0;
        let error = u64::from(e.error.unwrap_or(0));
        let matches = error & v[PAGE_FAULT_ERROR_CODE_MASK] == v[PAGE_FAULT_ERROR_CODE_MATCH];
        let exits = if e.vector == vector::PF { bit == matches } else { bit };
        if !exits {
            return Ok(());
        }
        let qualification = if matches!(e.vector, vector::PF | vector::DB) { e.address } else { 0 };
        // A double fault is not an event in another's delivery.
        h.arch.delivering = first.filter(|_| e.vector != vector::DF);
        let origin = if software { Origin::SoftwareException } else { Origin::Exception };
        let error = Vmx::error_code_of(h, e.error);
        let unblocking = if e.vector != vector::DF && self.nmi_unblocking(h) { NMI_UNBLOCKING } else { 0 };
        let information = information_of(origin, e.vector, error) | unblocking;
        let resume = match e.vector {
            vector::DB | vector::BP | vector::OF => crate::exit::Resume::AsItIs,
            _ => crate::exit::Resume::Set,
        };
        let exit = Exit {
            interruption: Some((information, error)),
            is_of_instruction: software,
            resume,
            ..Exit::of(Reason::ExceptionOrNmi)
        };
        Err(self.exit(h, exit.qualified(qualification)))
    }

    /// "External Interrupts".
    fn external_interrupt(&mut self, h: &mut P) -> Step {
        if !self.vmcs.has(pin::EXTERNAL_INTERRUPT_EXITING) {
            return Ok(());
        }
        let exit = Exit::of(Reason::ExternalInterrupt);
        let exit = if self.vmcs.has(exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT) {
            let information = information_of(Origin::External, extension::acknowledge(h), None);
            Exit { interruption: Some((information, None)), ..exit }
        } else {
            exit
        };
        Err(self.exit(h, exit))
    }

    /// MOV to CR0, CR3, CR4, CR8.
    fn mov_to_cr(&self, cr: u8, register: u8, value: u64) -> Option<Exit> {
        let v = &self.vmcs;
        let exits = match cr {
            0 => (value ^ v[CR0_READ_SHADOW]) & v[CR0_MASK] != 0,
            3 => {
                let count = v[CR3_TARGET_COUNT].min(CR3_TARGETS) as u16;
                let is_target = (0..count).any(|i| v[Field(CR3_TARGET_0.0 + 2 * i)] == value);
                v.has(primary::CR3_LOAD_EXITING) && !is_target
            }
            4 => (value ^ v[CR4_READ_SHADOW]) & v[CR4_MASK] != 0,
            8 => v.has(primary::CR8_LOAD_EXITING),
            _ => false,
        };
        let qualification = u64::from(cr) | u64::from(register) << 8;
        exits.then(|| Exit::instruction(Reason::ControlRegister).qualified(qualification))
    }

    /// LMSW: it can set PE, and never clears it.
    fn lmsw(&self, source: u16, memory: Option<u64>) -> Option<Exit> {
        let v = &self.vmcs;
        let changed = (u64::from(source) ^ v[CR0_READ_SHADOW]) & v[CR0_MASK] & 0xf;
        let sets_pe = changed & cr0::PE != 0 && u64::from(source) & cr0::PE != 0;
        if changed & 0xe == 0 && !sets_pe {
            return None;
        }
        let is_memory = u64::from(memory.is_some()) << 6;
        let exit = Exit::instruction(Reason::ControlRegister).qualified(LMSW | is_memory | u64::from(source) << 16);
        Some(Exit { linear: memory, ..exit })
    }

    /// IN, OUT, INS, OUTS.
    fn io(&self, h: &mut P, port: u16, size: u8, input: bool, string: bool, repeats: bool) -> Option<Exit> {
        let v = &self.vmcs;
        let exits = if v.has(primary::USE_IO_BITMAPS) {
            let last = u32::from(port) + u32::from(size) - 1;
            last > 0xffff || (u32::from(port)..=last).any(|p| self.io_bit(h, p as u16))
        } else {
            v.has(primary::UNCONDITIONAL_IO_EXITING)
        };
        if !exits {
            return None;
        }
        let d = Decoded::at_rip(h);
        let immediate = d.is_some_and(|d| d.has_immediate());
        let flags = [(3, input), (4, string), (5, repeats), (6, immediate)];
        let flags = flags.iter().fold(0, |bits, (n, flag)| bits | u64::from(*flag) << n);
        let qualification = (u64::from(size) - 1) | flags | u64::from(port) << 16;
        let exit = Exit::instruction(Reason::Io).qualified(qualification);
        Some(match d.filter(|_| string) {
            Some(d) => {
                Exit { instruction_information: Some(d.of_string()), linear: Some(string_address(h, d)), ..exit }
            }
            None => exit,
        })
    }

    fn io_bit(&self, h: &mut P, port: u16) -> bool {
        let bitmap = self.vmcs[if port < 0x8000 { IO_BITMAP_A } else { IO_BITMAP_B }];
        let byte = h.read_physical(bitmap + u64::from(port & 0x7fff) / 8, 1).unwrap_or(0xff);
        byte >> (port & 7) & 1 != 0
    }

    /// "PAUSE": always, or when a loop of them has lasted for too long. From one to the next counts what this processor does: others have their turns
    /// meanwhile.
    fn pause_exits(&mut self, h: &P) -> bool {
        if self.vmcs.has(primary::PAUSE_EXITING) {
            return true;
        }
        if !self.vmcs.has(secondary::PAUSE_LOOP_EXITING) || h.arch.cpl() != 0 {
            return false;
        }
        let (now, done) = (h.arch.tsc(h.core.count()), h.core.retired());
        let (gap, window) = (self.vmcs[PLE_GAP], self.vmcs[PLE_WINDOW]);
        let first = match self.pauses {
            Some((first, last)) if done.wrapping_sub(last) <= gap => first,
            _ => now,
        };
        self.pauses = Some((first, done));
        now.wrapping_sub(first) > window
    }

    /// "Monitor Trap Flag".
    fn completed(&mut self, h: &P) -> Option<Exit> {
        let is_due = self.vmcs.has(primary::MONITOR_TRAP_FLAG)
            && extension::present_instruction(h) >= self.trap_flag_from
            || self.trap_flag_pending;
        self.trap_flag_pending &= !is_due;
        is_due.then(|| Exit::of(Reason::MonitorTrapFlag))
    }

    /// What comes between debug traps and interrupts: the VMX-preemption timer, windows, virtual interrupts.
    fn boundary(&mut self, h: &mut P, shadowed: bool) -> Step<Option<Exit>> {
        if self.timer_has_expired(h) {
            return Ok(Some(Exit::of(Reason::PreemptionTimer)));
        }
        let takes_nmi = h.arch.pending.nmi && !h.arch.nmi_blocked;
        if self.has_nmi_window() && !shadowed {
            return Ok(Some(Exit::of(Reason::NmiWindow)));
        }
        if shadowed || takes_nmi {
            return Ok(None);
        }
        if self.has_interrupt_window(h) {
            return Ok(Some(Exit::of(Reason::InterruptWindow)));
        }
        self.virtual_interrupts(h)?;
        Ok(None)
    }

    fn has_nmi_window(&self) -> bool {
        self.vmcs.has(primary::NMI_WINDOW_EXITING) && !self.virtual_nmi_blocked
    }

    fn has_interrupt_window(&self, h: &P) -> bool {
        self.vmcs.has(primary::INTERRUPT_WINDOW_EXITING) && h.arch.rflags & rflags::IF != 0
    }

    /// Something of the extension's own waits to be taken in the guest.
    pub(crate) fn has_event(&self, h: &P) -> bool {
        let windows = !h.arch.waiting.is_shut_down() && (self.has_nmi_window() || self.has_interrupt_window(h));
        let trap_flag = self.vmcs.has(primary::MONITOR_TRAP_FLAG) || self.trap_flag_pending;
        self.timer_has_expired(h) || windows || trap_flag || h.arch.debug_trap != 0 || self.wakes_by_apic(h)
    }
}

/// The linear address of the memory operand of INS or OUTS.
fn string_address(h: &P, d: Decoded) -> u64 {
    let (segment, is_outs) = d.string_segment();
    let offset = h.reg(if is_outs { RSI } else { RDI });
    let bits = d.string_address_bits();
    let offset = if bits == 64 { offset } else { offset & ((1 << bits) - 1) };
    let base = match segment {
        segments::FS => h.reg(FS_BASE),
        segments::GS => h.reg(GS_BASE),
        _ if h.arch.is_64() => 0,
        s => h.arch.segments[s].base,
    };
    let linear = base.wrapping_add(offset);
    if h.arch.is_64() { linear } else { linear & 0xffff_ffff }
}
