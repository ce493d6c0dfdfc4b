//! However a byte stream is cut into packets, the answers are the same.

use crate::support::{Client, Node};

const SESSION: &[u8] =
    b"set a 5 0 3\r\nabc\r\nget a b\r\nset big 0 0 99999999\r\nset b 0 0 4 noreply\r\n\r\n\r\n\r\nget b\r\n\
    bogus\r\nincr a 1\r\nset n 0 0 1\r\n9\r\nincr n 1\r\nset x 0 0 1\r\nyyy\r\ndelete a\r\n\
    mg c N0 v Oo k\r\nms YWJj 3 b k MA\r\nabc\r\nms abc 4 F1\r\nmn\r\n\r\nms d 2 !\r\nmn\r\nmg YWJj b k v f\r\nms e 1\r\nyyy\r\n\
    md abc I q\r\nmg abc v q\r\nma q N0\r\nme zz\r\nmg zz q\r\nmd zz O1\r\n";

fn answers(client: &mut Client, pieces: &[&[u8]]) -> String {
    client.ask("flush_all\r\n");
    for piece in pieces {
        client.send(piece);
    }
    client.ask("").escape_ascii().to_string()
}

/// The session without the oversize set, whose block would be a hundred megabytes.
fn session() -> Vec<u8> {
    let text = String::from_utf8(SESSION.to_vec()).unwrap();
    text.replace("set big 0 0 99999999\r\n", "").into_bytes()
}

#[test]
fn every_single_cut_gives_the_same_answers() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    let session = session();
    let whole = answers(&mut client, &[&session]);
    for cut in 1..session.len() {
        assert_eq!(answers(&mut client, &[&session[..cut], &session[cut..]]), whole, "cut at {cut}");
    }
}

#[test]
fn byte_by_byte_gives_the_same_answers() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    let session = session();
    let whole = answers(&mut client, &[&session]);
    let bytes: Vec<&[u8]> = session.chunks(1).collect();
    assert_eq!(answers(&mut client, &bytes), whole);
}

#[test]
fn any_cuts_give_the_same_requests() {
    use proptest::prelude::*;

    use crate::fuzz::targets::parse::requests;

    let word = prop_oneof![
        Just("get"),
        Just("set"),
        Just("cas"),
        Just("incr"),
        Just("a"),
        Just("0"),
        Just("3"),
        Just("70"),
        Just("noreply"),
        Just("\r\n"),
        Just("\n"),
        Just(" "),
        Just("abc\r\n"),
        Just("delete"),
        Just("-1"),
        Just("gat"),
        Just("touch"),
        Just("mg"),
        Just("ms"),
        Just("md"),
        Just("b"),
        Just("YWJj"),
        Just("MA")
    ];
    let stream = prop::collection::vec(word, 1..60).prop_map(|words| words.join(" ").into_bytes());
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..Default::default() });
    runner
        .run(&(stream, prop::collection::vec(any::<prop::sample::Index>(), 0..8)), |(stream, cuts)| {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&stream[from..cut]);
                from = cut;
            }
            pieces.push(&stream[from..]);
            prop_assert_eq!(requests(&pieces), requests(&[&stream]));
            Ok(())
        })
        .unwrap();
}
