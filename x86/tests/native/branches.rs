//! Branches in 32-bit and 16-bit code, near and far. All around an instruction is HLT, which CPL 3 may not execute: the exception tells
//! where the branch has gone.

use iced_x86::{Decoder, DecoderOptions};

use crate::host::Native;
use crate::machine::Emulated;
use crate::mode::{Mode, Segments};
use crate::state::{DATA_SIZE, PAGE, Random, State, Trap, cases, difference};
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

/// A branch as it was encoded.
struct Branch<'a> {
    opcode: &'a [u8],
    /// Bytes of its operands.
    width: i64,
}

impl<'a> Branch<'a> {
    fn new(code: &'a [u8], mode: Mode) -> Self {
        let prefixes = code.iter().take_while(|b| matches!(b, 0x66 | 0x67)).count();
        let is_wide = (mode.bits() == 32) != code[..prefixes].contains(&0x66);
        Branch { opcode: &code[prefixes..], width: if is_wide { 4 } else { 2 } }
    }

    /// The reg field of the ModR/M byte of opcode FFh.
    fn extension(&self) -> Option<u8> {
        (self.opcode[0] == 0xff).then(|| self.opcode[1] >> 3 & 7)
    }

    fn is_near_call(&self) -> bool {
        self.opcode[0] == 0xe8 || self.extension() == Some(2)
    }

    fn is_far_call(&self) -> bool {
        self.opcode[0] == 0x9a || self.extension() == Some(3)
    }

    /// The selector of a far JMP or CALL; null where it is not there to be read.
    fn selector(&self, before: &State, data_at: u64) -> Option<u16> {
        let word = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        match self.extension() {
            None if matches!(self.opcode[0], 0x9a | 0xea) => Some(word(&self.opcode[1 + self.width as usize..])),
            Some(3 | 5) => {
                let place = self.opcode[2..].iter().rev().fold(0, |all, b| all << 8 | u64::from(*b));
                let at = place.wrapping_sub(data_at) as usize + self.width as usize;
                Some(before.data.get(at..at + 2).map_or(0, word))
            }
            _ => None,
        }
    }

    /// Words that a far return pops at its own level, and bytes that it drops.
    fn popped(&self) -> Option<(i64, i64)> {
        match self.opcode[0] {
            0xcb => Some((2, 0)),
            0xca => Some((2, u16::from_le_bytes([self.opcode[1], self.opcode[2]]).into())),
            0xcf => Some((3, 0)),
            _ => None,
        }
    }
}

/// The first fault of PUSHes, or of POPs, of words at these offsets from the stack pointer, each tried alone.
fn first_fault(emulated: &mut Emulated, before: &State, width: i64, is_push: bool, offsets: &[i64]) -> Option<Trap> {
    let Segments { mode, stack, .. } = emulated.segments;
    let prefix: &[u8] = if i64::from(mode.bits()) == 8 * width { &[] } else { &[0x66] };
    let code = [prefix, &[if is_push { 0x50 } else { 0x58 }]].concat();
    offsets.iter().find_map(|offset| {
        let mut state = before.clone();
        let sp = state.gpr[4].wrapping_add(*offset as u64) & mode.mask();
        state.gpr[4] = if stack.attributes.is_big() { sp } else { state.gpr[4] & !0xffff | sp & 0xffff };
        emulated.run(&code, &state).expect("it ends").trap
    })
}

/// What AMD's processors raise where we raise `ours`. They look at what they pop from the last word to the first, and so at the stack of an
/// outer level, if the RPL is another, before they look at the selector; and they push before they look at the target's limit. The SDM has
/// the limits of the whole frame first, then the selector, and that of the target before a near CALL pushes; in which order words are
/// read it does not say.
fn of_amd(emulated: &mut Emulated, branch: &Branch, before: &State, data_at: u64, ours: Trap) -> Trap {
    let width = branch.width;
    if let Some((words, dropped)) = branch.popped() {
        let own: Vec<_> = (0..words).rev().map(|i| i * width).collect();
        if let Some(trap) = first_fault(emulated, before, width, false, &own) {
            return trap;
        }
        let sp = if emulated.segments.stack.attributes.is_big() { u64::MAX } else { 0xffff } & before.gpr[4];
        let at = sp.wrapping_add(width as u64).wrapping_sub(data_at) as usize;
        let outer = [(words + 1) * width + dropped, words * width + dropped];
        let is_outer = before.data.get(at).is_some_and(|selector| selector & 3 != 3);
        return first_fault(emulated, before, width, false, &outer).filter(|_| is_outer).unwrap_or(ours);
    }
    // The target was found, and it is none that a selector or a descriptor forbids.
    let is_found = ours.error == 0 || ours.vector == 14 && ours.error & 2 != 0;
    let offsets: &[i64] = match branch.selector(before, data_at) {
        Some(selector) if branch.is_far_call() && selector > 3 => &[0, -width],
        None if branch.is_near_call() => &[0],
        _ => return ours,
    };
    if !is_found {
        return ours;
    }
    first_fault(emulated, before, width, true, offsets).unwrap_or(ours)
}

/// What AMD's processors do in their own way, but for which exception comes first.
fn forget(branch: &Branch, segments: &Segments, ours: &mut State, theirs: &State) {
    // RET (far) with a constant on a stack of 16 bits: they carry into the upper half of ESP, which both manuals leave alone.
    if branch.opcode[0] == 0xca && !segments.stack.attributes.is_big() {
        ours.gpr[4] = ours.gpr[4] & 0xffff | theirs.gpr[4] & !0xffff;
    }
    // They have written the return address, below a stack pointer that has not moved, before a far call is refused.
    let is_refused = theirs.trap.is_some_and(|t| matches!(t.vector, 12..=14)) && ours.gpr == theirs.gpr;
    if branch.is_far_call() && is_refused {
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
        let is_amd = std::is_x86_feature_detected!("sse4a");
        let mut r = Random::new(5);
        let mut wrong = 0;
        let count = cases() / 20;
        for _ in 0..count {
            let (code, state) = instance(&mut r, &segments, emulated.at, data_at);
            let mut ours = emulated.run(&code, &state).expect("it ends");
            let mut theirs = state.clone();
            native.run(&code, &mut theirs);
            forget_pointers(&mut ours, &mut theirs);
            let branch = Branch::new(&code, mode);
            if let Some(trap) = ours.trap.filter(|_| is_amd) {
                ours.trap = Some(of_amd(&mut emulated, &branch, &state, data_at, trap));
            }
            forget(&branch, &segments, &mut ours, &theirs);
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
