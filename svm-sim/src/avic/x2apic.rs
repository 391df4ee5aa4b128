//! "x2AVIC": RDMSR and WRMSR of 800h to 8FFh, once the MSR permissions map has let them through.

use emu_core::engine::Step;
use x86::apic::page::offset as o;
use x86::exception::Exception;
use x86::extension;
use x86::processor::P;

use crate::exit::{Exit, code};
use crate::svm::Svm;

/// Registers that x2APIC mode does not have, or not for reading.
fn is_absent(register: u16) -> bool {
    matches!(register, o::RRD | o::DFR | o::ICR_HIGH | o::EOI | o::SELF_IPI)
}

impl Svm {
    fn x2apic_register(&self, msr: u32) -> Option<u16> {
        (self.in_guest && msr >> 8 == 8 && self.has_x2avic()).then_some((msr as u16 & 0xff) << 4)
    }

    /// RDMSR; `None` if it is none of AVIC's.
    pub(crate) fn read_x2apic(&mut self, h: &mut P, msr: u32) -> Option<Step<u64>> {
        let register = self.x2apic_register(msr)?;
        let page = self.backing_page();
        Some(match register {
            _ if is_absent(register) => Err(Exception::gp(0).into()),
            o::ICR_LOW => Ok(u64::from(page.read(h, o::ICR_HIGH)) << 32 | u64::from(page.read(h, o::ICR_LOW))),
            _ if self.is_readable(register) => Ok(page.read(h, register).into()),
            o::CURRENT_COUNT => Err(self.exit(h, Exit { info_1: register.into(), ..Exit::of(code::AVIC_NOACCEL) })),
            _ => Err(Exception::gp(0).into()),
        })
    }

    /// WRMSR; likewise.
    pub(crate) fn write_x2apic(&mut self, h: &mut P, msr: u32, value: u64) -> Option<Step> {
        let register = self.x2apic_register(msr)?;
        if extension::x2apic_bits(h, msr).is_none_or(|bits| value & !bits != 0) {
            return Some(Err(Exception::gp(0).into()));
        }
        let page = self.backing_page();
        page.write(h, register, value as u32);
        match register {
            o::ICR_LOW => {
                page.write(h, o::ICR_HIGH, (value >> 32) as u32);
                self.command(h);
            }
            o::SELF_IPI => self.command_self(h, value as u8),
            _ => self.after_write(h, register),
        }
        Some(Ok(()))
    }
}
