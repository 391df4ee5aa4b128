//! The instructions of VMX (SDM vol. 3C, chapter "VMX Instruction Reference").

use emu_core::engine::Step;
use x86::control::{cr4, rflags};
use x86::exception::Exception;
use x86::extension::{self, IN_MEMORY, Register};
use x86::processor::P;
use x86::registers::temp;

use crate::capability::{CR0_FIXED_0, CR4_FIXED_0, REVISION};
use crate::control::secondary;
use crate::exit::{Exit, Reason};
use crate::field::*;
use crate::tags::Tags;
use crate::vmcs::{SHADOW, Vmcs};
use crate::vmx::{FEATURE_CONTROL_LOCK, FEATURE_CONTROL_VMXON, Vmx};

/// An instruction of VMX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names")]
pub enum Operation {
    Vmcall,
    Vmclear,
    Vmlaunch,
    Vmptrld,
    Vmptrst,
    Vmread,
    Vmresume,
    Vmwrite,
    Vmxoff,
    Vmxon,
    Invept,
    Invvpid,
    Vmfunc,
}

impl Operation {
    const ALL: [Operation; 13] = {
        use Operation::*;
        [Vmcall, Vmclear, Vmlaunch, Vmptrld, Vmptrst, Vmread, Vmresume, Vmwrite, Vmxoff, Vmxon, Invept, Invvpid, Vmfunc]
    };

    pub(crate) fn numbered(n: u8) -> Operation {
        Operation::ALL[usize::from(n)]
    }

    /// Its operands are explicit: the exit tells of them ("VM-Exit Instruction Information").
    fn has_operand(self) -> bool {
        use Operation::*;
        !matches!(self, Vmcall | Vmfunc | Vmlaunch | Vmresume | Vmxoff)
    }

    /// The basic exit reason in a guest.
    fn reason(self) -> Reason {
        match self {
            Operation::Vmcall => Reason::Vmcall,
            Operation::Vmclear => Reason::Vmclear,
            Operation::Vmlaunch => Reason::Vmlaunch,
            Operation::Vmptrld => Reason::Vmptrld,
            Operation::Vmptrst => Reason::Vmptrst,
            Operation::Vmread => Reason::Vmread,
            Operation::Vmresume => Reason::Vmresume,
            Operation::Vmwrite => Reason::Vmwrite,
            Operation::Vmxoff => Reason::Vmxoff,
            Operation::Vmxon => Reason::Vmxon,
            Operation::Invept => Reason::Invept,
            Operation::Invvpid => Reason::Invvpid,
            Operation::Vmfunc => Reason::Vmfunc,
        }
    }
}

macro_rules! errors {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// Numbers of the VM-instruction error ("VM Instruction Error Numbers").
        pub(crate) mod error {
            $(pub(crate) const $name: u64 = $number;)*

            /// What a number says.
            pub(crate) fn name(number: u64) -> &'static str {
                match number { $($number => $text,)* _ => "" }
            }
        }
    };
}

errors! {
    VMCALL_IN_ROOT = 1 "VMCALL executed in VMX root operation",
    VMCLEAR_ADDRESS = 2 "VMCLEAR with invalid physical address",
    VMCLEAR_VMXON_POINTER = 3 "VMCLEAR with VMXON pointer",
    VMLAUNCH_NOT_CLEAR = 4 "VMLAUNCH with non-clear VMCS",
    VMRESUME_NOT_LAUNCHED = 5 "VMRESUME with non-launched VMCS",
    CONTROL_FIELDS = 7 "VM entry with invalid control fields",
    HOST_STATE = 8 "VM entry with invalid host-state fields",
    VMPTRLD_ADDRESS = 9 "VMPTRLD with invalid physical address",
    VMPTRLD_VMXON_POINTER = 10 "VMPTRLD with VMXON pointer",
    VMPTRLD_REVISION = 11 "VMPTRLD with incorrect revision identifier",
    UNSUPPORTED_COMPONENT = 12 "VMREAD or VMWRITE of an unsupported component",
    VMXON_IN_ROOT = 15 "VMXON in VMX root operation",
    BLOCKED_BY_MOV_SS = 26 "VM entry with events blocked by MOV SS",
    INVALID_OPERAND = 28 "invalid operand of INVEPT or INVVPID",
}

