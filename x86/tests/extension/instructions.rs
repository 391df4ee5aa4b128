//! Every intercept of an instruction, and what comes first where an instruction could fault too.

use iced_x86::code_asm::*;

use crate::machine::{CODE, Code, DATA, HANDLERS, Rig};
use crate::toy::{Order, Toy};

/// The model, the intercept's name, the instruction.
const INSTRUCTIONS: &[(&str, &str, Code)] = &[
    ("intel", "MovToCr", |a| a.mov(cr0, rax).unwrap()),
    ("intel", "MovToCr", |a| a.mov(cr3, rax).unwrap()),
    ("intel", "MovToCr", |a| a.mov(cr8, rax).unwrap()),
    ("intel", "MovFromCr", |a| a.mov(rax, cr4).unwrap()),
    ("intel", "MovFromCr", |a| a.mov(rax, cr8).unwrap()),
    ("intel", "Clts", |a| a.clts().unwrap()),
    ("intel", "Lmsw", |a| a.lmsw(ax).unwrap()),
    ("intel", "Lmsw", |a| a.lmsw(word_ptr(DATA)).unwrap()),
    ("intel", "Smsw", |a| a.smsw(ax).unwrap()),
    ("intel", "MovToDr", |a| a.mov(dr0, rax).unwrap()),
    ("intel", "MovFromDr", |a| a.mov(rax, dr7).unwrap()),
    ("intel", "Gdtr", |a| a.sgdt(ptr(DATA)).unwrap()),
    ("intel", "Gdtr", |a| a.sidt(ptr(DATA)).unwrap()),
    ("intel", "Gdtr", |a| a.lgdt(ptr(DATA)).unwrap()),
    ("intel", "Gdtr", |a| a.lidt(ptr(DATA)).unwrap()),
    ("intel", "Ldtr", |a| a.sldt(ax).unwrap()),
    ("intel", "Ldtr", |a| a.str(ax).unwrap()),
    ("intel", "Ldtr", |a| a.lldt(ax).unwrap()),
    ("intel", "Ldtr", |a| a.ltr(ax).unwrap()),
    ("intel", "In", |a| a.in_(al, 0x60).unwrap()),
    ("intel", "In", |a| a.insb().unwrap()),
    ("intel", "In", |a| a.rep().insd().unwrap()),
    ("intel", "Out", |a| a.out(dx, eax).unwrap()),
    ("intel", "Out", |a| a.rep().outsb().unwrap()),
    ("intel", "Rdmsr", |a| a.rdmsr().unwrap()),
    ("intel", "Wrmsr", |a| a.wrmsr().unwrap()),
    ("intel,+wrmsrns", "Wrmsrns", |a| a.wrmsrns().unwrap()),
    ("intel,+msrlist", "Rdmsrlist", |a| a.rdmsrlist().unwrap()),
    ("intel,+msrlist", "Wrmsrlist", |a| a.wrmsrlist().unwrap()),
    ("intel,+msr_imm", "RdmsrImmediate", |a| a.db(&[0xc4, 0xe7, 0x7b, 0xf6, 0xc3, 0x74, 1, 0, 0]).unwrap()),
    ("intel,+msr_imm", "WrmsrnsImmediate", |a| a.db(&[0xc4, 0xe7, 0x7a, 0xf6, 0xc3, 0x74, 1, 0, 0]).unwrap()),
    ("intel,+user_msr", "Urdmsr", |a| a.db(&[0xf2, 0x0f, 0x38, 0xf8, 0xc3]).unwrap()),
    ("intel,+user_msr", "Uwrmsr", |a| a.db(&[0xf3, 0x0f, 0x38, 0xf8, 0xc3]).unwrap()),
    ("intel", "Cpuid", |a| a.cpuid().unwrap()),
    ("intel", "Hlt", |a| a.hlt().unwrap()),
    ("intel", "Pause", |a| a.pause().unwrap()),
    ("intel", "Monitor", |a| a.monitor().unwrap()),
    ("intel", "Mwait", |a| a.mwait().unwrap()),
    ("amd", "Monitor", |a| a.monitorx().unwrap()),
    ("amd", "Mwait", |a| a.mwaitx().unwrap()),
    ("intel", "Umwait", |a| a.tpause(ecx).unwrap()),
    ("intel", "Invlpg", |a| a.invlpg(ptr(DATA)).unwrap()),
    ("intel", "Invpcid", |a| a.invpcid(rcx, ptr(DATA)).unwrap()),
    ("amd", "Invlpgb", |a| a.invlpgb().unwrap()),
    ("amd", "Tlbsync", |a| a.tlbsync().unwrap()),
    ("intel", "Invd", |a| a.invd().unwrap()),
    ("intel", "Wbinvd", |a| a.wbinvd().unwrap()),
    ("intel", "Wbnoinvd", |a| a.wbnoinvd().unwrap()),
    ("intel", "Rdtsc", |a| a.rdtsc().unwrap()),
    ("intel", "Rdtscp", |a| a.rdtscp().unwrap()),
    ("intel", "Rdpmc", |a| a.rdpmc().unwrap()),
    ("amd", "Rdpru", |a| a.rdpru().unwrap()),
    ("intel", "Rdrand", |a| a.rdrand(r9w).unwrap()),
    ("intel", "Rdseed", |a| a.rdseed(r9).unwrap()),
    ("intel", "Xsetbv", |a| a.xsetbv().unwrap()),
    ("intel", "Xsaves", |a| a.xsaves(ptr(DATA)).unwrap()),
    ("intel", "Xrstors", |a| a.xrstors(ptr(DATA)).unwrap()),
    ("intel", "Pushf", |a| a.pushfq().unwrap()),
    ("intel", "Popf", |a| a.popfq().unwrap()),
    ("intel", "Iret", |a| a.iretq().unwrap()),
    ("intel", "Rsm", |a| a.rsm().unwrap()),
    ("intel", "SoftwareInterrupt", |a| a.int(0x80).unwrap()),
    ("intel", "Icebp", |a| a.int1().unwrap()),
    ("intel", "Exception", |a| a.int3().unwrap()),
    ("intel", "Exception", |a| a.ud2().unwrap()),
];

