//! Azure: Azurite, Microsoft's own emulator. It checks signatures.

use std::{path::Path, process::Command, sync::Arc};

use object_store::azure::MicrosoftAzureBuilder;

use super::{Access, file};
use crate::{command_line::Output, environments, process};

/// Its name of an account that needs no making, and that account's key.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// What npm installs.
const AZURITE: &str = "azurite@3.37.0";

/// Makes the container, with the client of Microsoft.
const MAKE_CONTAINER: &str = "
import sys
from azure.storage.blob import BlobServiceClient
url, key, name = sys.argv[1:]
BlobServiceClient(url, credential=key).create_container(name)
";

fn environment(target: &Path) -> environments::WithNode {
    let requirements = file("azure-requirements.txt");
    environments::prepare_with_node(target, "integration-azure-venv", &requirements, AZURITE)
}

pub(super) fn command(target: &Path) -> Command {
    let environment = environment(target);
    let mut command = process::command(environment.node());
    command
        .arg(environment.package("azurite/dist/src/blob/main.js"))
        .args(["--blobHost", "127.0.0.1", "--blobPort", "0"])
        // It is older than what the client may say.
        .arg("--skipApiVersionCheck")
        .args(["--inMemoryPersistence", "--disableTelemetry"]);
    command
}

pub(super) fn access(target: &Path, endpoint: &str, container: &str) -> Access {
    let endpoint = format!("{endpoint}/{ACCOUNT}");
    let made = process::command(environment(target).python())
        .args(["-c", MAKE_CONTAINER, &endpoint, KEY, container])
        .output();
    let made = Output::from(made.expect("Python can be started"));
    assert_eq!(made.code, 0, "make the container: {made:#?}");
    let client = MicrosoftAzureBuilder::new()
        .with_account(ACCOUNT)
        .with_access_key(KEY)
        .with_container_name(container)
        .with_endpoint(endpoint.clone())
        .with_allow_http(true);
    Access {
        flags: vec![
            ("--object-store", Some("azure".to_owned())),
            ("--azure-storage-account", Some(ACCOUNT.to_owned())),
            ("--azure-endpoint", Some(endpoint)),
            ("--azure-allow-http", None),
        ],
        variables: vec![("AZURE_STORAGE_ACCESS_KEY", KEY.to_owned())],
        client: Arc::new(client.build().expect("the settings are right")),
    }
}
