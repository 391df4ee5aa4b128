//! CPUID, CR4, MSRs, XSAVE.

use iced_x86::code_asm::*;
use x86::control::{cr0, cr4, user_cet};
use x86::model::{CpuModel, Query, cpuid};
use x86::registers::{RAX, RBX};

use crate::machine::*;

fn answer(model: &str, leaf: u32, subleaf: u32) -> [u32; 4] {
    let model = CpuModel::parse(model).unwrap();
    let query = Query {
        model,
        id: 0,
        cores: 1.into(),
        frequency: Default::default(),
        apic: true,
        cr4: 0,
        xcr0: 7,
        xss: model.xss_bits(),
        misc_enable: 0,
    };
    cpuid(&query, leaf, subleaf)
}

#[test]
fn cpuid_tells() {
    for (model, shstk, ibt) in
        [("intel,-shstk,-ibt", 0, 0), ("intel,-ibt", 1, 0), ("intel,-shstk", 0, 1), ("intel", 1, 1), ("amd", 1, 0)]
    {
        let seven = answer(model, 7, 0);
        assert_eq!((seven[2] >> 7 & 1, seven[3] >> 20 & 1), (shstk, ibt), "{model}");
        let there = shstk | ibt;
        assert_eq!(answer(model, 0xd, 1)[2], there * 0x1800, "{model}");
        assert_eq!(answer(model, 0xd, 11), [16 * there, 0, there, 0]);
        assert_eq!(answer(model, 0xd, 12), [24 * there, 0, there, 0]);
        assert_eq!(answer(model, 0xd, 1)[1], 832 + 40 * there);
    }
}

/// CR4.CET and CR0.WP: the one needs the other ("Control Registers").
#[test]
fn control_registers() {
    let mut g = guest(0, 0);
    g.run(&|a| {
        a.mov(rax, cr0)?;
        a.btr(rax, 16)?;
        a.mov(cr0, rax)
    });
    assert_eq!(g.raised(), (13, 0));
    for (model, wp, vector) in
        [("intel,-shstk", true, 0), ("intel,-ibt", false, 13), ("intel,-shstk,-ibt", true, 13), ("amd", true, 0)]
    {
        let mut g = guest_of(model, 0, 0);
        g.cpu().cr4 &= !cr4::CET;
        if !wp {
            g.cpu().cr0 &= !cr0::WP;
        }
        g.run(&|a| {
            a.mov(rax, cr4)?;
            a.bts(rax, 23)?;
            a.mov(cr4, rax)?;
            a.hlt()
        });
        assert_eq!(g.raised().0, vector, "{model}");
    }
}

/// "Architectural MSRs": what each takes.
#[test]
fn msrs() {
    const HIGH: u64 = 1 << 63;
    const CANONICAL: u64 = 0xffff_8000_0000_0000;
    let (both, shstk, ibt) = ("intel", "intel,-ibt", "intel,-shstk");
    for (model, msr, value, taken) in [
        (both, 0x6a0, 0x43f, true),
        (both, 0x6a2, 0x83f, true),
        (both, 0x6a0, 0xc00, false),
        (both, 0x6a0, 0x40, false),
        (both, 0x6a2, 0x200, false),
        (both, 0x6a2, CANONICAL, true),
        (both, 0x6a2, HIGH, false),
        (shstk, 0x6a0, 3, true),
        (shstk, 0x6a0, 4, false),
        (shstk, 0x6a2, 0x1000, false),
        (ibt, 0x6a0, 0xfffc & !0xbc0, true),
        (ibt, 0x6a2, 1, false),
        ("amd", 0x6a2, 3, true),
        ("amd", 0x6a2, 4, false),
        ("intel,-shstk,-ibt", 0x6a0, 0, false),
        (both, 0x6a4, CANONICAL | 4, true),
        (both, 0x6a5, 2, false),
        (both, 0x6a6, 1, false),
        (both, 0x6a7, 0x1004, true),
        (both, 0x6a7, HIGH, false),
        (ibt, 0x6a7, 0, false),
        (both, 0x6a8, 0x1003, true),
        (both, 0x6a8, HIGH, false),
        (ibt, 0x6a8, 0, false),
        (both, 0x6a1, 0, false),
        (both, 0xda0, 0x1800, true),
        (both, 0xda0, 0x2000, false),
        ("intel,-shstk,-ibt", 0xda0, 0x800, false),
    ] {
        let mut g = guest_of(model, 0, 0);
        g.cpu().cr4 &= !cr4::CET;
        g.run(&|a| {
            write_msr(a, msr, value)?;
            a.rdmsr()?;
            a.shl(rdx, 32)?;
            a.or(rax, rdx)?;
            a.hlt()
        });
        let expected = if taken { (0, 0) } else { (13, 0) };
        assert_eq!(g.raised(), expected, "{model}: {msr:#x} = {value:#x}");
        assert!(!taken || g.reg(RAX) == value, "{model}: {msr:#x} = {value:#x}");
    }
}

