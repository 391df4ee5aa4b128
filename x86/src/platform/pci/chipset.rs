//! Host bridges and their companions, with the registers that firmware and kernels look for:
//! - the i440FX ("82441FX", Intel 290549-001), the PIIX3's ISA bridge ("82371SB", Intel 290550-002) and the PIIX4's power
//!   management ("82371AB", Intel 290562-001);
//! - the Q35 ("Intel 3 Series Express Chipset Family", 316966-002) and the ICH9's LPC bridge ("Intel I/O Controller Hub 9",
//!   316972-004).
//!
//! Of the Q35, the tops of memory are registers without effect, but for TSEG's base. Its high system management RAM (H_SMRAME) is not there.

use emu_core::bus::Space;
use emu_core::device::{Access, DeviceCx};
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::config::{Config, ConfigState, Window, header};
use super::shadow::{self, Shadow};
use super::{Device, Function, SCI, SLEEP, SMI, SMI_OF_ALL, Slot};
use crate::platform::pm::{APM, Pm, PmConfig, SIZE as PM_SIZE};
use crate::platform::{read_bytes, write_bytes};
use crate::smm::memory::{Bridge, DECODE};

const INTEL: u16 = 0x8086;
const HOST_BRIDGE: u32 = 0x06_0000;
const ISA_BRIDGE: u32 = 0x06_0100;
const OTHER_BRIDGE: u32 = 0x06_8000;
const MULTI_FUNCTION: u32 = 0x80;
/// "PIRQRC": not routed.
const NOT_ROUTED: u8 = 0x80;

/// "DEVACTB": the PIIX4's enable of SMI by the APM control port.
const DEVACTB: usize = 0x58;
const DEVACTB_APMC_EN: u32 = 1 << 25;
/// "GEN_PMCON_1": the ICH9's lock of GBL_SMI_EN, and of itself.
const GEN_PMCON_1: usize = 0xa0;
const SMI_LOCK: u8 = 1 << 4;

/// Regions of functions here; their numbers are beyond those of base address registers.
const REGION_PM: u8 = 6;
const REGION_APM: u8 = 7;
const REGION_RCRB: u8 = 8;
const REGION_ROM: u8 = 9;

/// Size in bytes of the ICH9's chipset configuration registers.
const RCRB_SIZE: u64 = 0x4000;
/// "DxxIP": offsets of the interrupt route registers of devices 25 to 31.
const ROUTES: [usize; 7] = [0x3150, 0x314c, 0x3148, 0x3146, 0x3144, 0x3142, 0x3140];

/// A pair of chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chipset {
    /// i440FX and PIIX3, with the power management of the PIIX4.
    I440Fx,
    /// Q35 and ICH9.
    Q35,
}

impl Chipset {
    /// The functions that are part of it.
    pub(super) fn functions(self, vcpus: u32) -> Vec<(Slot, Box<dyn Function>)> {
        let at = |device, function| Slot { device, function };
        match self {
            Chipset::I440Fx => vec![
                (at(0, 0), Box::new(Registers::i440fx(vcpus))),
                (at(1, 0), Box::new(Registers::piix3())),
                (at(1, 3), Box::new(PowerManagement::piix4())),
            ],
            Chipset::Q35 => {
                vec![(at(0, 0), Box::new(Registers::q35(vcpus))), (at(31, 0), Box::new(PowerManagement::ich9()))]
            }
        }
    }

    pub(super) fn isa_bridge(self) -> Slot {
        match self {
            Chipset::I440Fx => Slot::device(1),
            Chipset::Q35 => Slot::device(31),
        }
    }

