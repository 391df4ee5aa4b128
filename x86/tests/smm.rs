//! System management mode as programs see it: a handler in SMRAM, entered from every mode by an SMI that the program sends to itself, what it
//! finds and changes, and the way back.

use emu_core::bus::{Space, VcpuSignal, Wire};
use emu_core::engine::Arch;
use emu_core::machine::End;
use iced_x86::code_asm::*;
use x86::control::{cr0, cr4, efer};
use x86::platform::memory::SMRAM;
use x86::processor::X86;
use x86::registers::{RAX, RBX, RCX, RDX};
use x86::smm::memory::{Bridge, DECODE};
use x86_bare::*;

/// Where handlers leave what they find.
const MARK: u64 = NOTES;
const SMBASE: u64 = 0x3_0000;
const APIC: u64 = 0xfee0_0000;
/// Of memory in the machine, and of TSEG at its end.
const END: u64 = 0x80_0000;
const TSEG: (u64, u64) = (0x70_0000, 0x10_0000);

const MODELS: [&str; 2] = ["intel", "amd"];

/// Offsets in the state save maps: Intel's, AMD's.
struct Place(u64, u64);
const RIP: Place = Place(0xffd8, 0xff78);
const SAVED_RAX: Place = Place(0xff5c, 0xfff8);
const SAVED_RCX: Place = Place(0xff64, 0xfff0);
const SAVED_CR0: Place = Place(0xfff8, 0xff58);
const SAVED_CR4: Place = Place(0xfe40, 0xff48);
const SAVED_EFER: Place = Place(0xffe0, 0xfed0);
const SAVED_BASE: Place = Place(0xfef8, 0xff00);
const HALT: Place = Place(0xff02, 0xfec9);
const IO_RESTART: Place = Place(0xff00, 0xfec8);
const IO_TRAP: Place = Place(0xffa4, 0xfec0);

impl Place {
    fn of(&self, model: &str) -> u64 {
        if model == "intel" { self.0 } else { self.1 }
    }
}

/// Code for a handler; what it does with memory, it does in real mode's way with 32-bit addresses. It ends with RSM.
fn handler(code: Code) -> Vec<u8> {
    assemble(16, 0x8000, &|a| {
        code(a)?;
        a.rsm()
    })
}

/// An absolute address of 32 bits, as the handler's flat segments take it.
fn at_address(at: u64) -> AsmMemoryOperand {
    // A register must be there for the assembler to take 32-bit addresses in 16-bit code.
    dword_ptr(edi + at as i32)
}

struct Rig {
    bare: Bare,
    model: &'static str,
}

impl Rig {
    /// With a program, and 2 MiB at 20_0000 that paging maps to 0.
    fn new(model: &'static str, mode: In, processors: u32, code: Code) -> Self {
        let ram = &[(0, 0xa_0000), (0x10_0000, END - 0x10_0000), (SMRAM, 0x2_0000)];
        let setup = Setup { mode, processors, ram, page: |_| page::SUPERVISOR, turn: 100, ..Setup::of(model) };
        let mut bare = Bare::build(&setup);
        bare.put(PD + 8, page::SUPERVISOR | 0x80);
        bare.code(code);
        Rig { bare, model }
    }

    fn put(mut self, at: u64, bytes: &[u8]) -> Self {
        self.bare.machine.world.ram.write(at, bytes).unwrap();
        self
    }

    /// With a handler at the default SMBASE.
    fn with(self, handler: &[u8]) -> Self {
        self.put(SMBASE + 0x8000, handler)
    }

    /// The host bridge decodes so.
    fn decode(mut self, bridge: Bridge) -> Self {
        for v in 0..self.bare.machine.vcpus.len() as u32 {
            self.signal(v, VcpuSignal::Message { message: DECODE, value: bridge.pack() });
        }
        self
    }

    fn signal(&mut self, vcpu: u32, signal: VcpuSignal) {
        X86::signal(&mut self.bare.machine.vcpus[vcpu as usize].at(&mut self.bare.machine.world), signal);
    }

    fn run(&mut self) -> End {
        self.bare.go_on()
    }

    fn get(&self, at: u64, size: u8) -> u64 {
        self.bare.load(at, size)
    }

    fn saved(&self, place: &Place, size: u8) -> u64 {
        self.get(SMBASE + place.of(self.model), size)
    }

