//! The one door through which anything from outside enters the machine, and through which its output leaves.
//!
//! Input is stamped with the instruction count at which the guest could first see it, so a log of it replays the run
//! (docs/design.md, "Input").

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

/// Where a console's output goes.
pub trait Output: Send {
    /// Takes bytes that the guest wrote. Errors of the host are the host's matter: they never reach the guest.
    fn write(&mut self, bytes: &[u8]);
}

/// Where piped input comes from: taken by guest demand, never by host timing, so blocking here is right.
pub trait Input: Send {
    /// The next byte, or `None` at the end of input.
    fn read(&mut self) -> Option<u8>;
}

/// Input that came from outside, with the instruction count at which the guest could first see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// Instructions retired by the whole machine.
    pub at: u64,
    /// The console that it is for.
    pub port: u32,
    /// What came.
    pub bytes: Vec<u8>,
    /// It was taken from a pipe by guest demand; else it came by itself.
    pub piped: bool,
}

/// The door. One a machine, lent to devices by [`DeviceCx`](crate::device::DeviceCx).
#[derive(Default)]
pub struct Door {
    outputs: Vec<Option<Box<dyn Output>>>,
    piped: Vec<Option<Box<dyn Input>>>,
    /// Bytes that have entered and that no device has read yet.
    waiting: Vec<VecDeque<u8>>,
    /// What has entered, when it is being recorded.
    record: Option<Vec<Stamped>>,
    /// The count of instructions now, kept by the machine.
    pub(crate) count: u64,
}

impl Door {
    /// Connects the output of console `port`.
    pub fn connect_output(&mut self, port: u32, output: Box<dyn Output>) {
        *slot(&mut self.outputs, port) = Some(output);
    }

    /// Connects piped input to console `port`.
    pub fn connect_piped(&mut self, port: u32, input: Box<dyn Input>) {
        *slot(&mut self.piped, port) = Some(input);
    }

    /// Whether piped input of console `port` has not ended.
    pub fn has_piped(&self, port: u32) -> bool {
        self.piped.get(port as usize).is_some_and(Option::is_some)
    }

    /// Starts to record all that enters.
    pub fn start_record(&mut self) {
        self.record = Some(Vec::new());
    }

    /// Takes what has been recorded since the last call.
    pub fn take_record(&mut self) -> Vec<Stamped> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The guest wrote `bytes` to console `port`.
    pub fn write(&mut self, port: u32, bytes: &[u8]) {
        if let Some(Some(output)) = self.outputs.get_mut(port as usize) {
            output.write(bytes);
        }
    }

    /// The guest asks for one byte of console `port`.
    pub fn read(&mut self, port: u32) -> Option<u8> {
        if let Some(byte) = slot(&mut self.waiting, port).pop_front() {
            return Some(byte);
        }
        let input = self.piped.get_mut(port as usize)?;
        let byte = input.as_mut()?.read();
        match byte {
            None => *input = None,
            Some(byte) => self.note(port, &[byte], true),
        }
        byte
    }

    /// Input arrives now, stamped with the present count: typed at a terminal, or from a log being replayed.
    pub fn arrive(&mut self, port: u32, bytes: &[u8]) {
        slot(&mut self.waiting, port).extend(bytes);
        self.note(port, bytes, false);
    }

    /// Bytes that have entered and that no device has read: machine state.
    pub fn waiting(&self) -> &[VecDeque<u8>] {
        &self.waiting
    }

    /// Takes over the unread bytes of a snapshot.
    pub fn set_waiting(&mut self, waiting: Vec<VecDeque<u8>>) {
        self.waiting = waiting;
    }

    fn note(&mut self, port: u32, bytes: &[u8], piped: bool) {
        let at = self.count;
        if let Some(record) = &mut self.record {
            match record.last_mut() {
                Some(last) if last.at == at && last.port == port && last.piped == piped => last.bytes.extend(bytes),
                _ => record.push(Stamped { at, port, bytes: bytes.to_vec(), piped }),
            }
        }
    }
}

/// Input that is there.
impl Input for VecDeque<u8> {
    fn read(&mut self) -> Option<u8> {
        self.pop_front()
    }
}

/// Output that somebody else looks at too.
impl Output for Arc<Mutex<Vec<u8>>> {
    fn write(&mut self, bytes: &[u8]) {
        self.lock().expect("nobody panics with it").extend(bytes);
    }
}

fn slot<T: Default>(v: &mut Vec<T>, port: u32) -> &mut T {
    let i = port as usize;
    if v.len() <= i {
        v.resize_with(i + 1, T::default);
    }
    &mut v[i]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piped_input_is_taken_on_demand_and_logged_with_its_count() {
        let mut door = Door::default();
        door.start_record();
        door.connect_piped(0, Box::new(VecDeque::from(b"ab".to_vec())));
        door.count = 7;
        assert_eq!(door.read(0), Some(b'a'));
        door.count = 9;
        assert_eq!(door.read(0), Some(b'b'));
        assert!(door.has_piped(0));
        assert_eq!((door.read(0), door.read(1)), (None, None));
        assert!(!door.has_piped(0) && !door.has_piped(1));
        let log = door.take_record();
        assert_eq!(log, [(7, b"a"), (9, b"b")].map(|(at, b)| Stamped { at, port: 0, bytes: b.to_vec(), piped: true }));
    }
}
