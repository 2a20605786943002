//! The influxdb3 binary: serve and every client command.
