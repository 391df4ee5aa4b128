//! Power management ("ACPI Specification 6.5", chapter "ACPI Hardware Specification"), laid out as in the ICH9 ("Intel I/O
//! Controller Hub 9", 316972-004, "Power Management I/O Registers"): PM1 event and control blocks, the PM timer, GPE0 and
//! SMI control from a base that a PCI function sets; and the ports B2h and B3h with which an operating system takes the hardware
//! over. The PIIX4 ("82371AB", Intel 290562-001) has GPE0 elsewhere, see [`PmConfig`].
//!
//! The sleeping state of soft off is a request to power off. In S3 the output SLEEP is high until an enabled event wakes the PC (WAK_STS): RAM
//! and devices keep what they hold, processors begin at their reset vector. From any other state the machine wakes at once, with all that it had. Not modelled: the watchdog (TCO), bus master status, BIOS release of the global lock.
//!
//! What firmware in system management mode would do for ACPI is done here: the two command bytes of the FADT set
//! and clear SCI_EN. Every command also raises SMI, if firmware has enabled that.

use emu_core::device::{Access, Device, DeviceCx, Request};
use emu_core::device_state;
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::{Ports, read_bytes, write_bytes};

/// Frequency of the PM timer in hertz.
pub const HERTZ: u64 = 3_579_545;
/// Size in bytes of the block of registers.
pub const SIZE: u64 = 0x80;
/// Register offset of the ports B2h and B3h (APM_CNT, APM_STS).
pub const APM: u64 = 0x80;
/// Input: the power button.
pub const POWER_BUTTON: u32 = 0;
/// Input: the alarm of the clock.
pub const RTC_ALARM: u32 = 1;
/// Input: an SMI by command is for all processors, not for the one that gives the command.
pub const BROADCAST: u32 = 2;
/// Input: general purpose event 0; the others follow.
pub const GPE0: u32 = 16;

const PM1_STS: u64 = 0x00;
const PM1_EN: u64 = 0x02;
const PM1_CNT: u64 = 0x04;
const PM1_TMR: u64 = 0x08;

/// "PM1 Event Grouping". The enable bits are at the places of the status bits.
mod pm1 {
    pub const TMR: u16 = 1 << 0;
    pub const GBL: u16 = 1 << 5;
    pub const PWRBTN: u16 = 1 << 8;
    pub const SLPBTN: u16 = 1 << 9;
    pub const RTC: u16 = 1 << 10;
    pub const WAK: u16 = 1 << 15;
    pub const ENABLE: u16 = TMR | GBL | PWRBTN | SLPBTN | RTC;
}

/// "PM1 Control Grouping".
mod control {
    pub const SCI_EN: u16 = 1;
    pub const BM_RLD: u16 = 2;
    pub const SLP_TYP_SHIFT: u32 = 10;
    pub const SLP_TYP: u16 = 7 << SLP_TYP_SHIFT;
    pub const SLP_EN: u16 = 1 << 13;
}

/// SMI_EN and SMI_STS.
mod smi {
    pub const GBL_SMI_EN: u32 = 1;
    pub const APMC: u32 = 1 << 5;
}

/// How the chip is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmConfig {
    /// Offset of GPE0_STS; GPE0_EN follows.
    pub gpe0: u64,
    /// Size in bytes of both, up to 16.
    pub gpe0_len: u64,
    /// SLP_TYP of soft off (S5).
    pub soft_off: u8,
    /// SLP_TYP of suspend to RAM (S3).
    pub suspend: u8,
    /// The FADT's ACPI_ENABLE and ACPI_DISABLE.
    pub acpi_commands: (u8, u8),
    /// The timer has 32 bits, else 24 (FADT, TMR_VAL_EXT).
    pub wide_timer: bool,
    /// Output lines of SCI, SMI, SLEEP, and SMI for all processors.
    pub lines: (u32, u32, u32, u32),
    /// Offsets of the registers that enable SMIs and tell their cause: SMI_EN and SMI_STS, or GLBCTL and GLBSTS.
    pub smi: (u64, u64),
    /// APMC_EN is a bit of the former, else what [`Pm::set_apmc`] says.
    pub has_apmc: bool,
}

