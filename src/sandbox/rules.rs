//! WeChat's rules as a pure state machine: accounts, tokens, tickets, lifetimes, quotas.
//!
//! Never does I/O and never reads a clock: every call is given the time. [`World::ask`] is one API call; what it answers
//! is turned into WeChat's JSON by `answer.rs`.
//!
//! Where WeChat's behaviour is not published, the choice made here is marked "assumption".

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use serde::Serialize;

mod component;

use super::options::{AppOptions, Options, Quotas, SandboxPlatform};
use super::quota::{Meter, Period};
use crate::clock::Now;

/// Tokens remembered per app, dead ones included, so that an old one is told "expired" and not "never issued".
const REMEMBERED_TOKENS_MAX: usize = 64;
/// Ticket answers say this whatever the ticket's real age (community reports; easywechat#1580, WxJava#3147).
const TICKET_EXPIRES_IN_S: u64 = 7200;

/// One API call, parsed. An absent parameter and an empty one are the same to WeChat: `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiRequest {
    /// `GET /cgi-bin/token`
    Classic { grant_type: Option<String>, appid: Option<String>, secret: Option<String> },
    /// `POST /cgi-bin/stable_token`
    Stable { grant_type: Option<String>, appid: Option<String>, secret: Option<String>, force: bool },
    /// `GET /cgi-bin/gettoken` (WeCom)
    Wecom { corpid: Option<String>, secret: Option<String> },
    /// `GET /api/getToken` (QQ)
    Qq { grant_type: Option<String>, appid: Option<String>, secret: Option<String> },
    /// `POST /open-apis/auth/v3/tenant_access_token/internal` (Feishu)
    Feishu { app_id: Option<String>, secret: Option<String> },
    /// `POST /cgi-bin/component/api_component_token`
    Component { appid: Option<String>, secret: Option<String>, ticket: Option<String> },
    /// `POST /cgi-bin/component/api_authorizer_token`
    Authorizer { token: Option<String>, component: Option<String>, appid: Option<String>, refresh: Option<String> },
    /// `GET /cgi-bin/ticket/getticket`
    Ticket { token: Option<String>, kind: Option<String> },
    /// `GET /cgi-bin/get_jsapi_ticket` (WeCom, of the corp)
    CorpTicket { token: Option<String> },
    /// `GET /cgi-bin/ticket/get` (WeCom, of the app)
    AgentTicket { token: Option<String>, kind: Option<String> },
    /// `GET /cgi-bin/get_api_domain_ip`
    DomainIp { token: Option<String> },
    /// `GET /cgi-bin/menu/get`
    Menu { token: Option<String> },
    /// `POST /cgi-bin/clear_quota/v2`
    ClearQuota { appid: Option<String>, secret: Option<String> },
    /// A call refused for its form alone: wrong HTTP method, a body that is no JSON.
    Malformed { endpoint: Endpoint, refusal: Refusal },
}

/// The endpoints, as calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Classic token.
    Token,
    /// Stable token, normal mode.
    StableToken,
    /// Stable token with `force_refresh`.
    StableTokenForced,
    /// WeCom token.
    Gettoken,
    /// QQ token.
    QqToken,
    /// Feishu token.
    FeishuToken,
    /// Component token.
    ComponentToken,
    /// Authorizer token.
    AuthorizerToken,
    /// Tickets, of both APIs.
    Ticket,
    /// `get_api_domain_ip`
    GetApiDomainIp,
    /// `menu/get`
    MenuGet,
    /// `clear_quota/v2`
    ClearQuota,
}

/// What the API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAnswer {
    /// An access token; WeCom's and Feishu's carry a code of 0.
    Token {
        kind: SandboxPlatform,
        value: String,
        expires_in_s: u64,
    },
    /// A component token.
    Component {
        value: String,
        expires_in_s: u64,
    },
    /// An authorizer's token, and the refresh token for the next.
    Authorizer {
        value: String,
        expires_in_s: u64,
        refresh_token: String,
    },
    /// A ticket.
    Ticket {
        value: String,
        expires_in_s: u64,
    },
    /// The business calls' answers.
    DomainIps,
    Menu,
    /// `{"errcode":0,"errmsg":"ok"}`
    Done,
    /// Any errcode; Feishu has other names for its fields.
    Refused {
        kind: SandboxPlatform,
        errcode: i64,
        errmsg: String,
    },
}

/// A refusal before its random trace id (`rid`, or WeCom's `hint`) is put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) errcode: i64,
    pub(super) text: String,
}

