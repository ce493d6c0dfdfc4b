//! Who may come in, and as whom: names this server goes by, proxies, rates, keys, sessions.
//!
//! A right key or session always passes: it is looked at first, and what others do from the same address does not count
//! against it. Limits are for wrong keys and for those who come without one.
//!
//! A browser on this machine reaches loopback addresses for any page it shows. So a request must name this server by a
//! name of its own (else a foreign name could be made to point here), must not come from another site's page, and what
//! acts or gives a token away needs a header that such a page cannot send unasked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, Method, StatusCode, header};

use super::attempts::{Attempts, Target, Verdict};
use super::limits::{Limit, Rate};
use super::options::Options;
use super::problem::Problem;
use super::sessions::{LIFE_MS, Sessions};
use crate::access::{KeyDigest, Keys, SideRights};
use crate::address_group::address_group;
use crate::clock::BootMs;
use crate::network::Network;

/// Needed, as `1`, by whatever acts, and by whoever reads a token without a key: no page can send it to another site.
pub const HEADER: &str = "x-tokencached";
/// Seconds' worth of requests that may come at once.
const BURST_S: u32 = 4;
/// Marks of a request that somebody has passed on.
const FORWARDED: &[&str] = &["forwarded", "via", "x-real-ip"];
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// What lets requests in.
pub struct Gate {
    keys: ArcSwap<Keys>,
    /// There is a file of keys: nobody is let in without one.
    keyed: bool,
    sessions: Sessions,
    allowed_hosts: Vec<String>,
    trusted: Vec<Network>,
    /// Requests without a key.
    by_peer: Limit<IpAddr>,
    /// Requests with one. By address too: whoever shares a key is not held up by the others.
    by_key: Limit<(KeyDigest, IpAddr)>,
    pub attempts: Attempts,
}

/// The connection a request came over.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub tls: bool,
}

/// By what a visitor is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    /// Being on this machine, while there are no keys.
    ThisMachine,
    Key(KeyDigest),
    Session(KeyDigest),
}

/// Who asks, and what they may do.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub peer: IpAddr,
    /// Of the key.
    pub name: Option<Arc<str>>,
    pub rights: Arc<SideRights>,
    /// The connection is encrypted, here or at a trusted proxy.
    pub secure: bool,
    by: By,
    headered: bool,
}

impl Visitor {
    /// Nobody, who may nothing.
    fn nobody(peer: IpAddr) -> Visitor {
        Visitor {
            peer,
            name: None,
            rights: Arc::new(SideRights::NONE),
            secure: false,
            by: By::Nothing,
            headered: false,
        }
    }

    /// Needs the right to see how things are.
    pub fn may_see_status(&self) -> Result<(), Problem> {
        if self.rights.status() { Ok(()) } else { Err(self.refusal("this needs the right status")) }
    }

    /// Needs the right to read this app's tokens, and no doubt that the request is meant.
    pub fn may_read(&self, app: &str) -> Result<(), Problem> {
        self.may_see(app)?;
        if !self.rights.read(app) {
            return Err(self.refusal("this needs the right read for this app"));
        }
        if matches!(self.by, By::Key(_)) { Ok(()) } else { self.means_it() }
    }

    /// Needs the right to read some app's tokens, and no doubt that the request is meant.
    pub fn may_read_some(&self) -> Result<(), Problem> {
        if !self.rights.reads_some() {
            return Err(self.refusal("this needs the right read"));
        }
        if matches!(self.by, By::Key(_)) { Ok(()) } else { self.means_it() }
    }

    /// Needs the right to act on this app, and no doubt that the request is meant.
    pub fn may_refresh(&self, app: &str) -> Result<(), Problem> {
        self.may_see(app)?;
        if !self.rights.refresh(app) {
            return Err(self.refusal("this needs the right refresh for this app"));
        }
        self.means_it()
    }