impl PmConfig {
    /// The ICH9. SCI is line 0, SMI line 1, SLEEP line 2, SMI for all processors line 3.
    pub const ICH9: Self = PmConfig {
        gpe0: 0x20,
        gpe0_len: 16,
        soft_off: 7,
        suspend: 5,
        acpi_commands: (2, 3),
        wide_timer: false,
        lines: (0, 1, 2, 3),
        smi: (0x30, 0x34),
        has_apmc: true,
    };
    /// The PIIX4. SCI is line 0, SMI line 1, SLEEP line 2, SMI for all processors line 3.
    pub const PIIX4: Self = PmConfig {
        gpe0: 0x0c,
        gpe0_len: 4,
        soft_off: 0,
        suspend: 1,
        acpi_commands: (0xf1, 0xf0),
        wide_timer: false,
        lines: (0, 1, 2, 3),
        smi: (0x28, 0x18),
        has_apmc: false,
    };

    /// Where the registers are when the block is at `base`.
    pub fn ports(base: u64) -> [Ports; 2] {
        [Ports { port: base, size: SIZE, offset: 0 }, Ports { port: 0xb2, size: 2, offset: APM }]
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u64,
    gpe_enable: u64,
    /// Levels of the general purpose events.
    gpe_inputs: u64,
    smi_enable: u32,
    smi_status: u32,
    /// APMC_EN where it is no bit of SMI_EN.
    apmc: bool,
    /// SMI_LOCK: GBL_SMI_EN stays as it is.
    smi_locked: bool,
    /// SMIs by command are for all processors.
    broadcast: bool,
    apm: [u8; 2],
    /// Changes of the timer's highest bit that have been seen.
    turns: u64,
    /// Levels of the button and of the alarm.
    inputs: [bool; 2],
    sci: bool,
    sleeps: bool,
    woke: bool,
}

/// The chip. Inputs are [`POWER_BUTTON`], [`RTC_ALARM`], [`BROADCAST`] and [`GPE0`] on; outputs as in its [`PmConfig`].
pub struct Pm {
    config: PmConfig,
    state: State,
}

impl Pm {
    /// The chip at power-on.
    pub fn new(config: PmConfig) -> Self {
        let mut pm = Pm { config: PmConfig { gpe0_len: config.gpe0_len.min(16), ..config }, state: State::default() };
        pm.reset();
        pm
    }

    /// APMC_EN of the PIIX4's DEVACTB.
    pub fn set_apmc(&mut self, enabled: bool) {
        self.state.apmc = enabled;
    }

    /// SMI_LOCK of the ICH9's GEN_PMCON_1, which lasts until the next reset.
    pub fn lock_smi(&mut self) {
        self.state.smi_locked = true;
    }

    /// The timer, with all its overflows.
    fn ticks(now: VirtualTime) -> u64 {
        (u128::from(now) * u128::from(HERTZ) / 1_000_000_000) as u64
    }

    fn timer_bits(&self) -> u32 {
        if self.config.wide_timer { 32 } else { 24 }
    }

    /// "Power Management Timer": TMR_STS is set when the highest bit changes.
    fn advance(&mut self, now: VirtualTime) {
        let turns = Self::ticks(now) >> (self.timer_bits() - 1);
        if turns > self.state.turns {
            self.state.status |= pm1::TMR;
        }
        self.state.turns = turns;
    }

    /// "System Control Interrupt".
    fn update_line(&mut self, cx: &mut DeviceCx) {
        let s = &mut self.state;
        let event = s.status & s.enable != 0 || s.gpe_status & s.gpe_enable != 0;
        let sci = event && s.control & control::SCI_EN != 0;
        if sci != s.sci {
            s.sci = sci;
            cx.line(self.config.lines.0, sci);
        }
        self.update_sleep(cx);
    }

