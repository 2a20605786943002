//! What a client asks: reads commands and tickets, in Flight SQL's form and in the forms
//! that InfluxDB's own clients use.

use std::collections::BTreeMap;

use arrow_flight::sql::{Any, Command, ProstMessageExt, TicketStatementQuery};
use bytes::Bytes;
use outrigger_query::Param;
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic::Status;

/// What is asked.
#[derive(Debug)]
pub(super) enum Question {
    /// A query on the database that the call's metadata names.
    Sql(String),
    /// A query on the database that the ticket names.
    Native(Native),
    /// Flight SQL's questions about the server and its tables.
    About(Box<Command>),
}

/// A query in the form of InfluxDB's clients.
#[derive(Debug)]
pub(super) struct Native {
    pub(super) database: String,
    pub(super) sql: String,
    pub(super) params: BTreeMap<String, Param>,
}

/// The ticket of influxdb3-python and influxdb3-go.
#[derive(Debug, Deserialize)]
struct JsonTicket {
    #[serde(alias = "namespace_name", alias = "bucket", alias = "bucket-name")]
    database: String,
    sql_query: String,
    query_type: Option<String>,
    params: Option<Map<String, Value>>,
}

/// The ticket of influxdb3-js: `influxdata.iox.querier.v1.ReadInfo`, without the fields
/// that are not understood here.
#[derive(Clone, PartialEq, Message)]
struct ReadInfo {
    #[prost(string, tag = "1")]
    database: String,
    #[prost(string, tag = "2")]
    sql_query: String,
    #[prost(int32, tag = "3")]
    query_type: i32,
}

const READ_INFO_URL: &str = "type.googleapis.com/influxdata.iox.querier.v1.ReadInfo";
const READ_INFO_INFLUXQL: i32 = 2;
const READ_INFO_FLIGHT_SQL: i32 = 3;

impl Question {
    /// What the command of a descriptor asks.
    pub(super) fn from_command(command: &[u8]) -> Result<Self, Status> {
        Self::from_any(Any::decode(command).map_err(invalid)?)
    }

    /// What a ticket asks.
    pub(super) fn from_ticket(ticket: &[u8]) -> Result<Self, Status> {
        // No protobuf message of ours begins like this.
        if ticket.first() == Some(&b'{') {
            let ticket: JsonTicket = serde_json::from_slice(ticket).map_err(invalid)?;
            return ticket.try_into().map(Self::Native);
        }
        let any = Any::decode(ticket);
        match any {
            Ok(any) if any.type_url == READ_INFO_URL => {
                let ticket = ReadInfo::decode(any.value).map_err(invalid)?;
                ticket.try_into().map(Self::Native)
            }
            Ok(any) if any.type_url.contains('/') && any.type_url.contains("arrow.flight") => {
                Self::from_any(any)
            }
            // A bare ReadInfo also reads as an Any, with the database as its type.
            _ => {
                let ticket = ReadInfo::decode(ticket).map_err(invalid)?;
                ticket.try_into().map(Self::Native)
            }
        }
    }

    fn from_any(any: Any) -> Result<Self, Status> {
        match Command::try_from(any).map_err(invalid)? {
            Command::CommandStatementQuery(command) => Ok(Self::Sql(command.query)),
            Command::TicketStatementQuery(ticket) => text(ticket.statement_handle),
            Command::CommandPreparedStatementQuery(command) => {
                text(command.prepared_statement_handle)
            }
            other => Ok(Self::About(Box::new(other))),
        }
    }

    /// The ticket with which the rows are fetched: for a query, its text; for a question
    /// about the server, the command itself.
    pub(super) fn ticket(&self, command: &Bytes) -> Bytes {
        match self {
            Self::Sql(sql) => {
                let statement_handle = sql.clone().into();
                let ticket = TicketStatementQuery { statement_handle };
                ticket.as_any().encode_to_vec().into()
            }
            Self::Native(_) | Self::About(_) => command.clone(),
        }
    }
}

impl TryFrom<JsonTicket> for Native {
    type Error = Status;

    fn try_from(ticket: JsonTicket) -> Result<Self, Status> {
        match ticket.query_type.as_deref() {
            None | Some("sql") => {}
            Some(other) => return Err(unsupported(other)),
        }
        let params = ticket.params.unwrap_or_default().into_iter();
        let params = params.map(|(name, value)| Ok((name, value.try_into()?)));
        let params: Result<_, outrigger_query::ParamError> = params.collect();
        Ok(Self {
            database: ticket.database,
            sql: ticket.sql_query,
            params: params.map_err(invalid)?,
        })
    }
}

impl TryFrom<ReadInfo> for Native {
    type Error = Status;

    fn try_from(ticket: ReadInfo) -> Result<Self, Status> {
        match ticket.query_type {
            READ_INFO_INFLUXQL => return Err(unsupported("influxql")),
            READ_INFO_FLIGHT_SQL => return Err(unsupported("flightsql")),
            _ => {}
        }
        Ok(Self {
            database: ticket.database,
            sql: ticket.sql_query,
            params: BTreeMap::new(),
        })
    }
}

fn text(handle: Bytes) -> Result<Question, Status> {
    String::from_utf8(handle.into())
        .map(Question::Sql)
        .map_err(|_not_text| Status::invalid_argument("the handle was not made by this server"))
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("invalid ticket or command: {error}"))
}

fn unsupported(query_type: &str) -> Status {
    Status::invalid_argument(format!(
        "queries of type {query_type:?} are not supported yet, use sql"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_tickets_are_read_in_all_their_forms() {
        let json = r#"{"namespace_name":"db","sql_query":"SELECT 1","query_type":"sql",
                       "params":{"a":1},"is_debug":false}"#;
        assert_eq!(check(json.as_bytes()).params["a"], Param::Int(1));
        let info = ReadInfo {
            database: "db".to_owned(),
            sql_query: "SELECT 1".to_owned(),
            query_type: 0,
        };
        check(&info.encode_to_vec());
        let any = Any {
            type_url: READ_INFO_URL.to_owned(),
            value: info.encode_to_vec().into(),
        };
        check(&any.encode_to_vec());
        let influxql = r#"{"database":"db","sql_query":"x","query_type":"influxql"}"#;
        assert!(Question::from_ticket(influxql.as_bytes()).is_err());
    }

    #[test]
    fn a_statement_comes_back_from_its_ticket() {
        let ticket = Question::Sql("SELECT 1".to_owned()).ticket(&Bytes::new());
        let Question::Sql(sql) = Question::from_ticket(&ticket).unwrap() else {
            panic!("not a statement")
        };
        assert_eq!(sql, "SELECT 1");
    }

    #[track_caller]
    fn check(ticket: &[u8]) -> Native {
        let Question::Native(native) = Question::from_ticket(ticket).unwrap() else {
            panic!("not a native ticket")
        };
        assert_eq!(
            (native.database.as_str(), native.sql.as_str()),
            ("db", "SELECT 1")
        );
        native
    }
}
