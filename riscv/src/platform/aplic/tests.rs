use emu_core::device::{Bench, Signal};
use proptest::prelude::*;

use super::*;

const S: u64 = DOMAIN_SIZE;

struct Rig(Aplic, Bench);
impl Rig {
    fn new(msi: bool) -> Self {
        Rig(Aplic::new(AplicConfig { sources: 95, harts: 4, msi, guest_files: 5 }), Bench::default())
    }
    fn r(&mut self, at: u64) -> u32 {
        self.1.read(&mut self.0, at, 4) as u32
    }
    fn w(&mut self, at: u64, value: u32) {
        self.1.write(&mut self.0, at, 4, value.into());
    }
    fn input(&mut self, line: u32, level: bool) {
        self.0.input(line, level, &mut self.1.cx());
    }
    fn msis(&mut self) -> Vec<(u64, u32)> {
        let signals = self.1.take_signals().into_iter();
        signals
            .filter_map(|s| if let Signal::Msi { address, data } = s { Some((address, data)) } else { None })
            .collect()
    }
    /// A machine-level source, enabled, forwarded to hart 0 as identity 9, or with priority 9.
    fn source(&mut self, n: u64, mode: u32) {
        self.w(DOMAINCFG, DOMAINCFG_IE);
        self.w(4 * n, mode);
        self.w(TARGET + 4 * (n - 1), 9);
        self.w(SETIENUM, n as u32);
    }
    fn pending(&mut self, n: u64) -> bool {
        self.r(SETIP + n / 32 * 4) >> (n % 32) & 1 != 0
    }
}

/// "Domain configuration", "Source configurations".
#[test]
fn configuration_registers() {
    let mut a = Rig::new(true);
    a.w(DOMAINCFG, u32::MAX);
    assert_eq!(a.r(DOMAINCFG), 0x8000_0104);
    let mut a = Rig::new(false);
    a.w(S, u32::MAX);
    assert_eq!((a.r(DOMAINCFG), a.r(S)), (0x8000_0000, 0x8000_0100));
    for (value, reads) in [(1, 1), (2, 0), (3, 0), (4, 4), (7, 7), (0xf8 | 6, 6), (0x400, 0x400)] {
        a.w(4, value);
        assert_eq!(a.r(4), reads);
    }
    a.w(4 * 96, 6);
    a.w(S + 8, 6);
    assert_eq!((a.r(4 * 96), a.r(S + 8)), (0, 0), "not implemented; not delegated");
    a.w(S + 4, 6);
    assert_eq!(a.r(S + 4), 6);
    a.w(S + 4, 0x406);
    assert_eq!(a.r(S + 4), 0, "a leaf domain delegates nothing");
    a.w(S + 4, 6);
    a.w(4, 1);
    assert_eq!(a.r(S + 4), 0, "taken back");
}

/// "Source configurations": inactive sources read as 0.
#[test]
fn inactive_sources_are_wired_to_0() {
    let mut a = Rig::new(false);
    for at in [SETIE, SETIP, TARGET] {
        a.w(at, u32::MAX);
        assert_eq!(a.r(at), 0);
    }
    a.w(4, 1);
    assert_eq!(a.r(TARGET), 1, "a priority is never 0");
    a.w(TARGET, 2 << 18 | 0x100);
    assert_eq!(a.r(TARGET), 2 << 18 | 1);
    a.w(TARGET, 4 << 18 | 7);
    assert_eq!(a.r(TARGET), 2 << 18 | 1, "there is no hart 4");
    a.w(SETIE, u32::MAX);
    a.w(SETIP, u32::MAX);
    assert_eq!((a.r(SETIE), a.r(SETIP)), (2, 2));
    a.w(4, 0);
    assert_eq!((a.r(SETIE), a.r(SETIP), a.r(TARGET)), (0, 0, 0));
}

