//! The door for virtualization: the processor asks, an extension decides (docs/design.md, decision 8).
//!
//! The processor knows nothing of a VMCS or VMCB. Where the manuals allow an intercept it tells its extension what is about to happen, as an
//! [`Intercept`] with what exit information needs. Vendors differ in *when*: SVM intercepts most instructions after the checks of privilege
//! and before those of operands, VMX some before and some after. So an instruction asks at each point ([`When`]), and the extension's own table
//! says which is its.
//!
//! An extension that lets the event happen returns `Ok`. One that takes it, changes the processor's state as an exit does, sets `h.core.pc`,
//! and returns [`moved`]: the instruction is given up where it is.
//!
//! While the extension acts nobody is asked: it is taken out of the processor for the time of the call. To reach its guest's memory through
//! linear addresses meanwhile it goes through [`as_guest`].
//!
//! What a second stage refuses stops the access like a fault, and the extension is told once the processor knows which instruction that was:
//! [`Extension::second_stage_fault`].

mod slot;

use std::any::Any;

use emu_core::engine::flags::Flags;
use emu_core::engine::{Step, Stop, StopKind};
use iced_x86::Instruction;
use serde::{Deserialize, Serialize};

use crate::exception::Exception;
use crate::model::Feature;
use crate::paging;
use crate::processor::P;
pub use slot::{Facts, Kind, Restore, Slot, register};
pub(crate) use slot::{act, second_stage};

/// Which of an instruction's two points is asked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Its operands have not been looked at; #UD and the privilege level have.
    BeforeOperands,
    /// Everything that could fault has been asked.
    AfterChecks,
}

/// A general register, by number.
pub type Register = u8;

/// In statistics, an extension's exits are counted by reasons from here on, behind the vectors of exceptions and interrupts.
pub const FIRST_EXIT: u32 = 256;

/// Where those of SVM begin; before it are those of VMX.
pub const FIRST_EXIT_SVM: u32 = FIRST_EXIT + 128;

