//! Workers that send random and mutated messages: each is ended or refused, and the server never
//! panics, never stops answering, and does not grow.
//!
//! The seeds are printed. `FUZZ_SEED` repeats one, `FUZZ_SEEDS` says how many there are.

use outrigger_integration_tests::Server;
use reqwest::Method;

use crate::server;

const FUZZER: &str = include_str!("../../plugins/fuzzer.py");

/// So many seeds are tried where nothing else is said.
const SEEDS: u64 = 10;
/// Far more than any noise, far less than what is sent.
const GROWTH_MIB_MAX: u64 = 200;

fn setting(name: &str) -> Option<u64> {
    let found = std::env::vars().find(|(key, _)| key == name);
    found.map(|(_, value)| value.parse().expect("a number"))
}

fn memory_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("it is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a number of kB") / 1024
}

/// The server answers others while a worker attacks it; the client does not wait for ever.
async fn answers(server: &Server) {
    let reply = server.client().call(Method::GET, "/health").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = server.database("db").try_query("SELECT 1 AS n").await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// Whether the caller was told why it got no answer. The reason may be the worker's own: a random
/// message can say that the call has failed.
fn explained((status, body): &(u16, String)) -> bool {
    let told: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let reason = told.as_ref().and_then(|told| told["error"].as_str());
    *status < 500 || reason.is_some_and(|reason| !reason.is_empty())
}

#[tokio::test]
async fn random_messages_end_workers_and_nothing_else() {
    let first = setting("FUZZ_SEED").unwrap_or(1);
    let seeds = setting("FUZZ_SEEDS").unwrap_or(if first == 1 { SEEDS } else { 1 });
    let server = server()
        .plugin("fuzzer.py", FUZZER)
        .plugin(
            "witness.py",
            "def process_request(influxdb3_local, *rest):\n    return 'well'\n",
        )
        .allow_log(r#""level":"WARN""#, "messages provoke all kinds of them")
        .allow_log(r#""level":"ERROR""#, "messages provoke all kinds of them")
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("witness", "witness.py")
        .spec("request:witness")
        .create()
        .await;
    db.write("kept f=1 1").await;
    let mut before = 0;
    for seed in first..first + seeds {
        let name = format!("fuzz{seed}");
        db.trigger(&name, "fuzzer.py")
            .spec(&format!("request:{name}"))
            .argument("seed", &seed.to_string())
            .argument("calls", "150")
            .argument("frames", "20")
            .timeout("40s")
            .create()
            .await;
        let attack = ask(&server, &name);
        let others = async {
            for _ in 0..5 {
                answers(&server).await;
            }
        };
        let (reply, ()) = tokio::join!(attack, others);
        let start: String = reply.1.chars().take(160).collect();
        println!("seed {seed}: {} {start}", reply.0);
        // It has sent all that goes beside its own stream.
        let sent = db
            .until_logged(&name, 1, &format!("seed {seed} process"))
            .await;
        println!("  {}", sent[0].text);
        assert!(explained(&reply), "seed {seed}: {reply:?}");
        let deleted = db.delete_trigger(&name, true).await;
        assert!(deleted.status < 300, "{deleted:?}");
        let witness = ask(&server, "witness").await;
        assert_eq!(witness.0, 200, "{witness:?}");
        assert!(
            !server.has_logged("panicked at"),
            "seed {seed}: the server has panicked"
        );
        if seed == first {
            // Once warm.
            before = memory_mib(&server);
        }
    }
    let grown = memory_mib(&server).saturating_sub(before);
    println!("the server has grown by {grown} MiB");
    assert!(
        grown < GROWTH_MIB_MAX,
        "the server has grown by {grown} MiB"
    );
    assert_eq!(db.number("SELECT count(*) FROM kept").await, 1);
}

/// Calls a request trigger, which may not have started yet.
async fn ask(server: &Server, path: &str) -> (u16, String) {
    outrigger_integration_tests::eventually("the path is answered", async || {
        let path = format!("/api/v3/engine/{path}");
        let reply = server.client().call(Method::POST, &path).await;
        if reply.status == 404 {
            return Err(format!("{reply:?}"));
        }
        Ok((reply.status, reply.body))
    })
    .await
}
