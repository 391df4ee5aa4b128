//! `--gdb`, spoken to as GDB does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// A RISC-V ELF file with these words at the start of RAM.
fn elf(code: &[u32]) -> Vec<u8> {
    let at = 0x8000_0000u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
    [at, 64, 0].iter().for_each(|w| file.extend(w.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    [64u16, 56, 1, 0, 0, 0].iter().for_each(|w| file.extend(w.to_le_bytes()));
    [1u32, 7].iter().for_each(|w| file.extend(w.to_le_bytes()));
    let size = 4 * code.len() as u64;
    [120, at, at, size, size, 1].iter().for_each(|w| file.extend(w.to_le_bytes()));
    code.iter().for_each(|w| file.extend(w.to_le_bytes()));
    file
}

struct Session(TcpStream);

impl Session {
    /// Sends a packet; returns the reply's contents.
    fn ask(&mut self, packet: &str) -> String {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
        let mut byte = [0];
        let mut next = |stream: &mut TcpStream| {
            stream.read_exact(&mut byte).unwrap();
            byte[0]
        };
        while next(&mut self.0) != b'$' {}
        let mut reply = Vec::new();
        loop {
            match next(&mut self.0) {
                b'#' => break,
                // Run-length encoding: the last character so many times more.
                b'*' => {
                    let (n, last) = (next(&mut self.0) - 29, *reply.last().unwrap());
                    reply.extend(std::iter::repeat_n(last, n.into()));
                }
                b => reply.push(b),
            }
        }
        next(&mut self.0);
        next(&mut self.0);
        self.0.write_all(b"+").unwrap();
        String::from_utf8(reply).unwrap()
    }

    fn register(&mut self, number: usize) -> u64 {
        let text = self.ask(&format!("p{number:x}"));
        u64::from_str_radix(&text, 16).unwrap().swap_bytes()
    }
}

#[test]
fn a_session() {
    let path = std::env::temp_dir().join(format!("undervisor-gdb-{}.elf", std::process::id()));
    // li a0, 5; auipc a1, 0; addi a0, a0, 1; sd a0, 64(a1); j .-8
    std::fs::write(&path, elf(&[0x0050_0513, 0x0000_0597, 0x0015_0513, 0x04a5_b023, 0xff9f_f06f])).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_undervisor"))
        .args(["run", "--firmware", "none", "--gdb", "127.0.0.1:0", "--kernel"])
        .arg(&path)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut gdb = Session(stream);

    assert!(gdb.ask("qSupported:multiprocess+;hwbreak+;swbreak+").contains("qXfer:features:read+"));
    assert!(gdb.ask("qXfer:features:read:target.xml:0,ffff").contains("name=\"zero\""));
    assert!(gdb.ask("?").starts_with('T'));
    assert_eq!(gdb.register(32), 0x8000_0000);
    assert_eq!(gdb.register(4161), 3, "M-mode");
    assert_eq!(gdb.register(65 + 0xf14), 0, "mhartid");
    gdb.ask("vCont;s:p1.1");
    assert_eq!((gdb.register(32), gdb.register(10)), (0x8000_0004, 5));
    // A breakpoint is where memory still shows the instruction.
    assert_eq!(gdb.ask("Z0,8000000c,4"), "OK");
    assert!(gdb.ask("vCont;c").contains("swbreak"));
    assert_eq!((gdb.register(32), gdb.register(10)), (0x8000_000c, 6));
    assert_eq!(gdb.ask("m8000000c,4"), "23b0a504");
    // It does not hold the hart where it is.
    assert!(gdb.ask("vCont;c").contains("swbreak"));
    assert_eq!(gdb.ask("z0,8000000c,4"), "OK");
    assert_eq!(gdb.ask("Z2,80000044,8"), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.contains("watch:80000044"), "{stop}");
    assert_eq!(gdb.ask("P20=0000008000000000"), "OK");
    assert_eq!(gdb.register(32), 0x8000_0000);
    assert_eq!(gdb.ask("M80000100,4:01020304"), "OK");
    assert_eq!(gdb.ask("m80000100,4"), "01020304");
    write!(gdb.0, "$vKill;1#6e").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    std::fs::remove_file(&path).unwrap();
}
