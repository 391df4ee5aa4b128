//! "Bus Lock Threshold".

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::Code;

use crate::base::{Base, GUEST, intercept, read};
use crate::guest::{exit_of, machine, run};

const DATA: i32 = 0x10_0000;
const MODEL: &str = "amd";

fn vmcb(threshold: u64) -> Vmcb {
    let mut v = Base::Long.vmcb();
    intercept(&mut v, code::BUS_LOCK);
    intercept(&mut v, code::EXCEPTION + 14);
    v.set(BUS_LOCK_COUNTER, threshold);
    v
}

#[test]
fn what_locks_the_bus() {
    let codes: &[(&str, Code, bool)] = &[
        ("split lock", &|a| a.lock().add(dword_ptr(DATA + 62), 1), true),
        ("its last byte is within", &|a| a.lock().add(dword_ptr(DATA + 60), 1), false),
        ("no lock", &|a| a.add(dword_ptr(DATA + 62), 1), false),
        ("XCHG locks by itself", &|a| a.xchg(qword_ptr(DATA + 57), rax), true),
        ("registers", &|a| a.xchg(rbx, rax), false),
        ("across pages", &|a| a.lock().inc(qword_ptr(DATA - 1)), true),
        ("8 bytes", &|a| a.lock().cmpxchg8b(qword_ptr(DATA + 60)), true),
        (
            "a bit far away",
            &|a| {
                a.mov(ebx, 8 * 64)?;
                a.lock().bts(dword_ptr(DATA - 2), ebx)
            },
            true,
        ),
        (
            "a bit before it, in a line",
            &|a| {
                a.mov(ebx, -1)?;
                a.lock().bts(dword_ptr(DATA + 62), ebx)
            },
            false,
        ),
        (
            "a device",
            &|a| {
                a.mov(ebx, 0xfee0_0080u32)?;
                a.lock().or(dword_ptr(rbx), 0)
            },
            true,
        ),
    ];
    for (name, code, locks) in codes {
        let exit = if *locks { code::BUS_LOCK } else { code::VMMCALL };
        assert_eq!(exit_of(MODEL, &vmcb(0), code), exit, "{name}");
        let mut quiet = vmcb(0);
        quiet.set(INTERCEPT_5, 0);
        assert_eq!(exit_of(MODEL, &quiet, code), code::VMMCALL, "{name}");
        assert_eq!(exit_of("amd,-bus_lock_threshold", &vmcb(0), code), code::VMMCALL, "{name}");
    }
}

#[test]
fn the_exit_comes_before_the_one_that_is_too_many() {
    let mut bare = machine(MODEL, &vmcb(2), &|a| {
        for _ in 0..3 {
            a.lock().add(dword_ptr(DATA + 62), 1)?;
        }
        Ok(())
    });
    assert_eq!(run(&mut bare), code::BUS_LOCK);
    assert_eq!((read(&bare, EXITINFO1), read(&bare, EXITINFO2), read(&bare, BUS_LOCK_COUNTER)), (0, 0, 0));
    assert_eq!(bare.load(DATA as u64 + 62, 4), 2);
    assert_eq!(bare.load(read(&bare, RIP), 1), 0xf0, "RIP is that of the third");
    assert_ne!(read(&bare, RIP), GUEST);
}

#[test]
fn faults_come_first_and_do_not_count() {
    let mut bare = machine(MODEL, &vmcb(1), &|a| a.lock().add(dword_ptr(DATA + 62), 1));
    bare.put(x86_bare::PT + DATA as u64 / 512, 0);
    assert_eq!(run(&mut bare), code::EXCEPTION + 14);
    assert_eq!(read(&bare, BUS_LOCK_COUNTER), 1);
}
