//! Workers that say whatever comes to their mind, without a process.

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::Full;
use outrigger_model::trace::Trace;
use outrigger_proto::v1::{
    Completed, Heartbeat, Hello, Lines, LoadFailed, Log, PluginError, Ready, Response, completed,
};
use prost::Message;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{Streaming, codec::Codec};
use tonic_prost::ProstCodec;

use super::{exchange::FLOOD_MAX, *};
use crate::{
    backend::{Backend, BackendError, LogLine, QueryRequest, QueryStream, Scope},
    invocation::BindingKey,
    peer::Peer,
    private::PrivateRoot,
    registry::{Active, Registry},
    usage::ProcessUsage,
};

const RUN: &str = "1-2-3";
const BUDGET: usize = 1000;

/// Takes log lines, and nothing else.
struct Listening;

#[async_trait]
impl Backend for Listening {
    async fn query(&self, _: &Scope, _: QueryRequest) -> Result<QueryStream, BackendError> {
        unreachable!("nobody asks")
    }

    async fn write(
        &self,
        _: &Scope,
        _: Option<String>,
        _: String,
        _: bool,
    ) -> Result<(), BackendError> {
        unreachable!("nobody writes")
    }

    async fn log(&self, _: &Scope, _: LogLine) {}
}

/// The stream of a worker that says these bytes and then leaves.
fn link(said: Bytes, hello: Hello, pid: u32) -> Link {
    let decoder = ProstCodec::<ToWorker, FromWorker>::default().decoder();
    let from_worker = Streaming::new_request(decoder, Full::new(said), None, Some(100_000));
    Link {
        hello,
        peer: Arc::new(Peer::new(pid)),
        to_worker: mpsc::channel(4).0,
        from_worker,
    }
}

fn worker(said: Bytes) -> Worker {
    let exit = crate::host::WorkerExit {
        reason: ExitReason::Clean,
        stderr: Vec::new(),
        usage: ProcessUsage::default(),
    };
    let (_, exit) = watch::channel(Some(exit));
    let (_, output) = mpsc::channel(1);
    let process = WorkerProcess::without_process(exit, output);
    let root = tempfile::tempdir().expect("make a directory");
    let root = PrivateRoot::open(root.path()).expect("open it");
    let directories = ["a", "b"].map(|name| root.make(name).expect("make a directory"));
    let (directories, over) = Watchee::new(directories, 1);
    let confined = Confined {
        enforcement: "".into(),
        directories: Arc::new(directories),
        over,
    };
    Worker::new(process, link(said, Hello::default(), 1), confined)
}

fn scope() -> Scope {
    Scope {
        binding: BindingKey("b".into()),
        invocation: crate::invocation::InvocationId(RUN.into()),
        trace: Trace::unrecorded(),
    }
}

fn frame(message: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame
}

fn text(random: &mut StdRng) -> String {
    "ä".repeat([0, 1, 10, 600, 40_000][random.random_range(0..5)])
}

fn message(random: &mut StdRng) -> Option<from_worker::Message> {
    let stranger = random.random_range(0..20) == 0;
    let invocation = if stranger { "other" } else { RUN }.to_owned();
    Some(match random.random_range(0..16) {
        0 => from_worker::Message::Hello(Hello::default()),
        1 => from_worker::Message::Ready(Ready::default()),
        2 => from_worker::Message::LoadFailed(LoadFailed::default()),
        3 => from_worker::Message::Heartbeat(Heartbeat {
            invocation,
            progress: random.random(),
        }),
        4 => return None,
        5 | 6 => from_worker::Message::Completed(completion(random, invocation)),
        7..=10 => from_worker::Message::Lines(Lines {
            invocation,
            target: text(random),
            text: vec![random.random(); random.random_range(0..300)],
        }),
        _ => from_worker::Message::Log(Log {
            invocation,
            level: random.random_range(-2..9),
            text: text(random),
            time_ns: random.random(),
        }),
    })
}

fn completion(random: &mut StdRng, invocation: String) -> Completed {
    let response = Response {
        status: random.random_range(0..1200),
        ..Response::default()
    };
    let outcome = match random.random_range(0..4) {
        0 => None,
        1 => Some(completed::Outcome::Error(PluginError {
            message: text(random),
            ..PluginError::default()
        })),
        2 => Some(completed::Outcome::Ok(completed::Ok { response: None })),
        _ => Some(completed::Outcome::Ok(completed::Ok {
            response: Some(response),
        })),
    };
    Completed {
        invocation,
        outcome,
        cached_objects: random.random(),
        timings: None,
    }
}

/// Mostly messages, sometimes something else.
fn said(random: &mut StdRng) -> Bytes {
    let mut all = BytesMut::new();
    for _ in 0..random.random_range(0..30) {
        if random.random_range(0..40) == 0 {
            let noise: Vec<u8> = (0..random.random_range(0..50))
                .map(|_| random.random())
                .collect();
            all.extend_from_slice(&frame(&noise));
        } else {
            let message = message(random);
            all.extend_from_slice(&frame(&FromWorker { message }.encode_to_vec()));
        }
    }
    if random.random_range(0..10) == 0 {
        all.truncate(all.len() / 2);
    }
    all.freeze()
}

