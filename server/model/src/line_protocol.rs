//! What points a text of line protocol holds. The grammar is the
//! `influxdb_line_protocol` crate's; this adds precision, limits and errors per line.
//!
//! Deliberately knows no schema: whether a line fits its table is decided in `storage`.

use std::{collections::HashSet, str::FromStr};

use influxdb_line_protocol::{
    Error as GrammarError, FieldValue, ParsedLine, parse_lines, split_lines,
};

use crate::{
    clock::Timestamp,
    schema::{COLUMNS_MAX, ColumnType, TIME_COLUMN},
};

/// The longest text field, in bytes.
pub const STRING_BYTES_MAX: usize = 1024 * 1024;

/// How long the quotation of a bad line may be, in bytes.
const ORIGINAL_LINE_BYTES_MAX: usize = 20;

/// The unit of timestamps in a text of line protocol.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Precision {
    /// Told from the magnitude of each timestamp.
    #[default]
    Auto,
    /// Nanoseconds.
    Nanosecond,
    /// Microseconds.
    Microsecond,
    /// Milliseconds.
    Millisecond,
    /// Seconds.
    Second,
}

/// A precision that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("unknown precision {0:?}, expected one of auto, ns, us, ms, s")]
pub struct PrecisionError(String);

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "ns" | "n" | "nanosecond" => Ok(Self::Nanosecond),
            "us" | "u" | "microsecond" => Ok(Self::Microsecond),
            "ms" | "millisecond" => Ok(Self::Millisecond),
            "s" | "second" => Ok(Self::Second),
            other => Err(PrecisionError(other.to_owned())),
        }
    }
}

impl Precision {
    fn nanoseconds(self, timestamp: i64) -> i64 {
        match self {
            Self::Nanosecond => 1,
            Self::Microsecond => 1_000,
            Self::Millisecond => 1_000_000,
            Self::Second => 1_000_000_000,
            // The contract's bounds: up to the year 2128 in each unit.
            Self::Auto => match timestamp.unsigned_abs() / 1_000_000_000 {
                0..5 => 1_000_000_000,
                5..5_000 => 1_000_000,
                5_000..5_000_000 => 1_000,
                _ => 1,
            },
        }
    }

    /// A timestamp in nanoseconds; `None` if it does not fit.
    fn scale(self, timestamp: i64) -> Option<i64> {
        timestamp.checked_mul(self.nanoseconds(timestamp))
    }

    /// The time of a point that has none: `now`, cut to this precision.
    fn truncate(self, now: Timestamp) -> i64 {
        let unit = if self == Self::Auto {
            1
        } else {
            self.nanoseconds(0)
        };
        now.0 - now.0.rem_euclid(unit)
    }
}

/// A line that was refused, as the API reports it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line_number}: {message}")]
pub struct LineError {
    /// The first line is 1; blank lines and comments are not counted.
    pub line_number: usize,
    /// The beginning of the line, at most 20 bytes.
    pub original_line: String,
    /// What is wrong with it.
    pub message: String,
    /// Whether it is a limit that the line would exceed.
    pub limit: bool,
}

/// A value of a tag or field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Of a tag.
    Tag(&'a str),
    /// `42i`
    Int64(i64),
    /// `42u`
    Uint64(u64),
    /// `4.2`
    Float64(f64),
    /// `"text"`
    Utf8(&'a str),
    /// `true`
    Bool(bool),
}

impl Value<'_> {
    /// The type of a column that holds such values.
    pub fn column_type(&self) -> ColumnType {
        match self {
            Self::Tag(_) => ColumnType::Tag,
            Self::Int64(_) => ColumnType::Int64,
            Self::Uint64(_) => ColumnType::Uint64,
            Self::Float64(_) => ColumnType::Float64,
            Self::Utf8(_) => ColumnType::Utf8,
            Self::Bool(_) => ColumnType::Bool,
        }
    }
}

