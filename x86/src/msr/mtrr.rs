//! Memory type range registers as firmware leaves them ("Memory Type Range Registers (MTRRs)"): RAM is write-back, what is not RAM below 4 GiB
//! is uncached, video memory too, and the shadow of ROM is write-protected. They change nothing here; kernels read them.

use super::{X86, row};
use crate::model::Feature;

const UC: u64 = 0;
const WP: u64 = 5;
const WB: u64 = 6;
/// IA32_MTRR_DEF_TYPE: E and FE.
const ENABLED: u64 = 3 << 10;
/// IA32_MTRR_PHYSMASKn.V.
const VALID: u64 = 1 << 11;
const FOUR_GIB: u64 = 1 << 32;

/// A memory type in each byte.
const fn eight(kind: u64) -> u64 {
    kind * 0x0101_0101_0101_0101
}

impl X86 {
    /// Sets them for RAM that ends at `low_end` below 4 GiB.
    pub(crate) fn set_up_mtrrs(&mut self, low_end: u64) {
        if !self.model.has(Feature::Mtrr) {
            return;
        }
        let mut registers = vec![(0x2ff, ENABLED | WB), (0x250, eight(WB)), (0x258, eight(WB)), (0x259, eight(UC))];
        registers.extend((0x268..=0x26f).map(|number| (number, eight(WP))));
        // A range is as large as its address is aligned.
        let mut base = low_end.next_multiple_of(1 << 28).max(1 << 31);
        for number in (0x200..0x210).step_by(2) {
            if base == FOUR_GIB {
                break;
            }
            let size = base & base.wrapping_neg();
            let mask = ((1 << self.model.physical_bits) - 1) & !(size - 1);
            registers.extend([(number, base | UC), (number + 1, mask | VALID)]);
            base += size;
        }
        for (number, value) in registers {
            debug_assert!(row(self, number).is_some());
            self.msrs.stored.insert(number, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::CpuModel;
    use crate::processor::X86;

    #[test]
    fn what_is_not_ram_is_uncached() {
        for (low_end, ranges) in [
            (0x800_0000, vec![(0x8000_0000, 0x8000_0000)]),
            (0x9000_0000u64, vec![(0x9000_0000, 0x1000_0000), (0xa000_0000, 0x2000_0000), (0xc000_0000, 0x4000_0000)]),
            (0xc000_0000, vec![(0xc000_0000, 0x4000_0000)]),
            (0xd800_0000, vec![(0xe000_0000, 0x2000_0000)]),
        ] {
            let mut p = X86::reset(0).of_model(CpuModel::parse("intel,phys-bits=40").unwrap(), 0, 1, 0);
            p.set_up_mtrrs(low_end);
            for (n, (base, size)) in (0..).zip(&ranges) {
                let found = [0x200 + 2 * n, 0x201 + 2 * n].map(|number| p.stored_msr(number));
                assert_eq!(found, [*base, ((1 << 40) - size) | 1 << 11], "{low_end:#x}");
            }
            assert_eq!(p.stored_msr(0x201 + 2 * ranges.len() as u32), 0);
            assert_eq!((p.stored_msr(0x2ff), p.stored_msr(0x259)), (0xc06, 0));
        }
    }
}
