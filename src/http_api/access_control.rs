//! Who the caller is and whether it may be answered: host names, proxies, rates, keys, sessions.
//!
//! A right key or session always passes. It is looked at first, and what others do from the same address does not count
//! against it. Limits are for wrong keys and for callers without a key.
//!
//! A browser on this machine can reach loopback addresses for any page that it shows. So a request must name this server
//! by one of its own names (otherwise a foreign name could be made to point here), and must not come from a page of
//! another site. What acts or gives a token away also needs a header that such a page cannot send.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, Method, StatusCode, header};

use super::options::Options;
use super::problem::Problem;
use super::sessions::{LIFE_MS, Sessions};
use super::wrong_secrets::{SecretTarget, WrongSecrets};
use crate::access::{ApiKey, ApiKeyDigest, ApiKeys, HttpRights};
use crate::address_group::address_group;
use crate::clock::BootMs;
use crate::network::without_brackets;
use crate::rate_limit::{Rate, RateLimit};

/// Must be `1` in requests that act, and in requests that read a token without a key. No page can send it to another site.
pub const HEADER: &str = "x-tokencached";
/// A burst may be as large as the requests of so many seconds.
const BURST_S: u32 = 4;
/// Headers of requests that a proxy has passed on.
const FORWARDED: &[&str] = &["forwarded", "via", "x-real-ip"];
const FORWARDED_PREFIX: &str = "x-forwarded-";

pub struct AccessControl {
    keys: ArcSwap<ApiKeys>,
    /// There is a file of keys, so nobody is answered without one, and people log in.
    pub has_keys: bool,
    sessions: Sessions,
    options: Arc<Options>,
    /// Requests without a key.
    by_peer: RateLimit<IpAddr>,
    /// Requests with a key, by key and address: callers that share a key do not delay each other.
    by_key: RateLimit<(ApiKeyDigest, IpAddr)>,
    pub wrong_secrets: WrongSecrets,
}

/// The two ends of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionAddresses {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub tls: bool,
}

/// How the caller has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Authentication {
    Anonymous,
    /// It is on this machine, and there are no keys.
    Loopback,
    Key(ApiKeyDigest),
    Session(ApiKeyDigest),
}

#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: IpAddr,
    /// The name of its key.
    pub name: Option<Arc<str>>,
    pub rights: Arc<HttpRights>,
    /// The connection is encrypted, here or at a trusted proxy.
    pub secure: bool,
    by: Authentication,
    has_api_header: bool,
}

impl Caller {
    fn anonymous(peer: IpAddr) -> Caller {
        Caller {
            peer,
            name: None,
            rights: Arc::new(HttpRights::NONE),
            secure: false,
            by: Authentication::Anonymous,
            has_api_header: false,
        }
    }

    pub fn require_status(&self) -> Result<(), Problem> {
        self.require(self.rights.status, "this needs the right status")
    }

    /// An error without the right to read this app's tokens, or if a foreign page could have sent the request.
    pub fn require_read(&self, app: &str) -> Result<(), Problem> {
        self.require_visible(app)?;
        self.require(self.rights.read(app), "this needs the right read for this app")?;
        self.require_no_foreign_page()
    }

    /// An error without the right to read any app's tokens, or if a foreign page could have sent the request.
    pub fn require_read_any(&self) -> Result<(), Problem> {
        self.require(self.rights.reads_some(), "this needs the right read")?;
        self.require_no_foreign_page()
    }

    /// An error without the right to act on this app, or if a foreign page could have sent the request.
    pub fn require_refresh(&self, app: &str) -> Result<(), Problem> {
        self.require_visible(app)?;
        self.require(self.rights.refresh(app), "this needs the right refresh for this app")?;
        self.require_api_header()
    }

    pub fn require_any_right(&self) -> Result<(), Problem> {
        if self.by == Authentication::Anonymous { Err(Problem::no_key()) } else { Ok(()) }
    }

    /// An error unless the app may be seen; what may not be seen is said not to exist.
    pub fn require_visible(&self, app: &str) -> Result<(), Problem> {
        match self.by {
            Authentication::Anonymous => Err(Problem::no_key()),
            _ if self.rights.can_see(app) => Ok(()),
            _ => Err(Problem::not_found()),
        }
    }

