//! "DMA Remapping", legacy mode: from the requester ID by the root table and a context table to a domain, and by its second-stage tables to
//! memory. Checks stand in the order in which they are made.
//!
//! The specification leaves open what counts first in a second-stage entry that has reserved bits set and denies the access: here the
//! reserved bits, as in processors' paging. A right that is denied ends the walk where it is missing.

use emu_core::device::DeviceCx;
use emu_core::iommu::MasterAccess;

use super::caching::{Translation, domain_of, shift};
use super::fault::{Check, Reason, block_if};
use super::register::*;
use super::{Vtd, is_interrupt_address};

/// "Root Entry", bits 63:0.
mod root {
    pub const P: u64 = 1;
    pub const RESERVED: u64 = 0xffe;
}

/// "Context Entry".
mod context {
    // Bits 63:0.
    pub const P: u64 = 1;
    pub const FPD: u64 = 1 << 1;
    /// Translation type.
    pub const TT: u64 = 3 << 2;
    pub const TRANSLATED: u64 = 0;
    pub const PASS_THROUGH: u64 = 2 << 2;
    pub const RESERVED: u64 = 0xff0;
    // Bits 127:64.
    /// Address width.
    pub const AW: u64 = 7;
    pub const HIGH_RESERVED: u64 = 1 << 7 | 0xffff_ffff_ff00_0000;
}

/// "Second-Stage Paging Entry".
mod page {
    pub const R: u64 = 1;
    pub const W: u64 = 2;
    pub const PS: u64 = 1 << 7;
    pub const SNP: u64 = 1 << 11;
    /// Transient mapping, for device TLBs.
    pub const TM: u64 = 1 << 62;
    pub const ADDRESS: u64 = 0xf_ffff_ffff_f000;
}

const PAGE_OFFSET: u64 = 0xfff;

/// Reads an entry of 16 bytes; both halves at once.
pub(super) fn read_entry(at: u64, cx: &mut DeviceCx) -> Option<[u64; 2]> {
    let mut bytes = [0; 16];
    cx.dma().read(at, &mut bytes).ok()?;
    let entry = u128::from_le_bytes(bytes);
    Some([entry as u64, (entry >> 64) as u64])
}

impl Vtd {
    /// Where an access leads, and how many of its bytes.
    pub(super) fn remap_dma(&mut self, access: MasterAccess, cx: &mut DeviceCx) -> Option<(u64, u64)> {
        if !self.has(GSTS_REG, gcmd::TE) || is_interrupt_address(access.address) {
            return Some((access.address, access.len));
        }
        match self.translated(&access, cx) {
            Ok((address, len)) => Some((address, len.min(access.len))),
            Err(blocked) => {
                self.report(blocked, access.requester, access.address, !access.writes, cx);
                None
            }
        }
    }

    fn translated(&mut self, access: &MasterAccess, cx: &mut DeviceCx) -> Check<(u64, u64)> {
        let entry = self.context(access.requester, cx)?;
        let disabled = entry[0] & context::FPD != 0;
        let levels = (entry[1] & context::AW) as u8 + 2;
        let width = (shift(levels) + 9).min(MAX_GUEST_ADDRESS_WIDTH);
        let passes = entry[0] & context::TT == context::PASS_THROUGH;
        let beyond = access.address >> if passes { MAX_GUEST_ADDRESS_WIDTH } else { width };
        block_if(beyond != 0, Reason::AddressBeyondWidth.blocks_unless(disabled))?;
        if passes {
            return Ok((access.address, (PAGE_OFFSET + 1) - (access.address & PAGE_OFFSET)));
        }
        let domain = domain_of(&entry);
        let t = match self.state.caches.translation(domain, access.address) {
            Some(t) => t,
            None => {
                self.counts.walks += 1;
                let t = self.walk(entry[0] & !PAGE_OFFSET, levels, access, disabled, cx)?;
                self.state.caches.keep_translation(domain, access.address, t);
                t
            }
        };
        denied_if(if access.writes { !t.writes } else { !t.reads }, access, disabled)?;
        let offset = access.address & (t.size() - 1);
        Ok((t.page + offset, t.size() - offset))
    }

