//! One way of keeping a token, through the phases of a move.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tokencached::sandbox::{CallCounts, Endpoint as Call, Sandbox};

use super::site::{Seen, WebServer};
use super::stores::{Database, Stores};
use super::ways::{Endpoint, Move, Way};
use super::{Plan, SECRET, appid};
use crate::support::redis::free_port;
use crate::support::{Node, memory_folder, wait_for};

/// The least `expires_in` that most clients are told: they subtract 200 s.
const LEAST_TOLD_S: u64 = 210;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// As it was.
    Before,
    /// One of the two web servers has moved.
    Half,
    /// Both have.
    After,
}

/// What one phase has shown, of both web servers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Calls of the site's for a token or a ticket.
    pub requests: u64,
    /// Its calls with a token that were refused, and pages for which there was no token.
    pub refused: u64,
    /// The longest that a web server went on with a token after the first refusal.
    pub stalest: Duration,
    pub views: u64,
    /// How many different tokens each web server has used.
    pub tokens: [usize; 2],
}

pub enum Outcome {
    Ran(Tally),
    /// This build of the server does not take the configuration.
    Skipped(String),
}

pub struct Row {
    pub way: &'static Way,
    pub endpoint: Endpoint,
    pub phases: Vec<(Phase, Outcome)>,
    /// What ended it early.
    pub failed: Option<String>,
}

impl Row {
    pub fn of(&self, phase: Phase) -> Option<&Tally> {
        self.phases.iter().find_map(|(which, outcome)| match outcome {
            Outcome::Ran(tally) if *which == phase => Some(tally),
            _ => None,
        })
    }
}

/// One row from its beginning to its end.
pub(super) fn run(plan: &Plan, at: usize, sandbox: &Sandbox, database: Option<&Database>) -> Row {
    let (way, endpoint) = plan.rows[at];
    let mut row = Row { way, endpoint, phases: Vec::new(), failed: None };
    // The other rows go on.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        // A hundred processes at one instant would slow each other down.
        std::thread::sleep(Duration::from_millis(200) * u32::try_from(at).unwrap_or(0));
        let mut site = Site::new(plan, at, sandbox, database);
        for &phase in &plan.phases {
            let outcome = match site.enter(phase) {
                Ok(()) => Outcome::Ran(site.watch(plan.phase_length())),
                Err(reason) => Outcome::Skipped(reason),
            };
            row.phases.push((phase, outcome));
        }
    }));
    let said =
        ended.err().map(|said| said.downcast::<String>().map_or_else(|_| "it panicked".to_owned(), |said| *said));
    row.failed = said;
    row
}

/// Two web servers, their stores, and the node once there is one.
struct Site<'a> {
    plan: &'a Plan,
    way: &'static Way,
    endpoint: Endpoint,
    sandbox: &'a Sandbox,
    appid: String,
    stores: Stores,
    servers: [Option<WebServer>; 2],
    node: Option<Node>,
    /// What the node was started with.
    pasted: String,
    /// The node's ports, which it keeps when it is started again.
    ports: [u16; 2],
    counted: Tally,
}

