//! The machine: vCPUs that take turns on one host thread, events in virtual time, and why it stopped.
//!
//! Everything here is a function of the guest and of what came through the door. The count of instructions is the only
//! clock; one quantum of one vCPU follows another, so instructions of all vCPUs are in one total order.

use serde::{Deserialize, Serialize};

use crate::debug::{Watch, WatchHit};
use crate::device::Request;
use crate::engine::flags::{FLAGS_KIND, FLAGS_Y};
use crate::engine::{Arch, RunEnd, Stop, Vcpu, World};
use crate::ram::RamImage;
use crate::random::SplitMix64;
use crate::time::{Frequency, VirtualTime, earlier};
use crate::tlb::TlbState;

/// The default quantum, in instructions.
pub const DEFAULT_QUANTUM: u64 = 20_000;

/// What a pause takes where no other vCPU can run, in the time of so many instructions.
pub const PAUSE: u64 = 100;

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    quantum: u64,
    /// State of the generator that varies quanta and order; 0 is round robin with equal quanta.
    random: SplitMix64,
    varies: bool,
    current: usize,
    /// Instructions left of the present turn.
    left: u64,
}

impl Schedule {
    /// Round robin with equal quanta for seed 0; with any other, quanta of half to one and a half times as much, in an
    /// order that follows from the seed.
    pub fn new(quantum: u64, seed: u64) -> Self {
        let mut s =
            Schedule { quantum: quantum.max(1), random: SplitMix64(seed), varies: seed != 0, current: 0, left: 0 };
        s.left = s.next_quantum();
        s
    }

    fn next_quantum(&mut self) -> u64 {
        if !self.varies {
            return self.quantum;
        }
        (self.quantum / 2 + self.random.below(self.quantum + 1)).max(1)
    }

    /// Gives the turn to the next of the vCPUs that can run, if there is one.
    fn turn(&mut self, can_run: &[bool]) -> bool {
        // Nothing is drawn for nobody: how often a machine that waits is looked at must not be seen later.
        if !can_run.contains(&true) {
            return false;
        }
        let n = can_run.len();
        let first = if self.varies { self.random.below(n as u64) as usize } else { (self.current + 1) % n };
        let Some(next) = (0..n).map(|i| (first + i) % n).find(|i| can_run[*i]) else { return false };
        self.current = next;
        self.left = self.next_quantum();
        true
    }
}

/// Why the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The instruction count that was asked for has been reached.
    Limit,
    /// The guest powered the machine off; 0 is success.
    PowerOff(u32),
    /// The guest asked for a reset.
    Reset,
    /// All vCPUs wait, and nothing will ever wake them.
    Deadlock,
    /// All vCPUs wait until this virtual time (`None`: for input). Only if [`Machine::stops_when_idle`].
    Idle(Option<VirtualTime>),
    /// The architecture of a vCPU cannot go on.
    Shutdown(u32, Stop),
    /// This vCPU is at a breakpoint.
    Breakpoint(u32),
    /// A watched range was accessed, by the instruction before the present one.
    Watchpoint(WatchHit),
}

/// A computer.
pub struct Machine<A: Arch> {
    /// RAM, devices, time.
    pub world: World,
    /// The vCPUs.
    pub vcpus: Vec<Vcpu<A>>,
    /// Comes back with [`End::Idle`] instead of jumping ahead in time: typed input may come.
    pub stops_when_idle: bool,
    /// Comes back with [`End::Limit`] when the clock ([`Machine::count`]) has come to this.
    pub stops_at: u64,
    waiting: Vec<bool>,
    /// When the timers of each vCPU want their tick, as of the last look at them.
    planned: Vec<Option<VirtualTime>>,
    schedule: Schedule,
    /// Instructions retired, and idle time skipped, in instructions.
    count: u64,
    idle: u64,
}

/// Everything that a guest could see, but RAM.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct State<A: Arch> {
    frequency: Frequency,
    schedule: Schedule,
    count: u64,
    idle: u64,
    waiting: Vec<bool>,
    vcpus: Vec<VcpuState<A>>,
    devices: Vec<(String, Vec<u8>)>,
    input: Vec<std::collections::VecDeque<u8>>,
    shared: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct VcpuState<A: Arch> {
    regs: Vec<u64>,
    pc: u64,
    retired: u64,
    check_interrupts: bool,
    arch: A,
    tlb: TlbState,
}