    fn reg(&self, r: u8) -> u64 {
        self.bare.reg(r)
    }

    fn cpu(&self) -> &X86 {
        &self.bare.machine.vcpus[0].arch
    }
}

/// An SMI to the processor itself: by the ICR.
fn smi(a: &mut CodeAssembler) -> Result {
    a.mov(esi, APIC as u32)?;
    a.mov(dword_ptr(esi + 0x310), 0)?;
    a.mov(dword_ptr(esi + 0x300), 0x4200)
}

const ALL: [In; 3] = [In::Real, In::Protected, In::Long];

#[test]
fn from_every_mode_and_back() {
    for model in MODELS {
        for mode in ALL {
            let mut r = Rig::new(model, mode, 1, &|a| {
                a.mov(eax, 0x1234_5678)?;
                a.stc()?;
                smi(a)?;
                a.setb(bl)?;
                a.hlt()
            })
            // What it finds in CR0, CS and SMBASE's segment.
            .with(&handler(&|a| {
                a.mov(edi, 0)?;
                a.mov(eax, cr0)?;
                a.mov(at_address(MARK), eax)?;
                a.mov(eax, cr4)?;
                a.mov(at_address(MARK + 4), eax)?;
                a.mov(ax, cs)?;
                a.mov(at_address(MARK + 8), eax)?;
                a.pushfd()?;
                a.pop(eax)?;
                a.mov(at_address(MARK + 12), eax)?;
                a.clc()
            }));
            let before = r.cpu().clone();
            assert_eq!(r.run(), End::Deadlock, "{model} {mode:?}");
            let found: Vec<_> = (0..4).map(|i| r.get(MARK + 4 * i, 4)).collect();
            assert_eq!(found[0] & (cr0::PE | cr0::PG | cr0::TS | cr0::EM), 0, "{model} {mode:?}");
            assert_eq!((found[1], found[2] & 0xffff, found[3]), (0, 0x3000, 2), "{model} {mode:?}");
            assert_eq!((r.reg(RAX), r.reg(RBX) & 0xff), (0x1234_5678, 1), "{model} {mode:?}");
            let after = r.cpu();
            assert_eq!(
                (after.cr0, after.cr3, after.cr4, after.efer, after.segments, after.ldtr, after.tr),
                (before.cr0, before.cr3, before.cr4, before.efer, before.segments, before.ldtr, before.tr)
            );
            assert_eq!(
                (after.gdtr, after.idtr, after.dr7, after.smm.is_on()),
                (before.gdtr, before.idtr, before.dr7, false)
            );
            assert_eq!((r.saved(&SAVED_RAX, 8), r.saved(&SAVED_CR0, 8)), (0x1234_5678, before.cr0));
            assert_eq!((r.saved(&SAVED_EFER, 8), r.saved(&SAVED_CR4, 4)), (before.efer, before.cr4));
            assert_eq!((r.saved(&SAVED_BASE, 4), r.saved(&HALT, 1)), (SMBASE, 0));
            assert_eq!(r.get(SMBASE + 0xfefc, 4) & 0x3_0000, 0x3_0000, "SMBASE relocation, I/O restart");
        }
    }
}

/// The handler runs at physical addresses: paging's other place is not seen, and is again afterwards.
#[test]
fn translations_are_the_modes_own() {
    for model in MODELS {
        let mut r = Rig::new(model, In::Long, 1, &|a| {
            a.mov(eax, dword_ptr(0x20_0000u64 + MARK))?;
            smi(a)?;
            a.mov(ebx, dword_ptr(0x20_0000u64 + MARK))?;
            a.hlt()
        })
        .with(&handler(&|a| {
            a.mov(edi, 0)?;
            a.mov(eax, at_address(0x20_0000 + MARK))?;
            a.mov(at_address(SMBASE + SAVED_RCX.of(model)), eax)
        }))
        .put(MARK, &[1])
        .put(0x20_0000 + MARK, &[2]);
        assert_eq!(r.run(), End::Deadlock);
        assert_eq!((r.reg(RAX), r.reg(RCX), r.reg(RBX)), (1, 2, 1), "{model}");
    }
}

