//! The processor's part of the engine: what an instruction is lifted to, and what the engine asks an architecture.

use emu_core::bus::VcpuSignal;
use emu_core::engine::{Access, Arch, Intent, Lift, Step, Stop};
use emu_core::time::{VirtualTime, earlier};
use emu_core::tlb::{Mapping, Space};
use iced_x86::{Decoder, DecoderError};

use super::translation::{self, NON_CANONICAL, SECOND_STAGE, exception_of};
use super::{P, ProcessorExt, X86, flags, set_flags};
use crate::apic;
use crate::broadcast;
use crate::bus_lock;
use crate::exception::{Exception, vector};
use crate::extension;
use crate::isa::{self, compute};
use crate::mode::Mode;
use crate::monitor;
use crate::msr;
use crate::platform::msi::{self, InterruptMessage};
use crate::registers::{RSP, SSP, temp};
use crate::smm::memory;
use crate::{
    debug, ibt, interrupt, linear, msr_instructions, processor_instructions, repeat, shadow_stack, smm, system,
};

/// No instruction is longer, in bytes ("Instruction Format").
const MAX_INSTRUCTION: usize = 15;
/// Set in an instruction's note: its memory operand is in the stack segment.
const NOTE_STACK: u32 = 1;
/// By how much it moves the stack pointer stands above this bit of its note.
const NOTE_MOVES: u32 = 1;
/// A near branch to an address that is not canonical.
const BAD_TARGET: u32 = u32::MAX - 1;

/// A computation on registers that is no micro-op.
#[inline(never)]
fn compute_now(h: &mut P, operand: u32) -> Step {
    let r = &mut h.core.regs;
    let mut values = compute::Values {
        first: r[usize::from(temp::FIRST)],
        second: r[usize::from(temp::SECOND)],
        third: r[usize::from(temp::THIRD)],
        flags: flags(r),
        size: compute::size_in(operand),
    };
    compute::run(operand, &mut values)?;
    r[usize::from(temp::FIRST)] = values.first;
    r[usize::from(temp::SECOND)] = values.second;
    set_flags(r, values.flags);
    Ok(())
}

impl Arch for X86 {
    const REGISTERS: usize = crate::registers::COUNT;
    const BUS_FLOATS: bool = true;
    const KEEPS_SPACES: bool = true;

    fn lift(&self, pc: u64, bytes: &[u8], lift: &mut Lift) -> Option<u8> {
        let mode = Mode::of(self);
        let ip = mode.ip(pc);
        let mut decoder = Decoder::with_ip(mode.code.bits(), bytes, ip, self.model.decoder_options());
        let insn = decoder.decode();
        let length = insn.len().max(1) as u8;
        if insn.is_invalid() {
            match msr_instructions::decode(&self.model, &mode, bytes) {
                Err(()) if bytes.len() < MAX_INSTRUCTION => return None,
                Ok(Some(decoded)) => {
                    ibt::check(lift, &insn, &mode);
                    return Some(decoded.lift(lift));
                }
                _ => {}
            }
            // Bytes are missing, or there are more than 15.
            let ends_early = decoder.last_error() == DecoderError::NoMoreBytes;
            if ends_early && bytes.len() < MAX_INSTRUCTION {
                return None;
            }
            if !ends_early {
                ibt::check(lift, &insn, &mode);
            }
            system::raise(lift, if ends_early { Exception::gp(0) } else { Exception::UD });
            return Some(length);
        }
        if ip + u64::from(length) - 1 > mode.cs_limit.into() && !mode.is_64() {
            system::raise(lift, Exception::gp(0));
            return Some(length);
        }
        let uses_stack = insn.memory_segment() == iced_x86::Register::SS || insn.is_stack_instruction();
        let moves = insn.stack_pointer_increment() as u32;
        lift.note(if uses_stack { NOTE_STACK } else { 0 } | moves << NOTE_MOVES);
        ibt::check(lift, &insn, &mode);
        bus_lock::watch(lift, &insn, &mode);
        let own = self.extension.get().and_then(|e| e.opcode(&insn));
        if let Some(opcode) = own {
            isa::lift_own(lift, &insn, &mode, opcode);
            return Some(length);
        }
        let is_lifted = self.model.allows(&insn)
            && (processor_instructions::lift(lift, &insn, &mode)
                || system::lift(lift, &insn, &mode)
                || isa::lift(lift, &insn, &mode).is_ok());
        if !is_lifted {
            system::raise(lift, Exception::UD);
        }
        Some(length)
    }

    fn mode(&self) -> u32 {
        // Rights are asked for when an instruction runs.
        Mode::of(self).bits()
    }

    fn context(&self) -> u64 {
        Mode::of(self).context()
    }

    fn level(&self) -> u8 {
        self.extension.get().map_or(1, |e| e.level())
    }

