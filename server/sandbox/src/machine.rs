//! What can this machine's kernel enforce, for this user, here? Asked once, by system calls:
//! what `/sys` lists is missing in containers that have it all the same.

use std::io;

use nix::unistd::geteuid;

use crate::{report::Layer, user};

/// What this machine can do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Machine {
    /// The version of Landlock's interface; 0 where there is none.
    pub(crate) landlock_abi: u32,
    /// Why there is none.
    pub(crate) landlock_missing: Option<String>,
    /// Why system calls cannot be filtered.
    pub(crate) seccomp_missing: Option<String>,
    /// Why system calls cannot be handed to the server.
    pub(crate) notification_missing: Option<String>,
    /// Why there are no namespaces. Whether they can be had is only known by taking them.
    pub(crate) namespaces_missing: Option<String>,
    /// Why no control groups are to be made; whether they can is found out by making some.
    pub(crate) groups_missing: Option<String>,
    /// Whether this is root.
    pub(crate) root: bool,
    /// Whom programs can become; or why nobody.
    pub(crate) user: Result<u32, String>,
    /// Layers that every machine has, left out all the same.
    pub(crate) left_out: Vec<Layer>,
}

impl Machine {
    /// Finds it out; cheap, and without starting anything.
    pub fn probe() -> Self {
        let landlock = landlock_abi();
        Self {
            landlock_abi: *landlock.as_ref().unwrap_or(&0),
            landlock_missing: landlock.err().map(|error| error.to_string()),
            seccomp_missing: action_missing(libc::SECCOMP_RET_KILL_PROCESS),
            notification_missing: action_missing(libc::SECCOMP_RET_USER_NOTIF),
            namespaces_missing: None,
            groups_missing: None,
            root: geteuid().is_root(),
            user: user::find(),
            left_out: Vec::new(),
        }
    }

    /// A machine that can do nothing of it, as gVisor or a kernel from before 2017.
    pub fn bare() -> Self {
        Self {
            landlock_abi: 0,
            landlock_missing: Some("the kernel does not have it".to_owned()),
            seccomp_missing: Some("the kernel does not have it".to_owned()),
            notification_missing: Some("the kernel does not have it".to_owned()),
            namespaces_missing: Some("the kernel does not have it".to_owned()),
            groups_missing: Some("the kernel does not have it".to_owned()),
            root: false,
            user: Err("the kernel does not have it".to_owned()),
            left_out: Vec::new(),
        }
    }

    /// The same machine as if it did not have one of its layers: for finding out what each
    /// is good for.
    pub fn lose(&mut self, layer: Layer) {
        let why = Some("left out".to_owned());
        match layer {
            Layer::Landlock => {
                self.landlock_abi = 0;
                self.landlock_missing = why;
            }
            Layer::Seccomp => self.seccomp_missing = why,
            Layer::Broker => self.notification_missing = why,
            // With the others, which are nothing without it.
            Layer::MountNamespace => self.namespaces_missing = why,
            Layer::Cgroup => self.groups_missing = why,
            Layer::User => self.user = Err("left out".to_owned()),
            other => self.left_out.push(other),
        }
    }

    /// Whether this layer is not to be applied.
    pub fn leaves_out(&self, layer: Layer) -> bool {
        self.left_out.contains(&layer)
    }

    /// The version of Landlock's interface; 0 where there is none.
    pub const fn landlock_abi(&self) -> u32 {
        self.landlock_abi
    }

    /// Which user of their own programs can become here; or why none.
    pub fn own_user(&self) -> Result<u32, String> {
        self.user.clone()
    }

    /// Whether system calls can be filtered.
    pub const fn has_seccomp(&self) -> bool {
        self.seccomp_missing.is_none()
    }

    /// Whether system calls can be handed to the server, as the broker of connections needs.
    pub const fn has_notification(&self) -> bool {
        self.notification_missing.is_none()
    }
}

#[expect(unsafe_code, reason = "the call has no wrapper that tells the version")]
fn landlock_abi() -> io::Result<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel reads no memory of ours, and makes no descriptor.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    if abi < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(abi).unwrap_or(u32::MAX))
}

#[expect(unsafe_code, reason = "the call has no wrapper")]
fn action_missing(action: u32) -> Option<String> {
    let no_flags: libc::c_uint = 0;
    // SAFETY: the kernel reads four bytes at a place that lives until it returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            no_flags,
            &raw const action,
        )
    };
    (answer != 0).then(|| io::Error::last_os_error().to_string())
}
