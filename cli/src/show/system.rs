//! `show system …`: reads the system tables over SQL.

mod sql;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;

use self::sql::{LIST_TABLES, TABLE_NAMES, TableQuery};
use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    format::Format,
    output,
};

/// `show system`.
#[derive(Debug, Args)]
pub(crate) struct ShowSystem {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(subcommand)]
    view: View,
}

/// Which tables, and what of them.
#[derive(Debug, Subcommand)]
enum View {
    /// List the system tables and their columns
    TableList(FormatArgs),
    /// Show the rows of one system table
    Table(TableArgs),
    /// Show the first rows of every system table
    Summary(SummaryArgs),
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// How to print the rows
    #[arg(long, value_enum, ignore_case = true, default_value = "pretty")]
    format: Format,
}

#[derive(Debug, Args)]
struct TableArgs {
    /// The most rows to show; 0 means all
    #[arg(short, long, default_value_t = 100, value_name = "ROWS")]
    limit: u64,
    /// The columns to order by, each with an optional `desc`
    #[arg(short, long, value_delimiter = ',', value_name = "COLUMNS")]
    order_by: Vec<String>,
    /// The columns to show
    #[arg(short, long, value_delimiter = ',', value_name = "COLUMNS")]
    select: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
    /// The system table, without `system.`
    #[arg(value_name = "SYSTEM_TABLE")]
    name: String,
}

#[derive(Debug, Args)]
struct SummaryArgs {
    /// The most rows to show of each table; 0 means all
    #[arg(short, long, default_value_t = 10, value_name = "ROWS")]
    limit: u64,
    #[command(flatten)]
    format: FormatArgs,
}

impl ShowSystem {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let tables = SystemTables {
            client: Client::new(&self.server)?,
            database: self.database.database,
        };
        match self.view {
            View::TableList(format) => tables.print(LIST_TABLES, format.format).await,
            View::Table(arguments) => tables.print_table(arguments).await,
            View::Summary(arguments) => tables.print_summary(arguments).await,
        }
    }
}

/// The system tables of one database.
struct SystemTables {
    client: Client,
    database: String,
}

impl SystemTables {
    async fn print_table(&self, arguments: TableArgs) -> anyhow::Result<()> {
        let names = self.names().await?;
        if !names.contains(&arguments.name) {
            bail!(
                "system table '{}' not found: please use a valid system table name: {names:?}",
                arguments.name
            );
        }
        let query = TableQuery {
            table: &arguments.name,
            select: &arguments.select,
            order_by: &arguments.order_by,
            limit: arguments.limit,
        };
        self.print(&query.to_string(), arguments.format.format)
            .await
    }

    async fn print_summary(&self, arguments: SummaryArgs) -> anyhow::Result<()> {
        for table in &self.names().await? {
            output::say(format_args!("{table} summary:"))?;
            let query = TableQuery {
                table,
                select: &[],
                order_by: &[],
                limit: arguments.limit,
            };
            self.print(&query.to_string(), arguments.format.format)
                .await?;
        }
        Ok(())
    }

    async fn print(&self, sql: &str, format: Format) -> anyhow::Result<()> {
        let answer = self.client.query_sql(&self.database, sql, format).await?;
        output::print(answer).await
    }

    async fn names(&self) -> anyhow::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Row {
            table_name: String,
        }
        let rows = self
            .client
            .query_sql(&self.database, TABLE_NAMES, Format::Json)
            .await?
            .json()
            .await?;
        let rows: Vec<Row> = serde_json::from_value(rows).context("list the system tables")?;
        Ok(rows.into_iter().map(|row| row.table_name).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::args::tests::{parse, refusal};

    #[test]
    fn both_spellings_mean_the_same() {
        let show = |arguments: &[&str]| {
            let arguments = [&["show", "system", "-d", "db", "table"], arguments].concat();
            format!("{:?}", parse(&arguments).expect("valid"))
        };
        assert_eq!(
            show(&["-l", "0", "-o", "a,b desc", "-s", "a,b", "queries"]),
            show(&[
                "--limit",
                "0",
                "--order-by",
                "a,b desc",
                "--select",
                "a,b",
                "queries"
            ])
        );
    }

    #[test]
    fn a_database_and_a_view_are_needed() {
        assert!(refusal(&["show", "system", "table-list"]).contains("--database"));
        refusal(&["show", "system", "-d", "db"]);
        refusal(&["show", "system", "-d", "db", "table"]);
    }
}
