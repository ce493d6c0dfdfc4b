//! The platforms' rules as a pure state machine: accounts, tokens, tickets, lifetimes, quotas.
//!
//! [`World::ask`] is one API call; `answer.rs` turns its answer into the platform's JSON. Never does I/O and never reads a
//! clock: the time is passed in. Where a platform's behaviour is not published, the choice made here is marked
//! "assumption".

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use serde::Serialize;

mod component;

use super::options::{AppOptions, Options, Quotas, SandboxPlatform};
use super::quota::{Period, QuotaMeter};
use crate::clock::Now;

/// Tokens kept for each app, dead ones included, so that an old one is answered as "expired" and not as "never issued".
const REMEMBERED_TOKENS_MAX: usize = 64;
/// Answers with a ticket say this, however old the ticket is (community reports; easywechat#1580, WxJava#3147).
const TICKET_EXPIRES_IN_S: u64 = 7200;

/// One API call, parsed. A missing parameter and an empty one are the same to WeChat: `None`.
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
    Ticket { token: Option<String>, ticket_type: Option<String> },
    /// `GET /cgi-bin/get_jsapi_ticket` (WeCom, of the corp)
    CorpTicket { token: Option<String> },
    /// `GET /cgi-bin/ticket/get` (WeCom, of the app)
    AgentTicket { token: Option<String>, ticket_type: Option<String> },
    /// `GET /cgi-bin/get_api_domain_ip`
    DomainIp { token: Option<String> },
    /// `GET /cgi-bin/menu/get`
    Menu { token: Option<String> },
    /// `POST /cgi-bin/clear_quota/v2`
    ClearQuota { appid: Option<String>, secret: Option<String> },
    /// A call that is refused for its form: a wrong HTTP method, a body that is not JSON.
    Malformed { endpoint: Endpoint, refusal: SandboxRefusal },
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

/// An answer of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAnswer {
    /// An access token; WeCom's and Feishu's carry a code of 0.
    Token {
        platform: SandboxPlatform,
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
    /// The answers of the calls that need a token.
    DomainIps,
    Menu,
    /// `{"errcode":0,"errmsg":"ok"}`
    Done,
    /// A refusal with an errcode; Feishu has other names for its fields.
    Refused {
        platform: SandboxPlatform,
        errcode: i64,
        errmsg: String,
    },
}

/// A refusal without its random request id (`rid`, or WeCom's `hint`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxRefusal {
    pub(super) errcode: i64,
    pub(super) text: String,
}

/// How a call that needs a token would answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Accepted,
    /// 40001: never issued, replaced, or ended early.
    NotLatest,
    /// 40014: it does not look like a token.
    Malformed,
    /// 42001: expired.
    Expired,
}

/// A token of one series never ends one of another: classic and stable tokens are independent (facts 1.2, vendor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenSeries {
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
enum TicketType {
    Jsapi,
    WxCard,
    Sdk,
    CorpJsapi,
    AgentConfig,
}

#[derive(Clone, Debug)]
struct SandboxToken {
    value: String,
    series: TokenSeries,
    expires_ms: u64,
    /// When a newer token ends this one.
    superseded_ms: Option<u64>,
    /// It is refused although its time is not over.
    killed: bool,
    /// The token endpoint no longer gives it.
    withdrawn: bool,
}

#[derive(Clone, Debug)]
struct SandboxTicket {
    value: String,
    rolled_ms: u64,
}

/// One account, with the tokens and tickets made for it.
#[derive(Debug)]
struct SandboxApp {
    platform: SandboxPlatform,
    secret: String,
    frozen: bool,
    allowlist: Option<Vec<IpAddr>>,
    /// Oldest first.
    tokens: VecDeque<SandboxToken>,
    tickets: BTreeMap<TicketType, SandboxTicket>,
    minted: u64,
    forced_ms: Option<u64>,
    meters: Meters,
    open_platform: component::OpenPlatformState,
}

#[derive(Debug, Default)]
struct Meters {
    classic_day: QuotaMeter,
    stable_minute: QuotaMeter,
    stable_day: QuotaMeter,
    forced_day: QuotaMeter,
    ticket: QuotaMeter,
    clear_month: QuotaMeter,
}

