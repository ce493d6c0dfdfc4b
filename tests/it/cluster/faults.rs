//! Faults 54 to 62 of several nodes, with real nodes, real redis-servers and the simulated WeChat: what a client reads
//! at each node's memcached port meanwhile, and what it costs at WeChat.
//!
//! Nearly all tests wait for what a client can see. Where a renewal is wanted before its time, all tokens are killed
//! and a client says so (`delete`): how long the next one takes is no matter then.

mod clients;
mod failover;
mod many_nodes;
mod network_partition;
mod paused_leaseholder;
mod status;
mod store_failures;
mod tampered_records;

use std::net::SocketAddr;

use tokencached::sandbox::{Endpoint, Options, Verdict};

use crate::support::redis::Redis;
use crate::support::{APPID, Client, Node, SECRET, TIMEOUT, Wechat, wait_for, write};

const SEALED_WITH: &str = "what-all-these-nodes-seal-with";
pub const CLASSIC: &str = "token";
pub const STABLE: &str = "stable_token";

/// What a node is told. `{folder}` stands for its own folder.
#[derive(Clone)]
pub struct Plan {
    pub wechat: String,
    pub redis: String,
    /// Further lines of these tables.
    pub state: String,
    pub app: String,
    pub upstream: String,
    pub server: String,
    pub secret: String,
}

impl Plan {
    pub fn new(wechat: &Wechat, redis: &str, endpoint: &str) -> Plan {
        Plan {
            wechat: wechat.base_url(),
            redis: redis.to_owned(),
            // Nobody is put off by a machine that is busy, unless a test is about that.
            state: "timeout_ms = 20000\n".to_owned(),
            app: format!("endpoint = \"{endpoint}\"\nsecret = \"{SECRET}\"\n"),
            upstream: String::new(),
            server: "first_get_wait_ms = 0\n".to_owned(),
            secret: SEALED_WITH.to_owned(),
        }
    }

    pub fn state(mut self, lines: &str) -> Plan {
        lines.clone_into(&mut self.state);
        self
    }

    /// Where it finds WeChat. That is part of a credential's name, so all nodes of a group go the same way.
    pub fn by(mut self, way: SocketAddr) -> Plan {
        self.wechat = format!("http://{way}");
        self
    }

    pub fn config(&self) -> String {
        let Plan { wechat, redis, state, app, upstream, server, .. } = self;
        format!(
            "[server]\n{server}\n[state]\npath = \"{{folder}}/state.json\"\nurl = \"{redis}\"\n\
             secret_file = \"{{folder}}/state.secret\"\npoll_every_ms = 500\n{state}\n\
             [upstream]\nbase_url = \"{wechat}\"\n{upstream}\n[[app]]\nappid = \"{APPID}\"\n{app}\n"
        )
    }

    pub fn start(&self) -> Node {
        self.start_in(tempfile::tempdir().unwrap())
    }

    pub fn start_in(&self, folder: tempfile::TempDir) -> Node {
        self.start_with(folder, &[])
    }

    pub fn start_with(&self, folder: tempfile::TempDir, variables: &[(&str, &str)]) -> Node {
        write(folder.path(), "state.secret", &self.secret);
        Node::start_with(folder, &self.config(), &[], variables)
    }
}

/// Tokens of so many seconds that live on for half of that when there is a later one: what has just been read works.
pub fn short_lived(lifetime_s: u64) -> Wechat {
    let half_ms = Some(lifetime_s * 500);
    Wechat::with(Options { lifetime_s, overlap_ms: half_ms, stable_window_ms: half_ms, ..Options::default() })
}

/// Tokens of twelve minutes: who has to settle something does so within seconds, and has half a minute for it.
pub fn settles_soon() -> Wechat {
    short_lived(720)
}

/// The command that reads the token.
pub fn key() -> String {
    format!("access_token:{APPID}")
}

/// Calls that ask for a classic token.
pub fn calls(wechat: &Wechat) -> u64 {
    wechat.calls(APPID).of(Endpoint::Token)
}

/// A node and a client of it that reads the token again and again.
pub struct Member {
    pub node: Node,
    client: Client,
    /// The tokens it has read, each once in a row.
    pub seen: Vec<String>,
    pub last: Option<String>,
    pub misses: usize,
    /// Reads of a token that WeChat refused right after.
    pub refused: usize,
    /// It is stopped, and would not answer.
    pub paused: bool,
}

impl Member {
    pub fn new(node: Node) -> Member {
        let client = node.connect();
        Member::with(node, client)
    }

    pub fn with(node: Node, client: Client) -> Member {
        Member { node, client, seen: Vec::new(), last: None, misses: 0, refused: 0, paused: false }
    }

    /// Reads the token as a client.
    pub fn look(&mut self, wechat: &Wechat) {
        if self.paused {
            return;
        }
        self.last = self.client.get(&key()).map(|token| String::from_utf8(token).unwrap());
        match &self.last {
            None => self.misses += 1,
            Some(token) => {
                self.refused += usize::from(wechat.judge(token) != Verdict::Accepted);
                if self.seen.last() != Some(token) {
                    self.seen.push(token.clone());
                }
            }
        }
    }

    pub fn stat(&mut self, name: &str) -> Option<String> {
        self.client.stat("tokens", &format!("{APPID}:{name}"))
    }

    pub fn figure(&mut self, name: &str) -> u64 {
        self.stat(name).and_then(|figure| figure.parse().ok()).unwrap_or(0)
    }

    /// Stops it. Not before the last of its threads is still is that so.
    pub fn pause(&mut self) {
        self.paused = true;
        self.node.signal("STOP");
        let threads = format!("/proc/{}/task", self.node.pid());
        wait_for("all threads to stop", || {
            let stopped = |thread: std::fs::DirEntry| {
                let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            };
            std::fs::read_dir(&threads).unwrap().all(|thread| stopped(thread.unwrap())).then_some(())
        });
    }

