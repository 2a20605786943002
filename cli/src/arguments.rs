//! How a plugin's arguments and time limits are typed, wherever a command takes them.

use std::collections::BTreeMap;

use serde_json::Value;

/// Arguments for a plugin.
pub(crate) type Arguments = BTreeMap<String, String>;

/// Reads `key=value,key2=value2`, or a JSON object of scalars.
pub(crate) fn parse(text: &str) -> Result<Arguments, String> {
    if text.trim_start().starts_with('{') {
        let object: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
        return object.into_iter().map(json_argument).map(named).collect();
    }
    text.split(',').map(pair).map(named).collect()
}

/// Refuses an argument that the plugin could not ask for.
fn named(argument: Result<(String, String), String>) -> Result<(String, String), String> {
    let (key, value) = argument?;
    if key.trim().is_empty() {
        return Err(format!("the argument with the value {value:?} has no name"));
    }
    Ok((key, value))
}

/// Reads one `key=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("must be formatted as \"key=value\"")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// All that were given, or none.
pub(crate) fn join(arguments: Vec<Arguments>) -> Option<Arguments> {
    let arguments: Arguments = arguments.into_iter().flatten().collect();
    (!arguments.is_empty()).then_some(arguments)
}

/// Checks a duration before anything is sent; the server reads it in the same way.
pub(crate) fn parse_duration(text: &str) -> Result<String, humantime::DurationError> {
    humantime::parse_duration(text).map(|_| text.to_owned())
}

fn json_argument((key, value): (String, Value)) -> Result<(String, String), String> {
    match value {
        Value::String(text) => Ok((key, text)),
        Value::Bool(_) | Value::Number(_) => Ok((key, value.to_string())),
        _ => Err(format!(
            "argument {key:?} must be a string, a number or a boolean"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = [("a", "1"), ("b", "x=y")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let expected = Arguments::from(expected);
        assert_eq!(parse("a=1,b=x=y").as_ref(), Ok(&expected));
        assert_eq!(parse(r#" {"a": 1, "b": "x=y"}"#), Ok(expected));
        assert!(parse(r#"{"a": [1]}"#).is_err());
        assert!(parse("a=1,b").is_err());
        for unnamed in ["=5", "a=1, =5", r#"{"": 5}"#] {
            let error = parse(unnamed).unwrap_err();
            assert_eq!(error, "the argument with the value \"5\" has no name");
        }
        assert_eq!(
            pair("=5"),
            Ok((String::new(), "5".to_owned())),
            "of a query"
        );
    }

    #[test]
    fn no_arguments_are_none() {
        assert_eq!(join(Vec::new()), None);
        let given = vec![parse("a=1").unwrap(), parse("b=2").unwrap()];
        assert_eq!(join(given).map(|arguments| arguments.len()), Some(2));
    }
}