    /// Needs some right or other.
    pub fn may_come_in(&self) -> Result<(), Problem> {
        if self.by == By::Nothing { Err(Problem::no_key()) } else { Ok(()) }
    }

    /// What may not be seen is not there.
    pub fn may_see(&self, app: &str) -> Result<(), Problem> {
        match self.by {
            By::Nothing => Err(Problem::no_key()),
            _ if self.rights.sees(app) => Ok(()),
            _ => Err(Problem::not_found()),
        }
    }

    /// The header is there that no foreign page can send.
    pub fn means_it(&self) -> Result<(), Problem> {
        if self.headered {
            return Ok(());
        }
        let detail = "this needs the header X-Tokencached: 1, which shows that no foreign page has sent the request";
        Err(Problem::new(StatusCode::FORBIDDEN, "header-needed", detail))
    }

    /// Somebody is known, by a key or a session.
    pub fn is_known(&self) -> bool {
        matches!(self.by, By::Key(_) | By::Session(_))
    }

    fn refusal(&self, detail: &'static str) -> Problem {
        if self.by == By::Nothing { Problem::no_key() } else { Problem::forbidden(detail) }
    }
}

impl Gate {
    pub fn new(side: &Options, keys: Option<Keys>) -> Gate {
        let rate = Rate {
            burst: side.requests_per_s.saturating_mul(BURST_S),
            every_ms: 1_000.0 / f64::from(side.requests_per_s.max(1)),
        };
        Gate {
            keyed: keys.is_some(),
            keys: ArcSwap::from_pointee(keys.unwrap_or_default()),
            sessions: Sessions::default(),
            allowed_hosts: side.allowed_hosts.clone(),
            trusted: side.trusted_proxies.clone(),
            by_peer: Limit::new(rate),
            by_key: Limit::new(rate),
            attempts: Attempts::new(),
        }
    }

    /// From now on these count; sessions of keys that are gone have ended.
    pub fn set_keys(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// There are keys, so people log in.
    pub fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// Judges a request by its head. A bare question for health is always answered, to nobody if need be: whoever asks
    /// it, such as a load balancer, may know neither this server's name nor a key, and is told nothing else.
    pub fn admit(&self, head: &Head, line: &Line, now_ms: BootMs) -> Result<Visitor, Problem> {
        match self.judge(head, line, now_ms) {
            Err(_) if is_bare_health(head) => Ok(Visitor::nobody(line.peer.ip().to_canonical())),
            judged => judged,
        }
    }

    fn judge(&self, head: &Head, line: &Line, now_ms: BootMs) -> Result<Visitor, Problem> {
        let headers = &head.headers;
        let via_proxy = self.is_trusted(line.peer.ip());
        let peer = self.peer(headers, line, via_proxy)?;
        self.judge_host(head, line)?;
        judge_origin(head)?;
        let secure = line.tls || (via_proxy && one(headers, "x-forwarded-proto").is_some_and(|proto| proto == "https"));
        let headered = headers.get(HEADER).is_some_and(|value| value == "1");
        let visitor = Visitor { secure, headered, ..Visitor::nobody(peer) };
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            return self.bearer(head, visitor, given.as_bytes(), now_ms);
        }
        if let Some(digest) = session_of(headers, secure).and_then(|number| self.sessions.find(number, now_ms))
            && let Some(key) = self.keys.load().by_digest(&digest)
        {
            self.by_key.take((digest, address_group(peer)), now_ms).map_err(Problem::too_often)?;
            let (name, rights) = (Some(key.name.clone()), key.rights.clone());
            return Ok(Visitor { name, rights, by: By::Session(digest), ..visitor });
        }
        if !has_limits_of_its_own(head) {
            self.by_peer.take(address_group(peer), now_ms).map_err(Problem::too_often)?;
        }
        let here = !self.keyed && !via_proxy && peer.is_loopback();
        if here {
            return Ok(Visitor { rights: Arc::new(SideRights::ALL), by: By::ThisMachine, ..visitor });
        }
        Ok(visitor)
    }

