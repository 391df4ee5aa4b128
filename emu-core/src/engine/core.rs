//! A vCPU as the engine sees it, and what an instruction set must provide.
#![allow(unsafe_code)] // the engine is one of the two places of `unsafe`, see docs/design.md

use std::num::NonZeroU64;

use serde::{Serialize, de::DeserializeOwned};

use super::cache::BlockCache;
use super::encode::{Exit, Handler, Op};
use super::lift::Lift;
use super::run::RunEnd;
use crate::bus::{Bus, BusCx, VcpuSignal};
use crate::debug::Debug;
use crate::door::Door;
use crate::event::Events;
use crate::ram::{PAGE_MASK, Ram};
use crate::time::{Frequency, VirtualTime};
use crate::tlb::{Fast, Mapping, Space, Tlb};

/// The longest block, in instructions. A run has always this much budget in reserve while it is chaining blocks.
pub(crate) const MAX_BLOCK: usize = 64;

/// What stopped an instruction before it completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StopKind {
    /// An exception: the architecture takes its trap.
    Exception = 1,
    /// The instruction has completed, and the vCPU waits for an interrupt.
    Wait,
    /// The instruction has completed, and the vCPU gives the rest of its quantum to others.
    Yield,
    /// The instruction is given up, and the architecture has set where the vCPU goes on: a VM exit.
    Moved,
    /// A breakpoint or watchpoint of the debugger: nothing has happened.
    Debug,
    /// The architecture cannot go on (a double fault in machine mode, a triple fault, a VMX abort).
    Shutdown,
}

/// What stopped an instruction: two words, of which the first is never 0, so that a [`Step`] is returned in two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Kind in bits 39 to 32, code below.
    what: NonZeroU64,
    /// The architecture's value: faulting address, instruction bits.
    pub value: u64,
}

impl Stop {
    /// A stop of this kind, with the architecture's number (cause, vector) and value.
    #[inline]
    pub const fn new(kind: StopKind, code: u32, value: u64) -> Self {
        let what = NonZeroU64::new((kind as u64) << 32 | code as u64).expect("no kind is 0");
        Stop { what, value }
    }

    /// An exception.
    #[inline]
    pub const fn exception(code: u32, value: u64) -> Self {
        Stop::new(StopKind::Exception, code, value)
    }

    /// A stop with no more to say.
    #[inline]
    pub const fn of(kind: StopKind) -> Self {
        Stop::new(kind, 0, 0)
    }

    /// The same, with another value.
    #[inline]
    pub const fn with_value(self, value: u64) -> Self {
        Stop { value, ..self }
    }

    /// What it is.
    #[inline]
    pub const fn kind(self) -> StopKind {
        match self.what.get() >> 32 {
            1 => StopKind::Exception,
            2 => StopKind::Wait,
            3 => StopKind::Yield,
            4 => StopKind::Moved,
            5 => StopKind::Debug,
            _ => StopKind::Shutdown,
        }
    }

    /// The architecture's number: cause, vector.
    #[inline]
    pub const fn code(self) -> u32 {
        self.what.get() as u32
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Stop { value, .. } = self;
        f.debug_struct("Stop").field("kind", &self.kind()).field("code", &self.code()).field("value", value).finish()
    }
}

/// What an instruction's function returns.
pub type Step<T = ()> = Result<T, Stop>;

const _: () = assert!(size_of::<Step>() == 16);

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// To load.
    Read,
    /// To store, or to load and store.
    Write,
    /// To fetch instructions.
    Fetch,
}

/// An access that needs a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Virtual address.
    pub va: u64,
    /// What it wants.
    pub intent: Intent,
    /// As whom: 0 is the vCPU as it is, other values are the architecture's own (a guest's memory, user rights ...).
    pub as_whom: u8,
    /// Size in bytes of the part that lies in the page of `va`.
    pub size: u8,
}

/// An instruction set with its privileged architecture: what a vCPU has besides its register file, and how it behaves.
pub trait Arch: Sized + Send + Serialize + DeserializeOwned {
    /// How many registers of the file are the guest's; those behind are temporaries.
    const REGISTERS: usize;

    /// Where nothing answers on the bus, loads get ones and stores are lost; else they are errors.
    const BUS_FLOATS: bool = false;

    /// Whatever a space depends on sets [`Core::spaces_changed`], for accesses as anybody: then spaces are kept as long as nothing does.
    const KEEPS_SPACES: bool = false;

