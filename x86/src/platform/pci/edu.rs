//! The educational device ("EDU device", docs/specs/edu of QEMU 10): a liveness register, factorials, interrupts on demand
//! and DMA to and from a buffer of 4 KiB.
//!
//! A factorial is there at once; a transfer takes [`DMA_TIME`]. Transfers that leave the buffer or RAM are not done.

use emu_core::device::{Access, DeviceCx};
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::Function;
use super::config::{Bar, Config, ConfigState, command, header};
use super::message::Msi;
use crate::platform::low_bytes;

/// How long a transfer takes, in nanoseconds.
pub const DMA_TIME: u64 = 100_000;
/// Where the buffer is, for the device's own side of a transfer.
pub const BUFFER: u64 = 0x4_0000;
/// Its size in bytes.
pub const BUFFER_SIZE: u64 = 0x1000;
/// Size in bytes of BAR 0.
const MMIO_SIZE: u64 = 1 << 20;

/// Version 1.0, and the letters "edu".
const IDENTIFICATION: u32 = 0x0100_00ed;

const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
const INTERRUPT_STATUS: u64 = 0x24;
const INTERRUPT_RAISE: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;

/// Status: an interrupt when the factorial is there.
const STATUS_INTERRUPT: u32 = 0x80;
/// Interrupt status: the factorial is there.
const INTERRUPT_FACTORIAL: u32 = 1;
/// Interrupt status: the transfer is done.
const INTERRUPT_DMA: u32 = 0x100;

/// The DMA command register.
mod dma {
    pub const START: u64 = 1;
    /// From the device to RAM.
    pub const TO_RAM: u64 = 2;
    pub const INTERRUPT: u64 = 4;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    liveness: u32,
    factorial: u32,
    status: u32,
    interrupts: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    done_at: Option<VirtualTime>,
    buffer: Vec<u8>,
}

impl Default for State {
    fn default() -> Self {
        State {
            liveness: 0,
            factorial: 0,
            status: 0,
            interrupts: 0,
            source: 0,
            destination: 0,
            count: 0,
            command: 0,
            done_at: None,
            buffer: vec![0; BUFFER_SIZE as usize],
        }
    }
}

/// The device. It has INTA# and MSI.
pub struct Edu {
    dma_mask: u64,
    config: Config,
    msi: Msi,
    state: State,
}

impl Edu {
    /// A device that reaches these address bits of RAM; it is 28 bits by custom.
    pub fn new(dma_mask: u64) -> Self {
        let mut config = Config::new(0x1234, 0x11e8, 0x00_ff00, 0x10);
        config.set(header::INTERRUPT_PIN, 1, 1);
        config.add_bar(0, Bar::Memory32(MMIO_SIZE));
        let msi = Msi::new(&mut config);
        Edu { dma_mask, config: config.seal(), msi, state: State::default() }
    }

    fn raise(&mut self, bits: u32, cx: &mut DeviceCx) {
        self.state.interrupts |= bits;
        if self.state.interrupts != 0 {
            self.msi.send(&self.config, cx);
        }
    }

    fn write_factorial(&mut self, n: u32, cx: &mut DeviceCx) {
        // From 34 on there are more than 32 factors of two in it.
        self.state.factorial = if n > 33 { 0 } else { (1..=n).fold(1u32, u32::wrapping_mul) };
        if self.state.status & STATUS_INTERRUPT != 0 {
            self.raise(INTERRUPT_FACTORIAL, cx);
        }
    }

    /// Carries out the transfer that was started.
    fn transfer(&mut self, cx: &mut DeviceCx) {
        let s = &mut self.state;
        let to_ram = s.command & dma::TO_RAM != 0;
        let (inside, outside) = if to_ram { (s.source, s.destination) } else { (s.destination, s.source) };
        let start = inside.wrapping_sub(BUFFER);
        if start >= BUFFER_SIZE || s.count > BUFFER_SIZE - start || !self.config.has(command::MASTER) {
            return;
        }
        let bytes = &mut s.buffer[start as usize..(start + s.count) as usize];
        let outside = outside & self.dma_mask;
        // RAM that is not there takes nothing and gives nothing.
        let _ = if to_ram { cx.dma().write(outside, bytes) } else { cx.dma().read(outside, bytes) };
    }

    fn read_register(&self, at: u64) -> u64 {
        let s = &self.state;
        match at {
            0 => IDENTIFICATION.into(),
            LIVENESS => s.liveness.into(),
            FACTORIAL => s.factorial.into(),
            STATUS => s.status.into(),
            INTERRUPT_STATUS => s.interrupts.into(),
            DMA_SOURCE => s.source,
            DMA_DESTINATION => s.destination,
            DMA_COUNT => s.count,
            DMA_COMMAND => s.command,
            _ => u64::MAX,
        }
    }
}

impl Function for Edu {
    fn name(&self) -> &'static str {
        "edu"
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Four bytes, or eight from 80h on; other accesses are not for it.
    fn read(&mut self, _: u8, access: Access, _: &mut DeviceCx) -> u64 {
        match access.size {
            4 => self.read_register(access.offset) & low_bytes(4),
            8 if access.offset >= DMA_SOURCE => self.read_register(access.offset),
            _ => u64::MAX,
        }
    }

