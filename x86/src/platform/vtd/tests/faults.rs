use super::*;

/// The next fault: nothing is mapped.
fn fail(r: &mut Rig, page: u64) {
    assert_eq!(r.reads(page << 12), None);
}

#[test]
fn records_are_filled_in_turn() {
    let mut r = Rig::new();
    fail(&mut r, 1);
    fail(&mut r, 2);
    assert_eq!(r.r(FSTS_REG), fsts::PPF);
    for (n, page) in [(0, 0x1000), (1, 0x2000)] {
        assert_eq!((r.r(record(n).0), r.r(record(n).1)), (page, frcd::F | frcd::T | 6 << 32 | 8));
    }
    r.w(record(0).1, frcd::F);
    assert_eq!((r.r(record(0).1) & frcd::F, r.r(FSTS_REG)), (0, fsts::PPF), "the second is still there");
    r.w(record(1).1, frcd::F);
    assert_eq!(r.r(FSTS_REG), 0);
    fail(&mut r, 3);
    assert_eq!(
        (r.r(FSTS_REG), r.r(record(2).0)),
        (2 << 8 | fsts::PPF, 0x3000),
        "the index of the first that is pending"
    );
}

#[test]
fn overflow() {
    let mut r = Rig::new();
    (0..RECORDS as u64 + 2).for_each(|page| fail(&mut r, page));
    assert_eq!((r.r(FSTS_REG), r.r(record(0).0)), (fsts::PPF | fsts::PFO, 0));
    (0..RECORDS).for_each(|n| r.w(record(n).1, frcd::F));
    fail(&mut r, 50);
    assert_eq!(r.r(FSTS_REG), fsts::PFO, "nothing is logged until software has seen it");
    r.w(FSTS_REG, fsts::PFO);
    fail(&mut r, 51);
    assert_eq!((r.r(FSTS_REG), r.r(record(0).0)), (fsts::PPF, 51 << 12));
}

#[test]
fn events() {
    let mut r = Rig::new();
    for (register, value) in [(FEDATA_REG, 0x41), (FEADDR_REG, 0xfee0_5000), (FEUADDR_REG, 0x100)] {
        r.w(register, value);
    }
    fail(&mut r, 1);
    assert_eq!((r.messages(), r.r(FECTL_REG)), (vec![], event::IM | event::IP), "masked");
    r.w(FECTL_REG, 0);
    let sent = InterruptMessage { destination: 0x105, vector: 0x41, ..InterruptMessage::default() };
    assert_eq!((r.messages(), r.r(FECTL_REG)), (vec![sent], 0));
    fail(&mut r, 2);
    assert_eq!(r.messages(), [], "one is pending already");
    assert_eq!(r.fault(), Some(6));
    fail(&mut r, 3);
    assert_eq!(r.messages(), [sent]);
    r.w(FECTL_REG, event::IM);
    r.fault();
    fail(&mut r, 4);
    assert_eq!(r.r(FECTL_REG), event::IM | event::IP);
    r.fault();
    assert_eq!(r.r(FECTL_REG), event::IM, "software has seen to it by itself");
    r.w(FECTL_REG, 0);
    assert_eq!(r.messages(), []);
}
