//! What `undervisor` takes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// A computer in software, with the virtualization extensions, under real hypervisors
#[derive(Parser)]
#[command(version, max_term_width = 110)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a machine
    #[command(after_long_help = EXAMPLES)]
    Run(Box<Run>),
    /// Run a hypervisor of our own with a guest, and show what happened: needs no file
    Demo,
    /// Look into a snapshot: registers, VMX operation or SVM, the VMCS or VMCB with the names of its bits, walks of paging and of
    /// EPT or nested paging
    Inspect(Inspect),
    /// Disassemble a file: the code of an ELF file, or all of a raw one
    Disas(Disas),
    /// Run a public test suite that was built elsewhere
    Conformance(Conformance),
    /// List what the processors have, and what they have not
    Features,
    /// List CPU models and the extensions that can be switched
    Cpus,
}

const EXAMPLES: &str = "\
Examples:
  Debian's kernel under OpenSBI, 4 harts, until its shell is up:
    undervisor run --smp 4 --memory 1G --firmware fw_dynamic.bin --kernel vmlinuz --initrd initrd.cpio \\
      --append 'console=ttyS0' --expect 'login:'
  The same without firmware (a small SBI is built in), with AIA and 3 guest interrupt files:
    undervisor run --machine riscv64-virt,aia=aplic-imsic,guests=3 --kernel vmlinuz --initrd initrd.cpio
  A bare ELF file in M-mode, its traps and exits as JSON lines:
    undervisor run --firmware none --kernel hello.elf --trace run.jsonl --trace-format jsonl
  A snapshot at an instruction, and on from there:
    undervisor run --kernel vmlinuz --snapshot-at 2000000000 --snapshot boot.snap
    undervisor run --restore boot.snap

Keys in a terminal: Ctrl-A x quits, Ctrl-A Ctrl-A sends Ctrl-A.

Exit codes:
  0  powered off, or the expectation was met
  1  the guest reported failure (its own code is in the JSON summary)
  2  usage or bad input
  3  the guest crashed or came to a deadlock; the cause is named
  4  a limit was reached
  5  --fail-on was met

There is no user-mode network yet: a network device has no other end.";

#[derive(Args)]
pub struct Disas {
    /// The file
    pub file: PathBuf,
    /// The instruction set, where an ELF file does not say so
    #[arg(long, value_name = "ISA")]
    pub arch: Option<Isa>,
    /// The address of a raw file's first byte
    #[arg(long, default_value_t = 0, value_name = "ADDRESS")]
    pub at: u64,
}

/// An instruction set, and the mode that it is decoded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isa {
    /// x86 in 16-bit code
    #[value(name = "x86-16")]
    X86_16,
    /// x86 in 32-bit code
    #[value(name = "x86-32")]
    X86_32,
    /// x86 in 64-bit code
    #[value(name = "x86-64")]
    X86_64,
    /// RV64
    Riscv,
}

impl Isa {
    /// The bits of x86 code.
    pub fn x86_bits(self) -> Option<u32> {
        match self {
            Isa::X86_16 => Some(16),
            Isa::X86_32 => Some(32),
            Isa::X86_64 => Some(64),
            Isa::Riscv => None,
        }
    }
}

#[derive(Args)]
pub struct Inspect {
    /// The snapshot
    pub snapshot: PathBuf,
    /// One vCPU alone [default: all of them; for a walk the first]
    #[arg(long, value_name = "N")]
    pub vcpu: Option<usize>,
    /// The VMCS whose region is at this physical address, ordinary or shadow
    #[arg(long, value_name = "ADDRESS", value_parser = address, conflicts_with = "walk")]
    pub vmcs: Option<u64>,
    /// The VMCB at this physical address, and what the processor that has run it last holds of it
    #[arg(long, value_name = "ADDRESS", value_parser = address, conflicts_with_all = ["walk", "vmcs"])]
    pub vmcb: Option<u64>,
    /// Walk an address through paging and through the second stage, step by step
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub walk: Option<u64>,
    /// Whose address it is
    #[arg(long = "as", value_name = "KIND", default_value = "va", requires = "walk")]
    pub kind: AddressKind,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AddressKind {
    /// Virtual (linear), as the vCPU is
    Va,
    /// Virtual (linear), of the guest
    Gva,
    /// Guest-physical
    Gpa,
    /// Physical
    Pa,
}

/// A number, with 0x in hexadecimal.
pub fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").map(|hex| u64::from_str_radix(&hex.replace('_', ""), 16));
    digits.unwrap_or_else(|| text.parse()).map_err(|_| "expected an address, such as 0xffff888000001000".to_owned())
}

