use axum::body::to_bytes;
use tower::ServiceExt;
use uuid::Uuid;

use super::*;
use crate::{
    fixture::{self, Running},
    flight,
};

const TRIGGER: &str = "/api/v3/configure/processing_engine_trigger";
const DATABASE: &str = "/api/v3/configure/database";

#[tokio::test]
async fn what_was_written_is_read_in_every_format() {
    let api = Fixture::start().await;
    let written = api
        .post(
            "/api/v3/write_lp?db=db&precision=s",
            "cpu,host=a load=1.5 1",
        )
        .await;
    assert_eq!((written.status, written.text.as_str()), (204, ""));
    let query = "/api/v3/query_sql?db=db&q=SELECT%20*%20FROM%20cpu";
    let json = api.get(query).await;
    let rows = r#"[{"host":"a","load":1.5,"time":"1970-01-01T00:00:01"}]"#;
    assert_eq!((json.status, json.text.as_str()), (200, rows));
    assert_eq!(json.header("content-type"), "application/json");
    assert_eq!(json.header("access-control-allow-origin"), "*");
    assert_eq!(json.header("cluster-uuid"), Uuid::nil().to_string());
    let csv = api.get(&format!("{query}&format=csv")).await;
    assert_eq!(csv.text, "host,load,time\na,1.5,1970-01-01T00:00:01\n");
    let body = r#"{"db":"db","q":"SELECT load FROM cpu WHERE host = $h","params":{"h":"a"},"format":"jsonl"}"#;
    let jsonl = api.post("/api/v3/query_sql", body).await;
    assert_eq!(jsonl.text, "{\"load\":1.5}\n");
    assert_eq!(jsonl.header("content-type"), "application/jsonl");
    let params = "&params=%7B%22h%22%3A%22none%22%7D";
    let sql = "/api/v3/query_sql?db=db&q=SELECT%20load%20FROM%20cpu%20WHERE%20host%3D%24h";
    assert_eq!(api.get(&format!("{sql}{params}")).await.text, "[]");
}

