//! `test request_plugin`: as if an HTTP request had come.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde::Serialize;

use super::CommonArgs;
use crate::arguments;

/// `test request_plugin`.
#[derive(Debug, Args)]
pub(crate) struct TestRequest {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    pub(super) event: RequestArgs,
}

/// The request.
#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// A parameter of the query string; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = arguments::pair)]
    query: Vec<(String, String)>,
    /// A header; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = arguments::pair)]
    header: Vec<(String, String)>,
    /// The body
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    body: Option<String>,
    /// A file on this machine with the body
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
}

/// The request as it is sent.
#[derive(Debug, Default, Serialize)]
pub(super) struct RequestEvent {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// Of a body that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl TestRequest {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let event = self.event.read()?;
        self.common.run("request", event).await
    }
}

impl RequestArgs {
    pub(super) fn read(self) -> anyhow::Result<RequestEvent> {
        let mut event = RequestEvent {
            query: self.query.into_iter().collect(),
            headers: self.header.into_iter().collect(),
            body: self.body,
            body_base64: None,
        };
        if let Some(path) = self.body_file {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            match String::from_utf8(bytes) {
                Ok(text) => event.body = Some(text),
                Err(error) => event.body_base64 = Some(STANDARD.encode(error.as_bytes())),
            }
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::tests::body;
    use crate::args::tests::refusal;

    const START: [&str; 5] = ["test", "request_plugin", "-d", "db", "p.py"];

    #[test]
    fn a_request_is_sent_as_it_is_typed() {
        let typed = [
            "--query", "a=1,2", "--query", "b=x=y", "--header", "X-Key=k", "--body", "text",
        ];
        let expected = json!({
            "filename": "p.py",
            "database": "db",
            "query": { "a": "1,2", "b": "x=y" },
            "headers": { "X-Key": "k" },
            "body": "text",
        });
        assert_eq!(body(&[&START[..], &typed].concat()).unwrap(), expected);
        let bad = refusal(&[&START[..], &["--query", "a"]].concat());
        assert!(bad.contains("key=value"), "{bad}");
    }

    #[test]
    fn a_body_may_be_a_file_and_no_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("body");
        let name = path.to_str().unwrap();
        for (content, field, value) in [
            (&b"text"[..], "body", "text"),
            (b"\xff\0", "body_base64", "/wA="),
        ] {
            fs::write(&path, content).unwrap();
            let body = body(&[&START[..], &["--body-file", name]].concat()).unwrap();
            assert_eq!(body[field], value, "{body}");
        }
    }
}
