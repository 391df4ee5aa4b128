use super::*;
use crate::platform::vtd::IOAPIC;

const REMAPPABLE: u64 = 0xfee0_0010;

fn address(index: u64) -> u64 {
    REMAPPABLE | (index & 0x7fff) << 5 | index >> 15 << 2
}

impl Rig {
    fn set_entry(&mut self, index: u64, low: u64, high: u64) {
        self.store(INTERRUPTS + 16 * index, low);
        self.store(INTERRUPTS + 16 * index + 8, high);
    }

    fn request(&mut self, requester: u16, address: u64, data: u32) -> Vec<InterruptMessage> {
        assert!(self.unit.message(requester, address, data, &mut self.b.cx()));
        self.messages()
    }
}

/// In the extended interrupt mode.
fn extended() -> Rig {
    let mut r = Rig::new();
    r.w(IRTA_REG, INTERRUPTS | irta::EIME | 3);
    r.w(GCMD_REG, gcmd::SIRTP | gcmd::IRE | gcmd::QIE | gcmd::TE);
    r
}

fn to(destination: u32, vector: u8) -> InterruptMessage {
    InterruptMessage { destination, vector, assert: true, ..InterruptMessage::default() }
}

#[test]
fn entries_say_where_interrupts_go() {
    let mut r = Rig::new();
    r.set_entry(5, 0x33 << 40 | 0x41 << 16 | 1 << 5 | 0b11101, 0);
    let expected = InterruptMessage {
        logical: true,
        redirection_hint: true,
        level_triggered: true,
        delivery: 1,
        ..to(0x33, 0x41)
    };
    assert_eq!(r.request(SOURCE, address(5), 0xffff_ffff), [expected], "without a subhandle the data does not count");
    r.set_entry(7, 0x1 << 40 | 0x42 << 16 | 1, 0);
    assert_eq!(r.request(SOURCE, address(5) | 8, 2), [to(1, 0x42)], "with a subhandle");
    let mut r = extended();
    r.set_entry(5, 0x1234_5678 << 32 | 0x41 << 16 | 1, 0);
    assert_eq!(r.request(SOURCE, address(5), 0), [InterruptMessage { wide: true, ..to(0x1234_5678, 0x41) }]);
    assert_eq!(r.fault(), None);
}

#[test]
fn what_is_no_interrupt_request() {
    let mut r = Rig::new();
    assert!(!r.unit.message(SOURCE, 0x1000, 0, &mut r.b.cx()));
    r.w(GCMD_REG, gcmd::QIE);
    assert!(r.unit.message(SOURCE, address(5), 0x41, &mut r.b.cx()));
    assert_eq!(r.b.take_signals(), [Signal::Msi { address: address(5), data: 0x41 }], "nothing is remapped");
}

#[test]
fn compatibility_format() {
    let passes = |r: &mut Rig| {
        assert!(r.unit.message(SOURCE, 0xfee0_1000, 0x41, &mut r.b.cx()));
        let signals = r.b.take_signals();
        assert!(signals.is_empty() || signals == [Signal::Msi { address: 0xfee0_1000, data: 0x41 }]);
        (!signals.is_empty(), r.fault())
    };
    let mut r = Rig::new();
    assert_eq!(passes(&mut r), (false, Some(0x25)));
    r.w(GCMD_REG, gcmd::IRE | gcmd::QIE | gcmd::CFI);
    assert_eq!(passes(&mut r), (true, None));
    let mut r = extended();
    r.w(GCMD_REG, gcmd::IRE | gcmd::QIE | gcmd::CFI);
    assert_eq!(passes(&mut r), (false, Some(0x25)), "never in the extended mode");
}

/// Each case spoils a request that is delivered; of those behind an entry, FPD keeps them from being reported.
#[test]
fn fault_reasons() {
    const GOOD: u64 = 1 << 40 | 0x41 << 16 | 1;
    let verified = 1 << 18 | u64::from(SOURCE);
    for (low, high, address, data, reason) in [
        (GOOD, verified, address(5) | 8, 0x1_0000, 0x20),
        (GOOD, verified, address(16), 0, 0x21),
        (GOOD, verified, address(0xffff) | 8, 0xffff, 0x21),
        (GOOD & !1, verified, address(5), 0, 0x22),
        (GOOD | 1 << 12, verified, address(5), 0, 0x24),
        (GOOD | 1 << 24, verified, address(5), 0, 0x24),
        (GOOD | 1 << 32, verified, address(5), 0, 0x24),
        (GOOD | 1 << 48, verified, address(5), 0, 0x24),
        (GOOD, verified | 1 << 20, address(5), 0, 0x24),
        (GOOD, 3 << 18, address(5), 0, 0x24),
        (GOOD | 3 << 5, verified, address(5), 0, 0x24),
        (GOOD, verified ^ 1, address(5), 0, 0x26),
        (GOOD, verified ^ 0x100, address(5), 0, 0x26),
    ] {
        for disabled in [false, true] {
            let mut r = Rig::new();
            r.set_entry(5, GOOD, verified);
            assert_eq!(r.request(SOURCE, super::interrupts::address(5), 0), [to(1, 0x41)]);
            r.queue(4, 0);
            r.set_entry(5, low | if disabled { 2 } else { 0 }, high);
            assert_eq!(r.request(SOURCE, address, data), []);
            let index = if address == super::interrupts::address(5) { 5 << 48 } else { 0 };
            let fault = r.take_fault();
            if disabled && reason >= 0x22 {
                assert_eq!(fault, None);
            } else {
                let (got, source, information) = fault.unwrap();
                assert_eq!((got, source), (reason, SOURCE.into()), "{low:#x} {high:#x} {address:#x}");
                assert!(index == 0 || information == index);
            }
        }
    }
    let mut r = Rig::new();
    r.w(IRTA_REG, RAM | 0xf);
    r.w(GCMD_REG, gcmd::SIRTP | gcmd::IRE);
    assert_eq!((r.request(SOURCE, address(0xffff), 0), r.fault()), (vec![], Some(0x23)));
}

