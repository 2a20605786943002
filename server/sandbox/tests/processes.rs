//! Do processes end as they should, and get what they should and nothing else? With real ones,
//! so this test begins as the server's binary does, and has its own `main`.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, PipeReader, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrigger_sandbox::{
    ChildExit, HostConfinement, Launch, Launched, Launcher, Layer, LayerReport, Machine, Mode,
    Network, Policy, Role, State, Tier, View,
};
use tokio::runtime::Builder;

type TestResult = Result<(), Box<dyn Error>>;
type Test = fn() -> TestResult;

/// What says that this is to be a server that can be killed.
const SERVER: &str = "__test-server";

fn main() -> ExitCode {
    if let Some(code) = outrigger_sandbox::launch::program() {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some(SERVER) {
        return match serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let arguments = Arguments::from_args();
    let tests: [(&str, Test); 16] = [
        ("a_program_gets_what_it_is_given", gets_what_it_is_given),
        ("the_end_of_a_program_is_told", the_end_is_told),
        ("a_program_that_is_not_there_is_named", not_there),
        ("what_a_program_leaves_behind_ends_with_it", leaves_behind),
        ("what_is_killed_ends_with_all_below_it", killed),
        ("a_stopped_program_can_be_ended", stopped),
        ("the_server_s_end_is_the_end_of_all", server_killed),
        ("dropping_the_launcher_ends_all", dropped),
        ("a_spawner_that_was_killed_is_replaced", spawner_killed),
        ("a_keeper_that_was_killed_leaves_nothing", keeper_killed),
        ("descriptors_of_the_server_stay_there", descriptors),
        ("a_confined_program_reaches_what_it_may", confined),
        ("a_host_sees_what_it_may", sees),
        ("what_is_required_and_missing_stops_the_start", required),
        ("a_program_of_root_becomes_somebody_else", becomes),
        ("the_layers_of_a_worker_hold_what_they_say", layers_hold),
    ];
    let tests = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test().map_err(|error| Failed::from(format!("{error:?}")))
        })
    });
    libtest_mimic::run(&arguments, tests.into()).exit_code()
}

fn shell(script: &str) -> Launch {
    Launch {
        program: PathBuf::from("sh"),
        arguments: vec![OsString::from("-c"), OsString::from(script)],
        environment: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        directory: PathBuf::from("/"),
        stdin: None,
        confinement: None,
    }
}

fn text(pipe: OwnedFd) -> io::Result<String> {
    let mut text = String::new();
    PipeReader::from(pipe).read_to_string(&mut text)?;
    Ok(text)
}

