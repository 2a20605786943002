//! Object stores elsewhere: S3 and what speaks its language, Google Cloud Storage, Azure.

mod credentials;
mod refusal;

use std::{fmt, fs, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use object_store::{
    Certificate, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, limit::LimitStore,
};

use credentials::CredentialsFile;
pub(crate) use refusal::RemoteStoreError;

/// A store elsewhere, and how it is asked.
#[derive(Clone, Debug)]
pub(crate) struct RemoteStore {
    pub(crate) provider: Provider,
    pub(crate) bucket: String,
    pub(crate) client: ClientConfig,
}

/// Who keeps the data.
#[derive(Clone, Debug)]
pub(crate) enum Provider {
    S3(S3),
    Google {
        /// A JSON file; without, what the machine has.
        service_account: Option<String>,
    },
    Azure(Azure),
}

/// S3, and what speaks its language.
#[derive(Clone, Debug)]
pub(crate) struct S3 {
    pub(crate) login: AwsLogin,
    pub(crate) region: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) allow_http: bool,
    pub(crate) skip_signature: bool,
}

/// Azure Blob Storage, and what speaks its language.
#[derive(Clone, Debug)]
pub(crate) struct Azure {
    pub(crate) account: String,
    pub(crate) key: Option<Secret>,
    pub(crate) endpoint: Option<String>,
    pub(crate) allow_http: bool,
}

/// Who we are for S3.
#[derive(Clone, Debug)]
pub(crate) enum AwsLogin {
    Key {
        key: Secret,
        secret: Secret,
        session: Option<Secret>,
    },
    /// A file that somebody renews.
    File(PathBuf),
    /// What the machine has: web identity, container, or instance metadata.
    Machine,
}

/// How stores are asked.
#[derive(Clone, Debug)]
pub(crate) struct ClientConfig {
    pub(crate) requests_max: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) http2_only: bool,
    pub(crate) http2_max_frame_bytes: Option<u32>,
    pub(crate) retries_max: usize,
    pub(crate) retry_timeout: Duration,
    pub(crate) tls_allow_insecure: bool,
    pub(crate) tls_ca: Option<PathBuf>,
}

/// Text that is never printed.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl RemoteStore {
    /// Makes its client. Asks nothing yet.
    pub(crate) fn open(&self) -> Result<Arc<dyn ObjectStore>, RemoteStoreError> {
        let limit = self.client.requests_max;
        let retry = RetryConfig {
            max_retries: self.client.retries_max,
            retry_timeout: self.client.retry_timeout,
            ..RetryConfig::default()
        };
        let options = self.client.options()?;
        let wrong = |source| self.wrong(source);
        Ok(match &self.provider {
            Provider::S3(s3) => {
                let builder = s3.builder(&self.bucket, options).with_retry(retry);
                Arc::new(LimitStore::new(builder.build().map_err(wrong)?, limit))
            }
            Provider::Google { service_account } => {
                let mut builder = GoogleCloudStorageBuilder::new()
                    .with_bucket_name(&self.bucket)
                    .with_client_options(options)
                    .with_retry(retry);
                if let Some(file) = service_account {
                    builder = builder.with_service_account_path(file);
                }
                Arc::new(LimitStore::new(builder.build().map_err(wrong)?, limit))
            }
            Provider::Azure(azure) => {
                let builder = azure.builder(&self.bucket, options).with_retry(retry);
                Arc::new(LimitStore::new(builder.build().map_err(wrong)?, limit))
            }
        })
    }
}

impl S3 {
    fn builder(&self, bucket: &str, options: ClientOptions) -> AmazonS3Builder {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&self.region)
            .with_client_options(options.with_allow_http(self.allow_http))
            .with_skip_signature(self.skip_signature);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        match &self.login {
            AwsLogin::Key {
                key,
                secret,
                session,
            } => {
                let builder = builder
                    .with_access_key_id(&key.0)
                    .with_secret_access_key(&secret.0);
                match session {
                    Some(session) => builder.with_token(&session.0),
                    None => builder,
                }
            }
            AwsLogin::File(path) => {
                builder.with_credentials(Arc::new(CredentialsFile::new(path.clone())))
            }
            AwsLogin::Machine => builder,
        }
    }
}

impl Azure {
    fn builder(&self, container: &str, options: ClientOptions) -> MicrosoftAzureBuilder {
        let mut builder = MicrosoftAzureBuilder::new()
            .with_container_name(container)
            .with_account(&self.account)
            .with_client_options(options.with_allow_http(self.allow_http));
        if let Some(key) = &self.key {
            builder = builder.with_access_key(&key.0);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        builder
    }
}

impl ClientConfig {
    fn options(&self) -> Result<ClientOptions, RemoteStoreError> {
        let mut options = ClientOptions::new()
            .with_timeout(self.request_timeout)
            .with_allow_invalid_certificates(self.tls_allow_insecure);
        if self.http2_only {
            options = options.with_http2_only();
        }
        if let Some(bytes) = self.http2_max_frame_bytes {
            options = options.with_http2_max_frame_size(bytes);
        }
        if let Some(path) = &self.tls_ca {
            let pem = fs::read(path).map_err(|source| RemoteStoreError::Certificates {
                path: path.clone(),
                source,
            })?;
            let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(RemoteStoreError::NoCertificates { path: path.clone() });
            }
            for certificate in certificates {
                options = options.with_root_certificate(certificate);
            }
        }
        Ok(options)
    }
}
