//! The x87 (SDM vol. 1, "Programming with the x87 FPU").
