//! The built-in firmware: a small SBI for machines that are started without one (RISC-V Supervisor Binary Interface
//! Specification 2.0).
//!
//! It is no guest code: an ECALL from supervisor mode is answered at once, and takes one instruction. There is no M-mode
//! software, so whatever is not delegated ends the machine.

use emu_core::bus::VcpuSignal;
use emu_core::device::Request;
use emu_core::engine::{Hart, Step, Stop, StopKind};

use super::csr::{envcfg, mseccfg, mstatus};
use super::irq::{LCOFI_BIT, S_BITS, SGEI_BIT, STI_BIT, VS_BITS};
use super::{csr_access, mmu};
use crate::cpu::Ext;
use crate::hart::{Priv, Riscv, RunState};

type H<'a> = Hart<'a, Riscv>;

/// Message to a hart: a supervisor software interrupt.
pub const MESSAGE_IPI: u32 = 0x2000;
/// Message to a hart: begin where [`World::shared`](emu_core::engine::World::shared) says.
pub const MESSAGE_START: u32 = 0x2001;
/// Message to a hart, and those behind it: a fence; see [`Fence`].
pub const MESSAGE_FENCE: u32 = 0x2010;

/// The console's port of the door.
const CONSOLE: u32 = crate::platform::virt::CONSOLE;

/// Errors ("Binary Encoding").
mod error {
    pub(super) const NOT_SUPPORTED: i64 = -2;
    pub(super) const INVALID_PARAM: i64 = -3;
    pub(super) const DENIED: i64 = -4;
    pub(super) const INVALID_ADDRESS: i64 = -5;
    pub(super) const ALREADY_AVAILABLE: i64 = -6;
}

/// Extension IDs.
mod eid {
    pub(super) const SET_TIMER: u64 = 0;
    pub(super) const PUTCHAR: u64 = 1;
    pub(super) const GETCHAR: u64 = 2;
    pub(super) const SHUTDOWN: u64 = 8;
    pub(super) const BASE: u64 = 0x10;
    pub(super) const TIME: u64 = 0x5449_4d45;
    pub(super) const IPI: u64 = 0x73_5049;
    pub(super) const RFENCE: u64 = 0x5246_4e43;
    pub(super) const HSM: u64 = 0x48_534d;
    pub(super) const SRST: u64 = 0x5352_5354;
    pub(super) const DBCN: u64 = 0x4442_434e;
    pub(super) const SUSP: u64 = 0x5355_5350;
    pub(super) const ALL: [u64; 12] =
        [SET_TIMER, PUTCHAR, GETCHAR, SHUTDOWN, BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, SUSP];
}

/// What a hart's words in [`World::shared`](emu_core::engine::World::shared) say: state, start address, opaque value.
const WORDS: usize = 3;
/// HSM states.
const STARTED: u64 = 0;
const STOPPED: u64 = 1;
const START_PENDING: u64 = 2;
const SUSPENDED: u64 = 4;

/// The kinds of remote fences. They travel as messages: which kind, and where it is of a page, the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Fence {
    /// Of all addresses, of all address spaces.
    First,
    FirstAsid,
    FirstPage,
    FirstPageAsid,
    Second,
    SecondVmid,
    SecondPage,
    SecondPageVmid,
    Guest,
    GuestAsid,
    GuestPage,
    GuestPageAsid,
}

const FENCES: [Fence; 12] = [
    Fence::First,
    Fence::FirstAsid,
    Fence::FirstPage,
    Fence::FirstPageAsid,
    Fence::Second,
    Fence::SecondVmid,
    Fence::SecondPage,
    Fence::SecondPageVmid,
    Fence::Guest,
    Fence::GuestAsid,
    Fence::GuestPage,
    Fence::GuestPageAsid,
];

/// A fence of more pages drops all.
const MOST_PAGES: u64 = 64;

/// Puts a hart where firmware would leave it: the first one at the kernel in supervisor mode, the others stopped.
pub fn enter(arch: &mut Riscv, first: bool) {
    arch.built_in_sbi = true;
    arch.mode = Priv::Supervisor;
    arch.run_state = if first { RunState::Running } else { RunState::Stopped };
    let c = &mut arch.csr;
    // All that can be delegated is, but the calls that this firmware answers.
    c.medeleg = 0x00f0_b5ff;
    c.mideleg |= S_BITS | LCOFI_BIT;
    if arch.cpu.has(Ext::H) {
        c.mideleg |= VS_BITS | SGEI_BIT;
    } else {
        c.medeleg &= 0xffff;
    }
    c.mcounteren = super::counters::COUNTER_BITS;
    // Kernels count on cycle, time and instret for user mode.
    c.scounteren = 7;
    c.menvcfg |=
        csr_access::menvcfg_bits(&arch.cpu) & !(envcfg::ADUE.mask() | envcfg::DTE.mask() | envcfg::CBIE.mask());
    envcfg::CBIE.put(&mut c.menvcfg, if arch.cpu.has(Ext::Zicbom) { 1 } else { 0 });
    c.mseccfg = mseccfg::SSEED.mask();
    c.mstateen = [u64::MAX; 4];
    c.pmp.write_address(0, u64::MAX);
    c.pmp.write_config(0, 0x1f);
}

