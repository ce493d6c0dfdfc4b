//! The open platform's rules: verify tickets that are pushed, component tokens, authorizer tokens with refresh tokens.
//!
//! WeChat pushes a ticket over HTTP, encrypted; here whoever acts as the receiver gets it by a control call. Pure, as all
//! rules.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::super::options::{AppOptions, SandboxPlatform};
use super::super::quota::{Period, QuotaMeter};
use super::{ApiAnswer, SandboxRefusal, TokenSeries, World, random_token};
use crate::clock::Now;

/// "Valid for 12 hours" (facts 1.2).
const TICKET_LIFE_MS: u64 = 12 * 3_600_000;
/// How many tickets are kept: those of a day.
const TICKETS_MAX: usize = 144;

/// What only a component has, or an account that has authorised one.
#[derive(Debug, Default)]
pub(super) struct OpenPlatformState {
    /// Of a component: the tickets that were pushed, oldest first.
    tickets: VecDeque<PushedTicket>,
    /// Of an account: which component may fetch its tokens, and with what.
    authorised: Option<Authorisation>,
    meter: QuotaMeter,
}

#[derive(Debug)]
struct PushedTicket {
    ticket: String,
    dead_ms: u64,
}

#[derive(Debug)]
struct Authorisation {
    component: String,
    /// Empty when the account has withdrawn.
    refresh_token: String,
}

impl OpenPlatformState {
    pub(super) fn new(options: &AppOptions) -> OpenPlatformState {
        let authorised = options.authorizer_of.as_ref().map(|component| Authorisation {
            component: component.clone(),
            refresh_token: options.refresh_token.clone(),
        });
        OpenPlatformState { authorised, ..OpenPlatformState::default() }
    }
}

impl World {
    /// A component token: each call makes a new one (facts 1.2). The order of the checks is an assumption.
    pub(super) fn component_token(
        &mut self,
        [appid, secret, ticket]: [&Option<String>; 3],
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let appid = self.component_of(appid)?;
        let secret = secret.as_deref().ok_or_else(|| SandboxRefusal::new(41004, "appsecret missing"))?;
        if self.app(&appid)?.secret != secret {
            return Err(SandboxRefusal::new(40125, "invalid appsecret,"));
        }
        self.check_allowlist(&appid, peer)?;
        let app = self.app(&appid)?;
        let pushed = app.open_platform.tickets.iter().find(|pushed| Some(&pushed.ticket) == ticket.as_ref());
        match pushed {
            None => return Err(SandboxRefusal::new(61006, "component ticket is invalid")),
            Some(pushed) if now.boot_ms >= pushed.dead_ms => {
                return Err(SandboxRefusal::new(61005, "component ticket is expired"));
            }
            Some(_) => {}
        }
        let limit = self.settings.quotas.classic_per_day;
        if !self.app(&appid)?.open_platform.meter.try_take(Period::Day, limit, now.unix_ms) {
            return Err(SandboxRefusal::daily_quota());
        }
        self.mint(&appid, TokenSeries::Component, now)?;
        let (value, expires_in_s) = self.newest_token(&appid)?;
        Ok(ApiAnswer::Component { value, expires_in_s })
    }

