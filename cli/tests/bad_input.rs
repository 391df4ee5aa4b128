//! Bad input: one line that names the thing and what was expected, code 2, and no file left behind.

mod common;

use std::fs;

use common::{Dir, RAM, RISCV, command, elf, stderr, undervisor};

/// lui t0, 0x100; lui t1, 0x5; addi t1, t1, 0x555; sw t1, 0(t0): power off by the test finisher.
const POWER_OFF: [u32; 4] = [0x0010_02b7, 0x0000_5337, 0x5553_0313, 0x0062_a023];

#[track_caller]
fn is_refused(arguments: &[&str], words: &[&str]) {
    let out = undervisor(arguments);
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(words.iter().all(|w| text.contains(w)), "{arguments:?}: {text}");
}

#[test]
fn wrong_files_are_refused_by_name() {
    let dir = Dir::new("files");
    let good = dir.file("good.elf", &elf(RISCV, RAM, &POWER_OFF, 16));
    is_refused(&["run", "--kernel", &dir.path("absent")], &["absent", "No such file"]);
    is_refused(&["run", "--kernel", &dir.path("")], &["directory"]);
    is_refused(&["run", "--kernel", &dir.file("empty", b"")], &["empty", "expected"]);
    is_refused(&["run", "--kernel", &dir.file("text", b"hello")], &["text", "expected", "Image"]);
    let x86 = dir.file("x86.elf", &elf(62, RAM, &POWER_OFF, 16));
    is_refused(&["run", "--machine", "virt", "--kernel", &x86], &["x86.elf", "X86_64"]);
    is_refused(&["run", "--kernel", &x86], &["x86.elf", "0x80000000", "do not fit", "512 MiB"]);
    is_refused(&["run", "--kernel", &dir.file("broken.elf", b"\x7fELF\x02\x01\x01 and no more")], &["broken.elf"]);
    let mut cut = elf(RISCV, RAM, &POWER_OFF, 16);
    cut.truncate(125);
    is_refused(&["run", "--kernel", &dir.file("cut.elf", &cut)], &["cut.elf", "truncated"]);
    is_refused(&["run", "--kernel", &dir.file("gz", b"\x1f\x8b\x08garbage")], &["gz", "gzip"]);
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    is_refused(&["run", "--kernel", &dir.file("Image.arm", &arm)], &["Image.arm", "arm64"]);
    let mut x86 = vec![0; 4096];
    x86[0x202..0x206].copy_from_slice(b"HdrS");
    let x86 = dir.file("bzImage", &x86);
    is_refused(&["run", "--machine", "virt", "--kernel", &x86], &["bzImage", "x86"]);
    is_refused(&["run", "--kernel", &x86], &["bzImage", "boot protocol"]);
    is_refused(&["run", "--machine", "pc", "--kernel", &good], &["good.elf", "Riscv64", "bzImage"]);
    let text = dir.path("text");
    is_refused(&["run", "--machine", "pc", "--kernel", &text], &["text", "bzImage"]);
    is_refused(&["run", "--machine", "pc,entry=pvh", "--kernel", &x86], &["bzImage"]);
    is_refused(&["run", "--machine", "pc", "--firmware", &text], &["text", "5 bytes", "64 KiB"]);
    is_refused(
        &["run", "--kernel", &dir.file("arm.elf", &elf(183, RAM, &POWER_OFF, 16))],
        &["arm.elf", "Aarch64", "RISC-V"],
    );
    is_refused(&["run", "--firmware", &dir.path("arm.elf"), "--kernel", &good], &["arm.elf", "Aarch64"]);
    let mut narrow = elf(RISCV, RAM, &POWER_OFF, 16);
    narrow[4] = 1;
    is_refused(&["run", "--kernel", &dir.file("rv32.elf", &narrow)], &["rv32.elf", "64-bit RISC-V ELF"]);
    is_refused(&["run", "--kernel", "/dev/zero"], &["/dev/zero", "device"]);
    is_refused(&["run", "--kernel", &good, "--initrd", "/dev/zero"], &["/dev/zero", "device"]);
    let large = dir.file("large.elf", &elf(RISCV, RAM, &POWER_OFF, 1 << 40));
    is_refused(&["run", "--kernel", &large], &["large.elf", "do not fit", "512 MiB"]);
    let below = dir.file("below.elf", &elf(RISCV, 0x1000, &POWER_OFF, 16));
    is_refused(&["run", "--kernel", &below], &["below.elf", "do not fit"]);
    let initrd = dir.file("initrd", &vec![1; 8 << 20]);
    is_refused(&["run", "--kernel", &good, "--initrd", &initrd, "--memory", "8M"], &["initrd", "do not fit"]);
    is_refused(&["run", "--kernel", &good, "--initrd", &dir.file("nothing", b"")], &["nothing", "empty"]);
    is_refused(&["run", "--firmware", &dir.path("fw"), "--kernel", &good], &["fw", "No such file"]);
    is_refused(&["run", "--kernel", &good, "--drive", &dir.path("disk")], &["disk"]);
}