    fn bearer(&self, head: &Head, visitor: Visitor, given: &[u8], now_ms: BootMs) -> Result<Visitor, Problem> {
        let (scheme, key) = given.split_at_checked("Bearer ".len()).unwrap_or((given, b""));
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return Err(Problem::wrong_key());
        }
        let call = format!("{} {}", shown_method(&head.method), shown_path(head.uri.path()));
        let (name, rights, digest) = self.key(key.trim_ascii(), visitor.peer, &call, Target::Key, now_ms)?;
        self.by_key.take((digest, address_group(visitor.peer)), now_ms).map_err(Problem::too_often)?;
        Ok(Visitor { name: Some(name), rights, by: By::Key(digest), ..visitor })
    }

    /// Looks a key up. A wrong one is counted, and past some of them the answer says nothing but that.
    fn key(
        &self,
        given: &[u8],
        peer: IpAddr,
        call: &str,
        target: Target,
        now_ms: BootMs,
    ) -> Result<(Arc<str>, Arc<SideRights>, KeyDigest), Problem> {
        if let Some(key) = self.keys.load().find(given) {
            return Ok((key.name.clone(), key.rights.clone(), *key.digest()));
        }
        let Verdict { answer, log_times } = self.attempts.count(peer, target, now_ms);
        if let Some(times) = log_times {
            tracing::warn!(%peer, times, "{call}: wrong key, it is not in keys_file: correct it in the program there");
        }
        answer.map_err(Problem::too_often)?;
        Err(Problem::wrong_key())
    }

    /// What the bearer of a key may do, for calls that have a place of their own for it.
    pub fn rights_of(&self, given: &[u8]) -> Option<Arc<SideRights>> {
        self.keys.load().find(given).map(|key| key.rights.clone())
    }

    /// Counts a wrong secret of WeChat's own calls; the error says that there were too many. `app` is fit to be shown.
    pub fn count_wrong_secret(
        &self,
        peer: IpAddr,
        call: &str,
        app: &str,
        target: Target,
        now_ms: BootMs,
    ) -> Result<(), u64> {
        let Verdict { answer, log_times } = self.attempts.count(peer, target, now_ms);
        if let Some(times) = log_times {
            match target {
                Target::UnknownApp => tracing::warn!(
                    %peer,
                    times,
                    "{call} for {app}: no such app here: correct the appid in the program there, or add the app"
                ),
                _ => tracing::warn!(
                    appid = %app,
                    %peer,
                    times,
                    "{call}: wrong secret: correct it in the program there"
                ),
            }
        }
        answer
    }

    /// Begins a session; the cookie that carries it.
    pub fn log_in(&self, visitor: &Visitor, key: &[u8], now_ms: BootMs) -> Result<String, Problem> {
        let (name, _, digest) = self.key(key, visitor.peer, "POST /login", Target::Login, now_ms)?;
        let broken = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-session", "the system has no random bytes");
        let number = self.sessions.begin(digest, now_ms).ok_or_else(broken)?;
        tracing::info!(key = %name, peer = %visitor.peer, "logged in on the side port");
        Ok(cookie(&number, LIFE_MS / 1000, visitor.secure))
    }

    /// Ends the session of these headers; the cookie that forgets it.
    pub fn log_out(&self, visitor: &Visitor, headers: &HeaderMap) -> String {
        if let Some(number) = session_of(headers, visitor.secure) {
            self.sessions.end(number);
        }
        cookie("", 0, visitor.secure)
    }

    /// Whether what the visitor came by still counts.
    pub fn still_counts(&self, visitor: &Visitor) -> bool {
        match visitor.by {
            By::Nothing | By::ThisMachine => true,
            By::Key(digest) | By::Session(digest) => {
                self.keys.load().by_digest(&digest).is_some_and(|key| key.rights == visitor.rights)
            }
        }
    }

    fn is_trusted(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(ip))
    }

    /// Who has really asked: what a trusted proxy says, else the other end of the connection.
    fn peer(&self, headers: &HeaderMap, line: &Line, via_proxy: bool) -> Result<IpAddr, Problem> {
        let peer = line.peer.ip().to_canonical();
        let passed_on = headers.keys().any(|name| {
            let name = name.as_str();
            name.starts_with(FORWARDED_PREFIX) || FORWARDED.contains(&name)
        });
        if !via_proxy {
            return if passed_on { Err(untrusted()) } else { Ok(peer) };
        }
        // The last address that no trusted proxy wrote about another trusted one.
        for hop in forwarded_for(headers).iter().rev() {
            let ip =
                hop.ok_or_else(|| Problem::bad("X-Forwarded-For or Forwarded holds something that is no address"))?;
            if !self.is_trusted(ip) {
                return Ok(ip);
            }
        }
        Ok(peer)
    }

    /// The name by which this server was asked for must be its own.
    fn judge_host(&self, head: &Head, line: &Line) -> Result<(), Problem> {
        let host = match one(&head.headers, "host") {
            Some(host) => host,
            None => head.uri.authority().map(|authority| authority.as_str()).ok_or_else(wrong_host)?,
        };
        let name = without_port(host).ok_or_else(wrong_host)?.to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let own = match address {
            Ok(ip) => ip.to_canonical() == line.local.ip().to_canonical(),
            Err(_) => name == "localhost" && line.local.ip().to_canonical().is_loopback(),
        };
        if own || self.allowed_hosts.contains(&name) { Ok(()) } else { Err(wrong_host()) }
    }
}