#[derive(Args)]
pub struct Conformance {
    /// The suite
    pub suite: Suite,
    /// Where it was built: the directory of riscv-tests' ELF files, or that of kvm-unit-tests
    pub dir: PathBuf,
    /// CPU model and switches [default: rv64; for x86 what each unit asks for, whose switches stand behind these]
    #[arg(long, value_name = "MODEL[,+EXT][,-EXT]")]
    pub cpu: Option<String>,
    /// The machine, for kvm-unit-tests [default: riscv64-virt or pc, as they were built]
    #[arg(long, value_name = "NAME[,OPTION=VALUE]")]
    pub machine: Option<String>,
    /// Only units of kvm-unit-tests with these names, where * stands for anything
    #[arg(long, value_delimiter = ',', value_name = "PATTERN[,PATTERN]")]
    pub filter: Vec<String>,
    /// Firmware, for kvm-unit-tests on riscv64: a file or `builtin`
    #[arg(long, default_value = "builtin", value_name = "FILE|builtin")]
    pub firmware: String,
    /// Also write the outcome as JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// riscv-tests: ELF files that end by HTIF
    RiscvTests,
    /// kvm-unit-tests: riscv64, x86_64, i386
    KvmUnitTests,
}

#[derive(Args)]
pub struct Run {
    /// The machine: riscv64-virt, with aia=none|aplic|aplic-imsic and guests=N (guest interrupt files of a hart); or pc, with
    /// chipset=q35|i440fx, virtio=pci|mmio, firmware-log=on|off, entry=auto|linux64|linux32|linux16|pvh|multiboot|
    /// multiboot2|elf|raw16|raw32|raw64 (which of the kernel's entries), at=ADDRESS (of a raw one), numa=N (nodes that RAM
    /// and vCPUs are divided into, 1 to 8) and iommu=vtd (VT-d; vtd+cm with caching mode, vtd+xapic without x2APIC IDs). Without this it follows from the kernel's architecture
    #[arg(long, value_name = "NAME[,OPTION=VALUE]", help_heading = "Machine")]
    pub machine: Option<String>,
    /// CPU model and switches, such as rv64,+smrnmi,-svadu (see `undervisor cpus`) [default: rv64 or intel]
    #[arg(long, value_name = "MODEL[,+EXT][,-EXT]", help_heading = "Machine")]
    pub cpu: Option<String>,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Machine")]
    pub smp: u32,
    /// RAM: bytes, or with K, M, G
    #[arg(long, default_value = "512M", value_parser = size, value_name = "SIZE", help_heading = "Machine")]
    pub memory: u64,
    /// A drive: raw file, written to; `,ro` read-only; `,overlay` keeps writes in memory, as long as the machine lasts
    #[arg(long, value_name = "FILE[,rw|,ro|,overlay]", help_heading = "Machine")]
    pub drive: Vec<String>,
    /// A further device. virtio-console: its other end is the next --console; virtio-net: it has no other end
    /// yet; edu: the educational PCI device
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    pub device: Vec<DeviceKind>,
    /// Nominal frequency in hertz: instructions in a second of virtual time
    #[arg(long, default_value_t = emu_core::time::DEFAULT_HERTZ, value_name = "HERTZ", help_heading = "Machine")]
    pub frequency: u64,
    /// Turn of a vCPU, in instructions
    #[arg(long, default_value_t = emu_core::machine::DEFAULT_QUANTUM, value_name = "N", help_heading = "Machine")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub quantum: u64,
    /// Varies turns and their order, and what entropy sources give; the same seed gives the same run
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Machine")]
    pub seed: u64,

