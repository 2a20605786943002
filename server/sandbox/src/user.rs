//! Whose process is a program, where the server is root?

use std::fs;

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};

/// Far from all that systems and their administrators give out.
const OWN: u32 = 0x7000_0000;

/// What a server needs whose workers are somebody else: to become that, to give them files and
/// look after these, to end them, and to read the addresses that they connect to.
const NEEDED: [Capability; 7] = [
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_KILL,
    Capability::CAP_SYS_PTRACE,
];

/// Which user programs can become here; or why none.
pub(crate) fn find() -> Result<u32, String> {
    if !geteuid().is_root() {
        return Err("the server is not root, and cannot become anybody else".to_owned());
    }
    let has = caps::read(None, CapSet::Effective).unwrap_or_default();
    if let Some(lacks) = NEEDED.iter().find(|needed| !has.contains(needed)) {
        return Err(format!("the server is root without {lacks}"));
    }
    for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let text = fs::read_to_string(map).unwrap_or_default();
        if !is_mapped(&text, OWN) {
            return Err(format!("there is no user {OWN} in this container"));
        }
    }
    Ok(OWN)
}

/// Whether a user namespace with this map has that id.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

/// Becomes this user, whose group has the same number, for good. It has no other groups.
pub(crate) fn take(user: u32) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_must_be_one_of_the_container() {
        let all = "         0          0 4294967295\n";
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert!(is_mapped(all, OWN));
        assert!(!is_mapped(rootless, OWN));
        assert!(is_mapped(rootless, 65_536) && !is_mapped(rootless, 65_537));
        assert!(!is_mapped("", OWN) && !is_mapped("a b c\n", OWN));
    }

    #[test]
    fn only_root_can_become_somebody_else() {
        if !geteuid().is_root() {
            assert!(find().unwrap_err().contains("not root"));
        }
    }
}
