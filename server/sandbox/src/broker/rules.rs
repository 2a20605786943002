//! Which connections does a policy allow? The judgement alone; nothing is connected or
//! resolved here.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::address::Target;
use crate::policy::{HostPort, Network};

/// The port of name servers.
const DNS: u16 = 53;

/// Sockets that the C library tries before anything else, whatever a program does. They are
/// refused without a word.
const TRIED_ANYWAY: &[&str] = &[
    "/var/run/nscd/socket",
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/userdb/",
    "/var/run/avahi-daemon/socket",
];

/// What a program may connect to.
#[derive(Clone, Debug)]
pub struct ConnectRules {
    /// The server's own socket. A connection to it goes to [`super::Broker::serve`]'s caller.
    pub own_socket: PathBuf,
    /// Everything else.
    pub network: Network,
}

/// What becomes of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It goes to the server itself.
    Own,
    /// It goes to the broker's resolver, whatever name server was meant.
    Names,
    /// It is made.
    Connect(SocketAddr),
    /// It is made if one of these names has that address now.
    IfNamed(SocketAddr, Vec<String>),
    /// It is refused.
    Refuse(RefusalReason),
    /// It is as if nothing were there.
    Absent,
}

/// Why a connection, or a name, was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalReason {
    /// No network was granted.
    NoNetwork,
    /// Others were granted, not this one.
    NotListed,
    /// Addresses of the link alone, where clouds serve credentials. Never granted in general.
    LinkLocal,
    /// A Unix socket that is not the server's. Never granted.
    UnixSocket,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoNetwork => "no network is granted",
            Self::NotListed => "it is not in the list of what is granted",
            Self::LinkLocal => {
                "link-local and metadata addresses are granted only where they are listed"
            }
            Self::UnixSocket => "local sockets of other programs are never granted",
        })
    }
}

impl ConnectRules {
    pub(super) fn judge(&self, target: &Target) -> Verdict {
        match target {
            Target::Unix(path) if *path == self.own_socket => Verdict::Own,
            Target::Unix(path) if is_tried_anyway(path) => Verdict::Absent,
            Target::Unix(_) | Target::Abstract(_) => Verdict::Refuse(RefusalReason::UnixSocket),
            Target::Tcp(address) => self.judge_tcp(*address),
        }
    }

    fn judge_tcp(&self, address: SocketAddr) -> Verdict {
        match &self.network {
            Network::None => Verdict::Refuse(RefusalReason::NoNetwork),
            Network::Outbound if address.port() == DNS => Verdict::Names,
            Network::Outbound if is_link_local(address.ip()) => {
                Verdict::Refuse(RefusalReason::LinkLocal)
            }
            Network::Outbound => Verdict::Connect(address),
            Network::Only(list) => judge_listed(list, address),
        }
    }

    /// Whether a name may be resolved: what is asked tells the name server something.
    pub(super) fn judge_name(&self, name: &str) -> Result<(), RefusalReason> {
        match &self.network {
            Network::None => Err(RefusalReason::NoNetwork),
            Network::Outbound => Ok(()),
            Network::Only(list) => {
                let listed = |target: &HostPort| target.host.eq_ignore_ascii_case(name);
                let found = list.iter().any(listed);
                found.then_some(()).ok_or(RefusalReason::NotListed)
            }
        }
    }
}

fn judge_listed(list: &[HostPort], address: SocketAddr) -> Verdict {
    let fitting = list.iter().filter(|target| target.port == address.port());
    let mut names = Vec::new();
    for HostPort { host, .. } in fitting {
        match host.parse::<IpAddr>() {
            Ok(listed) if listed.to_canonical() == address.ip() => {
                return Verdict::Connect(address);
            }
            Ok(_other) => {}
            Err(_) => names.push(host.clone()),
        }
    }
    if address.port() == DNS {
        return Verdict::Names;
    }
    // A name's owner must not be able to have it point there.
    if is_link_local(address.ip()) {
        return Verdict::Refuse(RefusalReason::LinkLocal);
    }
    if names.is_empty() {
        return Verdict::Refuse(RefusalReason::NotListed);
    }
    Verdict::IfNamed(address, names)
}

fn is_tried_anyway(path: &Path) -> bool {
    let Some(path) = path.to_str() else {
        return false;
    };
    TRIED_ANYWAY
        .iter()
        .any(|tried| path == *tried || (tried.ends_with('/') && path.starts_with(tried)))
}

/// Addresses of this link alone, and the other places where clouds answer what a machine may
/// know: AWS, Alibaba, Azure.
fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_link_local_v4(address),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || embedded(address).is_some_and(is_link_local_v4)
        }
    }
}