/// What a business call thinks of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Works.
    Accepted,
    /// 40001: never issued, superseded, or killed early.
    NotLatest,
    /// 40014: not the shape of a token.
    Malformed,
    /// 42001: its time is over.
    Expired,
}

/// Token lines that never touch each other: classic and stable tokens are fully isolated (facts 1.2, vendor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Classic,
    Stable,
    Wecom,
    Qq,
    Feishu,
    Component,
    Authorizer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum TicketKind {
    Jsapi,
    WxCard,
    Sdk,
    CorpJsapi,
    AgentConfig,
}

#[derive(Clone, Debug)]
struct Token {
    value: String,
    line: Line,
    expires_ms: u64,
    /// When a newer token ends this one; set by the newer one's minting.
    superseded_ms: Option<u64>,
    killed: bool,
    /// The token endpoint no longer gives it out.
    withdrawn: bool,
}

#[derive(Clone, Debug)]
struct Ticket {
    value: String,
    rolled_ms: u64,
}

/// One account and all it has been given.
#[derive(Debug)]
struct App {
    kind: SandboxPlatform,
    secret: String,
    frozen: bool,
    allowlist: Option<Vec<IpAddr>>,
    /// Oldest first.
    tokens: VecDeque<Token>,
    tickets: BTreeMap<TicketKind, Ticket>,
    minted: u64,
    forced_ms: Option<u64>,
    meters: Meters,
    platform: component::Platform,
}

#[derive(Debug, Default)]
struct Meters {
    classic_day: Meter,
    stable_minute: Meter,
    stable_day: Meter,
    forced_day: Meter,
    ticket: Meter,
    clear_month: Meter,
}

#[derive(Clone, Debug)]
struct Settings {
    lifetime_ms: u64,
    overlap_ms: u64,
    stable_window_ms: u64,
    ticket_roll_ms: u64,
    quotas: Quotas,
    token_len: usize,
    rotate_refresh_tokens: bool,
}

impl Settings {
    fn new(options: &Options) -> Settings {
        let lifetime_ms = options.lifetime_s.saturating_mul(1000);
        // 300 s of 7200 s: "both usable for 5 minutes" and "the last 5 minutes" (facts 1.2).
        let share = lifetime_ms / 24;
        Settings {
            lifetime_ms,
            overlap_ms: options.overlap_ms.unwrap_or(share),
            stable_window_ms: options.stable_window_ms.unwrap_or(share),
            ticket_roll_ms: options.ticket_roll_s.map_or(lifetime_ms, |s| s.saturating_mul(1000)),
            quotas: options.quotas.clone(),
            token_len: options.token_len,
            rotate_refresh_tokens: options.rotate_refresh_tokens,
        }
    }
}

/// Everything the simulated API knows.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    apps: BTreeMap<String, App>,
    /// Which app a token belongs to; as long as the app remembers it.
    owners: HashMap<String, String>,
    rng: fastrand::Rng,
}

