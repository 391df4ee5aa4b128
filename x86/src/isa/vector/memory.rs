//! What is more than a function of values: accesses that depend on a mask (VMASKMOV, VPMASKMOV, MASKMOVDQU, VPGATHER), MXCSR,
//! VZEROUPPER, and conditions under which an instruction begins.

use emu_core::engine::uop::Width as Access;
use emu_core::engine::{Intent, Step};
use iced_x86::{Mnemonic, OpKind, Register};

use super::{COUNT, FIRST, Location, location, value, word, words};
use crate::exception::Exception;
use crate::isa::{Lifting, Memory, Unknown, x87};
use crate::linear::Segmented;
use crate::processor::{P, segments};
use crate::registers::{MXCSR, RDI, VECTORS, temp};
use crate::vector::{Mxcsr, V, Width, shuffle};

macro_rules! specials {
    ($($(#[$m:meta])* $name:ident $f:path;)*) => {
        /// A function of this module. The operand is a [`Masked`], where nothing else is said.
        #[derive(Clone, Copy)]
        pub(super) enum Special { $($(#[$m])* $name,)* }
        const FUNCTIONS: &[fn(&mut P, u32) -> Step] = &[$($f,)*];
    };
}
specials! {
    /// #GP unless the address in ADDRESS is a multiple of the operand.
    Aligned aligned;
    /// #MF if an x87 exception is pending.
    MmxReady mmx_ready;
    /// MXCSR becomes FIRST.
    SetMxcsr set_mxcsr;
    /// VZEROUPPER; VZEROALL if bit 0 of the operand is set; of eight registers if bit 1 is.
    Zero zero;
    Load masked_load;
    Store masked_store;
    Gather gather;
}

impl Lifting<'_> {
    pub(super) fn special(&mut self, what: Special, operand: u32) {
        self.lift.call(FIRST + COUNT as u16 + what as u16, operand);
    }
}

pub(super) fn call(h: &mut P, special: u16, operand: u32) -> Step {
    FUNCTIONS[usize::from(special)](h, operand)
}

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    use Mnemonic as M;
    match l.mnemonic() {
        M::Ldmxcsr | M::Vldmxcsr => {
            let m = l.memory()?;
            l.load(Access::U32, temp::FIRST, m);
            l.special(Special::SetMxcsr, 0);
        }
        M::Stmxcsr | M::Vstmxcsr => {
            let (place, size) = (l.place(0)?, l.size(0)?);
            l.write(place, size, MXCSR);
        }
        M::Vzeroupper | M::Vzeroall => {
            let all = u32::from(l.mnemonic() == M::Vzeroall);
            let short = u32::from(!l.mode.is_64());
            l.special(Special::Zero, all | short << 1);
        }
        M::Vmaskmovps | M::Vpmaskmovd => masked(l, 4)?,
        M::Vmaskmovpd | M::Vpmaskmovq => masked(l, 8)?,
        M::Maskmovdqu | M::Vmaskmovdqu | M::Maskmovq => masked_bytes(l)?,
        M::Vpgatherdd | M::Vgatherdps => indexed(l, 4, 4)?,
        M::Vpgatherdq | M::Vgatherdpd => indexed(l, 4, 8)?,
        M::Vpgatherqd | M::Vgatherqps => indexed(l, 8, 4)?,
        M::Vpgatherqq | M::Vgatherqpd => indexed(l, 8, 8)?,
        _ => return Err(Unknown),
    }
    Ok(())
}

/// What a call names: ADDRESS has the offset in the segment.
#[derive(Clone, Copy, Default)]
struct Masked {
    /// Where the elements go, or come from.
    elements: Location,
    /// Whose signs say which are accessed.
    mask: Location,
    /// Their segment: those that are accessed are looked at, each by itself.
    segment: u8,
    /// Their size in bytes, and of all of them.
    size: u8,
    total: u8,
    /// Of a gather: the register of indices, their size, and by how much they are shifted.
    index: u8,
    index_size: u8,
    scale: u8,
    /// Addresses have 32 bits.
    short: bool,
}

impl Masked {
    fn pack(self) -> u32 {
        let log = |bytes: u8| bytes.max(1).ilog2() as u8;
        let sizes = [(log(self.size), 2), (log(self.total), 3), (log(self.index_size), 2)];
        [(self.elements, 5), (self.mask, 5), (self.segment, 3), (self.index, 4)]
            .into_iter()
            .chain(sizes)
            .rev()
            .fold(u32::from(self.scale) | u32::from(self.short) << 2, |all, (field, bits)| {
                all << bits | u32::from(field)
            })
    }

    fn unpack(mut operand: u32) -> Self {
        let mut field = |bits: u32| {
            let field = operand & ((1 << bits) - 1);
            operand >>= bits;
            field as u8
        };
        Masked {
            elements: field(5),
            mask: field(5),
            segment: field(3),
            index: field(4),
            size: 1 << field(2),
            total: 1 << field(3),
            index_size: 1 << field(2),
            scale: field(2),
            short: field(1) != 0,
        }
    }

    fn width(self) -> Width {
        match self.total {
            8 => Width::Mmx,
            16 => Width::Xmm,
            _ => Width::Ymm,
        }
    }

    /// A bit for each element that is accessed.
    fn chosen(self, mask: V) -> u32 {
        match self.size {
            1 => shuffle::movmsk::<u8>(self.width(), mask),
            4 => shuffle::movmsk::<u32>(self.width(), mask),
            _ => shuffle::movmsk::<u64>(self.width(), mask),
        }
    }

    fn get(self, v: V, i: u8) -> u64 {
        let i = usize::from(i);
        match self.size {
            1 => v.get::<u8>(i).into(),
            4 => v.get::<u32>(i).into(),
            _ => v.get(i),
        }
    }

    fn with(self, v: V, i: u8, x: u64) -> V {
        if self.size == 4 { v.with(i.into(), x as u32) } else { v.with(i.into(), x) }
    }

    /// The numbers of the elements that are accessed.
    fn elements_of(self, mask: V) -> impl Iterator<Item = u8> {
        let chosen = self.chosen(mask);
        (0..self.total / self.size).filter(move |i| chosen >> i & 1 != 0)
    }
}

fn total(l: &Lifting) -> u8 {
    let is_ymm = |i| l.insn.op_register(i).is_ymm();
    if (0..l.insn.op_count()).any(is_ymm) { 32 } else { 16 }
}

/// VMASKMOVPS, VPMASKMOVD and so on.
fn masked(l: &mut Lifting, size: u8) -> Result<(), Unknown> {
    let stores = l.insn.op0_kind() == OpKind::Memory;
    let elements = location(l, if stores { 2 } else { 0 }).ok_or(Unknown)?;
    let mask = location(l, 1).ok_or(Unknown)?;
    let total = total(l);
    let (segment, short) = offset_in_register(l)?;
    let what = if stores { Special::Store } else { Special::Load };
    l.special(what, Masked { elements, mask, segment, size, total, short, ..Masked::default() }.pack());
    Ok(())
}

/// Brings the memory operand's offset into ADDRESS. Returns its segment, and whether offsets have 32 bits.
fn offset_in_register(l: &mut Lifting) -> Result<(u8, bool), Unknown> {
    let m = l.effective_address()?;
    let r = l.in_register(m);
    l.move_to(temp::ADDRESS, r);
    Ok((l.insn.memory_segment().number() as u8, !l.mode.is_64() || l.insn.memory_base().is_gpr32()))
}

/// MASKMOVDQU, MASKMOVQ: to DS:RDI.
fn masked_bytes(l: &mut Lifting) -> Result<(), Unknown> {
    let (elements, mask) = (location(l, 1).ok_or(Unknown)?, location(l, 2).ok_or(Unknown)?);
    let size = match l.insn.op0_kind() {
        OpKind::MemorySegRDI => 8,
        OpKind::MemorySegEDI => 4,
        _ => 2,
    };
    let segment = match l.insn.segment_prefix() {
        Register::None => Register::DS,
        r => r,
    };
    let m = l.truncated(Memory::at(RDI), size);
    let at = l.in_register(m);
    l.move_to(temp::ADDRESS, at);
    let total = if l.mnemonic() == Mnemonic::Maskmovq { 8 } else { 16 };
    let (segment, short) = (segment.number() as u8, size != 8);
    l.special(Special::Store, Masked { elements, mask, segment, size: 1, total, short, ..Masked::default() }.pack());
    Ok(())
}

/// VPGATHERDD and its sisters ("VSIB Memory Addressing"): the base is what is left of the address without the index.
fn indexed(l: &mut Lifting, index_size: u8, size: u8) -> Result<(), Unknown> {
    let (elements, mask) = (location(l, 0).ok_or(Unknown)?, location(l, 2).ok_or(Unknown)?);
    let index = l.insn.memory_index().number() as u8;
    let scale = l.insn.memory_index_scale().trailing_zeros() as u8;
    // The wider of indices and elements says how many there are.
    let ymm = l.insn.memory_index().is_ymm() || l.insn.op0_register().is_ymm();
    let total = (if ymm { 32 } else { 16 }) / size.max(index_size) * size;
    let mut base = *l.insn;
    base.set_memory_index(Register::None);
    base.set_memory_index_scale(1);
    let (segment, short) = offset_in_register(&mut l.with(&base))?;
    l.special(Special::Gather, Masked { elements, mask, segment, size, total, index, index_size, scale, short }.pack());
    Ok(())
}

fn aligned(h: &mut P, to: u32) -> Step {
    let address = h.core.regs[usize::from(temp::ADDRESS)];
    if address & u64::from(to - 1) == 0 { Ok(()) } else { Err(Exception::gp(0).into()) }
}

fn mmx_ready(h: &mut P, _: u32) -> Step {
    x87::fault_if_pending(h)
}

/// LDMXCSR: "#GP for an attempt to set reserved bits".
fn set_mxcsr(h: &mut P, _: u32) -> Step {
    let value = h.core.regs[usize::from(temp::FIRST)];
    if value & !u64::from(Mxcsr::WRITABLE) != 0 {
        return Err(Exception::gp(0).into());
    }
    h.core.regs[usize::from(MXCSR)] = value;
    Ok(())
}

/// "In Compatibility and legacy 32-bit mode only the lower 8 registers are modified" (SDM vol. 2C, "VZEROALL").
fn zero(h: &mut P, operand: u32) -> Step {
    let first = if operand & 1 != 0 { 0 } else { 2 };
    let count = if operand & 2 != 0 { 32 } else { 64 };
    let registers = &mut h.core.regs[usize::from(VECTORS)..][..count];
    for register in registers.chunks_exact_mut(4) {
        register[first..].fill(0);
    }
    Ok(())
}

/// The linear address of an element, so far from the offset in ADDRESS.
fn element(h: &mut P, o: &Masked, distance: u64, writes: bool) -> Step<u64> {
    let offset = h.core.regs[usize::from(temp::ADDRESS)].wrapping_add(distance);
    let offset = if o.short { offset & 0xffff_ffff } else { offset };
    let segment = usize::from(o.segment);
    // "Segmentation in 64-bit Mode": the others begin at 0.
    if h.arch.is_64() && !matches!(segment, segments::FS | segments::GS) {
        return Ok(offset);
    }
    h.linear(segment, offset, o.size.into(), writes)
}

fn set(h: &mut P, register: u8, v: V) {
    h.core.regs[usize::from(word(register, 0))..][..4].copy_from_slice(&v.lanes::<u64>());
}

/// "Faults occur only due to mask-bit required memory accesses" (SDM vol. 2C, "VMASKMOV").
fn masked_load(h: &mut P, operand: u32) -> Step {
    let o = Masked::unpack(operand);
    let mut v = V::ZERO;
    for i in o.elements_of(value(h, o.mask)) {
        let at = element(h, &o, (i * o.size).into(), false)?;
        let x = h.load(at, o.size, 0)?;
        v = o.with(v, i, x);
    }
    set(h, o.elements, v);
    Ok(())
}

fn masked_store(h: &mut P, operand: u32) -> Step {
    let o = Masked::unpack(operand);
    if o.total == 8 {
        x87::fault_if_pending(h)?;
    }
    let mask = value(h, o.mask);
    // All of them can be stored, or none of them is.
    let mut places = Vec::new();
    for i in o.elements_of(mask) {
        let at = element(h, &o, (i * o.size).into(), true)?;
        places.push((i, h.resolve(at, o.size, Intent::Write, 0)?));
    }
    let v = value(h, o.elements);
    for (i, place) in places {
        h.store_at(place, o.size, o.get(v, i))?;
    }
    if o.total == 8 {
        h.arch.x87.enter_mmx();
    }
    Ok(())
}

/// An element that has been loaded has its mask cleared, so that behind a fault the instruction goes on where it was (SDM vol. 2C,
/// "VPGATHERDD").
fn gather(h: &mut P, operand: u32) -> Step {
    let o = Masked::unpack(operand);
    let indices = words(&h.core.regs, word(o.index, 0));
    let (mut v, mut mask) = (value(h, o.elements), value(h, o.mask));
    let mut stopped = Ok(());
    for i in o.elements_of(mask) {
        let offset = match o.index_size {
            4 => shuffle::gather_offset::<i32>(indices, i.into(), 1 << o.scale),
            _ => shuffle::gather_offset::<i64>(indices, i.into(), 1 << o.scale),
        };
        match element(h, &o, offset, false).and_then(|at| h.load(at, o.size, 0)) {
            Ok(x) => v = o.with(v, i, x),
            Err(stop) => {
                stopped = Err(stop);
                break;
            }
        }
        mask = o.with(mask, i, 0);
    }
    if stopped.is_ok() {
        mask = V::ZERO;
        v = V::build(|i| if i < usize::from(o.total) { v.get::<u8>(i) } else { 0 });
    }
    set(h, o.elements, v);
    set(h, o.mask, mask);
    stopped
}
