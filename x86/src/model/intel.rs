//! The model `intel`: a server part like "4th Gen Intel Xeon Scalable" (family 6, model 8FH).

/// CPUID.01H:EAX: family 6, model 8FH, stepping 8.
pub(super) const SIGNATURE: u32 = 0x0008_06f8;
/// CPUID.80000002H to 80000004H.
pub(super) const BRAND: &str = "Intel(R) Xeon(R) Platinum 8480+";
/// IA32_BIOS_SIGN_ID: the microcode's revision. Later than those that Linux calls old.
pub(crate) const MICROCODE: u32 = 0x2b00_0fff;
/// MAXPHYADDR.
pub(super) const PHYSICAL_BITS: u8 = 46;

/// Leaf 4: type, level, ways, sets, whether all cores share it.
pub(super) const CACHES: [Cache; 4] = [
    Cache { kind: 1, level: 1, ways: 12, sets: 64, shared: false },
    Cache { kind: 2, level: 1, ways: 8, sets: 64, shared: false },
    Cache { kind: 3, level: 2, ways: 16, sets: 2048, shared: false },
    Cache { kind: 3, level: 3, ways: 15, sets: 114_688, shared: true },
];

/// A cache with lines of 64 bytes.
#[derive(Clone, Copy)]
pub(super) struct Cache {
    /// 1: data, 2: instructions, 3: both.
    pub kind: u32,
    pub level: u32,
    pub ways: u32,
    pub sets: u32,
    /// All cores share it; else each has its own.
    pub shared: bool,
}
