//! The event stream, written down.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use emu_core::engine::Lifted;
use emu_core::event::{Event, Kind, LAST_EXACT, Sink, level_name};

use crate::disas;
use crate::options::{TraceEvents, TraceFormat};
use crate::timeline::Gatherer;

/// A trace in a file.
pub struct Trace {
    to: BufWriter<File>,
    format: TraceFormat,
    /// Instructions of the machine's clock before its last reset: counts go on.
    before: u64,
    /// The first thing that could not be written; nothing is from then on.
    error: Option<std::io::Error>,
}

/// The level of the guest that is entered. Exits lead to the hypervisor, and switches tell theirs among the details.
fn entered(event: &Event) -> Option<u8> {
    event.to.filter(|_| event.kind == Kind::Entry)
}

impl Trace {
    fn line(&mut self, event: &Event) -> std::io::Result<()> {
        match self.format {
            TraceFormat::Text => {
                let Event { vcpu, pc, .. } = event;
                let (count, level) = (self.before + event.count, level_name(event.level));
                write!(self.to, "{count} cpu{vcpu} {level} {pc:#x} {} {}", event.kind.name(), event.name)?;
                if let Some(to) = entered(event) {
                    write!(self.to, " to={}", level_name(to))?;
                }
                for (name, value) in event.details {
                    write!(self.to, " {name}={value:#x}")?;
                }
                if let Some(code) = &event.code {
                    write!(self.to, " insn=\"{}\"", disas::code(code))?;
                }
                for (name, text) in event.words {
                    write!(self.to, " {name}=\"{text}\"")?;
                }
                writeln!(self.to)
            }
            TraceFormat::Jsonl => {
                let mut object = serde_json::json!({
                    "count": self.before + event.count, "cpu": event.vcpu, "level": event.level, "pc": format!("{:#x}", event.pc),
                    "kind": event.kind.name(), "name": event.name,
                });
                if event.level > LAST_EXACT || event.to.is_some_and(|to| to > LAST_EXACT) {
                    object["inferred"] = true.into();
                }
                if let Some(to) = entered(event) {
                    object["to"] = to.into();
                }
                if let Some(code) = &event.code {
                    object["insn"] = disas::code(code).into();
                }
                for (name, value) in event.details {
                    object[*name] = format!("{value:#x}").into();
                }
                for (name, text) in event.words {
                    object[*name] = (*text).into();
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

    fn try_to(&mut self, write: impl FnOnce(&mut Self) -> std::io::Result<()>) {
        if self.error.is_none() {
            self.error = write(self).err();
        }
    }

    /// Writes a line of text.
    pub fn text(&mut self, line: &str) {
        self.try_to(|trace| writeln!(trace.to, "{line}"));
    }

    /// The machine starts anew, after so many instructions of its clock.
    pub fn reset(&mut self, count: u64) {
        self.before += count;
        let count = self.before;
        self.try_to(|trace| match trace.format {
            TraceFormat::Text => writeln!(trace.to, "{count} reset"),
            TraceFormat::Jsonl => writeln!(trace.to, "{}", serde_json::json!({ "count": count, "kind": "reset" })),
        });
    }

    /// Writes what is left; what could not be written, if anything could not.
    pub fn finish(&mut self) -> std::io::Result<()> {
        self.try_to(|trace| trace.to.flush());
        self.error.take().map_or(Ok(()), Err)
    }
}

/// Writes events to a trace that others have too.
#[derive(Clone)]
pub struct Tracer {
    trace: Arc<Mutex<Trace>>,
    exits: bool,
    devices: bool,
    uops: bool,
    /// Somebody else writes each instruction.
    pub insns: bool,
}

impl Tracer {
    /// A trace of these events.
    pub fn new(to: File, format: TraceFormat, events: &[TraceEvents]) -> Self {
        let has = |e| events.contains(&e);
        let trace = Trace { to: BufWriter::new(to), format, before: 0, error: None };
        Tracer {
            trace: Arc::new(Mutex::new(trace)),
            exits: has(TraceEvents::Exits),
            devices: has(TraceEvents::Devices),
            uops: has(TraceEvents::Uops),
            insns: has(TraceEvents::Insns),
        }
    }

    /// The trace.
    pub fn lock(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().expect("nobody panics with it")
    }
}

impl Sink for Tracer {
    fn event(&mut self, event: &Event) {
        let wanted = match event.kind {
            Kind::DeviceRead | Kind::DeviceWrite => self.devices,
            _ => self.exits,
        };
        if wanted {
            self.lock().try_to(|trace| trace.line(event));
        }
    }

    fn wants_uops(&self) -> bool {
        self.uops
    }

    fn uops(&mut self, block: &Lifted) {
        self.lock().try_to(|trace| trace.block(block));
    }
}

/// All who listen to a run.
pub struct Listeners {
    /// `--trace`.
    pub trace: Option<Tracer>,
    /// `--report`.
    pub gatherer: Option<Gatherer>,
}

impl Listeners {
    /// Nobody does.
    pub fn is_empty(&self) -> bool {
        self.trace.is_none() && self.gatherer.is_none()
    }
}

impl Sink for Listeners {
    fn event(&mut self, event: &Event) {
        if let Some(trace) = &mut self.trace {
            trace.event(event);
        }
        if let Some(gatherer) = &mut self.gatherer {
            gatherer.event(event);
        }
    }

    fn wants_uops(&self) -> bool {
        self.trace.as_ref().is_some_and(Tracer::wants_uops)
    }

    fn uops(&mut self, block: &Lifted) {
        if let Some(trace) = &mut self.trace {
            trace.uops(block);
        }
    }
}
