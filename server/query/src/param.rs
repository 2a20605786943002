//! Which values a query's `$name` placeholders may get.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field};
use datafusion::{common::ParamValues, scalar::ScalarValue};
use serde_json::{Number, Value};

use crate::{QueryError, error::EngineError};

/// How deep lists and objects may be nested.
const DEPTH_MAX: usize = 16;

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
    /// A list; its items become one type.
    List(Vec<Param>),
    /// What has no type of its own in SQL: its JSON text, names in order.
    Map(BTreeMap<String, Param>),
}

/// A value that no placeholder can have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// Beyond all numbers there are here.
    #[error("a number is out of range")]
    OutOfRange,
    /// Lists in lists in lists.
    #[error("lists and objects can be nested {DEPTH_MAX} levels deep at most")]
    TooDeep,
    /// The items of a list have nothing in common.
    #[error(
        "the items of a list must have one type, and this one has {0} and {1}; numbers of \
         several types are fine"
    )]
    Mixed(DataType, DataType),
    /// One of its items does not fit into the type of the others.
    #[error("make a list of {kind}")]
    Item {
        /// What the items were to become.
        kind: DataType,
        /// Which one could not.
        source: EngineError,
    },
}

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
                .ok_or(ParamError::OutOfRange),
            Value::String(text) => Ok(Self::Text(text)),
            Value::Array(items) => {
                let items = items.into_iter().map(Self::try_from);
                items.collect::<Result<_, _>>().map(Self::List)
            }
            Value::Object(members) => {
                let members = members.into_iter();
                let members = members.map(|(name, value)| Ok((name, Self::try_from(value)?)));
                members.collect::<Result<_, _>>().map(Self::Map)
            }
        }
    }
}

impl Param {
    fn into_scalar(self) -> Result<ScalarValue, ParamError> {
        Ok(match self {
            Self::Null => ScalarValue::Null,
            Self::Bool(value) => ScalarValue::Boolean(Some(value)),
            Self::Int(value) => ScalarValue::Int64(Some(value)),
            Self::Uint(value) => ScalarValue::UInt64(Some(value)),
            Self::Float(value) => ScalarValue::Float64(Some(value)),
            Self::Text(value) => ScalarValue::Utf8(Some(value)),
            Self::List(items) => list(items)?,
            map @ Self::Map(_) => ScalarValue::Utf8(Some(map.into_json()?.to_string())),
        })
    }

    fn into_json(self) -> Result<Value, ParamError> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::Uint(value) => value.into(),
            // JSON has no infinity.
            Self::Float(value) => Number::from_f64(value)
                .ok_or(ParamError::OutOfRange)?
                .into(),
            Self::Text(value) => value.into(),
            Self::List(items) => {
                let items = items.into_iter().map(Self::into_json);
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Self::Map(members) => {
                let members = members.into_iter();
                let members = members.map(|(name, value)| Ok((name, value.into_json()?)));
                Value::Object(members.collect::<Result<_, _>>()?)
            }
        })
    }

    /// Checks how deep it is, at which whoever decoded it has not looked closely.
    fn check_depth(&self, left: usize) -> Result<(), ParamError> {
        let left = || left.checked_sub(1).ok_or(ParamError::TooDeep);
        match self {
            Self::List(items) => {
                let left = left()?;
                items.iter().try_for_each(|item| item.check_depth(left))
            }
            Self::Map(members) => {
                let left = left()?;
                let mut members = members.values();
                members.try_for_each(|member| member.check_depth(left))
            }
            _ => Ok(()),
        }
    }
}

