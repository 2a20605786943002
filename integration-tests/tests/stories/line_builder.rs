//! Does the server read in a line what `LineBuilder` was given? Its own parser says, for
//! arbitrary values; and so do queries, for values that went through the whole server.

use std::time::SystemTime;

use outrigger_integration_tests::{CommandLine, Server};
use outrigger_model::{
    clock::Timestamp,
    line_protocol::{Point, Precision, Value as Read, parse},
};
use serde_json::{Value, json};

use crate::{
    published::{environment, install},
    server,
};

const CASES: &str = include_str!("../../plugins/line_builder_cases.py");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/line_builder_cases.py");
const NOW: Timestamp = Timestamp(1_700_000_000_123_456_789);

/// How many points are made up for the parser, and for the whole server.
const PARSED: u32 = 20_000;
const STORED: u32 = 5_000;

/// A new one every time: a failure shows it, and `line_builder_cases.py SEED COUNT` repeats it.
#[expect(
    clippy::disallowed_methods,
    reason = "randomness, and no Clock in a story"
)]
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("it is after 1970").subsec_nanos().into()
}

/// A server whose plugins have numpy, since its numbers are what plugins often have.
async fn server_with_numpy() -> Server {
    let server = server()
        .virtual_environment(&environment())
        .plugin("cases.py", CASES)
        .start()
        .await;
    install();
    server
}

#[tokio::test]
async fn every_line_is_read_as_it_was_meant_or_refused_for_a_reason() {
    let server = server_with_numpy().await;
    let python = environment().join("bin/python");
    let cases = CommandLine::without_server(python, server.directory());
    let seed = seed();
    let made = cases.success(&[SCRIPT, &seed.to_string(), &PARSED.to_string()]);
    let cases: Vec<Value> = made
        .lines()
        .map(|case| serde_json::from_str(case).expect("the script prints JSON"))
        .collect();
    assert_eq!(cases.len(), usize::try_from(PARSED).unwrap());

    let mut built = Vec::new();
    for case in &cases {
        match case["line"].as_str() {
            Some(line) => built.push((line, case)),
            None => check_refusal(case, seed),
        }
    }
    // One text, so that a line that is two to the parser is found as well.
    let text: Vec<_> = built.iter().map(|(line, _)| *line).collect();
    let text = text.join("\n");
    let mut points = parse(&text, Precision::Nanosecond, NOW);
    for (line, case) in &built {
        let read = match points.next() {
            Some(Ok(point)) => describe(&point),
            Some(Err(error)) => json!(error.to_string()),
            None => json!("nothing"),
        };
        let meant = json!({
            "measurement": case["measurement"], "tags": case["tags"], "fields": case["fields"],
            "time": case["time"].as_str().map_or_else(|| NOW.0.to_string(), str::to_owned),
        });
        assert_eq!(read, meant, "seed {seed}, line {line:?}");
    }
    assert!(
        points.next().is_none(),
        "seed {seed}: more lines than were built"
    );
    // Otherwise it would have shown little.
    assert!(
        built.len() > cases.len() / 3,
        "seed {seed}: {}",
        built.len()
    );
}

/// Fails unless the builder refused what cannot be said, with an error that it documents.
#[track_caller]
fn check_refusal(case: &Value, seed: u64) {
    let is = |kind: &str| {
        let kinds = case["error"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|name| name == kind))
    };
    assert!(
        !case["problem"].is_null(),
        "seed {seed}: it can be said: {case}"
    );
    assert!(
        is("InfluxDBError") || is("ValueError"),
        "seed {seed}: {case}"
    );
    let message = case["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "seed {seed}: {case}");
}

fn describe(point: &Point<'_>) -> Value {
    let (mut tags, mut fields) = (Vec::new(), Vec::new());
    for (key, value) in point.values() {
        match value {
            Read::Tag(value) => tags.push(json!([key, value])),
            Read::Int64(value) => fields.push(json!([key, "i", value.to_string()])),
            Read::Uint64(value) => fields.push(json!([key, "u", value.to_string()])),
            Read::Float64(value) => {
                fields.push(json!([key, "f", format!("{:016x}", value.to_bits())]));
            }
            Read::Utf8(value) => fields.push(json!([key, "s", value])),
            Read::Bool(value) => fields.push(json!([key, "b", value])),
        }
    }
    let time = point.time_ns.to_string();
    json!({ "measurement": point.table(), "tags": tags, "fields": fields, "time": time })
}

#[tokio::test]
async fn what_is_written_is_what_a_query_finds() {
    let server = server_with_numpy().await;
    let db = server.database("db").create().await;
    db.trigger("t", "cases.py")
        .spec("request:cases")
        .create()
        .await;
    let seed = seed();
    let path = format!("/api/v3/engine/cases?seed={seed}&count={STORED}");
    let reply = server.client().call(reqwest::Method::GET, &path).await;
    assert_eq!(reply.status, 200, "seed {seed}: {reply:?}");
    let expected = json!({ "rows": STORED, "tables": 6, "differences": [] });
    assert_eq!(reply.json(), expected, "seed {seed}");
}
