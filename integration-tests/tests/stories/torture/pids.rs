//! Numbers of processes that somebody else gets: nobody's signal reaches a stranger.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrigger_integration_tests::eventually;

use super::{Arena, lives, until_gone};
use crate::server;

/// Leaves its number; hangs where it is told to.
const LEAVING: &str = "
import os, time

def attack(influxdb3_local, args):
    say_left(args['how'], os.getpid(), os.getppid())
    time.sleep(600)
";

/// The last number that the kernel gave to a process.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Others start processes too.
const TRIES: usize = 500;

/// A process with a certain number, that leads a group of the same number.
struct Stranger(Child);

impl Stranger {
    /// An error says why this machine does not let it.
    fn with(pid: i32) -> Result<Self, String> {
        for _ in 0..TRIES {
            fs::write(LAST_PID, (pid - 1).to_string())
                .map_err(|error| format!("{LAST_PID}: {error}"))?;
            let mut stranger = Self::start();
            if stranger.0.id() == pid.cast_unsigned() {
                return Ok(stranger);
            }
            stranger.end();
        }
        Err(format!("{pid} was not to be had in {TRIES} tries"))
    }

    #[expect(clippy::disallowed_methods, reason = "it is nothing of the server's")]
    fn start() -> Self {
        let mut command = std::process::Command::new("sleep");
        command.arg("600").process_group(0).stdin(Stdio::null());
        Self(command.spawn().expect("sleep can be started"))
    }

    fn end(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    #[track_caller]
    fn check_lives(&mut self, after: &str) {
        let ended = self.0.try_wait().expect("a child can be waited for");
        assert!(
            ended.is_none(),
            "after {after}, the stranger was ended: {ended:?}"
        );
        let pid = self.0.id().to_string();
        assert!(lives(&pid), "after {after}, the stranger is gone");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        assert!(
            !stat.contains(") T "),
            "after {after}, the stranger is stopped"
        );
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.end();
    }
}

fn number(pid: &str) -> i32 {
    pid.parse().expect("a process id")
}

/// A worker dies; a stranger takes its number, and that of its group; and then comes everything
/// for which the server signals workers.
#[tokio::test]
async fn a_stranger_with_the_number_of_a_dead_worker_lives() {
    let builder = server()
        .allow_log("the plugin host ended", "the story kills it")
        .allow_log("cannot start a worker", "its host was killed");
    let mut arena = Arena::with(builder, LEAVING).await;
    arena.create("first", "60s").await;
    arena.db.write("first n=1i 1").await;
    let left = arena.left("first").await;
    kill(Pid::from_raw(number(&left[0])), Signal::SIGKILL).expect("it lives");
    arena.until_failed("first").await;
    until_gone(&left[0]).await;

    let mut strangers = match Stranger::with(number(&left[0])) {
        Ok(stranger) => vec![stranger],
        Err(reason) => {
            eprintln!("NOT TESTED here: a number that is used again ({reason})");
            Vec::new()
        }
    };
    let mut check = |after: &str| {
        for stranger in &mut strangers {
            stranger.check_lives(after);
        }
    };
    arena.recovers("first").await;
    check("the next run");
    arena.create("late", "1s").await;
    arena.suffers("late", "deadline of 1s").await;
    check("a deadline");
    arena.db.disable("first").await;
    arena
        .db
        .delete_trigger("late", true)
        .await
        .check_success("delete it");
    arena.others_go_on().await;
    check("the end of its trigger");
    kill(Pid::from_raw(number(&left[1])), Signal::SIGKILL).expect("the host lives");
    eventually("the host is replaced", async || {
        let replaced = arena.server.has_logged("the plugin host ended");
        replaced.then_some(()).ok_or_else(String::new)
    })
    .await;
    arena.others_go_on().await;
    check("the end of its host");
    arena.server.stop();
    check("the end of the server");
}

/// While the host has not seen that its worker died, nobody else can get its number: the
/// deadline's signals reach the dead only.
#[tokio::test]
async fn the_number_of_a_worker_stays_taken_until_its_host_has_seen_the_end() {
    let builder = server()
        .allow_log("the plugin host ended", "it is stopped, and given up")
        .allow_log("cannot start a worker", "its host is stopped");
    let arena = Arena::with(builder, LEAVING).await;
    arena.create("late", "3s").await;
    arena.db.write("late n=1i 1").await;
    let left = arena.left("late").await;
    let signal = |index: usize, signal| {
        kill(Pid::from_raw(number(&left[index])), signal).expect("it is there");
    };
    signal(1, Signal::SIGSTOP);
    signal(0, Signal::SIGKILL);
    until_gone(&left[0]).await;
    // It is dead, and still has its number.
    assert!(fs::exists(format!("/proc/{}", left[0])).is_ok_and(|is| is));
    if fs::write(LAST_PID, (number(&left[0]) - 1).to_string()).is_ok() {
        let other = Stranger::start();
        assert_ne!(other.0.id().to_string(), left[0]);
    }
    // Meanwhile the connection tells of the death; the host is given up for its silence.
    arena.until_broken_off("late").await;
    until_gone(&left[1]).await;
    arena.others_go_on().await;
}
