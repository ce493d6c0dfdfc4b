//! What WeChat may answer: whatever it is, a token that is taken can be served as it is, and nothing that must stay
//! hidden is in a failure.

use tokencached::platform::answer::{TOKEN_BYTES_MAX, read_probe, read_token};
use tokencached::platform::{CredentialType, component, feishu, mp};

/// Stands in the seeds too, so that answers have it.
const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e700";
const STATUS: [u16; 8] = [200, 200, 200, 204, 302, 404, 500, 0];
const MONTH_S: u64 = 30 * 86_400;

pub fn run(data: &[u8]) {
    let Some((&[which, status], body)) = data.split_first_chunk::<2>() else { return };
    let types: [&CredentialType; 5] =
        [&mp::STABLE, &mp::JSAPI, &component::COMPONENT, &component::AUTHORIZER, &feishu::TOKEN];
    let status = STATUS[usize::from(status) % STATUS.len()];
    match read_token(types[usize::from(which) % types.len()], "wx1", &[SECRET], status, body) {
        Ok(token) => {
            assert!((200..300).contains(&status), "taken with status {status}");
            assert!((1..=TOKEN_BYTES_MAX).contains(&token.value.len()));
            assert!(token.value.iter().all(u8::is_ascii_graphic), "{}", token.value.escape_ascii());
            assert!((1..=MONTH_S).contains(&token.expires_in_s), "{}", token.expires_in_s);
            let debug = format!("{token:?}");
            assert!(token.value.len() < 12 || !debug.contains(&*String::from_utf8_lossy(&token.value)), "{debug}");
        }
        Err(failure) => {
            let shown = format!("{failure:?} {}", failure.message);
            assert!(!shown.contains(SECRET), "{shown}");
            assert!(failure.message.chars().count() <= 200 && !failure.message.contains(char::is_control), "{shown}");
        }
    }
    read_probe(mp::PROBE.api(), status, body);
}