/// The registers that outlive an instruction: the architecture's, and the flags'.
fn held_registers<A: Arch>() -> impl Iterator<Item = usize> {
    (0..A::REGISTERS).chain(usize::from(FLAGS_KIND)..=usize::from(FLAGS_Y))
}

/// A machine at one moment.
#[derive(Clone)]
pub struct Image {
    /// Everything but RAM, serialized.
    pub state: Vec<u8>,
    /// RAM.
    pub ram: RamImage,
}

impl<A: Arch + Clone> Machine<A> {
    /// A machine with these vCPUs, in this world.
    pub fn new(world: World, arches: Vec<A>, schedule: Schedule) -> Self {
        let vcpus: Vec<_> = arches.into_iter().enumerate().map(|(i, arch)| Vcpu::new(i as u32, arch)).collect();
        assert!(!vcpus.is_empty(), "a machine has a vCPU");
        Machine {
            waiting: vec![false; vcpus.len()],
            planned: vec![None; vcpus.len()],
            world,
            vcpus,
            stops_when_idle: false,
            stops_at: u64::MAX,
            schedule,
            count: 0,
            idle: 0,
        }
    }

    /// Instructions retired, and idle time skipped: the machine's clock.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Instructions retired by all vCPUs; a trap counts as one.
    pub fn retired(&self) -> u64 {
        self.count - self.idle
    }

    /// Virtual time in nanoseconds.
    pub fn now(&self) -> VirtualTime {
        self.world.frequency.time_of(self.count)
    }

    /// The vCPU whose turn it is.
    pub fn current(&self) -> usize {
        self.schedule.current
    }

    /// Whether a vCPU waits for an interrupt.
    pub fn is_waiting(&self, vcpu: usize) -> bool {
        self.waiting[vcpu]
    }

    /// A vCPU does not run before a signal wakes it.
    pub fn set_waiting(&mut self, vcpu: usize) {
        self.waiting[vcpu] = true;
    }

    /// Runs until something stops the machine, at the latest when `limit` instructions have been retired
    /// ([`Machine::retired`]).
    pub fn run(&mut self, limit: u64) -> End {
        loop {
            self.see_to_events();
            match self.world.bus.request.take() {
                Some(Request::PowerOff { code }) => return End::PowerOff(code),
                Some(Request::Reset) => return End::Reset,
                None => {}
            }
            if self.retired() >= limit || self.count >= self.stops_at {
                return End::Limit;
            }
            let next_event = self.next_event();
            let current = self.schedule.current;
            // A turn that is over goes on while nobody else can run.
            let is_over = self.schedule.left == 0 && !self.is_alone();
            if is_over || self.waiting[current] {
                if is_over {
                    self.vcpus[current].arch.descheduled();
                }
                let can_run: Vec<bool> = self.waiting.iter().map(|w| !w).collect();
                if !self.schedule.turn(&can_run) {
                    if self.stops_when_idle {
                        return End::Idle(next_event);
                    }
                    if !self.skip_idle() {
                        return End::Deadlock;
                    }
                    continue;
                }
            }
            let mut n = (limit - self.retired()).min(self.stops_at - self.count);
            if !self.is_alone() {
                n = n.min(self.schedule.left);
            }
            if let Some(at) = next_event {
                n = n.min(self.world.frequency.instructions_until(at).saturating_sub(self.count)).max(1);
            }
            self.world.planned_wake = self.world.bus.wakes_at();
            let current = self.schedule.current;
            let (done, end) = self.vcpus[current].run(&mut self.world, self.count, n);
            self.count += done;
            self.schedule.left = self.schedule.left.saturating_sub(done);
            self.close_pages();
            match end {
                RunEnd::Budget | RunEnd::Attention => {}
                RunEnd::Wait => {
                    self.waiting[current] = true;
                    self.vcpus[current].arch.descheduled();
                }
                RunEnd::Yield => self.give_way(),
                RunEnd::Debug => return End::Breakpoint(current as u32),
                RunEnd::Shutdown(stop) => return End::Shutdown(current as u32, stop),
            }
            if let Some(hit) = self.world.debug.hit.take() {
                return End::Watchpoint(hit);
            }
        }
    }

    /// Whether no vCPU but that whose turn it is can run.
    fn is_alone(&self) -> bool {
        self.waiting.iter().enumerate().all(|(i, waits)| i == self.schedule.current || *waits)
    }

