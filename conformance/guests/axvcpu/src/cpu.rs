//! The processor and the chips of a PC that this needs: descriptor tables, local APIC with its timer, serial port, power.

use core::arch::asm;
use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};
use x86_64::instructions::port::Port;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use crate::host;
use crate::memory::Own;

const SERIAL: u16 = 0x3f8;
/// PM1_CNT of the ICH9, where firmware puts it.
const POWER: u16 = 0x604;
/// Its SLP_EN, and SLP_TYP of soft off.
const SOFT_OFF: u16 = 1 << 13 | 7 << 10;
const APIC: usize = 0xfee0_0000;
/// The vector of the local APIC's timer.
const TIMER: u8 = 0x20;

static GDT: Own<GlobalDescriptorTable> = Own::new(GlobalDescriptorTable::new());
static IDT: Own<InterruptDescriptorTable> = Own::new(InterruptDescriptorTable::new());
static TSS: TaskStateSegment = TaskStateSegment::new();

unsafe extern "C" {
    static vectors: [[u8; 16]; 256];
}

/// Prints to the serial port.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { $crate::cpu::print(format_args!("{}\n", format_args!($($arguments)*))) };
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: it is the transmitter, which is read for room first.
            unsafe {
                while Port::<u8>::new(SERIAL + 5).read() & 0x20 == 0 {}
                Port::new(SERIAL).write(byte);
            }
        }
        Ok(())
    }
}

#[doc(hidden)]
pub fn print(text: fmt::Arguments) {
    Serial.write_fmt(text).expect("it cannot fail");
}

/// Warnings of the crates go to the serial port.
struct Warnings;

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            println!("{}: {}", record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Tables of its own, no legacy interrupts, and a timer that ticks.
pub fn set_up() {
    GDT.with(|gdt| {
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(&TSS));
        // SAFETY: they stay where they are, and describe what runs.
        unsafe {
            gdt.load_unsafe();
            CS::set_reg(code);
            [DS::set_reg, ES::set_reg, SS::set_reg].iter().for_each(|set| set(data));
            load_tss(task);
        }
    });
    IDT.with(|idt| {
        let gates = (&raw mut *idt).cast::<[u64; 2]>();
        // SAFETY: the table has 256 gates of 16 bytes, and stays where it is. Each is an interrupt gate of the first segment.
        unsafe {
            for (n, vector) in vectors.iter().enumerate() {
                let at = vector as *const _ as u64;
                *gates.add(n) = [at & 0xffff | 8 << 16 | 0x8e00 << 32 | (at >> 16 & 0xffff) << 48, at >> 32];
            }
            idt.load_unsafe();
        }
    });
    // SAFETY: both 8259As are masked; the local APIC is enabled, and its timer counts again and again.
    unsafe {
        Port::<u8>::new(0x21).write(0xff);
        Port::<u8>::new(0xa1).write(0xff);
        for (register, value) in [(0xf0, 0x1ff), (0x3e0, 0xb), (0x320, 1 << 17 | u32::from(TIMER)), (0x380, 50_000)] {
            write_apic(register, value);
        }
    }
    log::set_logger(&Warnings).expect("it is set once");
    log::set_max_level(LevelFilter::Warn);
}

unsafe fn write_apic(register: usize, value: u32) {
    unsafe { ((APIC + register) as *mut u32).write_volatile(value) };
}

/// Lets interrupts in until one has come.
pub fn wait() {
    // SAFETY: interrupts end in `interrupted`, which may change what a function may.
    unsafe { asm!("sti", "hlt", "cli", clobber_abi("C")) };
}

/// Lets interrupts in that are pending.
pub fn let_in() {
    // SAFETY: as above.
    unsafe { asm!("sti", "nop", "cli", clobber_abi("C")) };
}

#[unsafe(no_mangle)]
extern "C" fn interrupted(vector: u8, rip: u64) {
    assert!(vector >= 32, "exception {vector}, {rip:#x} on the stack");
    acknowledge(vector);
}

/// Does what an interrupt is for.
pub fn acknowledge(vector: u8) {
    assert_eq!(vector, TIMER, "an interrupt that nobody asked for");
    // SAFETY: EOI.
    unsafe { write_apic(0xb0, 0) };
    host::tick();
}

/// Ends all.
pub fn power_off() -> ! {
    // SAFETY: nobody wants to go on.
    unsafe { Port::new(POWER).write(SOFT_OFF) };
    loop {
        // SAFETY: nothing is left to be done.
        unsafe { asm!("cli", "hlt") };
    }
}
