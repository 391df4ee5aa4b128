//! Instructions that tell of the processor: CPUID, MSRs, counters, random numbers, the bases of FS and GS.

use emu_core::engine::Step;
use emu_core::engine::flags::Flags;
use emu_core::random::SplitMix64;

use crate::control::cr4;
use crate::exception::Exception;
use crate::extension::{self, Intercept, ask_after, ask_before};
use crate::model::Feature;
use crate::msr::{self, perf};
use crate::msr_instructions;
use crate::processor::{P, ProcessorExt, set_flags};
use crate::processor_instructions::Operand;
use crate::registers::{FS_BASE, GS_BASE, RAX, RBX, RCX, RDX};

const LOW: u64 = 0xffff_ffff;

fn get(h: &P, r: u8) -> u64 {
    h.core.regs[usize::from(r)]
}

fn set(h: &mut P, r: u8, value: u64) {
    h.core.regs[usize::from(r)] = value;
}

/// EDX:EAX.
pub(crate) fn set_pair(h: &mut P, value: u64) {
    set(h, RAX, value & LOW);
    set(h, RDX, value >> 32);
}

/// EDX:EAX.
pub(crate) fn pair(h: &P) -> u64 {
    get(h, RDX) << 32 | get(h, RAX) & LOW
}

/// Writes a register of a size in bytes, as all instructions do.
fn write_sized(h: &mut P, o: Operand, value: u64) {
    let old = h.core.regs[o.register()];
    h.core.regs[o.register()] = match o.size() {
        2 => old & !0xffff | value & 0xffff,
        4 => value & LOW,
        _ => value,
    };
}

/// CPUID (SDM vol. 2A).
pub(crate) fn cpuid(h: &mut P, _: Operand) -> Step {
    h.fault_if(h.arch.faults_cpuid() && h.arch.cpl() != 0, Exception::gp(0))?;
    ask_after(h, || Intercept::Cpuid)?;
    let answer = msr::cpuid(h, get(h, RAX) as u32, get(h, RCX) as u32);
    for (r, value) in [RAX, RBX, RCX, RDX].into_iter().zip(answer) {
        set(h, r, value.into());
    }
    Ok(())
}

/// RDMSR (SDM vol. 2B).
pub(crate) fn rdmsr(h: &mut P, _: Operand) -> Step {
    h.require_cpl_0()?;
    let number = get(h, RCX) as u32;
    ask_before(h, || Intercept::Rdmsr(number))?;
    let value = msr::read(h, number)?;
    set_pair(h, value);
    Ok(())
}

/// WRMSR (SDM vol. 2D).
pub(crate) fn wrmsr(h: &mut P, _: Operand) -> Step {
    h.require_cpl_0()?;
    let (msr, value) = (get(h, RCX) as u32, pair(h));
    ask_before(h, || Intercept::Wrmsr { msr, value })?;
    msr_instructions::write(h, msr, value)
}

/// CR4.TSD keeps programs from the time.
fn require_time(h: &P) -> Step {
    h.fault_if(h.arch.cr4 & cr4::TSD != 0 && h.arch.cpl() != 0, Exception::gp(0))
}

/// RDTSC, RDTSCP (SDM vol. 2B).
pub(crate) fn rdtsc<const WITH_AUX: bool>(h: &mut P, _: Operand) -> Step {
    if WITH_AUX {
        extension::require_enabled(h, Feature::Rdtscp)?;
    }
    require_time(h)?;
    ask_after(h, || if WITH_AUX { Intercept::Rdtscp } else { Intercept::Rdtsc })?;
    let tsc = extension::tsc(h);
    set_pair(h, tsc);
    if WITH_AUX {
        set(h, RCX, h.arch.tsc_aux);
    }
    Ok(())
}

/// RDPID (SDM vol. 2B).
pub(crate) fn rdpid(h: &mut P, o: Operand) -> Step {
    extension::require_enabled(h, Feature::Rdtscp)?;
    h.core.regs[o.register()] = h.arch.tsc_aux;
    Ok(())
}

/// RDPMC (SDM vol. 2B): CR4.PCE lets programs read.
pub(crate) fn rdpmc(h: &mut P, _: Operand) -> Step {
    h.fault_if(h.arch.cr4 & cr4::PCE == 0 && h.arch.cpl() != 0, Exception::gp(0))?;
    ask_before(h, || Intercept::Rdpmc)?;
    let value = perf::rdpmc(h, get(h, RCX) as u32)?;
    ask_after(h, || Intercept::Rdpmc)?;
    set_pair(h, value);
    Ok(())
}

/// RDPRU (APM vol. 3): MPERF and APERF.
pub(crate) fn rdpru(h: &mut P, _: Operand) -> Step {
    h.fault_if(h.arch.cr4 & cr4::TSD != 0 && h.arch.cpl() != 0, Exception::UD)?;
    ask_after(h, || Intercept::Rdpru)?;
    let value = match get(h, RCX) as u32 {
        n @ (0 | 1) => msr::effective_frequency(h, n == 1),
        _ => 0,
    };
    set_pair(h, value);
    Ok(())
}

const BASES: [u8; 2] = [FS_BASE, GS_BASE];

/// RDFSBASE, RDGSBASE (SDM vol. 2B).
pub(crate) fn read_base<const I: usize>(h: &mut P, o: Operand) -> Step {
    h.fault_if(h.arch.cr4 & cr4::FSGSBASE == 0, Exception::UD)?;
    let base = get(h, BASES[I]);
    write_sized(h, o, base);
    Ok(())
}

/// WRFSBASE, WRGSBASE (SDM vol. 2D).
pub(crate) fn write_base<const I: usize>(h: &mut P, o: Operand) -> Step {
    h.fault_if(h.arch.cr4 & cr4::FSGSBASE == 0, Exception::UD)?;
    let value = h.core.regs[o.register()];
    let value = if o.size() == 4 { value & LOW } else { value };
    h.fault_if(!h.arch.controls().is_canonical(value), Exception::gp(0))?;
    set(h, BASES[I], value);
    Ok(())
}

/// RDRAND, RDSEED (SDM vol. 2B): there is always a number. They follow from the machine's seed.
pub(crate) fn rdrand<const SEED: bool>(h: &mut P, o: Operand) -> Step {
    let (register, size) = (o.register() as u8, o.size());
    ask_after(h, || if SEED { Intercept::Rdseed { register, size } } else { Intercept::Rdrand { register, size } })?;
    let mut random = SplitMix64(h.arch.random);
    write_sized(h, o, random.next());
    h.arch.random = random.0;
    const CF: u64 = 1;
    set_flags(&mut h.core.regs, Flags::eager(CF));
    Ok(())
}
