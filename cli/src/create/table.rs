//! `create table`: makes a table with columns before anything is written to it.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    client::Client,
    connection::{DatabaseArgs, ServerArgs},
    output::say,
};

/// `create table`.
#[derive(Debug, Args)]
pub(crate) struct CreateTable {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The names of its tags, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "TAGS")]
    tags: Vec<String>,
    /// Its fields, separated by commas: name:type, where type is int64, uint64, float64, utf8 or
    /// bool
    #[arg(short, long, value_delimiter = ',', value_name = "FIELDS")]
    fields: Vec<Field>,
    /// The name of the new table
    #[arg(value_name = "TABLE_NAME")]
    name: String,
}

/// A field and its type.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    field_type: FieldType,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum FieldType {
    Int64,
    Uint64,
    Float64,
    Utf8,
    Bool,
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A name may have a colon, a type has none.
        let (name, field_type) = text
            .rsplit_once(':')
            .filter(|(name, _)| !name.is_empty())
            .ok_or("must be formatted as \"name:type\"")?;
        let field_type = FieldType::from_str(field_type, true).map_err(|_unknown| {
            format!("unknown type {field_type:?}, expected int64, uint64, float64, utf8 or bool")
        })?;
        let name = name.to_owned();
        Ok(Self { name, field_type })
    }
}

#[derive(Serialize)]
struct TableRequest<'a> {
    db: &'a str,
    table: &'a str,
    tags: &'a [String],
    fields: &'a [Field],
}

impl CreateTable {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let request = TableRequest {
            db: &self.database.database,
            table: &self.name,
            tags: &self.tags,
            fields: &self.fields,
        };
        Client::new(&self.server)?
            .post("/api/v3/configure/table", &request)
            .await?;
        say(format_args!(
            "Table \"{}\".\"{}\" created successfully",
            self.database.database, self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::{
            Command,
            tests::{parse, refusal},
        },
        create::CreateCommand,
    };

    #[test]
    fn tags_and_fields_are_lists_that_may_be_missing() {
        let table = |arguments: &[&str]| {
            let arguments = [&["create", "table", "-d", "db"], arguments].concat();
            match parse(&arguments) {
                Ok(Command::Create(CreateCommand::Table(table))) => table,
                other => panic!("not a table: {other:?}"),
            }
        };
        let full = table(&["t", "--tags", "a,b", "--fields", "f:float64,x:y:UTF8"]);
        assert_eq!(full.tags, ["a", "b"]);
        let fields = [("f", FieldType::Float64), ("x:y", FieldType::Utf8)];
        let fields = fields.map(|(name, field_type)| Field {
            name: name.to_owned(),
            field_type,
        });
        assert_eq!(full.fields, fields);
        assert!(table(&["t"]).fields.is_empty());
        let unknown = refusal(&["create", "table", "-d", "db", "t", "-f", "f:float"]);
        assert!(unknown.contains("expected int64"), "{unknown}");
        let bare = refusal(&["create", "table", "-d", "db", "t", "-f", "f"]);
        assert!(bare.contains("name:type"), "{bare}");
    }
}
