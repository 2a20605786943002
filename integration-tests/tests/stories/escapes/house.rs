//! A server, somebody else's trigger, and one attempt after the other; after each the server must
//! be as it was.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use outrigger_integration_tests::{Builder, Database, Reply, Server, TriggerBuilder};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    attempts::{Attempt, Expected},
    canaries::{Canaries, give, secret},
    snapshot::names,
};
use crate::{BINARY, server};

/// How long an attempt's processes, descriptors and files may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(15);
/// Connections of this test's own client may be open or not.
const DESCRIPTORS_MORE_MAX: usize = 12;
/// What the server may have grown by after all attempts; what they send is a hundred times more.
const GROWTH_MIB_MAX: u64 = 200;

/// Somebody else's plugin: it has a secret argument, a secret in its source, and a file.
const NEIGHBOUR: &str = "
import json, os

def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    path = os.path.join(os.environ['HOME'], 'kept.txt')
    if request_body == b'first':
        with open(path, 'w') as file:
            file.write(args['secret_file'])
    with open(path) as file:
        kept = file.read() == args['secret_file']
    influxdb3_local.write(LineBuilder('neighbour').int64_field('n', 1))
    return {'file': path, 'kept': kept, 'sum': sum(json.loads('[1, 2]'))}
";

/// Tells who runs the stories what came of what.
#[expect(clippy::print_stdout, reason = "the test runner shows it")]
pub(super) fn say(text: &str) {
    println!("{text}");
}

/// Whose server it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum User {
    /// That of these tests.
    Ours,
    /// Another one.
    Other(u32),
}

impl User {
    pub(super) fn is_root(self) -> bool {
        matches!(self, Self::Ours) && nix::unistd::geteuid().is_root()
    }

    fn other(self) -> Option<u32> {
        match self {
            Self::Ours => None,
            Self::Other(user) => Some(user),
        }
    }
}

/// How much workers may take here: less than by default, so that attempts end soon.
const SIZES: [(&str, &str); 3] = [
    ("--plugin-private-size", "128mb"),
    ("--plugin-private-files", "5000"),
    ("--plugin-address-space", "2gb"),
];

/// How the server confines.
#[derive(Clone, Debug)]
pub(super) struct Confinement {
    pub(super) name: String,
    /// Whether the server is root's.
    pub(super) as_root: bool,
    flags: Vec<(&'static str, String)>,
}

/// The layers that are left out one at a time, by their names.
const LAYERS: [&str; 8] = [
    "landlock",
    "seccomp",
    "broker",
    "limits",
    "namespaces",
    "environment",
    "descriptors",
    "no-new-privileges",
];

/// Those that an ordinary user does not have, on a server of root. Who becomes somebody else
/// loses its capabilities by that alone, so that these are left out together.
const LAYERS_OF_ROOT: [&str; 3] = ["user", "user,capabilities", "cgroup"];

impl Confinement {
    pub(super) fn strict() -> Self {
        Self::of("strict", "strict", None)
    }

    pub(super) fn off() -> Self {
        Self::of("off", "off", None)
    }

    /// The columns of the table.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::off()];
        all.extend(LAYERS.map(|layer| Self::of(&format!("without {layer}"), "auto", Some(layer))));
        all.push(Self::strict());
        let of_root = LAYERS_OF_ROOT.map(|layers| {
            let name = format!("root without {}", layers.replace(',', " and "));
            Self::of(&name, "auto", Some(layers))
        });
        let strict = Self::of("root strict", "strict", None);
        all.extend(of_root.into_iter().chain([strict]).map(|column| Self {
            as_root: true,
            ..column
        }));
        all
    }

    fn of(name: &str, mode: &str, without: Option<&str>) -> Self {
        let mut flags = vec![("--sandbox", mode.to_owned())];
        flags.extend(without.map(|layer| ("--sandbox-without", layer.to_owned())));
        // Small enough to be reached soon.
        flags.extend(SIZES.map(|(flag, size)| (flag, size.to_owned())));
        Self {
            name: name.to_owned(),
            as_root: false,
            flags,
        }
    }

