//! FXSAVE, and the XSAVE feature set (SDM vol. 1, chapters 10.5 "FXSAVE and FXRSTOR Instructions" and 13 "Managing State Using the XSAVE
//! Feature Set").
//!
//! State components: x87 (0), SSE (1), AVX (2) and PKRU (9); of IA32_XSS, CET_U and CET_S (11 and 12), and architectural last branch
//! records (15).
//!
//! Of the modified optimization of XSAVEOPT and XSAVES no use is made; the init optimization is exact.

use emu_core::engine::{Intent, Step};
use emu_core::ram::PAGE_MASK;
use iced_x86::Mnemonic;

use crate::control::{cr0, cr4, efer};
use crate::exception::{Exception, vector};
use crate::extension::{self, Intercept, ask_after, ask_before};
use crate::fpu::X87;
use crate::fpu::image::{self, Pointers};
use crate::isa::{self, Lifting, Unknown};
use crate::lbr;
use crate::model::Feature;
use crate::processor::{P, ProcessorExt, segments};
use crate::registers::{MXCSR, RAX, RCX, RDX, VECTORS, temp};
use crate::vector::Mxcsr;

/// State components, as bits of XCR0.
pub mod xcr0 {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const X87: u64 = 1 << 0;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
    pub const PKRU: u64 = 1 << 9;
}

/// XCR0 after a reset.
pub const RESET_XCR0: u64 = xcr0::X87;
/// State components, as bits of IA32_XSS.
pub mod xss {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const CET_U: u64 = 1 << 11;
    pub const CET_S: u64 = 1 << 12;
    pub const LBR: u64 = 1 << 15;
}

/// A state component beyond the legacy region: CPUID.(EAX=0DH,ECX=i).
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// i.
    pub number: u32,
    /// EAX: its size.
    pub size: u64,
    /// EBX: its place in the standard format, where supervisor state has none.
    pub offset: u64,
    /// ECX\[1\]: it begins at a multiple of 64 in the compacted format.
    pub aligned: bool,
}

/// All of them, in order.
pub const COMPONENTS: [Component; 5] = [
    Component { number: 2, size: 256, offset: 576, aligned: false },
    Component { number: 9, size: 8, offset: 2688, aligned: false },
    Component { number: 11, size: 16, offset: 0, aligned: false },
    Component { number: 12, size: 24, offset: 0, aligned: false },
    Component { number: 15, size: lbr::STATE_SIZE, offset: 0, aligned: false },
];

/// The XSAVE header's place, and where the extended region begins.
const HEADER: u64 = 512;
const EXTENDED: u64 = 576;
/// XCOMP_BV\[63\]: the format is the compacted one.
const COMPACTED: u64 = 1 << 63;

/// Size of the area for these components in the standard format: CPUID.(EAX=0DH,ECX=0):EBX.
pub fn standard_size(components: u64) -> u64 {
    chosen(components).map(|c| c.offset + c.size).fold(EXTENDED, u64::max)
}

/// Likewise in the compacted format: CPUID.(EAX=0DH,ECX=1):EBX.
pub fn compacted_size(components: u64) -> u64 {
    compacted(components).map(|(c, at)| at + c.size).fold(EXTENDED, u64::max)
}

fn chosen(components: u64) -> impl Iterator<Item = Component> {
    COMPONENTS.into_iter().filter(move |c| components >> c.number & 1 != 0)
}

/// The components of the compacted format and their places ("Compacted Format for the Extended Region of an XSAVE Area").
fn compacted(components: u64) -> impl Iterator<Item = (Component, u64)> {
    chosen(components).scan(EXTENDED, |end, c| {
        let at = if c.aligned { end.next_multiple_of(64) } else { *end };
        *end = at + c.size;
        Some((c, at))
    })
}

