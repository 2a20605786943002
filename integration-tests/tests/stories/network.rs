//! What a plugin can connect to: the server makes its connections, and looks at the address.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use outrigger_integration_tests::{Server, eventually};
use reqwest::Method;
use serde_json::Value;

use crate::server;

const OBEYS: &str = include_str!("../../plugins/obeys.py");

/// A server of somebody else that says hello; returns its port.
fn stranger() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            drop(stream.write_all(answer));
            // Until the other end has read it and closes.
            drop(stream.read_to_end(&mut Vec::new()));
        }
    });
    port
}

/// A server with a trigger that may connect as `network` says, or else as the server does.
async fn serving(general: &str, network: Option<&str>) -> Server {
    let server = server().plugin("obeys.py", OBEYS);
    let server = server.flag("--plugin-network", general).start().await;
    let db = server.database("db").create().await;

    let mut trigger = db.trigger("t", "obeys.py").spec("request:t");
    if let Some(network) = network {
        trigger = trigger.network(network);
    }
    trigger.create().await;
    eventually("the path is answered", async || {
        let path = "/api/v3/engine/t";
        let reply = server
            .client()
            .answer(server.client().request(Method::POST, path))
            .await;
        (reply.status == 200)
            .then_some(())
            .ok_or_else(|| format!("{reply:?}"))
    })
    .await;
    server
}

async fn ask(server: &Server, program: &str) -> Value {
    let request = server.client().request(Method::POST, "/api/v3/engine/t");
    let reply = server
        .client()
        .answer(request.body(program.to_owned()))
        .await;
    assert_eq!(reply.status, 200, "{program}: {reply:?}");
    reply.json()["result"].clone()
}

