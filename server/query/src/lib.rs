//! SQL over tables and system tables.
