//! The instructions of SVM (APM vol. 3, "System Instruction Reference").

use emu_core::engine::Step;
use iced_x86::{Code, Instruction, Mnemonic};
use x86::control::{cr0, efer, rflags};
use x86::exception::Exception;
use x86::extension::Register;
use x86::model::Feature;
use x86::processor::{P, ProcessorExt};
use x86::registers::{RAX, RCX};

use crate::exit::{Exit, code};
use crate::svm::{ASIDS, Svm};
use crate::vmcb::*;

/// An instruction of SVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names")]
pub enum Operation {
    Vmrun,
    Vmmcall,
    Vmload,
    Vmsave,
    Stgi,
    Clgi,
    Skinit,
    Invlpga,
}

impl Operation {
    const ALL: [Operation; 8] = {
        use Operation::*;
        [Vmrun, Vmmcall, Vmload, Vmsave, Stgi, Clgi, Skinit, Invlpga]
    };

    /// The exit code of its intercept.
    fn code(self) -> u64 {
        match self {
            Operation::Vmrun => code::VMRUN,
            Operation::Vmmcall => code::VMMCALL,
            Operation::Vmload => code::VMLOAD,
            Operation::Vmsave => code::VMSAVE,
            Operation::Stgi => code::STGI,
            Operation::Clgi => code::CLGI,
            Operation::Skinit => code::SKINIT,
            Operation::Invlpga => code::INVLPGA,
        }
    }
}

/// In an opcode's number: the address size is 32 bits, or 16.
const BITS_32: u8 = 1 << 4;
const BITS_16: u8 = 1 << 5;

/// The number by which the processor knows an instruction of SVM: the operation, and its address size.
pub(crate) fn opcode(insn: &Instruction) -> Option<u8> {
    use Mnemonic as M;
    let o = match insn.mnemonic() {
        M::Vmrun => Operation::Vmrun,
        M::Vmmcall => Operation::Vmmcall,
        M::Vmload => Operation::Vmload,
        M::Vmsave => Operation::Vmsave,
        M::Stgi => Operation::Stgi,
        M::Clgi => Operation::Clgi,
        M::Skinit => Operation::Skinit,
        M::Invlpga => Operation::Invlpga,
        _ => return None,
    };
    let size = match insn.code() {
        Code::Vmrund | Code::Vmloadd | Code::Vmsaved | Code::Invlpgad => BITS_32,
        Code::Vmrunw | Code::Vmloadw | Code::Vmsavew | Code::Invlpgaw => BITS_16,
        _ => 0,
    };
    Some(o as u8 | size)
}

/// RAX as an address.
fn address(h: &P, opcode: u8) -> u64 {
    match opcode {
        o if o & BITS_32 != 0 => h.reg(RAX) & 0xffff_ffff,
        o if o & BITS_16 != 0 => h.reg(RAX) & 0xffff,
        _ => h.reg(RAX),
    }
}

impl Svm {
    /// Runs one.
    pub(crate) fn execute_own(&mut self, h: &mut P, opcode: u8, _: [Register; 2]) -> Step {
        let o = Operation::ALL[usize::from(opcode & 15)];
        if o == Operation::Vmmcall {
            // "VMMCALL": its intercept comes before all exceptions.
            if self.in_guest && self.vmcb.intercepts(code::VMMCALL) {
                return Err(self.exit(h, Exit::instruction(code::VMMCALL)));
            }
            return Err(Exception::UD.into());
        }
        let a = &h.arch;
        // STGI and SKINIT are there without EFER.SVME, on processors that have SKINIT.
        if a.efer & efer::SVME == 0 || a.cr0 & cr0::PE == 0 || a.rflags & rflags::VM != 0 || o == Operation::Skinit {
            return Err(Exception::UD.into());
        }
        h.require_cpl_0()?;
        let at = address(h, opcode);
        let names_vmcb = matches!(o, Operation::Vmrun | Operation::Vmload | Operation::Vmsave);
        // "Nested VMCB address check": before the intercept.
        let is_vmcb = at & 0xfff == 0 && self.is_physical(at);
        let refused = names_vmcb && !is_vmcb;
        if refused && self.has(Feature::SvmeAddrChk) {
            return Err(Exception::gp(0).into());
        }
        if self.in_guest && self.intercepts_own(h, o) {
            let info_1 = if o == Operation::Invlpga { at } else { 0 };
            return Err(self.exit(h, Exit { info_1, ..Exit::instruction(o.code()) }));
        }
        if refused {
            return Err(Exception::gp(0).into());
        }
        match o {
            Operation::Vmrun => return self.vmrun(h, at),
            Operation::Vmload => self.vmload(h, at)?,
            Operation::Vmsave => self.vmsave(h, at)?,
            Operation::Stgi => self.set_gif(h, true),
            Operation::Clgi => self.set_gif(h, false),
            Operation::Invlpga => Svm::invlpga(h, at),
            Operation::Vmmcall | Operation::Skinit => unreachable!("they are not here"),
        }
        Ok(())
    }

    /// Whether a guest's is intercepted. "Virtualized VMLOAD and VMSAVE" are for guests in long mode, with nested paging.
    fn intercepts_own(&self, h: &P, o: Operation) -> bool {
        let is_virtual = matches!(o, Operation::Vmload | Operation::Vmsave) && self.virtualizes_vmload();
        self.vmcb.intercepts(o.code()) || is_virtual && !h.arch.is_long()
    }

    fn virtualizes_vmload(&self) -> bool {
        self.in_guest
            && self.has(Feature::VVmsaveVmload)
            && self.vmcb.get(VIRTUALIZATION_CONTROL) & more::V_VMLOAD_VMSAVE_ENABLE != 0
            && self.nested(nested::NP_ENABLE)
    }

    /// Where VMLOAD and VMSAVE find the VMCB: with their virtualization RAX is a guest-physical address.
    fn place(&mut self, h: &mut P, at: u64, is_store: bool) -> Step<u64> {
        if !self.virtualizes_vmload() {
            return Ok(at);
        }
        self.translate_own(h, at, is_store)
    }

    /// VMLOAD.
    fn vmload(&mut self, h: &mut P, at: u64) -> Step {
        let pa = self.place(h, at, false)?;
        self.room.load_all(h, pa);
        crate::vmrun::load_more(h, &self.room);
        Ok(())
    }

    /// VMSAVE.
    fn vmsave(&mut self, h: &mut P, at: u64) -> Step {
        let pa = self.place(h, at, true)?;
        crate::exit::save_more(h, &mut self.room);
        self.room.store_loaded(h, pa);
        Ok(())
    }

    /// INVLPGA: the ASID is in ECX; 0 is the host's.
    fn invlpga(h: &mut P, linear: u64) {
        let asid = h.reg(RCX) & 0xffff_ffff & (ASIDS - 1);
        h.core.mmu.drop_page(linear, |key| key.0 >> 20 == asid);
        h.core.spaces_changed = true;
    }
}
