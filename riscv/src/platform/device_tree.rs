//! The board's device tree (Devicetree Specification 0.4, and the bindings of Linux for what `compatible` names).

use vm_fdt::{FdtWriter, FdtWriterNode};

use super::aclint::{CLINT_SIZE, SSWI_SIZE, TIMEBASE_HERTZ};
use super::board::*;
use super::imsic::ImsicRegion;

/// Interrupt specifier of an APLIC: a level that is active when high.
const LEVEL_HIGH: u32 = 4;

/// Phandles: one for each node that another names.
mod phandle {
    pub const IRQCHIP: u32 = 1;
    pub const APLIC_M: u32 = 2;
    pub const IMSIC_M: u32 = 3;
    pub const IMSIC_S: u32 = 4;
    pub const TEST: u32 = 5;
    /// Of hart 0's CPU node; the others follow.
    pub const CPUS: u32 = 0x1000;
    /// Of hart 0's interrupt controller; the others follow.
    pub const INTCS: u32 = 0x2000;
}

type Result<T> = std::result::Result<T, vm_fdt::Error>;

/// A 64-bit number as two cells, or a base and a size as four.
fn cells<const N: usize>(numbers: [u64; N]) -> Vec<u32> {
    numbers.iter().flat_map(|n| [(n >> 32) as u32, *n as u32]).collect()
}

struct Tree<'a> {
    fdt: FdtWriter,
    board: &'a BoardConfig,
}

/// The device tree of a board, flattened.
pub fn device_tree(board: &BoardConfig) -> std::result::Result<Vec<u8>, BoardError> {
    board.check()?;
    let mut tree = Tree { fdt: FdtWriter::new()?, board };
    tree.root()?;
    Ok(tree.fdt.finish()?)
}

