//! `--gdb`: the remote protocol of GDB. Every hart is a thread. No byte of the guest is patched.

use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::LazyLock;

use emu_core::debug::Watch;
use emu_core::machine::{End, Machine};
use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::{Signal, Tid};
use gdbstub::conn::ConnectionExt;
use gdbstub::outputln;
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
use riscv::hart::{Priv, Riscv};
use riscv::privileged::csr_access::{peek, poke};
use riscv::privileged::{CSR_NAMES, View, debug_translate};

use crate::error::{UserError, about, tell};
use crate::runner::{Ended, Runner};

/// GDB's numbers of registers (its documentation, "RISC-V Features").
const PC: usize = 32;
const FIRST_F: usize = 33;
const FIRST_CSR: usize = 65;
const PRIV: usize = FIRST_CSR + 4096;
const V: usize = PRIV + 1;

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>riscv:rv64</architecture><feature name=\"org.gnu.gdb.riscv.cpu\">",
    );
    const NAMES: [&str; 32] = [
        "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
        "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
    ];
    let reg = |name: &str, kind: &str, number: usize| {
        format!("<reg name=\"{name}\" bitsize=\"64\" type=\"{kind}\" regnum=\"{number}\"/>")
    };
    NAMES.iter().enumerate().for_each(|(i, n)| xml += &reg(n, "int", i));
    xml += &reg("pc", "code_ptr", PC);
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.fpu\">";
    const FLOATS: [&str; 32] = [
        "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
        "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10",
        "ft11",
    ];
    FLOATS.iter().enumerate().for_each(|(i, n)| xml += &reg(n, "ieee_double", FIRST_F + i));
    let csr = |(number, name): &(u16, &str)| reg(name, "int", FIRST_CSR + usize::from(*number));
    CSR_NAMES.iter().filter(|(n, _)| *n <= 3).for_each(|c| xml += &csr(c));
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.csr\">";
    CSR_NAMES.iter().filter(|(n, _)| *n > 3).for_each(|c| xml += &csr(c));
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.virtual\">";
    xml += &reg("priv", "int", PRIV);
    xml += &reg("v", "int", V);
    xml + "</feature></target>"
});

/// RV64 as GDB sees it.
pub enum Rv64 {}

/// x0 to x31 and pc; everything else is asked for one by one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Core {
    x: [u64; 32],
    pc: u64,
}

impl Registers for Core {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let words = self.x.iter().chain([&self.pc]);
        words.flat_map(|w| w.to_le_bytes()).for_each(|b| write_byte(Some(b)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let words: Vec<u64> =
            bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().expect("8 bytes"))).collect();
        let [x @ .., pc] = words.get(..33).ok_or(())? else { return Err(()) };
        self.x = x.try_into().map_err(|_| ())?;
        self.pc = *pc;
        Ok(())
    }
}

/// A register's number.
#[derive(Clone, Copy, Debug)]
pub struct Number(usize);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        (id <= V).then_some((Number(id), NonZeroUsize::new(8)))
    }
}

impl Arch for Rv64 {
    type Usize = u64;
    type Registers = Core;
    type BreakpointKind = usize;
    type RegId = Number;

    fn target_description_xml() -> Option<&'static str> {
        Some(&DESCRIPTION)
    }
}

/// What GDB debugs.
struct Debugged<'r, 'a> {
    runner: &'r mut Runner<'a>,
    breakpoints: Vec<u64>,
    watches: Vec<Watch>,
    /// The hart that is to take one step.
    step: Option<usize>,
    view: View,
    /// Why the run has ended.
    ended: Option<Ended>,
}

fn hart_of(tid: Tid) -> usize {
    tid.get() - 1
}

fn tid_of(hart: u32) -> Tid {
    Tid::new(hart as usize + 1).expect("it is not 0")
}

impl Debugged<'_, '_> {
    fn set_stops(&mut self) {
        self.runner.machine.set_stops(self.breakpoints.iter().copied(), self.watches.clone());
    }

    /// The physical address of `va`, and how many bytes lie with it in its page.
    fn place(&mut self, hart: usize, va: u64) -> Option<(u64, usize)> {
        let view = self.view;
        let h = &mut self.runner.machine.vcpus[hart].at(&mut self.runner.machine.world);
        let pa = debug_translate(h, va, view)?;
        Some((pa, 4096 - (va & 0xfff) as usize))
    }
}

impl Target for Debugged<'_, '_> {
    type Arch = Rv64;
    type Error = &'static str;

