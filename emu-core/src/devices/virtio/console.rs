//! Console device with a single port (Virtio 1.2, "Console Device").

use serde::{Deserialize, Serialize};

use super::Backend;
use super::queue::{Broken, Queue};
use crate::device::DeviceCx;
use crate::time::VirtualTime;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// The most bytes of input in one buffer.
const BATCH: usize = 64;
/// Nanoseconds of virtual time between two buffers of input.
const INTERVAL: VirtualTime = 1_000_000;
/// Bytes copied at a time.
const PIECE: u64 = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The driver may have buffers for input.
    listens: bool,
    /// When the next input may come.
    next: VirtualTime,
    /// The outside had nothing. Input that arrives later comes with a tick.
    starved: bool,
}

/// The console. Input is taken from the door when the driver has a buffer for it, [`BATCH`] bytes a millisecond.
pub struct Console {
    port: u32,
    state: State,
}

impl Console {
    /// A console on `port` of the door.
    pub fn new(port: u32) -> Self {
        Console { port, state: State::default() }
    }

    fn receive(&mut self, q: &mut Queue, cx: &mut DeviceCx) -> Result<(), Broken> {
        self.state.listens = q.available(&mut cx.dma())? != 0;
        if !self.state.listens || self.state.starved || cx.now < self.state.next {
            return Ok(());
        }
        let Some(first) = cx.door.read(self.port) else {
            self.state.starved = true;
            return Ok(());
        };
        let Some(chain) = q.pop(&mut cx.dma())? else { return Ok(()) };
        if chain.writable.is_empty() {
            return Err(Broken::Request);
        }
        let room = chain.writable.len().min(BATCH as u64) as usize;
        let mut bytes = vec![first];
        while bytes.len() < room {
            match cx.door.read(self.port) {
                Some(byte) => bytes.push(byte),
                None => break,
            }
        }
        let n = chain.writable.write(&mut cx.dma(), 0, &bytes)?;
        q.push(&mut cx.dma(), chain.head, n as u32)?;
        self.state.next = cx.now.saturating_add(INTERVAL);
        self.state.listens = q.available(&mut cx.dma())? != 0;
        Ok(())
    }

    fn transmit(&mut self, q: &mut Queue, cx: &mut DeviceCx) -> Result<(), Broken> {
        for _ in 0..q.available(&mut cx.dma())? {
            let Some(chain) = q.pop(&mut cx.dma())? else { break };
            let (len, mut at) = (chain.readable.len(), 0);
            let mut piece = vec![0; PIECE.min(len) as usize];
            while at < len {
                let n = chain.readable.read(&mut cx.dma(), at, &mut piece)?;
                cx.door.write(self.port, &piece[..n]);
                at += n as u64;
            }
            q.push(&mut cx.dma(), chain.head, 0)?;
        }
        Ok(())
    }
}

impl Backend for Console {
    fn name(&self) -> &'static str {
        "virtio-console"
    }

    fn id(&self) -> u32 {
        3
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &'static [u16] {
        &[64, 64]
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn notify(&mut self, index: usize, queues: &mut [Queue], cx: &mut DeviceCx) -> Result<(), Broken> {
        match index {
            RECEIVE => self.receive(&mut queues[RECEIVE], cx),
            _ => self.transmit(&mut queues[TRANSMIT], cx),
        }
    }

    fn tick(&mut self, queues: &mut [Queue], cx: &mut DeviceCx) -> Result<(), Broken> {
        self.state.starved = false;
        self.receive(&mut queues[RECEIVE], cx)
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        (self.state.listens && !self.state.starved).then_some(self.state.next)
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    crate::device_state!(state);
}