/// In place of a register's number: the operand is in memory.
pub const IN_MEMORY: Register = 0xff;

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manuals' names")]
pub enum Intercept {
    /// An exception is about to be delivered: of INT3 or INTO, if `software`; and in the delivery of `first`.
    Exception {
        exception: Exception,
        software: bool,
        first: Option<Delivery>,
    },
    /// An interrupt from outside could be taken, were it not for RFLAGS.IF, if that is `masked`. Its vector is not known before it is
    /// acknowledged ([`acknowledge`]).
    ExternalInterrupt {
        masked: bool,
    },
    Nmi,
    Smi,
    Init,
    /// A start-up message with this vector.
    Sipi(u8),
    TripleFault,
    /// An instruction of the x87 freezes the processor with FERR#.
    FerrFreeze,
    /// An event's delivery would never come to an end.
    Endless,
    /// INT n with this vector.
    SoftwareInterrupt(u8),
    /// INT1.
    Icebp,
    /// A task switch to this selector: 0 by CALL, 1 by IRET, 2 by JMP, 3 by a gate of the IDT, in the delivery of
    /// [`X86::delivering`](crate::processor::X86::delivering).
    TaskSwitch {
        selector: u16,
        reason: u8,
        error: Option<u16>,
    },
    MovToCr {
        cr: u8,
        register: Register,
        value: u64,
    },
    MovFromCr {
        cr: u8,
        register: Register,
    },
    Clts,
    /// The operand is memory at a linear address, if there is one.
    Lmsw {
        source: u16,
        memory: Option<u64>,
    },
    Smsw,
    MovToDr {
        dr: u8,
        register: Register,
    },
    MovFromDr {
        dr: u8,
        register: Register,
    },
    /// SGDT, SIDT, LGDT, LIDT: 0 to 3.
    Gdtr {
        instruction: u8,
        address: u64,
    },
    /// SLDT, STR, LLDT, LTR: 0 to 3.
    Ldtr {
        instruction: u8,
    },
    In {
        port: u16,
        size: u8,
        string: bool,
        repeats: bool,
    },
    Out {
        port: u16,
        size: u8,
        string: bool,
        repeats: bool,
    },
    Rdmsr(u32),
    Wrmsr {
        msr: u32,
        value: u64,
    },
    Wrmsrns {
        msr: u32,
        value: u64,
    },
    /// One of the MSRs of a RDMSRLIST: those before it are done.
    Rdmsrlist(u32),
    Wrmsrlist {
        msr: u32,
        value: u64,
    },
    /// RDMSR and WRMSRNS with an immediate.
    RdmsrImmediate {
        msr: u32,
        register: Register,
    },
    WrmsrnsImmediate {
        msr: u32,
        register: Register,
        value: u64,
    },
    /// The bitmap of IA32_USER_MSR_CTL lets it through.
    Urdmsr {
        msr: u32,
        register: Register,
    },
    Uwrmsr {
        msr: u32,
        register: Register,
        value: u64,
    },
    Cpuid,
    Hlt,
    Pause,
    /// MONITOR, MONITORX.
    Monitor,
    /// MWAIT, MWAITX.
    Mwait {
        armed: bool,
    },
    /// UMWAIT, TPAUSE.
    Umwait,
    Invlpg(u64),
    /// Its operand is memory at a linear address.
    Invpcid {
        register: Register,
        address: u64,
    },
    /// What it asks for is legal, or #GP.
    Invlpgb {
        is_legal: bool,
    },
    Tlbsync,
    Mcommit,
    /// An instruction is about to lock the bus. Asked if the extension [wants to know](Extension::watches_bus_locks).
    BusLock,
    Invd,
    Wbinvd,
    Wbnoinvd,
    Rdtsc,
    Rdtscp,
    Rdpmc,
    Rdpru,
    /// To a register of so many bytes.
    Rdrand {
        register: Register,
        size: u8,
    },
    Rdseed {
        register: Register,
        size: u8,
    },
    Xsetbv,
    /// The components that are asked for: EDX:EAX.
    Xsaves(u64),
    Xrstors(u64),
    Pushf,
    Popf,
    Iret,
    Rsm,
    /// An instruction or the delivery of an event is over, in a guest, and nothing of what comes then has been looked at. Asked if the extension
    /// [has work](Extension::has_work).
    Over,
    /// The processor is between two instructions, in a guest, and has taken neither traps nor anything below them.
    Completed,
    /// The processor is between two instructions, and looks for what comes there: traps have been taken, NMIs and interrupts have not. In the
    /// shadow of STI or MOV SS, if `shadowed`. Asked wherever an interrupt might be taken, and behind every instruction if the extension
    /// [steps](Extension::steps).
    Boundary {
        shadowed: bool,
    },
}

impl Intercept {
    /// An instruction asks about it at both of its points ([`When`]).
    pub fn is_asked_twice(&self) -> bool {
        use Intercept as I;
        matches!(
            self,
            I::MovToCr { .. }
                | I::MovToDr { .. }
                | I::MovFromDr { .. }
                | I::Monitor
                | I::Mwait { .. }
                | I::Invpcid { .. }
                | I::Xsetbv
                | I::Rdpmc
        )
    }
}

/// What kind of event is delivered, by VMX's numbers ("Interruption type").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Origin {
    /// An interrupt from outside.
    External = 0,
    /// A non-maskable interrupt.
    Nmi = 2,
    /// An exception of the processor's own.
    Exception = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3, INTO.
    SoftwareException = 6,
}

/// An event that is delivered through the IDT, or that an extension wants delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// What kind it is.
    pub origin: Origin,
    /// Its vector.
    pub vector: u8,
    /// Its error code.
    pub error: Option<u16>,
    /// How far behind RIP the handler is to return to, in bytes: behind the instruction that asks for it; 0 for what no instruction asks for.
    pub length: u64,
}

/// A second stage's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondStage {
    /// Physical address of the byte that was asked for; or an address of [`OWN`], and then the access is the extension's.
    pub physical: u64,
    /// log2 of its page's size in bytes. Nothing is held of a part of a page.
    pub size_log2: u8,
    /// Loads may go there from now on without being asked for.
    pub read: bool,
    /// Stores may go there from now on without being asked for.
    pub write: bool,
}