    fn write(&mut self, _: u8, access: Access, value: u64, cx: &mut DeviceCx) {
        if access.size != 4 && !(access.size == 8 && access.offset >= DMA_SOURCE) {
            return;
        }
        let busy = self.state.done_at.is_some();
        let s = &mut self.state;
        match access.offset {
            LIVENESS => s.liveness = !(value as u32),
            FACTORIAL => self.write_factorial(value as u32, cx),
            STATUS => s.status = value as u32 & STATUS_INTERRUPT,
            INTERRUPT_RAISE => self.raise(value as u32, cx),
            INTERRUPT_ACKNOWLEDGE => s.interrupts &= !(value as u32),
            DMA_SOURCE if !busy => s.source = value,
            DMA_DESTINATION if !busy => s.destination = value,
            DMA_COUNT if !busy => s.count = value,
            DMA_COMMAND if !busy => {
                s.command = value;
                if value & dma::START != 0 {
                    s.done_at = Some(cx.now.saturating_add(DMA_TIME));
                }
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        if self.state.done_at.is_some_and(|t| t <= cx.now) {
            self.state.done_at = None;
            self.transfer(cx);
            self.state.command &= !dma::START;
            if self.state.command & dma::INTERRUPT != 0 {
                self.raise(INTERRUPT_DMA, cx);
            }
        }
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.state.done_at
    }

    fn intx(&self) -> bool {
        self.state.interrupts != 0 && !self.msi.is_enabled(&self.config)
    }

    fn reset(&mut self) {
        self.config.reset();
        self.state = State::default();
    }

    fn save(&self) -> Vec<u8> {
        emu_core::to_bytes(&(self.config.state(), &self.state))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (config, state): (ConfigState, State) = emu_core::from_bytes(bytes)?;
        if state.buffer.len() as u64 != BUFFER_SIZE {
            return Err("its buffer has another size".into());
        }
        self.config.set_state(config)?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};

    use super::*;

    struct Rig(Edu, Bench);
    impl Rig {
        fn new() -> Self {
            let mut b = Bench::default();
            b.ram.add(0, 0x1_0000).unwrap();
            let mut e = Edu::new((1 << 28) - 1);
            e.config.write(header::COMMAND, 6);
            Rig(e, b)
        }
        fn r(&mut self, at: u64) -> u64 {
            self.0.read(0, Access { offset: at, size: 4 }, &mut self.1.cx())
        }
        fn w(&mut self, at: u64, value: u64) {
            let size = if at < DMA_SOURCE { 4 } else { 8 };
            self.0.write(0, Access { offset: at, size }, value, &mut self.1.cx());
        }
        fn dma(&mut self, source: u64, destination: u64, count: u64, command: u64) {
            self.w(DMA_SOURCE, source);
            self.w(DMA_DESTINATION, destination);
            self.w(DMA_COUNT, count);
            self.w(DMA_COMMAND, command);
            assert_eq!(self.r(DMA_COMMAND), command);
            self.w(DMA_COUNT, 1);
            assert_eq!(self.r(DMA_COUNT), count & 0xffff_ffff, "nothing changes while it runs");
            self.1.now += DMA_TIME - 1;
            self.0.tick(&mut self.1.cx());
            assert_eq!(self.r(DMA_COMMAND) & dma::START, 1);
            self.1.now += 1;
            self.0.tick(&mut self.1.cx());
            assert_eq!((self.r(DMA_COMMAND) & dma::START, self.0.wakes_at()), (0, None));
        }
    }

    #[test]
    fn liveness_and_factorials() {
        let mut e = Rig::new();
        assert_eq!(e.r(0), 0x0100_00ed);
        e.w(LIVENESS, 0x1234_5678);
        assert_eq!(e.r(LIVENESS), 0xedcb_a987);
        for (n, factorial) in
            [(0, 1), (5, 120), (12, 479_001_600), (13, 1_932_053_504), (33, 0x8000_0000), (34, 0), (u32::MAX, 0)]
        {
            e.w(FACTORIAL, n.into());
            assert_eq!(e.r(FACTORIAL), factorial, "{n}!");
        }
        assert_eq!(e.r(INTERRUPT_STATUS), 0);
        e.w(STATUS, 0xff);
        e.w(FACTORIAL, 3);
        assert_eq!((e.r(STATUS), e.r(INTERRUPT_STATUS), e.0.intx()), (0x80, 1, true));
        e.w(INTERRUPT_ACKNOWLEDGE, 1);
        assert!(!e.0.intx());
        let odd = e.0.read(0, Access { offset: 0, size: 2 }, &mut e.1.cx());
        assert_eq!((odd, e.r(0x100)), (u64::MAX, 0xffff_ffff));
    }

    #[test]
    fn interrupts_by_message() {
        let mut e = Rig::new();
        for (at, byte) in [(0x42, 1), (0x46, 0xe0), (0x47, 0xfe), (0x4c, 0x33)] {
            e.0.config.write(at, byte);
        }
        e.w(INTERRUPT_RAISE, 0x8000);
        assert_eq!(e.1.take_signals(), [Signal::Msi { address: 0xfee0_0000, data: 0x33 }]);
        assert_eq!((e.r(INTERRUPT_STATUS), e.0.intx()), (0x8000, false));
    }

    #[test]
    fn transfers() {
        let mut e = Rig::new();
        e.1.ram.write(0x100, b"to and fro").unwrap();
        e.dma(0x100, BUFFER + 7, 10, dma::START | dma::INTERRUPT);
        assert_eq!(e.r(INTERRUPT_STATUS), 0x100);
        e.dma(BUFFER + 7, 0xf000_0000_0000_0200, 6, dma::START | dma::TO_RAM);
        let mut text = [0; 8];
        e.1.ram.read(0x200, &mut text).unwrap();
        assert_eq!(&text, b"to and\0\0", "the mask cuts the address");
        for (source, count) in [(BUFFER - 1, 4), (BUFFER + 0xffd, 4), (BUFFER, u64::MAX)] {
            e.dma(source, 0x300, count, dma::START | dma::TO_RAM);
        }
        assert_eq!(e.1.ram.load(0x300, 8), Ok(0));
    }
}