#[test]
fn the_saved_state_can_be_changed() {
    for model in MODELS {
        let mut r = Rig::new(model, In::Long, 1, &|a| {
            smi(a)?;
            a.hlt()?;
            a.hlt()?;
            a.mov(edx, 7)?;
            a.hlt()
        })
        .with(&handler(&|a| {
            a.mov(edi, 0)?;
            a.add(at_address(SMBASE + RIP.of(model)), 2)
        }));
        assert_eq!((r.run(), r.reg(RDX)), (End::Deadlock, 7), "{model}");
    }
}

/// "Auto HALT Restart": as saved the processor goes back to HLT, with 0 it goes on behind it.
#[test]
fn out_of_hlt() {
    for model in MODELS {
        for restarts in [true, false] {
            let mut r = Rig::new(model, In::Long, 1, &|a| {
                a.hlt()?;
                a.mov(edx, 7)?;
                a.hlt()
            })
            .with(&handler(&|a| {
                a.mov(edi, 0)?;
                a.inc(at_address(MARK))?;
                a.mov(al, byte_ptr(edi + (SMBASE + HALT.of(model)) as i32))?;
                a.mov(byte_ptr(edi + (MARK + 4) as i32), al)?;
                if !restarts {
                    a.mov(byte_ptr(edi + (SMBASE + HALT.of(model)) as i32), 0)?;
                }
                Ok(())
            }));
            assert_eq!((r.run(), r.reg(RDX)), (End::Deadlock, 0), "{model}");
            r.signal(0, VcpuSignal::Pin { pin: x86::apic::pin::SMI, level: true });
            assert_eq!(r.run(), End::Deadlock);
            assert_eq!((r.get(MARK, 4), r.get(MARK + 4, 1)), (1, 1), "{model}: it was in HLT");
            assert_eq!(r.reg(RDX), if restarts { 0 } else { 7 }, "{model}");
        }
    }
}

/// Both processors move their SMRAM, one after the other; then each has its own.
#[test]
fn relocation_of_two() {
    for model in MODELS {
        let relocate = handler(&|a| {
            a.mov(edi, 0)?;
            // Each has its APIC ID: 5_0000, 6_0000.
            a.mov(eax, dword_ptr(edi + APIC as i32 + 0x20))?;
            a.shr(eax, 8)?;
            a.add(eax, 0x5_0000)?;
            a.mov(at_address(SMBASE + SAVED_BASE.of(model)), eax)
        });
        let mut r = Rig::new(model, In::Long, 2, &|a| {
            // The second waits for the first, which sends both SMIs: to itself, then to the other.
            let mut second = a.create_label();
            a.mov(esi, APIC as u32)?;
            a.mov(eax, dword_ptr(rsi + 0x20))?;
            a.shr(eax, 24)?;
            a.jne(second)?;
            for _ in 0..2 {
                for target in [0, 1 << 24] {
                    a.mov(dword_ptr(rsi + 0x310), target)?;
                    a.mov(dword_ptr(rsi + 0x300), 0x4200)?;
                    a.mov(ecx, 1000)?;
                    let mut delay = a.create_label();
                    a.set_label(&mut delay)?;
                    a.dec(ecx)?;
                    a.jne(delay)?;
                }
            }
            a.hlt()?;
            a.set_label(&mut second)?;
            a.hlt()?;
            a.jmp(second)
        })
        .with(&relocate);
        for (n, base) in [0x5_0000u64, 0x6_0000].into_iter().enumerate() {
            let own = handler(&|a| {
                a.mov(edi, 0)?;
                a.inc(at_address(MARK + 4 * n as u64))
            });
            r = r.put(base + 0x8000, &own);
        }
        assert_eq!(r.run(), End::Deadlock, "{model}");
        assert_eq!((r.get(MARK, 4), r.get(MARK + 4, 4)), (1, 1), "{model}");
        assert_eq!([0, 1].map(|v: usize| r.bare.machine.vcpus[v].arch.smm.base), [0x5_0000, 0x6_0000]);
    }
}

