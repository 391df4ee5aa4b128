//! Which encodings are tried.

use iced_x86::{Code, CpuidFeature, Mnemonic};

use crate::mode::Mode;

/// Encodings of a mode that are tried: those of the general-purpose instructions but for branches, and all on vectors and of
/// the x87, as far as the host has them.
pub fn tried(mode: Mode) -> Vec<Code> {
    let is_long = mode == Mode::Long;
    let has = |c: &Code| match mode.bits() {
        64 => c.op_code().mode64(),
        32 => c.op_code().mode32(),
        _ => c.op_code().mode16(),
    };
    let is_here = |c: &Code| is_general(c.mnemonic()) || !is_long && is_of_segments(c.mnemonic());
    Code::values()
        .filter(|c| c.op_code().is_instruction() && has(c) && host_has(*c))
        .filter(|c| is_here(c) || c.cpuid_features().iter().any(|f| is_whole(*f)))
        .filter(|c| !is_left_out(*c) && (is_long || !writes_fs(*c)))
        .collect()
}

/// In compatibility mode, instructions that 64-bit mode does not have, or that are about segments, or of the flags.
fn is_of_segments(mnemonic: Mnemonic) -> bool {
    let name = format!("{mnemonic:?}").to_lowercase();
    const NAMES: &str = "aaa aas aam aad daa das pusha pushad popa popad bound into int3 lds les lss lgs arpl salc lar lsl verr verw \
        pushf pushfd popf popfd cli sti in out hlt";
    NAMES.split(' ').any(|n| n == name)
}

/// FS is the C library's, and the handler of signals would miss it.
fn writes_fs(code: Code) -> bool {
    matches!(code, Code::Popw_FS | Code::Popd_FS | Code::Lfs_r16_m1616 | Code::Lfs_r32_m1632)
}

/// Encodings that are not tried, and why.
fn is_left_out(code: Code) -> bool {
    use Mnemonic as M;
    match code.mnemonic() {
        // XCR0 is the host system's, and more is in it than here.
        M::Xgetbv | M::Xsetbv => true,
        // Hints, without an effect to compare; the other tests of the data path run them.
        M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Clflush | M::Pause => true,
        // Two instructions for iced-x86's encoder: FWAIT and the form that does not wait.
        M::Fstcw | M::Fstenv | M::Fclex | M::Finit | M::Fsave | M::Fstsw | M::Feni | M::Fdisi | M::Fsetpm => true,
        // Of the 80387SL and the 80287.
        M::Fstdw | M::Fstsg | M::Frstpm | M::Fnstdw | M::Fnstsg => true,
        _ => false,
    }
}

/// Features whose every encoding is tried.
fn is_whole(f: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        f,
        F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::SSE4A
            | F::AVX
            | F::AVX2
            | F::FMA
            | F::F16C
            | F::AES
            | F::VAES
            | F::PCLMULQDQ
            | F::VPCLMULQDQ
            | F::SHA
            | F::GFNI
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::FXSR
            | F::XSAVE
            | F::XSAVEOPT
            | F::XSAVEC
    )
}

/// General-purpose instructions of the data path, but for branches.
fn is_general(mnemonic: Mnemonic) -> bool {
    let name = format!("{mnemonic:?}").to_lowercase();
    const NAMES: &str = "mov movzx movsx movsxd lea push pop xchg xadd cmpxchg bswap movbe cbw cwde cdqe cwd cdq cqo add adc \
        sub sbb and or xor inc dec cmp test neg not imul mul div idiv mulx adcx adox andn shl sal shr sar \
        rol ror rcl rcr shld shrd shlx shrx sarx rorx bt bts btr btc bsf bsr tzcnt lzcnt popcnt blsi blsr \
        blsmsk bextr bzhi pdep pext crc32 clc stc cmc lahf sahf nop leave enter cmpxchg8b cmpxchg16b lfence \
        mfence sfence wait";
    name.starts_with("cmov")
        || name.starts_with("set") && mnemonic != Mnemonic::Setssbsy
        || NAMES.split(' ').any(|n| n == name)
}

/// Whether the host has what an encoding needs.
fn host_has(code: Code) -> bool {
    use CpuidFeature as F;
    code.cpuid_features().iter().all(|f| match f {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::CMOV | F::MULTIBYTENOP => {
            true
        }
        F::MOVBE => is_x86_feature_detected!("movbe"),
        F::ADX => is_x86_feature_detected!("adx"),
        F::BMI1 => is_x86_feature_detected!("bmi1"),
        F::BMI2 => is_x86_feature_detected!("bmi2"),
        F::LZCNT => is_x86_feature_detected!("lzcnt"),
        F::POPCNT => is_x86_feature_detected!("popcnt"),
        F::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        F::CX8 | F::SSE | F::SSE2 | F::MMX | F::FXSR | F::FPU | F::FPU287 | F::FPU387 => true,
        F::SSE3 => is_x86_feature_detected!("sse3"),
        F::SSSE3 => is_x86_feature_detected!("ssse3"),
        F::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::F16C => is_x86_feature_detected!("f16c"),
        F::GFNI => is_x86_feature_detected!("gfni"),
        F::SSE4A => is_x86_feature_detected!("sse4a"),
        F::XSAVE => is_x86_feature_detected!("xsave"),
        F::XSAVEOPT => is_x86_feature_detected!("xsaveopt"),
        F::XSAVEC => is_x86_feature_detected!("xsavec"),
        F::CMPXCHG16B => is_x86_feature_detected!("cmpxchg16b"),
        _ => false,
    })
}
