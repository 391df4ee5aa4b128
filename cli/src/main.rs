//! `undervisor`: the command line.

mod conformance;
mod console;
mod demo;
mod error;
mod gdb;
mod options;
mod report;
mod run;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use options::{Command, Options};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(e) => {
            let _ = e.print(); // nothing can be done about a closed terminal
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match options.command {
        Command::Run(run) => run::run(*run),
        Command::Conformance(c) => conformance::run(&c),
        Command::Demo => demo::run(),
        Command::Features => {
            print!("{}", report::features());
            Ok(0)
        }
        Command::Cpus => {
            print!("{}", report::cpus());
            Ok(0)
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            // One line, whatever the error's causes have to say.
            eprintln!("undervisor: {}", e.0.replace('\n', " "));
            ExitCode::from(2)
        }
    }
}
