//! VMRUN and a #VMEXIT before the guest's first instruction: guest state is stored as it was loaded, but for what "Canonicalization and Consistency
//! Checks" and the registers' own fixed bits say otherwise. VMLOAD and VMSAVE: likewise.

use emu_core::random::SplitMix64;
use svm_sim::Svm;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::{cr0, cr4, efer, rflags};
use x86::extension::Slot;
use x86_bare::{Bare, CODE};

use crate::base::{Base, SECOND, VMCB, intercept, machine, on, svm, write};

const CASES: u64 = 1000;

fn canonical(r: &mut SplitMix64) -> u64 {
    (r.next() as i64 >> r.of(&[17, 17, 40])) as u64
}

/// A segment register; what is not present keeps what else it has.
fn choose_segment(r: &mut SplitMix64, v: &mut Vmcb, i: usize) {
    let [selector, attributes, limit, base] = segment(i);
    let rights = r.next() & 0xfff;
    v.set(selector, r.next());
    v.set(attributes, rights);
    v.set(limit, r.next());
    v.set(base, canonical(r));
}

/// What VMLOAD is about.
fn choose_loaded(r: &mut SplitMix64, v: &mut Vmcb) {
    for i in [4, 5, LDTR, TR] {
        choose_segment(r, v, i);
    }
    for f in [LSTAR, CSTAR, KERNEL_GS_BASE, SYSENTER_ESP, SYSENTER_EIP] {
        v.set(f, canonical(r));
    }
    v.set(STAR, r.next());
    v.set(SFMASK, r.next() & 0xffff_ffff);
    v.set(SYSENTER_CS, r.next() & 0xffff_ffff);
}

/// Other guest state, which enters too.
fn choose(r: &mut SplitMix64, base: Base, cr4_bits: u64, v: &mut Vmcb) {
    let is_long = v.get(EFER) & efer::LME != 0;
    let free = cr0::MP | cr0::EM | cr0::TS | cr0::NE | cr0::WP | cr0::AM | cr0::CD;
    v.set(CR0, v.get(CR0) & !free | r.next() & free);
    let kept = cr4::PAE | cr4::PSE | cr4::LA57 | if is_long { 0 } else { cr4::PCIDE };
    v.set(CR4, v.get(CR4) & kept | r.next() & cr4_bits & !kept);
    if v.get(CR4) & cr4::CET != 0 {
        on(v, CR0, cr0::WP);
    }
    match base {
        Base::Pae => {}
        Base::Long | Base::Nested => v.set(CR3, r.next() >> 16),
        _ => v.set(CR3, r.next() & 0xffff_ffff),
    }
    v.set(EFER, v.get(EFER) & !(efer::SCE | efer::NXE) | r.next() & (efer::SCE | efer::NXE));
    let free = 0x3f_7fd5 & !rflags::VM;
    v.set(RFLAGS, v.get(RFLAGS) & !free | r.next() & free);
    for f in [RSP, RAX, CR2] {
        v.set(f, r.next());
    }
    v.set(DR6, 0xffff_0ff0 | r.next() & 0xe00f);
    v.set(DR7, 0x400 | r.next() & 0xffff_2b00);
    v.set(S_CET, r.next() & 3);
    v.set(SSP, canonical(r) & !7);
    v.set(ISST_ADDR, canonical(r));
    let rip = r.next();
    v.set(RIP, if is_long { canonical(r) } else { rip & 0xffff });
    for i in [GDTR, IDTR] {
        let [_, _, limit, base] = segment(i);
        v.set(limit, r.next() & 0xffff);
        v.set(base, canonical(r));
    }
    for i in [0, 3] {
        choose_segment(r, v, i);
    }
    let cpl = match base {
        Base::Real => 0,
        Base::V8086 => 3,
        _ => r.below(4),
    };
    v.set(CPL, cpl);
    // Of SS, DPL is CPL.
    v.set(SS_ATTRIB, v.get(SS_ATTRIB) & !0x60 | cpl << 5);
    v.set(SS_SELECTOR, r.next());
    v.set(CS_SELECTOR, r.next());
    v.set(G_PAT, (0..8).fold(0, |all, _| all << 8 | r.of(&[0, 1, 4, 5, 6, 7])));
    if r.one_in(2) {
        on(v, VIRTUALIZATION_CONTROL, more::LBR_VIRTUALIZATION_ENABLE);
        for f in [BR_FROM, BR_TO, LASTEXCPFROM, LASTEXCPTO] {
            v.set(f, canonical(r));
        }
    }
    on(v, VINTR, vintr::V_INTR_MASKING | r.below(16) | r.below(2) << 8 | r.below(16) << 16 | r.below(256) << 32);
    v.set(INTERRUPT_SHADOW, r.below(2));
    choose_loaded(r, v);
}