    /// Lifts the instruction at `pc`, whose first bytes are `bytes` (to the end of the page, and beyond it if asked for),
    /// by calls on `lift`. Returns its length in bytes, or `None` if `bytes` ends within it.
    fn lift(&self, pc: u64, bytes: &[u8], lift: &mut Lift) -> Option<u8>;

    /// Whatever changes how code is lifted: part of a block's key.
    fn mode(&self) -> u32;

    /// What else changes how code is lifted, and seldom changes itself (base and limit of a code segment).
    fn context(&self) -> u64 {
        0
    }

    /// The level at work: 1 for whoever runs on the machine itself, 2 for its guest.
    fn level(&self) -> u8;

    /// Does what the [`Uop::Call`](super::uop::Uop::Call) to `function` with `operand` stands for.
    fn call(h: &mut Hart<Self>, function: u16, operand: u32) -> Step;

    /// The space that an access is made in. As whom 0, it is one for loads and stores.
    fn space(h: &mut Hart<Self>, as_whom: u8, intent: Intent) -> Space;

    /// Walks the page tables.
    fn walk(h: &mut Hart<Self>, access: Access) -> Step<Mapping>;

    /// What an access gets where nothing answers on the bus.
    fn bus_error(h: &mut Hart<Self>, access: Access) -> Stop;

    /// Reads a register that the vCPU itself has at a physical address, such as a local APIC's; `None` if it has none there.
    /// Translations of such pages are not kept.
    fn read_own(_h: &mut Hart<Self>, _pa: u64, _size: u8) -> Option<u64> {
        None
    }

    /// Writes one.
    fn write_own(_h: &mut Hart<Self>, _pa: u64, _size: u8, _value: u64) -> Option<()> {
        None
    }

    /// An access of `size` bytes is not naturally aligned: an error makes it fault.
    fn misaligned(_h: &mut Hart<Self>, _access: Access, _size: u8) -> Step {
        Ok(())
    }

    /// Takes the trap for an exception: sets `h.core.pc`. An error of kind [`StopKind::Moved`] has set it too.
    fn trap(h: &mut Hart<Self>, stop: Stop) -> Step;

    /// Takes a pending interrupt, if one is enabled: sets `h.core.pc`. Called where [`Core::check_interrupts`] was set; if it sets that itself, the
    /// next instruction stands alone, and it is called again behind it. An error of kind [`StopKind::Wait`] makes the vCPU wait; with
    /// [`StopKind::Yield`] an instruction's time passes before it is called again.
    fn interrupt(h: &mut Hart<Self>) -> Step;

    /// An instruction jumps to an address in a register: an error makes it fault. What it has done before it jumps is done, and is
    /// for [`Arch::trap`] to undo.
    fn jumps_to(_h: &mut Hart<Self>, _target: u64) -> Step {
        Ok(())
    }

    /// A signal has reached the vCPU.
    fn signal(h: &mut Hart<Self>, signal: VcpuSignal);

    /// Virtual time has come to a point that [`Arch::wakes_at`] named.
    fn tick(h: &mut Hart<Self>);

    /// When the vCPU's own timers want [`Arch::tick`] next: a point of time to come. Asked when the vCPU calls for
    /// attention, and whenever the machine comes back to it.
    fn wakes_at(h: &Hart<Self>) -> Option<VirtualTime>;

    /// Whether a vCPU that waits has a reason to go on.
    fn is_awake(h: &Hart<Self>) -> bool;

    /// The vCPU's quantum ends: others may write to memory now.
    fn descheduled(&mut self);
}

/// Where indirect jumps and jumps to other pages look first.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct JumpEntry {
    pub pc: u64,
    pub key: u64,
    pub ops: *const Op,
}

pub(crate) const JUMP_ENTRIES: usize = 4096;

#[inline(always)]
pub(crate) fn jump_slot(pc: u64, mix: u64) -> usize {
    ((pc >> 1 ^ pc >> 13 ^ mix >> 5) as usize) & (JUMP_ENTRIES - 1)
}

/// The slow paths of micro-ops, monomorphic for one architecture. They return whether the instruction may go on.
pub(crate) struct Hooks {
    pub load: unsafe fn(*mut Core, u64, u8) -> bool,
    pub store: unsafe fn(*mut Core, u64, u8) -> bool,
    pub may_store: unsafe fn(*mut Core, u64, u8) -> bool,
    pub call: unsafe fn(*mut Core, u16, u32) -> bool,
    pub may_jump: unsafe fn(*mut Core, u64) -> bool,
    pub stopped: unsafe fn(*mut Core, Exit) -> Exit,
}

