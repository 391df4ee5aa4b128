//! What happens to guests.

mod abort;
#[path = "../entry/base.rs"]
#[allow(dead_code, reason = "the tests of VM entries use the rest")]
mod base;
mod breakpoints;
mod counters;
mod execute;
mod io;
mod log;
mod machine;
mod msr;
mod restart;
mod shadowing;
mod sub_page;
mod timeout;
mod timer;
mod virtualization;
mod walk;