/// The compatible range: code in it runs, and outside of the mode there is something else.
#[test]
fn smram_is_for_the_mode_alone() {
    for model in MODELS {
        let bridge = Bridge { compatible: true, ..Bridge::default() };
        let mut r = Rig::new(model, In::Long, 1, &|a| {
            a.mov(eax, dword_ptr(0xa_9000u64))?;
            a.mov(dword_ptr(0xa_9000u64), 5)?;
            smi(a)?;
            a.mov(ebx, dword_ptr(0xa_9000u64))?;
            a.hlt()
        })
        .decode(bridge)
        .put(
            SMRAM + 0x8000,
            &handler(&|a| {
                a.mov(edi, 0)?;
                a.inc(at_address(0xa_9000))
            }),
        )
        .put(SMRAM + 0x9000, &[41]);
        r.bare.machine.vcpus[0].arch.smm.base = 0xa_0000;
        assert_eq!(r.run(), End::Deadlock);
        assert_eq!((r.reg(RAX), r.reg(RBX)), (0xffff_ffff, 0xffff_ffff), "{model}: nobody is there");
        assert_eq!((r.get(SMRAM + 0x9000, 4), r.get(SMRAM + SAVED_BASE.of(model), 4)), (42, 0xa_0000), "{model}");
    }
}

#[test]
fn tseg_is_for_the_mode_alone() {
    for model in MODELS {
        let (base, size) = TSEG;
        let mut r = Rig::new(model, In::Long, 1, &|a| {
            // A translation from before does not stay.
            a.mov(ecx, dword_ptr(base + 0x9000))?;
            smi(a)?;
            a.mov(ebx, dword_ptr(base + 0x9000))?;
            a.mov(dword_ptr(base + 0x9000), 5)?;
            a.hlt()
        })
        .put(
            base + 0x8000,
            &handler(&|a| {
                a.mov(edi, 0)?;
                a.inc(at_address(base + 0x9000))
            }),
        )
        .put(base + 0x9000, &[41])
        .decode(Bridge { tseg: Some((base, size)), ..Bridge::default() });
        r.bare.machine.vcpus[0].arch.smm.base = base as u32;
        assert_eq!(r.run(), End::Deadlock);
        assert_eq!((r.reg(RCX), r.reg(RBX), r.get(base + 0x9000, 4)), (0xffff_ffff, 0xffff_ffff, 42), "{model}");
    }
}

/// What cannot be is a shutdown; each rule by itself, and the state as it was is none.
#[test]
fn state_that_cannot_be_is_a_shutdown() {
    for model in MODELS {
        let cases: [(&Place, u64, bool); 8] = [
            (&SAVED_RAX, 0, false),
            (&SAVED_CR0, cr0::PG, true),
            (&SAVED_CR0, cr0::PE | cr0::NW, true),
            (&SAVED_CR0, cr0::PE | 1 << 32, true),
            (&SAVED_CR4, 1 << 15, true),
            (&SAVED_CR4, 0, true), // IA-32e mode without PAE
            (&SAVED_EFER, 1 << 1 | efer::LME, true),
            (&SAVED_CR4, cr4::PAE | cr4::OSFXSR, false),
        ];
        for (place, value, is_end) in cases {
            let at = (SMBASE + place.of(model)) as i32;
            let mut r = Rig::new(model, In::Long, 1, &|a| {
                smi(a)?;
                a.hlt()
            })
            .with(&handler(&|a| {
                a.mov(edi, 0)?;
                a.mov(dword_ptr(edi + at), value as u32)?;
                if value >> 32 != 0 {
                    a.mov(dword_ptr(edi + at + 4), (value >> 32) as u32)?;
                }
                Ok(())
            }));
            let end = r.run();
            assert_eq!(matches!(end, End::Shutdown(0, _)), is_end, "{model}: {value:#x}: {end:?}");
        }
    }
}

/// Outside of the mode, RSM is #UD.
#[test]
fn rsm_elsewhere() {
    let mut r = Rig::new("intel", In::Long, 1, &|a| a.rsm());
    assert_eq!((r.run(), r.bare.found()), (End::Deadlock, (6, 0, CODE)));
}

