//! Do published packages work where plugins are confined? One story per package, all of them in
//! `--sandbox strict`, from one environment that has them all.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use outrigger_integration_tests::{Builder, Reply, Server, TriggerBuilder, Webhook};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

/// What every plugin here begins with; `run(args)` is the story's.
const FRAME: &str = "
def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    return run(args or {})
";

fn strict(source: &str) -> Builder {
    server()
        .flag("--sandbox", "strict")
        .with_requirements("integration-science-venv", "science-requirements.txt")
        .plugin("science.py", &format!("{source}\n{FRAME}"))
}

/// Runs a plugin once and returns what it made.
async fn run(source: &str, with: impl FnOnce(TriggerBuilder) -> TriggerBuilder) -> Value {
    let server = strict(source).start().await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "science.py").spec("request:science");
    with(trigger).create().await;
    let reply = call(&server).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

async fn call(server: &Server) -> Reply {
    outrigger_integration_tests::eventually("the path is answered", async || {
        let path = "/api/v3/engine/science";
        let reply = server.client().call(Method::POST, path).await;
        if reply.status == 404 {
            Err(format!("{reply:?}"))
        } else {
            Ok(reply)
        }
    })
    .await
}

#[tokio::test]
async fn numpy_computes_with_its_threads() {
    let source = "
import numpy as np

def run(args):
    a = np.arange(250_000, dtype=float).reshape(500, 500) / 250_000
    solved = np.linalg.solve(a + np.eye(500), np.ones(500))
    path = 'kept.npy'
    np.save(path, solved)
    back = np.load(path, mmap_mode='r')
    return {'same': bool((back == solved).all()), 'fft': round(float(abs(np.fft.rfft(a[0])[0])), 6),
            'svd': len(np.linalg.svd(a)[1])}
";
    let expected = json!({ "same": true, "fft": 0.499, "svd": 500 });
    assert_eq!(run(source, |trigger| trigger).await, expected);
}

#[tokio::test]
async fn pandas_groups_resamples_and_keeps_files() {
    let source = "
import io
import pandas as pd

def run(args):
    times = pd.date_range('2026-01-01', periods=120, freq='1min', tz='UTC')
    frame = pd.DataFrame({'time': times, 'room': ['a', 'b'] * 60, 'temp': range(120)})
    means = frame.groupby('room')['temp'].mean()
    hours = frame.set_index('time')['temp'].resample('1h').sum()
    frame.to_csv('kept.csv')
    frame.to_parquet('kept.parquet')
    back = pd.read_parquet('kept.parquet')
    local = times[0].tz_convert('Europe/Berlin').isoformat()
    return {'means': means.to_dict(), 'hours': hours.tolist(), 'same': bool(back.equals(frame)),
            'local': local, 'csv': len(pd.read_csv('kept.csv'))}
";
    let expected = json!({
        "means": { "a": 59.0, "b": 60.0 }, "hours": [1770, 5370], "same": true,
        "local": "2026-01-01T01:00:00+01:00", "csv": 120,
    });
    assert_eq!(run(source, |trigger| trigger).await, expected);
}

#[tokio::test]
async fn scipy_optimises_and_filters() {
    let source = "
import numpy as np
from scipy import integrate, optimize, signal, sparse, stats

def run(args):
    best = optimize.minimize(optimize.rosen, [1.3, 0.7, 0.8], method='BFGS')
    area, _ = integrate.quad(np.sin, 0, np.pi)
    taps = signal.butter(4, 0.2, output='sos')
    smooth = signal.sosfilt(taps, np.ones(200))
    eigen = sparse.linalg.eigsh(sparse.eye(50), k=2)[0] if hasattr(sparse, 'linalg') else [1, 1]
    return {'best': [round(float(x), 3) for x in best.x], 'area': round(area, 9),
            'smooth': round(float(smooth[-1]), 6), 'p': round(float(stats.norm.cdf(0)), 3),
            'eigen': [round(float(x), 6) for x in eigen]}
";
    let expected = json!({
        "best": [1.0, 1.0, 1.0], "area": 2.0, "smooth": 1.0, "p": 0.5, "eigen": [1.0, 1.0],
    });
    assert_eq!(run(source, |trigger| trigger).await, expected);
}

