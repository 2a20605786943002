//! Stores elsewhere: does each keep everything, does a second server stop, what do writers learn
//! while a store does not answer, who gets its credentials, what is said of wrong settings?

use std::{fs, path::Path};

use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use outrigger_integration_tests::{Builder, Cloud, CloudStore, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    BINARY, WRITE_REPORTS,
    persisted::{WRITE_DOWN, until_in_files},
    server,
};

const BUCKET: &str = "kept";

async fn store(cloud: Cloud) -> CloudStore {
    let target = Path::new(BINARY).parent().and_then(Path::parent);
    CloudStore::start(
        cloud,
        target.expect("it lies in the target directory"),
        BUCKET,
    )
    .await
}

/// A server whose only directory is that of its plugins.
fn on(store: &CloudStore) -> Builder {
    store
        .used_by(server())
        .without("--data-dir")
        .flag("--object-store-request-timeout", "2s")
        .flag("--object-store-retry-timeout", "1s")
}

/// Tells the stories that are the same on each store.
macro_rules! stories_on {
    ($cloud:ident, $module:ident) => {
        mod $module {
            use super::Cloud;

            #[tokio::test]
            async fn everything_is_kept() {
                super::everything_is_kept(Cloud::$cloud).await;
            }

            #[tokio::test]
            async fn files_are_read_for_plugins_by_the_server() {
                super::files_are_read_for_plugins_by_the_server(Cloud::$cloud).await;
            }

            #[tokio::test]
            async fn torn_last_entries_are_put_aside() {
                super::torn_last_entries_are_put_aside(Cloud::$cloud).await;
            }

            #[tokio::test]
            async fn plugins_do_not_get_the_credentials() {
                super::plugins_do_not_get_the_credentials(Cloud::$cloud).await;
            }

            #[tokio::test]
            async fn the_second_of_two_servers_stops() {
                super::the_second_of_two_servers_stops(Cloud::$cloud).await;
            }

            #[tokio::test]
            async fn writers_wait_for_a_store_that_hangs_and_are_told() {
                super::writers_wait_for_a_store_that_hangs_and_are_told(Cloud::$cloud).await;
            }

            #[tokio::test]
            async fn a_bucket_that_is_not_there_and_a_silent_store_are_named() {
                super::a_bucket_that_is_not_there_and_a_silent_store_are_named(Cloud::$cloud).await;
            }
        }
    };
}

stories_on!(S3, s3);
stories_on!(Azure, azure);
stories_on!(Google, google);