/// The components and their places, as XCOMP_BV says.
fn layout(xcomp_bv: u64, components: u64) -> impl Iterator<Item = (Component, u64)> {
    let is_compacted = xcomp_bv & COMPACTED != 0;
    compacted(if is_compacted { xcomp_bv } else { components })
        .filter(move |(c, _)| components >> c.number & 1 != 0)
        .map(move |(c, at)| (c, if is_compacted { at } else { c.offset }))
}

/// What the registers that [`X87`] does not hold are after a reset: MXCSR.
pub fn reset_registers(regs: &mut [u64; 256]) {
    regs[usize::from(MXCSR)] = Mxcsr::RESET.into();
}

macro_rules! functions {
    ($($mnemonic:ident $long:ident $f:path;)*) => {
        const FUNCTIONS: &[fn(&mut P, bool) -> Step] = &[$($f,)*];
        /// The function of a mnemonic, and whether REX.W is set.
        fn function_of(m: Mnemonic) -> Option<(u16, bool)> {
            let mut i = 0;
            $(
                if m == Mnemonic::$mnemonic || m == Mnemonic::$long {
                    return Some((i, m != Mnemonic::$mnemonic));
                }
                i += 1;
            )*
            let _ = i;
            None
        }
    };
}
functions! {
    Fxsave Fxsave64 fxsave;
    Fxrstor Fxrstor64 fxrstor;
    Xsave Xsave64 xsave;
    Xsaveopt Xsaveopt64 xsaveopt;
    Xsavec Xsavec64 xsavec;
    Xsaves Xsaves64 xsaves;
    Xrstor Xrstor64 xrstor;
    Xrstors Xrstors64 xrstors;
    Xgetbv Xgetbv xgetbv;
    Xsetbv Xsetbv xsetbv;
}

/// Function numbers of this module's calls.
pub(crate) const FIRST: u16 = isa::FIRST + 0x2000;

pub(crate) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    let (function, long) = function_of(l.insn.mnemonic()).ok_or(Unknown)?;
    let changes_mode = match l.insn.mnemonic() {
        Mnemonic::Xgetbv => false,
        Mnemonic::Xsetbv => true,
        m => {
            l.address_in_register()?;
            // Rights of pages may change with PKRU.
            matches!(m, Mnemonic::Xrstor | Mnemonic::Xrstor64 | Mnemonic::Xrstors | Mnemonic::Xrstors64)
        }
    };
    if changes_mode {
        l.lift.call_and_end(FIRST + function, long.into());
    } else {
        l.lift.call(FIRST + function, long.into());
    }
    Ok(())
}

/// Runs what a call of this module names.
pub(crate) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    FUNCTIONS[usize::from(function - FIRST)](h, operand != 0)
}

fn address(h: &P) -> u64 {
    h.core.regs[usize::from(temp::ADDRESS)]
}

/// The parts of 8, 4, 2 and 1 bytes that so many bytes are accessed in.
fn parts(bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let size = [8, 4, 2, 1].into_iter().find(|size| at + size <= bytes)?;
        at += size;
        Some((at - size, size))
    })
}

/// Loads bytes from the address in ADDRESS on.
pub(crate) fn load_bytes(h: &mut P, bytes: &mut [u8]) -> Step {
    for (at, size) in parts(bytes.len()) {
        let from = address(h).wrapping_add(at as u64);
        let value = if size == 8 { h.load_word(from, 0) } else { h.load(from, size as u8, 0) }?;
        bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
    Ok(())
}

/// Stores bytes likewise: all of them, or none.
pub(crate) fn store_bytes(h: &mut P, bytes: &[u8]) -> Step {
    let word = |(at, size): (usize, usize)| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&bytes[at..at + size]);
        (at as u64, size as u8, u64::from_le_bytes(word))
    };
    store_all(h, parts(bytes.len()).map(word))
}

/// Stores values of so many bytes at places from the address in ADDRESS on: all of them, or none.
fn store_all(h: &mut P, values: impl Iterator<Item = (u64, u8, u64)>) -> Step {
    let base = address(h);
    let mut resolve = |(at, size, value)| Ok((h.resolve(base.wrapping_add(at), size, Intent::Write, 0)?, size, value));
    let places = values.map(&mut resolve).collect::<Step<Vec<_>>>()?;
    places.into_iter().try_for_each(|(place, size, value)| h.store_at(place, size, value))
}

