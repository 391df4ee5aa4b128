//! One vCPU runs for a number of instructions, exactly.
#![allow(unsafe_code)] // the engine is one of the two places of `unsafe`, see docs/design.md

use super::cache::Key;
use super::core::{Access, Arch, Hart, Intent, JumpEntry, MAX_BLOCK, Step, Stop, StopKind, Vcpu, World, jump_slot};
use super::encode::{Exit, Link, Op, run};
use super::lift::Lift;
use crate::ram::{PAGE_MASK, PAGE_SIZE};
use crate::tlb::{Mapping, Space};

/// Why a vCPU came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// It has retired as many instructions as it was given.
    Budget,
    /// It waits for an interrupt.
    Wait,
    /// It gives the rest of its quantum to others.
    Yield,
    /// Signals, timers or requests are to be seen to.
    Attention,
    /// A breakpoint or watchpoint: the instruction at the present address has not begun.
    Debug,
    /// The architecture cannot go on.
    Shutdown(Stop),
}

/// A block that is about to run.
struct Found {
    ops: *const Op,
    insns: u64,
    /// It may be linked to, and stands in the jump cache.
    lasting: bool,
}

/// An instruction within its block.
struct Present {
    pc: u64,
    next: u64,
    index: i64,
    note: u32,
}

/// What the taking of a trap or an interrupt came to.
fn settled(result: Step) -> Result<(), RunEnd> {
    result.or_else(|stop| match stop.kind() {
        StopKind::Moved => Ok(()),
        StopKind::Wait => Err(RunEnd::Wait),
        StopKind::Yield => Err(RunEnd::Yield),
        _ => Err(RunEnd::Shutdown(stop)),
    })
}

impl<A: Arch> Vcpu<A> {
    /// Runs from the machine's instruction count `start` for at most `limit` instructions. Returns how many were retired
    /// (a trap counts as one, so that a guest that only traps gets on in time) and why it came back.
    pub fn run(&mut self, world: &mut World, start: u64, limit: u64) -> (u64, RunEnd) {
        let limit = limit.min(1 << 62);
        let core = &mut self.core;
        core.end = start + limit;
        core.budget = limit as i64 - MAX_BLOCK as i64;
        core.start = start;
        // Code may have been written since the last run.
        core.leave = world.ram.has_news();
        // Whoever lets it run has asked when the next event is.
        core.attention = false;
        core.unlinked = std::ptr::null_mut();
        core.spaces_changed = true;
        let end = loop {
            if self.core.budget + MAX_BLOCK as i64 <= 0 {
                break RunEnd::Budget;
            }
            if self.core.leave {
                self.core.leave = false;
                if world.ram.has_news() {
                    let killed = world.ram.take_killed();
                    world.blocks.kill(killed, &mut world.ram);
                    for pa in world.ram.take_closing() {
                        world.to_close.push(pa);
                        self.core.mmu.close_stores_to(pa);
                    }
                }
                self.core.unlinked = std::ptr::null_mut();
                if self.core.attention || world.bus.has_news(world.planned_wake) {
                    self.core.attention = false;
                    break RunEnd::Attention;
                }
            }
            if let Err(end) = self.step_blocks(world) {
                break end;
            }
        };
        let retired = self.core.count() - start;
        self.core.retired += retired;
        self.core.start = start + retired;
        (retired, end)
    }

