//! A hart: its state, and its part of the engine.

use emu_core::bus::VcpuSignal;
use emu_core::engine::{Access, Arch, Hart, Intent, Lift, Step, Stop};
use emu_core::time::VirtualTime;
use emu_core::tlb::{Mapping, Space};
use serde::{Deserialize, Serialize};

use crate::cpu::{CpuConfig, Ext};
use crate::isa;
use crate::platform::aclint::ticks_at;
use crate::privileged;
use crate::privileged::csr::{Csrs, mnstatus, mstatus};

/// Privilege modes without their virtualization mode (volume II, "Privilege Levels").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Priv {
    /// U or VU.
    User = 0,
    /// HS (S) or VS.
    Supervisor = 1,
    /// M.
    Machine = 3,
}

impl Priv {
    /// From the encoding of mstatus.MPP.
    pub fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Priv::User,
            1 => Priv::Supervisor,
            _ => Priv::Machine,
        }
    }
}

/// Floating-point control and status (volume I, "Floating-Point Control and Status Register").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fcsr {
    /// frm: the dynamic rounding mode, 3 bits.
    pub frm: u8,
    /// fflags: NV DZ OF UF NX, from bit 4 down.
    pub flags: u8,
}

/// Whether a hart takes part (SBI, "Hart State Management Extension").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// It runs, or waits for an interrupt.
    Running,
    /// It waits for an interrupt, and its HSM state says so.
    Suspended,
    /// No interrupt wakes it.
    Stopped,
    /// It has been started and not run yet.
    Starting,
}

/// What LR has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Physical address of its first byte.
    pub pa: u64,
    /// Bytes: 4 or 8.
    pub size: u8,
}

/// What a fault has to tell beyond cause and address: set by the walk that fails, taken by the trap that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultDetails {
    /// Guest-physical address of a guest-page fault.
    pub gpa: u64,
    /// For a fault in an implicit access of VS-stage translation: the pseudoinstruction for htinst.
    pub pseudo: u32,
    /// Bytes between the address of the access and the faulting one.
    pub offset: u8,
    /// Whether the faulting address is a guest virtual address, as far as the access alone tells (HLV, MPRV).
    pub as_guest: bool,
}

/// Everything that a hart has besides registers and TLB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Riscv {
    /// What it is.
    pub cpu: CpuConfig,
    /// mhartid.
    pub id: u64,
    /// The privilege mode.
    pub mode: Priv,
    /// The virtualization mode, V.
    pub v: bool,
    /// fcsr.
    pub fcsr: Fcsr,
    /// Set by LR, taken by SC; lost when the hart is descheduled, so that no other hart's store need be compared.
    pub reservation: Option<Reservation>,
    /// All other CSRs.
    pub csr: Csrs,
    /// What the built-in firmware has made of the hart.
    pub run_state: RunState,
    /// When the built-in firmware raises a timer interrupt, in ticks of mtime.
    pub sbi_timer: Option<u64>,
    /// The built-in firmware serves this hart's calls from supervisor mode.
    pub built_in_sbi: bool,
    /// Lives from a fault to its trap.
    #[serde(skip)]
    pub fault: FaultDetails,
}

/// What code is lifted for, beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Mode {
    /// Floating-point instructions are legal.
    pub const FS_ON: Mode = Mode(1);
    /// FS is dirty already.
    pub const FS_DIRTY: Mode = Mode(2);

    /// Whether it has the bit.
    pub const fn has(self, bit: Mode) -> bool {
        self.0 & bit.0 != 0
    }
}

impl Riscv {
    /// A hart after reset, in M-mode.
    pub fn new(cpu: CpuConfig) -> Self {
        Self::with_id(cpu, 0)
    }

    /// A hart with this mhartid, after reset.
    pub fn with_id(cpu: CpuConfig, id: u64) -> Self {
        let csr = Csrs::new(&cpu);
        Riscv {
            cpu,
            id,
            mode: Priv::Machine,
            v: false,
            fcsr: Fcsr::default(),
            reservation: None,
            csr,
            run_state: RunState::Running,
            sbi_timer: None,
            built_in_sbi: false,
            fault: FaultDetails::default(),
        }
    }

    /// What code is lifted for.
    pub fn code_mode(&self) -> Mode {
        let guest = if self.v { mstatus::FS.of(self.csr.vsstatus) } else { 3 };
        let fs = mstatus::FS.of(self.csr.mstatus).min(guest);
        Mode(u32::from(fs != 0) | u32::from(fs == 3) << 1)
    }

    /// Whether interrupts are enabled as a whole (Smrnmi: mnstatus.NMIE).
    pub fn nmie(&self) -> bool {
        !self.cpu.has(Ext::Smrnmi) || mnstatus::NMIE.is(self.csr.mnstatus)
    }
}

/// What only a hart at work can do.
pub trait HartExt {
    /// Makes mstatus.FS (and vsstatus.FS in a guest) dirty.
    fn make_fs_dirty(&mut self);
    /// mtime: the `time` CSR without htimedelta.
    fn mtime(&self) -> u64;
}

impl HartExt for Hart<'_, Riscv> {
    fn make_fs_dirty(&mut self) {
        mstatus::FS.put(&mut self.arch.csr.mstatus, 3);
        if self.arch.v {
            mstatus::FS.put(&mut self.arch.csr.vsstatus, 3);
        }
        self.core.spaces_changed = true;
    }

    fn mtime(&self) -> u64 {
        ticks_at(self.now()).wrapping_add(self.arch.csr.time_offset)
    }
}

impl Arch for Riscv {
    const REGISTERS: usize = 64;

    fn lift(&self, pc: u64, bytes: &[u8], lift: &mut Lift) -> Option<u8> {
        isa::lift(self, pc, bytes, lift)
    }

    fn mode(&self) -> u32 {
        self.code_mode().0
    }

    fn level(&self) -> u8 {
        1 + u8::from(self.v)
    }

    fn call(h: &mut Hart<Self>, function: u16, operand: u32) -> Step {
        isa::call(h, function, operand)
    }

    fn space(h: &mut Hart<Self>, as_whom: u8, intent: Intent) -> Space {
        privileged::space(h, as_whom, intent)
    }

    fn walk(h: &mut Hart<Self>, access: Access) -> Step<Mapping> {
        privileged::walk(h, access)
    }

    fn bus_error(h: &mut Hart<Self>, access: Access) -> Stop {
        h.arch.fault = FaultDetails::default();
        Stop::exception(privileged::access_fault(access.intent), access.va)
    }

    fn trap(h: &mut Hart<Self>, stop: Stop) -> Step {
        privileged::take_exception(h, stop)
    }

    fn interrupt(h: &mut Hart<Self>) -> Step {
        privileged::take_interrupt(h)
    }

    fn signal(h: &mut Hart<Self>, signal: VcpuSignal) {
        privileged::signal(h, signal);
    }

    fn tick(h: &mut Hart<Self>) {
        privileged::tick(h);
    }

    fn wakes_at(h: &Hart<Self>) -> Option<VirtualTime> {
        privileged::wakes_at(h)
    }

    fn is_awake(h: &Hart<Self>) -> bool {
        match h.arch.run_state {
            RunState::Running | RunState::Suspended => privileged::has_reason_to_wake(h),
            RunState::Stopped => false,
            RunState::Starting => true,
        }
    }

    fn descheduled(&mut self) {
        self.reservation = None;
    }
}