/// Registers with which none of them faults.
fn ready(rig: &mut Rig) {
    rig.set(0, 0x8001_0011); // RAX: CR0 as it is, but for CR0.NE, which may be clear
    rig.set(3, 0x1f80);
    for r in [1, 2] {
        rig.set(r, 0);
    }
    rig.set(6, DATA);
    rig.set(7, DATA);
}

/// Lets programs access the MSR that RAX names: IA32_UARCH_MISC_CTL.
fn permit(rig: &mut Rig) {
    const USER_MSR_CTL: u32 = 0x1c;
    rig.set(0, 0x1b01);
    for at in [0x1b01 / 8, 2048 + 0x1b01 / 8] {
        rig.machine.world.ram.store(DATA + at, 1, 2).unwrap();
    }
    x86::msr::write(&mut rig.at_work(), USER_MSR_CTL, DATA | 1).unwrap();
}

/// Each is taken in both orders, before it has done anything, and the extension can tell where it is and how long.
#[test]
fn every_instruction_is_asked_about() {
    for order in [Order::Vmx, Order::Svm] {
        for (model, name, code) in INSTRUCTIONS {
            let mut a = CodeAssembler::new(64).unwrap();
            code(&mut a);
            let what = a.instructions()[0];
            let bytes = a.assemble(CODE + 1).unwrap();
            let mut rig = Rig::new(model, Toy::new(order, &[name]), |a| {
                a.nop().unwrap();
                code(a);
            });
            ready(&mut rig);
            if *name == "Mwait" || *name == "Monitor" || *name == "Xsetbv" {
                rig.set(0, DATA | 1);
            }
            match *name {
                "Xsetbv" => rig.set(0, 7),
                // An element.
                "In" | "Out" => rig.set(1, 1),
                "Rdmsrlist" | "Wrmsrlist" => rig.set(1, 2),
                "Urdmsr" | "Uwrmsr" => permit(&mut rig),
                "MovToCr" if what.op0_register() == iced_x86::Register::CR3 => rig.set(0, crate::machine::PML4),
                "MovToCr" if what.op0_register() == iced_x86::Register::CR8 => rig.set(0, 3),
                _ => {}
            }
            let (registers, cpu) = (rig.machine.vcpus[0].core.regs, rig.cpu().clone());
            rig.run();
            let exits = rig.exits();
            assert_eq!(exits.len(), 1, "{order:?} {what}: {exits:?}, vector {:?}", rig.vector());
            let exit = &exits[0];
            assert!(exit.what.starts_with(name), "{what}: {exit:?}");
            assert_eq!((exit.pc, exit.delivering), (CODE + 1, None), "{what}");
            if !exit.what.contains("vector: 6,") {
                assert_eq!(usize::from(exit.length), bytes.len(), "{what}");
            }
            assert_eq!(rig.machine.vcpus[0].core.regs[..16], registers[..16], "{what}");
            let now = rig.cpu();
            assert_eq!(
                (now.cr0, now.cr3, now.cr4, now.gdtr, now.dr7),
                (cpu.cr0, cpu.cr3, cpu.cr4, cpu.gdtr, cpu.dr7),
                "{what}"
            );
        }
    }
}