/// One SMI is remembered in the mode, and taken behind RSM; NMI waits too, unless IRET lets it in.
#[test]
fn what_waits() {
    for model in MODELS {
        let mut r = Rig::new(model, In::Long, 1, &|a| {
            smi(a)?;
            a.nop()?;
            a.hlt()
        })
        .with(&handler(&|a| {
            let mut only_once = a.create_label();
            a.mov(edi, 0)?;
            a.inc(at_address(MARK))?;
            a.cmp(at_address(MARK), 1)?;
            a.jne(only_once)?;
            for command in [0x4200, 0x4200, 0x4400] {
                a.mov(esi, APIC as u32)?;
                a.mov(dword_ptr(esi + 0x300), command)?;
            }
            a.mov(eax, at_address(MARK + 4))?;
            a.mov(at_address(MARK + 8), eax)?;
            a.set_label(&mut only_once)
        }));
        r.bare.handler(2, &|a| {
            a.inc(dword_ptr(MARK + 4))?;
            a.iretq()
        });
        assert_eq!(r.run(), End::Deadlock, "{model}");
        assert_eq!((r.get(MARK, 4), r.get(MARK + 4, 4), r.get(MARK + 8, 4)), (2, 1, 0), "{model}");
    }
}

mod chipset {
    use emu_core::device::{Access, Device, DeviceCx};

    /// What answers to so many writes by an SMI.
    pub struct Answers(pub u8);

    impl Device for Answers {
        fn name(&self) -> &'static str {
            "answers"
        }
        fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
            0
        }
        fn write(&mut self, _: Access, _: u64, cx: &mut DeviceCx) {
            if let Some(left) = self.0.checked_sub(1) {
                self.0 = left;
                cx.line(0, true);
            }
        }
        fn reset(&mut self) {}
        fn save(&self) -> Vec<u8> {
            vec![self.0]
        }
        fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.0 = bytes[0];
            Ok(())
        }
    }
}

/// "I/O Instruction Restart": the handler sees the instruction, and may have it executed again.
#[test]
fn instructions_of_io() {
    for model in MODELS {
        let mut r = Rig::new(model, In::Long, 1, &|a| {
            a.mov(eax, 0x55)?;
            a.mov(edx, 0xb2)?;
            a.out(dx, al)?;
            a.inc(ebx)?;
            a.hlt()
        })
        .with(&handler(&|a| {
            a.mov(edi, 0)?;
            a.mov(byte_ptr(edi + (SMBASE + IO_RESTART.of(model)) as i32), 0xff)
        }));
        let bus = &mut r.bare.machine.world.bus;
        let chipset = bus.add(Box::new(chipset::Answers(1)));
        bus.map(Space::Port, 0xb2, 1, chipset, 0, 0);
        bus.wire(chipset, 0, Wire::Vcpu { vcpu: 0, pin: x86::apic::pin::SMI_OF_IO });
        // The chipset answers to the OUT, which is the third instruction; for another one this is not.
        assert_eq!(r.bare.machine.run(1), End::Limit);
        r.signal(0, VcpuSignal::Pin { pin: x86::apic::pin::SMI_OF_IO, level: true });
        assert_eq!(r.bare.machine.run(2), End::Limit);
        assert!(!r.cpu().smm.is_on());
        assert_eq!(r.run(), End::Deadlock);
        let expected = if model == "intel" { 0xb2_0003 } else { 0xb2_0012 };
        assert_eq!((r.saved(&IO_TRAP, 4), r.reg(RBX)), (expected, 1), "{model}");
        assert_eq!(r.bare.machine.retired(), 3 + 3 + 3, "{model}: the OUT twice");
    }
}

/// A machine in the middle of a handler goes on from its snapshot.
#[test]
fn snapshots_hold_it() {
    for model in MODELS {
        let rig = || {
            Rig::new(model, In::Long, 1, &|a| {
                smi(a)?;
                a.inc(ebx)?;
                a.hlt()
            })
            .with(&handler(&|a| {
                a.mov(edi, 0)?;
                a.inc(at_address(MARK))
            }))
        };
        let (mut once, mut other) = (rig(), rig());
        assert_eq!(once.bare.machine.run(4), End::Limit);
        assert!(once.cpu().smm.is_on());
        other.bare.machine.restore(&once.bare.machine.save()).unwrap();
        assert_eq!((once.run(), other.run()), (End::Deadlock, End::Deadlock));
        assert!(once.bare.machine.state_hash() == other.bare.machine.state_hash());
        assert_eq!((other.get(MARK, 4), other.reg(RBX)), (1, 1));
        assert!(!X86::is_awake(&other.bare.machine.vcpus[0].at(&mut other.bare.machine.world)));
    }
}

