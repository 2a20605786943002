//! What `influxdb3_local.cache` keeps, for whom, and for how long.

use outrigger_integration_tests::{Database, Server};
use reqwest::Method;
use serde_json::json;

use crate::server;

/// Says which run of this worker it is, as its own cache and as its process know it.
const COUNTING: &str = "
import os

def process_writes(influxdb3_local, table_batches, args=None):
    cache = influxdb3_local.cache
    runs = cache.get('runs')
    if runs is None:
        cache.put('runs', runs := [])
    runs.append(table_batches[0]['rows'][0]['n'])
    influxdb3_local.info(f'runs {runs}.')
";

async fn counting(server: &Server) -> Database {
    let db = server.database("db").create().await;
    db.trigger("t", "c.py").spec("table:m").create().await;
    check_runs(&db, 1, "[1]").await;
    check_runs(&db, 2, "[1, 2]").await;
    db
}

/// One run, and what its cache then holds.
async fn check_runs(db: &Database, n: i64, expected: &str) {
    db.write(format!("m n={n}i {n}")).await;
    db.until_logged("t", 1, &format!("runs {expected}.")).await;
}

#[tokio::test]
async fn a_triggers_cache_goes_when_it_is_disabled() {
    let server = server().plugin("c.py", COUNTING).start().await;
    let db = counting(&server).await;
    db.disable("t").await;
    db.enable("t").await;
    check_runs(&db, 3, "[3]").await;
    check_runs(&db, 4, "[3, 4]").await;
    // Again, and at rest between the two.
    db.disable("t").await;
    db.write("m n=5i 5").await;
    db.enable("t").await;
    check_runs(&db, 6, "[6]").await;
}

#[tokio::test]
async fn a_triggers_cache_goes_when_it_is_deleted() {
    let server = server().plugin("c.py", COUNTING).start().await;
    let db = counting(&server).await;
    db.delete_trigger("t", true)
        .await
        .check_success("delete a trigger");
    db.trigger("t", "c.py").spec("table:m").create().await;
    check_runs(&db, 3, "[3]").await;
}

#[tokio::test]
async fn a_triggers_cache_goes_with_its_database() {
    let server = server().plugin("c.py", COUNTING).start().await;
    counting(&server).await;
    let client = server.client();
    let path = "/api/v3/configure/database?db=db";
    client
        .call(Method::DELETE, path)
        .await
        .check_success("delete a database");
    let db = server.database("db").create().await;
    db.trigger("t", "c.py").spec("table:m").create().await;
    check_runs(&db, 3, "[3]").await;
}

#[tokio::test]
async fn two_triggers_of_one_plugin_have_caches_of_their_own() {
    let server = server().plugin("c.py", COUNTING).start().await;
    let db = counting(&server).await;
    db.trigger("other", "c.py").spec("table:m").create().await;
    check_runs(&db, 3, "[1, 2, 3]").await;
    db.until_logged("other", 1, "runs [3].").await;
}

/// Everything that can be shared, under its name.
const VALUES: &str = "
import datetime as dt, decimal, uuid, math
import pyarrow as pa

def values():
    table = pa.table({'a': [1, None], 't': pa.array(['x', 'y']).dictionary_encode()})
    return {
        'none': None, 'flag': True, 'int': 10**40, 'float': -0.0, 'inf': math.inf,
        'text': 'é \\\\ \"', 'bytes': bytes(range(256)), 'list': [1, (2, [3])],
        'dict': {1: {'a': {2.5}}, (1, 'b'): frozenset({'c'})}, 'date': dt.date(2026, 1, 2),
        'datetime': dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.timezone.utc), 'time': dt.time(1, 2),
        'duration': dt.timedelta(-1, 2, 3), 'decimal': decimal.Decimal('1.10'),
        'uuid': uuid.UUID(int=7), 'table': table, 'batch': table.to_batches()[0],
    }
";

const GIVER: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    for name, value in values().items():
        influxdb3_local.cache.put(name, value, use_global=True)
    influxdb3_local.cache.put('gone', 1, 0, True)
    influxdb3_local.cache.put('lasting', 1, ttl=3600, use_global=True)
    influxdb3_local.cache.put('own', 1)
    mine = influxdb3_local.cache.get('list', use_global=True)
    mine.append('unseen')
    again = influxdb3_local.cache.get('list', use_global=True)
    influxdb3_local.info(f'given {again}')
