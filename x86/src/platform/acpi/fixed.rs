//! Tables of fixed form.

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;

use super::{Described, OEM, OEM_REVISION, OEM_TABLE, Pointer, Table, header};
use crate::platform::board::{IOAPIC_ID, IRQ0_GSI, SCI_IRQ};
use crate::platform::pci::chipset::Chipset;
use crate::platform::pm::PmConfig;
use crate::platform::{hpet, ioapic};

/// Where local APICs are at reset.
const LOCAL_APIC: u32 = 0xfee0_0000;

pub(super) fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Power management of a chipset.
pub(super) fn pm(chipset: Chipset) -> PmConfig {
    match chipset {
        Chipset::I440Fx => PmConfig::PIIX4,
        Chipset::Q35 => PmConfig::ICH9,
    }
}

/// "Firmware ACPI Control Structure".
pub(super) fn facs() -> Table {
    Table { checksum: None, ..Table::new(bytes(&FACS::new())) }
}

/// "Fixed ACPI Description Table".
pub(super) fn fadt(board: &Described, facs: usize, dsdt: usize) -> Table {
    const LEGACY_DEVICES: u16 = 1;
    const HAS_8042: u16 = 2;
    const NO_VGA: u16 = 4;
    const RESET_CONTROL: u64 = 0xcf9;
    /// SYS_RST and RST_CPU.
    const RESET: u8 = 6;
    let pm = pm(board.chipset);
    let base = u64::from(board.firmware.pm_base);
    let io = |at: u64, bits: u8, access| GAS::new(AddressSpace::SystemIo, bits, 0, access, at);
    let mut t = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION);
    t.sci_int = (SCI_IRQ as u16).into();
    t.smi_cmd = 0xb2.into();
    (t.acpi_enable, t.acpi_disable) = pm.acpi_commands;
    let port = |offset: u64| ((base + offset) as u32).into();
    (t.pm1a_evt_blk, t.pm1_evt_len) = (port(0), 4);
    (t.pm1a_cnt_blk, t.pm1_cnt_len) = (port(4), 2);
    (t.pm_tmr_blk, t.pm_tmr_len) = (port(8), 4);
    (t.gpe0_blk, t.gpe0_blk_len) = (port(pm.gpe0), pm.gpe0_len as u8);
    t.x_pm1a_evt_blk = io(base, 32, AccessSize::WordAccess);
    t.x_pm1a_cnt_blk = io(base + 4, 16, AccessSize::WordAccess);
    t.x_pm_tmr_blk = io(base + 8, 32, AccessSize::DwordAccess);
    t.x_gpe0_blk = io(base + pm.gpe0, 8 * pm.gpe0_len as u8, AccessSize::ByteAccess);
    // No C2 and no C3.
    (t.p_lvl2_lat, t.p_lvl3_lat) = (0xfff.into(), 0xfff.into());
    t.century = 0x32;
    t.iapc_boot_arch = (LEGACY_DEVICES | HAS_8042 | NO_VGA).into();
    (t.reset_reg, t.reset_value) = (io(RESET_CONTROL, 8, AccessSize::ByteAccess), RESET);
    for flag in [Flags::Wbinvd, Flags::ProcC1, Flags::SlpButton, Flags::RtcS4, Flags::ResetRegSup] {
        t = t.flag(flag);
    }
    if pm.wide_timer {
        t = t.flag(Flags::TmrValExt);
    }
    let pointers = [(36, 4, facs), (40, 4, dsdt), (140, 8, dsdt)];
    let pointers = pointers.map(|(at, size, to)| Pointer { at, size, to });
    Table { pointers: pointers.to_vec(), ..Table::new(bytes(&t.finalize())) }
}

pub(super) fn sdt(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(*signature, header::SIZE as u32, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(body);
    table.as_slice().to_vec()
}

/// "Multiple APIC Description Table".
pub(super) fn madt(board: &Described) -> Vec<u8> {
    const PCAT_COMPAT: u32 = 1;
    const ENABLED: u32 = 1;
    /// "MPS INTI Flags": active high, level triggered.
    const LEVEL_HIGH: u16 = 0xd;
    let mut body = Vec::new();
    body.extend(LOCAL_APIC.to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    for id in 0..board.vcpus {
        match u8::try_from(id) {
            // "Processor Local APIC Structure".
            Ok(id) if id < 255 => body.extend([&[0, 8, id, id][..], &ENABLED.to_le_bytes()].concat()),
            // "Processor Local x2APIC Structure".
            _ => {
                let words = [id, ENABLED, id].map(u32::to_le_bytes).concat();
                body.extend([&[9, 16, 0, 0][..], &words].concat());
            }
        }
    }
    // "I/O APIC Structure".
    body.extend([1, 12, IOAPIC_ID, 0]);
    body.extend((ioapic::BASE as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    // "Interrupt Source Override Structure". 5, 10 and 11 are PCI's.
    for (irq, gsi, flags) in
        [(0, IRQ0_GSI, 0), (5, 5, LEVEL_HIGH), (9, SCI_IRQ, LEVEL_HIGH), (10, 10, LEVEL_HIGH), (11, 11, LEVEL_HIGH)]
    {
        body.extend([2, 10, 0, irq]);
        body.extend(gsi.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    // "Local APIC NMI Structure", of all processors; likewise for those with x2APIC structures.
    body.extend([4, 6, 0xff, 0, 0, 1]);
    if board.vcpus > 255 {
        body.extend([10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    }
    sdt(b"APIC", 5, &body)
}

/// "IA-PC HPET Specification", "The ACPI 2.0 HPET Description Table".
pub(super) fn hpet() -> Vec<u8> {
    /// Vendor, legacy replacement, a counter of 64 bits, three timers, revision 1.
    const ID: u32 = 0x8086_a201;
    let mut body = ID.to_le_bytes().to_vec();
    body.extend([0, 64, 0, 0]);
    body.extend(hpet::BASE.to_le_bytes());
    body.extend([0, 0x80, 0, 0]);
    sdt(b"HPET", 1, &body)
}

/// "PCI Firmware Specification", "MCFG Table Description".
pub(super) fn mcfg(board: &Described) -> Vec<u8> {
    let mut table = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    table.add_ecam(board.firmware.ecam, 0, 0, 0xff);
    bytes(&table)
}

/// "Root System Description Table", "Extended System Description Table": pointers of `size` bytes.
pub(super) fn root(signature: &[u8; 4], size: usize, to: &[usize]) -> Table {
    let pointers = (0..).zip(to).map(|(i, to)| Pointer { at: header::SIZE + size * i, size, to: *to });
    let pointers = pointers.collect();
    Table { pointers, ..Table::new(sdt(signature, 1, &vec![0; size * to.len()])) }
}

/// "Root System Description Pointer". Its checksums are made when it is linked.
pub(super) fn rsdp(rsdt: usize, xsdt: usize) -> Table {
    let mut bytes = b"RSD PTR \0".to_vec();
    bytes.extend(OEM);
    bytes.extend([2, 0, 0, 0, 0]);
    bytes.extend(36u32.to_le_bytes());
    bytes.resize(36, 0);
    let pointers = vec![Pointer { at: 16, size: 4, to: rsdt }, Pointer { at: 24, size: 8, to: xsdt }];
    Table { bytes, pointers, checksum: None }
}
