//! Translated blocks, keyed by physical address, virtual address and mode (docs/design.md, decision 7).
//!
//! Nothing here is visible to the guest: a block dies when its bytes are written, and all die when the store is full.
#![allow(unsafe_code)] // the engine is one of the two places of `unsafe`, see docs/design.md

use rustc_hash::FxHashMap;

use super::encode::{FUSED, Lifted, Op, Slot, encode, end_of_instruction};
use crate::ram::{PAGE_MASK, Ram};

/// 2 Mi slots of 16 bytes: 32 MiB of streams, of which a host maps what is used.
const SLOTS: usize = 2 << 20;
/// Of each so many slots it is known which block the first one is in.
const STRIDE: usize = 16;
/// No block is longer, in slots.
const MAX_SLOTS: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub pc: u64,
    pub pa: u64,
    pub mode: u32,
    pub context: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    slot: u32,
    start: u32,
    pub insns: u8,
    /// Physical page of the part beyond the first page, for the one instruction that crosses it.
    pub beyond: Option<u64>,
}

/// All blocks of a machine, shared by its vCPUs.
pub(crate) struct BlockCache {
    slots: Vec<Slot>,
    /// Ascending by `slot`.
    blocks: Vec<Block>,
    /// Which block slots 0, [`STRIDE`], twice that and so on are in.
    holders: Vec<u32>,
    /// Virtual addresses of instructions, `insns + 1` for each block.
    starts: Vec<u64>,
    /// Likewise what was noted of them; the last of each block is 0.
    notes: Vec<u32>,
    /// Likewise where their slots begin, counted from those of the block, and where the last one's end.
    slots_of: Vec<u16>,
    map: FxHashMap<Key, u32>,
    pages: FxHashMap<u64, Vec<Key>>,
    /// A block that is run once and never linked, in slots of its own.
    scratch: Vec<Slot>,
    scratch_starts: Vec<u64>,
    scratch_notes: Vec<u32>,
    scratch_slots_of: Vec<u16>,
    /// The rest of an instruction that is to be left behind.
    rest: Vec<Slot>,
    /// Changes whenever a block dies.
    pub epoch: u64,
}

impl Default for BlockCache {
    fn default() -> Self {
        BlockCache {
            slots: Vec::with_capacity(SLOTS),
            blocks: Vec::new(),
            holders: Vec::new(),
            starts: Vec::new(),
            notes: Vec::new(),
            slots_of: Vec::new(),
            map: FxHashMap::default(),
            pages: FxHashMap::default(),
            scratch: Vec::with_capacity(MAX_SLOTS),
            scratch_starts: Vec::new(),
            scratch_notes: Vec::new(),
            scratch_slots_of: Vec::new(),
            rest: Vec::new(),
            epoch: 1,
        }
    }
}

impl BlockCache {
    /// The block of a key, if it is held.
    pub fn find(&self, key: &Key) -> Option<&Block> {
        self.map.get(key).map(|i| &self.blocks[*i as usize])
    }

    /// The stream of a block.
    pub fn ops(&self, block: &Block) -> *const Op {
        self.slots[block.slot as usize..].as_ptr().cast()
    }

    /// Holds a block. Its bytes are marked in `ram` as translated; returns the physical pages that TLBs must close.
    pub fn insert(&mut self, key: Key, lifted: &Lifted, beyond: Option<u64>, ram: &mut Ram) -> (Block, Vec<u64>) {
        if self.slots.len() + MAX_SLOTS > SLOTS {
            self.clear(ram);
        }
        let block =
            Block { slot: self.slots.len() as u32, start: self.starts.len() as u32, insns: lifted.len() as u8, beyond };
        let slots_of = encode(lifted, beyond.is_none(), &mut self.slots);
        self.slots_of.extend(slots_of);
        debug_assert!(self.slots.len() <= SLOTS);
        self.holders.resize(self.slots.len().div_ceil(STRIDE), self.blocks.len() as u32);
        self.starts.extend(&lifted.starts);
        self.notes.extend(&lifted.notes);
        self.notes.resize(self.starts.len(), 0);
        self.map.insert(key, self.blocks.len() as u32);
        self.blocks.push(block.clone());

        let len = lifted.starts[lifted.len()].wrapping_sub(key.pc);
        let here = len.min((key.pa | PAGE_MASK) + 1 - key.pa);
        let mut to_close = Vec::new();
        let mut mark = |pages: &mut FxHashMap<u64, Vec<Key>>, pa: u64, len: u64| {
            pages.entry(pa & !PAGE_MASK).or_default().push(key);
            if ram.mark_code(pa, len) {
                to_close.push(pa & !PAGE_MASK);
            }
        };
        mark(&mut self.pages, key.pa, here);
        if let Some(page) = beyond {
            mark(&mut self.pages, page, len - here);
        }
        (block, to_close)
    }

    /// Marks the bytes of a block at `pa` that is run once: its own stores may change what of it is to come. Returns the page that TLBs must close.
    pub fn watch(&mut self, lifted: &Lifted, pa: u64, ram: &mut Ram) -> Option<u64> {
        let page = pa & !PAGE_MASK;
        self.pages.entry(page).or_default();
        let len = lifted.starts[lifted.len()].wrapping_sub(lifted.starts[0]);
        ram.mark_code(pa, len).then_some(page)
    }

