//! ACLINT: the machine timer, software interrupts at machine and supervisor level (RISC-V Advanced Core Local Interruptor
//! Specification 1.0-rc4). [`Clint`] is MSWI and MTIMER in the layout that SiFive's CLINT had (the specification's
//! "Backward Compatibility With SiFive CLINT"), [`Sswi`] is SSWI.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

/// The timebase: `mtime` counts at 10 MHz.
pub const TIMEBASE_HERTZ: u64 = 10_000_000;
/// Virtual nanoseconds in a tick of `mtime`.
pub const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_HERTZ;

/// Ticks that have come at `time`.
pub fn ticks_at(time: VirtualTime) -> u64 {
    time / NANOSECONDS_PER_TICK
}

/// The virtual time at which `ticks` have come; `None` if that is beyond the end of time.
pub fn time_of_tick(ticks: u64) -> Option<VirtualTime> {
    ticks.checked_mul(NANOSECONDS_PER_TICK)
}

/// Message to a vCPU ([`Signal::Vcpu`](emu_core::device::Signal::Vcpu)): software has written `mtime`. The value is
/// what must be added, modulo 2^64, to [`ticks_at`] the present time to get `mtime`, and so the `time` CSR.
pub const MESSAGE_TIME_OFFSET: u32 = 0x1000;

/// MSWI: `msip` of hart h at 4 h.
const MSIP: u64 = 0;
/// MTIMER: `mtimecmp` of hart h at 0x4000 + 8 h.
const MTIMECMP: u64 = 0x4000;
/// MTIMER: `mtime`.
const MTIME: u64 = 0xbff8;
/// Size in bytes of the CLINT's registers.
pub const CLINT_SIZE: u64 = 0x1_0000;
/// The most harts that the CLINT's layout has room for.
pub const MAX_HARTS: u32 = 4095;

/// Output line of a hart's machine software interrupt.
pub fn msip_line(hart: u32) -> u32 {
    2 * hart
}