    /// The vCPU gives its turn to the others. If there are none, a little time passes, as it does in a processor that is
    /// told to pause.
    fn give_way(&mut self) {
        self.schedule.left = 0;
        if !self.is_alone() {
            return;
        }
        let until_event = self
            .next_event()
            .map_or(u64::MAX, |at| self.world.frequency.instructions_until(at).saturating_sub(self.count));
        let pause = PAUSE.min(until_event);
        self.count += pause;
        self.idle += pause;
    }

    /// Gives ticks to whatever is due, carries signals to vCPUs, and wakes those that have a reason to go on.
    fn see_to_events(&mut self) {
        let now = self.now();
        if self.world.bus.wakes_at().is_some_and(|t| t <= now) {
            let count = self.count;
            let (bus, cx) = self.world.bus_parts(count);
            bus.tick(cx);
        }
        // A signal or tick may call for others: a message to a vCPU that starts it, a timer that is due at once.
        loop {
            let signals = std::mem::take(&mut self.world.bus.for_vcpus);
            let none = signals.is_empty();
            for (vcpu, signal) in signals {
                if let Some(v) = self.vcpus.get_mut(vcpu as usize) {
                    v.core.stand_at(self.count);
                    A::signal(&mut v.at(&mut self.world), signal);
                }
            }
            for i in 0..self.vcpus.len() {
                let v = &mut self.vcpus[i];
                v.core.stand_at(self.count);
                let mut h = v.at(&mut self.world);
                if self.planned[i].is_some_and(|t| t <= now) {
                    self.planned[i] = None;
                    A::tick(&mut h);
                }
                if self.waiting[i] && A::is_awake(&h) {
                    self.waiting[i] = false;
                }
            }
            if none {
                break;
            }
        }
    }

    /// The next point of virtual time at which something happens by itself.
    pub fn next_event(&mut self) -> Option<VirtualTime> {
        let mut next = self.world.bus.wakes_at();
        for (v, planned) in self.vcpus.iter_mut().zip(&mut self.planned) {
            v.core.stand_at(self.count);
            let at = A::wakes_at(&v.at(&mut self.world));
            *planned = at;
            next = earlier(next, at);
        }
        next
    }

    /// Jumps to the next event; false if there is none.
    pub fn skip_idle(&mut self) -> bool {
        let Some(at) = self.next_event() else { return false };
        let to = self.world.frequency.instructions_until(at).max(self.count);
        self.idle += to - self.count;
        self.count = to;
        true
    }

    /// Input arrives at console `port` now.
    pub fn arrive(&mut self, port: u32, bytes: &[u8]) {
        let count = self.count;
        self.world.door.count = count;
        self.world.door.arrive(port, bytes);
        let (bus, cx) = self.world.bus_parts(count);
        bus.tick_all(cx);
    }

    /// Pages that hold translated code since lately are closed to the stores of all vCPUs.
    fn close_pages(&mut self) {
        for pa in std::mem::take(&mut self.world.to_close) {
            for v in &mut self.vcpus {
                v.core.mmu.close_stores_to(pa);
            }
        }
    }

    /// Replaces breakpoints (virtual addresses) and watchpoints.
    pub fn set_stops(&mut self, breakpoints: impl IntoIterator<Item = u64>, watches: Vec<Watch>) {
        *self.world.debug.breakpoints_mut() = breakpoints.into_iter().collect();
        *self.world.debug.watches_mut() = watches;
        self.world.blocks.clear(&mut self.world.ram);
        for v in &mut self.vcpus {
            v.core.mmu.close_all();
        }
    }

    /// As [`Machine::run`], but a breakpoint at the present instruction does not stop it again.
    pub fn run_past_breakpoint(&mut self, limit: u64) -> End {
        self.world.debug.passing = true;
        let end = self.run(limit.min(self.retired() + 1));
        self.world.debug.passing = false;
        if end == End::Limit && self.retired() < limit { self.run(limit) } else { end }
    }

    /// Takes one step of one vCPU, whose turn it is from now on.
    pub fn step(&mut self, vcpu: usize) -> End {
        if !self.waiting[vcpu] {
            self.schedule.current = vcpu;
            self.schedule.left = self.schedule.left.max(1);
        }
        self.run_past_breakpoint(self.retired() + 1)
    }

