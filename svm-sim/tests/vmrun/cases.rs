//! A VMCB for each rule, which breaks it and none before it.

use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::{cr0, cr4, efer};
use x86_bare::Bare;

use crate::base::{BAD_PDPTES, Base, on};

/// A case.
pub struct Case {
    pub field: &'static str,
    pub rule: &'static str,
    pub base: Base,
    pub model: &'static str,
    pub spoil: fn(&mut Vmcb),
    pub prepare: fn(&mut Bare),
}

const fn of(field: &'static str, rule: &'static str, base: Base, spoil: fn(&mut Vmcb)) -> Case {
    Case { field, rule, base, model: "amd", spoil, prepare: |_| {} }
}

const fn in_model(model: &'static str, case: Case) -> Case {
    Case { model, ..case }
}

fn off(v: &mut Vmcb, field: Field, bits: u64) {
    v.set(field, v.get(field) & !bits);
}

fn inject(v: &mut Vmcb, event: u64) {
    v.set(EVENTINJ, event | 1 << 31);
}

fn avic(v: &mut Vmcb, pointer: Field) {
    on(v, VINTR, vintr::AVIC_ENABLE);
    v.set(pointer, 1 << 51);
}

const INTERCEPT_VMRUN: u64 = 1 << (code::VMRUN - 0x80);

#[rustfmt::skip]
pub const ALL: &[Case] = &[
    of("EFER", "SVME is 1", Base::Long, |v| off(v, EFER, efer::SVME)),
    of("CR0", "NW is 0 where CD is 0", Base::Long, |v| on(v, CR0, cr0::NW)),
    of("CR0", "bits 63 to 32 are 0", Base::Long, |v| on(v, CR0, 1 << 32)),
    of("CR3", "bits beyond the physical address are 0", Base::Long, |v| on(v, CR3, 1 << 48)),
    of("CR3", "bits 63 to 32 are 0 outside of long mode", Base::Protected, |v| on(v, CR3, 1 << 32)),
    of("CR4", "reserved bits are 0", Base::Long, |v| on(v, CR4, cr4::VMXE)),
    of("DR6", "bits 63 to 32 are 0", Base::Long, |v| on(v, DR6, 1 << 63)),
    of("DR7", "bits 63 to 32 are 0", Base::Long, |v| on(v, DR7, 1 << 32)),
    of("EFER", "reserved bits are 0", Base::Long, |v| on(v, EFER, 1 << 9)),
    in_model("amd,-lm", of("EFER", "LMA and LME only where there is long mode", Base::Long, |v| off(v, CR0, cr0::PG))),
    of("CR4", "PAE is 1 in long mode", Base::Long, |v| off(v, CR4, cr4::PAE)),
    of("CR0", "PE is 1 in long mode", Base::Long, |v| off(v, CR0, cr0::PE)),
    of("CS_ATTRIB", "not both L and D in long mode", Base::Long, |v| on(v, CS_ATTRIB, 1 << 10)),
    of("INTERCEPT_4", "VMRUN is intercepted", Base::Long, |v| off(v, INTERCEPT_4, INTERCEPT_VMRUN)),
    of("IOPM_BASE_PA", "the map ends within physical memory's addresses", Base::Long, |v| v.set(IOPM_BASE_PA, (1 << 48) - 0x2000)),
    of("MSRPM_BASE_PA", "the map ends within physical memory's addresses", Base::Long, |v| v.set(MSRPM_BASE_PA, u64::MAX)),
    of("GUEST_ASID", "not 0", Base::Long, |v| v.set(GUEST_ASID, 0)),
    of("GUEST_ASID", "an ASID that there is", Base::Long, |v| v.set(GUEST_ASID, 0x8000)),
    in_model("amd,-npt", of("NESTED_CONTROL", "nested paging only where the processor has it", Base::Nested, |_| {})),
    Case {
        prepare: |bare| bare.cpu().cr0 &= !cr0::PG,
        ..of("NESTED_CONTROL", "nested paging only where the host has paging", Base::Nested, |_| {})
    },
    of("NESTED_CONTROL", "no SEV where the processor has none", Base::Nested, |v| on(v, NESTED_CONTROL, nested::SEV_ENABLE)),
    of("NESTED_CONTROL", "supervisor shadow stacks are checked only with nested paging", Base::Long, |v| on(v, NESTED_CONTROL, nested::SSS_CHECK_ENABLE)),
    of("N_CR3", "reserved bits are 0", Base::Nested, |v| on(v, N_CR3, 1 << 52)),
    of("G_PAT", "memory types that there are", Base::Nested, |v| v.set(G_PAT, 2 << 8)),
    of("S_CET", "reserved bits are 0", Base::Long, |v| v.set(S_CET, 1 << 6)),
    of("CR4", "CET only where CR0.WP is 1", Base::Long, |v| {
        on(v, CR4, cr4::CET);
        off(v, CR0, cr0::WP);
    }),
    of("VINTR", "virtual NMIs only where NMIs are intercepted", Base::Long, |v| on(v, VINTR, vintr::V_NMI_ENABLE)),
    of("VINTR", "AVIC only with nested paging", Base::Long, |v| on(v, VINTR, vintr::AVIC_ENABLE)),
    of("AVIC_BACKING_PAGE", "an address that there is", Base::Nested, |v| avic(v, AVIC_BACKING_PAGE)),
    of("AVIC_LOGICAL_TABLE", "an address that there is", Base::Nested, |v| avic(v, AVIC_LOGICAL_TABLE)),
    of("AVIC_PHYSICAL_TABLE", "an address that there is", Base::Nested, |v| avic(v, AVIC_PHYSICAL_TABLE)),
    of("EVENTINJ", "types 1, 5, 6 and 7 are reserved", Base::Long, |v| inject(v, 5 << 8)),
    of("EVENTINJ", "an exception has a vector up to 31", Base::Long, |v| inject(v, 3 << 8 | 32)),
    of("EVENTINJ", "vector 2 is no exception", Base::Long, |v| inject(v, 3 << 8 | 2)),
    of("EVENTINJ", "#OF and #BR cannot occur in 64-bit mode", Base::Long, |v| inject(v, 3 << 8 | 4)),
    of("EVENTINJ", "bits 30 to 12 are 0", Base::Long, |v| inject(v, 1 << 12)),
    of("CR3", "PDPTEs without reserved bits", Base::Pae, |v| v.set(CR3, BAD_PDPTES)),
];
