//! How much memory there is, and sizes as people write them.

use std::fs;

/// Taken for the machine's memory where the system does not tell.
const UNKNOWN_BYTES: u64 = 2 << 30;

/// The share of the machine that columns may take: a quarter (design.md 3).
pub(crate) fn share() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text));
    // A container's own limit, where there is one: <https://docs.kernel.org/admin-guide/cgroup-v2.html>, memory.max.
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let bytes = [machine, container].into_iter().flatten().min().unwrap_or(UNKNOWN_BYTES);
    usize::try_from(bytes / 4).unwrap_or(usize::MAX)
}

/// Total memory in bytes, from the kernel's `/proc/meminfo`.
fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Reads a size: a whole number of bytes, or of K, M, G or T (powers of 1024).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "must be a size such as 512M or 4G".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < 1 << 20 { Err("must be at least 1M".to_owned()) } else { Ok(bytes) }
}

/// Reads a size, or 0 for none.
pub(crate) fn size_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { size(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("1048576", Some(1 << 20)), ("512M", Some(512 << 20)), ("4g", Some(4 << 30)), ("2TiB", Some(2 << 40))] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
        assert_eq!((size_or_none("0"), size_or_none("2M"), size("0").is_err()), (Ok(0), Ok(2 << 20), true));
        for text in ["", "M", "4X", "-1G", "1.5G", "99999999999T", "12", "G4"] {
            assert!(size(text).is_err() && size_or_none(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_kernel_tells_in_kilobytes() {
        assert_eq!(of_machine("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24_576 << 10));
        assert_eq!(of_machine("MemFree: 1 kB"), None);
    }
}
