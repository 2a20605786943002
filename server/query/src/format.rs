//! How a result looks as text: JSON, JSON lines, CSV or a table.

use std::{mem, str::FromStr};

use arrow::{
    array::RecordBatch,
    csv,
    datatypes::SchemaRef,
    error::ArrowError,
    json::{ArrayWriter, LineDelimitedWriter},
    util::pretty::pretty_format_batches_with_schema,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use crate::{BatchStream, QueryError};

/// A text format of results.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One array of objects; a null column is left out.
    Json,
    /// One object per line; a null column is left out.
    Jsonl,
    /// A header, then rows; nothing at all if there are no rows.
    Csv,
    /// A table drawn with ASCII characters, without a newline behind it. Made when all
    /// rows are there.
    Pretty,
}

/// A format that is not available.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Known to clients, but not written yet.
    #[error("the format parquet is not supported yet, use json, jsonl, csv or pretty")]
    Parquet,
    /// No format of that name.
    #[error("unknown format {0:?}, expected one of pretty, json, jsonl, csv")]
    Unknown(String),
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "json" => Ok(Self::Json),
            "jsonl" | "json_lines" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            "pretty" => Ok(Self::Pretty),
            "parquet" => Err(FormatError::Parquet),
            other => Err(FormatError::Unknown(other.to_owned())),
        }
    }
}

impl Format {
    /// The media type of such a text.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Jsonl => "application/jsonl",
            Self::Csv => "text/csv",
            Self::Pretty => "text/plain; charset=utf-8",
        }
    }

    /// The rows as text, batch by batch.
    pub fn encode(
        self,
        schema: SchemaRef,
        batches: BatchStream,
    ) -> BoxStream<'static, Result<Bytes, QueryError>> {
        let encoder = Encoder::new(self, schema);
        let chunks = stream::try_unfold(Some((encoder, batches)), |state| async move {
            let Some((mut encoder, mut batches)) = state else {
                return Ok(None);
            };
            let step = match batches.try_next().await? {
                Some(batch) => {
                    let chunk = encoder.batch(&batch).map_err(QueryError::Format)?;
                    (chunk, Some((encoder, batches)))
                }
                None => (encoder.finish().map_err(QueryError::Format)?, None),
            };
            Ok(Some(step))
        });
        chunks
            .try_filter(|chunk| {
                let has_bytes = !chunk.is_empty();
                async move { has_bytes }
            })
            .boxed()
    }
}

enum Encoder {
    Json(ArrayWriter<Vec<u8>>),
    Jsonl(LineDelimitedWriter<Vec<u8>>),
    Csv { header: bool },
    Pretty(SchemaRef, Vec<RecordBatch>),
}

impl Encoder {
    fn new(format: Format, schema: SchemaRef) -> Self {
        match format {
            Format::Json => Self::Json(ArrayWriter::new(Vec::new())),
            Format::Jsonl => Self::Jsonl(LineDelimitedWriter::new(Vec::new())),
            Format::Csv => Self::Csv { header: true },
            Format::Pretty => Self::Pretty(schema, Vec::new()),
        }
    }

    /// The text that the batch adds; may be empty.
    fn batch(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(Bytes::new());
        }
        match self {
            Self::Json(writer) => {
                writer.write(batch)?;
                Ok(mem::take(writer.get_mut()).into())
            }
            Self::Jsonl(writer) => {
                writer.write(batch)?;
                Ok(mem::take(writer.get_mut()).into())
            }
            Self::Csv { header } => {
                let builder = csv::WriterBuilder::new().with_header(mem::take(header));
                let mut writer = builder.build(Vec::new());
                writer.write(batch)?;
                Ok(writer.into_inner().into())
            }
            Self::Pretty(_, batches) => {
                batches.push(batch.clone());
                Ok(Bytes::new())
            }
        }
    }

    /// The text behind the last batch.
    fn finish(self) -> Result<Bytes, ArrowError> {
        match self {
            Self::Json(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner().into())
            }
            Self::Jsonl(_) | Self::Csv { .. } => Ok(Bytes::new()),
            // With the schema, so that a result without rows shows its columns.
            Self::Pretty(schema, batches) => {
                let table = pretty_format_batches_with_schema(schema, &batches)?;
                Ok(table.to_string().into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray},
        datatypes::{DataType, Field, Schema, TimeUnit},
    };

    use super::*;

    #[tokio::test]
    async fn every_format_writes_rows_of_several_batches() {
        check(
            Format::Json,
            r#"[{"n":1,"time":"2065-01-07T17:28:51"},{"n":2,"s":"x","time":"2065-01-07T17:28:51.500"}]"#,
        )
        .await;
        check(
            Format::Jsonl,
            "{\"n\":1,\"time\":\"2065-01-07T17:28:51\"}\n{\"n\":2,\"s\":\"x\",\"time\":\"2065-01-07T17:28:51.500\"}\n",
        )
        .await;
        check(
            Format::Csv,
            "n,s,time\n1,,2065-01-07T17:28:51\n2,x,2065-01-07T17:28:51.500\n",
        )
        .await;
        let pretty = [
            "+---+---+-------------------------+",
            "| n | s | time                    |",
            "+---+---+-------------------------+",
            "| 1 |   | 2065-01-07T17:28:51     |",
            "| 2 | x | 2065-01-07T17:28:51.500 |",
            "+---+---+-------------------------+",
        ];
        check(Format::Pretty, &pretty.join("\n")).await;
    }

    #[tokio::test]
    async fn no_rows_are_written_as_clients_expect() {
        assert_eq!(text(Format::Json, Vec::new()).await, "[]");
        assert_eq!(text(Format::Jsonl, Vec::new()).await, "");
        assert_eq!(text(Format::Csv, Vec::new()).await, "");
        let pretty = "+---+---+------+\n| n | s | time |\n+---+---+------+\n+---+---+------+";
        assert_eq!(text(Format::Pretty, Vec::new()).await, pretty);
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("json_lines".parse(), Ok(Format::Jsonl));
        assert_eq!("parquet".parse::<Format>(), Err(FormatError::Parquet));
        assert!("xml".parse::<Format>().is_err());
    }

    async fn check(format: Format, expected: &str) {
        let batches = vec![row(1, None, 0), row(2, Some("x"), 500_000_000)];
        assert_eq!(text(format, batches).await, expected);
    }

    async fn text(format: Format, batches: Vec<RecordBatch>) -> String {
        let batches = stream::iter(batches.into_iter().map(Ok)).boxed();
        let chunks = format.encode(schema(), batches);
        let chunks: Vec<Bytes> = chunks.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Utf8, true),
            Field::new("time", time, false),
        ]))
    }

    fn row(n: i64, s: Option<&str>, nanos: i64) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![n])),
            Arc::new(StringArray::from(vec![s])),
            Arc::new(TimestampNanosecondArray::from(vec![
                2_998_574_931_000_000_000 + nanos,
            ])),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }
}
