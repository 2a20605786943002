//! Where is a late plugin? The dump of its worker's stacks, in the order in which it is read.
//!
//! Python's faulthandler prints the threads in an order of its own, each of their frames as a
//! line, among whatever else goes to standard error:
//!
//! ```text
//! Thread 0x00007f13c2ffd6c0 (most recent call first):
//!   File "/venv/lib/python3.12/threading.py", line 359 in wait
//! Current thread 0x00007f13c9b2b080 (most recent call first):
//!   File "plugin.py", line 7 in process_writes
//! ```
//!
//! What comes of it is one text: the plugin's thread first, then the threads that the plugin
//! has started; the runtime's own are only counted. All of it is the worker's word: nothing
//! but the text depends on it, which is bounded.

use std::fmt::Write as _;

/// Where the main thread begins, and every other one: the last lines of their stacks.
const OUTERMOST: [&str; 2] = [" in _run_module_as_main", " in _bootstrap"];
/// Python prints so much of a stack that is deeper than it shows.
const CUT: &str = "  ...";
/// What the runtime's frames have in their paths.
const RUNTIME: &str = "/outrigger_plugin_host/";
/// What else runs in the runtime's threads.
const BELOW: [&str; 4] = [
    "/grpc/",
    "/threading.py\"",
    "\"<frozen ",
    "/concurrent/futures/",
];
/// How much of a dump is kept: a hundred threads, each of a hundred frames, could be more.
const BYTES_MAX: usize = 256 * 1024;
/// How much of it is worth storing.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// A dump as it comes in.
#[derive(Debug, Default)]
pub(super) struct StackDump {
    threads: Vec<Stack>,
    bytes: usize,
}

/// The stack of one thread, most recent call first.
#[derive(Debug)]
struct Stack {
    is_last: bool,
    frames: Vec<String>,
}

/// Whose thread it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owner {
    /// The one that the plugin is called in.
    Plugin,
    /// One that the plugin has started, or that works for it.
    Other,
    Runtime,
}

impl StackDump {
    /// Takes a line of standard error in, unless it is not the dump's.
    pub(super) fn takes(&mut self, line: &str) -> bool {
        if is_header(line) {
            let is_last = line.starts_with("Current thread");
            let frames = Vec::new();
            self.threads.push(Stack { is_last, frames });
        } else if is_frame(line) && !self.threads.is_empty() {
            self.add(line);
        } else {
            return false;
        }
        true
    }

    fn add(&mut self, line: &str) {
        self.bytes += line.len();
        if self.bytes <= BYTES_MAX
            && let Some(stack) = self.threads.last_mut()
        {
            stack.frames.push(line.to_owned());
        }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_complete(&self) -> bool {
        let ends = |frame: &String| {
            *frame == CUT || OUTERMOST.iter().any(|outermost| frame.ends_with(outermost))
        };
        let last = self.threads.last().filter(|stack| stack.is_last);
        self.bytes > BYTES_MAX || last.is_some_and(|stack| stack.frames.last().is_some_and(ends))
    }

    /// Whether nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// The lines that say where the plugin is; none if there was no dump.
    pub(super) fn lines(&self) -> Vec<String> {
        let of = |owner| {
            self.threads
                .iter()
                .filter(move |stack| stack.owner() == owner)
        };
        let mut lines = Vec::new();
        for stack in of(Owner::Plugin) {
            lines.push("the plugin was here, most recent call first:".to_owned());
            lines.extend_from_slice(stack.of_the_plugin());
        }
        for stack in of(Owner::Other) {
            lines.push("another of its threads was here:".to_owned());
            lines.extend_from_slice(stack.of_the_plugin());
        }
        let left_out = of(Owner::Runtime).count();
        if !lines.is_empty() {
            bound(&mut lines);
        }
        if left_out > 0 {
            let mut text = format!("{left_out} threads of the worker's runtime are left out");
            if lines.is_empty() {
                let _ = write!(text, "; the plugin's did not answer");
            }
            lines.push(text);
        }
        lines
    }
}

impl Stack {
    fn owner(&self) -> Owner {
        // The signal is taken by the main thread, if that can; of a deep stack, Python leaves
        // out where it began.
        let is_deep = self.is_last && self.frames.last().is_some_and(|frame| frame == CUT);
        if is_deep || self.frames.iter().any(|frame| calls_plugin(frame)) {
            return Owner::Plugin;
        }
        // Calls that may block are made in a thread of their own: the plugin waits for it.
        let works_for_it =
            |frame: &String| frame.contains("/_interrupts.py\"") && frame.ends_with(" in run");
        let frames = &self.frames;
        // What has nothing but Python's own frames may be the plugin's.
        let marks = |frame: &String| frame.contains(RUNTIME) || frame.contains("/grpc/");
        let is_runtime = frames.iter().all(|frame| is_ours(frame))
            && frames.iter().any(marks)
            && !frames.iter().any(works_for_it);
        if is_runtime {
            return Owner::Runtime;
        }
        Owner::Other
    }

