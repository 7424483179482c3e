//! How much memory there is, and how people write it.

use cellmill_matrix::{Error, Result};

/// Share of the memory that is really available which a run takes unless it is told otherwise.
pub const DEFAULT_SHARE: f64 = 0.8;

/// Bytes from `4GiB`, `512 MiB`, `1.5G`, `800MB` or a plain number.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let t = text.trim();
    let at = t.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(t.len());
    let (number, unit) = t.split_at(at);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024f64.powi(2),
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(Error::option("memory", format!("'{text}'"), "sizes read like 4GiB, 512MiB or 2GB")),
    };
    match number.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok((x * factor) as u64),
        _ => Err(Error::option("memory", format!("'{text}'"), "sizes read like 4GiB, 512MiB or 2GB")),
    }
}

/// Bytes as people say them.
pub fn say_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut x = bytes as f64;
    let mut unit = 0;
    while x >= 1024.0 && unit + 1 < UNITS.len() {
        x /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{x:.1} {}", UNITS[unit]) }
}

/// Memory that this process may take: what the system has free, within the limits of its control groups.
pub fn available_bytes() -> u64 {
    let free = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|l| l.strip_prefix("MemAvailable:")).and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        })
        .map_or(4 << 30, |kib| kib * 1024);
    control_group_limit().map_or(free, |limit| free.min(limit))
}

/// What the tightest control group (version 2, then 1) leaves.
fn control_group_limit() -> Option<u64> {
    let number = |path: &std::path::Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut tightest: Option<u64> = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, max, current) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
            c if c.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            _ => continue,
        };
        let mut folder = std::path::PathBuf::from(format!("{root}{path}"));
        while folder.starts_with(root) {
            if let (Some(limit), Some(used)) = (number(&folder.join(max)), number(&folder.join(current))) {
                let left = limit.saturating_sub(used);
                tightest = Some(tightest.map_or(left, |t| t.min(left)));
            }
            if !folder.pop() {
                break;
            }
        }
    }
    tightest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_said() {
        assert_eq!(parse_bytes("4GiB").unwrap(), 4 << 30);
        assert_eq!(parse_bytes("1.5 g").unwrap(), 3 << 29);
        assert_eq!(parse_bytes("800MB").unwrap(), 800_000_000);
        assert_eq!(parse_bytes("1000").unwrap(), 1000);
        assert!(parse_bytes("4 bananas").unwrap_err().to_string().contains("4GiB"));
        assert!(parse_bytes("-1GiB").is_err());
        assert_eq!(say_bytes(3 << 29), "1.5 GiB");
        assert!(available_bytes() > 0);
    }
}