    /// Runs one chain of blocks, and sees to its end.
    fn step_blocks(&mut self, world: &mut World) -> Result<(), RunEnd> {
        if self.core.check_interrupts {
            self.core.check_interrupts = false;
            self.core.unlinked = std::ptr::null_mut();
            let result = A::interrupt(&mut self.at(world));
            self.core.budget -= i64::from(result.is_err_and(|stop| stop.kind() == StopKind::Yield));
            let goes_on_elsewhere = result.is_err();
            settled(result)?;
            if goes_on_elsewhere {
                return Ok(());
            }
        }
        self.refresh_spaces(world);
        // What has been taken may have asked for them to be looked at again: an instruction stands alone then, whatever the budget is.
        let single = self.core.check_interrupts;
        let found = match self.at(world).find_block(single) {
            Ok(found) => found,
            Err(stop) => return self.stopped(world, stop),
        };
        let core = &mut self.core;
        core.void_dropped_fetches();
        if found.lasting {
            if !core.unlinked.is_null() {
                // SAFETY: the exit that asked is in a live stream: whatever kills blocks forgets `unlinked`.
                unsafe {
                    let link = core.unlinked.add(1).cast::<Link>();
                    if (*link).pc == core.pc {
                        (*link).target = found.ops;
                        (*core.unlinked).run = core.linked;
                    }
                }
            }
            core.jump_cache[jump_slot(core.pc, core.fetch_mix)] =
                JumpEntry { pc: core.pc, key: core.fetch_key, ops: found.ops };
        }
        core.unlinked = std::ptr::null_mut();
        // Every exit leaves for the run loop while less than the reserve is left, so a block that is known to fit runs
        // alone.
        debug_assert!(found.insns as i64 <= core.budget + MAX_BLOCK as i64);
        core.world = world;
        let exit = if single {
            self.run_alone(found.ops, 0)
        } else {
            core.in_block = true;
            let budget = core.budget;
            let vcpu: *mut Vcpu<A> = self;
            // SAFETY: the stream is live; `vcpu` and `world` are not touched but through the raw pointers until it exits.
            let exit = unsafe { run(vcpu.cast(), found.ops, budget, 0) };
            self.core.in_block = false;
            exit
        };
        match exit {
            Exit::Next => Ok(()),
            Exit::Continue => unreachable!("the loop goes on by itself"),
            Exit::Leave | Exit::LeaveInCall => self.finish_instruction(world, exit),
            Exit::Stop | Exit::StopInCall => self.stop(world, exit),
            Exit::Ended => Err(self.core.run_end),
        }
    }

    /// The instruction of `core.op` did not complete. If the architecture goes on elsewhere, that is where, and it is [`Exit::Next`]; else
    /// nothing has been done, or the run ends.
    pub(super) fn stopped_in_block(&mut self, world: &mut World, exit: Exit) -> Exit {
        let goes_on = matches!(self.core.stop.kind(), StopKind::Exception | StopKind::Moved);
        if self.core.is_alone || !goes_on {
            return exit;
        }
        self.core.in_block = false;
        let result = self.stop(world, exit);
        self.core.in_block = true;
        match result {
            Ok(()) => Exit::Next,
            Err(end) => {
                self.core.run_end = end;
                Exit::Ended
            }
        }
    }

    /// The instruction of `core.op` did not complete.
    fn stop(&mut self, world: &mut World, exit: Exit) -> Result<(), RunEnd> {
        if exit == Exit::Stop {
            let Present { pc, index, note, .. } = self.instruction(world);
            self.core.note = note;
            if self.core.stop.kind() != StopKind::Moved {
                self.core.pc = pc;
            }
            self.core.budget -= index;
        }
        let stop = self.core.stop;
        self.stopped(world, stop)
    }

    /// Runs a stream whose exits all come back.
    fn run_alone(&mut self, ops: *const Op, last: u64) -> Exit {
        /// With so much less of a budget, no exit goes on by itself.
        const BEYOND: i64 = 1 << 62;
        let core = &mut self.core;
        (core.in_block, core.is_alone) = (true, true);
        // Whoever asks for the count asks with the budget as it is.
        core.end = core.end.wrapping_sub(BEYOND as u64);
        let budget = core.budget - BEYOND;
        let vcpu: *mut Vcpu<A> = self;
        // SAFETY: as in `step_blocks`.
        let exit = unsafe { run(vcpu.cast(), ops, budget, last) };
        let core = &mut self.core;
        (core.in_block, core.is_alone) = (false, false);
        core.end = core.end.wrapping_add(BEYOND as u64);
        core.budget += BEYOND;
        core.unlinked = std::ptr::null_mut();
        exit
    }

    /// Does what is left of the instruction of `core.op`, which `exit` was left by, from a copy of its micro-ops that leads nowhere else, and leaves
    /// behind it.
    fn finish_instruction(&mut self, world: &mut World, mut exit: Exit) -> Result<(), RunEnd> {
        let mut origin = self.core.op;
        self.core.leave = true;
        loop {
            let taken = if exit == Exit::LeaveInCall { 2 } else { 1 };
            let Some(rest) = world.blocks.rest_of_instruction(origin, taken) else { break };
            exit = self.run_alone(rest, self.core.last);
            self.core.leave = true;
            if exit == Exit::Next {
                return Ok(());
            }
            let Some(place) = world.blocks.place_in_rest(self.core.op) else { break };
            // SAFETY: the copy is of what stands behind `origin`, in the same order.
            origin = unsafe { origin.add(taken + place) };
            if !matches!(exit, Exit::Leave | Exit::LeaveInCall) {
                self.core.op = origin;
                return self.stop(world, exit);
            }
        }
        self.core.op = origin;
        let Present { next, index, .. } = self.instruction(world);
        self.core.pc = next;
        self.core.budget -= index + 1;
        Ok(())
    }