    /// "PCIEXBAR": base and size in bytes of the enhanced configuration mechanism.
    pub(super) fn enhanced(self, bridge: &Config) -> Option<(u64, u64)> {
        if self != Chipset::Q35 {
            return None;
        }
        let low = bridge.get(0x60, 4);
        let size = match low >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None, // reserved
        };
        let base = (u64::from(bridge.get(0x64, 4)) << 32 | u64::from(low)) & !(size - 1);
        (low & 1 != 0).then_some((base, size))
    }

    /// The PIRQ (0 is PIRQA#) that a device's pin (0 is INTA#) is wired to: turned by one from device to device. Devices 25
    /// to 31 of the ICH9 have routes at reset only, see "DxxIR".
    pub(in crate::platform) fn pirq(self, slot: Slot, pin: u8) -> u8 {
        match self {
            Chipset::I440Fx => (slot.device.wrapping_sub(1).wrapping_add(pin)) & 3,
            Chipset::Q35 if slot.device >= 25 => pin & 3,
            Chipset::Q35 => 4 + ((slot.device + pin) & 3),
        }
    }

    /// "PIRQRC", A to D: the IRQ that a PIRQ is routed to.
    pub(super) fn route(self, bridge: &Config, pirq: u8) -> Option<u8> {
        let at = match (self, pirq) {
            (_, 0..4) => 0x60 + usize::from(pirq),
            (Chipset::Q35, _) => 0x68 + usize::from(pirq - 4),
            (Chipset::I440Fx, _) => return None,
        };
        let register = bridge.read(at);
        let irq = register & 0xf;
        (register & NOT_ROUTED == 0 && !matches!(irq, 0..=2 | 8 | 13)).then_some(irq)
    }
}

/// A function that is registers in configuration space; of a host bridge, what they put below 1 MiB too.
struct Registers {
    name: &'static str,
    config: Config,
    bridge: Option<HostBridge>,
}

/// Places of registers of a host bridge, and what is behind them.
struct HostBridge {
    /// PAM0.
    pam: usize,
    /// "SMRAM": the control register.
    smram: usize,
    /// "ESMRAMC" and "TSEGMB", if there is TSEG.
    tseg: Option<(usize, usize)>,
    shadow: Shadow,
    /// What processors have been told. Follows from the configuration space.
    told: Bridge,
    vcpus: u32,
}

impl HostBridge {
    fn new(pam: usize, smram: usize, tseg: Option<(usize, usize)>, vcpus: u32) -> Option<Self> {
        Some(HostBridge { pam, smram, tseg, shadow: Shadow::default(), told: Bridge::default(), vcpus })
    }

    /// "System Management RAM Control Register", "Extended System Management RAM Control Register".
    fn decodes(&self, config: &Config) -> Bridge {
        let smram = config.read(self.smram);
        let tseg = self.tseg.and_then(|(control, base)| {
            let size = [1, 2, 8].get(usize::from(config.read(control) >> 1 & 3))? << 20;
            let base = u64::from(config.get(base, 4) & 0xfff0_0000);
            (config.read(control) & T_EN != 0).then_some((base, size))
        });
        let compatible = smram & (G_SMRAME | 7) == G_SMRAME | C_BASE_SEG;
        Bridge { compatible, open: smram & D_OPEN != 0, closed: smram & D_CLS != 0, tseg }
    }

    /// What can no longer be changed at a place once D_LCK is set.
    fn locked(&self, at: usize) -> u8 {
        match self.tseg {
            _ if at == self.smram => D_OPEN | D_LCK | G_SMRAME,
            Some((control, _)) if at == control => 0x87,
            Some((_, base)) if (base..base + 4).contains(&at) => 0xff,
            _ => 0,
        }
    }
}

/// SMRAM.
const C_BASE_SEG: u8 = 2;
const G_SMRAME: u8 = 8;
const D_LCK: u8 = 0x10;
const D_CLS: u8 = 0x20;
const D_OPEN: u8 = 0x40;
/// ESMRAMC.
const T_EN: u8 = 1;

impl Registers {
    /// Tells processors what has changed of system management RAM.
    fn tell(&mut self, cx: &mut DeviceCx) {
        let Some(bridge) = &mut self.bridge else { return };
        let decodes = bridge.decodes(&self.config);
        if std::mem::replace(&mut bridge.told, decodes) != decodes {
            (0..bridge.vcpus).for_each(|vcpu| cx.vcpu(vcpu, DECODE, decodes.pack()));
        }
    }

    /// PAM0 to PAM6 at 59h, SMRAM at 72h.
    fn i440fx(vcpus: u32) -> Self {
        let mut c = Config::new(INTEL, 0x1237, HOST_BRIDGE, 2);
        c.set(header::COMMAND, 2, 6);
        c.set(header::STATUS, 2, 0x0280);
        for at in (0x50..0x58).chain(0x5a..0x70) {
            c.allow(at, 1, 0xff);
        }
        c.allow(0x59, 1, 0xf0);
        c.set(0x72, 1, 2);
        c.allow(0x72, 1, 0x78);
        Registers { name: "i440fx", config: c.seal(), bridge: HostBridge::new(0x59, 0x72, None, vcpus) }
    }