/// ECALL from supervisor mode: a7 is the extension, a6 the function.
pub(crate) fn call(h: &mut H) -> Step {
    let arguments: [u64; 6] = std::array::from_fn(|i| h.core.regs[10 + i]);
    let (extension, function) = (h.core.regs[17], h.core.regs[16]);
    if extension <= eid::SHUTDOWN {
        h.core.regs[10] = legacy(h, extension, arguments[0]);
        return Ok(());
    }
    let mut waits = false;
    let result = match extension {
        eid::BASE => base(function, arguments[0]),
        eid::TIME if function == 0 => {
            set_timer(h, arguments[0]);
            Ok(0)
        }
        eid::IPI if function == 0 => send_to(h, arguments[0], arguments[1], &[(MESSAGE_IPI, 0)]),
        eid::RFENCE => remote_fence(h, function, &arguments),
        eid::HSM => hart_state(h, function, &arguments, &mut waits),
        eid::SRST if function == 0 => reset(h, arguments[0], arguments[1]),
        eid::DBCN => console(h, function, &arguments),
        eid::SUSP if function == 0 => suspend_system(h, &arguments, &mut waits),
        _ => Err(error::NOT_SUPPORTED),
    };
    // A hart that begins anew has been given its registers already.
    if !(waits && result == Ok(BEGINS_ANEW)) {
        let (code, value) = match result {
            Ok(value) => (0, value),
            Err(code) => (code as u64, 0),
        };
        h.core.regs[10] = code;
        h.core.regs[11] = value;
    }
    if waits {
        return Err(Stop::of(StopKind::Wait));
    }
    Ok(())
}

type SbiResult = Result<u64, i64>;

/// Not a value: the hart will go on elsewhere.
const BEGINS_ANEW: u64 = u64::MAX;

/// "Legacy Extensions".
fn legacy(h: &mut H, extension: u64, a0: u64) -> u64 {
    match extension {
        eid::SET_TIMER => {
            set_timer(h, a0);
            0
        }
        eid::PUTCHAR => {
            h.world.door.write(CONSOLE, &[a0 as u8]);
            0
        }
        eid::GETCHAR => h.read_door(CONSOLE).map_or(u64::MAX, u64::from),
        eid::SHUTDOWN => {
            h.request(Request::PowerOff { code: 0 });
            0
        }
        _ => error::NOT_SUPPORTED as u64,
    }
}

/// "Base Extension".
fn base(function: u64, a0: u64) -> SbiResult {
    Ok(match function {
        0 => 2 << 24,
        1 => 0x554e_4456, // no registered number
        2 => 1,
        3 => u64::from(eid::ALL.contains(&a0)),
        4..=6 => 0,
        _ => return Err(error::NOT_SUPPORTED),
    })
}

/// "Timer Extension": with Sstc through stimecmp, else through a comparison of the firmware's own.
fn set_timer(h: &mut H, time: u64) {
    if h.arch.cpu.has(Ext::Sstc) {
        h.arch.csr.stimecmp = time;
    } else {
        h.arch.sbi_timer = Some(time);
        h.arch.csr.mip &= !STI_BIT;
    }
    h.core.check_interrupts = true;
    h.core.call_for_attention();
}

/// Sends messages to the harts of a mask; a base of -1 means all harts.
fn send_to(h: &mut H, mask: u64, base: u64, messages: &[(u32, u64)]) -> SbiResult {
    let harts = h.world.shared.len() / WORDS;
    let chosen: Vec<u32> = if base == u64::MAX {
        (0..harts as u32).collect()
    } else {
        let bits = (0..64).filter(|i| mask >> i & 1 != 0);
        bits.map(|i| base.checked_add(i).filter(|n| *n < harts as u64).map(|n| n as u32))
            .collect::<Option<_>>()
            .ok_or(error::INVALID_PARAM)?
    };
    for hart in chosen {
        if h.world.shared[hart as usize * WORDS] == STOPPED {
            continue;
        }
        for (message, value) in messages {
            h.send(hart, VcpuSignal::Message { message: *message, value: *value });
        }
    }
    Ok(0)
}

