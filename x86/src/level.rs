//! At which level a guest is. Whether a hypervisor or its guest is at work is exact: levels 1 and 2. What of the guests is a guest's guest is inferred
//! (docs/design.md, decision 10), from what can be seen of the hypervisor: a guest exits by an instruction that enters guests (VMLAUNCH, VMRESUME,
//! VMRUN), and then its hypervisor enters by a VMCS or VMCB that has never been entered before. That is one level deeper, from then on; KVM calls it
//! vmcs02 or vmcb02. So is one that has been entered before, without having been asked for, if it answers the same guest twice running: it may be
//! known from another processor. A hypervisor that has but one VMCS enters that with other tables, and not behind the instruction; it comes back
//! with the first tables.
//!
//! A guest of a guest's guest, whose hypervisor's hypervisor has one VMCS for all below itself, cannot be told from its hypervisor.
//! No instruction depends on any of this. Extensions keep the level of each VMCS or VMCB, where no software may look.

use emu_core::event::{LAST_EXACT, LEVELS};
use serde::{Deserialize, Serialize};

/// A guest, by what it is run by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Where its VMCS or VMCB is.
    pub by: u64,
    /// EPTP or N_CR3, if there is a second stage.
    pub tables: Option<u64>,
    /// Where it goes on.
    pub rip: u64,
}

/// A guest has asked for an entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    guest: Guest,
    level: u8,
    /// What is behind the instruction.
    next_rip: u64,
    /// Something has been entered since.
    is_old: bool,
}

/// What a processor knows of levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// Of the guest at work.
    present: u8,
    /// A guest has asked, and has not been answered yet.
    asked: Option<Asked>,
    /// Who has asked, and what was entered then, though it was no deeper as far as was known.
    answer: Option<(u64, u64)>,
    /// This VMCS serves a guest's guest, in the place of the guest with these tables.
    within: Option<(u64, Option<u64>)>,
}

fn deeper(level: u8) -> u8 {
    (level + 1).min(LEVELS as u8 - 1)
}

impl Levels {
    /// The level at work, if a guest is.
    pub fn present(&self) -> u8 {
        self.present.max(LAST_EXACT)
    }

    /// A guest is left, because it asks for an entry.
    #[cold]
    pub fn asks(&mut self, guest: Guest, next_rip: u64) {
        self.asked = Some(Asked { guest, level: self.present(), next_rip, is_old: false });
    }

    /// A guest is entered, by what has this level, or 0 if it has never been entered; the level that it has from now on.
    #[inline]
    pub fn enters(&mut self, known: u8, guest: impl FnOnce() -> Guest) -> u8 {
        if known != 0 && self.asked.is_none() && self.within.is_none() {
            self.present = known;
            return known;
        }
        self.infer(known, guest())
    }

    #[cold]
    fn infer(&mut self, known: u8, g: Guest) -> u8 {
        let mut level = known;
        if let Some(a) = &mut self.asked {
            let is_its_own = a.guest.by == g.by;
            let again = !is_its_own && !a.is_old && self.answer == Some((a.guest.by, g.by));
            if !is_its_own && (known == 0 || again) {
                level = deeper(a.level);
            } else if is_its_own && g.tables.is_some() && a.guest.tables != g.tables {
                let is_refused = [a.guest.rip, a.next_rip].contains(&g.rip);
                if !is_refused {
                    self.within.get_or_insert((g.by, a.guest.tables));
                }
            }
            if !a.is_old {
                self.answer = (!is_its_own && level <= a.level).then_some((a.guest.by, g.by));
                a.is_old = true;
            }
            if is_its_own || level > a.level {
                self.asked = None;
            }
        }
        let level = level.max(LAST_EXACT);
        // It is back.
        self.within.take_if(|(of, first)| *of == g.by && *first == g.tables);
        let is_within = self.within.is_some_and(|(of, _)| of == g.by);
        self.present = if is_within { deeper(level) } else { level };
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor, and the levels of what it enters by.
    #[derive(Default)]
    struct Rig {
        levels: Levels,
        of: [u8; 4],
        last: Option<Guest>,
    }

    impl Rig {
        /// Enters by this at a RIP with these tables; the level.
        fn enter(&mut self, n: usize, rip: u64, tables: u64) -> u8 {
            let guest = Guest { by: n as u64, tables: Some(tables), rip };
            self.last = Some(guest);
            self.of[n] = self.levels.enters(self.of[n], || guest);
            self.levels.present()
        }

        /// The last guest exits by VMRUN or its like.
        fn ask(&mut self) {
            let guest = self.last.unwrap();
            self.levels.asks(guest, guest.rip + 3);
        }
    }

    #[test]
    fn what_is_asked_for_is_a_guests_guest() {
        let mut r = Rig::default();
        assert_eq!(r.enter(0, 0x100, 1), 2);
        r.ask();
        assert_eq!(r.enter(1, 0x200, 2), 3);
        assert_eq!(r.enter(1, 0x202, 2), 3, "its hypervisor's hypervisor acts for it");
        assert_eq!(r.enter(2, 0x300, 3), 2, "another guest, which nobody has asked for");
        assert_eq!((r.enter(0, 0x103, 1), r.enter(1, 0x204, 2)), (2, 3));
        // One that is refused: the guest goes on behind it.
        assert_eq!(r.enter(0, 0x103, 1), 2);
        r.ask();
        assert_eq!((r.enter(0, 0x106, 1), r.enter(3, 0x400, 4)), (2, 2));
        // A guest's guest may have one.
        assert_eq!(r.enter(1, 0x208, 2), 3);
        r.ask();
        r.of[3] = 0;
        assert_eq!(r.enter(3, 0x500, 5), 4);
    }

    #[test]
    fn so_are_other_tables_elsewhere() {
        let mut r = Rig::default();
        assert_eq!(r.enter(0, 0x100, 1), 2);
        r.ask();
        assert_eq!(r.enter(0, 0x103, 5), 2, "behind the instruction: tables were made anew");
        r.ask();
        assert_eq!(r.enter(0, 0x200, 2), 3);
        assert_eq!(r.enter(0, 0x200, 2), 3);
        assert_eq!(r.enter(0, 0x106, 5), 2, "it is back");
        r.ask();
        assert_eq!(r.enter(0, 0x201, 2), 3);
    }

    #[test]
    fn and_what_answers_twice() {
        let mut r = Rig::default();
        assert_eq!((r.enter(0, 0x100, 1), r.enter(1, 0x200, 2)), (2, 2));
        assert_eq!(r.enter(0, 0x100, 1), 2);
        r.ask();
        assert_eq!((r.enter(1, 0x200, 2), r.enter(0, 0x104, 1)), (2, 2), "it may be another guest that has its turn");
        r.ask();
        assert_eq!(r.enter(1, 0x208, 2), 3);
        assert_eq!((r.enter(0, 0x108, 1), r.enter(1, 0x208, 2)), (2, 3));
        // Another one in between, behind a guest that has asked: its turn.
        r.of[2] = 2;
        assert_eq!(r.enter(0, 0x108, 1), 2);
        r.ask();
        assert_eq!((r.enter(2, 0x300, 3), r.enter(1, 0x20c, 2), r.enter(2, 0x304, 3)), (2, 3, 2));
    }
}