    fn base_ops(&mut self) -> BaseOps<'_, Rv64, &'static str> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Debugged<'_, '_> {
    fn read_registers(&mut self, regs: &mut Core, tid: Tid) -> TargetResult<(), Self> {
        let core = &self.runner.machine.vcpus[hart_of(tid)].core;
        regs.x.copy_from_slice(&core.regs[..32]);
        regs.pc = core.pc;
        Ok(())
    }

    fn write_registers(&mut self, regs: &Core, tid: Tid) -> TargetResult<(), Self> {
        let core = &mut self.runner.machine.vcpus[hart_of(tid)].core;
        core.regs[1..32].copy_from_slice(&regs.x[1..]);
        core.pc = regs.pc;
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

impl SingleRegisterAccess<Tid> for Debugged<'_, '_> {
    fn read_register(&mut self, tid: Tid, Number(n): Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let vcpu = &mut self.runner.machine.vcpus[hart_of(tid)];
        let value = match n {
            0..PC => Some(vcpu.core.regs[n]),
            PC => Some(vcpu.core.pc),
            FIRST_F..FIRST_CSR => Some(vcpu.core.regs[n - 1]),
            PRIV => Some(vcpu.arch.mode as u64),
            V => Some(vcpu.arch.v.into()),
            _ => peek(&mut vcpu.at(&mut self.runner.machine.world), (n - FIRST_CSR) as u16),
        };
        // A CSR that this hart has not reads as 0: GDB asks for all that the description names.
        buf[..8].copy_from_slice(&value.unwrap_or(0).to_le_bytes());
        Ok(8)
    }

    fn write_register(&mut self, tid: Tid, Number(n): Number, value: &[u8]) -> TargetResult<(), Self> {
        let value = u64::from_le_bytes(value.try_into().map_err(|_| TargetError::NonFatal)?);
        let vcpu = &mut self.runner.machine.vcpus[hart_of(tid)];
        match n {
            0 => {}
            1..PC => vcpu.core.regs[n] = value,
            PC => vcpu.core.pc = value,
            FIRST_F..FIRST_CSR => vcpu.core.regs[n - 1] = value,
            PRIV => vcpu.arch.mode = Priv::from_bits(value),
            V => vcpu.arch.v = value & 1 != 0,
            _ => {
                if !poke(&mut vcpu.at(&mut self.runner.machine.world), (n - FIRST_CSR) as u16, value) {
                    return Err(TargetError::NonFatal);
                }
            }
        }
        Ok(())
    }
}

impl MultiThreadResume for Debugged<'_, '_> {
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
impl MultiThreadSchedulerLocking for Debugged<'_, '_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl MultiThreadSingleStep for Debugged<'_, '_> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.step = Some(hart_of(tid));
        Ok(())
    }
}

impl Breakpoints for Debugged<'_, '_> {
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

impl SwBreakpoint for Debugged<'_, '_> {
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

impl HwBreakpoint for Debugged<'_, '_> {
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

impl HwWatchpoint for Debugged<'_, '_> {
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

impl MonitorCmd for Debugged<'_, '_> {
    fn handle_monitor_cmd(&mut self, cmd: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Self::Error> {
        match cmd {
            b"memory current" => self.view = View::Current,
            b"memory physical" => self.view = View::Physical,
            b"memory guest" => self.view = View::Guest,
            b"count" => {
                outputln!(out, "{} instructions, {} ns", self.runner.machine.retired(), self.runner.machine.now());
                return Ok(());
            }
            _ => outputln!(out, "memory current|physical|guest: whose addresses are used; count: where the machine is"),
        }
        outputln!(out, "memory: {:?}", self.view);
        Ok(())
    }
}

/// How GDB's packets and the machine's slices alternate.
struct Loop<'r, 'a>(PhantomData<&'r &'a ()>);

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

impl<'r, 'a: 'r> BlockingEventLoop for Loop<'r, 'a> {
    type Target = Debugged<'r, 'a>;
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
        let mut run: fn(&mut Machine<Riscv>, u64) -> End = Machine::run_past_breakpoint;
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
pub fn serve(listener: TcpListener, runner: &mut Runner) -> Result<Option<Ended>, UserError> {
    let at = listener.local_addr()?;
    tell(format!("waiting for a debugger at {at}"));
    let (stream, _) = listener.accept().map_err(|e| about(at, e))?;
    drop(listener);
    let (breakpoints, watches) = (Vec::new(), Vec::new());
    let mut target = Debugged { runner, breakpoints, watches, step: None, view: View::Current, ended: None };
    let result = GdbStub::new(stream).run_blocking::<Loop>(&mut target);
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