/// CF: VMfailInvalid. ZF: VMfailValid.
const CF: u64 = 1;
const ZF: u64 = 1 << 6;

/// "Conventions": VMsucceed.
pub(crate) fn succeed(h: &mut P) -> Step {
    extension::set_arithmetic_flags(h, 0);
    Ok(())
}

fn fail_invalid(h: &mut P) -> Step {
    extension::set_arithmetic_flags(h, CF);
    Ok(())
}

/// The linear address of the operand in memory.
fn address(h: &P) -> u64 {
    h.core.regs[usize::from(temp::ADDRESS)]
}

/// 64-bit mode: operands have 64 bits.
fn operand_size(h: &P) -> u8 {
    if h.arch.is_64() { 8 } else { 4 }
}

fn register(h: &P, r: Register) -> u64 {
    let value = h.core.regs[usize::from(r)];
    if h.arch.is_64() { value } else { value & 0xffff_ffff }
}

impl Vmx {
    /// "Conventions": VMfail.
    pub(crate) fn fail(&mut self, h: &mut P, number: u64) -> Step {
        if self.current.is_none() {
            return fail_invalid(h);
        }
        self.vmcs[INSTRUCTION_ERROR] = number;
        extension::set_arithmetic_flags(h, ZF);
        Ok(())
    }

    /// Runs one.
    pub(crate) fn execute_own(&mut self, h: &mut P, o: Operation, registers: [Register; 2]) -> Step {
        let a = &h.arch;
        let is_compatibility = a.is_long() && !a.is_64();
        let wrong_mode = !a.is_protected() || is_compatibility;
        let in_operation = self.is_on();
        let is_undefined = match o {
            // CR4.VMXE cannot be cleared in VMX operation.
            Operation::Vmxon => wrong_mode || a.cr4 & cr4::VMXE == 0,
            Operation::Vmcall => !in_operation || !self.in_guest && (a.rflags & rflags::VM != 0 || is_compatibility),
            Operation::Vmfunc => !self.in_guest || !self.vmcs.has(secondary::ENABLE_VM_FUNCTIONS),
            _ => !in_operation || wrong_mode,
        };
        if is_undefined || !self.is_there(o) {
            return Err(Exception::UD.into());
        }
        if self.in_guest && self.exits(h, o, registers) {
            let reason = o.reason();
            return Err(if o.has_operand() {
                self.operand_exit(h, reason)
            } else {
                self.exit(h, Exit::instruction(reason))
            });
        }
        // VM functions are there for all privilege levels.
        if h.arch.cpl() != 0 && o != Operation::Vmfunc {
            return Err(Exception::gp(0).into());
        }
        match o {
            Operation::Vmxon => self.vmxon(h),
            Operation::Vmxoff => self.vmxoff(h),
            Operation::Vmcall => self.fail(h, error::VMCALL_IN_ROOT),
            Operation::Vmclear => self.vmclear(h),
            Operation::Vmptrld => self.vmptrld(h),
            Operation::Vmptrst => self.vmptrst(h),
            Operation::Vmread => self.vmread(h, registers),
            Operation::Vmwrite => self.vmwrite(h, registers),
            Operation::Vmlaunch => self.enter(h, true),
            Operation::Vmresume => self.enter(h, false),
            Operation::Invept => self.invept(h, registers[0]),
            Operation::Invvpid => self.invvpid(h, registers[0]),
            Operation::Vmfunc => self.vmfunc(h),
        }
    }