#[test]
fn wrong_options_are_refused_by_name() {
    let dir = Dir::new("options");
    let good = dir.file("good.elf", &elf(RISCV, RAM, &POWER_OFF, 16));
    is_refused(&["run"], &["--kernel"]);
    let kernel = ["run", "--kernel", good.as_str()];
    let with = |more: &[&'static str]| [&kernel[..], more].concat();
    is_refused(&with(&["--cpu", "rv65"]), &["rv65"]);
    is_refused(&with(&["--cpu", "rv64,+warp"]), &["warp"]);
    is_refused(&with(&["--cpu", "rv64,+d,-f"]), &["`d` needs `f`"]);
    is_refused(&with(&["--machine", "microvm"]), &["microvm", "riscv64-virt", "pc"]);
    is_refused(&with(&["--machine", "pc,chipset=via"]), &["chipset=via", "q35"]);
    is_refused(&with(&["--machine", "pc,entry=raw8"]), &["entry=raw8", "raw16"]);
    is_refused(&with(&["--machine", "pc,iommu=smmu"]), &["iommu=smmu", "vtd"]);
    is_refused(&with(&["--machine", "pc,iommu=vtd+x2apic"]), &["vtd+x2apic", "vtd+xapic"]);
    is_refused(&with(&["--machine", "i440fx,iommu=vtd"]), &["VT-d", "chipset=q35"]);
    is_refused(&with(&["--machine", "pc,at=0x1000"]), &["at=0x1000", "raw16"]);
    is_refused(&with(&["--machine", "pc", "--smp", "0"]), &["0 vCPUs", "512"]);
    is_refused(&with(&["--machine", "pc", "--memory", "1M"]), &["1048576 bytes", "2 MiB"]);
    is_refused(&with(&["--machine", "pc", "--firmware", "builtin"]), &["--firmware builtin", "pc"]);
    is_refused(&with(&["--machine", "pc", "--firmware-vars", "x"]), &["x", "No such file"]);
    is_refused(&with(&["--machine", "virt", "--module", "x"]), &["--module", "riscv64-virt"]);
    is_refused(&with(&["--machine", "virt,aia=maybe"]), &["maybe", "aplic-imsic"]);
    is_refused(&with(&["--machine", "virt,aia=aplic-imsic,guests=64"]), &["64", "63"]);
    is_refused(&with(&["--machine", "virt,guests=5"]), &["guests=5", "aplic-imsic"]);
    is_refused(&with(&["--drive", ",ro"]), &["--drive ,ro", "expected a file"]);
    is_refused(&with(&["--smp", "0"]), &["0 harts"]);
    is_refused(&with(&["--smp", "100000"]), &["100000 harts"]);
    is_refused(&with(&["--frequency", "1"]), &["1 Hz"]);
    is_refused(&with(&["--expect", "("]), &["--expect"]);
    is_refused(&with(&["--json", "/no/such/dir/x.json"]), &["/no/such/dir"]);
    is_refused(&with(&["--memory", "16777216G"]), &["RAM"]);
    is_refused(&with(&["--snapshot", "/no/such/dir/x.snap"]), &["--snapshot-at or --expect"]);
    for bad in [
        &["--console", "pigeon"][..],
        &["--memory", "0"],
        &["--memory", "12Q"],
        &["--nonsense"],
        &["--snapshot-at", "5"],
    ] {
        let out = undervisor(&with(bad));
        assert_eq!(out.status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_snapshot_that_is_not_one_is_refused_and_a_good_file_survives() {
    let dir = Dir::new("snapshots");
    let text = dir.file("text", b"hello");
    is_refused(&["run", "--restore", &text], &["text", "not an Undervisor snapshot"]);
    is_refused(&["run", "--restore", &dir.path("absent")], &["absent"]);
    // j .
    let forever = dir.file("forever.elf", &elf(RISCV, RAM, &[0x0000_006f], 4));
    let snap = dir.path("good.snap");
    let common = ["run", "--firmware", "none", "--kernel", &forever, "--max-instructions", "1000"];
    let out = undervisor(&[&common[..], &["--snapshot-at", "500", "--snapshot", &snap]].concat());
    assert_eq!(out.status.code(), Some(4), "{}", String::from_utf8_lossy(&out.stderr));
    let good = fs::read(&snap).unwrap();
    for (name, bytes) in [
        ("cut", good[..good.len() / 2].to_vec()),
        ("flipped", {
            let mut bytes = good.clone();
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        }),
    ] {
        is_refused(&["run", "--restore", &dir.file(name, &bytes)], &[name]);
    }
    let out = undervisor(&["run", "--restore", &snap, "--max-instructions", "900"]);
    assert_eq!(out.status.code(), Some(4));
    is_refused(&[&common[..], &["--replay", &text]].concat(), &["text", "not a recording"]);
}

#[test]
fn exit_codes_are_as_documented() {
    let dir = Dir::new("codes");
    let code = |words: &[u32], more: &[&str]| {
        let kernel = dir.file("k.elf", &elf(RISCV, RAM, words, 4 * words.len() as u64));
        let out = undervisor(&[&["run", "--firmware", "none", "--kernel", &kernel], more].concat());
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert_eq!(code(&POWER_OFF, &[]).0, 0);
    // The finisher's failure: 0x3333 in the low half, the guest's code above.
    let fail = [0x0010_02b7, 0x0007_3337, 0x3333_0313, 0x0062_a023];
    let json = dir.path("summary.json");
    assert_eq!(code(&fail, &["--json", &json]).0, 1);
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((&summary["cause"], &summary["guest_code"]), (&"guest-failure".into(), &7.into()));
    assert_eq!(summary["state_hash"].as_str().unwrap().len(), 64);
    // wfi; j .-4 with nothing enabled.
    let (n, text) = code(&[0x1050_0073, 0xffdf_f06f], &[]);
    assert!(n == 3 && text.contains("deadlock"), "{n} {text}");
    assert_eq!(code(&[0x0000_006f], &["--max-instructions", "100000"]).0, 4);
    // Puts an "x" into the UART, then turns for ever.
    let shout = [0x1000_02b7, 0x0780_0313, 0x0062_8023, 0x00a0_0313, 0x0062_8023, 0x0000_006f];
    assert_eq!(code(&shout, &["--expect", "^x"]).0, 0);
    assert_eq!(code(&shout, &["--fail-on", "x$"]).0, 5);
    assert_eq!(undervisor(&["--help"]).status.code(), Some(0));
}

/// File names are bytes; standard streams may be closed; a limit may be 0.
#[test]
fn what_is_unusual_is_no_error() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let dir = Dir::new("unusual");
    let name = |prefix: &str, name: &str| {
        let mut bytes = format!("{prefix}{}", dir.path(name)).into_bytes();
        bytes.push(0xff);
        OsString::from_vec(bytes)
    };
    let kernel = elf(RISCV, RAM, &POWER_OFF, 16);
    let good = dir.file("good.elf", &kernel);
    for prefix in ["kernel", "firmware"] {
        fs::write(name("", prefix), &kernel).unwrap();
    }
    let mut all = vec![OsString::from("run")];
    for option in ["kernel", "json", "trace", "record"] {
        all.extend([format!("--{option}").into(), name("", option)]);
    }
    all.extend(["--console".into(), name("file:", "console"), "--firmware".into(), "none".into()]);
    let out = command(&[]).args(&all).output().unwrap();
    assert_eq!((out.status.code(), stderr(&out).as_str()), (Some(0), ""));
    assert!(["json", "trace", "record", "console"].iter().all(|file| fs::metadata(name("", file)).is_ok()));
    let out = command(&["run", "--firmware"]).arg(name("", "firmware")).output().unwrap();
    assert_eq!((out.status.code(), stderr(&out).as_str()), (Some(0), ""));
    let out = command(&["run", "--kernel", &good, "--drive"]).arg(name("", "kernel")).output().unwrap();
    assert!(out.status.code() == Some(2) && stderr(&out).contains("UTF-8"), "{}", stderr(&out));

    let closed = format!("{} run --firmware none --kernel {good} <&- >&- 2>&-", env!("CARGO_BIN_EXE_undervisor"));
    assert_eq!(std::process::Command::new("sh").args(["-c", &closed]).status().unwrap().code(), Some(0));
    let limit = |n| undervisor(&["run", "--firmware", "none", "--kernel", &good, "--max-instructions", n]);
    assert_eq!(limit("0").status.code(), Some(4));
    assert_eq!(limit("18446744073709551615").status.code(), Some(0));
}
