//! Branches in 32-bit and 16-bit code, near and far. All around an instruction is HLT, which CPL 3 may not execute: the exception tells
//! where the branch has gone.

use iced_x86::{Decoder, DecoderOptions};

use crate::host::Native;
use crate::machine::Emulated;
use crate::mode::{Mode, Segments};
use crate::state::{DATA_SIZE, PAGE, Random, State, cases, difference};
use crate::undefined::forget_pointers;

/// Where a branch finds its target.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// In 8 bits behind the opcode, or as many as an operand has.
    Short,
    Near,
    /// In EBX, or in memory.
    Register,
    Memory,
    /// On the stack: RET, and RET with a constant.
    Return,
    ReturnAndPop,
    /// With a selector: behind the opcode, in memory, on the stack, on the stack before the flags.
    Far,
    FarMemory,
    FarReturn,
    FarReturnAndPop,
    InterruptReturn,
}

/// Opcodes, how many from the first, and the reg field of a ModR/M byte.
const BRANCHES: [(&[u8], u8, u8, Form); 19] = [
    (&[0x70], 16, 0, Form::Short),
    (&[0xe0], 4, 0, Form::Short), // LOOPNE, LOOPE, LOOP, JCXZ
    (&[0xe0], 4, 0, Form::Short),
    (&[0xeb], 1, 0, Form::Short),
    (&[0xe8], 2, 0, Form::Near), // CALL, JMP
    (&[0x0f, 0x80], 16, 0, Form::Near),
    (&[0xff], 1, 2, Form::Register),
    (&[0xff], 1, 4, Form::Register),
    (&[0xff], 1, 2, Form::Memory),
    (&[0xff], 1, 4, Form::Memory),
    (&[0xc3], 1, 0, Form::Return),
    (&[0xc2], 1, 0, Form::ReturnAndPop),
    (&[0xea], 1, 0, Form::Far),
    (&[0x9a], 1, 0, Form::Far),
    (&[0xff], 1, 3, Form::FarMemory),
    (&[0xff], 1, 5, Form::FarMemory),
    (&[0xcb], 1, 0, Form::FarReturn),
    (&[0xca], 1, 0, Form::FarReturnAndPop),
    (&[0xcf], 1, 0, Form::InterruptReturn),
];

/// A branch target: mostly in the field of HLTs; else far from the page of code.
fn target(r: &mut Random, ip: u64, form: Form) -> u64 {
    let span = if matches!(form, Form::Short) { 100 } else { 0x200 };
    match r.below(8) {
        0 if span > 100 => PAGE as u64 + r.below(0xf000),
        1 if span > 100 => 0x8000_4000 | r.next() & 0x3fff_ffff,
        2..5 => ip - 1 - r.below(span),
        _ => ip + 20 + r.below(span),
    }
}

/// A selector for CS, and where its code is.
fn code_segment(r: &mut Random, segments: &Segments, at: u64) -> (u16, u64) {
    let ip = segments.ip(at);
    let own = segments.code.selector;
    let all = [(own, ip), (own, ip), (own, ip), (0x23, at), (0x23, at), (0x33, at), (0x33, at)];
    let others = [0, 3, 0x2b, 0x10, 0x20, 0xfff8, own & !3, segments.stack.selector, segments.data.selector];
    match r.below(9) {
        i @ 0..7 => all[i as usize],
        _ => (others[r.below(9) as usize], ip),
    }
}

