//! The modules of a kernel: which ones a module needs, read from the modules themselves.
//!
//! A kernel package has no `modules.dep`, which depmod writes on the installed system; but each module says in its
//! section `.modinfo` what it depends on.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::{fs, str};

use object::{Object, ObjectSection};

/// Why a module cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a module nor built in.
    #[error("no module `{name}` in {directory}", directory = directory.display())]
    Missing {
        /// The module's name.
        name: String,
        /// `lib/modules/<release>`.
        directory: PathBuf,
    },
    /// Modules that need each other.
    #[error("module `{0}` depends on itself")]
    Cycle(String),
    /// A file that is not the module that it should be.
    #[error("{path}: {reason}", path = path.display())]
    Bad {
        /// The module's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The modules of one kernel, by name.
#[derive(Clone, Debug)]
pub struct Modules {
    directory: PathBuf,
    loadable: BTreeMap<String, PathBuf>,
    builtin: BTreeMap<String, String>,
}

/// A module, decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// The ELF file.
    pub elf: Vec<u8>,
}

impl Modules {
    /// Looks through `lib/modules/<release>`.
    pub fn open(directory: &Path) -> Result<Modules, Error> {
        let mut loadable = BTreeMap::new();
        let mut pending = vec![directory.join("kernel")];
        while let Some(above) = pending.pop() {
            for path in entries(&above)? {
                if path.is_dir() {
                    pending.push(path);
                } else if let Some(name) = name_of(&path) {
                    loadable.insert(name, path);
                }
            }
        }
        let list = directory.join("modules.builtin");
        let list = fs::read_to_string(&list).map_err(|source| Error::Io { path: list, source })?;
        let builtin = list.lines().filter_map(|line| Some((name_of(Path::new(line))?, line.to_owned()))).collect();
        Ok(Modules { directory: directory.into(), loadable, builtin })
    }

    /// Whether there is such a module, or the kernel has it in itself.
    pub fn has(&self, name: &str) -> bool {
        self.loadable.contains_key(&normal(name)) || self.is_builtin(name)
    }

