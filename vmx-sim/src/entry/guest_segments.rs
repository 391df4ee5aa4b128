//! "Checks on Guest Segment Registers", "Checks on Guest Descriptor-Table Registers".

use x86::control::{cr0, rflags};
use x86::processor::segments::{CS, DS, ES, FS, GS, SS};
use x86::segment::Attributes;

use super::{Check, Vmx};
use crate::control::{entry, secondary};
use crate::field::*;

/// Access rights of all segments in virtual-8086 mode.
const RIGHTS_V8086: u64 = 0xf3;

impl Vmx {
    fn rights(&self, i: usize) -> Attributes {
        Attributes(self.vmcs[guest_segment(i)[3]] as u32)
    }

    fn is_usable(&self, i: usize) -> bool {
        !self.rights(i).is_unusable()
    }

    pub(super) fn check_guest_segments(&self) -> Check {
        let v = &self.vmcs;
        let v8086 = v[GUEST_RFLAGS] & rflags::VM != 0;
        self.check_selectors(v8086)?;
        self.check_bases(v8086)?;
        if v8086 {
            for i in ES..=GS {
                let [_, _, limit, rights] = guest_segment(i);
                self.require(limit, v[limit] == 0xffff, "FFFFH in virtual-8086 mode")?;
                self.require(rights, v[rights] == RIGHTS_V8086, "F3H in virtual-8086 mode")?;
            }
        } else {
            for i in [CS, SS, DS, ES, FS, GS] {
                self.check_rights(i)?;
            }
        }
        self.check_tr()?;
        self.check_ldtr()
    }

    fn check_selectors(&self, v8086: bool) -> Check {
        let v = &self.vmcs;
        self.require(GUEST_TR_SELECTOR, v[GUEST_TR_SELECTOR] & 4 == 0, "TI is 0")?;
        self.require(GUEST_LDTR_SELECTOR, !self.is_usable(LDTR) || v[GUEST_LDTR_SELECTOR] & 4 == 0, "TI is 0")?;
        let free = v8086 || v.has(secondary::UNRESTRICTED_GUEST);
        let same = v[GUEST_SS_SELECTOR] & 3 == v[GUEST_CS_SELECTOR] & 3;
        self.require(GUEST_SS_SELECTOR, free || same, "RPL is that of CS")
    }

    fn check_bases(&self, v8086: bool) -> Check {
        let v = &self.vmcs;
        if v8086 {
            for i in ES..=GS {
                let [selector, base, ..] = guest_segment(i);
                self.require(base, v[base] == v[selector] << 4, "16 times the selector in virtual-8086 mode")?;
            }
        }
        self.require(GUEST_TR_BASE, self.is_canonical(GUEST_TR_BASE), "canonical")?;
        self.require(GUEST_FS_BASE, self.is_canonical(GUEST_FS_BASE), "canonical")?;
        self.require(GUEST_GS_BASE, self.is_canonical(GUEST_GS_BASE), "canonical")?;
        self.require(GUEST_LDTR_BASE, !self.is_usable(LDTR) || self.is_canonical(GUEST_LDTR_BASE), "canonical")?;
        self.require(GUEST_CS_BASE, v[GUEST_CS_BASE] >> 32 == 0, "bits 63 to 32 are 0")?;
        for i in [SS, DS, ES] {
            let base = guest_segment(i)[1];
            self.require(base, !self.is_usable(i) || v[base] >> 32 == 0, "bits 63 to 32 are 0")?;
        }
        Ok(())
    }