/// An NMI is pending, which GIF holds until VMRUN; the guest is left before its first instruction.
fn leave_at_once(bare: &mut Bare) {
    let mut svm: Svm = svm(bare).clone();
    svm.gif = false;
    let cpu = bare.cpu();
    cpu.extension = Slot::with(Box::new(svm));
    cpu.pending.nmi = true;
}

/// What a VMCB in memory has.
fn stored(bare: &Bare, at: u64) -> Vmcb {
    Vmcb::of_ram(&bare.machine.world.ram, at).unwrap()
}

fn differences(before: &Vmcb, after: &Vmcb, is_asked: impl Fn(Field) -> bool) -> Vec<String> {
    FIELDS
        .iter()
        .filter(|(_, f)| is_asked(*f) && before.get(*f) != after.get(*f))
        .map(|(name, f)| format!("{name} = {:#x}, then {:#x}", before.get(*f), after.get(*f)))
        .collect()
}

#[test]
fn what_is_loaded_is_stored() {
    let mut wrong = Vec::new();
    for case in 0..CASES {
        let mut r = SplitMix64(case);
        let base = r.of(&Base::ALL);
        let mut v = base.vmcb();
        intercept(&mut v, code::NMI);
        let bits = Bare::new("amd").cpu().model.cr4_bits();
        choose(&mut r, base, bits, &mut v);
        let mut bare = machine("amd", &v);
        leave_at_once(&mut bare);
        bare.machine.run(1);
        bare.machine.run(2);
        let after = stored(&bare, VMCB);
        assert_eq!(after.get(EXITCODE), code::NMI, "case {case}, {base:?}: {:?}", svm(&bare).failure);
        let is_asked = |f: Field| f == VINTR || f == INTERRUPT_SHADOW || usize::from(f.offset) >= SAVE;
        wrong.extend(differences(&v, &after, is_asked).into_iter().map(|d| format!("case {case}, {base:?}: {d}")));
    }
    assert!(wrong.is_empty(), "{}: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
}

/// VMSAVE stores what VMLOAD has loaded, and nothing else.
#[test]
fn vmsave_is_the_inverse_of_vmload() {
    for case in 0..CASES / 5 {
        let mut r = SplitMix64(case);
        let (mut from, mut to) = (Vmcb::default(), Vmcb::default());
        choose_loaded(&mut r, &mut from);
        for (_, f) in FIELDS {
            to.set(*f, r.next());
        }
        let mut bare = machine("amd", &from);
        write(&mut bare, SECOND, &to);
        bare.assemble(CODE, &|a| {
            use iced_x86::code_asm::eax;
            a.vmload()?;
            a.mov(eax, SECOND as u32)?;
            a.vmsave()?;
            a.hlt()
        });
        bare.machine.run(1000);
        let after = stored(&bare, SECOND);
        let is_loaded = |f: Field| {
            let at = usize::from(f.offset);
            [4, 5, LDTR, TR].iter().any(|i| segment(*i).contains(&f)) || (0x600..0x640).contains(&at)
        };
        assert_eq!(differences(&from, &after, is_loaded), Vec::<String>::new(), "case {case}");
        assert_eq!(differences(&to, &after, |f| !is_loaded(f)), Vec::<String>::new(), "case {case}");
    }
}