    /// Firmware: a file, `none` (the kernel starts in M-mode), or `builtin` (a small SBI) [default: builtin for riscv64-virt,
    /// none for pc, which takes SeaBIOS's bios.bin or OVMF's OVMF_CODE.fd]
    #[arg(long, value_name = "FILE|none|builtin", help_heading = "Software")]
    pub firmware: Option<PathBuf>,
    /// Variables of the firmware, such as OVMF_VARS.fd; what the guest writes there lasts as long as the machine
    #[arg(long, value_name = "FILE", help_heading = "Software")]
    pub firmware_vars: Option<PathBuf>,
    /// Kernel: Linux Image, Image.gz, bzImage, ELF, for pc also with a Multiboot header or PVH note
    #[arg(long, value_name = "FILE", help_heading = "Software")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE", help_heading = "Software")]
    pub initrd: Option<PathBuf>,
    /// A module, for kernels that take some (Multiboot, PVH), and its command line
    #[arg(long, value_name = "FILE[=WORDS]", help_heading = "Software")]
    pub module: Vec<String>,
    /// The kernel's command line
    #[arg(long, default_value = "", value_name = "TEXT", help_heading = "Software")]
    pub append: String,

    /// Where a console goes: first the UART (stdio if not given), then those of --device (null if not given). Input comes
    /// from standard input, with stdio only: keys as they are typed, a pipe or file when the guest asks
    #[arg(long, value_name = "stdio|file:PATH|null", help_heading = "Console")]
    #[arg(value_parser = OsStringValueParser::new().try_map(end))]
    pub console: Vec<End>,
    /// Succeed when a line of a console matches; a match within a line counts before the line has ended
    #[arg(long, value_name = "REGEX", help_heading = "Console")]
    pub expect: Option<String>,
    /// Fail (code 5) when a line of a console matches
    #[arg(long, value_name = "REGEX", help_heading = "Console")]
    pub fail_on: Option<String>,

    /// Stop (code 4) after so many instructions, those before a reset or in a snapshot included
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub max_instructions: Option<u64>,
    /// What happens when the guest asks for a reset. Drives keep what they hold; counts and reports go on
    #[arg(long, default_value = "exit", value_name = "WHAT", help_heading = "Run")]
    pub on_reset: OnReset,
    /// Take a snapshot after so many instructions, those before a reset or in a snapshot included, and go on
    #[arg(long, value_name = "N", requires = "snapshot", help_heading = "Run")]
    pub snapshot_at: Option<u64>,
    /// Where the snapshot goes. Without --snapshot-at it is taken where --expect ends the run
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub snapshot: Option<PathBuf>,
    /// Go on from a snapshot: the machine is the snapshot's
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub restore: Option<PathBuf>,
    /// Log everything that comes from outside
    #[arg(long, value_name = "FILE", conflicts_with = "replay", help_heading = "Run")]
    pub record: Option<PathBuf>,
    /// Run again with what was logged; nothing else is let in
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub replay: Option<PathBuf>,

    /// Write events to a file
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub trace: Option<PathBuf>,
    /// Which events: exits (traps, interrupts, returns; exits and entries of guests, with reasons, and why entries
    /// fail; switches), devices, uops (micro-ops of each block),
    /// insns (each instruction with the registers that it changed, in the form of text: slow)
    #[arg(long, value_delimiter = ',', default_value = "exits,devices", value_name = "LIST", help_heading = "Reports")]
    #[arg(requires = "trace")]
    pub trace_events: Vec<TraceEvents>,
    /// Form of the trace
    #[arg(long, default_value = "text", value_name = "FORM", requires = "trace", help_heading = "Reports")]
    pub trace_format: TraceFormat,
    /// Print exits by reason and level at the end
    #[arg(long, help_heading = "Reports")]
    pub stats: bool,
    /// Write a page that shows levels over time, exits by reason, where guests are left, entries that failed: one HTML file
    /// that opens offline
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub report: Option<PathBuf>,
    /// Write a summary
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub json: Option<PathBuf>,
    /// Wait for a debugger at this address, such as 127.0.0.1:1234. Keys are let in when it has gone
    #[arg(long, value_name = "ADDR", help_heading = "Reports")]
    pub gdb: Option<String>,
}