/// None is asked about while no guest is at work.
#[test]
fn a_host_is_asked_about_nothing() {
    let names: Vec<&str> = INSTRUCTIONS.iter().map(|(_, name, _)| *name).collect();
    let mut rig = Rig::new("intel", Toy { guest: false, ..Toy::new(Order::Vmx, &names) }, |a| {
        a.mov(rax, cr0).unwrap();
        a.mov(cr0, rax).unwrap();
        a.cpuid().unwrap();
        a.rdtsc().unwrap();
        a.pushfq().unwrap();
        a.popfq().unwrap();
    });
    rig.run();
    assert!(rig.exits().is_empty());
    assert_eq!(rig.vector(), None);
}

/// What happens first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Exit,
    Fault(u64),
}
use First::{Exit, Fault};

/// The intercept, an instruction that would fault, and what VMX and SVM do.
const ORDERS: &[(&str, Code, First, First)] = &[
    // CR0.PG without CR0.PE.
    (
        "MovToCr",
        |a| {
            a.mov(eax, 0x8000_0000u32).unwrap();
            a.mov(cr0, rax).unwrap();
        },
        Exit,
        Fault(13),
    ),
    // Reserved bits.
    (
        "MovToCr",
        |a| {
            a.mov(eax, 0x8000_0000u32).unwrap();
            a.mov(cr4, rax).unwrap();
        },
        Exit,
        Fault(13),
    ),
    (
        "MovToCr",
        |a| {
            a.mov(eax, 16).unwrap();
            a.mov(cr8, rax).unwrap();
        },
        Exit,
        Fault(13),
    ),
    (
        "MovToDr",
        |a| {
            a.mov(rax, 1u64 << 32).unwrap();
            a.mov(dr7, rax).unwrap();
        },
        Exit,
        Fault(13),
    ),
    // General detect.
    (
        "MovFromDr",
        |a| {
            a.mov(eax, 0x2400).unwrap();
            a.mov(dr7, rax).unwrap();
            a.mov(rax, dr0).unwrap();
        },
        Exit,
        Fault(1),
    ),
    // There is no such register with CR4.DE.
    (
        "MovFromDr",
        |a| {
            a.mov(rax, cr4).unwrap();
            a.or(rax, 8).unwrap();
            a.mov(cr4, rax).unwrap();
            a.mov(rax, dr4).unwrap();
        },
        Fault(6),
        Fault(6),
    ),
    (
        "Monitor",
        |a| {
            a.mov(ecx, 1).unwrap();
            a.monitor().unwrap();
        },
        Exit,
        Fault(13),
    ),
    (
        "Mwait",
        |a| {
            a.mov(ecx, 2).unwrap();
            a.mwait().unwrap();
        },
        Exit,
        Fault(13),
    ),
    (
        "Invpcid",
        |a| {
            a.mov(ecx, 4).unwrap();
            a.invpcid(rcx, ptr(DATA)).unwrap();
        },
        Exit,
        Fault(13),
    ),
    (
        "Xsetbv",
        |a| {
            a.mov(ecx, 1).unwrap();
            a.xsetbv().unwrap();
        },
        Exit,
        Exit,
    ),
    // There is no such MSR, no such counter: that is the hypervisor's business.
    (
        "Rdmsr",
        |a| {
            a.mov(ecx, 0x7777).unwrap();
            a.rdmsr().unwrap();
        },
        Exit,
        Exit,
    ),
    (
        "Wrmsr",
        |a| {
            a.mov(ecx, 0x7777).unwrap();
            a.wrmsr().unwrap();
        },
        Exit,
        Exit,
    ),
    (
        "Rdpmc",
        |a| {
            a.mov(ecx, 0x7777).unwrap();
            a.rdpmc().unwrap();
        },
        Exit,
        Exit,
    ),
    // The operand's page is absent.
    ("Gdtr", |a| a.lgdt(ptr(crate::machine::ABSENT)).unwrap(), Exit, Exit),
];

