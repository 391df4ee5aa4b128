//! `--gdb`: the remote protocol of GDB. Every hart is a thread. No byte of the guest is patched.

use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
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

use crate::error::{UserError, about};

/// Instructions between looks at the connection.
const SLICE: u64 = 500_000;

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
struct Debugged {
    machine: Machine<Riscv>,
    breakpoints: Vec<u64>,
    watches: Vec<Watch>,
    /// The hart that is to take one step.
    step: Option<usize>,
    view: View,
    /// Why the machine cannot run any more.
    ended: Option<End>,
}

fn hart_of(tid: Tid) -> usize {
    tid.get() - 1
}

fn tid_of(hart: u32) -> Tid {
    Tid::new(hart as usize + 1).expect("it is not 0")
}

impl Debugged {
    fn set_stops(&mut self) {
        self.machine.set_stops(self.breakpoints.iter().copied(), self.watches.clone());
    }

    /// The physical address of `va`, and how many bytes lie with it in its page.
    fn place(&mut self, hart: usize, va: u64) -> Option<(u64, usize)> {
        let view = self.view;
        let h = &mut self.machine.vcpus[hart].at(&mut self.machine.world);
        let pa = debug_translate(h, va, view)?;
        Some((pa, 4096 - (va & 0xfff) as usize))
    }
}

impl Target for Debugged {
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

impl MultiThreadBase for Debugged {
    fn read_registers(&mut self, regs: &mut Core, tid: Tid) -> TargetResult<(), Self> {
        let core = &self.machine.vcpus[hart_of(tid)].core;
        regs.x.copy_from_slice(&core.regs[..32]);
        regs.pc = core.pc;
        Ok(())
    }

    fn write_registers(&mut self, regs: &Core, tid: Tid) -> TargetResult<(), Self> {
        let core = &mut self.machine.vcpus[hart_of(tid)].core;
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
            if self.machine.world.ram.read(pa, &mut data[done..done + n]).is_err() {
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
            self.machine.world.ram.write(pa, &data[done..done + n]).map_err(|_| TargetError::NonFatal)?;
            done += n;
        }
        // Translated code may have been written.
        self.set_stops();
        Ok(())
    }

