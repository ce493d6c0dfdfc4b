//! The open platform's rules: verify tickets that are pushed, component tokens, authorizer tokens with refresh tokens.
//!
//! WeChat pushes a ticket over HTTP, encrypted; here it is fetched by the control calls, by whoever plays the receiver.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::super::options::{AppOptions, SandboxPlatform};
use super::super::quota::{Meter, Period};
use super::{ApiAnswer, Line, Refusal, World, random_token};
use crate::clock::Now;

/// "Valid for 12 hours" (facts 1.2).
const TICKET_LIFE_MS: u64 = 12 * 3_600_000;
/// Tickets remembered: a day's.
const TICKETS_MAX: usize = 144;

/// What a component, or an account that has authorised one, has besides what every account has.
#[derive(Debug, Default)]
pub(super) struct Platform {
    /// Of a component: the tickets pushed, oldest first.
    tickets: VecDeque<Pushed>,
    /// Of an account: who may ask for its tokens, and with what.
    authorised: Option<Authorised>,
    meter: Meter,
}

#[derive(Debug)]
struct Pushed {
    ticket: String,
    dead_ms: u64,
}

#[derive(Debug)]
struct Authorised {
    component: String,
    /// Empty when the account has withdrawn.
    refresh_token: String,
}

impl Platform {
    pub(super) fn new(options: &AppOptions) -> Platform {
        let authorised = options
            .authorizer_of
            .as_ref()
            .map(|component| Authorised { component: component.clone(), refresh_token: options.refresh_token.clone() });
        Platform { authorised, ..Platform::default() }
    }
}

impl World {
    /// A call for a component token: mints (facts 1.2). Order of the checks is an assumption.
    pub(super) fn component_token(
        &mut self,
        [appid, secret, ticket]: [&Option<String>; 3],
        peer: IpAddr,
        now: Now,
    ) -> Result<ApiAnswer, Refusal> {
        let appid = self.component_of(appid)?;
        let secret = secret.as_deref().ok_or_else(|| Refusal::new(41004, "appsecret missing"))?;
        if self.app(&appid)?.secret != secret {
            return Err(Refusal::new(40125, "invalid appsecret,"));
        }
        self.admit(&appid, peer)?;
        let app = self.app(&appid)?;
        let pushed = app.platform.tickets.iter().find(|pushed| Some(&pushed.ticket) == ticket.as_ref());
        match pushed {
            None => return Err(Refusal::new(61006, "component ticket is invalid")),
            Some(pushed) if now.boot_ms >= pushed.dead_ms => {
                return Err(Refusal::new(61005, "component ticket is expired"));
            }
            Some(_) => {}
        }
        let limit = self.settings.quotas.classic_per_day;
        if !self.app(&appid)?.platform.meter.take(Period::Day, limit, now.unix_ms) {
            return Err(Refusal::daily_quota());
        }
        self.mint(&appid, Line::Component, now)?;
        let (value, expires_in_s) = self.newest(&appid)?;
        Ok(ApiAnswer::Component { value, expires_in_s })
    }

    /// A call for an authorizer's token: mints, and gives the refresh token for the next time (facts 1.2).
    pub(super) fn authorizer_token(
        &mut self,
        token: &Option<String>,
        [component, appid, refresh]: [&Option<String>; 3],
        now: Now,
    ) -> Result<ApiAnswer, Refusal> {
        let caller = self.business(token, now)?;
        let component = self.component_of(component)?;
        if caller != component {
            return Err(Refusal::not_latest());
        }
        let appid = appid.as_deref().ok_or_else(|| Refusal::new(41002, "appid missing"))?;
        let (rotates, fresh) = (self.settings.rotate_refresh_tokens, self.refresh_token());
        let app = self.apps.get_mut(appid).ok_or_else(|| Refusal::new(40013, "invalid appid"))?;
        let authorised = app.platform.authorised.as_mut().filter(|authorised| authorised.component == component);
        let Some(authorised) = authorised else {
            return Err(Refusal::new(61003, "component is not authorized by this account"));
        };
        if authorised.refresh_token.is_empty() || Some(&authorised.refresh_token) != refresh.as_ref() {
            return Err(Refusal::new(61023, "refresh_token is invalid"));
        }
        let limit = self.settings.quotas.classic_per_day;
        if !app.platform.meter.take(Period::Day, limit, now.unix_ms) {
            return Err(Refusal::daily_quota());
        }
        if rotates {
            authorised.refresh_token = fresh;
        }
        let refresh_token = authorised.refresh_token.clone();
        self.mint(appid, Line::Authorizer, now)?;
        let (value, expires_in_s) = self.newest(appid)?;
        Ok(ApiAnswer::Authorizer { value, expires_in_s, refresh_token })
    }

    fn component_of(&mut self, appid: &Option<String>) -> Result<String, Refusal> {
        let appid = appid.as_deref().ok_or_else(|| Refusal::new(41002, "component_appid missing"))?;
        let known = self.apps.get(appid).filter(|app| app.kind == SandboxPlatform::Component);
        known.map(|_| appid.to_owned()).ok_or_else(|| Refusal::new(40013, "invalid appid"))
    }

    /// The token minted last, and its life.
    fn newest(&mut self, appid: &str) -> Result<(String, u64), Refusal> {
        let lifetime_s = self.settings.lifetime_ms / 1000;
        let newest = self.app(appid)?.tokens.back();
        newest.map(|token| (token.value.clone(), lifetime_s)).ok_or_else(|| Refusal::new(-1, "system error"))
    }

    fn refresh_token(&mut self) -> String {
        format!("refreshtoken@@@{}", random_token(&mut self.rng, 43))
    }

    /// WeChat pushes another ticket; those before it live on. `None` if there is no such component.
    pub fn push_verify_ticket(&mut self, appid: &str, now: Now) -> Option<String> {
        let ticket = format!("ticket@@@{}", random_token(&mut self.rng, 86));
        let app = self.apps.get_mut(appid).filter(|app| app.kind == SandboxPlatform::Component)?;
        let tickets = &mut app.platform.tickets;
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        let dead_ms = now.boot_ms.saturating_add(TICKET_LIFE_MS);
        tickets.push_back(Pushed { ticket: ticket.clone(), dead_ms });
        Some(ticket)
    }

    /// Twelve hours have passed for every ticket pushed so far. True if the app exists.
    pub fn expire_verify_tickets(&mut self, appid: &str) -> bool {
        self.change(appid, |app| app.platform.tickets.iter_mut().for_each(|pushed| pushed.dead_ms = 0))
    }

    /// The account's administrator authorises its component anew: a new refresh token, and the one before it is over.
    pub fn authorise(&mut self, appid: &str) -> Option<String> {
        let fresh = self.refresh_token();
        let authorised = self.apps.get_mut(appid)?.platform.authorised.as_mut()?;
        authorised.refresh_token.clone_from(&fresh);
        Some(fresh)
    }

    /// The administrator withdraws: no refresh token is good any more. True if the app exists.
    pub fn withdraw(&mut self, appid: &str) -> bool {
        self.change(appid, |app| {
            if let Some(authorised) = &mut app.platform.authorised {
                authorised.refresh_token.clear();
            }
        })
    }

    /// The refresh token that is good now.
    pub fn refresh_token_of(&self, appid: &str) -> Option<String> {
        Some(self.apps.get(appid)?.platform.authorised.as_ref()?.refresh_token.clone())
    }
}
