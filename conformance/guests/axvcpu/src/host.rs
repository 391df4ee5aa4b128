//! What the crates ask of their host: frames, addresses (which are physical everywhere), time and timers, and interrupts of guests.

use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;

use x86_vcpu::{X86GuestPhysAddr, X86HostOps, X86HostPhysAddr, X86HostVirtAddr, X86VcpuError, X86VcpuResult};
use x86_vlapic::{X86TimerAction, X86TimerCallback, X86VlapicError, X86VlapicHostOps, X86VlapicResult};

use crate::memory::{self, Own};
use crate::{cpu, vm};

/// This machine.
pub struct Pc;

struct Timer {
    handle: usize,
    deadline: u64,
    callback: X86TimerCallback,
}

static TIMERS: Own<(usize, Vec<Timer>)> = Own::new((0, Vec::new()));
static INTERRUPTS: Own<Vec<(usize, u8)>> = Own::new(Vec::new());

/// Interrupts for a virtual machine that came since it was asked last.
pub fn interrupts_of(vm: usize) -> Vec<u8> {
    INTERRUPTS.with(|all| all.extract_if(.., |(of, _)| *of == vm).map(|(_, vector)| vector).collect())
}

/// Calls timers that are due.
pub fn tick() {
    let now = Pc::current_time_nanos();
    let due: Vec<Timer> = TIMERS.with(|(_, timers)| timers.extract_if(.., |t| t.deadline <= now).collect());
    for mut timer in due {
        if let X86TimerAction::Rearm(deadline) = (timer.callback)(now) {
            TIMERS.with(|(_, timers)| timers.push(Timer { deadline, ..timer }));
        }
    }
}

impl X86VlapicHostOps for Pc {
    type TimerHandle = usize;

    fn alloc_frame() -> Option<x86_vlapic::X86HostPhysAddr> {
        memory::frame().map(x86_vlapic::X86HostPhysAddr::from_usize)
    }

    fn dealloc_frame(at: x86_vlapic::X86HostPhysAddr) {
        memory::free_frame(at.as_usize());
    }

    fn phys_to_virt(at: x86_vlapic::X86HostPhysAddr) -> x86_vlapic::X86HostVirtAddr {
        x86_vlapic::X86HostVirtAddr::from_usize(at.as_usize())
    }

    fn virt_to_phys(at: x86_vlapic::X86HostVirtAddr) -> x86_vlapic::X86HostPhysAddr {
        x86_vlapic::X86HostPhysAddr::from_usize(at.as_usize())
    }

    /// A tick of the time-stamp counter is called a nanosecond.
    fn current_time_nanos() -> u64 {
        // SAFETY: there is one.
        unsafe { _rdtsc() }
    }

    fn register_timer(deadline: u64, callback: X86TimerCallback) -> X86VlapicResult<usize> {
        Ok(TIMERS.with(|(last, timers)| {
            *last += 1;
            timers.push(Timer { handle: *last, deadline, callback });
            *last
        }))
    }

    unsafe fn register_hard_timer(deadline: u64, callback: X86TimerCallback) -> X86VlapicResult<usize> {
        Self::register_timer(deadline, callback)
    }

    fn cancel_timer(handle: usize) -> X86VlapicResult {
        TIMERS.with(|(_, timers)| timers.retain(|t| t.handle != handle));
        Ok(())
    }

    fn current_vm_id() -> usize {
        vm::current()
    }

    fn current_vm_vcpu_num() -> usize {
        1
    }

    fn current_vm_active_vcpus() -> usize {
        1
    }

    fn active_vcpus(_: usize) -> Option<usize> {
        Some(1)
    }

    fn inject_interrupt(vm: usize, vcpu: usize, vector: u8) -> X86VlapicResult {
        if vcpu != 0 {
            return Err(X86VlapicError::InvalidInput);
        }
        INTERRUPTS.with(|all| all.push((vm, vector)));
        Ok(())
    }
}

impl X86HostOps for Pc {
    fn alloc_frame() -> Option<X86HostPhysAddr> {
        memory::frame().map(X86HostPhysAddr::from_usize)
    }

    fn dealloc_frame(at: X86HostPhysAddr) {
        memory::free_frame(at.as_usize());
    }

    fn alloc_contiguous_frames(count: usize, align: usize) -> Option<X86HostPhysAddr> {
        memory::frames(count, align).map(X86HostPhysAddr::from_usize)
    }

    fn dealloc_contiguous_frames(at: X86HostPhysAddr, count: usize) {
        (0..count).for_each(|n| memory::free_frame(at.as_usize() + n * memory::PAGE));
    }

    fn phys_to_virt(at: X86HostPhysAddr) -> X86HostVirtAddr {
        X86HostVirtAddr::from_usize(at.as_usize())
    }

    fn read_guest_u8(at: X86GuestPhysAddr) -> X86VcpuResult<u8> {
        vm::read_memory_of_current(at.as_usize()).ok_or(X86VcpuError::InvalidInput)
    }

    fn nanos_to_ticks(nanos: u64) -> u64 {
        nanos
    }

    fn service_pending_host_interrupt() {
        cpu::let_in();
    }

    fn dispatch_acknowledged_host_interrupt(vector: u8) {
        cpu::acknowledge(vector);
    }
}
