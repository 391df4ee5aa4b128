//! Messages between APICs ("Issuing Interprocessor Interrupts", "Determining IPI Destination", "Interrupt Acceptance").

use emu_core::bus::VcpuSignal;

use super::{LocalApic, SIPI, base, error, esr, notify, svr, update_ext_int};
use crate::platform::msi::{InterruptMessage, delivery};
use crate::processor::P;

/// `VcpuSignal::Message`: an IPI for this processor. The value: vector, delivery mode in bits 10 to 8, level in bit 15.
pub(crate) const IPI: u32 = 2;
/// `VcpuSignal::Message`: another processor's extension rings for this one's.
pub(crate) const DOORBELL: u32 = 4;

/// What the others know of an APIC: two words of those that all processors share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    id: u32,
    /// LDR.
    logical: u32,
    enabled: bool,
    software_enabled: bool,
    x2apic: bool,
    /// Bits 31 to 28 of DFR: 15 is the flat model, 0 the cluster model.
    model: u8,
    ppr: u8,
}

impl Published {
    fn of(a: &LocalApic) -> Self {
        Published {
            id: a.physical_id(),
            logical: a.logical_id(),
            enabled: a.base & base::EN != 0,
            software_enabled: a.svr & svr::ENABLED != 0,
            x2apic: a.is_x2apic(),
            model: (a.dfr >> 28) as u8,
            ppr: a.ppr(),
        }
    }

    fn pack(self) -> [u64; 2] {
        let flags = 1
            | u64::from(self.enabled) << 1
            | u64::from(self.software_enabled) << 2
            | u64::from(self.x2apic) << 3
            | u64::from(self.model) << 4
            | u64::from(self.ppr) << 8;
        [u64::from(self.id) | u64::from(self.logical) << 32, flags]
    }

    fn unpack([ids, flags]: [u64; 2]) -> Option<Self> {
        (flags & 1 != 0).then_some(Published {
            id: ids as u32,
            logical: (ids >> 32) as u32,
            enabled: flags & 2 != 0,
            software_enabled: flags & 4 != 0,
            x2apic: flags & 8 != 0,
            model: (flags >> 4 & 15) as u8,
            ppr: (flags >> 8) as u8,
        })
    }

    /// "Determining IPI Destination": whether a destination means this APIC. `wide` says that the sender is in x2APIC mode, where a
    /// destination has 32 bits.
    fn is_meant(&self, destination: u32, logical: bool, wide: bool) -> bool {
        if !self.enabled {
            return false;
        }
        if destination == if wide { u32::MAX } else { 0xff } {
            return true;
        }
        match (logical, self.x2apic) {
            (false, _) => destination == self.id,
            // "Logical Destination Mode in x2APIC Mode": cluster and members.
            (true, true) => destination >> 16 == self.logical >> 16 && destination & self.logical & 0xffff != 0,
            (true, false) => {
                let (destination, mine) = (destination as u8, (self.logical >> 24) as u8);
                match self.model {
                    15 => destination & mine != 0,
                    0 => (destination >> 4 == mine >> 4 || destination >> 4 == 15) && destination & mine & 15 != 0,
                    _ => false,
                }
            }
        }
    }
}

/// Tells the others of this APIC.
pub(super) fn publish(h: &mut P) {
    let words = Published::of(&h.arch.apic).pack();
    let at = 2 * h.core.index as usize;
    if h.world.shared.len() < at + 2 {
        h.world.shared.resize(at + 2, 0);
    }
    h.world.shared[at..at + 2].copy_from_slice(&words);
}

/// What is known of the APIC of a processor; one that has not told yet is as at power-up.
fn published(h: &P, vcpu: u32) -> Published {
    if vcpu == h.core.index {
        return Published::of(&h.arch.apic);
    }
    let at = 2 * vcpu as usize;
    let words = h.world.shared.get(at..at + 2).and_then(|w| Published::unpack([w[0], w[1]]));
    words.unwrap_or_else(|| Published::of(&LocalApic::new(vcpu, vcpu == 0)))
}

/// "Lowest Priority Delivery Mode": the processor that takes it.
fn lowest_priority(h: &P, is_meant: impl Fn(&Published) -> bool) -> Option<u32> {
    (0..h.arch.cores.count)
        .filter_map(|vcpu| {
            let p = published(h, vcpu);
            (p.software_enabled && is_meant(&p)).then_some((p.ppr >> 4, vcpu))
        })
        .min()
        .map(|(_, vcpu)| vcpu)
}