/// Physical addresses from here on are no memory's: a second stage may answer with one, and the access goes to [`Extension::read_own`] or
/// [`Extension::write_own`]. Nothing is held of such a translation.
pub const OWN: u64 = 1 << 63;

/// What of a guest-physical address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondAccess {
    /// The guest-physical address.
    pub address: u64,
    /// How many bytes of the access lie in its page.
    pub size: u8,
    /// What is done there.
    pub kind: paging::Kind,
    /// The linear address that led there; none does where the PDPTE registers are loaded.
    pub linear: Option<u64>,
    /// It is an entry of the guest's paging structures.
    pub is_entry: bool,
    /// What the guest's paging structures say of the page, if it is not such an entry.
    pub page: paging::Rights,
    /// CPL is 3, and the access is none of the processor's own.
    pub user: bool,
    /// It is a shadow-stack access.
    pub shadow_stack: bool,
}

/// What AMD's state-save map holds of a guest that an SMI interrupts (APM vol. 2, "AMD64 Architecture SMM State-Save Area"): zeros, if it interrupts
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestInMap {
    /// Bit 1: a guest; bit 2: with nested paging; bit 3: the host's RFLAGS.IF.
    pub state: u64,
    /// Physical address of its VMCB.
    pub vmcb: u64,
    /// V_TPR, V_IRQ and their like, as a VMCB has them.
    pub virtual_interrupts: u64,
    /// The guest's PAT, with nested paging.
    pub pat: u64,
    /// The host's EFER.
    pub host_efer: u64,
    /// The host's CR4.
    pub host_cr4: u64,
    /// The root of nested page tables.
    pub nested_cr3: u64,
    /// The host's CR0.
    pub host_cr0: u64,
}

/// A virtualization extension of one processor, with its state.
pub trait Extension: Send {
    /// Its name, by which a snapshot finds it again.
    fn name(&self) -> &'static str;

    /// Its state, as bytes.
    fn save(&self) -> Vec<u8>;

    /// Itself, for those who know what it is.
    fn as_any(&self) -> &dyn Any;

    /// Another with the same state.
    fn duplicate(&self) -> Box<dyn Extension>;

    /// A guest is at work. Only then is the extension asked about events.
    fn is_guest(&self) -> bool;

    /// Something is about to happen in a guest.
    fn intercept(&mut self, h: &mut P, what: &Intercept, when: When) -> Step;

    /// The number by which [`Extension::execute`] knows an instruction of the extension's own; `None` if it is none, and then it is what it
    /// is without the extension.
    fn opcode(&self, _insn: &Instruction) -> Option<u8> {
        None
    }

    /// Executes an instruction of the extension's own. The linear address of an operand in memory is in the register
    /// [`ADDRESS`](crate::registers::temp::ADDRESS); `registers` are the numbers of those that operands name, or
    /// [`IN_MEMORY`]. A call ends its block:
    /// `h.core.next_pc` is where it goes on.
    fn execute(&mut self, _h: &mut P, _opcode: u8, _registers: [Register; 2]) -> Step {
        Err(Exception::UD.into())
    }

    /// Reads an MSR of the extension's own, or that it shows otherwise.
    fn read_msr(&mut self, _h: &mut P, _msr: u32) -> Option<Step<u64>> {
        None
    }

    /// Writes one.
    fn write_msr(&mut self, _h: &mut P, _msr: u32, _value: u64) -> Option<Step> {
        None
    }

    /// Changes what CPUID shows: EAX, EBX, ECX, EDX of a leaf.
    fn cpuid(&self, _leaf: u32, _subleaf: u32, _result: &mut [u32; 4]) {}

    /// Bits of CR4 that there are because of the extension.
    fn cr4_bits(&self) -> u64 {
        0
    }

    /// Bits of EFER that there are because of the extension.
    fn efer_bits(&self) -> u64 {
        0
    }

    /// Whether CR0 or CR4 may have this value, beside what the processor itself asks for.
    fn allows_cr(&self, _cr: u8, _value: u64) -> bool {
        true
    }

    /// What a guest's MOV, SMSW reads from a control register that holds `value`.
    fn read_cr(&mut self, _h: &mut P, _cr: u8, value: u64) -> u64 {
        value
    }

