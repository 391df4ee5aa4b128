use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;

use super::*;
use crate::processor::X86;
use crate::registers::{RAX, RBX, RDX};

const CODE: u64 = 0x1000;
const BITMAP: u64 = 0x4000;
const TABLES: u64 = 0x8000;
const MODEL: &str = "intel,+wrmsrns,+msrlist,+user_msr,+msr_imm";

const WRMSRNS: &[u8] = &[0x0f, 0x01, 0xc6];
const RDMSRLIST: &[u8] = &[0xf2, 0x0f, 0x01, 0xc6];
const WRMSRLIST: &[u8] = &[0xf3, 0x0f, 0x01, 0xc6];
/// URDMSR and UWRMSR RBX, RAX.
const URDMSR: &[u8] = &[0xf2, 0x0f, 0x38, 0xf8, 0xc3];
const UWRMSR: &[u8] = &[0xf3, 0x0f, 0x38, 0xf8, 0xc3];
/// RBX and IA32_TSC_AUX.
const RDMSR_IMMEDIATE: &[u8] = &[0xc4, 0xe7, 0x7b, 0xf6, 0xc3, 0x03, 0x01, 0, 0xc0];
const WRMSRNS_IMMEDIATE: &[u8] = &[0xc4, 0xe7, 0x7a, 0xf6, 0xc3, 0x03, 0x01, 0, 0xc0];
/// R11 and IA32_UARCH_MISC_CTL.
const URDMSR_IMMEDIATE: &[u8] = &[0xc4, 0xc7, 0x7b, 0xf8, 0xc3, 0x01, 0x1b, 0, 0];
const UWRMSR_IMMEDIATE: &[u8] = &[0xc4, 0xc7, 0x7a, 0xf8, 0xc3, 0x01, 0x1b, 0, 0];
const TSC_AUX: u64 = 0xc000_0103;

/// A processor in flat 64-bit mode, before this code and a HLT. Without an IDT a fault shuts it down.
fn machine(model: &str, code: &[u8]) -> Machine<X86> {
    let mut world = World::new(Frequency::default());
    world.ram.add(0, 0x10_0000).unwrap();
    world.ram.write(CODE, &[code, &[0xf4]].concat()).unwrap();
    let arch = X86::flat_64().of_model(CpuModel::parse(model).unwrap(), 0, 1, 0);
    let mut m = Machine::new(world, vec![arch], Schedule::new(1000, 0));
    m.vcpus[0].core.pc = CODE;
    m
}

fn set(m: &mut Machine<X86>, values: &[(u8, u64)]) {
    for (r, value) in values {
        m.vcpus[0].core.regs[usize::from(*r)] = *value;
    }
}

fn reg(m: &Machine<X86>, r: u8) -> u64 {
    m.vcpus[0].core.regs[usize::from(r)]
}

/// Whether the code got to its HLT.
fn completes(m: &mut Machine<X86>) -> bool {
    m.run(1000) == End::Deadlock
}

/// Each comes with its feature, and only in 64-bit mode where it is of that.
#[test]
fn instructions_by_feature() {
    for (feature, code) in [
        ("wrmsrns", WRMSRNS),
        ("msrlist", RDMSRLIST),
        ("msrlist", WRMSRLIST),
        ("msr_imm", RDMSR_IMMEDIATE),
        ("msr_imm", WRMSRNS_IMMEDIATE),
        ("user_msr", URDMSR),
        ("user_msr", UWRMSR),
        ("user_msr", URDMSR_IMMEDIATE),
        ("user_msr", UWRMSR_IMMEDIATE),
    ] {
        for (model, there) in [(format!("{MODEL},-{feature}"), false), (format!("intel,+{feature}"), true)] {
            let mut m = machine(&model, code);
            let number = if feature == "user_msr" { 0x1b01 } else { 0 };
            set(&mut m, &[(RCX, if feature == "msrlist" { 0 } else { TSC_AUX }), (RAX, number), (RBX, 1)]);
            if feature == "user_msr" && there {
                enable(&mut m, &[0x1b01]);
            }
            assert_eq!(completes(&mut m), there, "{model}: {code:x?}");
        }
    }
}

#[test]
fn wrmsrns_writes() {
    let mut m = machine(MODEL, WRMSRNS);
    set(&mut m, &[(RCX, TSC_AUX), (RAX, 0x77)]);
    assert!(completes(&mut m));
    assert_eq!(m.vcpus[0].arch.tsc_aux, 0x77);
}

