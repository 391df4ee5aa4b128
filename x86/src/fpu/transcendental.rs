//! The transcendental functions: FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1.
//!
//! The manual asks for an error below 1 ulp and leaves the rest to the processor. Here a result is computed in quadruple
//! precision, with an error of some 2^-110, and rounded once, as RC says: so it is the exact one, rounded, but for rare halfway
//! cases; and the same on every host. It always counts as inexact, where it is not one of the special cases.
//!
//! The argument of FSIN, FCOS, FSINCOS and FPTAN is reduced with the π of the x87, which has 66 bits: SDM vol. 1, "Approximation
//! of Pi". So for large arguments the result is not the sine, but that of a wave whose period is twice this π. The reduction
//! itself is exact.

use super::arithmetic::{is_denormal, normalised, scaled, times_power_of_two};
use super::quad::Quad;
use super::status::*;
use super::{INDEFINITE, Source, X87};
use emu_core::float::{self, Class, Env, F80, Flags, Format};

/// The x87's π: 66 bits, times 2^66.
const PI_66: u128 = 0xc_90fd_aa22_168c_234c;

const ONE_F80: u128 = 0x3fff_8000_0000_0000_0000;

/// Tables of numbers in quadruple precision.
const fn quads<const N: usize>(bits: [u128; N]) -> [Quad; N] {
    let mut all = [Quad(0); N];
    let mut i = 0;
    while i < N {
        all[i] = Quad(bits[i]);
        i += 1;
    }
    all
}

/// 1 / 2.
const HALF: Quad = Quad(0x3ffe_0000_0000_0000_0000_0000_0000_0000);

/// sqrt(2).
const SQRT_2: Quad = Quad(0x3fff_6a09_e667_f3bc_c908_b2fb_1366_ea95);

/// 1 - sqrt(1 / 2).
const NEAR: Quad = Quad(0x3ffd_2bec_3330_1886_6dee_9a09_d932_2ad5);

/// 1.
const ONE: Quad = Quad(0x3fff_0000_0000_0000_0000_0000_0000_0000);

/// 2.
const TWO: Quad = Quad(0x4000_0000_0000_0000_0000_0000_0000_0000);

/// π.
const PI: Quad = Quad(0x4000_921f_b544_42d1_8469_898c_c517_01b8);

/// π / 2.
const HALF_PI: Quad = Quad(0x3fff_921f_b544_42d1_8469_898c_c517_01b8);

/// ln(2).
const LN_2: Quad = Quad(0x3ffe_62e4_2fef_a39e_f357_93c7_6730_07e6);

/// 2 / ln(2).
const TWO_OVER_LN_2: Quad = Quad(0x4000_7154_7652_b82f_e177_7d0f_fda0_d23a);

/// sin(r) / r - 1 in r^2: (-1)^n / (2n + 1)!, from n = 1.
const SIN: [Quad; 14] = quads([
    0xbffc_5555_5555_5555_5555_5555_5555_5555,
    0x3ff8_1111_1111_1111_1111_1111_1111_1111,
    0xbff2_a01a_01a0_1a01_a01a_01a0_1a01_a01a,
    0x3fec_71de_3a55_6c73_38fa_ac1c_88e5_0017,
    0xbfe5_ae64_567f_544e_38fe_747e_4b83_7dc7,
    0x3fde_6124_613a_86d0_97ca_3833_1d23_af68,
    0xbfd6_ae7f_3e73_3b81_f11d_8656_b0ee_8cb0,
    0x3fce_952c_7703_0ad4_a6b2_6051_9777_1b00,
    0xbfc6_2f49_b468_1415_724c_a1ec_3b7b_9675,
    0x3fbd_71b8_ef6d_cf57_18be_f146_fcee_6e45,
    0xbfb4_761b_4131_6381_9d97_b870_4dd7_f628,
    0x3fab_3f3c_cdd1_65fa_8d4e_44a4_1977_6f11,
    0xbfa1_d1ab_1c2d_ccea_320a_9a18_f15d_4277,
    0x3f98_259f_98b4_358a_d7ab_e30e_7766_f129,
]);