    /// An error without the header that no foreign page can send.
    pub fn require_api_header(&self) -> Result<(), Problem> {
        if self.has_api_header {
            return Ok(());
        }
        let detail = "this needs the header X-Tokencached: 1, which shows that no foreign page has sent the request";
        Err(Problem::new(StatusCode::FORBIDDEN, "header-needed", detail))
    }

    pub fn is_logged_in(&self) -> bool {
        matches!(self.by, Authentication::Key(_) | Authentication::Session(_))
    }

    fn require(&self, has_right: bool, detail: &'static str) -> Result<(), Problem> {
        match self.by {
            _ if has_right => Ok(()),
            Authentication::Anonymous => Err(Problem::no_key()),
            _ => Err(Problem::forbidden(detail)),
        }
    }

    /// No page knows a key; browsers send sessions along unasked.
    fn require_no_foreign_page(&self) -> Result<(), Problem> {
        if matches!(self.by, Authentication::Key(_)) { Ok(()) } else { self.require_api_header() }
    }
}

impl AccessControl {
    pub fn new(options: Arc<Options>, keys: Option<ApiKeys>) -> AccessControl {
        let rate = Rate {
            burst: options.requests_per_s.saturating_mul(BURST_S),
            every_ms: 1_000.0 / f64::from(options.requests_per_s.max(1)),
        };
        AccessControl {
            has_keys: keys.is_some(),
            keys: ArcSwap::from_pointee(keys.unwrap_or_default()),
            sessions: Sessions::default(),
            options,
            by_peer: RateLimit::new(rate),
            by_key: RateLimit::new(rate),
            wrong_secrets: WrongSecrets::new(),
        }
    }

    /// Replaces the keys. Sessions of keys that are gone have ended.
    pub fn set_keys(&self, keys: ApiKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// Finds out who sends a request, by its head. A bare health check is always answered, if need be as anonymous: a load
    /// balancer may know neither this server's name nor a key, and is told nothing else.
    pub fn admit(&self, head: &Head, addresses: &ConnectionAddresses, now_ms: BootMs) -> Result<Caller, Problem> {
        match self.authenticate(head, addresses, now_ms) {
            Err(_) if is_bare_health(head) => Ok(Caller::anonymous(addresses.peer.ip().to_canonical())),
            authenticated => authenticated,
        }
    }

    fn authenticate(&self, head: &Head, addresses: &ConnectionAddresses, now_ms: BootMs) -> Result<Caller, Problem> {
        let headers = &head.headers;
        let via_proxy = self.options.is_trusted(addresses.peer.ip());
        let peer = self.peer(headers, addresses, via_proxy)?;
        self.check_host(head, addresses)?;
        check_origin(head)?;
        let secure = addresses.tls
            || (via_proxy && single_header(headers, "x-forwarded-proto").is_some_and(|proto| proto == "https"));
        let has_api_header = headers.get(HEADER).is_some_and(|value| value == "1");
        let caller = Caller { secure, has_api_header, ..Caller::anonymous(peer) };
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            return self.authenticate_bearer(head, caller, given.as_bytes(), now_ms);
        }
        if let Some(digest) = session_of(headers, secure).and_then(|number| self.sessions.find(number, now_ms))
            && let Some(key) = self.keys.load().by_digest(&digest)
        {
            return self.known_caller(&key, Authentication::Session(digest), caller, now_ms);
        }
        if !is_limited_elsewhere(head) {
            self.by_peer.try_take(address_group(peer), now_ms).map_err(Problem::too_often)?;
        }
        let here = !self.has_keys && !via_proxy && peer.is_loopback();
        if here {
            return Ok(Caller { rights: Arc::new(HttpRights::ALL), by: Authentication::Loopback, ..caller });
        }
        Ok(caller)
    }

