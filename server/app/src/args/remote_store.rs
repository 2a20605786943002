//! What can be said about object stores elsewhere.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use crate::remote_store::{AwsLogin, Azure, ClientConfig, Provider, RemoteStore, S3, Secret};

/// Arguments about object stores elsewhere.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Object stores elsewhere")]
pub(crate) struct RemoteStoreArgs {
    /// The bucket, or container, of s3, google, and azure
    #[arg(long, env = "INFLUXDB3_BUCKET", value_name = "NAME")]
    bucket: Option<String>,

    #[command(flatten)]
    aws: AwsArgs,
    #[command(flatten)]
    google: GoogleArgs,
    #[command(flatten)]
    azure: AzureArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments about S3 and what speaks its language.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct AwsArgs {
    /// Access key of s3
    #[arg(
        long,
        env = "AWS_ACCESS_KEY_ID",
        hide_env_values = true,
        value_name = "KEY"
    )]
    aws_access_key_id: Option<Secret>,

    /// Its secret
    #[arg(
        long,
        env = "AWS_SECRET_ACCESS_KEY",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    aws_secret_access_key: Option<Secret>,

    /// Session token of temporary credentials
    #[arg(
        long,
        env = "AWS_SESSION_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    aws_session_token: Option<Secret>,

    /// JSON file with the access key, its secret, and perhaps a session token; read again when
    /// it expires
    #[arg(
        long,
        env = "AWS_CREDENTIALS_FILE",
        value_name = "FILE",
        conflicts_with_all = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]
    )]
    aws_credentials_file: Option<PathBuf>,

    /// Region of the bucket
    #[arg(
        long,
        env = "AWS_DEFAULT_REGION",
        default_value = "us-east-1",
        value_name = "REGION"
    )]
    aws_default_region: String,

    /// Where another store is that speaks the language of S3
    #[arg(long, env = "AWS_ENDPOINT", value_name = "URL")]
    aws_endpoint: Option<String>,

    /// Allow http:// endpoints
    #[arg(long, env = "AWS_ALLOW_HTTP")]
    aws_allow_http: bool,

    /// Don't sign requests
    #[arg(long, env = "AWS_SKIP_SIGNATURE")]
    aws_skip_signature: bool,
}

/// Arguments about Google Cloud Storage.
#[derive(Clone, Debug, clap::Args)]
struct GoogleArgs {
    /// JSON file of the service account for google
    #[arg(long, env = "GOOGLE_SERVICE_ACCOUNT", value_name = "FILE")]
    google_service_account: Option<String>,
}

/// Arguments about Azure Blob Storage.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct AzureArgs {
    /// Storage account of azure
    #[arg(long, env = "AZURE_STORAGE_ACCOUNT", value_name = "ACCOUNT")]
    azure_storage_account: Option<String>,

    /// Its key
    #[arg(
        long,
        env = "AZURE_STORAGE_ACCESS_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    azure_storage_access_key: Option<Secret>,

    /// Where another store is that speaks the language of Azure
    #[arg(long, env = "AZURE_ENDPOINT", value_name = "URL")]
    azure_endpoint: Option<String>,

    /// Allow http:// endpoints
    #[arg(long, env = "AZURE_ALLOW_HTTP")]
    azure_allow_http: bool,
}

/// Arguments about the requests.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct ClientArgs {
    /// How many requests may be under way
    #[arg(
        long,
        env = "INFLUXDB3_OBJECT_STORE_CONNECTION_LIMIT",
        default_value = "64",
        value_name = "NUMBER"
    )]
    object_store_connection_limit: NonZeroUsize,

    /// How long one request may take
    #[arg(
        long,
        env = "INFLUXDB3_OBJECT_STORE_REQUEST_TIMEOUT",
        default_value = "30s",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    object_store_request_timeout: Duration,

    /// Speak HTTP/2 only
    #[arg(long, env = "INFLUXDB3_OBJECT_STORE_HTTP2_ONLY")]
    object_store_http2_only: bool,

    /// The size of frames of HTTP/2, in bytes
    #[arg(
        long,
        env = "INFLUXDB3_OBJECT_STORE_HTTP2_MAX_FRAME_SIZE",
        value_name = "BYTES"
    )]
    object_store_http2_max_frame_size: Option<u32>,

    /// How often one request is tried again; what is to become durable begins anew after that
    #[arg(
        long,
        env = "INFLUXDB3_OBJECT_STORE_MAX_RETRIES",
        default_value_t = 10,
        value_name = "NUMBER"
    )]
    object_store_max_retries: usize,

    /// How long one request is tried again
    #[arg(
        long,
        env = "INFLUXDB3_OBJECT_STORE_RETRY_TIMEOUT",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        value_name = "DURATION"
    )]
    object_store_retry_timeout: Duration,

    /// Not supported: there is no cache between this server and its store
    #[arg(long, env = "INFLUXDB3_OBJECT_STORE_CACHE_ENDPOINT", hide = true)]
    object_store_cache_endpoint: Option<String>,

    /// Accept every certificate: whoever is in between can read and change everything
    #[arg(long, env = "INFLUXDB3_OBJECT_STORE_TLS_ALLOW_INSECURE")]
    object_store_tls_allow_insecure: bool,

    /// PEM file of certificates that are trusted beside the system's
    #[arg(long, env = "INFLUXDB3_OBJECT_STORE_TLS_CA", value_name = "FILE")]
    object_store_tls_ca: Option<PathBuf>,
}

