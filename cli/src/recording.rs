//! Recordings: all that came from outside, with the instruction count at which the guest could first see it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use emu_core::door::Stamped;
use serde::{Deserialize, Serialize};

use crate::error::{UserError, about};
use crate::machine::read_file;
use crate::outputs;

const MAGIC: &str = "UNDERVISOR-RECORDING-2";

/// What a recording begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// What the machine was made from.
    pub platform: Vec<u8>,
    /// Its clock: not 0 where it came from a snapshot.
    pub count: u64,
    /// The hash of its state, with the kernel and all else that was loaded.
    pub state_hash: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Recording {
    magic: String,
    begins: Beginning,
    /// Counts go on over resets.
    input: Vec<Stamped>,
}

/// Input of a recording, to be given again.
#[derive(Default)]
pub struct Replay {
    /// Comes by itself, at its count.
    pub typed: VecDeque<Stamped>,
    /// Is taken by guest demand, by console.
    pub piped: BTreeMap<u32, VecDeque<u8>>,
}

/// Writes a recording.
pub fn save(path: &Path, begins: Beginning, input: Vec<Stamped>) -> Result<(), UserError> {
    let bytes = emu_core::to_bytes(&Recording { magic: MAGIC.into(), begins, input });
    outputs::save(path, &[&bytes, blake3::hash(&bytes).as_bytes()])
}

/// Reads a recording that begins as this run does.
pub fn load(path: &Path, begins: &Beginning) -> Result<Replay, UserError> {
    let wrong = |problem: &str| about(path.display(), problem);
    let file = read_file(path)?;
    let (body, sum) = file.bytes.split_last_chunk::<32>().ok_or_else(|| wrong("not a recording"))?;
    if !body.get(1..).is_some_and(|b| b.starts_with(&MAGIC.as_bytes()[..MAGIC.len() - 1])) {
        return Err(wrong("not a recording"));
    }
    if !body[1..].starts_with(MAGIC.as_bytes()) {
        return Err(wrong("a recording of another version of undervisor"));
    }
    if blake3::hash(body).as_bytes() != sum {
        return Err(wrong("a truncated or corrupted recording"));
    }
    let recording: Recording = emu_core::from_bytes(body).map_err(|e| wrong(&e))?;
    if recording.begins.platform != begins.platform {
        return Err(wrong("it was recorded on another machine: give the options that it was recorded with"));
    }
    if recording.begins.count != begins.count {
        let (there, here) = (recording.begins.count, begins.count);
        return Err(wrong(&format!(
            "it begins at count {there}, this run at {here}: give the same --restore, or none"
        )));
    }
    if recording.begins.state_hash != begins.state_hash {
        return Err(wrong("it was recorded with another kernel, firmware, initial RAM disk or snapshot"));
    }
    let mut replay = Replay::default();
    for stamped in recording.input {
        match stamped.piped {
            true => replay.piped.entry(stamped.port).or_default().extend(stamped.bytes),
            false => replay.typed.push_back(stamped),
        }
    }
    Ok(replay)
}
