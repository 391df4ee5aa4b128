//! The `riscv64-virt` platform: interrupt controllers, memory map, device tree.

pub mod aclint;
pub mod aplic;
pub mod board;
pub mod device_tree;
pub mod imsic;
pub mod plic;
pub mod virt;
