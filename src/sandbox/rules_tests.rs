//! The rules in virtual time. Every deadline is met from both sides, one millisecond apart.

use std::net::{IpAddr, Ipv4Addr};

use super::options::{AppOptions, Options, Quotas, SandboxPlatform};
use super::rules::{ApiAnswer, ApiRequest, Endpoint, Verdict, World};
use crate::clock::Now;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const LIFETIME_MS: u64 = 7_200_000;
const OVERLAP_MS: u64 = 300_000;
const WINDOW_MS: u64 = 300_000;
/// 2024-03-01 08:00 in UTC+8: sixteen hours before a day turns.
const START_UNIX_MS: i64 = 1_709_251_200_000;
const DAY_TURN_MS: u64 = 16 * 3_600_000;

fn world_with(change: impl FnOnce(&mut Options)) -> World {
    let app = |appid: &str, secret: &str, platform| AppOptions {
        appid: appid.into(),
        secret: secret.into(),
        platform,
        ..AppOptions::default()
    };
    let apps = vec![
        app("wx", "s", SandboxPlatform::Mp),
        app("corp/a", "sa", SandboxPlatform::Wecom),
        app("corp/b", "sb", SandboxPlatform::Wecom),
        app("corp-other", "so", SandboxPlatform::Wecom),
    ];
    let mut options = Options { apps, ..Options::default() };
    change(&mut options);
    World::new(&options, 1)
}

/// A component and an account that has authorised it.
fn open_platform(rotate_refresh_tokens: bool) -> World {
    world_with(|options| {
        options.rotate_refresh_tokens = rotate_refresh_tokens;
        for (appid, platform) in [("wxc", SandboxPlatform::Component), ("wxd", SandboxPlatform::Component)] {
            options.apps.push(AppOptions {
                appid: appid.into(),
                secret: "s".into(),
                platform,
                ..AppOptions::default()
            });
        }
        options.apps.push(AppOptions {
            appid: "wxa".into(),
            authorizer_of: some("wxc"),
            refresh_token: "R".into(),
            ..AppOptions::default()
        });
    })
}

fn component_of(world: &mut World, appid: &str, ticket: &str, ms: u64) -> ApiAnswer {
    let ask = ApiRequest::Component { appid: some(appid), secret: some("s"), ticket: some(ticket) };
    world.ask(&ask, PEER, at(ms))
}

