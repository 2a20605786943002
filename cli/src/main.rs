//! The `influxdb3` binary. Everything it does is in the library, so that tests build it too.

fn main() -> std::process::ExitCode {
    outrigger_cli::main()
}
