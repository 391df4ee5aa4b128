//! Where a processor keeps its extension, and which kinds there are.

use std::sync::Mutex;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Extension, Intercept, SecondAccess, SecondStage};
use crate::control::rflags;
use crate::model::{CpuModel, Feature};
use crate::processor::P;

/// What an extension says of itself, as long as it does not act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// [`Extension::is_guest`].
    pub is_guest: bool,
    /// [`Extension::has_second_stage`].
    pub has_second_stage: bool,
    /// [`Extension::address_space`].
    pub address_space: u64,
    /// [`Extension::linear_mask`].
    pub linear_mask: u64,
    /// [`Extension::walks_pdptes`].
    pub walks_pdptes: bool,
    /// [`Extension::watches_bus_locks`].
    pub watches_bus_locks: bool,
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            is_guest: false,
            has_second_stage: false,
            address_space: 0,
            linear_mask: u64::MAX,
            walks_pdptes: false,
            watches_bus_locks: false,
        }
    }
}

/// Where a processor keeps its extension.
#[derive(Default)]
pub struct Slot {
    extension: Option<Box<dyn Extension>>,
    /// Of one that is not there, or acts: nothing.
    facts: Facts,
    /// It acts, and its guest's translations go through it.
    is_missed: bool,
}

impl Slot {
    /// With this extension.
    pub fn with(extension: Box<dyn Extension>) -> Self {
        Slot { facts: extension.facts(), extension: Some(extension), is_missed: false }
    }

    /// The extension, if there is one, and it is not acting just now.
    pub fn get(&self) -> Option<&dyn Extension> {
        self.extension.as_deref()
    }

    /// A guest is at work.
    #[inline(always)]
    pub fn is_guest(&self) -> bool {
        self.facts.is_guest
    }

    /// A second stage translates what paging gives.
    #[inline(always)]
    pub(crate) fn has_second_stage(&self) -> bool {
        self.facts.has_second_stage
    }

    /// There are no PDPTE registers.
    #[inline(always)]
    pub(crate) fn walks_pdptes(&self) -> bool {
        self.facts.walks_pdptes
    }

    /// [`Intercept::BusLock`] is to be asked.
    #[inline(always)]
    pub(crate) fn watches_bus_locks(&self) -> bool {
        self.facts.watches_bus_locks
    }

    /// What translations are tagged with.
    #[inline(always)]
    pub(crate) fn address_space(&self) -> u64 {
        self.facts.address_space
    }

    /// What it says of itself.
    pub(crate) fn facts(&self) -> Facts {
        self.facts
    }

    /// The extension in a guest.
    #[inline(always)]
    fn in_guest(&self) -> Option<&dyn Extension> {
        if self.facts.is_guest { self.get() } else { None }
    }

    /// The extension holds an event from outside back.
    pub(crate) fn holds(&self, what: Intercept) -> bool {
        self.get().is_some_and(|e| e.holds(&what))
    }

    /// Interrupts are the extension's concern though they are masked.
    pub(crate) fn takes_masked_interrupts(&self) -> bool {
        self.in_guest().is_some_and(Extension::takes_masked_interrupts)
    }

    /// Interrupts from outside are masked.
    pub(crate) fn masks_interrupts(&self, rflags: u64) -> bool {
        self.in_guest().and_then(Extension::masks_interrupts).unwrap_or(rflags & rflags::IF == 0)
    }

    /// An event from outside concerns the extension in an interrupt shadow.
    pub(crate) fn takes_in_shadow(&self, what: Intercept) -> bool {
        self.in_guest().is_some_and(|e| e.takes_in_shadow(&what))
    }

    /// Traps of breakpoint registers are nothing.
    pub(crate) fn discards_breakpoints(&self) -> bool {
        self.get().is_some_and(Extension::discards_breakpoints)
    }

    /// INIT is to be #SX.
    pub(crate) fn redirects_init(&self) -> bool {
        self.get().is_some_and(Extension::redirects_init)
    }