    /// The instruction of `core.op`.
    fn instruction(&self, world: &World) -> Present {
        let (starts, notes) = world.blocks.instructions_of(self.core.op);
        // SAFETY: `op` is in a live stream.
        let index = usize::from(unsafe { (*self.core.op).insn });
        Present { pc: starts[index], next: starts[index + 1], index: index as i64, note: notes[index] }
    }

    fn stopped(&mut self, world: &mut World, stop: Stop) -> Result<(), RunEnd> {
        self.core.leave |= world.ram.has_news();
        match stop.kind() {
            StopKind::Exception => {
                self.core.budget -= 1;
                self.core.unlinked = std::ptr::null_mut();
                settled(A::trap(&mut self.at(world), stop))
            }
            StopKind::Wait | StopKind::Yield => {
                self.core.budget -= 1;
                self.core.pc = self.core.next_pc;
                Err(if stop.kind() == StopKind::Wait { RunEnd::Wait } else { RunEnd::Yield })
            }
            StopKind::Moved => {
                self.core.budget -= 1;
                self.core.unlinked = std::ptr::null_mut();
                Ok(())
            }
            StopKind::Debug => Err(RunEnd::Debug),
            StopKind::Shutdown => Err(RunEnd::Shutdown(stop)),
        }
    }

    /// Brings up to date what is derived from the architecture's mode and from invalidations.
    fn refresh_spaces(&mut self, world: &mut World) {
        let core = &mut self.core;
        core.void_dropped_fetches();
        if core.see_epochs(world.blocks.epoch) {
            core.spaces_changed = true;
        }
        if core.spaces_changed || core.space_epoch != core.mmu.space_epoch {
            core.spaces_changed = false;
            let mut h = self.at(world);
            let data = A::space(&mut h, 0, Intent::Read);
            let fetch = A::space(&mut h, 0, Intent::Fetch);
            let (mode, context) = (h.arch.mode(), h.arch.context());
            debug_assert!(mode < 1 << 16);
            // The second may have used up the numbers: then the first is void.
            let data = if h.core.mmu.numbers_ran_out(data) { A::space(&mut h, 0, Intent::Read) } else { data };
            let core = &mut self.core;
            core.space_id = data.id();
            core.mix = data.mix();
            core.kept_spaces = [data, Space::NONE, Space::NONE, Space::NONE];
            core.fetch_space = fetch;
            core.fetch_mix = fetch.mix();
            core.mode = mode;
            if core.context != context {
                core.context = context;
                core.jump_epoch += 1;
            }
            core.space_epoch = core.mmu.space_epoch;
            // The numbers may have run out here: then they mean other spaces in the jump cache from now on.
            core.see_epochs(world.blocks.epoch);
            core.fetch_key = core.jump_epoch << 28 | u64::from(mode) << 12 | fetch.id();
        }
    }
}

