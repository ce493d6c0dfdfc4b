//! WeChat with its outages, as the refresher sees it: the sandbox's rules instead of a network.
//!
//! The request is the one the kind makes, the answer is read as from the network; in between, a call may be lost on the
//! way there, on the way back, or arrive after its sender has given up or died.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokencached::platform::{CredentialType, FetchParams, HttpRequest};
use tokencached::platform::{Delivery, Failure, Probe, Token, Upstream, UpstreamFuture, answer};
use tokencached::sandbox::Verdict;
use tokencached::sandbox::rules::{self, World};
use tokio::sync::oneshot;

use super::accounting::Cause;
use super::node::Sim;
use super::timeline::{CallOutcome, DAY, HOUR, Reply, Timeline, true_now};

/// The simulated platform and what is counted of it.
pub struct Wechat {
    pub world: World,
    /// Its own, so that what happens to the node does not depend on how often it calls.
    rng: fastrand::Rng,
    /// Slots by kind and app.
    slots: HashMap<(&'static str, String), usize>,
    lines: Vec<Line>,
}

/// What is counted of one credential's calls.
#[derive(Clone, Debug, Default)]
struct Line {
    in_flight: u32,
    day: u64,
    day_calls: u64,
    day_over: u64,
}

impl Wechat {
    pub fn new(world: World, slots: HashMap<(&'static str, String), usize>, seed: u64) -> Wechat {
        let lines = vec![Line::default(); slots.len()];
        Wechat { world, rng: fastrand::Rng::with_seed(seed), slots, lines }
    }

    pub fn accepts(&self, value: &str, t: u64) -> bool {
        self.world.judge(value, true_now(t)) == Verdict::Accepted
    }

    /// When it begins to refuse this value, if before `ends` and nothing else happens. What is refused stays refused.
    pub fn dies(&self, value: &str, t: u64, ends: u64) -> u64 {
        if ends <= t || self.accepts(value, ends - 1) {
            return u64::MAX;
        }
        if !self.accepts(value, t) {
            return t;
        }
        let (mut good, mut bad) = (t, ends - 1);
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            *(if self.accepts(value, middle) { &mut good } else { &mut bad }) = middle;
        }
        bad
    }
}

/// A running call. It is also counted as ended if it is dropped.
struct RunningCall<'a> {
    sim: &'a Sim,
    slot: usize,
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.sim.wechat.lock().lines[self.slot].in_flight -= 1;
    }
}

/// The refresher's upstream.
pub struct Network(pub Arc<Sim>);

impl Upstream for Network {
    fn fetch<'a>(
        &'a self,
        kind: &'a CredentialType,
        ask: FetchParams<'a>,
        deadline: Duration,
    ) -> UpstreamFuture<'a, Result<Token, Failure>> {
        Box::pin(async move {
            let slot = self.slot(kind, ask.appid);
            let _flight = self.count_call(slot, false);
            match self.exchange(slot, &kind.request(&ask), deadline).await {
                Reply::Http(status, text) => answer::read_token(kind, ask.appid, &[], status, text.as_bytes()),
                Reply::Lost(sent) => Err(Failure::transport(ask.appid, sent, "lost")),
            }
        })
    }

    fn probe<'a>(
        &'a self,
        kind: &'a CredentialType,
        base_url: &'a str,
        value: &'a [u8],
        deadline: Duration,
    ) -> UpstreamFuture<'a, Probe> {
        Box::pin(async move {
            let (Some(call), Ok(value)) = (kind.probe, std::str::from_utf8(value)) else { return Probe::Unknown };
            let owner = rules::ApiRequest::DomainIp { token: Some(value.to_owned()) };
            let Some(appid) = self.0.wechat.lock().world.app_of(&owner) else { return Probe::Unknown };
            let slot = self.slot(kind, &appid);
            let _flight = self.count_call(slot, true);
            let Reply::Http(status, text) = self.exchange(slot, &call.request(base_url, value), deadline).await else {
                return Probe::Unknown;
            };
            let probe = answer::read_probe(call.api(), status, text.as_bytes());
            if matches!(probe, Probe::Dead(_)) {
                self.0.read_records.lock()[slot].known_dead = Some((value.to_owned(), self.0.clocks.t()));
            }
            probe
        })
    }
}

impl Network {
    fn slot(&self, kind: &CredentialType, appid: &str) -> usize {
        self.0.wechat.lock().slots[&(kind.id, appid.to_owned())]
    }