    fn authenticate_bearer(
        &self,
        head: &Head,
        caller: Caller,
        given: &[u8],
        now_ms: BootMs,
    ) -> Result<Caller, Problem> {
        let (scheme, key) = given.split_at_checked("Bearer ".len()).unwrap_or((given, b""));
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return Err(Problem::wrong_key());
        }
        let call = format!("{} {}", shown_method(&head.method), shown_path(head.uri.path()));
        let key = self.key(key.trim_ascii(), caller.peer, &call, SecretTarget::Key, now_ms)?;
        self.known_caller(&key, Authentication::Key(key.digest), caller, now_ms)
    }

    /// A caller with this key, unless it asks too often with it.
    fn known_caller(
        &self,
        key: &ApiKey,
        by: Authentication,
        caller: Caller,
        now_ms: BootMs,
    ) -> Result<Caller, Problem> {
        self.by_key.try_take((key.digest, address_group(caller.peer)), now_ms).map_err(Problem::too_often)?;
        Ok(Caller { name: Some(key.name.clone()), rights: key.rights.clone(), by, ..caller })
    }

    /// Looks a key up. A wrong one is counted; after many of them the answer says only that there were too many.
    fn key(
        &self,
        given: &[u8],
        peer: IpAddr,
        call: &str,
        target: SecretTarget,
        now_ms: BootMs,
    ) -> Result<Arc<ApiKey>, Problem> {
        if let Some(key) = self.keys.load().find(given) {
            return Ok(key);
        }
        let told = self.wrong_secrets.record(peer, target, now_ms, |times| {
            tracing::warn!(%peer, times, "authentication failed: {call}: wrong key, it is not in keys_file: correct it in the program there");
        });
        Err(told.err().map_or_else(Problem::wrong_key, Problem::too_often))
    }

    /// The rights of a key, for calls that take it in a parameter of their own.
    pub fn rights_of(&self, given: &[u8]) -> Option<Arc<HttpRights>> {
        self.keys.load().find(given).map(|key| key.rights.clone())
    }

    /// Counts a wrong secret of WeChat's own calls. The error says that there were too many. `app` is logged.
    pub fn record_wrong_secret(
        &self,
        peer: IpAddr,
        call: &str,
        app: &str,
        target: SecretTarget,
        now_ms: BootMs,
    ) -> Result<(), u64> {
        self.wrong_secrets.record(peer, target, now_ms, |times| match target {
            SecretTarget::UnknownApp => tracing::warn!(
                %peer,
                times,
                "authentication failed: {call} for {app}: no such app here: correct the appid in the program there, or add the app"
            ),
            _ => tracing::warn!(
                appid = %app,
                %peer,
                times,
                "authentication failed: {call}: wrong secret: correct it in the program there"
            ),
        })
    }

    pub fn log_in(&self, caller: &Caller, key: &[u8], now_ms: BootMs) -> Result<String, Problem> {
        let key = self.key(key, caller.peer, "POST /login", SecretTarget::Login, now_ms)?;
        let broken = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-session", "the system has no random bytes");
        let number = self.sessions.begin(key.digest, now_ms).ok_or_else(broken)?;
        tracing::info!(key = %key.name, peer = %caller.peer, "logged in to the HTTP API");
        Ok(cookie(&number, LIFE_MS / 1000, caller.secure))
    }

    /// Ends the session of these headers, and gives the cookie that removes it from the browser.
    pub fn log_out(&self, caller: &Caller, headers: &HeaderMap) -> String {
        if let Some(number) = session_of(headers, caller.secure) {
            self.sessions.end(number);
        }
        cookie("", 0, caller.secure)
    }

    /// Whether the caller's key still exists with the same rights.
    pub fn is_still_valid(&self, caller: &Caller) -> bool {
        match caller.by {
            Authentication::Anonymous | Authentication::Loopback => true,
            Authentication::Key(digest) | Authentication::Session(digest) => {
                self.keys.load().by_digest(&digest).is_some_and(|key| key.rights == caller.rights)
            }
        }
    }

    /// The client's address: what a trusted proxy says, else the other end of the connection.
    fn peer(&self, headers: &HeaderMap, addresses: &ConnectionAddresses, via_proxy: bool) -> Result<IpAddr, Problem> {
        let peer = addresses.peer.ip().to_canonical();
        let passed_on = headers.keys().any(|name| {
            let name = name.as_str();
            name.starts_with(FORWARDED_PREFIX) || FORWARDED.contains(&name)
        });
        if !via_proxy {
            return if passed_on { Err(untrusted_proxy_problem()) } else { Ok(peer) };
        }
        // The last address in the chain that is not a trusted proxy's.
        for hop in forwarded_addresses(headers).iter().rev() {
            let ip =
                hop.ok_or_else(|| Problem::bad("X-Forwarded-For or Forwarded holds something that is no address"))?;
            if !self.options.is_trusted(ip) {
                return Ok(ip);
            }
        }
        Ok(peer)
    }

    fn check_host(&self, head: &Head, addresses: &ConnectionAddresses) -> Result<(), Problem> {
        let host = match single_header(&head.headers, "host") {
            Some(host) => host,
            None => head.uri.authority().map(|authority| authority.as_str()).ok_or_else(unknown_host_problem)?,
        };
        let name = without_port(host).ok_or_else(unknown_host_problem)?.to_ascii_lowercase();
        let address = without_brackets(&name).parse::<IpAddr>();
        let own = match address {
            Ok(ip) => ip.to_canonical() == addresses.local.ip().to_canonical(),
            Err(_) => name == "localhost" && addresses.local.ip().to_canonical().is_loopback(),
        };
        if own || self.options.allowed_hosts.contains(&name) { Ok(()) } else { Err(unknown_host_problem()) }
    }
}