/// "RFENCE Extension".
fn remote_fence(h: &mut H, function: u64, a: &[u64; 6]) -> SbiResult {
    let (start, size, id) = (a[2], a[3], a[4]);
    let tag = (id & 0xffff) << 48;
    let (all, page) = match function {
        0 => return send_to(h, a[0], a[1], &[]),
        1 => (Fence::First, Fence::FirstPage),
        2 => (Fence::FirstAsid, Fence::FirstPageAsid),
        3 => (Fence::SecondVmid, Fence::SecondPageVmid),
        4 => (Fence::Second, Fence::SecondPage),
        5 => (Fence::GuestAsid, Fence::GuestPageAsid),
        6 => (Fence::Guest, Fence::GuestPage),
        _ => return Err(error::NOT_SUPPORTED),
    };
    if function >= 3 && !h.arch.cpu.has(Ext::H) {
        return Err(error::NOT_SUPPORTED);
    }
    // HFENCE.VVMA is of the VMID that the fenced hart has in hgatp.
    let first = start >> 12;
    let last = start.wrapping_add(size.wrapping_sub(1)) >> 12;
    let pages = last.wrapping_sub(first).wrapping_add(1);
    let everything = start == 0 && size == 0 || size == u64::MAX || pages > MOST_PAGES;
    let messages: Vec<(u32, u64)> = if everything {
        vec![(MESSAGE_FENCE + all as u32, tag)]
    } else {
        let number = |p: u64| first.wrapping_add(p) & ((1 << 48) - 1);
        (0..pages).map(|p| (MESSAGE_FENCE + page as u32, tag | number(p))).collect()
    };
    send_to(h, a[0], a[1], &messages)
}

/// Another hart asks for a fence.
pub(crate) fn fence(h: &mut H, message: u32, value: u64) {
    let Some(kind) = FENCES.get((message - MESSAGE_FENCE) as usize) else { return };
    let id = value >> 48;
    // The page number is that of a sign-extended address.
    let page = ((value << 16) as i64 >> 16 << 12) as u64;
    let vmid = super::csr::hgatp::VMID.of(h.arch.csr.hgatp);
    match kind {
        Fence::First => mmu::drop_first_stage(h, false, 0, None, None),
        Fence::FirstAsid => mmu::drop_first_stage(h, false, 0, Some(id), None),
        Fence::FirstPage => mmu::drop_first_stage(h, false, 0, None, Some(page)),
        Fence::FirstPageAsid => mmu::drop_first_stage(h, false, 0, Some(id), Some(page)),
        Fence::Second => mmu::drop_second_stage(h, None, None),
        Fence::SecondVmid => mmu::drop_second_stage(h, Some(id), None),
        Fence::SecondPage => mmu::drop_second_stage(h, None, Some(page)),
        Fence::SecondPageVmid => mmu::drop_second_stage(h, Some(id), Some(page)),
        Fence::Guest => mmu::drop_first_stage(h, true, vmid, None, None),
        Fence::GuestAsid => mmu::drop_first_stage(h, true, vmid, Some(id), None),
        Fence::GuestPage => mmu::drop_first_stage(h, true, vmid, None, Some(page)),
        Fence::GuestPageAsid => mmu::drop_first_stage(h, true, vmid, Some(id), Some(page)),
    }
}

/// "Hart State Management Extension".
fn hart_state(h: &mut H, function: u64, a: &[u64; 6], waits: &mut bool) -> SbiResult {
    let me = h.core.index as usize * WORDS;
    match function {
        0 => {
            let at = hart_words(h, a[0])?;
            if h.world.shared[at] != STOPPED {
                return Err(error::ALREADY_AVAILABLE);
            }
            if !h.world.ram.contains(a[1], 4) {
                return Err(error::INVALID_ADDRESS);
            }
            h.world.shared[at..at + WORDS].copy_from_slice(&[START_PENDING, a[1], a[2]]);
            h.send(a[0] as u32, VcpuSignal::Message { message: MESSAGE_START, value: 0 });
            Ok(0)
        }
        1 => {
            h.world.shared[me] = STOPPED;
            h.arch.run_state = RunState::Stopped;
            *waits = true;
            Ok(BEGINS_ANEW)
        }
        2 => Ok(h.world.shared[hart_words(h, a[0])?]),
        3 => match a[0] as u32 {
            0 => {
                suspend(h, waits);
                Ok(0)
            }
            0x8000_0000 => {
                if !h.world.ram.contains(a[1], 4) {
                    return Err(error::INVALID_ADDRESS);
                }
                begin_at(h, a[1], a[2]);
                h.core.next_pc = a[1];
                suspend(h, waits);
                Ok(BEGINS_ANEW)
            }
            _ => Err(error::INVALID_PARAM),
        },
        _ => Err(error::NOT_SUPPORTED),
    }
}

