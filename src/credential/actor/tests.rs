//! One credential in no time: its actor, the sandbox's rules in place of the platform, and a clock that is moved.
//!
//! No task, no socket and no disk. Names with a project and a number are that project's public incident, turned into a
//! test.

use std::net::{IpAddr, Ipv4Addr};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::record_handle::SecretCheck;
use crate::cluster::seal::Seal;
use crate::cluster::{
    ClusterEvent, ClusterStore, Op, Record, RefreshReason, StoreAnswer, StoreClockReading, StoreFuture, Unreachable,
    WatchedRecord,
};
use crate::credential::app::App;
use crate::credential::cluster_fetch::SharingResult;
use crate::credential::fetch_task::FetchOutcome;
use crate::credential::plan;
use crate::credential::table::{CredentialState, CredentialWriter, Reading, Table, TableConfig, VerificationReason};
use crate::platform::{ClientOptions, Delivery, Failure, Probe, Token, answer, mp, wecom};
use crate::sandbox::answer::body;
use crate::sandbox::rules::{ApiRequest, World};
use crate::sandbox::{AppOptions, Options, Quotas, SandboxPlatform, Verdict};
use crate::secret_source::SecretSource;

const APPID: &str = "wx1";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long a call takes.
const CALL_MS: u64 = 50;
const LIMITS: ActorLimits = ActorLimits { total_timeout_ms: 8_000, keeps_state: false };
/// What waits longer has failed.
const PATIENCE_MS: u64 = 86_400_000;

/// What a call meets instead of the platform.
#[derive(Clone)]
enum Fault {
    Answer(String),
    Lost,
    Hang,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Token(&'static str),
    Forced,
    Probe,
}

/// An actor and what it deals with.
struct Play {
    actor: Actor,
    writer: CredentialWriter,
    _table: Table,
    world: World,
    now: Now,
    budget: VerificationBudget,
    timers: [Option<BootMs>; 2],
    /// The call that is under way, and when its answer is there.
    call: Option<(BootMs, FetchOrder)>,
    /// When a new classic value is on disk.
    saved_ms: Option<BootMs>,
    of_tokens: Option<Fault>,
    of_probes: Option<Fault>,
    calls: Vec<Call>,
    answered: u64,
    /// What the status was when the last client got its answer.
    status_at_answer: Option<CredentialStatus>,
}

fn app(token: &'static CredentialType) -> App {
    let secret = SecretSource::Fixed(Secret::new(SECRET.to_owned()));
    // For tests that count every call.
    App { probe_every_ms: Some(0), ..App::mp(APPID, secret, token) }
}

fn stable() -> App {
    app(&mp::STABLE)
}

fn classic() -> App {
    app(&mp::CLASSIC)
}

fn errcode(errcode: i64) -> Fault {
    Fault::Answer(format!(r#"{{"errcode":{errcode},"errmsg":"as the test says"}}"#))
}

/// A store that nobody asks.
struct UnusedStore;

impl ClusterStore for UnusedStore {
    fn ask<'a>(&'a self, _: &'a str, _: Op) -> StoreFuture<'a, Result<StoreAnswer, Unreachable>> {
        unreachable!()
    }

    fn request_refresh<'a>(
        &'a self,
        _: &'a str,
        _: Option<u64>,
        _: RefreshReason,
    ) -> StoreFuture<'a, Result<(), Unreachable>> {
        unreachable!()
    }

    fn watch(
        self: Arc<Self>,
        _: Arc<[WatchedRecord]>,
        _: mpsc::Sender<ClusterEvent>,
        _: CancellationToken,
    ) -> StoreFuture<'static, ()> {
        unreachable!()
    }
}

fn handle() -> RecordHandle {
    let secret = Secret::new(SECRET.to_owned());
    RecordHandle {
        store: Arc::new(UnusedStore),
        tag: "t".into(),
        seal: Arc::new(Seal::new(&secret, "t")),
        node: 1,
        name: "a".into(),
        secret: Arc::new(SecretCheck::new(&secret)),
    }
}

impl Play {
    fn of(app: App) -> Play {
        Play::on(app, Options::default(), LIMITS)
    }

