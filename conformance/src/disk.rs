//! A disk to boot from: one partition with a FAT16 file system, and GRUB for BIOS and UEFI.
//!
//! GRUB's boot.img and core.img stand before the partition, as "BIOS Boot Process" of GRUB's manual draws them; the
//! partition is an EFI system partition too. The image depends on its contents only: there are no times in it.

use std::collections::BTreeMap;

const SECTOR: usize = 512;
/// The first sector of the partition: what stands before it is GRUB's.
const PARTITION: u32 = 2048;
/// The type of an EFI system partition in a master boot record.
const EFI_SYSTEM: u8 = 0xef;

const SECTORS_PER_CLUSTER: usize = 4;
const CLUSTER: usize = SECTORS_PER_CLUSTER * SECTOR;
/// Fewer clusters than this are FAT12, more than the other FAT32.
const FAT16_CLUSTERS: std::ops::Range<usize> = 4085..65525;
const ROOT_ENTRIES: usize = 512;
const END_OF_CHAIN: u16 = 0xffff;

const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;

/// Files by their path. Names are of eight letters and three at most; case is not kept.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Adds a file; the directories above it come by themselves.
    pub fn add(&mut self, path: &str, data: impl Into<Vec<u8>>) -> &mut Files {
        self.0.insert(path.trim_matches('/').to_uppercase(), data.into());
        self
    }

    /// The file system: FAT16 with a root directory of 512 entries and two tables.
    pub fn to_fat16(&self, hidden: u32) -> Vec<u8> {
        let mut fat = Fat { next: vec![0xfff8, END_OF_CHAIN], clusters: Vec::new() };
        let mut root = self.directory(&mut fat, "", None);
        let count = (fat.clusters.len() / CLUSTER + 64).max(FAT16_CLUSTERS.start + 64);
        assert!(FAT16_CLUSTERS.contains(&count), "{count} clusters do not fit in FAT16");
        root.resize(ROOT_ENTRIES * 32, 0);
        fat.clusters.resize(count * CLUSTER, 0);
        let table_sectors = ((count + 2) * 2).div_ceil(SECTOR);
        let mut table: Vec<u8> = fat.next.iter().flat_map(|n| n.to_le_bytes()).collect();
        table.resize(table_sectors * SECTOR, 0);

        let total = 1 + 2 * table_sectors + root.len() / SECTOR + count * SECTORS_PER_CLUSTER;
        let mut image = boot_sector(table_sectors, total, hidden);
        for part in [&table, &table, &root, &fat.clusters] {
            image.extend_from_slice(part);
        }
        image
    }

    /// The entries of a directory, below which everything is written; `own` is its cluster and that of the one above.
    fn directory(&self, fat: &mut Fat, path: &str, own: Option<(u16, u16)>) -> Vec<u8> {
        let mut entries = Vec::new();
        if let Some((this, above)) = own {
            entries.extend(entry(*b".          ", DIRECTORY, this, 0));
            entries.extend(entry(*b"..         ", DIRECTORY, above, 0));
        }
        let mut seen = Vec::new();
        for (file, data) in self.0.iter().filter_map(|(p, data)| Some((p.strip_prefix(path)?, data))) {
            let name = file.split('/').next().unwrap_or_default();
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            if name == file {
                let first = fat.write(data);
                entries.extend(entry(short_name(name), ARCHIVE, first, data.len() as u32));
            } else {
                // One cluster, taken before what stands below it, since that names it.
                let first = fat.write(&[0; CLUSTER]);
                let above = own.map_or(0, |(this, _)| this);
                let inner = self.directory(fat, &format!("{path}{name}/"), Some((first, above)));
                assert!(inner.len() <= CLUSTER, "a directory of one cluster");
                let at = (usize::from(first) - 2) * CLUSTER;
                fat.clusters[at..at + inner.len()].copy_from_slice(&inner);
                entries.extend(entry(short_name(name), DIRECTORY, first, 0));
            }
        }
        entries
    }
}

/// The table and the clusters in the making.
struct Fat {
    next: Vec<u16>,
    clusters: Vec<u8>,
}

impl Fat {
    /// Writes data behind all others; returns its first cluster.
    fn write(&mut self, data: &[u8]) -> u16 {
        let first = self.next.len() as u16;
        let count = data.len().div_ceil(CLUSTER).max(1) as u16;
        self.next.extend((1..count).map(|n| first + n));
        self.next.push(END_OF_CHAIN);
        self.clusters.extend_from_slice(data);
        self.clusters.resize((self.next.len() - 2) * CLUSTER, 0);
        first
    }
}

