//! Workers that say whatever comes to their mind, without a process.

use std::ops::Range;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
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

use super::{
    call::{Call, Stop},
    exchange::FLOOD_MAX,
    *,
};
use crate::{
    backend::{Backend, BackendError, LogLevel, LogLine, QueryRequest, QueryStream, Scope},
    confinement::Grants,
    invocation::{BindingKey, Event, EventFile, Plugin, Source},
    peer::Peer,
    private::PrivateRoot,
    registry::{Active, Fetchable, Registry},
    usage::ProcessUsage,
};

const RUN: &str = "1-2-3";
const BUDGET: usize = 1000;

/// Takes log lines, and nothing else.
#[derive(Default)]
struct Listening(parking_lot::Mutex<Vec<(LogLevel, String)>>);

#[async_trait]
impl Backend for Listening {
    async fn query(&self, _: &Scope, _: QueryRequest) -> Result<QueryStream, BackendError> {
        unreachable!("nobody asks")
    }

    async fn read(
        &self,
        _: &Scope,
        _: &EventFile,
        _: Range<u64>,
    ) -> Result<QueryStream, BackendError> {
        unreachable!("nobody has a file")
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

    async fn log(&self, _: &Scope, line: LogLine) {
        self.0.lock().push((line.level, line.text));
    }
}

/// A registry, and what is logged.
fn registry() -> (Registry, Arc<Listening>) {
    let listening = Arc::new(Listening::default());
    (Registry::new(listening.clone()), listening)
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

fn ended(reason: ExitReason) -> crate::host::WorkerExit {
    crate::host::WorkerExit {
        reason,
        stderr: vec!["last words".to_owned()],
        usage: ProcessUsage::default(),
    }
}

/// A worker that has ended for this reason, and had said and printed this.
fn ended_worker(said: Bytes, reason: ExitReason, printed: &[&str]) -> Worker {
    let (_, exit) = watch::channel(Some(ended(reason)));
    let (sender, output) = mpsc::channel(printed.len().max(1));
    for text in printed {
        let line = OutputLine {
            stderr: true,
            text: (*text).to_owned(),
            time: outrigger_model::clock::Timestamp(0),
            dropped: 0,
        };
        sender.try_send(line).expect("there is room");
    }
    with_process(WorkerProcess::without_process(exit, output), said)
}

fn worker(said: Bytes) -> Worker {
    ended_worker(said, ExitReason::Code(0), &[])
}

/// One that says this, and then nothing more: it neither ends nor goes on. What it is told.
fn silent_worker(
    said: Bytes,
) -> (
    Worker,
    mpsc::Receiver<Result<ToWorker, Status>>,
    watch::Sender<Option<crate::host::WorkerExit>>,
) {
    let (alive, exit) = watch::channel(None);
    let (_, output) = mpsc::channel(1);
    let mut worker = with_process(
        WorkerProcess::without_process(exit, output),
        Bytes::default(),
    );
    let decoder = ProstCodec::<ToWorker, FromWorker>::default().decoder();
    let body = Full::new(said).with_trailers(std::future::pending());
    worker.link.from_worker = Streaming::new_request(decoder, body, None, Some(100_000));
    let (to_worker, told) = mpsc::channel(4);
    worker.link.to_worker = to_worker;
    (worker, told, alive)
}

fn with_process(process: WorkerProcess, said: Bytes) -> Worker {
    let root = tempfile::tempdir().expect("make a directory");
    let root = PrivateRoot::open(root.path()).expect("open it");
    let directories = ["a", "b"].map(|name| root.make(name).expect("make a directory"));
    let (directories, over) = Watchee::new(directories, 1, false);
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

fn log(text: &str) -> Vec<u8> {
    let (invocation, text) = (RUN.to_owned(), text.to_owned());
    let log = Log {
        invocation,
        level: 1,
        text,
        ..Log::default()
    };
    let message = Some(from_worker::Message::Log(log));
    FromWorker { message }.encode_to_vec()
}

fn completed() -> Vec<u8> {
    let completed = Completed {
        invocation: RUN.to_owned(),
        outcome: Some(completed::Outcome::Ok(completed::Ok { response: None })),
        ..Completed::default()
    };
    let message = Some(from_worker::Message::Completed(completed));
    FromWorker { message }.encode_to_vec()
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
    let (registry, _) = registry();
    let (mut finished, mut failed, mut violations, mut ended) = (0, 0, 0, 0);
    for seed in 0..5_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut worker = worker(said(&mut random));
        let active = Active::new(
            [0; 16],
            1,
            (scope(), Trace::unrecorded()),
            Fetchable::default(),
        );
        let asked = random.random();
        let call = Call::short(&registry, scope(), BUDGET);
        let exchange = worker.exchange(&call, &active, asked);
        let result = timeout(Duration::from_mins(1), exchange).await;
        match result.expect("every exchange ends") {
            Ok(Ok((result, _))) => {
                let bytes: usize = result.lines.values().map(String::len).sum();
                assert!(bytes <= 2 * BUDGET, "{bytes} bytes of lines");
                assert_eq!(result.response.is_some(), asked);
                finished += 1;
            }
            Ok(Err(_raised)) => failed += 1,
            Err(Stop::Broken(Break::Violation(what))) => {
                assert!(!what.is_empty());
                violations += 1;
            }
            Err(Stop::Due(reason)) => panic!("{reason}"),
            Err(Stop::Broken(Break::Ended)) => ended += 1,
        }
    }
    // Else the generator would show nothing.
    for count in [finished, failed, violations, ended] {
        assert!(count > 20, "{finished} {failed} {violations} {ended}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_nothing_but_log_is_ended() {
    for (count, is_ended) in [(FLOOD_MAX, false), (FLOOD_MAX + 10_000, true)] {
        let said = Bytes::from(frame(&log("x")).repeat(count as usize));
        let (mut worker, (registry, _)) = (worker(said), registry());
        let active = Active::new(
            [0; 16],
            1,
            (scope(), Trace::unrecorded()),
            Fetchable::default(),
        );
        let call = Call::short(&registry, scope(), BUDGET);
        match (worker.exchange(&call, &active, false).await, is_ended) {
            (Err(Stop::Broken(Break::Violation(what))), true) => {
                assert_eq!(what, "it logged 1000000 lines more than are stored");
            }
            (Err(Stop::Broken(Break::Ended)), false) => {}
            (other, _) => panic!("{count}: {other:?}"),
        }
        assert!(worker.allowance.dropped > 0);
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

fn package() -> Plugin {
    Plugin {
        binding: BindingKey("b".into()),
        name: "p".to_owned(),
        revision: "1".to_owned(),
        source: Source::SingleFile(Bytes::new()),
        arguments: None,
        workers_max: 1,
        grants: Grants::default(),
        keeps_files: false,
    }
}

/// Both its deadline and that nobody wants it end a plugin that hangs while it is loaded: it
/// is asked how it gets on, interrupted, and what it printed is logged.
#[tokio::test(start_paused = true)]
async fn a_load_has_the_deadline_of_its_invocation() {
    for is_unwanted in [false, true] {
        let (registry, logged) = registry();
        let (mut worker, mut told, _alive) = silent_worker(Bytes::new());
        let (sender, output) = mpsc::channel(1);
        worker.process.output = output;
        let line = OutputLine {
            stderr: false,
            text: "importing".to_owned(),
            time: outrigger_model::clock::Timestamp(0),
            dropped: 0,
        };
        sender.try_send(line).expect("there is room");
        let mut call = Call::short(&registry, scope(), BUDGET);
        if is_unwanted {
            call.unwanted().cancel();
            call.limits.timeout = Duration::from_mins(10);
        }
        let (package, event) = (package(), Event::Writes(Vec::new()));
        let bind = worker.bind(&call, &package, &event);
        let concluded = timeout(Duration::from_mins(1), bind).await;
        let concluded = concluded.expect("it ends").expect("it is not loaded");
        let Err(InvocationError::Worker { reason, .. }) = &concluded.result else {
            panic!("{concluded:?}");
        };
        let expected = if is_unwanted {
            ExitReason::Unwanted
        } else {
            let timeout = Duration::from_secs(3);
            ExitReason::DeadlineExceeded { timeout }
        };
        assert_eq!(*reason, expected);
        assert!(concluded.usage.wall >= Duration::from_secs(3));
        let mut said = Vec::new();
        while let Ok(Ok(message)) = told.try_recv() {
            said.extend(message.message);
        }
        let is_told = [
            matches!(said[0], to_worker::Message::Bind(_)),
            matches!(&said[1], to_worker::Message::Probe(probe) if probe.invocation.is_empty()),
            matches!(&said[2], to_worker::Message::Cancel(c) if c.invocation.is_empty()),
        ];
        assert_eq!(is_told, [true; 3], "{said:?}");
        let expected = [(LogLevel::Info, "importing".to_owned())];
        assert_eq!(*logged.0.lock(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_plugin_says_when_it_is_interrupted_is_logged() {
    let (registry, logged) = registry();
    let said = [frame(&log("cleaning up")), frame(&completed())].concat();
    let (mut worker, _told, _alive) = silent_worker(said.into());
    let call = Call::short(&registry, scope(), BUDGET);
    let stop = Stop::Due(ExitReason::Unwanted);
    let error = worker.stopped(&call, RUN, stop).await;
    assert!(matches!(error, InvocationError::Worker { .. }), "{error:?}");
    let expected = [(LogLevel::Info, "cleaning up".to_owned())];
    assert_eq!(*logged.0.lock(), expected);
}

/// Many runs may log no more than one that takes as long.
#[tokio::test(start_paused = true)]
async fn the_next_run_may_log_what_the_last_one_has_left() {
    let (registry, logged) = registry();
    let run = [frame(&log("x")).repeat(1_900), frame(&completed()).to_vec()].concat();
    let mut worker = worker(run.repeat(10).into());
    let active = Active::new(
        [0; 16],
        1,
        (scope(), Trace::unrecorded()),
        Fetchable::default(),
    );
    for _ in 0..10 {
        worker.allowance.begin();
        let call = Call::short(&registry, scope(), BUDGET);
        let exchange = worker.exchange(&call, &active, false).await;
        assert!(matches!(exchange, Ok(Ok(_))), "{exchange:?}");
    }
    let logged = logged.0.lock();
    let (lines, notices): (Vec<_>, Vec<_>) = logged.iter().partition(|(_, text)| text == "x");
    assert_eq!(lines.len(), 2_000);
    let first = (
        LogLevel::Warn,
        "1800 lines were dropped: the plugin logs too much",
    );
    let notices: Vec<_> = notices
        .iter()
        .map(|(l, text)| (*l, text.as_str()))
        .collect();
    assert_eq!(notices[0], first);
    assert_eq!(notices.len(), 9);
}

#[tokio::test]
async fn how_an_idle_worker_has_ended_is_logged() {
    for (reason, level) in [
        (ExitReason::Signal(11), LogLevel::Error),
        (ExitReason::Code(0), LogLevel::Error),
        (ExitReason::HostLost, LogLevel::Warn),
    ] {
        let (registry, logged) = registry();
        let printed = ["Fatal Python error: Segmentation fault"];
        let mut worker = ended_worker(Bytes::new(), reason.clone(), &printed);
        let found = worker.idle().await;
        if let Ok(line) = found {
            worker.log_printed(&registry, &scope(), line).await;
        }
        worker.bury(&registry, &scope(), &reason).await;
        let text = format!("the plugin's worker ended between two runs: {reason}\nlast words");
        let expected = [(LogLevel::Warn, printed[0].to_owned()), (level, text)];
        assert_eq!(*logged.0.lock(), expected);
    }
}

#[tokio::test]
async fn whose_host_has_ended_is_said_to_have_run() {
    let (registry, _) = registry();
    let mut worker = ended_worker(Bytes::new(), ExitReason::HostLost, &[]);
    worker.seen.user_cpu = Duration::from_secs(7);
    let call = Call::short(&registry, scope(), BUDGET);
    let error = worker.stopped(&call, RUN, Stop::Broken(Break::Ended)).await;
    assert!(matches!(error, InvocationError::HostLost), "{error:?}");
    // What its host can no longer say is as it was last seen.
    assert_eq!(worker.used_in_all(), Some(worker.seen));
}

#[test]
fn who_exits_unasked_has_not_ended_as_asked() {
    let reason = ExitReason::Code(0);
    let told = (reason.label(), reason.to_string());
    assert_eq!(told, ("code", "the worker exited with code 0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn loading_and_running_have_one_deadline() {
    let (registry, _) = registry();
    let (worker, _told, _alive) = silent_worker(Bytes::new());
    let call = Call::short(&registry, scope(), BUDGET);
    // So long it was loaded.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(call.left(), Duration::from_secs(1));
    let due = call.due(call.limits.timeout, worker.confined.over.clone());
    let reason = timeout(Duration::from_secs(2), due).await;
    let late = ExitReason::DeadlineExceeded {
        timeout: Duration::from_secs(3),
    };
    assert_eq!(reason.expect("it is due before"), late);
}
