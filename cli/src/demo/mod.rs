//! `undervisor demo`: hypervisors of our own run guests, and what happened is shown. On RISC-V one (L1, HS-mode) runs a guest (L2, VS- and
//! VU-mode); with VMX, and with SVM, one (L1) runs another (L2), which runs a guest (L3).

mod guest;
mod x86;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use emu_core::event::{Event, Kind, Sink};
use emu_core::machine::End;
use riscv::hart::Riscv;
use riscv::platform::virt::{self, CONSOLE, VirtConfig};
use riscv::privileged::sbi;

use crate::error::{UserError, print};
use crate::machine::Platform;
use crate::report;

/// What is written while a machine runs, and read behind that.
type Shared<T> = Arc<Mutex<T>>;
/// What the console shows.
type Screen = Shared<Vec<u8>>;

/// World switches, with the reason of each: instruction count, level from then on, why.
#[derive(Clone, Default)]
struct Switches(Shared<Vec<(u64, u8, String)>>);

/// Remembers the reason until the switch comes.
struct Watcher {
    switches: Switches,
    reason: String,
}

impl Sink for Watcher {
    fn event(&mut self, event: &Event) {
        match event.kind {
            Kind::Trap | Kind::Interrupt | Kind::Return => self.reason = event.name.to_owned(),
            Kind::Switch => {
                let to = 3 - event.level;
                let mut switches = self.switches.0.lock().expect("nobody panics with it");
                switches.push((event.count, to, std::mem::take(&mut self.reason)));
            }
            _ => {}
        }
    }
}

/// Runs the demonstrations: 0 if all of them end as they should.
pub fn run() -> Result<u8, UserError> {
    Ok(run_riscv()?.max(x86::run()?))
}

/// The H extension.
fn run_riscv() -> Result<u8, UserError> {
    let config = VirtConfig { memory: 64 << 20, ..VirtConfig::default() };
    let (mut machine, _) = virt::build_empty(&config)?;
    let screen = Screen::default();
    let switches = Switches::default();
    machine.world.door.connect_output(CONSOLE, Box::new(screen.clone()));
    machine.world.events.listen(Box::new(Watcher { switches: switches.clone(), reason: String::new() }));
    let [hypervisor, guest] = guest::images();
    for (at, bytes) in [hypervisor, guest] {
        machine.world.ram.write(at, &bytes).map_err(|e| UserError(e.to_string()))?;
    }
    machine.world.shared = sbi::shared_words(1);
    let hart: &mut Riscv = &mut machine.vcpus[0].arch;
    sbi::enter(hart, true);
    machine.vcpus[0].core.pc = guest::HYPERVISOR;

    let end = machine.run(10_000_000);
    machine.settle_stats();
    let console = String::from_utf8_lossy(&screen.lock().expect("nobody panics with it")).into_owned();
    let switches = std::mem::take(&mut *switches.0.lock().expect("nobody panics with it"));
    let stats = machine.world.events.stats.clone();
    let mut out = String::new();
    let _ = writeln!(out, "A hypervisor (L1, HS-mode) runs a guest (L2) on Undervisor's H extension.\n");
    for line in console.lines() {
        let _ = writeln!(out, "  | {line}");
    }
    let _ = writeln!(out, "\n{}", timeline(&switches, machine.count()));
    out.push_str(&report::stats_table(&stats, Riscv::reason_name));
    let _ = writeln!(out, "\n{} instructions; the same on every host, and on every run.", machine.retired());
    print(&out)?;
    match end {
        End::PowerOff(0) => Ok(0),
        End::PowerOff(_) => Ok(1),
        other => Err(UserError(format!("the demonstration ended with {other:?}"))),
    }
}

/// Levels over time: a bar, and the first of each kind of switch.
fn timeline(switches: &[(u64, u8, String)], total: u64) -> String {
    const WIDTH: u64 = 96;
    let mut text = String::new();
    for level in [2u8, 1] {
        let _ = write!(text, "L{level} ");
        for column in 0..WIDTH {
            let (from, to) = (total * column / WIDTH, total * (column + 1) / WIDTH);
            // The share of the column that is spent at this level.
            let (mut at, mut now, mut spent) = (0, 1, 0);
            for (count, next, _) in switches.iter().map(|(c, l, r)| (*c, *l, r)).chain([(total, 0, &String::new())]) {
                if now == level {
                    spent += count.min(to).saturating_sub(at.max(from));
                }
                (at, now) = (count, next);
            }
            let share = 4 * spent / (to - from).max(1);
            text.push([' ', '.', ':', '|', '#'][share.min(4) as usize]);
        }
        text.push('\n');
    }
    let _ = writeln!(text, "   0{:>95}\n", format!("{total} ns of virtual time"));
    let mut seen: Vec<(&str, u64, u64)> = Vec::new();
    for (count, level, reason) in switches.iter().filter(|(_, l, _)| *l == 1) {
        let _ = level;
        match seen.iter_mut().find(|(r, ..)| r == reason) {
            Some((.., n)) => *n += 1,
            None => seen.push((reason, *count, 1)),
        }
    }
    text.push_str("exits from L2 to L1                       first at   times\n");
    for (reason, first, n) in seen {
        let _ = writeln!(text, "{reason:36} {first:>13} {n:>7}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        assert_eq!(super::run_riscv().unwrap(), 0);
    }
}
