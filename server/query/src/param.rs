//! Which values a query's `$name` placeholders may get.

use std::collections::{BTreeMap, HashMap};

use datafusion::{common::ParamValues, scalar::ScalarValue};
use serde_json::Value;

/// The value of a placeholder.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// No value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An integer above the largest signed one.
    Uint(u64),
    /// A number with a fraction.
    Float(f64),
    /// Text; also compares with tags and, if it reads like one, with a time.
    Text(String),
}

/// A JSON value that no placeholder can have.
#[derive(Debug, thiserror::Error)]
#[error("parameters must be strings, numbers, booleans or null, got {0}")]
pub struct ParamError(&'static str);

impl TryFrom<Value> for Param {
    type Error = ParamError;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Null => Ok(Self::Null),
            Value::Bool(value) => Ok(Self::Bool(value)),
            Value::Number(number) => number
                .as_i64()
                .map(Self::Int)
                .or_else(|| number.as_u64().map(Self::Uint))
                .or_else(|| number.as_f64().map(Self::Float))
                .ok_or(ParamError("a number that is out of range")),
            Value::String(text) => Ok(Self::Text(text)),
            Value::Array(_) => Err(ParamError("an array")),
            Value::Object(_) => Err(ParamError("an object")),
        }
    }
}

impl From<Param> for ScalarValue {
    fn from(param: Param) -> Self {
        match param {
            Param::Null => Self::Null,
            Param::Bool(value) => Self::Boolean(Some(value)),
            Param::Int(value) => Self::Int64(Some(value)),
            Param::Uint(value) => Self::UInt64(Some(value)),
            Param::Float(value) => Self::Float64(Some(value)),
            Param::Text(value) => Self::Utf8(Some(value)),
        }
    }
}

/// The parameters as DataFusion takes them. A leading `$` of a name is dropped.
pub(crate) fn values(params: BTreeMap<String, Param>) -> ParamValues {
    let scalars: HashMap<String, ScalarValue> = params
        .into_iter()
        .map(|(name, param)| {
            let name = name.strip_prefix('$').map_or(name.clone(), str::to_owned);
            (name, param.into())
        })
        .collect();
    scalars.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_scalars_become_parameters() {
        check(json!(null), Param::Null);
        check(json!(-3), Param::Int(-3));
        check(json!(u64::MAX), Param::Uint(u64::MAX));
        check(json!(1.5), Param::Float(1.5));
        check(json!("x"), Param::Text("x".to_owned()));
        assert!(Param::try_from(json!([1])).is_err());
    }

    #[track_caller]
    fn check(json: Value, expected: Param) {
        assert_eq!(Param::try_from(json).unwrap(), expected);
    }
}
