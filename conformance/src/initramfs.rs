//! An initial RAM file system: a cpio archive in the "newc" format, as in the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! The archive depends on its contents only: entries are sorted by path, all times are 0, all files belong to root.

use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040000;
const FILE: u32 = 0o100000;
const SYMLINK: u32 = 0o120000;
const CHARACTER_DEVICE: u32 = 0o020000;
const BLOCK_DEVICE: u32 = 0o060000;

/// An archive in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

impl Initramfs {
    /// An empty archive.
    pub fn new() -> Initramfs {
        Initramfs::default()
    }

    /// A directory with mode 755. Directories above any entry come by themselves.
    pub fn directory(&mut self, path: &str) -> &mut Initramfs {
        self.add(path, DIRECTORY | 0o755, (0, 0), Vec::new())
    }

    /// A file; `permissions` is a mode such as `0o755`.
    pub fn file(&mut self, path: &str, permissions: u32, data: impl Into<Vec<u8>>) -> &mut Initramfs {
        self.add(path, FILE | permissions, (0, 0), data.into())
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Initramfs {
        self.add(path, SYMLINK | 0o777, (0, 0), target.into())
    }

    /// A character device with mode 600.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> &mut Initramfs {
        self.add(path, CHARACTER_DEVICE | 0o600, (major, minor), Vec::new())
    }

    /// A block device with mode 600.
    pub fn block_device(&mut self, path: &str, major: u32, minor: u32) -> &mut Initramfs {
        self.add(path, BLOCK_DEVICE | 0o600, (major, minor), Vec::new())
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), data: Vec<u8>) -> &mut Initramfs {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let above = Entry { mode: DIRECTORY | 0o755, device: (0, 0), data: Vec::new() };
            self.entries.entry(path[..end].into()).or_insert(above);
        }
        self.entries.insert(path.into(), Entry { mode, device, data });
        self
    }

    /// The archive.
    pub fn to_cpio(&self) -> Vec<u8> {
        let mut cpio = Vec::new();
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            write_entry(&mut cpio, index as u32 + 1, path, entry);
        }
        let trailer = Entry { mode: 0, device: (0, 0), data: Vec::new() };
        write_entry(&mut cpio, 0, "TRAILER!!!", &trailer);
        cpio
    }
}

/// One header of 13 fields of 8 hexadecimal digits, the name, the data; each padded to 4 bytes.
fn write_entry(cpio: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) {
    let links = if entry.mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
    let fields = [
        inode,
        entry.mode,
        0, // user
        0, // group
        links,
        0, // time of last change
        entry.data.len() as u32,
        0, // device that the file stands on: major
        0, // and minor
        entry.device.0,
        entry.device.1,
        path.len() as u32 + 1,
        0, // checksum: none in this format
    ];
    cpio.extend_from_slice(b"070701");
    for field in fields {
        cpio.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    cpio.extend_from_slice(path.as_bytes());
    cpio.push(0);
    pad(cpio);
    cpio.extend_from_slice(&entry.data);
    pad(cpio);
}

fn pad(cpio: &mut Vec<u8>) {
    cpio.resize(cpio.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode, device and data of an entry.
    type Read = (String, u32, (u32, u32), Vec<u8>);

    fn read(mut cpio: &[u8]) -> Vec<Read> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&cpio[..6], b"070701");
            let field = |n: usize| {
                let digits = std::str::from_utf8(&cpio[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&cpio[110..110 + name_size - 1]).unwrap();
            let data = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(cpio.len(), data);
                return entries;
            }
            entries.push((name.into(), field(1), (field(9), field(10)), cpio[data..data + size].to_vec()));
            cpio = &cpio[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_is_written_reads_back_in_the_order_of_paths() {
        let mut fs = Initramfs::new();
        fs.file("/bin/busybox", 0o755, *b"12345")
            .symlink("/bin/sh", "busybox")
            .directory("proc")
            .character_device("/dev/console", 5, 1)
            .block_device("/dev/vda", 254, 0)
            .file("init", 0o755, "#!/bin/sh\n");
        let expected: Vec<Read> = vec![
            ("bin".into(), 0o040755, (0, 0), vec![]),
            ("bin/busybox".into(), 0o100755, (0, 0), b"12345".to_vec()),
            ("bin/sh".into(), 0o120777, (0, 0), b"busybox".to_vec()),
            ("dev".into(), 0o040755, (0, 0), vec![]),
            ("dev/console".into(), 0o020600, (5, 1), vec![]),
            ("dev/vda".into(), 0o060600, (254, 0), vec![]),
            ("init".into(), 0o100755, (0, 0), b"#!/bin/sh\n".to_vec()),
            ("proc".into(), 0o040755, (0, 0), vec![]),
        ];
        assert_eq!(read(&fs.to_cpio()), expected);
    }

    #[test]
    fn the_order_of_adding_is_not_seen() {
        let (mut one, mut other) = (Initramfs::new(), Initramfs::new());
        one.directory("b").file("a/x", 0o644, "x");
        other.file("a/x", 0o644, "x").directory("b");
        assert_eq!(one.to_cpio(), other.to_cpio());
    }

    #[test]
    fn every_part_is_padded_to_four_bytes() {
        for length in 0..9 {
            let mut fs = Initramfs::new();
            fs.file(&"n".repeat(length + 1), 0o600, vec![b'd'; length]);
            let cpio = fs.to_cpio();
            assert_eq!(cpio.len() % 4, 0);
            assert_eq!(read(&cpio)[0].3.len(), length);
        }
    }
}
