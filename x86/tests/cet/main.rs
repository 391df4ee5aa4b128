//! Control-flow Enforcement Technology, rule by rule, in small guests (SDM vol. 1, chapter "Control-flow Enforcement Technology (CET)").

mod machine;
mod near;
mod registers;
mod tasks;
mod tracking;
mod transfers;
