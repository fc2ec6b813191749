//! Memory of processes, as the kernel divides it: what is a process's own share (Pss_Anon + Pss_File) and, apart,
//! the shared memory (Pss_Shmem). Resident sizes are never summed: they would count shared pages once a process.
//! Source: `/proc/PID/smaps_rollup`, Linux 5.x and later.

use std::io;

/// The memory of one or several processes, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Pss_Anon + Pss_File: what these processes cost, each shared page divided by its users.
    pub own_bytes: u64,
    /// Pss_Shmem: their part of shared memory.
    pub shared_bytes: u64,
    /// Processes that were read.
    pub processes: u32,
}

/// Memory of one process.
///
/// # Errors
/// The process is gone, or may not be read.
pub fn process(pid: u32) -> io::Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(parse(&text))
}

/// Sum over processes; those that are gone meanwhile are left out.
#[must_use]
pub fn processes(pids: &[u32]) -> Memory {
    pids.iter().filter_map(|&pid| process(pid).ok()).fold(Memory::default(), |sum, one| Memory {
        own_bytes: sum.own_bytes + one.own_bytes,
        shared_bytes: sum.shared_bytes + one.shared_bytes,
        processes: sum.processes + 1,
    })
}

fn parse(text: &str) -> Memory {
    let mut memory = Memory { processes: 1, ..Memory::default() };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(kb)) = (words.next(), words.next().and_then(|w| w.parse::<u64>().ok())) else {
            continue;
        };
        match name {
            "Pss_Anon:" | "Pss_File:" => memory.own_bytes += kb * 1024,
            "Pss_Shmem:" => memory.shared_bytes += kb * 1024,
            _ => {}
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_anonymous_and_file_pages_and_keeps_shared_memory_apart() {
        let text = "55d0-7fff ---p 00000000 00:00 0 [rollup]\nRss: 9000 kB\nPss: 300 kB\nPss_Anon: 100 kB\n\
                    Pss_File: 50 kB\nPss_Shmem: 150 kB\n";
        let memory = parse(text);
        assert_eq!(memory, Memory { own_bytes: 150 * 1024, shared_bytes: 150 * 1024, processes: 1 });
    }

    #[test]
    fn reads_this_process_and_skips_one_that_is_gone() {
        let sum = processes(&[std::process::id(), u32::MAX]);
        assert_eq!(sum.processes, 1);
        assert!(sum.own_bytes > 100 * 1024, "{sum:?}");
    }
}
