//! Google: moto, asked in the words of Google (see `google_by_moto.py` for what that proves and
//! what it does not). No emulator was found that the machines of these tests can install and
//! that serves what the server needs: `gcp-storage-emulator` 2026.7.19 knows Google's JSON API, but
//! of its XML API, which the server speaks, neither listing nor conditions
//! (`x-goog-if-generation-match`) nor HEAD and DELETE; `fake-gcs-server` is a module of Go.

use std::{fs, path::Path, process::Command, sync::Arc};

use object_store::{Certificate, ClientOptions, gcp::GoogleCloudStorageBuilder};

use super::{Access, file, s3};
use crate::process;

pub(super) fn command(target: &Path, bucket: &str, directory: &Path) -> Command {
    let mut command = process::command(s3::moto(target).join("bin/python"));
    command
        .arg(file("google_by_moto.py"))
        .arg(bucket)
        .arg(directory);
    command
}

/// Where it listens is said in the account's file.
pub(super) fn access(directory: &Path, bucket: &str) -> Access {
    let path = |name: &str| directory.join(name).display().to_string();
    let pem = fs::read(path("certificate.pem")).expect("it was made");
    let certificate = Certificate::from_pem(&pem).expect("it is one");
    let client = GoogleCloudStorageBuilder::new()
        .with_client_options(ClientOptions::new().with_root_certificate(certificate))
        .with_service_account_path(path("account.json"))
        .with_bucket_name(bucket);
    Access {
        flags: vec![
            ("--object-store", Some("google".to_owned())),
            ("--object-store-tls-ca", Some(path("certificate.pem"))),
        ],
        variables: vec![("GOOGLE_SERVICE_ACCOUNT", path("account.json"))],
        client: Arc::new(client.build().expect("the settings are right")),
    }
}
