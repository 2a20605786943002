//! `show retention`: how long databases keep rows.

use clap::Args;

use crate::{client::Client, connection::ServerArgs, format::Format, output};

/// `show retention`: one row per database.
#[derive(Debug, Args)]
pub(crate) struct ShowRetention {
    #[command(flatten)]
    server: ServerArgs,
    /// Only this database
    #[arg(
        short = 'd',
        long,
        alias = "db",
        env = "INFLUXDB3_DATABASE_NAME",
        value_name = "DATABASE_NAME"
    )]
    database: Option<String>,
    /// How to print the rows
    #[arg(long, value_enum, ignore_case = true, default_value = "pretty")]
    format: Format,
}

impl ShowRetention {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = Client::new(&self.server)?
            .query_sql("_internal", &query(self.database.as_deref()), self.format)
            .await?;
        output::print(answer).await
    }
}

/// A period is shown in the largest unit of which it is a whole number.
fn query(database: Option<&str>) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    // Divided by a signed number, an unsigned one would become a decimal one.
    let nanos = "CAST(retention_period_ns AS BIGINT)";
    let units = UNITS.map(|(unit, seconds)| {
        let unit_nanos = seconds * 1_000_000_000;
        format!("WHEN {nanos} % {unit_nanos} = 0 THEN concat({nanos} / {unit_nanos}, '{unit}') ")
    });
    let units = units.concat();
    let only = database.map(|name| format!(" AND database_name = '{}'", name.replace('\'', "''")));
    let only = only.unwrap_or_default();
    format!(
        "SELECT database_name, CASE WHEN retention_period_ns IS NULL THEN 'infinite' {units}\
         ELSE concat({nanos}, 'ns') END AS retention_period \
         FROM system.databases WHERE NOT deleted{only} ORDER BY database_name"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted() {
        let query = query(Some("a'b"));
        assert!(query.contains("database_name = 'a''b'"), "{query}");
    }
}
