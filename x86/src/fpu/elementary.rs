//! Elementary functions in quadruple precision: what the transcendental instructions round.

use emu_core::float::{F80, Format};

use super::arithmetic::normalised;
use super::quad::Quad;

/// The x87's π: 66 bits, times 2^66.
const PI_66: u128 = 0xc_90fd_aa22_168c_234c;

pub(super) const ONE_F80: u128 = 0x3fff_8000_0000_0000_0000;

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
pub(super) const HALF: Quad = Quad(0x3ffe_0000_0000_0000_0000_0000_0000_0000);

/// sqrt(2).
const SQRT_2: Quad = Quad(0x3fff_6a09_e667_f3bc_c908_b2fb_1366_ea95);

/// 1 - sqrt(1 / 2).
const NEAR: Quad = Quad(0x3ffd_2bec_3330_1886_6dee_9a09_d932_2ad5);

/// 1.
pub(super) const ONE: Quad = Quad(0x3fff_0000_0000_0000_0000_0000_0000_0000);

/// 2.
pub(super) const TWO: Quad = Quad(0x4000_0000_0000_0000_0000_0000_0000_0000);

/// π.
pub(super) const PI: Quad = Quad(0x4000_921f_b544_42d1_8469_898c_c517_01b8);

/// π / 2.
pub(super) const HALF_PI: Quad = Quad(0x3fff_921f_b544_42d1_8469_898c_c517_01b8);

/// ln(2).
pub(super) const LN_2: Quad = Quad(0x3ffe_62e4_2fef_a39e_f357_93c7_6730_07e6);

/// 2 / ln(2).
pub(super) const TWO_OVER_LN_2: Quad = Quad(0x4000_7154_7652_b82f_e177_7d0f_fda0_d23a);

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
pub(super) struct Reduced {
    quadrants: u32,
    r: Quad,
}

/// Reduces a finite angle other than zero below 2^63.
pub(super) fn reduce(x: u128) -> Reduced {
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
    pub(super) fn sine(&self, more: u32) -> Quad {
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
    pub(super) fn tangent(&self) -> Quad {
        let (sin, cos) = self.tails();
        match self.quadrants & 1 {
            0 if self.r.is_small() => self.r.just_above(),
            0 => self.r.add_odd(self.r * (sin - cos) / (ONE + cos)),
            _ => -(ONE + cos).div_odd(self.r + self.r * sin),
        }
    }
}

/// `e^z - 1` for z between -ln(2) and ln(2).
pub(super) fn exp_minus_1(z: Quad) -> Quad {
    z.add_odd(z * z.series(&EXP))
}

/// `atan(t)` for t between 0 and 1.
pub(super) fn arc_tangent(t: Quad) -> Quad {
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
pub(super) fn significand(x: u128) -> Quad {
    Quad::from_f80(F80::pack(false, F80::BIAS, u128::from(normalised(x).2) << 63))
}

/// The base-2 logarithm of a positive finite number in extended precision.
pub(super) fn log2_of_f80(x: u128) -> Quad {
    log2(normalised(x).1, significand(x))
}

/// The base-2 logarithm of `1 + x`, for x above -1.
pub(super) fn log2_of_1_plus(x: Quad) -> Quad {
    // Within 1 - sqrt(1/2), nothing cancels; beyond, no more than two bits do.
    if x.abs().0 < NEAR.0 {
        return log2_of_ratio(x / (x + TWO));
    }
    let sum = (x + ONE).0;
    let exp = (sum >> 112) as i32 - F80::BIAS;
    log2(exp, Quad(sum & !(0x7fff << 112) | (F80::BIAS as u128) << 112))
}