/// What micro-ops work on: the register file, the TLB, counters.
#[repr(C)]
pub struct Core {
    /// The guest's registers, then temporaries. First, so that a register number is an offset.
    pub regs: [u64; 256],
    pub(crate) space_id: u64,
    pub(crate) mix: u64,
    pub(crate) tlb: *const Fast,
    pub(crate) jumps: *const JumpEntry,
    /// What a jump-cache entry must carry to be valid.
    pub(crate) fetch_key: u64,
    pub(crate) hooks: &'static Hooks,
    pub(crate) world: *mut World,
    /// Where to go on; in a call, the address of its instruction.
    pub pc: u64,
    /// In a call that ends its block: where to go on afterwards. Set to the next instruction before the call.
    pub next_pc: u64,
    /// What was noted of the instruction that has just been stopped.
    pub note: u32,
    /// Set to look for interrupts before the next instruction.
    pub check_interrupts: bool,
    /// Set to leave after the present instruction: something has changed that only the run loop can see to.
    pub leave: bool,
    /// Set whenever something changes that [`Arch::space`] or [`Arch::mode`] depend on.
    pub spaces_changed: bool,
    pub(crate) in_block: bool,
    /// The stream at work leads nowhere else, and the run loop sees to whatever it ends with.
    pub(crate) is_alone: bool,
    pub(crate) op: *const Op,
    pub(crate) budget: i64,
    pub(crate) last: u64,
    pub(crate) value: u64,
    pub(crate) stop: Stop,
    pub(crate) unlinked: *mut Op,
    pub(crate) linked: Handler,
    /// The count of instructions at which the budget, with its reserve, is used up.
    pub(crate) end: u64,
    /// How the run ends, if a trap has ended it.
    pub(crate) run_end: RunEnd,
    /// The vCPU's index.
    pub index: u32,
    /// Translations.
    pub mmu: Tlb,
    pub(crate) jump_cache: Box<[JumpEntry]>,
    pub(crate) seen_fetch_epoch: u64,
    pub(crate) seen_code_epoch: u64,
    pub(crate) jump_epoch: u64,
    pub(crate) space_epoch: u64,
    pub(crate) fetch_space: Space,
    /// Spaces of loads and stores, by whom they are made as; see [`Arch::KEEPS_SPACES`].
    pub(crate) kept_spaces: [Space; 4],
    /// Spreads spaces over the jump cache.
    pub(crate) fetch_mix: u64,
    pub(crate) mode: u32,
    pub(crate) context: u64,
    /// Set, with [`Core::leave`], to come back to the machine: the vCPU's own timers have changed.
    pub attention: bool,
    /// Where the present run began, and what had been retired by this vCPU before.
    pub(crate) start: u64,
    pub(crate) retired: u64,
    /// What had been retired when the level last changed.
    pub(crate) level_mark: u64,
}

// SAFETY: the raw pointers lead into what the core owns, or into the world that is lent to it for one run.
unsafe impl Send for Core {}

unsafe fn never(_: *mut Core, _: *const Op, _: i64, _: u64) -> Exit {
    unreachable!("only a linkable exit is patched")
}

impl Core {
    fn new(index: u32, hooks: &'static Hooks) -> Self {
        let mmu = Tlb::default();
        let none = JumpEntry { pc: 0, key: 0, ops: std::ptr::null() };
        let jump_cache = vec![none; JUMP_ENTRIES].into_boxed_slice();
        Core {
            regs: [0; 256],
            space_id: 0,
            mix: 0,
            tlb: mmu.fast.as_ptr(),
            jumps: jump_cache.as_ptr(),
            fetch_key: 0,
            hooks,
            world: std::ptr::null_mut(),
            pc: 0,
            next_pc: 0,
            note: 0,
            check_interrupts: true,
            leave: false,
            spaces_changed: true,
            in_block: false,
            is_alone: false,
            op: std::ptr::null(),
            budget: 0,
            last: 0,
            value: 0,
            stop: Stop::of(StopKind::Shutdown),
            unlinked: std::ptr::null_mut(),
            linked: never,
            end: 0,
            run_end: RunEnd::Budget,
            index,
            mmu,
            jump_cache,
            seen_fetch_epoch: 0,
            seen_code_epoch: 0,
            jump_epoch: 0,
            space_epoch: 0,
            fetch_space: Space::NONE,
            kept_spaces: [Space::NONE; 4],
            fetch_mix: 0,
            mode: 0,
            context: 0,
            attention: false,
            start: 0,
            retired: 0,
            level_mark: 0,
        }
    }

