//! RISC-V: RV64GC with H, AIA and the S-mode extensions that KVM uses, and the virt platform.

pub mod platform;