    /// What a control register gets from a guest's MOV, CLTS or LMSW of `value`; `None` if nothing.
    fn write_cr(&mut self, _h: &mut P, _cr: u8, value: u64) -> Step<Option<u64>> {
        Ok(Some(value))
    }

    /// An event from outside waits, guest or not ([`Intercept::Init`], `Smi`, `Nmi`, `ExternalInterrupt`): VMX operation holds INIT, a clear
    /// global interrupt flag all of them.
    fn holds(&self, _what: &Intercept) -> bool {
        false
    }

    /// Interrupts from outside concern the extension even if the guest's RFLAGS.IF masks them.
    fn takes_masked_interrupts(&self) -> bool {
        false
    }

    /// Whether interrupts from outside are masked in a guest, if that is not RFLAGS.IF's to say.
    fn masks_interrupts(&self) -> Option<bool> {
        None
    }

    /// An event from outside ([`Intercept::Smi`], `Nmi`, `ExternalInterrupt`) concerns the extension in the shadow of STI or MOV SS, too.
    fn takes_in_shadow(&self, _what: &Intercept) -> bool {
        false
    }

    /// The trap of a breakpoint on data or ports is nothing now, in a guest or not.
    fn discards_breakpoints(&self) -> bool {
        false
    }

    /// INIT becomes #SX, security exception.
    fn redirects_init(&self) -> bool {
        false
    }

    /// [`Intercept::Boundary`] is to be asked behind every instruction.
    fn steps(&self) -> bool {
        false
    }

    /// [`Intercept::Over`] is to be asked.
    fn has_work(&self) -> bool {
        false
    }

    /// IRET is about to unblock NMIs. Returns whether it does so, or what it unblocks is the extension's own.
    fn iret_unblocks_nmi(&mut self, _h: &mut P) -> bool {
        true
    }

    /// What guest translations are tagged with beside what the processor's own are; 0 for those of the host.
    fn address_space(&self) -> u64 {
        0
    }

    /// Which bits of the address space say whose linear addresses they are. What is invalidated for linear addresses is so for all address
    /// spaces that have these bits in common.
    fn linear_mask(&self) -> u64 {
        u64::MAX
    }

    /// Whether a second stage translates what paging gives.
    fn has_second_stage(&self) -> bool {
        false
    }

    /// With PAE paging each walk reads the PDPTEs from memory; there are no registers for them.
    fn walks_pdptes(&self) -> bool {
        false
    }

    /// [`Intercept::BusLock`] is to be asked.
    fn watches_bus_locks(&self) -> bool {
        false
    }

    /// What of this is asked for often: it is so as long as the extension does not act, and [`Extension::second_stage`] changes none of it.
    fn facts(&self) -> Facts {
        Facts {
            is_guest: self.is_guest(),
            has_second_stage: self.has_second_stage(),
            address_space: self.address_space(),
            linear_mask: self.linear_mask(),
            walks_pdptes: self.walks_pdptes(),
            watches_bus_locks: self.watches_bus_locks(),
        }
    }

    /// Translates a guest-physical address; or says why it refuses, in its own terms. Nothing else may change but the tables: which
    /// instruction it is that makes the access may not be known yet.
    fn second_stage(&mut self, _h: &mut P, access: SecondAccess) -> Result<SecondStage, u64> {
        Ok(SecondStage { physical: access.address, size_log2: 12, read: true, write: true })
    }

    /// It has refused, and the access has stopped its instruction, which is at `h.core.pc`, or the delivery of an event. To end with
    /// [`moved`], or with an exception for the guest.
    fn second_stage_fault(&mut self, _h: &mut P, _access: SecondAccess, _why: u64) -> Stop {
        Exception::gp(0).into()
    }

