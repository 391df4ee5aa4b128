//! A VM entry and a VM exit before the guest's first instruction: guest state is stored as it was loaded, but for what "Loading Guest State" and
//! "Saving Guest State" say otherwise.

use emu_core::random::SplitMix64;
use vmx_sim::control::{Control, entry, exit, pin, secondary};
use vmx_sim::entry::{activity, interruptibility};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86::control::{cr0, cr4, dr6, efer, rflags};
use x86::processor::X86;

use crate::base::{Base, Outcome, enter_with, off, on};
use crate::machine::{change, vmcs};

const CASES: u64 = 1000;

/// Bits of CR0 that an entry leaves as they are: bits 15 to 6, 17, 28 to 19, ET, NW and CD.
const CR0_KEPT: u64 = 0xffc0 | 1 << 17 | 0x1ff8_0000 | cr0::ET | cr0::NW | cr0::CD;

/// IA32_PERF_GLOBAL_CTRL after RESET: all general-purpose counters.
const PERF_GLOBAL_CTRL: u64 = 0xff;

/// Loads and saves that are chosen.
const CHOSEN: [Control; 12] = [
    entry::LOAD_DEBUG_CONTROLS,
    entry::LOAD_PAT,
    entry::LOAD_EFER,
    entry::LOAD_PERF_GLOBAL_CTRL,
    entry::LOAD_LBR_CTL,
    entry::LOAD_CET_STATE,
    entry::LOAD_PKRS,
    exit::SAVE_DEBUG_CONTROLS,
    exit::SAVE_PAT,
    exit::SAVE_EFER,
    exit::SAVE_PERF_GLOBAL_CTRL,
    exit::SAVE_PREEMPTION_TIMER,
];

fn canonical(r: &mut SplitMix64) -> u64 {
    (r.next() as i64 >> r.of(&[8, 17, 40])) as u64
}

/// Other guest state, which enters too. A virtual-8086 guest's segments are what its selectors say.
fn choose(r: &mut SplitMix64, base: Base, cr4_bits: u64, v: &mut Vmcs) {
    for c in CHOSEN {
        if r.one_in(2) { on(v, c) } else { off(v, c) }
    }
    on(v, pin::ACTIVATE_VMX_PREEMPTION_TIMER);
    let ia32e = v.has(entry::IA32E_MODE_GUEST);
    let free = cr0::MP | cr0::EM | cr0::TS | cr0::WP | cr0::AM | CR0_KEPT;
    v[GUEST_CR0] = v[GUEST_CR0] & !free | r.next() & free;
    let kept = cr4::PAE | cr4::PSE | cr4::VMXE | if ia32e { 0 } else { cr4::PCIDE };
    v[GUEST_CR4] = v[GUEST_CR4] & kept | r.next() & cr4_bits & !kept;
    if v[GUEST_CR4] & cr4::CET != 0 {
        v[GUEST_CR0] |= cr0::WP;
    }
    if !matches!(base, Base::Pae) {
        v[GUEST_CR3] = r.next() >> 24;
    }
    let free = 0x3f_7fd5 & !rflags::VM & !if base == Base::V8086 { 3 << 12 } else { 0 };
    v[GUEST_RFLAGS] = v[GUEST_RFLAGS] & !free | r.next() & free;
    v[GUEST_RSP] = r.next();
    v[GUEST_SYSENTER_CS] = r.next() & 0xffff_ffff;
    for field in [GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP, GUEST_GDTR_BASE, GUEST_IDTR_BASE] {
        v[field] = canonical(r);
    }
    for field in [GUEST_GDTR_LIMIT, GUEST_IDTR_LIMIT] {
        v[field] = r.next() & 0xffff;
    }
    v[guest_segment(TR)[1]] = canonical(r);
    if base != Base::V8086 {
        for (i, is_wide) in [(0, false), (3, false), (4, true), (5, true)] {
            let [selector, base, ..] = guest_segment(i);
            v[selector] = r.next() & 0xfffc;
            if v[GUEST_CR0] & cr0::PE != 0 {
                v[base] = if is_wide { canonical(r) } else { r.next() & 0xffff_ffff };
            }
        }
    }
    v[GUEST_DR7] = r.next() & 0xffff_ffff;
    v[GUEST_DEBUGCTL] = r.of(&[0, 2]);
    v[GUEST_PAT] = (0..8).fold(0, |all, _| all << 8 | r.of(&[0, 1, 4, 5, 6, 7]));
    v[GUEST_EFER] = if ia32e { efer::LMA | efer::LME } else { 0 } | r.next() & (efer::SCE | efer::NXE);
    v[GUEST_PERF_GLOBAL_CTRL] = r.next() & (0xff | 7 << 32);
    v[GUEST_LBR_CTL] = r.of(&[0, 1, 0xf]);
    v[GUEST_PKRS] = r.next() & 0xffff_ffff;
    v[GUEST_S_CET] = r.next() & 3;
    v[GUEST_SSP] = canonical(r) & !3 & if ia32e { u64::MAX } else { 0x7fff_ffff };
    v[GUEST_INTERRUPT_SSP_TABLE_ADDR] = canonical(r);
    v[GUEST_INTERRUPT_STATUS] = r.next() & 0xffff;
    v[PML_INDEX] = r.next() & 0xffff;
    for i in 0..4 {
        v[Field(GUEST_PDPTE0.0 + 2 * i)] = r.next() << 12 & 0xff_ffff_f000 | r.below(2);
    }
    v[GUEST_INTERRUPTIBILITY_STATE] = match r.below(4) {
        0 if v[GUEST_RFLAGS] & rflags::IF != 0 => interruptibility::STI,
        1 => interruptibility::MOV_SS,
        2 => interruptibility::NMI,
        _ => 0,
    };
    let is_blocked = v[GUEST_INTERRUPTIBILITY_STATE] & 3 != 0;
    if !is_blocked && base != Base::V8086 && r.one_in(3) {
        v[GUEST_ACTIVITY_STATE] = r.of(&[activity::HLT, activity::SHUTDOWN]);
    }
    // A single step that is due is a debug exception that is pending. But in the shadow of MOV SS it would come before the VM exit.
    if is_blocked || v[GUEST_ACTIVITY_STATE] == activity::HLT {
        v[GUEST_RFLAGS] &= !rflags::TF;
    }
    let holds = v[GUEST_INTERRUPTIBILITY_STATE] == interruptibility::MOV_SS;
    let steps = holds && v.has(entry::LOAD_DEBUG_CONTROLS) && v[GUEST_DEBUGCTL] == 0 && r.one_in(2);
    if steps {
        v[GUEST_RFLAGS] |= rflags::TF;
        v[GUEST_PENDING_DEBUG_EXCEPTIONS] = dr6::BS;
    }
}