    fn on(app: App, options: Options, limits: ActorLimits) -> Play {
        let platform = if app.token == &wecom::TOKEN { SandboxPlatform::Wecom } else { SandboxPlatform::Mp };
        let known = AppOptions { appid: APPID.into(), secret: SECRET.into(), platform, ..AppOptions::default() };
        let world = World::new(&Options { apps: vec![known], ..options }, 1);
        let upstream = ClientOptions::at("http://127.0.0.1:1".to_owned());
        let plan = plan::plans(&upstream, &[app]).remove(0);
        let config = TableConfig { credentials: vec![plan.credential()], ..TableConfig::default() };
        let (table, mut writers, _requests) = Table::new(config);
        let now = Now { boot_ms: 1_000_000, unix_ms: 1_700_000_000_000 };
        let mut play = Play {
            actor: Actor::new(plan, None, limits),
            writer: writers.remove(0),
            _table: table,
            world,
            now,
            budget: VerificationBudget::new(now.boot_ms),
            timers: [None; 2],
            call: None,
            saved_ms: None,
            of_tokens: None,
            of_probes: None,
            calls: Vec::new(),
            answered: 0,
            status_at_answer: None,
        };
        let first_try_ms = play.actor.first_try(now).at_ms;
        play.tell(Event::Started { first_try_ms });
        play
    }

    /// One that has its first value.
    fn live(app: App) -> Play {
        let mut play = Play::of(app);
        play.until("a first value", |play| play.token().is_some());
        play
    }

    fn tell(&mut self, event: Event) {
        for effect in self.actor.on(event, self.now, &mut self.budget) {
            match effect {
                Effect::Show(change) => self.writer.apply(change),
                Effect::SetTimer(timer, at_ms) => self.timers[timer as usize] = at_ms,
                Effect::Fetch(order) => {
                    assert!(self.call.is_none(), "two fetches at once");
                    self.call = Some((self.now.boot_ms + CALL_MS, *order));
                }
                Effect::AwaitSave { .. } => self.saved_ms = Some(self.now.boot_ms + 1),
                Effect::Reply(waiter) => {
                    self.answered += 1;
                    self.status_at_answer = Some(self.status());
                    let _ = waiter.send(());
                }
                Effect::RefundClient => self.budget.refund(),
                _ => {}
            }
        }
    }

    /// Goes on to what happens next, if that is before then. False if nothing does.
    fn step(&mut self, until_ms: BootMs) -> bool {
        let [renewal_ms, probe_ms] = self.timers;
        let call_ms = self.call.as_ref().map(|(at_ms, _)| *at_ms);
        let next_ms = [call_ms, self.saved_ms, renewal_ms, probe_ms].into_iter().flatten().min();
        let at_ms = next_ms.unwrap_or(u64::MAX).max(self.now.boot_ms).min(until_ms);
        self.now.unix_ms += i64::try_from(at_ms - self.now.boot_ms).unwrap();
        self.now.boot_ms = at_ms;
        let is_due = |due_ms: Option<BootMs>| due_ms.is_some_and(|due_ms| due_ms <= at_ms);
        if is_due(call_ms) {
            let (_, order) = self.call.take().unwrap();
            self.end_call(order);
        } else if is_due(self.saved_ms) {
            self.saved_ms = None;
            self.tell(Event::Saved);
        } else if is_due(renewal_ms) {
            self.timers[Timer::Renewal as usize] = None;
            self.tell(Event::Due(Timer::Renewal));
        } else if is_due(probe_ms) {
            self.timers[Timer::Probe as usize] = None;
            self.tell(Event::Due(Timer::Probe));
        } else {
            return false;
        }
        true
    }