/// Every address that proxies have written down, the nearest last: `X-Forwarded-For`, and `Forwarded` (RFC 7239) where
/// there is none. `None` stands for what is no address.
fn forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let hops = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
        values.flat_map(|value| value.split(',')).map(|hop| hop.trim().to_owned()).collect()
    };
    let plain = hops("x-forwarded-for");
    if !plain.is_empty() {
        return plain.iter().map(|hop| address_of(hop)).collect();
    }
    let in_element = |element: &String| {
        let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        let named = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
        Some(address_of(named.1.trim_matches('"')))
    };
    hops("forwarded").iter().filter_map(in_element).collect()
}

/// `10.0.0.5`, `10.0.0.5:443`, `fd00::1`, `[fd00::1]`, `[fd00::1]:443`.
fn address_of(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bracketed.parse::<IpAddr>().or_else(|_| with_port()).ok().map(|ip| ip.to_canonical())
}

/// `/livez` and `/readyz` and nothing more.
pub fn is_bare_health(head: &Head) -> bool {
    matches!(head.uri.path(), "/livez" | "/readyz") && head.uri.query().is_none()
}

/// What costs next to nothing, or counts wrong secrets by itself: there a right one must find its way, whatever else has
/// come from the same address.
fn has_limits_of_its_own(head: &Head) -> bool {
    let path = head.uri.path();
    is_bare_health(head)
        || matches!(path, "/" | "/login")
        || path.starts_with("/page/")
        || path.starts_with("/cgi-bin/")
}

/// A path for the log: what clients may have put into it stays out.
fn shown_path(path: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "/v1/apps",
        "/v1/credentials",
        "/v1/events",
        "/v1/journal",
        "/v1/openapi.json",
        "/v1/session",
        "/v1/status",
        "/cgi-bin",
        "/livez",
        "/login",
        "/logout",
        "/metrics",
        "/readyz",
    ];
    let begins =
        |known: &&&str| path.strip_prefix(**known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    KNOWN.iter().find(begins).copied().unwrap_or("a path that is not known")
}

fn shown_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "another method on",
    }
}

fn wrong_host() -> Problem {
    let detail = "this server does not go by that name: ask for its address, or name it in allowed_hosts under [side]";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "host-unknown", detail)
}

