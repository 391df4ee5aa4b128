//! VMREAD finds what VMWRITE has left, for all encodings, in several VMCSs that come and go; and in a shadow VMCS, from both sides.

use std::collections::BTreeMap;

use emu_core::random::SplitMix64;
use iced_x86::code_asm::*;
use vmx_sim::Vmx;
use vmx_sim::capability::REVISION;
use vmx_sim::control::secondary;
use vmx_sim::field::*;
use vmx_sim::vmcs::SHADOW;
use x86::control::cr4;
use x86::extension::Slot;
use x86::model::CpuModel;
use x86_bare::{Bare, CODE, assemble};

use crate::base::on;
use crate::machine::{TARGET, run};

/// Code, and words that it leaves, in its order.
const PROGRAM: u64 = 0x8_0000;
const WORDS: u64 = 0x10_0000;
/// The VMXON region, then VMCSs; pointers to them.
const REGIONS: u64 = 0x18_0000;
const COUNT: u64 = 4;
const POINTERS: u64 = 0x1f_0000;

/// Every encoding: fields of 64 bits have one for their high half.
fn encodings() -> Vec<u64> {
    let high = |f: Field| (f.width() == Width::Bits64).then_some(u64::from(f.0) | 1);
    Field::all().flat_map(|f| [Some(u64::from(f.0)), high(f)]).flatten().collect()
}

/// What VMWRITE makes of a field, by bits of the encoding: 0 to choose the high half, 14 and 13 for the width.
fn written(encoding: u64, old: u64, value: u64) -> u64 {
    match encoding >> 13 & 3 {
        _ if encoding & 1 != 0 => old & 0xffff_ffff | value << 32,
        0 => value & 0xffff,
        2 => value & 0xffff_ffff,
        _ => value,
    }
}

fn read(encoding: u64, field: u64) -> u64 {
    if encoding & 1 != 0 { field >> 32 } else { field }
}

/// Fields by their encodings.
type Model = BTreeMap<u64, u64>;

/// Code that reads and writes fields, and what it must find.
struct Program {
    a: CodeAssembler,
    found: Vec<u64>,
}

impl Program {
    fn new() -> Self {
        Program { a: CodeAssembler::new(64).unwrap(), found: Vec::new() }
    }

    fn write(&mut self, model: &mut Model, encoding: u64, value: u64) -> x86_bare::Result {
        self.a.mov(rax, encoding)?;
        self.a.mov(rcx, value)?;
        self.a.vmwrite(rax, rcx)?;
        let field = model.entry(encoding & !1).or_default();
        *field = written(encoding, *field, value);
        Ok(())
    }

    fn read(&mut self, model: &Model, encoding: u64) -> x86_bare::Result {
        self.a.mov(rax, encoding)?;
        self.a.mov(rbx, WORDS + 8 * self.found.len() as u64)?;
        self.a.vmread(qword_ptr(rbx), rax)?;
        self.found.push(read(encoding, model.get(&(encoding & !1)).copied().unwrap_or(0)));
        Ok(())
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.a.assemble(PROGRAM).unwrap()
    }

    fn check(&self, bare: &Bare) {
        for (i, found) in self.found.iter().enumerate() {
            assert_eq!(bare.get(WORDS + 8 * i as u64), *found, "read {i} of {}", self.found.len());
        }
    }
}

fn region(i: u64) -> u64 {
    REGIONS + 0x1000 * (i + 1)
}

/// A processor in VMX operation, without a current VMCS. The last region is for a shadow VMCS.
fn processor() -> Bare {
    let mut bare = Bare::new("intel");
    let mut vmx = Vmx::new(&CpuModel::parse("intel").unwrap());
    vmx.vmxon = Some(REGIONS);
    for i in 0..COUNT {
        bare.put(POINTERS + 8 * i, region(i));
        bare.put(region(i), (REVISION | if i == COUNT - 1 { SHADOW } else { 0 }).into());
    }
    let cpu = bare.cpu();
    cpu.cr4 |= cr4::VMXE;
    cpu.extension = Slot::with(Box::new(vmx));
    bare
}