/// Lists go from the lowest bit of RCX to the highest, and stop at the first that faults: RCX says which.
#[test]
fn lists() {
    let put = |m: &mut Machine<X86>, at: u64, value: u64| m.world.ram.store(at, 8, value).unwrap();
    let mut m = machine(MODEL, WRMSRLIST);
    for (i, (msr, value)) in [(0, TSC_AUX, 5), (3, 0xc000_0102, 0x1234), (63, 0x174, 8)].map(|(i, a, b)| (i, (a, b))) {
        put(&mut m, TABLES + 8 * i, msr);
        put(&mut m, TABLES + 0x1000 + 8 * i, value);
    }
    let (from, to) = ((RSI, TABLES), (RDI, TABLES + 0x1000));
    set(&mut m, &[(RCX, 1 << 63 | 9), from, to]);
    assert!(completes(&mut m));
    let arch = &m.vcpus[0].arch;
    assert_eq!((arch.tsc_aux, arch.kernel_gs_base, arch.sysenter_cs, reg(&m, RCX)), (5, 0x1234, 8, 0));
    // And back.
    let mut m = machine(MODEL, RDMSRLIST);
    put(&mut m, TABLES, TSC_AUX);
    put(&mut m, TABLES + 24, 0xc000_0102);
    m.vcpus[0].arch.tsc_aux = 5;
    m.vcpus[0].arch.kernel_gs_base = 0x1234;
    set(&mut m, &[(RCX, 9), from, (RDI, TABLES + 0x2000)]);
    assert!(completes(&mut m));
    let at = |m: &Machine<X86>, i: u64| m.world.ram.load(TABLES + 0x2000 + 8 * i, 8).unwrap();
    assert_eq!((at(&m, 0), at(&m, 3), at(&m, 63), reg(&m, RCX)), (5, 0x1234, 0, 0));
    // A number of more than 32 bits; an MSR that there is not; tables that are not aligned; level 3 is asked elsewhere.
    for (numbers, tables, left) in [
        ([TSC_AUX, 1 << 32], (TABLES, TABLES + 0x1000), 2),
        ([TSC_AUX, 0x4000_0000], (TABLES, TABLES + 0x1000), 2),
        ([TSC_AUX, TSC_AUX], (TABLES + 4, TABLES + 0x1000), 3),
        ([TSC_AUX, TSC_AUX], (TABLES, TABLES + 0x1001), 3),
    ] {
        let mut m = machine(MODEL, WRMSRLIST);
        put(&mut m, TABLES, numbers[0]);
        put(&mut m, TABLES + 8, numbers[1]);
        put(&mut m, TABLES + 0x1000, 5);
        set(&mut m, &[(RCX, 3), (RSI, tables.0), (RDI, tables.1)]);
        assert!(!completes(&mut m));
        assert_eq!((reg(&m, RCX), m.vcpus[0].arch.tsc_aux), (left, if left == 2 { 5 } else { 0 }));
    }
    // IA32_BARRIER is there to be read.
    let mut m = machine(MODEL, &[0x0f, 0x32]);
    set(&mut m, &[(RCX, 0x2f), (RAX, 1), (RDX, 1)]);
    assert!(completes(&mut m));
    assert_eq!((reg(&m, RAX), reg(&m, RDX)), (0, 0));
}

#[test]
fn immediates() {
    let mut m = machine(MODEL, &[WRMSRNS_IMMEDIATE, RDMSR_IMMEDIATE].concat());
    set(&mut m, &[(RBX, 0x99)]);
    assert!(completes(&mut m));
    assert_eq!((m.vcpus[0].arch.tsc_aux, reg(&m, RBX)), (0x99, 0x99));
    // All of the register counts: IA32_TSC_AUX has 32 bits.
    let mut m = machine(MODEL, WRMSRNS_IMMEDIATE);
    set(&mut m, &[(RBX, 1 << 32)]);
    assert!(!completes(&mut m));
}

/// IA32_USER_MSR_CTL with a bitmap that lets these through, to be read and written.
fn enable(m: &mut Machine<X86>, msrs: &[u64]) {
    for msr in msrs {
        for part in [0, WRITES] {
            let at = BITMAP + part + msr / 8;
            let old = m.world.ram.load(at, 1).unwrap();
            m.world.ram.store(at, 1, old | 1 << (msr % 8)).unwrap();
        }
    }
    let mut h = m.vcpus[0].at(&mut m.world);
    msr::write(&mut h, USER_MSR_CTL, BITMAP | 1).unwrap();
}

