//! What a system forbids: the bits of CR0, CR4 and XCR0 that instructions on vectors and of the x87 ask for (SDM vol. 3A, "System
//! Programming for Instruction Set Extensions and Processor Extended States"). Here the host has no say.

use x86::control::{cr0, cr4};
use x86::processor::segments;
use x86::segment::Attributes;
use x86::xsave::xcr0;

use crate::host::Native;
use crate::machine::Emulated;
use crate::state::{MASKED, Random, State};

const UD: Option<u8> = Some(6);
const NM: Option<u8> = Some(7);
const GP: Option<u8> = Some(13);
const MF: Option<u8> = Some(16);
const XM: Option<u8> = Some(19);

const FADD: &[u8] = &[0xd8, 0xc1];
const FNSTCW: &[u8] = &[0xd9, 0x3c, 0x24]; // [RSP]
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const FWAIT: &[u8] = &[0x9b];
const EMMS: &[u8] = &[0x0f, 0x77];
const PADDB: &[u8] = &[0x0f, 0xfc, 0xc1];
const ADDPS: &[u8] = &[0x0f, 0x58, 0xc1];
const DIVPS: &[u8] = &[0x0f, 0x5e, 0xc1];
const LDMXCSR: &[u8] = &[0x0f, 0xae, 0x14, 0x24]; // [RSP]
const VADDPS: &[u8] = &[0xc5, 0xf0, 0x58, 0xc2];
const FXSAVE: &[u8] = &[0x0f, 0xae, 0x04, 0x24]; // [RSP]
const XSAVE: &[u8] = &[0x0f, 0xae, 0x24, 0x24]; // [RSP]
const XSAVES: &[u8] = &[0x0f, 0xc7, 0x2c, 0x24]; // [RSP]
const XRSTORS: &[u8] = &[0x0f, 0xc7, 0x1c, 0x24]; // [RSP]
const XGETBV: &[u8] = &[0x0f, 0x01, 0xd0];
const XSETBV: &[u8] = &[0x0f, 0x01, 0xd1];
const CRC32: &[u8] = &[0xf2, 0x0f, 0x38, 0xf0, 0xc1];
const MOVNTI: &[u8] = &[0x0f, 0xc3, 0x04, 0x24]; // [RSP]

fn state(emulated: &Emulated) -> State {
    let mut state = Random::new(1).state();
    state.gpr[4] = emulated.data_at + 1024;
    state.gpr[1] = 0;
    state.data.fill(0);
    state.mxcsr = MASKED;
    state.x87.fill(0);
    state.x87[..2].copy_from_slice(&[0x7f, 3]);
    state
}

/// The vector of what an instruction raises, where control registers are changed: bits to set in CR0, to clear in CR4 and XCR0.
fn raised(insn: &[u8], set_cr0: u64, clear_cr4: u64, clear_xcr0: u64, change: impl Fn(&mut State)) -> Option<u8> {
    let mut emulated = Emulated::new(&Native::new());
    let mut state = state(&emulated);
    change(&mut state);
    let arch = &mut emulated.vcpu.arch;
    arch.cr0 |= set_cr0;
    arch.cr4 &= !clear_cr4;
    arch.xcr0 &= !clear_xcr0;
    emulated.run(insn, &state).expect("it ends").trap.map(|t| t.vector)
}

