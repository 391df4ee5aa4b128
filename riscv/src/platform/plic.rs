//! PLIC: the platform-level interrupt controller (RISC-V Platform-Level Interrupt Controller Specification 1.0.0).
//!
//! Contexts are the machine level (even) and the supervisor level (odd) of each hart: 2 hart + {0, 1}. The output line of a
//! context has its number. Gateways are level-triggered.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

/// Interrupt priority registers, one word a source.
const PRIORITY: u64 = 0;
/// Interrupt pending bits.
const PENDING: u64 = 0x1000;
/// Interrupt enable bits, 0x80 bytes a context.
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
/// Priority threshold and claim/complete, 0x1000 bytes a context.
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;
/// The most sources; interrupt 0 does not exist.
pub const MAX_SOURCES: u32 = 1023;
/// Priorities and thresholds have three bits.
const PRIORITY_MASK: u32 = 7;

/// Size in bytes of the registers of a PLIC with so many contexts.
pub fn plic_size(contexts: u32) -> u64 {
    CONTEXT + CONTEXT_STRIDE * u64::from(contexts)
}

/// An interrupt source, with its gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    priority: u32,
    /// The level of the wire.
    level: bool,
    /// IP: the gateway's request waits in the core.
    pending: bool,
    /// Claimed and not completed: the gateway sends nothing.
    in_service: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Context {
    enable: Vec<u32>,
    threshold: u32,
    /// The level of the output line.
    line: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    sources: Vec<Source>,
    contexts: Vec<Context>,
}

/// The controller.
pub struct Plic {
    state: State,
}

impl Plic {
    /// A PLIC with sources 1 to `sources` and two contexts for each of `harts` harts.
    pub fn new(sources: u32, harts: u32) -> Self {
        let sources = sources.min(MAX_SOURCES) as usize + 1;
        let context = Context { enable: vec![0; sources.div_ceil(32)], ..Context::default() };
        Plic { state: State { sources: vec![Source::default(); sources], contexts: vec![context; 2 * harts as usize] } }
    }

    fn is_enabled(&self, context: usize, source: usize) -> bool {
        self.state.contexts[context].enable[source / 32] >> (source % 32) & 1 != 0
    }

    /// "Interrupt Gateways": one request at a time, no further one until completion.
    fn gateway(&mut self, source: usize) {
        let s = &mut self.state.sources[source];
        if s.level && !s.in_service {
            s.pending = true;
        }
    }

    /// The pending and enabled source of the highest priority for a context, among equals the lowest number; 0 for none.
    /// "Interrupt Priorities": a source of priority 0 never interrupts.
    fn best(&self, context: usize) -> usize {
        let mut best = 0;
        for (i, s) in self.state.sources.iter().enumerate().skip(1) {
            if s.pending && s.priority > self.state.sources[best].priority && self.is_enabled(context, i) {
                best = i;
            }
        }
        best
    }

    /// "Interrupt Notifications": a context's line is high while a source above its threshold waits.
    fn update_lines(&mut self, cx: &mut DeviceCx) {
        for c in 0..self.state.contexts.len() {
            let level = self.state.sources[self.best(c)].priority > self.state.contexts[c].threshold;
            let context = &mut self.state.contexts[c];
            if level != context.line {
                context.line = level;
                cx.line(c as u32, level);
            }
        }
    }

    /// "Interrupt Claims": the threshold does not matter.
    fn claim(&mut self, context: usize) -> u32 {
        let source = self.best(context);
        if source != 0 {
            let s = &mut self.state.sources[source];
            s.pending = false;
            s.in_service = true;
        }
        source as u32
    }

    /// "Interrupt Completion": ignored unless the source is enabled for the context.
    fn complete(&mut self, context: usize, source: usize) {
        if source != 0 && source < self.state.sources.len() && self.is_enabled(context, source) {
            self.state.sources[source].in_service = false;
            self.gateway(source);
        }
    }

    fn pending_word(&self, word: usize) -> u32 {
        let sources = self.state.sources.iter().skip(32 * word).take(32);
        sources.enumerate().map(|(i, s)| u32::from(s.pending) << i).sum()
    }

    /// Sources that exist in a word of bits.
    fn implemented(&self, word: usize) -> u32 {
        let first = 32 * word;
        let n = self.state.sources.len().saturating_sub(first).min(32);
        let bits = if n == 32 { u32::MAX } else { (1 << n) - 1 };
        if word == 0 { bits & !1 } else { bits }
    }