/// SVT, SQ and SID.
#[test]
fn source_validation() {
    let mut r = Rig::new();
    let mut comes_through = |requester, high| {
        r.set_entry(5, 1 << 40 | 0x41 << 16 | 1, high);
        r.queue(4, 0);
        let sent = !r.request(requester, address(5), 0).is_empty();
        assert_eq!(r.fault(), (!sent).then_some(0x26));
        sent
    };
    for (requester, qualifier, expected) in [
        (0x1234, 0, true),
        (0x1230, 0, false),
        (0x1230, 1, true),
        (0x1236, 1, false),
        (0x1232, 2, true),
        (0x1235, 2, false),
        (0x1233, 3, true),
        (0x123c, 3, false),
        (0x0034, 3, false),
    ] {
        assert_eq!(
            comes_through(requester, 1 << 18 | qualifier << 16 | 0x1234),
            expected,
            "{requester:#x} {qualifier}"
        );
    }
    for (requester, expected) in [(0x0fff, false), (0x1000, true), (0x20ff, true), (0x2100, false)] {
        assert_eq!(comes_through(requester, 2 << 18 | 0x1020), expected, "{requester:#x}");
    }
    assert!(comes_through(0xabcd, 0));
    for verifies_ioapic in [false, true] {
        let mut r = Rig::with(VtdConfig { verifies_ioapic, ..VtdConfig::default() });
        r.set_entry(5, 1 << 40 | 0x41 << 16 | 1, 1 << 18 | u64::from(SOURCE));
        assert_eq!(r.request(IOAPIC, address(5), 0).is_empty(), verifies_ioapic);
    }
}

#[test]
fn the_interrupt_entry_cache() {
    for (descriptor, expected) in [
        (4, 0x42),
        (5 << 32 | 1 << 4 | 4, 0x42),
        (4 << 32 | 1 << 4 | 4, 0x41),
        (4 << 32 | 1 << 27 | 1 << 4 | 4, 0x42),
        (31 << 27 | 1 << 4 | 4, 0x42),
    ] {
        let mut r = Rig::new();
        for vector in [0x41, 0x42] {
            r.set_entry(5, 1 << 40 | vector << 16 | 1, 0);
            assert_eq!(r.request(SOURCE, address(5), 0), [to(1, 0x41)]);
        }
        r.queue(descriptor, 0);
        assert_eq!(r.request(SOURCE, address(5), 0), [to(1, expected)], "{descriptor:#x}");
    }
}

const ON: u64 = 1;
const SN: u64 = 2;
const URG: u64 = 1 << 14;

/// An entry for vector 91h in posted format, and a descriptor that is notified by F2h to 105h.
fn posting(more: u64, control: u64) -> Rig {
    let mut r = extended();
    r.set_entry(5, DESCRIPTOR << 32 | 1 << 15 | 0x91 << 16 | 1 | more, 0);
    r.store(DESCRIPTOR + 32, 0x105 << 32 | 0xf2 << 16 | control);
    r
}

#[test]
fn interrupts_are_posted() {
    for (more, control, notifies) in [
        (0, 0, true),
        (0, ON, false),
        (0, SN, false),
        (URG, SN, true),
        (URG, SN | ON, false),
        (URG, ON, false),
        (URG, 0, true),
    ] {
        let mut r = posting(more, control);
        r.store(DESCRIPTOR + 16, 1);
        let notification = InterruptMessage { assert: false, wide: true, ..to(0x105, 0xf2) };
        let expected = if notifies { vec![notification] } else { vec![] };
        assert_eq!((r.request(SOURCE, address(5), 0), r.fault()), (expected, None), "{more:#x} {control}");
        assert_eq!((r.load(DESCRIPTOR + 16), r.load(DESCRIPTOR)), (1 << 17 | 1, 0));
        let on = if notifies { ON } else { control & ON };
        assert_eq!(r.load(DESCRIPTOR + 32), 0x105 << 32 | 0xf2 << 16 | control & SN | on);
    }
}

#[test]
fn faults_of_posting() {
    for (low, high, offset, word, reason) in [
        (1 << 2, 0, 0, 0, 0x24),
        (1 << 13, 0, 0, 0, 0x24),
        (1 << 37, 0, 0, 0, 0x24),
        (0, 1 << 20, 0, 0, 0x24),
        (0, 1 << 32, 0, 0, 0x27),
        (0, 0, 32, 4, 0x28),
        (0, 0, 32, 1 << 24, 0x28),
        (0, 0, 56, 1 << 63, 0x28),
    ] {
        for disabled in [0, 2] {
            let mut r = posting(low | disabled, 0);
            r.store(INTERRUPTS + 16 * 5 + 8, high);
            if offset != 0 {
                r.store(DESCRIPTOR + offset, word);
            }
            let expected = if disabled == 0 { Some(reason) } else { None };
            assert_eq!(
                (r.request(SOURCE, address(5), 0), r.fault()),
                (vec![], expected),
                "{low:#x} {high:#x} {offset}"
            );
            assert_eq!(r.load(DESCRIPTOR + 16), 0);
        }
    }
    let mut r = posting(0, 0);
    r.w(IRTA_REG, INTERRUPTS | 3);
    r.w(GCMD_REG, gcmd::SIRTP | gcmd::IRE | gcmd::QIE);
    assert_eq!((r.request(SOURCE, address(5), 0), r.fault()), (vec![], Some(0x28)), "an x2APIC ID in xAPIC mode");
}
