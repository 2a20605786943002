//! The supervisor without the database: its example program.

use std::{fs, path::Path};

use outrigger_integration_tests::CommandLine;

use crate::{BINARY, server};

const PLUGIN: &str = "
import os

def process_scheduled_call(influxdb3_local, call_time, args=None):
    influxdb3_local.info('it is time')
    influxdb3_local.write(LineBuilder('m').int64_field('n', 1))
    influxdb3_local.info(influxdb3_local.query('what?'))

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        influxdb3_local.info(batch['table_name'], batch['rows'][2])

def process_request(influxdb3_local, query, headers, body, args=None):
    if query['number'] == '2':
        os._exit(3)
    return 'number ' + query['number']
";

#[tokio::test]
async fn the_example_runs_a_plugin_without_any_database() {
    // Makes the virtual environment that is shared.
    drop(server().start().await);
    let directory = tempfile::tempdir().expect("make a directory");
    fs::write(directory.path().join("plugin.py"), PLUGIN).expect("write a plugin");
    let profile = Path::new(BINARY).parent().expect("it is in a directory");
    let venv = profile.with_file_name("integration-venv");
    let example =
        CommandLine::without_server(profile.join("examples/run_plugin"), directory.path());
    let venv = venv.to_str().expect("a plain path");
    let events = ["schedule", "request", "request", "request", "rows"];
    let said = example.success(&[&[venv, "plugin.py"], &events[..]].concat());
    for expected in [
        "schedule-0 Info it is time",
        "schedule-0 Info [{'question': 'what?'}]",
        "schedule-0 wrote to None: m n=1i",
        "schedule-0 finished",
        "request-1 answered 200: number 1",
        "request-2 failed: the worker exited with code 3",
        "request-3 answered 200: number 3",
        "rows-4 Info squares {'number': 3, 'square': 9}",
        "rows-4 finished",
    ] {
        assert!(said.contains(expected), "expected {expected:?} in {said}");
    }
    let refused = example.run(&[venv, "plugin.py", "never"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("neither schedule nor request"));
}
