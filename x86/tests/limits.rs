//! How far a machine is told to run changes nothing of what comes of it.

use iced_x86::code_asm::*;
use x86::registers::RBX;
use x86_bare::{Bare, CODE};

/// A program changes the instruction behind the one that stores; it does so behind the few that it is told to run, or within them.
#[test]
fn code_that_changes_what_is_next() {
    for limit in 1..80 {
        let mut bare = Bare::new("amd");
        let mut at = CODE;
        for i in 0..10 {
            // 8 bytes; then MOV EBX, 0, whose number begins 1 byte behind that.
            let store = bare.assemble(at, &|a| a.mov(byte_ptr(at + 9), 100 + i));
            assert_eq!(store, at + 8);
            at = bare.assemble(store, &|a| {
                a.mov(ebx, 0)?;
                a.add(ecx, ebx)
            });
        }
        bare.assemble(at, &|a| a.hlt());
        bare.machine.run(limit);
        bare.go_on();
        assert_eq!((bare.reg(RBX), bare.reg(1)), (109, (100..110).sum()), "{limit}");
    }
}

/// A string instruction does as many elements at a time over code that has been run as over code that nobody has translated.
#[test]
fn strings_over_code() {
    const TARGET: u64 = 0x7_0000;
    const STRING: u64 = 0x7_2000;
    let mut bare = Bare::new("amd");
    bare.assemble(TARGET, &|a| a.ret());
    bare.assemble(STRING, &|a| {
        a.std()?;
        a.mov(edi, TARGET as u32 + 40)?;
        a.mov(ecx, 1000)?;
        a.rep().stosb()?;
        a.hlt()
    });
    bare.run(&|a| {
        a.mov(eax, TARGET as u32)?;
        a.call(rax)?;
        a.hlt()
    });
    bare.machine.vcpus[0].core.pc = STRING;
    bare.cpu().waiting.sleeps(false);
    let mut other = Bare::new("amd");
    other.machine.restore(&bare.machine.save()).unwrap();
    let until = bare.machine.retired() + 5;
    bare.machine.run(until);
    other.machine.run(until);
    assert_eq!(bare.reg(1), other.reg(1));
    assert_eq!(bare.machine.state_hash(), other.machine.state_hash());
}
