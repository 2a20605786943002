//! How a plugin is fetched from a repository: what `gh:<path>` means.
//!
//! Any HTTP server can be one. The answer is bounded in size and time, and is refused
//! unless it is text that can be source. Deliberately knows nothing of what becomes of it.

use std::{fmt, str::FromStr, time::Duration};

use bytes::{Bytes, BytesMut};
use outrigger_model::error::ErrorKind;
use reqwest::{
    Client, ClientBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::{Attempt, Policy},
};

use crate::source::SOURCE_BYTES_MAX;

/// What a plugin from the repository begins with.
pub(crate) const PREFIX: &str = "gh:";

/// The longest path of a plugin.
const PATH_BYTES_MAX: usize = 1024;
/// How often the repository may send us elsewhere.
const REDIRECTS_MAX: usize = 5;
/// How long to try to reach it.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A repository's URL that is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "must be a URL that begins with http:// or https:// and has neither a query nor a fragment"
)]
pub struct RepositoryUrlError;

/// Where the paths of `gh:` plugins begin. May hold credentials, which are never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct RepositoryUrl(Url);

impl FromStr for RepositoryUrl {
    type Err = RepositoryUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = text.parse::<Url>().or(Err(RepositoryUrlError))?;
        let is_plain = url.query().is_none() && url.fragment().is_none();
        if matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain {
            Ok(Self(url))
        } else {
            Err(RepositoryUrlError)
        }
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryUrl({self})")
    }
}

/// Why there is no source. The first words are what existing scripts look for; no text
/// holds credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The path cannot name a file of the repository.
    #[error("invalid plugin path {path:?}: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The repository has no such file.
    #[error(
        "error fetching plugin from repository: {status} {url} (gh: takes the path of one file, not \
         of a directory)"
    )]
    Missing {
        /// Its answer.
        status: StatusCode,
        /// What was asked for.
        url: String,
    },
    /// The repository refused.
    #[error("error fetching plugin from repository: {status} {url}")]
    Status {
        /// Its answer.
        status: StatusCode,
        /// What was asked for.
        url: String,
    },
    /// There was no answer, or not to its end.
    #[error("error fetching plugin from repository: no answer from {url}")]
    Request {
        /// What was asked for.
        url: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("error fetching plugin from repository: {url} took longer than {timeout:?}")]
    Deadline {
        /// What was asked for.
        url: String,
        /// How long it might take.
        timeout: Duration,
    },
    /// The answer is too large.
    #[error("error fetching plugin from repository: {url} is larger than {SOURCE_BYTES_MAX}")]
    TooLarge {
        /// What was asked for.
        url: String,
    },
    /// The answer is not source.
    #[error(
        "error fetching plugin from repository: {url} is {what}, not the source of one plugin file"
    )]
    NotSource {
        /// What was asked for.
        url: String,
        /// What it is instead.
        what: &'static str,
    },
}

impl FetchError {
    /// What kind of failure it is: what the client can mend is the client's.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Path { .. }
            | Self::Missing { .. }
            | Self::TooLarge { .. }
            | Self::NotSource { .. } => ErrorKind::Invalid,
            Self::Status { .. } | Self::Request { .. } => ErrorKind::Unavailable,
            Self::Deadline { .. } => ErrorKind::Deadline,
        }
    }
}

/// A repository of plugins.
#[derive(Clone, Debug)]
pub struct Repository {
    url: RepositoryUrl,
    timeout: Duration,
}

impl Repository {
    /// The repository at `url`; one file may take `timeout`.
    pub fn new(url: RepositoryUrl, timeout: Duration) -> Self {
        Self { url, timeout }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &RepositoryUrl {
        &self.url
    }

    /// Fetches a file; `path` is what follows `gh:`.
    pub(crate) async fn fetch(&self, path: &str) -> Result<Bytes, FetchError> {
        let url = self.file(path)?;
        let name = shown(&url);
        let failed = |error| self.failed(&name, error);
        let client = self.client().map_err(failed)?;
        let response = client.get(url).send().await.map_err(failed)?;
        check_head(&response, &name)?;
        let text = read(response, &name, failed).await?;
        match std::str::from_utf8(&text) {
            Ok(_) => Ok(text),
            Err(_) => Err(not_source(&name, "not UTF-8 text")),
        }
    }

    fn failed(&self, url: &str, error: reqwest::Error) -> FetchError {
        let url = url.to_owned();
        if error.is_timeout() {
            let timeout = self.timeout;
            return FetchError::Deadline { url, timeout };
        }
        // Its own URL may be one with credentials, or one that it was sent to.
        let source = error.without_url();
        FetchError::Request { url, source }
    }

    fn file(&self, path: &str) -> Result<Url, FetchError> {
        let parts = parts(path).map_err(|reason| FetchError::Path {
            path: path.to_owned(),
            reason,
        })?;
        let mut url = self.url.0.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        Ok(url)
    }

    /// A client for one fetch: they are rare, and each looks anew whom the system trusts.
    fn client(&self) -> reqwest::Result<Client> {
        // Fails when another client did the same before, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        match self.builder().build() {
            // Without the system's certificates, plain HTTP still works.
            Err(_) if self.url.0.scheme() == "http" => self.builder().tls_certs_only([]).build(),
            built => built,
        }
    }

