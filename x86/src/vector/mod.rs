//! MMX, SSE and AVX: instructions on vectors, as plain functions (SDM vol. 1, chapters 9 to 14).
