//! A key of the memcached that the site has used so far: one request on a connection of its own.
//!
//! Read with `mg`, which tells how long the key is kept; with `get` if the server is too old for that.

use std::io;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::{BYTES_MAX, StoredBytes};

const NO_MEMCACHED: &str = "it does not answer as a memcached does";

/// What is under that key. An address that is a path is a Unix socket.
pub(super) async fn read(address: &str, key: &str) -> Result<Vec<StoredBytes>, String> {
    let refused = |error: io::Error| format!("it cannot be reached: {error}");
    match address.starts_with('/') {
        true => ask(UnixStream::connect(address).await.map_err(refused)?, key).await,
        false => ask(TcpStream::connect(address).await.map_err(refused)?, key).await,
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, key: &str) -> Result<Vec<StoredBytes>, String> {
    let lost = |error: io::Error| format!("it does not answer: {error}");
    for command in [format!("mg {key} t v\r\n"), format!("get {key}\r\n")] {
        stream.write_all(command.as_bytes()).await.map_err(lost)?;
        let mut answer = Vec::new();
        let stored = loop {
            if let Poll::Ready(stored) = parse(&answer)? {
                break stored;
            }
            if stream.read_buf(&mut answer).await.map_err(lost)? == 0 || answer.len() > BYTES_MAX {
                return Err(NO_MEMCACHED.to_owned());
            }
        };
        if let Some(stored) = stored {
            return Ok(stored);
        }
    }
    Err(NO_MEMCACHED.to_owned())
}

/// What is stored; none if the command is not known. Pending while the answer is not whole.
fn parse(answer: &[u8]) -> Result<Poll<Option<Vec<StoredBytes>>>, String> {
    let Some(end) = memchr::memmem::find(answer, b"\r\n") else { return Ok(Poll::Pending) };
    let (line, rest) = answer.split_at(end);
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split(' ');
    let (length, left_ms) = match words.next() {
        Some("EN" | "END") => return Ok(Poll::Ready(Some(Vec::new()))),
        Some("VA") => {
            let length = words.next();
            // -1: for ever.
            let left_s = words.find_map(|word| word.strip_prefix('t')).and_then(|left| left.parse::<u64>().ok());
            (length, left_s.map(|left_s| left_s.saturating_mul(1000)))
        }
        Some("VALUE") => (words.nth(2), None),
        Some("ERROR" | "CLIENT_ERROR") => return Ok(Poll::Ready(None)),
        _ => return Err(format!("{NO_MEMCACHED}, or wants a password")),
    };
    let length: usize = length.and_then(|length| length.parse().ok()).ok_or(NO_MEMCACHED)?;
    let stored = |data: &[u8]| vec![StoredBytes { bytes: data.to_vec(), left_ms, written_unix_ms: None }];
    let data = rest.get(2..).and_then(|data| data.get(..length.min(BYTES_MAX)));
    Ok(data.map_or(Poll::Pending, |data| Poll::Ready(Some(stored(data)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(answers: &'static [&'static str]) -> Result<Vec<(String, Option<u64>)>, String> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            for answer in answers {
                let mut question = [0; 256];
                let _ = theirs.read(&mut question).await;
                // In two pieces: answers come as they like.
                let (first, second) = answer.split_at(answer.len() / 2);
                let _ = theirs.write_all(first.as_bytes()).await;
                tokio::task::yield_now().await;
                let _ = theirs.write_all(second.as_bytes()).await;
            }
        });
        let stored = ask(ours, "access_token").await?;
        Ok(stored.into_iter().map(|one| (String::from_utf8(one.bytes).unwrap(), one.left_ms)).collect())
    }

    #[tokio::test]
    async fn a_new_memcached_tells_how_long_it_keeps_the_key_and_an_old_one_does_not() {
        assert_eq!(asked(&["VA 5 t1200\r\ntoken\r\n"]).await, Ok(vec![("token".into(), Some(1_200_000))]));
        assert_eq!(asked(&["VA 5 t-1\r\ntoken\r\n"]).await, Ok(vec![("token".into(), None)]));
        let old = asked(&["ERROR\r\n", "VALUE access_token 0 5\r\ntoken\r\nEND\r\n"]).await;
        assert_eq!(old, Ok(vec![("token".into(), None)]));
        assert_eq!(asked(&["EN\r\n"]).await, Ok(vec![]));
        assert!(asked(&["HTTP/1.1 400 Bad Request\r\n"]).await.is_err());
        assert!(asked(&[]).await.is_err());
    }
}