/// cos(r) - 1 in r^2: (-1)^n / (2n)!, from n = 1.
const COS: [Quad; 14] = quads([
    0xbffe_0000_0000_0000_0000_0000_0000_0000,
    0x3ffa_5555_5555_5555_5555_5555_5555_5555,
    0xbff5_6c16_c16c_16c1_6c16_c16c_16c1_6c17,
    0x3fef_a01a_01a0_1a01_a01a_01a0_1a01_a01a,
    0xbfe9_27e4_fb77_89f5_c72e_f016_d3ea_6679,
    0x3fe2_1eed_8eff_8d89_7b54_4da9_87ac_fe85,
    0xbfda_9397_4a8c_07c9_d20b_adf1_45df_a3e5,
    0x3fd2_ae7f_3e73_3b81_f11d_8656_b0ee_8cb0,
    0xbfca_6827_863b_97d9_77bb_0048_86a2_c2ab,
    0x3fc1_e542_ba40_2022_507a_9cad_2bf8_f0bb,
    0xbfb9_0ce3_96db_7f85_2945_0c90_b7f3_38ec,
    0x3faf_f2cf_0197_2f57_7cca_4b40_67ca_9d8a,
    0xbfa6_88e8_5fc6_a4e5_9a38_f205_0ba6_b015,
    0x3f9d_0a18_a263_5085_d373_c5c5_1c35_4a8d,
]);

/// (e^z - 1) / z - 1 in z: 1 / n!, from n = 2.
const EXP: [Quad; 29] = quads([
    0x3ffe_0000_0000_0000_0000_0000_0000_0000,
    0x3ffc_5555_5555_5555_5555_5555_5555_5555,
    0x3ffa_5555_5555_5555_5555_5555_5555_5555,
    0x3ff8_1111_1111_1111_1111_1111_1111_1111,
    0x3ff5_6c16_c16c_16c1_6c16_c16c_16c1_6c17,
    0x3ff2_a01a_01a0_1a01_a01a_01a0_1a01_a01a,
    0x3fef_a01a_01a0_1a01_a01a_01a0_1a01_a01a,
    0x3fec_71de_3a55_6c73_38fa_ac1c_88e5_0017,
    0x3fe9_27e4_fb77_89f5_c72e_f016_d3ea_6679,
    0x3fe5_ae64_567f_544e_38fe_747e_4b83_7dc7,
    0x3fe2_1eed_8eff_8d89_7b54_4da9_87ac_fe85,
    0x3fde_6124_613a_86d0_97ca_3833_1d23_af68,
    0x3fda_9397_4a8c_07c9_d20b_adf1_45df_a3e5,
    0x3fd6_ae7f_3e73_3b81_f11d_8656_b0ee_8cb0,
    0x3fd2_ae7f_3e73_3b81_f11d_8656_b0ee_8cb0,
    0x3fce_952c_7703_0ad4_a6b2_6051_9777_1b00,
    0x3fca_6827_863b_97d9_77bb_0048_86a2_c2ab,
    0x3fc6_2f49_b468_1415_724c_a1ec_3b7b_9675,
    0x3fc1_e542_ba40_2022_507a_9cad_2bf8_f0bb,
    0x3fbd_71b8_ef6d_cf57_18be_f146_fcee_6e45,
    0x3fb9_0ce3_96db_7f85_2945_0c90_b7f3_38ec,
    0x3fb4_761b_4131_6381_9d97_b870_4dd7_f628,
    0x3faf_f2cf_0197_2f57_7cca_4b40_67ca_9d8a,
    0x3fab_3f3c_cdd1_65fa_8d4e_44a4_1977_6f11,
    0x3fa6_88e8_5fc6_a4e5_9a38_f205_0ba6_b015,
    0x3fa1_d1ab_1c2d_ccea_320a_9a18_f15d_4277,
    0x3f9d_0a18_a263_5085_d373_c5c5_1c35_4a8d,
    0x3f98_259f_98b4_358a_d7ab_e30e_7766_f129,
    0x3f93_3932_c504_7d60_e60c_aded_4c29_89c5,
]);