    fn apply(&self, builder: Builder) -> Builder {
        let flags = self.flags.iter();
        flags.fold(builder, |builder, (flag, value)| builder.flag(flag, value))
    }
}

/// What came of an attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Whether it was tried at all.
    pub(super) ran: bool,
    /// What the plugin says that it has reached.
    pub(super) word: Vec<String>,
    /// What the canaries say.
    pub(super) effects: Vec<String>,
    /// What the server was left with.
    pub(super) damage: Vec<String>,
}

impl Outcome {
    /// Whether it has done what it must not.
    pub(super) fn escaped(&self) -> bool {
        !(self.word.is_empty() && self.effects.is_empty())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.escaped() && self.damage.is_empty() {
            return formatter.write_str("held");
        }
        let all = [
            ("says", &self.word),
            ("did", &self.effects),
            ("left", &self.damage),
        ];
        let said = all.iter().filter(|(_, what)| !what.is_empty());
        let said = said.map(|(how, what)| format!("{how}: {}", what.join("; ")));
        formatter.write_str(&said.collect::<Vec<_>>().join(" | "))
    }
}

/// How the server is when nothing is under way.
#[derive(Debug)]
struct Calm {
    processes: usize,
    descriptors: usize,
    memory_mib: u64,
    private: Vec<PathBuf>,
}

#[derive(Debug)]
pub(super) struct House {
    server: Server,
    db: Database,
    canaries: Canaries,
    user: Option<u32>,
    neighbours_file: String,
    calm: Calm,
}

