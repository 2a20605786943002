//! Is the committed generated code what the .proto files say?
//!
//! `OUTRIGGER_REGENERATE=1 cargo test -p outrigger-proto` writes it anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost_types::FileDescriptorSet;
use sha2::{Digest, Sha256};

const FILES: [&str; 3] = [
    "outrigger/plugin/v1/assign.proto",
    "outrigger/plugin/v1/host.proto",
    "outrigger/plugin/v1/worker.proto",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn descriptors() -> FileDescriptorSet {
    protox::compile(FILES, [env!("CARGO_MANIFEST_DIR")]).expect("the .proto files compile")
}

#[test]
fn rust_code_is_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(directory.path())
        .compile_fds(descriptors())
        .unwrap();
    let name = "outrigger.plugin.v1.rs";
    let generated = fs::read(directory.path().join(name)).unwrap();
    check(
        &repository().join("proto/src/generated").join(name),
        &generated,
    );
}

#[test]
fn python_descriptors_are_up_to_date() {
    let mut set = descriptors();
    for file in &mut set.file {
        file.source_code_info = None;
    }
    let path = "plugin-host-py/src/outrigger_plugin_host/_proto/descriptors.binpb";
    check(
        &repository().join(path),
        &prost::Message::encode_to_vec(&set),
    );
}

/// Whoever changes the protocol changes its document.
#[test]
fn the_document_describes_these_files() {
    let mut hasher = Sha256::new();
    for file in FILES {
        hasher.update(fs::read(repository().join("proto").join(file)).unwrap());
    }
    let hash = &format!("{:x}", hasher.finalize())[..16];
    let document = fs::read_to_string(repository().join("docs/protocol.md")).unwrap();
    assert!(
        document.contains(hash),
        "the .proto files have changed: bring docs/protocol.md up to date, then write the hash {hash} into it"
    );
}

#[track_caller]
fn check(path: &Path, expected: &[u8]) {
    #[expect(
        clippy::disallowed_methods,
        reason = "asks whether to write instead of compare"
    )]
    if std::env::var("OUTRIGGER_REGENERATE").is_ok() {
        fs::write(path, expected).expect("write the generated file");
    }
    let committed = fs::read(path).unwrap_or_default();
    assert!(
        committed == expected,
        "{} is out of date: run OUTRIGGER_REGENERATE=1 cargo test -p outrigger-proto",
        path.display()
    );
}
