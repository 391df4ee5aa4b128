//! System instructions (SDM vol. 1, "System Instructions", "64-Bit Mode Instructions"), and those that change RFLAGS as a whole.

use emu_core::engine::flags::ALL as ARITHMETIC;
use emu_core::engine::{Lift, Step, Stop, StopKind};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::control::{cr0, cr4, efer, rflags};
use crate::exception::{Exception, vector};
use crate::interrupt::{self, Source};
use crate::isa::Lifting;
use crate::processor::{P, ProcessorExt, segments};
use crate::registers::{DIRECTION, FS_BASE, GS_BASE, RAX, RCX, RDX, RSP, temp};
use crate::segment::{Attributes, Segment, Table, index_of};

macro_rules! functions {
    ($($(#[$m:meta])* $name:ident $f:path;)*) => {
        /// What a call of this module does. Its operand names registers and constants.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        enum Function { $($(#[$m])* $name,)* }
        const ALL: &[fn(&mut P, u32) -> Step] = &[$($f,)*];
    };
}
functions! {
    Undefined ud;
    /// Register in bits 7 to 0, control register in bits 15 to 8.
    MovToCr mov_to_cr;
    MovFromCr mov_from_cr;
    Clts clts;
    Lgdt lgdt;
    Lidt lidt;
    Sgdt sgdt;
    Sidt sidt;
    Ltr ltr;
    /// Segment register in bits 15 to 8; the selector is in FIRST.
    MovToSegment mov_to_segment;
    MovFromSegment mov_from_segment;
    Hlt hlt;
    Cli cli;
    Sti sti;
    /// Flags go to FIRST.
    Pushf pushf;
    /// Flags come from FIRST; bits: their size.
    Popf popf;
    /// The vector.
    Int int;
    Int3 int3;
    Iretq iretq;
    Syscall syscall;
    Sysretq sysretq;
    Swapgs swapgs;
    /// The address is in ADDRESS.
    Invlpg invlpg;
    /// Size in bytes; the port is in FIRST.
    In input;
    Out output;
}

/// Functions of this module stand behind that of the computations.
const FIRST_FUNCTION: u16 = crate::isa::compute::FUNCTION + 1;

fn end(lift: &mut Lift, f: Function, operand: u32) {
    lift.call_and_end(FIRST_FUNCTION + f as u16, operand);
}

fn go_on(lift: &mut Lift, f: Function, operand: u32) {
    lift.call(FIRST_FUNCTION + f as u16, operand);
}

/// An instruction that there is not.
pub(crate) fn undefined(lift: &mut Lift) {
    end(lift, Function::Undefined, 0);
}

/// See [`Arch::call`](emu_core::engine::Arch::call).
pub(crate) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    ALL[usize::from(function - FIRST_FUNCTION)](h, operand)
}

/// Lifts a system instruction; false if it is none that is known here.
pub(crate) fn lift(lift: &mut Lift, i: &Instruction) -> bool {
    lift_system(lift, i).is_some()
}

fn gpr(r: Register) -> u32 {
    r.full_register().number() as u32
}

fn lift_system(lift: &mut Lift, i: &Instruction) -> Option<()> {
    use Function as F;
    match i.mnemonic() {
        Mnemonic::Mov => return mov(lift, i),
        Mnemonic::Clts => end(lift, F::Clts, 0),
        Mnemonic::Lgdt | Mnemonic::Lidt | Mnemonic::Sgdt | Mnemonic::Sidt | Mnemonic::Invlpg => {
            Lifting::new(lift, i).address_in_register().ok()?;
            let f = match i.mnemonic() {
                Mnemonic::Lgdt => F::Lgdt,
                Mnemonic::Lidt => F::Lidt,
                Mnemonic::Sgdt => F::Sgdt,
                Mnemonic::Sidt => F::Sidt,
                _ => F::Invlpg,
            };
            end(lift, f, 0);
        }
        Mnemonic::Ltr => {
            Lifting::new(lift, i).bring_word(0).ok()?;
            end(lift, F::Ltr, 0);
        }
        Mnemonic::Hlt => end(lift, F::Hlt, 0),
        Mnemonic::Cli => go_on(lift, F::Cli, 0),
        Mnemonic::Sti => end(lift, F::Sti, 0),
        Mnemonic::Cld => lift.constant(DIRECTION, 0),
        Mnemonic::Std => lift.constant(DIRECTION, u64::MAX),
        Mnemonic::Pushfq | Mnemonic::Pushf => {
            go_on(lift, F::Pushf, 0);
            Lifting::new(lift, i).push_first(if i.mnemonic() == Mnemonic::Pushf { 2 } else { 8 });
        }
        Mnemonic::Popfq | Mnemonic::Popf => {
            let size = if i.mnemonic() == Mnemonic::Popf { 2 } else { 8 };
            Lifting::new(lift, i).peek_first(size);
            end(lift, F::Popf, size);
        }
        Mnemonic::Int => end(lift, F::Int, i.immediate8().into()),
        Mnemonic::Int3 => end(lift, F::Int3, 0),
        Mnemonic::Iretq => end(lift, F::Iretq, 0),
        Mnemonic::Syscall => end(lift, F::Syscall, i.len() as u32),
        Mnemonic::Sysretq => end(lift, F::Sysretq, 0),
        Mnemonic::Swapgs => end(lift, F::Swapgs, 0),
        Mnemonic::In | Mnemonic::Out => {
            let is_in = i.mnemonic() == Mnemonic::In;
            let (data, port) = if is_in { (0, 1) } else { (1, 0) };
            let size = i.op_register(data).size() as u32;
            if i.op_kind(port) == OpKind::Register {
                lift.binary(
                    emu_core::engine::uop::BinaryOp::And,
                    temp::FIRST,
                    RDX,
                    emu_core::engine::uop::Operand::Imm(0xffff),
                );
            } else {
                lift.constant(temp::FIRST, i.immediate8().into());
            }
            go_on(lift, if is_in { F::In } else { F::Out }, size);
        }
        Mnemonic::Ud2 | Mnemonic::Ud1 | Mnemonic::Ud0 => end(lift, F::Undefined, 0),
        _ => return None,
    }
    Some(())
}

/// MOV to and from control registers and segment registers.
fn mov(lift: &mut Lift, i: &Instruction) -> Option<()> {
    match i.code() {
        Code::Mov_cr_r64 => {
            let cr = i.op0_register().number() as u32;
            end(lift, Function::MovToCr, gpr(i.op1_register()) | cr << 8);
        }
        Code::Mov_r64_cr => {
            let cr = i.op1_register().number() as u32;
            go_on(lift, Function::MovFromCr, gpr(i.op0_register()) | cr << 8);
        }
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16 => {
            let segment = i.op0_register().number() as u32;
            Lifting::new(lift, i).bring_word(1).ok()?;
            end(lift, Function::MovToSegment, segment << 8);
        }
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => {
            go_on(lift, Function::MovFromSegment, (i.op1_register().number() as u32) << 8);
            Lifting::new(lift, i).write_selector().ok()?;
        }
        _ => return None,
    }
    Some(())
}

fn reg(h: &P, operand: u32) -> u64 {
    h.core.regs[(operand & 0xff) as usize]
}

fn set(h: &mut P, r: u8, value: u64) {
    h.core.regs[usize::from(r)] = value;
}

fn first(h: &P) -> u64 {
    h.core.regs[usize::from(temp::FIRST)]
}

/// Anything may have changed.
fn all_changed(h: &mut P) {
    h.core.spaces_changed = true;
    h.core.check_interrupts = true;
    h.core.leave = true;
}

fn ud(_: &mut P, _: u32) -> Step {
    Err(Exception::UD.into())
}

/// MOV to CR0, CR2, CR3, CR4, CR8 (SDM vol. 2B, "MOV—Move to/from Control Registers").
fn mov_to_cr(h: &mut P, operand: u32) -> Step {
    let value = reg(h, operand);
    h.require_cpl_0()?;
    match operand >> 8 {
        0 => mov_to_cr0(h, value)?,
        2 => h.arch.cr2 = value,
        3 => mov_to_cr3(h, value)?,
        4 => mov_to_cr4(h, value)?,
        8 => {
            h.fault_if(value > 15, Exception::gp(0))?;
            h.arch.cr8 = value;
        }
        _ => return ud(h, 0),
    }
    all_changed(h);
    Ok(())
}

fn mov_to_cr0(h: &mut P, value: u64) -> Step {
    const DEFINED: u64 =
        cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;
    h.fault_if(value >> 32 != 0, Exception::gp(0))?;
    h.fault_if(value & cr0::PG != 0 && value & cr0::PE == 0, Exception::gp(0))?;
    h.fault_if(value & cr0::NW != 0 && value & cr0::CD == 0, Exception::gp(0))?;
    // In 64-bit mode neither paging nor protection can be switched off.
    h.fault_if(h.arch.cr0 & cr0::PG != 0 && value & cr0::PG == 0, Exception::gp(0))?;
    h.fault_if(value & cr0::WP == 0 && h.arch.cr4 & cr4::CET != 0, Exception::gp(0))?;
    let new = value & DEFINED | cr0::ET;
    if (new ^ h.arch.cr0) & cr0::PG != 0 {
        h.core.mmu.clear();
    }
    h.arch.cr0 = new;
    Ok(())
}

/// Bit 63 keeps the translations of the new PCID, if there are PCIDs.
fn mov_to_cr3(h: &mut P, value: u64) -> Step {
    const KEEP: u64 = 1 << 63;
    let pcide = h.arch.cr4 & cr4::PCIDE != 0;
    let keep = pcide && value & KEEP != 0;
    let value = if pcide { value & !KEEP } else { value };
    h.fault_if(value >> h.arch.physical_bits != 0, Exception::gp(0))?;
    if !keep {
        let pcid = if pcide { value & 0xfff } else { 0 };
        h.core.mmu.drop_spaces(|k| k.0 >> 8 == pcid);
    }
    h.arch.cr3 = value;
    Ok(())
}

/// CR4 bits that there are.
const CR4: u64 = cr4::VME
    | cr4::PVI
    | cr4::TSD
    | cr4::DE
    | cr4::PSE
    | cr4::PAE
    | cr4::MCE
    | cr4::PGE
    | cr4::PCE
    | cr4::OSFXSR
    | cr4::OSXMMEXCPT
    | cr4::UMIP
    | cr4::LA57
    | cr4::FSGSBASE
    | cr4::PCIDE
    | cr4::OSXSAVE
    | cr4::SMEP
    | cr4::SMAP
    | cr4::PKE
    | cr4::PKS;

fn mov_to_cr4(h: &mut P, value: u64) -> Step {
    let old = h.arch.cr4;
    h.fault_if(value & !CR4 != 0, Exception::gp(0))?;
    // 64-bit mode needs PAE, and keeps its levels.
    h.fault_if(value & cr4::PAE == 0 || (value ^ old) & cr4::LA57 != 0, Exception::gp(0))?;
    h.fault_if(value & !old & cr4::PCIDE != 0 && h.arch.cr3 & 0xfff != 0, Exception::gp(0))?;
    // Changes of these bits drop all translations; the others of rights are part of a space's key, or do no harm.
    const DROPS: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::PKE | cr4::PKS;
    if (value ^ old) & DROPS != 0 {
        h.core.mmu.drop_spaces(|_| true);
    }
    h.arch.cr4 = value;
    Ok(())
}

fn mov_from_cr(h: &mut P, operand: u32) -> Step {
    h.require_cpl_0()?;
    let value = match operand >> 8 {
        0 => h.arch.cr0,
        2 => h.arch.cr2,
        3 => h.arch.cr3,
        4 => h.arch.cr4,
        8 => h.arch.cr8,
        _ => return ud(h, 0),
    };
    h.core.regs[(operand & 0xff) as usize] = value;
    Ok(())
}

fn clts(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    h.arch.cr0 &= !cr0::TS;
    all_changed(h);
    Ok(())
}

fn load_table(h: &mut P) -> Step<Table> {
    h.require_cpl_0()?;
    let at = h.core.regs[usize::from(temp::ADDRESS)];
    let limit = h.load(at, 2, 0)? as u16;
    let base = h.load(at.wrapping_add(2), 8, 0)?;
    h.fault_if(!h.arch.controls().is_canonical(base), Exception::gp(0))?;
    Ok(Table { base, limit })
}

fn lgdt(h: &mut P, _: u32) -> Step {
    h.arch.gdtr = load_table(h)?;
    Ok(())
}

fn lidt(h: &mut P, _: u32) -> Step {
    h.arch.idtr = load_table(h)?;
    Ok(())
}

fn store_table(h: &mut P, table: Table) -> Step {
    h.fault_if(h.arch.cr4 & cr4::UMIP != 0 && h.arch.cpl() != 0, Exception::gp(0))?;
    let at = h.core.regs[usize::from(temp::ADDRESS)];
    // All ten bytes are written, or none.
    h.resolve(at.wrapping_add(2), 8, emu_core::engine::Intent::Write, 0)?;
    h.store(at, 2, table.limit.into(), 0)?;
    h.store(at.wrapping_add(2), 8, table.base, 0)
}

fn sgdt(h: &mut P, _: u32) -> Step {
    store_table(h, h.arch.gdtr)
}

fn sidt(h: &mut P, _: u32) -> Step {
    store_table(h, h.arch.idtr)
}

/// LTR: a 64-bit TSS, which becomes busy.
fn ltr(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    let selector = first(h) as u16;
    h.fault_if(index_of(selector) == 0, Exception::gp(0))?;
    let refused = Exception::gp(index_of(selector));
    h.fault_if(selector & 4 != 0, refused)?;
    // A system descriptor has 16 bytes in this mode.
    let offset = u64::from(selector & !7);
    h.fault_if(offset + 15 > h.arch.gdtr.limit.into(), refused)?;
    let d = interrupt::descriptor(h, selector, 0)?;
    let a = d.attributes();
    h.fault_if(a.is_code_or_data() || a.kind() != 9, refused)?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
    let at = h.arch.gdtr.base.wrapping_add(offset);
    let high = h.read_system(at.wrapping_add(8), 8)?;
    let base = u64::from(d.base()) | high << 32;
    h.fault_if(!h.arch.controls().is_canonical(base), refused)?;
    h.write_system(at, 8, d.0 | 1 << 41)?;
    h.arch.tr = Segment { selector, base, limit: d.limit(), attributes: Attributes(a.0 | 2) };
    Ok(())
}

/// MOV to a segment register (SDM vol. 2B, "MOV—Move").
fn mov_to_segment(h: &mut P, operand: u32) -> Step {
    let (segment, selector) = ((operand >> 8) as usize, first(h) as u16);
    if segment == segments::CS {
        return ud(h, 0);
    }
    let (cpl, rpl) = (h.arch.cpl(), (selector & 3) as u8);
    let loaded = if index_of(selector) == 0 {
        // SS takes a null selector in 64-bit mode, but not at CPL 3.
        h.fault_if(segment == segments::SS && (cpl == 3 || rpl != cpl), Exception::gp(0))?;
        let dpl = if segment == segments::SS { 0xc093 | u32::from(cpl) << 5 } else { 0 };
        Segment { selector, base: 0, limit: 0, attributes: Attributes(Attributes::UNUSABLE.0 | dpl) }
    } else {
        let d = interrupt::descriptor(h, selector, 0)?;
        let a = d.attributes();
        let refused = Exception::gp(index_of(selector));
        if segment == segments::SS {
            h.fault_if(rpl != cpl || !a.is_writable_data() || a.dpl() != cpl, refused)?;
            h.fault_if(!a.is_present(), Exception::with(vector::SS, index_of(selector)))?;
        } else {
            let is_outer = a.dpl() < rpl.max(cpl) && !(a.is_code() && a.is_conforming());
            h.fault_if(!a.is_readable() || is_outer, refused)?;
            h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
        }
        d.segment(selector)
    };
    h.arch.segments[segment] = loaded;
    match segment {
        segments::FS => set(h, FS_BASE, loaded.base),
        segments::GS => set(h, GS_BASE, loaded.base),
        segments::SS => h.arch.shadow = Some(h.core.retired() + 1),
        _ => {}
    }
    all_changed(h);
    Ok(())
}

fn mov_from_segment(h: &mut P, operand: u32) -> Step {
    let selector = h.arch.segments[(operand >> 8) as usize].selector;
    set(h, temp::FIRST, selector.into());
    Ok(())
}

fn hlt(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    h.arch.waiting.halts();
    Err(Stop::of(StopKind::Wait))
}

/// CLI, without CR4.VME and PVI.
fn cli(h: &mut P, _: u32) -> Step {
    h.fault_if(h.arch.cpl() > h.arch.iopl(), Exception::gp(0))?;
    h.arch.rflags &= !rflags::IF;
    Ok(())
}

/// STI: no interrupt comes before the next instruction, if IF was clear.
fn sti(h: &mut P, _: u32) -> Step {
    h.fault_if(h.arch.cpl() > h.arch.iopl(), Exception::gp(0))?;
    if h.arch.rflags & rflags::IF == 0 {
        h.arch.rflags |= rflags::IF;
        h.arch.shadow = Some(h.core.retired() + 1);
        h.core.check_interrupts = true;
    }
    Ok(())
}

/// PUSHF: RF and VM are pushed as 0.
fn pushf(h: &mut P, _: u32) -> Step {
    let value = h.rflags() & !(rflags::RF | rflags::VM);
    set(h, temp::FIRST, value);
    Ok(())
}

/// POPF in 64-bit mode (SDM vol. 2B, "POPF/POPFD/POPFQ", table of EFLAGS changes).
fn popf(h: &mut P, size: u32) -> Step {
    let value = first(h);
    let mut mask = ARITHMETIC | rflags::TF | rflags::DF | rflags::NT;
    if size != 2 {
        mask |= rflags::AC | rflags::ID;
    }
    if h.arch.cpl() <= h.arch.iopl() {
        mask |= rflags::IF;
    }
    if h.arch.cpl() == 0 {
        mask |= 3 << 12;
    }
    let cleared = rflags::RF | if size != 2 { rflags::VIF | rflags::VIP } else { 0 };
    let new = h.rflags() & !(mask | cleared) | value & mask;
    let sp = h.core.regs[usize::from(RSP)].wrapping_add(size.into());
    set(h, RSP, sp);
    h.set_rflags(new);
    Ok(())
}

fn int(h: &mut P, vector: u32) -> Step {
    interrupt_by_software(h, vector as u8)
}

fn int3(h: &mut P, _: u32) -> Step {
    interrupt_by_software(h, vector::BP)
}

/// The return address is behind the instruction; a fault in delivery is one of the instruction itself.
fn interrupt_by_software(h: &mut P, vector: u8) -> Step {
    let pc = h.core.pc;
    let next = h.core.next_pc;
    interrupt::take(h, vector, Source::Software, next)?;
    h.core.next_pc = std::mem::replace(&mut h.core.pc, pc);
    Ok(())
}

fn iretq(h: &mut P, _: u32) -> Step {
    interrupt::iretq(h)
}

/// SYSCALL (SDM vol. 2B).
fn syscall(h: &mut P, _: u32) -> Step {
    h.fault_if(h.arch.efer & efer::SCE == 0, Exception::UD)?;
    set(h, RCX, h.core.next_pc);
    let flags = h.rflags() & !rflags::RF;
    set(h, 11, flags);
    let selector = (h.arch.star >> 32) as u16 & !3;
    h.arch.segments[segments::CS] = Segment { selector, base: 0, limit: u32::MAX, attributes: Attributes(0xa09b) };
    h.arch.segments[segments::SS] =
        Segment { selector: selector + 8, base: 0, limit: u32::MAX, attributes: Attributes(0xc093) };
    let new = flags & !h.arch.fmask;
    h.set_rflags(new);
    h.core.next_pc = h.arch.lstar;
    Ok(())
}

/// SYSRET to 64-bit code.
fn sysretq(h: &mut P, _: u32) -> Step {
    h.fault_if(h.arch.efer & efer::SCE == 0, Exception::UD)?;
    h.require_cpl_0()?;
    let target = h.core.regs[usize::from(RCX)];
    h.fault_if(!h.arch.controls().is_canonical(target), Exception::gp(0))?;
    let flags = h.core.regs[11] & !(rflags::RF | rflags::VM);
    let base = (h.arch.star >> 48) as u16;
    h.arch.segments[segments::CS] =
        Segment { selector: base.wrapping_add(16) | 3, base: 0, limit: u32::MAX, attributes: Attributes(0xa0fb) };
    h.arch.segments[segments::SS] =
        Segment { selector: base.wrapping_add(8) | 3, base: 0, limit: u32::MAX, attributes: Attributes(0xc0f3) };
    h.set_rflags(flags);
    h.core.next_pc = target;
    Ok(())
}

fn swapgs(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    let gs = &mut h.core.regs[usize::from(GS_BASE)];
    std::mem::swap(gs, &mut h.arch.kernel_gs_base);
    Ok(())
}

fn invlpg(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    let linear = h.core.regs[usize::from(temp::ADDRESS)];
    // Global translations are dropped for every PCID, and there is no telling which they are.
    h.core.mmu.drop_page(linear, |_| true);
    all_changed(h);
    Ok(())
}

/// IN and OUT without an I/O permission bitmap: CPL against IOPL.
fn require_port(h: &P) -> Step {
    h.fault_if(h.arch.cpl() > h.arch.iopl(), Exception::gp(0))
}

fn input(h: &mut P, size: u32) -> Step {
    require_port(h)?;
    let value = h.read_port(first(h), size as u8);
    let old = h.core.regs[usize::from(RAX)];
    let new = match size {
        1 => old & !0xff | value & 0xff,
        2 => old & !0xffff | value & 0xffff,
        _ => value & 0xffff_ffff,
    };
    set(h, RAX, new);
    Ok(())
}

fn output(h: &mut P, size: u32) -> Step {
    require_port(h)?;
    let value = h.core.regs[usize::from(RAX)] & (u64::MAX >> (64 - 8 * size));
    h.write_port(first(h), size as u8, value);
    Ok(())
}
