//! TUN devices: network interfaces whose packets this process reads and writes.
//!
//! The only unsafe code of the crate's links is here: the request by which Linux makes an open file of
//! `/dev/net/tun` into a device. The kernel reads and writes only the structure that is passed, which is as large as
//! the request says, and the structure lives until the call returns.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Error as IoError, Result as IoResult};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Most bytes of the name of an interface.
const NAME_BYTES_MAX: usize = 15;

/// Opens a new TUN device of the given name in the namespace of this process. It exists as long as the file is open,
/// also if it is moved into another namespace. Reads and writes do not block, and each is one packet.
pub fn open(name: &str) -> IoResult<File> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(IoError::other(format!("the name of an interface has 1 to 15 bytes: {name}")));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: all bytes zero are a valid `ifreq`, which consists of integers, arrays and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the file is open, and TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 { Err(IoError::last_os_error()) } else { Ok(file) }
}
