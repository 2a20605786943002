//! What Flight SQL clients can learn about the server and its tables without a query.

use arrow::array::RecordBatch;
use arrow_flight::{
    error::FlightError,
    sql::{
        Command, CommandGetTables, SqlInfo,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
    },
};
use outrigger_query::QueryEngine;
use tonic::{Status, metadata::MetadataMap};

use super::{hydrated, session};
use crate::error::grpc_status;

const CATALOG: &str = "public";
const SCHEMAS: [&str; 3] = ["information_schema", "iox", "system"];
const TABLE_TYPES: [&str; 2] = ["BASE TABLE", "VIEW"];

/// The rows that answer `command`.
pub(super) async fn describe(
    queries: &QueryEngine,
    command: Command,
    metadata: &MetadataMap,
) -> Result<RecordBatch, Status> {
    let rows = match command {
        Command::CommandGetSqlInfo(command) => {
            sql_info().and_then(|info| command.into_builder(&info).build())
        }
        Command::CommandGetCatalogs(command) => {
            let mut builder = command.into_builder();
            builder.append(CATALOG);
            builder.build()
        }
        Command::CommandGetDbSchemas(command) => {
            let mut builder = command.into_builder();
            for schema in SCHEMAS {
                builder.append(CATALOG, schema);
            }
            builder.build()
        }
        Command::CommandGetTableTypes(command) => {
            let mut builder = command.into_builder();
            for table_type in TABLE_TYPES {
                builder.append(table_type);
            }
            builder.build()
        }
        Command::CommandGetTables(command) => {
            let database = session::database(metadata)?;
            return tables(queries, &database, command).await;
        }
        other => {
            let url = other.into_any().type_url;
            return Err(Status::unimplemented(format!("{url} is not supported")));
        }
    };
    rows.map_err(Status::from)
}

async fn tables(
    queries: &QueryEngine,
    database: &str,
    command: CommandGetTables,
) -> Result<RecordBatch, Status> {
    let tables = queries.tables(database).await;
    let mut builder = command.into_builder();
    for table in tables.map_err(|error| grpc_status(&error))? {
        let columns = hydrated(table.columns);
        builder.append(
            CATALOG,
            table.schema,
            table.name,
            table.table_type,
            &columns,
        )?;
    }
    Ok(builder.build()?)
}

/// Clients recognise the server by the name, and ask whether it has transactions.
fn sql_info() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "InfluxDB IOx");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.build()
}