fn untrusted() -> Problem {
    let detail = "the request was passed on by somebody who is not in trusted_proxies under [side]";
    Problem::new(StatusCode::BAD_REQUEST, "proxy-unknown", detail)
}

/// Requests of other sites' pages are not answered, but for links to the page itself.
fn judge_origin(head: &Head) -> Result<(), Problem> {
    let foreign = || {
        let detail = "the request comes from another site's page";
        Err(Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail))
    };
    if let Some(origin) = head.headers.get(header::ORIGIN) {
        let host = one(&head.headers, "host").unwrap_or_default();
        let own = |scheme: &str| origin.as_bytes().strip_prefix(scheme.as_bytes()) == Some(host.as_bytes());
        if host.is_empty() || !(own("http://") || own("https://")) {
            return foreign();
        }
    }
    let word = |name| one(&head.headers, name).unwrap_or_default();
    let navigates = head.method == Method::GET && word("sec-fetch-mode") == "navigate";
    let data = ["/v1/", "/cgi-bin/", "/metrics"].iter().any(|prefix| head.uri.path().starts_with(prefix));
    match word("sec-fetch-site") {
        "cross-site" | "same-site" if !navigates || data => foreign(),
        _ => Ok(()),
    }
}

/// A header's value, if it is there once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn without_port(host: &str) -> Option<&str> {
    let name = match host.strip_prefix('[') {
        Some(rest) => &host[..rest.find(']')? + 2],
        None => host.split(':').next()?,
    };
    let port = host.get(name.len()..)?;
    let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (!name.is_empty() && port_fits).then_some(name)
}

/// `__Host-` makes browsers insist on TLS and on this very host.
fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-tokencached" } else { "tokencached" }
}

fn cookie(number: &str, max_age_s: u64, secure: bool) -> String {
    let secure_word = if secure { "; Secure" } else { "" };
    format!("{}={number}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure_word}", cookie_name(secure))
}