/// The most words that an XSAVE area has, which are those of the standard format; and a component.
const WORDS: usize = 337;
const MOST: usize = lbr::STATE_SIZE as usize / 8;

/// The most runs of words that an image has: parts of the legacy region, the header, components.
const RUNS: usize = 4 + 1 + COMPONENTS.len();

/// Words of an XSAVE area, and which of them there are: runs without a gap, in their order.
struct Image {
    words: [u64; WORDS],
    runs: [(usize, usize); RUNS],
    count: usize,
}

impl Image {
    fn new() -> Self {
        Image { words: [0; WORDS], runs: [(0, 0); RUNS], count: 0 }
    }

    /// Words from a place on, behind all others: they are there from now on.
    fn part(&mut self, at: u64, count: usize) -> &mut [u64] {
        let (first, end) = (at as usize / 8, at as usize / 8 + count);
        match self.runs[..self.count].last_mut() {
            Some(last) if last.1 == first => last.1 = end,
            _ => {
                self.runs[self.count] = (first, end);
                self.count += 1;
            }
        }
        &mut self.words[first..end]
    }

    fn put<const N: usize>(&mut self, at: u64, words: [u64; N]) {
        self.part(at, N).copy_from_slice(&words);
    }

    /// The bytes of a legacy region from `at` to `end`.
    fn put_legacy(&mut self, legacy: &[u8; 512], at: usize, end: usize) {
        for (word, bytes) in self.part(at as u64, (end - at) / 8).iter_mut().zip(legacy[at..end].chunks_exact(8)) {
            *word = u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        }
    }

    /// Stores all of it, or nothing.
    fn store(&self, h: &mut P) -> Step {
        let base = address(h);
        let runs = &self.runs[..self.count];
        let end = runs.last().map_or(0, |(_, end)| *end);
        // In one page the first tells of all.
        let is_in_page = base & PAGE_MASK <= PAGE_MASK + 1 - 8 * end as u64;
        let mut short = |(first, end): &(usize, usize)| {
            h.store_words(base.wrapping_add(8 * *first as u64), self.words[*first..*end].iter(), 0)
        };
        if is_in_page && runs.first().is_none_or(&mut short) {
            let all = runs.iter().skip(1).all(short);
            debug_assert!(all);
            return Ok(());
        }
        let words = runs.iter().flat_map(|(first, end)| *first..*end);
        store_all(h, words.map(|i| (8 * i as u64, 8, self.words[i])))
    }

    /// Loads words.
    fn load(&mut self, h: &mut P, at: u64, count: usize) -> Step<&[u64]> {
        let from = address(h).wrapping_add(at);
        let part = self.part(at, count);
        for (i, word) in part.iter_mut().enumerate() {
            *word = h.load_word(from.wrapping_add(8 * i as u64), 0)?;
        }
        Ok(part)
    }
}

/// How many vector registers there are: sixteen in 64-bit mode, else eight.
fn registers(h: &P) -> usize {
    let long = h.arch.efer & efer::LMA != 0 && h.arch.segments[segments::CS].attributes.is_long();
    if long { 16 } else { 8 }
}

/// Their words, four each.
fn vectors<'a>(h: &'a P) -> impl Iterator<Item = &'a [u64]> {
    h.core.regs[usize::from(VECTORS)..].chunks_exact(4).take(registers(h))
}

/// Words of vector registers, from `first` of each on: two.
fn set_halves(h: &mut P, first: usize, words: impl Iterator<Item = [u64; 2]>) {
    let count = registers(h);
    let registers = h.core.regs[usize::from(VECTORS)..].chunks_exact_mut(4).take(count);
    for (register, words) in registers.zip(words) {
        register[first..first + 2].copy_from_slice(&words);
    }
}

fn pointers(long: bool) -> Pointers {
    if long { Pointers::Long } else { Pointers::Selectors }
}

