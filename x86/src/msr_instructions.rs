//! Instructions on MSRs beside RDMSR and WRMSR (SDM vol. 2, "WRMSRNS", "RDMSRLIST", "WRMSRLIST", "URDMSR", "UWRMSR", and the immediate forms of
//! RDMSR and WRMSRNS). What iced-x86 does not know of them is decoded here.

use emu_core::engine::{Lift, Step};

use crate::exception::Exception;
use crate::extension::{Intercept, ask_before, require_enabled};
use crate::mode::Mode;
use crate::model::{CpuModel, Feature};
use crate::model_specific::pair;
use crate::msr;
use crate::processor::{P, ProcessorExt};
use crate::processor_instructions::Operand;
use crate::registers::{RCX, RDI, RSI, temp};

/// Writes an MSR, with all that may depend on it.
pub(crate) fn write(h: &mut P, msr: u32, value: u64) -> Step {
    msr::write(h, msr, value)?;
    h.core.spaces_changed = true;
    h.core.check_interrupts = true;
    h.core.leave = true;
    Ok(())
}

/// WRMSRNS: WRMSR that does not serialize.
pub(crate) fn wrmsrns(h: &mut P, _: Operand) -> Step {
    h.require_cpl_0()?;
    let (msr, value) = (h.reg(RCX) as u32, pair(h));
    ask_before(h, || Intercept::Wrmsrns { msr, value })?;
    write(h, msr, value)
}

/// RDMSRLIST: for each bit in RCX, from the lowest on, an MSR whose number is in the table at RSI, and a place for its value in that
/// at RDI. Bits that are done are clear, should one fault.
pub(crate) fn rdmsrlist(h: &mut P, _: Operand) -> Step {
    each(h, |h, msr, at| {
        ask_before(h, || Intercept::Rdmsrlist(msr))?;
        let value = msr::read(h, msr)?;
        h.store(at, 8, value, 0)
    })
}

/// WRMSRLIST: likewise, to the MSRs.
pub(crate) fn wrmsrlist(h: &mut P, _: Operand) -> Step {
    each(h, |h, msr, at| {
        let value = h.load(at, 8, 0)?;
        ask_before(h, || Intercept::Wrmsrlist { msr, value })?;
        write(h, msr, value)
    })
}

fn each(h: &mut P, one: impl Fn(&mut P, u32, u64) -> Step) -> Step {
    h.fault_if(!h.arch.is_64(), Exception::UD)?;
    require_enabled(h, Feature::Msrlist)?;
    h.require_cpl_0()?;
    h.fault_if((h.reg(RSI) | h.reg(RDI)) & 7 != 0, Exception::gp(0))?;
    while h.reg(RCX) != 0 {
        let offset = u64::from(h.reg(RCX).trailing_zeros()) * 8;
        let number = h.load(h.reg(RSI).wrapping_add(offset), 8, 0)?;
        let msr = u32::try_from(number).map_err(|_| Exception::gp(0))?;
        one(h, msr, h.reg(RDI).wrapping_add(offset))?;
        let rest = h.reg(RCX) & (h.reg(RCX) - 1);
        h.set_reg(RCX, rest);
    }
    Ok(())
}

/// Number of the MSR that an instruction of [`ROWS`] names.
fn number(h: &P) -> u64 {
    h.reg(temp::SECOND)
}

/// RDMSR with an immediate.
fn rdmsr_immediate(h: &mut P, register: u8) -> Step {
    h.require_cpl_0()?;
    let msr = number(h) as u32;
    ask_before(h, || Intercept::RdmsrImmediate { msr, register })?;
    let value = msr::read(h, msr)?;
    h.set_reg(register, value);
    Ok(())
}

/// WRMSRNS with an immediate.
fn wrmsrns_immediate(h: &mut P, register: u8) -> Step {
    h.require_cpl_0()?;
    let (msr, value) = (number(h) as u32, h.reg(register));
    ask_before(h, || Intercept::WrmsrnsImmediate { msr, register, value })?;
    write(h, msr, value)
}

/// IA32_USER_MSR_CTL: bit 0 enables URDMSR and UWRMSR, the bitmap is where bits 63 to 12 say.
const USER_MSR_CTL: u32 = 0x1c;
/// IA32_UARCH_MISC_CTL, the one MSR here that UWRMSR may write.
const UARCH_MISC_CTL: u32 = 0x1b01;
/// Where writes have their bits in the bitmap.
const WRITES: u64 = 2048;

/// #UD where they are off; #GP(0) for an MSR beyond the bitmap, or that it does not let through.
fn require_permission(h: &mut P, part: u64) -> Step<u32> {
    let control = h.arch.stored_msr(USER_MSR_CTL);
    h.fault_if(control & 1 == 0, Exception::UD)?;
    let number = number(h);
    h.fault_if(number >> 14 != 0, Exception::gp(0))?;
    let byte = h.read_system((control & !0xfff) + part + number / 8, 1)?;
    h.fault_if(byte >> (number & 7) & 1 == 0, Exception::gp(0))?;
    Ok(number as u32)
}

/// URDMSR: a program reads an MSR that the bitmap lets it.
fn urdmsr(h: &mut P, register: u8) -> Step {
    let msr = require_permission(h, 0)?;
    ask_before(h, || Intercept::Urdmsr { msr, register })?;
    let value = msr::read(h, msr)?;
    h.set_reg(register, value);
    Ok(())
}

