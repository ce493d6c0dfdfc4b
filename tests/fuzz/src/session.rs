//! The bytes are a list of commands, plain and meta, on a few ordinary keys and the managed one, with time going by.
//! Every answer is what a simple model says; the managed key never changes; the memory budget is never exceeded.
//!
//! The first byte chooses a roomy cache, which must answer exactly as the model does, or a tight one, which may have
//! evicted anything at any time and must never be wrong about the rest.

use std::collections::HashMap;

use tokencached::access::Rights;
use tokencached::clock::Now;
use tokencached::protocol::RequestStep;
use tokencached::protocol::parse::step;
use tokencached::service::{CommandOutcome, Context, KEYS_PER_TURN, Output, Service};
use tokencached::stats::WorkerStats;

use super::{ITEM_SIZE_MAX, MANAGED, TOKEN};

/// What an empty shard takes by itself, and a few pages of slots.
const TIGHT_BYTES: u64 = 64 * 1024;
const COMMANDS_MAX: usize = 400;
const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";

pub fn run(data: &[u8]) {
    let Some((&mode, commands)) = data.split_first() else { return };
    let roomy = mode % 2 == 0;
    let budget = if roomy { 4 << 20 } else { TIGHT_BYTES };
    let service = super::service(budget);
    let stats = service.stats.register_worker();
    let mut run = Run { service: &service, stats: &stats, roomy, start: Now::read(), second: 0, model: HashMap::new() };
    let mut bytes = commands.iter().copied();
    for _ in 0..COMMANDS_MAX {
        if run.command(&mut bytes).is_none() {
            break;
        }
        let totals = service.cache.totals();
        assert!(totals.used_bytes <= totals.budget_bytes, "{totals:?}");
    }
    service.cache.validate().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(run.say(format!("get {MANAGED}\r\n")), value(MANAGED, 0, TOKEN.as_bytes()), "the managed key");
}

#[derive(Clone)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    /// The second from which it is gone.
    end: Option<u64>,
}

struct Run<'s> {
    service: &'s Service,
    stats: &'s WorkerStats,
    roomy: bool,
    start: Now,
    second: u64,
    model: HashMap<String, Item>,
}

