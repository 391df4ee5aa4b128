//! Whole runs of small guests, by CPU time, beside QEMU in the same run.
//!
//! `cargo run --release -p undervisor-benches`, after `cargo build --release`. `UNDERVISOR_QEMU_SYSTEM_RISCV64` names
//! qemu-system-riscv64; `UNDERVISOR_BOOT_FILES` a directory with `trixie` and `sid` as `undervisor-conformance
//! prepare-riscv64` makes them. What is absent is skipped by name.

use std::path::Path;
use std::process::{Command, Stdio};

use undervisor_conformance::asm::*;
use wait4::Wait4;

const RAM: u64 = 0x8000_0000;
const FINISHER: u64 = 0x10_0000;

/// A guest, and how much it does: units of work, and what they are.
struct Guest {
    name: &'static str,
    code: Vec<u8>,
    work: f64,
    unit: &'static str,
}

fn finish(a: &mut Asm) {
    a.li(T0, FINISHER);
    a.li(T1, 0x5555);
    a.sw(T1, T0, 0);
    a.label("stay");
    a.j("stay");
}

/// Ten instructions a turn: arithmetic, a multiplication, a branch.
fn integer() -> Guest {
    const TURNS: u64 = 100_000_000;
    let mut a = Asm::new(RAM);
    a.li(A0, 1);
    a.li(A1, 0x1234_5677);
    a.li(A2, TURNS);
    a.label("turn");
    a.mul(A0, A0, A1);
    a.addi(A0, A0, 99);
    a.srli(T0, A0, 7);
    a.xor(A0, A0, T0);
    a.slli(T1, A0, 3);
    a.add(T2, T1, T0);
    a.andi(T2, T2, 1023);
    a.add(A0, A0, T2);
    a.addi(A2, A2, -1);
    a.bne(A2, ZERO, "turn");
    finish(&mut a);
    Guest { name: "integer", code: a.finish(), work: 10.0 * TURNS as f64 / 1e6, unit: "million instructions/s" }
}

/// A chain through 64 MiB, one pointer in each 64 bytes.
fn chase() -> Guest {
    const NODES: u64 = 1 << 20;
    const STEPS: u64 = 30_000_000;
    let mut a = Asm::new(RAM);
    a.li(A0, RAM + 0x100_0000);
    a.li(A1, NODES);
    // Node i leads to node (i * 5 + 12345) mod NODES times an odd stride: a full cycle.
    a.li(T0, 0);
    a.li(T3, 0x9_e371);
    a.li(T4, NODES - 1);
    a.label("node");
    a.slli(T1, T0, 6);
    a.add(T1, T1, A0);
    a.mul(T2, T0, T3);
    a.addi(T2, T2, 1);
    a.and(T2, T2, T4);
    a.slli(T2, T2, 6);
    a.add(T2, T2, A0);
    a.sd(T2, T1, 0);
    a.addi(T0, T0, 1);
    a.bne(T0, A1, "node");
    a.li(A2, STEPS);
    a.label("step");
    a.ld(A0, A0, 0);
    a.addi(A2, A2, -1);
    a.bne(A2, ZERO, "step");
    finish(&mut a);
    Guest { name: "pointer chase, 64 MiB", code: a.finish(), work: STEPS as f64 / 1e6, unit: "million loads/s" }
}

/// M-mode hands over to HS-mode, which runs a guest that does nothing but call.
fn ecall() -> Guest {
    const CALLS: u64 = 1_000_000;
    let mut a = Asm::new(RAM);
    a.li(T0, 0x00f0_b7ff);
    a.csrw(0x302, T0);
    a.li(T0, u64::MAX);
    a.csrw(0x3b0, T0);
    a.li(T0, 0x1f);
    a.csrw(0x3a0, T0);
    a.la(T0, "exit");
    a.csrw(0x105, T0);
    // mstatus.MPP = S, MPV = 1: MRET goes to VS-mode at once.
    a.li(T0, 1 << 11 | 1 << 39);
    a.csrs(0x300, T0);
    a.la(T0, "guest");
    a.csrw(0x341, T0);
    a.li(A2, CALLS);
    a.mret();
    a.align(4);
    a.label("exit");
    a.csrr(T0, 0x141);
    a.addi(T0, T0, 4);
    a.csrw(0x141, T0);
    a.addi(A2, A2, -1);
    a.beq(A2, ZERO, "done");
    a.sret();
    a.label("guest");
    a.ecall();
    a.j("guest");
    a.label("done");
    finish(&mut a);
    Guest { name: "VS to HS ecall", code: a.finish(), work: CALLS as f64, unit: "round trips/s" }
}

/// HS-mode with Sv39 (one 1 GiB leaf): a fence of everything, then 16 pages.
fn fence() -> Guest {
    const TURNS: u64 = 300_000;
    let mut a = Asm::new(RAM);
    a.li(T0, u64::MAX);
    a.csrw(0x3b0, T0);
    a.li(T0, 0x1f);
    a.csrw(0x3a0, T0);
    // The root's entry 2 is 0x8000_0000, entry 0 the devices.
    a.li(T0, RAM + 0x10_0000);
    a.li(T1, RAM >> 2 | 0xcf);
    a.sd(T1, T0, 16);
    a.li(T1, 0xcf);
    a.sd(T1, T0, 0);
    a.li(T1, 8 << 60 | (RAM + 0x10_0000) >> 12);
    a.csrw(0x180, T1);
    a.li(T0, 1 << 11);
    a.csrs(0x300, T0);
    a.la(T0, "supervisor");
    a.csrw(0x341, T0);
    a.mret();
    a.label("supervisor");
    a.li(A2, TURNS);
    a.li(T2, 4096);
    a.label("turn");
    a.sfence_vma(ZERO, ZERO);
    a.li(T0, RAM + 0x20_0000);
    a.li(T1, RAM + 0x21_0000);
    a.label("page");
    a.ld(T3, T0, 0);
    a.add(T0, T0, T2);
    a.bltu(T0, T1, "page");
    a.addi(A2, A2, -1);
    a.bne(A2, ZERO, "turn");
    finish(&mut a);
    Guest { name: "sfence.vma and 16 pages", code: a.finish(), work: TURNS as f64, unit: "turns/s" }
}

