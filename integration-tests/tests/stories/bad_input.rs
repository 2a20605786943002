//! Mistakes of clients: each gets the status and the text that existing programs read.

use reqwest::{Method, header};
use serde_json::json;

use crate::server;

const DATABASE: &str = "/api/v3/configure/database";
const TRIGGER: &str = "/api/v3/configure/processing_engine_trigger";

#[tokio::test]
async fn malformed_lines_are_listed_and_the_good_ones_stored() {
    let server = server().start().await;
    let db = server.database("db");
    let lines = "m f=1 1\nthis is not a line of the protocol\nm f=2 2\nm f=\"text\" 3";
    let reply = db.write_with(&[], lines).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(reply.content_type, "application/json");
    let body = reply.json();
    assert_eq!(body["error"], "partial write of line protocol occurred");
    let data = body["data"].as_array().expect("one item per bad line");
    assert_eq!(data.len(), 2, "{body}");
    assert_eq!(data[0]["line_number"], 2);
    assert_eq!(
        data[0]["original_line"], "this is not a line o",
        "cut to 20 bytes"
    );
    assert!(data[0]["error_message"].is_string(), "{body}");
    assert_eq!(data[1]["line_number"], 4);
    assert_eq!(
        data[1]["error_message"],
        "invalid column type for column 'f', expected iox::column_type::field::float, got \
         iox::column_type::field::string"
    );
    let stored = db.query("SELECT f FROM m ORDER BY time").await;
    assert_eq!(stored, json!([{ "f": 1.0 }, { "f": 2.0 }]));
}

#[tokio::test]
async fn without_partial_writes_one_bad_line_rejects_all() {
    let server = server().start().await;
    let db = server.database("db").create().await;
    let parameters = [("accept_partial", "false")];
    let reply = db.write_with(&parameters, "m f=1 1\nbad line\nworse").await;
    assert_eq!(reply.status, 400, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["error"], "line protocol parsing error");
    assert_eq!(
        body["data"]["line_number"], 2,
        "an object, not an array: {body}"
    );
    assert_eq!(body["data"]["original_line"], "bad line");
    db.try_query("SELECT * FROM m")
        .await
        .check_refused(400, "table 'public.iox.m' not found");
}

#[tokio::test]
async fn bad_writes_are_refused() {
    let server = server().start().await;
    let db = server.database("db");
    for lines in ["", "\n\n", "# only a comment"] {
        db.write_with(&[], lines)
            .await
            .check_refused(400, "incoming write was empty");
    }
    let unknown = db.write_with(&[("precision", "minutes")], "m f=1").await;
    unknown.check_refused(400, "minutes");
    let reply = server.database("no spaces").write_with(&[], "m f=1").await;
    reply.check_refused(400, "\"error\"");
    let client = server.client();
    let missing = client.call(Method::POST, "/api/v3/write_lp").await;
    missing.check_refused(400, "missing query parameter 'db'");
    let request = client.request(Method::POST, "/api/v3/write_lp?db=db");
    let request = request.body(vec![b'm', b' ', 0xff, b'=', b'1']);
    client.answer(request).await.check_refused(400, "utf8");
    let request = client.request(Method::POST, "/api/v3/write_lp?db=db");
    let request = request.header(header::CONTENT_ENCODING, "br").body("m f=1");
    client
        .answer(request)
        .await
        .check_refused(400, "unacceptable content-encoding: br");
    let request = client.request(Method::POST, "/api/v3/write_lp?db=db");
    let reply = client.answer(request.body(" ".repeat(10_485_761))).await;
    reply.check_refused(413, "max request size (10485760 bytes) exceeded");
}