/// atanh(s) / s - 1 in s^2: 1 / (2n + 1), from n = 1.
const ATANH: [Quad; 23] = quads([
    0x3ffd_5555_5555_5555_5555_5555_5555_5555,
    0x3ffc_9999_9999_9999_9999_9999_9999_999a,
    0x3ffc_2492_4924_9249_2492_4924_9249_2492,
    0x3ffb_c71c_71c7_1c71_c71c_71c7_1c71_c71c,
    0x3ffb_745d_1745_d174_5d17_45d1_745d_1746,
    0x3ffb_3b13_b13b_13b1_3b13_b13b_13b1_3b14,
    0x3ffb_1111_1111_1111_1111_1111_1111_1111,
    0x3ffa_e1e1_e1e1_e1e1_e1e1_e1e1_e1e1_e1e2,
    0x3ffa_af28_6bca_1af2_86bc_a1af_286b_ca1b,
    0x3ffa_8618_6186_1861_8618_6186_1861_8618,
    0x3ffa_642c_8590_b216_42c8_590b_2164_2c86,
    0x3ffa_47ae_147a_e147_ae14_7ae1_47ae_147b,
    0x3ffa_2f68_4bda_12f6_84bd_a12f_684b_da13,
    0x3ffa_1a7b_9611_a7b9_611a_7b96_11a7_b961,
    0x3ffa_0842_1084_2108_4210_8421_0842_1084,
    0x3ff9_f07c_1f07_c1f0_7c1f_07c1_f07c_1f08,
    0x3ff9_d41d_41d4_1d41_d41d_41d4_1d41_d41d,
    0x3ff9_bacf_914c_1bac_f914_c1ba_cf91_4c1c,
    0x3ff9_a41a_41a4_1a41_a41a_41a4_1a41_a41a,
    0x3ff9_8f9c_18f9_c18f_9c18_f9c1_8f9c_18fa,
    0x3ff9_7d05_f417_d05f_417d_05f4_17d0_5f41,
    0x3ff9_6c16_c16c_16c1_6c16_c16c_16c1_6c17,
    0x3ff9_5c98_82b9_3105_7262_0ae4_c415_c988,
]);

/// atan(u) / u - 1 in u^2: (-1)^n / (2n + 1), from n = 1.
const ATAN: [Quad; 13] = quads([
    0xbffd_5555_5555_5555_5555_5555_5555_5555,
    0x3ffc_9999_9999_9999_9999_9999_9999_999a,
    0xbffc_2492_4924_9249_2492_4924_9249_2492,
    0x3ffb_c71c_71c7_1c71_c71c_71c7_1c71_c71c,
    0xbffb_745d_1745_d174_5d17_45d1_745d_1746,
    0x3ffb_3b13_b13b_13b1_3b13_b13b_13b1_3b14,
    0xbffb_1111_1111_1111_1111_1111_1111_1111,
    0x3ffa_e1e1_e1e1_e1e1_e1e1_e1e1_e1e1_e1e2,
    0xbffa_af28_6bca_1af2_86bc_a1af_286b_ca1b,
    0x3ffa_8618_6186_1861_8618_6186_1861_8618,
    0xbffa_642c_8590_b216_42c8_590b_2164_2c86,
    0x3ffa_47ae_147a_e147_ae14_7ae1_47ae_147b,
    0xbffa_2f68_4bda_12f6_84bd_a12f_684b_da13,
]);

/// atan(k / 16).
const ATAN_OF_SIXTEENTHS: [Quad; 17] = quads([
    0x00000000000000000000000000000000,
    0x3ffa_ff55_bb72_cfde_9c6d_964f_25b8_1c5c,
    0x3ffb_fd5b_a9aa_c2f6_dc65_912f_313e_7d11,
    0x3ffc_7b97_b4bc_e5b0_2268_f616_9f10_3939,
    0x3ffc_f5b7_5f92_c80d_d62a_db8f_3deb_ef44,
    0x3ffd_3627_7370_7ebc_bcd3_8b57_6931_a4f6,
    0x3ffd_6f61_941e_4def_08e7_1546_4245_b9fd,
    0x3ffd_a64e_ec3c_c23f_cb6c_84f9_2bd2_003d,
    0x3ffd_dac6_7056_1bb4_f68a_dfc8_8bd9_7875,
    0x3ffe_0657_e94d_b30c_fc54_96d4_1396_c34a,
    0x3ffe_1e00_babd_efeb_3f36_b906_bc2c_cb88,
    0x3ffe_345f_01cc_e37b_b440_844d_f1c4_40a0,
    0x3ffe_4978_fa32_69ee_1248_3350_fe54_8afb,
    0x3ffe_5d58_9871_69b1_8100_28e4_bc5e_7ca4,
    0x3ffe_700a_7c57_8463_3ce7_965b_4aa4_2149,
    0x3ffe_819d_0b71_58a4_cc81_13ba_c588_dd26,
    0x3ffe_921f_b544_42d1_8469_898c_c517_01b8,
]);

