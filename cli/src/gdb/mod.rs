//! `--gdb`: the remote protocol of GDB. Every vCPU is a thread. No byte of the guest is patched.

mod riscv;
mod x86;

use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::ops::ControlFlow::{self, Break, Continue};

use emu_core::debug::Watch;
use emu_core::engine::Hart;
use emu_core::machine::{End, Machine};
use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::{Signal, Tid};
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::{Target, TargetError, TargetResult};

use crate::error::{UserError, about, tell};
use crate::inspect::{self, Question};
use crate::machine::Platform;
use crate::options::Isa;
use crate::report;
use crate::runner::{Ended, Runner};

/// What the debugger has to know of an architecture.
pub trait Debuggable: emu_core::engine::Arch + Clone + std::fmt::Debug + 'static {
    /// The description of its registers, as GDB's XML.
    fn description() -> &'static str;

    /// The size in bytes of the register of this number, if there is one.
    fn register_size(number: usize) -> Option<usize>;

    /// The registers that GDB asks for all at once.
    fn core_registers() -> std::ops::Range<usize>;

    /// The name of one of these.
    fn register_name(number: usize) -> &'static str;

    /// The instruction set and mode of what comes next.
    fn isa(&self) -> Isa;

    /// Reads a register, little-endian. One that this vCPU has not reads as 0: GDB asks for all that the description names.
    fn read_register(h: &mut Hart<'_, Self>, number: usize) -> u64;

    /// Writes a register; `false` if that cannot be.
    fn write_register(h: &mut Hart<'_, Self>, number: usize, value: u64) -> bool;

    /// The physical address of a virtual one, without a trace in the guest.
    fn translate(h: &mut Hart<'_, Self>, va: u64, view: View) -> Option<u64>;
}

/// Whose addresses are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Those that the vCPU uses.
    Current,
    /// Those of the guest that the vCPU last ran.
    Guest,
    /// Physical.
    Physical,
}

/// An architecture as gdbstub knows it.
pub struct Described<A>(PhantomData<A>);

/// Core registers, as bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Core {
    bytes: Vec<u8>,
    pc: u64,
}

impl Registers for Core {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|b| write_byte(Some(*b)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

/// A register's number.
#[derive(Debug)]
pub struct Number<A>(usize, PhantomData<A>);

impl<A: Debuggable> RegId for Number<A> {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let size = A::register_size(id)?;
        Some((Number(id, PhantomData), NonZeroUsize::new(size)))
    }
}

impl<A: Debuggable> Arch for Described<A> {
    type Usize = u64;
    type Registers = Core;
    type BreakpointKind = usize;
    type RegId = Number<A>;

    fn target_description_xml() -> Option<&'static str> {
        Some(A::description())
    }
}

/// What GDB debugs.
struct Debugged<'r, 'a, A: Platform> {
    runner: &'r mut Runner<'a, A>,
    breakpoints: Vec<u64>,
    watches: Vec<Watch>,
    /// The hart that is to take one step.
    step: Option<usize>,
    view: View,
    /// Why the run has ended.
    ended: Option<Ended>,
}

/// A number of up to eight bytes, little-endian.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn hart_of(tid: Tid) -> usize {
    tid.get() - 1
}

fn tid_of(hart: u32) -> Tid {
    Tid::new(hart as usize + 1).expect("it is not 0")
}

impl<A: Platform> Debugged<'_, '_, A> {
    fn set_stops(&mut self) {
        self.runner.machine.set_stops(self.breakpoints.iter().copied(), self.watches.clone());
    }

    /// The physical address of `va`, and how many bytes lie with it in its page.
    fn place(&mut self, hart: usize, va: u64) -> Option<(u64, usize)> {
        let view = self.view;
        let h = &mut self.runner.machine.vcpus[hart].at(&mut self.runner.machine.world);
        let pa = A::translate(h, va, view)?;
        Some((pa, 4096 - (va & 0xfff) as usize))
    }
}

impl<A: Platform> Target for Debugged<'_, '_, A> {
    type Arch = Described<A>;
    type Error = &'static str;