    /// The guest has no such instruction.
    #[inline]
    pub(crate) fn disables(&self, feature: Feature) -> bool {
        self.in_guest().is_some_and(|e| e.disables(feature))
    }

    /// When it wants to be asked next, as a count of the machine's clock.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        self.get().and_then(Extension::wakes_at)
    }

    /// It is asked behind every instruction.
    pub(crate) fn steps(&self) -> bool {
        self.in_guest().is_some_and(Extension::steps)
    }

    /// It is asked behind the present instruction or delivery.
    pub(crate) fn has_work(&self) -> bool {
        self.in_guest().is_some_and(Extension::has_work)
    }

    /// Translations cannot be made now.
    pub(crate) fn is_missed(&self) -> bool {
        self.is_missed
    }
}

impl Slot {
    /// Takes the extension out, for it to act.
    #[inline(always)]
    fn take(&mut self) -> Option<(Box<dyn Extension>, Facts)> {
        let extension = self.extension.take()?;
        let facts = std::mem::take(&mut self.facts);
        self.is_missed = facts.is_guest && facts.has_second_stage;
        Some((extension, facts))
    }

    #[inline(always)]
    fn put(&mut self, extension: Box<dyn Extension>, facts: Facts) {
        self.extension = Some(extension);
        self.facts = facts;
        self.is_missed = false;
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        self.get().map_or_else(Slot::default, |e| Slot::with(e.duplicate()))
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        let state = |s: &Slot| s.get().map(|e| (e.name(), e.save()));
        state(self) == state(other)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.get().map(Extension::name)).finish()
    }
}

/// Makes an extension from what [`Extension::save`] gave.
pub type Restore = fn(&[u8]) -> Result<Box<dyn Extension>, String>;

/// A kind of extension that there is.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name, which snapshots have.
    pub name: &'static str,
    /// The feature that models with it have, if it is for models.
    pub feature: Option<Feature>,
    /// Makes one for a model's processor after RESET.
    pub make: fn(&CpuModel) -> Box<dyn Extension>,
    /// Makes one from what [`Extension::save`] gave.
    pub restore: Restore,
}

static KINDS: Mutex<Vec<Kind>> = Mutex::new(Vec::new());

/// Makes a kind of extension known, to models that have it and to snapshots that name it.
pub fn register(kind: Kind) {
    let mut kinds = KINDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    kinds.retain(|k| k.name != kind.name);
    kinds.push(kind);
}

fn kind(which: impl Fn(&Kind) -> bool) -> Option<Kind> {
    KINDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().copied().find(|k| which(k))
}

impl Slot {
    /// With the extension that a model has, as far as it is known.
    pub fn of_model(model: &CpuModel) -> Self {
        let known = kind(|k| k.feature.is_some_and(|f| model.has(f)));
        known.map_or_else(Slot::default, |k| Slot::with((k.make)(model)))
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.get().map(|e| (e.name(), e.save())).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let Some((name, bytes)) = Option::<(String, Vec<u8>)>::deserialize(d)? else { return Ok(Slot::default()) };
        let known = kind(|k| k.name == name);
        let known = known.ok_or_else(|| D::Error::custom(format!("the extension {name} is not known here")))?;
        (known.restore)(&bytes).map(Slot::with).map_err(D::Error::custom)
    }
}

/// Lets the extension act, if there is one, and nobody asks it meanwhile.
pub(crate) fn act<T>(h: &mut P, f: impl FnOnce(&mut dyn Extension, &mut P) -> T) -> Option<T> {
    let (mut extension, _) = h.arch.extension.take()?;
    let result = f(&mut *extension, h);
    let facts = extension.facts();
    h.arch.extension.put(extension, facts);
    Some(result)
}

/// Asks the second stage, which changes nothing that the processor knows of.
#[inline]
pub(crate) fn second_stage(h: &mut P, access: SecondAccess) -> Option<Result<SecondStage, u64>> {
    let (mut extension, facts) = h.arch.extension.take()?;
    let result = extension.second_stage(h, access);
    h.arch.extension.put(extension, facts);
    Some(result)
}
