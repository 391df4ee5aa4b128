//! A virtual-machine control structure (SDM vol. 3C, chapter "Virtual Machine Control Structures").
//!
//! The region's layout is ours, revision [`REVISION`](crate::capability::REVISION): the revision identifier with the shadow-VMCS indicator, the
//! VMX-abort indicator, the launch state, the guest's inferred level, 4 bytes each; then all fields by their slots, 8 bytes each. The current VMCS is held in the
//! processor, and goes back to its region when another becomes current, at VMCLEAR and at VMXOFF.

use std::ops::{Index, IndexMut};

use emu_core::event::LEVELS;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x86::processor::P;

use crate::control::{Control, exit, primary, secondary};
use crate::field::{Field, PRIMARY_CONTROLS, SLOTS, Type};

/// Where the VMX-abort indicator is in a region.
const ABORT_INDICATOR: u64 = 4;
/// Where the launch state is.
const LAUNCH_STATE: u64 = 8;
/// Where the guest's level is.
const LEVEL: u64 = 12;
/// Where the fields begin.
const FIELDS: u64 = 16;

/// In a region's first word: it is a shadow VMCS.
pub const SHADOW: u32 = 1 << 31;

/// Its fields, and whether it has been launched.
#[derive(Clone)]
pub struct Vmcs {
    fields: Box<[u64; SLOTS]>,
    /// The launch state is "launched".
    pub is_launched: bool,
    /// It is a shadow VMCS.
    pub is_shadow: bool,
    /// The level of its guest, as far as that can be told (`level.rs`); 0 if it has never been entered.
    pub level: u8,
    /// A VM entry from IA-32e mode, or from outside of it, has found its controls and host state in order, and none of these has changed.
    pub(crate) checked_from_ia32e: Option<bool>,
}

impl PartialEq for Vmcs {
    fn eq(&self, other: &Vmcs) -> bool {
        let state = |v: &Vmcs| (v.is_launched, v.is_shadow, v.level);
        state(self) == state(other) && self.fields == other.fields
    }
}

impl Default for Vmcs {
    fn default() -> Self {
        Vmcs { fields: Box::new([0; SLOTS]), is_launched: false, is_shadow: false, level: 0, checked_from_ia32e: None }
    }
}

impl Vmcs {
    /// Whether a control is 1, and in force: those of a further field are 0 while nothing activates it.
    #[inline(always)]
    pub fn has(&self, c: Control) -> bool {
        let is_active = match c.field {
            crate::field::SECONDARY_CONTROLS => {
                self[PRIMARY_CONTROLS] >> primary::ACTIVATE_SECONDARY_CONTROLS.bit & 1 != 0
            }
            crate::field::TERTIARY_CONTROLS => {
                self[PRIMARY_CONTROLS] >> primary::ACTIVATE_TERTIARY_CONTROLS.bit & 1 != 0
            }
            crate::field::SECONDARY_EXIT_CONTROLS => {
                self[crate::field::EXIT_CONTROLS] >> exit::ACTIVATE_SECONDARY_CONTROLS.bit & 1 != 0
            }
            _ => true,
        };
        is_active && self[c.field] >> c.bit & 1 != 0
    }

    /// EPT is in use.
    #[inline(always)]
    pub fn uses_ept(&self) -> bool {
        self.has(secondary::ENABLE_EPT)
    }

    /// What a region holds.
    pub fn load(h: &mut P, region: u64) -> Vmcs {
        let mut word = |offset: u64| h.read_physical(region + offset, 8).unwrap_or(u64::MAX);
        let mut v = Vmcs {
            is_shadow: word(0) as u32 & SHADOW != 0,
            is_launched: word(LAUNCH_STATE) & 1 != 0,
            level: (word(LEVEL) as u8).min(LEVELS as u8 - 1),
            ..Vmcs::default()
        };
        for (i, field) in v.fields.iter_mut().enumerate() {
            *field = word(FIELDS + 8 * i as u64);
        }
        v.cut();
        v
    }

    /// Fields are no wider than they are, whatever their region held.
    fn cut(&mut self) {
        for f in Field::all() {
            self[f] = f.cut(self[f]);
        }
    }

    /// Writes them back.
    pub fn store(&self, h: &mut P, region: u64) {
        let mut put = |offset: u64, value: u64| {
            let _ = h.write_physical(region + offset, 8, value);
        };
        put(LAUNCH_STATE, u64::from(self.is_launched) | u64::from(self.level) << (8 * (LEVEL - LAUNCH_STATE)));
        for (i, field) in self.fields.iter().enumerate() {
            put(FIELDS + 8 * i as u64, *field);
        }
    }

    /// The first word of a region: revision, and whether it is a shadow VMCS.
    pub fn revision(h: &mut P, region: u64) -> u32 {
        h.read_physical(region, 4).unwrap_or(u64::MAX) as u32
    }

    /// VMCLEAR of a region that is not in the processor: the launch state is "clear".
    pub fn clear(h: &mut P, region: u64) {
        let _ = h.write_physical(region + LAUNCH_STATE, 4, 0);
    }

    /// A field of a region that is not in the processor.
    pub fn read_in(h: &mut P, region: u64, f: Field) -> u64 {
        f.cut(h.read_physical(region + FIELDS + 8 * f.slot() as u64, 8).unwrap_or(u64::MAX))
    }

    /// Writes one.
    pub fn write_in(h: &mut P, region: u64, f: Field, value: u64) {
        let _ = h.write_physical(region + FIELDS + 8 * f.slot() as u64, 8, value);
    }

    /// Writes the VMX-abort indicator of a region ("VMX Aborts").
    pub fn write_abort_indicator(h: &mut P, region: u64, why: u32) {
        let _ = h.write_physical(region + ABORT_INDICATOR, 4, why.into());
    }
}

impl Index<Field> for Vmcs {
    type Output = u64;

    #[inline(always)]
    fn index(&self, f: Field) -> &u64 {
        &self.fields[f.slot()]
    }
}

impl IndexMut<Field> for Vmcs {
    #[inline(always)]
    fn index_mut(&mut self, f: Field) -> &mut u64 {
        if matches!(f.kind(), Type::Control | Type::Host) {
            self.checked_from_ia32e = None;
        }
        &mut self.fields[f.slot()]
    }
}

impl Serialize for Vmcs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.fields.as_slice(), self.is_launched, self.is_shadow, self.level).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Vmcs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let (fields, is_launched, is_shadow, level) = <(Vec<u64>, bool, bool, u8)>::deserialize(d)?;
        let fields = fields.into_boxed_slice().try_into().map_err(|_| D::Error::custom("a VMCS has other fields"))?;
        Ok(Vmcs { fields, is_launched, is_shadow, level, ..Vmcs::default() })
    }
}

impl std::fmt::Debug for Vmcs {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut map = f.debug_map();
        for field in Field::all().filter(|field| self[*field] != 0) {
            map.entry(&field, &format_args!("{:#x}", self[field]));
        }
        map.finish()
    }
}
