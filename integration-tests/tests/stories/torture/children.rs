//! What plugins leave behind: threads, children, and processes that they have detached.

use std::{
    fs,
    path::{Path, PathBuf},
};

use outrigger_integration_tests::{compile, eventually};

use super::{Arena, lives, until_gone};

/// Starts a child in the worker's process group, one with a session of its own, a daemon by two
/// forks, and a copy of the worker that ignores SIGTERM; and says who they are.
const LEAVING: &str = "
import os, signal, subprocess, sys, time

DAEMON = '''
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdout.write(str(os.getpid()))
        sys.stdout.flush()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.execvp('sleep', ['sleep', '600'])
'''

def copy():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(600)
    return pid

def leave(how):
    sleep = ['sleep', '600']
    child = subprocess.Popen(sleep).pid
    detached = subprocess.Popen(sleep, start_new_session=True).pid
    found = subprocess.run([sys.executable, '-c', DAEMON], stdout=subprocess.PIPE, text=True)
    say_left(how, child, detached, found.stdout, copy())

def attack(influxdb3_local, args):
    leave(args['how'])
    if args['how'] == 'dies':
        os._exit(3)
    if args['how'] == 'hangs':
        time.sleep(600)
    if args['how'] == 'raises':
        raise ValueError('after it has left something')
";

#[tokio::test]
async fn nothing_that_a_plugin_started_outlives_a_worker_that_dies() {
    let arena = Arena::unconfined(LEAVING).await;
    arena.create("dies", "30s").await;
    arena.suffers("dies", "the worker exited with code 3").await;
    let left = arena.left("dies").await;
    assert_eq!(left.len(), 4, "{left:?}");
    for pid in &left {
        until_gone(pid).await;
    }
    arena.recovers("dies").await;
}

#[tokio::test]
async fn nothing_that_a_plugin_started_outlives_its_deadline() {
    let arena = Arena::unconfined(LEAVING).await;
    arena.create("hangs", "2s").await;
    arena.suffers("hangs", "deadline of 2s").await;
    for pid in &arena.left("hangs").await {
        until_gone(pid).await;
    }
    arena.recovers("hangs").await;
}

/// All of them become the host's children, faster than it can look at each.
#[tokio::test]
async fn a_chain_of_detached_processes_keeps_nobody_waiting() {
    const STARTING: &str = "
import os, subprocess, time

def attack(influxdb3_local, args):
    subprocess.Popen([os.environ['PLUGIN_DIR'] + '/chain'])
    time.sleep(600)
";
    let arena = Arena::unconfined(STARTING).await;
    let chain = arena.server.plugin_directory().join("chain");
    compile("chain.c", &chain, &[]);
    arena.create("hangs", "4s").await;
    arena.suffers("hangs", "deadline of 4s").await;
    arena.recovers("hangs").await;
    eventually("the chain is gone", async || {
        let left = running(&chain);
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
}

/// The processes that run this program.
fn running(program: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let programs = processes.map(|process| process.path().join("exe"));
    programs
        .filter(|link| fs::read_link(link).is_ok_and(|found| found == program))
        .collect()
}

/// A plugin may keep helpers between its invocations, also detached ones; another worker's death
/// does not end them, that of its own does.
#[tokio::test]
async fn what_a_plugin_started_lives_as_long_as_its_worker() {
    let arena = Arena::unconfined(LEAVING).await;
    for name in ["raises", "dies"] {
        arena.create(name, "30s").await;
    }
    arena.suffers("raises", "ValueError").await;
    let kept = arena.left("raises").await;
    assert_eq!(kept.len(), 4, "{kept:?}");
    arena.suffers("dies", "the worker exited with code 3").await;
    for pid in &arena.left("dies").await {
        until_gone(pid).await;
    }
    arena.recovers("raises").await;
    assert!(kept.iter().all(|pid| lives(pid)), "{kept:?}");
    arena.db.disable("raises").await;
    for pid in &kept {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn nothing_that_a_plugin_started_outlives_a_killed_server() {
    let mut arena = Arena::unconfined(LEAVING).await;
    arena.create("raises", "30s").await;
    arena.suffers("raises", "ValueError").await;
    let kept = arena.left("raises").await;
    assert!(kept.iter().all(|pid| lives(pid)), "{kept:?}");
    // Looks for them itself, too.
    arena.server.kill_9();
    for pid in &kept {
        until_gone(pid).await;
    }
    arena.server.restart().await;
}

/// A thread goes on when the invocation is over: it may keep its worker busy, but not the server.
#[tokio::test]
async fn a_thread_that_is_left_behind_disturbs_nobody() {
    const THREAD: &str = "
import threading

def attack(influxdb3_local, args):
    def go_on():
        while True:
            try:
                influxdb3_local.write(LineBuilder('ghosts').int64_field('n', 1))
                influxdb3_local.query('SELECT 1')
            except BaseException:
                pass
    threading.Thread(target=go_on, daemon=False).start()
    raise ValueError('with a thread')
";
    let arena = Arena::new(THREAD).await;
    arena.endures("ValueError: with a thread").await;
    let ghosts = arena.db.try_query("SELECT * FROM ghosts").await;
    assert_eq!(ghosts.status, 400, "{ghosts:?}");
}