    fn run_for(&mut self, ms: u64) {
        let end_ms = self.now.boot_ms + ms;
        while self.step(end_ms) {}
    }

    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&Play) -> bool) {
        let end_ms = self.now.boot_ms + PATIENCE_MS;
        while !holds(self) {
            assert!(self.step(end_ms), "never came: {what}");
        }
    }

    fn end_call(&mut self, order: FetchOrder) {
        let FetchOrder { purpose, held, credential_type, .. } = &order;
        let sent_ms = self.now.boot_ms - CALL_MS;
        let mut probes = 0;
        let outcome = match held {
            Some(held) if purpose.only_probes(credential_type) => {
                probes += 1;
                let Some(probe) = self.probe(credential_type, held) else { return self.hang(order) };
                FetchOutcome::Probed { probe, sent_ms }
            }
            _ => match self.fetch(&order) {
                None => return self.hang(order),
                Some(Err(failure)) => FetchOutcome::Failed { failure, sent_ms },
                Some(Ok(token)) => {
                    let doubted = *purpose != FetchPurpose::Renew || order.renewal_state.is_withdrawn();
                    let is_probed = doubted && held.as_ref() == Some(&token.value) && credential_type.probe.is_some();
                    probes += u64::from(is_probed);
                    let probe = is_probed.then(|| self.probe(credential_type, &token.value)).flatten();
                    FetchOutcome::Answered { token, sent_ms, received_ms: self.now.boot_ms, probe }
                }
            },
        };
        let fetched = u64::from(!matches!(outcome, FetchOutcome::Probed { .. }));
        let report = FetchReport {
            purpose: *purpose,
            calls: fetched + probes,
            probes,
            adoption: None,
            secret: Some(Secret::new(SECRET.to_owned())),
            refused_parent: None,
            usage: None,
            shared: SharingResult::NotShared,
            outcome,
        };
        self.tell(Event::Fetched(Box::new(report)));
    }

    /// No answer comes.
    fn hang(&mut self, order: FetchOrder) {
        self.call = Some((u64::MAX, order));
    }

    /// None if no answer ever comes.
    fn fetch(&mut self, order: &FetchOrder) -> Option<Result<Token, Failure>> {
        let force = order.purpose == FetchPurpose::Force;
        self.calls.push(if force { Call::Forced } else { Call::Token(order.credential_type.id) });
        let (appid, secret) = (Some(order.plan.appid.clone()), Some(SECRET.to_owned()));
        let grant_type = Some("client_credential".to_owned());
        let text = match self.of_tokens.clone() {
            Some(Fault::Answer(text)) => text,
            Some(Fault::Lost) => {
                return Some(Err(Failure::transport(APPID, Delivery::Ambiguous, "lost")));
            }
            Some(Fault::Hang) => return None,
            None => body(&self.ask(&match order.credential_type.id {
                "stable_token" => ApiRequest::Stable { grant_type, appid, secret, force },
                "wecom_token" => ApiRequest::Wecom { corpid: appid, secret },
                _ => ApiRequest::Classic { grant_type, appid, secret },
            })),
        };
        Some(answer::read_token(order.credential_type, APPID, &[], 200, text.as_bytes()))
    }

    /// None if no answer ever comes.
    fn probe(&mut self, credential_type: &CredentialType, value: &[u8]) -> Option<Probe> {
        self.calls.push(Call::Probe);
        let text = match self.of_probes.clone() {
            Some(Fault::Answer(text)) => text,
            Some(Fault::Lost) => return Some(Probe::Unknown),
            Some(Fault::Hang) => return None,
            None => {
                let token = Some(String::from_utf8(value.to_vec()).unwrap());
                body(&self.ask(&ApiRequest::DomainIp { token }))
            }
        };
        Some(answer::read_probe(credential_type.probe.unwrap().api(), 200, text.as_bytes()))
    }

    fn ask(&mut self, request: &ApiRequest) -> crate::sandbox::rules::ApiAnswer {
        self.world.ask(request, PEER, self.now)
    }

    /// What readers get.
    fn token(&self) -> Option<String> {
        match self.writer.read(self.now.boot_ms) {
            Reading::Live(guard) => Some(String::from_utf8(guard.as_ref().unwrap().value.to_vec()).unwrap()),
            Reading::FirstFetch | Reading::Absent => None,
        }
    }

    fn status(&self) -> CredentialStatus {
        self.writer.status(self.now.boot_ms)
    }

    /// How many values there were since the start.
    fn values(&self) -> u64 {
        self.status().outcomes.count(CallOutcome::New)
    }

    fn count(&self, call: Call) -> usize {
        self.calls.iter().filter(|sent| **sent == call).count()
    }

    /// Calls of the token endpoints.
    fn fetches(&self) -> usize {
        self.calls.len() - self.count(Call::Probe)
    }

    fn is_accepted(&self) -> bool {
        self.token().is_some_and(|token| self.world.judge(&token, self.now) == Verdict::Accepted)
    }

    fn doubt(&mut self, generation: Option<u64>, why: VerificationReason) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        self.tell(Event::Verify(VerificationRequest { id: 0, generation, why, done: Some(done) }));
        answer
    }

    /// The same credential is configured otherwise.
    fn change(&mut self, app: App) {
        let upstream = ClientOptions::at("http://127.0.0.1:1".to_owned());
        self.tell(Event::Changed(Arc::new(plan::plans(&upstream, &[app]).remove(0))));
    }

    /// A client's report, until its answer.
    #[track_caller]
    fn report(&mut self, generation: Option<u64>) {
        let before = self.answered;
        let _answer = self.doubt(generation, VerificationReason::Reported);
        self.until("the answer to a report", |play| play.answered > before);
    }
}

/// WxJava#324: the value was cleared before the new one was there.
#[test]
fn wxjava_324_readers_find_a_value_through_every_renewal() {
    for (app, keeps_state) in [(stable(), false), (classic(), false), (classic(), true)] {
        let mut play = Play::on(app, Options::default(), ActorLimits { keeps_state, ..LIMITS });
        play.until("a first value", |play| play.token().is_some());
        while play.values() < 4 {
            assert!(play.step(u64::MAX));
            assert!(play.is_accepted(), "at {} ms", play.now.boot_ms);
        }
        assert!(play.fetches() < 60, "{} fetches", play.fetches());
    }
}