    /// A block that is run once: the present contents of the scratch slots.
    pub fn scratch(&mut self, lifted: &Lifted) -> *const Op {
        self.scratch.clear();
        self.scratch_slots_of = encode(lifted, false, &mut self.scratch);
        debug_assert!(self.scratch.len() <= MAX_SLOTS);
        self.scratch_starts.clone_from(&lifted.starts);
        self.scratch_notes.clone_from(&lifted.notes);
        self.scratch.as_ptr().cast()
    }

    /// The blocks of these physical pages die.
    pub fn kill(&mut self, pages: Vec<u64>, ram: &mut Ram) {
        self.epoch += 1;
        for page in pages {
            for key in self.pages.remove(&page).unwrap_or_default() {
                self.map.remove(&key);
                // A block that crosses into this page may be linked from others of its first page.
                if key.pa & !PAGE_MASK != page {
                    self.kill(vec![key.pa & !PAGE_MASK], ram);
                }
            }
            ram.clear_code(page);
        }
    }

    /// All blocks die.
    pub fn clear(&mut self, ram: &mut Ram) {
        self.epoch += 1;
        for page in self.pages.keys() {
            ram.clear_code(*page);
        }
        self.pages.clear();
        self.map.clear();
        self.blocks.clear();
        self.holders.clear();
        self.slots.clear();
        self.starts.clear();
        self.notes.clear();
        self.slots_of.clear();
    }

    /// A copy of what is left of the instruction of `op` behind its `taken` slots, which ends in leaving; `None` if nothing is left.
    pub fn rest_of_instruction(&mut self, op: *const Op, taken: usize) -> Option<*const Op> {
        // SAFETY: `op` is in a live stream.
        let insn = usize::from(unsafe { (*op).insn });
        let (slots, first, slots_of): (&[Slot], usize, &[u16]) = if self.scratch.as_ptr_range().contains(&op.cast()) {
            (&self.scratch, 0, &self.scratch_slots_of)
        } else {
            let block = self.block_of(op);
            let (start, insns) = (block.start as usize, usize::from(block.insns));
            (&self.slots, block.slot as usize, &self.slots_of[start..][..insns + 1])
        };
        // SAFETY: as in `block_of`; the scratch slots are the other stream.
        let at = unsafe { op.cast::<Slot>().offset_from(slots.as_ptr()) } as usize + taken;
        // A branch that the last micro-op does as well has to stand behind it.
        let next = slots_of[insn + 1];
        let branch = if next & FUSED != 0 { 2 } else { 0 };
        let end = first + usize::from(next & !FUSED) + branch;
        if at >= end - branch {
            return None;
        }
        self.rest.clear();
        self.rest.extend_from_slice(&slots[at..end]);
        self.rest.push(Slot { op: Op { run: end_of_instruction, imm: 0, a: 0, b: 0, d: 0, insn: insn as u8 } });
        Some(self.rest.as_ptr().cast())
    }

    /// Where `op` stands in the rest of an instruction, as a distance in slots; `None` at its end.
    pub fn place_in_rest(&self, op: *const Op) -> Option<usize> {
        // SAFETY: `op` is in `rest`.
        let place = unsafe { op.cast::<Slot>().offset_from(self.rest.as_ptr()) } as usize;
        (place + 1 < self.rest.len()).then_some(place)
    }

    /// The block that `op` is in, which is not the scratch block.
    fn block_of(&self, op: *const Op) -> &Block {
        // SAFETY: not in the scratch slots, so `op` is in `slots`: no other streams exist.
        let slot = unsafe { op.cast::<Slot>().offset_from(self.slots.as_ptr()) } as u32;
        let from = &self.blocks[self.holders[slot as usize / STRIDE] as usize..];
        let behind = from.iter().position(|b| b.slot > slot).unwrap_or(from.len());
        &from[behind - 1]
    }

    /// The virtual addresses of the instructions of the block that `op` is in, ending with that of the first one behind,
    /// and what was noted of them.
    pub fn instructions_of(&self, op: *const Op) -> (&[u64], &[u32]) {
        if self.scratch.as_ptr_range().contains(&op.cast()) {
            return (&self.scratch_starts, &self.scratch_notes);
        }
        let block = self.block_of(op);
        let (start, insns) = (block.start as usize, usize::from(block.insns));
        (&self.starts[start..][..insns + 1], &self.notes[start..][..insns])
    }
}

// SAFETY: the pointers in slots lead into the same cache.
unsafe impl Send for BlockCache {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_takes_its_blocks_along() {
        let mut ram = Ram::default();
        ram.add(0, 0x4000).unwrap();
        let mut cache = BlockCache::default();
        let lifted = |pc: u64| Lifted { starts: vec![pc, pc + 4], notes: vec![0], uops: vec![] };
        let key = |pa: u64| Key { pc: pa, pa, mode: 0, context: 0 };
        cache.insert(key(0x1000), &lifted(0x1000), None, &mut ram);
        cache.insert(key(0x1ffe), &lifted(0x1ffe), Some(0x2000), &mut ram);
        cache.insert(key(0x3000), &lifted(0x3000), None, &mut ram);
        ram.store(0x2001, 1, 0).unwrap();
        let killed = ram.take_killed();
        assert_eq!(killed, [0x2000]);
        cache.kill(killed, &mut ram);
        assert!(cache.find(&key(0x1000)).is_none() && cache.find(&key(0x1ffe)).is_none());
        assert!(cache.find(&key(0x3000)).is_some());
    }
}