impl House {
    pub(super) async fn open(confinement: &Confinement, user: User) -> Self {
        let user = user.other();
        let secrets = [
            "the server",
            "another's argument",
            "another's file",
            "another's source",
        ];
        let secrets: Vec<_> = secrets.map(|owner| (owner, secret(owner))).into();
        let of = |owner| Canaries::secret_of(&secrets, owner);
        let source = format!("# {}\n{NEIGHBOUR}", of("another's source"));
        let mut builder = confinement
            .apply(server())
            .plugin("neighbour.py", &source)
            .variable("AWS_SECRET_ACCESS_KEY", &of("the server"))
            .allow_log(r#""level":"WARN""#, "attempts provoke all kinds of them")
            .allow_log(r#""level":"ERROR""#, "attempts provoke all kinds of them");
        let home = builder.directory().display().to_string();
        builder = builder.variable("HOME", &home);
        let environment = builder.directory().join("venv");
        builder = builder.copied_environment(&self::environment(user).await);
        match user {
            Some(user) => builder = builder.as_user(user),
            None if nix::unistd::geteuid().is_root() => builder = builder.private_mounts(),
            None => {}
        }
        let server = builder.start().await;
        let db = server.database("db").create().await;
        let neighbour = db.trigger("neighbour", "neighbour.py");
        neighbour
            .spec("request:neighbour")
            .argument("secret", &of("another's argument"))
            .argument("secret_file", &of("another's file"))
            .create()
            .await;
        let canaries = Canaries::place(&server, user, &environment, secrets).await;
        let first = call(&server, "neighbour", "first").await;
        let first = first.expect("the neighbour answers").json();
        let neighbours_file = first["file"].as_str().expect("its file").to_owned();
        let calm = Calm::of(&server, &neighbours_file).await;
        assert!(
            calm.processes > 2,
            "the server's processes are not seen: {calm:?}"
        );
        say(&format!("calm: {calm:?}"));
        if calm.descriptors == 0 {
            say("the server's descriptors are not seen, because these tests are not root");
        }
        Self {
            server,
            db,
            canaries,
            user,
            neighbours_file,
            calm,
        }
    }

    /// Lets one attempt try.
    pub(super) async fn run(&mut self, attempt: &Attempt) -> Outcome {
        let began = Instant::now();
        let mut outcome = Outcome {
            ran: true,
            ..Outcome::default()
        };
        self.server
            .write_plugin(&format!("{}.py", attempt.name), &attempt.source);
        give(&[&self.server.plugin_directory()], self.user);
        self.canaries.arm();
        let mut runs = vec![attempt.name.clone()];
        runs.extend((1..attempt.turns()).map(|turn| format!("{}-again-{turn}", attempt.name)));
        let mut draws = Vec::new();
        for (turn, run) in runs.iter().enumerate() {
            self.trigger(attempt, run).create().await;
            let reply = call(&self.server, run, "").await;
            let said = self.judge(attempt, reply, &mut outcome);
            draws.extend(said.get("draws").and_then(Value::as_object).cloned());
            // What the first one of two leaves behind is what the second one looks for.
            if turn == 0 && attempt.name.starts_with("025") {
                outcome.word.clear();
            }
        }
        if let [first, second] = &draws[..] {
            let same = first
                .iter()
                .filter(|(name, value)| second.get(*name) == Some(value));
            outcome
                .effects
                .extend(same.map(|(name, _)| format!("two workers drew the same {name}")));
        }
        for run in &runs {
            let deleted = self.db.delete_trigger(run, true).await;
            if deleted.status >= 300 {
                outcome
                    .damage
                    .push(format!("its trigger stays: {deleted:?}"));
            }
        }
        let unrest = self.unrest().await;
        if !unrest.is_empty() {
            outcome.damage.extend(unrest);
            // The next attempt is to find another trigger as it was.
            drop(call(&self.server, "neighbour", "first").await);
            self.calm.private = beside(&self.neighbours_file);
        }
        outcome.effects.extend(self.canaries.harmed(&attempt.name));
        outcome.effects.extend(self.stored(attempt).await);
        say(&format!(
            "{:34} took {:.1} s",
            attempt.name,
            began.elapsed().as_secs_f32()
        ));
        outcome
    }

    fn trigger(&self, attempt: &Attempt, run: &str) -> TriggerBuilder {
        let trigger = self.db.trigger(run, &format!("{}.py", attempt.name));
        let mut trigger = trigger
            .spec(&format!("request:{run}"))
            .timeout(attempt.timeout());
        let directory = self.server.directory();
        let socket =
            find_socket(directory).map_or_else(String::new, |path| path.display().to_string());
        let port = self.server.client().address().port().to_string();
        let mut arguments = self.canaries.arguments(&attempt.name);
        arguments.extend([
            ("db_sock", socket),
            ("real_server_pid", self.server.pid().to_string()),
            ("api_port", port.clone()),
            ("bound_files", "12000".to_owned()),
            // Less than a worker may keep: who looks after that counts memory in files too.
            ("bound_mb", "96".to_owned()),
            ("neighbour_file", self.neighbours_file.clone()),
            ("story", directory.display().to_string()),
            // Enough for a loop in C that no machine ends within the limit.
            ("n", "60".to_owned()),
        ]);
        for (name, value) in arguments {
            trigger = trigger.argument(name, &value);
        }
        trigger = trigger.network(&attempt.network().replace("API", &port));
        if attempt.may_start_processes() {
            trigger = trigger.subprocesses();
        }
        trigger
    }

    /// Adds what the plugin says, and returns what it tells beside.
    fn judge(
        &self,
        attempt: &Attempt,
        reply: Result<Reply, String>,
        outcome: &mut Outcome,
    ) -> Value {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                outcome.damage.push(format!("no answer: {error}"));
                return Value::Null;
            }
        };
        outcome.effects.extend(self.canaries.told(&reply.body));
        let said: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        if reply.status != 200 {
            let start: String = reply.body.chars().take(300).collect();
            if !said["error"].is_string() {
                outcome
                    .damage
                    .push(format!("no clear error: {} {start}", reply.status));
            } else if attempt.expected() == Expected::Blocked {
                outcome
                    .word
                    .push(format!("no answer: {} {start}", reply.status));
            } else {
                say(&format!(
                    "{:34} ended: {} {start}",
                    attempt.name, reply.status
                ));
            }
            return Value::Null;
        }
        let escaped = said["escaped"].as_array().cloned().unwrap_or_default();
        let escaped = escaped.iter().filter_map(Value::as_str).map(str::to_owned);
        outcome.word.extend(escaped);
        say(&format!("{:34} says {}", attempt.name, shortened(&said)));
        said["info"].clone()
    }

