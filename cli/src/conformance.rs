//! `undervisor conformance`: public suites, in parallel.

use std::path::Path;

use riscv::cpu::CpuConfig;
use riscv::platform::virt::{Firmware, VirtConfig};
use undervisor_conformance::kvm_unit_tests::{self, Machine};
use undervisor_conformance::{riscv_tests, suite};
use x86::platform::pc::PcConfig;

use crate::error::{UserError, about, print};
use crate::machine::{pc_options, read_file, riscv_options};
use crate::options::{Conformance, Suite};
use crate::outputs::{self, Named};

/// Runs a suite; 0 if nothing failed, else 1.
pub fn run(o: &Conformance) -> Result<u8, UserError> {
    let junit = o.junit.as_deref().map(|path| Named { option: "--junit", path });
    outputs::check(junit.as_slice(), &[])?;
    let cpu = || CpuConfig::parse(o.cpu.as_deref().unwrap_or("rv64"));
    let outcomes = match o.suite {
        Suite::RiscvTests => riscv_tests::run(&o.dir, cpu()?),
        Suite::KvmUnitTests => {
            let is_x86 = kvm_unit_tests::is_x86(&o.dir);
            let name = o.machine.as_deref().unwrap_or(if is_x86 { "pc" } else { "riscv64-virt" });
            let machine = if is_x86 {
                let mut config = PcConfig::default();
                pc_options(name, &mut config)?;
                Machine::Pc(Box::new(config), o.cpu.clone())
            } else {
                let firmware = match o.firmware.as_str() {
                    "builtin" => Firmware::BuiltIn,
                    path => Firmware::File(read_file(Path::new(path))?),
                };
                let irqchip = riscv_options(name)?;
                Machine::Riscv(Box::new(VirtConfig { cpu: cpu()?, irqchip, ..VirtConfig::default() }), firmware)
            };
            kvm_unit_tests::run(&o.dir, &machine, &o.filter)
        }
    };
    let outcomes = outcomes.map_err(|e| about(o.dir.display(), e))?;
    if outcomes.is_empty() {
        return Err(about(o.dir.display(), "there is no test of this suite in it"));
    }
    if let Some(path) = &o.junit {
        let name = format!("{:?}", o.suite);
        outputs::save(path, &[suite::junit(&name, &outcomes).as_bytes()])?;
    }
    print(&suite::table(&outcomes))?;
    Ok(u8::from(suite::counts(&outcomes)[1] != 0))
}
