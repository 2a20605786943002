//! What published plugins rely on beside the calls of `influxdb3_local`: how they are loaded and
//! called, their environment, files, threads, and when what they do can be seen.

use outrigger_integration_tests::eventually;
use serde_json::json;

use crate::server;

/// Its idioms are those of the published plugins: annotations that are evaluated, guards around
/// names, entry points without defaults and with names of their own.
const LOADED: &str = "
from __future__ import annotations
import asyncio, os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

try:
    LineBuilder = LineBuilder
except NameError:
    LineBuilder = None
try:
    from influxdb3_pe import LineBuilder
except ImportError:
    pass

_FULL_LOGGING = False

@dataclass
class Settings:
    names: list[str] = field(default_factory=list)

def built(n: int) -> list[LineBuilder]:
    return [LineBuilder('made').tag('n', n).int64_field('v', n) for n in range(n)]

class _BatchLines:
    def __init__(self, lines):
        self.lines = lines
    def build(self):
        return '\\n'.join(line.build() for line in self.lines)

async def doubled(x):
    await asyncio.sleep(0)
    return 2 * x

def process_writes(api, batches, arguments):
    global _FULL_LOGGING
    if batches[0]['table_name'] != 'm':
        return
    api.info('first time', not _FULL_LOGGING, Settings(['a']), arguments)
    _FULL_LOGGING = True
    arguments['use_config_file'] = 'yes'
    row = batches[0]['rows'][0]
    row['extra'] = row.pop('v')
    api.info('rows', sorted(row), os.environ.get('LEAK'), os.environ['TOKEN_FOR_PLUGINS'])
    os.environ['LEAK'] = 'from ' + arguments['who']
    os.environ['TOKEN_FOR_PLUGINS'] = 'changed'

    loop = asyncio.new_event_loop()
    api.info('async', asyncio.run(doubled(2)), loop.run_until_complete(doubled(3)))
    loop.close()

    def work(n):
        api.write_sync(LineBuilder('threads').tag('n', n).int64_field('v', n), no_sync=n % 2 == 0)
        api.cache.put(f'{n}', [n], use_global=True)
        api.info(f'thread {n}')
        found = api.cache.get(f'{n}', use_global=True)
        return found[0] + api.query('SELECT $n AS n', {'n': n})[0]['n']
    with ThreadPoolExecutor(12) as pool:
        api.info('threads', sum(pool.map(work, range(12))))
    api.write(_BatchLines(built(3)))
    api.write_to_db('copies', _BatchLines(built(2)))
    line = built(1)[0]
    api.info('builder', dict(line.tags), dict(line.fields), line.measurement)
";

#[tokio::test]
async fn a_plugin_is_loaded_and_called_as_published_plugins_expect() {
    let server = server()
        .plugin("loaded.py", LOADED)
        .variable("TOKEN_FOR_PLUGINS", "given")
        .start()
        .await;
    let db = server.database("db").create().await;
    for who in ["a", "b"] {
        let trigger = db.trigger(who, "loaded.py").spec("table:m");
        trigger.argument("who", who).create().await;
    }
    db.write("m v=1i 1").await;
    for who in ["a", "b"] {
        let first = format!("first time True Settings(names=['a']) {{'who': '{who}'}}");
        db.until_logged(who, 1, &first).await;
        db.until_logged(who, 1, "rows ['extra', 'time'] None given")
            .await;
        db.until_logged(who, 1, "async 4 6").await;
        db.until_logged(who, 1, "threads 132").await;
        let builder = "builder {'n': '0'} {'v': '0i'} made";
        db.until_logged(who, 1, builder).await;
    }
    let values = "SELECT sum(v) AS v FROM";
    db.until(&format!("{values} threads"), json!([{ "v": 132 }]))
        .await;
    server
        .database("copies")
        .until(&format!("{values} made"), json!([{ "v": 2 }]))
        .await;
    // All lines of one run without a timestamp have the same one.
    let times = "SELECT count(*) AS rows, count(DISTINCT time) AS times FROM made";
    db.until(times, json!([{ "rows": 6, "times": 2 }])).await;
    // The second run has fresh globals and arguments, and the environment of its own process.
    db.write("m v=2i 2").await;
    for who in ["a", "b"] {
        let first = format!("first time True Settings(names=['a']) {{'who': '{who}'}}");
        db.until_logged(who, 2, &first).await;
        let leak = format!("rows ['extra', 'time'] from {who} changed");
        db.until_logged(who, 1, &leak).await;
    }
}

const FILES: &str = "
import os, pathlib, tempfile

def process_writes(influxdb3_local, table_batches, args=None):
    read = pathlib.Path(os.environ['PLUGIN_DIR'], 'state', 'given.txt').read_text()
    same = os.environ['PLUGIN_DIR'] == os.environ['INFLUXDB3_PLUGIN_DIR']
    python = pathlib.Path(os.environ['VIRTUAL_ENV'], 'bin', 'python').exists()
    influxdb3_local.info('read', read, same, python)
    kept = []
    places = [os.environ['PLUGIN_DIR'], os.path.expanduser('~/.plugins'), tempfile.gettempdir()]
    for place in places:
        path = pathlib.Path(place, 'kept.txt')
        path.parent.mkdir(exist_ok=True)
        kept.append(path.read_text() if path.exists() else None)
        path.write_text('was here')
    influxdb3_local.info('kept', kept)
";

#[tokio::test]
async fn a_plugin_reads_and_writes_files_where_published_plugins_do() {
    let builder = server()
        .plugin("files.py", FILES)
        .plugin("state/given.txt", "given");
    let home = builder.directory().join("home");
    std::fs::create_dir_all(&home).unwrap();
    let home = home.display().to_string();
    let server = builder.variable("HOME", &home).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "files.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "read given True True").await;
    db.until_logged("t", 1, "kept [None, None, None]").await;
    db.write("m f=1 2").await;
    let kept = "kept ['was here', 'was here', 'was here']";
    db.until_logged("t", 1, kept).await;
}

/// Waits inside its run for what others do meanwhile.
const WAITING: &str = "
import time

def process_writes(influxdb3_local, table_batches, args=None):
    if table_batches[0]['table_name'] != 'm':
        return
    influxdb3_local.info('waiting')
    while True:
        try:
            influxdb3_local.query('SELECT f FROM go')
            break
        except Exception:
            time.sleep(0.02)
    influxdb3_local.write_sync(LineBuilder('seen').int64_field('f', 1), no_sync=False)
    influxdb3_local.info('went on')
";

#[tokio::test]
async fn what_a_run_logs_is_seen_while_it_goes_on() {
    let server = server().plugin("w.py", WAITING).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "w.py").spec("table:m").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "waiting").await;
    let logs = db.logs("t").await;
    let is_over = logs.iter().any(|row| row.text.contains("went on"));
    assert!(!is_over, "{logs:#?}");
    db.write("go f=1 1").await;
    db.until_logged("t", 1, "went on").await;
    db.until("SELECT f FROM seen", json!([{ "f": 1 }])).await;
    eventually("the run ends", async || {
        let logs = db.logs("t").await;
        let ended = logs.iter().any(|row| row.text.starts_with("finished"));
        ended.then_some(()).ok_or_else(|| format!("{logs:#?}"))
    })
    .await;
}