/// One point, with everything checked that can be checked without a schema.
#[derive(Debug)]
pub struct Point<'a> {
    parsed: ParsedLine<'a>,
    /// Nanoseconds since the epoch.
    pub time_ns: i64,
    /// As in [`LineError`].
    pub line_number: usize,
    original_line: &'a str,
}

impl Point<'_> {
    /// The table the point goes to.
    pub fn table(&self) -> &str {
        &self.parsed.series.measurement
    }

    /// Tags, then fields, each in the order written.
    pub fn values(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let tags = self.parsed.series.tag_set.iter().flatten();
        let fields = self.parsed.field_set.iter();
        tags.map(|(key, value)| (key.as_str(), Value::Tag(value)))
            .chain(fields.map(|(key, value)| {
                let value = match value {
                    FieldValue::I64(value) => Value::Int64(*value),
                    FieldValue::U64(value) => Value::Uint64(*value),
                    FieldValue::F64(value) => Value::Float64(*value),
                    FieldValue::String(value) => Value::Utf8(value),
                    FieldValue::Boolean(value) => Value::Bool(*value),
                };
                (key.as_str(), value)
            }))
    }

    /// An error about this line.
    pub fn refuse(&self, message: String) -> LineError {
        self.error(message, false)
    }

    /// An error about this line, which would exceed a limit.
    pub fn exceed(&self, message: String) -> LineError {
        self.error(message, true)
    }

    fn error(&self, message: String, limit: bool) -> LineError {
        LineError {
            line_number: self.line_number,
            original_line: quote(self.original_line),
            message,
            limit,
        }
    }
}

/// The lines of `text` as they are written, without blank ones and comments. A newline in
/// a text field does not end a line.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    split_lines(text)
        .filter(|line| parse_lines(line).next().is_some())
        .map(str::trim)
}

/// The points of `text`, one result per line that is neither blank nor a comment.
/// Points without a timestamp get `now`.
pub fn parse(
    text: &str,
    precision: Precision,
    now: Timestamp,
) -> impl Iterator<Item = Result<Point<'_>, LineError>> {
    split_lines(text)
        .filter_map(|line| parse_lines(line).next().map(|parsed| (line, parsed)))
        .enumerate()
        .map(move |(index, (line, parsed))| {
            let line_number = index + 1;
            let refuse = |message| LineError {
                line_number,
                original_line: quote(line),
                message,
                limit: false,
            };
            let parsed = parsed.map_err(|error| refuse(explain(&error)))?;
            check(&parsed).map_err(refuse)?;
            let time_ns = match parsed.timestamp {
                None => precision.truncate(now),
                Some(timestamp) => precision
                    .scale(timestamp)
                    .ok_or_else(|| refuse(format!("timestamp, {timestamp}, out of range")))?,
            };
            Ok(Point {
                parsed,
                time_ns,
                line_number,
                original_line: line,
            })
        })
}

/// What the grammar says about a bad line, or the grammar itself where it only says that it failed.
fn explain(error: &GrammarError) -> String {
    match error {
        GrammarError::GenericParsingError { .. } => {
            "expected measurement[,tag=value] field=value[,field=value] [timestamp]".to_owned()
        }
        other => other.to_string(),
    }
}

