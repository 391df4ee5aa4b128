use super::*;

const STATUS: u64 = 0xb000;
const WAIT: u64 = 5;

#[test]
fn waiting_by_status_and_by_interrupt() {
    let mut r = Rig::new();
    r.w(IEADDR_REG, 0xfee0_0000);
    r.w(IEDATA_REG, 0x55);
    r.queue(0x1234_5678 << 32 | 1 << 5 | WAIT, STATUS);
    assert_eq!((r.load(STATUS), r.r(IQH_REG), r.r(ICS_REG)), (0x1234_5678, 16, 0));
    r.queue(1 << 4 | WAIT, 0);
    assert_eq!((r.r(ICS_REG), r.r(IECTL_REG), r.messages()), (1, event::IM | event::IP, vec![]));
    r.w(IECTL_REG, 0);
    let sent = InterruptMessage { vector: 0x55, ..InterruptMessage::default() };
    assert_eq!(r.messages(), [sent]);
    r.queue(1 << 4 | WAIT, 0);
    assert_eq!(r.messages(), [], "IWC is still set");
    r.w(ICS_REG, 1);
    r.queue(1 << 6 | 1 << 4 | WAIT, 0);
    assert_eq!((r.messages(), r.r(ICS_REG)), (vec![sent], 1));
}

#[test]
fn the_queue_is_a_ring() {
    let mut r = Rig::new();
    for n in 0..600u64 {
        r.queue(n << 32 | 1 << 5 | WAIT, STATUS);
        assert_eq!((r.load(STATUS), r.r(IQH_REG)), (n, 16 * (n + 1) % 0x1000));
    }
    // Off and on again it begins anew.
    r.w(GCMD_REG, 0);
    r.w(IQT_REG, 0);
    r.tail = 0;
    r.queue(7 << 32 | 1 << 5 | WAIT, STATUS);
    assert_eq!((r.load(STATUS), r.r(IQH_REG)), (599, 0));
    r.w(GCMD_REG, gcmd::QIE);
    assert_eq!((r.load(STATUS), r.r(IQH_REG)), (7, 16));
}

#[test]
fn errors_stop_it() {
    for (low, high, information) in [
        (0, 0, 3),
        (3, 0, 3),
        (1 << 9 | 2, 0, 3),
        (1, 0, 4),
        (1 << 4 | 1, 1, 4),
        (1 << 4 | 1 << 50 | 1, 0, 4),
        (2, 0, 4),
        (3 << 4 | 2, 19, 4),
        (1 << 4 | 1 << 32 | 2, 0, 4),
        (1 << 5 | 4, 0, 4),
        (1 << 7 | WAIT, 0, 4),
        (WAIT, 1, 4),
    ] {
        let mut r = Rig::new();
        r.queue(low, high);
        r.queue(9 << 32 | 1 << 5 | WAIT, STATUS);
        assert_eq!((r.r(FSTS_REG), r.r(IQERCD_REG), r.r(IQH_REG)), (fsts::IQE, information, 0), "{low:#x} {high:#x}");
        assert_eq!((r.load(STATUS), r.r(FECTL_REG)), (0, event::IM | event::IP));
        r.store(QUEUE, 1 << 4 | 2);
        r.store(QUEUE + 8, 0);
        r.w(FSTS_REG, fsts::IQE);
        assert_eq!((r.load(STATUS), r.r(FSTS_REG), r.r(IQH_REG)), (9, 0, 32), "software has mended it");
    }
    let mut r = Rig::new();
    r.w(IQT_REG, 0x1000);
    assert_eq!((r.r(FSTS_REG), r.r(IQERCD_REG)), (fsts::IQE, 1));
    let mut r = Rig::new();
    r.w(IQA_REG, RAM);
    r.w(IQT_REG, 0x10);
    assert_eq!((r.r(FSTS_REG), r.r(IQERCD_REG)), (fsts::IQE, 2));
}