    /// Its frames down to where the runtime called the plugin.
    fn of_the_plugin(&self) -> &[String] {
        let is_kept = |frame: &String| !is_ours(frame) && frame != CUT;
        let kept = self.frames.iter().rposition(is_kept);
        // Where it is nowhere else it is in the runtime itself.
        kept.map_or(&self.frames, |last| &self.frames[..=last])
    }
}

fn is_header(line: &str) -> bool {
    let header = |start| {
        let rest = line.strip_prefix(start);
        rest.is_some_and(|rest| rest.ends_with("(most recent call first):"))
    };
    header("Thread 0x") || header("Current thread 0x")
}

fn is_frame(line: &str) -> bool {
    line.starts_with("  File \"") || line == CUT
}

fn is_ours(frame: &str) -> bool {
    frame.contains(RUNTIME) || BELOW.iter().any(|part| frame.contains(part))
}

fn calls_plugin(frame: &str) -> bool {
    frame.contains("/outrigger_plugin_host/_worker.py\"")
        && (frame.ends_with(" in _serve") || frame.ends_with(" in _run_plugin"))
}

/// Cuts the lines to what is worth storing.
fn bound(lines: &mut Vec<String>) {
    let mut bytes = 0;
    let fits = lines.iter().take_while(|line| {
        bytes += line.len() + 1;
        bytes <= TEXT_BYTES_MAX
    });
    let fits = fits.count();
    if fits < lines.len() {
        lines.truncate(fits);
        lines.push("  … (cut)".to_owned());
    }
}

/// Without the lines of a dump, which were told already.
pub(super) fn without_dump(lines: Vec<String>) -> Vec<String> {
    let is_told = |line: &String| is_header(line) || is_frame(line);
    lines.into_iter().filter(|line| !is_told(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Python 3.11 prints it, its paths shortened.
    const DUMP: &str = r#"Thread 0x00007f5b1d7fa6c0 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  File "/v/site-packages/grpc/_common.py", line 116 in _wait_once
  File "/v/site-packages/grpc/_channel.py", line 964 in _next
  File "/v/site-packages/outrigger_plugin_host/_worker.py", line 230 in _read
  File "/usr/lib/python3.11/threading.py", line 982 in run
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap
Thread 0x00007f5b1dffb6c0 (most recent call first):
  File "victim.py", line 4 in go_on
  File "/usr/lib/python3.11/threading.py", line 982 in run
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap
Current thread 0x00007f5b29cae040 (most recent call first):
  File "victim.py", line 9 in attack
  File "victim.py", line 30 in process_writes
  File "/v/site-packages/outrigger_plugin_host/_plugin.py", line 80 in call
  File "/v/site-packages/outrigger_plugin_host/_worker.py", line 190 in _run_plugin
  File "/v/site-packages/outrigger_plugin_host/_worker.py", line 96 in _serve
  File "<frozen runpy>", line 88 in _run_code
  File "<frozen runpy>", line 198 in _run_module_as_main"#;

    fn dump(text: &str) -> StackDump {
        let mut dump = StackDump::default();
        for line in text.lines() {
            assert!(!dump.is_complete(), "before {line}");
            assert!(dump.takes(line), "{line}");
        }
        dump
    }

    #[test]
    fn the_plugins_thread_comes_first_and_the_runtimes_is_left_out() {
        let dump = dump(DUMP);
        assert!(dump.is_complete());
        let expected = [
            "the plugin was here, most recent call first:",
            r#"  File "victim.py", line 9 in attack"#,
            r#"  File "victim.py", line 30 in process_writes"#,
            "another of its threads was here:",
            r#"  File "victim.py", line 4 in go_on"#,
            "1 threads of the worker's runtime are left out",
        ];
        assert_eq!(dump.lines(), expected);
    }

    #[test]
    fn what_else_is_printed_meanwhile_is_not_the_dumps() {
        let mut dump = StackDump::default();
        // A frame without a thread is a traceback's.
        let printed = [
            "  File \"x.py\", line 1 in f",
            "",
            "a warning",
            "Thread one",
        ];
        assert!(printed.iter().all(|line| !dump.takes(line)));
        for line in DUMP.lines().take(7) {
            assert!(dump.takes(line), "{line}");
            assert!(!dump.takes("a warning"));
        }
        assert_eq!(
            dump.lines(),
            ["1 threads of the worker's runtime are left out; the plugin's did not answer"]
        );
    }

    #[test]
    fn a_plugin_that_hangs_in_the_runtime_is_shown_there() {
        let text = r#"Current thread 0x00007f5b29cae040 (most recent call first):
  File "/v/site-packages/outrigger_plugin_host/_interrupts.py", line 69 in interruptible
  File "/v/site-packages/outrigger_plugin_host/_worker.py", line 96 in _serve
  File "<frozen runpy>", line 198 in _run_module_as_main"#;
        assert_eq!(dump(text).lines().len(), 4);
    }

    #[test]
    fn a_deep_stack_is_the_plugins_too() {
        let text = r#"Current thread 0x00007f5b29cae040 (most recent call first):
  File "deep.py", line 2 in f
  File "deep.py", line 3 in f
  ..."#;
        let lines = dump(text).lines();
        assert_eq!(lines[0], "the plugin was here, most recent call first:");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_thread_that_only_sleeps_is_the_plugins() {
        let sleeping = r#"Thread 0x00007f5b1dffb6c0 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 982 in run
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap
"#;
        let lines = dump(&format!("{sleeping}{DUMP}")).lines();
        let others = lines.iter().filter(|line| line.starts_with("another"));
        assert_eq!(others.count(), 2, "{lines:#?}");
        assert_eq!(
            lines[lines.len() - 1],
            "1 threads of the worker's runtime are left out"
        );
    }

    #[test]
    fn a_dump_without_end_is_bounded() {
        let mut dump = StackDump::default();
        let mut lines = 0;
        while !dump.is_complete() {
            let at = if lines % 100 == 0 {
                format!("Thread 0x{lines} (most recent call first):")
            } else {
                format!("  File \"deep.py\", line {lines} in f")
            };
            assert!(dump.takes(&at));
            lines += 1;
            assert!(lines < 100_000);
        }
        let shown: usize = dump.lines().iter().map(String::len).sum();
        assert!(shown < TEXT_BYTES_MAX + 100, "{shown}");
        assert!(dump.lines().iter().any(|line| line.ends_with("(cut)")));
    }

    #[test]
    fn the_last_lines_do_not_repeat_the_dump() {
        let mut last = vec!["said before".to_owned()];
        last.extend(DUMP.lines().map(ToOwned::to_owned));
        assert_eq!(without_dump(last), ["said before"]);
    }
}
