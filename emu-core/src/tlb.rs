//! The TLB: translations tagged by an opaque address-space id.
//!
//! An instruction set interns whatever its architecture tags translations with (ASID, VMID, mode, privilege ...) as a
//! [`SpaceKey`] and gets a [`Space`]. Switching spaces changes a number and drops nothing. Dropping a whole space gives
//! its key a new number, so it costs the same for one entry and for sixteen thousand.
//!
//! What a guest could see is [`Tlb`]'s entries, a function of guest accesses alone: they are in snapshots and in the state
//! hash. The array that micro-ops probe ([`Fast`]) is derived from them.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::ram::{PAGE_MASK, Ram};

/// Entries for loads and stores; direct-mapped.
pub(crate) const DATA_ENTRIES: usize = 16384;
/// Sets of four entries for instruction fetch; replaced first in, first out.
const FETCH_SETS: usize = 256;
const FETCH_WAYS: usize = 4;
/// Ids are 12 bits, beside a page number in a tag. Id 0 is never used, so that tag 0 never hits.
const SPACES: u16 = 4096;

/// What the architecture tags a translation with. Opaque here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpaceKey(pub u64, pub u64);

/// An interned [`SpaceKey`]: valid until the TLB's next invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space(u16);

impl Space {
    /// A space that holds nothing.
    pub(crate) const NONE: Space = Space(0);

    #[inline]
    pub(crate) fn id(self) -> u64 {
        u64::from(self.0)
    }

    /// Spreads spaces over the table, so that two kernels at the same addresses do not evict each other.
    /// In units of the byte offset of a [`Fast`] entry.
    #[inline]
    pub(crate) fn mix(self) -> u64 {
        (u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) << 5
    }
}

/// A translation of one page, as the architecture's walk found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Physical address of the 4 KiB page.
    pub pa: u64,
    /// Guest-physical address of the 4 KiB page where there are two stages, else equal to `pa`.
    pub gpa: u64,
    /// log2 of the size in bytes of the leaf that it came from (the smaller of two stages): 12 and more.
    pub size_log2: u8,
    /// log2 of the size in bytes of the second stage's leaf; 0 where there is one stage.
    pub guest_size_log2: u8,
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed, and whatever dirty bits there are have been set.
    pub write: bool,
    /// May be kept. A mapping whose rights differ within the page (fine-grained PMP) may not.
    pub keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    tag: u64,
    map: Mapping,
}

const NONE: Entry = Entry {
    tag: 0,
    map: Mapping { pa: 0, gpa: 0, size_log2: 12, guest_size_log2: 0, read: false, write: false, keep: false },
};

/// What micro-ops probe. A tag is the page's virtual address with the space's id in the low 12 bits.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Fast {
    pub read: u64,
    pub write: u64,
    /// Host address less virtual address.
    pub addend: u64,
}

/// Where a page belongs, before a space's [`Space::mix`], in units of the byte offset of a [`Fast`] entry. What is above an index's bits is
/// folded into them: two buffers at any one distance of a power of two do not evict each other. But not into the lowest: pages that follow one
/// another never share a place, or an access across them would be let through by the second one's tag.
#[inline(always)]
pub(crate) fn fold(va: u64) -> u64 {
    const INDEX_BITS: u32 = DATA_ENTRIES.trailing_zeros();
    const LOWEST: u64 = 1 << 5;
    va >> 7 ^ va >> (7 + INDEX_BITS) & !LOWEST
}

const SLOW: Fast = Fast { read: 0, write: 0, addend: 0 };