#[tokio::test]
async fn writes_are_refused_as_clients_expect() {
    let api = Fixture::start().await;
    let path = "/api/v3/write_lp";
    api.check_post(path, "x", 400, "missing query parameter 'db'")
        .await;
    api.check_post(
        &format!("{path}?precision=s"),
        "x",
        400,
        "serde error: missing field `db`",
    )
    .await;
    let path = format!("{path}?db=db");
    api.check_post(&path, "# nothing", 400, "incoming write was empty")
        .await;
    let partial = api.post(&path, "m f=1 1\nbad").await;
    assert_eq!(partial.status, 400);
    let prefix = r#"{"data":[{"error_message":"#;
    assert!(partial.text.starts_with(prefix), "{}", partial.text);
    assert_eq!(partial.header("content-type"), "application/json");
    let strict = api
        .post(&format!("{path}&accept_partial=false"), "bad")
        .await;
    assert!(
        strict.text.starts_with(r#"{"data":{"error_message""#),
        "{}",
        strict.text
    );
    let name = api.post("/api/v3/write_lp?db=-x", "m f=1").await;
    assert!(name.text.starts_with(r#"{"error":"#), "{}", name.text);
    let large = api.post(&path, &"x".repeat(2000)).await;
    assert_eq!(large.text, "max request size (1000 bytes) exceeded");
    assert_eq!((large.status, large.has("content-type")), (413, false));
}

#[tokio::test]
async fn queries_are_refused_as_clients_expect() {
    let api = Fixture::start().await;
    let query = "/api/v3/query_sql";
    let missing = "missing query parameters 'db' and 'q'";
    api.check_get(query, 400, missing).await;
    api.check_get(
        &format!("{query}?db=x"),
        400,
        "serde error: missing field `q`",
    )
    .await;
    let no_database = r#"{"error":"query error: database not found: x"}"#;
    api.check_get(&format!("{query}?db=x&q=SELECT%201"), 404, no_database)
        .await;
    let bad = api.get(&format!("{query}?db=_internal&q=SELEC")).await;
    assert_eq!((bad.status, bad.has("content-type")), (400, false));
    assert!(bad.text.contains("sql parser error"), "{}", bad.text);
    let parquet = api
        .get(&format!("{query}?db=_internal&q=SELECT%201&format=parquet"))
        .await;
    assert!(
        parquet.text.contains("not supported yet"),
        "{}",
        parquet.text
    );
    let body = api.post(query, "{").await;
    assert!(body.text.starts_with("serde json error: "), "{}", body.text);
}

#[tokio::test]
async fn databases_come_and_go() {
    let api = Fixture::start().await;
    let create =
        |body: &'static str| api.send(Method::POST, DATABASE, body, Some("application/json"));
    assert_eq!(create(r#"{"db":"foo"}"#).await.status, 200);
    let again = create(r#"{"db":"foo"}"#).await;
    assert_eq!(again.status, 409);
    let exists = "attempted to create a resource that already exists";
    assert!(again.text.starts_with(exists), "{}", again.text);
    assert_eq!(
        create(r#"{"db":"x","retention_period":"soon"}"#)
            .await
            .status,
        400
    );
    assert_eq!(
        create(r#"{"db":"_x"}"#).await.header("content-type"),
        "application/json"
    );
    assert_eq!(api.post(DATABASE, "{}").await.status, 415);

    let list = format!("{DATABASE}?format=json");
    let rows = r#"[{"iox::database":"_internal"},{"iox::database":"foo"}]"#;
    api.check_get(&list, 200, rows).await;
    api.check_get(DATABASE, 400, "serde error: missing field `format`")
        .await;
    let deleted = api.get(&format!("{list}&show_deleted=true")).await;
    assert!(
        deleted.text.contains(r#""deleted":false"#) && !deleted.text.contains("true"),
        "{}",
        deleted.text
    );

    let api = &api;
    let delete = |query: &'static str| async move {
        let path = format!("{DATABASE}?{query}");
        api.send(Method::DELETE, &path, "", None).await.status
    };
    assert_eq!(delete("db=foo&hard_delete_at=soon").await, 400);
    assert_eq!(delete("db=foo&hard_delete_at=now").await, 200);
    assert_eq!(delete("db=foo").await, 404);
    assert_eq!(delete("db=_internal").await, 400);
}

#[tokio::test]
async fn triggers_come_and_go() {
    let api = Fixture::start().await;
    let json = Some("application/json; charset=utf-8");
    let body = r#"{"db":"db","plugin_filename":"p.py","trigger_name":"t","trigger_specification":"all_tables"}"#;
    let create = |path: String, body: String| {
        let api = &api;
        async move { api.send(Method::POST, &path, &body, json).await }
    };
    let trigger = || TRIGGER.to_owned();
    assert_eq!(create(trigger(), body.to_owned()).await.status, 404);
    api.post("/api/v3/write_lp?db=db", "m f=1").await;
    assert_eq!(create(trigger(), body.to_owned()).await.status, 200);
    assert_eq!(create(trigger(), body.to_owned()).await.status, 409);
    assert_eq!(
        create(format!("{TRIGGER}?db=db"), body.to_owned())
            .await
            .status,
        400
    );
    let spec = create(trigger(), body.replace("all_tables", "tables")).await;
    assert_eq!(spec.status, 400);
    assert!(spec.text.contains("table:<name>"), "{}", spec.text);
    let missing = create(trigger(), body.replace("p.py", "q.py")).await;
    let text = "Plugin error: reading plugin file: Plugin not found: ";
    assert!(missing.text.starts_with(text), "{}", missing.text);

    let named = "?db=db&trigger_name=t";
    let delete = format!("{TRIGGER}{named}");
    let refused = api.send(Method::DELETE, &delete, "", None).await;
    let text = "Cannot delete running plugin t. Disable it first or use --force.";
    assert_eq!((refused.status, refused.text.as_str()), (409, text));
    let text = "serde error: missing field `db`";
    api.check_post(&format!("{TRIGGER}/disable"), "", 400, text)
        .await;
    for path in ["enable", "disable", "disable"] {
        api.check_post(&format!("{TRIGGER}/{path}{named}"), "", 200, "")
            .await;
    }
    let body = r#"{"db":"db","trigger_name":"t"}"#;
    assert_eq!(
        api.send(Method::DELETE, TRIGGER, body, json).await.status,
        200
    );
    let unknown = api.post(&format!("{TRIGGER}/enable{named}"), "").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_not_found() {
    let api = Fixture::start().await;
    for (method, path) in [
        (Method::GET, "/nothing"),
        (Method::PUT, "/health"),
        (Method::GET, "/api/v3/write_lp"),
    ] {
        let answer = api.send(method, path, "", None).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (404, "Not found"),
            "{path}"
        );
        assert!(answer.has("cluster-uuid"));
    }
    assert_eq!(
        api.send(Method::HEAD, "/health", "", None).await.status,
        404
    );
    let preflight = api.send(Method::OPTIONS, "/nothing", "", None).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-max-age"), "86400");
    let grpc = api
        .send(
            Method::POST,
            "/no.Service/Call",
            "",
            Some("application/grpc"),
        )
        .await;
    assert_eq!(grpc.header("grpc-status"), "12");
}

#[tokio::test]
async fn the_server_says_that_it_is_there_and_who_it_is() {
    let api = Fixture::start().await;
    api.check_get("/health", 200, "OK").await;
    api.check_get("/api/v1/health", 200, "OK").await;
    let ping = api.post("/ping", "").await;
    assert!(ping.text.contains(r#""product_name":"InfluxDB 3 Core""#));
    assert_eq!(ping.header("x-influxdb-version"), "1.2.3");
    assert_eq!(ping.header("request-id"), ping.header("x-request-id"));
}

struct Fixture {
    router: Router,
    _running: Running,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Fixture {
    async fn start() -> Self {
        let (deps, running) = fixture::deps().await;
        let flight = flight::routes(&deps);
        Self {
            router: router(deps, flight),
            _running: running,
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &str,
        content_type: Option<&str>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.into()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", None).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, body, None).await
    }

    async fn check_get(&self, path: &str, status: u16, text: &str) {
        let answer = self.get(path).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (status, text),
            "{path}"
        );
    }

    async fn check_post(&self, path: &str, body: &str, status: u16, text: &str) {
        let answer = self.post(path, body).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (status, text),
            "{path}"
        );
    }
}