    /// A load from an address of [`OWN`].
    fn read_own(&mut self, _h: &mut P, _address: u64, size: u8) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(size))
    }

    /// A store to one.
    fn write_own(&mut self, _h: &mut P, _address: u64, _size: u8, _value: u64) {}

    /// The processor enters system management mode, guest or not: no guest is at work in it. Returns what AMD's map is to hold of a guest.
    fn enters_smm(&mut self, _h: &mut P) -> GuestInMap {
        GuestInMap::default()
    }

    /// From system management mode RSM leads to a guest that may be in paged real mode.
    fn returns_to_guest(&self) -> bool {
        false
    }

    /// RSM has brought the state back that the processor had before.
    fn leaves_smm(&mut self, _h: &mut P) {}

    /// [`ring`] has been called for this processor, guest or not.
    fn rung(&mut self, _h: &mut P) {}

    /// The processor has been reset.
    fn reset(&mut self) {}

    /// An instruction that the model has is none in the guest.
    fn disables(&self, _feature: Feature) -> bool {
        false
    }

    /// The level at work: 1 is the host.
    fn level(&self) -> u8 {
        1 + u8::from(self.is_guest())
    }

    /// When the extension wants [`Intercept::Boundary`] asked next: a count of the machine's clock.
    fn wakes_at(&self) -> Option<u64> {
        None
    }

    /// A guest that waits has a reason of the extension's to go on.
    fn is_awake(&self, _h: &P) -> bool {
        false
    }

    /// The time-stamp counter as the guest sees it.
    fn tsc(&self, tsc: u64) -> u64 {
        tsc
    }
}

/// The extension has taken over: the present instruction is given up, and `h.core.pc` says where it goes on.
pub fn moved() -> Stop {
    Stop::of(StopKind::Moved)
}

/// Acknowledges the interrupt that [`Intercept::ExternalInterrupt`] tells of, and returns its vector.
pub fn acknowledge(h: &mut P) -> u8 {
    crate::interrupt::acknowledge(h)
}

/// Writes 0 to the local APIC's EOI register.
pub fn end_of_interrupt(h: &mut P) {
    crate::apic::end_of_interrupt(h);
}

/// Sends a fixed interrupt through the local APIC, to the one with this ID.
pub fn send_interrupt(h: &mut P, vector: u8, apic_id: u32) {
    crate::apic::send(h, vector.into(), apic_id);
}

/// Rings for the extension of the processor whose local APIC has this ID: it hears of it as of an interrupt, not at once.
pub fn ring(h: &mut P, apic_id: u32) {
    crate::apic::ring(h, apic_id);
}

/// The bits that WRMSR may have set for an x2APIC register, 800H to 8FFH; `None` if it cannot be written.
pub fn x2apic_bits(h: &P, msr: u32) -> Option<u64> {
    crate::apic::x2apic_bits(h, msr & 0xff)
}

/// What #DB does to DR6 and DR7 before its handler runs: `bits` are of DR6.
pub fn record_debug_exception(h: &mut P, bits: u64) {
    crate::debug::record(h.arch, bits);
}

/// CR8: the priority class of the local APIC's TPR.
pub fn cr8(h: &P) -> u64 {
    crate::apic::cr8(h)
}

/// DebugCtl, and AMD's registers of the last branch, and of the last one before an interrupt or exception: from and to.
pub fn last_branches(h: &P) -> [u64; 5] {
    crate::lbr::last_branches(h.arch)
}

/// Loads them.
pub fn set_last_branches(h: &mut P, values: [u64; 5]) {
    crate::lbr::set_last_branches(h, values);
}

/// What was fetched at RIP: the bytes of an instruction, and perhaps more; none if nothing of it is held.
pub fn code_at_rip(h: &P) -> Vec<u8> {
    /// The most bytes that an instruction has.
    const LONGEST: u64 = 15;
    let pc = h.core.pc;
    let mut bytes = Vec::with_capacity(20);
    let first = pc & !3;
    for at in (first..=pc + LONGEST).step_by(4) {
        match h.peek_code(at) {
            Some(word) => bytes.extend(word.to_le_bytes()),
            None => break,
        }
    }
    bytes.drain(..bytes.len().min((pc - first) as usize));
    bytes
}

/// How long the present instruction is, in bytes, for an intercept of an instruction.
pub fn instruction_length(h: &P) -> u8 {
    h.core.next_pc.wrapping_sub(h.core.pc) as u8
}

/// Writes the six arithmetic flags, as bits of RFLAGS.
pub fn set_arithmetic_flags(h: &mut P, bits: u64) {
    crate::processor::set_flags(&mut h.core.regs, Flags::eager(bits));
}