    pub fn wake(&mut self) {
        self.paused = false;
        self.node.signal("CONT");
    }

    /// A client there says that the token is dead.
    pub fn report(&mut self) {
        self.client.send(format!("delete {} noreply\r\n", key()));
    }
}

/// Nodes that share a state, all read all the time.
pub struct Group<'a> {
    pub wechat: &'a Wechat,
    pub members: Vec<Member>,
}

impl<'a> Group<'a> {
    pub fn of(wechat: &'a Wechat, nodes: impl IntoIterator<Item = Node>) -> Group<'a> {
        Group { wechat, members: nodes.into_iter().map(Member::new).collect() }
    }

    pub fn start(wechat: &'a Wechat, plan: &Plan, count: usize) -> Group<'a> {
        Group::of(wechat, (0..count).map(|_| plan.start()))
    }

    pub fn join(&mut self, node: Node) -> &mut Member {
        self.members.push(Member::new(node));
        self.members.last_mut().unwrap()
    }

    pub fn look(&mut self) {
        let wechat = self.wechat;
        self.members.iter_mut().for_each(|member| member.look(wechat));
    }

    /// Reads at all nodes until it is so.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "gives up after a time that no sound run takes")]
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Group<'a>) -> bool) {
        let begun = std::time::Instant::now();
        loop {
            self.look();
            if so(self) {
                return;
            }
            if begun.elapsed() > TIMEOUT {
                panic!("waited in vain for {what}\n{}", self.logs());
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }

    fn tokens(&self) -> impl Iterator<Item = Option<&str>> {
        self.members.iter().filter(|member| !member.paused).map(|member| member.last.as_deref())
    }

    /// Reads until all serve one token that WeChat accepts, and none of these.
    #[track_caller]
    pub fn agreed(&mut self, but: &[&str]) -> String {
        let mut token = String::new();
        self.until("one token everywhere", |group| {
            let mut tokens = group.tokens();
            let Some(Some(first)) = tokens.next() else { return false };
            let same = tokens.all(|token| token == Some(first));
            first.clone_into(&mut token);
            same && !but.contains(&first) && group.wechat.judge(first) == Verdict::Accepted
        });
        token
    }

    /// Reads until a node's log has these words.
    #[track_caller]
    pub fn until_said(&mut self, by: &[usize], words: &str) {
        let by = by.to_vec();
        self.until(words, |group| by.iter().all(|at| group.members[*at].node.log().contains(words)));
    }

    /// All tokens die, and a client at that node says so.
    pub fn kill_tokens_and_tell(&mut self, at: usize) {
        self.wechat.kill_tokens(APPID);
        self.members[at].report();
    }

    /// All tokens die, and a client at that node says so of each one that it is refused, as clients do: a call that was on
    /// its way may bring another dead one. The token that all have in the end, none of these.
    #[track_caller]
    pub fn replace_dead_tokens(&mut self, at: usize, but: &[&str]) -> String {
        self.wechat.kill_tokens(APPID);
        let (mut told, mut reports) = (None, 0);
        self.until("a token that is accepted", |group| {
            let member = &mut group.members[at];
            let Some(token) = &member.last else { return false };
            let is_accepted = group.wechat.judge(token) == Verdict::Accepted;
            if !is_accepted && told != member.last {
                told.clone_from(&member.last);
                reports += 1;
                assert!(reports <= 3, "{reports} dead tokens in a row");
                member.report();
            }
            is_accepted
        });
        self.agreed(but)
    }

    /// What was read so far does not count any more.
    pub fn forget(&mut self) {
        for member in &mut self.members {
            (member.misses, member.refused) = (0, 0);
            member.seen.clear();
        }
    }

    pub fn misses(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.misses).collect()
    }

    pub fn refused(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.refused).collect()
    }

    /// No read has missed, and none has brought a token that WeChat refuses.
    #[track_caller]
    pub fn never_failed(&self) {
        let none = vec![0; self.members.len()];
        assert_eq!((self.misses(), self.refused()), (none.clone(), none), "{}", self.logs());
    }

    /// Where tokens live for seconds, a call has a third of a second. On a machine that is too busy for that one is lost
    /// now and then, which costs another and may cost a read; then nothing is said about either. True if none was.
    pub fn lost_no_call(&self) -> bool {
        self.members.iter().all(|member| !member.node.log().contains("error sending request"))
    }

    fn logs(&self) -> String {
        self.members.iter().map(|member| member.node.log()).collect::<Vec<_>>().join("\n---\n")
    }

    /// Nobody has gone back to a token that it had left.
    #[track_caller]
    pub fn never_went_back(&self) {
        for member in &self.members {
            let mut once = member.seen.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), member.seen.len(), "{}", member.node.log());
        }
    }
}

/// The key of the classic token's record.
pub fn record(redis: &Redis) -> Option<String> {
    redis.ask::<Vec<String>>(&["KEYS", &format!("{{tokencached}}:r:token:{APPID}:*")]).pop()
}

/// A field of it.
pub fn field(redis: &Redis, name: &str) -> Option<String> {
    redis.ask(&["HGET", &record(redis)?, name])
}

#[track_caller]
pub fn wait_for_value(redis: &Redis) -> String {
    wait_for("a value in the Redis", || field(redis, "value"))
}

/// Nothing is left that one more call would have to settle.
#[track_caller]
pub fn wait_until_settled(redis: &Redis) {
    wait_for("a settled record", || field(redis, "value").filter(|_| field(redis, "open_by").is_none()));
}
