//! When plugins run, on what, and what becomes of the result.
