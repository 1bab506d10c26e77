//! Large writes in pieces, so that no thread keeps a core to itself in the kernel.
//!
//! A new Linux caches what one call writes in pages as large as the write, up to 2 MiB on ext4, and
//! a kernel that does not preempt itself gives the core away only between them. sled writes 16 MiB
//! with one call whenever a segment of its log is full: eight times 5.3 ms, measured with Linux
//! 6.18 on a virtual machine of two cores, in which half of it answered nobody. So this module
//! defines the C library's `pwrite64`, which the standard library calls for every write at an
//! offset, and writes no more than 128 KiB of what is asked for; whoever writes all of
//! something goes on from there, as always, and the core is free in between. It holds for the whole
//! process, and so it is in the binary and not in the library, which others link.
//!
//! On other systems nothing is overridden; this is about latency only.

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#[allow(unsafe_code, reason = "a C symbol is replaced, and another is called")]
mod linux {
    use libc::{c_int, c_void, off64_t, size_t, ssize_t};

    /// Bytes that one call writes at most.
    pub(super) const WRITE_BYTES_MAX: usize = 128 << 10;

    /// Has the C library's name, signature and meaning, and writes a piece. It goes on to `pwrite`,
    /// which is the same function there, and not to the system: whoever stands between a program
    /// and the C library, as tests of power losses do, is asked as before.
    // SAFETY: no other object of the program defines this symbol; the C library's own definition
    // is in a shared library and yields to it, and has the same signature.
    #[unsafe(no_mangle)]
    extern "C" fn pwrite64(
        file: c_int,
        bytes: *const c_void,
        count: size_t,
        offset: off64_t,
    ) -> ssize_t {
        // SAFETY: the call takes any arguments and answers EFAULT or EBADF to wrong ones; it reads
        // no more of the caller's bytes than the caller has.
        unsafe { libc::pwrite(file, bytes, count.min(WRITE_BYTES_MAX), offset) }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod tests {
    use std::io;
    use std::os::unix::fs::FileExt;

    use super::linux::WRITE_BYTES_MAX;

    #[test]
    fn a_large_write_is_cut_and_whoever_writes_all_goes_on() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3 * WRITE_BYTES_MAX + 5).map(|n| (n % 251) as u8).collect();
        assert_eq!(file.write_at(&bytes, 7).unwrap(), WRITE_BYTES_MAX);
        file.write_all_at(&bytes, 7).unwrap();
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 7).unwrap();
        assert!(read == bytes);
        assert_eq!(file.metadata().unwrap().len(), 7 + bytes.len() as u64);
    }

    #[test]
    fn a_small_write_is_whole_and_errors_pass_through() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(file.as_file().write_at(b"small", 0).unwrap(), 5);
        let readable = std::fs::File::open(file.path()).unwrap();
        let refused = readable.write_at(b"x", 0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF), "{refused}");
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
    }
}