/// The first line, while the program goes on.
fn line(pipe: OwnedFd) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(PipeReader::from(pipe)).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn is_there(pid: &str) -> bool {
    // A zombie has ended too.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

#[expect(clippy::disallowed_methods, reason = "no runtime is in its way")]
fn until(what: &str, mut done: impl FnMut() -> bool) -> TestResult {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        if Instant::now() > deadline {
            return Err(format!("not within 20 s: {what}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits for the end of the program, and returns how it ended, with its output.
async fn finish(launched: Launched) -> Result<(ChildExit, String, String), Box<dyn Error>> {
    let Launched {
        mut running,
        stdout,
        stderr,
        ..
    } = launched;
    // Small enough for the pipes' buffers.
    let exit = running.wait().await;
    Ok((exit, text(stdout)?, text(stderr)?))
}

/// Runs a test with a launcher, within a runtime.
fn with_launcher(test: impl AsyncFnOnce(Launcher) -> TestResult) -> TestResult {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let launcher = Launcher::new()?;
        test(launcher).await
    })
}

fn gets_what_it_is_given() -> TestResult {
    with_launcher(async |launcher| {
        let (reader, writer) = io::pipe()?;
        (&writer).write_all(b"input")?;
        drop(writer);
        let mut launch = shell("/usr/bin/env; pwd; cat; echo wrong >&2");
        launch.directory = PathBuf::from("/usr");
        launch.stdin = Some(reader.into());
        launch.environment.insert("NAME".into(), "value".into());
        let launched = launcher.launch(launch).await?;
        let layers: Vec<_> = launched.layers.iter().map(ToString::to_string).collect();
        let (exit, stdout, stderr) = finish(launched).await?;
        assert_eq!(exit, ChildExit::Code(0));
        // The shell adds PWD.
        let mut lines: Vec<_> = stdout
            .lines()
            .filter(|line| !line.starts_with("PWD="))
            .collect();
        lines.sort_unstable();
        assert_eq!(lines, ["/usr", "NAME=value", "PATH=/usr/bin:/bin", "input"]);
        assert_eq!(stderr, "wrong\n");
        assert_eq!(
            layers,
            [
                "descriptors=enforced",
                "session=enforced",
                "parent_death=enforced",
                "no_new_privileges=enforced",
                "environment=enforced"
            ]
        );
        // Nothing to read where no input is given.
        let launched = launcher.launch(shell("cat; readlink /proc/self/fd/0"));
        let (_, stdout, _) = finish(launched.await?).await?;
        assert_eq!(stdout, "/dev/null\n");
        Ok(())
    })
}

fn the_end_is_told() -> TestResult {
    with_launcher(async |launcher| {
        for (script, expected) in [
            ("exit 0", ChildExit::Code(0)),
            ("exit 7", ChildExit::Code(7)),
            ("kill -9 $$", ChildExit::Signal(libc::SIGKILL)),
            ("kill -TERM $$", ChildExit::Signal(libc::SIGTERM)),
        ] {
            let mut launched = launcher.launch(shell(script)).await?;
            assert_eq!(launched.running.wait().await, expected, "{script}");
            // Again, and after a kill that comes too late.
            launched.running.kill();
            assert_eq!(launched.running.wait().await, expected, "{script}");
        }
        Ok(())
    })
}

fn not_there() -> TestResult {
    with_launcher(async |launcher| {
        let mut launch = shell("");
        launch.program = PathBuf::from("/nowhere/program");
        let (exit, _, stderr) = finish(launcher.launch(launch).await?).await?;
        assert_eq!(exit, ChildExit::Code(125));
        assert!(
            stderr.contains("execute \"/nowhere/program\": No such file"),
            "{stderr}"
        );
        let mut launch = shell("");
        launch.directory = PathBuf::from("/nowhere");
        let launched = launcher.launch(launch).await?;
        assert!(launched.layers.is_empty());
        let (exit, _, stderr) = finish(launched).await?;
        assert_eq!(exit, ChildExit::Code(125));
        assert!(
            stderr.contains("go to the directory \"/nowhere\""),
            "{stderr}"
        );
        Ok(())
    })
}

/// A daemon in a session of its own, whose parent has ended.
const DAEMON: &str = "(setsid sh -c 'echo $$; exec sleep 1000' &)";

fn leaves_behind() -> TestResult {
    with_launcher(async |launcher| {
        // It does not end before the daemon has said its number.
        let daemon = DAEMON.replace("1000", "1000 > /dev/null");
        let mut launched = launcher
            .launch(shell(&format!("echo $( {daemon} )")))
            .await?;
        let daemon = line(launched.stdout)?;
        assert!(!daemon.is_empty());
        assert_eq!(launched.running.wait().await, ChildExit::Code(0));
        assert!(!is_there(&daemon), "it has outlived its program");
        Ok(())
    })
}

fn killed() -> TestResult {
    with_launcher(async |launcher| {
        let script = format!("trap '' TERM INT HUP; {DAEMON}; sleep 1000");
        let mut launched = launcher.launch(shell(&script)).await?;
        let daemon = line(launched.stdout)?;
        assert!(is_there(&daemon));
        launched.running.kill();
        let exit = launched.running.wait().await;
        assert_eq!(exit, ChildExit::Signal(libc::SIGKILL));
        assert!(!is_there(&daemon));
        Ok(())
    })
}

fn stopped() -> TestResult {
    with_launcher(async |launcher| {
        let launched = launcher.launch(shell("echo $$; kill -STOP $$")).await?;
        let program = line(launched.stdout)?;
        until("it has stopped", || {
            let stat = fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
            stat.contains(") T")
        })?;
        // Its keeper too.
        kill(
            Pid::from_raw(launched.running.pid().cast_signed()),
            Signal::SIGSTOP,
        )?;
        drop(launched.running);
        until("it has ended", || !is_there(&program))
    })
}

/// A server that starts a program, and waits to be killed.
fn serve() -> TestResult {
    with_launcher(async |launcher| {
        let script = format!("{DAEMON}; echo $$; sleep 1000");
        let launched = launcher.launch(shell(&script)).await?;
        let mut output = io::stdout();
        writeln!(output, "{}", launched.running.pid())?;
        io::copy(&mut PipeReader::from(launched.stdout), &mut output)?;
        Ok(())
    })
}

#[expect(clippy::disallowed_methods, reason = "it is to be killed")]
fn server_killed() -> TestResult {
    let mut server = Command::new("/proc/self/exe")
        .arg(SERVER)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = server.stdout.take().ok_or("no output")?;
    let pids: Vec<String> = BufReader::new(output)
        .lines()
        .take(3)
        .collect::<Result<_, _>>()?;
    assert_eq!(pids.len(), 3);
    let spawner = parent(&pids[0])?;
    assert!(pids.iter().all(|pid| is_there(pid)) && is_there(&spawner));
    // Nothing of the server's environment is in the spawner.
    let environment = fs::read(format!("/proc/{spawner}/environ")).unwrap_or_default();
    assert_eq!(environment, b"");
    server.kill()?;
    server.wait()?;
    until("all has ended", || {
        !pids.iter().chain([&spawner]).any(|pid| is_there(pid))
    })
}

fn parent(pid: &str) -> Result<String, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let parent = lines.find_map(|line| line.strip_prefix("PPid:"));
    Ok(parent.ok_or("no parent")?.trim().to_owned())
}

fn dropped() -> TestResult {
    with_launcher(async |launcher| {
        let launched = launcher
            .launch(shell(&format!("{DAEMON}; sleep 1000")))
            .await?;
        let daemon = line(launched.stdout)?;
        let keeper = launched.running.pid().to_string();
        let spawner = parent(&keeper)?;
        drop(launcher);
        until("all has ended", || {
            ![&daemon, &keeper, &spawner]
                .into_iter()
                .any(|pid| is_there(pid))
        })?;
        // What is told of it is that it was killed.
        let mut running = launched.running;
        assert_eq!(running.wait().await, ChildExit::Signal(libc::SIGKILL));
        Ok(())
    })
}

fn spawner_killed() -> TestResult {
    with_launcher(async |launcher| {
        let launched = launcher
            .launch(shell(&format!("{DAEMON}; sleep 1000")))
            .await?;
        let daemon = line(launched.stdout)?;
        let spawner: i32 = parent(&launched.running.pid().to_string())?.parse()?;
        kill(Pid::from_raw(spawner), Signal::SIGKILL)?;
        let mut running = launched.running;
        assert_eq!(running.wait().await, ChildExit::Signal(libc::SIGKILL));
        until("what it has started has ended", || !is_there(&daemon))?;
        until("it has ended", || !is_there(&spawner.to_string()))?;
        let (exit, stdout, _) = finish(launcher.launch(shell("echo again")).await?).await?;
        assert_eq!((exit, stdout.as_str()), (ChildExit::Code(0), "again\n"));
        Ok(())
    })
}

fn keeper_killed() -> TestResult {
    with_launcher(async |launcher| {
        let launched = launcher
            .launch(shell(&format!("{DAEMON}; sleep 1000")))
            .await?;
        let daemon = line(launched.stdout)?;
        let mut running = launched.running;
        kill(Pid::from_raw(running.pid().cast_signed()), Signal::SIGKILL)?;
        assert_eq!(running.wait().await, ChildExit::Signal(libc::SIGKILL));
        until("the daemon has ended", || !is_there(&daemon))?;
        let (exit, _, _) = finish(launcher.launch(shell("exit 3")).await?).await?;
        assert_eq!(exit, ChildExit::Code(3));
        Ok(())
    })
}

fn descriptors() -> TestResult {
    // As a library might have opened it.
    let leak = fs::File::open("/etc/hostname")?;
    fcntl(&leak, FcntlArg::F_SETFD(FdFlag::empty()))?;
    with_launcher(async |launcher| {
        for confinement in [None, Some(program(&Policy::default(), Mode::Auto))] {
            let mut launch =
                shell("for fd in /proc/self/fd/*; do readlink $fd; done; exec ls /proc/self/fd");
            launch.confinement = confinement;
            let (exit, stdout, stderr) = finish(launcher.launch(launch).await?).await?;
            assert_eq!(exit, ChildExit::Code(0), "{stderr}");
            assert!(!stdout.contains("hostname"), "{stdout}");
            // `ls` has the directory open itself.
            assert!(stdout.ends_with("0\n1\n2\n3\n"), "{stdout}");
        }
        drop(leak);
        Ok(())
    })
}

fn program(policy: &Policy, mode: Mode) -> HostConfinement {
    HostConfinement {
        role: Role::Program,
        policy: policy.clone(),
        machine: Machine::probe(),
        mode,
        view: View::default(),
        user: Err("the test's".to_owned()),
    }
}

fn state(launched: &Launched, layer: Layer) -> Option<&State> {
    let mut layers = launched.layers.iter();
    layers
        .find(|report| report.layer == layer)
        .map(|report| &report.state)
}

fn confined() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (own, other) = (directory.path().join("own"), directory.path().join("other"));
    fs::create_dir(&own)?;
    fs::create_dir(&other)?;
    fs::write(other.join("secret"), "secret")?;
    let policy = Policy {
        write: vec![own.clone()],
        network: Network::None,
        ..Policy::default()
    };
    with_launcher(async |launcher| {
        for role in [Role::Program, Role::Host] {
            let mut launch = shell(&format!(
                "echo text > {own}/file && cat {own}/file; cat {other}/secret; echo > {other}/new; \
                 while read -r line; do echo \"$line\"; done < /proc/self/status; exit 5",
                own = own.display(),
                other = other.display(),
            ));
            let confinement = HostConfinement {
                role,
                ..program(&policy, Mode::Strict)
            };
            launch.confinement = Some(confinement);
            let launched = launcher.launch(launch).await?;
            for layer in [
                Layer::Limits,
                Layer::Capabilities,
                Layer::NoNewPrivileges,
                Layer::Landlock,
                Layer::Seccomp,
            ] {
                let held = state(&launched, layer);
                let held = matches!(held, Some(State::Enforced | State::Degraded(_)));
                assert!(held, "{layer}: {:?}", launched.layers);
            }
            assert!(launched.layers.is_sorted_by_key(|report| report.layer));
            let (exit, stdout, stderr) = finish(launched).await?;
            assert_eq!(exit, ChildExit::Code(5), "{stderr}");
            assert!(stdout.starts_with("text\n"), "{stdout} {stderr}");
            assert!(!stdout.contains("secret"), "{stdout}");
            assert!(stdout.contains("CapPrm:\t0000000000000000"), "{stdout}");
            assert!(stdout.contains("NoNewPrivs:\t1"), "{stdout}");
            assert!(stdout.contains("Seccomp:\t2"), "{stdout}");
            assert!(!other.join("new").exists());
        }
        Ok(())
    })
}

fn sees() -> TestResult {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    for name in ["data", "data/kept"] {
        fs::create_dir(at(name))?;
    }
    for name in ["data/wal", "data/kept/own", "socket"] {
        fs::write(at(name), "")?;
    }
    let policy = Policy {
        read: vec!["/dev/tty".into()],
        write: vec![at("data/kept")],
        ..Policy::default()
    };
    let paths = [at("data/wal"), at("data/kept/own"), at("socket")];
    let paths = paths.iter().map(|path| path.display().to_string());
    let devices = ["/dev/tty", "/dev/ptmx", "/dev/null"].map(str::to_owned);
    let paths: Vec<_> = paths.chain(devices).collect();
    with_launcher(async |launcher| {
        let mut launch = shell(&format!(
            "for path in {}; do [ -e $path ] && echo $path; done; echo new > {}/new",
            paths.join(" "),
            at("data/kept").display(),
        ));
        launch.confinement = Some(HostConfinement {
            role: Role::Host,
            view: View {
                covered: vec![at("data")],
                shown: vec![at("socket")],
            },
            ..program(&policy, Mode::Auto)
        });
        let launched = launcher.launch(launch).await?;
        let hidden = state(&launched, Layer::MountNamespace) == Some(&State::Enforced);
        let (exit, stdout, stderr) = finish(launched).await?;
        assert_eq!(exit, ChildExit::Code(0), "{stderr}");
        let seen: Vec<_> = stdout.lines().collect();
        let expected = paths.iter().filter(|path| {
            let covered = path.ends_with("wal") || *path == "/dev/ptmx";
            Path::new(path).exists() && !(hidden && covered)
        });
        assert_eq!(seen, expected.collect::<Vec<_>>());
        assert_eq!(fs::read_to_string(at("data/kept/new"))?, "new\n");
        Ok(())
    })
}

fn becomes() -> TestResult {
    let machine = Machine::probe();
    let Ok(user) = machine.own_user() else {
        // Only root can, where that may do everything.
        return Ok(());
    };
    with_launcher(async |launcher| {
        let mut launch = shell(
            "while read -r line; do case $line in Uid:*|Gid:*|Groups:*|CapPrm:*) echo \"$line\";; \
             esac; done < /proc/self/status; cat /etc/shadow; \
             kill -0 $PPID || echo refused; sleep 600",
        );
        launch.confinement = Some(HostConfinement {
            user: Ok(user),
            role: Role::Host,
            ..program(&Policy::default(), Mode::Auto)
        });
        let launched = launcher.launch(launch).await?;
        assert_eq!(state(&launched, Layer::User), Some(&State::Enforced));
        let mut lines = BufReader::new(PipeReader::from(launched.stdout)).lines();
        let mut next = || lines.next().transpose().map(Option::unwrap_or_default);
        let ids = format!("{user}\t{user}\t{user}\t{user}");
        assert_eq!(next()?, format!("Uid:\t{ids}"));
        assert_eq!(next()?, format!("Gid:\t{ids}"));
        assert_eq!(next()?.trim(), "Groups:");
        assert_eq!(next()?, "CapPrm:\t0000000000000000");
        assert_eq!(next()?, "refused");
        // It still ends with its keeper, which is killed hard.
        let keeper = i32::try_from(launched.running.pid())?;
        kill(Pid::from_raw(keeper), Signal::SIGKILL)?;
        until("the pipe closes", || {
            matches!(lines.next(), None | Some(Err(_)))
        })
    })
}

fn required() -> TestResult {
    with_launcher(async |launcher| {
        let mut launch = shell("echo started");
        launch.confinement = Some(HostConfinement {
            machine: Machine::bare(),
            ..program(&Policy::default(), Mode::Strict)
        });
        let (exit, stdout, stderr) = finish(launcher.launch(launch).await?).await?;
        assert_eq!((exit, stdout.as_str()), (ChildExit::Code(125), ""));
        assert!(stderr.contains("landlock=degraded"), "{stderr}");
        // Otherwise it runs, and says what is missing.
        let mut launch = shell("echo started");
        launch.confinement = Some(HostConfinement {
            machine: Machine::bare(),
            ..program(&Policy::default(), Mode::Auto)
        });
        let launched = launcher.launch(launch).await?;
        assert!(matches!(
            state(&launched, Layer::Landlock),
            Some(State::Degraded(_))
        ));
        assert_eq!(finish(launched).await?.1, "started\n");
        Ok(())
    })
}

fn layers_hold() -> TestResult {
    let machine = Machine::probe();
    if machine.landlock_abi() < 6 || !machine.has_seccomp() {
        // What would hold depends on the machine then.
        return Ok(());
    }
    let trial = outrigger_sandbox::Trial::run(&machine)?;
    for attempt in &trial.attempts {
        let mut reports = trial.layers.iter();
        let report = reports.find(|report| report.layer == attempt.layer);
        // Namespaces are not to be had everywhere.
        let degraded = report.is_some_and(|report| matches!(report.state, State::Degraded(_)));
        let may_fail = attempt.layer == Layer::Broker || attempt.layer.is_inherited() && degraded;
        assert!(attempt.holds() || may_fail, "{attempt:?} {report:?}");
    }
    assert!(trial.attempts.len() > 30);
    assert!(trial.tier() >= Tier::C);
    // Where the namespaces are said to be there, it is the tier that has them.
    let namespaces = [
        Layer::MountNamespace,
        Layer::IpcNamespace,
        Layer::UtsNamespace,
        Layer::NetworkNamespace,
    ];
    let enforced = |layer| trial.layers.contains(&LayerReport::enforced(layer));
    let there = namespaces.into_iter().all(enforced);
    assert_eq!(trial.tier() == Tier::A, there, "{:?}", trial.layers);
    trial.strict()?;
    let mut without = machine.clone();
    without.lose(Layer::MountNamespace);
    let without = outrigger_sandbox::Trial::run(&without)?;
    assert!(without.tier() < Tier::A);
    without.strict()?;
    // Without the layers nearly all of it is possible: the attempts are real.
    let bare = outrigger_sandbox::Trial::run(&Machine::bare())?;
    let broken = bare.attempts.iter().filter(|attempt| !attempt.holds());
    let broken: Vec<_> = broken.map(|attempt| attempt.what.as_str()).collect();
    assert!(broken.len() >= 18, "{broken:?}");
    assert_eq!(bare.tier(), Tier::None);
    let refused = bare.strict().expect_err("there are no layers");
    assert!(refused.to_string().contains("landlock"), "{refused}");
    let left = format!("/dev/shm/outrigger-trial-{}", std::process::id());
    assert!(!Path::new(&left).exists());
    Ok(())
}