/// The legacy region as it would be stored in full.
fn legacy_region(h: &P, long: bool) -> [u8; 512] {
    let mut legacy = [0; 512];
    h.arch.x87.fxsave(pointers(long), &mut legacy);
    let xmm = vectors(h).map(|words| u128::from(words[0]) | u128::from(words[1]) << 64);
    image::fxsave_sse(h.core.regs[usize::from(MXCSR)] as u32, Mxcsr::WRITABLE, xmm, &mut legacy);
    legacy
}

/// Where the x87's part ends behind its header of 24 bytes, MXCSR, and the XMM registers.
const X87_REGISTERS: (usize, usize) = (32, 160);
const MXCSR_PART: (usize, usize) = (24, 32);

fn xmm_part(h: &P) -> (usize, usize) {
    (160, 160 + 16 * registers(h))
}

/// The checks that FXSAVE and FXRSTOR share.
fn require_fxsave(h: &P) -> Step {
    h.fault_if(h.arch.cr0 & (cr0::EM | cr0::TS) != 0, Exception::plain(vector::NM))?;
    h.fault_if(!address(h).is_multiple_of(16), Exception::gp(0))
}

/// EFER.FFXSR: no XMM registers at CPL 0 in 64-bit mode (APM vol. 2, "Fast FXSAVE/FXRSTOR").
fn is_fast(h: &P) -> bool {
    h.arch.efer & efer::FFXSR != 0 && h.arch.cpl() == 0 && registers(h) == 16
}

/// FXSAVE. The last instruction and operand are always stored, as processors of Intel do, and those of AMD with
/// CPUID.80000008H:EBX\[2\] (older ones store them only while an exception is pending).
fn fxsave(h: &mut P, long: bool) -> Step {
    require_fxsave(h)?;
    let legacy = legacy_region(h, long);
    let mut image = Image::new();
    let end = if is_fast(h) { X87_REGISTERS.1 } else { xmm_part(h).1 };
    image.put_legacy(&legacy, 0, end);
    image.store(h)
}

/// FXRSTOR.
fn fxrstor(h: &mut P, long: bool) -> Step {
    require_fxsave(h)?;
    let mut legacy = [0; 512];
    load_bytes(h, &mut legacy)?;
    let mxcsr = mxcsr_in(&legacy)?;
    h.arch.x87.fxrstor(pointers(long), &legacy);
    h.core.regs[usize::from(MXCSR)] = mxcsr;
    if !is_fast(h) {
        set_xmm(h, &legacy);
    }
    Ok(())
}

/// MXCSR in a legacy region: #GP for a reserved bit.
fn mxcsr_in(legacy: &[u8; 512]) -> Step<u64> {
    let mxcsr = u32::from_le_bytes(std::array::from_fn(|i| legacy[24 + i]));
    if mxcsr & !Mxcsr::WRITABLE == 0 { Ok(mxcsr.into()) } else { Err(Exception::gp(0).into()) }
}

fn set_xmm(h: &mut P, legacy: &[u8; 512]) {
    let word = |bytes: &[u8]| u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
    let words = legacy[160..416].chunks_exact(16).map(|bytes| [word(&bytes[..8]), word(&bytes[8..])]);
    set_halves(h, 0, words);
}

/// How many words a component has now.
fn words_of(h: &P, c: Component) -> usize {
    if c.number == 2 { 2 * registers(h) } else { c.size as usize / 8 }
}

/// Puts a component's words into an image.
fn put_component(h: &P, c: Component, at: u64, image: &mut Image) {
    let words = image.part(at, words_of(h, c));
    match c.number {
        2 => {
            for (words, register) in words.chunks_exact_mut(2).zip(vectors(h)) {
                words.copy_from_slice(&register[2..]);
            }
        }
        11 => words.copy_from_slice(&[h.arch.cet.user, h.arch.cet.ssp[3]]),
        12 => words.copy_from_slice(&h.arch.cet.ssp[..3]),
        15 => words.copy_from_slice(&h.arch.msrs.lbr.state()),
        _ => words[0] = h.arch.pkru.into(),
    }
}