impl Options {
    /// The command line. The inner error is a contradiction, in one line.
    pub fn read() -> Result<Result<Self, String>, clap::Error> {
        let matches = Options::command().try_get_matches()?;
        if let Some(("run", run)) = matches.subcommand()
            && let Err(contradiction) = require_consistent(run)
        {
            return Ok(Err(contradiction));
        }
        Options::from_arg_matches(&matches).map(Ok)
    }
}

/// What a snapshot brings along.
const OF_THE_MACHINE: &[&str] = &[
    "machine",
    "cpu",
    "smp",
    "memory",
    "drive",
    "device",
    "frequency",
    "quantum",
    "seed",
    "firmware",
    "firmware_vars",
    "kernel",
    "initrd",
    "module",
    "append",
];

fn require_consistent(run: &ArgMatches) -> Result<(), String> {
    let is_given = |id: &&&str| run.value_source(id) == Some(ValueSource::CommandLine);
    if run.contains_id("snapshot") && !run.contains_id("snapshot_at") && !run.contains_id("expect") {
        return Err("--snapshot wants --snapshot-at or --expect: when is it taken?".into());
    }
    if run.contains_id("restore") {
        if let Some(id) = OF_THE_MACHINE.iter().find(is_given) {
            let id = id.replace('_', "-");
            return Err(format!("--{id} contradicts --restore: the machine and what runs in it are the snapshot's"));
        }
        if run.get_one("on_reset") == Some(&OnReset::Reboot) {
            return Err("--on-reset reboot contradicts --restore: a snapshot has no kernel to start again".into());
        }
    }
    Ok(())
}

/// A further device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    VirtioConsole,
    VirtioNet,
    Edu,
}

/// The other end of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Stdio,
    File(PathBuf),
    Null,
}

fn end(text: OsString) -> Result<End, String> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    match text.as_bytes() {
        b"stdio" => Ok(End::Stdio),
        b"null" => Ok(End::Null),
        [b'f', b'i', b'l', b'e', b':', path @ ..] if !path.is_empty() => {
            Ok(End::File(OsString::from_vec(path.to_vec()).into()))
        }
        _ => Err("expected stdio, file:PATH or null".into()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnReset {
    /// Start the machine again
    Reboot,
    /// End: code 3, for a kernel that panics asks for a reset
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceEvents {
    Exits,
    Devices,
    Uops,
    Insns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    Text,
    Jsonl,
}

/// Bytes, with K, M or G for powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((i, 'k' | 'K')) => (&text[..i], 10),
        Some((i, 'm' | 'M')) => (&text[..i], 20),
        Some((i, 'g' | 'G')) => (&text[..i], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a number of bytes, such as 512M or 2G".to_owned())?;
    let bytes = number.checked_mul(1 << shift).ok_or("that is more than 2^64 bytes")?;
    if bytes == 0 || bytes % 4096 != 0 {
        return Err("expected a multiple of 4096 bytes, and some".into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("4096"), Ok(4096));
        for bad in ["", "0", "1", "G", "-1M", "99999999999G", "1.5G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
        let command = Options::command();
        let run = command.find_subcommand("run").unwrap();
        for id in OF_THE_MACHINE {
            assert!(
                run.get_arguments().any(|a| a.get_id() == id && a.get_long() == Some(&id.replace('_', "-"))),
                "{id}"
            );
        }
    }
}