#[test]
fn control_registers_forbid() {
    const ALL: &[&[u8]] =
        &[FADD, FNSTCW, FWAIT, EMMS, PADDB, ADDPS, LDMXCSR, VADDPS, FXSAVE, XSAVE, XGETBV, CRC32, MOVNTI];
    for insn in ALL {
        assert_eq!(raised(insn, 0, 0, 0, |_| {}), None, "{insn:x?}");
    }
    for (set_cr0, clear_cr4, clear_xcr0, expected) in [
        (cr0::EM, 0, 0, [NM, NM, None, UD, UD, UD, UD, None, NM, None, None, None, None]),
        (cr0::TS, 0, 0, [NM, NM, None, NM, NM, NM, NM, NM, NM, NM, None, None, None]),
        (cr0::TS | cr0::MP, 0, 0, [NM, NM, NM, NM, NM, NM, NM, NM, NM, NM, None, None, None]),
        (0, cr4::OSFXSR, 0, [None, None, None, None, None, UD, UD, None, None, None, None, None, None]),
        (0, cr4::OSXSAVE, 0, [None, None, None, None, None, None, None, UD, None, UD, UD, None, None]),
        (0, 0, xcr0::AVX, [None, None, None, None, None, None, None, UD, None, None, None, None, None]),
    ] {
        for (insn, expected) in ALL.iter().zip(expected) {
            let got = raised(insn, set_cr0, clear_cr4, clear_xcr0, |_| {});
            assert_eq!(got, expected, "{insn:x?}: CR0 {set_cr0:x}, CR4 {clear_cr4:x}, XCR0 {clear_xcr0:x}");
        }
    }
}

/// "Unmasked SIMD floating-point exception": #UD, where CR4.OSXMMEXCPT is clear.
#[test]
fn simd_exceptions_want_a_handler() {
    let unmask = |state: &mut State| {
        state.mxcsr = 0;
        state.vectors[..8].fill(0);
    };
    assert_eq!(raised(DIVPS, 0, 0, 0, unmask), XM);
    assert_eq!(raised(DIVPS, 0, cr4::OSXMMEXCPT, 0, unmask), UD);
}

/// Waiting instructions raise what is pending, whatever CR0.NE says; others do not.
#[test]
fn a_pending_exception_waits() {
    let pend = |state: &mut State| state.x87[..4].copy_from_slice(&[0x7e, 3, 0x81, 0x80]);
    for (insn, expected) in [
        (FADD, MF),
        (FWAIT, MF),
        (EMMS, MF),
        (PADDB, MF),
        (FNSTCW, None),
        (FNCLEX, None),
        (FXSAVE, None),
        (ADDPS, None),
    ] {
        assert_eq!(raised(insn, 0, 0, 0, pend), expected, "{insn:x?}");
    }
}

#[test]
fn supervisor_instructions() {
    for insn in [XSAVES, XRSTORS, XSETBV] {
        assert_eq!(raised(insn, 0, 0, 0, |_| {}), GP, "{insn:x?}");
    }
}

/// XSAVES, then other registers, then XRSTORS: all is as it was, but for what was not asked for.
#[test]
fn xsaves_and_xrstors_at_cpl_0() {
    let mut emulated = Emulated::new(&Native::new());
    let mut before = state(&emulated);
    before.vectors = (1..65).collect();
    before.mxcsr = MASKED | 0x2000;
    let kernel = |emulated: &mut Emulated, insn: &[u8], state: &State| {
        emulated.put(insn);
        emulated.stand(state);
        for i in [segments::CS, segments::SS] {
            let s = &mut emulated.vcpu.arch.segments[i];
            s.attributes = Attributes(s.attributes.0 & !0x60);
            s.selector &= !3;
        }
        emulated.finish(insn.len())
    };
    for (requested, kept) in [(7, [true, true]), (3, [true, false]), (5, [false, true])] {
        (before.gpr[0], before.gpr[2]) = (requested, 0);
        let saved = kernel(&mut emulated, XSAVES, &before);
        assert_eq!(saved.trap, None);
        let word = |at: usize| u64::from_le_bytes(saved.data[1024 + at..][..8].try_into().unwrap());
        assert_eq!((word(512), word(520)), (requested & 6, requested | 1 << 63));
        let other = State { data: saved.data.clone(), vectors: vec![!0; 64], mxcsr: MASKED, ..before.clone() };
        let after = kernel(&mut emulated, XRSTORS, &other);
        assert_eq!(after.trap, None);
        for (half, kept) in [0..2, 2..4].into_iter().zip(kept) {
            for i in (0..64).filter(|i| half.contains(&(i % 4))) {
                assert_eq!(after.vectors[i], if kept { before.vectors[i] } else { !0 }, "word {i}, {requested:x}");
            }
        }
        assert_eq!(after.mxcsr, if kept[0] { before.mxcsr } else { MASKED });
    }
}