/// Its initial configuration.
fn is_initial(h: &P, number: u32) -> bool {
    match number {
        2 => vectors(h).all(|words| words[2..] == [0; 2]),
        11 => h.arch.cet.user == 0 && h.arch.cet.ssp[3] == 0,
        12 => h.arch.cet.ssp[..3] == [0; 3],
        15 => h.arch.msrs.lbr.is_initial(),
        _ => h.arch.pkru == 0,
    }
}

fn set_component(h: &mut P, number: u32, words: &[u64]) {
    match number {
        2 => set_halves(h, 2, words.chunks_exact(2).map(|w| [w[0], w[1]])),
        11 => {
            h.arch.cet.user = words[0];
            h.arch.cet.ssp[3] = words[1];
            h.core.spaces_changed = true;
            h.core.leave = true;
        }
        12 => h.arch.cet.ssp[..3].copy_from_slice(words),
        15 => lbr::set_state(h, words),
        _ => {
            h.arch.pkru = words[0] as u32;
            h.core.spaces_changed = true;
            h.core.leave = true;
        }
    }
}

/// #GP for what WRMSR would not take either.
fn require_legal(h: &P, number: u32, words: &[u64]) -> Step {
    let is_legal = match number {
        11 => h.arch.is_cet_control(words[0]) && h.arch.is_shadow_stack_pointer(words[1]),
        12 => words.iter().all(|ssp| h.arch.is_shadow_stack_pointer(*ssp)),
        15 => lbr::is_state(h.arch, words),
        _ => true,
    };
    h.fault_if(!is_legal, Exception::gp(0))
}

/// XINUSE: the components that are not in their initial configuration ("Tracking of the XSAVE-Managed State"). MXCSR is not
/// looked at.
fn xinuse(h: &P) -> u64 {
    let x87 = h.arch.x87 != X87::default();
    let sse = vectors(h).any(|words| words[..2] != [0; 2]);
    let extended = COMPONENTS.into_iter().filter(|c| !is_initial(h, c.number));
    extended.fold(u64::from(x87) | u64::from(sse) << 1, |all, c| all | 1 << c.number)
}

fn edx_eax(h: &P) -> u64 {
    let [low, high] = [RAX, RDX].map(|r| h.core.regs[usize::from(r)]);
    low & 0xffff_ffff | high << 32
}

/// The checks that all instructions of the feature set share; the address is for those with an XSAVE area.
fn require_xsave(h: &P) -> Step {
    h.fault_if(h.arch.cr4 & cr4::OSXSAVE == 0, Exception::UD)?;
    h.fault_if(h.arch.cr0 & cr0::TS != 0, Exception::plain(vector::NM))?;
    h.fault_if(!address(h).is_multiple_of(64), Exception::gp(0))
}

fn has_mxcsr(components: u64) -> bool {
    components & (xcr0::SSE | xcr0::AVX) != 0
}

/// Stores what is in the legacy region of these components.
fn put_legacy(h: &P, long: bool, components: u64, mxcsr: bool, image: &mut Image) {
    let legacy = legacy_region(h, long);
    let xmm = xmm_part(h);
    for (asked, (at, end)) in [
        (components & xcr0::X87 != 0, (0, 24)),
        (mxcsr, MXCSR_PART),
        (components & xcr0::X87 != 0, X87_REGISTERS),
        (components & xcr0::SSE != 0, xmm),
    ] {
        if asked {
            image.put_legacy(&legacy, at, end);
        }
    }
}