/// What a field holds behind the exit; `None` if the manual leaves it open. `host` is the processor before the entry.
fn expected(v: &Vmcs, host: &X86, pat: u64, f: Field) -> Option<u64> {
    let has = |c: Control| v.has(c);
    // What is saved: what was loaded, or else what the host had.
    let saved = |saves: bool, loads: bool, host: u64| if !saves || loads { v[f] } else { host };
    if let Some(i) = (0..8).find(|i| guest_segment(*i)[1..].contains(&f)) {
        let rights = guest_segment(i)[3];
        return (v[rights] >> 16 & 1 == 0).then_some(v[f]);
    }
    Some(match f {
        GUEST_CR0 => v[f] & !CR0_KEPT | host.cr0 & CR0_KEPT,
        GUEST_DR7 if has(exit::SAVE_DEBUG_CONTROLS) => {
            let loaded = v[f] & !(1 << 12 | 3 << 14) | 1 << 10;
            if has(entry::LOAD_DEBUG_CONTROLS) { loaded } else { host.dr7 }
        }
        GUEST_DEBUGCTL => saved(has(exit::SAVE_DEBUG_CONTROLS), has(entry::LOAD_DEBUG_CONTROLS), 0),
        GUEST_PAT => saved(has(exit::SAVE_PAT), has(entry::LOAD_PAT), pat),
        GUEST_PERF_GLOBAL_CTRL => {
            saved(has(exit::SAVE_PERF_GLOBAL_CTRL), has(entry::LOAD_PERF_GLOBAL_CTRL), PERF_GLOBAL_CTRL)
        }
        GUEST_EFER => {
            let lma = if has(entry::IA32E_MODE_GUEST) { efer::LMA } else { 0 };
            let lme = if v[GUEST_CR0] & cr0::PG != 0 { lma >> 2 } else { host.efer & efer::LME };
            saved(has(exit::SAVE_EFER), has(entry::LOAD_EFER), host.efer & !(efer::LMA | efer::LME) | lma | lme)
        }
        GUEST_LBR_CTL => saved(true, has(entry::LOAD_LBR_CTL), 0),
        GUEST_PKRS => saved(true, has(entry::LOAD_PKRS), 0),
        GUEST_S_CET | GUEST_SSP | GUEST_INTERRUPT_SSP_TABLE_ADDR => saved(true, has(entry::LOAD_CET_STATE), 0),
        GUEST_PDPTE0 | GUEST_PDPTE1 | GUEST_PDPTE2 | GUEST_PDPTE3 if has(secondary::ENABLE_EPT) => {
            let pae = v[GUEST_CR0] & cr0::PG != 0 && v[GUEST_CR4] & cr4::PAE != 0 && !has(entry::IA32E_MODE_GUEST);
            return pae.then_some(v[f]);
        }
        _ => v[f],
    })
}

#[test]
fn what_is_loaded_is_stored() {
    let mut wrong = Vec::new();
    for case in 0..CASES {
        let mut r = SplitMix64(case);
        let base = r.of(&Base::ALL);
        let (mut before, mut host, mut pat) = (Vmcs::default(), X86::flat_64(), 0);
        let (outcome, bare) = enter_with(
            base,
            |_| {},
            |bare| {
                let bits = bare.cpu().model.cr4_bits();
                change(bare, |v| {
                    choose(&mut r, base, bits, v);
                    before = v.clone();
                });
                host = bare.cpu().clone();
                pat = host.pat();
            },
        );
        assert_eq!(outcome, Outcome::Other(Reason::PreemptionTimer as u64), "case {case}, {base:?}: {before:#x?}");
        let after = vmcs(&bare);
        for f in Field::all().filter(|f| f.kind() == Type::Guest) {
            if expected(&before, &host, pat, f).is_some_and(|value| value != after[f]) {
                wrong.push(format!("case {case}, {base:?}: {f:?} = {:#x}, then {:#x}", before[f], after[f]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