/// The BIOS parameter block.
fn boot_sector(table_sectors: usize, total: usize, hidden: u32) -> Vec<u8> {
    let mut s = vec![0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| s[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"UNDERVSR");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[SECTORS_PER_CLUSTER as u8, 1, 0, 2]); // one reserved sector, two tables
    put(17, &(ROOT_ENTRIES as u16).to_le_bytes());
    put(21, &[0xf8]); // a fixed disk
    put(22, &(table_sectors as u16).to_le_bytes());
    put(24, &[63, 0, 255, 0]); // sectors of a track, heads
    put(28, &hidden.to_le_bytes());
    put(32, &(total as u32).to_le_bytes());
    put(36, &[0x80, 0, 0x29]);
    put(43, b"UNDERVISOR FAT16   ");
    put(510, &[0x55, 0xaa]);
    s
}

fn entry(name: [u8; 11], attributes: u8, cluster: u16, size: u32) -> [u8; 32] {
    let mut e = [0; 32];
    e[..11].copy_from_slice(&name);
    e[11] = attributes;
    e[26..28].copy_from_slice(&cluster.to_le_bytes());
    e[28..].copy_from_slice(&size.to_le_bytes());
    e
}

fn short_name(name: &str) -> [u8; 11] {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    assert!(stem.len() <= 8 && extension.len() <= 3, "{name} is not of eight letters and three");
    let mut short = [b' '; 11];
    short[..stem.len()].copy_from_slice(stem.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    short
}

/// A whole disk: `boot` is GRUB's boot.img, `core` its core.img, which goes right behind.
pub fn image(boot: &[u8], core: &[u8], files: &Files) -> Vec<u8> {
    const CODE: usize = 440;
    /// In boot.img, a jump over the code that mistrusts the number of the drive it is given; GRUB's own installer puts NOPs
    /// there on a hard disk.
    const DRIVE_CHECK: usize = 0x66;
    let partition = files.to_fat16(PARTITION);
    let mut disk = vec![0; PARTITION as usize * SECTOR];
    disk[..CODE].copy_from_slice(&boot[..CODE]);
    disk[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    assert!(SECTOR + core.len() <= disk.len(), "core.img does not fit before the partition");
    disk[SECTOR..SECTOR + core.len()].copy_from_slice(core);
    let row = &mut disk[446..462];
    row[..8].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, EFI_SYSTEM, 0xfe, 0xff, 0xff]); // active; no cylinders
    row[8..12].copy_from_slice(&PARTITION.to_le_bytes());
    row[12..].copy_from_slice(&((partition.len() / SECTOR) as u32).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(partition);
    disk
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file back, step by step along its path.
    fn read(fat16: &[u8], path: &str) -> Option<Vec<u8>> {
        let word = |at: usize| usize::from(u16::from_le_bytes([fat16[at], fat16[at + 1]]));
        let table = SECTOR;
        let root = SECTOR + 2 * word(22) * SECTOR;
        let data = root + ROOT_ENTRIES * 32;
        let mut directory = fat16[root..data].to_vec();
        let mut size = 0;
        for name in path.split('/') {
            let e = directory.chunks(32).find(|e| e[..11] == short_name(name))?.to_vec();
            size = u32::from_le_bytes(e[28..].try_into().unwrap()) as usize;
            let mut cluster = usize::from(u16::from_le_bytes([e[26], e[27]]));
            directory.clear();
            while cluster < 0xfff8 {
                let at = data + (cluster - 2) * CLUSTER;
                directory.extend_from_slice(&fat16[at..at + CLUSTER]);
                cluster = word(table + 2 * cluster);
            }
        }
        directory.truncate(size);
        Some(directory)
    }

    #[test]
    fn files_are_found_again() {
        let mut files = Files::default();
        let long: Vec<u8> = (0..5 * CLUSTER as u32 + 7).map(|n| (n / 3) as u8).collect();
        files.add("/boot/grub/grub.cfg", "set").add("/boot/vmlinuz", long.clone()).add("/efi/boot/bootx64.efi", "MZ");
        let image = files.to_fat16(PARTITION);
        assert_eq!(read(&image, "BOOT/VMLINUZ").unwrap(), long);
        assert_eq!(read(&image, "BOOT/GRUB/GRUB.CFG").unwrap(), b"set");
        assert_eq!(read(&image, "EFI/BOOT/BOOTX64.EFI").unwrap(), b"MZ");
        assert_eq!(read(&image, "BOOT/NOTHING"), None);
        assert_eq!(image.len() / SECTOR, u32::from_le_bytes(image[32..36].try_into().unwrap()) as usize);
    }

    #[test]
    fn the_partition_is_where_the_record_says() {
        let mut files = Files::default();
        files.add("/a", "b");
        let disk = image(&[0x11; SECTOR], &[0x22; 700], &files);
        assert_eq!((disk[0], disk[0x66], disk[SECTOR], disk[SECTOR + 699]), (0x11, 0x90, 0x22, 0x22));
        let partition = &disk[PARTITION as usize * SECTOR..];
        assert_eq!(u32::from_le_bytes(disk[454..458].try_into().unwrap()), PARTITION);
        assert_eq!(u32::from_le_bytes(disk[458..462].try_into().unwrap()) as usize, partition.len() / SECTOR);
        assert_eq!(read(partition, "A").unwrap(), b"b");
    }
}