fn of_case(case: u64) -> x86_bare::Result {
    let mut r = SplitMix64(case);
    let (mut p, all) = (Program::new(), encodings());
    let mut models: [Model; COUNT as usize] = Default::default();
    let mut current = 0;
    p.a.vmptrld(qword_ptr(POINTERS))?;
    for _ in 0..1500 {
        let model = &mut models[current as usize];
        match r.below(40) {
            0 | 1 => {
                // To another, and perhaps the one that is left is cleared, before or behind that.
                let (old, next) = (current, r.below(COUNT));
                let clears = r.below(3);
                if clears == 0 {
                    p.a.vmclear(qword_ptr(POINTERS + 8 * old))?;
                }
                p.a.vmptrld(qword_ptr(POINTERS + 8 * next))?;
                if clears == 1 && next != old {
                    p.a.vmclear(qword_ptr(POINTERS + 8 * old))?;
                }
                current = next;
            }
            2..20 => p.write(model, r.of(&all), r.next())?,
            _ => p.read(model, r.of(&all))?,
        }
    }
    for (i, model) in models.iter().enumerate() {
        p.a.vmptrld(qword_ptr(POINTERS + 8 * i as u64))?;
        for encoding in &all {
            p.read(model, *encoding)?;
        }
    }
    p.a.hlt()?;
    let mut bare = processor();
    let bytes = p.bytes();
    bare.machine.world.ram.write(PROGRAM, &bytes).unwrap();
    bare.run(&|a| a.jmp(PROGRAM));
    assert_ne!(bare.machine.vcpus[0].core.pc, CODE, "it is at the end");
    p.check(&bare);
    Ok(())
}

#[test]
fn vmread_finds_what_vmwrite_has_left() {
    for case in 0..30 {
        of_case(case).unwrap();
    }
}

/// A guest writes and reads all fields of its shadow VMCS; then the region, current in the host, has them too.
#[test]
fn a_shadow_vmcs_has_all_fields() {
    const SHADOW_REGION: u64 = TARGET + 0x2000;
    let mut r = SplitMix64(1);
    let (mut p, all) = (Program::new(), encodings());
    let mut model = Model::new();
    let mut code = || {
        for _ in 0..1000 {
            p.write(&mut model, r.of(&all), r.next())?;
            p.read(&model, r.of(&all))?;
        }
        p.a.vmcall()
    };
    code().unwrap();
    let bytes = p.bytes();
    let mut bare = run(
        |v| {
            on(v, secondary::VMCS_SHADOWING);
            // Bitmaps of zeros.
            (v[VMREAD_BITMAP], v[VMWRITE_BITMAP], v[VMCS_LINK_POINTER]) = (TARGET, TARGET + 0x1000, SHADOW_REGION);
        },
        |bare| {
            bare.put(SHADOW_REGION, (REVISION | SHADOW).into());
            bare.machine.world.ram.write(PROGRAM, &bytes).unwrap();
        },
        &|a| a.jmp(PROGRAM),
    );
    p.check(&bare);
    // The host reads it where it goes on.
    let mut host = Program::new();
    let mut code = || {
        host.a.vmptrld(qword_ptr(POINTERS))?;
        for encoding in &all {
            host.read(&model, *encoding)?;
        }
        host.a.hlt()
    };
    code().unwrap();
    let bytes = host.bytes();
    bare.put(POINTERS, SHADOW_REGION);
    bare.machine.world.ram.write(PROGRAM, &bytes).unwrap();
    let jump = assemble(64, CODE, &|a| a.jmp(PROGRAM));
    bare.machine.world.ram.write(CODE, &jump).unwrap();
    bare.machine.vcpus[0].core.pc = CODE;
    bare.cpu().waiting.sleeps(false);
    bare.go_on();
    host.check(&bare);
}
