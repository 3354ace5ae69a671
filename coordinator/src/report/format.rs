//! Numbers as people read them.

use bytesize::ByteSize;

/// `1.5 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec().to_string()
}

/// `0.123 s`, `12.3 s`, `3 min 05 s`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.3} s");
    }
    if seconds < 120.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 7200 {
        return format!("{} min {:02} s", whole / 60, whole % 60);
    }
    format!("{} h {:02} min", whole / 3600, whole / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_readable_at_every_scale() {
        assert_eq!(seconds(0.0414), "0.041 s");
        assert_eq!(seconds(59.96), "60.0 s");
        assert_eq!(seconds(185.2), "3 min 05 s");
        assert_eq!(seconds(7322.0), "2 h 02 min");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(3 << 19), "1.5 MiB");
    }
}