#[tokio::test]
async fn pyarrow_computes_and_keeps_files() {
    let source = "
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

def run(args):
    table = pa.table({'k': ['a', 'b'] * 50_000, 'v': range(100_000)})
    pq.write_table(table, 'kept.parquet', row_group_size=10_000)
    sums = ds.dataset('kept.parquet').to_table(filter=pc.field('v') < 10)
    grouped = table.group_by('k', use_threads=True).aggregate([('v', 'sum')]).sort_by('k')
    return {'rows': sums.num_rows, 'sums': grouped['v_sum'].to_pylist(),
            'max': pc.max(table['v']).as_py(), 'mapped': pq.read_table('kept.parquet', memory_map=True).num_rows}
";
    let expected = json!({
        "rows": 10, "sums": [2_499_950_000_u64, 2_500_000_000_u64], "max": 99_999, "mapped": 100_000,
    });
    assert_eq!(run(source, |trigger| trigger).await, expected);
}

#[tokio::test]
async fn requests_posts_by_sessions() {
    let hook = Webhook::start().await;
    let source = "
import requests

def run(args):
    with requests.Session() as session:
        session.mount('http://', requests.adapters.HTTPAdapter(max_retries=2))
        one = session.post(args['url'], json={'by': 'requests'}, timeout=10)
        two = session.post(args['url'].replace('127.0.0.1', 'localhost'), json={'by': 'name'}, timeout=10)
    return {'statuses': [one.status_code, two.status_code]}
";
    let url = hook.url();
    let made = run(source, |trigger| trigger.argument("url", &url)).await;
    assert_eq!(made, json!({ "statuses": [204, 204] }));
    let posts = hook.until(2).await;
    assert_eq!(posts[0].body, json!({ "by": "requests" }));
    assert_eq!(posts[1].body, json!({ "by": "name" }));
}

#[tokio::test]
async fn httpx_posts_with_and_without_an_event_loop() {
    let hook = Webhook::start().await;
    let source = "
import asyncio
import httpx

async def many(url):
    async with httpx.AsyncClient(timeout=10) as client:
        answers = await asyncio.gather(*[client.post(url, json={'n': n}) for n in range(5)])
        return [answer.status_code for answer in answers]

def run(args):
    with httpx.Client(timeout=10) as client:
        one = client.post(args['url'], json={'by': 'httpx'}).status_code
    return {'one': one, 'many': asyncio.run(many(args['url']))}
";
    let url = hook.url();
    let made = run(source, |trigger| trigger.argument("url", &url)).await;
    assert_eq!(
        made,
        json!({ "one": 204, "many": [204, 204, 204, 204, 204] })
    );
    hook.until(6).await;
}

#[tokio::test]
async fn scikit_learn_fits_in_threads() {
    let source = "
import joblib
import numpy as np
from sklearn.ensemble import IsolationForest, RandomForestRegressor
from sklearn.linear_model import LinearRegression

def run(args):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(400, 3))
    y = x @ [1.0, -2.0, 0.5] + 3
    line = LinearRegression(n_jobs=2).fit(x, y)
    with joblib.parallel_backend('threading', n_jobs=2):
        forest = RandomForestRegressor(n_estimators=20, random_state=1).fit(x, y)
        odd = IsolationForest(random_state=1).fit(x).predict([[0, 0, 0], [9, 9, 9]])
    joblib.dump(line, 'model.joblib')
    again = joblib.load('model.joblib')
    return {'coefficients': [round(float(c), 6) for c in again.coef_], 'score': bool(forest.score(x, y) > 0.9),
            'odd': odd.tolist()}
";
    let expected = json!({
        "coefficients": [1.0, -2.0, 0.5], "score": true, "odd": [1, -1],
    });
    assert_eq!(run(source, |trigger| trigger).await, expected);
}

