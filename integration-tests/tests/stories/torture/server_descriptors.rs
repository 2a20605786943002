//! Clients open connections until the server has no descriptor left.

use std::{net::TcpStream, time::Duration};

use outrigger_integration_tests::eventually;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Arena, arena_builder};
use crate::server;

const DESCRIPTORS: u32 = 160;
const CONNECTIONS: usize = 200;
const SAID: &str = "no connection can be accepted";

const ATTACK: &str = "
def attack(influxdb3_local, args):
    pass
";

#[tokio::test]
async fn a_server_without_descriptors_says_so_once_and_goes_on_when_there_are_some() {
    let builder = arena_builder(server(), ATTACK)
        .descriptors_max(DESCRIPTORS)
        .allow_log(SAID, "the story takes all descriptors")
        .allow_log("Too many open files", "the same")
        .allow_log("os error 24", "the same");
    let arena = Arena::on(builder.start().await).await;
    arena.create("t", "30s").await;
    arena.recovers("t").await;
    let address = arena.server.client().address();
    for round in 1..=2 {
        // The kernel accepts those that the server cannot.
        let strangers: Vec<_> = (0..CONNECTIONS)
            .map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(10)))
            .collect();
        let connected = strangers.iter().filter(|stranger| stranger.is_ok()).count();
        assert_eq!(connected, CONNECTIONS);
        eventually("the server has no descriptor left", async || {
            let open = arena.server.descriptors();
            let all = open >= DESCRIPTORS as usize - 1;
            all.then_some(()).ok_or(format!("{open}"))
        })
        .await;
        let db = arena.db.clone();
        let n = 10 * round;
        // Written when there is a descriptor for it, at the latest.
        let mut write = JoinSet::new();
        write.spawn(async move { db.try_write(format!("held n={n}i {n}")).await });
        eventually("it is said", async || {
            let said = arena.server.has_logged(SAID);
            said.then_some(()).ok_or_else(String::new)
        })
        .await;
        drop(strangers);
        let written = write.join_next().await.expect("it was begun").unwrap();
        let written = written.expect("an answer");
        written.check_success("write");
        arena.others_go_on().await;
        arena.recovers("t").await;
        // A worker and its connections are new ones.
        arena.server.kill_workers().await;
        arena.recovers("t").await;
    }
    let held = "SELECT count(*) AS n FROM held";
    arena.db.until(held, json!([{ "n": 2 }])).await;
    let said = arena.server.count_logged(SAID);
    assert!((1..=3).contains(&said), "it was said {said} times");
    let lines = arena.server.count_logged("os error 24");
    assert!(lines < 20, "{lines} lines tell of it");
}