    /// An authorizer's token: each call makes a new one, and gives the refresh token for the next call (facts 1.2).
    pub(super) fn authorizer_token(
        &mut self,
        token: &Option<String>,
        [component, appid, refresh]: [&Option<String>; 3],
        now: Now,
    ) -> Result<ApiAnswer, SandboxRefusal> {
        let caller = self.app_of_token(token, now)?;
        let component = self.component_of(component)?;
        if caller != component {
            return Err(SandboxRefusal::not_latest());
        }
        let appid = appid.as_deref().ok_or_else(|| SandboxRefusal::new(41002, "appid missing"))?;
        let (rotates, fresh) = (self.settings.rotate_refresh_tokens, self.new_refresh_token());
        let app = self.apps.get_mut(appid).ok_or_else(|| SandboxRefusal::new(40013, "invalid appid"))?;
        let authorised = app.open_platform.authorised.as_mut().filter(|authorised| authorised.component == component);
        let Some(authorised) = authorised else {
            return Err(SandboxRefusal::new(61003, "component is not authorized by this account"));
        };
        if authorised.refresh_token.is_empty() || Some(&authorised.refresh_token) != refresh.as_ref() {
            return Err(SandboxRefusal::new(61023, "refresh_token is invalid"));
        }
        let limit = self.settings.quotas.classic_per_day;
        if !app.open_platform.meter.try_take(Period::Day, limit, now.unix_ms) {
            return Err(SandboxRefusal::daily_quota());
        }
        if rotates {
            authorised.refresh_token = fresh;
        }
        let refresh_token = authorised.refresh_token.clone();
        self.mint(appid, TokenSeries::Authorizer, now)?;
        let (value, expires_in_s) = self.newest_token(appid)?;
        Ok(ApiAnswer::Authorizer { value, expires_in_s, refresh_token })
    }

    fn component_of(&mut self, appid: &Option<String>) -> Result<String, SandboxRefusal> {
        let appid = appid.as_deref().ok_or_else(|| SandboxRefusal::new(41002, "component_appid missing"))?;
        let known = self.apps.get(appid).filter(|app| app.platform == SandboxPlatform::Component);
        known.map(|_| appid.to_owned()).ok_or_else(|| SandboxRefusal::new(40013, "invalid appid"))
    }

    /// The newest token, and its life.
    fn newest_token(&mut self, appid: &str) -> Result<(String, u64), SandboxRefusal> {
        let lifetime_s = self.settings.lifetime_ms / 1000;
        let newest = self.app(appid)?.tokens.back();
        newest.map(|token| (token.value.clone(), lifetime_s)).ok_or_else(|| SandboxRefusal::new(-1, "system error"))
    }

    fn new_refresh_token(&mut self) -> String {
        format!("refreshtoken@@@{}", random_token(&mut self.rng, 43))
    }

    /// WeChat pushes another ticket; older ones stay good. `None` if there is no such component.
    pub fn push_verify_ticket(&mut self, appid: &str, now: Now) -> Option<String> {
        let ticket = format!("ticket@@@{}", random_token(&mut self.rng, 86));
        let app = self.apps.get_mut(appid).filter(|app| app.platform == SandboxPlatform::Component)?;
        let tickets = &mut app.open_platform.tickets;
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        let dead_ms = now.boot_ms.saturating_add(TICKET_LIFE_MS);
        tickets.push_back(PushedTicket { ticket: ticket.clone(), dead_ms });
        Some(ticket)
    }

    /// Lets every ticket pushed so far expire. True if the app exists.
    pub fn expire_verify_tickets(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.open_platform.tickets.iter_mut().for_each(|pushed| pushed.dead_ms = 0))
    }

    /// The account's administrator authorises its component again: a new refresh token; the one before it is no longer
    /// good.
    pub fn authorise(&mut self, appid: &str) -> Option<String> {
        let fresh = self.new_refresh_token();
        let authorised = self.apps.get_mut(appid)?.open_platform.authorised.as_mut()?;
        authorised.refresh_token.clone_from(&fresh);
        Some(fresh)
    }

    /// The administrator withdraws the authorisation: no refresh token is good any more. True if the app exists.
    pub fn withdraw(&mut self, appid: &str) -> bool {
        self.change(appid, |app| {
            if let Some(authorised) = &mut app.open_platform.authorised {
                authorised.refresh_token.clear();
            }
        })
    }

    /// The refresh token that is good now.
    pub fn refresh_token_of(&self, appid: &str) -> Option<String> {
        Some(self.apps.get(appid)?.open_platform.authorised.as_ref()?.refresh_token.clone())
    }
}
