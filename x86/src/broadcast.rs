//! INVLPGB, TLBSYNC (APM vol. 3): invalidations that all processors make.
//!
//! The other processors' are made before anybody's next instruction, so TLBSYNC has nothing to wait for. What a TLB holds are translations of
//! linear addresses alone, in a guest those of both stages together: "final translation only" leaves nothing out, and "include nested translations"
//! is for all of what it may name. Global translations are dropped with the others.

use emu_core::bus::VcpuSignal;
use emu_core::engine::Step;

use crate::exception::Exception;
use crate::extension::{self, Intercept, ask_after};
use crate::model::Feature;
use crate::msr;
use crate::processor::{P, ProcessorExt};
use crate::processor_instructions::Operand;
use crate::registers::{RAX, RCX, RDX};

/// `VcpuSignal::Words`: another processor's INVLPGB. The words: [`Invalidation`]'s.
pub(crate) const INVALIDATE: u32 = 0x10;
/// How many pages there may be behind the first (CPUID Fn8000_0008_EDX[15:0]).
pub(crate) const MOST_PAGES: u64 = 7;

/// Bits of rAX.
mod of {
    pub(super) const VA: u64 = 1;
    pub(super) const PCID: u64 = 1 << 1;
    pub(super) const ASID: u64 = 1 << 2;
    pub(super) const NESTED: u64 = 1 << 5;
    pub(super) const RESERVED: u64 = 0x3f << 6;
}
/// ECX: the next page is 2 MiB away, and not 4 KiB.
const STRIDE_2M: u64 = 1 << 31;
/// Bits of ECX that are 0.
const ECX_RESERVED: u64 = 0x7fff << 16;
/// Bits of EDX that are 0.
const EDX_RESERVED: u64 = 0xf << 28;

/// What is to be invalidated: rAX, and EDX:ECX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Invalidation([u64; 2]);

impl Invalidation {
    /// What the registers ask for; rAX has as many bytes as an address.
    fn asked(h: &P, address_size: u8) -> Self {
        let rax = h.reg(RAX) & u64::MAX >> (64 - 8 * u32::from(address_size));
        Invalidation([rax, h.reg(RDX) << 32 | h.reg(RCX) & 0xffff_ffff])
    }

    fn has(self, bit: u64) -> bool {
        self.0[0] & bit != 0
    }

    /// How many pages come behind the first.
    fn count(self) -> u64 {
        self.0[1] & 0xffff
    }

    fn asid(self) -> u64 {
        self.0[1] >> 32 & 0xffff
    }

    fn pcid(self) -> u64 {
        self.0[1] >> 48 & 0xfff
    }

    /// Whether an instruction may ask for it. The APM leaves open what a PCID is with CR4.PCIDE clear: here nothing has it, and nothing is dropped.
    fn is_legal(self, h: &mut P) -> bool {
        let [rax, more] = self.0;
        let reserved = if h.arch.model.has(Feature::InvlpgbNested) { of::RESERVED } else { of::RESERVED | of::NESTED };
        rax & reserved == 0
            && more & (ECX_RESERVED | EDX_RESERVED << 32) == 0
            && self.count() <= MOST_PAGES
            && (self.asid() == 0 || h.arch.extension.is_guest() || self.asid() < asids(h))
    }

    /// A guest's is for its own ASID, whatever it asks for.
    fn of_guest(self, asid: u64) -> Self {
        let [rax, more] = self.0;
        Invalidation([rax | of::ASID, more & !(0xffff << 32) | asid << 32])
    }
}

/// How many ASIDs there are (CPUID Fn8000_000A_EBX); without SVM there is the host's.
fn asids(h: &mut P) -> u64 {
    msr::cpuid(h, 0x8000_000a, 0)[1].max(1).into()
}

/// What both instructions ask first. The APM's other instructions for protected mode alone are #UD elsewhere, and so are these.
fn require(h: &P) -> Step {
    h.fault_if(!h.arch.is_protected(), Exception::UD)?;
    extension::require_enabled(h, Feature::Invlpgb)?;
    h.require_cpl_0()
}

/// INVLPGB.
pub(crate) fn invlpgb(h: &mut P, o: Operand) -> Step {
    require(h)?;
    let asked = Invalidation::asked(h, o.size());
    let is_legal = asked.is_legal(h);
    ask_after(h, || Intercept::Invlpgb { is_legal })?;
    h.fault_if(!is_legal, Exception::gp(0))?;
    let is_guest = h.arch.extension.is_guest();
    let what = if is_guest { asked.of_guest(h.arch.extension.address_space()) } else { asked };
    let me = h.core.index;
    for vcpu in (0..h.arch.cores.count).filter(|vcpu| *vcpu != me) {
        h.send(vcpu, VcpuSignal::Words { message: INVALIDATE, words: what.0 });
    }
    invalidate(h, what.0);
    Ok(())
}

/// Drops what an INVLPGB names, which may be another processor's.
pub(crate) fn invalidate(h: &mut P, words: [u64; 2]) {
    let what = Invalidation(words);
    let (asid, pcid) = (what.asid(), what.pcid());
    let all_of_space = what.has(of::NESTED);
    let any_pcid = all_of_space || !what.has(of::PCID);
    let is_named = |key: emu_core::tlb::SpaceKey| {
        (!what.has(of::ASID) || key.0 >> 20 == asid) && (any_pcid || key.0 >> 8 & 0xfff == pcid)
    };
    if all_of_space || !what.has(of::VA) {
        h.core.mmu.drop_spaces(is_named);
    } else {
        let first = words[0] & !0xfff;
        let stride = if words[1] & STRIDE_2M != 0 { 1 << 21 } else { 1 << 12 };
        for i in 0..=what.count() {
            h.core.mmu.drop_page(first.wrapping_add(i * stride), is_named);
        }
    }
    h.core.spaces_changed = true;
    h.core.leave = true;
}

/// TLBSYNC.
pub(crate) fn tlbsync(h: &mut P, _: Operand) -> Step {
    require(h)?;
    ask_after(h, || Intercept::Tlbsync)
}
