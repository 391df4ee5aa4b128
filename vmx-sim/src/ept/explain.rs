//! The EPT walk of an address, step by step, for people: nothing is changed, and nothing but RAM is read.

use emu_core::ram::Ram;
use x86::describe::{rights, size};

use super::bit::*;
use super::{ADDRESS, Vmx};
use crate::control::secondary;
use crate::field::EPT_POINTER;

/// One entry that a walk has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which it is.
    pub name: &'static str,
    /// Its physical address.
    pub at: u64,
    /// What it holds.
    pub entry: u64,
    /// What it says.
    pub says: String,
}

/// Where a walk leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The physical address.
    pub physical: u64,
    /// log2 of the page's size in bytes.
    pub size_log2: u32,
    /// Rights of all entries together: bits 0 to 2, and bit 10 with mode-based execute control.
    pub rights: u64,
}

/// Why a walk leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The address is wider than what the walk translates: an EPT violation.
    TooWide,
    /// An EPT violation: the entry is not present.
    NotPresent,
    /// An EPT misconfiguration.
    Misconfigured,
    /// There is no RAM where the entry should be.
    NoMemory,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            End::TooWide => "EPT violation: the address is wider than what the walk translates",
            End::NotPresent => "EPT violation: the entry is not present",
            End::Misconfigured => "EPT misconfiguration",
            End::NoMemory => "there is no RAM where the entry should be",
        })
    }
}

/// Names of EPT paging-structure entries, by level.
const NAMES: [&str; 6] = ["", "EPT PTE", "EPT PDE", "EPT PDPTE", "EPT PML4E", "EPT PML5E"];

fn memory_type(entry: u64) -> &'static str {
    match entry >> 3 & 7 {
        0 => "uncacheable",
        1 => "write-combining",
        4 => "write-through",
        5 => "write-protected",
        6 => "write-back",
        _ => "reserved memory type",
    }
}

/// An entry as a walk finds it.
struct Found {
    level: u32,
    at: u64,
    entry: u64,
    is_page: bool,
    /// The walk ends here.
    end: Option<End>,
}

impl Vmx {
    /// The walk, which tells of each entry.
    fn walk(&self, ram: &Ram, address: u64, mut tell: impl FnMut(Found)) -> Result<Page, End> {
        let eptp = self.vmcs[EPT_POINTER];
        let top = (eptp >> 3 & 7) as u32 + 1;
        let by_mode = self.vmcs.has(secondary::MODE_BASED_EXECUTE_CONTROL);
        let present = READ | WRITE | EXECUTE | if by_mode { EXECUTE_USER } else { 0 };
        if top > 5 || address >> (12 + 9 * top) != 0 {
            return Err(End::TooWide);
        }
        let (mut table, mut rights) = (eptp & ADDRESS, present);
        for level in (1..=top).rev() {
            let shift = 12 + 9 * (level - 1);
            let at = table + (address >> shift & 0x1ff) * 8;
            let entry = ram.load(at, 8).map_err(|_| End::NoMemory)?;
            let is_page = level == 1 || level <= 3 && entry & PAGE != 0;
            let end = if entry & present == 0 {
                Some(End::NotPresent)
            } else {
                self.is_misconfigured(entry, level, is_page).then_some(End::Misconfigured)
            };
            tell(Found { level, at, entry, is_page, end });
            if let Some(end) = end {
                return Err(end);
            }
            rights &= entry;
            if is_page {
                let offset = (1 << shift) - 1;
                let physical = entry & ADDRESS & !offset | address & offset;
                return Ok(Page { physical, size_log2: shift, rights });
            }
            table = entry & ADDRESS;
        }
        unreachable!("level 1 maps a page")
    }

    /// Where the EPTP of the current VMCS leads a guest-physical address.
    pub fn peek(&self, ram: &Ram, address: u64) -> Result<Page, End> {
        self.walk(ram, address, |_| {})
    }

    /// Likewise, step by step.
    pub fn explain(&self, ram: &Ram, address: u64) -> (Vec<Step>, Result<Page, End>) {
        let mut steps = Vec::new();
        let end = self.walk(ram, address, |found| {
            let Found { level, at, entry, .. } = found;
            steps.push(Step { name: NAMES[level as usize], at, entry, says: self.says(&found) });
        });
        (steps, end)
    }

