//! The model `amd`: a server part like the EPYC 9004 series (family 19h, model 11h).

use super::intel::Cache;

/// Fn0000_0001_EAX: family 19h, model 11h, stepping 1.
pub(super) const SIGNATURE: u32 = 0x00a1_0f11;
/// Fn8000_0002 to Fn8000_0004.
pub(super) const BRAND: &str = "AMD EPYC 9354 32-Core Processor";
/// PATCH_LEVEL. Later than those that have known faults, of which Linux and Xen warn.
pub(crate) const MICROCODE: u32 = 0x0a10_11ff;
/// Bits of a physical address.
pub(super) const PHYSICAL_BITS: u8 = 48;

/// Fn8000_001D.
pub(super) const CACHES: [Cache; 4] = [
    Cache { kind: 1, level: 1, ways: 8, sets: 64, shared: false },
    Cache { kind: 2, level: 1, ways: 8, sets: 64, shared: false },
    Cache { kind: 3, level: 2, ways: 8, sets: 2048, shared: false },
    Cache { kind: 3, level: 3, ways: 16, sets: 32_768, shared: true },
];
