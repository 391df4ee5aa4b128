//! The bare guests: each does one thing, many times, checks what came of it, and ends.

mod hypervisor;
mod plain;

use undervisor_benches::image::Ending;

use crate::report::Target;

/// A guest, and how much it does.
pub struct Guest {
    /// Its row in the table.
    pub name: &'static str,
    /// What is done `work` times.
    pub unit: &'static str,
    /// Units of work.
    pub work: f64,
    /// What the row should come to.
    pub targets: &'static [Target],
    /// Its ELF file.
    pub elf: fn(Ending) -> Vec<u8>,
}

/// In the order of the table.
pub const ALL: &[Guest] =
    &[plain::INTEGER, plain::CHASE, plain::SFENCE, hypervisor::ECALL, hypervisor::HFENCE, hypervisor::WORLD_SWITCH];

#[cfg(test)]
mod tests {
    use emu_core::machine::End;

    use super::*;

    #[test]
    fn guests_end_with_success() {
        for guest in [plain::SFENCE, hypervisor::ECALL, hypervisor::HFENCE, hypervisor::WORLD_SWITCH] {
            let mut machine = undervisor_benches::machine((guest.elf)(Ending::Finisher));
            assert_eq!(machine.run(1 << 30), End::PowerOff(0), "{}", guest.name);
        }
    }
}
