//! The client against a real socket: what is sent, and what becomes of the answer.

use clap::Parser;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::plugin::LocalPlugin;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    server: ServerArgs,
}

fn client(host: &str, arguments: &[&str]) -> Client {
    let start = ["test", "--host", host];
    let arguments = start.iter().chain(arguments);
    let arguments = Arguments::try_parse_from(arguments).expect("valid arguments");
    Client::new(&arguments.server).expect("a client")
}

/// Serves one connection: reads one request, sends `answer`, and returns the request.
async fn serve_once(listener: TcpListener, answer: &str) -> String {
    let (mut socket, _) = listener.accept().await.expect("a connection");
    let mut request = String::new();
    while !is_complete(&request) {
        let mut buffer = [0; 4096];
        let count = socket.read(&mut buffer).await.expect("a request");
        assert_ne!(count, 0, "the request is cut off: {request}");
        request.push_str(str::from_utf8(&buffer[..count]).expect("text"));
    }
    socket.write_all(answer.as_bytes()).await.expect("answered");
    request
}

fn is_complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, format!("http://{address}"))
}

#[tokio::test]
async fn a_query_carries_its_token_and_document() {
    let (listener, host) = listener().await;
    let client = client(&format!("{host}/influx/"), &["--token", "secret"]);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[{\"a\":1}]";
    let (request, answer) = tokio::join!(
        serve_once(listener, answer),
        client.query_sql("db", "SELECT 1 AS a", Format::Json)
    );
    let rows = answer.expect("a success").json().await.expect("JSON");
    assert_eq!(rows, serde_json::json!([{ "a": 1 }]));

    let (head, body) = request.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("POST /influx/api/v3/query_sql HTTP/1.1\r\n"),
        "{head}"
    );
    let head = head.to_ascii_lowercase();
    assert!(head.contains("\r\nauthorization: bearer secret"), "{head}");
    assert!(
        head.contains("\r\ncontent-type: application/json"),
        "{head}"
    );
    let document: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(
        document,
        serde_json::json!({ "db": "db", "q": "SELECT 1 AS a", "format": "json" })
    );
}

#[tokio::test]
async fn lines_go_with_their_parameters_and_come_back_with_their_errors() {
    let (listener, host) = listener().await;
    let client = client(&host, &[]);
    let body = r#"{"error":"partial write of line protocol occurred","data":[{"error_message":"no fields","line_number":1,"original_line":"cpu"}]}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let parameters = [("db", "a/b"), ("no_sync", "true")];
    let (request, answer) = tokio::join!(
        serve_once(listener, &answer),
        client.post_lines("/api/v3/write_lp", &parameters, b"cpu".to_vec(), false)
    );
    assert!(
        request.starts_with("POST /api/v3/write_lp?db=a%2Fb&no_sync=true HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\ncpu"), "{request}");
    assert_eq!(
        answer.expect_err("a refusal").to_string(),
        "server responded with error [400 Bad Request]: \
         partial write of line protocol occurred\n\
         line 1: no fields (original: \"cpu\")"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let (listener, host) = listener().await;
    drop(listener);
    let error = client(&host, &[])
        .call(Method::GET, "/api/v3/configure/database", &[])
        .await
        .expect_err("nobody listens");
    assert!(error.hint().is_some());
    let error = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(
        error,
        format!("could not connect to {host}/: Connection refused (os error 111)")
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let (listener, host) = listener().await;
    let client = client(&host, &[]);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[";
    let (_, answer) = tokio::join!(
        serve_once(listener, answer),
        client.query_sql("db", "SELECT 1", Format::Json)
    );
    let error = answer.expect("the head arrives").json().await;
    assert!(
        matches!(error, Err(ClientError::BrokenOff { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_is_not_there() {
    let (listener, host) = listener().await;
    let client = client(&host.replace("http:", "https:"), &[]);
    let answer = async {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        socket.write_all(answer).await.expect("answered");
        socket
    };
    let (_socket, result) = tokio::join!(
        answer,
        client.call(Method::GET, "/api/v3/configure/database", &[])
    );
    assert!(matches!(result, Err(ClientError::Tls { .. })), "{result:?}");
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("text");
    let arguments = ["test", "--host", "https://localhost", "--tls-ca", path];
    let arguments = Arguments::try_parse_from(arguments).expect("valid arguments");
    let error = Client::new(&arguments.server).expect_err("not a certificate");
    assert_eq!(error.to_string(), format!("{path} is not a CA certificate"));
}

#[tokio::test]
async fn a_plugin_is_sent_with_its_database() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("__init__.py");
    std::fs::write(&path, "x = 1").expect("written");
    let file = LocalPlugin::read(&path).expect("a file");
    let package = LocalPlugin::read(directory.path()).expect("a directory");

    let document = json!({ "plugin_name": "__init__.py", "content": "x = 1" });
    check_sent(
        "POST /api/v3/plugins/files?db=db",
        document,
        async |client| file.upload(client, "db").await,
    )
    .await;
    let document = json!({ "plugin_name": "t", "content": "x = 1" });
    check_sent(
        "PUT /api/v3/plugins/files?db=db",
        document,
        async |client| file.replace(client, "db", "t").await,
    )
    .await;
    let files = json!([{ "relative_path": "__init__.py", "content": "x = 1" }]);
    let document = json!({ "plugin_name": "t", "files": files });
    check_sent(
        "PUT /api/v3/plugins/directory?db=db",
        document,
        async |client| package.replace(client, "db", "t").await,
    )
    .await;
}

async fn check_sent(
    start: &str,
    document: Value,
    send: impl AsyncFnOnce(&Client) -> Result<(), ClientError>,
) {
    let (listener, host) = listener().await;
    let client = client(&host, &[]);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (request, sent) = tokio::join!(serve_once(listener, answer), send(&client));
    sent.expect("a success");
    let (head, body) = request.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with(&format!("{start} HTTP/1.1")), "{head}");
    let sent: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(sent, document);
}
