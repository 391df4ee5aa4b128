//! Accesses of an architecture's own, to memory, devices and ports: what micro-ops do not do by themselves.
#![allow(unsafe_code)] // the engine is one of the two places of `unsafe`, see docs/design.md

use super::core::{Access, Arch, Hart, Intent, Step};
use crate::bus::{Space as BusSpace, VcpuSignal};
use crate::device::Request;
use crate::event::{Event, Kind};
use crate::ram::{PAGE_MASK, PAGE_SIZE};
use crate::time::VirtualTime;
use crate::tlb::{Mapping, Space};

/// Where an access leads, once everything that can fault has been asked.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Physical address of the first byte.
    pub pa: u64,
    /// Physical address of the first byte in the second page, where the access crosses one, and how many bytes lie before.
    beyond: Option<(u64, u8)>,
    access: Access,
}

impl<A: Arch> Hart<'_, A> {
    /// Counts the instructions since the last call for `level`. Called before the level changes.
    pub fn count_level(&mut self, level: u8) {
        let retired = self.core.retired();
        let done = retired - self.core.level_mark;
        self.core.level_mark = retired;
        self.world.events.stats.instructions[usize::from(level).min(crate::event::LEVELS - 1)] += done;
    }

    /// Virtual time of the present instruction, in nanoseconds.
    pub fn now(&self) -> VirtualTime {
        self.world.frequency.time_of(self.core.count())
    }

    /// Translates an access of `size` bytes: everything that can fault in it but the bus.
    #[inline]
    pub fn resolve(&mut self, va: u64, size: u8, intent: Intent, as_whom: u8) -> Step<Place> {
        let access = Access { va, intent, as_whom, size };
        if va & (u64::from(size) - 1) != 0 {
            A::misaligned(self, access, size)?;
        }
        let here = (PAGE_MASK + 1 - (va & PAGE_MASK)).min(size.into()) as u8;
        let pa = self.translate(Access { size: here, ..access })? | va & PAGE_MASK;
        if self.world.debug.watches_page(va) && self.world.debug.accessed(va, size, intent, self.core.index) {
            self.core.call_for_attention();
        }
        let mut beyond = None;
        if here < size {
            let va = va.wrapping_add(here.into());
            beyond = Some((self.translate(Access { va, size: size - here, ..access })?, here));
        }
        Ok(Place { pa, beyond, access })
    }

    /// The space of a load or store: that which micro-ops probe in, if it is the hart's own.
    #[inline(always)]
    fn space_of(&mut self, access: Access) -> Space {
        let core = &self.core;
        let is_valid = !core.spaces_changed && core.space_epoch == core.mmu.space_epoch;
        let is_kept = A::KEEPS_SPACES && access.intent != Intent::Fetch || access.as_whom == 0 && core.in_block;
        match core.kept_spaces.get(usize::from(access.as_whom)) {
            Some(space) if is_valid && is_kept && *space != Space::NONE => *space,
            _ => self.find_space(access, is_valid && is_kept),
        }
    }

    #[cold]
    fn find_space(&mut self, access: Access, is_kept: bool) -> Space {
        let space = A::space(self, access.as_whom, access.intent);
        if is_kept && let Some(kept) = self.core.kept_spaces.get_mut(usize::from(access.as_whom)) {
            *kept = space;
        }
        space
    }

    /// The host's address of an access that is aligned, to a page that is open for it.
    #[inline(always)]
    fn open_page(&mut self, access: Access) -> Option<*mut u8> {
        if access.va & (u64::from(access.size) - 1) != 0 {
            return None;
        }
        self.page_if_open(access)
    }

    #[inline(always)]
    fn page_if_open(&mut self, access: Access) -> Option<*mut u8> {
        let space = self.space_of(access);
        self.page_in(space, access.va, access.intent)
    }

    #[inline(always)]
    fn page_in(&self, space: Space, va: u64, intent: Intent) -> Option<*mut u8> {
        let entry = self.core.mmu.fast_entry(va, space);
        let open = if intent == Intent::Write { entry.write } else { entry.read };
        let tag = va & !PAGE_MASK | space.id();
        (open == tag).then(|| va.wrapping_add(entry.addend) as *mut u8)
    }

    /// The host's address of words of 8 bytes that lie in one page, which is open for them.
    #[inline(always)]
    fn open_words(&self, space: Space, va: u64, count: usize, intent: Intent) -> Option<*mut u8> {
        if va & 7 != 0 || (va & PAGE_MASK) as usize + 8 * count > PAGE_SIZE as usize {
            return None;
        }
        self.page_in(space, va, intent)
    }

    /// The physical page of `access.va`, from the TLB or by a walk.
    #[inline]
    fn translate(&mut self, access: Access) -> Step<u64> {
        let space = self.space_of(access);
        let may_open = !self.world.debug.watches_page(access.va);
        let allows = |m: &Mapping| match access.intent {
            Intent::Read => m.read,
            Intent::Write => m.write,
            Intent::Fetch => true,
        };
        if let Some(m) = self.core.mmu.data(access.va, space)
            && allows(m)
        {
            let pa = m.pa;
            if may_open {
                self.core.mmu.open(access.va, space, access.intent == Intent::Write, &mut self.world.ram);
            }
            return Ok(pa);
        }
        let map = A::walk(self, access)?;
        debug_assert!(allows(&map));
        if map.keep {
            let space = self.space_of(access);
            self.core.mmu.fill_data(access.va, space, map);
            if may_open {
                self.core.mmu.open(access.va, space, access.intent == Intent::Write, &mut self.world.ram);
            }
        }
        Ok(map.pa)
    }

    /// Four bytes of code at `va`, if they lie in a page whose translation for fetches is held, and in RAM.
    pub fn peek_code(&self, va: u64) -> Option<u32> {
        let core = &self.core;
        let is_valid = !core.spaces_changed && core.space_epoch == core.mmu.space_epoch;
        let map = core.mmu.fetch(va, core.fetch_space).filter(|_| is_valid && va & PAGE_MASK <= PAGE_MASK - 3)?;
        self.world.ram.load(map.pa | va & PAGE_MASK, 4).ok().map(|bytes| bytes as u32)
    }

    /// Reads physical memory or a device's registers; `None` where nothing answers.
    #[inline]
    pub fn read_physical(&mut self, pa: u64, size: u8) -> Option<u64> {
        if let Some(value) = A::read_own(self, pa, size) {
            return Some(value);
        }
        if let Ok(value) = self.world.ram.load(pa, size) {
            return Some(value);
        }
        self.read_bus(pa, size)
    }

    #[inline(never)]
    fn read_bus(&mut self, pa: u64, size: u8) -> Option<u64> {
        let count = self.core.count();
        let (bus, cx) = self.world.bus_parts(count);
        let value = bus.read(BusSpace::Memory, pa, size, cx);
        self.after_bus();
        if let Some(value) = value {
            self.note_device(Kind::DeviceRead, pa, size, value);
        }
        value.or(A::BUS_FLOATS.then_some(u64::MAX >> (64 - 8 * u32::from(size))))
    }

    /// Writes physical memory or a device's registers; `None` where nothing answers.
    #[inline]
    pub fn write_physical(&mut self, pa: u64, size: u8, value: u64) -> Option<()> {
        if A::write_own(self, pa, size, value).is_some() {
            return Some(());
        }
        if self.world.ram.store(pa, size, value).is_ok() {
            if self.world.ram.has_killed() {
                self.core.leave = true;
            }
            return Some(());
        }
        self.write_bus(pa, size, value)
    }

    #[inline(never)]
    fn write_bus(&mut self, pa: u64, size: u8, value: u64) -> Option<()> {
        let count = self.core.count();
        let (bus, cx) = self.world.bus_parts(count);
        let done = bus.write(BusSpace::Memory, pa, size, value, cx);
        self.after_bus();
        if done.is_some() {
            self.note_device(Kind::DeviceWrite, pa, size, value);
        }
        done.or(A::BUS_FLOATS.then_some(()))
    }

    /// Reads an I/O port of 1, 2 or 4 bytes. Where nobody answers, ones.
    pub fn read_port(&mut self, port: u64, size: u8) -> u64 {
        let count = self.core.count();
        let (bus, cx) = self.world.bus_parts(count);
        let value = bus.read(BusSpace::Port, port, size, cx);
        self.after_bus();
        let value = value.unwrap_or(u64::MAX >> (64 - 8 * u32::from(size)));
        self.note_device(Kind::DeviceRead, port, size, value);
        value
    }

    /// Writes an I/O port of 1, 2 or 4 bytes.
    pub fn write_port(&mut self, port: u64, size: u8, value: u64) {
        let count = self.core.count();
        let (bus, cx) = self.world.bus_parts(count);
        bus.write(BusSpace::Port, port, size, value, cx);
        self.after_bus();
        self.note_device(Kind::DeviceWrite, port, size, value);
    }

    /// The address of the present instruction.
    fn pc_now(&self) -> u64 {
        if !self.core.in_block {
            return self.core.pc;
        }
        // SAFETY: within a block, `op` is the micro-op that runs.
        let insn = unsafe { (*self.core.op).insn };
        self.world.blocks.instructions_of(self.core.op).0[usize::from(insn)]
    }

    #[inline]
    fn note_device(&mut self, kind: Kind, pa: u64, size: u8, value: u64) {
        if self.world.events.is_on() {
            self.tell_of_device(kind, pa, size, value);
        }
    }

    #[cold]
    fn tell_of_device(&mut self, kind: Kind, pa: u64, size: u8, value: u64) {
        let details = [("address", pa), ("size", size.into()), ("value", value)];
        let event = Event { pc: self.pc_now(), details: &details, ..self.event(kind, "") };
        self.world.events.send(&event);
    }

    /// An event of this vCPU, at its present level, with nothing more to say.
    pub fn event<'a>(&self, kind: Kind, name: &'a str) -> Event<'a> {
        Event {
            count: self.core.count(),
            vcpu: self.core.index,
            level: self.arch.level(),
            pc: self.core.pc,
            kind,
            name,
            details: &[],
            words: &[],
            to: None,
            code: None,
        }
    }

    /// A device was called: whatever that has set off is for the run loop to see to.
    fn after_bus(&mut self) {
        if self.world.bus.has_news(self.world.planned_wake) || self.world.ram.has_news() {
            self.core.leave = true;
        }
    }

    /// A device, or the vCPU's own clock, wants the run loop to see to something.
    pub fn has_news(&self) -> bool {
        self.core.attention || self.world.bus.has_news(self.world.planned_wake)
    }

    /// Sends a signal to a vCPU: it is delivered before the next instruction of any vCPU.
    pub fn send(&mut self, vcpu: u32, signal: VcpuSignal) {
        self.world.bus.for_vcpus.push((vcpu, signal));
        self.after_bus();
    }

    /// Asks something of the machine as a whole. The first request stands.
    pub fn request(&mut self, request: Request) {
        self.world.bus.request.get_or_insert(request);
        self.after_bus();
    }

    /// Takes a byte that has come in through a port of the door.
    pub fn read_door(&mut self, port: u32) -> Option<u8> {
        self.world.door.count = self.core.count();
        self.world.door.read(port)
    }

    /// An access that crosses pages begins only if something answers in both.
    fn require_answer(&mut self, place: &Place) -> Step {
        let Some((beyond, here)) = place.beyond.filter(|_| !A::BUS_FLOATS) else { return Ok(()) };
        for (pa, skipped) in [(place.pa, 0), (beyond, here)] {
            if !self.world.ram.contains(pa, 1) && !self.world.bus.answers(BusSpace::Memory, pa) {
                let va = place.access.va.wrapping_add(skipped.into());
                return Err(A::bus_error(self, Access { va, ..place.access }));
            }
        }
        Ok(())
    }

    /// Loads from a resolved place, zero-extended.
    pub fn load_at(&mut self, place: Place, size: u8) -> Step<u64> {
        self.require_answer(&place)?;
        let value = match place.beyond {
            None => self.read_physical(place.pa, size),
            Some((pa, n)) => {
                let low = self.read_physical(place.pa, n);
                let high = self.read_physical(pa, size - n);
                low.zip(high).map(|(low, high)| low | high << (8 * u32::from(n)))
            }
        };
        value.ok_or_else(|| A::bus_error(self, place.access))
    }

    /// Stores the low `size` bytes of `value` to a resolved place.
    pub fn store_at(&mut self, place: Place, size: u8, value: u64) -> Step {
        self.require_answer(&place)?;
        let done = match place.beyond {
            None => self.write_physical(place.pa, size, value),
            Some((pa, n)) => {
                let mask = u64::MAX >> (64 - 8 * u32::from(n));
                let low = self.write_physical(place.pa, n, value & mask);
                let high = self.write_physical(pa, size - n, value >> (8 * u32::from(n)));
                low.and(high)
            }
        };
        done.ok_or_else(|| A::bus_error(self, place.access))
    }

    /// Loads `size` bytes, zero-extended.
    pub fn load(&mut self, va: u64, size: u8, as_whom: u8) -> Step<u64> {
        if let Some(host) = self.open_page(Access { va, intent: Intent::Read, as_whom, size }) {
            // SAFETY: the tag fits, so the address is in the host's copy of that page.
            return Ok(unsafe { crate::ram::load_host(host, size) });
        }
        let place = self.resolve(va, size, Intent::Read, as_whom)?;
        self.load_at(place, size)
    }

    /// Loads a word of 8 bytes: short where it is at hand, and else as [`Hart::load`].
    #[inline(always)]
    pub fn load_word(&mut self, va: u64, as_whom: u8) -> Step<u64> {
        match self.load_words(va, as_whom) {
            Some([word]) => Ok(word),
            None => self.load(va, 8, as_whom),
        }
    }

    /// The space of loads and stores that are made as somebody.
    #[inline(always)]
    pub fn space(&mut self, as_whom: u8) -> Space {
        self.space_of(Access { va: 0, intent: Intent::Read, as_whom, size: 8 })
    }

    /// Words of 8 bytes, if they lie in a page whose translation is at hand, and that neither a device nor a debugger has to do with.
    #[inline(always)]
    pub fn load_words<const N: usize>(&mut self, va: u64, as_whom: u8) -> Option<[u64; N]> {
        let space = self.space(as_whom);
        self.words_in(space, va)
    }

    /// The same, in a space.
    #[inline(always)]
    pub fn words_in<const N: usize>(&self, space: Space, va: u64) -> Option<[u64; N]> {
        let host = self.open_words(space, va, N, Intent::Read)?;
        // SAFETY: as in `load`; all of them lie in the page.
        Some(std::array::from_fn(|i| unsafe { crate::ram::load_host(host.add(8 * i), 8) }))
    }

    /// Stores words likewise. Returns whether it has.
    #[inline(always)]
    pub fn store_words<'a>(&mut self, va: u64, words: impl ExactSizeIterator<Item = &'a u64>, as_whom: u8) -> bool {
        let space = self.space_of(Access { va, intent: Intent::Write, as_whom, size: 8 });
        let Some(host) = self.open_words(space, va, words.len(), Intent::Write) else { return false };
        for (i, word) in words.enumerate() {
            // SAFETY: as in `store`; all of them lie in the page.
            unsafe { crate::ram::store_host(host.add(8 * i), 8, *word) };
        }
        true
    }

    /// Stores the low `size` bytes of `value`.
    pub fn store(&mut self, va: u64, size: u8, value: u64, as_whom: u8) -> Step {
        if let Some(host) = self.open_page(Access { va, intent: Intent::Write, as_whom, size }) {
            // SAFETY: as in `load`; an open page counts as written and holds no translated code.
            unsafe { crate::ram::store_host(host, size, value) };
            return Ok(());
        }
        let place = self.resolve(va, size, Intent::Write, as_whom)?;
        let value = if size == 8 { value } else { value & ((1 << (8 * u32::from(size))) - 1) };
        self.store_at(place, size, value)
    }
}