    fn list_active_threads(&mut self, thread_is_active: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        (0..self.machine.vcpus.len() as u32).for_each(|h| thread_is_active(tid_of(h)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Debugged {
    fn read_register(&mut self, tid: Tid, Number(n): Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let vcpu = &mut self.machine.vcpus[hart_of(tid)];
        let value = match n {
            0..PC => Some(vcpu.core.regs[n]),
            PC => Some(vcpu.core.pc),
            FIRST_F..FIRST_CSR => Some(vcpu.core.regs[n - 1]),
            PRIV => Some(vcpu.arch.mode as u64),
            V => Some(vcpu.arch.v.into()),
            _ => peek(&mut vcpu.at(&mut self.machine.world), (n - FIRST_CSR) as u16),
        };
        // A CSR that this hart has not reads as 0: GDB asks for all that the description names.
        buf[..8].copy_from_slice(&value.unwrap_or(0).to_le_bytes());
        Ok(8)
    }

    fn write_register(&mut self, tid: Tid, Number(n): Number, value: &[u8]) -> TargetResult<(), Self> {
        let value = u64::from_le_bytes(value.try_into().map_err(|_| TargetError::NonFatal)?);
        let vcpu = &mut self.machine.vcpus[hart_of(tid)];
        match n {
            0 => {}
            1..PC => vcpu.core.regs[n] = value,
            PC => vcpu.core.pc = value,
            FIRST_F..FIRST_CSR => vcpu.core.regs[n - 1] = value,
            PRIV => vcpu.arch.mode = Priv::from_bits(value),
            V => vcpu.arch.v = value & 1 != 0,
            _ => {
                if !poke(&mut vcpu.at(&mut self.machine.world), (n - FIRST_CSR) as u16, value) {
                    return Err(TargetError::NonFatal);
                }
            }
        }
        Ok(())
    }
}

impl MultiThreadResume for Debugged {
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
impl MultiThreadSchedulerLocking for Debugged {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl MultiThreadSingleStep for Debugged {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.step = Some(hart_of(tid));
        Ok(())
    }
}

impl Breakpoints for Debugged {
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

impl SwBreakpoint for Debugged {
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

impl HwBreakpoint for Debugged {
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

impl HwWatchpoint for Debugged {
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

impl MonitorCmd for Debugged {
    fn handle_monitor_cmd(&mut self, cmd: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Self::Error> {
        match cmd {
            b"memory current" => self.view = View::Current,
            b"memory physical" => self.view = View::Physical,
            b"memory guest" => self.view = View::Guest,
            b"count" => {
                outputln!(out, "{} instructions, {} ns", self.machine.retired(), self.machine.now());
                return Ok(());
            }
            _ => outputln!(out, "memory current|physical|guest: whose addresses are used; count: where the machine is"),
        }
        outputln!(out, "memory: {:?}", self.view);
        Ok(())
    }
}

enum Loop {}

type Stop = MultiThreadStopReason<u64>;

fn stop_reason(end: End) -> Option<Stop> {
    Some(match end {
        End::Limit | End::Idle(_) => return None,
        End::Breakpoint(hart) => Stop::SwBreak(tid_of(hart)),
        End::Watchpoint(hit) => {
            let kind = if hit.write { WatchKind::Write } else { WatchKind::Read };
            Stop::Watch { tid: tid_of(hit.vcpu), kind, addr: hit.watch.va }
        }
        End::PowerOff(code) => Stop::Exited(code as u8),
        End::Reset | End::Deadlock | End::Shutdown(..) => Stop::Terminated(Signal::SIGABRT),
    })
}

impl BlockingEventLoop for Loop {
    type Target = Debugged;
    type Connection = TcpStream;
    type StopReason = Stop;

    fn wait_for_stop_reason(
        target: &mut Self::Target,
        conn: &mut TcpStream,
    ) -> Result<Event<Stop>, WaitForStopReasonError<&'static str, std::io::Error>> {
        if let Some(hart) = target.step.take() {
            let end = target.machine.step(hart);
            target.ended = stop_reason(end).and(Some(end));
            return Ok(Event::TargetStopped(stop_reason(end).unwrap_or(Stop::DoneStep)));
        }
        let mut first = true;
        loop {
            if conn.peek().map_err(WaitForStopReasonError::Connection)?.is_some() {
                let byte = ConnectionExt::read(conn).map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
            let limit = target.machine.retired() + SLICE;
            let end = if first { target.machine.run_past_breakpoint(limit) } else { target.machine.run(limit) };
            first = false;
            if let Some(stop) = stop_reason(end) {
                target.ended = Some(end);
                return Ok(Event::TargetStopped(stop));
            }
        }
    }

    fn on_interrupt(target: &mut Self::Target) -> Result<Option<Stop>, &'static str> {
        let hart = target.machine.current() as u32;
        Ok(Some(Stop::SignalWithThread { tid: tid_of(hart), signal: Signal::SIGINT }))
    }
}

/// How a session ended.
pub enum Session {
    /// The debugger has let go: the machine runs on.
    Detached,
    /// The debugger has ended the machine.
    Killed,
    /// The machine has ended by itself.
    Ended(End),
}

/// Waits for a debugger at `address`, and lets it have the machine. The machine comes back.
pub fn serve(address: &str, machine: Machine<Riscv>) -> Result<(Machine<Riscv>, Session), UserError> {
    let listener = TcpListener::bind(address).map_err(|e| about(address, e))?;
    let at = listener.local_addr().map_err(|e| about(address, e))?;
    eprintln!("undervisor: waiting for a debugger at {at}");
    let (stream, _) = listener.accept().map_err(|e| about(address, e))?;
    let (breakpoints, watches) = (Vec::new(), Vec::new());
    let mut target = Debugged { machine, breakpoints, watches, step: None, view: View::Current, ended: None };
    let result = GdbStub::new(stream).run_blocking::<Loop>(&mut target);
    let Debugged { mut machine, ended, .. } = target;
    machine.set_stops([], Vec::new());
    let session = match result {
        Ok(DisconnectReason::Disconnect) => Session::Detached,
        Ok(DisconnectReason::Kill) => Session::Killed,
        Ok(DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_)) => match ended {
            Some(end) => Session::Ended(end),
            None => Session::Detached,
        },
        // A debugger that goes away without a word leaves the machine to itself.
        Err(e) => {
            eprintln!("undervisor: the debugger is gone: {e}");
            Session::Detached
        }
    };
    Ok((machine, session))
}
