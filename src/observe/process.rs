//! What the operating system says about this process (Linux; elsewhere nothing but the version).

use std::fmt::Write as _;
use std::fs;

/// Appends the version and, where `/proc` is there, memory and file descriptors.
pub(super) fn render(out: &mut String) {
    let mut gauge = |name: &str, labels: &str, help: &str, value: u64| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}"
        );
    };
    let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    gauge(
        "holdline_build_info",
        version,
        "Always 1; its label says which version runs.",
        1,
    );
    if let Some(bytes) = resident_bytes() {
        let help = "Memory of this process in RAM.";
        gauge("holdline_process_resident_memory_bytes", "", help, bytes);
    }
    if let Some(open) = open_files() {
        gauge(
            "holdline_process_open_fds",
            "",
            "Open file descriptors.",
            open,
        );
    }
    if let Some(limit) = file_limit() {
        gauge(
            "holdline_process_max_fds",
            "",
            "Most file descriptors that may be open.",
            limit,
        );
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kib * 1024)
}

fn open_files() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // Listing them takes one.
    u64::try_from(open).ok()?.checked_sub(1)
}

fn file_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