    /// A context's number and the offset in its registers, within an array of strides.
    fn place(&self, at: u64, base: u64, stride: u64) -> Option<(usize, u64)> {
        let context = ((at - base) / stride) as usize;
        (context < self.state.contexts.len()).then_some((context, (at - base) % stride))
    }

    fn read_word(&mut self, at: u64) -> u32 {
        match at {
            PRIORITY..PENDING => self.state.sources.get((at / 4) as usize).map_or(0, |s| s.priority),
            PENDING..ENABLE => self.pending_word(((at - PENDING) / 4) as usize),
            ENABLE..CONTEXT => self
                .place(at, ENABLE, ENABLE_STRIDE)
                .and_then(|(c, at)| self.state.contexts[c].enable.get((at / 4) as usize).copied())
                .unwrap_or(0),
            _ => match self.place(at, CONTEXT, CONTEXT_STRIDE) {
                Some((c, 0)) => self.state.contexts[c].threshold,
                Some((c, 4)) => self.claim(c),
                _ => 0,
            },
        }
    }

    fn write_word(&mut self, at: u64, value: u32) {
        match at {
            PRIORITY..PENDING => {
                if let Some(s) = self.state.sources.get_mut((at / 4) as usize).filter(|_| at != 0) {
                    s.priority = value & PRIORITY_MASK;
                }
            }
            PENDING..ENABLE => {} // "Interrupt Pending Bits" are for reading
            ENABLE..CONTEXT => {
                if let Some((c, at)) = self.place(at, ENABLE, ENABLE_STRIDE) {
                    let word = (at / 4) as usize;
                    let bits = value & self.implemented(word);
                    if let Some(enable) = self.state.contexts[c].enable.get_mut(word) {
                        *enable = bits;
                    }
                }
            }
            _ => match self.place(at, CONTEXT, CONTEXT_STRIDE) {
                Some((c, 0)) => self.state.contexts[c].threshold = value & PRIORITY_MASK,
                Some((c, 4)) => self.complete(c, value as usize),
                _ => {}
            },
        }
    }
}

