//! HTTP and Flight SQL on one port.