/// "CET State": components 11 and 12, of XSAVES and XRSTORS alone.
#[test]
fn components() {
    const AREA: u64 = 0xa_0000;
    let mut g = guest(0, 0);
    g.cpu().xcr0 = 7;
    g.cpu().xss = 0x1800;
    g.cpu().cet.ssp = [0x1000, 0x2000, 0x3000, 0x4000];
    g.cpu().cet.user = user_cet::WR_SHSTK_EN;
    g.run(&|a| {
        a.mov(rdi, AREA)?;
        a.mov(eax, 0x1800)?;
        a.xor(edx, edx)?;
        a.xsaves(ptr(rdi))?;
        a.mov(rbx, qword_ptr(rdi + 512))?;
        // One is changed, the other forgotten.
        a.mov(dword_ptr(rdi + 584), 0x5000)?;
        a.mov(dword_ptr(rdi + 512), 0x800)?;
        a.xrstors(ptr(rdi))?;
        a.hlt()
    });
    assert_eq!((g.raised(), g.reg(RBX), g.get(AREA + 520)), ((0, 0), 0x1800, 1 << 63 | 0x1800));
    assert_eq!([576, 592, 600, 608].map(|at| g.get(AREA + at)), [2, 0x1000, 0x2000, 0x3000]);
    assert_eq!((g.cpu().cet.user, g.cpu().cet.ssp), (2, [0, 0, 0, 0x5000]));
    // What WRMSR does not take, XRSTORS does not either.
    for (at, value) in [(576, 0x40u64), (576, 0xc00), (584, 2), (592, 1), (608, 1 << 62)] {
        let mut g = guest(0, 0);
        g.cpu().xcr0 = 7;
        g.cpu().xss = 0x1800;
        g.put(AREA + 512, 0x1800);
        g.put(AREA + 520, 1 << 63 | 0x1800);
        g.put(AREA + at, value);
        g.run(&|a| {
            a.mov(rdi, AREA)?;
            a.mov(eax, 0x1800)?;
            a.xor(edx, edx)?;
            a.xrstors(ptr(rdi))
        });
        assert_eq!((g.raised(), g.cpu().cet.ssp[3]), ((13, 0), USER_SHADOW + PAGE), "{at} {value:#x}");
    }
    // XSAVEC knows nothing of them.
    let mut g = guest(0, 0);
    g.cpu().xcr0 = 7;
    g.cpu().xss = 0x1800;
    g.run(&|a| {
        a.mov(rdi, AREA)?;
        a.mov(eax, 0x1800)?;
        a.xor(edx, edx)?;
        a.xsavec(ptr(rdi))?;
        a.hlt()
    });
    assert_eq!((g.get(AREA + 512), g.get(AREA + 520)), (0, 1 << 63));
}
