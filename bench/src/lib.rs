//! Programs that compare side by side.