    /// What has reached tables or the log that must not.
    async fn stored(&self, attempt: &Attempt) -> Vec<String> {
        let mut stored = Vec::new();
        let path = "/api/v3/configure/database?format=json";
        let databases = self.server.client().call(Method::GET, path).await;
        if databases.body.contains("stolen") {
            stored.push("another database was written to".to_owned());
            let gone = "/api/v3/configure/database?db=stolen";
            self.server.client().call(Method::DELETE, gone).await;
        }
        if let Some(table) = attempt.header("late") {
            let sql = format!("SELECT count(*) FROM {table}");
            if self.db.try_query(&sql).await.status == 200 {
                stored.push("a late message was believed".to_owned());
            }
        }
        if let Some(forged) = attempt.header("forged") {
            let lines = self.server.log_lines();
            let is_forged = |line: &&String| {
                let line: Option<Value> = serde_json::from_str(line).ok();
                line.is_none_or(|line| line["fields"]["message"] == forged)
            };
            let lines = lines.iter().filter(is_forged);
            stored.extend(lines.map(|line| format!("a forged line is in the log: {line}")));
        }
        stored
    }

    /// Waits until everything is as it was, and says what is not.
    async fn unrest(&self) -> Vec<String> {
        let deadline = Instant::now() + GONE_MAX;
        loop {
            let unrest = self.calm.unrest(&self.server, &self.neighbours_file).await;
            if unrest.is_empty() || Instant::now() > deadline {
                return unrest;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last look, when what was detached has had the time to show itself.
    pub(super) async fn close(mut self, attempts: &[Attempt], outcomes: &mut [Outcome]) {
        for (attempt, outcome) in attempts.iter().zip(outcomes.iter_mut()) {
            outcome.effects.extend(self.canaries.ran(&attempt.name));
        }
        let late = "SELECT count(*) FROM system.processing_engine_logs \
                    WHERE log_text LIKE 'late write after the run ended%'";
        let late = self.db.number(late).await;
        assert_eq!(late, 0, "calls after the end were accepted");
        let panicked = self.server.has_logged("panicked at");
        assert!(!panicked, "the server has panicked");
        let memory = memory_mib(self.server.pid());
        let grown = memory.saturating_sub(self.calm.memory_mib);
        say(&format!("the server has grown by {grown} MiB to {memory}"));
        assert!(
            grown < GROWTH_MIB_MAX,
            "the server has grown by {grown} MiB"
        );
        // What an attempt has left in places of the story's own is not the server's.
        self.server.stop();
        super::canaries::remove(&self.server.directory().join("hurt"));
    }
}

impl Calm {
    /// Waits until it stays as it is: workers that wait are started behind one's back.
    async fn of(server: &Server, neighbours_file: &str) -> Self {
        let mut last = usize::MAX;
        let mut same = 0;
        let deadline = Instant::now() + GONE_MAX;
        while same < 20 && Instant::now() < deadline {
            let now = server.children();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            sleep(Duration::from_millis(50)).await;
        }
        Self {
            processes: last,
            descriptors: descriptors(server.pid()),
            memory_mib: memory_mib(server.pid()),
            private: beside(neighbours_file),
        }
    }

    async fn unrest(&self, server: &Server, neighbours_file: &str) -> Vec<String> {
        let mut unrest = Vec::new();
        match call(server, "neighbour", "").await {
            Ok(reply) if reply.status == 200 => {
                let said = reply.json();
                if said["kept"] != json!(true) || said["sum"] != json!(3) {
                    unrest.push(format!("another trigger is not itself: {said}"));
                }
            }
            other => unrest.push(format!("another trigger does not run: {other:?}")),
        }
        let processes = server.children();
        if processes > self.processes {
            unrest.push(format!(
                "{processes} processes instead of {}",
                self.processes
            ));
        }
        let open = descriptors(server.pid());
        if open > self.descriptors + DESCRIPTORS_MORE_MAX {
            unrest.push(format!(
                "{open} descriptors instead of {}",
                self.descriptors
            ));
        }
        for path in beside(neighbours_file) {
            if !self.private.contains(&path) {
                unrest.push(format!("{} is left", path.display()));
            }
        }
        unrest
    }
}

/// The private directories beside that of the neighbour.
fn beside(neighbours_file: &str) -> Vec<PathBuf> {
    let directory = Path::new(neighbours_file).ancestors().nth(2);
    let all = names(directory.expect("it is in a directory of many"));
    let is_private = |path: &PathBuf| !path.to_string_lossy().contains("/.tmp");
    all.into_iter().filter(is_private).collect()
}

/// Calls a request trigger, which may not have started yet.
async fn call(server: &Server, path: &str, body: &str) -> Result<Reply, String> {
    let deadline = Instant::now() + GONE_MAX;
    loop {
        let path = format!("/api/v3/engine/{path}");
        let request = server.client().request(Method::POST, &path);
        let reply = server.client().send(request.body(body.to_owned())).await;
        match reply {
            Ok(reply) if reply.status == 404 && Instant::now() < deadline => {}
            other => return other.map_err(|error| format!("{error:?}")),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn shortened(said: &Value) -> String {
    let text = format!(
        "{} blocked, info {}",
        said["blocked"].as_array().map_or(0, Vec::len),
        said["info"]
    );
    text.chars().take(400).collect()
}

/// The server's socket for workers.
fn find_socket(directory: &Path) -> Option<PathBuf> {
    let inner = names(directory);
    let found = inner.iter().find(|path| path.ends_with("supervisor.sock"));
    let deeper = || {
        inner
            .iter()
            .filter(|path| path.is_dir() && !path.is_symlink())
    };
    let skipped = |path: &&PathBuf| !path.ends_with("venv") && !path.ends_with("data");
    found
        .cloned()
        .or_else(|| deeper().filter(skipped).find_map(|path| find_socket(path)))
}

fn descriptors(pid: u32) -> usize {
    names(Path::new(&format!("/proc/{pid}/fd"))).len()
}

fn memory_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

/// The environment to be copied, which attempts then may spoil.
pub(super) async fn environment(user: Option<u32>) -> PathBuf {
    let target = Path::new(BINARY)
        .ancestors()
        .nth(2)
        .expect("target/<profile>");
    let mut first = server();
    let mut shared = target.join("integration-venv");
    if let Some(user) = user {
        // Made by that user, because the interpreter of ours may be where only we can go.
        let directory = target.join("integration-ordinary");
        fs::create_dir_all(&directory).expect("make a directory");
        give(&[&directory], Some(user));
        shared = directory.join("venv");
        first = first.virtual_environment(&shared).as_user(user);
    } else if nix::unistd::geteuid().is_root() && may_run_as(0).is_ok() {
        // Workers become somebody else, who may not be able to go to the interpreter of ours.
        shared = target.join("integration-root-venv");
        let path = "/usr/local/bin:/usr/bin:/bin";
        first = first.virtual_environment(&shared).variable("PATH", path);
    }
    if !shared.join("bin/python").exists() {
        drop(first.start().await);
    }
    shared
}

/// Whether a server can run as this user: its binary and a Python are within reach.
#[expect(
    clippy::disallowed_methods,
    reason = "stories start programs as a user does, not as the server does"
)]
pub(super) fn may_run_as(user: u32) -> Result<(), String> {
    use std::os::unix::process::CommandExt;
    let mut version = Command::new(BINARY);
    let version = version.arg("--version").uid(user).gid(user).output();
    let version = version.map_err(|error| format!("{BINARY}: {error}"))?;
    if !version.status.success() {
        return Err(format!("{BINARY}: {}", version.status));
    }
    let mut python = Command::new("/usr/bin/python3");
    let python = python.args(["-c", "import ensurepip"]).uid(user).gid(user);
    let python = python
        .output()
        .map_err(|error| format!("/usr/bin/python3: {error}"))?;
    if python.status.success() {
        Ok(())
    } else {
        Err("/usr/bin/python3 cannot make virtual environments".to_owned())
    }
}
