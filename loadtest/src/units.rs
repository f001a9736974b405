//! Durations and sizes as people write them on a command line: `250ms`, `10s`, `64KiB`.
//! Pure text to value and back; a bare number is seconds for a duration and bytes for a size.

use std::time::Duration;

/// Parses `250ms`, `1.5s`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
/// Says what was wrong, in words fit for a usage message.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit {other:?}: write ms, s, m or h")),
    };
    let value: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration"))?;
    Duration::try_from_secs_f64(value * scale).map_err(|e| format!("{text:?}: {e}"))
}

/// Parses `256`, `64KiB`, `1MiB`, `10kB`.
///
/// # Errors
/// Says what was wrong, in words fit for a usage message.
pub fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let scale: usize = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" | "K" => 1024,
        "MB" => 1_000_000,
        "MiB" | "M" => 1024 * 1024,
        other => return Err(format!("unknown unit {other:?}: write B, KiB or MiB")),
    };
    let value: usize = number
        .parse()
        .map_err(|_| format!("{text:?} is not a size"))?;
    value
        .checked_mul(scale)
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// Writes a number of bytes with a binary unit: `11.5 KiB`.
#[must_use]
pub fn bytes(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1024.0 {
        format!("{value:.0} B")
    } else if magnitude < 1024.0 * 1024.0 {
        format!("{:.1} KiB", value / 1024.0)
    } else {
        format!("{:.1} MiB", value / (1024.0 * 1024.0))
    }
}

/// Writes microseconds at a readable scale: `43 µs`, `1.24 ms`, `2.01 s`.
#[must_use]
pub fn micros(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1000.0 {
        format!("{value:.0} µs")
    } else if magnitude < 1_000_000.0 {
        format!("{:.2} ms", value / 1000.0)
    } else {
        format!("{:.2} s", value / 1_000_000.0)
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert!(duration("3 lightyears").is_err());
        assert!(duration("ms").is_err());
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(size("256"), Ok(256));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("1 MiB"), Ok(1_048_576));
        assert!(size("1.5KiB").is_err());
        assert!(size("99999999999999999999MiB").is_err());
    }

    #[test]
    fn values_are_written_at_a_readable_scale() {
        assert_eq!(bytes(12.0), "12 B");
        assert_eq!(bytes(11776.0), "11.5 KiB");
        assert_eq!(micros(-43.2), "-43 µs");
        assert_eq!(micros(1240.0), "1.24 ms");
    }
}
