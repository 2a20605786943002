//! What may a program touch? Said by the server, without any word about how it is enforced.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a program may touch beside what every program needs (see [`crate::landlock`]).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Files and directories that it may read, and load code from; not write.
    pub read: Vec<PathBuf>,
    /// Files and directories that it may read, change, make and remove.
    pub write: Vec<PathBuf>,
    /// Whether it may start processes: fork and exec.
    pub subprocesses: bool,
    /// Whether it may change modes and times of files, which Landlock does not see: for
    /// programs that install. Others are told that it worked, and nothing happens.
    pub change_modes: bool,
    /// What it may connect to.
    pub network: Network,
    /// How much it may take.
    pub limits: Limits,
}

/// What a program may connect to. The server's own socket is not part of this.
///
/// As text, in which form it is serialised too: `none`, `outbound`, or `HOST:PORT,…`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Network {
    /// Nothing.
    None,
    /// Any TCP address.
    #[default]
    Outbound,
    /// These only.
    Only(Vec<HostPort>),
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self {
            Self::None => return formatter.write_str("none"),
            Self::Outbound => return formatter.write_str("outbound"),
            Self::Only(list) => list,
        };
        for (index, target) in list.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{target}")?;
        }
        Ok(())
    }
}

/// Why a text is no network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a network is none, outbound, or a list of HOST:PORT with commas between: {0}")]
pub struct NetworkError(#[from] HostPortError);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match text {
            "none" => Ok(Self::None),
            "outbound" => Ok(Self::Outbound),
            list => {
                let list: Result<Vec<_>, _> = list.split(',').map(str::parse).collect();
                Ok(Self::Only(list?))
            }
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// A host's name or address, and a TCP port.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port; never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// Why a text is no host and port.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is not HOST:PORT, such as api.example.com:443 or [::1]:8086")]
pub struct HostPortError {
    text: String,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let wrong = || HostPortError {
            text: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(wrong)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(address) => {
                let address: std::net::Ipv6Addr = address.parse().or(Err(wrong()))?;
                address.to_string()
            }
            None => host.to_ascii_lowercase(),
        };
        let named = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if bracketed.is_none() && (host.is_empty() || !host.chars().all(named)) {
            return Err(wrong());
        }
        Ok(Self { host, port })
    }
}

/// How much a program may take; `None` leaves what it inherits.
///
/// Each is a limit of the kernel's (`man setrlimit`). Core files are always off.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of address space (`RLIMIT_AS`).
    pub address_space: Option<u64>,
    /// Open descriptors (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Processes and threads of this *user*, not of this program (`RLIMIT_NPROC`); root is
    /// exempt.
    pub processes: Option<u64>,
    /// Bytes of one file (`RLIMIT_FSIZE`).
    pub file_size: Option<u64>,
    /// Seconds of processor time (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
    /// Bytes of locked memory (`RLIMIT_MEMLOCK`).
    pub locked_memory: Option<u64>,
    /// Bytes in POSIX message queues (`RLIMIT_MSGQUEUE`).
    pub message_queues: Option<u64>,
    /// Signals that wait (`RLIMIT_SIGPENDING`).
    pub pending_signals: Option<u64>,
}

/// What happens where a layer cannot be had.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// Nothing starts without the layers of tier B.
    Strict,
    /// It starts, and says what is missing.
    #[default]
    Auto,
    /// No layer at all.
    Off,
}

impl Mode {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_they_are_written() {
        for text in ["none", "outbound", "a:1", "api.example.com:443,[::1]:8086"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for text in ["", "None", "a:1,", "a:1, b:2", "all"] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("none, outbound, or a list"), "{error}");
        }
    }

    #[test]
    fn hosts_and_ports_are_read_as_they_are_written() {
        for text in ["api.example.com:443", "10.0.0.1:80", "[::1]:8086"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        assert_eq!("LocalHost:1".parse::<HostPort>().unwrap().host, "localhost");
        for text in [
            "",
            "host",
            "host:",
            "host:0",
            "host:65536",
            ":80",
            "::1:80",
            "a b:80",
            "[::1:80",
            "[host]:80",
            "http://host:80",
            "*:80",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
