//! How is it made sure that an installer changes nothing but its own files, not even their modes?
//!
//! Landlock has no say about modes, times and attributes, and installers must be able to change
//! them. Where there is a mount namespace, all is mounted read-only there but what may be changed.

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

/// Makes all read-only but these files and directories. This process must have a mount
/// namespace of its own, from which nothing gets out.
pub(crate) fn all_but(writable: &[PathBuf]) -> io::Result<()> {
    const NONE: Option<&str> = None;
    let writable: Vec<_> = writable.iter().filter(|path| path.exists()).collect();
    for path in &writable {
        // What is a mount of its own can have a flag of its own.
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(path.as_path()), path.as_path(), NONE, flags, NONE)?;
    }
    set_read_only(Path::new("/"), true)?;
    for path in writable {
        set_read_only(path, false)?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the call has no wrapper")]
fn set_read_only(path: &Path, read_only: bool) -> io::Result<()> {
    let flag = libc::MOUNT_ATTR_RDONLY;
    let (attr_set, attr_clr) = if read_only { (flag, 0) } else { (0, flag) };
    let attributes = libc::mount_attr {
        attr_set,
        attr_clr,
        propagation: 0,
        userns_fd: 0,
    };
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the kernel reads the path and the attributes, which live until it returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            std::ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
