//! `undervisor`: the command line.

mod conformance;
mod console;
mod demo;
mod disas;
mod error;
mod expect;
mod gdb;
mod inspect;
mod machine;
mod options;
mod outputs;
mod page;
mod recording;
mod report;
mod run;
mod runner;
mod steps;
mod terminal;
mod timeline;
mod trace;

use std::process::ExitCode;

use error::{UserError, print, tell};
use options::{Command, Options};

fn main() -> ExitCode {
    svm_sim::register();
    vmx_sim::register();
    let options = match Options::read() {
        Ok(options) => options.map_err(UserError),
        Err(e) => {
            let _ = e.print(); // nothing can be done about a closed terminal
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    match options.and_then(|o| run_command(o.command)) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            tell(e.0);
            ExitCode::from(2)
        }
    }
}

fn run_command(command: Command) -> Result<u8, UserError> {
    match command {
        Command::Run(run) => run::run(&run),
        Command::Conformance(c) => conformance::run(&c),
        Command::Demo => demo::run(),
        Command::Inspect(i) => inspect::run(&i),
        Command::Disas(d) => disas::run(&d),
        Command::Features => print(&report::features()).map(|()| 0),
        Command::Cpus => print(&report::cpus()).map(|()| 0),
    }
}