impl Tree<'_> {
    fn strings(&mut self, name: &str, values: &[&str]) -> Result<()> {
        self.fdt.property_string_list(name, values.iter().map(|s| s.to_string()).collect())
    }

    fn size_cells(&mut self, address: u32, size: u32) -> Result<()> {
        self.fdt.property_u32("#address-cells", address)?;
        self.fdt.property_u32("#size-cells", size)
    }

    /// Begins a device's node.
    fn device(&mut self, name: &str, base: u64, size: u64, compatible: &[&str]) -> Result<FdtWriterNode> {
        let node = self.fdt.begin_node(&format!("{name}@{base:x}"))?;
        self.strings("compatible", compatible)?;
        self.fdt.property_array_u32("reg", &cells([base, size]))?;
        Ok(node)
    }

    /// The interrupt of the device whose node is open.
    fn interrupt(&mut self, number: u32) -> Result<()> {
        self.fdt.property_u32("interrupt-parent", phandle::IRQCHIP)?;
        match self.board.irqchip {
            IrqChip::Plic => self.fdt.property_u32("interrupts", number),
            _ => self.fdt.property_array_u32("interrupts", &[number, LEVEL_HIGH]),
        }
    }

    /// `interrupts-extended`: these pins of each hart in turn.
    fn interrupts_extended(&mut self, pins: &[u32]) -> Result<()> {
        let harts = 0..self.board.harts;
        let cells: Vec<u32> = harts.flat_map(|h| pins.iter().flat_map(move |p| [phandle::INTCS + h, *p])).collect();
        self.fdt.property_array_u32("interrupts-extended", &cells)
    }

    fn interrupt_controller(&mut self, interrupt_cells: u32) -> Result<()> {
        self.fdt.property_null("interrupt-controller")?;
        self.fdt.property_u32("#address-cells", 0)?;
        self.fdt.property_u32("#interrupt-cells", interrupt_cells)
    }

    fn root(&mut self) -> Result<()> {
        let root = self.fdt.begin_node("")?;
        self.size_cells(2, 2)?;
        self.strings("compatible", &["riscv-virtio"])?;
        self.fdt.property_string("model", "undervisor,riscv64-virt")?;
        self.chosen()?;
        let aliases = self.fdt.begin_node("aliases")?;
        self.fdt.property_string("serial0", &format!("/soc/serial@{UART:x}"))?;
        self.fdt.end_node(aliases)?;
        let memory = self.fdt.begin_node(&format!("memory@{RAM:x}"))?;
        self.fdt.property_string("device_type", "memory")?;
        self.fdt.property_array_u32("reg", &cells([RAM, self.board.ram_size]))?;
        self.fdt.end_node(memory)?;
        self.cpus()?;
        self.soc()?;
        self.syscon("poweroff", "syscon-poweroff", emu_core::devices::syscon::PASS)?;
        self.syscon("reboot", "syscon-reboot", emu_core::devices::syscon::RESET)?;
        self.fdt.end_node(root)
    }

    fn chosen(&mut self) -> Result<()> {
        let node = self.fdt.begin_node("chosen")?;
        self.fdt.property_string("stdout-path", &format!("/soc/serial@{UART:x}"))?;
        if !self.board.bootargs.is_empty() {
            self.fdt.property_string("bootargs", &self.board.bootargs)?;
        }
        if let Some((start, end)) = self.board.initrd {
            self.fdt.property_u64("linux,initrd-start", start)?;
            self.fdt.property_u64("linux,initrd-end", end)?;
        }
        self.fdt.property("rng-seed", &self.board.rng_seed)?;
        self.fdt.end_node(node)
    }

    fn cpus(&mut self) -> Result<()> {
        let cpus = self.fdt.begin_node("cpus")?;
        self.size_cells(1, 0)?;
        self.fdt.property_u32("timebase-frequency", TIMEBASE_HERTZ as u32)?;
        for hart in 0..self.board.harts {
            self.cpu(hart)?;
        }
        let map = self.fdt.begin_node("cpu-map")?;
        let cluster = self.fdt.begin_node("cluster0")?;
        for hart in 0..self.board.harts {
            let core = self.fdt.begin_node(&format!("core{hart}"))?;
            self.fdt.property_u32("cpu", phandle::CPUS + hart)?;
            self.fdt.end_node(core)?;
        }
        self.fdt.end_node(cluster)?;
        self.fdt.end_node(map)?;
        self.fdt.end_node(cpus)
    }

    fn cpu(&mut self, hart: u32) -> Result<()> {
        let board = self.board;
        let node = self.fdt.begin_node(&format!("cpu@{hart:x}"))?;
        self.fdt.property_string("device_type", "cpu")?;
        self.fdt.property_u32("reg", hart)?;
        self.fdt.property_string("status", "okay")?;
        self.strings("compatible", &["riscv"])?;
        self.fdt.property_string("riscv,isa", &board.isa)?;
        self.fdt.property_string("riscv,isa-base", "rv64i")?;
        self.fdt.property_string_list("riscv,isa-extensions", board.isa_extensions.clone())?;
        self.fdt.property_string("mmu-type", &board.mmu)?;
        for (extension, property) in [
            ("zicbom", "riscv,cbom-block-size"),
            ("zicboz", "riscv,cboz-block-size"),
            ("zicbop", "riscv,cbop-block-size"),
        ] {
            if board.isa_extensions.iter().any(|e| e == extension) {
                self.fdt.property_u32(property, board.cache_block)?;
            }
        }
        self.fdt.property_phandle(phandle::CPUS + hart)?;
        let intc = self.fdt.begin_node("interrupt-controller")?;
        self.strings("compatible", &["riscv,cpu-intc"])?;
        self.interrupt_controller(1)?;
        self.fdt.property_phandle(phandle::INTCS + hart)?;
        self.fdt.end_node(intc)?;
        self.fdt.end_node(node)
    }

    fn soc(&mut self) -> Result<()> {
        let soc = self.fdt.begin_node("soc")?;
        self.size_cells(2, 2)?;
        self.strings("compatible", &["simple-bus"])?;
        self.fdt.property_null("ranges")?;

        let test = self.device("test", TEST, TEST_SIZE, &["sifive,test1", "sifive,test0", "syscon"])?;
        self.fdt.property_phandle(phandle::TEST)?;
        self.fdt.end_node(test)?;

        let rtc = self.device("rtc", RTC, RTC_SIZE, &["google,goldfish-rtc"])?;
        self.interrupt(RTC_IRQ)?;
        self.fdt.end_node(rtc)?;

        let clint = self.device("clint", CLINT, CLINT_SIZE, &["sifive,clint0", "riscv,clint0"])?;
        self.interrupts_extended(&[pin::MSIP, pin::MTIP])?;
        self.fdt.end_node(clint)?;
        if self.board.sswi {
            let sswi = self.device("sswi", SSWI, SSWI_SIZE, &["riscv,aclint-sswi"])?;
            self.interrupt_controller(0)?;
            self.interrupts_extended(&[pin::SSIP])?;
            self.fdt.end_node(sswi)?;
        }
        match self.board.irqchip {
            IrqChip::Plic => self.plic()?,
            IrqChip::Aplic => self.aplics(false)?,
            IrqChip::AplicImsic { guest_files } => {
                self.imsic(IMSIC_M, ImsicRegion::Machine, pin::MEIP, phandle::IMSIC_M)?;
                self.imsic(IMSIC_S, ImsicRegion::Supervisor { guest_files }, pin::SEIP, phandle::IMSIC_S)?;
                self.aplics(true)?;
            }
        }

        let uart = self.device("serial", UART, UART_SIZE, &["ns16550a"])?;
        self.fdt.property_u32("clock-frequency", UART_CLOCK)?;
        self.interrupt(UART_IRQ)?;
        self.fdt.end_node(uart)?;
        for slot in 0..VIRTIO_SLOTS {
            let size = emu_core::devices::virtio::mmio::MMIO_SIZE;
            let node = self.device("virtio", virtio_base(slot), size, &["virtio,mmio"])?;
            self.interrupt(VIRTIO_IRQ + slot as u32)?;
            self.fdt.end_node(node)?;
        }
        self.fdt.end_node(soc)
    }

    fn plic(&mut self) -> Result<()> {
        let size = irqchip_size(self.board);
        let node = self.device("interrupt-controller", PLIC, size, &["sifive,plic-1.0.0", "riscv,plic0"])?;
        self.interrupt_controller(1)?;
        self.interrupts_extended(&[pin::MEIP, pin::SEIP])?;
        self.fdt.property_u32("riscv,ndev", SOURCES)?;
        self.fdt.property_phandle(phandle::IRQCHIP)?;
        self.fdt.end_node(node)
    }

    /// The machine-level domain, which may delegate every source to the supervisor's, and that one.
    fn aplics(&mut self, msi: bool) -> Result<()> {
        for (base, pin, imsic, own) in [
            (APLIC_M, pin::MEIP, phandle::IMSIC_M, phandle::APLIC_M),
            (APLIC_S, pin::SEIP, phandle::IMSIC_S, phandle::IRQCHIP),
        ] {
            let node = self.device("interrupt-controller", base, irqchip_size(self.board), &["riscv,aplic"])?;
            self.interrupt_controller(2)?;
            self.fdt.property_u32("riscv,num-sources", SOURCES)?;
            if msi {
                self.fdt.property_u32("msi-parent", imsic)?;
            } else {
                self.interrupts_extended(&[pin])?;
            }
            if base == APLIC_M {
                self.machine_level()?;
                self.fdt.property_u32("riscv,children", phandle::IRQCHIP)?;
                for name in ["riscv,delegation", "riscv,delegate"] {
                    self.fdt.property_array_u32(name, &[phandle::IRQCHIP, 1, SOURCES])?; // older firmware has the latter
                }
            }
            self.fdt.property_phandle(own)?;
            self.fdt.end_node(node)?;
        }
        Ok(())
    }

    /// A device that supervisors must leave alone.
    fn machine_level(&mut self) -> Result<()> {
        if self.board.for_supervisor {
            self.fdt.property_string("status", "disabled")?;
        }
        Ok(())
    }

    fn imsic(&mut self, base: u64, region: ImsicRegion, pin: u32, own: u32) -> Result<()> {
        let node = self.device("interrupt-controller", base, region.size(self.board.harts), &["riscv,imsics"])?;
        self.interrupt_controller(0)?;
        if base == IMSIC_M {
            self.machine_level()?;
        }
        self.fdt.property_null("msi-controller")?;
        self.fdt.property_u32("#msi-cells", 0)?;
        self.interrupts_extended(&[pin])?;
        self.fdt.property_u32("riscv,num-ids", IMSIC_IDENTITIES)?;
        if region.guest_index_bits() != 0 {
            self.fdt.property_u32("riscv,guest-index-bits", region.guest_index_bits())?;
        }
        self.fdt.property_phandle(own)?;
        self.fdt.end_node(node)
    }

    /// Power-off and reset: a value to be written to the test finisher.
    fn syscon(&mut self, name: &str, compatible: &str, value: u16) -> Result<()> {
        let node = self.fdt.begin_node(name)?;
        self.strings("compatible", &[compatible])?;
        self.fdt.property_u32("regmap", phandle::TEST)?;
        self.fdt.property_u32("offset", 0)?;
        self.fdt.property_u32("value", value.into())?;
        self.fdt.end_node(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wanted, as raw bytes of the tree's strings and numbers.
    fn has(tree: &[u8], bytes: &[u8]) -> bool {
        tree.windows(bytes.len()).any(|w| w == bytes)
    }

    /// Writes the trees to the directory that `DTB_OUT` names, for `dtc` to look at.
    fn keep(name: &str, tree: &[u8]) {
        if let Ok(directory) = std::env::var("DTB_OUT") {
            std::fs::write(format!("{directory}/{name}.dtb"), tree).unwrap();
        }
    }

    #[test]
    fn trees_of_all_interrupt_controllers() {
        for (name, irqchip, wanted) in [
            ("plic", IrqChip::Plic, &b"sifive,plic-1.0.0\0riscv,plic0\0"[..]),
            ("aplic", IrqChip::Aplic, b"riscv,aplic\0"),
            ("imsic", IrqChip::AplicImsic { guest_files: 5 }, b"riscv,imsics\0"),
        ] {
            let board = BoardConfig {
                harts: 3,
                irqchip,
                sswi: true,
                isa_extensions: ["i", "zicbom", "zicboz"].map(String::from).into(),
                bootargs: "console=ttyS0 quiet".into(),
                initrd: Some((0x8400_0000, 0x8500_0000)),
                ..BoardConfig::default()
            };
            let tree = device_tree(&board).unwrap();
            keep(name, &tree);
            assert_eq!(tree[..4], [0xd0, 0x0d, 0xfe, 0xed]);
            assert_eq!(tree.len() as u32, u32::from_be_bytes(tree[4..8].try_into().unwrap()));
            for text in [wanted, b"console=ttyS0 quiet\0", b"cpu@2\0", b"/soc/serial@10000000\0", b"i\0zicbom\0"] {
                assert!(has(&tree, text), "{name}: {}", String::from_utf8_lossy(text));
            }
            assert_eq!(tree, device_tree(&board).unwrap());
        }
    }

    #[test]
    fn a_command_line_with_a_nul_is_an_error() {
        let board = BoardConfig { bootargs: "a\0b".into(), ..BoardConfig::default() };
        assert!(matches!(device_tree(&board), Err(BoardError::DeviceTree(_))));
    }
}