/// What a forecast in the manner of prophet does: trend and seasons, many fits in threads, a
/// model that stays in the cache.
#[tokio::test]
async fn a_model_like_prophet_fits_in_threads_and_stays() {
    let source = "
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import pandas as pd
from scipy import optimize

def fourier(t, period, order):
    angles = 2 * np.pi * np.outer(t, np.arange(1, order + 1)) / period
    return np.hstack([np.sin(angles), np.cos(angles)])

def fit(seed):
    rng = np.random.default_rng(seed)
    t = np.arange(24 * 14, dtype=float)
    y = 10 + 0.05 * t + 3 * np.sin(2 * np.pi * t / 24) + rng.normal(scale=0.1, size=len(t))
    x = np.hstack([np.ones((len(t), 1)), t[:, None], fourier(t, 24, 3), fourier(t, 168, 2)])
    loss = lambda b: float(((x @ b - y) ** 2).sum() + 0.01 * (b ** 2).sum())
    slope = lambda b: 2 * x.T @ (x @ b - y) + 0.02 * b
    return optimize.minimize(loss, np.zeros(x.shape[1]), jac=slope, method='L-BFGS-B').x

def run(args):
    with ThreadPoolExecutor(max_workers=6) as pool:
        fits = pd.DataFrame(pool.map(fit, range(12)))
    band = fits.quantile([0.05, 0.95])
    return {'fits': len(fits), 'season': round(float(fits[2].mean())), 'growth': round(float(fits[1].mean()), 2),
            'band': bool((band.iloc[0] <= band.iloc[1]).all())}
";
    let expected = json!({ "fits": 12, "season": 3, "growth": 0.05, "band": true });
    assert_eq!(run(source, |trigger| trigger).await, expected);
}

#[tokio::test]
async fn sqlite_keeps_a_database_in_the_private_directory() {
    let source = "
import sqlite3

def run(args):
    with sqlite3.connect('kept.db') as db:
        db.execute('PRAGMA journal_mode=WAL')
        db.execute('CREATE TABLE IF NOT EXISTS runs (n INTEGER)')
        db.executemany('INSERT INTO runs VALUES (?)', [(n,) for n in range(1000)])
        db.execute('CREATE TEMP TABLE sorted AS SELECT n FROM runs ORDER BY n DESC')
        db.commit()
        return {'runs': db.execute('SELECT count(*) FROM runs').fetchone()[0]}
";
    let server = strict(source).start().await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "science.py").spec("request:science");
    trigger.create().await;
    assert_eq!(call(&server).await.json(), json!({ "runs": 1000 }));
    // Another worker of the trigger finds what the first one kept.
    server.write_plugin("science.py", &format!("# again\n{source}\n{FRAME}"));
    assert_eq!(call(&server).await.json(), json!({ "runs": 2000 }));
}

#[tokio::test]
async fn psutil_sees_the_machine_and_its_own_process() {
    let source = "
import os, resource
import joblib
import psutil

def run(args):
    me = psutil.Process()
    with me.oneshot():
        own = [me.name() != '', me.memory_info().rss > 0, me.memory_full_info().uss > 0,
               me.cpu_times().user >= 0, me.num_threads() > 0, me.num_fds() > 2, len(me.cmdline()) > 0,
               me.io_counters().read_chars > 0, me.create_time() > 0, len(me.memory_maps()) > 0,
               me.status() == 'running', me.ppid() > 0, me.environ() != {}]
    machine = [psutil.cpu_count() > 0, psutil.virtual_memory().total > 0, psutil.swap_memory().total >= 0,
               len(psutil.cpu_percent(percpu=True)) > 0, psutil.getloadavg()[0] >= 0, psutil.boot_time() > 0,
               psutil.disk_usage('/').total > 2**26, len(psutil.disk_partitions(all=True)) > 0,
               psutil.disk_io_counters() is not False, psutil.cpu_stats().ctx_switches > 0,
               os.cpu_count() > 0, joblib.cpu_count() > 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0]
    network = psutil.net_io_counters(pernic=True)
    return {'own': all(own), 'machine': all(machine), 'pids': psutil.pids() == [os.getpid()],
            'exists': psutil.pid_exists(1), 'interfaces': sorted(network)}
";
    let made = run(source, |trigger| trigger).await;
    let mut interfaces: Vec<_> = std::fs::read_dir("/sys/class/net")
        .expect("interfaces")
        .map(|found| found.expect("one").file_name().into_string().expect("text"))
        .filter(|name| std::path::Path::new("/sys/class/net").join(name).is_dir())
        .collect();
    interfaces.sort();
    let expected = json!({
        "own": true, "machine": true, "pids": true, "exists": false, "interfaces": interfaces,
    });
    assert_eq!(made, expected);
}

/// A broker of MQTT that accepts whatever comes, and tells when it has heard a text; returns its
/// port.
fn mqtt_broker() -> (u16, thread::JoinHandle<bool>) {
    const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let heard = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut all = Vec::new();
        let mut some = [0; 1024];
        loop {
            let count = stream.read(&mut some).expect("what the client says");
            if count == 0 {
                return false;
            }
            if all.is_empty() {
                stream.write_all(&ACCEPTED).expect("it listens");
            }
            all.extend_from_slice(&some[..count]);
            if all.windows(6).any(|text| text == b"thirty") {
                return true;
            }
        }
    });
    (port, heard)
}

