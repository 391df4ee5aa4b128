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
