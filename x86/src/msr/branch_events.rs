//! Events of performance counters that are about branches (SDM vol. 3B, "Pre-defined Architectural Performance Events", and Intel's event
//! list of the 4th Gen Xeon Scalable processors, BR_INST_RETIRED and BR_MISP_RETIRED; PPR, "Performance Monitor Counters", PMCx0C2 to PMCx1C9).
//!
//! Which branches are predicted wrongly, [`predictor`](crate::predictor) says. AMD's "retired branch instructions" include interrupts and
//! exceptions, Intel's do not.

use serde::{Deserialize, Serialize};

use crate::branch::{Branch, Kind};

/// What branches an event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BranchEvent {
    /// A bit for each kind.
    kinds: u8,
    /// Taken ones, or those that are not.
    taken: Option<bool>,
    /// Only those that were predicted wrongly.
    mispredicted: bool,
}

const fn kinds(of: &[Kind]) -> u8 {
    let (mut bits, mut i) = (0, 0);
    while i < of.len() {
        bits |= 1 << of[i] as u8;
        i += 1;
    }
    bits
}

const ALL: u8 = 0xff;
const INSTRUCTIONS: u8 = ALL & !kinds(&[Kind::Event]);
const CONDITIONAL: u8 = kinds(&[Kind::Conditional]);
const INDIRECT: u8 = kinds(&[Kind::IndirectJump, Kind::IndirectCall]);
const CALLS: u8 = kinds(&[Kind::RelativeCall, Kind::IndirectCall]);
const RETURNS: u8 = kinds(&[Kind::Return]);
const FAR: u8 = kinds(&[Kind::Far]);
const FAR_AND_EVENTS: u8 = kinds(&[Kind::Far, Kind::Event]);
const NEAR: u8 = !FAR_AND_EVENTS;

const fn any(kinds: u8) -> BranchEvent {
    BranchEvent { kinds, taken: None, mispredicted: false }
}

const fn taken(kinds: u8) -> BranchEvent {
    BranchEvent { kinds, taken: Some(true), mispredicted: false }
}

const fn not_taken(kinds: u8) -> BranchEvent {
    BranchEvent { kinds, taken: Some(false), mispredicted: false }
}

const fn wrong(of: BranchEvent) -> BranchEvent {
    BranchEvent { mispredicted: true, ..of }
}

/// Unit mask and event.
const INTEL: &[(u16, BranchEvent)] = &[
    (0x00c4, any(INSTRUCTIONS)), // Branch Instruction Retired
    (0x01c4, taken(CONDITIONAL)),
    (0x02c4, any(CALLS)),
    (0x08c4, any(RETURNS)),
    (0x10c4, not_taken(CONDITIONAL)),
    (0x11c4, any(CONDITIONAL)),
    (0x20c4, taken(NEAR)),
    (0x40c4, any(FAR)),
    (0x80c4, any(INDIRECT)),
    (0x00c5, wrong(any(INSTRUCTIONS))), // Branch Misses Retired
    (0x01c5, wrong(taken(CONDITIONAL))),
    (0x02c5, wrong(any(kinds(&[Kind::IndirectCall])))),
    (0x08c5, wrong(any(RETURNS))),
    (0x10c5, wrong(not_taken(CONDITIONAL))),
    (0x11c5, wrong(any(CONDITIONAL))),
    (0x20c5, wrong(taken(NEAR))),
    (0x80c5, wrong(any(INDIRECT))),
];

/// EventSelect.
const AMD: &[(u16, BranchEvent)] = &[
    (0x0c2, any(ALL)),
    (0x0c3, wrong(any(ALL))),
    (0x0c4, taken(ALL)),
    (0x0c5, wrong(taken(ALL))),
    (0x0c6, any(FAR_AND_EVENTS)),
    (0x0c8, any(RETURNS)),
    (0x0c9, wrong(any(RETURNS))),
    (0x0ca, wrong(any(INDIRECT))),
    (0x0cc, any(INDIRECT)),
    (0x0d1, any(CONDITIONAL)),
    (0x1c7, wrong(any(CONDITIONAL))),
    (0x1c8, wrong(any(NEAR & !CONDITIONAL))),
    (0x1c9, any(NEAR & !CONDITIONAL)),
];

/// The event of this number, if it is about branches.
pub(super) fn find(is_intel: bool, number: u16) -> Option<BranchEvent> {
    let events = if is_intel { INTEL } else { AMD };
    events.iter().find(|(n, _)| *n == number).map(|(_, event)| *event)
}

impl BranchEvent {
    /// Whether it counts a branch.
    pub(super) fn counts(self, b: &Branch) -> bool {
        self.kinds >> b.kind as u8 & 1 != 0
            && self.taken.is_none_or(|taken| taken == b.taken)
            && (b.mispredicted || !self.mispredicted)
    }
}
