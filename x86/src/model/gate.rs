//! Instructions that a model has: each belongs to features, and is #UD, or another instruction, without them.

use iced_x86::{CpuidFeature as C, DecoderOptions, Instruction};

use super::{CpuModel, Feature};

/// Features by the names that iced-x86 has for them. What is not here every model has, or the emulator has not.
fn feature(c: C) -> Option<Feature> {
    Some(match c {
        C::ADX => Feature::Adx,
        C::AES => Feature::Aes,
        C::AVX => Feature::Avx,
        C::AVX2 => Feature::Avx2,
        C::BMI1 => Feature::Bmi1,
        C::BMI2 => Feature::Bmi2,
        C::CLFLUSHOPT => Feature::Clflushopt,
        C::CLFSH => Feature::Clflush,
        C::CLWB => Feature::Clwb,
        C::CLZERO => Feature::Clzero,
        C::CMOV => Feature::Cmov,
        C::CMPXCHG16B => Feature::Cx16,
        C::CX8 => Feature::Cx8,
        C::F16C => Feature::F16c,
        C::FMA => Feature::Fma,
        C::FSGSBASE => Feature::Fsgsbase,
        C::FXSR => Feature::Fxsr,
        C::GFNI => Feature::Gfni,
        C::INVLPGB => Feature::Invlpgb,
        C::INVPCID => Feature::Invpcid,
        C::LZCNT => Feature::Abm,
        C::MCOMMIT => Feature::Mcommit,
        C::MMX => Feature::Mmx,
        C::MONITOR => Feature::Monitor,
        C::MONITORX => Feature::Mwaitx,
        C::MOVBE => Feature::Movbe,
        C::MOVDIR64B => Feature::Movdir64b,
        C::MOVDIRI => Feature::Movdiri,
        C::MSR => Feature::Msr,
        C::MSRLIST => Feature::Msrlist,
        C::PCLMULQDQ => Feature::Pclmulqdq,
        C::PKU => Feature::Pku,
        C::POPCNT => Feature::Popcnt,
        C::RDPID => Feature::Rdpid,
        C::RDPRU => Feature::Rdpru,
        C::RDRAND => Feature::Rdrand,
        C::RDSEED => Feature::Rdseed,
        C::RDTSCP => Feature::Rdtscp,
        C::SEP => Feature::Sep,
        C::SERIALIZE => Feature::Serialize,
        C::SHA => Feature::ShaNi,
        C::SMAP => Feature::Smap,
        C::SSE => Feature::Sse,
        C::SSE2 => Feature::Sse2,
        C::SSE3 => Feature::Sse3,
        C::SSE4_1 => Feature::Sse41,
        C::SSE4_2 => Feature::Sse42,
        C::SSE4A => Feature::Sse4a,
        C::SSSE3 => Feature::Ssse3,
        C::SYSCALL => Feature::Syscall,
        C::TSC => Feature::Tsc,
        C::VAES => Feature::Vaes,
        C::VPCLMULQDQ => Feature::Vpclmulqdq,
        C::WAITPKG => Feature::Waitpkg,
        C::WRMSRNS => Feature::Wrmsrns,
        C::XSAVE => Feature::Xsave,
        C::XSAVEC => Feature::Xsavec,
        C::XSAVEOPT => Feature::Xsaveopt,
        C::XSAVES => Feature::Xsaves,
        _ => return None,
    })
}

impl CpuModel {
    /// Whether it has an instruction: if it has not, that is #UD.
    pub fn allows(&self, insn: &Instruction) -> bool {
        insn.cpuid_features().iter().all(|c| feature(*c).is_none_or(|f| self.has(f)))
    }

    /// How its code is decoded. Without their features TZCNT, LZCNT and WBNOINVD are what they were before: BSF, BSR, WBINVD, whose
    /// prefix means nothing.
    pub fn decoder_options(&self) -> u32 {
        [
            (Feature::Bmi1, DecoderOptions::NO_MPFX_0FBC),
            (Feature::Abm, DecoderOptions::NO_MPFX_0FBD),
            (Feature::Wbnoinvd, DecoderOptions::NO_WBNOINVD),
        ]
        .iter()
        .filter(|(f, _)| !self.has(*f))
        .fold(DecoderOptions::NONE, |all, (_, option)| all | option)
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, Mnemonic};

    use super::*;

    fn decode(model: &CpuModel, code: &[u8]) -> (Mnemonic, bool) {
        let insn = Decoder::new(64, code, model.decoder_options()).decode();
        (insn.mnemonic(), model.allows(&insn))
    }

    #[test]
    fn instructions_come_and_go_with_their_features() {
        for (model, code, mnemonic, allowed) in [
            ("intel", &[0x0f, 0xa2][..], Mnemonic::Cpuid, true),
            ("intel", &[0xc5, 0xfd, 0xfe, 0xc0], Mnemonic::Vpaddd, true),
            ("intel,-avx2", &[0xc5, 0xfd, 0xfe, 0xc0], Mnemonic::Vpaddd, false),
            ("intel,-avx2", &[0xc5, 0xfc, 0x58, 0xc0], Mnemonic::Vaddps, true),
            ("intel,-avx", &[0xc5, 0xfc, 0x58, 0xc0], Mnemonic::Vaddps, false),
            ("intel", &[0xf3, 0x0f, 0xbc, 0xc0], Mnemonic::Tzcnt, true),
            ("intel,-bmi1", &[0xf3, 0x0f, 0xbc, 0xc0], Mnemonic::Bsf, true),
            ("intel,-abm", &[0xf3, 0x0f, 0xbd, 0xc0], Mnemonic::Bsr, true),
            ("amd,-wbnoinvd", &[0xf3, 0x0f, 0x09], Mnemonic::Wbinvd, true),
            ("intel,-popcnt", &[0xf3, 0x0f, 0xb8, 0xc0], Mnemonic::Popcnt, false),
            ("intel", &[0xf2, 0x0f, 0x79, 0xc1], Mnemonic::Insertq, false),
            ("amd", &[0xf2, 0x0f, 0x79, 0xc1], Mnemonic::Insertq, true),
            ("amd", &[0x0f, 0x05], Mnemonic::Syscall, true),
            ("amd", &[0x0f, 0x34], Mnemonic::Sysenter, true),
            ("intel", &[0x0f, 0xc7, 0xf8], Mnemonic::Rdseed, true),
            ("intel,-rdseed", &[0x0f, 0xc7, 0xf8], Mnemonic::Rdseed, false),
        ] {
            assert_eq!(decode(&CpuModel::parse(model).unwrap(), code), (mnemonic, allowed), "{model}, {code:x?}");
        }
    }
}
