//! Numbers as memcached reads them, on the wire and in an item: `strtol` and `strtoul` with their habits.

/// White space in C's sense.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Sign and magnitude of a decimal number: leading white space and one sign are allowed; after the digits the
/// text must end, or go on with white space, whatever follows (`safe_strtoul` in memcached's util.c).
fn parts(text: &[u8]) -> Option<(bool, u64)> {
    let blanks = text.iter().take_while(|&&byte| is_space(byte)).count();
    let text = text.get(blanks..)?;
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let mut value: u64 = 0;
    let mut count = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            if is_space(byte) || byte == 0 {
                break;
            }
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        count += 1;
    }
    (count > 0).then_some((negative, value))
}

/// An unsigned number of up to 64 bits. A minus counts modulo 2^64 and is refused when the result has the top bit set.
pub fn unsigned(text: &[u8]) -> Option<u64> {
    match parts(text)? {
        (false, value) => Some(value),
        (true, value) => Some(value.wrapping_neg()).filter(|value| *value <= i64::MAX as u64),
    }
}

/// An unsigned number of up to 32 bits.
pub fn unsigned_32(text: &[u8]) -> Option<u32> {
    u32::try_from(unsigned(text)?).ok()
}

/// A signed number of up to 64 bits.
pub fn signed(text: &[u8]) -> Option<i64> {
    match parts(text)? {
        (false, value) => i64::try_from(value).ok(),
        (true, value) => 0_i64.checked_sub_unsigned(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_memcached_reads() {
        assert_eq!(unsigned(b"0"), Some(0));
        assert_eq!(unsigned(b"+1"), Some(1));
        assert_eq!(unsigned(b" 10"), Some(10));
        assert_eq!(unsigned(b"10 "), Some(10));
        assert_eq!(unsigned(b"5\t"), Some(5));
        assert_eq!(unsigned(b"5 a"), Some(5));
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(signed(b"-1"), Some(-1));
        assert_eq!(signed(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(unsigned_32(b"4294967295"), Some(u32::MAX));
    }

    #[test]
    fn refuses_what_memcached_refuses() {
        for text in [&b""[..], b"-1", b"x", b"5a", b"0x1", b"18446744073709551616", b"+", b"-", b" "] {
            assert_eq!(unsigned(text), None, "{}", text.escape_ascii());
        }
        assert_eq!(unsigned_32(b"4294967296"), None);
        assert_eq!(signed(b"9223372036854775808"), None);
    }

    #[test]
    fn reads_an_items_number_as_memcached_reads_it() {
        // Each line was put to memcached 1.6.18.
        let table: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("5", Some(5)),
            (" 5", Some(5)),
            ("\t5", Some(5)),
            ("5 ", Some(5)),
            ("5\r\n", Some(5)),
            ("5 a", Some(5)),
            ("5\x005", Some(5)),
            ("+5", Some(5)),
            ("007", Some(7)),
            ("000000000000000000000", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            (" 18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999", None),
            ("-0", Some(0)),
            ("-1", None),
            ("  -5", None),
            ("-18446744073709551615", Some(1)),
            ("-18446744073709551616", None),
            ("-9223372036854775809", Some(9_223_372_036_854_775_807)),
            ("-9223372036854775808", None),
            ("", None),
            (" ", None),
            ("-", None),
            ("0x10", None),
            ("5a", None),
            ("text", None),
        ];
        for (text, expected) in table {
            assert_eq!(unsigned(text.as_bytes()), *expected, "{text:?}");
        }
    }
}