async fn everything_is_kept(cloud: Cloud) {
    let store = store(cloud).await;
    let mut server = on(&store)
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

async fn files_are_read_for_plugins_by_the_server(cloud: Cloud) {
    let store = store(cloud).await;
    let mut server = on(&store)
        .flag("--wal-snapshot-size", "2")
        .flag("--snapshotted-wal-files-to-keep", "0")
        .plugin("write_down.py", WRITE_DOWN)
        .start()
        .await;
    let db = server.database("db").create().await;
    let trigger = db.trigger("t", "write_down.py").spec("parquet:m");
    trigger.error_behavior("retry").create().await;
    db.write("m,host=a f=1.5 1\nm,host=b f=2 2").await;
    until_in_files(&server, &db, 2).await;
    eventually("the first entries are removed", async || {
        let entries = entries(&store).await;
        let first = entries.first().map(ToString::to_string).unwrap_or_default();
        let is_removed = !first.ends_with("/00000000000000000001.entry");
        is_removed.then_some(()).ok_or(first)
    })
    .await;
    server.kill_9();
    server.restart().await;
    let seen = "SELECT sum(row_count) AS points, count(*) AS files FROM files";
    let told = server.database("told");
    told.until(seen, json!([{ "points": 2, "files": 1 }])).await;
    let db = server.database("db");
    let points = "SELECT host, f FROM m ORDER BY host";
    let expected = json!([{ "host": "a", "f": 1.5 }, { "host": "b", "f": 2.0 }]);
    assert_eq!(db.query(points).await, expected);
}

/// The entries of the log, in order.
async fn entries(store: &CloudStore) -> Vec<object_store::path::Path> {
    let log = store.client().list(Some(&"node/log".into()));
    let objects: Vec<_> = log.try_collect().await.expect("the store lists");
    let names = objects.into_iter().map(|object| object.location);
    let mut entries: Vec<_> = names
        .filter(|name| name.parts_count() == 3 && name.extension() == Some("entry"))
        .collect();
    entries.sort();
    entries
}

/// Twice, and each time it is the entry of the same number: what was put aside first must not
/// stand in the way.
async fn torn_last_entries_are_put_aside(cloud: Cloud) {
    let store = store(cloud).await;
    let mut server = on(&store).start().await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;
    let warning = "the last log entry is incomplete";
    server.allow_log(warning, "the story has torn it");
    for time in [2, 3] {
        server.database("db").write(format!("m f=1 {time}")).await;
        server.kill_9();
        let last = entries(&store).await.pop().expect("the log has entries");
        let stored = store.client().get(&last).await.expect("it is there");
        let bytes = stored.bytes().await.expect("it can be read");
        let torn = bytes.slice(..bytes.len() - 7);
        let put = store.client().put(&last, torn.into()).await;
        put.expect("the store takes it");
        server.restart().await;
        let db = server.database("db");
        assert_eq!(
            db.query("SELECT f, CAST(time AS BIGINT) AS ns FROM m")
                .await,
            json!([{ "f": 1.0, "ns": 1_000_000_000 }])
        );
    }
    assert_eq!(server.count_logged(warning), 2);
}

async fn plugins_do_not_get_the_credentials(cloud: Cloud) {
    let store = store(cloud).await;
    // One of them is a file's name.
    let secrets = json!(store.secrets());
    let source = format!(
        "
import os
SECRETS = {secrets}
def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    named = [name for name, value in os.environ.items() if any(s in value for s in SECRETS)]
    return {{'found': named + [s for s in SECRETS if os.path.exists(s)]}}
"
    );
    let server = on(&store).plugin("look.py", &source).start().await;
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
    let log = String::from_utf8(server.log_bytes()).expect("it is text");
    for secret in store.secrets() {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

async fn the_second_of_two_servers_stops(cloud: Cloud) {
    let store = store(cloud).await;
    let first = on(&store).start().await;
    let db = first.database("db").create().await;
    let cause = "two servers run with the same --node-id on the same object store";
    let mut second = on(&store)
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
    assert!(second.has_logged(cause), "it does not say why");
    second.kill_9();
    db.write("m f=4 4").await;
    assert_eq!(db.number("SELECT count(*) AS n FROM m").await, 2);
}

async fn writers_wait_for_a_store_that_hangs_and_are_told(cloud: Cloud) {
    let store = store(cloud).await;
    let server = on(&store)
        .allow_log(
            "cannot write the log, writers wait",
            "the store does not answer",
        )
        .start()
        .await;
    let db = server.database("db").create().await;
    db.write("m f=1 1").await;

    store.hang();
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

    store.go_on();
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

async fn a_bucket_that_is_not_there_and_a_silent_store_are_named(cloud: Cloud) {
    let store = store(cloud).await;
    let other = on(&store).flag("--bucket", "not-there");
    let kind = if cloud == Cloud::Azure {
        "container"
    } else {
        "bucket"
    };
    let cause = format!(
        "the object store has no {kind} \"not-there\": name one that is there with --bucket"
    );
    other.start_refused().await.check(1, &cause);

    store.hang();
    let place = match cloud {
        Cloud::S3 => "(--aws-endpoint http://127.0.0.1:",
        Cloud::Azure => "(--azure-endpoint http://127.0.0.1:",
        Cloud::Google => "account.json)",
    };
    let silent = on(&store).start_refused().await;
    silent.check(1, "the object store cannot be used: check where it is");
    silent.check(1, place);
    store.go_on();
}

#[tokio::test]
async fn a_login_that_azure_does_not_know_is_named() {
    let store = store(Cloud::Azure).await;
    // It is not the account's, though it could be one.
    let stranger = on(&store).variable("AZURE_STORAGE_ACCESS_KEY", "c29tZWJvZHkgZWxzZQ==");
    let cause = "does not give access to --bucket \"kept\": check --azure-storage-account \
                 devstoreaccount1 and --azure-storage-access-key";
    stranger.start_refused().await.check(1, cause);
    let garbled = on(&store).variable("AZURE_STORAGE_ACCESS_KEY", "not,base64");
    let cause = "configure the object store: check --azure-storage-account devstoreaccount1 and \
                 --azure-storage-access-key";
    garbled.start_refused().await.check(1, cause);
    let nobody = on(&store).without("--azure-storage-account");
    let cause = "--azure-storage-account is required for azure";
    nobody.start_refused().await.check(1, cause);
    let readable_by_all = on(&store).without("--azure-allow-http");
    let cause = "is not encrypted: give one with https://, or --azure-allow-http";
    readable_by_all.start_refused().await.check(1, cause);
    let nowhere = on(&store).flag("--azure-endpoint", "127.0.0.1:10000");
    let cause = "--azure-endpoint 127.0.0.1:10000 must begin with https://";
    nowhere.start_refused().await.check(1, cause);
}

#[tokio::test]
async fn an_account_that_google_does_not_know_is_named() {
    let (store, other) = (store(Cloud::Google).await, store(Cloud::Google).await);
    // The same account, but its key is another one.
    let stranger = {
        let read = |store: &CloudStore| {
            let text = fs::read(store.directory().join("account.json")).expect("it is there");
            serde_json::from_slice::<Value>(&text).expect("it is JSON")
        };
        let mut account = read(&store);
        account["private_key"] = read(&other)["private_key"].clone();
        account
    };
    let refused = async |account: &str, cause: &str| {
        let path = store.directory().join("strangers.json");
        fs::write(&path, account).expect("write the account");
        let path = path.display().to_string();
        let started = on(&store).flag("--google-service-account", &path);
        let failure = started.start_refused().await;
        failure.check(1, cause);
        failure.check(1, &format!("check --google-service-account {path}"));
    };
    let cause = "the object store does not give access to --bucket \"kept\"";
    refused(&stranger.to_string(), cause).await;
    let cause = "configure the object store";
    refused("{}", cause).await;
    refused("no JSON", cause).await;
    let unknown = on(&store).flag("--google-service-account", "/not/there.json");
    let failure = unknown.start_refused().await;
    failure.check(1, "check --google-service-account /not/there.json");
    failure.check(1, "No such file or directory");

    // Nobody says that this is Google.
    let strange = on(&store).without("--object-store-tls-ca");
    let failure = strange.start_refused().await;
    failure.check(1, "the object store cannot be used: check where it is");
    let account = store.directory().join("account.json").display().to_string();
    let strange = on(&store).flag("--object-store-tls-ca", &account);
    let cause = format!("--object-store-tls-ca {account} holds no certificate");
    strange.start_refused().await.check(1, &cause);
}

#[tokio::test]
async fn a_login_that_s3_does_not_know_is_named() {
    let store = store(Cloud::S3).await;
    store.refuse_everybody().await;
    let cause = "does not give access to --bucket \"kept\": check --aws-access-key-id and \
                 --aws-secret-access-key";
    on(&store).start_refused().await.check(1, cause);
    let readable_by_all = on(&store).without("--aws-allow-http");
    let cause = "is not encrypted: give one with https://, or --aws-allow-http";
    readable_by_all.start_refused().await.check(1, cause);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    for cloud in ["s3", "google"] {
        let missing = server().flag("--object-store", cloud).start_refused().await;
        missing.check(1, "--bucket is required");
    }
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
}