/// Loads the PDPTE registers from the table at CR3: #GP if one has reserved bits set.
pub fn load_pdptes(h: &mut P, cr3: u64) -> Step {
    crate::control_registers::load_pdptes(h, cr3)
}

/// The number of the present instruction among those that this processor has retired: that which executes or has faulted, or that which would
/// be next between two.
pub fn present_instruction(h: &P) -> u64 {
    h.core.retired() - u64::from(h.arch.has_faulted)
}

/// Does something with the guest's memory, while the extension acts: a copy of it stands in its place.
pub fn as_guest<T>(h: &mut P, extension: &dyn Extension, f: impl FnOnce(&mut P) -> T) -> T {
    let away = std::mem::replace(&mut h.arch.extension, Slot::with(extension.duplicate()));
    let result = f(h);
    h.arch.extension = away;
    result
}

/// A load from a physical address, if it is of [`OWN`].
#[inline]
pub(crate) fn read_own(h: &mut P, address: u64, size: u8) -> Option<u64> {
    if address & OWN == 0 { None } else { act(h, |e, h| e.read_own(h, address, size)) }
}

/// A store to one.
#[inline]
pub(crate) fn write_own(h: &mut P, address: u64, size: u8, value: u64) -> Option<()> {
    if address & OWN == 0 { None } else { act(h, |e, h| e.write_own(h, address, size, value)) }
}

/// Asks before an instruction's operands are looked at.
#[inline]
pub(crate) fn ask_before(h: &mut P, what: impl FnOnce() -> Intercept) -> Step {
    if h.arch.extension.is_guest() { ask(h, &what(), When::BeforeOperands) } else { Ok(()) }
}

/// #UD for an instruction that the guest does not have.
#[inline]
pub(crate) fn require_enabled(h: &P, feature: Feature) -> Step {
    if h.arch.extension.disables(feature) { Err(Exception::UD.into()) } else { Ok(()) }
}

/// Asks when all has been checked, or about what has no operands.
#[inline]
pub(crate) fn ask_after(h: &mut P, what: impl FnOnce() -> Intercept) -> Step {
    if h.arch.extension.is_guest() { ask(h, &what(), When::AfterChecks) } else { Ok(()) }
}

/// What a guest reads from a control register.
pub(crate) fn read_cr(h: &mut P, cr: u8, value: u64) -> u64 {
    if !h.arch.extension.is_guest() {
        return value;
    }
    act(h, |e, h| e.read_cr(h, cr, value)).unwrap_or(value)
}

/// What a control register gets that a guest writes.
pub(crate) fn write_cr(h: &mut P, cr: u8, value: u64) -> Step<Option<u64>> {
    if !h.arch.extension.is_guest() {
        return Ok(Some(value));
    }
    act(h, |e, h| e.write_cr(h, cr, value)).unwrap_or(Ok(Some(value)))
}

/// Whether an IRET unblocks NMIs.
pub(crate) fn iret_unblocks_nmi(h: &mut P) -> bool {
    !h.arch.extension.is_guest() || act(h, |e, h| e.iret_unblocks_nmi(h)).unwrap_or(true)
}

/// The time-stamp counter, as whoever is at work sees it.
pub(crate) fn tsc(h: &P) -> u64 {
    let tsc = h.arch.tsc(h.core.count());
    match h.arch.extension.get() {
        Some(e) if h.arch.extension.is_guest() => e.tsc(tsc),
        _ => tsc,
    }
}

/// Somebody has rung for the extension.
pub(crate) fn rung(h: &mut P) {
    act(h, |e, h| e.rung(h));
}

#[cold]
fn ask(h: &mut P, what: &Intercept, when: When) -> Step {
    act(h, |e, h| e.intercept(h, what, when)).unwrap_or(Ok(()))
}

/// Function number of the call that executes an instruction of the extension's own.
pub(crate) const FUNCTION: u16 = 0x182;

/// Runs it.
#[inline(never)]
pub(crate) fn call(h: &mut P, operand: u32) -> Step {
    let registers = [(operand >> 8) as u8, (operand >> 16) as u8];
    act(h, |e, h| e.execute(h, operand as u8, registers)).unwrap_or(Err(Exception::UD.into()))
}
