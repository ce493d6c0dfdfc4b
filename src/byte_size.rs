//! Numbers of bytes as people write them. Pure.
//!
//! No crate reads the same texts: to bytesize `64mb` are 64,000,000, and parse-size takes `1.5m`, `1e3` and `1_000` too.

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The number of bytes that a text means; `plain_unit` is what a number without a unit counts.
pub fn parse(text: &str, plain_unit: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" => plain_unit,
        "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => GIB,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes for people, exact, and readable by [`parse`].
pub fn size_text(bytes: u64) -> String {
    match bytes {
        0 => "0B".into(),
        _ if bytes.is_multiple_of(GIB) => format!("{}GiB", bytes / GIB),
        _ if bytes.is_multiple_of(MIB) => format!("{}MiB", bytes / MIB),
        _ if bytes.is_multiple_of(KIB) => format!("{}KiB", bytes / KIB),
        _ => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [("64MiB", 64 * MIB), ("64m", 64 * MIB), ("1 g", GIB), ("512k", 512 * KIB), ("99", 99)] {
            assert_eq!(parse(text, 1), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1.5m", "64 potatoes", "99999999999g"] {
            assert_eq!(parse(text, 1), None, "{text}");
        }
        assert_eq!(parse("64", MIB), Some(64 * MIB));
        assert_eq!(parse("1g", MIB), Some(GIB));
    }

    #[test]
    fn a_size_for_people_reads_back() {
        for bytes in [0, 1, 1023, KIB, MIB + 1, 64 * MIB, 3 * GIB] {
            assert_eq!(parse(&size_text(bytes), 1), Some(bytes));
        }
    }
}
