//! "Differentiated System Description Table": PCI's root with its windows and interrupts, what hangs on ISA, processors,
//! suspend to RAM, soft off.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, IO, If, Interrupt, Memory32Fixed, Method, Name,
    PackageBuilder, Path, ResourceTemplate, Return, Scope, Store,
};
use acpi_tables::sdt::Sdt;

use super::{Described, OEM, OEM_REVISION, OEM_TABLE, fixed, header};
use crate::platform::board::{MMIO, MMIO_GSI, MMIO_STRIDE, PCI_END, SERIAL, Transport};
use crate::platform::memory::{ECAM_SIZE, FIXED, FOUR_GIB};
use crate::platform::pci::Slot;
use crate::platform::pci::chipset::Chipset;
use crate::platform::{fw_cfg, hpet, i8042, rtc};

/// IRQs that PIRQA# to PIRQD#, and PIRQE# to PIRQH#, are routed to.
pub const PIRQ_IRQS: [u8; 4] = [10, 10, 11, 11];

fn path(name: &str) -> Path {
    Path::new(name)
}

fn name(of: &str, value: &dyn Aml) -> Name {
    Name::new(path(of), value)
}

/// A device that is a name, an ID and resources.
fn device(of: &str, id: &dyn Aml, uid: u32, resources: Vec<&dyn Aml>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let resources = ResourceTemplate::new(resources);
    let children = [name("_HID", id), name("_UID", &uid), name("_CRS", &resources)];
    Device::new(path(of), children.iter().map(|c| c as &dyn Aml).collect()).to_aml_bytes(&mut bytes);
    bytes
}

fn io(first: u64, len: u8) -> IO {
    IO::new(first as u16, first as u16, 1, len)
}

/// ISA's interrupts: edge triggered, active high, not shared.
fn irq(number: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, number)
}

/// Bytes that are AML already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// What hangs on the ISA bridge.
fn isa(board: &Described) -> Raw {
    let adr = match board.chipset {
        Chipset::I440Fx => 0x0001_0000u32,
        Chipset::Q35 => 0x001f_0000,
    };
    let mut children = Vec::new();
    for (n, (port, number)) in (1..).zip(SERIAL) {
        let (ports, irq) = (io(port, 8), irq(number));
        children.push(Raw(device(&format!("COM{n}"), &EISAName::new("PNP0501"), n, vec![&ports, &irq])));
    }
    let (ports, number) = (io(rtc::PORTS[0].port, 2), irq(8));
    children.push(Raw(device("RTC_", &EISAName::new("PNP0B00"), 0, vec![&ports, &number])));
    let (data, command, number) = (io(i8042::PORTS[0].port, 1), io(i8042::PORTS[0].port + 4, 1), irq(1));
    children.push(Raw(device("KBD_", &EISAName::new("PNP0303"), 0, vec![&data, &command, &number])));
    let number = irq(12);
    children.push(Raw(device("MOU_", &EISAName::new("PNP0F13"), 0, vec![&number])));
    let adr = name("_ADR", &adr);
    let mut all: Vec<&dyn Aml> = vec![&adr];
    all.extend(children.iter().map(|c| c as &dyn Aml));
    let mut bytes = Vec::new();
    Device::new(path("ISA_"), all).to_aml_bytes(&mut bytes);
    Raw(bytes)
}

/// "_PRT (PCI Routing Table)": which input each pin of each device has.
fn routes(board: &Described, input: impl Fn(u8) -> u32) -> PackageBuilder {
    let mut all = PackageBuilder::new();
    for device in 1..32u8 {
        for pin in 0..4u8 {
            let pirq = board.chipset.pirq(Slot::device(device), pin);
            let mut one = PackageBuilder::new();
            one.add_element(&(u32::from(device) << 16 | 0xffff));
            one.add_element(&pin);
            one.add_element(&0u8);
            one.add_element(&input(pirq));
            all.add_element(&one);
        }
    }
    all
}