impl World {
    /// A world with the options' apps and no tokens. `seed` fixes every token and trace id.
    pub fn new(options: &Options, seed: u64) -> World {
        World {
            settings: Settings::new(options),
            apps: options.apps.iter().map(|app| (app.appid.clone(), App::new(app))).collect(),
            owners: HashMap::new(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// One API call. Never fails: a refusal is an answer.
    pub fn ask(&mut self, ask: &ApiRequest, peer: IpAddr, now: Now) -> ApiAnswer {
        let answer = match ask {
            ApiRequest::Classic { grant_type, appid, secret } => {
                self.classic(SandboxPlatform::Mp, Line::Classic, [grant_type, appid, secret], peer, now)
            }
            ApiRequest::Stable { grant_type, appid, secret, force } => {
                self.stable([grant_type, appid, secret], *force, peer, now)
            }
            ApiRequest::Wecom { corpid, secret } => self.wecom(corpid, secret, peer, now),
            ApiRequest::Qq { grant_type, appid, secret } => {
                self.classic(SandboxPlatform::Qq, Line::Qq, [grant_type, appid, secret], peer, now)
            }
            ApiRequest::Feishu { app_id, secret } => self.feishu(app_id, secret, peer, now),
            ApiRequest::Component { appid, secret, ticket } => self.component_token([appid, secret, ticket], peer, now),
            ApiRequest::Authorizer { token, component, appid, refresh } => {
                self.authorizer_token(token, [component, appid, refresh], now)
            }
            ApiRequest::Ticket { token, kind } => self.mp_ticket(token, kind.as_deref(), now),
            ApiRequest::CorpTicket { token } => self.wecom_ticket(token, TicketKind::CorpJsapi, now),
            ApiRequest::AgentTicket { token, kind } if kind.as_deref() == Some("agent_config") => {
                self.wecom_ticket(token, TicketKind::AgentConfig, now)
            }
            ApiRequest::AgentTicket { .. } => Err(Refusal::new(40097, "invalid args")),
            ApiRequest::DomainIp { token } => self.business(token, now).map(|_| ApiAnswer::DomainIps),
            ApiRequest::Menu { token } => self.business(token, now).map(|_| ApiAnswer::Menu),
            ApiRequest::ClearQuota { appid, secret } => self.clear_quota(appid, secret, now),
            ApiRequest::Malformed { refusal, .. } => Err(refusal.clone()),
        };
        answer.unwrap_or_else(|refusal| self.refused(refusal, self.kind_of(ask), peer))
    }

    /// The app a call is about, if it names one that exists.
    pub fn app_of(&self, ask: &ApiRequest) -> Option<String> {
        match ask {
            ApiRequest::Classic { appid, .. }
            | ApiRequest::Stable { appid, .. }
            | ApiRequest::Qq { appid, .. }
            | ApiRequest::Feishu { app_id: appid, .. }
            | ApiRequest::Component { appid, .. }
            | ApiRequest::Authorizer { appid, .. }
            | ApiRequest::ClearQuota { appid, .. } => appid.as_ref().filter(|id| self.apps.contains_key(*id)).cloned(),
            ApiRequest::Wecom { corpid, secret } => self.wecom_app(corpid.as_deref()?, secret.as_deref()),
            ApiRequest::Ticket { token, .. }
            | ApiRequest::CorpTicket { token }
            | ApiRequest::AgentTicket { token, .. } => self.owners.get(token.as_ref()?).cloned(),
            ApiRequest::DomainIp { token } | ApiRequest::Menu { token } => self.owners.get(token.as_ref()?).cloned(),
            ApiRequest::Malformed { .. } => None,
        }
    }

    /// What a business call would make of this token (facts 1.5; 40001 also for what was never issued).
    pub fn judge(&self, token: &str, now: Now) -> Verdict {
        if !has_token_shape(token) {
            return Verdict::Malformed;
        }
        let app = self.owners.get(token).and_then(|owner| self.apps.get(owner));
        let token = app.and_then(|app| app.tokens.iter().find(|known| known.value == token));
        token.map_or(Verdict::NotLatest, |known| known.verdict(now.boot_ms))
    }

    /// Early death: no token of the app is accepted any more, and the next ask mints a new one. True if the app exists.
    pub fn kill_tokens(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.tokens.iter_mut().for_each(|token| (token.killed, token.withdrawn) = (true, true)))
    }

    /// Early death that the token endpoint has not noticed: stable and WeCom asks keep giving the dead token out until
    /// it is due, or forced. True if the app exists.
    pub fn kill_tokens_unnoticed(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.tokens.iter_mut().for_each(|token| token.killed = true))
    }

    /// The vendor rolls the app's tickets now. True if the app exists.
    pub fn roll_tickets(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.tickets.clear())
    }

    /// Replaces the allowlist; acts at once, while WeChat takes 5 to 10 minutes. True if the app exists.
    pub fn set_allowlist(&mut self, appid: &str, allowlist: Option<Vec<IpAddr>>) -> bool {
        self.change(appid, |app| app.allowlist = allowlist)
    }

    /// Freezes or unfreezes the secret; acts at once, while WeChat takes about 10 minutes. True if the app exists.
    pub fn freeze_secret(&mut self, appid: &str, frozen: bool) -> bool {
        self.change(appid, |app| app.frozen = frozen)
    }

    /// Resets the secret. Live tokens live on (assumption: whether a reset kills them is not published).
    pub fn set_secret(&mut self, appid: &str, secret: &str) -> bool {
        self.change(appid, |app| secret.clone_into(&mut app.secret))
    }

    /// Every app as a developer wants to see it, its live tokens included: this is a sandbox.
    pub fn describe(&self, now: Now) -> Vec<AppView> {
        self.apps.iter().map(|(appid, app)| app.describe(appid, now)).collect()
    }

    /// How many tokens the app has been given.
    pub fn minted(&self, appid: &str) -> u64 {
        self.apps.get(appid).map_or(0, |app| app.minted)
    }

    /// The names of all apps.
    pub fn appids(&self) -> impl Iterator<Item = &str> {
        self.apps.keys().map(String::as_str)
    }

    /// True if the app exists.
    pub fn knows(&self, appid: &str) -> bool {
        self.apps.contains_key(appid)
    }

    #[cfg(test)]
    pub fn remembered_tokens(&self) -> usize {
        self.owners.len()
    }