impl<A: Arch> Hart<'_, A> {
    /// The block at the present address; of one instruction, if it is `single`.
    fn find_block(&mut self, single: bool) -> Step<Found> {
        let pc = self.core.pc;
        let left = if single { 1 } else { (self.core.budget + MAX_BLOCK as i64) as u64 };
        if left >= MAX_BLOCK as u64 {
            let entry = &self.core.jump_cache[jump_slot(pc, self.core.fetch_mix)];
            if entry.pc == pc && entry.key == self.core.fetch_key {
                return Ok(Found { ops: entry.ops, insns: MAX_BLOCK as u64, lasting: true });
            }
        }
        if self.world.debug.stops_at(pc) {
            return Err(Stop::of(StopKind::Debug));
        }
        let (page, keep) = self.translate_fetch(pc)?;
        let pa = page | pc & PAGE_MASK;
        let key = Key { pc, pa, mode: self.core.mode, context: self.core.context };
        if keep
            && let Some(block) = self.world.blocks.find(&key)
            && u64::from(block.insns) <= left
        {
            match block.beyond {
                None => {
                    let insns = block.insns.into();
                    return Ok(Found { ops: self.world.blocks.ops(block), insns, lasting: true });
                }
                Some(beyond) => {
                    let ops = self.world.blocks.ops(block);
                    if self.translate_fetch((pc | PAGE_MASK).wrapping_add(1))? == (beyond, true) {
                        return Ok(Found { ops, insns: 1, lasting: false });
                    }
                }
            }
        }
        // Rights that differ within the page are asked for each instruction.
        let limit = if keep { left.min(MAX_BLOCK as u64) as usize } else { 1 };
        let (lifted, beyond) = self.lift(pc, pa, limit)?;
        let insns = lifted.len() as u64;
        // A block that was cut short for this run alone is not worth keeping.
        let whole = left >= MAX_BLOCK as u64;
        if !keep || !whole || beyond.is_some_and(|(_, keep)| !keep) {
            if insns > 1 {
                let close = self.world.blocks.watch(&lifted, pa, &mut self.world.ram);
                self.close(close);
            }
            return Ok(Found { ops: self.world.blocks.scratch(&lifted), insns, lasting: false });
        }
        let beyond = beyond.map(|(pa, _)| pa);
        let (block, close) = self.world.blocks.insert(key, &lifted, beyond, &mut self.world.ram);
        self.close(close);
        // An insertion may have cleared the cache.
        if self.core.seen_code_epoch != self.world.blocks.epoch {
            self.core.unlinked = std::ptr::null_mut();
            return Ok(Found { ops: self.world.blocks.ops(&block), insns, lasting: false });
        }
        Ok(Found { ops: self.world.blocks.ops(&block), insns, lasting: beyond.is_none() })
    }

    /// Closes pages that hold translated code since now to stores: here at once, and for the others behind this turn.
    fn close(&mut self, pages: impl IntoIterator<Item = u64>) {
        for pa in pages {
            self.world.to_close.push(pa);
            self.core.mmu.close_stores_to(pa);
        }
    }

    /// The physical page that `pc` is fetched from, and whether its translation may be kept.
    fn translate_fetch(&mut self, pc: u64) -> Step<(u64, bool)> {
        let space = self.core.fetch_space;
        if let Some(map) = self.core.mmu.fetch(pc, space) {
            return Ok((map.pa, true));
        }
        let access = Access { va: pc, intent: Intent::Fetch, as_whom: 0, size: 2 };
        let map: Mapping = A::walk(self, access)?;
        if !self.world.ram.contains(map.pa, PAGE_SIZE) {
            return Err(A::bus_error(self, access));
        }
        if map.keep {
            self.core.mmu.fill_fetch(pc, space, map);
        }
        Ok((map.pa, map.keep))
    }

    /// Lifts the block at `pc`, of at most `limit` instructions. An instruction across pages is a block by itself; then
    /// the second page's address comes along.
    fn lift(&mut self, pc: u64, pa: u64, limit: usize) -> Step<(super::Lifted, Option<(u64, bool)>)> {
        let mut bytes = [0u8; PAGE_SIZE as usize + 16];
        let here = (PAGE_SIZE - (pa & PAGE_MASK)) as usize;
        self.world.ram.read(pa, &mut bytes[..here]).expect("a page that can be fetched from is RAM");
        let mut lift = Lift::default();
        lift.block.starts.push(pc);
        let (mut at, mut beyond) = (0usize, None);
        for index in 0..limit {
            let next = pc.wrapping_add(at as u64);
            if at == here || index > 0 && self.world.debug.stops_at(next) {
                break;
            }
            lift.begin(index);
            let uops = lift.block.uops.len();
            let len = match self.arch.lift(next, &bytes[at..here], &mut lift) {
                Some(len) => len,
                None if index > 0 => {
                    lift.block.uops.truncate(uops);
                    break;
                }
                None => {
                    let second = self.translate_fetch((pc | PAGE_MASK).wrapping_add(1))?;
                    self.world.ram.read(second.0, &mut bytes[here..here + 16]).expect("likewise");
                    beyond = Some(second);
                    self.arch
                        .lift(next, &bytes[at..here + 16], &mut lift)
                        .expect("no instruction is longer than 16 bytes")
                }
            };
            at += usize::from(len);
            lift.block.starts.push(next.wrapping_add(u64::from(len)));
            if lift.ended() || beyond.is_some() || lift.block.uops.len() > 512 {
                break;
            }
        }
        if !lift.ended() {
            let behind = *lift.block.starts.last().expect("a block has a start");
            lift.goto(behind);
        }
        if self.world.events.wants_uops() {
            self.world.events.uops(&lift.block);
        }
        Ok((lift.block, beyond))
    }
}