#[test]
fn registers_of_the_mode() {
    let read = |a: &mut CodeAssembler, number: u32| -> Result {
        a.mov(ecx, number)?;
        a.rdmsr()
    };
    let mut r = Rig::new("intel", In::Long, 1, &|a| {
        smi(a)?;
        read(a, 0x34)?;
        a.mov(ebx, eax)?;
        read(a, 0x1f2)
    })
    .with(&handler(&|a| {
        a.mov(ecx, 0x1f2)?;
        a.mov(eax, TSEG.0 as u32 | 6)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.mov(ecx, 0x1f3)?;
        a.mov(eax, 0xfff0_0800u32)?;
        a.wrmsr()
    }));
    assert_eq!(
        (r.run(), r.bare.raised()),
        (End::Deadlock, (13, 0)),
        "IA32_SMRR_PHYSBASE is not there outside of the mode"
    );
    assert_eq!(r.reg(RBX), 1);
    let mut r = Rig::new("amd", In::Long, 1, &|a| {
        read(a, 0xc001_0111)?;
        a.mov(ebx, eax)?;
        a.mov(ecx, 0xc001_0015u32)?;
        a.mov(eax, 1)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.mov(ecx, 0xc001_0111u32)?;
        a.wrmsr()
    });
    assert_eq!((r.run(), r.bare.raised()), (End::Deadlock, (13, 0)), "locked");
    assert_eq!((r.reg(RBX), r.cpu().smm.base), (0x3_0000, 0x3_0000));
}

const SMM_CTL: u32 = 0xc001_0116;
const SMM_KEY: u32 = 0xc001_0119;
const HWCR: u32 = 0xc001_0015;
/// Of SMM_CTL.
const DISMISS: u64 = 1;
const ENTER: u64 = 1 << 1;
const EXIT: u64 = 1 << 3;

/// SMRAM is there between ENTER and EXIT, and an SMI that waits there is forgotten with DISMISS.
#[test]
fn smm_ctl_enters_and_leaves() {
    const VIDEO: u64 = 0xa_1000;
    for (dismisses, handled) in [(true, 0), (false, 1)] {
        let mut r = Rig::new("amd,-no_smm_ctl_msr", In::Long, 1, &|a| {
            write_msr(a, SMM_CTL, ENTER)?;
            a.mov(dword_ptr(VIDEO), 0x1234)?;
            smi(a)?;
            if dismisses {
                write_msr(a, SMM_CTL, DISMISS)?;
            }
            write_msr(a, SMM_CTL, EXIT)?;
            a.mov(dword_ptr(VIDEO), 0x5678)?;
            a.hlt()
        })
        .decode(Bridge { compatible: true, ..Bridge::default() })
        .with(&handler(&|a| {
            a.mov(edi, 0)?;
            a.inc(at_address(MARK))
        }));
        assert_eq!(r.run(), End::Deadlock);
        assert_eq!((r.get(SMRAM + 0x1000, 4), r.get(MARK, 4), r.cpu().smm.is_on()), (0x1234, handled, false));
    }
}

/// "SMM-Lock": SMM_CTL cannot be written, until the key that was set before is written again.
#[test]
fn smm_lock_has_a_key() {
    let lock = |a: &mut CodeAssembler| {
        a.mov(ecx, HWCR)?;
        a.rdmsr()?;
        a.or(eax, 1)?;
        a.wrmsr()
    };
    for (key, then, vector) in [(0x1234_5678_9abc, 0x1234_5678_9abc, 0), (0x1234, 0x1235, 13), (0, 0, 13)] {
        let mut g = Bare::new("amd,-no_smm_ctl_msr");
        g.run(&|a| {
            write_msr(a, SMM_KEY, key)?;
            lock(a)?;
            write_msr(a, SMM_KEY, then)?;
            write_msr(a, SMM_CTL, DISMISS)?;
            a.hlt()
        });
        assert_eq!(g.raised().0, vector, "{key:#x} {then:#x}");
    }
    // Without the MSR, and to read it.
    for (model, reads) in [("amd", false), ("amd,-no_smm_ctl_msr", true)] {
        let mut g = Bare::new(model);
        g.run(&|a| {
            write_msr(a, SMM_KEY, 0)?;
            a.mov(ecx, SMM_CTL)?;
            if reads { a.rdmsr() } else { a.wrmsr() }?;
            a.hlt()
        });
        assert_eq!(g.raised().0, 13, "{model}");
    }
}