    /// Instructions retired by the whole machine before the present one.
    #[inline]
    pub fn count(&self) -> u64 {
        // SAFETY: within a block, `op` is the micro-op that runs.
        let done_in_block = if self.in_block { unsafe { u64::from((*self.op).insn) } } else { 0 };
        self.end.wrapping_sub((self.budget + MAX_BLOCK as i64) as u64).wrapping_add(done_in_block)
    }

    /// Instructions retired by this vCPU before the present one; traps count as one each.
    #[inline]
    pub fn retired(&self) -> u64 {
        self.retired + (self.count() - self.start)
    }

    /// Something has changed that the run loop sees to before the next block.
    #[inline(always)]
    pub(crate) fn has_changed(&self) -> bool {
        self.leave
            || self.check_interrupts
            || self.spaces_changed
            || self.space_epoch != self.mmu.space_epoch
            || self.seen_fetch_epoch != self.mmu.fetch_epoch
            || !self.mmu.dropped_fetches.is_empty()
    }

    /// Blocks or translations of fetches may have gone: what the jump cache holds is void then. Returns whether that is so.
    pub(crate) fn see_epochs(&mut self, blocks: u64) -> bool {
        let is_void = self.seen_fetch_epoch != self.mmu.fetch_epoch || self.seen_code_epoch != blocks;
        if is_void {
            self.seen_fetch_epoch = self.mmu.fetch_epoch;
            self.seen_code_epoch = blocks;
            self.jump_epoch += 1;
            self.unlinked = std::ptr::null_mut();
        }
        is_void
    }

    /// Forgets jump-cache entries of pages whose fetch translation is gone.
    #[inline]
    pub(crate) fn void_dropped_fetches(&mut self) {
        if !self.mmu.dropped_fetches.is_empty() {
            self.void_jumps_to_dropped();
        }
    }

    #[cold]
    fn void_jumps_to_dropped(&mut self) {
        /// Of so many and more nobody looks for each.
        const MANY: usize = 8;
        let dropped = std::mem::take(&mut self.mmu.dropped_fetches);
        for e in self.jump_cache.iter_mut() {
            let tag = e.pc & !PAGE_MASK | e.key & PAGE_MASK;
            if dropped.len() >= MANY || dropped.contains(&tag) {
                e.key = 0;
            }
        }
    }

    /// Between runs: the machine's count is `count`.
    pub(crate) fn stand_at(&mut self, count: u64) {
        self.start = count;
        self.end = count;
        self.budget = -(MAX_BLOCK as i64);
    }

    pub(crate) fn retired_at_rest(&self) -> u64 {
        self.retired
    }

    pub(crate) fn set_retired(&mut self, retired: u64) {
        self.retired = retired;
        self.level_mark = retired;
    }

    /// Comes back to the machine after the present instruction: the vCPU's own timers have changed.
    #[inline]
    pub fn call_for_attention(&mut self) {
        self.leave = true;
        self.attention = true;
    }
}

/// Everything of the machine but the vCPUs: lent to a vCPU while it runs.
pub struct World {
    /// Guest RAM.
    pub ram: Ram,
    /// Devices and wires.
    pub bus: Bus,
    /// The door to the outside.
    pub door: Door,
    /// Virtual time.
    pub frequency: Frequency,
    /// The event stream and its statistics.
    pub events: Events,
    /// Breakpoints and watchpoints.
    pub debug: Debug,
    /// Words that the vCPUs' architectures share, such as a built-in firmware's.
    pub shared: Vec<u64>,
    pub(crate) blocks: BlockCache,
    /// Pages that hold translated code since lately: other vCPUs' TLBs must stop letting stores through to them.
    pub(crate) to_close: Vec<u64>,
    /// The earliest device wake-up that the present run was planned with.
    pub(crate) planned_wake: Option<VirtualTime>,
}

impl World {
    /// An empty machine room.
    pub fn new(frequency: Frequency) -> Self {
        World {
            ram: Ram::default(),
            bus: Bus::default(),
            door: Door::default(),
            frequency,
            events: Events::default(),
            debug: Debug::default(),
            shared: Vec::new(),
            blocks: BlockCache::default(),
            to_close: Vec::new(),
            planned_wake: None,
        }
    }

