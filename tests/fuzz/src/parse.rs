//! Any bytes: the parser never panics, never goes back, never asks for less than it has, and finds the same requests
//! however the bytes are split. The same bytes are also read as those of a client that has yet to log in, and as binary
//! packets if they begin like one.

use tokencached::protocol::RequestStep;
use tokencached::protocol::binary;
use tokencached::protocol::login::{LoginStep, login_step};
use tokencached::protocol::parse::step;

/// Largest data block that is buffered here; longer ones are discarded.
const VALUE_BYTES_MAX: usize = 64;

pub fn run(data: &[u8]) {
    let Some((stream, pieces)) = super::pieces(data) else { return };
    let whole = requests(&[stream]);
    assert_eq!(requests(&pieces), whole, "in pieces of {:?}", pieces.iter().map(|piece| piece.len()));
    assert_eq!(requests(&stream.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    log_in(stream);
    for stranger in [false, true] {
        let whole = packets(&[stream], stranger);
        assert_eq!(packets(&pieces, stranger), whole, "packets in pieces");
        assert_eq!(packets(&stream.chunks(1).collect::<Vec<_>>(), stranger), whole, "packets byte by byte");
    }
}

/// What a parser finds at the front of a buffer.
enum FirstMessage {
    /// A request as text, the bytes it took, and those of its block to be thrown away.
    Whole(String, usize, u64),
    /// Nothing with fewer than so many bytes.
    More(usize),
    /// The end, and why.
    End(String),
}

/// Requests as text.
pub fn requests(pieces: &[&[u8]]) -> Vec<String> {
    found(pieces, |buffer| first_message(step(buffer, VALUE_BYTES_MAX)))
}

/// The same for binary packets.
fn packets(pieces: &[&[u8]], stranger: bool) -> Vec<String> {
    found(pieces, |buffer| first_message(binary::step(buffer, VALUE_BYTES_MAX, stranger)))
}

fn first_message(step: RequestStep<'_>) -> FirstMessage {
    match step {
        RequestStep::Request { request, used, discard } => FirstMessage::Whole(format!("{request:?}"), used, discard),
        RequestStep::More { total } => FirstMessage::More(total),
        RequestStep::Close(why) => FirstMessage::End(format!("{why:?}")),
    }
}

/// All that is found in a buffer that grows piece by piece.
fn found(pieces: &[&[u8]], front: impl Fn(&[u8]) -> FirstMessage) -> Vec<String> {
    let (mut buffer, mut found, mut discard, mut wanted) = (Vec::new(), Vec::new(), 0, 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let gone = buffer.len().min(discard);
            buffer.drain(..gone);
            discard -= gone;
            if discard > 0 || buffer.is_empty() {
                break;
            }
            match front(&buffer) {
                FirstMessage::Whole(request, used, block) => {
                    assert!(used > 0 && used <= buffer.len(), "{used} of {} used", buffer.len());
                    assert!(buffer.len() >= wanted, "whole at {}, said to need {wanted}", buffer.len());
                    found.push(request);
                    discard = usize::try_from(block).unwrap_or(usize::MAX);
                    buffer.drain(..used);
                    wanted = 0;
                }
                FirstMessage::More(total) => {
                    assert!(total > buffer.len(), "more wanted, but no more than there is");
                    wanted = total;
                    break;
                }
                FirstMessage::End(why) => {
                    found.push(why);
                    return found;
                }
            }
        }
    }
    found
}

fn log_in(mut rest: &[u8]) {
    while !rest.is_empty() {
        let used = match login_step(rest) {
            LoginStep::Token { used, .. } | LoginStep::Refuse { used, .. } => used,
            LoginStep::More { total } => {
                assert!(total > rest.len());
                return;
            }
            LoginStep::Close(_) | LoginStep::RefuseAndClose { .. } => return,
        };
        assert!(used > 0 && used <= rest.len());
        rest = &rest[used..];
    }
}