/// A branch at random, with a state for it.
fn instance(r: &mut Random, segments: &Segments, at: u64, data_at: u64) -> (Vec<u8>, State) {
    let mode = segments.mode;
    let ip = segments.ip(at);
    let mut state = r.state();
    state.gpr = std::array::from_fn(|i| if i < 8 { state.gpr[i] & mode.mask() } else { 0 });
    state.selectors = segments.all().map(|s| s.selector);
    // A count at a boundary of either size.
    if r.below(2) == 0 {
        state.gpr[1] = r.below(3) << 16 | r.below(3);
    }
    let middle = data_at + DATA_SIZE as u64 / 2;
    state.gpr[4] = match r.below(8) {
        // In flat segments there is the test itself below the data.
        0 if mode != Mode::Flat => data_at.wrapping_add(r.below(16)).wrapping_sub(8) & mode.mask(),
        1 => data_at + DATA_SIZE as u64 - r.below(12),
        _ => middle + r.below(16),
    };
    let (opcode, count, reg, form) = BRANCHES[r.below(BRANCHES.len() as u64) as usize];
    let (other_operand, other_address) = (r.below(4) == 0, r.below(4) == 0);
    let is_wide = (mode.bits() == 32) != other_operand;
    let is_wide_address = (mode.bits() == 32) != other_address;
    let mut code = Vec::new();
    if other_operand {
        code.push(0x66);
    }
    if other_address {
        code.push(0x67);
    }
    code.extend(opcode);
    *code.last_mut().expect("an opcode") += r.below(count.into()) as u8;
    let bytes = if is_wide { 4 } else { 2 };
    let is_far =
        !matches!(form, Form::Short | Form::Near | Form::Register | Form::Memory | Form::Return | Form::ReturnAndPop);
    let (selector, there) = if is_far { code_segment(r, segments, at) } else { (0, ip) };
    // CALL to 64-bit code: in the SDM's words the return address is pushed before CS changes; AMD's processors push it in 64-bit mode, where SS
    // has no base, so that this goes elsewhere, or nowhere.
    let is_call = matches!(form, Form::Far | Form::FarMemory);
    let is_left_out = is_call && selector == 0x33 && segments.stack.base != 0;
    let (selector, there) = if is_left_out { (0x23, at) } else { (selector, there) };
    let target = target(r, there, form);
    let mut put = |at: u64, value: u64, bytes: usize| {
        let at = at.wrapping_sub(data_at) as usize;
        if at <= DATA_SIZE - bytes {
            state.data[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
    };
    let relative = |length: usize| target.wrapping_sub(ip + length as u64).to_le_bytes();
    let sp = state.gpr[4];
    match form {
        Form::Short => code.push(relative(code.len() + 1)[0]),
        Form::Near => code.extend(&relative(code.len() + bytes)[..bytes]),
        Form::Register => {
            code.push(0xc3 | reg << 3);
            state.gpr[3] = target;
        }
        Form::Memory | Form::FarMemory => {
            let place = if r.below(8) == 0 { data_at + DATA_SIZE as u64 - r.below(8) } else { middle + 256 };
            code.push(reg << 3 | if is_wide_address { 5 } else { 6 });
            code.extend(&place.to_le_bytes()[..if is_wide_address { 4 } else { 2 }]);
            put(place, target, bytes);
            put(place + bytes as u64, selector.into(), if is_far { 2 } else { 0 });
        }
        Form::Return | Form::ReturnAndPop => put(sp, target, bytes),
        Form::Far => {
            code.extend(&target.to_le_bytes()[..bytes]);
            code.extend(selector.to_le_bytes());
        }
        Form::FarReturn | Form::FarReturnAndPop | Form::InterruptReturn => {
            put(sp, target, bytes);
            put(sp + bytes as u64, u64::from(selector) | r.next() << 16, bytes);
            // Neither TF nor what is above the status flags.
            put(sp + 2 * bytes as u64, r.next() & 0xed5, if matches!(form, Form::InterruptReturn) { bytes } else { 0 });
        }
    }
    if matches!(form, Form::ReturnAndPop | Form::FarReturnAndPop) {
        code.extend((r.value() as u16).to_le_bytes());
    }
    if !segments.stack.attributes.is_big() && r.below(2) == 0 {
        state.gpr[4] |= r.next() & 0xffff_0000;
    }
    (code, state)
}

/// What manuals leave open, or AMD's processors do in their own way.
fn forget(code: &[u8], segments: &Segments, ours: &mut State, theirs: &State) {
    let opcode = code.iter().position(|b| !matches!(b, 0x66 | 0x67)).expect("an opcode");
    let is_far_return = matches!(code[opcode], 0xca | 0xcb | 0xcf);
    let is_far_call = code[opcode] == 0x9a || code[opcode] == 0xff && code[opcode + 1] >> 3 & 7 == 3;
    let is_far_memory = code[opcode] == 0xff && code[opcode + 1] >> 3 & 7 == 5;
    let Some(theirs_trap) = theirs.trap else { return };
    // The words of a far return's frame are read in any order, and so is a far pointer; one of them may fault before another, the selector, is
    // refused.
    if (is_far_return || is_far_call || is_far_memory)
        && matches!(theirs_trap.vector, 12 | 14)
        && let Some(a) = &mut ours.trap
        && a.ip == theirs_trap.ip
        && matches!(a.vector, 12..=14)
    {
        *a = theirs_trap;
    }
    // RET (far) with a constant on a stack of 16 bits: AMD's processors carry into the upper half of ESP, which both manuals leave alone.
    if code[opcode] == 0xca && !segments.stack.attributes.is_big() {
        ours.gpr[4] = ours.gpr[4] & 0xffff | theirs.gpr[4] & !0xffff;
    }
    // A call whose target is beyond the limit, and whose stack is too, or is not present: which of them faults.
    let is_call = code[opcode] == 0xe8 || code[opcode] == 0xff && code[opcode + 1] >> 3 & 7 == 2;
    if is_call
        && matches!(theirs_trap.vector, 12 | 14)
        && let Some(a) = &mut ours.trap
        && a.vector == 13
        && a.ip == theirs_trap.ip
    {
        *a = theirs_trap;
    }
    // AMD's processors have written the return address, below a stack pointer that has not moved, before a far call is refused.
    let is_refused = ours.trap.is_some_and(|t| t == theirs_trap) && ours.gpr == theirs.gpr;
    if is_far_call && is_refused && matches!(theirs_trap.vector, 12..=14) {
        ours.data.clone_from(&theirs.data);
    }
}

#[test]
fn branches_of_compatibility_mode() {
    for mode in Mode::COMPATIBILITY {
        let Some(mut native) = Native::of(mode) else {
            println!("{mode:?}: branches are skipped, for the system gives no LDT");
            continue;
        };
        let mut emulated = Emulated::new(&native);
        let segments = native.segments;
        let data_at = segments.offset(emulated.data_at);
        let mut r = Random(5);
        let mut wrong = 0;
        let count = cases() / 20;
        for _ in 0..count {
            let (code, state) = instance(&mut r, &segments, emulated.at, data_at);
            let mut ours = emulated.run(&code, &state).expect("it ends");
            let mut theirs = state.clone();
            native.run(&code, &mut theirs);
            forget_pointers(&mut ours, &mut theirs);
            forget(&code, &segments, &mut ours, &theirs);
            if ours != theirs {
                let ip = segments.ip(emulated.at);
                let insn = Decoder::with_ip(mode.bits(), &code, ip, DecoderOptions::NONE).decode();
                println!("{mode:?} {}", difference(&code, &insn, &state, &ours, &theirs));
                wrong += 1;
            }
        }
        println!("{mode:?}: {count} branches");
        assert_eq!(wrong, 0, "{mode:?}");
    }
}
