//! How a processor enters what was loaded, and the descriptor and page tables that it does it with.

use super::{GDT, LoadError, Loader, PAGE_TABLES};

/// The mode of a processor, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode.
    Real {
        /// CS.
        cs: u16,
        /// IP.
        ip: u16,
    },
    /// Protected mode without paging: flat segments of 4 GiB.
    Protected32 {
        /// EIP.
        eip: u32,
    },
    /// 64-bit mode with the first 4 GiB mapped as they are.
    Long64 {
        /// RIP.
        rip: u64,
        /// CR3.
        cr3: u64,
    },
}

/// The state in which the first processor begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its mode, and where it begins.
    pub mode: Mode,
    /// The GDT: base and limit.
    pub gdt: (u64, u16),
    /// Selectors of CS, and of all other segments; in real mode DS, ES and SS have CS's.
    pub selectors: (u16, u16),
    /// General registers that are not 0: number in the order of their encoding, and value.
    pub registers: Vec<(u8, u64)>,
    /// It may count on what a BIOS leaves.
    pub after_bios: bool,
}

impl Entry {
    /// Real mode, all segments alike.
    pub fn real(cs: u16, ip: u16) -> Self {
        Entry {
            mode: Mode::Real { cs, ip },
            gdt: (0, 0xffff),
            selectors: (cs, cs),
            registers: Vec::new(),
            after_bios: false,
        }
    }

    /// With these registers.
    pub fn with(self, registers: &[(u8, u64)]) -> Self {
        Entry { registers: registers.to_vec(), ..self }
    }

    /// Behind a BIOS.
    pub fn after_bios(self) -> Self {
        Entry { after_bios: true, ..self }
    }
}

/// Selectors, as Linux's boot protocol has them: __BOOT_CS and __BOOT_DS.
const SELECTORS: (u16, u16) = (0x10, 0x18);
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// A flat 32-bit code segment.
pub(super) fn code_32() -> u64 {
    0x00cf_9b00_0000_ffff
}

/// A flat 64-bit code segment.
fn code_64() -> u64 {
    0x00af_9b00_0000_ffff
}

impl Loader<'_> {
    fn put_gdt(&mut self, code: u64) -> Result<(u64, u16), LoadError> {
        let table: Vec<u8> = [0, 0, code, DATA].iter().flat_map(|d: &u64| d.to_le_bytes()).collect();
        self.put("the GDT", GDT, &table)?;
        Ok((GDT, table.len() as u16 - 1))
    }

    /// Protected mode.
    pub(super) fn enter_32(&mut self, eip: u64, code: u64) -> Result<Entry, LoadError> {
        let gdt = self.put_gdt(code)?;
        let mode = Mode::Protected32 { eip: eip as u32 };
        Ok(Entry { mode, gdt, selectors: SELECTORS, registers: Vec::new(), after_bios: false })
    }

    /// 64-bit mode: the first 4 GiB in pages of 2 MiB.
    pub(super) fn enter_64(&mut self, rip: u64) -> Result<Entry, LoadError> {
        const PRESENT_WRITABLE: u64 = 3;
        const LARGE: u64 = 0x80;
        const PAGE: u64 = 0x1000;
        let gdt = self.put_gdt(code_64())?;
        let (pdpt, directories) = (PAGE_TABLES + PAGE, PAGE_TABLES + 2 * PAGE);
        let mut tables = vec![0u64; 6 * 512];
        tables[0] = pdpt | PRESENT_WRITABLE;
        (0..4).for_each(|i| tables[512 + i] = (directories + i as u64 * PAGE) | PRESENT_WRITABLE);
        (0..2048).for_each(|i| tables[1024 + i] = (i as u64) << 21 | PRESENT_WRITABLE | LARGE);
        let bytes: Vec<u8> = tables.iter().flat_map(|e| e.to_le_bytes()).collect();
        self.put("page tables", PAGE_TABLES, &bytes)?;
        let mode = Mode::Long64 { rip, cr3: PAGE_TABLES };
        Ok(Entry { mode, gdt, selectors: SELECTORS, registers: Vec::new(), after_bios: false })
    }
}