    fn builder(&self) -> ClientBuilder {
        let builder = Client::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(self.timeout)
            .referer(false)
            .redirect(Policy::custom(redirect))
            .user_agent(concat!("outrigger/", env!("CARGO_PKG_VERSION")));
        match self.url.0.host_str() {
            // A proxy would look for the repository on its own machine.
            Some("localhost" | "127.0.0.1" | "[::1]") => builder.no_proxy(),
            _ => builder,
        }
    }
}

/// A URL without what may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Only URLs without a host refuse, and they have no credentials.
    url.set_username("").ok();
    url.set_password(None).ok();
    url.into()
}

/// The parts of a path: plain names, so that nothing can read them as another path.
fn parts(path: &str) -> Result<Vec<&str>, &'static str> {
    if path.is_empty() {
        return Err("it is empty");
    }
    if path.len() > PATH_BYTES_MAX {
        return Err("it is too long");
    }
    if path.ends_with('/') {
        return Err("it names a directory, and gh: takes single files only");
    }
    let odd = |c: char| c.is_control() || "%\\?#".contains(c);
    if path.contains(odd) {
        return Err("it must not contain %, \\, ?, # or control characters");
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Err("it must lie below the repository, without empty parts, . or ..");
    }
    Ok(parts)
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let previous = attempt.previous();
    let was_secure = previous.iter().any(|url| url.scheme() == "https");
    if previous.len() > REDIRECTS_MAX {
        return attempt.error(format!("more than {REDIRECTS_MAX} redirects"));
    }
    match attempt.url().scheme() {
        "https" => attempt.follow(),
        "http" if !was_secure => attempt.follow(),
        "http" => attempt.error("a redirect from https to http"),
        _ => attempt.error("a redirect to something that is not HTTP"),
    }
}

fn check_head(response: &Response, url: &str) -> Result<(), FetchError> {
    let (status, url) = (response.status(), url.to_owned());
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Err(FetchError::Missing { status, url });
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status { status, url });
    }
    // Servers send those who ask for a directory there, and then list it.
    if response.url().path().ends_with('/') {
        return Err(not_source(&url, "a directory"));
    }
    if is_page(response.headers()) {
        return Err(not_source(&url, "a web page"));
    }
    let announced = response.content_length().unwrap_or_default();
    if announced > SOURCE_BYTES_MAX.0 as u64 {
        return Err(FetchError::TooLarge { url });
    }
    Ok(())
}

fn is_page(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with(b"text/html"))
}

fn not_source(url: &str, what: &'static str) -> FetchError {
    let url = url.to_owned();
    FetchError::NotSource { url, what }
}

/// Reads the body, as long as it is not too large.
async fn read(
    mut response: Response,
    url: &str,
    failed: impl Fn(reqwest::Error) -> FetchError,
) -> Result<Bytes, FetchError> {
    let mut text = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(&failed)? {
        if text.len() + chunk.len() > SOURCE_BYTES_MAX.0 {
            let url = url.to_owned();
            return Err(FetchError::TooLarge { url });
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(url: &str) -> Repository {
        Repository::new(url.parse().unwrap(), Duration::from_secs(1))
    }

    #[test]
    fn paths_lie_below_the_repository() {
        for base in ["https://x.org/main", "https://x.org/main/"] {
            let url = repository(base).file("a/b c.py").unwrap();
            assert_eq!(url.as_str(), "https://x.org/main/a/b%20c.py");
        }
        let long = "x".repeat(PATH_BYTES_MAX + 1);
        for path in [
            "",
            "/etc/passwd",
            "../x.py",
            "a/../../x.py",
            "./x.py",
            "a//x.py",
            "a/",
            "%2e%2e/x.py",
            "a\\..\\x.py",
            "x.py?token=1",
            "x.py#y",
            "a\nb",
            &long,
        ] {
            let error = repository("https://x.org/").file(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{path:?}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let repository = repository("https://user:secret@x.org/main/");
        for text in [
            format!("{repository:?}"),
            repository.url.to_string(),
            shown(&repository.file("a.py").unwrap()),
        ] {
            assert!(!text.contains("secret") && !text.contains("user"), "{text}");
        }
    }

    #[test]
    fn a_repository_is_a_plain_url() {
        for bad in [
            "",
            "x.org/main",
            "ftp://x.org/",
            "file:///plugins",
            "https://x.org/?token=1",
            "https://x.org/#main",
        ] {
            assert_eq!(
                bad.parse::<RepositoryUrl>(),
                Err(RepositoryUrlError),
                "{bad}"
            );
        }
    }
}