/// "Precise effects on interrupt-pending bits": Detached and the edge modes.
#[test]
fn pending_bits_of_detached_and_edge_sources() {
    let mut a = Rig::new(false);
    a.w(4 * 40, 1);
    a.input(40, true);
    assert!(!a.pending(40));
    a.w(SETIPNUM_LE, 40);
    assert!(a.pending(40));
    a.w(CLRIPNUM, 40);
    assert!(!a.pending(40));
    a.w(4 * 40, 4);
    assert!(!a.pending(40), "high already: no edge");
    a.input(40, false);
    a.input(40, true);
    a.input(40, false);
    assert!(a.pending(40), "an edge stays");
    assert_eq!(a.r(IN_CLRIP + 4), 0);
    a.w(IN_CLRIP + 4, 1 << 8);
    assert!(!a.pending(40));
    a.w(4 * 40, 5);
    assert_eq!(a.r(IN_CLRIP + 4), 1 << 8, "inverted");
    a.input(40, true);
    assert!(!a.pending(40));
    a.input(40, false);
    assert!(a.pending(40));
}

/// The same section: level modes in direct delivery mode, where the pending bit is the rectified input.
#[test]
fn pending_bits_of_level_sources_delivered_directly() {
    let mut a = Rig::new(false);
    a.source(3, 6);
    a.w(SETIPNUM, 3);
    assert!(!a.pending(3));
    a.w(IDC, 1);
    a.input(3, true);
    a.w(CLRIPNUM, 3);
    assert!(a.pending(3));
    assert_eq!((a.r(IDC + 0x1c), a.r(IDC + 0x1c)), (3 << 16 | 9, 3 << 16 | 9), "a claim does not clear it");
    a.input(3, false);
    assert!(!a.pending(3));
    a.w(12, 7);
    assert!(a.pending(3), "low and inverted");
}

/// The same section: level modes in MSI delivery mode, and "Special consideration for level-sensitive interrupt sources".
#[test]
fn pending_bits_of_level_sources_forwarded_by_msi() {
    let mut a = Rig::new(true);
    a.source(3, 6);
    a.w(SETIPNUM, 3);
    assert!(!a.pending(3) && a.msis().is_empty());
    a.input(3, true);
    assert!(!a.pending(3), "forwarded");
    assert_eq!(a.msis(), [(0, 9)]);
    a.input(3, true);
    assert!(a.msis().is_empty());
    a.w(SETIPNUM, 3);
    assert_eq!(a.msis().len(), 1, "the wire is still high");
    a.w(CLRIENUM, 3);
    a.w(SETIP, 1 << 3);
    assert!(a.pending(3));
    a.input(3, false);
    assert!(!a.pending(3), "low: nothing can be pending");
    a.input(3, true);
    a.w(IN_CLRIP, 1 << 3);
    assert!(!a.pending(3));
}

/// "Addresses and data for outgoing MSIs".
#[test]
fn msi_addresses() {
    let mut a = Rig::new(true);
    a.w(MMSIADDRCFG, 0x24000);
    a.w(SMSIADDRCFG, 0x28000);
    a.w(SMSIADDRCFGH, 3 << 20);
    a.w(MMSIADDRCFGH, 2 << 12); // LHXW 2, no groups
    a.source(1, 1);
    a.w(TARGET, 3 << 18 | 5 << 12 | 77);
    assert_eq!(a.r(TARGET), 3 << 18 | 77, "machine level has no guest index");
    a.w(SETIPNUM, 1);
    assert_eq!(a.msis(), [(0x2400_3000, 77)]);
    a.w(8, 0x400);
    a.w(S, DOMAINCFG_IE);
    a.w(S + 8, 4);
    a.w(S + TARGET + 4, 2 << 18 | 5 << 12 | 0x855);
    a.w(S + SETIENUM, 2);
    a.input(2, true);
    assert_eq!(a.msis(), [(0x2800_0000 + (2 << 15) + (5 << 12), 0x55)]);
    a.w(MMSIADDRCFGH, 1 << 31 | 4 << 24 | 1 << 16 | 1 << 12); // two groups of two, 2^(12 + 4 + 12) apart
    a.w(SETIPNUM, 1);
    assert_eq!(a.msis(), [(0x3400_1000, 77)]);
    for at in [MMSIADDRCFG, MMSIADDRCFGH, SMSIADDRCFG, SMSIADDRCFGH] {
        let was = a.r(at);
        a.w(at, 0x1234_5678);
        assert_eq!((a.r(at), a.r(S + at)), (was, 0), "locked; the supervisor domain has none");
    }
}

