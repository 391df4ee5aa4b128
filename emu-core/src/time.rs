//! Virtual time: instructions retired over a nominal frequency (docs/design.md, "Time").

/// A point of virtual time, in nanoseconds since the machine was started.
pub type VirtualTime = u64;

/// The earlier of two points of time, either of which may never come.
#[inline]
pub fn earlier(a: Option<VirtualTime>, b: Option<VirtualTime>) -> Option<VirtualTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// Converts between retired instructions and virtual time.
///
/// The nominal frequency is a setting of the machine. At its default of 1 GHz one instruction takes one nanosecond and
/// both conversions are the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Frequency {
    hertz: u64,
}

/// The default nominal frequency: 1 GHz.
pub const DEFAULT_HERTZ: u64 = 1_000_000_000;
const NANOSECONDS: u128 = 1_000_000_000;

impl Default for Frequency {
    fn default() -> Self {
        Frequency { hertz: DEFAULT_HERTZ }
    }
}

impl Frequency {
    /// A frequency in hertz; `None` unless it is between 1 kHz and 1 THz.
    pub fn new(hertz: u64) -> Option<Self> {
        (1_000..=1_000_000_000_000).contains(&hertz).then_some(Frequency { hertz })
    }

    /// The frequency in hertz.
    pub fn hertz(self) -> u64 {
        self.hertz
    }

    /// The virtual time at which `instructions` have been retired, rounded down.
    pub fn time_of(self, instructions: u64) -> VirtualTime {
        if self.hertz == DEFAULT_HERTZ {
            return instructions;
        }
        (u128::from(instructions) * NANOSECONDS / u128::from(self.hertz)) as u64
    }

    /// The first point of virtual time at which so many instructions have been retired.
    pub fn time_reached(self, instructions: u64) -> VirtualTime {
        if self.hertz == DEFAULT_HERTZ {
            return instructions;
        }
        let ns = (u128::from(instructions) * NANOSECONDS).div_ceil(u128::from(self.hertz));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// The first instruction count at which `time` has come.
    pub fn instructions_until(self, time: VirtualTime) -> u64 {
        if self.hertz == DEFAULT_HERTZ {
            return time;
        }
        (u128::from(time) * u128::from(self.hertz)).div_ceil(NANOSECONDS).min(u128::from(u64::MAX)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_come_at_its_instruction_and_not_before() {
        for hertz in [1_000, 999_999_937, DEFAULT_HERTZ, 2_500_000_000] {
            let f = Frequency::new(hertz).unwrap();
            for t in [0, 1, 2, 99, 1_000_003, 7_777_777_777] {
                let n = f.instructions_until(t);
                assert!(f.time_of(n) >= t, "{hertz} Hz, {t} ns");
                assert!(n == 0 || f.time_of(n - 1) < t, "{hertz} Hz, {t} ns");
            }
        }
    }
}
