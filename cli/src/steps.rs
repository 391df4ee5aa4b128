//! `--trace-events insns`: the machine goes instruction by instruction, and each is written down with what it changed.

use std::fmt::Write as _;

use emu_core::machine::{End, Machine};

use crate::disas;
use crate::gdb::View;
use crate::machine::Platform;
use crate::trace::Tracer;

/// Bytes that are looked at for an instruction.
const LONGEST: usize = 15;

/// What a vCPU shows: its program counter, then its registers.
type Shown = Vec<u64>;

/// Runs a machine one instruction at a time.
pub struct Stepper {
    /// By vCPU.
    before: Vec<Shown>,
}

impl Stepper {
    /// Begins with a machine as it is.
    pub fn new<A: Platform>(machine: &mut Machine<A>) -> Self {
        let before = (0..machine.vcpus.len()).map(|i| shown(machine, i)).collect();
        Stepper { before }
    }

    /// As [`Machine::run`], with a line for each instruction.
    pub fn run<A: Platform>(&mut self, machine: &mut Machine<A>, limit: u64, trace: &Tracer) -> End {
        loop {
            // What is written has to be known before the instruction runs, and so has to be for the vCPU that will.
            let texts: Vec<String> = (0..machine.vcpus.len()).map(|i| text(machine, i)).collect();
            let (count, retired) = (machine.count(), machine.retired());
            let end = machine.run(limit.min(retired + 1));
            let vcpu = machine.current();
            if machine.retired() != retired {
                let now = shown(machine, vcpu);
                let mut line = format!("{count} cpu{vcpu} {}", texts[vcpu]);
                let pairs = self.before[vcpu].iter().zip(&now).skip(1);
                for (n, (_, new)) in pairs.enumerate().filter(|(_, (old, new))| old != new) {
                    let name = A::register_name(n);
                    // Where it goes on is the next line's address.
                    if name != "pc" && name != "rip" {
                        let _ = write!(line, " {name}={new:#x}");
                    }
                }
                trace.lock().text(&line);
                self.before[vcpu] = now;
            }
            if end != End::Limit || machine.retired() >= limit || machine.count() >= machine.stops_at {
                return end;
            }
        }
    }
}

fn shown<A: Platform>(machine: &mut Machine<A>, vcpu: usize) -> Shown {
    let mut h = machine.vcpus[vcpu].at(&mut machine.world);
    let registers = A::core_registers().map(|n| A::read_register(&mut h, n));
    let registers: Vec<u64> = registers.collect();
    [&[h.core.pc][..], &registers].concat()
}

/// Address, bytes and disassembly of what a vCPU runs next.
fn text<A: Platform>(machine: &mut Machine<A>, vcpu: usize) -> String {
    let mut h = machine.vcpus[vcpu].at(&mut machine.world);
    let (pc, isa) = (h.core.pc, A::isa(h.arch));
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST {
        let at = pc.wrapping_add(bytes.len() as u64);
        let byte = A::translate(&mut h, at, View::Current).and_then(|pa| h.world.ram.load(pa, 1).ok());
        let Some(byte) = byte else { break };
        bytes.push(byte as u8);
    }
    let mut line = String::new();
    if bytes.is_empty() {
        disas::line(&mut line, pc, &[], "(no memory)");
    } else {
        let (len, text) = disas::one(isa, &bytes, pc);
        disas::line(&mut line, pc, &bytes[..len.min(bytes.len())], &text);
    }
    line
}