/// A reduced angle: `angle = quadrants * π / 2 + r`, with r between -π / 4 and π / 4.
struct Reduced {
    quadrants: u32,
    r: Quad,
}

/// Reduces a finite angle other than zero below 2^63.
fn reduce(x: u128) -> Reduced {
    let (sign, exp, significand) = normalised(x);
    if exp < -1 {
        return Reduced { quadrants: 0, r: Quad::from_f80(x) };
    }
    // In units of 2^-67, π / 2 is PI_66 and the angle is the significand times 2^(exp + 4).
    let (mut rest, mut quadrants) = (u128::from(significand), 0u32);
    for _ in 0..exp + 4 {
        rest <<= 1;
        quadrants <<= 1;
        if rest >= PI_66 {
            rest -= PI_66;
            quadrants += 1;
        }
        quadrants &= 3;
    }
    let beyond = rest > PI_66 / 2;
    let (magnitude, negative) = if beyond { (PI_66 - rest, !sign) } else { (rest, sign) };
    let quadrants = quadrants + u32::from(beyond);
    // At most 67 bits: exact.
    let shift = magnitude.leading_zeros();
    let exp = 127 - shift as i32 - 67;
    let bits = (magnitude << shift) << 1 >> 16 | ((exp + F80::BIAS) as u128) << 112 | u128::from(negative) << 127;
    Reduced { quadrants: if sign { quadrants.wrapping_neg() & 3 } else { quadrants & 3 }, r: Quad(bits) }
}

impl Reduced {
    /// `sin(r) / r - 1` and `cos(r) - 1`.
    fn tails(&self) -> (Quad, Quad) {
        let square = self.r * self.r;
        (square.series(&SIN), square.series(&COS))
    }

    /// The sine of the angle plus so many quadrants.
    fn sine(&self, more: u32) -> Quad {
        let (sin, cos) = self.tails();
        let quadrants = self.quadrants + more;
        let result = match quadrants & 1 {
            0 if self.r.is_small() => self.r.just_below(),
            0 => self.r.add_odd(self.r * sin),
            _ if self.r.is_small() => ONE.just_below(),
            _ => ONE.add_odd(cos),
        };
        if quadrants & 2 != 0 { -result } else { result }
    }

    /// The tangent.
    fn tangent(&self) -> Quad {
        let (sin, cos) = self.tails();
        match self.quadrants & 1 {
            0 if self.r.is_small() => self.r.just_above(),
            0 => self.r.add_odd(self.r * (sin - cos) / (ONE + cos)),
            _ => -(ONE + cos).div_odd(self.r + self.r * sin),
        }
    }
}

/// `atan(t)` for t between 0 and 1.
fn arc_tangent(t: Quad) -> Quad {
    // atan(t) = atan(c) + atan(u) with u = (t - c) / (1 + t * c).
    let sixteenth = Quad::from_int(16);
    let k = (t * sixteenth).nearest_int();
    let c = Quad::from_int(k) / sixteenth;
    let u = if k == 0 { t } else { (t - c) / (ONE + t * c) };
    let tail = u * (u * u).series(&ATAN);
    if t.is_small() {
        t.just_below()
    } else if k == 0 {
        t.add_odd(tail)
    } else {
        ATAN_OF_SIXTEENTHS[k as usize].add_odd(u + tail)
    }
}

/// `ln((1 + s) / (1 - s)) / ln(2)`.
fn log2_of_ratio(s: Quad) -> Quad {
    let log = s + s * (s * s).series(&ATANH);
    log * TWO_OVER_LN_2
}

/// The base-2 logarithm of `m * 2^exp`, for m between 1 and 2.
fn log2(exp: i32, m: Quad) -> Quad {
    // Nearer to 1, so that little cancels.
    let (exp, m) = if m.0 > SQRT_2.0 { (exp + 1, m * HALF) } else { (exp, m) };
    Quad::from_int(exp) + log2_of_ratio((m - ONE) / (m + ONE))
}

/// The significand of a finite number other than zero: between 1 and 2.
fn significand(x: u128) -> Quad {
    Quad::from_f80(F80::pack(false, F80::BIAS, u128::from(normalised(x).2) << 63))
}

/// The base-2 logarithm of a positive finite number in extended precision.
fn log2_of_f80(x: u128) -> Quad {
    log2(normalised(x).1, significand(x))
}

