use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::device::Bench;

const RBR: u64 = 0;
const THR: u64 = 0;
const IER: u64 = 1;
const IIR: u64 = 2;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
/// 8n1 at 115200 baud with a clock of 1.8432 MHz.
const CHARACTER: u64 = 86_805;

struct Rig(Uart16550, Bench);
impl Rig {
    fn new(piped: &str) -> Self {
        let mut bench = Bench::default();
        bench.door.connect_piped(0, Box::new(piped.bytes().collect::<VecDeque<_>>()));
        let mut rig = Rig(Uart16550::new(UartConfig { port: 0, reg_shift: 0, clock: 1_843_200 }), bench);
        rig.w(LCR, 0x83);
        rig.w(0, 1);
        rig.w(1, 0);
        rig.w(LCR, 3);
        rig
    }
    fn r(&mut self, register: u64) -> u8 {
        self.1.read(&mut self.0, register, 1) as u8
    }
    fn w(&mut self, register: u64, value: u8) {
        self.1.write(&mut self.0, register, 1, value.into());
    }
    fn go(&mut self, ns: u64) {
        let to = self.1.now + ns;
        self.1.run_to(&mut self.0, to);
    }
    fn line(&self) -> bool {
        self.0.state.line
    }
}

/// "Accessible registers".
#[test]
fn registers_and_the_divisor_latch() {
    let mut u = Rig::new("");
    u.w(7, 0x5a);
    u.w(LCR, 0x9b);
    u.w(0, 0x34);
    u.w(1, 0x12);
    assert_eq!((u.r(0), u.r(1), u.r(LCR), u.r(7)), (0x34, 0x12, 0x9b, 0x5a));
    u.w(LCR, 0x1b);
    u.w(IER, 0xff);
    assert_eq!((u.r(IER), u.0.state.divisor), (0xf, 0x1234));
    u.w(MCR, 0xff);
    assert_eq!(u.r(MCR), 0x1f);
}

/// Registers four bytes apart, and an access wider than one register.
#[test]
fn register_shift() {
    let mut b = Bench::default();
    let mut u = Uart16550::new(UartConfig { port: 0, reg_shift: 2, clock: 1 });
    b.write(&mut u, 7 << 2, 4, 0x1234_5678);
    assert_eq!(b.read(&mut u, 7 << 2, 4), 0x78);
    let mut u = Rig::new("");
    u.1.write(&mut u.0, 3, 2, 0x0f1b);
    assert_eq!((u.r(LCR), u.r(MCR)), (0x1b, 0xf));
}

#[test]
fn output_leaves_at_once() {
    let (mut u, out) = (Rig::new(""), Arc::new(Mutex::new(Vec::new())));
    u.1.door.connect_output(0, Box::new(out.clone()));
    for c in b"hello" {
        assert_eq!(u.r(LSR), lsr::THRE | lsr::TEMT);
        u.w(THR, *c);
    }
    assert_eq!(*out.lock().unwrap(), b"hello");
}

/// "Interrupt Identification Register": THRE is cleared by a read of IIR that reports it, or a write of THR.
#[test]
fn thre_interrupt() {
    let mut u = Rig::new("");
    u.w(THR, b'x');
    assert!(!u.line());
    u.w(IER, ier::ETBEI);
    assert!(u.line(), "enabling it while THR is empty raises it");
    assert_eq!((u.r(IIR), u.r(IIR)), (iir::THR_EMPTY, iir::NONE));
    assert!(!u.line());
    u.w(THR, b'x');
    assert_eq!(u.r(IIR), iir::THR_EMPTY);
    u.w(IER, ier::ETBEI);
    assert_eq!(u.r(IIR), iir::NONE, "it was enabled before");
    u.w(IER, 0);
    u.w(IER, ier::ETBEI);
    assert_eq!(u.r(IIR), iir::THR_EMPTY);
}

#[test]
fn piped_input_comes_on_demand_at_the_programmed_speed() {
    let mut u = Rig::new("abc");
    u.go(1_000_000_000);
    assert_eq!(u.0.wakes_at(), None, "nobody listens");
    u.w(IER, ier::ERBI);
    u.go(CHARACTER - 1);
    assert!(!u.line(), "RBR can be read in vain until a character has had its time");
    u.go(1);
    assert!(u.line());
    assert_eq!((u.r(IIR), u.r(RBR)), (iir::DATA_AVAILABLE, b'a'));
    assert!(!u.line());
    u.go(CHARACTER - 1);
    assert!(!u.line());
    u.go(1);
    assert_eq!(u.r(RBR), b'b');
    u.go(CHARACTER);
    assert_eq!(u.r(RBR), b'c');
    u.go(CHARACTER);
    assert_eq!(u.0.wakes_at(), None, "the end of input does not wake for ever");
    u.1.door.arrive(0, b"d");
    u.0.tick(&mut u.1.cx());
    assert!(u.line());
    assert_eq!(u.r(RBR), b'd');
}

/// Printing between reads of LSR does not take input; polling does.
#[test]
fn a_polling_guest_gets_input_and_a_printing_one_does_not() {
    let mut u = Rig::new("a");
    for _ in 0..100 {
        assert_eq!((u.r(LSR) | u.r(LSR)) & lsr::DR, 0);
        u.w(THR, b'.');
        u.go(CHARACTER);
    }
    u.r(LSR);
    u.r(LSR);
    assert_eq!(u.r(LSR) & lsr::DR, 0);
    u.go(CHARACTER);
    assert_eq!(u.r(LSR) & lsr::DR, 1);
    assert_eq!(u.r(RBR), b'a');
}