    /// Whether a guest's causes a VM exit, whatever it is about.
    fn exits(&self, h: &mut P, o: Operation, registers: [Register; 2]) -> bool {
        match o {
            Operation::Vmread => self.shadowing_exits(h, VMREAD_BITMAP, register(h, registers[1])),
            Operation::Vmwrite => self.shadowing_exits(h, VMWRITE_BITMAP, register(h, registers[0])),
            Operation::Vmfunc => false,
            _ => true,
        }
    }

    /// Whether the processor has it at all.
    fn is_there(&self, o: Operation) -> bool {
        match o {
            Operation::Invept => self.capabilities.has(secondary::ENABLE_EPT),
            Operation::Invvpid => self.capabilities.has(secondary::ENABLE_VPID),
            _ => true,
        }
    }

    /// The pointer in the operand, if it may point to a region: to a page within MAXPHYADDR.
    fn region(&self, pointer: u64) -> Option<u64> {
        (pointer & 0xfff == 0 && self.capabilities.is_physical(pointer)).then_some(pointer)
    }

    /// VMXON.
    fn vmxon(&mut self, h: &mut P) -> Step {
        if self.is_on() {
            return self.fail(h, error::VMXON_IN_ROOT);
        }
        let a = &h.arch;
        let refused = !a.a20
            || a.cr0 & CR0_FIXED_0 != CR0_FIXED_0
            || a.cr4 & CR4_FIXED_0 != CR4_FIXED_0
            || a.cr4 & !self.capabilities.cr4 != 0
            || self.feature_control & FEATURE_CONTROL_LOCK == 0
            || self.feature_control & FEATURE_CONTROL_VMXON == 0;
        if refused {
            return Err(Exception::gp(0).into());
        }
        let pointer = h.load(address(h), 8, 0)?;
        let Some(region) = self.region(pointer) else { return fail_invalid(h) };
        if Vmcs::revision(h, region) != REVISION {
            return fail_invalid(h);
        }
        self.vmxon = Some(region);
        self.current = None;
        h.core.check_interrupts = true;
        succeed(h)
    }

    /// VMXOFF.
    fn vmxoff(&mut self, h: &mut P) -> Step {
        self.write_back(h);
        self.vmxon = None;
        self.current = None;
        // INIT is no longer blocked.
        h.core.check_interrupts = true;
        h.core.leave = true;
        succeed(h)
    }

    /// The current VMCS goes back to its region.
    fn write_back(&mut self, h: &mut P) {
        if let Some(region) = self.current {
            self.vmcs.store(h, region);
        }
    }

    /// VMCLEAR.
    fn vmclear(&mut self, h: &mut P) -> Step {
        let pointer = h.load(address(h), 8, 0)?;
        let Some(region) = self.region(pointer) else { return self.fail(h, error::VMCLEAR_ADDRESS) };
        if self.vmxon == Some(region) {
            return self.fail(h, error::VMCLEAR_VMXON_POINTER);
        }
        if self.current == Some(region) {
            self.vmcs.is_launched = false;
            self.write_back(h);
            self.current = None;
        } else {
            Vmcs::clear(h, region);
        }
        succeed(h)
    }

    /// VMPTRLD.
    fn vmptrld(&mut self, h: &mut P) -> Step {
        let pointer = h.load(address(h), 8, 0)?;
        let Some(region) = self.region(pointer) else { return self.fail(h, error::VMPTRLD_ADDRESS) };
        if self.vmxon == Some(region) {
            return self.fail(h, error::VMPTRLD_VMXON_POINTER);
        }
        let shadow = if self.capabilities.has(secondary::VMCS_SHADOWING) { SHADOW } else { 0 };
        if Vmcs::revision(h, region) & !shadow != REVISION {
            return self.fail(h, error::VMPTRLD_REVISION);
        }
        if self.current != Some(region) {
            self.write_back(h);
            self.vmcs = Vmcs::load(h, region);
            self.current = Some(region);
        }
        succeed(h)
    }

