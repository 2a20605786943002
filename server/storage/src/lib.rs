//! The write path and the memtables it fills.