fn list(items: Vec<Param>) -> Result<ScalarValue, ParamError> {
    let items = items.into_iter().map(Param::into_scalar);
    let items: Vec<ScalarValue> = items.collect::<Result<_, _>>()?;
    let kind = items.iter().try_fold(DataType::Null, |kind, item| {
        let other = item.data_type();
        common(&kind, &other).ok_or(ParamError::Mixed(kind, other))
    })?;
    let cast = |item: ScalarValue| {
        item.cast_to(&kind).map_err(|error| ParamError::Item {
            kind: kind.clone(),
            source: error.into(),
        })
    };
    let items: Vec<ScalarValue> = items.into_iter().map(cast).collect::<Result<_, _>>()?;
    let array = ScalarValue::new_list(&items, &kind, true);
    Ok(ScalarValue::List(array))
}

/// The type of a list that has items of both types.
fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Float64, Int64, List, Null, UInt64};
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        (Float64, Int64 | UInt64) | (Int64 | UInt64, Float64) => Some(Float64),
        (Int64, UInt64) | (UInt64, Int64) => Some(UInt64),
        (List(a), List(b)) => {
            let items = common(a.data_type(), b.data_type())?;
            Some(List(Arc::new(Field::new_list_field(items, true))))
        }
        _ => None,
    }
}

/// The parameters as DataFusion takes them. A leading `$` of a name is dropped.
pub(crate) fn values(params: BTreeMap<String, Param>) -> Result<ParamValues, QueryError> {
    let scalar = |(name, param): (String, Param)| {
        let checked = param.check_depth(DEPTH_MAX);
        match checked.and_then(|()| param.into_scalar()) {
            Ok(scalar) => {
                let name = name.strip_prefix('$').map_or(name.clone(), str::to_owned);
                Ok((name, scalar))
            }
            Err(source) => Err(QueryError::Parameter { name, source }),
        }
    };
    let scalars: HashMap<String, ScalarValue> =
        params.into_iter().map(scalar).collect::<Result<_, _>>()?;
    Ok(scalars.into())
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
        let members = BTreeMap::from([("a".to_owned(), Param::Null)]);
        let list = vec![Param::Int(1), Param::Map(members)];
        check(json!([1, { "a": null }]), Param::List(list));
    }

    #[test]
    fn a_list_has_one_type() {
        check_list(json!(["a", null]), "List(Utf8): [a, ]");
        check_list(json!([1, 2.5, null]), "List(Float64): [1.0, 2.5, ]");
        check_list(
            json!([1, u64::MAX]),
            "List(UInt64): [1, 18446744073709551615]",
        );
        check_list(json!([]), "List(Null): []");
        check_list(json!([[], [1]]), "List(List(Int64)): [[], [1]]");
        check_list(
            json!([{ "b": 1, "a": [1.5] }]),
            "List(Utf8): [{\"a\":[1.5],\"b\":1}]",
        );
        check_refused(json!([1, "a"]), "has Int64 and Utf8");
        check_refused(json!([[1], 1]), "has List");
        check_refused(json!([-1, u64::MAX]), "make a list of UInt64");
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(scalar(nested(DEPTH_MAX)).is_ok());
        check_refused(nested(DEPTH_MAX + 1), "16 levels deep at most");
    }

    fn scalar(json: Value) -> Result<ScalarValue, QueryError> {
        let param = Param::try_from(json).unwrap();
        let bound = values(BTreeMap::from([("p".to_owned(), param)]))?;
        let ParamValues::Map(mut bound) = bound else {
            panic!("{bound:?}");
        };
        Ok(bound.remove("p").unwrap().value)
    }

    #[track_caller]
    fn check_list(json: Value, expected: &str) {
        let scalar = scalar(json).unwrap();
        assert_eq!(format!("{}: {scalar}", scalar.data_type()), expected);
    }

    #[track_caller]
    fn check_refused(json: Value, expected: &str) {
        let refused = scalar(json).unwrap_err();
        let text = outrigger_model::error::Report(&refused).to_string();
        assert!(text.starts_with("parameter \"p\": "), "{text}");
        assert!(text.contains(expected), "{text}");
    }

    #[track_caller]
    fn check(json: Value, expected: Param) {
        assert_eq!(Param::try_from(json).unwrap(), expected);
    }
}
