//! The extension.

use emu_core::engine::{Step, Stop};
use iced_x86::{Instruction, Mnemonic};
use serde::{Deserialize, Serialize};
use x86::control::rflags;
use x86::extension::{self, Delivery, Extension, Intercept, Register, SecondAccess, SecondStage, When, moved};
use x86::processor::P;
use x86::registers::RBX;

/// An MSR of its own.
pub const MSR: u32 = 0x1234;
/// A leaf of CPUID of its own.
pub const LEAF: u32 = 0x4000_0000;
/// A bit of CR4, and one of EFER.
pub const CR4_BIT: u64 = 1 << 13;
pub const EFER_BIT: u64 = 1 << 12;
/// What its guests see of time is so much later.
pub const TSC_OFFSET: u64 = 1 << 40;

/// Whose order it takes intercepts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    Vmx,
    Svm,
}

impl Order {
    /// The point at which an intercept is taken of those that are asked at both (SDM vol. 3C, "Relative Priority of Faults and VM Exits"; APM
    /// vol. 2, "Instruction Intercepts").
    fn point(self, what: &Intercept) -> Option<When> {
        use Intercept as I;
        match what {
            I::MovToCr { .. }
            | I::MovToDr { .. }
            | I::MovFromDr { .. }
            | I::Monitor
            | I::Mwait { .. }
            | I::Invpcid { .. } => Some(if self == Order::Vmx { When::BeforeOperands } else { When::AfterChecks }),
            I::Xsetbv => Some(When::BeforeOperands),
            // Asked at one point only.
            _ => None,
        }
    }
}

/// What it saw when it took something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The event, as its `Debug` has it.
    pub what: String,
    /// Where the guest is.
    pub pc: u64,
    /// How long the instruction is, for an intercept of one.
    pub length: u8,
    /// The event in whose delivery it happened.
    pub delivering: Option<Delivery>,
}

/// A page of its second stage: guest-physical and physical number, and rights to read, write, execute in bits 0 to 2.
pub type Page = (u64, u64, u8);

/// The extension's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toy {
    pub order: Order,
    pub guest: bool,
    /// Names of intercepts that it takes, as `Debug` begins.
    pub takes: Vec<String>,
    pub exits: Vec<Exit>,
    /// Where the host goes on after an exit.
    pub host: u64,
    pub msr: u64,
    /// Pages that are not mapped to themselves.
    pub pages: Option<Vec<Page>>,
    /// How often the second stage was asked.
    pub walks: u64,
    /// Accesses to addresses of its own: offset, size, and what was stored.
    pub own: Vec<(u64, u8, Option<u64>)>,
    pub tag: u64,
    pub steps: bool,
    pub takes_masked: bool,
    pub holds: Vec<String>,
    /// IRET unblocks this in place of NMIs.
    pub own_nmi_blocking: Option<bool>,
    /// Its bit of CR4 must stay set in a guest.
    pub keeps_cr4: bool,
    /// Bits of CR0 that the guest does not own, and what it reads there.
    pub cr0_mask: u64,
    pub cr0_shadow: u64,
}

pub const NAME: &str = "toy";

impl Toy {
    pub fn new(order: Order, takes: &[&str]) -> Self {
        Toy {
            order,
            guest: true,
            takes: takes.iter().map(|s| s.to_string()).collect(),
            exits: vec![],
            host: crate::machine::HOST,
            msr: 7,
            pages: None,
            walks: 0,
            own: vec![],
            tag: 0,
            steps: false,
            takes_masked: false,
            holds: vec![],
            own_nmi_blocking: None,
            keeps_cr4: false,
            cr0_mask: 0,
            cr0_shadow: 0,
        }
    }

    pub fn from_bytes(bytes: &[u8]) -> Toy {
        postcard::from_bytes(bytes).unwrap()
    }

    /// Leaves the guest for the host.
    fn exit(&mut self, h: &mut P, what: String, length: u8) -> Stop {
        self.exits.push(Exit { what, pc: h.core.pc, length, delivering: h.arch.delivering.take() });
        self.guest = false;
        h.arch.rflags &= !rflags::IF;
        h.core.pc = self.host;
        h.core.spaces_changed = true;
        h.core.check_interrupts = true;
        h.core.leave = true;
        moved()
    }
}

pub fn restore(bytes: &[u8]) -> Result<Box<dyn Extension>, String> {
    postcard::from_bytes::<Toy>(bytes).map(|t| Box::new(t) as Box<dyn Extension>).map_err(|e| e.to_string())
}

fn name_of(what: &Intercept) -> String {
    let text = format!("{what:?}");
    text.split([' ', '(', '{']).next().unwrap().to_string()
}

