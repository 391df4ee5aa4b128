//! What `--report` gathers while the machine runs: levels over time, and where guests are left. All of bounded size, however long the run is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use emu_core::event::{Event, Kind, LEVELS, Sink, level_name};
use serde_json::{Value, json};

use crate::disas;

/// The time that has passed is divided into at most so many columns.
const COLUMNS: usize = 720;
/// So many places are remembered; if there are more, the rarer half is forgotten.
const SITES: usize = 1 << 16;
/// So many are told.
const TOLD: usize = 50;

/// A column: how long a vCPU was at each level, in instructions of the machine's clock; and how often a guest was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Column {
    at: [u64; LEVELS],
    exits: u64,
}

/// Levels of one vCPU over time.
#[derive(Debug)]
struct Track {
    level: u8,
    since: u64,
    columns: Vec<Column>,
    /// The trap that may turn out to leave the guest: where, and its name.
    trap: (u64, String),
}

/// A place where guests are left, for one reason.
#[derive(Debug)]
struct Site {
    reason: String,
    insn: String,
    times: u64,
}

/// What has been gathered.
#[derive(Debug)]
pub struct Timeline {
    /// The count that it begins at, and instructions of the machine's clock before its last reset.
    begins: u64,
    before: u64,
    /// Instructions of a column.
    width: u64,
    tracks: Vec<Track>,
    /// By level and program counter.
    sites: BTreeMap<(u8, u64), Vec<Site>>,
    held: usize,
    forgotten: u64,
}

impl Timeline {
    /// Begins at a count of the machine's clock, with vCPUs at these levels.
    fn new(begins: u64, levels: impl Iterator<Item = u8>) -> Self {
        let track = |level| Track { level, since: 0, columns: Vec::new(), trap: (0, String::new()) };
        let tracks = levels.map(track).collect();
        Timeline { begins, before: 0, width: 1, tracks, sites: BTreeMap::new(), held: 0, forgotten: 0 }
    }

    /// Columns become as wide as the time until `end` needs.
    fn widen(&mut self, end: u64) {
        while end.div_ceil(self.width) > COLUMNS as u64 {
            self.width *= 2;
            for track in &mut self.tracks {
                let merged = track.columns.chunks(2).map(|pair| {
                    let mut sum = pair[0];
                    for other in &pair[1..] {
                        sum.at.iter_mut().zip(other.at).for_each(|(a, b)| *a += b);
                        sum.exits += other.exits;
                    }
                    sum
                });
                track.columns = merged.collect();
            }
        }
    }

    /// The vCPU has been at its level until `now`, and is at `level` from then on.
    fn goes(&mut self, vcpu: usize, now: u64, level: u8) {
        self.widen(now + 1);
        let width = self.width;
        let Some(track) = self.tracks.get_mut(vcpu) else { return };
        let last = (now / width) as usize;
        track.columns.resize(track.columns.len().max(last + 1), Column::default());
        let was = usize::from(track.level).min(LEVELS - 1);
        let mut at = track.since;
        while at < now {
            let column = at / width;
            let until = now.min((column + 1) * width);
            track.columns[column as usize].at[was] += until - at;
            at = until;
        }
        (track.since, track.level) = (track.since.max(now), level);
    }

    fn leaves(&mut self, vcpu: usize, now: u64, site: (u8, u64), reason: &str, insn: impl FnOnce() -> String) {
        self.widen(now + 1);
        let column = (now / self.width) as usize;
        if let Some(track) = self.tracks.get_mut(vcpu) {
            track.columns.resize(track.columns.len().max(column + 1), Column::default());
            track.columns[column].exits += 1;
        }
        let here = self.sites.entry(site).or_default();
        if let Some(site) = here.iter_mut().find(|s| s.reason == reason) {
            site.times += 1;
            return;
        }
        here.push(Site { reason: reason.to_owned(), insn: insn(), times: 1 });
        self.held += 1;
        if self.held > SITES {
            self.forget();
        }
    }

    /// Forgets the rarer half of the places.
    fn forget(&mut self) {
        let mut times: Vec<u64> = self.sites.values().flatten().map(|s| s.times).collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        for sites in self.sites.values_mut() {
            sites.retain(|s| s.times > median);
        }
        self.sites.retain(|_, sites| !sites.is_empty());
        let held = self.sites.values().map(Vec::len).sum();
        self.forgotten += (self.held - held) as u64;
        self.held = held;
    }

    fn event(&mut self, event: &Event) {
        let now = (self.before + event.count).saturating_sub(self.begins);
        let vcpu = event.vcpu as usize;
        match event.kind {
            Kind::Trap | Kind::Interrupt => {
                if let Some(track) = self.tracks.get_mut(vcpu) {
                    track.trap = (event.pc, event.name.to_owned());
                }
            }
            Kind::Exit => {
                let insn = || event.code.as_ref().map_or_else(String::new, disas::code);
                self.leaves(vcpu, now, (event.level, event.pc), event.name, insn);
            }
            // A trap that is taken at another level comes before the switch to that.
            Kind::Switch if event.to.is_some_and(|to| to < event.level) => {
                let trap = self.tracks.get_mut(vcpu).map(|t| std::mem::take(&mut t.trap)).unwrap_or_default();
                self.leaves(vcpu, now, (event.level, trap.0), &trap.1, String::new);
            }
            _ => {}
        }
        if let Some(to) = event.to {
            self.goes(vcpu, now, to);
        }
    }

