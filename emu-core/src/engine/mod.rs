//! The micro-op engine: one for all instruction sets (docs/design.md, "The engine").
//!
//! An instruction set lifts a block once, by calls on [`Lift`]; the engine encodes it and interprets it. A compiler is a
//! second consumer of the same lifted blocks, behind the same [`Vcpu::run`].

mod access;
pub mod alu;
mod cache;
mod core;
mod encode;
pub mod flags;
mod lift;
mod run;
pub mod uop;

pub use self::access::Place;
pub use self::core::{Access, Arch, Core, Hart, Intent, Step, Stop, StopKind, Vcpu, World};
pub use self::encode::Lifted;
pub use self::lift::Lift;
pub use self::run::RunEnd;
