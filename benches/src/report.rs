//! The tables: ratios, and whether targets are met, are computed here and nowhere typed.

use crate::memory::Used;

/// Who else runs the same guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// QEMU with its plain CPU, and H.
    Rv64,
    /// QEMU with all extensions.
    Max,
    /// Spike.
    Spike,
    /// QEMU's PC, with all that it has.
    QemuPc,
    /// Bochs.
    Bochs,
    /// Ourselves: the same work without a hypervisor. It has no column.
    Alone,
}

impl Peer {
    /// Those of RISC-V, in the order of the table's columns.
    pub const RISCV: &[Peer] = &[Peer::Rv64, Peer::Max, Peer::Spike];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Peer::Rv64 => "QEMU rv64",
            Peer::Max => "QEMU max",
            Peer::Spike => "Spike",
            Peer::QemuPc => "QEMU max",
            Peer::Bochs => "Bochs",
            Peer::Alone => "the same without a hypervisor",
        }
    }
}

/// So many times as fast as a peer.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub peer: Peer,
    pub times: f64,
}

/// What some runs of the same took.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// CPU time of the fastest.
    pub seconds: f64,
    /// CPU time of the slowest.
    pub slowest: f64,
    /// Peak resident memory in MiB.
    pub memory: f64,
}

impl Run {
    /// Without the time of another that did nothing of the work.
    pub fn without(self, nothing: &Run) -> Run {
        Run { seconds: self.seconds - nothing.seconds, slowest: self.slowest - nothing.seconds, ..self }
    }
}

/// A run, or why there is none.
pub type Measured = Result<Run, String>;

/// What a row counts.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// So much work, and what it is a second.
    Rate(f64, &'static str),
    /// CPU time itself.
    Seconds,
}

/// A line of the table of speeds.
pub struct Row<'a> {
    pub name: &'a str,
    pub unit: Unit,
    pub ours: Measured,
    /// In the order of the table's columns; [`Peer::Alone`] may come behind.
    pub peers: Vec<(Peer, Measured)>,
    pub targets: &'a [Target],
}

/// The head of the table of speeds.
pub fn print_head(peers: &[Peer]) {
    print!("| work | unit | Undervisor |");
    peers.iter().for_each(|p| print!(" {} | ratio |", p.name()));
    println!(" target |\n|---|---|---|{}---|", "---|---|".repeat(peers.len()));
}

impl Row<'_> {
    /// Prints it.
    pub fn print(&self) {
        print!("| {} | {} | {} |", self.name, self.unit(), self.figure(&self.ours));
        for (peer, theirs) in self.peers.iter().filter(|(peer, _)| *peer != Peer::Alone) {
            let ratio = self.ratio(*peer).map_or(String::new(), |r| format!("{r:.2}"));
            print!(" {} | {ratio} |", self.figure(theirs));
        }
        let targets: Vec<_> = self.targets.iter().map(|t| self.verdict(t)).collect();
        println!(" {} |", targets.join("; "));
    }

    fn unit(&self) -> &str {
        match self.unit {
            Unit::Rate(_, name) => name,
            Unit::Seconds => "CPU time",
        }
    }

    /// The fastest run's figure, and the slowest one's where it differs by more than a tenth.
    fn figure(&self, run: &Measured) -> String {
        let run = match run {
            Ok(run) => run,
            Err(why) => return why.clone(),
        };
        let figure = |seconds| match self.unit {
            Unit::Rate(work, _) => grouped(work / seconds),
            Unit::Seconds => format!("{seconds:.2} s"),
        };
        match run.slowest > run.seconds * 1.1 {
            true => format!("{} (slowest {})", figure(run.seconds), figure(run.slowest)),
            false => figure(run.seconds),
        }
    }

    /// How many times as fast we are.
    fn ratio(&self, peer: Peer) -> Option<f64> {
        let theirs = &self.peers.iter().find(|(p, _)| *p == peer)?.1;
        let (ours, theirs) = (self.ours.as_ref().ok()?, theirs.as_ref().ok()?);
        Some(theirs.seconds / ours.seconds)
    }

    fn verdict(&self, target: &Target) -> String {
        let word = match self.ratio(target.peer) {
            Some(ratio) if ratio >= target.times => "met",
            Some(_) => "missed",
            None => "not compared",
        };
        format!("{:.2} of {}: {word}", target.times, target.peer.name())
    }
}

/// A number with its thousands apart, or with its fraction where it is small.
fn grouped(x: f64) -> String {
    if x < 100.0 {
        return format!("{x:.1}");
    }
    let digits = format!("{x:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a process may take beyond the pages that its guest has touched, in MiB.
const ROOM: f64 = 100.0;

/// The head of the table of memory.
pub fn print_memory_head() {
    println!("\n| work, in MiB | guest pages not zero at the end | guest pages touched | peak RSS | target |");
    println!("|---|---|---|---|---|");
}

/// A line of the table of memory.
pub fn print_memory(name: &str, used: &Used, run: &Run) {
    let limit = used.given + ROOM;
    let word = if run.memory <= limit { "met" } else { "missed" };
    let Used { not_zero, given } = used;
    println!("| {name} | {not_zero:.0} | {given:.0} | {:.0} | at most {limit:.0}: {word} |", run.memory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_ratio() {
        let run = |seconds| Ok(Run { seconds, slowest: seconds, memory: 1.0 });
        let row = Row {
            name: "work",
            unit: Unit::Rate(1e6, "turns/s"),
            ours: run(1.0),
            peers: vec![(Peer::Rv64, run(8.0)), (Peer::Max, run(7.9)), (Peer::Spike, Err("skipped".into()))],
            targets: &[],
        };
        let verdict = |peer| row.verdict(&Target { peer, times: 8.0 });
        assert_eq!(verdict(Peer::Rv64), "8.00 of QEMU rv64: met");
        assert_eq!(verdict(Peer::Max), "8.00 of QEMU max: missed");
        assert_eq!(verdict(Peer::Spike), "8.00 of Spike: not compared");
        assert_eq!(row.figure(&row.ours), "1,000,000");
        assert_eq!(row.figure(&Ok(Run { seconds: 1.0, slowest: 2.0, memory: 1.0 })), "1,000,000 (slowest 500,000)");
    }
}