/// google-cloud-rust #5809: a failed early refresh threw away a token that was still good.
#[test]
fn google_cloud_rust_5809_no_failed_renewal_takes_a_live_value_away() {
    let raw = |text: &str| Fault::Answer(text.to_owned());
    let faults = [
        raw("<html>"),
        raw("{"),
        raw(""),
        Fault::Lost,
        errcode(-1),
        errcode(40013),
        errcode(45009),
        errcode(99999),
        raw(r#"{"access_token":"A\r\nEND","expires_in":7200}"#),
        raw(r#"{"access_token":"","expires_in":7200}"#),
    ];
    for fault in faults {
        let mut play = Play::live(stable());
        let first = play.writer.published().unwrap();
        play.of_tokens = Some(fault);
        play.until("a failed renewal", |play| play.status().failures > 0);
        let (now, status) = (play.writer.published().unwrap(), play.status());
        assert_eq!((&now.value, now.generation), (&first.value, first.generation), "{status:?}");
        assert!(now.expires_boot_ms >= first.expires_boot_ms, "{status:?}");
        assert!(status.last_error.is_some());
    }
}

/// google-cloud-rust #4541: the refresh task ended after an error and nothing was ever fetched again.
#[test]
fn google_cloud_rust_4541_a_refusal_slows_the_loop_down_and_never_ends_it() {
    let mut play = Play::of(stable());
    play.of_tokens = Some(errcode(40125));
    play.run_for(60_000);
    assert_eq!((play.status().state, play.fetches()), (CredentialState::Blocked, 1), "a refusal is not retried fast");
    play.tell(Event::SecretRead { secret: Secret::new(SECRET.to_owned()), at_start: false });
    play.run_for(60_000);
    assert_eq!(play.fetches(), 1, "the same secret is no news");
    play.run_for(86_400_000);
    assert!((40..150).contains(&play.fetches()), "{} in a day", play.fetches());
    play.of_tokens = None;
    play.tell(Event::SecretRead { secret: Secret::new("another".into()), at_start: false });
    play.run_for(CALL_MS);
    assert!(play.is_accepted(), "a new secret is used at once");
}

/// google-cloud-rust #5864: an incomplete answer was taken as "no token, ever".
#[test]
fn google_cloud_rust_5864_a_torn_reply_at_boot_is_simply_asked_again() {
    let mut play = Play::of(stable());
    play.of_tokens = Some(Fault::Answer("{\"access_tok".into()));
    play.until("a failure", |play| play.status().failures == 1);
    assert!(matches!(play.writer.read(play.now.boot_ms), Reading::Absent), "nobody waits for this");
    play.of_tokens = None;
    play.run_for(1_100);
    assert!(play.is_accepted());
    assert_eq!((play.fetches(), play.status().last_error), (2, None));
}

/// A known fault of Go's and Java's metadata clients: an early call returns the same value, which is no error.
#[test]
fn the_same_value_again_is_success_and_no_new_generation() {
    let mut play = Play::live(stable());
    let (first, generation) = (play.token(), play.status().generation);
    play.report(None);
    let status = play.status();
    assert_eq!((status.generation, status.same_answers, status.failures), (generation, 1, 0));
    assert_eq!((status.state, play.token()), (CredentialState::Fresh, first));
    assert_eq!(play.count(Call::Probe), 1, "and WeChat was asked whether it lives");
    assert!(status.next_try_boot_ms + 300_000 > status.expires_boot_ms, "the schedule stands");
}

#[test]
fn a_report_of_a_token_that_died_early_brings_a_new_one() {
    for app in [stable(), classic()] {
        let mut play = Play::live(app);
        let (first, generation) = (play.token(), play.status().generation);
        play.world.kill_tokens(APPID);
        play.report(Some(generation));
        assert!(play.is_accepted() && play.token() != first);
        assert_eq!(play.status().generation, generation + 1);
    }
}

#[test]
fn a_false_alarm_costs_a_classic_app_a_probe_and_no_token() {
    let mut play = Play::live(classic());
    let first = play.token();
    play.report(None);
    assert_eq!((play.world.minted(APPID), play.count(Call::Probe)), (1, 1));
    assert_eq!(play.token(), first);
}

#[test]
fn a_probe_without_an_answer_is_no_reason_to_spend_a_classic_token() {
    let mut play = Play::live(classic());
    play.of_probes = Some(Fault::Lost);
    play.report(None);
    assert_eq!(play.world.minted(APPID), 1);
}

/// WxJava#1300: a late 40001 about the old token ended the new one.
#[test]
fn wxjava_1300_a_late_report_about_an_older_generation_costs_nothing() {
    let mut play = Play::live(stable());
    let first = play.status().generation;
    play.world.kill_tokens(APPID);
    play.report(Some(first));
    let calls = play.calls.len();
    for _ in 0..100 {
        play.report(Some(first));
    }
    assert_eq!((play.calls.len(), play.status().generation), (calls, first + 1));
    // The same if nothing was verified lately: the report is late because of a renewal.
    let mut play = Play::live(classic());
    let first = play.status().generation;
    play.until("a renewal", |play| play.status().generation > first);
    play.report(Some(first));
    assert_eq!((play.status().checks, play.count(Call::Probe)), (0, 0));
}

#[test]
fn a_storm_of_a_thousand_reports_is_one_check_and_all_are_answered() {
    let mut play = Play::live(stable());
    let waiting: Vec<_> = (0..1000).map(|_| play.doubt(None, VerificationReason::Reported)).collect();
    assert_eq!(play.answered, 0, "nobody gets an answer before the verification is over");
    play.run_for(CALL_MS);
    assert_eq!(play.answered, 1000);
    assert!(waiting.into_iter().all(|mut answer| answer.try_recv().is_ok()));
    assert_eq!((play.fetches(), play.count(Call::Probe), play.status().checks), (2, 1, 1));
    play.report(None);
    assert_eq!(play.calls.len(), 3, "later reports find that it was just verified");
}

#[test]
fn a_dead_token_that_wechat_hands_out_again_is_replaced_by_one_forced_refresh() {
    let mut play = Play::live(stable());
    let first = play.token();
    play.world.kill_tokens_unnoticed(APPID);
    play.report(None);
    assert!(play.is_accepted() && play.token() != first);
    let status = play.status();
    assert_eq!(
        (status.dead_but_same, status.early_deaths, status.forced, status.state),
        (1, 1, 1, CredentialState::Fresh)
    );
    assert_eq!(play.count(Call::Forced), 1);
}

/// No token is served that is known to be refused, even if there is no other.
#[test]
fn a_token_known_dead_is_not_served_and_served_again_when_it_was_a_false_alarm() {
    let forbidden = App { forced_per_day: Some(0), ..stable() };
    let wecom = App { platform: &wecom::PLATFORM, ..app(&wecom::TOKEN) };
    for app in [forbidden, wecom] {
        let mut play = Play::live(app);
        let first = play.token();
        play.of_probes = Some(errcode(40001));
        play.report(None);
        assert_eq!((play.token(), play.status().state), (None, CredentialState::Dead));
        assert!(matches!(play.writer.read(play.now.boot_ms), Reading::Absent), "nobody is kept waiting");
        assert!(play.status().last_error.unwrap().text.contains("hands it out"));
        play.of_probes = None;
        play.run_for(300_000);
        assert_eq!((play.token(), play.values()), (first, 1));
        assert_eq!(play.status().last_error, None);
    }
}

/// Classic: the probe is refused, and the call for the next token fails.
#[test]
fn a_classic_token_known_dead_is_not_served_while_the_next_one_is_not_to_be_had() {
    let mut play = Play::live(classic());
    play.world.kill_tokens(APPID);
    play.of_tokens = Some(Fault::Answer("<html>".into()));
    play.report(None);
    assert_eq!((play.token(), play.status().state), (None, CredentialState::Dead));
    play.of_tokens = None;
    play.run_for(10_000);
    assert!(play.is_accepted());
}

/// Readers wait for the next token if the present one was just found to be refused; otherwise they would get a miss.
#[test]
fn readers_wait_while_a_dead_token_is_replaced() {
    let mut play = Play::live(classic());
    play.world.kill_tokens(APPID);
    play.of_tokens = Some(Fault::Hang);
    let _answer = play.doubt(None, VerificationReason::Reported);
    play.run_for(2 * CALL_MS);
    assert_eq!(play.status().early_deaths, 1);
    assert!(matches!(play.writer.read(play.now.boot_ms), Reading::FirstFetch));
}

#[test]
fn a_health_probe_finds_a_dead_token_before_any_client_does() {
    let mut play = Play::live(App { probe_every_ms: Some(60_000), ..stable() });
    let first = play.token();
    play.run_for(200_000);
    assert_eq!((play.values(), play.fetches()), (1, 1), "nothing spent");
    assert!(play.count(Call::Probe) >= 3);
    play.world.kill_tokens(APPID);
    play.run_for(61_000);
    assert!(play.is_accepted() && play.token() != first);
    assert_eq!(play.status().early_deaths, 1);
}

/// 45009: the classic quota is used up, and the app allows the stable endpoint as fallback until midnight.
#[test]
fn a_used_up_classic_quota_falls_back_to_the_stable_endpoint_where_the_app_allows_it() {
    for (daily_quota, allowed) in [(None, true), (Some(1), true), (None, false)] {
        let quotas = Quotas { classic_per_day: 1, ..Quotas::default() };
        let fallback = allowed.then_some(&mp::STABLE);
        let app = App { fallback, daily_quota, ..classic() };
        let mut play = Play::on(app, Options { quotas, ..Options::default() }, LIMITS);
        play.until("a first value", |play| play.token().is_some());
        let first = play.token();
        if !allowed {
            play.until("the refusal", |play| play.status().state == CredentialState::Waiting);
            assert_eq!((play.status().endpoint, play.count(Call::Token("stable_token"))), ("token", 0));
            continue;
        }
        play.until("a stable token", |play| play.token().is_some_and(|token| Some(token) != first));
        assert_eq!((play.status().endpoint, play.status().state), ("stable_token", CredentialState::Fresh));
        play.until("its renewal", |play| play.values() >= 3);
        assert!(play.is_accepted());
    }
}

/// 89503 messages the account's administrator at each call.
#[test]
fn no_report_makes_a_call_before_the_time_wechat_has_named() {
    for dead in [false, true] {
        let mut play = Play::live(classic());
        play.of_tokens = Some(errcode(89503));
        play.until("the refusal", |play| play.status().state == CredentialState::Waiting);
        let fetches = play.fetches();
        if dead {
            play.world.kill_tokens(APPID);
        }
        play.report(None);
        assert_eq!((play.fetches(), play.count(Call::Probe)), (fetches, 1), "it is tried all the same");
        assert!(!dead || matches!(play.writer.read(play.now.boot_ms), Reading::Absent));
    }
}

/// A refused write caused a probe, and for a while after that reports of clients were not verified.
#[test]
fn a_report_right_after_a_foreign_writers_is_verified() {
    for app in [stable(), classic()] {
        let mut play = Play::live(app);
        let first = play.token();
        let _answer = play.doubt(None, VerificationReason::ForeignWriter);
        // Until it is over, the running probe answers a report.
        play.until("its probe to be over", |play| play.answered == 1);
        play.world.kill_tokens(APPID);
        play.report(None);
        assert!(play.is_accepted() && play.token() != first);
    }
}

/// The pause between two verifications is for reports about one token: the next token may be refused within it.
#[test]
fn a_token_that_dies_right_after_its_predecessor_is_replaced_too_and_a_third_waits() {
    for app in [stable(), classic()] {
        let mut play = Play::live(app);
        for generation in 2..=4 {
            play.world.kill_tokens(APPID);
            play.report(None);
            assert_eq!(play.values(), generation.min(3));
        }
    }
}

#[test]
fn an_ambiguous_classic_renewal_shortens_the_old_value_and_is_repeated() {
    let mut play = Play::live(classic());
    let first = play.status().expires_boot_ms;
    play.of_tokens = Some(Fault::Lost);
    play.until("the lost call", |play| play.status().failures > 0);
    assert!(play.status().expires_boot_ms < first && play.token().is_some());
    play.of_tokens = None;
    play.until("the next value", |play| play.values() == 2);
    assert!(play.is_accepted());
}

/// A minted value is on disk before a reader has it, and a crash of what waits for the disk does not lose it.
#[test]
fn a_classic_value_waits_for_the_disk_and_for_nothing_else() {
    for crashes in [false, true] {
        let mut play = Play::on(classic(), Options::default(), ActorLimits { keeps_state: true, ..LIMITS });
        play.until("a fetched value", |play| play.values() == 1);
        assert!(play.saved_ms.is_some());
        assert_eq!(play.token(), None, "it is fetched and not served yet");
        let event = if crashes { Event::Crashed } else { Event::Saved };
        play.saved_ms = None;
        play.tell(event);
        assert!(play.is_accepted());
    }
}

#[test]
fn whoever_gets_the_answer_to_a_report_finds_the_result_in_the_status() {
    for why in [VerificationReason::ProbeRequested, VerificationReason::Requested, VerificationReason::Reported] {
        let mut play = Play::live(stable());
        let before = play.status();
        let _answer = play.doubt(None, why);
        play.until("the answer", |play| play.answered == 1);
        let found = play.status_at_answer.take().unwrap();
        assert_eq!(found.looks, before.looks + 1, "{why:?}");
        assert!(found.last_check.is_some_and(|check| check.generation == before.generation), "{why:?}");
    }
}

#[test]
fn an_operators_request_with_an_old_generation_starts_no_second_fetch_beside_the_first() {
    let mut play = Play::of(stable());
    play.until("the first call", |play| play.call.is_some());
    let _answer = play.doubt(Some(7), VerificationReason::Requested);
    assert_eq!(play.answered, 0);
    play.run_for(CALL_MS);
    assert_eq!((play.answered, play.fetches()), (1, 1));
    assert!(play.is_accepted());
}

/// A follower's timer that came while another node was asked was the last one.
#[test]
fn a_renewal_that_is_due_while_another_node_is_asked_or_the_disk_writes_is_not_forgotten() {
    let mut follower = Play::of(App { secret: SecretSource::Absent, ..stable() });
    follower.actor.join(handle());
    follower.run_for(1);
    let _answer = follower.doubt(None, VerificationReason::Requested);
    follower.run_for(600_000);
    assert_eq!(follower.timers[Timer::Renewal as usize], None, "it was due while the others were asked");
    follower.tell(Event::Cluster(ClusterNews::Asked(Ok(()))));
    follower.run_for(0);
    assert!(follower.timers[Timer::Renewal as usize].is_some() && follower.answered == 1);

    let mut play = Play::on(classic(), Options::default(), ActorLimits { keeps_state: true, ..LIMITS });
    play.until("a fetched value", |play| play.saved_ms.is_some());
    play.timers[Timer::Renewal as usize] = None;
    play.tell(Event::Due(Timer::Renewal));
    play.tell(Event::Saved);
    assert!(play.timers[Timer::Renewal as usize].is_some());
}

/// Each value put off the next try, so a node with another secret never said what it lacked.
#[test]
fn values_that_cannot_be_opened_do_not_put_off_a_try_for_ever() {
    let mut play = Play::of(stable());
    play.actor.join(handle());
    for generation in 1..=60 {
        let record = Record { generation, value: Some(format!("not sealed {generation}").into()), ..Record::default() };
        let now_ms = play.now.boot_ms;
        let clock_reading = StoreClockReading { store_ms: now_ms, sent_ms: now_ms, received_ms: now_ms };
        play.tell(Event::Cluster(ClusterNews::Record { record: Box::new(record), clock_reading }));
        play.run_for(900);
        if play.fetches() > 0 {
            assert!(generation > 1, "other nodes had no time to offer their value");
            return;
        }
    }
    panic!("nothing was tried in a minute");
}

/// A fetch of a cluster brings counts from before them, which replaced them.
#[test]
fn counts_of_the_process_before_are_taken_when_no_fetch_of_a_cluster_replaces_them() {
    for (is_in_cluster, while_it_fetches) in [(false, true), (true, false)] {
        let mut play = Play::of(stable());
        if is_in_cluster {
            play.actor.join(handle());
        }
        assert!(play.actor.takes_counts());
        play.until("a call", |play| play.call.is_some());
        assert_eq!(play.actor.takes_counts(), while_it_fetches);
        play.run_for(CALL_MS);
        assert!(play.actor.takes_counts());
    }
}

#[test]
fn a_new_secret_is_used_at_once_wherever_it_is_configured() {
    let source: [fn(Secret) -> SecretSource; 2] = [SecretSource::Fixed, SecretSource::Environment];
    for source in source {
        let mut play = Play::of(stable());
        play.of_tokens = Some(errcode(40125));
        play.until("the refusal", |play| play.status().state == CredentialState::Blocked);
        play.of_tokens = None;
        play.change(App { secret: source(Secret::new("another".into())), ..stable() });
        play.run_for(CALL_MS);
        assert!(play.is_accepted());
    }
}

#[test]
fn a_raised_quota_ends_the_wait_for_the_old_one() {
    for (other, goes_on) in [(Some(1), false), (Some(100), true), (None, true)] {
        let with = |daily_quota| App { daily_quota, ..classic() };
        let mut play = Play::live(with(Some(1)));
        play.until("the quota to be used up", |play| play.status().calls_denied > 0);
        play.change(with(other));
        play.run_for(CALL_MS);
        assert_eq!(play.values() == 2, goes_on, "{other:?}");
    }
}

#[test]
fn a_fallback_that_is_not_configured_any_more_is_not_used_any_more() {
    let with = |fallback| App { fallback, daily_quota: Some(1), ..classic() };
    let mut play = Play::live(with(Some(&mp::STABLE)));
    play.until("the fallback", |play| play.values() == 2);
    play.change(with(Some(&mp::STABLE)));
    assert_eq!(play.status().endpoint, "stable_token");
    let calls = play.count(Call::Token("stable_token"));
    play.change(with(None));
    assert_eq!(play.status().endpoint, "token");
    play.until("the quota to be used up", |play| play.status().state == CredentialState::Waiting);
    assert_eq!(play.count(Call::Token("stable_token")), calls);
    assert!(play.is_accepted(), "its value is good until its end");
}

/// What is limited are reports that were wrong: each shows that the token is good.
#[test]
fn a_client_that_was_right_gets_its_verification_back() {
    let mut play = Play::live(stable());
    play.budget = VerificationBudget::new(play.now.boot_ms);
    let left = |play: &mut Play| (0..1_000).filter(|_| play.budget.try_take(play.now.boot_ms)).count();
    play.world.kill_tokens(APPID);
    play.report(None);
    assert!(left(&mut play) >= 300);
    play.budget = VerificationBudget::new(play.now.boot_ms);
    play.run_for(60_000);
    play.budget = VerificationBudget::new(play.now.boot_ms);
    let _answer = play.doubt(None, VerificationReason::Reported);
    assert_eq!(left(&mut play), 299);
    play.run_for(CALL_MS);
    assert_eq!(play.status().same_answers, 1);
    assert_eq!(left(&mut play), 0, "the answer gave nothing back, and a tenth of a second is not over");
}

/// Nothing was found out about the value, and no call of the token endpoint was lost.
#[test]
fn a_crashed_probe_is_a_probe_that_failed_and_no_lost_call() {
    for why in [VerificationReason::ProbeRequested, VerificationReason::Reported] {
        let mut play = Play::live(classic());
        let before = play.status();
        let _answer = play.doubt(None, why);
        play.call = None;
        play.tell(Event::Crashed);
        let after = play.status();
        assert_eq!((after.failures, after.last_error, after.state), (0, None, CredentialState::Fresh));
        assert_eq!((after.expires_boot_ms, after.next_try_boot_ms), (before.expires_boot_ms, before.next_try_boot_ms));
        assert_eq!((after.calls_today, after.looks, play.answered), (before.calls_today, before.looks + 1, 1));
        play.report(None);
        play.until("a renewal", |play| play.values() == 2);
    }
}

#[test]
fn a_crash_of_what_waits_for_the_disk_is_no_lost_call() {
    let mut play = Play::on(classic(), Options::default(), ActorLimits { keeps_state: true, ..LIMITS });
    play.until("a fetched value", |play| play.saved_ms.is_some());
    play.saved_ms = None;
    let (expires_ms, next_try_ms) = (play.status().next_try_boot_ms, play.timers[Timer::Renewal as usize]);
    play.tell(Event::Crashed);
    assert_eq!((play.status().failures, play.status().last_error), (0, None));
    assert_eq!((play.status().next_try_boot_ms, play.timers[Timer::Renewal as usize]), (expires_ms, next_try_ms));
    assert!(play.is_accepted());
}

/// The access token came while the ticket's fetch was under way, which still found none.
#[test]
fn a_ticket_does_not_wait_beside_an_access_token_that_came_in_the_same_moment() {
    let upstream = ClientOptions::at("http://127.0.0.1:1".to_owned());
    let mut plans = plan::plans(&upstream, &[App { tickets: vec![&mp::JSAPI], ..stable() }]);
    let config = TableConfig { credentials: plans.iter().map(Plan::credential).collect(), ..TableConfig::default() };
    let (table, writers, _requests) = Table::new(config);
    let mut ticket = Actor::new(plans.remove(1), table.credential(0), LIMITS);
    let now = Now { boot_ms: 1_000_000, unix_ms: 1_700_000_000_000 };
    let mut budget = VerificationBudget::new(now.boot_ms);
    let mut tell = |event| ticket.on(event, now, &mut budget);
    let token = |generation, expires_ms| {
        writers[0].publish(Published::to_the_end(Bytes::from_static(b"T"), generation, expires_ms));
    };
    token(1, now.boot_ms + 1);
    tell(Event::Started { first_try_ms: now.boot_ms });
    assert!(tell(Event::Due(Timer::Renewal)).iter().any(|effect| matches!(effect, Effect::Fetch(_))));
    token(2, now.boot_ms + 7_200_000);
    tell(Event::ParentRenewed { generation: 2, poll_ms: 600_000 });
    let effects = tell(Event::Fetched(Box::new(FetchReport::new(FetchPurpose::Renew, FetchOutcome::NoParentToken))));
    let tries = effects.iter().filter_map(|effect| match effect {
        Effect::SetTimer(Timer::Renewal, at_ms) => *at_ms,
        _ => None,
    });
    assert_eq!(tries.last(), Some(now.boot_ms), "and not in a minute");
}

#[test]
fn a_40164_names_the_ip_to_allow() {
    let mut play = Play::of(stable());
    play.world.set_allowlist(APPID, Some(Vec::new()));
    play.until("a refusal", |play| play.status().state == CredentialState::Blocked);
    let error = play.status().last_error.unwrap();
    assert_eq!(error.errcode, Some(40164));
    assert!(error.advice.contains("127.0.0.1") && error.advice.contains("wx1"), "{}", error.advice);
    assert!(error.rid.is_some());
}
