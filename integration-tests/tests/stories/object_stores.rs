//! Stores elsewhere: does S3 keep everything, does a second server stop, what do writers learn
//! while the store does not answer?

use std::path::Path;

use outrigger_integration_tests::{Builder, S3, eventually};
use reqwest::Method;
use serde_json::json;

use crate::{
    BINARY, WRITE_REPORTS,
    persisted::{WRITE_DOWN, until_in_files},
    server,
};

const BUCKET: &str = "kept";

async fn s3() -> S3 {
    let target = Path::new(BINARY).parent().and_then(Path::parent);
    S3::start(target.expect("it lies in the target directory"), BUCKET).await
}

/// A server whose only directory is that of its plugins.
fn on(s3: &S3) -> Builder {
    server()
        .without("--data-dir")
        .flag("--object-store", "s3")
        .flag("--bucket", BUCKET)
        .flag("--aws-endpoint", s3.endpoint())
        .switch("--aws-allow-http")
        .variable("AWS_ACCESS_KEY_ID", "key-of-the-store")
        .variable("AWS_SECRET_ACCESS_KEY", "secret-of-the-store")
        .flag("--object-store-request-timeout", "2s")
        .flag("--object-store-retry-timeout", "1s")
}

#[tokio::test]
async fn s3_keeps_everything() {
    let s3 = s3().await;
    let mut server = on(&s3)
        .plugin("write_reports.py", WRITE_REPORTS)
        .start()
        .await;
    let db = server.database("db").create().await;
    db.trigger("reports", "write_reports.py").create().await;
    db.write("m,host=a f=1.5 1").await;
    let total = "SELECT sum(row_count) AS total FROM write_reports";
    db.until(total, json!([{ "total": 1 }])).await;
    assert!(!server.data_directory().exists());

    server.kill_9();
    server.restart().await;
    let db = server.database("db");
    assert_eq!(db.query("SELECT f FROM m").await, json!([{ "f": 1.5 }]));
    db.write("m,host=b f=2 2").await;
    db.until(total, json!([{ "total": 2 }])).await;
}

#[tokio::test]
async fn files_in_s3_are_read_for_plugins_by_the_server() {
    let s3 = s3().await;
    let mut server = on(&s3)
        .flag("--wal-snapshot-size", "2")
        .plugin("write_down.py", WRITE_DOWN)
        .start()
        .await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "write_down.py").spec("parquet:m");
    trigger.error_behavior("retry").create().await;
    db.write("m,host=a f=1.5 1\nm,host=b f=2 2").await;
    until_in_files(&server, &db, 2).await;
    server.kill_9();
    server.restart().await;
    let seen = "SELECT sum(row_count) AS points, count(*) AS files FROM files";
    let told = server.database("told");
    told.until(seen, json!([{ "points": 2, "files": 1 }])).await;
}

#[tokio::test]
async fn plugins_do_not_get_the_stores_credentials() {
    let s3 = s3().await;
    let source = "
import os
def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    return {'found': [name for name, value in os.environ.items() if 'of-the-store' in value]}
";
    let server = on(&s3).plugin("look.py", source).start().await;
    let db = server.database("db").create().await;
    db.trigger("look", "look.py")
        .spec("request:look")
        .create()
        .await;
    let reply = eventually("the path is answered", async || {
        let reply = server
            .client()
            .call(Method::GET, "/api/v3/engine/look")
            .await;
        if reply.status == 200 {
            Ok(reply)
        } else {
            Err(format!("{reply:?}"))
        }
    })
    .await;
    assert_eq!(reply.json(), json!({ "found": [] }));
}

#[tokio::test]
async fn on_s3_too_the_second_of_two_servers_stops() {
    let s3 = s3().await;
    let first = on(&s3).start().await;
    let db = first.database("db").create().await;
    let cause = "two servers run with the same --node-id on the same object store";
    let mut second = on(&s3)
        .allow_log(cause, "that is what the story does")
        .start()
        .await;
    db.write("m f=1 1").await;
    let refused = second.database("db").try_write("m f=2 2").await;
    if let Ok(reply) = refused {
        assert!(
            reply.status >= 400,
            "a lost write was acknowledged: {reply:?}"
        );
    }
    let code = eventually("the second server stops", async || {
        second.ended().ok_or_else(|| "it runs".to_owned())
    })
    .await;
    assert_ne!(code, 0);
    second.kill_9();
    db.write("m f=4 4").await;
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 2);
}

#[tokio::test]
async fn writers_wait_for_a_store_that_hangs_and_are_told() {
    let s3 = s3().await;
    let server = on(&s3)
        .allow_log(
            "cannot write the log, writers wait",
            "the store does not answer",
        )
        .start()
        .await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;

    s3.hang();
    let write = server
        .client()
        .request(Method::POST, "/api/v3/write_lp?db=db")
        .body("m f=2 2");
    let create = server
        .client()
        .request(Method::POST, "/api/v3/configure/database")
        .json(&json!({ "db": "later" }));
    let (write, create) = tokio::join!(write.send(), create.send());
    for response in [write, create] {
        let response = response.expect("the server answers");
        let retry_after = response.headers().get("retry-after").cloned();
        assert_eq!(response.status(), 503, "{response:?}");
        assert!(retry_after.is_some(), "{response:?}");
        let text = response.text().await.expect("a body");
        assert!(text.contains("may still be stored"), "{text}");
    }
    // What is there can be read all the while.
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 1);

    s3.go_on();
    db.until("SELECT count(*) AS n FROM m", json!([{ "n": 2 }]))
        .await;
    db.write("m f=3 3").await;
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 3);
    server.database("later").write("m f=1 1").await;
    let shown = server
        .client()
        .call(Method::GET, "/api/v3/configure/database?format=json")
        .await;
    assert!(format!("{shown:?}").contains("later"), "{shown:?}");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named() {
    let missing = server().flag("--object-store", "s3").start_refused().await;
    missing.check(1, "--bucket is required");
    let half = server()
        .flag("--object-store", "s3")
        .flag("--bucket", "b")
        .flag("--aws-access-key-id", "k")
        .start_refused()
        .await;
    half.check(
        1,
        "--aws-access-key-id and --aws-secret-access-key go together",
    );

    let s3 = s3().await;
    let no_bucket = on(&s3)
        .flag("--bucket", "not-there")
        .allow_log("not-there", "the story names a bucket that is not there")
        .start_refused()
        .await;
    no_bucket.check(1, "NoSuchBucket");
}
