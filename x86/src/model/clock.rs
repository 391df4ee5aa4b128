//! The bus clock, which the timer of the local APIC counts ("APIC Timer").

use emu_core::time::Frequency;

use super::CpuModel;

/// The bus clock: so many of its ticks in so many ticks of the TSC, which takes one an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusClock {
    /// Ticks of the TSC: the numerator of the TSC's ratio to it.
    pub tsc: u64,
    /// Its own in the same time: the denominator.
    pub own: u64,
    /// Its frequency, rounded down.
    pub hertz: u64,
}

impl CpuModel {
    /// With Intel it is the core crystal clock of CPUID leaf 15H, of 38.4 MHz; with AMD it has 100 MHz; about that where the ratio would
    /// have terms that leaf 15H, or who multiplies them, has no room for.
    pub fn bus_clock(&self, frequency: Frequency) -> BusClock {
        let (nominal, own) = if self.is_intel() { (38_400_000, 24) } else { (100_000_000, 1) };
        let tsc = (frequency.hertz() * own / nominal).max(1);
        BusClock { tsc, own, hertz: frequency.hertz() * own / tsc }
    }
}

impl BusClock {
    /// Its ticks up to a count of the machine.
    pub fn ticks(self, count: u64) -> u64 {
        saturated(u128::from(count) * u128::from(self.own) / u128::from(self.tsc))
    }

    /// The first count of the machine at which it has had so many ticks.
    pub fn reached(self, ticks: u64) -> u64 {
        saturated((u128::from(ticks) * u128::from(self.tsc)).div_ceil(u128::from(self.own)))
    }
}

/// What is too far in the future never comes.
fn saturated(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_comes_at_its_count_and_not_before() {
        for (model, hertz) in
            [("intel", 1_000), ("intel", 999_999_937), ("intel", 1_000_000_000), ("amd", 1_000_000_000)]
        {
            let clock = CpuModel::parse(model).unwrap().bus_clock(Frequency::new(hertz).unwrap());
            for ticks in [1, 2, 24, 25, 1_000_003, 7_777_777_777] {
                let count = clock.reached(ticks);
                assert!(clock.ticks(count) >= ticks && clock.ticks(count - 1) < ticks, "{model}, {hertz} Hz, {ticks}");
            }
            assert_eq!(clock.ticks(clock.tsc * 1_000_000), clock.own * 1_000_000, "nothing is lost");
        }
        let clock = CpuModel::parse("intel").unwrap().bus_clock(Frequency::default());
        assert_eq!(clock, BusClock { tsc: 625, own: 24, hertz: 38_400_000 });
        assert_eq!(clock.reached(u64::MAX), u64::MAX);
    }
}