    /// The machine starts anew after so many instructions of its clock, at level 1.
    pub fn reset(&mut self, count: u64) {
        self.end(count, |_| 1);
        self.before += count;
    }

    /// The clock has come to `count`.
    fn end(&mut self, count: u64, level: impl Fn(&Track) -> u8) {
        let now = (self.before + count).saturating_sub(self.begins);
        for vcpu in 0..self.tracks.len() {
            let level = level(&self.tracks[vcpu]);
            self.goes(vcpu, now, level);
        }
    }

    /// All of it, for the page: shares of columns in thousandths.
    pub fn json(&mut self, count: u64) -> Value {
        self.end(count, |track| track.level);
        let length = (self.before + count).saturating_sub(self.begins);
        let share = |n: u64| (n * 1000).div_ceil(self.width);
        let columns = length.div_ceil(self.width) as usize;
        let tracks = self.tracks.iter().map(|track| {
            let columns = || (0..columns).map(|i| track.columns.get(i).copied().unwrap_or_default());
            let levels = (1..LEVELS).filter(|l| columns().any(|c| c.at[*l] != 0)).map(|level| {
                let at: Vec<_> = columns().map(|c| share(c.at[level])).collect();
                json!({ "level": level, "at": at })
            });
            let exits: Vec<_> = columns().map(|c| c.exits).collect();
            json!({ "levels": levels.collect::<Vec<_>>(), "exits": exits })
        });
        let tracks: Vec<_> = tracks.collect();
        let mut sites: Vec<_> = self.sites.iter().flat_map(|(at, sites)| sites.iter().map(move |s| (at, s))).collect();
        sites.sort_by_key(|(at, site)| (u64::MAX - site.times, **at, &site.reason));
        let told = sites.iter().take(TOLD).map(|((level, pc), site)| {
            json!({
                "level": level_name(*level), "pc": format!("{pc:#x}"), "insn": site.insn, "reason": site.reason,
                "count": site.times,
            })
        });
        let told: Vec<_> = told.collect();
        json!({
            "begins": self.begins, "length": length, "width": self.width, "tracks": tracks,
            "sites": told, "sites_held": sites.len(), "sites_forgotten": self.forgotten,
        })
    }
}

/// Somebody who gathers it. Others may look at it, too.
#[derive(Clone)]
pub struct Gatherer(Arc<Mutex<Timeline>>);

impl Gatherer {
    /// Begins at a count of the machine's clock, with vCPUs at these levels.
    pub fn new(begins: u64, levels: impl Iterator<Item = u8>) -> Self {
        Gatherer(Arc::new(Mutex::new(Timeline::new(begins, levels))))
    }

    /// What has been gathered.
    pub fn lock(&self) -> MutexGuard<'_, Timeline> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl Sink for Gatherer {
    fn event(&mut self, event: &Event) {
        self.lock().event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(count: u64, kind: Kind, level: u8, to: u8) -> Event<'static> {
        let (details, words) = (&[][..], &[][..]);
        Event { count, vcpu: 0, level, pc: count % 7, kind, name: "x", details, words, to: Some(to), code: None }
    }

    #[test]
    fn time_is_neither_lost_nor_made() {
        let mut t = Timeline::new(0, [1].into_iter());
        let mut expected = [0; LEVELS];
        let (mut now, mut level) = (0, 1);
        for i in 0..20_000 {
            let length = 1 + i % 97;
            expected[usize::from(level)] += length;
            now += length;
            let to = if level == 1 { 2 + u8::from(i % 5 == 0) } else { 1 };
            t.event(&event(now, if to == 1 { Kind::Exit } else { Kind::Entry }, level, to));
            level = to;
        }
        expected[usize::from(level)] += 10;
        t.end(now + 10, |track| track.level);
        let columns = &t.tracks[0].columns;
        let sum = |level: usize| columns.iter().map(|c| c.at[level]).sum::<u64>();
        assert_eq!([0, 1, 2, 3, 4, 5].map(sum), expected);
        assert!(
            columns.len() <= COLUMNS
                && columns[..columns.len() - 1].iter().all(|c| c.at.iter().sum::<u64>() == t.width)
        );
        assert_eq!(columns.iter().map(|c| c.exits).sum::<u64>(), 10_000);
    }

    #[test]
    fn rare_places_are_forgotten_and_frequent_ones_are_not() {
        let mut t = Timeline::new(0, [2].into_iter());
        for i in 0..3 * SITES as u64 {
            t.leaves(0, 0, (2, 1 << 40), "frequent", String::new);
            t.leaves(0, 0, (2, i), "rare", String::new);
        }
        let json = t.json(1);
        assert_eq!(
            (&json["sites"][0]["reason"], &json["sites"][0]["count"]),
            (&"frequent".into(), &(3 * SITES).into())
        );
        assert!(t.held <= SITES && t.forgotten > SITES as u64);
    }
}
