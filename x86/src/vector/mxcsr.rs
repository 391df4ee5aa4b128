//! MXCSR and the SIMD floating-point exceptions (SDM vol. 1, "MXCSR Control and Status Register", "SSE and SSE2 Exceptions").

use super::{Lane, V, Width};
use emu_core::float::fast::Host;
use emu_core::float::{self, Class, Env, F128, Flags, Format};
use serde::{Deserialize, Serialize};

/// MXCSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mxcsr(
    /// The register.
    pub u32,
);

/// An unmasked SIMD floating-point exception: #XM. The flags are in MXCSR; the destination is not to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimdException;

impl Default for Mxcsr {
    fn default() -> Mxcsr {
        Mxcsr(Mxcsr::RESET)
    }
}

impl Mxcsr {
    /// The value after a reset and after INIT: all exceptions masked.
    pub const RESET: u32 = 0x1f80;
    /// MXCSR_MASK: the bits that are not reserved.
    pub const WRITABLE: u32 = 0xffff;

    /// Invalid operation.
    pub const IE: u32 = 1 << 0;
    /// Denormal operand.
    pub const DE: u32 = 1 << 1;
    /// Divide by zero.
    pub const ZE: u32 = 1 << 2;
    /// Overflow.
    pub const OE: u32 = 1 << 3;
    /// Underflow.
    pub const UE: u32 = 1 << 4;
    /// Precision: the result is inexact.
    pub const PE: u32 = 1 << 5;
    /// Denormals are zeros.
    pub const DAZ: u32 = 1 << 6;
    /// Flush to zero.
    pub const FTZ: u32 = 1 << 15;
    /// The exceptions that are found before anything is computed.
    pub const PRE_COMPUTATION: u32 = Self::IE | Self::DE | Self::ZE;

    /// The flags whose exceptions are masked.
    #[inline]
    pub const fn masked(self) -> u32 {
        self.0 >> 7 & 0x3f
    }

    /// What influences an operation. INEXACT is set already where that flag is set and masked, so that it can make no
    /// difference: much is faster then.
    #[inline]
    pub fn env(self) -> Env {
        let mut env = Env::x86_sse(self.0);
        if self.0 & self.masked() & Mxcsr::PE != 0 {
            env.raise(Flags::INEXACT);
        }
        env
    }

    /// Sets the flags that an operation raised, on all its elements, and finds whether an exception is unmasked.
    ///
    /// An unmasked exception before computation is reported before any is found that only computation shows. SDM vol. 1,
    /// "Handling Combinations of Masked and Unmasked Exceptions".
    #[inline]
    pub fn accrue(&mut self, raised: Flags) -> Result<(), SimdException> {
        let raised = u32::from(raised.to_x86());
        let unmasked = raised & !self.masked();
        if unmasked & Mxcsr::PRE_COMPUTATION != 0 {
            self.0 |= raised & Mxcsr::PRE_COMPUTATION;
            return Err(SimdException);
        }
        self.0 |= raised;
        if unmasked == 0 { Ok(()) } else { Err(SimdException) }
    }

    /// `f(i)` for each element of the width; the other elements are those of `a`.
    #[inline]
    pub(super) fn elements<T: Lane>(
        &mut self,
        w: Width,
        a: V,
        f: impl FnMut(usize, &mut Env) -> T,
    ) -> Result<V, SimdException> {
        self.first_elements(w.count::<T>(), a, f)
    }

    /// `f(i)` for the first `n` elements; the other elements are those of `a`.
    #[inline]
    pub(super) fn first_elements<T: Lane>(
        &mut self,
        n: usize,
        a: V,
        mut f: impl FnMut(usize, &mut Env) -> T,
    ) -> Result<V, SimdException> {
        let mut env = self.env();
        let mut result = a;
        for i in 0..n {
            T::set(&mut result, i, f(i, &mut env));
        }
        self.accrue(env.flags)?;
        Ok(result)
    }
}

/// A format of which SIMD vectors are made.
pub trait Float: Host<Bits: Lane> {}

impl<F: Host<Bits: Lane>> Float for F {}

impl Mxcsr {
    /// Whether neither an overflow nor an underflow would be reported: then results are what IEEE 754 says by default.
    #[inline]
    pub(super) const fn masks_range(self) -> bool {
        self.masked() & (Mxcsr::OE | Mxcsr::UE) == Mxcsr::OE | Mxcsr::UE
    }

    /// One element of an operation, where an overflow or underflow may not be masked.
    ///
    /// Such an exception finds a result that is rounded as if the exponent were unbounded: an underflow is one even where
    /// that result is exact, and the precision flag is set where that is not. SDM vol. 1, "Numeric Overflow Exception
    /// (#O)", "Numeric Underflow Exception (#U)". `wide` computes the same in a format in which the exponent is unbounded
    /// for our purposes.
    #[cold]
    pub(super) fn with_range_exceptions<F: Format>(
        self,
        env: &mut Env,
        op: impl FnOnce(&mut Env) -> F::Bits,
        wide: impl FnOnce(&mut Env) -> u128,
    ) -> F::Bits {
        let mut own = Env { flags: Flags::NONE, ..*env };
        let result = op(&mut own);
        let subnormal = matches!(float::classify::<F>(result), Class::PositiveSubnormal | Class::NegativeSubnormal);
        let underflows = self.masked() & Mxcsr::UE == 0 && (subnormal || own.flags.contains(Flags::UNDERFLOW));
        let overflows = self.masked() & Mxcsr::OE == 0 && own.flags.contains(Flags::OVERFLOW);
        if underflows {
            own.raise(Flags::UNDERFLOW);
        }
        if underflows || overflows {
            own.flags.0 &= !Flags::INEXACT.0;
            if !is_exact::<F>(wide) {
                own.raise(Flags::INEXACT);
            }
        }
        env.raise(own.flags);
        result
    }
}

/// Whether a result in quadruple precision is exact, and in the format's precision too.
fn is_exact<F: Format>(wide: impl FnOnce(&mut Env) -> u128) -> bool {
    let mut env = Env::x86_sse(Mxcsr::RESET);
    let result = wide(&mut env);
    let below = (1u128 << (F128::PRECISION - F::PRECISION)) - 1;
    !env.flags.contains(Flags::INEXACT) && result & below == 0
}

/// An operand in quadruple precision, as the environment has it: a denormal may be taken as a zero.
pub(super) fn widened<F: Format>(x: F::Bits, mxcsr: Mxcsr) -> u128 {
    float::convert::<F, F128>(x, &mut mxcsr.env())
}
