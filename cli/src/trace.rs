//! The event stream, written down.

use std::io::Write;

use emu_core::engine::Lifted;
use emu_core::event::{Event, Kind, Sink};

use crate::options::{TraceEvents, TraceFormat};

/// Writes events to a file.
pub struct Tracer {
    to: Box<dyn Write + Send>,
    format: TraceFormat,
    exits: bool,
    devices: bool,
    uops: bool,
}

impl Tracer {
    /// A trace of these events.
    pub fn new(to: Box<dyn Write + Send>, format: TraceFormat, events: &[TraceEvents]) -> Self {
        let has = |e| events.contains(&e);
        Tracer {
            to,
            format,
            exits: has(TraceEvents::Exits),
            devices: has(TraceEvents::Devices),
            uops: has(TraceEvents::Uops),
        }
    }

    fn line(&mut self, event: &Event) -> std::io::Result<()> {
        match self.format {
            TraceFormat::Text => {
                let Event { count, vcpu, level, pc, .. } = event;
                write!(self.to, "{count} cpu{vcpu} L{level} {pc:#x} {} {}", event.kind.name(), event.name)?;
                for (name, value) in event.details {
                    write!(self.to, " {name}={value:#x}")?;
                }
                writeln!(self.to)
            }
            TraceFormat::Jsonl => {
                let mut object = serde_json::json!({
                    "count": event.count, "cpu": event.vcpu, "level": event.level, "pc": format!("{:#x}", event.pc),
                    "kind": event.kind.name(), "name": event.name,
                });
                for (name, value) in event.details {
                    object[*name] = format!("{value:#x}").into();
                }
                writeln!(self.to, "{object}")
            }
        }
    }

    fn block(&mut self, block: &Lifted) -> std::io::Result<()> {
        match self.format {
            TraceFormat::Text => {
                writeln!(self.to, "block {:#x}", block.starts[0])?;
                for (insn, uop) in &block.uops {
                    writeln!(self.to, "  {:#x}: {uop}", block.starts[usize::from(*insn)])?;
                }
                Ok(())
            }
            TraceFormat::Jsonl => {
                let uops: Vec<_> = block
                    .uops
                    .iter()
                    .map(|(i, u)| serde_json::json!([format!("{:#x}", block.starts[usize::from(*i)]), u.to_string()]))
                    .collect();
                let pc = format!("{:#x}", block.starts[0]);
                writeln!(self.to, "{}", serde_json::json!({ "kind": "block", "pc": pc, "uops": uops }))
            }
        }
    }
}

impl Sink for Tracer {
    fn event(&mut self, event: &Event) {
        let wanted = match event.kind {
            Kind::DeviceRead | Kind::DeviceWrite => self.devices,
            _ => self.exits,
        };
        if wanted {
            // A full disk ends the trace, not the run.
            let _ = self.line(event);
        }
    }

    fn wants_uops(&self) -> bool {
        self.uops
    }

    fn uops(&mut self, block: &Lifted) {
        let _ = self.block(block); // likewise
    }
}
