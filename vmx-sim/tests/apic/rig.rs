//! A machine whose first processor is in VMX operation, with a current VMCS that enters.

use emu_core::machine::End;
use iced_x86::code_asm::*;
use std::ops::{Deref, DerefMut};
use vmx_sim::Vmx;
use vmx_sim::control::{Control, exit, pin, primary, secondary, tertiary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86::control::cr4;
use x86::extension::Slot;
use x86_bare::Result;
pub use x86_bare::{Bare, CODE, Code, Setup};

use crate::base;

/// Where the guest begins, and its stack.
pub const GUEST: u64 = 0x3_0000;
pub const GUEST_STACK: u64 = 0x3_2000;
/// Where VM exits lead.
pub const HOST: u64 = 0x3_3000;
/// EPT paging structures, which map 4 GiB to themselves.
const EPT: u64 = 0x3_4000;
/// The VMXON region and the VMCS.
const VMXON: u64 = 0x3_6000;
const VMCS: u64 = 0x3_7000;
/// The virtual-APIC page and the APIC-access page.
pub const VIRTUAL: u64 = 0x3_8000;
pub const ACCESS: u64 = 0x3_9000;
/// A posted-interrupt descriptor, and a table of such.
pub const DESCRIPTOR: u64 = 0x3_a000;
pub const TABLE: u64 = 0x3_b000;
/// Handlers of the guest's note their vector here, one byte each, behind their number.
pub const TAKEN: u64 = 0x3_c000;

/// What there is to virtualize of an APIC, whole.
pub const ALL: [Control; 4] = [
    primary::USE_TPR_SHADOW,
    secondary::VIRTUALIZE_APIC_ACCESSES,
    secondary::APIC_REGISTER_VIRTUALIZATION,
    secondary::VIRTUAL_INTERRUPT_DELIVERY,
];
/// Virtual interrupts with an x2APIC.
pub const X2APIC: [Control; 3] =
    [primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_X2APIC_MODE, secondary::VIRTUAL_INTERRUPT_DELIVERY];

pub struct Rig(pub Bare);

impl Deref for Rig {
    type Target = Bare;

    fn deref(&self) -> &Bare {
        &self.0
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Bare {
        &mut self.0
    }
}

impl Rig {
    /// A guest with these controls runs this code, and then VMCALL.
    pub fn new(controls: &[Control], guest: Code) -> Rig {
        Rig::of(1, controls, guest)
    }

    /// The same, on a machine of so many processors. The others halt.
    pub fn of(processors: u32, controls: &[Control], guest: Code) -> Rig {
        vmx_sim::register();
        let page = |_| x86_bare::page::SUPERVISOR;
        let mut bare = Bare::build(&Setup { processors, page, ..Setup::of("intel") });
        for vector in 0..256u64 {
            bare.handler(vector, &|a| {
                // No register changes.
                a.push(rdi)?;
                a.mov(rdi, qword_ptr(TAKEN))?;
                a.mov(byte_ptr(rdi + TAKEN as i32 + 8), vector as i32)?;
                a.jmp(x86_bare::HANDLERS + 32 * 256)
            });
        }
        bare.assemble(x86_bare::HANDLERS + 32 * 256, &|a| {
            a.inc(qword_ptr(TAKEN))?;
            a.pop(rdi)?;
            a.iretq()
        });
        bare.assemble(GUEST, &|a| {
            guest(a)?;
            a.vmcall()
        });
        bare.assemble(HOST, &|a| a.hlt());
        bare.put(EPT, (EPT + 0x1000) | 7);
        for i in 0..4 {
            bare.put(EPT + 0x1000 + 8 * i, i << 30 | 0xb7);
        }
        bare.put(VMCS, vmx_sim::capability::REVISION.into());
        let cpu = bare.cpu();
        cpu.cr4 |= cr4::VMXE;
        let mut vmx = Vmx::new(&cpu.model);
        vmx.vmxon = Some(VMXON);
        vmx.current = Some(VMCS);
        vmx.vmcs = vmcs(&vmx, controls);
        cpu.extension = Slot::with(Box::new(vmx));
        for v in &mut bare.machine.vcpus[1..] {
            v.core.pc = HOST;
        }
        Rig(bare)
    }

    /// The processor's VMX.
    pub fn vmx(&self) -> Vmx {
        let extension = self.machine.vcpus[0].arch.extension.get().unwrap();
        extension.as_any().downcast_ref::<Vmx>().unwrap().clone()
    }

    /// A field of the VMCS.
    pub fn field(&self, f: Field) -> u64 {
        self.vmx().vmcs[f]
    }

    /// Writes one.
    pub fn set_field(&mut self, f: Field, value: u64) -> &mut Self {
        let mut vmx = self.vmx();
        vmx.vmcs[f] = value;
        self.cpu().extension = Slot::with(Box::new(vmx));
        self
    }

    /// Enters the guest; `before` runs in the host. Returns the exit's reason and qualification.
    ///
    /// # Panics
    /// If there is no exit.
    pub fn enter_after(&mut self, before: Code) -> (Reason, u64) {
        let end = self.run_guest(before);
        assert_eq!(end, End::Deadlock);
        assert!(!self.vmx().in_guest, "the guest halts at {:#x}", self.machine.vcpus[0].core.pc);
        assert_eq!(self.machine.vcpus[0].core.pc, HOST + 1, "VM-instruction error {}", self.field(INSTRUCTION_ERROR));
        (Reason::of(self.field(EXIT_REASON)).expect("the entry succeeds"), self.field(EXIT_QUALIFICATION))
    }

    /// Likewise, at once.
    pub fn enter(&mut self) -> (Reason, u64) {
        self.enter_after(&|_| Ok(()))
    }

    /// Enters the guest, and runs until all processors halt for ever.
    pub fn run_guest(&mut self, before: Code) -> End {
        let is_launched = self.vmx().vmcs.is_launched;
        self.code(&|a| {
            before(a)?;
            if is_launched {
                a.vmresume()?
            } else {
                a.vmlaunch()?
            }
            a.hlt()
        });
        self.machine.vcpus[0].core.pc = CODE;
        // It halts no more.
        self.cpu().waiting.sleeps(false);
        self.go_on()
    }

    /// The VM-instruction error of an entry that fails.
    pub fn entry_error(&mut self) -> u64 {
        self.run_guest(&|_| Ok(()));
        assert_ne!(self.machine.vcpus[0].core.pc, HOST + 1, "the entry succeeds");
        self.field(INSTRUCTION_ERROR)
    }

    /// An NMI waits: it is blocked in the host, and not in the guest.
    pub fn set_nmi(&mut self) -> &mut Self {
        let cpu = self.cpu();
        (cpu.pending.nmi, cpu.nmi_blocked) = (true, true);
        self
    }

    /// Vectors that handlers have taken.
    pub fn taken(&self) -> Vec<u8> {
        (0..self.get(TAKEN)).map(|i| self.load(TAKEN + 8 + i, 1) as u8).collect()
    }

    /// A register of the virtual APIC.
    pub fn virtual_register(&self, offset: u64) -> u64 {
        self.load(VIRTUAL + offset, 4)
    }

    /// Writes one.
    pub fn set_virtual(&mut self, offset: u64, value: u32) -> &mut Self {
        self.machine.world.ram.store(VIRTUAL + offset, 4, value.into()).unwrap();
        self
    }

    /// A vector is requested: VIRR and RVI.
    pub fn request(&mut self, vector: u8) -> &mut Self {
        let at = 0x200 + u64::from(vector / 32) * 16;
        let word = self.virtual_register(at) as u32 | 1 << (vector % 32);
        self.set_virtual(at, word);
        let status = self.field(GUEST_INTERRUPT_STATUS);
        let rvi = (status & 0xff).max(vector.into());
        self.set_field(GUEST_INTERRUPT_STATUS, status & 0xff00 | rvi)
    }

    /// Whether VISR or VIRR has a vector.
    pub fn has_vector(&self, register: u64, vector: u8) -> bool {
        self.virtual_register(register + u64::from(vector / 32) * 16) >> (vector % 32) & 1 != 0
    }
}

fn vmcs(vmx: &Vmx, controls: &[Control]) -> Vmcs {
    let mut v = base::long(vmx);
    let always = [
        exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
        pin::EXTERNAL_INTERRUPT_EXITING,
        primary::ACTIVATE_SECONDARY_CONTROLS,
        // No MSR of an x2APIC causes an exit: a page of zeros.
        primary::USE_MSR_BITMAPS,
    ];
    for c in always.iter().chain(controls) {
        base::on(&mut v, *c);
        if c.field == tertiary::IPI_VIRTUALIZATION.field {
            base::on(&mut v, primary::ACTIVATE_TERTIARY_CONTROLS);
        }
    }
    for (field, value) in [
        (MSR_BITMAPS, 0x3_e000),
        (EPT_POINTER, EPT | 3 << 3 | 6),
        (VIRTUAL_APIC_ADDRESS, VIRTUAL),
        (APIC_ACCESS_ADDRESS, ACCESS),
        (POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, DESCRIPTOR),
        (PID_POINTER_TABLE_ADDRESS, TABLE),
        (GUEST_RIP, GUEST),
        (GUEST_RSP, GUEST_STACK),
        (HOST_RIP, HOST),
    ] {
        v[field] = value;
    }
    v[GUEST_CR4] |= cr4::OSFXSR;
    v
}

/// A store to the processor's own APIC, in xAPIC mode.
pub fn write_apic(a: &mut CodeAssembler, offset: u64, value: u32) -> Result {
    a.mov(rbx, 0xfee0_0000u64 + offset)?;
    a.mov(dword_ptr(rbx), value as i32)
}

/// It is enabled, and asks for a vector by a self-IPI.
pub fn self_ipi(a: &mut CodeAssembler, vector: u8) -> Result {
    write_apic(a, 0xf0, 0x1ff)?;
    write_apic(a, 0x300, 0x4_0000 | u32::from(vector))
}
