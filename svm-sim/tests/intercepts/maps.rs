//! "IOIO Intercepts" and "MSR Intercepts": the maps of permissions.

use iced_x86::code_asm::*;
use svm_sim::exit::code::*;
use svm_sim::vmcb::*;
use x86_bare::{Bare, Result};

use crate::base::{Base, GUEST, IOPM, MSRPM, intercept, machine, read};

/// The exit of a guest that does this, with bits set in a map.
fn exit(
    code: u64,
    map: u64,
    bits: &[u64],
    change: fn(&mut Vmcb),
    guest: &dyn Fn(&mut CodeAssembler) -> Result,
) -> Bare {
    let mut v = Base::Long.vmcb();
    intercept(&mut v, code);
    change(&mut v);
    let mut bare = machine("amd", &v);
    for bit in bits {
        let at = map + bit / 64 * 8;
        bare.put(at, bare.get(at) | 1 << (bit % 64));
    }
    bare.assemble(GUEST, &|a| {
        guest(a)?;
        a.vmmcall()
    });
    bare.machine.run(1000);
    bare
}

fn is_io(bits: &[u64], change: fn(&mut Vmcb), guest: &dyn Fn(&mut CodeAssembler) -> Result) -> bool {
    read(&exit(IOIO, IOPM, bits, change, guest), EXITCODE) == IOIO
}

fn in_of(port: u64, size: u8) -> impl Fn(&mut CodeAssembler) -> Result {
    move |a| {
        a.mov(edx, port as u32)?;
        match size {
            1 => a.in_(al, dx),
            2 => a.in_(ax, dx),
            _ => a.in_(eax, dx),
        }
    }
}

#[test]
fn any_byte_of_the_access_counts() {
    for port in [0u64, 0x3f8, 0x7fff, 0xfffc] {
        for size in [1u8, 2, 4] {
            for bit in port..port + 6 {
                let is_its = bit < port + u64::from(size);
                assert_eq!(is_io(&[bit], |_| {}, &in_of(port, size)), is_its, "{port:#x}, {size}, {bit:#x}");
            }
            if port > 0 {
                assert!(!is_io(&[port - 1], |_| {}, &in_of(port, size)), "{port:#x}, {size}");
            }
        }
    }
}

/// The map has a few bits in its third page, for accesses that go beyond the last port.
#[test]
fn accesses_beyond_the_last_port() {
    assert!(is_io(&[0x1_0000], |_| {}, &in_of(0xffff, 2)));
    assert!(is_io(&[0x1_0002], |_| {}, &in_of(0xffff, 4)));
    assert!(!is_io(&[0x1_0001], |_| {}, &in_of(0xffff, 2)));
    assert!(!is_io(&[0], |_| {}, &in_of(0xffff, 4)), "they do not begin anew");
}

#[test]
fn the_low_bits_of_an_address_do_not_count() {
    assert!(is_io(&[0x80], |v| v.set(IOPM_BASE_PA, IOPM | 0xfff), &in_of(0x80, 1)));
    assert!(is_msr(&[2 * 0x10], |v| v.set(MSRPM_BASE_PA, MSRPM | 0xfff), 0x10, false));
}

#[test]
fn strings_are_intercepted_before_they_begin() {
    let bare = exit(IOIO, IOPM, &[0x62], |_| {}, &|a| {
        a.mov(edx, 0x60)?;
        a.mov(ecx, 3)?;
        a.mov(edi, 0x6_0000)?;
        a.rep().insd()
    });
    assert_eq!(read(&bare, EXITCODE), IOIO);
    assert_eq!((bare.reg(1), bare.reg(7)), (3, 0x6_0000));
    // None at all with a count of 0.
    let none = |a: &mut CodeAssembler| {
        a.mov(edx, 0x60)?;
        a.xor(ecx, ecx)?;
        a.rep().insd()
    };
    assert!(!is_io(&[0x60, 0x61, 0x62, 0x63], |_| {}, &none));
}

fn is_msr(bits: &[u64], change: fn(&mut Vmcb), msr: u32, is_write: bool) -> bool {
    let bare = exit(MSR, MSRPM, bits, change, &|a| {
        a.mov(ecx, msr)?;
        a.xor(eax, eax)?;
        a.xor(edx, edx)?;
        if is_write { a.wrmsr() } else { a.rdmsr() }
    });
    let is = read(&bare, EXITCODE) == MSR;
    assert!(!is || read(&bare, EXITINFO1) == u64::from(is_write));
    is
}

#[test]
fn each_msr_has_two_bits() {
    // The first and the last of each range, and one within.
    let places =
        [(0u32, 0u64), (0x1b, 0), (0x1fff, 0), (0xc000_0000, 0x2000), (0xc000_0081, 0x2000), (0xc000_1fff, 0x2000)];
    let more = [(0xc001_0000u32, 0x4000u64), (0xc001_0117, 0x4000), (0xc001_1fff, 0x4000)];
    for (msr, first) in places.into_iter().chain(more) {
        let bit = 2 * (first + u64::from(msr & 0x1fff));
        for is_write in [false, true] {
            let own = bit + u64::from(is_write);
            assert!(is_msr(&[own], |_| {}, msr, is_write), "{msr:#x}");
            assert!(!is_msr(&[own ^ 1], |_| {}, msr, is_write), "{msr:#x}");
            assert!(!is_msr(&[own + 2], |_| {}, msr, is_write), "{msr:#x}");
        }
    }
}

#[test]
fn msrs_outside_of_the_ranges_are_intercepted() {
    for msr in [0x2000, 0x4000_0000, 0xbfff_ffff, 0xc000_2000, 0xc000_ffff, 0xc001_2000, 0xffff_ffff] {
        for is_write in [false, true] {
            assert!(is_msr(&[], |_| {}, msr, is_write), "{msr:#x}");
        }
    }
    // Nothing is, without the intercept.
    let bare = exit(CPUID, MSRPM, &[], |_| {}, &|a| {
        a.mov(ecx, 0x10)?;
        a.rdmsr()
    });
    assert_eq!(read(&bare, EXITCODE), VMMCALL);
}