/// One vCPU's translations.
pub struct Tlb {
    pub(crate) fast: Box<[Fast]>,
    data: Box<[Entry]>,
    fetch: Box<[Entry]>,
    turn: Box<[u8]>,
    ids: FxHashMap<SpaceKey, u16>,
    keys: Vec<SpaceKey>,
    /// What was interned lately; id 0 is none.
    recent: [(SpaceKey, u16); 16],
    /// Leaves larger than a page that entries came from: id, log2 of size, base.
    large: FxHashSet<(u16, u8, u64)>,
    /// The sizes that occur in `large`, as a set of log2: a fence looks for no others.
    sizes: u64,
    /// Where the entries may be that went through a leaf of the second stage.
    guest_leaves: GuestLeaves,
    /// Tags of fetch entries that were dropped or replaced: what was derived from them is void. The engine takes them.
    pub(crate) dropped_fetches: Vec<u64>,
    /// Changes whenever ids begin anew: what was derived from any fetch entry is void then.
    pub(crate) fetch_epoch: u64,
    /// Changes whenever an interned [`Space`] may have become void.
    pub(crate) space_epoch: u64,
}

/// Slots (data entries, then fetch entries) by the second-stage leaf that they were filled through: log2 of its size, and
/// guest-physical address in units of that. A slot may have been filled anew since.
#[derive(Default)]
struct GuestLeaves {
    slots: FxHashMap<(u8, u64), Vec<u32>>,
    /// The sizes that occur, as a set of log2.
    sizes: u64,
    /// Slots noted, those that are out of date included.
    noted: usize,
}

impl GuestLeaves {
    fn note(&mut self, slot: usize, map: &Mapping) {
        let size = map.guest_size_log2;
        self.sizes |= 1 << size;
        let slots = self.slots.entry((size, map.gpa >> size)).or_default();
        if slots.last() != Some(&(slot as u32)) {
            slots.push(slot as u32);
            self.noted += 1;
        }
    }

    /// Forgets and returns what is noted of the leaves that cover a guest-physical address.
    fn take(&mut self, gpa: u64) -> Vec<u32> {
        let mut taken = Vec::new();
        for size in (0..64u8).filter(|n| self.sizes >> n & 1 != 0) {
            taken.append(&mut self.slots.remove(&(size, gpa >> size)).unwrap_or_default());
        }
        self.noted -= taken.len();
        taken
    }
}

/// A TLB's guest-visible contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlbState {
    keys: Vec<(SpaceKey, u16)>,
    next: u16,
    data: Vec<(u32, u64, Mapping)>,
    fetch: Vec<(u32, u64, Mapping)>,
    turn: Vec<(u32, u8)>,
    large: Vec<(u16, u8, u64)>,
}

impl Default for Tlb {
    fn default() -> Self {
        Tlb {
            fast: vec![SLOW; DATA_ENTRIES].into(),
            data: vec![NONE; DATA_ENTRIES].into(),
            fetch: vec![NONE; FETCH_SETS * FETCH_WAYS].into(),
            turn: vec![0; FETCH_SETS].into(),
            ids: FxHashMap::default(),
            keys: vec![SpaceKey::default()],
            recent: [(SpaceKey(0, 0), 0); 16],
            large: FxHashSet::default(),
            sizes: 0,
            guest_leaves: GuestLeaves::default(),
            dropped_fetches: Vec::new(),
            fetch_epoch: 1,
            space_epoch: 1,
        }
    }
}