fn hart_words(h: &H, hart: u64) -> Result<usize, i64> {
    let at = usize::try_from(hart).ok().and_then(|n| n.checked_mul(WORDS));
    at.filter(|at| at + WORDS <= h.world.shared.len()).ok_or(error::INVALID_PARAM)
}

/// The state in which a hart begins: "Function: HART start".
fn begin_at(h: &mut H, address: u64, opaque: u64) {
    h.arch.mode = Priv::Supervisor;
    h.arch.v = false;
    h.arch.csr.satp = 0;
    mstatus::SIE.put(&mut h.arch.csr.mstatus, 0);
    h.core.regs[10] = h.arch.id;
    h.core.regs[11] = opaque;
    h.core.pc = address;
    h.core.spaces_changed = true;
}

/// The hart waits for an interrupt, and others can see that it does.
fn suspend(h: &mut H, waits: &mut bool) {
    h.arch.run_state = RunState::Suspended;
    h.world.shared[h.core.index as usize * WORDS] = SUSPENDED;
    h.core.check_interrupts = true;
    *waits = true;
}

/// The hart is about to run: it does not sleep any more.
pub(crate) fn resumed(h: &mut H) {
    if h.arch.run_state == RunState::Suspended {
        h.world.shared[h.core.index as usize * WORDS] = STARTED;
    }
    h.arch.run_state = RunState::Running;
}

/// A hart has been started.
pub(crate) fn started(h: &mut H) {
    let at = h.core.index as usize * WORDS;
    let [_, address, opaque] = h.world.shared[at..at + WORDS].try_into().expect("three words");
    begin_at(h, address, opaque);
    h.world.shared[at] = STARTED;
    h.arch.run_state = RunState::Starting;
}

/// "System Suspend Extension": every other hart must be stopped.
fn suspend_system(h: &mut H, a: &[u64; 6], waits: &mut bool) -> SbiResult {
    if a[0] as u32 != 0 {
        return Err(error::INVALID_PARAM);
    }
    let me = h.core.index as usize;
    let others = (0..h.world.shared.len() / WORDS).filter(|i| *i != me);
    if others.into_iter().any(|i| h.world.shared[i * WORDS] != STOPPED) {
        return Err(error::DENIED);
    }
    if !h.world.ram.contains(a[1], 4) {
        return Err(error::INVALID_ADDRESS);
    }
    begin_at(h, a[1], a[2]);
    h.core.next_pc = a[1];
    *waits = true;
    Ok(BEGINS_ANEW)
}

/// "System Reset Extension".
fn reset(h: &mut H, kind: u64, reason: u64) -> SbiResult {
    match kind as u32 {
        0 => h.request(Request::PowerOff { code: reason as u32 }),
        1 | 2 => h.request(Request::Reset),
        _ => return Err(error::INVALID_PARAM),
    }
    Ok(0)
}

/// "Debug Console Extension".
fn console(h: &mut H, function: u64, a: &[u64; 6]) -> SbiResult {
    match function {
        0 | 1 => {
            let (count, at) = (a[0].min(4096), a[1]);
            if a[2] != 0 || !h.world.ram.contains(at, a[0].max(1)) {
                return Err(error::INVALID_PARAM);
            }
            let mut bytes = vec![0; count as usize];
            if function == 0 {
                h.world.ram.read(at, &mut bytes).map_err(|_| error::INVALID_PARAM)?;
                h.world.door.write(CONSOLE, &bytes);
                return Ok(count);
            }
            let mut n = 0;
            while n < count {
                let Some(byte) = h.read_door(CONSOLE) else { break };
                h.world.ram.store(at + n, 1, byte.into()).map_err(|_| error::INVALID_PARAM)?;
                n += 1;
            }
            Ok(n)
        }
        2 => {
            h.world.door.write(CONSOLE, &[a[0] as u8]);
            Ok(0)
        }
        _ => Err(error::NOT_SUPPORTED),
    }
}

/// The words of all harts at power-on: the first is started.
pub fn shared_words(harts: u32) -> Vec<u64> {
    let mut words = vec![0; harts as usize * WORDS];
    words.iter_mut().skip(WORDS).step_by(WORDS).for_each(|w| *w = STOPPED);
    words
}