/// A RISC-V ELF file with this code at the start of RAM.
fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
    [RAM, 64, 0].iter().for_each(|w| file.extend(w.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    [64u16, 56, 1, 0, 0, 0].iter().for_each(|w| file.extend(w.to_le_bytes()));
    [1u32, 7].iter().for_each(|w| file.extend(w.to_le_bytes()));
    let size = code.len() as u64;
    [120, RAM, RAM, size, size, 1].iter().for_each(|w| file.extend(w.to_le_bytes()));
    file.extend(code);
    file
}

/// CPU time of a command in seconds, and its peak memory in MiB.
fn measure(command: &mut Command) -> Result<(f64, u64), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    let used = child.wait4().map_err(|e| e.to_string())?;
    if !used.status.success() {
        return Err(format!("{:?}: {}", command.get_program(), used.status));
    }
    let time = used.rusage.utime + used.rusage.stime;
    Ok((time.as_secs_f64(), used.rusage.maxrss >> 20))
}

/// The better of three runs.
fn best(mut command: impl FnMut() -> Command) -> Result<(f64, u64), String> {
    let runs: Result<Vec<_>, _> = (0..3).map(|_| measure(&mut command())).collect();
    Ok(runs?.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("three runs"))
}

fn main() {
    let qemu = std::env::var_os("UNDERVISOR_QEMU_SYSTEM_RISCV64");
    let boots = std::env::var_os("UNDERVISOR_BOOT_FILES");
    let undervisor = "target/release/undervisor";
    let dir = std::env::temp_dir();
    println!("| work | unit | Undervisor | QEMU rv64 | ratio | QEMU max | ratio |\n|---|---|---|---|---|---|---|");
    for guest in [integer(), chase(), ecall(), fence()] {
        let path = dir.join(format!("undervisor-bench-{}.elf", std::process::id()));
        std::fs::write(&path, elf(&guest.code)).expect("the directory for such files can be written to");
        let ours = best(|| {
            let mut c = Command::new(undervisor);
            c.args(["run", "--firmware", "none", "--memory", "256M", "--kernel"]).arg(&path);
            c
        });
        let theirs = |cpu: &str| {
            let qemu = qemu.as_ref().ok_or("skipped: UNDERVISOR_QEMU_SYSTEM_RISCV64 is not set")?;
            best(|| {
                let mut c = Command::new(qemu);
                c.args([
                    "-M", "virt", "-cpu", cpu, "-m", "256M", "-display", "none", "-serial", "null", "-monitor", "none",
                ]);
                c.args(["-bios", "none", "-kernel"]).arg(&path);
                c
            })
        };
        row(guest.name, guest.unit, guest.work, &ours, &theirs("rv64,h=true"), &theirs("max"));
        let _ = std::fs::remove_file(&path); // it lies in the directory for such files
    }
    let Some(boots) = boots else {
        println!("\nskipped: UNDERVISOR_BOOT_FILES is not set");
        return;
    };
    for (name, words) in [("boot of sid to power-off", "quiet"), ("the same with 200,000 KVM exits", "quiet kvmtest")] {
        let files = Path::new(&boots).join("sid");
        let append = format!("console=ttyS0 {words}");
        let file = |n: &str| files.join(n);
        let ours = best(|| {
            let mut c = Command::new(undervisor);
            c.args(["run", "--memory", "1G", "--append", &append]);
            c.arg("--firmware").arg(file("fw_dynamic.bin")).arg("--kernel").arg(file("Image"));
            c.arg("--initrd").arg(file("initrd.cpio"));
            c
        });
        let theirs = |cpu: &str| {
            let qemu = qemu.as_ref().ok_or("skipped: UNDERVISOR_QEMU_SYSTEM_RISCV64 is not set")?;
            best(|| {
                let mut c = Command::new(qemu);
                c.args(["-M", "virt", "-cpu", cpu, "-m", "1G", "-nographic", "-no-reboot", "-append", &append]);
                c.arg("-bios").arg(file("fw_dynamic.bin")).arg("-kernel").arg(file("Image"));
                c.arg("-initrd").arg(file("initrd.cpio"));
                c
            })
        };
        row(name, "a second", 1.0, &ours, &theirs("rv64,h=true"), &Err("not measured".into()));
        if let Ok((_, memory)) = ours {
            println!("|  | MiB at most | {memory} | | | | |");
        }
    }
}

type Measured = Result<(f64, u64), String>;

fn row(name: &str, unit: &str, work: f64, ours: &Measured, rv64: &Measured, max: &Measured) {
    let rate = |m: &Measured| match m {
        Ok((time, _)) if work == 1.0 => format!("{time:.2} s"),
        Ok((time, _)) => format!("{:.0}", work / time),
        Err(why) => why.clone(),
    };
    let ratio = |m: &Measured| match (ours, m) {
        (Ok((o, _)), Ok((t, _))) => format!("{:.2}", t / o),
        _ => String::new(),
    };
    println!(
        "| {name} | {unit} | {} | {} | {} | {} | {} |",
        rate(ours),
        rate(rv64),
        ratio(rv64),
        rate(max),
        ratio(max)
    );
}