fn session_of(headers: &HeaderMap, secure: bool) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == cookie_name(secure)).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(change: impl FnOnce(&mut Options), keys: Option<&str>) -> Gate {
        let mut side = Options::at(Vec::new());
        change(&mut side);
        Gate::new(&side, keys.map(|text| Keys::parse(text.as_bytes()).unwrap()))
    }

    fn line(peer: &str) -> Line {
        let local = if peer.starts_with("127") { "127.0.0.1:2130" } else { "10.0.0.1:2130" };
        Line { peer: format!("{peer}:5000").parse().unwrap(), local: local.parse().unwrap(), tls: false }
    }

    fn head(uri: &str, headers: &[(&str, &str)]) -> Head {
        let mut request = axum::http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn admit(gate: &Gate, peer: &str, headers: &[(&str, &str)]) -> Result<Visitor, &'static str> {
        gate.admit(&head("/v1/status", headers), &line(peer), 1_000).map_err(|problem| problem.kind)
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_server_is_asked_for_by_its_own_name() {
        let gate = gate(|side| side.allowed_hosts = vec!["cache.internal".into()], None);
        for host in ["127.0.0.1", "127.0.0.1:2130", "localhost:99", "LOCALHOST", "cache.internal", "Cache.Internal:1"] {
            assert!(admit(&gate, "127.0.0.1", &[("host", host)]).is_ok(), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.2", "localhost.evil.example", "127.0.0.1:x", "[::1", "10.0.0.1", "a b"]
        {
            assert_eq!(admit(&gate, "127.0.0.1", &[("host", host)]).err(), Some("host-unknown"), "{host}");
        }
        assert_eq!(admit(&gate, "127.0.0.1", &[]).err(), Some("host-unknown"));
        let twice = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
        assert_eq!(admit(&gate, "127.0.0.1", &twice).err(), Some("host-unknown"));
        assert_eq!(admit(&gate, "10.0.0.9", &[("host", "localhost")]).err(), Some("host-unknown"));
        assert!(admit(&gate, "10.0.0.9", &[("host", "10.0.0.1:2130")]).is_ok());
    }

    #[test]
    fn without_keys_this_machine_may_everything_and_others_nothing() {
        let gate = gate(|_| {}, None);
        let here = admit(&gate, "127.0.0.1", &[("host", "localhost")]).unwrap();
        assert!(here.may_see_status().is_ok());
        assert_eq!(here.may_read("wx1").unwrap_err().kind, "header-needed");
        assert_eq!(here.may_refresh("wx1").unwrap_err().kind, "header-needed");
        let meant = admit(&gate, "127.0.0.1", &[("host", "localhost"), (HEADER, "1")]).unwrap();
        assert!(meant.may_read("wx1").is_ok() && meant.may_refresh("wx1").is_ok());
        let there = admit(&gate, "10.0.0.9", &[("host", "10.0.0.1"), (HEADER, "1")]).unwrap();
        for refused in [there.may_see_status(), there.may_read("wx1"), there.may_refresh("wx1"), there.may_see("wx1")] {
            assert_eq!(refused.unwrap_err().kind, "key-needed");
        }
    }

    #[test]
    fn with_keys_nobody_comes_in_without_one_not_even_from_here() {
        let gate = gate(|_| {}, Some(&format!("web {KEY} read:wx1\n")));
        let host = ("host", "127.0.0.1");
        let nobody = admit(&gate, "127.0.0.1", &[host, (HEADER, "1")]).unwrap();
        assert_eq!(nobody.may_see("wx1").unwrap_err().kind, "key-needed");
        let bearer = format!("Bearer {KEY}");
        let web = admit(&gate, "127.0.0.1", &[host, ("authorization", &bearer)]).unwrap();
        assert!(web.may_read("wx1").is_ok(), "a key is proof enough that the request is meant");
        assert_eq!(web.may_read("wx2").unwrap_err().kind, "not-found");
        assert_eq!(web.may_refresh("wx1").unwrap_err().kind, "forbidden");
        assert_eq!(web.may_see_status().unwrap_err().kind, "forbidden");
        for wrong in ["Bearer ", "Bearer x", "Basic YTpi", "bearer", KEY] {
            let asked = admit(&gate, "127.0.0.1", &[host, ("authorization", wrong)]);
            assert_eq!(asked.err(), Some("key-unknown"), "{wrong}");
        }
    }

    #[test]
    fn a_session_is_good_for_what_its_key_is_and_ends_with_it() {
        let gate = gate(|_| {}, Some(&format!("web {KEY} read:wx1 status\n")));
        let host = ("host", "127.0.0.1");
        let nobody = admit(&gate, "127.0.0.1", &[host]).unwrap();
        assert_eq!(gate.log_in(&nobody, b"wrong", 1_000).unwrap_err().kind, "key-unknown");
        let cookie = gate.log_in(&nobody, KEY.as_bytes(), 1_000).unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("Secure") && !cookie.contains(KEY));
        let sent = cookie.split(';').next().unwrap();
        let web = admit(&gate, "127.0.0.1", &[host, ("cookie", sent)]).unwrap();
        assert!(web.may_see_status().is_ok() && gate.still_counts(&web));
        assert_eq!(web.may_read("wx1").unwrap_err().kind, "header-needed", "a browser sends a cookie unasked");
        gate.set_keys(Keys::parse(format!("web {KEY}x status\n").as_bytes()).unwrap());
        assert!(!gate.still_counts(&web));
        let nobody = admit(&gate, "127.0.0.1", &[host, ("cookie", sent)]).unwrap();
        assert_eq!(nobody.may_see_status().unwrap_err().kind, "key-needed");
        let secure = Visitor { secure: true, ..nobody };
        let cookie = gate.log_in(&secure, format!("{KEY}x").as_bytes(), 1_000).unwrap();
        assert!(cookie.starts_with("__Host-") && cookie.ends_with("; Secure"), "{cookie}");
    }

    #[test]
    fn wrong_keys_are_told_so_only_so_often_and_a_right_one_always_passes() {
        let gate = gate(|side| side.requests_per_s = 1, Some(&format!("web {KEY} status\n")));
        let (host, wrong) = (("host", "127.0.0.1"), ("authorization", "Bearer wrong"));
        for _ in 0..10 {
            assert_eq!(admit(&gate, "127.0.0.1", &[host, wrong]).err(), Some("key-unknown"));
        }
        let nobody = gate.admit(&head("/login", &[host]), &line("127.0.0.1"), 1_000).unwrap();
        for _ in 0..100 {
            assert_eq!(admit(&gate, "127.0.0.1", &[host, wrong]).err(), Some("too-many-requests"));
            let _ = gate.log_in(&nobody, b"wrong", 1_000);
            let _ = admit(&gate, "127.0.0.1", &[host]);
        }
        let bearer = format!("Bearer {KEY}");
        let right = admit(&gate, "127.0.0.1", &[host, ("authorization", &bearer)]);
        assert!(right.unwrap().may_see_status().is_ok());
        assert!(
            gate.admit(&head("/login", &[host]), &line("127.0.0.1"), 1_000).is_ok(),
            "the way to the login is open"
        );
        let cookie = gate.log_in(&nobody, KEY.as_bytes(), 1_000).unwrap();
        let session = admit(&gate, "127.0.0.1", &[host, ("cookie", cookie.split(';').next().unwrap())]);
        assert!(session.unwrap().may_see_status().is_ok());
    }

    #[test]
    fn a_key_that_several_share_has_its_rate_at_each_address() {
        let gate = gate(|side| side.requests_per_s = 1, Some(&format!("web {KEY} status\n")));
        let bearer = format!("Bearer {KEY}");
        let ask = |peer| admit(&gate, peer, &[("host", "10.0.0.1"), ("authorization", &bearer)]).err();
        assert_eq!([(); 5].map(|()| ask("10.0.0.8")), [None, None, None, None, Some("too-many-requests")]);
        assert_eq!(ask("10.0.0.9"), None);
    }

    #[test]
    fn health_is_told_to_anybody_and_its_details_to_nobody_unknown() {
        let gate = gate(|side| side.requests_per_s = 1, None);
        let asked = |uri: &str, headers: &[(&str, &str)]| gate.admit(&head(uri, headers), &line("127.0.0.1"), 1_000);
        let strange: [&[(&str, &str)]; 5] = [
            &[],
            &[("host", "evil.example")],
            &[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")],
            &[("host", "localhost"), ("authorization", "Bearer old")],
            &[("host", "localhost"), ("origin", "http://evil.example")],
        ];
        for path in ["/livez", "/readyz"] {
            for headers in strange {
                let visitor = asked(path, headers).unwrap();
                assert!(!visitor.rights.status(), "{path} {headers:?}");
                assert!(asked(&format!("{path}?app=wx1"), headers).is_err(), "{path} {headers:?}");
            }
            assert!(asked(path, &[("host", "localhost")]).unwrap().rights.status());
            assert!((0..100).all(|_| asked(path, &[("host", "localhost")]).is_ok()), "and not counted");
        }
        assert!(asked("/livez/x", &[]).is_err());
    }

    #[test]
    fn a_proxy_is_believed_only_if_it_is_trusted() {
        let gate = gate(|side| side.trusted_proxies = vec!["10.0.0.0/24".parse().unwrap()], None);
        let host = ("host", "127.0.0.1");
        for name in ["x-forwarded-for", "X-Forwarded-Proto", "x-forwarded-host", "forwarded", "via", "x-real-ip"] {
            assert_eq!(admit(&gate, "127.0.0.1", &[host, (name, "127.0.0.1")]).err(), Some("proxy-unknown"), "{name}");
        }
        let host = ("host", "10.0.0.1");
        let seen = |chain: &str| {
            let visitor = admit(&gate, "10.0.0.9", &[host, ("x-forwarded-for", chain), ("x-forwarded-proto", "https")]);
            visitor.map(|visitor| (visitor.peer.to_string(), visitor.secure, visitor.by))
        };
        let stranger = |ip: &str| Ok((ip.to_owned(), true, By::Nothing));
        assert_eq!(seen("203.0.113.7"), stranger("203.0.113.7"));
        assert_eq!(seen("127.0.0.1"), stranger("127.0.0.1"), "this machine is not who comes through a proxy");
        assert_eq!(seen("1.1.1.1, 203.0.113.7, 10.0.0.8"), stranger("203.0.113.7"), "the left is hearsay");
        assert_eq!(seen("nonsense").err(), Some("bad-request"));
        assert_eq!(seen("203.0.113.7:4711"), stranger("203.0.113.7"), "some proxies add the port");
        assert_eq!(admit(&gate, "10.0.0.9", &[host]).unwrap().by, By::Nothing);
        let forwarded = |value: &str| {
            admit(&gate, "10.0.0.9", &[host, ("forwarded", value)]).map(|visitor| visitor.peer.to_string())
        };
        assert_eq!(forwarded("for=203.0.113.7;proto=https, For=10.0.0.8").as_deref(), Ok("203.0.113.7"));
        assert_eq!(forwarded("proto=https;for=\"[2001:db8::7]:4711\"").as_deref(), Ok("2001:db8::7"));
        assert_eq!(forwarded("for=unknown").err(), Some("bad-request"));
    }

    #[test]
    fn behind_a_trusted_proxy_the_clients_address_counts() {
        let keys = format!("web {KEY} status\n");
        let gate = gate(|side| side.trusted_proxies = vec!["10.0.0.9".parse().unwrap()], Some(&keys));
        let wrong = |client: &str| {
            let headers = [("host", "10.0.0.1"), ("x-forwarded-for", client), ("authorization", "Bearer wrong")];
            admit(&gate, "10.0.0.9", &headers).err()
        };
        assert_eq!([(); 11].map(|()| wrong("203.0.113.7"))[9..], [Some("key-unknown"), Some("too-many-requests")]);
        assert_eq!(wrong("203.0.113.8"), Some("key-unknown"), "another client of the same proxy");
    }

    #[test]
    fn a_path_for_the_log_has_nothing_of_the_clients() {
        assert_eq!(shown_path("/v1/apps/wx1/credentials/secret"), "/v1/apps");
        assert_eq!(shown_path("/metrics"), "/metrics");
        assert_eq!(shown_path("/metrics5ec4e75e"), "a path that is not known");
    }

    #[test]
    fn pages_of_other_sites_get_nothing() {
        let gate = gate(|_| {}, None);
        let asked = |uri: &str, headers: &[(&str, &str)]| {
            let headers = [&[("host", "localhost:2130")], headers].concat();
            gate.admit(&head(uri, &headers), &line("127.0.0.1"), 1_000).err().map(|problem| problem.kind)
        };
        assert_eq!(asked("/v1/apps", &[("origin", "http://localhost:2130")]), None);
        for origin in ["http://evil.example", "null", "http://localhost", "http://localhost:2130.evil.example"] {
            assert_eq!(asked("/v1/apps", &[("origin", origin)]), Some("foreign-origin"), "{origin}");
        }
        let cross = [("sec-fetch-site", "cross-site")];
        assert_eq!(asked("/v1/apps", &cross), Some("foreign-origin"));
        assert_eq!(asked("/v1/apps", &[("sec-fetch-site", "same-origin")]), None);
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(asked("/", &link), None, "a link to the page is fine");
        assert_eq!(asked("/v1/apps", &link), Some("foreign-origin"));
    }
}
