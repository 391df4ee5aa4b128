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
//! While the extension acts nobody is asked: it is taken out of the processor for the time of the call.

use std::sync::Mutex;

use emu_core::engine::{Step, Stop, StopKind};
use iced_x86::Instruction;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::exception::Exception;
use crate::paging;
use crate::processor::P;

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

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manuals' names")]
pub enum Intercept {
    /// An exception is about to be delivered; `first` is the one in whose delivery it occurred.
    Exception {
        exception: Exception,
        software: bool,
        first: Option<Exception>,
    },
    /// An interrupt from outside could be taken. Its vector is not known before it is acknowledged.
    ExternalInterrupt,
    Nmi,
    Smi,
    Init,
    /// A start-up message with this vector.
    Sipi(u8),
    TripleFault,
    /// INT n with this vector.
    SoftwareInterrupt(u8),
    /// INT1.
    Icebp,
    /// A task switch to this selector; by a gate of the IDT, if `gate`.
    TaskSwitch {
        selector: u16,
        reason: u8,
        gate: bool,
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
    Cpuid,
    Hlt,
    Pause,
    Monitor,
    Mwait,
    Invlpg(u64),
    Invpcid,
    Invd,
    /// WBINVD, WBNOINVD.
    Wbinvd,
    Rdtsc,
    Rdtscp,
    Rdpmc,
    Rdpru,
    Rdrand,
    Rdseed,
    Xsetbv,
    Xsaves,
    Xrstors,
    Pushf,
    Popf,
    Iret,
    Rsm,
    /// An interrupt could be taken between this instruction and the next.
    Boundary,
}

/// A second stage's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondStage {
    /// Physical address of the byte that was asked for.
    pub physical: u64,
    /// log2 of its page's size in bytes.
    pub size_log2: u8,
    /// Stores may go there from now on without being asked for.
    pub write: bool,
}

/// What of a guest-physical address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondAccess {
    /// The guest-physical address.
    pub address: u64,
    /// What is done there.
    pub kind: paging::Kind,
    /// The linear address that led there.
    pub linear: u64,
    /// It is an entry of the guest's paging structures.
    pub is_entry: bool,
    /// CPL is 3, and the access is none of the processor's own.
    pub user: bool,
}

/// A virtualization extension of one processor, with its state.
pub trait Extension: Send {
    /// Its name, by which a snapshot finds it again.
    fn name(&self) -> &'static str;

    /// Its state, as bytes.
    fn save(&self) -> Vec<u8>;

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
    /// [`ADDRESS`](crate::registers::temp::ADDRESS); `registers` are the numbers of those that operands name. A call ends its block:
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

    /// What guest translations are tagged with beside what the processor's own are; 0 for those of the host.
    fn address_space(&self) -> u64 {
        0
    }

    /// Whether a second stage translates what paging gives.
    fn has_second_stage(&self) -> bool {
        false
    }

    /// Translates a guest-physical address.
    fn second_stage(&mut self, _h: &mut P, access: SecondAccess) -> Step<SecondStage> {
        Ok(SecondStage { physical: access.address, size_log2: 12, write: true })
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

/// Where a processor keeps its extension.
#[derive(Default)]
pub struct Slot(Option<Box<dyn Extension>>);

impl Slot {
    /// With this extension.
    pub fn with(extension: Box<dyn Extension>) -> Self {
        Slot(Some(extension))
    }

    /// The extension, if there is one, and it is not acting just now.
    pub fn get(&self) -> Option<&dyn Extension> {
        self.0.as_deref()
    }

    /// A guest is at work.
    pub fn is_guest(&self) -> bool {
        self.get().is_some_and(Extension::is_guest)
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        Slot(self.get().map(Extension::duplicate))
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        let state = |s: &Slot| s.get().map(|e| (e.name(), e.save()));
        state(self) == state(other)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.get().map(Extension::name)).finish()
    }
}

/// Makes an extension from what [`Extension::save`] gave.
pub type Restore = fn(&[u8]) -> Result<Box<dyn Extension>, String>;

static KINDS: Mutex<Vec<(&'static str, Restore)>> = Mutex::new(Vec::new());

/// Makes an extension known by its name, for snapshots that name it.
pub fn register(name: &'static str, restore: Restore) {
    let mut kinds = KINDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    kinds.retain(|(n, _)| *n != name);
    kinds.push((name, restore));
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.get().map(|e| (e.name(), e.save())).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let Some((name, bytes)) = Option::<(String, Vec<u8>)>::deserialize(d)? else { return Ok(Slot(None)) };
        let kinds = KINDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let restore = kinds.iter().find(|(n, _)| *n == name).map(|(_, r)| *r);
        drop(kinds);
        let restore = restore.ok_or_else(|| D::Error::custom(format!("the extension {name} is not known here")))?;
        restore(&bytes).map(|e| Slot(Some(e))).map_err(D::Error::custom)
    }
}

/// Lets the extension act, if there is one, and nobody asks it meanwhile.
pub(crate) fn act<T>(h: &mut P, f: impl FnOnce(&mut dyn Extension, &mut P) -> T) -> Option<T> {
    let mut extension = h.arch.extension.0.take()?;
    let result = f(&mut *extension, h);
    h.arch.extension.0 = Some(extension);
    Some(result)
}

/// Asks before an instruction's operands are looked at.
#[inline]
pub(crate) fn ask_before(h: &mut P, what: impl FnOnce() -> Intercept) -> Step {
    if h.arch.extension.is_guest() { ask(h, &what(), When::BeforeOperands) } else { Ok(()) }
}

/// Asks when all has been checked, or about what has no operands.
#[inline]
pub(crate) fn ask_after(h: &mut P, what: impl FnOnce() -> Intercept) -> Step {
    if h.arch.extension.is_guest() { ask(h, &what(), When::AfterChecks) } else { Ok(()) }
}

#[cold]
fn ask(h: &mut P, what: &Intercept, when: When) -> Step {
    act(h, |e, h| e.intercept(h, what, when)).unwrap_or(Ok(()))
}

/// Function number of the call that executes an instruction of the extension's own.
pub(crate) const FUNCTION: u16 = 0x182;

/// Runs it.
pub(crate) fn call(h: &mut P, operand: u32) -> Step {
    let registers = [(operand >> 8) as u8, (operand >> 16) as u8];
    act(h, |e, h| e.execute(h, operand as u8, registers)).unwrap_or(Err(Exception::UD.into()))
}