const fn is_link_local_v4(address: Ipv4Addr) -> bool {
    address.is_link_local() || matches!(address.octets(), [100, 100, 100, 200] | [168, 63, 129, 16])
}

/// The IPv4 address that a translator (`64:ff9b::/96`), a 6to4 router (`2002::/16`) or a stack
/// that knows compatible addresses (`::/96`) would connect to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |octets: &[u8]| octets.first_chunk().map(|octets| Ipv4Addr::from(*octets));
    match address.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, v4 @ ..]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, v4 @ ..] => of(&v4),
        [0x20, 0x02, rest @ ..] => of(&rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(network: &str) -> ConnectRules {
        let network = match network {
            "none" => Network::None,
            "outbound" => Network::Outbound,
            list => Network::Only(list.split(',').map(|item| item.parse().unwrap()).collect()),
        };
        ConnectRules {
            own_socket: "/run/o/s".into(),
            network,
        }
    }

    fn tcp(network: &str, address: &str) -> Verdict {
        rules(network).judge(&Target::Tcp(address.parse().unwrap()))
    }

    fn connect(address: &str) -> Verdict {
        Verdict::Connect(address.parse().unwrap())
    }

    #[test]
    fn the_servers_socket_is_always_reached_and_no_other() {
        for network in ["none", "outbound", "a:1"] {
            let judge = |path: &str| rules(network).judge(&Target::Unix(path.into()));
            assert_eq!(judge("/run/o/s"), Verdict::Own);
            let refused = Verdict::Refuse(RefusalReason::UnixSocket);
            for other in ["/run/o/../o/s", "/run/docker.sock", "", "/run/o/s2"] {
                assert_eq!(judge(other), refused, "{other}");
            }
            assert_eq!(judge("/var/run/nscd/socket"), Verdict::Absent);
            assert_eq!(judge("/run/systemd/userdb/x"), Verdict::Absent);
            let unnamed = Target::Abstract(b"/run/o/s".to_vec());
            assert_eq!(rules(network).judge(&unnamed), refused);
        }
    }

    #[test]
    fn outbound_is_any_address_but_the_links() {
        for address in [
            "127.0.0.1:8181",
            "[::1]:80",
            "10.0.0.1:1",
            "0.0.0.0:9",
            "1.1.1.1:443",
        ] {
            assert_eq!(tcp("outbound", address), connect(address), "{address}");
        }
        for address in [
            "169.254.169.254:80",
            "169.254.0.1:443",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[2002:a9fe:a9fe::1]:80",
            "[::ffff:169.254.169.254]:80",
            "[::169.254.169.254]:80",
        ] {
            let refused = Verdict::Refuse(RefusalReason::LinkLocal);
            assert_eq!(tcp("outbound", address), refused, "{address}");
            assert_eq!(tcp("a:80,a:443", address), refused, "{address}");
        }
        assert_eq!(tcp("outbound", "8.8.8.8:53"), Verdict::Names);
        assert_eq!(tcp("outbound", "127.0.0.53:53"), Verdict::Names);
    }

    #[test]
    fn none_is_none() {
        for address in ["127.0.0.1:8181", "8.8.8.8:53", "169.254.169.254:80"] {
            let refused = Verdict::Refuse(RefusalReason::NoNetwork);
            assert_eq!(tcp("none", address), refused, "{address}");
        }
        assert!(rules("none").judge_name("localhost").is_err());
    }

    #[test]
    fn a_list_is_by_address_and_port_or_by_name_and_port() {
        let list = "10.0.0.1:80,[::1]:8086,169.254.1.1:80,api.example.com:443,8.8.8.8:53";
        assert_eq!(tcp(list, "10.0.0.1:80"), connect("10.0.0.1:80"));
        assert_eq!(tcp(list, "[::1]:8086"), connect("[::1]:8086"));
        assert_eq!(tcp(list, "169.254.1.1:80"), connect("169.254.1.1:80"));
        assert_eq!(tcp(list, "8.8.8.8:53"), connect("8.8.8.8:53"));
        assert_eq!(tcp(list, "9.9.9.9:53"), Verdict::Names);
        let not_listed = Verdict::Refuse(RefusalReason::NotListed);
        assert_eq!(tcp(list, "10.0.0.1:81"), not_listed);
        assert_eq!(tcp(list, "10.0.0.2:80"), not_listed);
        let named = Verdict::IfNamed(
            "1.2.3.4:443".parse().unwrap(),
            vec!["api.example.com".into()],
        );
        assert_eq!(tcp(list, "1.2.3.4:443"), named);
        assert_eq!(rules(list).judge_name("API.example.com"), Ok(()));
        assert!(rules(list).judge_name("example.com").is_err());
        assert!(rules(list).judge_name("secret.api.example.com").is_err());
    }
}