    pub(crate) fn bus_parts(&mut self, count: u64) -> (&mut Bus, BusCx<'_>) {
        self.door.count = count;
        let now = self.frequency.time_of(count);
        (&mut self.bus, BusCx { now, ram: &mut self.ram, door: &mut self.door })
    }
}

/// One vCPU: the engine's part and the architecture's.
#[repr(C)]
pub struct Vcpu<A> {
    /// What micro-ops work on. First, so that a pointer to it is a pointer to the vCPU.
    pub core: Core,
    /// Everything else.
    pub arch: A,
}

/// A vCPU at work: its two parts, and the machine around it.
pub struct Hart<'a, A> {
    /// What micro-ops work on.
    pub core: &'a mut Core,
    /// The architecture's state.
    pub arch: &'a mut A,
    /// The machine.
    pub world: &'a mut World,
}

impl<A: Arch> Vcpu<A> {
    /// A vCPU with all registers 0.
    pub fn new(index: u32, arch: A) -> Self {
        const { assert!(std::mem::offset_of!(Vcpu<A>, core) == 0) };
        Vcpu { core: Core::new(index, &Shim::<A>::HOOKS), arch }
    }

    /// The vCPU, at work in `world`.
    pub fn at<'a>(&'a mut self, world: &'a mut World) -> Hart<'a, A> {
        Hart { core: &mut self.core, arch: &mut self.arch, world }
    }
}

/// The one place where a core becomes its vCPU again.
struct Shim<A>(std::marker::PhantomData<A>);

impl<A: Arch> Shim<A> {
    const HOOKS: Hooks = Hooks {
        load: Self::load,
        store: Self::store,
        may_store: Self::may_store,
        call: Self::call,
        may_jump: Self::may_jump,
        stopped: Self::stopped,
    };

    /// # Safety
    /// `core` is the first field of a `Vcpu<A>` (only [`Vcpu::new`] pairs a core with these hooks), its `world` is lent
    /// for the present run, and no other reference to either is in use: micro-ops hold raw pointers only.
    unsafe fn hart<'a>(core: *mut Core) -> Hart<'a, A> {
        // SAFETY: by the caller.
        unsafe {
            let vcpu = &mut *core.cast::<Vcpu<A>>();
            Hart { world: &mut *vcpu.core.world, core: &mut vcpu.core, arch: &mut vcpu.arch }
        }
    }

    unsafe fn finish(h: Hart<A>, result: Step<u64>) -> bool {
        if h.world.ram.has_killed() {
            h.core.leave = true;
        }
        match result {
            Ok(value) => h.core.value = value,
            Err(stop) => h.core.stop = stop,
        }
        result.is_ok()
    }

    unsafe fn load(core: *mut Core, va: u64, size: u8) -> bool {
        // SAFETY: as for `hart`.
        unsafe {
            let mut h = Self::hart(core);
            let result = h.load(va, size, 0);
            Self::finish(h, result)
        }
    }

    unsafe fn store(core: *mut Core, va: u64, size: u8) -> bool {
        // SAFETY: as for `hart`.
        unsafe {
            let mut h = Self::hart(core);
            let result = h.store(va, size, h.core.value, 0);
            Self::finish(h, result.map(|()| 0))
        }
    }

    unsafe fn may_store(core: *mut Core, va: u64, size: u8) -> bool {
        // SAFETY: as for `hart`.
        unsafe {
            let mut h = Self::hart(core);
            let result = h.resolve(va, size, Intent::Write, 0);
            Self::finish(h, result.map(|_| 0))
        }
    }

    unsafe fn may_jump(core: *mut Core, target: u64) -> bool {
        // SAFETY: as for `hart`.
        unsafe {
            let mut h = Self::hart(core);
            let result = A::jumps_to(&mut h, target);
            Self::finish(h, result.map(|()| 0))
        }
    }

    unsafe fn stopped(core: *mut Core, exit: Exit) -> Exit {
        // SAFETY: as for `hart`.
        unsafe {
            let vcpu = &mut *core.cast::<Vcpu<A>>();
            let world = &mut *vcpu.core.world;
            vcpu.stopped_in_block(world, exit)
        }
    }

    unsafe fn call(core: *mut Core, function: u16, operand: u32) -> bool {
        // SAFETY: as for `hart`.
        unsafe {
            let mut h = Self::hart(core);
            let result = A::call(&mut h, function, operand);
            Self::finish(h, result.map(|()| 0))
        }
    }
}
