//! RV64 as GDB sees it.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use emu_core::engine::Hart;
use riscv::hart::{Priv, Riscv};
use riscv::privileged::csr_access::{peek, poke};
use riscv::privileged::{CSR_NAMES, debug_translate};

use super::{Debuggable, View};
use crate::options::Isa;

/// GDB's numbers of registers (its documentation, "RISC-V Features").
const PC: usize = 32;
const FIRST_F: usize = 33;
const FIRST_CSR: usize = 65;
const PRIV: usize = FIRST_CSR + 4096;
const V: usize = PRIV + 1;

const NAMES: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "s2",
    "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];
const FLOATS: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>riscv:rv64</architecture><feature name=\"org.gnu.gdb.riscv.cpu\">",
    );
    let reg = |xml: &mut String, name: &str, kind: &str, number: usize| {
        let _ = write!(xml, "<reg name=\"{name}\" bitsize=\"64\" type=\"{kind}\" regnum=\"{number}\"/>");
    };
    NAMES.iter().enumerate().for_each(|(i, n)| reg(&mut xml, n, "int", i));
    reg(&mut xml, "pc", "code_ptr", PC);
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.fpu\">";
    FLOATS.iter().enumerate().for_each(|(i, n)| reg(&mut xml, n, "ieee_double", FIRST_F + i));
    let csrs = |xml: &mut String, of_fpu: bool| {
        for (number, name) in CSR_NAMES.iter().filter(|(n, _)| (*n <= 3) == of_fpu) {
            reg(xml, name, "int", FIRST_CSR + usize::from(*number));
        }
    };
    csrs(&mut xml, true);
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.csr\">";
    csrs(&mut xml, false);
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.virtual\">";
    reg(&mut xml, "priv", "int", PRIV);
    reg(&mut xml, "v", "int", V);
    xml + "</feature></target>"
});

impl Debuggable for Riscv {
    fn description() -> &'static str {
        &DESCRIPTION
    }

    fn register_size(number: usize) -> Option<usize> {
        (number <= V).then_some(8)
    }

    fn core_registers() -> Range<usize> {
        0..FIRST_F
    }

    fn register_name(n: usize) -> &'static str {
        NAMES.get(n).copied().unwrap_or("pc")
    }

    fn isa(&self) -> Isa {
        Isa::Riscv
    }

    fn read_register(h: &mut Hart<'_, Self>, n: usize) -> u64 {
        match n {
            0..PC => h.core.regs[n],
            PC => h.core.pc,
            FIRST_F..FIRST_CSR => h.core.regs[n - 1],
            PRIV => h.arch.mode as u64,
            V => h.arch.v.into(),
            _ => peek(h, (n - FIRST_CSR) as u16).unwrap_or(0),
        }
    }

    fn write_register(h: &mut Hart<'_, Self>, n: usize, value: u64) -> bool {
        match n {
            0 => {}
            1..PC => h.core.regs[n] = value,
            PC => h.core.pc = value,
            FIRST_F..FIRST_CSR => h.core.regs[n - 1] = value,
            PRIV => h.arch.mode = Priv::from_bits(value),
            V => h.arch.v = value & 1 != 0,
            _ => return poke(h, (n - FIRST_CSR) as u16, value),
        }
        true
    }

    fn translate(h: &mut Hart<'_, Self>, va: u64, view: View) -> Option<u64> {
        let view = match view {
            View::Current => riscv::privileged::View::Current,
            View::Guest => riscv::privileged::View::Guest,
            View::Physical => riscv::privileged::View::Physical,
        };
        debug_translate(h, va, view)
    }
}