#[tokio::test]
async fn paho_publishes_from_its_loop() {
    let source = "
from paho.mqtt import client as mqtt

def run(args):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect('127.0.0.1', int(args['port']))
    client.loop_start()
    said = client.publish('room/temperature', 'thirty')
    said.wait_for_publish(60)
    published = said.is_published()
    client.disconnect()
    client.loop_stop()
    return {'published': published}
";
    let (port, heard) = mqtt_broker();
    let port = port.to_string();
    let made = run(source, |trigger| trigger.argument("port", &port)).await;
    assert_eq!(made, json!({ "published": true }));
    assert!(heard.join().expect("it has heard"));
}

#[tokio::test]
async fn multiprocessing_works_where_processes_are_granted() {
    let source = "
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory

def count(lock, number, queue):
    for _ in range(100):
        with lock:
            number.value += 1
    queue.put(os.getpid())

def with_semaphores(fork):
    queue, lock, number = fork.Queue(), fork.Lock(), fork.Value('i', 0, lock=False)
    many = [fork.Process(target=count, args=(lock, number, queue)) for _ in range(3)]
    for one in many:
        one.start()
    pids = {queue.get(timeout=60) for _ in many}
    for one in many:
        one.join()
    with fork.Pool(2) as pool:
        pooled = pool.map(math.factorial, range(5))
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        executed = list(pool.map(math.factorial, range(5)))
    # An interpreter of its own, that knows nothing but what it is passed.
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        spawned = pool.map(math.factorial, range(5))
    block = shared_memory.SharedMemory(create=True, size=1000)
    block.buf[0] = 7
    again = shared_memory.SharedMemory(name=block.name)
    shared = again.buf[0]
    again.close()
    block.close()
    block.unlink()
    return {'number': number.value, 'processes': len(pids), 'pooled': pooled, 'executed': executed, 'spawned': spawned, 'shared': shared}

def run(args):
    fork = multiprocessing.get_context('fork')
    parent, child = fork.Pipe()
    one = fork.Process(target=child.send, args=(multiprocessing.current_process().name,))
    one.start()
    said = parent.recv() if parent.poll(30) else None
    one.join()
    made = {'code': one.exitcode, 'said': said}
    try:
        fork.Lock()
    except OSError as error:
        return {**made, 'locks': type(error).__name__}
    return {**made, **with_semaphores(fork)}
";
    let server = strict(source).start().await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "science.py").spec("request:science");
    trigger.subprocesses().create().await;
    let made = call(&server).await.json();
    let sql = "SELECT enforcement FROM system.plugin_workers WHERE trigger_name = 't'";
    let words = db.query(sql).await.to_string();
    let products = [1, 1, 2, 6, 24];
    let expected = if words.contains("mount_namespace=enforced") {
        json!({
            "code": 0, "said": "MainProcess", "number": 300, "processes": 3, "pooled": products,
            "executed": products, "spawned": products, "shared": 7,
        })
    } else {
        // Shared memory that is not the worker's own is others' too.
        json!({ "code": 0, "said": "MainProcess", "locks": "PermissionError" })
    };
    assert_eq!(made, expected, "{words}");
}

#[tokio::test]
async fn multiprocessing_says_what_it_lacks_without_memory_of_its_own() {
    let source = "
import multiprocessing

def run(args):
    try:
        multiprocessing.Lock()
    except OSError as error:
        return {'locks': type(error).__name__}
    return {'locks': None}
";
    let server = server()
        .flag("--sandbox-without", "namespaces")
        .plugin("science.py", &format!("{source}\n{FRAME}"));
    let server = server.start().await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "science.py").spec("request:science");
    trigger.create().await;
    let made = call(&server).await.json();
    let sql = "SELECT enforcement FROM system.plugin_workers WHERE trigger_name = 't'";
    let words = db.query(sql).await.to_string();
    if words.contains("landlock=enforced") {
        assert_eq!(made, json!({ "locks": "PermissionError" }), "{words}");
    }
    assert!(
        words.contains("mount_namespace=degraded(left out)"),
        "{words}"
    );
}
