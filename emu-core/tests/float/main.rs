//! Tests of the soft float: against Berkeley SoftFloat, against LLVM's APFloat, against the manuals, and of the fast paths
//! against the soft ones.

mod apfloat;
mod berkeley;
mod fast;
mod operands;
mod rules;