    /// "PIRQRC", A to D, at 60h to 63h.
    fn piix3() -> Self {
        let mut c = Config::new(INTEL, 0x7000, ISA_BRIDGE, 0);
        c.set(header::HEADER_TYPE, 1, MULTI_FUNCTION);
        c.set(header::COMMAND, 2, 7);
        c.set(header::STATUS, 2, 0x0200);
        c.set(0x4c, 1, 0x4d);
        c.allow(0x4c, 1, 0xff);
        c.set(0x4e, 2, 3);
        c.allow(0x4e, 2, 0x07ff);
        c.set(0x60, 4, 0x8080_8080);
        c.allow(0x60, 4, 0x8f8f_8f8f);
        c.set(0x69, 1, 2);
        c.allow(0x69, 1, 0xfe);
        c.allow(0x82, 1, 0x0f);
        Registers { name: "piix3", config: c.seal(), bridge: None }
    }

    /// PCIEXBAR at 60h, PAM0 to PAM6 at 90h, SMRAM at 9Dh, ESMRAMC at 9Eh, TSEGMB at ACh, TOLUD at B0h. OVMF asks for the size of a larger TSEG,
    /// which only QEMU has, by writing ones to a register at 50h: if they can be read back, there is none.
    fn q35(vcpus: u32) -> Self {
        let mut c = Config::new(INTEL, 0x29c0, HOST_BRIDGE, 0);
        c.set(header::COMMAND, 2, 6);
        c.set(header::STATUS, 2, 0x0080);
        for at in [0x40, 0x48, 0x68] {
            c.allow(at, 4, 0xffff_c001); // EPBAR, MCHBAR, DMIBAR
            c.allow(at + 4, 4, 0xf);
        }
        c.allow(0x50, 2, 0xffff);
        c.allow(0x60, 4, 0xfc00_0007);
        c.allow(0x64, 4, 0xf);
        c.allow(0x90, 1, 0x30);
        for at in 0x91..0x97 {
            c.allow(at, 1, 0x33);
        }
        c.set(0x9d, 1, 2);
        c.allow(0x9d, 1, 0x78);
        c.set(0x9e, 1, 0x38);
        c.allow(0x9e, 1, 0x87);
        c.allow(0xa0, 2, 0x3ff);
        c.allow(0xa2, 2, 0xffff);
        c.allow(0xac, 4, 0xfff0_0000);
        c.allow(0xb0, 2, 0xfff0);
        Registers { name: "q35", config: c.seal(), bridge: HostBridge::new(0x90, 0x9d, Some((0x9e, 0xac)), vcpus) }
    }
}

impl Function for Registers {
    fn name(&self) -> &'static str {
        self.name
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn write_config(&mut self, at: usize, value: u8, _: &mut DeviceCx) {
        let Some(bridge) = &self.bridge else { return self.config.write(at, value) };
        let is_locked = self.config.read(bridge.smram) & D_LCK != 0;
        let locked = if is_locked { bridge.locked(at) } else { 0 };
        let locks = at == bridge.smram && value & D_LCK != 0;
        let value = if locks { value & !D_OPEN } else { value };
        self.config.write(at, value & !locked | self.config.read(at) & locked);
    }

    fn config_written(&mut self, cx: &mut DeviceCx) {
        if let Some(bridge) = &mut self.bridge {
            let pam = std::array::from_fn(|i| self.config.read(bridge.pam + i));
            bridge.shadow.set(pam, cx.ram);
        }
        self.tell(cx);
    }

    /// "System Management Mode (SMM)": only processors reach TSEG.
    fn hides(&self) -> Option<(u64, u64)> {
        self.bridge.as_ref().and_then(|b| b.told.tseg)
    }

    /// System management RAM is as after reset; RAM shadows ROM as before, which firmware for QEMU relies on.
    fn wake(&mut self, cx: &mut DeviceCx) {
        if let Some(bridge) = &self.bridge {
            let (smram, tseg) = (bridge.smram, bridge.tseg);
            self.config.write(smram, 0);
            if let Some((control, _)) = tseg {
                self.config.write(control, 0);
            }
        }
        self.tell(cx);
    }