/// "Domain configuration" IE and "Generate MSI".
#[test]
fn the_global_enable_and_genmsi() {
    let mut a = Rig::new(true);
    a.source(1, 1);
    a.w(DOMAINCFG, 0);
    a.w(SETIPNUM, 1);
    assert!(a.pending(1) && a.msis().is_empty());
    a.w(GENMSI, 1 << 18 | 0x1005);
    assert_eq!((a.msis(), a.r(GENMSI)), (vec![(0, 5)], 1 << 18 | 5));
    a.w(DOMAINCFG, DOMAINCFG_IE);
    assert_eq!(a.msis(), [(0, 9)]);
    let mut a = Rig::new(false);
    a.w(GENMSI, 5);
    assert_eq!((a.msis().len(), a.r(GENMSI)), (0, 0));
}

/// "Interrupt delivery control (IDC) structure".
#[test]
fn direct_delivery() {
    let mut a = Rig::new(false);
    let idc = S + IDC + 32; // hart 1, supervisor level
    a.w(S, DOMAINCFG_IE);
    for n in [5, 6, 7] {
        a.w(4 * n, 0x400);
        a.w(S + 4 * n, 1);
        a.w(S + TARGET + 4 * (n - 1), 1 << 18 | if n == 7 { 2 } else { 3 });
        a.w(S + SETIENUM, n as u32);
        a.w(S + SETIPNUM, n as u32);
    }
    assert_eq!(a.r(idc + 0x18), 7 << 16 | 2, "topi does not ask idelivery");
    assert_eq!(a.1.last_level(3), None);
    a.w(idc, 1);
    assert_eq!(a.1.last_level(3), Some(true));
    a.w(idc + 8, 2);
    assert_eq!((a.r(idc + 0x18), a.1.last_level(3)), (0, Some(false)));
    a.w(idc + 8, 3);
    assert_eq!((a.r(idc + 0x1c), a.r(idc + 0x1c)), (7 << 16 | 2, 0));
    a.w(idc + 8, 0);
    assert_eq!((a.r(idc + 0x1c), a.r(idc + 0x1c)), (5 << 16 | 3, 6 << 16 | 3));
    assert_eq!(a.1.last_level(3), Some(false));
    a.w(idc + 4, 1);
    assert_eq!(a.1.last_level(3), Some(true), "forced");
    assert_eq!((a.r(idc + 0x1c), a.r(idc + 4), a.1.last_level(3)), (0, 0, Some(false)));
    a.w(S + IDC + 4 * 32, 1);
    assert_eq!(a.r(S + IDC + 4 * 32), 0, "there is no hart 4");
}

proptest! {
    #[test]
    fn nothing_panics_and_invariants_hold(
        msi in any::<bool>(),
        ops in prop::collection::vec(
            (prop_oneof![0u64..0x40, 0x1bc0u64..0x1bd0, 0x1c00u64..0x1c08, 0x1d00u64..0x1d08, 0x1e00u64..0x1e08,
                         0x1f00u64..0x1f08, 0x2000u64..0x2008, 0x3000u64..0x3040, 0x4000u64..0x4060, 0u64..0x8000],
             any::<bool>(), any::<u32>(), 0u32..32, any::<bool>(), 0u32..20, any::<bool>()),
            1..150,
        )
    ) {
        let mut a = Rig::new(msi);
        for (at, s, value, shift, write, line, level) in ops {
            let at = (at & !3) + if s { S } else { 0 };
            if write { a.w(at, value >> shift) } else { a.r(at); }
            a.input(line, level);
            a.1.take_signals();
            for l in [Level::Machine, Level::Supervisor] {
                for i in 0..a.0.state.wires.len() {
                    let s = a.0.domain(l).sources[i];
                    let high = a.0.rectified(l, i);
                    prop_assert!(s.mode != Mode::Inactive || !s.pending && !s.enabled && s.target == 0);
                    prop_assert!(!s.mode.is_level() || !s.pending || high);
                    prop_assert!(!s.mode.is_level() || msi || s.pending == high);
                    prop_assert!(!(msi && a.0.domain(l).ie && s.pending && s.enabled));
                }
            }
        }
        let mut b = Rig::new(msi);
        b.0.restore(&a.0.save()).unwrap();
        prop_assert_eq!(b.0.state, a.0.state);
    }
}