/// UWRMSR: a program writes one of the few that programs may write at all.
fn uwrmsr(h: &mut P, register: u8) -> Step {
    let msr = require_permission(h, WRITES)?;
    h.fault_if(msr != UARCH_MISC_CTL, Exception::gp(0))?;
    let value = h.reg(register);
    ask_before(h, || Intercept::Uwrmsr { msr, register, value })?;
    write(h, msr, value)
}

/// Function numbers of the calls of [`ROWS`]: from here on. The operand is the register of the value.
pub(crate) const FIRST_FUNCTION: u16 = 0x300;

/// An instruction that iced-x86 does not know: registers in ModR/M, or a register and an immediate in VEX map 7.
struct Row {
    feature: Feature,
    has_immediate: bool,
    /// The mandatory prefix.
    prefix: u8,
    opcode: u8,
    writes: bool,
    run: fn(&mut P, u8) -> Step,
}

const fn row(feature: Feature, has_immediate: bool, prefix: u8, opcode: u8, run: fn(&mut P, u8) -> Step) -> Row {
    Row { feature, has_immediate, prefix, opcode, writes: prefix == 0xf3, run }
}

const ROWS: &[Row] = &[
    row(Feature::UserMsr, false, 0xf2, 0xf8, urdmsr), // F2 0F 38 F8 11:rrr:bbb
    row(Feature::UserMsr, false, 0xf3, 0xf8, uwrmsr),
    row(Feature::UserMsr, true, 0xf2, 0xf8, urdmsr), // VEX.128.F2.MAP7.W0 F8 11:000:bbb id
    row(Feature::UserMsr, true, 0xf3, 0xf8, uwrmsr),
    row(Feature::MsrImm, true, 0xf2, 0xf6, rdmsr_immediate), // VEX.128.F2.MAP7.W0 F6 11:000:bbb id
    row(Feature::MsrImm, true, 0xf3, 0xf6, wrmsrns_immediate),
];

/// Runs a call of this module.
#[inline(never)]
pub(crate) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    (ROWS[usize::from(function - FIRST_FUNCTION)].run)(h, operand as u8)
}

/// An instruction of [`ROWS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    row: usize,
    /// The register of the value.
    value: u8,
    msr: Msr,
    length: u8,
}

/// Where an MSR's number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Msr {
    Register(u8),
    Immediate(u32),
}

/// Decodes an instruction of [`ROWS`] in 64-bit mode, the one mode that has them. `Err` if `bytes` end within what may be one.
pub(crate) fn decode(model: &CpuModel, mode: &Mode, bytes: &[u8]) -> Result<Option<Decoded>, ()> {
    if !mode.is_64() || !model.has(Feature::UserMsr) && !model.has(Feature::MsrImm) {
        return Ok(None);
    }
    let byte = |at: usize| bytes.get(at).copied().ok_or(());
    let (mut at, mut mandatory) = (0, 0);
    while let prefix @ (0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3) = byte(at)? {
        if matches!(prefix, 0x66 | 0xf2 | 0xf3) {
            mandatory = if prefix == 0x66 && mandatory != 0 { mandatory } else { prefix };
        }
        at += 1;
    }
    let (rm_high, reg_high, has_immediate, prefix);
    if byte(at)? == 0xc4 {
        // With R, X and B inverted; W0, L0, vvvv 1111B; F2 is pp 3, F3 is pp 2.
        let (first, second) = (byte(at + 1)?, byte(at + 2)?);
        if mandatory != 0 || first & 0x1f != 7 || second & 0xfc != 0x78 || second & 2 == 0 {
            return Ok(None);
        }
        prefix = if second & 3 == 3 { 0xf2 } else { 0xf3 };
        (rm_high, reg_high, has_immediate) = (!first >> 5 & 1, !first >> 7 & 1, true);
        at += 3;
    } else {
        let rex = if byte(at)? & 0xf0 == 0x40 { byte(at)? } else { 0 };
        at += usize::from(rex != 0);
        if byte(at)? != 0x0f || byte(at + 1)? != 0x38 {
            return Ok(None);
        }
        prefix = mandatory;
        (rm_high, reg_high, has_immediate) = (rex & 1, rex >> 2 & 1, false);
        at += 2;
    }
    let (opcode, modrm) = (byte(at)?, byte(at + 1)?);
    at += 2;
    let fits =
        |r: &Row| r.has_immediate == has_immediate && r.prefix == prefix && r.opcode == opcode && model.has(r.feature);
    let Some(row) = ROWS.iter().position(fits).filter(|_| modrm >> 6 == 3) else { return Ok(None) };
    let reg = modrm >> 3 & 7 | reg_high << 3;
    let msr = if has_immediate {
        if reg != 0 {
            return Ok(None);
        }
        let immediate = [byte(at)?, byte(at + 1)?, byte(at + 2)?, byte(at + 3)?];
        at += 4;
        Msr::Immediate(u32::from_le_bytes(immediate))
    } else {
        Msr::Register(reg)
    };
    // Longer ones are #GP, as the decoder of the others says.
    Ok((at <= 15).then_some(Decoded { row, value: modrm & 7 | rm_high << 3, msr, length: at as u8 }))
}

impl Decoded {
    /// Lifts it, and returns its length.
    pub(crate) fn lift(self, lift: &mut Lift) -> u8 {
        match self.msr {
            Msr::Register(r) => lift.unary(emu_core::engine::uop::UnaryOp::Move, temp::SECOND, r),
            Msr::Immediate(msr) => lift.constant(temp::SECOND, msr.into()),
        }
        let function = FIRST_FUNCTION + self.row as u16;
        if ROWS[self.row].writes {
            lift.call_and_end(function, self.value.into());
        } else {
            lift.call(function, self.value.into());
        }
        self.length
    }
}

#[cfg(test)]
mod tests;