/// A message from a device, the IOAPIC or the HPET: takes it, if it is for this processor.
pub(crate) fn accept(h: &mut P, m: InterruptMessage) {
    let is_meant = |p: &Published| p.is_meant(m.destination, m.logical, m.wide);
    if !is_meant(&published(h, h.core.index)) {
        return;
    }
    let is_fixed = matches!(m.delivery, delivery::FIXED | delivery::LOWEST_PRIORITY);
    let is_redirected = m.delivery == delivery::LOWEST_PRIORITY || m.redirection_hint && is_fixed;
    if is_redirected && lowest_priority(h, is_meant) != Some(h.core.index) {
        return;
    }
    receive(h, m.delivery, m.vector, m.level_triggered);
}

/// An IPI that another processor has found this one to be the receiver of.
pub(crate) fn receive_ipi(h: &mut P, value: u64) {
    if h.arch.apic.is_enabled() {
        receive(h, (value >> 8) as u8 & 7, value as u8, value >> 15 & 1 != 0);
    }
}

/// "Interrupt Acceptance", by delivery mode.
pub(super) fn receive(h: &mut P, mode: u8, vector: u8, level: bool) {
    let pending = &mut h.arch.pending;
    match mode {
        delivery::FIXED | delivery::LOWEST_PRIORITY => return accept_vector(h, vector, level),
        delivery::SMI => pending.smi = true,
        delivery::NMI => pending.nmi = true,
        delivery::INIT => (pending.init, pending.sipi) = (true, None),
        SIPI => pending.sipi = Some(vector),
        delivery::EXT_INT => {
            h.arch.apic.ext_int_message = true;
            update_ext_int(h);
        }
        _ => {}
    }
    notify(h);
}

/// "Interrupt Acceptance for Fixed Interrupts".
pub(super) fn accept_vector(h: &mut P, vector: u8, level: bool) {
    if !h.arch.apic.is_software_enabled() {
        return;
    }
    if vector < 16 {
        return error(h, esr::RECEIVE_ILLEGAL);
    }
    h.arch.apic.irr.set(vector, true);
    h.arch.apic.tmr.set(vector, level);
    notify(h);
}

/// Rings for the extension of the processor with this APIC ID.
pub(crate) fn ring(h: &mut P, apic_id: u32) {
    if let Some(vcpu) = (0..h.arch.cores.count).find(|vcpu| published(h, *vcpu).id == apic_id) {
        h.send(vcpu, VcpuSignal::Message { message: DOORBELL, value: 0 });
    }
}

/// A write to the ICR's low half ("Interrupt Command Register (ICR)").
pub(crate) fn send(h: &mut P, command: u32, destination: u32) {
    let (vector, mode) = (command as u8, (command >> 8) as u8 & 7);
    let (logical, assert, level) = (command >> 11 & 1 != 0, command >> 14 & 1 != 0, command >> 15 & 1 != 0);
    let (wide, shorthand) = (h.arch.apic.is_x2apic(), command >> 18 & 3);
    if mode == delivery::INIT && level && !assert {
        return; // "INIT Level De-assert" is of the past
    }
    if matches!(mode, 3 | delivery::EXT_INT) {
        return; // reserved
    }
    let is_fixed = matches!(mode, delivery::FIXED | delivery::LOWEST_PRIORITY);
    if is_fixed && vector < 16 {
        return error(h, esr::SEND_ILLEGAL);
    }
    let me = h.core.index;
    let is_meant = |p: &Published| shorthand != 0 || p.is_meant(destination, logical, wide);
    let targets: Vec<u32> = match (shorthand, mode) {
        // INIT is invalid with this shorthand by the SDM's table, and processors do it; the others are not supported. By the APM's table only
        // fixed interrupts are valid with it, and AMD's processors do the others, too.
        (1, delivery::FIXED | delivery::INIT) => vec![me],
        (1, delivery::NMI | delivery::SMI) if h.arch.model.is_amd() => vec![me],
        (1, _) => vec![],
        (0, delivery::LOWEST_PRIORITY) => lowest_priority(h, is_meant).into_iter().collect(),
        _ => (0..h.arch.cores.count)
            .filter(|vcpu| !(shorthand == 3 && *vcpu == me))
            .filter(|vcpu| {
                let p = published(h, *vcpu);
                p.enabled && is_meant(&p)
            })
            .collect(),
    };
    let value = u64::from(vector) | u64::from(mode) << 8;
    for vcpu in targets {
        if vcpu == me {
            receive(h, mode, vector, false);
        } else {
            h.send(vcpu, VcpuSignal::Message { message: IPI, value });
        }
    }
}
