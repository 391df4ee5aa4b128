//! What the chips of a PC do.