/// The addresses that proxies have added, the nearest last: from `X-Forwarded-For`, else from `Forwarded` (RFC 7239).
/// `None` stands for what is no address.
fn forwarded_addresses(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
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

pub fn is_bare_health(head: &Head) -> bool {
    matches!(head.uri.path(), "/livez" | "/readyz") && head.uri.query().is_none()
}

/// Whether the rate limit by address does not apply: the request costs next to nothing, or its handler counts wrong
/// secrets by itself, and a right one must pass whatever else has come from the same address.
fn is_limited_elsewhere(head: &Head) -> bool {
    let path = head.uri.path();
    is_bare_health(head)
        || matches!(path, "/" | "/login")
        || path.starts_with("/page/")
        || path.starts_with("/cgi-bin/")
}

/// A path for the log, without anything that a client has put into it.
fn shown_path(path: &str) -> &'static str {
    const KNOWN: &str = "/v1/apps /v1/credentials /v1/events /v1/journal /v1/openapi.json /v1/session /v1/status /cgi-bin \
                         /livez /login /logout /metrics /readyz";
    let begins = |known: &&str| path.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    KNOWN.split(' ').find(begins).unwrap_or("a path that is not known")
}

fn shown_method(method: &Method) -> &'static str {
    ["GET", "HEAD", "POST"].into_iter().find(|known| *known == method.as_str()).unwrap_or("another method on")
}

fn unknown_host_problem() -> Problem {
    let detail = "this server does not go by that name: ask for its address, or name it in allowed_hosts under [http]";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "host-unknown", detail)
}

fn untrusted_proxy_problem() -> Problem {
    let detail = "the request was passed on by somebody who is not in trusted_proxies under [http]";
    Problem::new(StatusCode::BAD_REQUEST, "proxy-unknown", detail)
}

/// An error for requests of other sites' pages, except links to the status page.
fn check_origin(head: &Head) -> Result<(), Problem> {
    let foreign = || {
        let detail = "the request comes from another site's page";
        Err(Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail))
    };
    if let Some(origin) = head.headers.get(header::ORIGIN) {
        let host = single_header(&head.headers, "host").unwrap_or_default();
        let own = |scheme: &str| origin.as_bytes().strip_prefix(scheme.as_bytes()) == Some(host.as_bytes());
        if host.is_empty() || !(own("http://") || own("https://")) {
            return foreign();
        }
    }
    let word = |name| single_header(&head.headers, name).unwrap_or_default();
    let navigates = head.method == Method::GET && word("sec-fetch-mode") == "navigate";
    let data = ["/v1/", "/cgi-bin/", "/metrics"].iter().any(|prefix| head.uri.path().starts_with(prefix));
    match word("sec-fetch-site") {
        "cross-site" | "same-site" if !navigates || data => foreign(),
        _ => Ok(()),
    }
}

/// A header's value, if the header is there exactly once.
fn single_header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
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

