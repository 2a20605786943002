//! Why a store elsewhere cannot be used, and which settings an operator then looks at.

use std::{io, path::PathBuf};

use super::{AwsLogin, Provider, RemoteStore};

/// Why a store elsewhere cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RemoteStoreError {
    /// The certificates cannot be read.
    #[error("read the certificates of --object-store-tls-ca {path}")]
    Certificates { path: PathBuf, source: io::Error },
    /// There is something else in that file.
    #[error("--object-store-tls-ca {path} holds no certificate: it must be a PEM file")]
    NoCertificates { path: PathBuf },
    /// Settings are not what they should be.
    #[error("configure the object store: check {who}")]
    Settings {
        who: String,
        source: Box<object_store::Error>,
    },
    /// The store has answered, and knows no such bucket.
    #[error(
        "the object store has no {kind} {bucket:?}: name one that is there with --bucket, or make it"
    )]
    NoBucket {
        kind: &'static str,
        bucket: String,
        source: Box<object_store::Error>,
    },
    /// The store has answered, and does not let us.
    #[error(
        "the object store does not give access to --bucket {bucket:?}: check {who}, and what may be done \
         there with them"
    )]
    Refused {
        bucket: String,
        who: String,
        source: Box<object_store::Error>,
    },
    /// There is no answer, or none that a store gives.
    #[error("the object store cannot be used: check where it is ({place}), and {who}")]
    Unusable {
        place: String,
        who: String,
        source: Box<object_store::Error>,
    },
}

impl RemoteStore {
    /// What it means that the store answers the first requests so, or not at all.
    pub(crate) fn refused(&self, source: object_store::Error) -> RemoteStoreError {
        let bucket = self.bucket.clone();
        let who = self.provider.who();
        let source = Box::new(source);
        match *source {
            object_store::Error::NotFound { .. } => RemoteStoreError::NoBucket {
                kind: match self.provider {
                    Provider::Azure(_) => "container",
                    Provider::S3(_) | Provider::Google { .. } => "bucket",
                },
                bucket,
                source,
            },
            object_store::Error::Unauthenticated { .. }
            | object_store::Error::PermissionDenied { .. } => RemoteStoreError::Refused {
                bucket,
                who,
                source,
            },
            _ => RemoteStoreError::Unusable {
                place: self.provider.place(),
                who,
                source,
            },
        }
    }

    /// What it means that there can be no client with these settings.
    pub(super) fn wrong(&self, source: object_store::Error) -> RemoteStoreError {
        RemoteStoreError::Settings {
            who: self.provider.who(),
            source: Box::new(source),
        }
    }
}

impl Provider {
    /// Where is said who asks.
    fn who(&self) -> String {
        const MACHINES: &str = "the credentials that this machine has";
        match self {
            Self::S3(s3) if s3.skip_signature => "--aws-skip-signature".to_owned(),
            Self::S3(s3) => match &s3.login {
                AwsLogin::Key { session: None, .. } => {
                    "--aws-access-key-id and --aws-secret-access-key".to_owned()
                }
                AwsLogin::Key { .. } => {
                    "--aws-access-key-id, --aws-secret-access-key and --aws-session-token"
                        .to_owned()
                }
                AwsLogin::File(path) => format!("--aws-credentials-file {}", path.display()),
                AwsLogin::Machine => format!(
                    "{MACHINES} (others are given with --aws-access-key-id and \
                     --aws-secret-access-key, or --aws-credentials-file)"
                ),
            },
            Self::Google { service_account } => match service_account {
                Some(file) => format!("--google-service-account {file}"),
                None => format!("{MACHINES} (others are given with --google-service-account)"),
            },
            Self::Azure(azure) => {
                let account = format!("--azure-storage-account {}", azure.account);
                match azure.key {
                    Some(_) => format!("{account} and --azure-storage-access-key"),
                    None => format!(
                        "{account} and {MACHINES} (others are given with --azure-storage-access-key)"
                    ),
                }
            }
        }
    }

    /// Where is said where it is.
    fn place(&self) -> String {
        match self {
            Self::S3(s3) => match &s3.endpoint {
                Some(endpoint) => format!("--aws-endpoint {endpoint}"),
                None => format!("--aws-default-region {}", s3.region),
            },
            Self::Google { service_account } => match service_account {
                Some(file) => format!("Google's own, or gcs_base_url in {file}"),
                None => "Google's own".to_owned(),
            },
            Self::Azure(azure) => match &azure.endpoint {
                Some(endpoint) => format!("--azure-endpoint {endpoint}"),
                None => format!("https://{}.blob.core.windows.net", azure.account),
            },
        }
    }
}