    /// The machine at this moment.
    pub fn save(&mut self) -> Image {
        // What is on its way to a vCPU arrives, as it would before anything else.
        self.see_to_events();
        let vcpus = self.vcpus.iter().map(|v| VcpuState {
            regs: held_registers::<A>().map(|r| v.core.regs[r]).collect(),
            pc: v.core.pc,
            retired: v.core.retired_at_rest(),
            check_interrupts: v.core.check_interrupts,
            arch: v.arch.clone(),
            tlb: v.core.mmu.save(),
        });
        let state = State {
            frequency: self.world.frequency,
            schedule: self.schedule.clone(),
            count: self.count,
            idle: self.idle,
            waiting: self.waiting.clone(),
            vcpus: vcpus.collect(),
            devices: self.world.bus.devices().map(|d| (d.name().to_owned(), d.save())).collect(),
            input: self.world.door.waiting().to_vec(),
            shared: self.world.shared.clone(),
        };
        let ram = self.world.ram.snapshot();
        for v in &mut self.vcpus {
            v.core.mmu.forget_writes();
        }
        Image { state: crate::to_bytes(&state), ram }
    }

    /// Puts the machine back to an image of it, or of another machine of the same make. An error says what does not fit;
    /// the machine must not be run then.
    pub fn restore(&mut self, image: &Image) -> Result<(), String> {
        let state: State<A> = crate::from_bytes(&image.state)?;
        if state.vcpus.len() != self.vcpus.len() || state.waiting.len() != self.vcpus.len() {
            return Err(format!("it has {} vCPUs, this machine {}", state.vcpus.len(), self.vcpus.len()));
        }
        let names: Vec<_> = self.world.bus.devices().map(|d| d.name()).collect();
        if state.devices.len() != names.len() || !state.devices.iter().zip(&names).all(|((a, _), b)| a == b) {
            return Err("its devices are not those of this machine".into());
        }
        if state.schedule.current >= self.vcpus.len() {
            return Err("its schedule names a vCPU that there is not".into());
        }
        self.world.ram.restore(&image.ram).map_err(|e| e.to_string())?;
        self.world.blocks.clear(&mut self.world.ram);
        for (device, (name, bytes)) in self.world.bus.devices_mut().zip(&state.devices) {
            device.restore(bytes).map_err(|e| format!("device {name}: {e}"))?;
        }
        self.world.bus.refresh();
        // What devices have had to say to processors when the machine was built is not of this state.
        self.world.bus.for_vcpus.clear();
        self.world.door.set_waiting(state.input);
        self.world.shared = state.shared;
        self.world.frequency = state.frequency;
        for (v, s) in self.vcpus.iter_mut().zip(state.vcpus) {
            if s.regs.len() != held_registers::<A>().count() {
                return Err("a vCPU's register file has another size".into());
            }
            let index = v.core.index;
            *v = Vcpu::new(index, s.arch);
            held_registers::<A>().zip(&s.regs).for_each(|(r, value)| v.core.regs[r] = *value);
            v.core.pc = s.pc;
            v.core.set_retired(s.retired);
            v.core.check_interrupts = s.check_interrupts;
            v.core.mmu.restore(&s.tlb)?;
        }
        self.schedule = state.schedule;
        self.waiting = state.waiting;
        self.planned.fill(None);
        self.count = state.count;
        self.idle = state.idle;
        // Whoever looks at a vCPU before it runs finds it at that count.
        self.vcpus.iter_mut().for_each(|v| v.core.stand_at(state.count));
        Ok(())
    }

    /// A hash of everything that a guest could see: BLAKE3 of the state and of all pages that are not all zero.
    pub fn state_hash(&mut self) -> [u8; 32] {
        let image = self.save();
        let mut hash = blake3::Hasher::new();
        hash.update(&image.state);
        for (pa, page) in image.ram.pages() {
            hash.update(&pa.to_le_bytes());
            hash.update(page);
        }
        for pa in image.ram.read_only() {
            hash.update(&pa.to_le_bytes());
        }
        hash.finalize().into()
    }

    /// Brings the counts of instructions by level up to date.
    pub fn settle_stats(&mut self) {
        for v in &mut self.vcpus {
            v.core.stand_at(self.count);
            let mut h = v.at(&mut self.world);
            let level = h.arch.level();
            h.count_level(level);
        }
    }
}