/// The base-2 logarithm of `1 + x`, for x above -1.
fn log2_of_1_plus(x: Quad) -> Quad {
    // Within 1 - sqrt(1/2), nothing cancels; beyond, no more than two bits do.
    if x.abs().0 < NEAR.0 {
        return log2_of_ratio(x / (x + TWO));
    }
    let sum = (x + ONE).0;
    let exp = (sum >> 112) as i32 - F80::BIAS;
    log2(exp, Quad(sum & !(0x7fff << 112) | (F80::BIAS as u128) << 112))
}

fn sign(x: u128) -> bool {
    x >> 79 & 1 != 0
}

fn is_zero(x: u128) -> bool {
    matches!(float::classify::<F80>(x), Class::PositiveZero | Class::NegativeZero)
}

fn is_infinite(x: u128) -> bool {
    matches!(float::classify::<F80>(x), Class::PositiveInfinity | Class::NegativeInfinity)
}

fn invalid(env: &mut Env) -> u128 {
    env.raise(Flags::INVALID);
    INDEFINITE
}

/// Every result counts as inexact, so a tiny one is an underflow.
fn note_inexact(result: u128, env: &mut Env) {
    env.raise(Flags::INEXACT);
    if is_denormal(result) || is_zero(result) {
        env.raise(Flags::UNDERFLOW);
    }
}

impl X87 {
    /// A result, which is never exact. `f` computes it, scaled by a power of two where it can.
    fn inexact(&self, env: &mut Env, f: impl Fn(i32) -> Quad) -> u128 {
        self.rounded(env, |by, env| {
            let result = f(by).to_f80(env);
            note_inexact(result, env);
            result
        })
    }

    /// F2XM1: `2^ST(0) - 1`, for ST(0) between -1 and 1. Elsewhere the manual defines no result; here ST(0) does not change.
    pub fn f2xm1(&mut self) {
        self.unary(|fpu, x, env| {
            if float::is_nan::<F80>(x) {
                return float::add::<F80>(x, x, env);
            }
            if is_denormal(x) {
                env.raise(Flags::DENORMAL);
            }
            let magnitude = x & !(1 << 79);
            match magnitude.cmp(&ONE_F80) {
                _ if is_zero(x) => x,
                core::cmp::Ordering::Less => fpu.inexact(env, |by| {
                    // Only the smallest operands have a result that is tiny.
                    let z = Quad::from_f80(if by == 0 { x } else { scaled(x, by) }) * LN_2;
                    if by == 0 { z.add_odd(z * z.series(&EXP)) } else { z }
                }),
                core::cmp::Ordering::Equal if sign(x) => 0xbffe_8000_0000_0000_0000,
                _ if x == F80::infinity(true) => ONE_F80 | 1 << 79,
                _ => x,
            }
        });
    }

    /// The angle of a trigonometric function: `None` where the instruction is complete, with C2 set where ST(0) is out of range.
    fn angle(&mut self, pushes: bool) -> Option<u128> {
        self.set_if(C2, false);
        let (empty, full) = (self.is_empty(0), pushes && !self.is_empty(7));
        if empty || full {
            let masked = if empty { self.stack_underflow() } else { self.stack_overflow() };
            if masked {
                self.set(0, INDEFINITE);
                if pushes {
                    self.push(INDEFINITE);
                }
            }
            return None;
        }
        let x = self.st(0);
        if (x >> 64) as i32 & F80::EXP_MAX >= F80::BIAS + 63 && !is_infinite(x) && !float::is_nan::<F80>(x) {
            self.set_if(C1, false);
            self.set_if(C2, true);
            return None;
        }
        Some(x)
    }

    /// A function of an angle: `f`, or where that is zero `at_zero`.
    fn of_angle(&self, x: u128, at_zero: u128, env: &mut Env, f: impl Fn(&Reduced) -> Quad) -> u128 {
        if float::is_nan::<F80>(x) {
            return float::add::<F80>(x, x, env);
        }
        if is_infinite(x) {
            return invalid(env);
        }
        if is_zero(x) {
            return at_zero;
        }
        if is_denormal(x) {
            env.raise(Flags::DENORMAL);
        }
        self.inexact(env, |by| {
            // Only where the angle is tiny, and is itself the result, is that tiny.
            if by == 0 { f(&reduce(x)) } else { Quad::from_f80(scaled(x, by)) }
        })
    }