    fn base_ops(&mut self) -> BaseOps<'_, Described<A>, &'static str> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl<A: Platform> MultiThreadBase for Debugged<'_, '_, A> {
    fn read_registers(&mut self, regs: &mut Core, tid: Tid) -> TargetResult<(), Self> {
        let vcpu = &mut self.runner.machine.vcpus[hart_of(tid)];
        regs.pc = vcpu.core.pc;
        regs.bytes.clear();
        let mut h = vcpu.at(&mut self.runner.machine.world);
        for n in A::core_registers() {
            let value = A::read_register(&mut h, n).to_le_bytes();
            let size = A::register_size(n).unwrap_or(0);
            regs.bytes.extend((0..size).map(|i| value.get(i).copied().unwrap_or(0)));
        }
        Ok(())
    }

    fn write_registers(&mut self, regs: &Core, tid: Tid) -> TargetResult<(), Self> {
        let mut h = self.runner.machine.vcpus[hart_of(tid)].at(&mut self.runner.machine.world);
        let mut rest = regs.bytes.as_slice();
        for n in A::core_registers() {
            let size = A::register_size(n).unwrap_or(0);
            let (bytes, after) = rest.split_at_checked(size).ok_or(TargetError::NonFatal)?;
            A::write_register(&mut h, n, number(bytes));
            rest = after;
        }
        Ok(())
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let mut done = 0;
        while done < data.len() {
            let Some((pa, room)) = self.place(hart_of(tid), start.wrapping_add(done as u64)) else { break };
            let n = room.min(data.len() - done);
            if self.runner.machine.world.ram.read(pa, &mut data[done..done + n]).is_err() {
                break;
            }
            done += n;
        }
        if done == 0 { Err(TargetError::NonFatal) } else { Ok(done) }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let mut done = 0;
        while done < data.len() {
            let at = start.wrapping_add(done as u64);
            let (pa, room) = self.place(hart_of(tid), at).ok_or(TargetError::NonFatal)?;
            let n = room.min(data.len() - done);
            self.runner.machine.world.ram.write(pa, &data[done..done + n]).map_err(|_| TargetError::NonFatal)?;
            done += n;
        }
        // Translated code may have been written.
        self.set_stops();
        Ok(())
    }

    fn list_active_threads(&mut self, thread_is_active: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        (0..self.runner.machine.vcpus.len() as u32).for_each(|h| thread_is_active(tid_of(h)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl<A: Platform> SingleRegisterAccess<Tid> for Debugged<'_, '_, A> {
    fn read_register(&mut self, tid: Tid, Number(n, _): Number<A>, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let mut h = self.runner.machine.vcpus[hart_of(tid)].at(&mut self.runner.machine.world);
        let value = A::read_register(&mut h, n).to_le_bytes();
        let size = A::register_size(n).unwrap_or(0).min(buf.len());
        buf[..size].iter_mut().enumerate().for_each(|(i, b)| *b = value.get(i).copied().unwrap_or(0));
        Ok(size)
    }

    fn write_register(&mut self, tid: Tid, Number(n, _): Number<A>, value: &[u8]) -> TargetResult<(), Self> {
        let mut h = self.runner.machine.vcpus[hart_of(tid)].at(&mut self.runner.machine.world);
        if A::write_register(&mut h, n, number(value)) { Ok(()) } else { Err(TargetError::NonFatal) }
    }
}

impl<A: Platform> MultiThreadResume for Debugged<'_, '_, A> {
    fn resume(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        self.step = None;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

/// A step is always of one hart alone. Harts that go on, go on together: time is one for all of them.
impl<A: Platform> MultiThreadSchedulerLocking for Debugged<'_, '_, A> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl<A: Platform> MultiThreadSingleStep for Debugged<'_, '_, A> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.step = Some(hart_of(tid));
        Ok(())
    }
}

impl<A: Platform> Breakpoints for Debugged<'_, '_, A> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl<A: Platform> SwBreakpoint for Debugged<'_, '_, A> {
    fn add_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.breakpoints.push(addr);
        self.set_stops();
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        let at = self.breakpoints.iter().position(|b| *b == addr);
        at.map(|i| self.breakpoints.remove(i));
        self.set_stops();
        Ok(at.is_some())
    }
}

impl<A: Platform> HwBreakpoint for Debugged<'_, '_, A> {
    fn add_hw_breakpoint(&mut self, addr: u64, kind: usize) -> TargetResult<bool, Self> {
        self.add_sw_breakpoint(addr, kind)
    }

    fn remove_hw_breakpoint(&mut self, addr: u64, kind: usize) -> TargetResult<bool, Self> {
        self.remove_sw_breakpoint(addr, kind)
    }
}

fn watch(va: u64, len: u64, kind: WatchKind) -> Watch {
    Watch { va, len: len.max(1), on_read: kind != WatchKind::Write, on_write: kind != WatchKind::Read }
}

impl<A: Platform> HwWatchpoint for Debugged<'_, '_, A> {
    fn add_hw_watchpoint(&mut self, addr: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        self.watches.push(watch(addr, len, kind));
        self.set_stops();
        Ok(true)
    }

    fn remove_hw_watchpoint(&mut self, addr: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let at = self.watches.iter().position(|w| *w == watch(addr, len, kind));
        at.map(|i| self.watches.remove(i));
        self.set_stops();
        Ok(at.is_some())
    }
}

impl<A: Platform> MonitorCmd for Debugged<'_, '_, A> {
    fn handle_monitor_cmd(&mut self, cmd: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Self::Error> {
        let text = String::from_utf8_lossy(cmd);
        let words: Vec<&str> = text.split_whitespace().collect();
        let answer = self.monitor(&words).unwrap_or_else(|e| format!("{}\n", e.0));
        out.write_raw(answer.as_bytes());
        Ok(())
    }
}

const HELP: &str = "\
memory [current|physical|guest]     whose addresses the debugger uses
count                               where the machine is
stats                               exits by level and reason, entries that failed
inspect [vcpu N]                    state of the vCPUs, with the VMCS or VMCB and the names of its bits
inspect vmcs ADDRESS                the VMCS in a region of memory, ordinary or shadow
inspect vmcb ADDRESS                the VMCB at an address, and what a processor holds of it
walk ADDRESS [va|gva|gpa|pa] [vcpu N]
                                    paging and the second stage, step by step
vmx [vcpu N]                        VMX operation, and the last VM entry that failed
svm [vcpu N]                        SVM: GIF, MSRs, the present VMCB, the last VMRUN that failed
";

impl<A: Platform> Debugged<'_, '_, A> {
    /// What a monitor command says.
    fn monitor(&mut self, words: &[&str]) -> Result<String, UserError> {
        let machine = &mut self.runner.machine;
        match words {
            ["memory"] => {}
            ["memory", "current"] => self.view = View::Current,
            ["memory", "physical"] => self.view = View::Physical,
            ["memory", "guest"] => self.view = View::Guest,
            ["count"] => return Ok(format!("{} instructions, {} ns\n", machine.retired(), machine.now())),
            ["stats"] => {
                machine.settle_stats();
                return Ok(report::stats_table(&machine.world.events.stats, A::reason_name));
            }
            [command @ ("inspect" | "walk" | "vmx" | "svm"), rest @ ..] => {
                return inspect::answer(machine, &Question::of_words(command, rest)?);
            }
            _ => return Ok(HELP.to_owned()),
        }
        Ok(format!("memory: {:?}\n", self.view))
    }
}

/// How GDB's packets and the machine's slices alternate.
struct Loop<'r, 'a, A>(PhantomData<(&'r &'a (), A)>);

type Stop = MultiThreadStopReason<u64>;

/// What the debugger is told; nothing if there is nothing to tell.
fn stop_reason(end: &ControlFlow<Ended, End>) -> Option<Stop> {
    match end {
        Continue(End::Breakpoint(hart)) => Some(Stop::SwBreak(tid_of(*hart))),
        Continue(End::Watchpoint(hit)) => {
            let kind = if hit.write { WatchKind::Write } else { WatchKind::Read };
            Some(Stop::Watch { tid: tid_of(hit.vcpu), kind, addr: hit.watch.va })
        }
        Continue(_) => None,
        Break(ended) if ended.code == 3 => Some(Stop::Terminated(Signal::SIGABRT)),
        Break(ended) => Some(Stop::Exited(ended.guest_code.unwrap_or(ended.code.into()) as u8)),
    }
}

impl<'r, 'a: 'r, A: Platform> BlockingEventLoop for Loop<'r, 'a, A> {
    type Target = Debugged<'r, 'a, A>;
    type Connection = TcpStream;
    type StopReason = Stop;

    fn wait_for_stop_reason(
        target: &mut Self::Target,
        conn: &mut TcpStream,
    ) -> Result<Event<Stop>, WaitForStopReasonError<&'static str, std::io::Error>> {
        if let Some(hart) = target.step.take() {
            let end = target.runner.slice(|machine, _| machine.step(hart));
            let stop = stop_reason(&end).unwrap_or(Stop::DoneStep);
            target.ended = end.break_value();
            return Ok(Event::TargetStopped(stop));
        }
        let mut run: fn(&mut Machine<A>, u64) -> End = Machine::run_past_breakpoint;
        loop {
            if conn.peek().map_err(WaitForStopReasonError::Connection)?.is_some() {
                let byte = ConnectionExt::read(conn).map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
            let end = target.runner.slice(run);
            run = Machine::run;
            if let Some(stop) = stop_reason(&end) {
                target.ended = end.break_value();
                return Ok(Event::TargetStopped(stop));
            }
        }
    }

    fn on_interrupt(target: &mut Self::Target) -> Result<Option<Stop>, &'static str> {
        let hart = target.runner.machine.current() as u32;
        Ok(Some(Stop::SignalWithThread { tid: tid_of(hart), signal: Signal::SIGINT }))
    }
}

/// Takes the address, before anything else is done.
pub fn listen(address: &str) -> Result<TcpListener, UserError> {
    TcpListener::bind(address).map_err(|e| about(format!("--gdb {address}"), e))
}

/// Waits for a debugger, and lets it have the run. Returns how the run ended, if it has.
pub fn serve<A: Platform>(listener: TcpListener, runner: &mut Runner<A>) -> Result<Option<Ended>, UserError> {
    let at = listener.local_addr()?;
    tell(format!("waiting for a debugger at {at}"));
    let (stream, _) = listener.accept().map_err(|e| about(at, e))?;
    drop(listener);
    let (breakpoints, watches) = (Vec::new(), Vec::new());
    let mut target = Debugged { runner, breakpoints, watches, step: None, view: View::Current, ended: None };
    let result = GdbStub::new(stream).run_blocking::<Loop<A>>(&mut target);
    target.runner.machine.set_stops([], Vec::new());
    Ok(match result {
        Ok(DisconnectReason::Disconnect) => None,
        Ok(DisconnectReason::Kill) => Some(Ended::new(0, "quit", "ended by the debugger")),
        Ok(DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_)) => target.ended,
        // A debugger that goes away without a word leaves the machine to itself, unless that has ended.
        Err(e) => {
            tell(format!("the debugger is gone: {e}"));
            target.ended
        }
    })
}