#[tokio::test(start_paused = true)]
async fn whatever_a_worker_says_the_exchange_ends_and_nothing_panics() {
    let registry = Registry::new(Arc::new(Listening));
    let (mut finished, mut failed, mut violations, mut ended) = (0, 0, 0, 0);
    for seed in 0..5_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut worker = worker(said(&mut random));
        let active = Active::new([0; 16], 1, (scope(), Trace::unrecorded()), Vec::new());
        let asked = random.random();
        let mut allowance = Allowance::new();
        let exchange = worker.exchange(&registry, &active, BUDGET, asked, &mut allowance);
        let result = timeout(Duration::from_mins(1), exchange).await;
        match result.expect("every exchange ends") {
            Ok(Ok((result, _))) => {
                let bytes: usize = result.lines.values().map(String::len).sum();
                assert!(bytes <= 2 * BUDGET, "{bytes} bytes of lines");
                assert_eq!(result.response.is_some(), asked);
                finished += 1;
            }
            Ok(Err(_raised)) => failed += 1,
            Err(Break::Violation(what)) => {
                assert!(!what.is_empty());
                violations += 1;
            }
            Err(Break::Ended) => ended += 1,
        }
    }
    // Else the generator would show nothing.
    for count in [finished, failed, violations, ended] {
        assert!(count > 20, "{finished} {failed} {violations} {ended}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_nothing_but_log_is_ended() {
    let log = |text: &str| {
        let (invocation, text) = (RUN.to_owned(), text.to_owned());
        let log = Log {
            invocation,
            level: 1,
            text,
            ..Log::default()
        };
        let message = Some(from_worker::Message::Log(log));
        frame(&FromWorker { message }.encode_to_vec()).freeze()
    };
    for (count, is_ended) in [(FLOOD_MAX, false), (FLOOD_MAX + 10_000, true)] {
        let said = Bytes::from(log("x").repeat(count as usize));
        let (mut worker, registry) = (worker(said), Registry::new(Arc::new(Listening)));
        let active = Active::new([0; 16], 1, (scope(), Trace::unrecorded()), Vec::new());
        let mut allowance = Allowance::new();
        let exchange = worker.exchange(&registry, &active, BUDGET, false, &mut allowance);
        match (exchange.await, is_ended) {
            (Err(Break::Violation(what)), true) => {
                assert_eq!(what, "it logged 1000000 lines more than are stored");
            }
            (Err(Break::Ended), false) => {}
            (other, _) => panic!("{count}: {other:?}"),
        }
        assert!(allowance.dropped > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_an_idle_worker_says_it_is_ended_or_ignored() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut worker = worker(said(&mut random));
        let idle = timeout(Duration::from_mins(1), worker.idle()).await;
        // The stream ends at the latest, and the process with it.
        idle.expect("it ends").unwrap_err();
    }
}

#[tokio::test]
async fn a_hello_of_another_process_is_refused() {
    let hello = |protocol, pid| Hello {
        protocol,
        pid,
        ..Hello::default()
    };
    let refused = |protocol, said, peer| {
        check_hello(&link(Bytes::new(), hello(protocol, said), peer), 7).is_err()
    };
    assert!(!refused(PROTOCOL_VERSION, 7, 7));
    assert!(
        refused(PROTOCOL_VERSION, 7, 8),
        "another process has the token"
    );
    assert!(refused(PROTOCOL_VERSION, 8, 7), "it does not know itself");
    assert!(refused(PROTOCOL_VERSION + 1, 7, 7));
}

#[tokio::test]
async fn what_cannot_be_read_is_told_apart_from_an_end() {
    for (said, expected) in [
        (
            &[0, 0, 0, 0, 1, 0xff][..],
            Some("cannot be read: failed to decode"),
        ),
        (&[7, 0, 0, 0, 1, 0xff], Some("invalid compression flag: 7")),
        (&[1, 0, 0, 0, 1, 0xff], Some("compressed-flag")),
        (&[0, 0xff, 0, 0, 0], Some("message length too large")),
        (&[0, 0, 0, 0, 9, 1], None),
        (&[], None),
    ] {
        let mut link = link(Bytes::copy_from_slice(said), Hello::default(), 7);
        match (next(&mut link).await, expected) {
            (Err(Break::Violation(what)), Some(text)) => assert!(what.contains(text), "{what}"),
            (Err(Break::Ended), None) => {}
            (other, _) => panic!("{said:?}: {other:?}"),
        }
    }
    let forged = Status::internal(format!("a\n{}", "b".repeat(1000)));
    let Break::Violation(what) = unread(&forged) else {
        panic!("it is not the connection's");
    };
    assert!(what.contains("a\\nb") && what.len() < 300, "{what}");
}
