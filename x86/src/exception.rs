//! Exceptions (SDM vol. 3A, "Interrupt and Exception Handling").

use emu_core::engine::Stop;

/// Vectors of exceptions ("Protected-Mode Exceptions and Interrupts").
pub mod vector {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
    pub const VE: u8 = 20;
    pub const CP: u8 = 21;
    pub const SX: u8 = 30;
}

/// The manual's name of an exception.
pub fn name(vector: u8) -> &'static str {
    match vector {
        0 => "#DE",
        1 => "#DB",
        2 => "NMI",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        18 => "#MC",
        19 => "#XM",
        20 => "#VE",
        21 => "#CP",
        30 => "#SX",
        _ => "interrupt",
    }
}

/// An exception that an instruction raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector.
    pub vector: u8,
    /// Its error code, if it has one.
    pub error: Option<u16>,
    /// For #PF: the linear address.
    pub address: u64,
}

impl Exception {
    /// One without an error code.
    pub const fn plain(vector: u8) -> Self {
        Exception { vector, error: None, address: 0 }
    }

    /// One with an error code.
    pub const fn with(vector: u8, error: u16) -> Self {
        Exception { vector, error: Some(error), address: 0 }
    }

    /// #UD.
    pub const UD: Exception = Exception::plain(vector::UD);

    /// #GP with this error code.
    pub const fn gp(error: u16) -> Self {
        Exception::with(vector::GP, error)
    }

    /// The exception that stopped an instruction.
    #[inline]
    pub fn of(stop: Stop) -> Self {
        let code = stop.code();
        let error = (code >> 8 & 1 != 0).then_some((code >> 16) as u16);
        Exception { vector: code as u8, error, address: stop.value }
    }

    /// What comes of another exception while this one is delivered ("Interrupt 8—Double Fault Exception (#DF)").
    pub fn and_then(self, second: Exception) -> Conclusion {
        let is_serious = matches!(second.class(), Class::Contributory | Class::PageFault);
        match (self.class(), second.class()) {
            (Class::DoubleFault, _) if is_serious => Conclusion::Shutdown,
            (Class::Contributory, Class::Contributory) => Conclusion::DoubleFault,
            (Class::PageFault, _) if is_serious => Conclusion::DoubleFault,
            _ => Conclusion::Second,
        }
    }

    fn class(self) -> Class {
        match self.vector {
            vector::DE | vector::TS | vector::NP | vector::SS | vector::GP | vector::CP | vector::SX => {
                Class::Contributory
            }
            vector::PF | vector::VE => Class::PageFault,
            vector::DF => Class::DoubleFault,
            _ => Class::Benign,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

/// What two exceptions in a row come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The second is delivered in place of the first.
    Second,
    /// A double fault is.
    DoubleFault,
    /// The processor shuts down.
    Shutdown,
}

impl From<Exception> for Stop {
    #[inline]
    fn from(e: Exception) -> Stop {
        let error = e.error.map_or(0, |error| 1 << 8 | u32::from(error) << 16);
        Stop::exception(u32::from(e.vector) | error, e.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_goes_through_a_stop() {
        for e in [
            Exception::UD,
            Exception::gp(0),
            Exception::gp(0xfff8),
            Exception { vector: 14, error: Some(7), address: 1 << 47 },
        ] {
            assert_eq!(Exception::of(e.into()), e);
        }
    }

    /// "Conditions for Generating a Double Fault", and the text on triple faults.
    #[test]
    fn two_in_a_row() {
        let [ud, gp, pf, df] = [vector::UD, vector::GP, vector::PF, vector::DF].map(Exception::plain);
        for (first, second, conclusion) in [
            (ud, gp, Conclusion::Second),
            (ud, pf, Conclusion::Second),
            (gp, ud, Conclusion::Second),
            (gp, gp, Conclusion::DoubleFault),
            (gp, pf, Conclusion::Second),
            (pf, ud, Conclusion::Second),
            (pf, gp, Conclusion::DoubleFault),
            (pf, pf, Conclusion::DoubleFault),
            (df, gp, Conclusion::Shutdown),
            (df, pf, Conclusion::Shutdown),
            (df, ud, Conclusion::Second),
        ] {
            assert_eq!(first.and_then(second), conclusion, "{first:?}, {second:?}");
        }
    }
}
