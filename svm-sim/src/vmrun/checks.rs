//! "Canonicalization and Consistency Checks": one line for each rule.

use x86::control::{cr0, cr4, efer};
use x86::model::Feature;
use x86::processor::P;

use super::{Check, Failure};
use crate::exit::{VALID, code};
use crate::svm::Svm;
use crate::vmcb::*;

/// How far the maps of permissions reach: the I/O permissions map has a few bits in its third page; processors ask the same of the other one.
const MAP_REACH: u64 = 0x2000;
/// Bits 51 to 12.
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;
/// Bits of S_CET that are 0.
const S_CET_RESERVED: u64 = 0x3c0;

/// Memory types that the PAT may have.
fn is_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4 | 5 | 6 | 7))
}

impl Svm {
    #[inline(always)]
    fn require(&self, field: (&'static str, Field), holds: bool, rule: &'static str) -> Check {
        if holds { Ok(()) } else { Err(self.failure(field, rule)) }
    }

    #[cold]
    fn failure(&self, (field, place): (&'static str, Field), rule: &'static str) -> Failure {
        Failure { field, value: self.vmcb.get(place), rule }
    }

    /// All of them, but for those that need the guest's memory.
    #[rustfmt::skip]
    pub(crate) fn check(&self, h: &P) -> Check {
        let v = &self.vmcb;
        let [cr0, cr3, cr4, efer] = [CR0, CR3, CR4, EFER].map(|f| v.get(f));
        let m = &self.model;
        let is_paged = cr0 & cr0::PG != 0;
        let is_long = efer & efer::LME != 0 && is_paged;
        let code = v.get(CS_ATTRIB);
        let (code_long, code_big) = (code & 1 << 9 != 0, code & 1 << 10 != 0);
        macro_rules! rule { ($field:ident, $holds:expr, $text:literal) => { self.require((stringify!($field), $field), $holds, $text)? } }
        rule!(EFER, efer & efer::SVME != 0, "SVME is 1");
        rule!(CR0, cr0 & cr0::CD != 0 || cr0 & cr0::NW == 0, "NW is 0 where CD is 0");
        rule!(CR0, cr0 >> 32 == 0, "bits 63 to 32 are 0");
        rule!(CR3, !is_long || cr3 >> m.physical_bits == 0, "bits beyond the physical address are 0");
        rule!(CR3, is_long || cr3 >> 32 == 0, "bits 63 to 32 are 0 outside of long mode");
        rule!(CR4, cr4 & !self.cr4_bits == 0, "reserved bits are 0");
        rule!(DR6, v.get(DR6) >> 32 == 0, "bits 63 to 32 are 0");
        rule!(DR7, v.get(DR7) >> 32 == 0, "bits 63 to 32 are 0");
        rule!(EFER, efer & !(x86::msr::defined_efer_bits(h) | efer::LMA | efer::LME | efer::SVME) == 0, "reserved bits are 0");
        rule!(EFER, efer & (efer::LMA | efer::LME) == 0 || m.has(Feature::Lm), "LMA and LME only where there is long mode");
        rule!(CR4, !is_long || cr4 & cr4::PAE != 0, "PAE is 1 in long mode");
        rule!(CR0, !is_long || cr0 & cr0::PE != 0, "PE is 1 in long mode");
        rule!(CS_ATTRIB, !is_long || cr4 & cr4::PAE == 0 || !(code_long && code_big), "not both L and D in long mode");
        rule!(INTERCEPT_4, v.intercepts(code::VMRUN), "VMRUN is intercepted");
        rule!(IOPM_BASE_PA, self.is_map(IOPM_BASE_PA), "the map ends within physical memory's addresses");
        rule!(MSRPM_BASE_PA, self.is_map(MSRPM_BASE_PA), "the map ends within physical memory's addresses");
        rule!(GUEST_ASID, v.get(GUEST_ASID) != 0, "not 0");
        rule!(GUEST_ASID, v.get(GUEST_ASID) < crate::svm::ASIDS, "an ASID that there is");
        let np = self.nested(nested::NP_ENABLE);
        rule!(NESTED_CONTROL, !np || m.has(Feature::Npt), "nested paging only where the processor has it");
        rule!(NESTED_CONTROL, !np || h.arch.cr0 & cr0::PG != 0, "nested paging only where the host has paging");
        rule!(NESTED_CONTROL, !self.nested(nested::SEV_ENABLE | nested::SEV_ES_ENABLE), "no SEV where the processor has none");
        rule!(N_CR3, !np || self.is_nested_root(h), "reserved bits are 0");
        rule!(G_PAT, !np || is_pat(v.get(G_PAT)), "memory types that there are");
        let stacks = m.has(Feature::SssCheck) && self.nested(nested::SSS_CHECK_ENABLE);
        rule!(NESTED_CONTROL, !stacks || np, "supervisor shadow stacks are checked only with nested paging");
        let cet = m.has(Feature::Shstk);
        rule!(S_CET, !cet || v.get(S_CET) & S_CET_RESERVED == 0, "reserved bits are 0");
        rule!(CR4, cr4 & cr4::CET == 0 || cr0 & cr0::WP != 0, "CET only where CR0.WP is 1");
        let vnmi = self.has(Feature::Vnmi) && self.vintr(vintr::V_NMI_ENABLE);
        rule!(VINTR, !vnmi || v.intercepts(code::NMI), "virtual NMIs only where NMIs are intercepted");
        let (avic, x2avic) = (self.has_avic(), self.has_x2avic());
        rule!(VINTR, !avic || np, "AVIC only with nested paging");
        rule!(AVIC_BACKING_PAGE, !avic || self.is_table(AVIC_BACKING_PAGE), "an address that there is");
        rule!(AVIC_LOGICAL_TABLE, !avic || x2avic || self.is_table(AVIC_LOGICAL_TABLE), "an address that there is");
        rule!(AVIC_PHYSICAL_TABLE, !avic || self.is_table(AVIC_PHYSICAL_TABLE), "an address that there is");
        self.check_injection()
    }

    /// The low 12 bits have other uses, or none.
    fn is_table(&self, f: Field) -> bool {
        self.is_physical(self.vmcb.get(f))
    }

    /// The low 12 bits of a map's address do not count.
    fn is_map(&self, f: Field) -> bool {
        let base = self.vmcb.get(f) & !0xfff;
        base.checked_add(MAP_REACH).is_some_and(|last| self.is_physical(last))
    }

    fn is_nested_root(&self, h: &P) -> bool {
        let root = self.vmcb.get(N_CR3);
        if h.arch.is_long() { self.is_physical(root & ADDRESS) && root >> 52 == 0 } else { root >> 32 == 0 }
    }

    /// "Event Injection".
    fn check_injection(&self) -> Check {
        let v = &self.vmcb;
        let event = v.get(EVENTINJ);
        if event & VALID == 0 {
            return Ok(());
        }
        let (vector, kind) = (event & 0xff, event >> 8 & 7);
        let is_long = v.get(EFER) & efer::LME != 0 && v.get(CR0) & cr0::PG != 0 && v.get(CS_ATTRIB) & 1 << 9 != 0;
        let rule = |holds, text| self.require(("EVENTINJ", EVENTINJ), holds, text);
        rule(matches!(kind, 0 | 2 | 3 | 4), "types 1, 5, 6 and 7 are reserved")?;
        rule(kind != 3 || vector <= 31, "an exception has a vector up to 31")?;
        rule(kind != 3 || vector != 2, "vector 2 is no exception")?;
        rule(kind != 3 || !is_long || !matches!(vector, 4 | 5), "#OF and #BR cannot occur in 64-bit mode")?;
        rule(event >> 12 & 0x7_ffff == 0, "bits 30 to 12 are 0")
    }
}
