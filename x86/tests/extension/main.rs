//! The door for virtualization, proved with an extension that is neither VMX nor SVM: it takes whatever it is told to take, at the point that
//! either vendor's manual names, owns an opcode, an MSR, a CPUID leaf and bits of CR4 and EFER, has a second translation stage, and comes
//! back from a snapshot.

mod events;
mod instructions;
mod machine;
mod ownership;
mod second_stage;
mod toy;