#[derive(Clone, Debug)]
struct SandboxSettings {
    lifetime_ms: u64,
    overlap_ms: u64,
    stable_window_ms: u64,
    ticket_roll_ms: u64,
    quotas: Quotas,
    token_len: usize,
    rotate_refresh_tokens: bool,
}

impl SandboxSettings {
    fn new(options: &Options) -> SandboxSettings {
        let lifetime_ms = options.lifetime_s.saturating_mul(1000);
        // 300 s of 7200 s: "both usable for 5 minutes" and "the last 5 minutes" (facts 1.2).
        let share = lifetime_ms / 24;
        SandboxSettings {
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

/// The simulated platforms: all accounts, and what has been made for them.
#[derive(Debug)]
pub struct World {
    settings: SandboxSettings,
    apps: BTreeMap<String, SandboxApp>,
    /// The app of each token that is kept.
    owners: HashMap<String, String>,
    rng: fastrand::Rng,
}

impl World {
    /// The options' apps, without tokens. The same `seed` gives the same tokens and request ids.
    pub fn new(options: &Options, seed: u64) -> World {
        World {
            settings: SandboxSettings::new(options),
            apps: options.apps.iter().map(|app| (app.appid.clone(), SandboxApp::new(app))).collect(),
            owners: HashMap::new(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// One API call. Never fails: a refusal is an answer.
    pub fn ask(&mut self, ask: &ApiRequest, peer: IpAddr, now: Now) -> ApiAnswer {
        let answer = match ask {
            ApiRequest::Classic { grant_type, appid, secret } => {
                self.classic(SandboxPlatform::Mp, TokenSeries::Classic, [grant_type, appid, secret], peer, now)
            }
            ApiRequest::Stable { grant_type, appid, secret, force } => {
                self.stable([grant_type, appid, secret], *force, peer, now)
            }
            ApiRequest::Wecom { corpid, secret } => self.wecom(corpid, secret, peer, now),
            ApiRequest::Qq { grant_type, appid, secret } => {
                self.classic(SandboxPlatform::Qq, TokenSeries::Qq, [grant_type, appid, secret], peer, now)
            }
            ApiRequest::Feishu { app_id, secret } => self.feishu(app_id, secret, peer, now),
            ApiRequest::Component { appid, secret, ticket } => self.component_token([appid, secret, ticket], peer, now),
            ApiRequest::Authorizer { token, component, appid, refresh } => {
                self.authorizer_token(token, [component, appid, refresh], now)
            }
            ApiRequest::Ticket { token, ticket_type } => self.mp_ticket(token, ticket_type.as_deref(), now),
            ApiRequest::CorpTicket { token } => self.wecom_ticket(token, TicketType::CorpJsapi, now),
            ApiRequest::AgentTicket { token, ticket_type } if ticket_type.as_deref() == Some("agent_config") => {
                self.wecom_ticket(token, TicketType::AgentConfig, now)
            }
            ApiRequest::AgentTicket { .. } => Err(SandboxRefusal::new(40097, "invalid args")),
            ApiRequest::DomainIp { token } => self.app_of_token(token, now).map(|_| ApiAnswer::DomainIps),
            ApiRequest::Menu { token } => self.app_of_token(token, now).map(|_| ApiAnswer::Menu),
            ApiRequest::ClearQuota { appid, secret } => self.clear_quota(appid, secret, now),
            ApiRequest::Malformed { refusal, .. } => Err(refusal.clone()),
        };
        answer.unwrap_or_else(|refusal| self.refused(refusal, self.platform_of(ask), peer))
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

    /// How a call with this token would be answered (facts 1.5; 40001 also for a token that was never issued).
    pub fn judge(&self, token: &str, now: Now) -> Verdict {
        if !has_token_shape(token) {
            return Verdict::Malformed;
        }
        let app = self.owners.get(token).and_then(|owner| self.apps.get(owner));
        let token = app.and_then(|app| app.tokens.iter().find(|known| known.value == token));
        token.map_or(Verdict::NotLatest, |known| known.verdict(now.boot_ms))
    }

    /// Ends all tokens of the app early: none is accepted any more, and the next call makes a new one. True if the app
    /// exists.
    pub fn kill_tokens(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.tokens.iter_mut().for_each(|token| (token.killed, token.withdrawn) = (true, true)))
    }

    /// The same, and the token endpoint does not notice: stable_token and WeCom go on giving the dead token until its end,
    /// or until a forced call. True if the app exists.
    pub fn kill_tokens_unnoticed(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.tokens.iter_mut().for_each(|token| token.killed = true))
    }

    /// The platform changes the app's tickets now. True if the app exists.
    pub fn roll_tickets(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.tickets.clear())
    }

    /// Replaces the allow-list. Takes effect at once; at WeChat it takes 5 to 10 minutes. True if the app exists.
    pub fn set_allowlist(&mut self, appid: &str, allowlist: Option<Vec<IpAddr>>) -> bool {
        self.change(appid, |app| app.allowlist = allowlist)
    }

    /// Freezes or unfreezes the secret. Takes effect at once; at WeChat it takes about 10 minutes. True if the app exists.
    pub fn freeze_secret(&mut self, appid: &str, frozen: bool) -> bool {
        self.change(appid, |app| app.frozen = frozen)
    }

    /// Resets the secret. Live tokens live on (assumption: whether a reset ends them is not published).
    pub fn set_secret(&mut self, appid: &str, secret: &str) -> bool {
        self.change(appid, |app| secret.clone_into(&mut app.secret))
    }

    /// Every app with its live tokens, for developers.
    pub fn describe(&self, now: Now) -> Vec<AppView> {
        self.apps.iter().map(|(appid, app)| app.describe(appid, now)).collect()
    }

    /// How many tokens have been made for the app.
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

    /// The answer that the call would have if it succeeded, with a token or ticket that was never issued.
    pub fn answer_without_effect(&mut self, ask: &ApiRequest) -> ApiAnswer {
        let value = random_token(&mut self.rng, self.settings.token_len);
        let token = |platform| ApiAnswer::Token {
            platform,
            value: value.clone(),
            expires_in_s: self.settings.lifetime_ms / 1000,
        };
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

    fn refused(&mut self, refusal: SandboxRefusal, platform: SandboxPlatform, peer: IpAddr) -> ApiAnswer {
        let errcode = refusal.errcode;
        let errmsg = match platform {
            SandboxPlatform::Mp | SandboxPlatform::Component | SandboxPlatform::Qq => refusal.mp_message(&mut self.rng),
            SandboxPlatform::Feishu => refusal.text,
            SandboxPlatform::Wecom => refusal.wecom_message(&mut self.rng, peer),
        };
        ApiAnswer::Refused { platform, errcode, errmsg }
    }

    fn platform_of(&self, ask: &ApiRequest) -> SandboxPlatform {
        match ask {
            ApiRequest::Wecom { .. } | ApiRequest::CorpTicket { .. } | ApiRequest::AgentTicket { .. } => {
                SandboxPlatform::Wecom
            }
            ApiRequest::Feishu { .. } | ApiRequest::Malformed { endpoint: Endpoint::FeishuToken, .. } => {
                SandboxPlatform::Feishu
            }
            _ => self.app_of(ask).and_then(|id| self.apps.get(&id)).map_or(SandboxPlatform::Mp, |app| app.platform),
        }
    }

    fn change(&mut self, appid: &str, change: impl FnOnce(&mut SandboxApp)) -> bool {
        self.apps.get_mut(appid).map(change).is_some()
    }
}

/// The token endpoints.
impl World {
    /// Classic: each call makes a new token (facts 1.2 row 1); 2000 calls a day (facts 1.3). QQ has the contract and the
    /// errors of that call (assumption: its quota too, QQ publishes none).
    fn classic(
        &mut self,
        platform: SandboxPlatform,
        series: TokenSeries,
        given: [&Option<String>; 3],
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let appid = self.mp_credentials(platform, given)?;
        self.check_allowlist(&appid, peer)?;
        let limit = self.settings.quotas.classic_per_day;
        if !self.meters(&appid)?.classic_day.try_take(Period::Day, limit, now.unix_ms) {
            return Err(SandboxRefusal::daily_quota());
        }
        self.mint(&appid, series, now)
    }

    /// Stable: the same token until its last 5 minutes, then a new one; forced: a new one, 20 a day, 30 s apart
    /// (facts 1.2 rows 2 and 3). Forced calls also count as calls (assumption).
    fn stable(
        &mut self,
        given: [&Option<String>; 3],
        force: bool,
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let appid = self.mp_credentials(SandboxPlatform::Mp, given)?;
        self.check_allowlist(&appid, peer)?;
        let quotas = self.settings.quotas.clone();
        let meters = self.meters(&appid)?;
        if !meters.stable_day.try_take(Period::Day, quotas.stable_per_day, now.unix_ms) {
            return Err(SandboxRefusal::daily_quota());
        }
        if !meters.stable_minute.try_take(Period::Minute, quotas.stable_per_minute, now.unix_ms) {
            return Err(SandboxRefusal::new(45011, "api minute-quota reach limit  mustslower  retry next minute"));
        }
        if force && self.try_force(&appid, now)? {
            return self.mint(&appid, TokenSeries::Stable, now);
        }
        let window_ms = self.settings.stable_window_ms;
        self.current_or_new_token(&appid, TokenSeries::Stable, window_ms, now)
    }

    /// Counts a forced call, unless the last one was less than 30 s ago: then nothing is renewed and nothing counted
    /// (assumption), and this returns false.
    fn try_force(&mut self, appid: &str, now: Now) -> Result<bool, SandboxRefusal> {
        let quotas = self.settings.quotas.clone();
        let app = self.app(appid)?;
        if app.forced_ms.is_some_and(|last| now.boot_ms.saturating_sub(last) < quotas.forced_spacing_ms) {
            return Ok(false);
        }
        if !app.meters.forced_day.try_take(Period::Day, quotas.forced_per_day, now.unix_ms) {
            return Err(SandboxRefusal::daily_quota());
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
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let corpid = corpid.as_deref().ok_or_else(|| SandboxRefusal::new(41002, "corpid missing"))?;
        let secret = secret.as_deref().ok_or_else(|| SandboxRefusal::new(41004, "corpsecret missing"))?;
        let appid = self.wecom_app(corpid, Some(secret)).ok_or_else(|| SandboxRefusal::new(40013, "invalid corpid"))?;
        let app = self.app(&appid)?;
        if app.secret != secret {
            return Err(SandboxRefusal::new(40001, "invalid credential"));
        }
        if app.frozen {
            return Err(SandboxRefusal::new(40091, "secret is invalid"));
        }
        if app.denies(peer) {
            return Err(SandboxRefusal::new(60020, "not allow to access from your ip"));
        }
        self.current_or_new_token(&appid, TokenSeries::Wecom, 1, now)
    }

    /// Feishu: the same token while a quarter of its life or more is left (half an hour of two), then a new one, and both
    /// live to their end. No quota is published. Codes: facts "Feishu"; the one for an unknown app_id is an assumption.
    fn feishu(
        &mut self,
        app_id: &Option<String>,
        secret: &Option<String>,
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let known = app_id
            .as_deref()
            .filter(|id| self.apps.get(*id).is_some_and(|app| app.platform == SandboxPlatform::Feishu));
        let appid = known.ok_or_else(|| SandboxRefusal::new(10003, "invalid param"))?.to_owned();
        let app = self.app(&appid)?;
        if app.frozen || Some(&app.secret) != secret.as_ref() {
            return Err(SandboxRefusal::new(10014, "app secret invalid"));
        }
        if app.denies(peer) {
            return Err(SandboxRefusal::new(99_991_401, "ip not allowed"));
        }
        let window_ms = self.settings.lifetime_ms / 4;
        self.current_or_new_token(&appid, TokenSeries::Feishu, window_ms, now)
    }

    /// Order of the checks: form, appid, secret (codes of facts 1.5; their order is an assumption).
    fn mp_credentials(
        &mut self,
        platform: SandboxPlatform,
        given: [&Option<String>; 3],
    ) -> Result<String, SandboxRefusal> {
        let [grant_type, appid, secret] = given;
        if grant_type.as_deref() != Some("client_credential") {
            return Err(SandboxRefusal::new(40002, "invalid grant_type"));
        }
        self.mp_secret(platform, appid, secret)
    }

    fn mp_secret(
        &mut self,
        platform: SandboxPlatform,
        appid: &Option<String>,
        secret: &Option<String>,
    ) -> Result<String, SandboxRefusal> {
        let appid = appid.as_deref().ok_or_else(|| SandboxRefusal::new(41002, "appid missing"))?;
        let secret = secret.as_deref().ok_or_else(|| SandboxRefusal::new(41004, "appsecret missing"))?;
        if self.apps.get(appid).is_some_and(|app| app.platform == SandboxPlatform::Component) {
            return Err(SandboxRefusal::new(61024, "component account must use api_component_token"));
        }
        let app = self.apps.get(appid).filter(|app| app.platform == platform);
        let app = app.ok_or_else(|| SandboxRefusal::new(40013, "invalid appid"))?;
        if app.secret != secret {
            return Err(SandboxRefusal::new(40125, "invalid appsecret,"));
        }
        if app.frozen {
            return Err(SandboxRefusal::new(40243, "AppSecret has been frozen, unfreeze it and call again"));
        }
        Ok(appid.to_owned())
    }

    /// Refuses an address that is not on the allow-list (facts 1.4); the message is that of facts 1.5.
    fn check_allowlist(&mut self, appid: &str, peer: IpAddr) -> Result<(), SandboxRefusal> {
        if !self.app(appid)?.denies(peer) {
            return Ok(());
        }
        let v6 = match peer {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Err(SandboxRefusal::new(40164, &format!("invalid ip {peer} ipv6 {v6}, not in whitelist")))
    }

    /// The current token while at least `window_ms` of its life is left, else a new one.
    fn current_or_new_token(
        &mut self,
        appid: &str,
        series: TokenSeries,
        window_ms: u64,
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let app = self.app(appid)?;
        let current = app.tokens.iter().rfind(|token| token.series == series && !token.withdrawn);
        match current {
            Some(token) if token.left_ms(now.boot_ms) >= window_ms.max(1) => {
                Ok(token.answer(app.platform, now.boot_ms))
            }
            _ => self.mint(appid, series, now),
        }
    }

    /// Makes a new token. The one before it lives on for the overlap; older ones end at once, so two forced calls end a
    /// token that has leaked (facts 1.2).
    fn mint(&mut self, appid: &str, series: TokenSeries, now: Now) -> Result<ApiAnswer, SandboxRefusal> {
        let value = random_token(&mut self.rng, self.settings.token_len);
        let (lifetime_ms, overlap_ms) = (self.settings.lifetime_ms, self.settings.overlap_ms);
        let app = self.app(appid)?;
        if series != TokenSeries::Feishu {
            app.supersede(series, now.boot_ms, overlap_ms);
        }
        let token = SandboxToken::new(value.clone(), series, now.boot_ms.saturating_add(lifetime_ms));
        let answer = token.answer(app.platform, now.boot_ms);
        app.tokens.push_back(token);
        app.minted += 1;
        if let Some(forgotten) = app.forget_oldest_dead(now.boot_ms) {
            self.owners.remove(&forgotten.value);
        }
        self.owners.insert(value, appid.to_owned());
        Ok(answer)
    }

    /// The corporation's app with this secret, otherwise any app of the corporation: a wrong secret and a wrong corpid have
    /// different errors.
    fn wecom_app(&self, corpid: &str, secret: Option<&str>) -> Option<String> {
        let mut corp = self.apps.range(corpid.to_owned()..).take_while(|(name, _)| name.starts_with(corpid)).filter(
            |(name, app)| {
                app.platform == SandboxPlatform::Wecom && matches!(name.as_bytes().get(corpid.len()), None | Some(b'/'))
            },
        );
        let first = corp.next()?;
        let by_secret = std::iter::once(first).chain(corp).find(|(_, app)| Some(app.secret.as_str()) == secret);
        Some(by_secret.unwrap_or(first).0.clone())
    }

    /// Never `Err` for an app that the call has just found.
    fn app(&mut self, appid: &str) -> Result<&mut SandboxApp, SandboxRefusal> {
        self.apps.get_mut(appid).ok_or_else(|| SandboxRefusal::new(40013, "invalid appid"))
    }

    fn meters(&mut self, appid: &str) -> Result<&mut Meters, SandboxRefusal> {
        Ok(&mut self.app(appid)?.meters)
    }
}

/// The calls that need a token.
impl World {
    /// Tickets: the same one, and always 7200, until the platform changes it (facts 1.2 row 4).
    fn mp_ticket(&mut self, token: &Option<String>, word: Option<&str>, now: Now) -> Result<ApiAnswer, SandboxRefusal> {
        let appid = self.app_of_token(token, now)?;
        if self.app(&appid)?.platform != SandboxPlatform::Mp {
            return Err(SandboxRefusal::new(48001, "api unauthorized")); // facts 1.4: tokens of one platform do not work on another
        }
        let ticket_type = match word {
            Some("jsapi") => TicketType::Jsapi,
            Some("wx_card") => TicketType::WxCard,
            Some("2") => TicketType::Sdk,
            _ => return Err(SandboxRefusal::new(40097, "invalid args")),
        };
        let limit = self.settings.quotas.ticket_per_day;
        if !self.meters(&appid)?.ticket.try_take(Period::Day, limit, now.unix_ms) {
            return Err(SandboxRefusal::daily_quota());
        }
        self.ticket(&appid, ticket_type, now)
    }

    /// WeCom tickets: 100 calls an hour for each app (facts 1.3). The corporation's ticket is kept for each app here, a
    /// simplification.
    fn wecom_ticket(
        &mut self,
        token: &Option<String>,
        ticket_type: TicketType,
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let appid = self.app_of_token(token, now)?;
        if self.app(&appid)?.platform != SandboxPlatform::Wecom {
            return Err(SandboxRefusal::new(40014, "invalid access_token"));
        }
        let limit = self.settings.quotas.wecom_ticket_per_hour;
        if !self.meters(&appid)?.ticket.try_take(Period::Hour, limit, now.unix_ms) {
            return Err(SandboxRefusal::new(45009, "api freq out of limit"));
        }
        self.ticket(&appid, ticket_type, now)
    }

    fn ticket(&mut self, appid: &str, ticket_type: TicketType, now: Now) -> Result<ApiAnswer, SandboxRefusal> {
        let fresh = random_token(&mut self.rng, 86);
        let roll_ms = self.settings.ticket_roll_ms;
        let ticket = self
            .app(appid)?
            .tickets
            .entry(ticket_type)
            .and_modify(|old| old.change_if_due(&fresh, roll_ms, now.boot_ms))
            .or_insert_with(|| SandboxTicket { value: fresh.clone(), rolled_ms: now.boot_ms });
        Ok(ApiAnswer::Ticket { value: ticket.value.clone(), expires_in_s: TICKET_EXPIRES_IN_S })
    }

    /// The app of a token that works, otherwise the refusal (facts 1.5).
    fn app_of_token(&self, token: &Option<String>, now: Now) -> Result<String, SandboxRefusal> {
        let token = token.as_deref().ok_or_else(|| SandboxRefusal::new(41001, "access_token missing"))?;
        let owner = self.owners.get(token);
        let wecom = owner.and_then(|id| self.apps.get(id)).is_some_and(|app| app.platform == SandboxPlatform::Wecom);
        match (self.judge(token, now), owner) {
            (Verdict::Accepted, Some(appid)) => Ok(appid.clone()),
            (Verdict::Expired, _) => Err(SandboxRefusal::new(42001, "access_token expired")),
            (Verdict::Malformed, _) => Err(SandboxRefusal::new(40014, "invalid access_token")),
            (Verdict::NotLatest, Some(_)) if wecom => Err(SandboxRefusal::new(40014, "invalid access_token")),
            _ => Err(SandboxRefusal::not_latest()),
        }
    }

    /// Clears the daily and minute counters, 10 times a month, then 48006 (facts 1.3). The forced refreshes' own 20 a
    /// day stay used (assumption).
    fn clear_quota(
        &mut self,
        appid: &Option<String>,
        secret: &Option<String>,
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let appid = self.mp_secret(SandboxPlatform::Mp, appid, secret)?;
        let limit = self.settings.quotas.clear_per_month;
        let meters = self.meters(&appid)?;
        if !meters.clear_month.try_take(Period::Month, limit, now.unix_ms) {
            return Err(SandboxRefusal::new(48006, "forbid to clear quota because of reaching the limit"));
        }
        meters.classic_day = QuotaMeter::default();
        meters.stable_minute = QuotaMeter::default();
        meters.stable_day = QuotaMeter::default();
        meters.ticket = QuotaMeter::default();
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

impl SandboxApp {
    fn new(options: &AppOptions) -> SandboxApp {
        SandboxApp {
            platform: options.platform,
            secret: options.secret.clone(),
            frozen: false,
            allowlist: options.ip_allowlist.clone(),
            tokens: VecDeque::new(),
            tickets: BTreeMap::new(),
            minted: 0,
            forced_ms: None,
            meters: Meters::default(),
            open_platform: component::OpenPlatformState::new(options),
        }
    }

    fn denies(&self, peer: IpAddr) -> bool {
        self.allowlist.as_ref().is_some_and(|allowed| !allowed.contains(&peer))
    }

    /// Ends the older tokens of the series because there is a new one.
    fn supersede(&mut self, series: TokenSeries, now_ms: u64, overlap_ms: u64) {
        let mut newest_first = self.tokens.iter_mut().rev().filter(|token| token.series == series);
        if let Some(previous) = newest_first.next() {
            previous.superseded_ms = Some(now_ms.saturating_add(overlap_ms));
        }
        for older in newest_first {
            older.superseded_ms = older.superseded_ms.map(|end| end.min(now_ms));
        }
    }

    /// Removes the oldest dead token if there are too many. Live ones stay: many classic calls must not end the stable
    /// token.
    fn forget_oldest_dead(&mut self, now_ms: u64) -> Option<SandboxToken> {
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
            platform: self.platform,
            kind: self.platform,
            secret_frozen: self.frozen,
            ip_allowlist: self.allowlist.clone(),
            minted: self.minted,
            live_tokens: live.map(|token| token.value.clone()).collect(),
            tickets: self.tickets.values().map(|ticket| ticket.value.clone()).collect(),
        }
    }
}

/// An app as the control calls show it.
#[derive(Clone, Debug, Serialize)]
pub struct AppView {
    appid: String,
    platform: SandboxPlatform,
    /// The same; the old name.
    kind: SandboxPlatform,
    secret_frozen: bool,
    ip_allowlist: Option<Vec<IpAddr>>,
    minted: u64,
    live_tokens: Vec<String>,
    tickets: Vec<String>,
}

impl SandboxToken {
    fn new(value: String, series: TokenSeries, expires_ms: u64) -> SandboxToken {
        SandboxToken { value, series, expires_ms, superseded_ms: None, killed: false, withdrawn: false }
    }

    fn left_ms(&self, now_ms: u64) -> u64 {
        self.expires_ms.saturating_sub(now_ms)
    }

    fn answer(&self, platform: SandboxPlatform, now_ms: u64) -> ApiAnswer {
        ApiAnswer::Token { platform, value: self.value.clone(), expires_in_s: self.left_ms(now_ms) / 1000 }
    }

    /// The end that came first decides.
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

impl SandboxTicket {
    fn change_if_due(&mut self, fresh: &str, roll_ms: u64, now_ms: u64) {
        if now_ms.saturating_sub(self.rolled_ms) >= roll_ms {
            *self = SandboxTicket { value: fresh.to_owned(), rolled_ms: now_ms };
        }
    }
}

impl SandboxRefusal {
    pub(super) fn new(errcode: i64, text: &str) -> SandboxRefusal {
        SandboxRefusal { errcode, text: text.to_owned() }
    }

    fn daily_quota() -> SandboxRefusal {
        SandboxRefusal::new(45009, "reach max api daily quota limit")
    }

    fn not_latest() -> SandboxRefusal {
        SandboxRefusal::new(
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

/// Long enough, and only characters of tokens. Tokens shorter than WeChat's pass, so that tests can have short ones.
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
