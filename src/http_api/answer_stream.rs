//! The stream that answers are written to. It fails when the peer reads nothing of them for a while, and puts answers with a
//! body in place of hyper's own to requests that it cannot read.
//!
//! Reading has its own limits elsewhere: a client that listens to events sends nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connections::HttpConnection;
use crate::http_server::HttpStream;

/// A connection is closed when the client reads nothing of its answer for so long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

pub struct AnswerStream {
    stream: HttpStream,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What is left to write of an answer in place of hyper's.
    replacement: Bytes,
    connection: Arc<HttpConnection>,
}

impl AnswerStream {
    pub fn new(stream: HttpStream, connection: Arc<HttpConnection>) -> AnswerStream {
        AnswerStream { stream, deadline: None, replacement: Bytes::new(), connection }
    }

    fn poll_with_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut HttpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), cx);
        self.connection.is_writing.store(written.is_pending(), Relaxed);
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether this is an answer of hyper's own: the one in its place is then written by the flush that follows.
    fn replaces(&mut self, answer: &[u8]) -> bool {
        let Some(replacement) = replacement(answer) else { return false };
        self.replacement = replacement.into();
        true
    }

    /// Ready once all of the replacement has been written.
    fn poll_write_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            let rest = self.replacement.clone();
            let written = ready!(self.poll_with_timeout(cx, |stream, cx| stream.poll_write(cx, &rest)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement = rest.slice(written..);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for AnswerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for AnswerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_with_timeout(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_replacement(cx))?;
        self.poll_with_timeout(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_replacement(cx))?;
        self.poll_with_timeout(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

/// Hyper answers requests that it cannot read with a status and an empty body, so programs show their users nothing. If
/// this is such an answer, the one to send instead: it says what is wrong, both as a problem and as WeChat would, because
/// nobody knows which API the request was for.
fn replacement(answer: &[u8]) -> Option<Vec<u8>> {
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