async fn is_brokered(server: &Server) -> bool {
    let sql = "SELECT enforcement FROM system.plugin_workers WHERE trigger_name = 't'";
    let rows = server.database("db").query(sql).await;
    let words = rows[0]["enforcement"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let brokered = words.contains("broker=enforced");
    if !brokered {
        #[expect(clippy::print_stdout, reason = "a story that is skipped says so")]
        {
            println!("skipped: the server makes no connections for plugins here: {words}");
        }
    }
    brokered
}

async fn until_refusal_is_logged(server: &Server, text: &str) {
    let sql = "SELECT log_text FROM system.processing_engine_logs";
    eventually(&format!("{text} is logged"), async || {
        let rows = server.database("db").query(sql).await;
        let found = rows.to_string().contains(text);
        found.then_some(()).ok_or_else(|| rows.to_string())
    })
    .await;
}

/// Ways of connecting to a port on loopback; each leaves what it got.
const WAYS: [&str; 5] = [
    "import urllib.request\nresult = urllib.request.urlopen('http://127.0.0.1:PORT/', timeout=20).read().decode()",
    "import urllib.request\nresult = urllib.request.urlopen('http://localhost:PORT/', timeout=20).read().decode()",
    "import socket\ns = socket.create_connection(('127.0.0.1', PORT))\nresult = s.recv(100).decode()[-5:]",
    "import socket\ns = socket.socket(socket.AF_INET6)\ns.connect(('::ffff:127.0.0.1', PORT))\nresult = s.recv(100).decode()[-5:]",
    "import asyncio\nasync def go():\n    reader, writer = await asyncio.open_connection('127.0.0.1', PORT)\n    return (await reader.read(100)).decode()[-5:]\nresult = asyncio.run(go())",
];

#[tokio::test]
async fn every_way_of_connecting_works_where_it_is_granted() {
    let server = serving("outbound", None).await;
    let port = stranger().to_string();
    for way in WAYS {
        let got = ask(&server, &way.replace("PORT", &port)).await;
        assert_eq!(got, "hello", "{way}");
    }
    let own = format!("{}/health", server.client().url());
    let program = format!("import urllib.request\nresult = urllib.request.urlopen('{own}').status");
    assert_eq!(ask(&server, &program).await, 200);
    let rows = ask(&server, "result = local.query('SELECT 1 AS one')").await;
    assert_eq!(rows[0]["one"], 1);
}

#[tokio::test]
async fn nothing_is_reached_without_a_network() {
    let server = serving("outbound", Some("none")).await;
    if !is_brokered(&server).await {
        return;
    }
    let port = stranger();
    for way in WAYS {
        let way = way.replace("PORT", &port.to_string());
        let program = format!(
            "try:\n    exec({way:?})\n    result = 'connected'\nexcept OSError as error:\n    result = 'refused'"
        );
        assert_eq!(ask(&server, &program).await, "refused", "{way}");
    }
    until_refusal_is_logged(
        &server,
        &format!("tcp 127.0.0.1:{port} was refused: no network is granted; to grant it"),
    )
    .await;
    let rows = ask(&server, "result = local.query('SELECT 1 AS one')").await;
    assert_eq!(rows[0]["one"], 1, "the server itself is always reached");
}

#[tokio::test]
async fn a_list_is_what_is_reached() {
    let (granted, other) = (stranger(), stranger());
    let server = serving("outbound", Some(&format!("localhost:{granted}"))).await;
    if !is_brokered(&server).await {
        return;
    }
    let connect = |host: &str, port: u16| {
        format!(
            "import socket\ntry:\n    socket.create_connection(({host:?}, {port}), timeout=20)\n    result = 'connected'\nexcept OSError:\n    result = 'refused'"
        )
    };
    for (host, port, expected) in [
        ("localhost", granted, "connected"),
        ("127.0.0.1", granted, "connected"),
        ("127.0.0.1", other, "refused"),
        ("169.254.169.254", granted, "refused"),
    ] {
        assert_eq!(
            ask(&server, &connect(host, port)).await,
            expected,
            "{host}:{port}"
        );
    }
    until_refusal_is_logged(
        &server,
        &format!("add 127.0.0.1:{other} to the trigger's --network"),
    )
    .await;
}

#[tokio::test]
async fn the_server_says_what_triggers_get_that_say_nothing() {
    let server = serving("none", None).await;
    if !is_brokered(&server).await {
        return;
    }
    let port = stranger();
    let program = format!(
        "import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}))\n    result = 'connected'\nexcept OSError:\n    result = 'refused'"
    );
    assert_eq!(ask(&server, &program).await, "refused");
    until_refusal_is_logged(&server, "no network is granted").await;
}

/// The C library of a plugin asks the server, which looks whether the name is in the list: a
/// question tells whoever answers it something, too.
#[tokio::test]
async fn names_are_asked_of_the_server() {
    let server = serving("outbound", Some("granted.invalid:443")).await;
    if !is_brokered(&server).await {
        return;
    }
    let resolve = |name: &str| {
        format!(
            "import socket\ntry:\n    result = socket.getaddrinfo({name:?}, 443)\nexcept socket.gaierror as error:\n    result = error.errno == socket.EAI_NONAME"
        )
    };
    // Nobody has either name (RFC 6761); who asks whom is what matters.
    for name in ["granted.invalid", "other.invalid"] {
        assert!(!ask(&server, &resolve(name)).await.is_array(), "{name}");
    }
    until_refusal_is_logged(
        &server,
        "name other.invalid was refused: it is not in the list",
    )
    .await;
    let sql = "SELECT log_text FROM system.processing_engine_logs";
    let logs = server.database("db").query(sql).await.to_string();
    assert!(!logs.contains("granted.invalid was refused"), "{logs}");
}

/// Of something that is no socket, the kernel can tell megabytes; the server must not ask.
#[tokio::test]
async fn a_call_with_a_descriptor_of_another_kind_costs_the_server_nothing() {
    let server = serving("outbound", None).await;
    if !is_brokered(&server).await {
        return;
    }
    let Some(before) = read_by(&server) else {
        return;
    };
    let program = "
import ctypes, os, select
watch, kept = select.epoll(), []
for _ in range(100):
    kept.append(os.eventfd(0))
    for number in range(500, 700):
        os.dup2(kept[-1], number)
        watch.register(number, 0)
connect = ctypes.CDLL(None, use_errno=True).connect
address = bytes([2, 0, 0, 1, 127, 0, 0, 1]) + bytes(8)
for _ in range(400):
    other = os.dup(watch.fileno())
    connect(other, address, len(address))
    os.close(other)
result = len(os.read(os.open('/proc/self/fdinfo/%d' % watch.fileno(), os.O_RDONLY), 1 << 23))
";
    let told = ask(&server, program).await.as_u64().expect("a number");
    assert!(told > 1 << 20, "the kernel tells {told} bytes");
    let read = read_by(&server).expect("it was seen before") - before;
    // Who looks after workers reads it now and then.
    assert!(read < 100 * told, "the server has read {read} bytes");
}

/// Bytes that the server has read, from whatever; only root sees it.
fn read_by(server: &Server) -> Option<u64> {
    let counts = std::fs::read_to_string(format!("/proc/{}/io", server.pid())).ok()?;
    let read = counts
        .lines()
        .find_map(|line| line.strip_prefix("rchar: "))?;
    read.parse().ok()
}