impl Device for Plic {
    fn name(&self) -> &'static str {
        "plic"
    }

    /// "Memory Map": registers are words; other accesses read 0 and write nothing.
    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        if access.size != 4 || !access.offset.is_multiple_of(4) {
            return 0;
        }
        let value = self.read_word(access.offset);
        self.update_lines(cx);
        value.into()
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        if access.size == 4 && access.offset.is_multiple_of(4) {
            self.write_word(access.offset, value as u32);
            self.update_lines(cx);
        }
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        let source = line as usize;
        if source == 0 || source >= self.state.sources.len() {
            return;
        }
        self.state.sources[source].level = level;
        self.gateway(source);
        self.update_lines(cx);
    }

    fn reset(&mut self) {
        *self = Plic::new(self.state.sources.len() as u32 - 1, self.state.contexts.len() as u32 / 2);
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::Bench;
    use proptest::prelude::*;

    use super::*;

    const CLAIM_M: u64 = 0x20_0004;
    const CLAIM_S: u64 = 0x20_1004;

    fn plic() -> (Bench, Plic) {
        let (mut b, mut p) = (Bench::default(), Plic::new(95, 2));
        for source in 1..=95 {
            b.write(&mut p, 4 * source, 4, 1);
        }
        (b, p)
    }

    fn input(b: &mut Bench, p: &mut Plic, source: u32, level: bool) {
        p.input(source, level, &mut b.cx());
    }

    #[test]
    fn what_does_not_exist_is_wired_to_0() {
        let (mut b, mut p) = plic();
        for at in [0, 4 * 96, 0x1000, 0x200c, 0x20_4000, 0x3f_fffc] {
            b.write(&mut p, at, 4, u64::from(u32::MAX));
            assert_eq!(b.read(&mut p, at, 4), 0, "{at:#x}");
        }
        b.write(&mut p, 0x2080, 4, u64::from(u32::MAX));
        b.write(&mut p, 4, 4, 15);
        b.write(&mut p, 0x20_3000, 4, 15);
        assert_eq!(b.read(&mut p, 0x2080, 4), 0xffff_fffe);
        assert_eq!((b.read(&mut p, 4, 4), b.read(&mut p, 0x20_3000, 4), b.read(&mut p, 4, 1)), (7, 7, 0));
    }

    /// "Interrupt Flow": request, claim, completion, and again while the wire stays high.
    #[test]
    fn the_gateway_sends_one_request_at_a_time() {
        let (mut b, mut p) = plic();
        b.write(&mut p, 0x2080, 4, 1 << 10);
        input(&mut b, &mut p, 10, true);
        assert_eq!((b.last_level(1), b.last_level(0), b.read(&mut p, 0x1000, 4)), (Some(true), None, 1 << 10));
        assert_eq!((b.read(&mut p, CLAIM_S, 4), b.read(&mut p, CLAIM_S, 4)), (10, 0));
        assert_eq!((b.last_level(1), b.read(&mut p, 0x1000, 4)), (Some(false), 0));
        b.write(&mut p, CLAIM_S, 4, 10);
        assert_eq!((b.last_level(1), b.read(&mut p, CLAIM_S, 4)), (Some(true), 10), "the wire is still high");
        input(&mut b, &mut p, 10, false);
        b.write(&mut p, CLAIM_S, 4, 10);
        assert_eq!((b.last_level(1), b.read(&mut p, CLAIM_S, 4)), (Some(false), 0));
    }

    /// "Interrupt Gateways": a request that the core has accepted stays when the wire falls.
    #[test]
    fn a_request_is_not_taken_back() {
        let (mut b, mut p) = plic();
        b.write(&mut p, 0x2000, 4, 2);
        input(&mut b, &mut p, 1, true);
        input(&mut b, &mut p, 1, false);
        assert_eq!(b.read(&mut p, CLAIM_M, 4), 1);
        b.write(&mut p, CLAIM_M, 4, 1);
        assert_eq!(b.last_level(0), Some(false));
    }

    /// "Interrupt Completion": of a source that is not enabled for the context it is ignored.
    #[test]
    fn completion_needs_the_enable_bit() {
        let (mut b, mut p) = plic();
        b.write(&mut p, 0x2000, 4, 2);
        input(&mut b, &mut p, 1, true);
        b.read(&mut p, CLAIM_M, 4);
        b.write(&mut p, CLAIM_S, 4, 1);
        b.write(&mut p, CLAIM_M, 4, 0xffff_ffff);
        assert_eq!(b.read(&mut p, 0x1000, 4), 0);
        b.write(&mut p, CLAIM_M, 4, 1);
        assert_eq!(b.read(&mut p, 0x1000, 4), 2);
    }

    /// "Interrupt Priorities" and "Priority Thresholds".
    #[test]
    fn priority_and_threshold() {
        let (mut b, mut p) = plic();
        b.write(&mut p, 0x2000, 4, 0xffff_fffe);
        b.write(&mut p, 4 * 3, 4, 0);
        b.write(&mut p, 4 * 5, 4, 6);
        b.write(&mut p, 4 * 7, 4, 6);
        b.write(&mut p, 0x20_0000, 4, 6);
        for source in [7, 5, 4, 3] {
            input(&mut b, &mut p, source, true);
        }
        assert_eq!(b.last_level(0), None, "not above the threshold");
        b.write(&mut p, 0x20_0000, 4, 5);
        assert_eq!(b.last_level(0), Some(true));
        b.write(&mut p, 0x20_0000, 4, 7);
        assert_eq!(b.last_level(0), Some(false));
        assert_eq!([(); 4].map(|()| b.read(&mut p, CLAIM_M, 4)), [5, 7, 4, 0], "claims do not ask the threshold");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_lines_are_right(
            ops in prop::collection::vec(
                (prop_oneof![0u64..0x20, 0x1000u64..0x1010, 0x2000u64..0x2210, 0x20_0000u64..0x20_0010, 0x20_1000u64..0x20_1010, any::<u64>()],
                 1u8..=8, any::<u64>(), any::<bool>(), 0u32..40),
                1..200,
            )
        ) {
            let (mut b, mut p) = (Bench::default(), Plic::new(33, 2));
            for (at, size, value, write, source) in ops {
                let (at, size) = if value & 8 == 0 { (at & !3, 4) } else { (at, size) };
                if write { b.write(&mut p, at, size, value) } else { b.read(&mut p, at, size); }
                p.input(source, value & 16 != 0, &mut b.cx());
                for c in 0..4 {
                    prop_assert_eq!(p.state.contexts[c].line, p.state.sources[p.best(c)].priority > p.state.contexts[c].threshold);
                }
                prop_assert!(p.state.sources.iter().all(|s| !(s.pending && s.in_service)));
                prop_assert!(p.state.sources.iter().all(|s| !s.level || s.pending || s.in_service || s == &p.state.sources[0]));
            }
            let mut q = Plic::new(1, 1);
            q.restore(&p.save()).unwrap();
            prop_assert_eq!(q.state, p.state);
        }
    }
}