    /// Access rights of CS, SS, DS, ES, FS and GS outside of virtual-8086 mode.
    fn check_rights(&self, i: usize) -> Check {
        let v = &self.vmcs;
        let [selector, _, limit, field] = guest_segment(i);
        let a = self.rights(i);
        if i != CS && a.is_unusable() {
            return Ok(());
        }
        let unrestricted = v.has(secondary::UNRESTRICTED_GUEST);
        let rule = |holds, text| self.require(field, holds, text);
        let kind = a.kind();
        match i {
            CS => rule(
                matches!(kind, 9 | 11 | 13 | 15) || unrestricted && kind == 3,
                "type 9, 11, 13 or 15 (accessed code), or 3 for an unrestricted guest",
            )?,
            SS => rule(matches!(kind, 3 | 7), "type 3 or 7 (accessed, writable data)")?,
            _ => {
                rule(kind & 1 != 0, "accessed")?;
                rule(kind & 8 == 0 || kind & 2 != 0, "code that can be read")?;
            }
        }
        rule(a.is_code_or_data(), "S is 1")?;
        let rpl = (v[selector] & 3) as u8;
        let ss = self.rights(SS);
        match i {
            CS => match kind {
                3 => rule(a.dpl() == 0, "DPL 0 with type 3")?,
                9 | 11 => rule(a.dpl() == ss.dpl(), "DPL is that of SS for code that does not conform")?,
                _ => rule(a.dpl() <= ss.dpl(), "DPL is not above that of SS for conforming code")?,
            },
            SS => {
                rule(unrestricted || a.dpl() == rpl, "DPL is RPL")?;
                let no_levels = self.rights(CS).kind() == 3 || v[GUEST_CR0] & cr0::PE == 0;
                rule(!no_levels || a.dpl() == 0, "DPL 0 in real mode, or if CS has type 3")?;
            }
            _ => rule(
                unrestricted || kind > 11 || a.dpl() >= rpl,
                "DPL is not below RPL for data and code that does not conform",
            )?,
        }
        rule(a.is_present(), "P is 1")?;
        rule(a.0 >> 8 & 15 == 0, "bits 11 to 8 are 0")?;
        if i == CS {
            let both = v.has(entry::IA32E_MODE_GUEST) && a.is_long() && a.is_big();
            rule(!both, "D/B is 0 for 64-bit code")?;
        }
        self.check_granularity(field, limit, a)?;
        rule(a.0 >> 17 == 0, "bits 31 to 17 are 0")
    }

    fn check_granularity(&self, field: Field, limit: Field, a: Attributes) -> Check {
        let limit = self.vmcs[limit];
        let by_pages = a.0 >> 15 & 1 != 0;
        self.require(
            field,
            limit & 0xfff == 0xfff || !by_pages,
            "G is 0 where bits 11 to 0 of the limit are not all 1",
        )?;
        self.require(field, limit >> 20 == 0 || by_pages, "G is 1 where bits 31 to 20 of the limit are not all 0")
    }

    fn check_tr(&self) -> Check {
        let a = self.rights(TR);
        let rule = |holds, text| self.require(GUEST_TR_ACCESS_RIGHTS, holds, text);
        let kind = a.kind();
        if self.vmcs.has(entry::IA32E_MODE_GUEST) {
            rule(kind == 11, "type 11 (busy 64-bit TSS)")?;
        } else {
            rule(matches!(kind, 3 | 11), "type 3 or 11 (busy TSS)")?;
        }
        rule(!a.is_code_or_data(), "S is 0")?;
        rule(a.is_present(), "P is 1")?;
        rule(a.0 >> 8 & 15 == 0, "bits 11 to 8 are 0")?;
        self.check_granularity(GUEST_TR_ACCESS_RIGHTS, GUEST_TR_LIMIT, a)?;
        rule(!a.is_unusable(), "usable")?;
        rule(a.0 >> 17 == 0, "bits 31 to 17 are 0")
    }

    fn check_ldtr(&self) -> Check {
        let a = self.rights(LDTR);
        if a.is_unusable() {
            return Ok(());
        }
        let rule = |holds, text| self.require(GUEST_LDTR_ACCESS_RIGHTS, holds, text);
        rule(a.kind() == 2, "type 2 (LDT)")?;
        rule(!a.is_code_or_data(), "S is 0")?;
        rule(a.is_present(), "P is 1")?;
        rule(a.0 >> 8 & 15 == 0, "bits 11 to 8 are 0")?;
        self.check_granularity(GUEST_LDTR_ACCESS_RIGHTS, GUEST_LDTR_LIMIT, a)?;
        rule(a.0 >> 17 == 0, "bits 31 to 17 are 0")
    }

    /// "Checks on Guest Descriptor-Table Registers".
    pub(super) fn check_descriptor_tables(&self) -> Check {
        for field in [GUEST_GDTR_BASE, GUEST_IDTR_BASE] {
            self.require(field, self.is_canonical(field), "canonical")?;
        }
        for field in [GUEST_GDTR_LIMIT, GUEST_IDTR_LIMIT] {
            self.require(field, self.vmcs[field] >> 16 == 0, "bits 31 to 16 are 0")?;
        }
        Ok(())
    }
}