    fn says(&self, found: &Found) -> String {
        let Found { level, entry, is_page, end, .. } = *found;
        let by_mode = self.vmcs.has(secondary::MODE_BASED_EXECUTE_CONTROL);
        let allowed = rights(entry & READ != 0, entry & WRITE != 0, entry & EXECUTE != 0);
        let user = if by_mode && entry & EXECUTE_USER != 0 { " user-execute" } else { "" };
        let accessed = if entry & ACCESSED != 0 { " A" } else { "" };
        let dirty = if is_page && entry & DIRTY != 0 { " D" } else { "" };
        match end {
            Some(End::NotPresent) => "not present".to_owned(),
            Some(_) => format!("{allowed}{user}: misconfigured"),
            None if is_page => {
                format!("{allowed}{user} {}, {}{accessed}{dirty}", size(12 + 9 * (level - 1)), memory_type(entry))
            }
            None => format!("{allowed}{user}{accessed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use x86::extension::SecondAccess;
    use x86::paging::{Kind, Rights};
    use x86_bare::Bare;

    use super::super::refusal;
    use super::*;
    use crate::control::{Control, primary};

    /// Tables with all kinds of entries: what is explained is what is done.
    #[test]
    fn it_is_the_walk_that_the_processor_makes() {
        const TABLES: u64 = 0x10_0000;
        let mut bare = Bare::new("intel,+la57");
        let mut vmx = Vmx::new(&x86::model::CpuModel::parse("intel,+la57").unwrap());
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        };
        let on = |vmx: &mut Vmx, c: Control, is: bool| {
            vmx.vmcs[c.field] = vmx.vmcs[c.field] & !(1 << c.bit) | u64::from(is) << c.bit;
        };
        let mut ends = [0; 4];
        for _ in 0..30_000 {
            on(&mut vmx, primary::ACTIVATE_SECONDARY_CONTROLS, true);
            on(&mut vmx, secondary::ENABLE_EPT, true);
            on(&mut vmx, secondary::MODE_BASED_EXECUTE_CONTROL, next() % 4 == 0);
            let top = 4 + next() % 2;
            vmx.vmcs[EPT_POINTER] = TABLES | (top - 1) << 3 | 6;
            let address = if next() % 50 == 0 { 1 << 58 } else { next() % (1 << 30) };
            for level in 1..=top {
                let shift = 12 + 9 * (level - 1);
                let table = TABLES + 0x1000 * (top - level);
                let mut entry = (table + 0x1000) | 7;
                if next() % 12 == 0 {
                    entry = entry & !0xfff & !(next() & 0x3f_f000) | next() & 0xfff;
                } else if level <= 3 && next() % 4 == 0 || level == 1 {
                    entry = next() << shift & ((1 << 40) - 1) | 0xb0 | next() & 0x747;
                }
                bare.put(table + (address >> shift & 0x1ff) * 8, entry);
            }
            for (kind, right) in [(Kind::Read, READ), (Kind::Write, WRITE), (Kind::Fetch, EXECUTE)] {
                let page = Rights { user: false, ..Rights::ALL };
                let (size, linear, is_entry) = (1, None, false);
                let access =
                    SecondAccess { address, size, kind, linear, is_entry, page, user: false, shadow_stack: false };
                let (steps, explained) = vmx.explain(&bare.machine.world.ram, address);
                let mut h = bare.machine.vcpus[0].at(&mut bare.machine.world);
                let done = vmx.translate(&mut h, access);
                let case = format!("{address:x} {kind:?} {steps:x?} {explained:x?} {done:x?}");
                match explained {
                    Ok(page) if page.rights & right != 0 => {
                        ends[0] += 1;
                        assert_eq!(
                            done.map(|d| (d.physical, u32::from(d.size_log2))),
                            Ok((page.physical, page.size_log2)),
                            "{case}"
                        );
                    }
                    Ok(_) => {
                        ends[1] += 1;
                        assert!(done.is_err_and(|why| why & refusal::MISCONFIGURED == 0), "{case}");
                    }
                    Err(End::Misconfigured) => {
                        ends[2] += 1;
                        assert_eq!(done, Err(refusal::MISCONFIGURED), "{case}");
                    }
                    Err(End::NoMemory) => {}
                    Err(_) => {
                        ends[3] += 1;
                        assert!(done.is_err_and(|why| why & refusal::MISCONFIGURED == 0), "{case}");
                    }
                }
            }
        }
        assert!(ends.iter().all(|n| *n > 500), "{ends:?}");
    }
}