impl Tlb {
    /// The space for a key. Constant until an invalidation drops it.
    #[inline]
    pub fn intern(&mut self, key: SpaceKey) -> Space {
        let mix = (key.0 ^ key.1.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = (mix >> 60) as usize;
        let (recent, id) = self.recent[slot];
        if recent == key && id != 0 {
            return Space(id);
        }
        let space = self.intern_slowly(key);
        self.recent[slot] = (key, space.0);
        space
    }

    fn intern_slowly(&mut self, key: SpaceKey) -> Space {
        if let Some(id) = self.ids.get(&key) {
            return Space(*id);
        }
        if self.keys.len() == usize::from(SPACES) {
            self.clear();
        }
        let id = self.keys.len() as u16;
        self.keys.push(key);
        self.ids.insert(key, id);
        Space(id)
    }

    /// Whether a space interned just now has become void by another interning.
    pub(crate) fn numbers_ran_out(&self, space: Space) -> bool {
        usize::from(space.0) >= self.keys.len()
    }

    /// Forgets everything, numbering included.
    pub fn clear(&mut self) {
        self.fast.fill(SLOW);
        self.data.fill(NONE);
        self.fetch.fill(NONE);
        self.turn.fill(0);
        self.ids.clear();
        self.recent = [(SpaceKey(0, 0), 0); 16];
        self.keys.truncate(1);
        self.large.clear();
        self.sizes = 0;
        self.guest_leaves = GuestLeaves::default();
        self.dropped_fetches.clear();
        self.fetch_epoch += 1;
        self.space_epoch += 1;
    }

    fn slot(va: u64, space: Space) -> usize {
        (((fold(va) ^ space.mix()) >> 5) as usize) & (DATA_ENTRIES - 1)
    }

    fn set(va: u64, space: Space) -> usize {
        ((va >> 12 ^ space.mix() >> 5) as usize & (FETCH_SETS - 1)) * FETCH_WAYS
    }

    fn tag(va: u64, space: Space) -> u64 {
        va & !PAGE_MASK | space.id()
    }

    /// The data translation of `va`'s page, if it is held.
    #[inline]
    pub fn data(&self, va: u64, space: Space) -> Option<&Mapping> {
        let e = &self.data[Self::slot(va, space)];
        (e.tag == Self::tag(va, space)).then_some(&e.map)
    }

    /// What micro-ops would probe.
    #[inline]
    pub(crate) fn fast_entry(&self, va: u64, space: Space) -> &Fast {
        &self.fast[Self::slot(va, space)]
    }

    /// The fetch translation of `va`'s page, if it is held.
    #[inline]
    pub fn fetch(&self, va: u64, space: Space) -> Option<&Mapping> {
        let tag = Self::tag(va, space);
        let set = Self::set(va, space);
        self.fetch[set..set + FETCH_WAYS].iter().find(|e| e.tag == tag).map(|e| &e.map)
    }

    /// Holds a data translation.
    pub fn fill_data(&mut self, va: u64, space: Space, map: Mapping) {
        let slot = Self::slot(va, space);
        self.fast[slot] = SLOW;
        self.data[slot] = Entry { tag: Self::tag(va, space), map };
        self.note_leaves(slot, va, space, &map);
    }

    /// Holds a fetch translation.
    pub fn fill_fetch(&mut self, va: u64, space: Space, map: Mapping) {
        let set = Self::set(va, space);
        let tag = Self::tag(va, space);
        let free = (set..set + FETCH_WAYS).find(|i| self.fetch[*i].tag == tag || !self.live(self.fetch[*i].tag));
        let slot = free.unwrap_or_else(|| {
            let turn = &mut self.turn[set / FETCH_WAYS];
            *turn = (*turn + 1) % FETCH_WAYS as u8;
            set + usize::from(*turn)
        });
        if self.fetch[slot].tag != tag && self.live(self.fetch[slot].tag) {
            self.dropped_fetches.push(self.fetch[slot].tag);
        }
        self.fetch[slot] = Entry { tag, map };
        self.note_leaves(DATA_ENTRIES + slot, va, space, &map);
    }

    fn note_leaves(&mut self, slot: usize, va: u64, space: Space, map: &Mapping) {
        if map.guest_size_log2 != 0 {
            self.guest_leaves.note(slot, map);
            if self.guest_leaves.noted > 4 * (DATA_ENTRIES + FETCH_SETS * FETCH_WAYS) {
                self.note_guest_leaves();
            }
        }
        if map.size_log2 > 12 {
            self.sizes |= 1 << map.size_log2;
            self.large.insert((space.0, map.size_log2, va >> map.size_log2));
        }
    }

    /// Notes the second-stage leaves of all entries.
    fn note_guest_leaves(&mut self) {
        let mut leaves = GuestLeaves::default();
        let entries = self.data.iter().chain(&self.fetch).enumerate();
        for (slot, e) in entries.filter(|(_, e)| e.map.guest_size_log2 != 0 && self.live(e.tag)) {
            leaves.note(slot, &e.map);
        }
        self.guest_leaves = leaves;
    }

    /// Whether a tag belongs to a space that has not been dropped.
    fn live(&self, tag: u64) -> bool {
        let id = (tag & PAGE_MASK) as usize;
        id != 0 && self.keys.get(id).is_some_and(|k| self.ids.get(k) == Some(&(id as u16)))
    }

    /// Opens the fast path to a page that [`Tlb::data`] holds, as far as its rights and the page allow. Called after an
    /// access that took the slow path.
    pub(crate) fn open(&mut self, va: u64, space: Space, is_store: bool, ram: &mut Ram) {
        let slot = Self::slot(va, space);
        let Entry { tag, map } = self.data[slot];
        if tag != Self::tag(va, space) || !map.keep {
            return;
        }
        let Some(host) = ram.host_page(map.pa) else { return };
        let fast = &mut self.fast[slot];
        fast.addend = (host as u64).wrapping_sub(va & !PAGE_MASK);
        if map.read {
            fast.read = tag;
        }
        if is_store && map.write && ram.open_for_stores(map.pa) {
            fast.write = tag;
        }
    }

    /// Stores to the page at `pa` must ask again: it holds translated code now.
    pub(crate) fn close_stores_to(&mut self, pa: u64) {
        for (fast, entry) in self.fast.iter_mut().zip(&self.data) {
            if fast.write != 0 && entry.map.pa == pa {
                fast.write = 0;
            }
        }
    }

    /// All stores must ask again: what is written from now on counts as dirty anew.
    pub fn forget_writes(&mut self) {
        self.fast.iter_mut().for_each(|f| f.write = 0);
    }

    /// All accesses must ask again (watchpoints have changed).
    pub fn close_all(&mut self) {
        self.fast.fill(SLOW);
    }

    /// Drops every space whose key `which` accepts.
    pub fn drop_spaces(&mut self, mut which: impl FnMut(SpaceKey) -> bool) {
        let before = self.ids.len();
        self.ids.retain(|key, _| !which(*key));
        if self.ids.len() != before {
            // What was derived from these spaces bears their numbers, which nobody gets again before all begin anew.
            self.recent = [(SpaceKey(0, 0), 0); 16];
            self.space_epoch += 1;
        }
    }

    /// Drops the translations of the page at `va`, and of every page of a larger leaf that covers it, in every space whose
    /// key `which` accepts.
    pub fn drop_page(&mut self, va: u64, mut which: impl FnMut(SpaceKey) -> bool) {
        // Few spaces are alive at a time. The order of this walk does not matter: each is handled by itself.
        let spaces: Vec<Space> = self.ids.iter().filter(|(k, _)| which(**k)).map(|(_, id)| Space(*id)).collect();
        for space in spaces {
            self.drop_one(va, space);
            let sizes = self.sizes;
            for size_log2 in (13..64u8).filter(|n| sizes >> n & 1 != 0) {
                if self.large.remove(&(space.0, size_log2, va >> size_log2)) {
                    self.drop_leaf(va >> size_log2 << size_log2, size_log2, space);
                }
            }
        }
    }

    /// Drops the translations that went through the second-stage leaf of guest-physical address `gpa`, in every space whose
    /// key `which` accepts.
    pub fn drop_guest_page(&mut self, gpa: u64, mut which: impl FnMut(SpaceKey) -> bool) {
        for slot in self.guest_leaves.take(gpa) {
            let slot = slot as usize;
            let Entry { tag, map } = *self.data.get(slot).unwrap_or_else(|| &self.fetch[slot - DATA_ENTRIES]);
            let size = map.guest_size_log2;
            if size == 0 || (map.gpa ^ gpa) >> size != 0 || !self.live(tag) {
                continue;
            }
            if !which(self.keys[(tag & PAGE_MASK) as usize]) {
                self.guest_leaves.note(slot, &map);
            } else if slot < DATA_ENTRIES {
                self.data[slot] = NONE;
                self.fast[slot] = SLOW;
            } else {
                self.fetch[slot - DATA_ENTRIES] = NONE;
                self.dropped_fetches.push(tag);
            }
        }
    }

    fn drop_one(&mut self, va: u64, space: Space) {
        let tag = Self::tag(va, space);
        let slot = Self::slot(va, space);
        if self.data[slot].tag == tag {
            self.data[slot] = NONE;
            self.fast[slot] = SLOW;
        }
        let set = Self::set(va, space);
        for e in &mut self.fetch[set..set + FETCH_WAYS] {
            if e.tag == tag {
                *e = NONE;
                self.dropped_fetches.push(tag);
            }
        }
    }

    fn drop_leaf(&mut self, base: u64, size_log2: u8, space: Space) {
        /// Of leaves of so many pages and more, entries are looked for in all of the array.
        const MANY: u64 = DATA_ENTRIES as u64 / 8;
        let covers = |e: &Entry| e.tag & PAGE_MASK == space.id() && (e.tag ^ base) >> size_log2 == 0;
        let pages = 1 << (size_log2 - 12);
        let (few, all) = if pages < MANY { (pages, 0) } else { (0, DATA_ENTRIES) };
        let slots = (0..few).map(|page| Self::slot(base.wrapping_add(page << 12), space)).chain(0..all);
        for slot in slots {
            if covers(&self.data[slot]) {
                self.data[slot] = NONE;
                self.fast[slot] = SLOW;
            }
        }
        for e in self.fetch.iter_mut().filter(|e| covers(e)) {
            self.dropped_fetches.push(e.tag);
            *e = NONE;
        }
    }

    /// The guest-visible contents.
    pub fn save(&self) -> TlbState {
        let held = |v: &[Entry]| -> Vec<_> {
            let live = v.iter().enumerate().filter(|(_, e)| self.live(e.tag));
            live.map(|(i, e)| (i as u32, e.tag, e.map)).collect()
        };
        let mut keys: Vec<_> = self.ids.iter().map(|(k, id)| (*k, *id)).collect();
        keys.sort_by_key(|(_, id)| *id);
        let mut large: Vec<_> = self.large.iter().filter(|(id, ..)| self.live(u64::from(*id))).copied().collect();
        large.sort_unstable();
        let turn = self.turn.iter().enumerate().filter(|(_, t)| **t != 0).map(|(i, t)| (i as u32, *t)).collect();
        TlbState { keys, next: self.keys.len() as u16, data: held(&self.data), fetch: held(&self.fetch), turn, large }
    }

    /// Takes contents that [`Tlb::save`] gave. An error says what is wrong with them; the TLB is empty then.
    pub fn restore(&mut self, state: &TlbState) -> Result<(), String> {
        self.clear();
        if state.next == 0 || state.next > SPACES || state.keys.iter().any(|(_, id)| *id == 0 || *id >= state.next) {
            return Err("TLB: a space's number is out of range".into());
        }
        self.keys.resize(usize::from(state.next), SpaceKey::default());
        for (key, id) in &state.keys {
            self.keys[usize::from(*id)] = *key;
            self.ids.insert(*key, *id);
        }
        for (i, tag, map) in &state.data {
            *self.data.get_mut(*i as usize).ok_or("TLB: an entry's number is out of range")? =
                Entry { tag: *tag, map: *map };
        }
        for (i, tag, map) in &state.fetch {
            *self.fetch.get_mut(*i as usize).ok_or("TLB: an entry's number is out of range")? =
                Entry { tag: *tag, map: *map };
        }
        for (i, turn) in &state.turn {
            *self.turn.get_mut(*i as usize).ok_or("TLB: a set's number is out of range")? = turn % FETCH_WAYS as u8;
        }
        self.sizes = state.large.iter().fold(0, |sizes, (_, n, _)| sizes | 1 << (n & 63));
        self.large = state.large.iter().copied().collect();
        self.note_guest_leaves();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn map(pa: u64, size_log2: u8) -> Mapping {
        Mapping { pa, gpa: pa, size_log2, guest_size_log2: 0, read: true, write: true, keep: true }
    }

    /// An access across pages probes the first one's place for the second one's tag: that must not be there.
    #[test]
    fn pages_that_follow_one_another_never_share_a_place() {
        let place = |va: u64| (fold(va) >> 5) as usize & (DATA_ENTRIES - 1);
        for boundary in (12..=64).flat_map(|bit| (1..64u64).map(move |n| (u128::from(n) << bit) as u64)) {
            assert_ne!(place(boundary.wrapping_sub(1)), place(boundary), "{boundary:#x}");
        }
    }

    #[test]
    fn a_dropped_page_takes_its_large_leaf_along() {
        let mut tlb = Tlb::default();
        let s = tlb.intern(SpaceKey(1, 0));
        let other = tlb.intern(SpaceKey(2, 0));
        for i in 0..4u64 {
            tlb.fill_data(0x20_0000 + i * 0x1000, s, map(0x8020_0000 + i * 0x1000, 21));
            tlb.fill_fetch(0x20_0000 + i * 0x1000, s, map(0x8020_0000 + i * 0x1000, 21));
            tlb.fill_data(0x20_0000 + i * 0x1000, other, map(0x8020_0000 + i * 0x1000, 12));
        }
        tlb.drop_page(0x20_5000, |k| k.0 == 1);
        for i in 0..4u64 {
            assert!(tlb.data(0x20_0000 + i * 0x1000, s).is_none() && tlb.fetch(0x20_0000 + i * 0x1000, s).is_none());
            assert!(tlb.data(0x20_0000 + i * 0x1000, other).is_some());
        }
    }

    #[test]
    fn the_numbers_run_out_and_start_again() {
        let mut tlb = Tlb::default();
        for i in 0..10_000u64 {
            let s = tlb.intern(SpaceKey(i, 0));
            assert!(tlb.data(0x1000, s).is_none(), "a fresh space holds nothing");
            tlb.fill_data(0x1000, s, map(i << 12, 12));
            assert_eq!(tlb.data(0x1000, s).unwrap().pa, i << 12);
        }
    }

    proptest! {
        /// A TLB may forget, but never say what a model of unlimited size would not.
        #[test]
        fn never_says_what_was_not_filled(ops in prop::collection::vec((0u8..6, 1u64..40, 0u64..4, any::<bool>()), 1..300)) {
            let mut tlb = Tlb::default();
            let mut model: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            for (n, (op, page, key, flag)) in ops.into_iter().enumerate() {
                let va = if flag { page << 12 } else { page << 26 };
                let space = tlb.intern(SpaceKey(key, 7));
                match op {
                    0..=2 => {
                        let pa = (n as u64) << 12;
                        if flag { tlb.fill_data(va, space, map(pa, 12)) } else { tlb.fill_fetch(va, space, map(pa, 12)) }
                        model.insert((key, va), pa);
                        let held = if flag { tlb.data(va, space) } else { tlb.fetch(va, space) };
                        prop_assert!(held.is_some());
                    }
                    3 => {
                        tlb.drop_page(va, |k| k.0 == key);
                        model.remove(&(key, va));
                    }
                    4 => {
                        tlb.drop_spaces(|k| k.0 == key);
                        model.retain(|(k, _), _| *k != key);
                    }
                    _ => {
                        let state = tlb.save();
                        tlb.restore(&state).unwrap();
                        prop_assert_eq!(tlb.save(), state);
                    }
                }
                let space = tlb.intern(SpaceKey(key, 7));
                for found in [tlb.data(va, space), tlb.fetch(va, space)].into_iter().flatten() {
                    prop_assert_eq!(Some(&found.pa), model.get(&(key, va)));
                }
            }
        }
    }
}
