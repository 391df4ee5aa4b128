//! SplitMix64 accesses to the 8259As and the keyboard controller, here and in QEMU, whose Alpha machine has a PC's chips on its
//! ISA bus: what is read must agree.
//!
//! The environment variable `UNDERVISOR_QEMU_ALPHA` names `qemu-system-alpha` (10 or later); without it the tests are skipped,
//! and say so. QEMU's processor stands, and with it QEMU's time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use emu_core::device::{Bench, Device};
use emu_core::random::SplitMix64;
use x86::platform::{i8042, pic};

/// Where the Alpha has its ISA ports.
const PORTS: u64 = 0x801_fc00_0000;

/// QEMU, and the protocol of its device tests.
struct Qemu {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Qemu {
    fn start() -> Option<Self> {
        let Ok(program) = std::env::var("UNDERVISOR_QEMU_ALPHA") else {
            println!("skipped: UNDERVISOR_QEMU_ALPHA is not set");
            return None;
        };
        let options =
            "-machine clipper -S -qtest stdio -qtest-log none -nodefaults -display none -serial none -monitor none";
        let mut process = Command::new(program)
            .args(options.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU starts");
        let to = process.stdin.take().expect("piped");
        let from = BufReader::new(process.stdout.take().expect("piped"));
        Some(Qemu { process, to, from })
    }

    fn ask(&mut self, line: &str) -> u64 {
        writeln!(self.to, "{line}").expect("QEMU listens");
        let mut answer = String::new();
        self.from.read_line(&mut answer).expect("QEMU answers");
        let words: Vec<_> = answer.split_whitespace().collect();
        match words[..] {
            ["OK"] => 0,
            ["OK", value] => u64::from_str_radix(value.trim_start_matches("0x"), 16).expect("a number"),
            _ => panic!("{line}: {answer}"),
        }
    }

    fn inb(&mut self, port: u64) -> u8 {
        self.ask(&format!("readb {:#x}", PORTS + port)) as u8
    }

    fn outb(&mut self, port: u64, value: u8) {
        self.ask(&format!("writeb {:#x} {value:#x}", PORTS + port));
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The chip here and the chip there.
struct Both<D> {
    chip: D,
    bench: Bench,
    qemu: Qemu,
    /// Port, register offset, and the bits that are compared.
    ports: Vec<(u64, u64, u8)>,
    log: Vec<String>,
}

impl<D: Device> Both<D> {
    fn find(&self, port: u64) -> (u64, u8) {
        let (_, offset, bits) = self.ports.iter().find(|(p, ..)| *p == port).expect("a port of the chip");
        (*offset, *bits)
    }

    fn w(&mut self, port: u64, value: u8) {
        self.log.push(format!("{port:#x} <- {value:#x}"));
        let (offset, _) = self.find(port);
        self.bench.write(&mut self.chip, offset, 1, value.into());
        self.qemu.outb(port, value);
    }

    fn r(&mut self, port: u64) -> u8 {
        let (offset, bits) = self.find(port);
        let ours = self.bench.read(&mut self.chip, offset, 1) as u8;
        let theirs = self.qemu.inb(port);
        self.log.push(format!("{port:#x} -> {ours:#x}"));
        let from = self.log.len().saturating_sub(40);
        assert_eq!(ours & bits, theirs & bits, "here and in QEMU after:\n{}", self.log[from..].join("\n"));
        ours
    }
}

/// Where QEMU and the data sheet differ, the accesses here keep away from the difference. QEMU keeps the request of an edge
/// whose line falls; does not spare masked levels from a non-specific end of interrupt in special mask mode; loses the slave's
/// next request with automatic end of interrupt; and lets lower levels through while the slave is in service in special fully
/// nested mode. So episodes of both chips in the plainest mode take turns with those of the master in all modes. Poll takes the
/// place of INTA.
#[test]
fn the_8259as() {
    let Some(qemu) = Qemu::start() else { return };
    let ports =
        [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1].into_iter().zip(0..).map(|(port, at)| (port, at, 0xff)).collect();
    let mut both = Both { chip: pic::Pic::new(), bench: Bench::default(), qemu, ports, log: Vec::new() };
    let mut random = SplitMix64(1);
    let mut lines = [false; 16];
    let (mut cascade, mut special_mask) = (false, false);
    for step in 0..20_000 {
        if step % 200 == 0 {
            cascade = !cascade;
            special_mask = false;
            let icw4 = if cascade { 1 } else { random.of(&[1, 3, 0x11]) };
            for irq in 0..16 {
                set_line(&mut both, &mut lines, irq, false);
            }
            both.w(0x4d0, 0);
            both.w(0x4d1, 0);
            for (port, vector, icw3) in [(0x20, 0x20, 4), (0xa0, 0x28, 2)] {
                both.w(port, 0x11);
                for value in [vector, icw3, icw4, 0] {
                    both.w(port + 1, value);
                }
            }
            both.w(0x4d0, random.next() as u8);
            both.r(0x4d0);
            both.r(0x4d1);
        }
        match random.below(8) {
            0 => both.w(0x21, random.next() as u8 & random.next() as u8),
            1 if cascade => both.w([0x20, 0xa0][random.below(2) as usize], 0x20),
            1 => {
                let ocw2 = random.next() as u8 & 0xe7;
                if !special_mask || ocw2 & 0x60 != 0x20 {
                    both.w(0x20, ocw2);
                }
            }
            2 if !cascade => {
                special_mask = !special_mask;
                both.w(0x20, if special_mask { 0x68 } else { 0x48 });
            }
            3 => {
                both.w(0x20, 0x0c);
                if both.r(0x20) == 0x82 {
                    both.w(0xa0, 0x0c);
                    both.r(0xa0);
                }
            }
            4 | 5 => {
                let irqs: &[u8] =
                    if cascade { &[0, 1, 3, 8, 9, 10, 12, 13, 14, 15] } else { &[0, 1, 3, 4, 5, 6, 7, 7, 1, 6] };
                let irq = usize::from(random.of(irqs));
                let (port, bit) = if irq < 8 { (0x20, 1 << irq) } else { (0xa0, 1 << (irq - 8)) };
                both.w(port, 0x0a);
                let pending = both.r(port) & bit != 0;
                let level = both.r(0x4d0 + u64::from(irq >= 8)) & bit != 0;
                if !lines[irq] || level || !pending {
                    let to = !lines[irq];
                    set_line(&mut both, &mut lines, irq, to);
                }
            }
            _ => {}
        }
        for port in [0x20, 0xa0] {
            for ocw3 in [0x0a, 0x0b] {
                both.w(port, ocw3);
                both.r(port);
            }
            both.r(port + 1);
        }
    }
}

fn set_line(both: &mut Both<pic::Pic>, lines: &mut [bool; 16], irq: usize, level: bool) {
    if lines[irq] != level {
        lines[irq] = level;
        both.log.push(format!("IRQ{irq} = {level}"));
        both.chip.input(irq as u32, level, &mut both.bench.cx());
        let (device, pin) = if irq < 8 { (3, irq) } else { (4, irq - 8) };
        let line = format!("set_irq_in /machine/unattached/device[{device}] unnamed-gpio-in {pin} {}", u8::from(level));
        both.qemu.ask(&line);
    }
}

/// In QEMU's status register the bit for commands is always set, and the system flag and the command byte's
/// are two.
#[test]
fn the_keyboard_controller() {
    let Some(qemu) = Qemu::start() else { return };
    let ports = vec![(0x60, 0, 0xff), (0x64, 1, 0xf3)];
    let mut both = Both { chip: i8042::I8042::new(None), bench: Bench::default(), qemu, ports, log: Vec::new() };
    let mut random = SplitMix64(2);
    both.w(0x64, 0xaa);
    both.r(0x60);
    both.w(0x64, 0x60);
    both.w(0x60, 0x47);
    for _ in 0..5_000 {
        match random.below(4) {
            0 => {
                let command = random.of(&[0x20, 0xa7, 0xa8, 0xa9, 0xab, 0xad, 0xae, 0xc0]);
                both.w(0x64, command);
            }
            1 => {
                both.w(0x64, 0x60);
                both.w(0x60, random.next() as u8 & 0x77 | 4);
            }
            2 => {
                let command = random.of(&[0xf2, 0xee, 0xf4, 0xf5, 0xf6, 0xff]);
                both.w(0x60, command);
            }
            _ => {
                both.w(0x64, 0xd4);
                let command = random.of(&[0xf2, 0xe6, 0xe7, 0xe9, 0xf4, 0xf5, 0xf6, 0xff]);
                both.w(0x60, command);
            }
        }
        while both.r(0x64) & 1 != 0 {
            both.r(0x60);
        }
    }
}
