//! What the bytes of code mean depends on (SDM vol. 3A, "Operating Modes"; vol. 1, "Operand-Size and Address-Size Attributes"): part of
//! a block's key, so that a block is lifted for its mode and need not ask again.

use crate::control::{cr0, cr4, efer, rflags};
use crate::exception::{Exception, vector};
use crate::ibt::Tracker;
use crate::processor::{X86, segments};
use crate::segment::Segment;
use crate::xsave::xcr0;

/// Default operand and address size of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode, 16-bit code segments.
    Bits16,
    /// 32-bit code segments.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl CodeSize {
    /// In bits, as a decoder wants it.
    pub const fn bits(self) -> u32 {
        match self {
            CodeSize::Bits16 => 16,
            CodeSize::Bits32 => 32,
            CodeSize::Bits64 => 64,
        }
    }
}

/// What lifting depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// The code segment's size.
    pub code: CodeSize,
    /// ESP is the stack pointer, not SP. Without meaning in 64-bit mode.
    pub wide_stack: bool,
    /// DS, ES and SS are all of the linear address space, and can be written: no access needs to look at them.
    pub flat: bool,
    /// Protected mode, and not virtual-8086 mode.
    pub protected: bool,
    /// CR0.EM.
    pub em: bool,
    /// CR0.TS.
    pub ts: bool,
    /// CR0.MP.
    pub mp: bool,
    /// CR4.OSFXSR.
    pub osfxsr: bool,
    /// Calls and returns use the shadow stack.
    pub shadow_stack: bool,
    /// State of indirect branch tracking.
    pub tracker: Tracker,
    /// CR4.OSXSAVE, and XCR0 has both SSE and AVX.
    pub ymm: bool,
    /// Somebody watches branches: each tells of itself.
    pub watches_branches: bool,
    /// Somebody wants to know of locks of the bus.
    pub watches_bus_locks: bool,
    /// Base and limit of CS outside 64-bit mode.
    pub cs_base: u32,
    /// See `cs_base`.
    pub cs_limit: u32,
}

fn is_flat(s: &Segment) -> bool {
    let a = s.attributes;
    let is_expand_down = a.kind() & 4 != 0;
    s.base == 0 && s.limit == u32::MAX && a.is_writable_data() && !is_expand_down && !a.is_unusable()
}

impl Mode {
    /// The mode that a processor is in.
    pub fn of(p: &X86) -> Mode {
        let [cs, ss, ds, es] = [segments::CS, segments::SS, segments::DS, segments::ES].map(|i| p.segments[i]);
        let code = if p.efer & efer::LMA != 0 && cs.attributes.is_long() {
            CodeSize::Bits64
        } else if cs.attributes.is_big() {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        };
        let is_64 = code == CodeSize::Bits64;
        let has = |cr: u64, bits: u64| cr & bits == bits;
        Mode {
            code,
            wide_stack: is_64 || ss.attributes.is_big(),
            flat: is_64 || [ss, ds, es].iter().all(is_flat),
            protected: has(p.cr0, cr0::PE) && !has(p.rflags, rflags::VM),
            em: has(p.cr0, cr0::EM),
            ts: has(p.cr0, cr0::TS),
            mp: has(p.cr0, cr0::MP),
            osfxsr: has(p.cr4, cr4::OSFXSR),
            shadow_stack: p.has_shadow_stack(),
            tracker: p.tracker(),
            ymm: has(p.cr4, cr4::OSXSAVE) && has(p.xcr0, xcr0::SSE | xcr0::AVX),
            watches_branches: p.watches_branches(),
            watches_bus_locks: p.extension.watches_bus_locks(),
            cs_base: if is_64 { 0 } else { cs.base as u32 },
            cs_limit: if is_64 { u32::MAX } else { cs.limit },
        }
    }

    /// All but the code segment's base and limit, as a number.
    pub fn bits(&self) -> u32 {
        let flags = [
            self.wide_stack,
            self.flat,
            self.protected,
            self.em,
            self.ts,
            self.mp,
            self.osfxsr,
            self.ymm,
            self.watches_branches,
            self.watches_bus_locks,
            self.shadow_stack,
            self.tracker as u8 & 1 != 0,
            self.tracker as u8 & 2 != 0,
            self.cs_base == 0 && self.cs_limit == u32::MAX,
        ];
        flags.iter().fold(self.code as u32, |bits, flag| bits << 1 | u32::from(*flag))
    }

    /// Base and limit of the code segment, as a number.
    pub fn context(&self) -> u64 {
        u64::from(self.cs_base) << 32 | u64::from(self.cs_limit)
    }

    /// 64-bit mode.
    pub fn is_64(&self) -> bool {
        self.code == CodeSize::Bits64
    }

    /// CS neither moves nor limits instruction pointers.
    pub fn has_flat_code(&self) -> bool {
        self.cs_base == 0 && self.cs_limit == u32::MAX
    }

    /// The instruction pointer of a linear address.
    pub fn ip(&self, linear: u64) -> u64 {
        if self.is_64() { linear } else { (linear as u32).wrapping_sub(self.cs_base).into() }
    }

    /// The linear address of an instruction pointer.
    pub fn linear(&self, ip: u64) -> u64 {
        if self.is_64() { ip } else { (ip as u32).wrapping_add(self.cs_base).into() }
    }

    /// Whether x87 instructions can be used now ("Device Not Available Exception (#NM)").
    pub fn x87(&self) -> Result<(), Exception> {
        if self.em || self.ts { Err(Exception::plain(vector::NM)) } else { Ok(()) }
    }

    /// Whether FWAIT can.
    pub fn fwait(&self) -> Result<(), Exception> {
        if self.mp && self.ts { Err(Exception::plain(vector::NM)) } else { Ok(()) }
    }

    /// Whether MMX instructions can.
    pub fn mmx(&self) -> Result<(), Exception> {
        if self.em { Err(Exception::UD) } else { self.x87() }
    }

    /// Whether SSE instructions can.
    pub fn sse(&self) -> Result<(), Exception> {
        if self.em || !self.osfxsr { Err(Exception::UD) } else { self.x87() }
    }

    /// Whether VEX-encoded instructions can.
    pub fn avx(&self) -> Result<(), Exception> {
        if !self.protected || !self.ymm {
            Err(Exception::UD)
        } else if self.ts {
            Err(Exception::plain(vector::NM))
        } else {
            Ok(())
        }
    }
}
