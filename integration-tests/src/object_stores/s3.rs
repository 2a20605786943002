//! S3: moto's server. It believes everybody, unless it is told not to.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use object_store::aws::AmazonS3Builder;

use super::{Access, file};
use crate::{client::plain_http, environments, process};

/// The environment that moto is in.
pub(super) fn moto(target: &Path) -> PathBuf {
    environments::prepare(target, "integration-s3-venv", &file("s3-requirements.txt"))
}

const KEY: &str = "key-of-the-store";
const SECRET: &str = "secret-of-the-store";

pub(super) fn command(target: &Path) -> Command {
    let mut command = process::command(moto(target).join("bin/moto_server"));
    command.args(["-H", "127.0.0.1", "-p", "0"]);
    command
}

/// Makes the bucket.
pub(super) async fn access(endpoint: &str, bucket: &str) -> Access {
    let made = plain_http().put(format!("{endpoint}/{bucket}")).send();
    let made = made.await.expect("moto answers");
    assert_eq!(made.status(), 200, "make the bucket");
    let client = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name(bucket)
        .with_access_key_id(KEY)
        .with_secret_access_key(SECRET);
    Access {
        flags: vec![
            ("--object-store", Some("s3".to_owned())),
            ("--aws-endpoint", Some(endpoint.to_owned())),
            ("--aws-allow-http", None),
        ],
        variables: vec![
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ],
        client: Arc::new(client.build().expect("the settings are right")),
    }
}

/// Makes moto check who asks, of whom it knows none.
pub(super) async fn refuse_everybody(endpoint: &str) {
    let told = plain_http()
        .post(format!("{endpoint}/moto-api/reset-auth"))
        .body("0")
        .send()
        .await
        .expect("moto answers");
    assert_eq!(told.status(), 200, "{told:?}");
}