fn component(world: &mut World, appid: &str) -> String {
    let ticket = world.push_verify_ticket(appid, at(0)).unwrap();
    match component_of(world, appid, &ticket, 0) {
        ApiAnswer::Component { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

fn authorizer(world: &mut World, token: &str, refresh: &str) -> Result<(String, String), i64> {
    let ask = ApiRequest::Authorizer {
        token: some(token),
        component: some("wxc"),
        appid: some("wxa"),
        refresh: some(refresh),
    };
    match world.ask(&ask, PEER, at(0)) {
        ApiAnswer::Authorizer { value, refresh_token, .. } => Ok((value, refresh_token)),
        ApiAnswer::Refused { errcode, .. } => Err(errcode),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_verify_ticket_is_good_for_twelve_hours_and_another_does_not_end_it() {
    let mut world = open_platform(false);
    let ticket = world.push_verify_ticket("wxc", at(0)).unwrap();
    world.push_verify_ticket("wxc", at(600_000)).unwrap();
    let hours_12 = 12 * 3_600_000;
    assert!(matches!(component_of(&mut world, "wxc", &ticket, hours_12 - 1), ApiAnswer::Component { .. }));
    let refused = |answer| match answer {
        ApiAnswer::Refused { errcode, .. } => errcode,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(component_of(&mut world, "wxc", &ticket, hours_12)), 61005);
    assert_eq!(refused(component_of(&mut world, "wxc", "ticket@@@other", 0)), 61006);
    assert_eq!(refused(component_of(&mut world, "wx", &ticket, 0)), 40013, "no component");
    let classic = ApiRequest::Classic { grant_type: some("client_credential"), appid: some("wxc"), secret: some("s") };
    assert_eq!(refused(world.ask(&classic, PEER, at(0))), 61024);
    assert_eq!(world.push_verify_ticket("wx", at(0)), None);
}

#[test]
fn an_accounts_token_is_had_with_its_own_components_token_and_the_refresh_token_of_the_hour() {
    for rotates in [false, true] {
        let mut world = open_platform(rotates);
        let token = component(&mut world, "wxc");
        let (first, refresh) = authorizer(&mut world, &token, "R").unwrap();
        assert_eq!(world.judge(&first, at(0)), Verdict::Accepted);
        assert_eq!(refresh == "R", !rotates);
        assert_eq!(authorizer(&mut world, &token, "R").err(), rotates.then_some(61023));
        let stranger = component(&mut world, "wxd");
        assert_eq!(authorizer(&mut world, &stranger, &refresh).err(), Some(40001));
        world.kill_tokens("wxc");
        assert_eq!(authorizer(&mut world, &token, &refresh).err(), Some(40001));
    }
}

#[test]
fn who_withdraws_ends_the_refresh_token_and_who_authorises_anew_gets_another() {
    let mut world = open_platform(false);
    let token = component(&mut world, "wxc");
    assert!(world.withdraw("wxa"));
    assert_eq!(authorizer(&mut world, &token, "R").err(), Some(61023));
    let refresh = world.authorise("wxa").unwrap();
    assert_eq!(world.refresh_token_of("wxa").as_ref(), Some(&refresh));
    assert!(authorizer(&mut world, &token, &refresh).is_ok());
    assert_eq!(world.authorise("wx"), None, "has authorised nobody");
}

fn account(appid: &str, secret: &str) -> AppOptions {
    AppOptions { appid: appid.into(), secret: secret.into(), ..AppOptions::default() }
}

fn world() -> World {
    world_with(|_| ())
}

/// Both clocks, so many milliseconds after the start.
fn at(ms: u64) -> Now {
    Now { boot_ms: 1_000 + ms, unix_ms: START_UNIX_MS + ms as i64 }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn classic_ask() -> ApiRequest {
    ApiRequest::Classic { grant_type: some("client_credential"), appid: some("wx"), secret: some("s") }
}

fn stable_ask(force: bool) -> ApiRequest {
    ApiRequest::Stable { grant_type: some("client_credential"), appid: some("wx"), secret: some("s"), force }
}

fn wecom_ask(corpid: &str, secret: &str) -> ApiRequest {
    ApiRequest::Wecom { corpid: some(corpid), secret: some(secret) }
}

#[track_caller]
fn token(world: &mut World, ask: &ApiRequest, ms: u64) -> (String, u64) {
    match world.ask(ask, PEER, at(ms)) {
        ApiAnswer::Token { value, expires_in_s, .. } => (value, expires_in_s),
        other => panic!("no token but {other:?}"),
    }
}

fn classic(world: &mut World, ms: u64) -> String {
    token(world, &classic_ask(), ms).0
}

fn stable(world: &mut World, ms: u64) -> String {
    token(world, &stable_ask(false), ms).0
}

fn forced(world: &mut World, ms: u64) -> String {
    token(world, &stable_ask(true), ms).0
}

#[track_caller]
fn refusal(world: &mut World, ask: &ApiRequest, ms: u64) -> (i64, String) {
    match world.ask(ask, PEER, at(ms)) {
        ApiAnswer::Refused { errcode, errmsg, .. } => (errcode, errmsg),
        other => panic!("no refusal but {other:?}"),
    }
}

#[track_caller]
fn check_verdicts(world: &World, token: &str, verdicts: &[(u64, Verdict)]) {
    for (ms, expected) in verdicts {
        assert_eq!(world.judge(token, at(*ms)), *expected, "at {ms} ms");
    }
}

#[test]
fn classic_mints_every_time_and_the_old_token_lives_for_the_overlap() {
    let mut world = world();
    let first = classic(&mut world, 0);
    let second = classic(&mut world, 1000);
    assert_ne!(first, second);
    let end = 1000 + OVERLAP_MS;
    check_verdicts(&world, &first, &[(end - 1, Verdict::Accepted), (end, Verdict::NotLatest)]);
    check_verdicts(&world, &second, &[(end, Verdict::Accepted)]);
}

#[test]
fn only_one_previous_token_lives_on() {
    let mut world = world();
    let first = classic(&mut world, 0);
    let second = classic(&mut world, 1000);
    classic(&mut world, 2000);
    check_verdicts(&world, &first, &[(1999, Verdict::Accepted), (2000, Verdict::NotLatest)]);
    check_verdicts(&world, &second, &[(2000, Verdict::Accepted)]);
}

#[test]
fn a_token_expires_to_the_millisecond() {
    let mut world = world();
    let only = classic(&mut world, 0);
    check_verdicts(&world, &only, &[(LIFETIME_MS - 1, Verdict::Accepted), (LIFETIME_MS, Verdict::Expired)]);
}

#[test]
fn an_overlap_does_not_outlive_the_token() {
    let mut world = world();
    let first = classic(&mut world, 0);
    classic(&mut world, LIFETIME_MS - 10);
    check_verdicts(&world, &first, &[(LIFETIME_MS - 1, Verdict::Accepted), (LIFETIME_MS, Verdict::Expired)]);
}

#[test]
fn stable_gives_the_same_token_until_its_window() {
    let mut world = world();
    let first = stable(&mut world, 0);
    let edge = LIFETIME_MS - WINDOW_MS;
    assert_eq!(token(&mut world, &stable_ask(false), edge), (first.clone(), 300), "the last whole answer");
    let (second, left_s) = token(&mut world, &stable_ask(false), edge + 1);
    assert_ne!(second, first);
    assert_eq!(left_s, 7200);
    check_verdicts(&world, &first, &[(edge + 1, Verdict::Accepted), (LIFETIME_MS, Verdict::Expired)]);
}

#[test]
fn stable_rounds_the_remaining_seconds_down() {
    let mut world = world();
    stable(&mut world, 0);
    let mut left = |ms| token(&mut world, &stable_ask(false), ms).1;
    assert_eq!((left(0), left(1), left(1000), left(1001)), (7200, 7199, 7199, 7198));
}

#[test]
fn classic_and_stable_never_touch_each_other() {
    let mut world = world();
    let calm = stable(&mut world, 0);
    for ms in 1..4 {
        classic(&mut world, ms);
    }
    check_verdicts(&world, &calm, &[(OVERLAP_MS + 4, Verdict::Accepted)]);
    assert_eq!(stable(&mut world, 4), calm);
    let kept = classic(&mut world, 5);
    forced(&mut world, 6);
    forced(&mut world, 30_006);
    check_verdicts(&world, &kept, &[(30_006, Verdict::Accepted)]);
}

#[test]
fn forced_calls_closer_than_30_s_refresh_nothing() {
    let mut world = world();
    let first = forced(&mut world, 0);
    assert_eq!(forced(&mut world, 29_999), first);
    assert_ne!(forced(&mut world, 30_000), first);
}

#[test]
fn two_forced_calls_kill_a_leaked_token_at_once() {
    let mut world = world();
    let leaked = stable(&mut world, 0);
    forced(&mut world, 1000);
    check_verdicts(&world, &leaked, &[(30_999, Verdict::Accepted)]);
    forced(&mut world, 31_000);
    check_verdicts(&world, &leaked, &[(31_000, Verdict::NotLatest)]);
}

#[test]
fn forced_calls_have_a_small_budget_that_returns_with_the_day() {
    let mut world = world();
    for call in 0..20 {
        forced(&mut world, call * 30_000);
    }
    assert_eq!(refusal(&mut world, &stable_ask(true), 600_000).0, 45009);
    stable(&mut world, 600_000); // normal mode goes on
    assert_eq!(refusal(&mut world, &stable_ask(true), DAY_TURN_MS - 1).0, 45009);
    forced(&mut world, DAY_TURN_MS);
}

#[test]
fn quotas_end_in_their_errcodes_and_turn_with_their_period() {
    let mut world = world_with(|options| {
        options.quotas = Quotas { classic_per_day: 1, stable_per_minute: 1, stable_per_day: 2, ..Quotas::default() };
    });
    classic(&mut world, 0);
    assert_eq!(refusal(&mut world, &classic_ask(), DAY_TURN_MS - 1).0, 45009);
    classic(&mut world, DAY_TURN_MS);
    stable(&mut world, DAY_TURN_MS);
    assert_eq!(refusal(&mut world, &stable_ask(false), DAY_TURN_MS + 59_999).0, 45011);
    assert_eq!(refusal(&mut world, &stable_ask(false), DAY_TURN_MS + 60_000).0, 45009);
}

/// Its tokens are fetched a hundred times as often, and the day has as many more calls.
#[test]
fn short_lives_have_larger_quotas() {
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(Quotas::default().scaled(2 * hour), Quotas::default());
    assert_eq!(Quotas::default().scaled(200 * hour), Quotas::default(), "never smaller than WeChat's");
    let minute = Quotas::default().scaled(hour / 60);
    assert_eq!((minute.classic_per_day, minute.ticket_per_day, minute.clear_per_month), (240_000, 120_000, 10));
}

#[test]
fn qq_mints_at_each_call_with_the_classic_codes() {
    let mut world =
        world_with(|options| options.apps.push(AppOptions { platform: SandboxPlatform::Qq, ..account("111", "q") }));
    let ask = |appid: &str, secret: &str| ApiRequest::Qq {
        grant_type: some("client_credential"),
        appid: some(appid),
        secret: some(secret),
    };
    let mut token = |ms| match world.ask(&ask("111", "q"), PEER, at(ms)) {
        ApiAnswer::Token { platform: SandboxPlatform::Qq, value, .. } => value,
        other => panic!("{other:?}"),
    };
    let (first, second) = (token(0), token(1000));
    assert_ne!(first, second);
    assert_eq!(world.judge(&first, at(1000 + OVERLAP_MS)), Verdict::NotLatest);
    assert_eq!(refusal(&mut world, &ask("111", "no"), 0).0, 40125);
    assert_eq!(refusal(&mut world, &ask("wx", "s"), 0).0, 40013, "an official account is no QQ app");
}

#[test]
fn feishu_gives_another_token_in_the_last_half_hour_and_both_live_on() {
    let mut world = world_with(|options| {
        options.apps.push(AppOptions { platform: SandboxPlatform::Feishu, ..account("cli_1", "f") })
    });
    let ask = |id: &str, secret: &str| ApiRequest::Feishu { app_id: some(id), secret: some(secret) };
    let mut token = |ms| match world.ask(&ask("cli_1", "f"), PEER, at(ms)) {
        ApiAnswer::Token { platform: SandboxPlatform::Feishu, value, .. } => value,
        other => panic!("{other:?}"),
    };
    let half_hour_left = LIFETIME_MS - 1_800_000;
    let first = token(0);
    assert_eq!(token(half_hour_left), first);
    let second = token(half_hour_left + 1);
    assert_ne!(second, first);
    let end = at(LIFETIME_MS - 1);
    assert_eq!((world.judge(&first, end), world.judge(&second, end)), (Verdict::Accepted, Verdict::Accepted));
    assert_eq!(refusal(&mut world, &ask("cli_1", "no"), 0), (10014, "app secret invalid".to_owned()));
    assert_eq!(refusal(&mut world, &ask("wx", "s"), 0).0, 10003);
}

#[test]
fn clearing_the_quota_works_ten_times_a_month() {
    let mut world = world_with(|options| options.quotas.classic_per_day = 1);
    let clear = ApiRequest::ClearQuota { appid: some("wx"), secret: some("s") };
    for call in 0..10 {
        classic(&mut world, call);
        assert_eq!(refusal(&mut world, &classic_ask(), call).0, 45009);
        assert_eq!(world.ask(&clear, PEER, at(call)), ApiAnswer::Done);
    }
    assert_eq!(refusal(&mut world, &clear, 10).0, 48006);
}

#[test]
fn each_wrong_credential_has_its_own_errcode() {
    let mut world = world();
    let ask = |grant: &str, appid: Option<&str>, secret: Option<&str>| ApiRequest::Classic {
        grant_type: some(grant),
        appid: appid.map(str::to_owned),
        secret: secret.map(str::to_owned),
    };
    let cases = [
        (ask("password", Some("wx"), Some("s")), 40002),
        (ask("client_credential", None, Some("s")), 41002),
        (ask("client_credential", Some("wx"), None), 41004),
        (ask("client_credential", Some("wy"), Some("s")), 40013),
        (ask("client_credential", Some("corp-other"), Some("so")), 40013),
        (ask("client_credential", Some("wx"), Some("S")), 40125),
        (wecom_ask("nocorp", "sa"), 40013),
        (wecom_ask("cor", "sa"), 40013),
        (wecom_ask("corp", "so"), 40001),
        (ApiRequest::Wecom { corpid: None, secret: some("sa") }, 41002),
        (ApiRequest::Wecom { corpid: some("corp"), secret: None }, 41004),
        (ApiRequest::Menu { token: None }, 41001),
        (ApiRequest::Menu { token: some("not a token") }, 40014),
        (ApiRequest::Menu { token: some("A".repeat(136).as_str()) }, 40001),
    ];
    for (ask, errcode) in cases {
        assert_eq!(refusal(&mut world, &ask, 0).0, errcode, "{ask:?}");
    }
}

#[test]
fn messages_have_the_real_shapes() {
    let mut world = world();
    world.set_allowlist("wx", Some(vec![]));
    let (errcode, text) = refusal(&mut world, &classic_ask(), 0);
    let start = "invalid ip 192.0.2.7 ipv6 ::ffff:192.0.2.7, not in whitelist rid: ";
    let rid = text.strip_prefix(start).unwrap();
    assert_eq!((errcode, rid.len()), (40164, 26));
    assert!(rid.split('-').all(|part| part.len() == 8 && part.bytes().all(|b| b.is_ascii_hexdigit())), "{rid}");
    world.set_allowlist("wx", Some(vec![PEER]));
    classic(&mut world, 0);

    world.set_allowlist("corp/a", Some(vec![]));
    let (errcode, text) = refusal(&mut world, &wecom_ask("corp", "sa"), 0);
    assert_eq!(errcode, 60020);
    assert!(text.contains(", hint: [") && text.contains("], from ip: 192.0.2.7, more info at "), "{text}");
    assert!(text.ends_with("query?e=60020"), "{text}");

    let wrong = ApiRequest::Classic { grant_type: some("client_credential"), appid: some("wx"), secret: some("x") };
    assert!(refusal(&mut world, &wrong, 0).1.starts_with("invalid appsecret, rid: "));
    let never_issued = ApiRequest::Menu { token: some("A".repeat(136).as_str()) };
    let text = refusal(&mut world, &never_issued, 0).1;
    assert!(text.starts_with("invalid credential, access_token is invalid or not latest, could get"), "{text}");
}

#[test]
fn a_frozen_secret_stops_new_tokens_only() {
    let mut world = world();
    let live = classic(&mut world, 0);
    world.freeze_secret("wx", true);
    assert_eq!(refusal(&mut world, &classic_ask(), 1).0, 40243);
    check_verdicts(&world, &live, &[(1, Verdict::Accepted)]);
    world.freeze_secret("wx", false);
    classic(&mut world, 2);
}

#[test]
fn early_death_is_noticed_or_not() {
    let mut world = world();
    let first = stable(&mut world, 0);
    world.kill_tokens("wx");
    check_verdicts(&world, &first, &[(0, Verdict::NotLatest)]);
    let second = stable(&mut world, 1);
    assert_ne!(second, first);
    world.kill_tokens_unnoticed("wx");
    assert_eq!(stable(&mut world, 2), second, "still given out");
    check_verdicts(&world, &second, &[(2, Verdict::NotLatest)]);
    let third = forced(&mut world, 3);
    check_verdicts(&world, &third, &[(3, Verdict::Accepted)]);
}

#[test]
fn a_ticket_says_7200_until_it_is_rolled() {
    let mut world = world();
    let access = classic(&mut world, 0);
    let ask = |platform: &str| ApiRequest::Ticket { token: some(&access), ticket_type: some(platform) };
    let first = world.ask(&ask("jsapi"), PEER, at(0));
    assert_ne!(world.ask(&ask("wx_card"), PEER, at(0)), first);
    assert_eq!(world.ask(&ask("jsapi"), PEER, at(LIFETIME_MS - 1)), first);
    assert!(matches!(first, ApiAnswer::Ticket { expires_in_s: 7200, .. }), "{first:?}");
    world.roll_tickets("wx");
    assert_ne!(world.ask(&ask("jsapi"), PEER, at(1)), first);
    assert_eq!(refusal(&mut world, &ask("nonsense"), 1).0, 40097);
}

#[test]
fn a_ticket_is_rolled_on_time() {
    let mut world = world_with(|options| options.ticket_roll_s = Some(60));
    let access = classic(&mut world, 0);
    let ask = ApiRequest::Ticket { token: some(&access), ticket_type: some("jsapi") };
    let first = world.ask(&ask, PEER, at(0));
    assert_eq!(world.ask(&ask, PEER, at(59_999)), first);
    assert_ne!(world.ask(&ask, PEER, at(60_000)), first);
}

#[test]
fn ticket_calls_are_few() {
    let mut world = world_with(|options| {
        options.quotas = Quotas { ticket_per_day: 1, wecom_ticket_per_hour: 1, ..Quotas::default() };
    });
    let mp = ApiRequest::Ticket { token: Some(classic(&mut world, 0)), ticket_type: some("jsapi") };
    let wecom = ApiRequest::CorpTicket { token: Some(token(&mut world, &wecom_ask("corp", "sa"), 0).0) };
    for ask in [mp, wecom] {
        assert!(matches!(world.ask(&ask, PEER, at(0)), ApiAnswer::Ticket { .. }));
        assert_eq!(refusal(&mut world, &ask, 1).0, 45009);
    }
}

#[test]
fn wecom_gives_the_same_token_until_it_expires() {
    let mut world = world();
    let first = token(&mut world, &wecom_ask("corp", "sa"), 0).0;
    assert_eq!(token(&mut world, &wecom_ask("corp", "sa"), LIFETIME_MS - 1).0, first);
    let menu = ApiRequest::Menu { token: some(&first) };
    assert_eq!(refusal(&mut world, &menu, LIFETIME_MS).0, 42001);
    assert_ne!(token(&mut world, &wecom_ask("corp", "sa"), LIFETIME_MS).0, first);
}

#[test]
fn the_secret_says_which_wecom_app_is_meant() {
    let mut world = world();
    let a = token(&mut world, &wecom_ask("corp", "sa"), 0).0;
    let b = token(&mut world, &wecom_ask("corp", "sb"), 0).0;
    assert_ne!(a, b);
    world.kill_tokens("corp/b");
    check_verdicts(&world, &a, &[(0, Verdict::Accepted)]);
    check_verdicts(&world, &b, &[(0, Verdict::NotLatest)]);
    assert_eq!(refusal(&mut world, &ApiRequest::Menu { token: Some(b) }, 0).0, 40014, "WeCom's code for a dead token");
    assert_eq!((world.minted("corp/a"), world.minted("corp-other")), (1, 0));
}

#[test]
fn account_kinds_do_not_mix() {
    let mut world = world();
    let mp = Some(classic(&mut world, 0));
    let wecom = Some(token(&mut world, &wecom_ask("corp", "sa"), 0).0);
    assert_eq!(refusal(&mut world, &ApiRequest::Ticket { token: wecom, ticket_type: some("jsapi") }, 0).0, 48001);
    assert_eq!(refusal(&mut world, &ApiRequest::CorpTicket { token: mp }, 0).0, 40014);
}

#[test]
fn a_long_run_forgets_old_tokens() {
    let mut world = world();
    let calm = stable(&mut world, 0);
    let first = classic(&mut world, 0);
    for ms in 1..200 {
        classic(&mut world, ms);
    }
    assert_eq!(stable(&mut world, 200), calm, "a live token is never forgotten");
    check_verdicts(&world, &first, &[(200, Verdict::NotLatest), (LIFETIME_MS, Verdict::NotLatest)]);
    assert_eq!((world.minted("wx"), world.remembered_tokens()), (201, 64));
}

#[test]
fn tokens_have_the_asked_length_and_the_right_characters() {
    for len in [0, 16, 136, 512] {
        let mut world = world_with(|options| options.token_len = len);
        let minted = classic(&mut world, 0);
        assert_eq!(minted.len(), len.max(16));
        check_verdicts(&world, &minted, &[(0, Verdict::Accepted)]);
    }
}

#[test]
fn odd_settings_do_no_harm() {
    let mut world = world_with(|options| {
        options.lifetime_s = u64::MAX;
        options.overlap_ms = Some(u64::MAX);
        options.ticket_roll_s = Some(0);
    });
    let far = Now { boot_ms: u64::MAX, unix_ms: i64::MIN };
    for ask in [classic_ask(), stable_ask(true), stable_ask(false), wecom_ask("corp", "sa")] {
        world.ask(&ask, PEER, far);
        world.ask(&ask, PEER, at(0));
    }
    assert_eq!(classic_ask().endpoint(), Endpoint::Token);
}
