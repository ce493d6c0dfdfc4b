//! Requests that hyper cannot read. It answers them with a status and an empty body, so programs show their users
//! nothing. This gives the answer to send instead: one that says what is wrong, both as a problem and as WeChat would,
//! because nobody knows which API the request was for. Pure.

use serde_json::json;

/// The answer to send instead, if this is such an answer of hyper's.
pub fn replacement(answer: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(answer.get(..256.min(answer.len()))?).ok()?;
    let (status, rest) = head.strip_prefix("HTTP/1.1 ")?.split_at_checked(3)?;
    let (title, rest) = rest.trim_start().split_once("\r\n")?;
    let is_empty = rest.to_ascii_lowercase().contains("content-length: 0\r\n");
    let (name, errcode, what, detail) = match status {
        "400" => ("bad-request", 47001, "data format error", "this is no HTTP request that can be read"),
        "414" => ("too-large", 45002, "content size out of limit", "the address is too long"),
        "431" => ("too-large", 45002, "content size out of limit", "the header lines are too many or too long"),
        _ => return None,
    };
    if !is_empty {
        return None;
    }
    let body = json!({
        "type": format!("urn:tokencached:problem:{name}"),
        "title": title,
        "status": status.parse::<u16>().unwrap_or(400),
        "detail": detail,
        "errcode": errcode,
        "errmsg": format!("{what}: {detail}"),
    });
    let (body, line) = (body.to_string(), format!("HTTP/1.1 {status} {title}"));
    let length = body.len();
    let head = "content-type: application/json\r\ncache-control: no-store\r\nconnection: close";
    Some(format!("{line}\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_answer_of_hypers_own_is_replaced() {
        let empty = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let text = String::from_utf8(replacement(empty).unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{text}");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["status"], &body["errcode"]), (&json!(431), &json!(45002)));
        for other in [
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice(),
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\n\r\n",
            b"data: HTTP/1.1 431 x\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 43",
            b"",
        ] {
            assert_eq!(replacement(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