/// Output line of a hart's machine timer interrupt.
pub fn mtip_line(hart: u32) -> u32 {
    2 * hart + 1
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hart {
    msip: bool,
    mtimecmp: u64,
    /// The level of the timer's line.
    mtip: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    harts: Vec<Hart>,
    /// `mtime` at virtual time 0, modulo 2^64.
    offset: u64,
    /// When the next timer comes.
    wakes_at: Option<VirtualTime>,
}

/// MSWI and MTIMER.
pub struct Clint {
    state: State,
}

/// Replaces those bytes of a 64-bit register at `offset` that an access of `size` bytes at `at` reaches.
fn merge(old: u64, offset: u64, at: u64, size: u8, value: u64) -> u64 {
    let shift = 8 * (at - offset);
    let mask = (u64::MAX >> (64 - 8 * u64::from(size))) << shift;
    old & !mask | value << shift & mask
}

impl Clint {
    /// The CLINT of a machine with `harts` harts.
    pub fn new(harts: u32) -> Self {
        let hart = Hart { msip: false, mtimecmp: u64::MAX, mtip: false };
        Clint { state: State { harts: vec![hart; harts.min(MAX_HARTS) as usize], offset: 0, wakes_at: None } }
    }

    fn mtime(&self, now: VirtualTime) -> u64 {
        ticks_at(now).wrapping_add(self.state.offset)
    }

    /// "Machine-level Timer Device": the interrupt of a hart is pending while `mtime` is not less than its `mtimecmp`.
    fn update_timers(&mut self, cx: &mut DeviceCx) {
        let mtime = self.mtime(cx.now);
        let mut wakes_at: Option<VirtualTime> = None;
        for (h, hart) in self.state.harts.iter_mut().enumerate() {
            let mtip = mtime >= hart.mtimecmp;
            if mtip != hart.mtip {
                hart.mtip = mtip;
                cx.line(mtip_line(h as u32), mtip);
            }
            if !mtip {
                let comes = ticks_at(cx.now).checked_add(hart.mtimecmp - mtime).and_then(time_of_tick);
                wakes_at = wakes_at.into_iter().chain(comes).min();
            }
        }
        self.state.wakes_at = wakes_at;
    }

    /// The 64-bit register that holds the byte at `at`, and its own offset.
    fn register(&self, at: u64, now: VirtualTime) -> (u64, u64) {
        let offset = at & !7;
        let value = match offset {
            MTIME => self.mtime(now),
            MTIMECMP..MTIME => self.state.harts.get(((offset - MTIMECMP) / 8) as usize).map_or(0, |h| h.mtimecmp),
            MSIP..MTIMECMP => {
                let msip = |h: u64| u64::from(self.state.harts.get(h as usize).is_some_and(|h| h.msip));
                msip(offset / 4) | msip(offset / 4 + 1) << 32
            }
            _ => 0,
        };
        (offset, value)
    }
}

impl Device for Clint {
    fn name(&self) -> &'static str {
        "clint"
    }

    /// Registers may be read in parts. Of an access that leaves its 8 bytes only the part within them counts.
    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        let (offset, value) = self.register(access.offset, cx.now);
        value >> (8 * (access.offset - offset))
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let (offset, old) = self.register(access.offset, cx.now);
        let new = merge(old, offset, access.offset, access.size, value);
        match offset {
            MTIME => {
                self.state.offset = new.wrapping_sub(ticks_at(cx.now));
                for h in 0..self.state.harts.len() {
                    cx.vcpu(h as u32, MESSAGE_TIME_OFFSET, self.state.offset);
                }
                self.update_timers(cx);
            }
            MTIMECMP..MTIME => {
                if let Some(hart) = self.state.harts.get_mut(((offset - MTIMECMP) / 8) as usize) {
                    hart.mtimecmp = new;
                    self.update_timers(cx);
                }
            }
            MSIP..MTIMECMP => {
                for (h, bit) in [(offset / 4, 0), (offset / 4 + 1, 32)] {
                    let Some(hart) = self.state.harts.get_mut(h as usize) else { continue };
                    let msip = new >> bit & 1 != 0; // "MSIP Registers": bits 31:1 are wired to 0
                    if hart.msip != msip {
                        hart.msip = msip;
                        cx.line(msip_line(h as u32), msip);
                    }
                }
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        self.update_timers(cx);
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.state.wakes_at
    }

    fn reset(&mut self) {
        *self = Clint::new(self.state.harts.len() as u32);
    }

    device_state!(state);
}

/// Size in bytes of the SSWI's registers.
pub const SSWI_SIZE: u64 = 0x4000;

/// SSWI: `setssip` of hart h at 4 h. Output line h is a pulse: it goes high and low again, and the hart sets `mip.SSIP`
/// when it goes high.
pub struct Sswi {
    harts: u32,
}

impl Sswi {
    /// The SSWI of a machine with `harts` harts.
    pub fn new(harts: u32) -> Self {
        Sswi { harts }
    }
}

impl Device for Sswi {
    fn name(&self) -> &'static str {
        "sswi"
    }

    /// "SETSSIP Registers": they read as 0.
    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let hart = access.offset / 4;
        if access.offset.is_multiple_of(4) && value & 1 != 0 && hart < u64::from(self.harts) {
            cx.line(hart as u32, true);
            cx.line(hart as u32, false);
        }
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("the SSWI has no state".into()) }
    }
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn msip_is_bit_0_of_a_word_per_hart() {
        let (mut b, mut c) = (Bench::default(), Clint::new(3));
        b.write(&mut c, 4, 4, 0xffff_ffff);
        assert_eq!(b.take_signals(), [Signal::Line { line: 2, level: true }]);
        assert_eq!((b.read(&mut c, 4, 4), b.read(&mut c, 0, 8)), (1, 1 << 32));
        b.write(&mut c, 0, 8, 1);
        assert_eq!(b.take_signals(), [Signal::Line { line: 0, level: true }, Signal::Line { line: 2, level: false }]);
        b.write(&mut c, 12, 4, 1);
        assert_eq!((b.take_signals().len(), b.read(&mut c, 12, 4)), (0, 0), "there is no hart 3");
    }

    #[test]
    fn a_timer_comes_at_its_tick_and_not_before() {
        let (mut b, mut c) = (Bench { now: 1234, ..Bench::default() }, Clint::new(2));
        b.write(&mut c, 0x4008, 8, 20);
        assert_eq!(c.wakes_at(), Some(2000));
        b.run_to(&mut c, 1999);
        assert_eq!((b.last_level(3), b.read(&mut c, 0xbff8, 8)), (None, 19));
        b.run_to(&mut c, 2000);
        assert_eq!((b.last_level(3), b.read(&mut c, 0xbff8, 4), c.wakes_at()), (Some(true), 20, None));
        b.write(&mut c, 0x400c, 4, 1);
        assert_eq!((b.last_level(3), b.read(&mut c, 0x4008, 8)), (Some(false), 1 << 32 | 20));
        b.write(&mut c, 0x4008, 8, u64::MAX);
        assert_eq!(c.wakes_at(), None, "beyond the end of time");
    }

    #[test]
    fn mtime_is_writable() {
        let (mut b, mut c) = (Bench { now: 1050, ..Bench::default() }, Clint::new(1));
        b.write(&mut c, 0x4000, 8, 1000);
        b.write(&mut c, 0xbff8, 8, 990);
        assert!(b.take_signals().contains(&Signal::Vcpu { vcpu: 0, message: MESSAGE_TIME_OFFSET, value: 980 }));
        assert_eq!((b.read(&mut c, 0xbff8, 8), c.wakes_at()), (990, Some(2000)));
        b.write(&mut c, 0xbff8, 8, 3);
        assert_eq!(c.wakes_at(), Some(100_700), "it may go back");
        b.write(&mut c, 0xbffc, 4, 1);
        assert_eq!((b.read(&mut c, 0xbff8, 8), b.last_level(1)), (1 << 32 | 3, Some(true)));
    }

    #[test]
    fn sswi_pulses() {
        let (mut b, mut s) = (Bench::default(), Sswi::new(2));
        b.write(&mut s, 4, 4, 1);
        assert_eq!(b.take_signals(), [true, false].map(|level| Signal::Line { line: 1, level }));
        b.write(&mut s, 4, 4, 2);
        b.write(&mut s, 8, 4, 1);
        assert!(b.take_signals().is_empty());
    }

    proptest! {
        #[test]
        fn lines_follow_registers(
            ops in prop::collection::vec(
                (prop_oneof![0u64..20, 0x4000u64..0x4020, 0xbff0u64..0xc008], 1u8..=8, any::<u64>(), any::<bool>(), any::<u32>()),
                1..100,
            )
        ) {
            let (mut b, mut c) = (Bench::default(), Clint::new(3));
            for (at, size, value, write, ns) in ops {
                let to = b.now + u64::from(ns);
                b.run_to(&mut c, to);
                let value = value >> (value % 64) & (u64::MAX >> (64 - 8 * u32::from(size)));
                if write { b.write(&mut c, at, size, value) } else { b.read(&mut c, at, size); }
                for h in &c.state.harts {
                    prop_assert_eq!(h.mtip, c.mtime(b.now) >= h.mtimecmp);
                }
                prop_assert!(c.wakes_at().is_none_or(|t| t > b.now));
            }
        }
    }
}