    /// Whether the kernel has the module in itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains_key(&normal(name))
    }

    /// The named modules and all that they need, each after those that it needs. What is built in is left out.
    pub fn in_load_order(&self, names: &[&str]) -> Result<Vec<Module>, Error> {
        let mut order = Vec::new();
        for name in names {
            self.add(&normal(name), &mut Vec::new(), &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, above: &mut Vec<String>, order: &mut Vec<Module>) -> Result<(), Error> {
        if order.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if above.iter().any(|waiting| waiting == name) {
            return Err(Error::Cycle(name.into()));
        }
        let Some(path) = self.loadable.get(name) else {
            if self.is_builtin(name) {
                return Ok(());
            }
            return Err(Error::Missing { name: name.into(), directory: self.directory.clone() });
        };
        let elf = decompressed(path)?;
        let bad = |reason| Error::Bad { path: path.clone(), reason };
        above.push(name.into());
        for dependency in depends(modinfo(&elf).map_err(bad)?) {
            self.add(&dependency, above, order)?;
        }
        above.pop();
        order.push(Module { name: name.into(), elf });
        Ok(())
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |source| Error::Io { path: directory.into(), source };
    fs::read_dir(directory).map_err(error)?.map(|entry| Ok(entry.map_err(error)?.path())).collect()
}

/// A module's name, if the path is one of a module: `a-b.ko.xz` is `a_b`.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".gz").then(|| normal(stem))
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn decompressed(path: &Path) -> Result<Vec<u8>, Error> {
    let error = |source| Error::Io { path: path.into(), source };
    let data = fs::read(path).map_err(error)?;
    let mut elf = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => lzma_rust2::XzReader::new(data.as_slice(), true).read_to_end(&mut elf).map_err(error)?,
        Some("gz") => flate2::read::MultiGzDecoder::new(data.as_slice()).read_to_end(&mut elf).map_err(error)?,
        _ => return Ok(data),
    };
    Ok(elf)
}

/// The section `.modinfo`: strings `key=value`, each ended by a NUL.
fn modinfo(elf: &[u8]) -> Result<&[u8], String> {
    let file = object::File::parse(elf).map_err(|error| error.to_string())?;
    let section = file.section_by_name(".modinfo").ok_or("no section .modinfo")?;
    section.data().map_err(|error| error.to_string())
}

/// The names in all `depends=`.
fn depends(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|byte| *byte == 0)
        .filter_map(|line| str::from_utf8(line).ok()?.strip_prefix("depends="))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(normal)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The least ELF file with a section `.modinfo`: a header, the section, the names, three section headers.
    fn elf(modinfo: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let (data_at, names_at) = (64, 64 + modinfo.len());
        let headers_at = (names_at + names.len()).next_multiple_of(8);
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        elf.extend([1, 0, 243, 0, 1, 0, 0, 0]); // relocatable, RISC-V, version 1
        elf.extend([0; 16]); // no entry, no program headers
        elf.extend((headers_at as u64).to_le_bytes());
        elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        elf.extend(modinfo.as_bytes());
        elf.extend(names);
        elf.resize(headers_at + 64, 0);
        for (name, kind, at, size) in [(1u32, 1u32, data_at, modinfo.len()), (10, 3, names_at, names.len())] {
            elf.extend(name.to_le_bytes());
            elf.extend(kind.to_le_bytes());
            elf.extend([0; 16]);
            elf.extend((at as u64).to_le_bytes());
            elf.extend((size as u64).to_le_bytes());
            elf.extend([0; 24]);
        }
        elf
    }

    fn tree(modules: &[(&str, &str)]) -> (tempfile::TempDir, Modules) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join("modules.builtin"),
            "kernel/drivers/virtio/virtio.ko\nkernel/lib/crc-t10dif.ko\n",
        )
        .unwrap();
        for (path, modinfo) in modules {
            let path = directory.path().join("kernel").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let data = elf(modinfo);
            if path.extension().unwrap() == "xz" {
                let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
                xz.write_all(&data).unwrap();
                fs::write(path, xz.finish().unwrap()).unwrap();
            } else {
                fs::write(path, data).unwrap();
            }
        }
        let modules = Modules::open(directory.path()).unwrap();
        (directory, modules)
    }

    #[test]
    fn depends_are_found_among_other_strings() {
        let section = b"license=GPL\0depends=net-failover,virtio\0alias=depends=x\0\0depends=\0";
        assert_eq!(depends(section), ["net_failover", "virtio"]);
        assert_eq!(modinfo(&elf("a=b\0")), Ok(b"a=b\0".as_slice()));
        assert!(modinfo(b"no ELF").is_err());
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let (_directory, modules) = tree(&[
            ("drivers/net/virtio_net.ko.xz", "license=GPL\0depends=net_failover,virtio\0"),
            ("drivers/net/net_failover.ko.xz", "depends=failover\0"),
            ("net/core/failover.ko", "depends=\0"),
            ("drivers/char/virtio-rng.ko", "depends=\0"),
        ]);
        let order = modules.in_load_order(&["virtio-net", "failover", "virtio", "virtio_rng", "crc_t10dif"]).unwrap();
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["failover", "net_failover", "virtio_net", "virtio_rng"]);
        assert_eq!(order[2].elf, elf("license=GPL\0depends=net_failover,virtio\0"));
        assert!(modules.is_builtin("crc-t10dif") && !modules.is_builtin("virtio_net"));
    }

    #[test]
    fn what_cannot_be_loaded_is_named() {
        let (_directory, modules) =
            tree(&[("a.ko", "depends=b\0"), ("b.ko", "depends=a\0"), ("c.ko", "depends=nowhere\0")]);
        assert!(matches!(modules.in_load_order(&["a"]), Err(Error::Cycle(name)) if name == "a"));
        assert!(matches!(modules.in_load_order(&["c"]), Err(Error::Missing { name, .. }) if name == "nowhere"));
    }
}
