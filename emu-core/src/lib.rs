//! The computer without an instruction set: guest RAM, bus, devices common to all machines, virtual time, the micro-op
//! engine, the TLB, the run loop, the event stream and snapshots. See `docs/design.md`.

pub mod bus;
pub mod debug;
pub mod device;
pub mod devices;
pub mod dma;
pub mod door;
pub mod engine;
pub mod event;
pub mod file;
pub mod float;
pub mod iommu;
pub mod machine;
pub mod ram;
pub mod random;
pub mod snapshot;
pub mod time;
pub mod tlb;

/// Serializes plain state.
///
/// # Panics
/// Never for the state types of this workspace: they hold nothing that postcard cannot write.
pub fn to_bytes<T: serde::Serialize>(state: &T) -> Vec<u8> {
    postcard::to_allocvec(state).expect("plain state serializes")
}

/// Reads state that [`to_bytes`] wrote; an error says what is wrong with the bytes.
pub fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(e) => Err(e.to_string()),
    }
}
