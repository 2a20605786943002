//! What does a program want to connect to? Reads the bytes of a `sockaddr` that a program
//! that is not trusted has given (`man 7 ip`, `man 7 unix`).

use std::{
    ffi::OsStr,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use nix::errno::Errno;

/// Where a connection is to go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// A TCP address. One of IPv4 that is written as IPv6 is of IPv4 here.
    Tcp(SocketAddr),
    /// A Unix socket at a path, not resolved.
    Unix(PathBuf),
    /// A Unix socket without a path.
    Abstract(Vec<u8>),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "tcp {address}"),
            Self::Unix(path) => {
                let path = path.as_os_str().as_bytes().escape_ascii();
                write!(formatter, "unix {path}")
            }
            Self::Abstract(name) => write!(formatter, "unix @{}", name.escape_ascii()),
        }
    }
}

/// Reads a `sockaddr`; any error is what `connect` answers.
pub(super) fn read(bytes: &[u8]) -> Result<Target, Errno> {
    let (family, rest) = bytes.split_first_chunk().ok_or(Errno::EINVAL)?;
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => read_ipv4(rest),
        libc::AF_INET6 => read_ipv6(rest),
        libc::AF_UNIX => read_unix(rest),
        // Also AF_UNSPEC, which takes a connection back: nobody needs that for streams.
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn read_ipv4(rest: &[u8]) -> Result<Target, Errno> {
    // port, address, padding
    let rest: &[u8; 14] = rest.first_chunk().ok_or(Errno::EINVAL)?;
    let [p0, p1, a, b, c, d, ..] = *rest;
    let address = Ipv4Addr::new(a, b, c, d);
    Ok(tcp(IpAddr::V4(address), u16::from_be_bytes([p0, p1])))
}

fn read_ipv6(rest: &[u8]) -> Result<Target, Errno> {
    // port, flow, address; then a scope, which older programs leave out
    let rest: &[u8; 22] = rest.first_chunk().ok_or(Errno::EINVAL)?;
    let (port, rest) = rest.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
    let address: [u8; 16] = rest.last_chunk().copied().ok_or(Errno::EINVAL)?;
    let address = Ipv6Addr::from(address);
    // Scopes exist for link-local addresses, which are refused anyway.
    Ok(tcp(address.to_canonical(), u16::from_be_bytes(*port)))
}

fn tcp(address: IpAddr, port: u16) -> Target {
    Target::Tcp(SocketAddr::new(address, port))
}

fn read_unix(rest: &[u8]) -> Result<Target, Errno> {
    match rest {
        [] => Err(Errno::EINVAL),
        [0, name @ ..] => Ok(Target::Abstract(name.to_vec())),
        path => {
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            Ok(Target::Unix(OsStr::from_bytes(path).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(family: i32, rest: &[u8], expected: Result<&str, Errno>) {
        let family = u16::try_from(family).unwrap().to_ne_bytes();
        let found = read(&[&family, rest].concat()).map(|target| target.to_string());
        assert_eq!(found.as_deref(), expected.as_ref().map(|text| *text));
    }

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let ipv4 = [0x1f, 0x96, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        check(libc::AF_INET, &ipv4, Ok("tcp 127.0.0.1:8086"));
        check(libc::AF_INET, &ipv4[..13], Err(Errno::EINVAL));
        let mut ipv6 = [0; 26];
        ipv6[..2].copy_from_slice(&[0, 80]);
        ipv6[21] = 1;
        check(libc::AF_INET6, &ipv6, Ok("tcp [::1]:80"));
        check(libc::AF_INET6, &ipv6[..22], Ok("tcp [::1]:80"));
        check(libc::AF_INET6, &ipv6[..21], Err(Errno::EINVAL));
        ipv6[16..22].copy_from_slice(&[0xff, 0xff, 169, 254, 169, 254]);
        check(libc::AF_INET6, &ipv6, Ok("tcp 169.254.169.254:80"));
        check(libc::AF_UNIX, b"/run/a\0b", Ok("unix /run/a"));
        check(libc::AF_UNIX, b"/run/a", Ok("unix /run/a"));
        check(libc::AF_UNIX, b"\0a\nb", Ok("unix @a\\nb"));
        check(libc::AF_UNIX, b"", Err(Errno::EINVAL));
        check(libc::AF_UNSPEC, &ipv4, Err(Errno::EAFNOSUPPORT));
        check(libc::AF_NETLINK, &ipv4, Err(Errno::EAFNOSUPPORT));
        assert_eq!(read(&[1]), Err(Errno::EINVAL));
    }

    #[test]
    fn nothing_that_a_program_can_give_makes_it_panic() {
        for family in 0..50_u16 {
            for length in 0..=126 {
                for fill in [0, 1, 0x7f, 0xff] {
                    let bytes = [&family.to_ne_bytes()[..], &vec![fill; length]].concat();
                    drop(read(&bytes));
                }
            }
        }
    }
}
