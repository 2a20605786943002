//! How a command is told where the server is and which database it is about.

use std::{fmt, path::PathBuf};

use clap::{Args, builder::BoolishValueParser};
use reqwest::Url;

/// Where the server is and how to be let in.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server's URL
    #[arg(
        short = 'H',
        long = "host",
        env = "INFLUXDB3_HOST_URL",
        default_value = "http://127.0.0.1:8181",
        value_name = "URL",
        value_parser = parse_url
    )]
    pub(crate) host: Url,
    /// The token to authenticate with
    #[arg(
        long,
        env = "INFLUXDB3_AUTH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<Token>,
    /// A certificate authority to trust besides the system's: PEM, or DER if named `*.der`
    #[arg(long, env = "INFLUXDB3_TLS_CA", value_name = "PATH")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Accept any certificate. Whoever is in between can then read and change everything
    #[arg(long, env = "INFLUXDB3_TLS_NO_VERIFY", value_parser = BoolishValueParser::new())]
    pub(crate) tls_no_verify: bool,
}

/// Which database.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// The database
    #[arg(
        short = 'd',
        long = "database",
        alias = "db",
        env = "INFLUXDB3_DATABASE_NAME",
        value_name = "DATABASE_NAME"
    )]
    pub(crate) database: String,
}

/// A secret that debug output does not show.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The secret itself; an empty one, as in `INFLUXDB3_AUTH_TOKEN=`, counts as none.
    pub(crate) fn secret(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|secret| !secret.is_empty())
    }
}

impl From<&str> for Token {
    fn from(secret: &str) -> Self {
        Self(secret.trim().to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The `value_parser` of every option that takes a server's URL.
pub(crate) fn parse_url(text: &str) -> Result<Url, String> {
    let url = text.parse::<Url>().map_err(|error| error.to_string());
    match url {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err("must start with http:// or https://".to_owned()),
        Err(_) if !text.contains("://") => Err(format!(
            "must start with http:// or https://, as in http://{text}"
        )),
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_needs_its_scheme() {
        assert!(parse_url("https://example.com:8181/influx").is_ok());
        check_refused("localhost:8181", "must start with http:// or https://");
        check_refused("127.0.0.1:8181", "as in http://127.0.0.1:8181");
        check_refused("ftp://example.com", "must start with http:// or https://");
        check_refused("http://", "empty host");
    }

    #[track_caller]
    fn check_refused(text: &str, reason: &str) {
        let problem = parse_url(text).expect_err("the URL must be refused");
        assert!(problem.contains(reason), "{problem}");
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::from("apiv3_secret\n");
        assert_eq!(token.secret(), Some("apiv3_secret"));
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_eq!(Token::from("").secret(), None);
    }
}