    /// VMPTRST.
    fn vmptrst(&mut self, h: &mut P) -> Step {
        h.store(address(h), 8, self.current.unwrap_or(u64::MAX), 0)?;
        succeed(h)
    }

    /// VMREAD. Of its two registers the second names the field.
    fn vmread(&mut self, h: &mut P, registers: [Register; 2]) -> Step {
        if !self.has_accessible_vmcs() {
            return fail_invalid(h);
        }
        let Some((field, is_high)) = Field::of_encoding(register(h, registers[1])) else {
            return self.fail(h, error::UNSUPPORTED_COMPONENT);
        };
        let value = self.read_field(h, field);
        self.put(h, registers[0], if is_high { value >> 32 } else { value })?;
        succeed(h)
    }

    /// Writes VMREAD's destination.
    fn put(&mut self, h: &mut P, destination: Register, value: u64) -> Step {
        let size = operand_size(h);
        if destination == IN_MEMORY {
            return self.access(h, |h| h.store(address(h), size, value, 0));
        }
        h.core.regs[usize::from(destination)] = if size == 8 { value } else { value & 0xffff_ffff };
        Ok(())
    }

    /// VMWRITE. Of its two registers the first names the field.
    fn vmwrite(&mut self, h: &mut P, registers: [Register; 2]) -> Step {
        if !self.has_accessible_vmcs() {
            return fail_invalid(h);
        }
        let value = if registers[1] == IN_MEMORY {
            self.access(h, |h| h.load(address(h), operand_size(h), 0))?
        } else {
            register(h, registers[1])
        };
        let Some((field, is_high)) = Field::of_encoding(register(h, registers[0])) else {
            return self.fail(h, error::UNSUPPORTED_COMPONENT);
        };
        let old = self.read_field(h, field);
        self.write_field(h, field, written(field, is_high, old, value));
        succeed(h)
    }

    /// The descriptor of INVEPT or INVVPID, and its type.
    fn invalidation(&self, h: &mut P, kind: Register) -> Step<(u64, [u64; 2])> {
        let kind = register(h, kind);
        let at = address(h);
        let low = h.load(at, 8, 0)?;
        Ok((kind, [low, h.load(at.wrapping_add(8), 8, 0)?]))
    }

    /// INVEPT.
    fn invept(&mut self, h: &mut P, kind: Register) -> Step {
        let (kind, [eptp, reserved]) = self.invalidation(h, kind)?;
        let is_legal = match kind {
            1 => reserved == 0 && self.is_ept_pointer(eptp),
            2 => true,
            _ => false,
        };
        if !is_legal {
            return self.fail(h, error::INVALID_OPERAND);
        }
        match kind {
            1 => self.tags.drop_root(h, eptp),
            _ => Tags::drop_all_roots(h),
        }
        h.core.spaces_changed = true;
        succeed(h)
    }

    /// INVVPID.
    fn invvpid(&mut self, h: &mut P, kind: Register) -> Step {
        let (kind, [vpid, linear]) = self.invalidation(h, kind)?;
        let has_vpid = vpid != 0 && vpid >> 16 == 0;
        let is_legal = match kind {
            0 => has_vpid && h.arch.is_canonical(linear),
            1 | 3 => has_vpid,
            2 => vpid >> 16 == 0,
            _ => false,
        };
        if !is_legal {
            return self.fail(h, error::INVALID_OPERAND);
        }
        match kind {
            0 => Tags::drop_address(h, vpid, linear),
            2 => Tags::drop_vpid(h, None),
            _ => Tags::drop_vpid(h, Some(vpid)),
        }
        h.core.spaces_changed = true;
        succeed(h)
    }
}

/// What a field holds after a write to all of it or to its high half.
fn written(field: Field, is_high: bool, old: u64, value: u64) -> u64 {
    if is_high { old & 0xffff_ffff | value << 32 } else { field.cut(value) }
}