    fn windows(&self) -> Vec<Window> {
        let (base, size) = shadow::ROM_WINDOW;
        let rom = Window { space: Space::Memory, base, size, region: REGION_ROM };
        self.bridge.iter().map(|_| rom).collect()
    }

    fn read(&mut self, _: u8, _: Access, _: &mut DeviceCx) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: u8, access: Access, value: u64, _: &mut DeviceCx) {
        if let Some(bridge) = &mut self.bridge {
            bridge.shadow.write(shadow::ROM_WINDOW.0 + access.offset, access, value);
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        if let Some(bridge) = &mut self.bridge {
            bridge.shadow = Shadow::default();
            bridge.told = Bridge::default();
        }
    }

    fn save(&self) -> Vec<u8> {
        emu_core::to_bytes(&(self.config.state(), self.bridge.as_ref().map(|b| b.shadow.clone())))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (config, shadow): (ConfigState, Option<Shadow>) = emu_core::from_bytes(bytes)?;
        self.config.set_state(config)?;
        if let (Some(bridge), Some(shadow)) = (&mut self.bridge, shadow) {
            bridge.shadow = shadow;
            bridge.told = bridge.decodes(&self.config);
        }
        Ok(())
    }
}

/// The function that power management belongs to, with its block of ports where PMBASE says; and the whole LPC bridge of the
/// ICH9, with the memory at RCBA. Inputs of the bus are those of [`Pm`].
struct PowerManagement {
    chipset: Chipset,
    config: Config,
    pm: Pm,
    /// The chipset configuration registers: storage.
    rcrb: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct PmState {
    config: ConfigState,
    pm: Vec<u8>,
    rcrb: Vec<u8>,
}

impl PowerManagement {
    /// PMBASE at 40h, enabled by bit 0 of PMREGMISC at 80h. The SCI is IRQ9.
    fn piix4() -> Self {
        let mut c = Config::new(INTEL, 0x7113, OTHER_BRIDGE, 3);
        c.set(header::STATUS, 2, 0x0280);
        c.set(header::INTERRUPT_LINE, 2, 0x0109);
        c.set(0x40, 4, 1);
        c.allow(0x40, 4, 0xffc0);
        c.allow(DEVACTB, 4, u32::MAX);
        c.allow(0x5c, 4, u32::MAX);
        c.allow(0x80, 1, 1);
        c.set(0x90, 4, 1);
        c.allow(0x90, 4, 0xfff0);
        c.allow(0xd2, 1, 0x0f);
        let pm = Pm::new(PmConfig { lines: (SCI, SMI, SLEEP, SMI_OF_ALL), ..PmConfig::PIIX4 });
        PowerManagement { chipset: Chipset::I440Fx, config: c.seal(), pm, rcrb: Vec::new() }
    }

    /// PMBASE at 40h, ACPI_CNTL at 44h, PIRQ routes at 60h and 68h, RCBA at F0h.
    fn ich9() -> Self {
        let mut c = Config::new(INTEL, 0x2918, ISA_BRIDGE, 2);
        c.set(header::HEADER_TYPE, 1, MULTI_FUNCTION);
        c.set(header::COMMAND, 2, 7);
        c.set(header::STATUS, 2, 0x0200);
        c.set(0x40, 4, 1);
        c.allow(0x40, 4, 0xff80);
        c.allow(0x44, 1, 0x87);
        c.set(0x48, 4, 1);
        c.allow(0x48, 4, 0xffc0);
        c.allow(0x4c, 1, 0x11);
        for at in [0x60, 0x68] {
            c.set(at, 4, 0x8080_8080);
            c.allow(at, 4, 0x8f8f_8f8f);
        }
        c.set(0x64, 1, 0x10);
        c.allow(0x64, 1, 0xd3);
        for at in (0x80..0x98).chain(0xa0..0xb0) {
            c.allow(at, 1, 0xff);
        }
        c.allow(0xdc, 1, 0xff);
        c.allow(0xf0, 4, 0xffff_c001);
        let pm = Pm::new(PmConfig { lines: (SCI, SMI, SLEEP, SMI_OF_ALL), ..PmConfig::ICH9 });
        PowerManagement { chipset: Chipset::Q35, config: c.seal(), pm, rcrb: rcrb_at_reset() }
    }