    /// The answer a call would have if it succeeded, with a token or ticket that was never issued.
    pub fn decoy_answer(&mut self, ask: &ApiRequest) -> ApiAnswer {
        let value = random_token(&mut self.rng, self.settings.token_len);
        let token =
            |kind| ApiAnswer::Token { kind, value: value.clone(), expires_in_s: self.settings.lifetime_ms / 1000 };
        match ask.endpoint() {
            Endpoint::Token | Endpoint::StableToken | Endpoint::StableTokenForced => token(SandboxPlatform::Mp),
            Endpoint::Gettoken => token(SandboxPlatform::Wecom),
            Endpoint::QqToken => token(SandboxPlatform::Qq),
            Endpoint::FeishuToken => token(SandboxPlatform::Feishu),
            Endpoint::ComponentToken => ApiAnswer::Component { value, expires_in_s: self.settings.lifetime_ms / 1000 },
            Endpoint::AuthorizerToken => ApiAnswer::Authorizer {
                value,
                expires_in_s: self.settings.lifetime_ms / 1000,
                refresh_token: "refreshtoken@@@never-issued".to_owned(),
            },
            Endpoint::Ticket => ApiAnswer::Ticket { value, expires_in_s: TICKET_EXPIRES_IN_S },
            Endpoint::GetApiDomainIp => ApiAnswer::DomainIps,
            Endpoint::MenuGet => ApiAnswer::Menu,
            Endpoint::ClearQuota => ApiAnswer::Done,
        }
    }

    fn refused(&mut self, refusal: Refusal, kind: SandboxPlatform, peer: IpAddr) -> ApiAnswer {
        let errcode = refusal.errcode;
        let errmsg = match kind {
            SandboxPlatform::Mp | SandboxPlatform::Component | SandboxPlatform::Qq => refusal.mp_message(&mut self.rng),
            SandboxPlatform::Feishu => refusal.text,
            SandboxPlatform::Wecom => refusal.wecom_message(&mut self.rng, peer),
        };
        ApiAnswer::Refused { kind, errcode, errmsg }
    }

    fn kind_of(&self, ask: &ApiRequest) -> SandboxPlatform {
        match ask {
            ApiRequest::Wecom { .. } | ApiRequest::CorpTicket { .. } | ApiRequest::AgentTicket { .. } => {
                SandboxPlatform::Wecom
            }
            ApiRequest::Feishu { .. } | ApiRequest::Malformed { endpoint: Endpoint::FeishuToken, .. } => {
                SandboxPlatform::Feishu
            }
            _ => self.app_of(ask).and_then(|id| self.apps.get(&id)).map_or(SandboxPlatform::Mp, |app| app.kind),
        }
    }

    fn change(&mut self, appid: &str, change: impl FnOnce(&mut App)) -> bool {
        self.apps.get_mut(appid).map(change).is_some()
    }
}

