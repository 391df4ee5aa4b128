//! AMD SVM (APM vol. 2, chapter "Secure Virtual Machine", and appendix "VMCB Layout"; APM vol. 3 for the instructions), as an extension of the
//! processor in `x86`.
//!
//! | here | in the manual |
//! |---|---|
//! | [`vmcb`] | appendix "VMCB Layout", "VMCB State Caching" |
//! | [`instructions`], [`msr`] | "SVM Processor and Platform Extensions", "SVM Related MSRs" |
//! | [`vmrun`] | "VMRUN Instruction", "Event Injection" |
//! | [`exit`] | "#VMEXIT", appendix "SVM Intercept Exit Codes" |
//! | [`intercept`] | "Intercept Operation", "Instruction Intercepts", "Exception Intercepts", "Interrupt Intercepts" |
//! | [`interrupts`] | "Interrupt and Local APIC Support", "Global Interrupt Flag", "NMI Virtualization" |
//! | [`avic`] | "Advanced Virtual Interrupt Controller" |
//! | [`nested_paging`] | "Nested Paging" |
//! | `smm` | "SMM Support" |

pub mod avic;
pub mod describe;
pub mod exit;
pub mod inspect;
pub mod instructions;
pub mod intercept;
pub mod interrupts;
mod level;
pub mod msr;
pub mod nested_paging;
mod notes;
mod smm;
mod svm;
pub mod vmcb;
pub mod vmrun;

pub use svm::{Svm, register};
