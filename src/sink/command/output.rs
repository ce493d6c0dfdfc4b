//! What a program has said, made fit for a log: nothing of the value it was given, and no control characters.
//!
//! Pure.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// So many bytes in common with a value are taken for a piece of it.
const PIECE_BYTES: usize = 8;
const IN_PLACE: &str = "[value]";

/// The output as one line of text, with what may be a piece of one of these values replaced: as it is, in base64, in hex, or
/// escaped as in a URL.
pub fn scrub(output: &[u8], values: &[&[u8]]) -> String {
    let mut forms: Vec<Vec<u8>> = Vec::new();
    values.iter().filter(|value| !value.is_empty()).for_each(|value| add_forms(&mut forms, value));
    let hidden = bytes_to_hide(output, &forms);
    let mut line = String::with_capacity(output.len());
    let mut shown: Vec<u8> = Vec::new();
    for (at, byte) in output.iter().enumerate() {
        if !hidden[at] {
            shown.push(*byte);
        } else if at == 0 || !hidden[at - 1] {
            push_text(&mut line, &shown);
            shown.clear();
            line.push_str(IN_PLACE);
        }
    }
    push_text(&mut line, &shown);
    line.trim_end().to_owned()
}

fn add_forms(forms: &mut Vec<Vec<u8>>, value: &[u8]) {
    forms.push(value.to_vec());
    forms.push(hex::encode(value).into_bytes());
    forms.push(hex::encode_upper(value).into_bytes());
    forms.push(url::form_urlencoded::byte_serialize(value).collect::<String>().into_bytes());
    // What stands before it shifts it against the groups of three bytes.
    for shift in 0..3.min(value.len()) {
        forms.push(STANDARD_NO_PAD.encode(&value[shift..]).into_bytes());
        forms.push(URL_SAFE_NO_PAD.encode(&value[shift..]).into_bytes());
    }
}

/// Which bytes are part of a piece.
fn bytes_to_hide(output: &[u8], forms: &[Vec<u8>]) -> Vec<bool> {
    let mut hidden = vec![false; output.len()];
    let lengths: HashSet<usize> = forms.iter().map(|form| form.len().min(PIECE_BYTES)).collect();
    for length in lengths.into_iter().filter(|length| *length > 0) {
        let of_length = forms.iter().filter(|form| form.len().min(PIECE_BYTES) == length);
        let pieces: HashSet<&[u8]> = of_length.flat_map(|form| form.windows(length)).collect();
        for (at, window) in output.windows(length).enumerate() {
            if pieces.contains(window) {
                hidden[at..at + length].fill(true);
            }
        }
    }
    hidden
}

fn push_text(line: &mut String, bytes: &[u8]) {
    for char in String::from_utf8_lossy(bytes).chars() {
        match char {
            '\n' if line.ends_with(' ') => {}
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => line.push(' '),
            // Those that change the direction of what follows look like harmless text.
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => line.push('?'),
            char if char.is_control() => line.push('?'),
            char => line.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "70_aB3-dE5_gH7+jK9/mN1~pQ3.sT5=vW7yZ";

    #[track_caller]
    fn assert_hidden(said: &str, left: &str) {
        assert_eq!(scrub(said.as_bytes(), &[VALUE.as_bytes()]), left, "{said}");
    }

    #[test]
    fn the_value_is_not_in_the_log_whatever_it_is_wrapped_in() {
        assert_hidden(&format!("put {VALUE} there"), "put [value] there");
        assert_hidden(&format!("{VALUE}{VALUE}"), "[value]");
        let (first, second) = VALUE.split_at(VALUE.len() / 2);
        assert_hidden(&format!("{first} and {second}"), "[value] and [value]");
        assert_hidden(&format!("json {{\"token\":\"{VALUE}\"}}"), "json {\"token\":\"[value]\"}");
        let encoded: String = url::form_urlencoded::byte_serialize(VALUE.as_bytes()).collect();
        assert_hidden(&format!("GET /?t={encoded}&x=1"), "GET /?t=[value]&x=1");
        let hex: String = hex::encode(VALUE);
        assert_hidden(&format!("0x{hex}."), "0x[value].");
    }

    #[test]
    fn a_value_in_base64_is_hidden_whatever_stands_before_it() {
        for before in ["", "u", "us", "user:", "token="] {
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{VALUE}"));
            let left = scrub(format!("Authorization: Basic {encoded}").as_bytes(), &[VALUE.as_bytes()]);
            let rest = left.split_once("Basic ").unwrap().1.replace(IN_PLACE, "");
            // What is left is of what stands around it, and of the bytes that share a group with it.
            assert!(left.contains(IN_PLACE) && rest.len() <= before.len() * 2 + 8, "{before}: {left}");
        }
    }

    #[test]
    fn what_is_no_piece_of_the_value_stays() {
        assert_hidden("connected to 10.0.0.1, 70_aB3 is a start\n", "connected to 10.0.0.1, 70_aB3 is a start");
        assert_eq!(scrub(b"short ab", &[b"ab"]), "short [value]", "a value may be short");
        assert_eq!(scrub(b"anything", &[b""]), "anything");
    }

    #[test]
    fn what_is_no_plain_text_is_replaced() {
        assert_eq!(scrub(b"a\nb\r\x1b[31mred\xff\x00\n\n", &[]), "a b ?[31mred\u{fffd}?");
        assert_eq!(scrub("x\u{202e}y".as_bytes(), &[]), "x?y");
    }
}