impl RemoteStoreArgs {
    /// The store of `--object-store s3`.
    ///
    /// # Errors
    /// What is missing, or does not go together. So do the others.
    pub(crate) fn s3(&self) -> Result<RemoteStore, String> {
        self.store(self.aws.provider()?)
    }

    /// The store of `--object-store google`.
    pub(crate) fn google(&self) -> Result<RemoteStore, String> {
        self.store(Provider::Google {
            service_account: self.google.google_service_account.clone(),
        })
    }

    /// The store of `--object-store azure`.
    pub(crate) fn azure(&self) -> Result<RemoteStore, String> {
        self.store(self.azure.provider()?)
    }

    fn store(&self, provider: Provider) -> Result<RemoteStore, String> {
        if self.client.object_store_cache_endpoint.is_some() {
            return Err("--object-store-cache-endpoint is not supported: leave it out".to_owned());
        }
        let bucket = self.bucket.clone().filter(|bucket| !bucket.is_empty());
        Ok(RemoteStore {
            provider,
            bucket: bucket.ok_or("--bucket is required for s3, google and azure")?,
            client: self.client.config(),
        })
    }
}

impl AwsArgs {
    fn provider(&self) -> Result<Provider, String> {
        let (endpoint, allow_http) = (self.aws_endpoint.as_ref(), self.aws_allow_http);
        check_endpoint("--aws-endpoint", endpoint, "--aws-allow-http", allow_http)?;
        let login = match (
            &self.aws_credentials_file,
            &self.aws_access_key_id,
            &self.aws_secret_access_key,
        ) {
            (Some(file), _, _) => AwsLogin::File(file.clone()),
            (None, Some(key), Some(secret)) => AwsLogin::Key {
                key: key.clone(),
                secret: secret.clone(),
                session: self.aws_session_token.clone(),
            },
            (None, None, None) => AwsLogin::Machine,
            (None, _, _) => {
                return Err(
                    "--aws-access-key-id and --aws-secret-access-key go together: give both, or \
                     neither to use the credentials that the machine has"
                        .to_owned(),
                );
            }
        };
        Ok(Provider::S3(S3 {
            login,
            region: self.aws_default_region.clone(),
            endpoint: self.aws_endpoint.clone(),
            allow_http: self.aws_allow_http,
            skip_signature: self.aws_skip_signature,
        }))
    }
}

impl AzureArgs {
    fn provider(&self) -> Result<Provider, String> {
        let account = self.azure_storage_account.clone();
        let account = account.filter(|account| !account.is_empty());
        let (endpoint, allow_http) = (self.azure_endpoint.as_ref(), self.azure_allow_http);
        check_endpoint(
            "--azure-endpoint",
            endpoint,
            "--azure-allow-http",
            allow_http,
        )?;
        Ok(Provider::Azure(Azure {
            account: account.ok_or("--azure-storage-account is required for azure")?,
            key: self.azure_storage_access_key.clone(),
            endpoint: self.azure_endpoint.clone(),
            allow_http: self.azure_allow_http,
        }))
    }
}

/// The client would say so only when it asks, and not whose flag it is.
fn check_endpoint(
    flag: &str,
    endpoint: Option<&String>,
    allowing: &str,
    allow_http: bool,
) -> Result<(), String> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    let scheme = endpoint.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.map(str::to_ascii_lowercase);
    match scheme.as_deref() {
        Some("https") => Ok(()),
        Some("http") if allow_http => Ok(()),
        Some("http") => Err(format!(
            "{flag} {endpoint} is not encrypted: give one with https://, or {allowing} if it shall be \
             used all the same"
        )),
        _ => Err(format!(
            "{flag} {endpoint} must begin with https:// (or http://)"
        )),
    }
}

impl ClientArgs {
    fn config(&self) -> ClientConfig {
        ClientConfig {
            requests_max: self.object_store_connection_limit.get(),
            request_timeout: self.object_store_request_timeout,
            http2_only: self.object_store_http2_only,
            http2_max_frame_bytes: self.object_store_http2_max_frame_size,
            retries_max: self.object_store_max_retries,
            retry_timeout: self.object_store_retry_timeout,
            tls_allow_insecure: self.object_store_tls_allow_insecure,
            tls_ca: self.object_store_tls_ca.clone(),
        }
    }
}