    /// "Sleeping/Wake Control": an enabled event ends the sleep, and the power button always does. What firmware has set up is gone.
    fn update_sleep(&mut self, cx: &mut DeviceCx) {
        let s = &mut self.state;
        let fixed = s.status & (s.enable | pm1::PWRBTN) & (pm1::PWRBTN | pm1::SLPBTN | pm1::RTC);
        if !s.sleeps || fixed == 0 && s.gpe_status & s.gpe_enable == 0 {
            return;
        }
        (s.sleeps, s.woke) = (false, true);
        s.status |= pm1::WAK;
        s.control &= !control::SCI_EN;
        (s.smi_enable, s.smi_locked) = (0, false);
        cx.line(self.config.lines.0, false);
        s.sci = false;
        cx.line(self.config.lines.2, false);
    }

    /// It has ended the PC's sleep since it was last asked.
    pub fn has_woken(&mut self) -> bool {
        std::mem::take(&mut self.state.woke)
    }

    fn gpe_byte(&self, at: u64) -> Option<(bool, u32)> {
        let half = self.config.gpe0_len / 2;
        let i = at.checked_sub(self.config.gpe0).filter(|i| *i < 2 * half)?;
        Some((i >= half, 8 * (i % half) as u32))
    }

    fn read_register(&self, at: u64, now: VirtualTime) -> u8 {
        let s = &self.state;
        let byte = |value: u64, first: u64| (value >> (8 * (at - first))) as u8;
        if let Some((enable, shift)) = self.gpe_byte(at) {
            return (if enable { s.gpe_enable } else { s.gpe_status } >> shift) as u8;
        }
        let (smi_enable, smi_status) = self.config.smi;
        if at.wrapping_sub(smi_enable) < 4 {
            return byte(s.smi_enable.into(), smi_enable);
        }
        if at.wrapping_sub(smi_status) < 4 {
            return byte(s.smi_status.into(), smi_status);
        }
        match at {
            PM1_STS..PM1_EN => byte(s.status.into(), PM1_STS),
            PM1_EN..PM1_CNT => byte(s.enable.into(), PM1_EN),
            PM1_CNT..6 => byte(s.control.into(), PM1_CNT),
            PM1_TMR..0xc => byte(Self::ticks(now) & (u64::MAX >> (64 - self.timer_bits())), PM1_TMR),
            APM..0x82 => s.apm[(at - APM) as usize],
            _ => 0,
        }
    }

    fn write_register(&mut self, at: u64, value: u8, cx: &mut DeviceCx) {
        let place = |first: u64| u64::from(value) << (8 * (at - first));
        let keep = |first: u64| !(0xff << (8 * (at - first)));
        if let Some((enable, shift)) = self.gpe_byte(at) {
            let s = &mut self.state;
            let bits = u64::from(value) << shift;
            if enable {
                s.gpe_enable = s.gpe_enable & !(0xff << shift) | bits;
            } else {
                s.gpe_status = s.gpe_status & !bits | s.gpe_inputs;
            }
            return;
        }
        let (smi_enable, smi_status) = self.config.smi;
        let s = &mut self.state;
        if at.wrapping_sub(smi_enable) < 4 {
            let value = s.smi_enable & keep(smi_enable) as u32 | place(smi_enable) as u32;
            let locked = if s.smi_locked { smi::GBL_SMI_EN } else { 0 };
            s.smi_enable = value & !locked | s.smi_enable & locked;
            return;
        }
        if at.wrapping_sub(smi_status) < 4 {
            s.smi_status &= !(place(smi_status) as u32);
            return;
        }
        match at {
            PM1_STS..PM1_EN => s.status &= !(place(PM1_STS) as u16),
            PM1_EN..PM1_CNT => s.enable = (s.enable & keep(PM1_EN) as u16 | place(PM1_EN) as u16) & pm1::ENABLE,
            PM1_CNT..6 => {
                let value = s.control & keep(PM1_CNT) as u16 | place(PM1_CNT) as u16;
                s.control = value & (control::SCI_EN | control::BM_RLD | control::SLP_TYP);
                if value & control::SLP_EN != 0 {
                    self.sleep(cx);
                }
            }
            APM => self.command(value, cx),
            0x81 => s.apm[1] = value,
            _ => {}
        }
    }

