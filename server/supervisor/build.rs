//! Packs the Python package into a wheel, which the server carries in itself.
//!
//! Format: <https://packaging.python.org/en/latest/specifications/binary-distribution-format/>.

use std::{
    env, fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zip::{ZipWriter, write::SimpleFileOptions};

const PACKAGE: &str = "outrigger_plugin_host";

fn main() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-host-py");
    println!("cargo::rerun-if-changed={}", project.join("src").display());
    println!(
        "cargo::rerun-if-changed={}",
        project.join("pyproject.toml").display()
    );

    let mut files = Vec::new();
    collect(&project.join("src").join(PACKAGE), &mut files);
    files.sort();
    let mut contents: Vec<(String, Vec<u8>)> = files
        .iter()
        .map(|path| {
            let name = path
                .strip_prefix(project.join("src"))
                .expect("it was found there");
            (
                name.to_str().expect("our names are ASCII").to_owned(),
                fs::read(path).expect("read"),
            )
        })
        .collect();

    // The version names the content, so that pip sees a changed package as a new one.
    let mut hasher = Sha256::new();
    for (name, content) in &contents {
        hasher.update(name);
        hasher.update(content);
    }
    let hash = format!("{:x}", hasher.finalize());
    let hash = &hash[..12];
    let version = format!("{}+g{hash}", env!("CARGO_PKG_VERSION"));

    let info = format!("{PACKAGE}-{version}.dist-info");
    contents.push((
        format!("{info}/METADATA"),
        metadata(&project, &version).into_bytes(),
    ));
    let wheel =
        "Wheel-Version: 1.0\nGenerator: outrigger\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    contents.push((format!("{info}/WHEEL"), wheel.into()));
    let mut record = Vec::new();
    for (name, content) in &contents {
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(content));
        writeln!(record, "{name},sha256={hash},{}", content.len()).expect("write to memory");
    }
    writeln!(record, "{info}/RECORD,,").expect("write to memory");
    contents.push((format!("{info}/RECORD"), record));

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("plugin_host.whl"), pack(&contents)).expect("write the wheel");
    println!("cargo::rustc-env=PLUGIN_HOST_WHEEL={PACKAGE}-{version}-py3-none-any.whl");
    println!("cargo::rustc-env=PLUGIN_HOST_VERSION={version}");
    let [oldest, newest] = python_minors(&project);
    println!("cargo::rustc-env=PLUGIN_HOST_PYTHON_OLDEST={oldest}");
    println!("cargo::rustc-env=PLUGIN_HOST_PYTHON_NEWEST={newest}");
    let needs = dependencies(&project).join("|");
    println!("cargo::rustc-env=PLUGIN_HOST_NEEDS={needs}");
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the package is part of the repository") {
        let path = entry.expect("read the directory").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && name != "__pycache__" {
            collect(&path, files);
        } else if path.is_file() && path.extension().is_none_or(|extension| extension != "pyc") {
            files.push(path);
        }
    }
}

fn described(project: &Path) -> toml::Value {
    let text = fs::read_to_string(project.join("pyproject.toml")).expect("read pyproject.toml");
    let table: toml::Table = text.parse().expect("pyproject.toml is TOML");
    table["project"].clone()
}

fn dependencies(project: &Path) -> Vec<String> {
    let described = described(project);
    let dependencies = described["dependencies"].as_array().expect("a list");
    let text = |dependency: &toml::Value| dependency.as_str().expect("a requirement").to_owned();
    dependencies.iter().map(text).collect()
}

/// The oldest and the newest minor version of Python 3 that the package runs on.
fn python_minors(project: &Path) -> [u32; 2] {
    let described = described(project);
    let range = described["requires-python"].as_str().expect("a range");
    let bounds = range.strip_prefix(">=3.").expect("a lower bound");
    let (oldest, beyond) = bounds.split_once(",<3.").expect("an upper bound");
    let minor = |text: &str| text.parse::<u32>().expect("a minor version");
    [minor(oldest), minor(beyond) - 1]
}

fn metadata(project: &Path, version: &str) -> String {
    let described = described(project);
    let field = |name: &str| described[name].clone();
    let mut lines = vec![
        "Metadata-Version: 2.1".to_owned(),
        format!("Name: {}", field("name").as_str().expect("a name")),
        format!("Version: {version}"),
        format!(
            "Requires-Python: {}",
            field("requires-python").as_str().expect("a version range")
        ),
    ];
    for dependency in dependencies(project) {
        lines.push(format!("Requires-Dist: {dependency}"));
    }
    lines.join("\n") + "\n"
}

fn pack(contents: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in contents {
        writer.start_file(name, options).expect("write to memory");
        writer.write_all(content).expect("write to memory");
    }
    writer.finish().expect("write to memory").into_inner()
}