    /// FSIN.
    pub fn fsin(&mut self) {
        if let Some(x) = self.angle(false) {
            self.unary(|fpu, _, env| fpu.of_angle(x, x, env, |angle| angle.sine(0)));
        }
    }

    /// FCOS.
    pub fn fcos(&mut self) {
        if let Some(x) = self.angle(false) {
            self.unary(|fpu, _, env| fpu.of_angle(x, ONE_F80, env, |angle| angle.sine(1)));
        }
    }

    /// FSINCOS: the sine replaces ST(0), and the cosine is pushed.
    pub fn fsincos(&mut self) {
        let Some(x) = self.angle(true) else {
            return;
        };
        // C1 is that of the cosine, the last to be rounded.
        let mut env = self.env();
        let sine = self.of_angle(x, x, &mut env, |angle| angle.sine(0));
        let mut env_of_cosine = self.env();
        let cosine = self.of_angle(x, ONE_F80, &mut env_of_cosine, |angle| angle.sine(1));
        let flags = Flags(env.flags.0 & !Flags::ROUNDED_UP.0) | env_of_cosine.flags;
        if self.accrue(flags) {
            self.set(0, sine);
            self.push(cosine);
        }
    }

    /// FPTAN: the tangent replaces ST(0), and 1.0 is pushed; or the same NaN.
    pub fn fptan(&mut self) {
        let Some(x) = self.angle(true) else {
            return;
        };
        let mut env = self.env();
        let tangent = self.of_angle(x, x, &mut env, Reduced::tangent);
        if self.accrue(env.flags) {
            self.set(0, tangent);
            self.push(if float::is_nan::<F80>(tangent) { tangent } else { ONE_F80 });
        }
    }

    /// An operation on ST(1) and ST(0), whose result replaces ST(1); then ST(0) is popped.
    fn binary_pop(&mut self, f: impl Fn(&Self, u128, u128, &mut Env) -> u128) {
        let result = match (self.source(Source::St(1)), self.source(Source::St(0))) {
            (Some((y, _)), Some((x, _))) => {
                let mut env = self.env();
                let result = if float::is_nan::<F80>(x) || float::is_nan::<F80>(y) {
                    float::add::<F80>(y, x, &mut env)
                } else {
                    f(self, y, x, &mut env)
                };
                let earlier = env.flags.0 & (Flags::INVALID | Flags::DIVIDE_BY_ZERO).0 != 0;
                if (is_denormal(x) || is_denormal(y)) && !earlier && !float::is_nan::<F80>(result) {
                    env.raise(Flags::DENORMAL);
                }
                if !self.accrue(env.flags) {
                    return;
                }
                result
            }
            _ if self.stack_underflow() => INDEFINITE,
            _ => return,
        };
        self.set(1, result);
        self.pop();
    }

    /// FPATAN: the angle of the point whose abscissa is ST(0) and whose ordinate is ST(1).
    pub fn fpatan(&mut self) {
        self.binary_pop(Self::arc_tangent_of);
    }

    /// SDM vol. 2A, "FPATAN - Partial Arctangent", table "FPATAN Results".
    fn arc_tangent_of(&self, y: u128, x: u128, env: &mut Env) -> u128 {
        let with_sign = |angle: Quad| if sign(y) { -angle } else { angle };
        let eighths =
            |n: i32, env: &mut Env| self.inexact(env, |_| with_sign(PI * Quad::from_int(n) / Quad::from_int(8)));
        match (is_zero(y), is_infinite(y), is_zero(x), is_infinite(x)) {
            (_, true, _, true) => return eighths(if sign(x) { 6 } else { 2 }, env),
            (_, true, _, _) | (false, _, true, _) => return eighths(4, env),
            (true, ..) | (.., true) if sign(x) => return eighths(8, env),
            (true, ..) | (.., true) => return F80::zero(sign(y)),
            _ => {}
        }
        let (ordinate, abscissa) = (Quad::from_f80(y).abs(), Quad::from_f80(x).abs());
        let distance = normalised(y).1 - normalised(x).1;
        if distance < -100 && !sign(x) {
            // Little less than the quotient, which may be tiny.
            let quotient = significand(y).div_odd(significand(x)).just_below();
            return self.inexact(env, |by| with_sign(quotient.times_power_of_two(distance + by)));
        }
        self.inexact(env, |_| {
            let steep = ordinate.0 > abscissa.0;
            // The angle with the nearer axis; then from that axis on.
            let angle = if steep { arc_tangent(abscissa / ordinate) } else { arc_tangent(ordinate / abscissa) };
            with_sign(match (steep, sign(x)) {
                (false, false) => angle,
                (true, false) => HALF_PI.add_odd(-angle),
                (true, true) => HALF_PI.add_odd(angle),
                (false, true) => PI.add_odd(-angle),
            })
        })
    }