    /// "Legacy Mode Address Translation": the context entry of a source.
    fn context(&mut self, requester: u16, cx: &mut DeviceCx) -> Check<[u64; 2]> {
        if let Some(entry) = self.state.caches.contexts.get(&requester) {
            return valid_context(*entry);
        }
        let entry = self.context_in_memory(requester, cx)?;
        let valid = valid_context(entry);
        if valid.is_ok() || self.config.caching_mode {
            self.state.caches.contexts.insert(requester, entry);
        }
        valid
    }

    fn context_in_memory(&self, requester: u16, cx: &mut DeviceCx) -> Check<[u64; 2]> {
        let [bus, function] = requester.to_be_bytes().map(u64::from);
        let root = read_entry(self.state.root_table + 16 * bus, cx).ok_or(Reason::RootTableAccess.blocks())?;
        block_if(root[0] & root::P == 0, Reason::RootNotPresent.blocks())?;
        let reserved = root[0] & (root::RESERVED | beyond_host_addresses()) | root[1];
        block_if(reserved != 0, Reason::RootReserved.blocks())?;
        let at = (root[0] & !PAGE_OFFSET) + 16 * function;
        read_entry(at, cx).ok_or(Reason::ContextTableAccess.blocks())
    }

    /// "Second-Stage Translation": from the table of the highest level to a page.
    fn walk(
        &self,
        mut table: u64,
        levels: u8,
        access: &MasterAccess,
        disabled: bool,
        cx: &mut DeviceCx,
    ) -> Check<Translation> {
        let mut rights = page::R | page::W;
        let needed = if access.writes { page::W } else { page::R };
        let mut level = levels;
        loop {
            let at = table + 8 * (access.address >> shift(level) & 0x1ff);
            let entry = cx.dma().load(at, 8).map_err(|_| Reason::PageTableAccess.blocks_unless(disabled))?;
            let is_present = entry & (page::R | page::W) != 0;
            if !is_present && self.config.caching_mode {
                return Ok(Translation { page: 0, level: 1, reads: false, writes: false });
            }
            denied_if(!is_present, access, disabled)?;
            let is_page = level == 1 || entry & page::PS != 0;
            let reserved = entry & reserved_bits(level, is_page);
            block_if(reserved != 0, Reason::PageTableReserved.blocks_unless(disabled))?;
            rights &= entry;
            denied_if(rights & needed == 0, access, disabled)?;
            table = entry & page::ADDRESS;
            if is_page {
                let (reads, writes) = (rights & page::R != 0, rights & page::W != 0);
                return Ok(Translation { page: table, level, reads, writes });
            }
            level -= 1;
        }
    }
}

/// A context entry without a fault.
fn valid_context(entry: [u64; 2]) -> Check<[u64; 2]> {
    let disabled = entry[0] & context::FPD != 0;
    block_if(entry[0] & context::P == 0, Reason::ContextNotPresent.blocks_unless(disabled))?;
    let kind = entry[0] & context::TT;
    // Who passes through has no table.
    let address = if kind == context::PASS_THROUGH { 0 } else { beyond_host_addresses() };
    let reserved = entry[0] & (context::RESERVED | address) | entry[1] & context::HIGH_RESERVED;
    block_if(reserved != 0, Reason::ContextReserved.blocks_unless(disabled))?;
    let has_type = matches!(kind, context::TRANSLATED | context::PASS_THROUGH);
    let has_width = matches!(entry[1] & context::AW, 1..=3);
    block_if(!has_type || !has_width, Reason::InvalidContext.blocks_unless(disabled))?;
    Ok(entry)
}

fn denied_if(denied: bool, access: &MasterAccess, disabled: bool) -> Check {
    let reason = if access.writes { Reason::WriteDenied } else { Reason::ReadDenied };
    block_if(denied, reason.blocks_unless(disabled))
}

/// Bits of an entry that have to be 0.
fn reserved_bits(level: u8, is_page: bool) -> u64 {
    let always = page::TM | beyond_host_addresses() & page::ADDRESS;
    match (is_page, level) {
        (true, 1) => always,
        (true, 2 | 3) => always | page::ADDRESS & ((1 << shift(level)) - 1),
        // There are no larger pages.
        (true, _) => always | page::PS,
        (false, _) => always | page::SNP,
    }
}