    fn pm_is_enabled(&self) -> bool {
        match self.chipset {
            Chipset::I440Fx => self.config.read(0x80) & 1 != 0,
            Chipset::Q35 => self.config.read(0x44) & 0x80 != 0,
        }
    }
}

/// Devices 25 to 31 have PIRQA# to PIRQD# at their pins INTA# to INTD#.
fn rcrb_at_reset() -> Vec<u8> {
    let mut bytes = vec![0; RCRB_SIZE as usize];
    for at in ROUTES {
        bytes[at..at + 2].copy_from_slice(&0x3210u16.to_le_bytes());
    }
    bytes
}

impl Function for PowerManagement {
    fn name(&self) -> &'static str {
        match self.chipset {
            Chipset::I440Fx => "piix4-pm",
            Chipset::Q35 => "ich9-lpc",
        }
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn write_config(&mut self, at: usize, value: u8, _: &mut DeviceCx) {
        let locked = if at == GEN_PMCON_1 { self.config.read(at) & SMI_LOCK } else { 0 };
        self.config.write(at, value | locked);
    }

    fn config_written(&mut self, _: &mut DeviceCx) {
        match self.chipset {
            Chipset::I440Fx => self.pm.set_apmc(self.config.get(DEVACTB, 4) & DEVACTB_APMC_EN != 0),
            Chipset::Q35 if self.config.read(GEN_PMCON_1) & SMI_LOCK != 0 => self.pm.lock_smi(),
            Chipset::Q35 => {}
        }
    }

    fn windows(&self) -> Vec<Window> {
        let mut windows = vec![Window { space: Space::Port, base: 0xb2, size: 2, region: REGION_APM }];
        let base = u64::from(self.config.get(0x40, 2)) & !0x3f;
        if self.pm_is_enabled() && base != 0 {
            let size = if self.chipset == Chipset::Q35 { PM_SIZE } else { 0x40 };
            windows.push(Window { space: Space::Port, base, size, region: REGION_PM });
        }
        let rcba = self.config.get(0xf0, 4);
        if self.chipset == Chipset::Q35 && rcba & 1 != 0 {
            let base = u64::from(rcba & 0xffff_c000);
            windows.push(Window { space: Space::Memory, base, size: RCRB_SIZE, region: REGION_RCRB });
        }
        windows
    }

    fn read(&mut self, region: u8, access: Access, cx: &mut DeviceCx) -> u64 {
        match region {
            REGION_PM => self.pm.read(access, cx),
            REGION_APM => self.pm.read(Access { offset: APM + access.offset, ..access }, cx),
            _ => read_bytes(access, |at| self.rcrb.get(at as usize).copied().unwrap_or(0)),
        }
    }

    fn write(&mut self, region: u8, access: Access, value: u64, cx: &mut DeviceCx) {
        match region {
            REGION_PM => self.pm.write(access, value, cx),
            REGION_APM => self.pm.write(Access { offset: APM + access.offset, ..access }, value, cx),
            _ => write_bytes(access, value, |at, byte| {
                if let Some(register) = self.rcrb.get_mut(at as usize) {
                    *register = byte;
                }
            }),
        }
    }

    fn has_woken(&mut self) -> bool {
        self.pm.has_woken()
    }

    fn wake(&mut self, _: &mut DeviceCx) {
        let unlocked = self.config.read(GEN_PMCON_1) & !SMI_LOCK;
        self.config.write(GEN_PMCON_1, unlocked);
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        self.pm.input(line, level, cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        self.pm.tick(cx);
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.pm.wakes_at()
    }

    fn reset(&mut self) {
        self.config.reset();
        self.pm.reset();
        if self.chipset == Chipset::Q35 {
            self.rcrb = rcrb_at_reset();
        }
    }

    fn save(&self) -> Vec<u8> {
        emu_core::to_bytes(&PmState { config: self.config.state(), pm: self.pm.save(), rcrb: self.rcrb.clone() })
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let state: PmState = emu_core::from_bytes(bytes)?;
        if state.rcrb.len() != self.rcrb.len() {
            return Err("its configuration registers have another size".into());
        }
        self.pm.restore(&state.pm)?;
        self.config.set_state(state.config)?;
        self.rcrb = state.rcrb;
        Ok(())
    }
}