#[test]
fn programs_read_and_write() {
    let mut m = machine(MODEL, &[UWRMSR, URDMSR_IMMEDIATE, UWRMSR_IMMEDIATE, URDMSR].concat());
    enable(&mut m, &[0x1b01]);
    // CPL 3.
    m.vcpus[0].arch.segments[crate::processor::segments::SS].attributes.0 |= 3 << 5;
    set(&mut m, &[(RAX, 0x1b01), (RBX, 1)]);
    // HLT faults at CPL 3: so the last one has been executed.
    m.run(4);
    assert_eq!((reg(&m, RBX), reg(&m, 11), m.vcpus[0].core.pc), (1, 1, CODE + 28));
    // Off, beyond the bitmap, not let through, none that a program may write, none at all.
    for (code, msr, on, allowed) in [
        (URDMSR, 0x10, true, true),
        (URDMSR, 0x10, false, false),
        (URDMSR, 0x11, true, false),
        (URDMSR, 0x1_0010, true, false),
        (URDMSR, 0x1234, true, false),
        (UWRMSR, 0x10, true, false),
        (UWRMSR, 0x1b01, true, true),
    ] {
        let mut m = machine(MODEL, code);
        if on {
            enable(&mut m, &[0x10, 0x1234, 0x1b01]);
        }
        set(&mut m, &[(RAX, msr), (RBX, 1)]);
        assert_eq!(completes(&mut m), allowed, "{code:x?} {msr:#x}");
    }
    // The bitmap has a half for each.
    let mut m = machine(MODEL, URDMSR);
    enable(&mut m, &[0x10]);
    m.world.ram.store(BITMAP + 2, 1, 0).unwrap();
    set(&mut m, &[(RAX, 0x10)]);
    assert!(!completes(&mut m));
}

#[test]
fn encodings() {
    let model = CpuModel::parse(MODEL).unwrap();
    let mut arch = X86::flat_64();
    let long = Mode::of(&arch);
    let decode = |bytes: &[u8]| super::decode(&model, &long, bytes);
    for code in [URDMSR, UWRMSR, RDMSR_IMMEDIATE, WRMSRNS_IMMEDIATE, URDMSR_IMMEDIATE, UWRMSR_IMMEDIATE] {
        let decoded = decode(&[code, &[0x90; 4]].concat()).unwrap().unwrap();
        assert_eq!(usize::from(decoded.length), code.len());
        for end in 0..code.len() {
            assert_eq!(decode(&code[..end]), Err(()), "{code:x?} {end}");
        }
    }
    // REX, VEX.R and B.
    let msr = |bytes: &[u8]| decode(bytes).unwrap().map(|d| (d.value, d.msr));
    assert_eq!(msr(&[0xf2, 0x45, 0x0f, 0x38, 0xf8, 0xc3]), Some((11, Msr::Register(8))));
    assert_eq!(msr(URDMSR_IMMEDIATE), Some((11, Msr::Immediate(0x1b01))));
    for bad in [
        &[0xf2, 0x0f, 0x38, 0xf8, 0x03][..],
        &[0x66, 0x0f, 0x38, 0xf8, 0xc3],
        &[0xf2, 0x0f, 0x38, 0xf9, 0xc3],
        // W1, L1, vvvv, pp, a prefix, ModR/M.reg, memory, map.
        &[0xc4, 0xe7, 0xfb, 0xf6, 0xc3, 0, 0, 0, 0],
        &[0xc4, 0xe7, 0x7f, 0xf6, 0xc3, 0, 0, 0, 0],
        &[0xc4, 0xe7, 0x73, 0xf6, 0xc3, 0, 0, 0, 0],
        &[0xc4, 0xe7, 0x79, 0xf6, 0xc3, 0, 0, 0, 0],
        &[0xf2, 0xc4, 0xe7, 0x7b, 0xf6, 0xc3, 0, 0, 0, 0],
        &[0xc4, 0xe7, 0x7b, 0xf6, 0xcb, 0, 0, 0, 0],
        &[0xc4, 0xe7, 0x7b, 0xf6, 0x03, 0, 0, 0, 0],
        &[0xc4, 0xe6, 0x7b, 0xf6, 0xc3, 0, 0, 0, 0],
    ] {
        assert_eq!(decode(bad), Ok(None), "{bad:x?}");
    }
    arch.segments[crate::processor::segments::CS].attributes.0 &= !(1 << 13);
    assert_eq!(super::decode(&model, &Mode::of(&arch), URDMSR), Ok(None), "compatibility mode");
}