    /// "Sleeping/Wake Control": SLP_EN has been written.
    fn sleep(&mut self, cx: &mut DeviceCx) {
        let kind = (self.state.control & control::SLP_TYP) >> control::SLP_TYP_SHIFT;
        if kind == u16::from(self.config.soft_off) {
            cx.request(Request::PowerOff { code: 0 });
        } else if kind == u16::from(self.config.suspend) {
            self.state.sleeps = true;
            cx.line(self.config.lines.2, true);
        } else {
            self.state.status |= pm1::WAK;
        }
    }

    /// "SMI Command Port".
    fn command(&mut self, value: u8, cx: &mut DeviceCx) {
        let s = &mut self.state;
        s.apm[0] = value;
        let (enable, disable) = self.config.acpi_commands;
        if value == enable {
            s.control |= control::SCI_EN;
        } else if value == disable {
            s.control &= !control::SCI_EN;
        }
        let apmc = if self.config.has_apmc { s.smi_enable & smi::APMC != 0 } else { s.apmc };
        if s.smi_enable & smi::GBL_SMI_EN != 0 && apmc {
            s.smi_status |= smi::APMC;
            super::reset::pulse(cx, if s.broadcast { self.config.lines.3 } else { self.config.lines.1 });
        }
    }
}

impl Device for Pm {
    fn name(&self) -> &'static str {
        "pm"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        self.advance(cx.now);
        self.update_line(cx);
        read_bytes(access, |at| self.read_register(at, cx.now))
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        self.advance(cx.now);
        write_bytes(access, value, |at, byte| self.write_register(at, byte, cx));
        self.update_line(cx);
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        self.advance(cx.now);
        let s = &mut self.state;
        let events = self.config.gpe0_len as u32 * 4;
        match line {
            POWER_BUTTON | RTC_ALARM => {
                let was = std::mem::replace(&mut s.inputs[line as usize], level);
                if level && !was {
                    s.status |= if line == POWER_BUTTON { pm1::PWRBTN } else { pm1::RTC };
                }
            }
            BROADCAST => s.broadcast = level,
            GPE0.. if line - GPE0 < events => {
                let bit = 1 << (line - GPE0);
                s.gpe_inputs = if level { s.gpe_inputs | bit } else { s.gpe_inputs & !bit };
                s.gpe_status |= s.gpe_inputs;
            }
            _ => {}
        }
        self.update_line(cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        self.advance(cx.now);
        self.update_line(cx);
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        let s = &self.state;
        if s.enable & !s.status & pm1::TMR == 0 {
            return None;
        }
        let ticks = u128::from(s.turns + 1) << (self.timer_bits() - 1);
        u64::try_from((ticks * 1_000_000_000).div_ceil(HERTZ.into())).ok()
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    fn rig() -> (Bench, Pm) {
        (Bench::default(), Pm::new(PmConfig::ICH9))
    }

    #[test]
    fn status_and_enable_make_the_sci() {
        let (mut b, mut p) = rig();
        b.write(&mut p, PM1_EN, 2, 0xffff);
        assert_eq!(b.read(&mut p, PM1_EN, 2), u64::from(pm1::ENABLE));
        p.input(POWER_BUTTON, true, &mut b.cx());
        p.input(POWER_BUTTON, true, &mut b.cx());
        assert_eq!((b.read(&mut p, PM1_STS, 2), b.take_signals()), (0x100, vec![]));
        b.write(&mut p, APM, 1, 2);
        assert_eq!((b.read(&mut p, PM1_CNT, 2), b.take_signals()), (1, vec![Signal::Line { line: 0, level: true }]));
        b.write(&mut p, PM1_STS, 2, 0xfeff);
        assert_eq!(b.read(&mut p, PM1_STS, 4), 0x0721_0100, "written ones clear, zeroes do not");
        b.write(&mut p, PM1_STS + 1, 1, 1);
        assert_eq!((b.read(&mut p, PM1_STS, 2), b.last_level(0)), (0, Some(false)));
        b.write(&mut p, APM, 2, 0x5503);
        assert_eq!((b.read(&mut p, PM1_CNT, 2), b.read(&mut p, APM, 2)), (0, 0x5503));
    }

    #[test]
    fn the_timer() {
        let (mut b, mut p) = rig();
        b.now = 1_000_000_000;
        assert_eq!((b.read(&mut p, PM1_TMR, 4), b.read(&mut p, PM1_TMR + 1, 1)), (HERTZ, HERTZ >> 8 & 0xff));
        b.write(&mut p, PM1_CNT, 2, 1);
        b.write(&mut p, PM1_EN, 2, 1);
        for turn in 1..=3u64 {
            let at = ((turn << 23) * 1_000_000_000).div_ceil(HERTZ);
            assert_eq!(p.wakes_at(), Some(at));
            b.run_to(&mut p, at - 1);
            assert_ne!(b.last_level(0), Some(true));
            b.run_to(&mut p, at);
            assert_eq!(
                (b.last_level(0), b.read(&mut p, PM1_TMR, 4), p.wakes_at()),
                (Some(true), (turn & 1) << 23, None)
            );
            b.write(&mut p, PM1_STS, 2, 1);
            b.take_signals();
        }
        let mut wide = Pm::new(PmConfig { wide_timer: true, ..PmConfig::PIIX4 });
        b.now = 3_600_000_000_000;
        assert_eq!(b.read(&mut wide, PM1_TMR, 4), (HERTZ * 3600) & 0xffff_ffff);
    }

    #[test]
    fn sleeping_states() {
        for (config, value, request) in [
            (PmConfig::ICH9, 0x3c01, Some(Request::PowerOff { code: 0 })),
            (PmConfig::ICH9, 0x0401, None),
            (PmConfig::PIIX4, 0x2001, Some(Request::PowerOff { code: 0 })),
        ] {
            let (mut b, mut p) = (Bench::default(), Pm::new(config));
            b.write(&mut p, PM1_CNT, 2, value);
            assert_eq!((b.request, b.read(&mut p, PM1_CNT, 2)), (request, value & !0x2000));
        }
        let (mut b, mut p) = rig();
        b.write(&mut p, PM1_CNT, 2, 0x2400);
        assert_eq!((b.request, b.read(&mut p, PM1_STS, 2)), (None, 0x8000), "awake again");
    }

    #[test]
    fn suspend_to_ram() {
        for (config, value) in [(PmConfig::ICH9, 0x3401), (PmConfig::PIIX4, 0x2401)] {
            let (mut b, mut p) = (Bench::default(), Pm::new(config));
            b.write(&mut p, PM1_CNT, 2, value);
            assert_eq!((b.request, b.last_level(2)), (None, Some(true)));
            p.input(RTC_ALARM, true, &mut b.cx());
            assert_eq!((b.last_level(2), p.has_woken()), (Some(true), false), "it is not enabled");
            p.input(RTC_ALARM, false, &mut b.cx());
            b.write(&mut p, PM1_STS, 2, 0xffff);
            b.write(&mut p, PM1_EN, 2, pm1::RTC.into());
            p.input(RTC_ALARM, true, &mut b.cx());
            assert_eq!((b.last_level(2), p.has_woken(), p.has_woken()), (Some(false), true, false));
            assert_eq!((b.read(&mut p, PM1_STS, 2), b.read(&mut p, PM1_CNT, 2) & 1), (0x8400, 0));
        }
    }

    #[test]
    fn general_purpose_events() {
        for (config, status, enable) in [(PmConfig::ICH9, 0x20, 0x28), (PmConfig::PIIX4, 0xc, 0xe)] {
            let (mut b, mut p) = (Bench::default(), Pm::new(config));
            b.write(&mut p, PM1_CNT, 1, 1);
            b.write(&mut p, enable, 2, 0xa00);
            p.input(GPE0 + 9, true, &mut b.cx());
            assert_eq!((b.read(&mut p, status, 2), b.last_level(0)), (0x200, Some(true)));
            b.write(&mut p, status, 2, 0x200);
            assert_eq!(b.read(&mut p, status, 2), 0x200, "the event is there still");
            p.input(GPE0 + 9, false, &mut b.cx());
            b.write(&mut p, status + 1, 1, 2);
            assert_eq!((b.read(&mut p, status, 2), b.last_level(0)), (0, Some(false)));
        }
    }

    #[test]
    fn smi_by_command() {
        let (mut b, mut p) = rig();
        b.write(&mut p, APM, 1, 0x77);
        assert_eq!(b.take_signals(), []);
        b.write(&mut p, 0x30, 4, 0x21);
        b.write(&mut p, APM, 1, 0x77);
        assert_eq!(b.take_signals(), [true, false].map(|level| Signal::Line { line: 1, level }));
        p.input(BROADCAST, true, &mut b.cx());
        b.write(&mut p, APM, 1, 0x77);
        assert_eq!(b.take_signals(), [true, false].map(|level| Signal::Line { line: 3, level }));
        assert_eq!(b.read(&mut p, 0x34, 4), 0x20);
        b.write(&mut p, 0x34, 4, 0x20);
        assert_eq!(b.read(&mut p, 0x30, 8), 0x21);
    }

    /// The PIIX4's APMC_EN is a bit of its configuration space, and the ICH9's SMI_LOCK likewise.
    #[test]
    fn what_configuration_spaces_say_of_smis() {
        let (mut b, mut p) = (Bench::default(), Pm::new(PmConfig::PIIX4));
        b.write(&mut p, 0x28, 4, 1);
        b.write(&mut p, APM, 1, 0x77);
        assert_eq!(b.take_signals(), []);
        p.set_apmc(true);
        b.write(&mut p, APM, 1, 0x77);
        assert_eq!((b.take_signals().len(), b.read(&mut p, 0x18, 4)), (2, 0x20));
        let (mut b, mut p) = rig();
        b.write(&mut p, 0x30, 4, 0x21);
        p.lock_smi();
        b.write(&mut p, 0x30, 4, 0x40);
        assert_eq!(b.read(&mut p, 0x30, 4), 0x41);
        p.reset();
        b.write(&mut p, 0x30, 4, 1);
        b.write(&mut p, 0x30, 4, 0);
        assert_eq!(b.read(&mut p, 0x30, 4), 0);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((0u64..0x90, 1u8..=8, any::<u64>(), 0u8..3, 0u64..3_000_000_000), 1..200)
        ) {
            let ((mut ab, mut a), (mut bb, mut b)) = (rig(), rig());
            let half = ops.len() / 2;
            for (i, (at, size, value, what, ns)) in ops.into_iter().enumerate() {
                if i == half {
                    b.restore(&a.save()).unwrap();
                    bb.now = ab.now;
                    ab.take_signals();
                    bb.take_signals();
                }
                for (bench, p) in [(&mut ab, &mut a), (&mut bb, &mut b)] {
                    bench.run_to(p, bench.now + ns);
                    match what {
                        0 => drop(bench.read(p, at, size)),
                        1 => bench.write(p, at, size, value),
                        _ => p.input(at as u32, value & 1 != 0, &mut bench.cx()),
                    }
                }
                if i >= half {
                    prop_assert_eq!(ab.take_signals(), bb.take_signals());
                }
            }
            prop_assert_eq!(&a.state, &b.state);
        }
    }
}