/// The root of PCI.
fn pci(board: &Described) -> Vec<u8> {
    let layout = &board.layout;
    let is_q35 = board.chipset == Chipset::Q35;
    let end = if board.virtio.1 == Transport::Mmio { MMIO } else { FIXED };
    // Video memory, and what is behind RAM but for the enhanced configuration space.
    let ecam = if is_q35 { board.firmware.ecam..board.firmware.ecam + ECAM_SIZE } else { end..end };
    let windows = [0xa_0000..0xc_0000, layout.low_end..ecam.start, ecam.end.max(layout.low_end)..end];
    let busses = AddressSpace::new_bus_number(0u16, 0xff);
    let config = io(0xcf8, 8);
    let ports = [AddressSpace::new_io(0u16, 0xcf7, None), AddressSpace::new_io(0xd00, 0xffff, None)];
    // Firmware places functions there whether they are prefetchable or not.
    let uncached = AddressSpaceCacheable::NotCacheable;
    let window = |first: u64, end: u64| AddressSpace::new_memory(uncached, true, first as u32, end as u32 - 1, None);
    let memory: Vec<_> = windows.iter().filter(|w| !w.is_empty()).map(|w| window(w.start, w.end)).collect();
    let high = AddressSpace::new_memory(uncached, true, layout.high_end.max(64 * FOUR_GIB), PCI_END - 1, None);
    let mut resources: Vec<&dyn Aml> = vec![&busses, &config, &ports[0], &ports[1]];
    resources.extend(memory.iter().map(|m| m as &dyn Aml));
    resources.push(&high);
    let resources = ResourceTemplate::new(resources);
    let hid = EISAName::new(if is_q35 { "PNP0A08" } else { "PNP0A03" });
    let cid = EISAName::new("PNP0A03");
    let names = [name("_HID", &hid), name("_CID", &cid), name("_UID", &0u8), name("_BBN", &0u8)];
    let crs = name("_CRS", &resources);
    // With the 8259As, PIRQs go to ISA's interrupts; with the I/O APIC the ICH9's have inputs of their own.
    let legacy = routes(board, |pirq| PIRQ_IRQS[usize::from(pirq & 3)].into());
    let apic = routes(board, |pirq| if is_q35 { 16 + u32::from(pirq) } else { PIRQ_IRQS[usize::from(pirq)].into() });
    let tables = [name("PRTP", &legacy), name("PRTA", &apic)];
    let (mode, with_apic, with_pic) = (path("\\PICM"), path("PRTA"), path("PRTP"));
    let (return_apic, return_pic) = (Return::new(&with_apic), Return::new(&with_pic));
    let if_apic = If::new(&mode, vec![&return_apic]);
    let prt = Method::new(path("_PRT"), 0, false, vec![&if_apic, &return_pic]);
    let isa = isa(board);
    let mut children: Vec<&dyn Aml> = names.iter().map(|n| n as &dyn Aml).collect();
    children.extend([&crs as &dyn Aml, &tables[0], &tables[1], &prt, &isa]);
    // "_PXM (Proximity)": devices are at the first node.
    let proximity = name("_PXM", &0u8);
    children.extend(board.nodes.map(|_| &proximity as &dyn Aml));
    let mut bytes = Vec::new();
    Device::new(path("PCI0"), children).to_aml_bytes(&mut bytes);
    bytes
}

/// Everything below \_SB.
fn system_bus(board: &Described) -> Vec<u8> {
    let mut bytes = pci(board);
    let memory = Memory32Fixed::new(true, hpet::BASE as u32, hpet::SIZE as u32);
    bytes.extend(device("HPET", &EISAName::new("PNP0103"), 0, vec![&memory]));
    let ports = io(fw_cfg::PORTS[0].port, fw_cfg::PORTS[0].size as u8);
    bytes.extend(device("FWCF", &"QEMU0002", 0, vec![&ports]));
    if board.chipset == Chipset::Q35 {
        // "PCI Firmware Specification": the enhanced configuration space is a motherboard's resource.
        let memory = Memory32Fixed::new(true, board.firmware.ecam as u32, ECAM_SIZE as u32);
        bytes.extend(device("ECAM", &EISAName::new("PNP0C02"), 0, vec![&memory]));
    }
    let (devices, transport) = board.virtio;
    for n in (0..devices as u32).filter(|_| transport == Transport::Mmio) {
        let memory = Memory32Fixed::new(true, (MMIO + u64::from(n) * MMIO_STRIDE) as u32, MMIO_STRIDE as u32);
        let interrupt = Interrupt::new(true, false, false, false, MMIO_GSI + n);
        bytes.extend(device(&format!("VR{n:02}"), &"LNRO0005", n, vec![&memory, &interrupt]));
    }
    for n in 0..board.vcpus {
        let children = [name("_HID", &"ACPI0007"), name("_UID", &n)];
        let children = children.iter().map(|c| c as &dyn Aml).collect();
        Device::new(path(&format!("C{n:03X}")), children).to_aml_bytes(&mut bytes);
    }
    bytes
}

/// The table of a board.
pub(super) fn dsdt(board: &Described) -> Vec<u8> {
    let mut table = Sdt::new(*b"DSDT", header::SIZE as u32, 2, OEM, OEM_TABLE, OEM_REVISION);
    let pm = fixed::pm(board.chipset);
    let state = |kind: u8| {
        let mut package = PackageBuilder::new();
        [kind, kind, 0, 0].iter().for_each(|n| package.add_element(n));
        package
    };
    let (s3, s5) = (state(pm.suspend), state(pm.soft_off));
    // "_PIC": whether the I/O APIC is in use.
    let (mode, argument) = (path("PICM"), Arg(0));
    let set_mode = Store::new(&mode, &argument);
    let pic = Method::new(path("\\_PIC"), 1, false, vec![&set_mode]);
    let mut body = Vec::new();
    for part in [&name("\\PICM", &0u8) as &dyn Aml, &name("\\_S3_", &s3), &name("\\_S5_", &s5), &pic] {
        part.to_aml_bytes(&mut body);
    }
    body.extend(Scope::raw(path("\\_SB_"), system_bus(board)));
    table.append_slice(&body);
    table.as_slice().to_vec()
}
