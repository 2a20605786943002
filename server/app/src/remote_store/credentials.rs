//! Credentials of S3 in a file that somebody else renews.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use object_store::{CredentialProvider, aws::AwsCredential};
use outrigger_model::clock::{Clock, SystemClock};
use serde::Deserialize;
use tokio::sync::Mutex;

/// A file without an expiry is read again after this time, in seconds.
const READ_AGAIN_S: i64 = 60;

/// Reads credentials, and again when they expire.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    credential: Arc<AwsCredential>,
    // Seconds since 1970.
    until: i64,
}

/// What InfluxDB 3 calls its fields (contract 1.8).
#[derive(Deserialize)]
struct Content {
    aws_access_key_id: String,
    aws_secret_access_key: String,
    aws_session_token: Option<String>,
    /// Seconds since 1970.
    expiry: Option<i64>,
}

impl CredentialsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: Mutex::default(),
        }
    }

    async fn read(&self, now: i64) -> Result<Read, Box<dyn std::error::Error + Send + Sync>> {
        let text = tokio::fs::read(&self.path).await?;
        let content: Content = serde_json::from_slice(&text)?;
        Ok(Read {
            credential: Arc::new(AwsCredential {
                key_id: content.aws_access_key_id,
                secret_key: content.aws_secret_access_key,
                token: content.aws_session_token,
            }),
            // What has expired is used all the same: the store says best what it thinks of it.
            until: content.expiry.unwrap_or(now + READ_AGAIN_S),
        })
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let now = SystemClock::default().now().0 / 1_000_000_000;
        let mut read = self.read.lock().await;
        if let Some(read) = read.as_ref().filter(|read| now < read.until) {
            return Ok(read.credential.clone());
        }
        let fresh = self.read(now).await.map_err(|source| {
            let source = format!(
                "read --aws-credentials-file {}: {source}",
                self.path.display()
            );
            object_store::Error::Generic {
                store: "S3",
                source: source.into(),
            }
        })?;
        Ok(read.insert(fresh).credential.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credentials_are_read_again_when_they_expire() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials.json");
        let write = |key: &str, expiry: &str| {
            let text = format!(
                r#"{{"aws_access_key_id":"{key}","aws_secret_access_key":"s","aws_session_token":"t"{expiry}}}"#
            );
            std::fs::write(&path, text).unwrap();
        };
        let file = CredentialsFile::new(path.clone());
        let missing = file.get_credential().await.unwrap_err().to_string();
        assert!(missing.contains("credentials.json"), "{missing}");

        write("first", r#","expiry":1"#);
        let first = file.get_credential().await.unwrap();
        assert_eq!(
            (first.key_id.as_str(), first.token.as_deref()),
            ("first", Some("t"))
        );
        write("second", "");
        assert_eq!(file.get_credential().await.unwrap().key_id, "second");
        write("third", "");
        // Not yet: it has just been read.
        assert_eq!(file.get_credential().await.unwrap().key_id, "second");
    }
}
