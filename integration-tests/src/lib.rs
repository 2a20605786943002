//! Stories that drive the real binary.
