use super::*;

/// What the process can do.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Process {
    Runs,
    LockHeld,
    Stopped,
}

/// A worker as a test says it is, second by second.
struct Scene {
    began: Instant,
    liveness: Liveness,
    second: u64,
    heard: u64,
    cpu: f64,
    progress: u64,
    /// What it does now.
    process: Process,
    busy: bool,
    advances: bool,
    waits_for_server: bool,
}

impl Scene {
    fn new() -> Self {
        let began = Instant::now();
        Self {
            began,
            liveness: Liveness::start(began),
            second: 0,
            heard: 0,
            cpu: 0.0,
            progress: 0,
            process: Process::Runs,
            busy: false,
            advances: false,
            waits_for_server: false,
        }
    }

    /// Lives for so many seconds; returns what was said.
    fn live(&mut self, seconds: u64) -> Vec<String> {
        let mut said = Vec::new();
        for _ in 0..seconds {
            self.second += 1;
            if self.process != Process::Stopped {
                self.heard = self.second;
            }
            self.cpu += if self.busy { 1.0 } else { 0.0 };
            self.progress += u64::from(self.advances);
            let now = self.began + Duration::from_secs(self.second);
            if now < self.liveness.next_look() {
                continue;
            }
            let (notice, ask) = self.liveness.look(Seen {
                now,
                time: Timestamp(1_700_000_000_000_000_000),
                heard: self.began + Duration::from_secs(self.heard),
                cpu: Duration::from_secs_f64(self.cpu),
                moved: (!self.waits_for_server).then_some(0),
                stopped: self.process == Process::Stopped,
            });
            said.extend(notice.map(|notice| format!("{:?}: {}", notice.level, notice.text)));
            if self.process == Process::Runs && (ask || self.liveness.asked.is_some()) {
                assert!(self.liveness.on_heartbeat(self.progress));
            }
        }
        said
    }
}

#[track_caller]
fn check(said: &[String], expected: &[&str]) {
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn a_plugin_that_gets_on_is_never_reported() {
    let mut scene = Scene::new();
    scene.advances = true;
    check(&scene.live(1_000), &[]);
}

#[test]
fn a_stopped_process_is_reported_once_and_so_is_its_return() {
    let mut scene = Scene::new();
    scene.live(4);
    scene.process = Process::Stopped;
    check(
        &scene.live(200),
        &["Warn: the worker's process has not reacted for 12 s"],
    );
    (scene.process, scene.advances) = (Process::Runs, true);
    check(
        &scene.live(10),
        &["Info: the worker's process reacts again"],
    );
    // The same once more is not worth another line.
    scene.process = Process::Stopped;
    check(&scene.live(100), &[]);
}

#[test]
fn c_code_that_keeps_the_lock_is_told_from_a_frozen_process() {
    let mut scene = Scene::new();
    (scene.process, scene.busy) = (Process::LockHeld, true);
    check(&scene.live(300), &["Warn: no Python code has run for 10 s"]);
    (scene.process, scene.advances) = (Process::Runs, true);
    check(&scene.live(10), &["Info: Python code runs again"]);
}

#[test]
fn a_loop_is_told_from_a_blocked_plugin_by_its_cpu() {
    let mut scene = Scene::new();
    scene.busy = true;
    check(
        &scene.live(100),
        &[
            "Warn: the plugin has got no further for 30 s, since 2023-11-14T22:12:50Z, and uses the processor: a loop",
        ],
    );
    scene.advances = true;
    check(&scene.live(10), &["Info: the plugin gets on again"]);
    (scene.busy, scene.advances) = (false, false);
    check(
        &scene.live(100),
        &[
            "Warn: the plugin has got no further for 30 s, since 2023-11-14T22:12:50Z, and uses no processor",
        ],
    );
}

#[test]
fn a_plugin_that_waits_for_the_server_is_not_reported() {
    let mut scene = Scene::new();
    scene.waits_for_server = true;
    check(&scene.live(300), &[]);
}

#[test]
fn an_answer_without_a_question_is_noticed() {
    let mut liveness = Liveness::start(Instant::now());
    assert!(!liveness.on_heartbeat(1));
}