/// XSAVE and XSAVEOPT, which stores only what is in use.
fn save_standard(h: &mut P, long: bool, optimized: bool) -> Step {
    require_xsave(h)?;
    let requested = edx_eax(h) & h.arch.xcr0;
    let in_use = xinuse(h);
    let saved = if optimized { requested & in_use } else { requested };
    // XSTATE_BV is read to be written.
    let header = h.resolve(address(h).wrapping_add(HEADER), 8, Intent::Write, 0)?;
    let old = h.load_at(header, 8)?;
    let mut image = Image::new();
    put_legacy(h, long, saved, has_mxcsr(requested), &mut image);
    image.put(HEADER, [old & !requested | requested & in_use]);
    for (c, at) in layout(0, saved) {
        put_component(h, c, at, &mut image);
    }
    image.store(h)
}

fn xsave(h: &mut P, long: bool) -> Step {
    save_standard(h, long, false)
}

fn xsaveopt(h: &mut P, long: bool) -> Step {
    save_standard(h, long, true)
}

/// XSAVEC and XSAVES.
fn save_compacted(h: &mut P, long: bool, allowed: u64) -> Step {
    let requested = edx_eax(h) & allowed;
    let mut saved = requested & xinuse(h);
    if h.core.regs[usize::from(MXCSR)] != u64::from(Mxcsr::RESET) {
        saved |= requested & xcr0::SSE;
    }
    let mut image = Image::new();
    put_legacy(h, long, saved, saved & xcr0::SSE != 0, &mut image);
    image.put(HEADER, [saved, requested | COMPACTED]);
    for (c, at) in layout(requested | COMPACTED, saved) {
        put_component(h, c, at, &mut image);
    }
    image.store(h)
}

fn xsavec(h: &mut P, long: bool) -> Step {
    require_xsave(h)?;
    save_compacted(h, long, h.arch.xcr0)
}

fn xsaves(h: &mut P, long: bool) -> Step {
    h.fault_if(h.arch.cr4 & cr4::OSXSAVE == 0, Exception::UD)?;
    extension::require_enabled(h, Feature::Xsaves)?;
    h.require_cpl_0()?;
    require_xsave(h)?;
    let components = edx_eax(h);
    ask_before(h, || Intercept::Xsaves(components))?;
    save_compacted(h, long, h.arch.xcr0 | h.arch.xss)
}

/// The header: XSTATE_BV, XCOMP_BV, and whether what is behind them is 0.
fn load_header(h: &mut P) -> Step<(u64, u64, [bool; 2])> {
    let mut header = [0; 8];
    for (i, word) in header.iter_mut().enumerate() {
        *word = h.load_word(address(h).wrapping_add(HEADER + 8 * i as u64), 0)?;
    }
    Ok((header[0], header[1], [header[2] == 0, header[2..].iter().all(|word| *word == 0)]))
}

/// "Standard Form of XRSTOR", "Compacted Form of XRSTOR".
fn xrstor(h: &mut P, long: bool) -> Step {
    require_xsave(h)?;
    let (xstate_bv, xcomp_bv, reserved) = load_header(h)?;
    if xcomp_bv & COMPACTED != 0 {
        return restore_compacted(h, long, h.arch.xcr0, xstate_bv, xcomp_bv, reserved[1]);
    }
    h.fault_if(xstate_bv & !h.arch.xcr0 != 0, Exception::gp(0))?;
    h.fault_if(xcomp_bv != 0 || !reserved[0], Exception::gp(0))?;
    restore(h, long, edx_eax(h) & h.arch.xcr0, xstate_bv, xcomp_bv)
}

fn restore_compacted(h: &mut P, long: bool, allowed: u64, xstate_bv: u64, xcomp_bv: u64, reserved_is_0: bool) -> Step {
    let components = xcomp_bv & !COMPACTED;
    h.fault_if(components & !allowed != 0, Exception::gp(0))?;
    h.fault_if(xstate_bv & !components != 0, Exception::gp(0))?;
    h.fault_if(!reserved_is_0, Exception::gp(0))?;
    restore(h, long, edx_eax(h) & allowed, xstate_bv, xcomp_bv)
}