impl Extension for Toy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn duplicate(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }

    fn is_guest(&self) -> bool {
        self.guest
    }

    fn intercept(&mut self, h: &mut P, what: &Intercept, when: When) -> Step {
        let is_point = self.order.point(what).is_none_or(|point| point == when);
        if !is_point || !self.takes.contains(&name_of(what)) {
            return Ok(());
        }
        Err(self.exit(h, format!("{what:?}"), extension::instruction_length(h)))
    }

    fn opcode(&self, insn: &Instruction) -> Option<u8> {
        (insn.mnemonic() == Mnemonic::Vmcall).then_some(1)
    }

    /// VMCALL: out of the guest; into it, at RBX.
    fn execute(&mut self, h: &mut P, opcode: u8, _: [Register; 2]) -> Step {
        assert_eq!(opcode, 1);
        if self.guest {
            let length = extension::instruction_length(h);
            return Err(self.exit(h, "Vmcall".into(), length));
        }
        self.guest = true;
        h.core.next_pc = h.core.regs[usize::from(RBX)];
        h.core.spaces_changed = true;
        h.core.check_interrupts = true;
        Ok(())
    }

    fn read_msr(&mut self, _: &mut P, msr: u32) -> Option<Step<u64>> {
        (msr == MSR).then_some(Ok(self.msr))
    }

    fn write_msr(&mut self, _: &mut P, msr: u32, value: u64) -> Option<Step> {
        (msr == MSR).then(|| {
            self.msr = value;
            Ok(())
        })
    }

    fn cpuid(&self, leaf: u32, _: u32, result: &mut [u32; 4]) {
        if leaf == LEAF {
            *result = [1, 2, 3, 4];
        }
    }

    fn cr4_bits(&self) -> u64 {
        CR4_BIT
    }

    fn efer_bits(&self) -> u64 {
        EFER_BIT
    }

    fn allows_cr(&self, cr: u8, value: u64) -> bool {
        cr != 4 || !self.keeps_cr4 || value & CR4_BIT != 0
    }

    fn read_cr(&mut self, _: &mut P, cr: u8, value: u64) -> u64 {
        if cr == 0 { value & !self.cr0_mask | self.cr0_shadow & self.cr0_mask } else { value }
    }

    fn write_cr(&mut self, h: &mut P, cr: u8, value: u64) -> Step<Option<u64>> {
        let new = if cr == 0 { value & !self.cr0_mask | h.arch.cr0 & self.cr0_mask } else { value };
        Ok(Some(new))
    }

    fn holds(&self, what: &Intercept) -> bool {
        self.holds.contains(&name_of(what))
    }

    fn takes_masked_interrupts(&self) -> bool {
        self.takes_masked
    }

    fn steps(&self) -> bool {
        self.steps
    }

    fn iret_unblocks_nmi(&mut self, _: &mut P) -> bool {
        match &mut self.own_nmi_blocking {
            Some(blocked) => {
                *blocked = false;
                false
            }
            None => true,
        }
    }

    fn address_space(&self) -> u64 {
        if self.guest { self.tag } else { 0 }
    }

    fn has_second_stage(&self) -> bool {
        self.guest && self.pages.is_some()
    }

    fn second_stage(&mut self, _: &mut P, access: SecondAccess) -> Result<SecondStage, u64> {
        self.walks += 1;
        let (number, offset) = (access.address >> 12, access.address & 0xfff);
        let page = self.pages.iter().flatten().find(|(from, ..)| *from == number);
        let (to, rights) = page.map_or((number, 7), |(_, to, rights)| (*to, *rights));
        let wanted = 1 << access.kind as u8;
        if rights & wanted == 0 {
            return Err(u64::from(rights) << 8 | wanted as u64);
        }
        Ok(SecondStage { physical: to << 12 | offset, size_log2: 12, read: rights & 1 != 0, write: rights & 2 != 0 })
    }

    fn second_stage_fault(&mut self, h: &mut P, access: SecondAccess, why: u64) -> Stop {
        self.exit(h, format!("{access:x?} {why:x}"), 0)
    }

    fn read_own(&mut self, _: &mut P, address: u64, size: u8) -> u64 {
        self.own.push((address & 0xfff, size, None));
        address & 0xfff
    }

    fn write_own(&mut self, h: &mut P, address: u64, size: u8, value: u64) {
        self.own.push((address & 0xfff, size, Some(value)));
        h.core.check_interrupts = true;
        h.core.leave = true;
    }

    fn has_work(&self) -> bool {
        self.own.last().is_some_and(|(_, _, stored)| stored.is_some())
    }

    fn tsc(&self, tsc: u64) -> u64 {
        tsc.wrapping_add(TSC_OFFSET)
    }
}
