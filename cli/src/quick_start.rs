//! What a bare `influxdb3` runs: `serve`, with a node id derived from the host name.

use std::{env, ffi::OsString, fs};

use crate::report;

/// Names this node when the user did not.
const NODE_ID_VARIABLES: [&str; 4] = [
    "INFLUXDB3_NODE_IDENTIFIER_PREFIX",
    "INFLUXDB3_NODE_IDENTIFIER_FROM_ENV",
    "INFLUXDB3_NODE_ID",
    "INFLUXDB3_NODE_ID_FROM_ENV",
];

/// The arguments to go on with, after telling the user which node id was made up.
pub(crate) fn arguments(program: OsString) -> Vec<OsString> {
    let mut arguments = vec![program, "serve".into()];
    if NODE_ID_VARIABLES
        .iter()
        .any(|name| env::var_os(name).is_some())
    {
        return arguments;
    }
    let node_id = node_id(fs::read_to_string("/proc/sys/kernel/hostname").ok());
    report::say(format_args!(
        "Using auto-generated node id: {node_id}. \
         For production deployments, explicitly set --node-id"
    ));
    arguments.extend(["--node-id".into(), node_id.into()]);
    arguments
}

fn node_id(host_name: Option<String>) -> String {
    let host_name = host_name.unwrap_or_default();
    match host_name.trim() {
        "" | "(none)" => "primary-node".to_owned(),
        name => format!("{name}-node"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_id_comes_from_the_host_name() {
        assert_eq!(node_id(Some("web-1\n".to_owned())), "web-1-node");
        assert_eq!(node_id(Some(String::new())), "primary-node");
        assert_eq!(node_id(None), "primary-node");
    }
}
