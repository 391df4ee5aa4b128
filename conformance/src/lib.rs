//! Real inputs for the machines, and the public suites: Debian's kernels and firmware, the guests that we build
//! ourselves, and (later) what ran and how it ended.
//!
//! Nothing here is visible to a guest except through the files that it produces, and nothing here is installed on the
//! host except the cross compilers of [`debian::require_host_packages`].

pub mod asm;
pub mod axvcpu;
pub mod boot;
pub mod boots;
pub mod cache;
pub mod debian;
mod determinism;
pub mod disk;
pub mod dmesg;
pub mod grub;
pub mod guests;
pub mod initramfs;
pub mod kvm;
pub mod kvm_selftests;
pub mod kvm_unit_tests;
pub mod modules;
pub mod pc_boots;
pub mod prepare;
pub mod riscv_tests;
pub mod root_disk;
pub mod suite;
