//! "#VMEXIT".

pub mod code;
mod decoded;
mod host;
mod save;

use emu_core::engine::Stop;
use x86::extension::{Delivery, Origin, moved};
use x86::model::Feature;
use x86::processor::{P, ProcessorExt};

use crate::svm::Svm;
use crate::vmcb::*;
pub(crate) use decoded::Decoded;
pub(crate) use host::BRANCHES;
pub(crate) use save::save_more;

/// Bit 31 of EVENTINJ and EXITINTINFO: valid.
pub const VALID: u64 = 1 << 31;
/// Bit 11: there is an error code.
pub const HAS_ERROR: u64 = 1 << 11;

/// What a #VMEXIT tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// EXITCODE: one of [`code`].
    pub code: u64,
    /// EXITINFO1.
    pub info_1: u64,
    /// EXITINFO2.
    pub info_2: u64,
    /// It is of the instruction at RIP: nRIP is behind that.
    pub is_of_instruction: bool,
    /// The instruction's bytes, as far as they are told.
    pub bytes: Vec<u8>,
}

impl Exit {
    /// One with nothing more to say.
    pub fn of(code: u64) -> Self {
        Exit { code, info_1: 0, info_2: 0, is_of_instruction: false, bytes: Vec::new() }
    }

    /// One of the instruction at RIP.
    pub fn instruction(code: u64) -> Self {
        Exit { is_of_instruction: true, ..Exit::of(code) }
    }
}

/// EXITINTINFO for an event in whose delivery the #VMEXIT comes.
fn interrupted(d: Delivery) -> u64 {
    let kind = match d.origin {
        Origin::External => 0,
        Origin::Nmi => 2,
        Origin::SoftwareInterrupt => 4,
        _ => 3,
    };
    let error = d.error.map_or(0, |e| HAS_ERROR | u64::from(e) << 32);
    u64::from(d.vector) | kind << 8 | error | VALID
}

impl Svm {
    /// Leaves the guest.
    pub(crate) fn exit(&mut self, h: &mut P, e: Exit) -> Stop {
        let delivering = h.arch.delivering.take();
        self.record(h, &e, delivering);
        self.save_guest(h);
        self.note_exit(h, &e);
        if let Some(pa) = self.held.present() {
            self.vmcb.store(h, pa);
        }
        let stop = self.return_to_host(h);
        if e.is_of_instruction {
            // The instruction's time is the host's, and it has not retired.
            x86::msr::not_retired(h);
        }
        stop
    }

    /// What every #VMEXIT ends with.
    pub(crate) fn return_to_host(&mut self, h: &mut P) -> Stop {
        self.trap = None;
        self.end_avic();
        if self.in_guest {
            x86::msr::world_changes(h, false);
        }
        self.in_guest = false;
        self.gif = false;
        match self.load_host(h) {
            Ok(()) => moved(),
            Err(stop) => stop,
        }
    }

    fn record(&mut self, h: &P, e: &Exit, delivering: Option<Delivery>) {
        let next = if e.is_of_instruction && self.has(Feature::NripSave) { h.ip(h.core.next_pc) } else { 0 };
        let v = &mut self.vmcb;
        v.set(EXITCODE, e.code);
        v.set(EXITINFO1, e.info_1);
        v.set(EXITINFO2, e.info_2);
        v.set(EXITINTINFO, delivering.filter(|_| e.code != code::SHUTDOWN).map_or(0, interrupted));
        v.set(EVENTINJ, v.get(EVENTINJ) & !VALID);
        v.set(NRIP, next);
        v.set(FETCHED_BYTES, e.bytes.len() as u64);
        if !e.bytes.is_empty() {
            let byte = |i: usize| e.bytes.get(i).copied().unwrap_or(0);
            v.set(GUEST_INSTRUCTION_BYTES_LOW, u64::from_le_bytes(std::array::from_fn(byte)));
            v.set(GUEST_INSTRUCTION_BYTES_HIGH, u64::from_le_bytes(std::array::from_fn(|i| byte(i + 7))));
        }
    }
}