#[test]
fn faults_and_exits_come_in_the_vendors_order() {
    for (name, code, vmx, svm) in ORDERS {
        for (order, first) in [(Order::Vmx, vmx), (Order::Svm, svm)] {
            let mut rig = Rig::new("intel", Toy::new(order, &[name]), code);
            rig.run();
            let exits = rig.exits();
            let got = rig.vector().map_or(Exit, Fault);
            assert_eq!(got, *first, "{order:?} {name} {exits:?}");
            assert_eq!(exits.len(), usize::from(*first == Exit), "{order:?} {name}");
        }
    }
}

/// At CPL 3 the privilege level comes first for all that need CPL 0.
#[test]
fn the_privilege_level_comes_before_exits() {
    let privileged: &[(&str, Code)] = &[
        ("MovToCr", |a| a.mov(cr0, rax).unwrap()),
        ("MovFromCr", |a| a.mov(rax, cr0).unwrap()),
        ("Clts", |a| a.clts().unwrap()),
        ("Lmsw", |a| a.lmsw(ax).unwrap()),
        ("MovToDr", |a| a.mov(dr0, rax).unwrap()),
        ("Rdmsr", |a| a.rdmsr().unwrap()),
        ("Wrmsr", |a| a.wrmsr().unwrap()),
        ("Hlt", |a| a.hlt().unwrap()),
        ("Invd", |a| a.invd().unwrap()),
        ("Wbinvd", |a| a.wbinvd().unwrap()),
        ("Invlpg", |a| a.invlpg(ptr(DATA)).unwrap()),
        ("Invpcid", |a| a.invpcid(rcx, ptr(DATA)).unwrap()),
        ("Xsetbv", |a| a.xsetbv().unwrap()),
        ("Ldtr", |a| a.lldt(ax).unwrap()),
        ("In", |a| a.in_(al, 0x60).unwrap()),
    ];
    for (name, code) in privileged {
        let mut rig = Rig::new("intel", Toy::new(Order::Vmx, &[name]), code);
        // Pages for all, and the handlers' stack.
        for page in [CODE >> 12, DATA >> 12, 14, 15] {
            let at = crate::machine::PT + 8 * page;
            let entry = rig.machine.world.ram.load(at, 8).unwrap();
            rig.put(at, entry | 4);
        }
        // No port is permitted.
        rig.put(crate::machine::TSS + 0x60, 0xffff << 48);
        rig.put(crate::machine::TSS + 4, crate::machine::STACK - 0x800);
        for (i, d) in [(1, 0xa0fb), (2, 0xc0f3)] {
            rig.cpu().segments[i].attributes.0 = d;
            rig.cpu().segments[i].selector |= 3;
        }
        rig.run();
        if *name == "Hlt" {
            // The handler of #GP has a HLT of its own.
            assert_eq!(rig.exits()[0].pc, HANDLERS + 32 * 13);
            continue;
        }
        assert_eq!((rig.vector(), rig.exits().len()), (Some(13), 0), "{name} {:?}", rig.exits());
    }
}