    /// Counts the call.
    fn count_call(&self, slot: usize, probe: bool) -> RunningCall<'_> {
        let t = self.0.clocks.t();
        let fine = self.0.is_fine(slot, t);
        let mut wechat = self.0.wechat.lock();
        let line = &mut wechat.lines[slot];
        let day = (t + 8 * HOUR) / DAY;
        if line.day != day {
            (line.day, line.day_calls) = (day, 0);
        }
        (line.in_flight, line.day_calls) = (line.in_flight + 1, line.day_calls + 1);
        let counts = &mut self.0.read_records.lock()[slot].counts;
        *(if probe { &mut counts.probes } else { &mut counts.calls }) += 1;
        counts.fine_calls += u64::from(fine && !probe);
        counts.most_a_day = counts.most_a_day.max(line.day_calls);
        counts.most_in_flight = counts.most_in_flight.max(line.in_flight);
        RunningCall { sim: &self.0, slot }
    }

    /// There and back. What has been sent arrives, whatever becomes of its sender.
    async fn exchange(&self, slot: usize, request: &HttpRequest, deadline: Duration) -> Reply {
        let (sim, t) = (self.0.clone(), self.0.clocks.t());
        let ask = parse(request);
        let weather = sim.line.weather(t);
        let fate = CallOutcome::of(weather, t, deadline.as_millis() as u64, &mut sim.wechat.lock().rng);
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let wait = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
            let reply = match fate.arrives {
                Some(arrives) if arrives <= fate.back => {
                    wait(arrives - t).await;
                    let reply = sim.arrived(slot, &ask, &fate);
                    if !matches!(ask, rules::ApiRequest::DomainIp { .. }) {
                        sim.read_records.lock()[slot].answered_at = sim.clocks.t();
                    }
                    wait(fate.back - arrives).await;
                    reply
                }
                Some(arrives) => {
                    wait(arrives - t).await;
                    return drop(sim.arrived(slot, &ask, &fate));
                }
                None => {
                    wait(fate.back - t).await;
                    fate.never_arrived()
                }
            };
            // The sender may have given up.
            let _ = answer.send(reply);
        });
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(reply)) => reply,
            _ => Reply::Lost(Delivery::Ambiguous),
        }
    }
}

impl Sim {
    /// A call has reached WeChat.
    fn arrived(self: &Arc<Self>, slot: usize, ask: &rules::ApiRequest, fate: &CallOutcome) -> Reply {
        let t = self.clocks.t();
        let reply = {
            let mut wechat = self.wechat.lock();
            let reply = fate.arrived(&mut wechat.world, ask, t);
            let over = matches!(&reply, Reply::Http(_, text) if over_quota(text));
            let (day, line) = ((t + 8 * HOUR) / DAY, &mut wechat.lines[slot]);
            if over && line.day_over != day {
                line.day_over = day;
                self.read_records.lock()[slot].counts.over_quota_days += 1;
            }
            reply
        };
        let minted = match ask {
            rules::ApiRequest::Classic { .. } => true,
            rules::ApiRequest::Stable { force, .. } => *force,
            _ => false,
        };
        if minted {
            self.befall(slot, Some(Cause::OwnCalls), t);
        }
        reply
    }
}

fn over_quota(text: &str) -> bool {
    [r#""errcode":45009,"#, r#""errcode":45011,"#].iter().any(|code| text.contains(code))
}

/// The call as the sandbox's rules take it. A new platform's paths go here, beside their rules.
pub fn parse(request: &HttpRequest) -> rules::ApiRequest {
    let body: serde_json::Value =
        request.body.as_deref().map_or_else(Default::default, |body| serde_json::from_str(body).unwrap_or_default());
    let get = |name: &str| {
        let in_query = request.query.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone());
        in_query.or_else(|| body.get(name)?.as_str().map(str::to_owned))
    };
    let (appid, secret, grant_type) = (get("appid"), get("secret"), get("grant_type"));
    let path = request.url.splitn(4, '/').nth(3).unwrap_or_default();
    match path {
        "cgi-bin/token" | "api/getToken" => rules::ApiRequest::Classic { grant_type, appid, secret },
        "cgi-bin/stable_token" => {
            let force = body.get("force_refresh").and_then(serde_json::Value::as_bool).unwrap_or(false);
            rules::ApiRequest::Stable { grant_type, appid, secret, force }
        }
        "cgi-bin/gettoken" => rules::ApiRequest::Wecom { corpid: get("corpid"), secret: get("corpsecret") },
        "cgi-bin/ticket/getticket" => {
            rules::ApiRequest::Ticket { token: get("access_token"), ticket_type: get("type") }
        }
        "cgi-bin/get_jsapi_ticket" => rules::ApiRequest::CorpTicket { token: get("access_token") },
        "cgi-bin/ticket/get" => rules::ApiRequest::AgentTicket { token: get("access_token"), ticket_type: get("type") },
        "cgi-bin/get_api_domain_ip" => rules::ApiRequest::DomainIp { token: get("access_token") },
        other => panic!("the simulated month has no {other}"),
    }
}

/// The spells in which something is wrong for everybody.
pub fn weather_spans(line: &Timeline) -> Vec<(u64, u64)> {
    line.bad_spans().collect()
}
