//! Soft floating point.