/// "FIFO interrupt mode operation": trigger level and time-out.
#[test]
fn fifo_trigger_and_timeout() {
    let mut u = Rig::new("0123456789");
    u.w(FCR, 0x41);
    u.w(IER, ier::ERBI);
    u.go(3 * CHARACTER);
    assert_eq!((u.r(IIR), u.0.state.rx.len()), (0xc1, 3));
    u.go(CHARACTER);
    assert_eq!(u.r(IIR), 0xc4, "four are there");
    u.r(RBR);
    assert_eq!(u.r(IIR), 0xc1, "below the level");
    u.go(6 * CHARACTER);
    assert_eq!(u.0.state.rx.len(), 9);
    for _ in 0..6 {
        u.r(RBR);
    }
    assert_eq!(u.r(IIR), 0xc1);
    u.go(4 * CHARACTER - 1);
    assert_eq!(u.r(IIR), 0xc1);
    u.go(1);
    assert_eq!((u.r(IIR), u.line()), (0xcc, true));
    u.r(RBR);
    assert_eq!(u.r(IIR), 0xc1, "reading begins the rest anew");
    u.w(FCR, 0x43);
    assert_eq!(u.r(LSR) & lsr::DR, 0);
    u.go(10 * CHARACTER);
    assert_eq!(u.r(IIR), 0xc1);
}

#[test]
fn the_wire_waits_while_the_fifo_is_full() {
    let mut u = Rig::new("0123456789abcdefghij");
    u.w(FCR, 1);
    u.w(IER, ier::ERBI);
    u.go(100 * CHARACTER);
    assert_eq!((u.0.state.rx.len(), u.0.wakes_at()), (16, None));
    let text: Vec<u8> = (0..20)
        .map(|_| {
            u.go(CHARACTER);
            u.r(RBR)
        })
        .collect();
    assert_eq!(text, b"0123456789abcdefghij");
    assert_eq!(u.r(LSR) & lsr::OE, 0);
}

/// "Modem Control Register", loopback: data, modem outputs, overrun, break.
#[test]
fn loopback() {
    let mut u = Rig::new("outside");
    assert_eq!(u.r(MSR), msr::CTS | msr::DSR | msr::DCD);
    u.w(MCR, mcr::LOOP | mcr::OUT1);
    assert_eq!(u.r(MSR), msr::RI | 0xb, "CTS, DSR and DCD have changed, RI has only begun");
    u.w(MCR, mcr::LOOP | mcr::RTS);
    assert_eq!((u.r(MSR), u.r(MSR)), (msr::CTS | msr::TERI | 1, msr::CTS));
    u.w(LCR, 0);
    u.w(THR, 0xff);
    assert_eq!((u.r(LSR) & lsr::DR, u.r(RBR)), (1, 0x1f), "five bits");
    u.w(LCR, 3);
    u.w(IER, ier::ELSI);
    u.w(THR, 1);
    u.w(THR, 2);
    assert_eq!((u.r(IIR), u.r(LSR) & 3, u.r(RBR)), (iir::LINE_STATUS, 3, 2), "RBR is overwritten");
    assert_eq!(u.r(IIR), iir::NONE);
    u.w(FCR, 1);
    for c in 0..17 {
        u.w(THR, c);
    }
    assert_eq!(u.r(LSR) & lsr::OE, lsr::OE);
    for c in 0..16 {
        assert_eq!(u.r(RBR), c);
    }
    u.w(THR, 9);
    u.w(LCR, 0x43);
    assert_eq!(u.r(LSR) & 0x9f, lsr::FIFO_ERROR | lsr::DR, "the break is not on top yet");
    assert_eq!(u.r(RBR), 9);
    assert_eq!(u.r(LSR) & 0x1f, lsr::DR | lsr::BI | lsr::FE);
    assert_eq!(u.r(LSR) & 0x9f, lsr::DR);
}

/// "Interrupt control functions": the four levels of priority.
#[test]
fn interrupt_priority() {
    let mut u = Rig::new("");
    u.w(MCR, mcr::LOOP);
    u.w(IER, ier::ALL);
    u.w(THR, 1);
    u.w(THR, 2);
    assert_eq!(u.r(IIR), iir::LINE_STATUS);
    u.r(LSR);
    assert_eq!(u.r(IIR), iir::DATA_AVAILABLE);
    u.r(RBR);
    assert_eq!(u.r(IIR), iir::THR_EMPTY);
    assert_eq!(u.r(IIR), iir::MODEM_STATUS);
    u.r(MSR);
    assert_eq!((u.r(IIR), u.line()), (iir::NONE, false));
}

proptest! {
    #[test]
    fn nothing_panics_and_saved_state_goes_on_alike(
        ops in prop::collection::vec((0u64..10, 1u8..=8, any::<u64>(), any::<bool>(), 0u64..200_000), 1..200)
    ) {
        let mut a = Rig::new("some piped input that is not very long");
        for (at, size, value, write, ns) in ops {
            a.go(ns);
            if write { a.1.write(&mut a.0, at, size, value) } else { a.1.read(&mut a.0, at, size); }
        }
        let mut b = Rig::new("");
        b.0.restore(&a.0.save()).unwrap();
        prop_assert_eq!(&a.0.state, &b.0.state);
        prop_assert_eq!(a.0.state.line, a.0.pending() != iir::NONE);
    }
}