impl Run<'_> {
    /// One command and its answer; `None` when the bytes are used up.
    fn command(&mut self, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        let (what, which, quiet) = (bytes.next()?, bytes.next()?, bytes.next()?);
        let key = if which % 8 == 0 { MANAGED.to_owned() } else { format!("key:{}", which % 32) };
        self.forget(&key);
        let noreply = quiet % 8 == 0;
        match what % 12 {
            0 => self.expect(format!("get {key}\r\n"), self.found(&key), false),
            1 => self.meta_get(&key, quiet % 8 == 0),
            2..=4 => self.store(&key, bytes.next()?, bytes.next()?, bytes.next()?, noreply),
            5 => self.meta_store(&key, bytes.next()?, bytes.next()?, noreply),
            6 => self.arithmetic(&key, bytes.next()?, quiet % 2 == 0, noreply),
            7 => {
                let gone = key == MANAGED || self.model.remove(&key).is_some();
                self.expect(format!("delete {key}"), if gone { "DELETED\r\n" } else { "NOT_FOUND\r\n" }, noreply);
            }
            8 => {
                let gone = key == MANAGED || self.model.remove(&key).is_some();
                let answer = if gone && noreply {
                    ""
                } else if gone {
                    "HD\r\n"
                } else {
                    "NF\r\n"
                };
                self.expect(format!("md {key}{}\r\n", if noreply { " q" } else { "" }), answer, false);
            }
            9 => self.touch(&key, bytes.next()?, noreply),
            10 => {
                self.second += u64::from(bytes.next()?);
                let second = self.second;
                self.model.retain(|_, item| item.end.is_none_or(|end| end > second));
            }
            _ if quiet % 16 == 1 => {
                self.model.clear();
                self.expect("flush_all".to_owned(), "OK\r\n", false);
            }
            _ => self.gets_and_cas(&key, bytes.next()?),
        }
        Some(())
    }

    /// What a tight cache has evicted is gone from the model too.
    fn forget(&mut self, key: &str) {
        let there = |run: &Self| !run.say(format!("mg {key}\r\n")).starts_with(b"EN");
        if !self.roomy && !there(self) {
            self.model.remove(key);
        }
    }

    fn item(&self, key: &str) -> Option<Item> {
        match key {
            MANAGED => Some(Item { value: TOKEN.into(), flags: 0, end: None }),
            _ => self.model.get(key).cloned(),
        }
    }

    fn found(&self, key: &str) -> Vec<u8> {
        self.item(key).map_or(b"END\r\n".to_vec(), |item| value(key, item.flags, &item.value))
    }

    fn meta_get(&mut self, key: &str, quiet: bool) {
        let answer = match self.item(key) {
            None if quiet => Vec::new(),
            None => format!("EN k{key}\r\n").into_bytes(),
            Some(Item { value, flags, .. }) => {
                let head = format!("VA {} f{flags} s{} k{key}\r\n", value.len(), value.len());
                [head.as_bytes(), &value, b"\r\n"].concat()
            }
        };
        self.expect(format!("mg {key} v f s k{}\r\n", if quiet { " q" } else { "" }), answer, false);
    }

    /// What a store comes to, and the model after it. Too large a value drops the old one: in a meta command always,
    /// otherwise of a `set`.
    fn put(&mut self, key: &str, mode: &str, new: Item, meta: bool) -> &'static str {
        if key == MANAGED {
            return "NOT_STORED\r\n";
        }
        let fits = |flags: u32, length: usize| self.service.cache.fits(key.len(), flags, length);
        let old = self.model.get(key).cloned();
        if !fits(new.flags, new.value.len()) {
            if meta || mode == "set" {
                self.model.remove(key);
            }
            return TOO_LARGE;
        }
        let after = match (mode, old) {
            ("set", _) | ("add", None) | ("replace", Some(_)) => new,
            ("append", Some(old)) => Item { value: [&old.value[..], &new.value].concat(), ..old },
            ("prepend", Some(old)) => Item { value: [&new.value[..], &old.value].concat(), ..old },
            _ => return "NOT_STORED\r\n",
        };
        if !fits(after.flags, after.value.len()) {
            return "NOT_STORED\r\n";
        }
        let gone = after.end.is_some_and(|end| end <= self.second);
        match gone {
            true => self.model.remove(key),
            false => self.model.insert(key.to_owned(), after),
        };
        "STORED\r\n"
    }

    fn new_item(&self, length: u8, exptime: u8) -> (Item, i64) {
        // Digits now and then, so that there is something to count with. No blanks, signs or NULs: what those mean
        // beside digits is the cache's own test.
        let value = if length.is_multiple_of(4) {
            length.to_string().into_bytes()
        } else {
            vec![length | 0x80; usize::from(length) * 9]
        };
        let exptime = i64::from(exptime % 64) - 1;
        let end = match exptime {
            0 => None,
            ..0 => Some(0),
            _ => Some(self.second + exptime.unsigned_abs()),
        };
        (Item { value, flags: u32::from(length % 3) * 0x7fff_ffff, end }, exptime)
    }

    fn store(&mut self, key: &str, mode: u8, length: u8, exptime: u8, noreply: bool) {
        let mode = ["set", "set", "add", "replace", "append", "prepend"][usize::from(mode) % 6];
        let (item, exptime) = self.new_item(length, exptime);
        let line = format!("{mode} {key} {} {exptime} {}", item.flags, item.value.len());
        let block = [&item.value[..], b"\r\n"].concat();
        let answer = self.put(key, mode, item, false);
        let noreply = if noreply { " noreply" } else { "" };
        let send = [line.as_bytes(), noreply.as_bytes(), b"\r\n", &block].concat();
        let expected = if noreply.is_empty() { answer } else { "" };
        self.compare(&send, expected.as_bytes());
    }

    fn meta_store(&mut self, key: &str, mode: u8, length: u8, quiet: bool) {
        let (letter, mode) =
            [("S", "set"), ("E", "add"), ("R", "replace"), ("A", "append"), ("P", "prepend")][usize::from(mode) % 5];
        let (item, _) = self.new_item(length, 1);
        let line =
            format!("ms {key} {} M{letter} F{}{}\r\n", item.value.len(), item.flags, if quiet { " q" } else { "" });
        let send = [line.as_bytes(), &item.value, b"\r\n"].concat();
        let answer = match self.put(key, mode, item, true) {
            _ if quiet && key == MANAGED => "",
            "STORED\r\n" if quiet => "",
            "STORED\r\n" => "HD\r\n",
            "NOT_STORED\r\n" => "NS\r\n",
            other => other,
        };
        self.compare(&send, answer.as_bytes());
    }

    fn arithmetic(&mut self, key: &str, delta: u8, increase: bool, noreply: bool) {
        let line = format!("{} {key} {delta}", if increase { "incr" } else { "decr" });
        let (answer, after) = match self.item(key) {
            None => ("NOT_FOUND\r\n".to_owned(), None),
            Some(item) => match number(&item.value) {
                Some(old) if key != MANAGED => {
                    let (delta, width) = (u64::from(delta), item.value.len());
                    let new = if increase { old.wrapping_add(delta) } else { old.saturating_sub(delta) };
                    (format!("{new}\r\n"), Some(Item { value: format!("{new:<width$}").into_bytes(), ..item }))
                }
                _ => (NON_NUMERIC.to_owned(), None),
            },
        };
        if let Some(after) = after {
            self.model.insert(key.to_owned(), after);
        }
        self.expect(line, answer, noreply);
    }

    fn touch(&mut self, key: &str, exptime: u8, noreply: bool) {
        let (Item { end, .. }, exptime) = self.new_item(1, exptime);
        let answer = if self.item(key).is_some() { "TOUCHED\r\n" } else { "NOT_FOUND\r\n" };
        if let Some(item) = self.model.get_mut(key) {
            item.end = end;
        }
        let second = self.second;
        self.model.retain(|_, item| item.end.is_none_or(|end| end > second));
        self.expect(format!("touch {key} {exptime}"), answer, noreply);
    }

    /// The cas id that a `gets` tells is good for one change.
    fn gets_and_cas(&mut self, key: &str, length: u8) {
        let answer = self.say(format!("gets {key}\r\n"));
        let head = String::from_utf8_lossy(answer.split(|&byte| byte == b'\r').next().unwrap_or_default()).into_owned();
        let cas = head.split(' ').nth(4).map(str::to_owned);
        assert_eq!(cas.is_some(), self.item(key).is_some(), "{key}: {head}");
        let (item, _) = self.new_item(length, 1);
        let line = format!("cas {key} {} 0 {} {}\r\n", item.flags, item.value.len(), cas.as_deref().unwrap_or("1"));
        let send = [line.as_bytes(), &item.value, b"\r\n"].concat();
        let fits = self.service.cache.fits(key.len(), item.flags, item.value.len());
        let (first, again) = match (key, cas) {
            (MANAGED, _) => ("EXISTS\r\n", "EXISTS\r\n"),
            _ if !fits => (TOO_LARGE, TOO_LARGE),
            (_, None) => ("NOT_FOUND\r\n", "NOT_FOUND\r\n"),
            _ => {
                self.model.insert(key.to_owned(), item);
                ("STORED\r\n", "EXISTS\r\n")
            }
        };
        self.compare(&send, first.as_bytes());
        self.compare(&send, again.as_bytes());
    }

    /// Sends a line, perhaps with `noreply`, and compares the answer.
    fn expect(&self, line: String, answer: impl AsRef<[u8]>, noreply: bool) {
        let line = match line.ends_with('\n') {
            true => line,
            false => format!("{line}{}\r\n", if noreply { " noreply" } else { "" }),
        };
        self.compare(line.as_bytes(), if noreply { b"" } else { answer.as_ref() });
    }

    fn compare(&self, send: &[u8], expected: &[u8]) {
        let answer = self.say(send);
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(shown(&answer), shown(expected), "to {} in second {}", shown(send), self.second);
    }

    /// The answer to one request.
    fn say(&self, send: impl AsRef<[u8]>) -> Vec<u8> {
        let send = send.as_ref();
        let RequestStep::Request { request, used, discard } = step(send, ITEM_SIZE_MAX) else {
            panic!("not whole: {}", send.escape_ascii())
        };
        assert_eq!(used as u64 + discard, send.len() as u64, "{}", send.escape_ascii());
        let ms = self.second * 1000;
        let now = Now { boot_ms: self.start.boot_ms + ms, unix_ms: self.start.unix_ms + ms as i64 };
        let mut out = Output::default();
        let (stats, rights) = (self.stats, &Rights::ALL);
        let mut context = Context {
            now,
            stats,
            peer: &"fuzz",
            rights,
            names: &self.service.table.names(),
            may_wait: true,
            memory_short: false,
            keys_left: KEYS_PER_TURN,
            out: &mut out,
        };
        match self.service.execute(&request, 0, &mut context) {
            CommandOutcome::Done => {}
            CommandOutcome::ReplyAfterVerification(_, reply) => out.extend(reply),
            _ => panic!("neither done nor to be waited for: {}", send.escape_ascii()),
        }
        assert!(!out.has_large(), "no value is that long here");
        out.to_vec()
    }
}

fn value(key: &str, flags: u32, value: &[u8]) -> Vec<u8> {
    [format!("VALUE {key} {flags} {}\r\n", value.len()).as_bytes(), value, b"\r\nEND\r\n"].concat()
}

/// Up to the first blank of the padding; something may have been appended behind it.
fn number(value: &[u8]) -> Option<u64> {
    String::from_utf8_lossy(value).split(' ').next()?.parse().ok()
}