/// With `__Host-` browsers send the cookie only by TLS and only to this host.
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

    fn access_control(change: impl FnOnce(&mut Options), keys: Option<&str>) -> AccessControl {
        let mut options = Options::at(Vec::new());
        change(&mut options);
        AccessControl::new(Arc::new(options), keys.map(|text| ApiKeys::parse(text.as_bytes()).unwrap()))
    }

    fn addresses(peer: &str) -> ConnectionAddresses {
        let local = if peer.starts_with("127") { "127.0.0.1:2130" } else { "10.0.0.1:2130" };
        ConnectionAddresses { peer: format!("{peer}:5000").parse().unwrap(), local: local.parse().unwrap(), tls: false }
    }

    fn head(uri: &str, headers: &[(&str, &str)]) -> Head {
        let mut request = axum::http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn admit(access_control: &AccessControl, peer: &str, headers: &[(&str, &str)]) -> Result<Caller, &'static str> {
        access_control.admit(&head("/v1/status", headers), &addresses(peer), 1_000).map_err(|problem| problem.name)
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_server_is_asked_for_by_its_own_name() {
        let access_control = access_control(|options| options.allowed_hosts = vec!["cache.internal".into()], None);
        for host in ["127.0.0.1", "127.0.0.1:2130", "localhost:99", "LOCALHOST", "cache.internal", "Cache.Internal:1"] {
            assert!(admit(&access_control, "127.0.0.1", &[("host", host)]).is_ok(), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.2", "localhost.evil.example", "127.0.0.1:x", "[::1", "10.0.0.1", "a b"]
        {
            assert_eq!(admit(&access_control, "127.0.0.1", &[("host", host)]).err(), Some("host-unknown"), "{host}");
        }
        assert_eq!(admit(&access_control, "127.0.0.1", &[]).err(), Some("host-unknown"));
        let twice = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
        assert_eq!(admit(&access_control, "127.0.0.1", &twice).err(), Some("host-unknown"));
        assert_eq!(admit(&access_control, "10.0.0.9", &[("host", "localhost")]).err(), Some("host-unknown"));
        assert!(admit(&access_control, "10.0.0.9", &[("host", "10.0.0.1:2130")]).is_ok());
    }

    #[test]
    fn without_keys_this_machine_may_everything_and_others_nothing() {
        let access_control = access_control(|_| {}, None);
        let here = admit(&access_control, "127.0.0.1", &[("host", "localhost")]).unwrap();
        assert!(here.require_status().is_ok());
        assert_eq!(here.require_read("wx1").unwrap_err().name, "header-needed");
        assert_eq!(here.require_refresh("wx1").unwrap_err().name, "header-needed");
        let meant = admit(&access_control, "127.0.0.1", &[("host", "localhost"), (HEADER, "1")]).unwrap();
        assert!(meant.require_read("wx1").is_ok() && meant.require_refresh("wx1").is_ok());
        let there = admit(&access_control, "10.0.0.9", &[("host", "10.0.0.1"), (HEADER, "1")]).unwrap();
        for refused in [
            there.require_status(),
            there.require_read("wx1"),
            there.require_refresh("wx1"),
            there.require_visible("wx1"),
        ] {
            assert_eq!(refused.unwrap_err().name, "key-needed");
        }
    }

    #[test]
    fn with_keys_nobody_comes_in_without_one_not_even_from_here() {
        let access_control = access_control(|_| {}, Some(&format!("web {KEY} read:wx1\n")));
        let host = ("host", "127.0.0.1");
        let nobody = admit(&access_control, "127.0.0.1", &[host, (HEADER, "1")]).unwrap();
        assert_eq!(nobody.require_visible("wx1").unwrap_err().name, "key-needed");
        let bearer = format!("Bearer {KEY}");
        let web = admit(&access_control, "127.0.0.1", &[host, ("authorization", &bearer)]).unwrap();
        assert!(web.require_read("wx1").is_ok(), "a key is proof enough that the request is meant");
        assert_eq!(web.require_read("wx2").unwrap_err().name, "not-found");
        assert_eq!(web.require_refresh("wx1").unwrap_err().name, "forbidden");
        assert_eq!(web.require_status().unwrap_err().name, "forbidden");
        for wrong in ["Bearer ", "Bearer x", "Basic YTpi", "bearer", KEY] {
            let asked = admit(&access_control, "127.0.0.1", &[host, ("authorization", wrong)]);
            assert_eq!(asked.err(), Some("key-unknown"), "{wrong}");
        }
    }

    #[test]
    fn a_session_is_good_for_what_its_key_is_and_ends_with_it() {
        let access_control = access_control(|_| {}, Some(&format!("web {KEY} read:wx1 status\n")));
        let host = ("host", "127.0.0.1");
        let nobody = admit(&access_control, "127.0.0.1", &[host]).unwrap();
        assert_eq!(access_control.log_in(&nobody, b"wrong", 1_000).unwrap_err().name, "key-unknown");
        let cookie = access_control.log_in(&nobody, KEY.as_bytes(), 1_000).unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("Secure") && !cookie.contains(KEY));
        let sent = cookie.split(';').next().unwrap();
        let web = admit(&access_control, "127.0.0.1", &[host, ("cookie", sent)]).unwrap();
        assert!(web.require_status().is_ok() && access_control.is_still_valid(&web));
        assert_eq!(web.require_read("wx1").unwrap_err().name, "header-needed", "a browser sends a cookie unasked");
        access_control.set_keys(ApiKeys::parse(format!("web {KEY}x status\n").as_bytes()).unwrap());
        assert!(!access_control.is_still_valid(&web));
        let nobody = admit(&access_control, "127.0.0.1", &[host, ("cookie", sent)]).unwrap();
        assert_eq!(nobody.require_status().unwrap_err().name, "key-needed");
        let secure = Caller { secure: true, ..nobody };
        let cookie = access_control.log_in(&secure, format!("{KEY}x").as_bytes(), 1_000).unwrap();
        assert!(cookie.starts_with("__Host-") && cookie.ends_with("; Secure"), "{cookie}");
    }

    #[test]
    fn wrong_keys_are_told_so_only_so_often_and_a_right_one_always_passes() {
        let access_control = access_control(|options| options.requests_per_s = 1, Some(&format!("web {KEY} status\n")));
        let (host, wrong) = (("host", "127.0.0.1"), ("authorization", "Bearer wrong"));
        for _ in 0..10 {
            assert_eq!(admit(&access_control, "127.0.0.1", &[host, wrong]).err(), Some("key-unknown"));
        }
        let nobody = access_control.admit(&head("/login", &[host]), &addresses("127.0.0.1"), 1_000).unwrap();
        for _ in 0..100 {
            assert_eq!(admit(&access_control, "127.0.0.1", &[host, wrong]).err(), Some("too-many-requests"));
            let _ = access_control.log_in(&nobody, b"wrong", 1_000);
            let _ = admit(&access_control, "127.0.0.1", &[host]);
        }
        let bearer = format!("Bearer {KEY}");
        let right = admit(&access_control, "127.0.0.1", &[host, ("authorization", &bearer)]);
        assert!(right.unwrap().require_status().is_ok());
        assert!(
            access_control.admit(&head("/login", &[host]), &addresses("127.0.0.1"), 1_000).is_ok(),
            "the way to the login is open"
        );
        let cookie = access_control.log_in(&nobody, KEY.as_bytes(), 1_000).unwrap();
        let session = admit(&access_control, "127.0.0.1", &[host, ("cookie", cookie.split(';').next().unwrap())]);
        assert!(session.unwrap().require_status().is_ok());
    }

    #[test]
    fn a_key_that_several_share_has_its_rate_at_each_address() {
        let access_control = access_control(|options| options.requests_per_s = 1, Some(&format!("web {KEY} status\n")));
        let bearer = format!("Bearer {KEY}");
        let ask = |peer| admit(&access_control, peer, &[("host", "10.0.0.1"), ("authorization", &bearer)]).err();
        assert_eq!([(); 5].map(|()| ask("10.0.0.8")), [None, None, None, None, Some("too-many-requests")]);
        assert_eq!(ask("10.0.0.9"), None);
    }

    #[test]
    fn health_is_told_to_anybody_and_its_details_to_nobody_unknown() {
        let access_control = access_control(|options| options.requests_per_s = 1, None);
        let asked = |uri: &str, headers: &[(&str, &str)]| {
            access_control.admit(&head(uri, headers), &addresses("127.0.0.1"), 1_000)
        };
        let strange: [&[(&str, &str)]; 5] = [
            &[],
            &[("host", "evil.example")],
            &[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")],
            &[("host", "localhost"), ("authorization", "Bearer old")],
            &[("host", "localhost"), ("origin", "http://evil.example")],
        ];
        for path in ["/livez", "/readyz"] {
            for headers in strange {
                let caller = asked(path, headers).unwrap();
                assert!(!caller.rights.status, "{path} {headers:?}");
                assert!(asked(&format!("{path}?app=wx1"), headers).is_err(), "{path} {headers:?}");
            }
            assert!(asked(path, &[("host", "localhost")]).unwrap().rights.status);
            assert!((0..100).all(|_| asked(path, &[("host", "localhost")]).is_ok()), "and not counted");
        }
        assert!(asked("/livez/x", &[]).is_err());
    }

    #[test]
    fn a_proxy_is_believed_only_if_it_is_trusted() {
        let access_control =
            access_control(|options| options.trusted_proxies = vec!["10.0.0.0/24".parse().unwrap()], None);
        let host = ("host", "127.0.0.1");
        for name in ["x-forwarded-for", "X-Forwarded-Proto", "x-forwarded-host", "forwarded", "via", "x-real-ip"] {
            assert_eq!(
                admit(&access_control, "127.0.0.1", &[host, (name, "127.0.0.1")]).err(),
                Some("proxy-unknown"),
                "{name}"
            );
        }
        let host = ("host", "10.0.0.1");
        let seen = |chain: &str| {
            let caller =
                admit(&access_control, "10.0.0.9", &[host, ("x-forwarded-for", chain), ("x-forwarded-proto", "https")]);
            caller.map(|caller| (caller.peer.to_string(), caller.secure, caller.by))
        };
        let stranger = |ip: &str| Ok((ip.to_owned(), true, Authentication::Anonymous));
        assert_eq!(seen("203.0.113.7"), stranger("203.0.113.7"));
        assert_eq!(seen("127.0.0.1"), stranger("127.0.0.1"), "this machine is not who comes through a proxy");
        assert_eq!(seen("1.1.1.1, 203.0.113.7, 10.0.0.8"), stranger("203.0.113.7"), "the left is hearsay");
        assert_eq!(seen("nonsense").err(), Some("bad-request"));
        assert_eq!(seen("203.0.113.7:4711"), stranger("203.0.113.7"), "some proxies add the port");
        assert_eq!(admit(&access_control, "10.0.0.9", &[host]).unwrap().by, Authentication::Anonymous);
        let forwarded = |value: &str| {
            admit(&access_control, "10.0.0.9", &[host, ("forwarded", value)]).map(|caller| caller.peer.to_string())
        };
        assert_eq!(forwarded("for=203.0.113.7;proto=https, For=10.0.0.8").as_deref(), Ok("203.0.113.7"));
        assert_eq!(forwarded("proto=https;for=\"[2001:db8::7]:4711\"").as_deref(), Ok("2001:db8::7"));
        assert_eq!(forwarded("for=unknown").err(), Some("bad-request"));
    }

    #[test]
    fn behind_a_trusted_proxy_the_clients_address_counts() {
        let keys = format!("web {KEY} status\n");
        let access_control =
            access_control(|options| options.trusted_proxies = vec!["10.0.0.9".parse().unwrap()], Some(&keys));
        let wrong = |client: &str| {
            let headers = [("host", "10.0.0.1"), ("x-forwarded-for", client), ("authorization", "Bearer wrong")];
            admit(&access_control, "10.0.0.9", &headers).err()
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
        let access_control = access_control(|_| {}, None);
        let asked = |uri: &str, headers: &[(&str, &str)]| {
            let headers = [&[("host", "localhost:2130")], headers].concat();
            access_control.admit(&head(uri, &headers), &addresses("127.0.0.1"), 1_000).err().map(|problem| problem.name)
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
