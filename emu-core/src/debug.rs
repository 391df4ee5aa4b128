//! What a debugger asks of the machine. No byte of the guest is patched: blocks end before a breakpoint, and pages with a
//! watchpoint are not on the fast path.

use std::collections::BTreeSet;

use crate::engine::Intent;

/// A watched range of virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// First virtual address.
    pub va: u64,
    /// Length in bytes.
    pub len: u64,
    /// Loads stop.
    pub on_read: bool,
    /// Stores stop.
    pub on_write: bool,
}

/// A watchpoint that was hit. The access has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchHit {
    /// The watchpoint.
    pub watch: Watch,
    /// Whether a store hit it.
    pub write: bool,
    /// The vCPU.
    pub vcpu: u32,
}

/// Breakpoints and watchpoints.
#[derive(Debug, Default)]
pub struct Debug {
    breakpoints: BTreeSet<u64>,
    watches: Vec<Watch>,
    /// Breakpoints are passed over, for stepping off one.
    pub(crate) passing: bool,
    pub(crate) hit: Option<WatchHit>,
}

impl Debug {
    #[inline]
    pub(crate) fn stops_at(&self, pc: u64) -> bool {
        !self.breakpoints.is_empty() && !self.passing && self.breakpoints.contains(&pc)
    }

    /// Whether a watched range reaches into the page of this virtual address.
    #[inline]
    pub fn watches_page(&self, va: u64) -> bool {
        !self.watches.is_empty()
            && self.watches.iter().any(|w| w.va >> 12 <= va >> 12 && va >> 12 <= (w.va + w.len - 1) >> 12)
    }

    pub(crate) fn accessed(&mut self, va: u64, size: u8, intent: Intent, vcpu: u32) -> bool {
        let write = intent == Intent::Write;
        let hit = self.watches.iter().find(|w| {
            va < w.va.saturating_add(w.len)
                && w.va < va.saturating_add(size.into())
                && if write { w.on_write } else { w.on_read }
        });
        if let Some(watch) = hit {
            self.hit = Some(WatchHit { watch: *watch, write, vcpu });
        }
        hit.is_some()
    }

    pub(crate) fn breakpoints_mut(&mut self) -> &mut BTreeSet<u64> {
        &mut self.breakpoints
    }

    pub(crate) fn watches_mut(&mut self) -> &mut Vec<Watch> {
        &mut self.watches
    }
}
