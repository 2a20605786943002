//! The `influxdb3` binary again, in this package, so that Cargo builds it freshly for the
//! stories and tells them where it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger_cli::main()
}