impl<'a> Site<'a> {
    fn new(plan: &'a Plan, at: usize, sandbox: &'a Sandbox, database: Option<&Database>) -> Site<'a> {
        let (way, endpoint) = plan.rows[at];
        Site {
            plan,
            way,
            endpoint,
            sandbox,
            appid: appid(at),
            stores: Stores::start(way.store, at, database),
            servers: [None, None],
            node: None,
            pasted: String::new(),
            ports: [free_port(), free_port()],
            counted: Tally::default(),
        }
    }

    /// Brings the site into this phase from whichever it was in. What that costs is counted, but for the very first
    /// token of all.
    fn enter(&mut self, phase: Phase) -> Result<(), String> {
        match phase {
            Phase::Before => {
                self.start(0, false);
                self.await_views();
                if !self.way.store.is_shared() {
                    // Nobody starts web servers in step, so what they keep is of different ages.
                    std::thread::sleep(Duration::from_secs(self.plan.life_s) * 2 / 5);
                }
                self.start(1, false);
                self.await_views();
                self.begin_counting();
            }
            Phase::Half => {
                self.begin_counting();
                self.run_node(phase)?;
                if self.way.moves != Move::Sink {
                    self.stop(0);
                }
                self.ensure(0, true);
                self.ensure(1, false);
            }
            Phase::After => {
                if self.way.moves == Move::Host && self.node.is_some() {
                    // It goes on with the token that it has fetched itself, so that has to run out before a fetch of
                    // ours may end it.
                    self.stop(1);
                    self.ensure(1, true);
                    std::thread::sleep(Duration::from_secs(self.plan.life_s));
                }
                self.run_node(phase)?;
                if self.way.moves != Move::Sink {
                    self.stop(1);
                }
                self.ensure(0, true);
                self.ensure(1, true);
                self.begin_counting();
            }
        }
        Ok(())
    }

    fn ensure(&mut self, server: usize, moved: bool) {
        if self.servers[server].is_none() {
            self.start(server, moved);
        }
    }

    /// Ends a web server between two pages: nobody stops one in the middle of a fetch.
    fn stop(&mut self, server: usize) {
        if let Some(mut server) = self.servers[server].take() {
            let views = server.views();
            wait_for("the end of a page", || {
                server.must_run();
                (server.views() > views).then_some(())
            });
        }
    }

    /// Starts a web server's script, in its old way or after the move.
    fn start(&mut self, server: usize, moved: bool) {
        let wechat = self.sandbox.base_url();
        let [memcached, http] = self.ports.map(|port| format!("127.0.0.1:{port}"));
        let store = match (moved, self.way.moves) {
            (true, Move::Address) => memcached,
            _ => self.stores.address(server),
        };
        let tokens = match (moved, self.way.moves) {
            (true, Move::Host) => format!("http://{http}"),
            _ => wechat.clone(),
        };
        let variables = [
            ("AGENT", ["site-a", "site-b"][server].to_owned()),
            ("APPID", self.appid.clone()),
            ("SECRET", SECRET.to_owned()),
            ("ENDPOINT", self.endpoint.path().to_owned()),
            ("LIFE_S", self.plan.life_s.to_string()),
            ("VIEWS_PER_S", self.plan.views_per_s.to_string()),
            ("WECHAT", wechat),
            ("TOKENS", tokens),
            ("STORE", store),
        ];
        self.servers[server] = Some(WebServer::start(self.way, &variables));
    }

    /// Starts the node, or starts it again if this phase needs another configuration. Nobody who asks it shows a page
    /// meanwhile.
    fn run_node(&mut self, phase: Phase) -> Result<(), String> {
        let config = self.config(phase);
        if self.node.as_ref().is_some_and(|_| config == self.pasted) {
            return Ok(());
        }
        if self.node.is_some() && self.way.moves != Move::Sink {
            (0..2).for_each(|server| self.stop(server));
        }
        let folder = self.node.take().map_or_else(memory_folder, Node::stop);
        super::site::check(&self.plan.binary, folder.path(), &config)?;
        let binary = std::process::Command::new(&self.plan.binary);
        let port = self.ports[0].to_string();
        let node = Node::start_binary(binary, folder, &config, &["-p", &port], &[]);
        let key = format!("access_token:{}", self.appid);
        wait_for("the node's first token", || node.connect().get(&key));
        for sink in 0..config.matches("[[sink]]").count() {
            let writes = format!("sink_{sink}_writes");
            wait_for("a sink's first write", || (node.connect().stat("", &writes)? != "0").then_some(()));
        }
        (self.node, self.pasted) = (Some(node), config);
        Ok(())
    }

    fn config(&self, phase: Phase) -> String {
        // As long as a web server fetches by itself, ours is the call that it does not use: neither ends the other's
        // tokens then, nor makes them older than their readers think.
        let all_at_once = self.way.moves == Move::Sink && self.way.store.is_shared();
        // What the site keeps is served to its end, if a fetch of ours would end it. A row that has the time of the fetch
        // alone does not tell that end here: a script whose hour is some seconds makes that time up.
        let is_told = self.way.name != "sql";
        let adopts = all_at_once && self.endpoint == Endpoint::Classic && is_told;
        let disturbs = if all_at_once { self.endpoint == Endpoint::Classic && !adopts } else { true };
        let apart = phase == Phase::Half && disturbs && self.plan.apart;
        let endpoint = if apart { self.endpoint.other() } else { self.endpoint };
        let adopt = if adopts { "adopt = \"sink\"" } else { "" };
        let sinks = match (self.way.moves, self.way.store.is_shared(), phase) {
            (Move::Sink, true, _) | (Move::Sink, false, Phase::Half) => self.sink(0),
            (Move::Sink, false, _) => self.sink(0) + &self.sink(1),
            _ => String::new(),
        };
        format!(
            "[server]\nthreads = 1\n[state]\npath = \"{{folder}}/state.json\"\n[upstream]\nbase_url = \"{}\"\n\
             [http]\nlisten = [\"127.0.0.1:{}\"]\n{}\n[[app]]\nappid = \"{}\"\nsecret = \"{SECRET}\"\n\
             endpoint = \"{}\"\n{adopt}\n{}\n{sinks}\n",
            self.sandbox.base_url(),
            self.ports[1],
            self.way.http.replace("{least_s}", &(LEAST_TOLD_S * self.plan.life_s / 7200).to_string()),
            self.appid,
            endpoint.path(),
            self.way.app,
        )
    }

    fn sink(&self, server: usize) -> String {
        format!("\n[[sink]]\n{}\n", self.way.sink.replace("{store}", &self.stores.address(server)))
    }

    /// Until each web server has shown a page.
    fn await_views(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            wait_for("a page view", || {
                server.must_run();
                (server.views() > 0).then_some(())
            });
        }
    }

    fn begin_counting(&mut self) {
        self.counted = self.count();
        self.servers.iter_mut().flatten().for_each(|server| drop(server.take_seen()));
    }

    /// What the simulated WeChat has counted of the site's calls so far.
    fn count(&self) -> Tally {
        let calls = self.sandbox.calls(&self.appid);
        // A token that is forgotten is nobody's; the app cannot be told then.
        let site = |name: &&String| name.starts_with("site-");
        let counts: Vec<&CallCounts> =
            calls.by_agent.iter().filter(|(name, _)| site(name)).map(|(_, counts)| counts).collect();
        let sum = |endpoint, wanted: &dyn Fn(&str) -> bool| -> u64 {
            let of = counts.iter().filter_map(|counts| counts.get(&endpoint));
            of.flatten().filter(|(outcome, _)| wanted(outcome)).map(|(_, count)| count).sum()
        };
        let fetches = [Call::Token, Call::StableToken, Call::StableTokenForced, Call::Ticket];
        Tally {
            requests: fetches.into_iter().map(|endpoint| sum(endpoint, &|_| true)).sum(),
            refused: sum(Call::MenuGet, &|outcome| outcome != "ok"),
            ..Tally::default()
        }
    }

    /// Lets the site run, and tells what it has shown since counting began.
    fn watch(&mut self, length: Duration) -> Tally {
        let begun = Instant::now();
        while begun.elapsed() < length {
            std::thread::sleep(Duration::from_millis(200).min(length));
            self.servers.iter_mut().flatten().for_each(WebServer::must_run);
        }
        let now = self.count();
        let seen = [0, 1].map(|server| self.servers[server].as_mut().map_or_else(Seen::default, WebServer::take_seen));
        Tally {
            requests: now.requests - self.counted.requests,
            refused: now.refused - self.counted.refused + seen.iter().map(|seen| seen.without).sum::<u64>(),
            stalest: seen.iter().map(|seen| seen.stalest).max().unwrap_or_default(),
            views: seen.iter().map(|seen| seen.views).sum(),
            tokens: seen.map(|seen| seen.tokens.len()),
        }
    }
}
