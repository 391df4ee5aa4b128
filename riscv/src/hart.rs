//! A hart: its state, and its part of the engine.

use emu_core::bus::VcpuSignal;
use emu_core::engine::{Access, Arch, Hart, Intent, Lift, Step, Stop};
use emu_core::time::VirtualTime;
use emu_core::tlb::{Mapping, Space};
use serde::{Deserialize, Serialize};

use crate::cpu::CpuConfig;
use crate::isa;
use crate::privileged::csr::Csrs;

/// Floating-point control and status (volume I, "Floating-Point Control and Status Register").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fcsr {
    /// frm: the dynamic rounding mode, 3 bits.
    pub frm: u8,
    /// fflags: NV DZ OF UF NX, from bit 4 down.
    pub flags: u8,
}

/// What LR has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Physical address of its first byte.
    pub pa: u64,
    /// Bytes: 4 or 8.
    pub size: u8,
}

/// Everything that a hart has besides registers and TLB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Riscv {
    /// What it is.
    pub cpu: CpuConfig,
    /// fcsr.
    pub fcsr: Fcsr,
    /// Set by LR, taken by SC; lost when the hart is descheduled, so that no other hart's store need be compared.
    pub reservation: Option<Reservation>,
    /// All other CSRs.
    pub csr: Csrs,
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
    /// A hart after reset.
    pub fn new(cpu: CpuConfig) -> Self {
        Riscv { cpu, fcsr: Fcsr::default(), reservation: None, csr: Csrs::default() }
    }

    /// What code is lifted for.
    pub fn code_mode(&self) -> Mode {
        Mode(3)
    }
}

/// What only a hart at work can do.
pub trait HartExt {
    /// Makes mstatus.FS (and vsstatus.FS in a guest) dirty.
    fn make_fs_dirty(&mut self);
}

impl HartExt for Hart<'_, Riscv> {
    fn make_fs_dirty(&mut self) {
        self.core.spaces_changed = true;
    }
}

impl Arch for Riscv {
    const REGISTERS: usize = 64;
    fn level(&self) -> u8 {
        1
    }
    fn lift(&self, pc: u64, bytes: &[u8], lift: &mut Lift) -> Option<u8> {
        isa::lift(self, pc, bytes, lift)
    }
    fn mode(&self) -> u32 {
        self.code_mode().0
    }
    fn call(h: &mut Hart<Self>, function: u16, operand: u32) -> Step {
        isa::call(h, function, operand)
    }
    fn space(h: &mut Hart<Self>, _as_whom: u8, _intent: Intent) -> Space {
        h.core.mmu.intern(emu_core::tlb::SpaceKey(0, 0))
    }
    fn walk(_h: &mut Hart<Self>, access: Access) -> Step<Mapping> {
        let pa = access.va & !0xfff;
        Ok(Mapping { pa, gpa: pa, size_log2: 12, guest_size_log2: 0, read: true, write: true, keep: true })
    }
    fn bus_error(_h: &mut Hart<Self>, access: Access) -> Stop {
        use crate::privileged::cause;
        let code = match access.intent {
            Intent::Read => cause::LOAD_ACCESS,
            Intent::Write => cause::STORE_ACCESS,
            Intent::Fetch => cause::INSTRUCTION_ACCESS,
        };
        Stop::exception(code, access.va)
    }
    fn trap(_h: &mut Hart<Self>, stop: Stop) -> Step {
        Err(Stop { kind: emu_core::engine::StopKind::Shutdown, ..stop })
    }
    fn interrupt(_h: &mut Hart<Self>) -> Step {
        Ok(())
    }
    fn signal(_h: &mut Hart<Self>, _signal: VcpuSignal) {}
    fn tick(_h: &mut Hart<Self>) {}
    fn wakes_at(_h: &Hart<Self>) -> Option<VirtualTime> {
        None
    }
    fn is_awake(_h: &Hart<Self>) -> bool {
        false
    }
    fn descheduled(&mut self) {
        self.reservation = None;
    }
}
