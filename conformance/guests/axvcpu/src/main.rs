//! A hypervisor for the bare PC around AxVisor's published crates: two guests take turns, each in its own memory, and a third shows
//! what `x86_vcpu` makes of paging with two levels. What guests report, and what that reports of their exits, goes to the serial port.
#![no_std]
#![no_main]

extern crate alloc;

mod cpu;
mod host;
mod memory;
mod nested;
mod vm;

use core::arch::global_asm;
use core::panic::PanicInfo;

use vm::Vm;
use x86_vcpu::{X86PerCpuState, X86VcpuError};

global_asm!(include_str!("boot.S"), options(raw));
global_asm!(include_str!("guest.S"), options(raw));

unsafe extern "C" {
    static guest_start: u8;
    static guest_legacy: u8;
}

fn run() -> Result<(), X86VcpuError> {
    x86_vcpu::initialize_hardware_support()?;
    println!("nested paging: {:?}", x86_vcpu::selected_nested_paging_format()?);
    let mut processor = X86PerCpuState::<host::Pc>::new(0)?;
    processor.hardware_enable()?;
    take_turns(&mut [Vm::new(0, &raw const guest_start as usize)?, Vm::new(1, &raw const guest_start as usize)?])?;
    take_turns(&mut [Vm::new(2, &raw const guest_legacy as usize)?])?;
    processor.hardware_disable()
}

/// Runs guests until all have ended.
fn take_turns(vms: &mut [Vm]) -> Result<(), X86VcpuError> {
    while vms.iter().any(|vm| !vm.has_ended()) {
        for vm in vms.iter_mut().filter(|vm| !vm.has_ended()) {
            vm.take_turn()?;
        }
    }
    vms.iter().for_each(Vm::tell_exits);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    cpu::set_up();
    match run() {
        Ok(()) => println!("AXVCPU: OK"),
        Err(error) => println!("AXVCPU: {error:?}"),
    }
    cpu::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    println!("AXVCPU: {info}");
    cpu::power_off()
}