fn xrstors(h: &mut P, long: bool) -> Step {
    h.fault_if(h.arch.cr4 & cr4::OSXSAVE == 0, Exception::UD)?;
    extension::require_enabled(h, Feature::Xsaves)?;
    h.require_cpl_0()?;
    require_xsave(h)?;
    let components = edx_eax(h);
    ask_before(h, || Intercept::Xrstors(components))?;
    let (xstate_bv, xcomp_bv, reserved) = load_header(h)?;
    h.fault_if(xcomp_bv & COMPACTED == 0, Exception::gp(0))?;
    restore_compacted(h, long, h.arch.xcr0 | h.arch.xss, xstate_bv, xcomp_bv, reserved[1])
}

/// Loads the requested components that XSTATE_BV has, and initializes the others of them. In the standard form MXCSR is loaded in
/// either case, and for AVX too.
fn restore(h: &mut P, long: bool, requested: u64, xstate_bv: u64, xcomp_bv: u64) -> Step {
    let loaded = requested & xstate_bv;
    let standard = xcomp_bv & COMPACTED == 0;
    let mut legacy = [0; 512];
    let wants_mxcsr = if standard { has_mxcsr(requested) } else { loaded & xcr0::SSE != 0 };
    if loaded & (xcr0::X87 | xcr0::SSE) != 0 || wants_mxcsr {
        load_bytes(h, &mut legacy)?;
    }
    let mxcsr = if wants_mxcsr { mxcsr_in(&legacy)? } else { Mxcsr::RESET.into() };
    let mut image = Image::new();
    for (c, at) in layout(xcomp_bv, loaded) {
        let words = image.load(h, at, words_of(h, c))?;
        require_legal(h, c.number, words)?;
    }
    if requested & xcr0::X87 != 0 {
        h.arch.x87 = X87::default();
        if loaded & xcr0::X87 != 0 {
            h.arch.x87.fxrstor(pointers(long), &legacy);
        }
    }
    if wants_mxcsr || requested & xcr0::SSE != 0 {
        h.core.regs[usize::from(MXCSR)] = mxcsr;
    }
    if requested & xcr0::SSE != 0 {
        set_xmm(h, if loaded & xcr0::SSE != 0 { &legacy } else { &[0; 512] });
    }
    for c in chosen(requested & !loaded) {
        set_component(h, c.number, &[0; MOST][..words_of(h, c)]);
    }
    for (c, at) in layout(xcomp_bv, loaded) {
        let words = words_of(h, c);
        set_component(h, c.number, &image.words[at as usize / 8..][..words]);
    }
    Ok(())
}

/// XGETBV: XCR0; with ECX of 1, of these the components that are in use.
fn xgetbv(h: &mut P, _: bool) -> Step {
    h.fault_if(h.arch.cr4 & cr4::OSXSAVE == 0, Exception::UD)?;
    let value = match h.core.regs[usize::from(RCX)] as u32 {
        0 => h.arch.xcr0,
        1 => h.arch.xcr0 & xinuse(h),
        _ => return Err(Exception::gp(0).into()),
    };
    h.core.regs[usize::from(RAX)] = value & 0xffff_ffff;
    h.core.regs[usize::from(RDX)] = value >> 32;
    Ok(())
}

/// XSETBV: "#GP if ... ".
fn xsetbv(h: &mut P, _: bool) -> Step {
    h.fault_if(h.arch.cr4 & cr4::OSXSAVE == 0, Exception::UD)?;
    h.require_cpl_0()?;
    ask_before(h, || Intercept::Xsetbv)?;
    let (register, value) = (h.core.regs[usize::from(RCX)] as u32, edx_eax(h));
    h.fault_if(register != 0, Exception::gp(0))?;
    h.fault_if(value & !h.arch.model.xcr0_bits() != 0 || value & xcr0::X87 == 0, Exception::gp(0))?;
    h.fault_if(value & xcr0::AVX != 0 && value & xcr0::SSE == 0, Exception::gp(0))?;
    ask_after(h, || Intercept::Xsetbv)?;
    h.arch.xcr0 = value;
    h.core.spaces_changed = true;
    h.core.leave = true;
    Ok(())
}