/// The token endpoints.
impl World {
    /// Classic: every call mints (facts 1.2 row 1); 2000 calls a day (facts 1.3). QQ has the contract and the errors of
    /// that call (assumption: its quota too, QQ publishes none).
    fn classic(
        &mut self,
        kind: SandboxPlatform,
        line: Line,
        given: [&Option<String>; 3],
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, Refusal> {
        let appid = self.mp_credentials(kind, given)?;
        self.admit(&appid, peer)?;
        let limit = self.settings.quotas.classic_per_day;
        if !self.meters(&appid)?.classic_day.take(Period::Day, limit, now.unix_ms) {
            return Err(Refusal::daily_quota());
        }
        self.mint(&appid, line, now)
    }

    /// Stable: the same token until its last 5 minutes, then a new one; forced: a new one, 20 a day, 30 s apart
    /// (facts 1.2 rows 2 and 3). Forced calls also count as calls (assumption).
    fn stable(
        &mut self,
        given: [&Option<String>; 3],
        force: bool,
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, Refusal> {
        let appid = self.mp_credentials(SandboxPlatform::Mp, given)?;
        self.admit(&appid, peer)?;
        let quotas = self.settings.quotas.clone();
        let meters = self.meters(&appid)?;
        if !meters.stable_day.take(Period::Day, quotas.stable_per_day, now.unix_ms) {
            return Err(Refusal::daily_quota());
        }
        if !meters.stable_minute.take(Period::Minute, quotas.stable_per_minute, now.unix_ms) {
            return Err(Refusal::new(45011, "api minute-quota reach limit  mustslower  retry next minute"));
        }
        if force && self.force_is_due(&appid, now)? {
            return self.mint(&appid, Line::Stable, now);
        }
        let window_ms = self.settings.stable_window_ms;
        self.same_or_new(&appid, Line::Stable, window_ms, now)
    }

    /// False when the last forced refresh is too near: nothing is refreshed then, and nothing is counted (assumption).
    fn force_is_due(&mut self, appid: &str, now: Now) -> Result<bool, Refusal> {
        let quotas = self.settings.quotas.clone();
        let app = self.app(appid)?;
        if app.forced_ms.is_some_and(|last| now.boot_ms.saturating_sub(last) < quotas.forced_spacing_ms) {
            return Ok(false);
        }
        if !app.meters.forced_day.take(Period::Day, quotas.forced_per_day, now.unix_ms) {
            return Err(Refusal::daily_quota());
        }
        app.forced_ms = Some(now.boot_ms);
        Ok(true)
    }

    /// WeCom: the same token within its life, a new one only after its end (facts 1.2 row 5).
    fn wecom(
        &mut self,
        corpid: &Option<String>,
        secret: &Option<String>,
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, Refusal> {
        let corpid = corpid.as_deref().ok_or_else(|| Refusal::new(41002, "corpid missing"))?;
        let secret = secret.as_deref().ok_or_else(|| Refusal::new(41004, "corpsecret missing"))?;
        let appid = self.wecom_app(corpid, Some(secret)).ok_or_else(|| Refusal::new(40013, "invalid corpid"))?;
        let app = self.app(&appid)?;
        if app.secret != secret {
            return Err(Refusal::new(40001, "invalid credential"));
        }
        if app.frozen {
            return Err(Refusal::new(40091, "secret is invalid"));
        }
        if app.bars(peer) {
            return Err(Refusal::new(60020, "not allow to access from your ip"));
        }
        self.same_or_new(&appid, Line::Wecom, 1, now)
    }

    /// Feishu: the same token with half an hour of two or more left, then a new one, and both live to their end. No
    /// quota is published. Codes: facts "Feishu"; which of them an unknown app_id has is an assumption.
    fn feishu(
        &mut self,
        app_id: &Option<String>,
        secret: &Option<String>,
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, Refusal> {
        let known =
            app_id.as_deref().filter(|id| self.apps.get(*id).is_some_and(|app| app.kind == SandboxPlatform::Feishu));
        let appid = known.ok_or_else(|| Refusal::new(10003, "invalid param"))?.to_owned();
        let app = self.app(&appid)?;
        if app.frozen || Some(&app.secret) != secret.as_ref() {
            return Err(Refusal::new(10014, "app secret invalid"));
        }
        if app.bars(peer) {
            return Err(Refusal::new(99_991_401, "ip not allowed"));
        }
        let window_ms = self.settings.lifetime_ms / 4;
        self.same_or_new(&appid, Line::Feishu, window_ms, now)
    }

    /// Order of the checks: form, appid, secret (codes of facts 1.5; their order is an assumption).
    fn mp_credentials(&mut self, kind: SandboxPlatform, given: [&Option<String>; 3]) -> Result<String, Refusal> {
        let [grant_type, appid, secret] = given;
        if grant_type.as_deref() != Some("client_credential") {
            return Err(Refusal::new(40002, "invalid grant_type"));
        }
        self.mp_secret(kind, appid, secret)
    }

    fn mp_secret(
        &mut self,
        kind: SandboxPlatform,
        appid: &Option<String>,
        secret: &Option<String>,
    ) -> Result<String, Refusal> {
        let appid = appid.as_deref().ok_or_else(|| Refusal::new(41002, "appid missing"))?;
        let secret = secret.as_deref().ok_or_else(|| Refusal::new(41004, "appsecret missing"))?;
        if self.apps.get(appid).is_some_and(|app| app.kind == SandboxPlatform::Component) {
            return Err(Refusal::new(61024, "component account must use api_component_token"));
        }
        let app = self.apps.get(appid).filter(|app| app.kind == kind);
        let app = app.ok_or_else(|| Refusal::new(40013, "invalid appid"))?;
        if app.secret != secret {
            return Err(Refusal::new(40125, "invalid appsecret,"));
        }
        if app.frozen {
            return Err(Refusal::new(40243, "AppSecret has been frozen, unfreeze it and call again"));
        }
        Ok(appid.to_owned())
    }

    /// The allowlist (facts 1.4); the shape of the message is facts 1.5's.
    fn admit(&mut self, appid: &str, peer: IpAddr) -> Result<(), Refusal> {
        if !self.app(appid)?.bars(peer) {
            return Ok(());
        }
        let v6 = match peer {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Err(Refusal::new(40164, &format!("invalid ip {peer} ipv6 {v6}, not in whitelist")))
    }

    /// The current token while at least `window_ms` of its life is left, else a new one.
    fn same_or_new(&mut self, appid: &str, line: Line, window_ms: u64, now: Now) -> Result<ApiAnswer, Refusal> {
        let app = self.app(appid)?;
        let current = app.tokens.iter().rfind(|token| token.line == line && !token.withdrawn);
        match current {
            Some(token) if token.left_ms(now.boot_ms) >= window_ms.max(1) => Ok(token.granted(app.kind, now.boot_ms)),
            _ => self.mint(appid, line, now),
        }
    }

    /// A new token. The one before it lives for the overlap; whatever came earlier dies at once, which is how two
    /// forced calls kill a leaked token (facts 1.2).
    fn mint(&mut self, appid: &str, line: Line, now: Now) -> Result<ApiAnswer, Refusal> {
        let value = random_token(&mut self.rng, self.settings.token_len);
        let (lifetime_ms, overlap_ms) = (self.settings.lifetime_ms, self.settings.overlap_ms);
        let app = self.app(appid)?;
        if line != Line::Feishu {
            app.supersede(line, now.boot_ms, overlap_ms);
        }
        let token = Token::new(value.clone(), line, now.boot_ms.saturating_add(lifetime_ms));
        let answer = token.granted(app.kind, now.boot_ms);
        app.tokens.push_back(token);
        app.minted += 1;
        if let Some(forgotten) = app.forget_one(now.boot_ms) {
            self.owners.remove(&forgotten.value);
        }
        self.owners.insert(value, appid.to_owned());
        Ok(answer)
    }

    /// The corp's app with this secret, else any app of the corp, so that a wrong secret is told from a wrong corpid.
    fn wecom_app(&self, corpid: &str, secret: Option<&str>) -> Option<String> {
        let mut corp = self.apps.range(corpid.to_owned()..).take_while(|(name, _)| name.starts_with(corpid)).filter(
            |(name, app)| {
                app.kind == SandboxPlatform::Wecom && matches!(name.as_bytes().get(corpid.len()), None | Some(b'/'))
            },
        );
        let first = corp.next()?;
        let by_secret = std::iter::once(first).chain(corp).find(|(_, app)| Some(app.secret.as_str()) == secret);
        Some(by_secret.unwrap_or(first).0.clone())
    }

    /// `Err` only if the app vanished between two lookups, which nothing does.
    fn app(&mut self, appid: &str) -> Result<&mut App, Refusal> {
        self.apps.get_mut(appid).ok_or_else(|| Refusal::new(40013, "invalid appid"))
    }

    fn meters(&mut self, appid: &str) -> Result<&mut Meters, Refusal> {
        Ok(&mut self.app(appid)?.meters)
    }
}

/// The calls that need a token.
impl World {
    /// Tickets: the same one, and always 7200, until the vendor rolls it (facts 1.2 row 4).
    fn mp_ticket(&mut self, token: &Option<String>, kind: Option<&str>, now: Now) -> Result<ApiAnswer, Refusal> {
        let appid = self.business(token, now)?;
        if self.app(&appid)?.kind != SandboxPlatform::Mp {
            return Err(Refusal::new(48001, "api unauthorized")); // facts 1.4: account kinds do not mix
        }
        let kind = match kind {
            Some("jsapi") => TicketKind::Jsapi,
            Some("wx_card") => TicketKind::WxCard,
            Some("2") => TicketKind::Sdk,
            _ => return Err(Refusal::new(40097, "invalid args")),
        };
        let limit = self.settings.quotas.ticket_per_day;
        if !self.meters(&appid)?.ticket.take(Period::Day, limit, now.unix_ms) {
            return Err(Refusal::daily_quota());
        }
        self.ticket(&appid, kind, now)
    }

    /// WeCom tickets: 100 calls an hour per app (facts 1.3). The corp's ticket is kept per app here, a simplification.
    fn wecom_ticket(&mut self, token: &Option<String>, kind: TicketKind, now: Now) -> Result<ApiAnswer, Refusal> {
        let appid = self.business(token, now)?;
        if self.app(&appid)?.kind != SandboxPlatform::Wecom {
            return Err(Refusal::new(40014, "invalid access_token"));
        }
        let limit = self.settings.quotas.wecom_ticket_per_hour;
        if !self.meters(&appid)?.ticket.take(Period::Hour, limit, now.unix_ms) {
            return Err(Refusal::new(45009, "api freq out of limit"));
        }
        self.ticket(&appid, kind, now)
    }

    fn ticket(&mut self, appid: &str, kind: TicketKind, now: Now) -> Result<ApiAnswer, Refusal> {
        let fresh = random_token(&mut self.rng, 86);
        let roll_ms = self.settings.ticket_roll_ms;
        let ticket = self
            .app(appid)?
            .tickets
            .entry(kind)
            .and_modify(|old| old.roll_if_due(&fresh, roll_ms, now.boot_ms))
            .or_insert_with(|| Ticket { value: fresh.clone(), rolled_ms: now.boot_ms });
        Ok(ApiAnswer::Ticket { value: ticket.value.clone(), expires_in_s: TICKET_EXPIRES_IN_S })
    }

    /// The app of a token that works, else the refusal a business call gives (facts 1.5).
    fn business(&self, token: &Option<String>, now: Now) -> Result<String, Refusal> {
        let token = token.as_deref().ok_or_else(|| Refusal::new(41001, "access_token missing"))?;
        let owner = self.owners.get(token);
        let wecom = owner.and_then(|id| self.apps.get(id)).is_some_and(|app| app.kind == SandboxPlatform::Wecom);
        match (self.judge(token, now), owner) {
            (Verdict::Accepted, Some(appid)) => Ok(appid.clone()),
            (Verdict::Expired, _) => Err(Refusal::new(42001, "access_token expired")),
            (Verdict::Malformed, _) => Err(Refusal::new(40014, "invalid access_token")),
            (Verdict::NotLatest, Some(_)) if wecom => Err(Refusal::new(40014, "invalid access_token")),
            _ => Err(Refusal::not_latest()),
        }
    }

    /// Clears the daily and minute counters, 10 times a month, then 48006 (facts 1.3). The forced refreshes' own 20 a
    /// day stay used (assumption).
    fn clear_quota(&mut self, appid: &Option<String>, secret: &Option<String>, now: Now) -> Result<ApiAnswer, Refusal> {
        let appid = self.mp_secret(SandboxPlatform::Mp, appid, secret)?;
        let limit = self.settings.quotas.clear_per_month;
        let meters = self.meters(&appid)?;
        if !meters.clear_month.take(Period::Month, limit, now.unix_ms) {
            return Err(Refusal::new(48006, "forbid to clear quota because of reaching the limit"));
        }
        meters.classic_day = Meter::default();
        meters.stable_minute = Meter::default();
        meters.stable_day = Meter::default();
        meters.ticket = Meter::default();
        Ok(ApiAnswer::Done)
    }
}

impl ApiRequest {
    /// How the call is counted.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            ApiRequest::Classic { .. } => Endpoint::Token,
            ApiRequest::Stable { force: false, .. } => Endpoint::StableToken,
            ApiRequest::Stable { force: true, .. } => Endpoint::StableTokenForced,
            ApiRequest::Wecom { .. } => Endpoint::Gettoken,
            ApiRequest::Qq { .. } => Endpoint::QqToken,
            ApiRequest::Feishu { .. } => Endpoint::FeishuToken,
            ApiRequest::Component { .. } => Endpoint::ComponentToken,
            ApiRequest::Authorizer { .. } => Endpoint::AuthorizerToken,
            ApiRequest::Ticket { .. } | ApiRequest::CorpTicket { .. } | ApiRequest::AgentTicket { .. } => {
                Endpoint::Ticket
            }
            ApiRequest::DomainIp { .. } => Endpoint::GetApiDomainIp,
            ApiRequest::Menu { .. } => Endpoint::MenuGet,
            ApiRequest::ClearQuota { .. } => Endpoint::ClearQuota,
            ApiRequest::Malformed { endpoint, .. } => *endpoint,
        }
    }
}

impl App {
    fn new(options: &AppOptions) -> App {
        App {
            kind: options.platform,
            secret: options.secret.clone(),
            frozen: false,
            allowlist: options.ip_allowlist.clone(),
            tokens: VecDeque::new(),
            tickets: BTreeMap::new(),
            minted: 0,
            forced_ms: None,
            meters: Meters::default(),
            platform: component::Platform::new(options),
        }
    }

    fn bars(&self, peer: IpAddr) -> bool {
        self.allowlist.as_ref().is_some_and(|allowed| !allowed.contains(&peer))
    }

    /// Makes room for a new token of the line at `now_ms`.
    fn supersede(&mut self, line: Line, now_ms: u64, overlap_ms: u64) {
        let mut newest_first = self.tokens.iter_mut().rev().filter(|token| token.line == line);
        if let Some(previous) = newest_first.next() {
            previous.superseded_ms = Some(now_ms.saturating_add(overlap_ms));
        }
        for older in newest_first {
            older.superseded_ms = older.superseded_ms.map(|end| end.min(now_ms));
        }
    }

    /// The oldest dead token, when there are too many. Live ones stay: many classic calls must not cost the stable line
    /// its token.
    fn forget_one(&mut self, now_ms: u64) -> Option<Token> {
        if self.tokens.len() <= REMEMBERED_TOKENS_MAX {
            return None;
        }
        let dead = self.tokens.iter().position(|token| token.verdict(now_ms) != Verdict::Accepted);
        self.tokens.remove(dead.unwrap_or(0))
    }

    fn describe(&self, appid: &str, now: Now) -> AppView {
        let live = self.tokens.iter().filter(|token| token.verdict(now.boot_ms) == Verdict::Accepted);
        AppView {
            appid: appid.to_owned(),
            kind: self.kind,
            secret_frozen: self.frozen,
            ip_allowlist: self.allowlist.clone(),
            minted: self.minted,
            live_tokens: live.map(|token| token.value.clone()).collect(),
            tickets: self.tickets.values().map(|ticket| ticket.value.clone()).collect(),
        }
    }
}

/// An app as the control endpoint shows it.
#[derive(Clone, Debug, Serialize)]
pub struct AppView {
    appid: String,
    kind: SandboxPlatform,
    secret_frozen: bool,
    ip_allowlist: Option<Vec<IpAddr>>,
    minted: u64,
    live_tokens: Vec<String>,
    tickets: Vec<String>,
}

impl Token {
    fn new(value: String, line: Line, expires_ms: u64) -> Token {
        Token { value, line, expires_ms, superseded_ms: None, killed: false, withdrawn: false }
    }

    fn left_ms(&self, now_ms: u64) -> u64 {
        self.expires_ms.saturating_sub(now_ms)
    }

    fn granted(&self, kind: SandboxPlatform, now_ms: u64) -> ApiAnswer {
        ApiAnswer::Token { kind, value: self.value.clone(), expires_in_s: self.left_ms(now_ms) / 1000 }
    }

    /// Whichever end came first gives the reason.
    fn verdict(&self, now_ms: u64) -> Verdict {
        let superseded = self.superseded_ms.is_some_and(|end| end <= now_ms && end < self.expires_ms);
        if self.killed || superseded {
            Verdict::NotLatest
        } else if now_ms >= self.expires_ms {
            Verdict::Expired
        } else {
            Verdict::Accepted
        }
    }
}

impl Ticket {
    fn roll_if_due(&mut self, fresh: &str, roll_ms: u64, now_ms: u64) {
        if now_ms.saturating_sub(self.rolled_ms) >= roll_ms {
            *self = Ticket { value: fresh.to_owned(), rolled_ms: now_ms };
        }
    }
}

impl Refusal {
    pub(super) fn new(errcode: i64, text: &str) -> Refusal {
        Refusal { errcode, text: text.to_owned() }
    }

    fn daily_quota() -> Refusal {
        Refusal::new(45009, "reach max api daily quota limit")
    }

    fn not_latest() -> Refusal {
        Refusal::new(
            40001,
            "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, \
             more details at https://mmbizurl.cn/s/JtxxFh33r,",
        )
    }

    /// `… rid: xxxxxxxx-xxxxxxxx-xxxxxxxx` (facts 1.5 "Shapes").
    fn mp_message(&self, rng: &mut fastrand::Rng) -> String {
        format!("{} rid: {:08x}-{:08x}-{:08x}", self.text, rng.u32(..), rng.u32(..), rng.u32(..))
    }

    /// `…, hint: […], from ip: …, more info at …?e=N` (facts 1.1 "WeCom app token", LangBot#1599).
    fn wecom_message(&self, rng: &mut fastrand::Rng, peer: IpAddr) -> String {
        let (text, hint, code) = (&self.text, rng.u64(10u64.pow(18)..10u64.pow(19)), self.errcode);
        format!(
            "{text}, hint: [{hint}], from ip: {peer}, more info at https://open.work.weixin.qq.com/devtool/query?e={code}"
        )
    }
}

/// Long enough and of the right characters. Shorter tokens than WeChat's own are let through for small test values.
fn has_token_shape(token: &str) -> bool {
    token.len() >= 16 && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// `[A-Za-z0-9_-]`, at least 16 characters, starting with a generation number as WeChat's do.
fn random_token(rng: &mut fastrand::Rng, len: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    let mut token = format!("{}_", rng.u32(10..100));
    while token.len() < len.max(16) {
        token.push(char::from(ALPHABET[rng.usize(..ALPHABET.len())]));
    }
    token
}
