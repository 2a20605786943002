use std::collections::HashMap;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Float64Type},
};
use arrow_flight::{
    FlightClient, FlightInfo, Ticket,
    error::FlightError,
    sql::{CommandGetDbSchemas, CommandGetTables, SqlInfo, client::FlightSqlServiceClient},
};
use futures::TryStreamExt;
use outrigger_model::{
    line_protocol::Precision,
    trace::{FinishedSpan, SpanSink, Trace, Tracer},
};
use outrigger_storage::WriteRequest;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::fixture::{self, Running};

const SQL: &str = "SELECT host, load FROM cpu ORDER BY load";

#[tokio::test]
async fn statements_and_prepared_statements_give_plain_columns() {
    let server = Server::start().await;
    let mut client = server.sql_client();
    let info = client.execute(SQL.to_owned(), None).await.unwrap();
    check_rows(&mut client, info).await;

    let mut prepared = client.prepare(SQL.to_owned(), None).await.unwrap();
    let schema = prepared.dataset_schema().unwrap();
    assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
    let info = prepared.execute().await.unwrap();
    check_rows(&mut client, info).await;
    prepared.close().await.unwrap();
    server.stop().await;
}

/// Keeps spans.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<std::sync::Mutex<Vec<FinishedSpan>>>);

impl SpanSink for Kept {
    fn take(&self, span: FinishedSpan) {
        self.0.lock().unwrap().push(span);
    }
}

#[tokio::test]
async fn a_flight_clients_trace_is_continued() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let kept = Kept::default();
    let tracer = Tracer::new(Box::new(kept.clone()), 0.0);
    let server = Server::start_with(tracer).await;
    let mut client = server.sql_client();
    client.execute(SQL.to_owned(), None).await.unwrap();
    client.set_header("traceparent", PARENT);
    let info = client.execute(SQL.to_owned(), None).await.unwrap();
    check_rows(&mut client, info).await;
    drop(client);
    server.stop().await;
    let spans = kept.0.lock().unwrap().clone();
    let service = "/arrow.flight.protocol.FlightService";
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(
        names,
        [
            format!("{service}/GetFlightInfo"),
            format!("{service}/DoGet")
        ]
    );
    for span in &spans {
        let parent = span.parent.map(|parent| parent.to_string());
        assert_eq!(parent.as_deref(), Some("00f067aa0ba902b7"));
        assert!(span.context.to_string().starts_with(&PARENT[..36]));
    }
}

#[tokio::test]
async fn clients_learn_about_the_server_and_its_tables() {
    let server = Server::start().await;
    let mut client = server.sql_client();
    let names = [SqlInfo::FlightSqlServerName];
    let info = client.get_sql_info(names.to_vec()).await.unwrap();
    assert_eq!(count(&mut client, info).await, 1);
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(count(&mut client, info).await, 1);
    let schemas = CommandGetDbSchemas::default();
    let info = client.get_db_schemas(schemas).await.unwrap();
    assert_eq!(count(&mut client, info).await, 3);
    let info = client.get_table_types().await.unwrap();
    assert_eq!(count(&mut client, info).await, 2);
    let tables = CommandGetTables {
        db_schema_filter_pattern: Some("iox".to_owned()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(tables).await.unwrap();
    assert_eq!(count(&mut client, info).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn native_tickets_name_their_database() {
    let server = Server::start().await;
    let mut client = FlightClient::new(server.channel());
    let ticket = r#"{"database":"db","sql_query":"SELECT load FROM cpu WHERE host = $h",
                     "query_type":"sql","params":{"h":"b"}}"#;
    let stream = client.do_get(Ticket::new(ticket)).await.unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    let load = batches[0].column(0).as_primitive::<Float64Type>();
    assert_eq!(load.values().to_vec(), [2.5]);
    server.stop().await;
}

#[tokio::test]
async fn errors_have_codes_and_texts() {
    let server = Server::start().await;
    let nameless = FlightSqlServiceClient::new(server.channel());
    let text = "no 'database' header in request";
    check_refused(nameless, SQL, Code::InvalidArgument, text).await;
    let mut unknown = FlightSqlServiceClient::new(server.channel());
    unknown.set_header("database", "x");
    check_refused(unknown, SQL, Code::NotFound, "database not found: x").await;
    let text = "table 'public.iox.no' not found";
    let sql = "SELECT * FROM no";
    check_refused(server.sql_client(), sql, Code::InvalidArgument, text).await;
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_shutdown() {
    let server = Server::start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    server.stop().await;
    drop(stream);
}

struct Server {
    address: std::net::SocketAddr,
    gate: Gate,
    _running: Running,
}

impl Server {
    /// A server whose database `db` has the table `cpu`.
    async fn start() -> Self {
        Self::start_with(Tracer::default()).await
    }

    async fn start_with(tracer: Tracer) -> Self {
        let (mut deps, running) = fixture::deps().await;
        deps.tracer = tracer;
        let write = WriteRequest {
            database: "db".to_owned(),
            text: "cpu,host=a load=1.5\ncpu,host=b load=2.5".into(),
            precision: Precision::Auto,
            accept_partial: false,
            no_sync: false,
            trace: Trace::unrecorded(),
        };
        deps.storage.write(write).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Gate::default();
        let serving = Api::new(deps).serve(listener, gate.clone());
        gate.tasks().spawn(serving);
        Self {
            address,
            gate,
            _running: running,
        }
    }

    fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.address);
        Endpoint::from_shared(uri).unwrap().connect_lazy()
    }

    fn sql_client(&self) -> FlightSqlServiceClient<Channel> {
        let mut client = FlightSqlServiceClient::new(self.channel());
        client.set_header("database", "db");
        client
    }

    async fn stop(self) {
        assert!(
            self.gate.close(Duration::from_secs(5)).await,
            "a task is late"
        );
    }
}

async fn fetch(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Vec<RecordBatch> {
    let announced = info.clone().try_decode_schema().unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let stream = client.do_get(ticket).await.unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    assert!(batches.iter().all(|batch| *batch.schema() == announced));
    batches
}

async fn count(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> usize {
    let batches = fetch(client, info).await;
    batches.iter().map(RecordBatch::num_rows).sum()
}

async fn check_rows(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) {
    let batches = fetch(client, info).await;
    let rows: HashMap<&str, f64> = batches
        .iter()
        .flat_map(|batch| {
            let hosts = batch.column(0).as_string::<i32>().iter().flatten();
            let loads = batch.column(1).as_primitive::<Float64Type>();
            hosts.zip(loads.values().iter().copied())
        })
        .collect();
    assert_eq!(rows, HashMap::from([("a", 1.5), ("b", 2.5)]));
}

async fn check_refused(
    mut client: FlightSqlServiceClient<Channel>,
    sql: &str,
    code: Code,
    part: &str,
) {
    let error = client.execute(sql.to_owned(), None).await.unwrap_err();
    let FlightError::Tonic(status) = error else {
        panic!("{error}")
    };
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(part), "{status}");
}