/// Rules that need no schema and that the grammar leaves open.
fn check(line: &ParsedLine<'_>) -> Result<(), String> {
    let columns = line.column_count() - 1;
    if columns > COLUMNS_MAX {
        return Err(format!(
            "line has {columns} tags and fields, the limit is {COLUMNS_MAX}"
        ));
    }
    let mut names: HashSet<&str> = HashSet::with_capacity(columns);
    for (key, _) in line.series.tag_set.iter().flatten() {
        check_name(&mut names, key, "tag")?;
    }
    for (key, value) in &line.field_set {
        check_name(&mut names, key, "field")?;
        match value {
            FieldValue::String(text) if text.len() > STRING_BYTES_MAX => {
                return Err(format!("String is greater than 1MB in field '{key}'"));
            }
            FieldValue::F64(value) if !value.is_finite() => {
                return Err(format!("float value of field '{key}' is out of range"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_name<'a>(seen: &mut HashSet<&'a str>, key: &'a str, what: &str) -> Result<(), String> {
    if key == TIME_COLUMN {
        return Err(format!(
            "'{TIME_COLUMN}' is reserved and cannot be the name of a {what}"
        ));
    }
    if !seen.insert(key) {
        return Err(format!(
            "invalid line protocol - multiple instances of '{key}' {what} found"
        ));
    }
    Ok(())
}

fn quote(line: &str) -> String {
    let line = line.trim_start();
    let mut end = line.len().min(ORIGINAL_LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_123_456_789);

    #[test]
    fn tags_come_before_fields_in_the_order_written() {
        let points = parse_all("cpu,host=a,dc=b load=1.5,n=3i 7", Precision::Nanosecond);
        let point = points[0].as_ref().unwrap();
        let names: Vec<_> = point.values().map(|(name, _)| name).collect();
        assert_eq!(
            (point.table(), names),
            ("cpu", vec!["host", "dc", "load", "n"])
        );
        assert_eq!(point.time_ns, 7);
    }

    #[test]
    fn auto_precision_reads_the_magnitude() {
        check_time(1_600_000_000, Precision::Auto, 1_600_000_000_000_000_000);
        check_time(
            1_600_000_000_123,
            Precision::Auto,
            1_600_000_000_123_000_000,
        );
        check_time(
            1_600_000_000_123_456,
            Precision::Auto,
            1_600_000_000_123_456_000,
        );
        check_time(
            1_600_000_000_123_456_789,
            Precision::Auto,
            1_600_000_000_123_456_789,
        );
        check_time(-5, Precision::Millisecond, -5_000_000);
    }

    #[test]
    fn a_missing_time_is_now_in_the_stated_precision() {
        let points = parse_all("m f=1", Precision::Millisecond);
        assert_eq!(
            points[0].as_ref().unwrap().time_ns,
            1_700_000_000_123_000_000
        );
    }

    #[test]
    fn comments_and_blank_lines_are_not_counted() {
        let points = parse_all("# c\n\nm f=1\n  \nbroken\n", Precision::Auto);
        assert_eq!(points.len(), 2);
        assert_eq!(points[1].as_ref().unwrap_err().line_number, 2);
    }

    #[test]
    fn a_text_is_cut_where_its_lines_end() {
        let found: Vec<_> = lines("# c\n m s=\"a\nb\" 1\n\nbroken\nn f=1").collect();
        assert_eq!(found, ["m s=\"a\nb\" 1", "broken", "n f=1"]);
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        check_refused("m,host=a,host=b f=1", "host");
        check_refused("m f=1,f=2", "multiple instances of 'f' field found");
        check_refused("m,f=a f=2", "multiple instances of 'f' field found");
        check_refused("m,time=a f=2", "'time' is reserved");
        check_refused("m f=1e999", "field 'f' is out of range");
        check_refused("m f=1 9223372036854775807000", "timestamp");
        check_refused("m,t=1", "expected measurement[,tag=value] field=value");
    }

    #[test]
    fn the_quotation_is_cut_between_characters() {
        assert_eq!(quote("äääääääääääääää"), "ä".repeat(10));
        assert_eq!(quote("1234567890123456789ä"), "1234567890123456789");
    }

    fn parse_all(text: &str, precision: Precision) -> Vec<Result<Point<'_>, LineError>> {
        parse(text, precision, NOW).collect()
    }

    #[track_caller]
    fn check_time(given: i64, precision: Precision, expected: i64) {
        let text = format!("m f=1 {given}");
        let points = parse_all(&text, precision);
        assert_eq!(points[0].as_ref().unwrap().time_ns, expected);
    }

    #[track_caller]
    fn check_refused(line: &str, part: &str) {
        let points = parse_all(line, Precision::Auto);
        let error = points[0].as_ref().expect_err(line);
        assert!(error.message.contains(part), "{}", error.message);
    }
}
