//! What a sandbox is started with. Plain values. Never reads a file, never checks anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How the simulated platforms behave. `Options::default()` is as WeChat is today, without apps, on any free local port.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes any free port.
    pub listen: SocketAddr,
    /// The simulated accounts.
    pub apps: Vec<AppOptions>,
    /// Life of a token in seconds.
    pub lifetime_s: u64,
    /// How long a token lives on when there is a new one; by default in proportion, 300 s for 7200 s.
    pub overlap_ms: Option<u64>,
    /// How long before its end a stable token is replaced; by default in proportion, 300 s for 7200 s.
    pub stable_window_ms: Option<u64>,
    /// How often a ticket changes; by default once in a token's life.
    pub ticket_roll_s: Option<u64>,
    /// Serve HTTPS with these files; plain HTTP without.
    pub tls: Option<SandboxTlsFiles>,
    /// Call quotas.
    pub quotas: Quotas,
    /// Each call for an authorizer's token replaces its refresh token, and the one before it is no longer good. WeChat may
    /// do so; how often it does is not published.
    pub rotate_refresh_tokens: bool,
    /// Characters of a token. WeChat's have been 136 to 157; it asks callers to reserve 512.
    pub token_len: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            apps: Vec::new(),
            lifetime_s: 7200,
            overlap_ms: None,
            stable_window_ms: None,
            ticket_roll_s: None,
            tls: None,
            quotas: Quotas::default(),
            rotate_refresh_tokens: false,
            token_len: 136,
        }
    }
}

/// One simulated account.
///
/// A WeCom corporation with several apps is several entries: name them `<corpid>/<anything>`. Callers send the corpid, and
/// the secret decides which app it is. The control calls take the full name.
#[derive(Clone, Debug, Default)]
pub struct AppOptions {
    /// The appid; for WeCom the corpid, or `<corpid>/<app name>`.
    pub appid: String,
    /// The app secret.
    pub secret: String,
    /// The account's platform.
    pub platform: SandboxPlatform,
    /// The addresses that may fetch tokens; `None` allows all.
    pub ip_allowlist: Option<Vec<IpAddr>>,
    /// The component that this account has authorised.
    pub authorizer_of: Option<String>,
    /// The refresh token with which the component fetches the account's tokens.
    pub refresh_token: String,
}

/// The platform of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxPlatform {
    /// Official accounts and mini programs: `api.weixin.qq.com`.
    #[default]
    Mp,
    /// 企业微信: `qyapi.weixin.qq.com`.
    Wecom,
    /// A third-party platform: `api.weixin.qq.com/cgi-bin/component`.
    Component,
    /// QQ mini programs: `api.q.qq.com`.
    Qq,
    /// Feishu: `open.feishu.cn`.
    Feishu,
}

/// Certificate and key for HTTPS, both PEM.
#[derive(Clone, Debug)]
pub struct SandboxTlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Call quotas of each app. Days begin at midnight in UTC+8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// `/cgi-bin/token` calls a day; WeChat: 2000, test accounts 200.
    pub classic_per_day: u64,
    /// `/cgi-bin/stable_token` calls a minute.
    pub stable_per_minute: u64,
    /// `/cgi-bin/stable_token` calls a day.
    pub stable_per_day: u64,
    /// Forced refreshes a day.
    pub forced_per_day: u64,
    /// A forced refresh renews nothing if the one before it was less than this ago.
    pub forced_spacing_ms: u64,
    /// `getticket` calls a day. WeChat publishes no number ("very limited"); this is a cautious guess.
    pub ticket_per_day: u64,
    /// WeCom ticket calls an hour.
    pub wecom_ticket_per_hour: u64,
    /// `clear_quota` calls a calendar month.
    pub clear_per_month: u64,
}

impl Quotas {
    /// The same for tokens with a shorter life than two hours: as many times more calls as there are more tokens in a day.
    pub fn scaled(self, lifetime: Duration) -> Quotas {
        let more = times_shorter(lifetime);
        Quotas {
            classic_per_day: self.classic_per_day.saturating_mul(more),
            stable_per_minute: self.stable_per_minute.saturating_mul(more),
            stable_per_day: self.stable_per_day.saturating_mul(more),
            forced_per_day: self.forced_per_day.saturating_mul(more),
            ticket_per_day: self.ticket_per_day.saturating_mul(more),
            wecom_ticket_per_hour: self.wecom_ticket_per_hour.saturating_mul(more),
            ..self
        }
    }
}

/// How many such tokens fit into two hours; 1 for longer ones.
pub fn times_shorter(lifetime: Duration) -> u64 {
    const TWO_HOURS_S: u64 = 7200;
    TWO_HOURS_S.div_ceil(lifetime.as_secs().max(1))
}

impl Default for Quotas {
    fn default() -> Quotas {
        Quotas {
            classic_per_day: 2000,
            stable_per_minute: 10_000,
            stable_per_day: 500_000,
            forced_per_day: 20,
            forced_spacing_ms: 30_000,
            ticket_per_day: 1000,
            wecom_ticket_per_hour: 100,
            clear_per_month: 10,
        }
    }
}
