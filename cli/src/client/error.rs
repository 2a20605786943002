//! Why a request did not succeed, told so that the user can act on it.

use std::{error::Error, fmt, io, path::PathBuf};

use reqwest::{StatusCode, Url};
use serde::Deserialize;

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    /// The file named by `--tls-ca` could not be read.
    #[error("read the CA certificate {}", path.display())]
    ReadCertificate {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file named by `--tls-ca` holds no certificate.
    #[error("{} is not a CA certificate", path.display())]
    InvalidCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The HTTP client refused its settings.
    #[error("set up the HTTP client")]
    Setup {
        /// What it did not like.
        source: reqwest::Error,
    },
    /// There is no connection, so the server has seen nothing.
    #[error("could not connect to {host}")]
    Unreachable {
        /// The URL that was tried.
        host: Url,
        /// The innermost reason.
        source: RootCause,
    },
    /// The server is there, but there is no TLS with it.
    #[error("could not agree on TLS with {host}")]
    Tls {
        /// The URL that was tried.
        host: Url,
        /// What is not as it should be.
        source: Box<rustls::Error>,
    },
    /// The connection broke: the server may or may not have done what it was asked to.
    #[error("the exchange with {host} broke off")]
    BrokenOff {
        /// The server's URL.
        host: Url,
        /// The innermost reason.
        source: RootCause,
    },
    /// What answered is probably not our server.
    #[error("the answer of {host} is not JSON")]
    NotJson {
        /// The server's URL.
        host: Url,
        /// Where it stops being JSON.
        source: serde_json::Error,
    },
    /// The server refused or failed.
    #[error("server responded with error [{status}]{message}")]
    Api {
        /// The status of the answer.
        status: StatusCode,
        /// What the body says.
        message: ApiMessage,
    },
}

impl ClientError {
    /// Tells a server that was never reached from an exchange that was interrupted.
    pub(super) fn from_transport(host: &Url, error: reqwest::Error) -> Self {
        let host = host.clone();
        if let Some(source) = find_tls_error(&error) {
            return Self::Tls { host, source };
        }
        if error.is_connect() {
            let source = RootCause::of(&error);
            return Self::Unreachable { host, source };
        }
        let source = RootCause::of(&error);
        Self::BrokenOff { host, source }
    }

    /// Reads the body of an answer whose status is not a success.
    pub(crate) fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        let message = ApiMessage::from_body(body);
        Self::Api { status, message }
    }

    /// What the user could try.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some(
                "start a server with `influxdb3 serve`, or name another one with --host \
                 or in INFLUXDB3_HOST_URL",
            ),
            Self::Tls { .. } => Some(
                "name the authority that signed the server's certificate with --tls-ca, \
                 or use http:// if the server has none",
            ),
            Self::Api {
                status: StatusCode::UNAUTHORIZED,
                ..
            } => Some("pass a valid token with --token or in INFLUXDB3_AUTH_TOKEN"),
            _ => None,
        }
    }
}

/// Why a file is not the certificate of an authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    /// There is no PEM section in it that says `CERTIFICATE`.
    #[error("it contains no PEM certificate")]
    None,
    /// A PEM section is damaged.
    #[error(transparent)]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate is damaged.
    #[error(transparent)]
    Invalid(#[from] rustls::Error),
    /// The HTTP client did not take a certificate.
    #[error(transparent)]
    Refused(#[from] reqwest::Error),
}

fn find_tls_error(error: &(dyn Error + 'static)) -> Option<Box<rustls::Error>> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(Box::new(tls.clone()));
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            // Its `source` would skip the error that it wraps.
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The end of an error's chain. The layers above it repeat each other and name our libraries.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RootCause(String);

impl RootCause {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self(cause.to_string())
    }
}

/// What a body says about a failure, each bad line of a write included.
#[derive(Debug)]
pub(crate) struct ApiMessage {
    text: String,
    lines: Vec<BadLine>,
}

impl ApiMessage {
    fn from_body(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Body>(body) else {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            return Self {
                text,
                lines: Vec::new(),
            };
        };
        let lines = match body.data {
            None => Vec::new(),
            // One line when nothing was stored, a list of them after a partial write.
            Some(serde_json::Value::Array(lines)) => lines,
            Some(line) => vec![line],
        };
        let lines = lines
            .into_iter()
            // Details of another shape are no reason to hide the message.
            .filter_map(|line| serde_json::from_value(line).ok())
            .collect();
        Self {
            text: body.message,
            lines,
        }
    }
}

impl fmt::Display for ApiMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        for line in &self.lines {
            write!(
                f,
                "\nline {}: {} (original: \"{}\")",
                line.line_number,
                line.error_message,
                line.original_line.escape_debug()
            )?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(alias = "error")]
    message: String,
    data: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct BadLine {
    error_message: String,
    line_number: u64,
    #[serde(default)]
    original_line: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: &str) {
        let status = StatusCode::from_u16(status).expect("a status");
        let error = ClientError::from_answer(status, body.as_bytes());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn text_is_shown_as_it_is() {
        check(
            409,
            "attempted to create a resource that already exists",
            "server responded with error [409 Conflict]: \
             attempted to create a resource that already exists",
        );
        check(404, "", "server responded with error [404 Not Found]");
    }

    #[test]
    fn the_message_is_taken_out_of_json() {
        let expected = "server responded with error [400 Bad Request]: no";
        check(400, r#"{"error":"no"}"#, expected);
        check(400, r#"{"code":"invalid","message":"no"}"#, expected);
        check(400, r#"{"error":"no","data":"of another shape"}"#, expected);
    }

    #[test]
    fn json_without_a_message_is_shown_as_it_is() {
        check(
            400,
            r#"["no"]"#,
            r#"server responded with error [400 Bad Request]: ["no"]"#,
        );
    }

    #[test]
    fn every_bad_line_of_a_partial_write_is_shown() {
        check(
            400,
            r#"{"error":"partial write of line protocol occurred","data":[
                {"error_message":"no fields","line_number":2,"original_line":"cpu"},
                {"error_message":"bad tag","line_number":7,"original_line":"a,\"b"}]}"#,
            "server responded with error [400 Bad Request]: \
             partial write of line protocol occurred\n\
             line 2: no fields (original: \"cpu\")\n\
             line 7: bad tag (original: \"a,\\\"b\")",
        );
    }

    #[test]
    fn the_one_bad_line_of_a_refused_write_is_shown() {
        check(
            400,
            r#"{"error":"line protocol parsing error","data":
                {"error_message":"no fields","line_number":1,"original_line":"cpu"}}"#,
            "server responded with error [400 Bad Request]: line protocol parsing error\n\
             line 1: no fields (original: \"cpu\")",
        );
    }
}