#[tokio::test]
async fn bad_queries_are_refused() {
    let server = server().start().await;
    let db = server.database("db").create().await;
    let reply = server.database("nosuch").try_query("SELECT 1").await;
    assert_eq!(reply.status, 404, "{reply:?}");
    let expected = json!({ "error": "query error: database not found: nosuch" });
    assert_eq!(reply.json(), expected);
    db.try_query("SELEKT 1").await.check_refused(400, "SELEKT");
    db.try_query("SELECT * FROM nowhere")
        .await
        .check_refused(400, "'public.iox.nowhere' not found");
    db.write("m f=1 1").await;
    db.try_query("SELECT nothing FROM m")
        .await
        .check_refused(400, "nothing");
    db.try_query("DROP TABLE m").await.check_refused(400, "");
    db.try_query("INSERT INTO m VALUES (1)")
        .await
        .check_refused(400, "");
    let client = server.client();
    let query = "/api/v3/query_sql";
    let missing = client.call(Method::GET, query).await;
    missing.check_refused(400, "missing query parameters 'db' and 'q'");
    let request = client.request(Method::POST, query).body("{");
    client
        .answer(request)
        .await
        .check_refused(400, "serde json error: ");
    let body = json!({ "db": "db", "q": "SELECT 1", "format": "xml" });
    client.post(query, &body).await.check_refused(400, "xml");
    let request = client.request(Method::GET, &format!("{query}?db=db&q=SELECT%201"));
    let request = request.header(header::ACCEPT, "image/png");
    client
        .answer(request)
        .await
        .check_refused(400, "invalid mime type (image/png)");
}

#[tokio::test]
async fn paths_methods_and_content_types_have_their_statuses() {
    let server = server().start().await;
    let client = server.client();
    for (method, path) in [
        (Method::GET, "/nowhere"),
        (Method::DELETE, "/health"),
        (Method::PUT, "/api/v3/write_lp"),
    ] {
        client
            .call(method, path)
            .await
            .check_refused(404, "Not found");
    }
    for path in [DATABASE, TRIGGER] {
        let request = client.request(Method::POST, path).body("{}");
        let expected = "unacceptable content-type, expected: application/json";
        client.answer(request).await.check_refused(415, expected);
    }
    client
        .post(DATABASE, &json!({}))
        .await
        .check_refused(400, "serde json error: ");
}

#[tokio::test]
async fn databases_exist_once_and_have_proper_names() {
    let server = server().start().await;
    server.database("db").create().await;
    let client = server.client();
    let again = client.post(DATABASE, &json!({ "db": "db" })).await;
    again.check_refused(409, "attempted to create a resource that already exists");
    for name in ["", "-x", "a b", "a/b/c", "a/"] {
        let reply = client.post(DATABASE, &json!({ "db": name })).await;
        reply.check_refused(400, "{\"error\":");
    }
    let unknown = client
        .call(Method::DELETE, &format!("{DATABASE}?db=nosuch"))
        .await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
}

const NOTHING: &str = "def process_writes(influxdb3_local, table_batches, args=None): pass\n";

#[tokio::test]
async fn bad_triggers_are_refused() {
    let server = server().plugin("p.py", NOTHING).start().await;
    let db = server.database("db").create().await;
    let missing = db.trigger("t", "missing.py").try_create().await;
    missing.check_refused(400, "Plugin error: reading plugin file: Plugin not found: ");
    missing.check_refused(400, "plugins/missing.py");
    for name in ["../outside.py", "/etc/passwd", "./../b.py", "sub/../p.py"] {
        let reply = db.trigger("t", name).try_create().await;
        let expected = format!("Path traversal detected: plugin filename '{name}'");
        reply.check_refused(400, &expected);
    }
    for spec in ["all_tabels", "table:", "", "every:0s", "cron:nonsense"] {
        let reply = db.trigger("t", "p.py").spec(spec).try_create().await;
        reply.check_refused(400, "failed to parse trigger from");
        reply.check_refused(400, "table:<name>");
    }
    for path in ["hü/x", "a b", "a?b", "a#b"] {
        let spec = format!("request:{path}");
        let reply = db.trigger("t", "p.py").spec(&spec).try_create().await;
        reply.check_refused(400, "percent-encode");
    }
    let unnamed = db.trigger("t", "p.py").argument("", "5").try_create().await;
    unnamed.check_refused(400, "the argument with the value \"5\" has no name");
    let nowhere = server
        .database("nosuch")
        .trigger("t", "p.py")
        .try_create()
        .await;
    assert_eq!(nowhere.status, 404, "{nowhere:?}");
    let sql = "SELECT count(*) AS n FROM system.processing_engine_triggers";
    assert_eq!(db.number(sql).await, 0, "a refused trigger leaves nothing");

    db.trigger("t", "p.py").create().await;
    let again = db.trigger("t", "p.py").try_create().await;
    again.check_refused(409, "attempted to create a resource that already exists");
    let query = "?db=db&trigger_name=nosuch";
    for path in ["enable", "disable"] {
        let path = format!("{TRIGGER}/{path}{query}");
        assert_eq!(server.client().call(Method::POST, &path).await.status, 404);
    }
}