    /// FYL2X: `ST(1) * log2(ST(0))`.
    pub fn fyl2x(&mut self) {
        self.binary_pop(Self::y_log2_x);
    }

    /// SDM vol. 2A, "FYL2X - Compute y * log2x", table "FYL2X Results".
    fn y_log2_x(&self, y: u128, x: u128, env: &mut Env) -> u128 {
        if is_zero(x) {
            return match () {
                () if is_zero(y) => invalid(env),
                () => {
                    if !is_infinite(y) {
                        env.raise(Flags::DIVIDE_BY_ZERO);
                    }
                    F80::infinity(!sign(y))
                }
            };
        }
        if sign(x) {
            return invalid(env);
        }
        let below_one = x < ONE_F80;
        if is_infinite(x) || is_infinite(y) {
            let undefined = is_zero(y) || x == ONE_F80;
            return if undefined { invalid(env) } else { F80::infinity(sign(y) ^ below_one) };
        }
        let (_, exp, significand) = normalised(x);
        if is_zero(y) || significand == 1 << 63 {
            // The logarithm is an integer, or does not matter. The result counts as inexact all the same, unless it is zero.
            let exp = if is_zero(y) && below_one {
                -1
            } else if is_zero(y) {
                1
            } else {
                exp
            };
            return self.times(y, exp, env);
        }
        self.times_log(y, log2_of_f80(x), env)
    }

    /// A number times a logarithm.
    fn times_log(&self, y: u128, log: Quad, env: &mut Env) -> u128 {
        if normalised(y).1 < 100 {
            return self.inexact(env, |by| Quad::from_f80(if by == 0 { y } else { scaled(y, by) }).mul_odd(log));
        }
        // It may overflow, in quadruple precision too. A part of that is no tiny number, so it may be rounded first.
        let part = Quad::from_f80(scaled(y, -64)).mul_odd(log).to_f80(env);
        self.rounded(env, |by, env| {
            env.raise(Flags::INEXACT);
            times_power_of_two(part, 64 + by, env)
        })
    }

    /// A number times an integer.
    fn times(&self, y: u128, n: i32, env: &mut Env) -> u128 {
        let factor = float::from_i32::<F80>(n, env);
        self.rounded(env, |by, env| {
            let mut own = Env { precision: float::Precision::Extended, ..*env };
            let product = float::mul::<F80>(if by == 0 { y } else { scaled(y, by) }, factor, &mut own);
            env.raise(own.flags);
            if !is_zero(product) {
                note_inexact(product, env);
            }
            product
        })
    }

    /// FYL2XP1: `ST(1) * log2(ST(0) + 1)`. The manual defines it for `|ST(0)| < 1 - sqrt(1/2)`; here it is right for any number
    /// above -1, and invalid below.
    pub fn fyl2xp1(&mut self) {
        self.binary_pop(Self::y_log2_x_plus_1);
    }

    /// SDM vol. 2A, "FYL2XP1 - Compute y * log2(x + 1)", table "FYL2XP1 Results".
    fn y_log2_x_plus_1(&self, y: u128, x: u128, env: &mut Env) -> u128 {
        let result_sign = sign(y) ^ sign(x);
        if sign(x) && x & !(1 << 79) >= ONE_F80 {
            return invalid(env);
        }
        if is_infinite(x) || is_infinite(y) {
            let undefined = is_zero(y) || is_zero(x);
            return if undefined { invalid(env) } else { F80::infinity(result_sign) };
        }
        if is_zero(x) || is_zero(y) {
            return F80::zero(result_sign);
        }
        if normalised(x).1 < -115 {
            // The logarithm is `x / ln(2)`, but may be too small for the format.
            let product = significand(y) * significand(x) * TWO_OVER_LN_2;
            let exp = normalised(y).1 + normalised(x).1 - 1;
            let product = if result_sign { -product } else { product };
            return self.inexact(env, |by| product.times_power_of_two(exp + by));
        }
        let log = log2_of_1_plus(Quad::from_f80(x));
        self.times_log(y, log, env)
    }
}
