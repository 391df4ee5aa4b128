//! What a processor at work can do: its registers as instructions see them, and accesses of its own.

use emu_core::engine::Step;
use emu_core::engine::flags::{ALL as ARITHMETIC, Flags};

use crate::control::rflags;
use crate::exception::Exception;
use crate::processor::{AS_PROCESSOR, P, flags, segments, set_flags};
use crate::registers::{DIRECTION, FS_BASE, GS_BASE};
use crate::segment::Segment;

/// What only a processor at work can do.
pub trait ProcessorExt {
    /// All of RFLAGS.
    fn rflags(&self) -> u64;
    /// Likewise, but for the arithmetic flags.
    fn control_flags(&self) -> u64;
    /// RFLAGS.RF, which lasts for the instruction behind that which has set it.
    fn resumes(&self) -> bool;
    /// Writes all of RFLAGS; reserved bits are as they must be.
    fn set_rflags(&mut self, value: u64);
    /// Anything that translation, rights, the meaning of code or interrupts depend on may have changed.
    fn all_changed(&mut self);
    /// The instruction pointer of a linear address.
    fn ip(&self, linear: u64) -> u64;
    /// The linear address of an instruction pointer.
    fn linear_ip(&self, ip: u64) -> u64;
    /// Loads a segment register with all that it caches.
    fn set_segment(&mut self, i: usize, segment: Segment);
    /// A register.
    fn reg(&self, r: u8) -> u64;
    /// Writes all of a register.
    fn set_reg(&mut self, r: u8, value: u64);
    /// A load as the processor itself makes it.
    fn read_system(&mut self, linear: u64, size: u8) -> Step<u64>;
    /// A store as the processor itself makes it.
    fn write_system(&mut self, linear: u64, size: u8, value: u64) -> Step;
    /// #UD, #GP or another exception, if `condition` holds.
    fn fault_if(&self, condition: bool, exception: Exception) -> Step;
    /// #GP(0) unless CPL is 0.
    fn require_cpl_0(&self) -> Step;
}

impl ProcessorExt for P<'_> {
    fn rflags(&self) -> u64 {
        flags(&self.core.regs).all() | self.control_flags()
    }

    #[inline]
    fn control_flags(&self) -> u64 {
        let down = self.core.regs[usize::from(DIRECTION)] != 0;
        let rf = if self.resumes() { rflags::RF } else { 0 };
        self.arch.rflags | rf | if down { rflags::DF } else { 0 }
    }

    fn resumes(&self) -> bool {
        self.arch.resumed_at == Some(self.core.retired())
    }

    fn set_rflags(&mut self, value: u64) {
        const SYSTEM: u64 = rflags::TF
            | rflags::IF
            | 3 << 12
            | rflags::NT
            | rflags::VM
            | rflags::AC
            | rflags::VIF
            | rflags::VIP
            | rflags::ID;
        /// What translation, rights, the meaning of code or interrupts depend on.
        const OF_INTEREST: u64 = rflags::TF | rflags::IF | rflags::VM | rflags::AC | rflags::VIF | rflags::VIP;
        let old = std::mem::replace(&mut self.arch.rflags, value & SYSTEM | 2);
        self.arch.resumed_at = (value & rflags::RF != 0).then(|| self.core.retired() + 1);
        if (old ^ self.arch.rflags) & OF_INTEREST != 0 || value & rflags::TF != 0 {
            self.all_changed();
        }
        self.core.regs[usize::from(DIRECTION)] = if value & rflags::DF != 0 { u64::MAX } else { 0 };
        set_flags(&mut self.core.regs, Flags::eager(value & ARITHMETIC));
    }

    fn all_changed(&mut self) {
        self.core.spaces_changed = true;
        self.core.check_interrupts = true;
        self.core.leave = true;
    }

    #[inline]
    fn ip(&self, linear: u64) -> u64 {
        if self.arch.is_64() {
            return linear;
        }
        (linear as u32).wrapping_sub(self.arch.segments[segments::CS].base as u32).into()
    }

    #[inline]
    fn linear_ip(&self, ip: u64) -> u64 {
        if self.arch.is_64() {
            return ip;
        }
        (ip as u32).wrapping_add(self.arch.segments[segments::CS].base as u32).into()
    }

    #[inline]
    fn set_segment(&mut self, i: usize, segment: Segment) {
        let old = std::mem::replace(&mut self.arch.segments[i], segment);
        match i {
            segments::FS => self.core.regs[usize::from(FS_BASE)] = segment.base,
            segments::GS => self.core.regs[usize::from(GS_BASE)] = segment.base,
            _ => {}
        }
        // The selector itself is for the program alone.
        if old != (Segment { selector: old.selector, ..segment }) {
            self.all_changed();
        }
    }

    fn reg(&self, r: u8) -> u64 {
        self.core.regs[usize::from(r)]
    }

    fn set_reg(&mut self, r: u8, value: u64) {
        self.core.regs[usize::from(r)] = value;
    }

    fn read_system(&mut self, linear: u64, size: u8) -> Step<u64> {
        self.load(linear, size, AS_PROCESSOR)
    }

    fn write_system(&mut self, linear: u64, size: u8, value: u64) -> Step {
        self.store(linear, size, value, AS_PROCESSOR)
    }

    #[inline(always)]
    fn fault_if(&self, condition: bool, exception: Exception) -> Step {
        if condition { Err(exception.into()) } else { Ok(()) }
    }

    fn require_cpl_0(&self) -> Step {
        self.fault_if(self.arch.cpl() != 0, Exception::gp(0))
    }
}