    #[inline]
    fn call(h: &mut P, function: u16, operand: u32) -> Step {
        match function {
            compute::FUNCTION => compute_now(h, operand),
            extension::FUNCTION => extension::call(h, operand),
            linear::FUNCTION => linear::call(h, operand),
            repeat::FUNCTION => repeat::call(h, operand),
            ibt::FUNCTION => ibt::call(h, operand),
            bus_lock::FUNCTION => bus_lock::call(h, operand),
            shadow_stack::FUNCTION => shadow_stack::call(h, operand),
            isa::FIRST.. => isa::call(h, function, operand),
            msr_instructions::FIRST_FUNCTION.. => msr_instructions::call(h, function, operand),
            processor_instructions::FIRST_FUNCTION.. => processor_instructions::call(h, function, operand),
            _ => system::call(h, function, operand),
        }
    }

    fn space(h: &mut P, as_whom: u8, intent: Intent) -> Space {
        translation::space(h, as_whom, intent)
    }

    fn walk(h: &mut P, access: Access) -> Step<Mapping> {
        translation::walk(h, access)
    }

    #[inline]
    fn read_own(h: &mut P, pa: u64, size: u8) -> Option<u64> {
        extension::read_own(h, pa, size).or_else(|| apic::local_read(h, pa, size))
    }

    #[inline]
    fn write_own(h: &mut P, pa: u64, size: u8, value: u64) -> Option<()> {
        extension::write_own(h, pa, size, value).or_else(|| apic::local_write(h, pa, size, value))
    }

    /// Only fetches come this far, from what is not RAM: a processor would read ones, which are no instruction.
    fn bus_error(_: &mut P, _: Access) -> Stop {
        Exception::UD.into()
    }

    fn misaligned(h: &mut P, access: Access, _: u8) -> Step {
        let checks = h.arch.checks_alignment() && access.as_whom == 0;
        h.fault_if(checks, Exception::with(vector::AC, 0))
    }

    fn jumps_to(h: &mut P, target: u64) -> Step {
        let allowed = !h.arch.is_64() || h.arch.is_canonical(target);
        if allowed { Ok(()) } else { Err(Stop::exception(BAD_TARGET, target)) }
    }

    fn trap(h: &mut P, stop: Stop) -> Step {
        h.arch.has_faulted = true;
        let result = trap(h, stop);
        h.arch.has_faulted = false;
        result
    }

    fn interrupt(h: &mut P) -> Step {
        ibt::settle(h, h.core.retired());
        interrupt::take_pending(h)
    }

    fn signal(h: &mut P, signal: VcpuSignal) {
        match signal {
            VcpuSignal::Pin { pin, level } => apic::set_pin(h, pin, level),
            VcpuSignal::Message { message: msi::INTERRUPT, value } => apic::accept(h, InterruptMessage::unpack(value)),
            VcpuSignal::Message { message: apic::IPI, value } => apic::receive_ipi(h, value),
            VcpuSignal::Message { message: apic::DOORBELL, .. } => extension::rung(h),
            VcpuSignal::Message { message: memory::DECODE, value } => {
                h.arch.smm.memory.bridge = memory::Bridge::unpack(value);
                smm::translations_changed(h);
            }
            VcpuSignal::Words { message: broadcast::INVALIDATE, words } => broadcast::invalidate(h, words),
            VcpuSignal::Message { .. } | VcpuSignal::Words { .. } => {}
        }
    }

    fn tick(h: &mut P) {
        apic::tick(h);
        monitor::tick(h);
        h.core.check_interrupts |= h.arch.extension.wakes_at().is_some_and(|at| at <= h.core.count());
        msr::perf::sync(h);
    }

    fn wakes_at(h: &P) -> Option<VirtualTime> {
        earlier(apic::wakes_at(h), monitor::wakes_at(h))
    }

    fn is_awake(h: &P) -> bool {
        monitor::is_awake(h)
    }

    fn descheduled(&mut self) {}
}

/// Takes the exception, or the exit, that a stopped instruction comes to.
fn trap(h: &mut P, stop: Stop) -> Step {
    // The instruction that has been stopped is counted.
    ibt::settle(h, h.core.retired() - 1);
    msr::perf::faulted(h.arch);
    debug::forget_matches(h);
    let exception = if stop.code() == BAD_TARGET {
        // CALL and RET have moved the stack pointer.
        let moved = (h.core.note as i32 >> NOTE_MOVES) as i64 as u64;
        let sp = h.reg(RSP).wrapping_sub(moved);
        h.set_reg(RSP, sp);
        if h.arch.has_shadow_stack() {
            // So they have this one, by a word of 64-bit code.
            let back = 8 * (moved as i64).signum();
            let ssp = h.reg(SSP).wrapping_sub(back as u64);
            h.set_reg(SSP, ssp);
        }
        Exception::gp(0)
    } else if stop.code() == NON_CANONICAL {
        let vector = if h.core.note & NOTE_STACK != 0 { vector::SS } else { vector::GP };
        Exception::with(vector, 0)
    } else if stop.code() == SECOND_STAGE {
        exception_of(h, stop)?
    } else {
        Exception::of(stop)
    };
    interrupt::take_exception(h, exception)
}
