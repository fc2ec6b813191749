//! Keeps what the program holds in memory small: a pooler stands there idle most of the time.

/// Keeps what the allocator holds back small. By default glibc makes an arena for almost every thread, and after the
/// first large buffer is freed (a rendered snapshot, say) it keeps buffers of that size for good. The data path does not
/// allocate, so nothing waits for the arenas' locks. To be called before there are threads.
pub fn hold_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: mallopt takes plain numbers, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}

/// Unmaps the pages of the program's code; those in use come back from the page cache by themselves, 64 KB around each
/// first use. What only start-up needs (arguments, configuration, its errors) stays away: most of a server's code, as
/// the kernel drops its own `__init` sections.
pub fn hand_back_startup_code() {
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::unmap_code() {
        tracing::debug!(%error, "start-up code stays in memory");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{Error, Result};

    pub(super) fn unmap_code() -> Result<()> {
        let program = std::fs::read_link("/proc/self/exe")?;
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        for line in maps.lines().filter(|line| program.to_str().is_some_and(|path| line.ends_with(path))) {
            let mut words = line.split_ascii_whitespace();
            let (Some(range), Some("r-xp")) = (words.next(), words.next()) else { continue };
            if let Some((from, to)) = bounds(range) {
                unmap(from, to)?;
            }
        }
        Ok(())
    }

    fn bounds(range: &str) -> Option<(usize, usize)> {
        let (from, to) = range.split_once('-')?;
        Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
    }

    #[allow(unsafe_code)]
    fn unmap(from: usize, to: usize) -> Result<()> {
        // SAFETY: a private, executable mapping of the program's own file. Code is not written to (there are no text
        // relocations), so the next use of a page reads the same bytes from the file again (madvise(2), MADV_DONTNEED).
        let done = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }
}