";

const TAKER: &str = "
def process_writes(influxdb3_local, table_batches, args=None):
    cache = influxdb3_local.cache
    for name, value in values().items():
        found = cache.get(name, 'absent', use_global=True)
        same = type(found) is type(value) and (found == value) and str(found) == str(value)
        if not same:
            influxdb3_local.error(f'{name}: {found!r} instead of {value!r}')
    own = [cache.get(name, 'absent', True) for name in ('gone', 'lasting', 'own')]
    influxdb3_local.info(f'others {own} {cache.get(\"int\")}')
    deleted = [cache.delete('int', use_global=True) for _ in range(2)]
    influxdb3_local.info(f'deleted {deleted} {cache.get(\"int\", \"absent\", True)}')
";

#[tokio::test]
async fn the_global_cache_is_shared_by_all_triggers_of_all_databases() {
    let mut server = server()
        .plugin("giver.py", &format!("{VALUES}{GIVER}"))
        .plugin("taker.py", &format!("{VALUES}{TAKER}"))
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("giver", "giver.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("giver", 1, "given [1, (2, [3])]").await;

    let other = server.database("other").create().await;
    other.trigger("taker", "taker.py").create().await;
    other.write("m f=1 1").await;
    other
        .until_logged("taker", 1, "deleted [True, False] absent")
        .await;
    let logs = other.logs("taker").await;
    assert!(logs.iter().all(|row| row.level == "INFO"), "{logs:#?}");
    other
        .until_logged("taker", 1, "others ['absent', 1, 'absent'] None")
        .await;

    server.stop();
    server.restart().await;
    let other = server.database("other");
    other.write("m f=1 2").await;
    let lost = "others ['absent', 'absent', 'absent'] None";
    other.until_logged("taker", 1, lost).await;
}

/// Each line of `said` tells the type and text of what was raised.
const REFUSED: &str = "
import threading
from outrigger_plugin_host import CacheError

def process_writes(influxdb3_local, table_batches, args=None):
    cache = influxdb3_local.cache

    def attempt(what, *put, **options):
        try:
            cache.put(*put, **options)
        except Exception as error:
            influxdb3_local.info(f'{what}: {type(error).__name__}: {error}')

    attempt('lock', 'k', {'a': [0, threading.Lock()]}, use_global=True)
    attempt('ttl', 'k', 1, -1, True)
    attempt('nan', 'k', 1, float('nan'), True)
    attempt('size', 'k', bytes(9_000_000), use_global=True)
    attempt('key', 'k' * 2000, 1, use_global=True)
    for number in range(20):
        attempt('full', f'big {number}', bytes(8_000_000), use_global=True)
    for number in range(20):
        cache.delete(f'big {number}', use_global=True)
    cache.put('k', 'fits', use_global=True)
    influxdb3_local.info('end:', cache.get('k', use_global=True))
";

#[tokio::test]
async fn what_the_global_cache_cannot_hold_is_refused_by_name() {
    let server = server().plugin("r.py", REFUSED).start().await;
    let db = server.database("db").create().await;
    db.trigger("t", "r.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("t", 1, "end: fits").await;
    for part in [
        "lock: TypeError: the global cache cannot hold value['a'][1] of type _thread.lock: ",
        "ttl: ValueError: ttl cannot be negative or NaN: -1",
        "nan: ValueError: ttl cannot be negative or NaN: nan",
        "size: ValueError: the value is too large for the global cache",
        "key: ValueError: a key of the global cache may have 1024 bytes, not 2000",
        "'big 16' was not stored: the global cache is full",
    ] {
        db.until_logged("t", 1, part).await;
    }
    db.until_logged("t", 4, "full: CacheError: the value of 'big 1")
        .await;
}

/// Goes around its own API: speaks to the server as its worker may, but not as it should.
const ATTACKER: &str = "
import gc, struct, threading
import grpc
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._rpc import Supervisor

def process_writes(influxdb3_local, table_batches, args=None):
    invoke = influxdb3_local._invoke
    calls = next(o for o in gc.get_objects() if isinstance(o, Supervisor))
    right = {'invocation': invoke.invocation, 'key': invoke.key}

    def said(call, **fields):
        try:
            return getattr(call(**fields), 'error', 'ok')
        except Exception as error:
            return f'{type(error).__name__}: {error}'

    def put(name, value, **other):
        request = {**right, 'name': name, 'value': value, **other}
        return said(lambda **f: calls.cache_put(m.CachePutRequest(**f)), **request)

    many = struct.pack('<I', 2**32 - 1)
    poison = {
        'not ours': b'cos\\nsystem\\n(S\"touch /tmp/pwned\"\\ntR.',
        'long list': b'\\1l' + many + b'N',
        'deep list': b'\\1' + b'l\\1\\0\\0\\0' * 1_000_000 + b'N',
        'objects': b'\\1n\\2\\0\\0\\0|O\\0\\1' + struct.pack('<qI', 1, 8) + b'\\1' * 8,
        'huge array': b'\\1n\\3\\0\\0\\0<i8\\0\\1' + struct.pack('<qI', 2**60, 0),
        'no table': b'\\1W\\x08\\0\\0\\0\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x7f',
    }
    for name, value in poison.items():
        assert put(name, value) == '', name
    influxdb3_local.info('size', put('k', bytes(8 * 2**20 + 1)))
    influxdb3_local.info('message', put('k', bytes(20 * 2**20)))
    influxdb3_local.info('name', put('k' * 1025, b''))
    influxdb3_local.info('ttl', put('k', b'', ttl_s=-1.0), put('k', b'', ttl_s=float('inf')))
    influxdb3_local.info('other', put('k', b'', invocation='1-1-1'))
    influxdb3_local.info('wrong', put('k', b'', key=b'k' * 16))
    wrong = {**right, 'key': b'', 'name': 'k'}
    influxdb3_local.info('get', said(lambda **f: calls.cache_get(m.CacheGetRequest(**f)), **wrong))
    influxdb3_local.info(
        'delete', said(lambda **f: calls.cache_delete(m.CacheDeleteRequest(**f)), **wrong))
    influxdb3_local.info(f'poisoned {sorted(poison)}')
";

const VICTIM: &str = "
import resource

def process_writes(influxdb3_local, table_batches, args=None):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = ['not ours', 'long list', 'deep list', 'objects', 'huge array', 'no table']
    for name in names:
        try:
            value = influxdb3_local.cache.get(name, use_global=True)
            influxdb3_local.error(f'{name} is {value!r:.80}')
        except Exception as error:
            influxdb3_local.info(f'{type(error).__name__} {str(error)[:90]}')
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    influxdb3_local.info('alive', grown < 100_000)
";

#[tokio::test]
async fn what_a_hostile_worker_puts_harms_nobody() {
    let server = server()
        .plugin("attacker.py", ATTACKER)
        .plugin("victim.py", VICTIM)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("attacker", "attacker.py").create().await;
    db.write("m f=1 1").await;
    db.until_logged("attacker", 1, "poisoned").await;
    let not_here = "CacheError: the global cache cannot be used: this invocation is not running";
    for part in [
        "size its value has 8388609 bytes, the limit is 8mb",
        "message CacheError: the global cache cannot be used: ",
        "name its key has 1025 bytes, the limit is 1kb",
        "ttl its ttl is not a finite number of seconds from 0 on: -1 its ttl is not",
        &format!("other {not_here}"),
        &format!("wrong {not_here}"),
        &format!("get {not_here}"),
        &format!("delete {not_here}"),
    ] {
        db.until_logged("attacker", 1, part).await;
    }

    let other = server.database("other").create().await;
    other.trigger("victim", "victim.py").create().await;
    other.write("m f=1 1").await;
    other.until_logged("victim", 1, "alive True").await;
    other
        .until_logged("victim", 6, "CacheError the value of ")
        .await;
    let logs = other.logs("victim").await;
    assert!(logs.iter().all(|row| row.level == "INFO"), "{logs:#?}");
    // The server has noticed nothing, and goes on.
    other.write("m f=1 2").await;
    other.until_logged("victim", 2, "alive True").await;
    let rows = json!([{ "rows": 2 }]);
    other.until("SELECT count(*) AS rows FROM m", rows).await;
}
