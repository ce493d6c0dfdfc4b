//! The rows as a whole, and what the named ones say.

use std::collections::BTreeSet;

use super::*;
use crate::platform::ApiEndpoint::{AuthorizerToken, ComponentToken, Probe, StableToken, Ticket, Token};
use crate::platform::failure::{Failure, Wait};
use crate::platform::{PLATFORMS, component};
use crate::texts::in_chinese;

const SLOW: Class = Class::Operator(Pace::Slow);
const SOON: Class = Class::Operator(Pace::Soon);
const NEXT_DAY: Class = Class::Wait(Wait::NextDay);
/// The interface is blocked for a while, and for longer if a call meets the block again.
const GROWING_BLOCK: Class = Class::Wait(Wait::Doubling { first_ms: 60_000, most_ms: 3_600_000 });

fn wait(ms: u64) -> Class {
    Class::Wait(Wait::AtLeastMs(ms))
}

/// Every call that this server makes.
fn calls() -> Vec<ApiCall> {
    let platforms = PLATFORMS.iter().copied().chain([&component::AUTHORIZERS]);
    let types = platforms.flat_map(|platform| platform.tokens.iter().chain(platform.tickets));
    let mut calls = Vec::new();
    for (_, credential_type) in types {
        for api in [Some(credential_type.api), credential_type.probe.map(|probe| probe.api())].into_iter().flatten() {
            if !calls.contains(&api) {
                calls.push(api);
            }
        }
    }
    calls
}

fn codes() -> BTreeSet<i64> {
    rows().flat_map(|(_, row)| row.codes.iter().copied()).collect()
}

fn api(platform: &'static str, endpoint: ApiEndpoint) -> ApiCall {
    ApiCall { platform, endpoint }
}

/// Every row, with its platform's name.
fn rows() -> impl Iterator<Item = (&'static str, &'static ErrcodeRow)> {
    PLATFORMS.iter().flat_map(|platform| platform.errcodes.rows.iter().map(|row| (platform.name, row)))
}

fn has_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

#[test]
fn every_row_says_what_it_means_and_what_to_do_in_both_languages_and_where_it_is_known_from() {
    for (name, row) in rows() {
        let texts = [Some(&row.meaning), Some(&row.advice), row.advice_with_ip.as_ref()];
        for text in texts.into_iter().flatten() {
            assert!(!text.is_empty() && has_chinese(&in_chinese(text)), "{:?}: {text:?}", row.codes);
            assert!(!text.contains("  ") && !text.contains('\n'), "{:?}: {text:?}", row.codes);
        }
        for text in [&row.meaning, &row.advice] {
            assert!(!text.contains('{') && !in_chinese(text).contains('{'), "{:?}: nothing fills it in", row.codes);
        }
        if let Some(text) = &row.advice_with_ip {
            assert!(text.contains("{ip}") && in_chinese(text).contains("{ip}"), "{:?}", row.codes);
        }
        let ErrcodeSource { page, date } = &platform(name).unwrap().errcodes.sources[&row.source];
        let year_first = date.get(..4).and_then(|year| year.parse::<u16>().ok());
        assert!(page.len() > 8 && year_first.is_some_and(|year| year > 2010), "{:?}", row.codes);
    }
}

#[test]
fn a_code_of_a_call_has_one_row() {
    for call in calls() {
        for code in codes() {
            let same = |(platform, row): &(&str, &ErrcodeRow)| {
                row.codes.contains(&code) && *platform == call.platform && row.calls.contains(&call.endpoint)
            };
            assert!(rows().filter(same).count() <= 1, "{call:?} {code}");
        }
    }
}

#[test]
fn no_row_is_reachable_from_a_platform_it_does_not_belong_to() {
    for call in calls() {
        for code in codes() {
            match find(call, code) {
                Some(row) => {
                    assert!(rows().any(|(platform, known)| platform == call.platform && std::ptr::eq(known, row)))
                }
                None => {
                    let failure = Failure::refused(call, "wx1", code, "from ip: 9.8.7.6".into());
                    assert_eq!(failure.class, UNKNOWN_CLASS, "{call:?} {code}");
                    assert_eq!(failure.advice(), advice_on_unknown(call.platform), "{call:?} {code}");
                    assert_eq!(failure.meaning(), Some(UNKNOWN_MEANING), "{call:?} {code}");
                }
            }
        }
    }
}

/// Where people are sent must be the platform's own.
#[test]
fn no_advice_names_another_platforms_console() {
    let own: [(&str, &[&str]); 5] = [
        ("mp", &["mp.weixin.qq.com", "open.weixin.qq.com"]),
        ("component", &["open.weixin.qq.com", "mp.weixin.qq.com"]),
        ("wecom", &["work.weixin.qq.com"]),
        ("qq", &["//q.qq.com"]),
        ("feishu", &["open.feishu.cn"]),
    ];
    let all = ["mp.weixin.qq.com", "open.weixin.qq.com", "work.weixin.qq.com", "//q.qq.com", "open.feishu.cn"];
    let check = |platform: &str, text: &str| {
        let own = own.iter().find(|(name, _)| *name == platform).unwrap().1;
        for said in [text.to_owned(), in_chinese(text)] {
            // "q.qq.com" ends many a name.
            let said = said.replace(" q.qq.com", " //q.qq.com");
            assert!(all.iter().all(|place| own.contains(place) || !said.contains(place)), "{platform}: {said}");
            assert!(platform == "mp" || !said.contains("stable_token"), "{platform}: {said}");
        }
    };
    for (platform, row) in rows() {
        check(platform, &row.advice);
        row.advice_with_ip.iter().for_each(|text| check(platform, text));
    }
    for (platform, _) in own {
        let advice = advice_on_unknown(platform);
        check(platform, advice);
        assert!(own.iter().all(|(other, _)| *other == platform || advice_on_unknown(other) != advice), "{platform}");
    }
}

#[test]
fn every_call_has_rows_and_every_row_a_call() {
    let calls = calls();
    for call in &calls {
        let known = rows().filter(|(platform, row)| *platform == call.platform && row.calls.contains(&call.endpoint));
        assert!(known.count() >= 4, "{call:?}");
        let busy = if call.platform == "feishu" { 2200 } else { -1 };
        assert_eq!(find(*call, busy).map(|row| row.class), Some(Class::Retry), "{call:?}");
    }
    for (platform, row) in rows() {
        for &call in &row.calls {
            assert!(calls.contains(&api(platform, call)), "{platform} {call:?} {:?}: no such call", row.codes);
        }
    }
}

#[test]
fn what_each_code_asks_for() {
    let expected: &[(&[ApiCall], Class, &[i64])] = &[
        (&[api("mp", Token), api("mp", StableToken)], Class::Retry, &[-1, 48017]),
        (
            &[api("mp", Token), api("mp", StableToken)],
            SLOW,
            &[40001, 40013, 40125, 40243, 50002, 50004, 50007, 61024, 48004, 43003, 40066],
        ),
        (&[api("mp", Token), api("mp", StableToken)], SOON, &[40164, 61004, 45035]),
        (&[api("mp", Token), api("mp", StableToken)], Class::Internal, &[40002, 43002, 41002, 41004]),
        (&[api("mp", Token), api("mp", StableToken), api("mp", Ticket)], NEXT_DAY, &[45009]),
        (&[api("mp", Token), api("mp", StableToken), api("mp", Ticket)], wait(60_000), &[45011]),
        (&[api("mp", Token), api("mp", StableToken)], wait(600_000), &[89501, 89503]),
        (&[api("mp", Token), api("mp", StableToken)], wait(3_600_000), &[89507]),
        (&[api("mp", Token), api("mp", StableToken)], wait(86_400_000), &[89506]),
        (&[api("mp", Ticket)], SLOW, &[40001, 40014, 41001, 42001, 48001, 48004, 61007, 50002]),
        (&[api("component", ComponentToken)], SLOW, &[40001, 40125, 40013, 61011, 48001]),
        (&[api("component", ComponentToken)], wait(600_000), &[61005, 61006]),
        (&[api("component", ComponentToken), api("component", AuthorizerToken)], SOON, &[61004, 40164]),
        (&[api("component", AuthorizerToken)], SLOW, &[40001, 61003, 61023]),
        (&[api("wecom", Token)], SLOW, &[40001, 40013, 40091, 48002, 2_000_002]),
        (&[api("wecom", Token), api("wecom", Ticket), api("wecom", Probe)], SOON, &[60020]),
        (&[api("wecom", Token), api("wecom", Ticket), api("wecom", Probe)], GROWING_BLOCK, &[45009]),
        (&[api("wecom", Token), api("wecom", Ticket), api("wecom", Probe)], Class::Retry, &[-1, 45033]),
        (&[api("qq", Token)], SLOW, &[40001, 40013, 40125]),
        (&[api("qq", Token)], Class::Internal, &[40002, 41002, 41004]),
        (&[api("feishu", Token)], SLOW, &[10003, 10012, 10013, 10014, 99_991_403]),
        (&[api("feishu", Token)], wait(60_000), &[99_991_400]),
    ];
    for (calls, class, codes) in expected {
        for (call, code) in calls.iter().flat_map(|call| codes.iter().map(move |code| (*call, *code))) {
            assert_eq!(classify(call, code), *class, "{call:?} {code}");
        }
    }
}

#[track_caller]
fn advises(api: ApiCall, code: i64, message: &str, has: &[&str], has_not: &[&str]) {
    let failure = Failure::refused(api, "wx1", code, message.into());
    let said = format!("{failure} / {} / {}", failure.advice(), in_chinese(&failure.advice()));
    assert!(has.iter().all(|text| said.contains(text)), "{said}");
    assert!(has_not.iter().all(|text| !said.contains(text)), "{said}");
}

#[test]
fn a_wecom_block_is_a_block_and_no_daily_quota() {
    let has_not = ["daily", "next day", "clear_quota", "stable_token", "次日"];
    advises(api("wecom", Token), 45009, "api freq out of limit", &["after a minute", "一分钟后"], &has_not);
}

#[test]
fn a_wecom_address_is_added_at_wecom() {
    let message = "not allow to access from your ip, hint: [16], from ip: 9.8.7.6, more info";
    let has = ["9.8.7.6", "work.weixin.qq.com", "企业可信IP"];
    advises(api("wecom", Token), 60020, message, &has, &["mp.weixin.qq.com", "{"]);
    advises(api("wecom", Token), 60020, "", &["outgoing IP", "work.weixin.qq.com"], &["{"]);
}

#[test]
fn a_tickets_40001_is_about_the_access_token_and_not_about_the_secret() {
    let message = "invalid credential, access_token is invalid or not latest";
    for call in [api("mp", Ticket), api("wecom", Ticket), api("component", AuthorizerToken)] {
        advises(call, 40001, message, &["was refused for this call", "没有问题"], &["wrong app secret", "in place"]);
        assert!(Failure::refused(call, "wx1", 40001, message.into()).refuses_token());
    }
    assert!(!Failure::refused(api("mp", Token), "wx1", 40001, message.into()).refuses_token());
}

#[test]
fn only_a_classic_token_is_advised_to_use_the_stable_one() {
    let message = "reach max api daily quota limit";
    advises(api("mp", Token), 45009, message, &["stable_token"], &[]);
    advises(api("mp", StableToken), 45009, message, &["clear_quota"], &["stable_token"]);
    advises(api("mp", Ticket), 45009, message, &["ticket's own", "票据接口"], &["use the stable_token"]);
    let held_back = |call| Failure::quota_used_up(call, "wx1", String::new()).advice().into_owned();
    assert!(held_back(api("mp", Token)).contains("stable_token"));
    for call in [api("mp", StableToken), api("mp", Ticket), api("wecom", Ticket), api("qq", Token)] {
        assert!(!held_back(call).contains("stable_token"), "{call:?}");
    }
}

#[test]
fn a_ticket_without_a_right_is_the_operators_alone() {
    advises(api("mp", Ticket), 48001, "api unauthorized", &["no right", "only you", "只能由您"], &["unknown error"]);
}

#[test]
fn a_verify_ticket_may_be_another_components() {
    advises(api("component", ComponentToken), 61006, "", &["another component", "其他第三方平台"], &[]);
}

#[test]
fn feishus_codes_are_feishus() {
    advises(api("feishu", Token), 10014, "app secret invalid", &["wrong app secret", "open.feishu.cn"], &["weixin"]);
    advises(api("feishu", Token), 99_991_400, "", &["too many calls", "a minute"], &["weixin"]);
    advises(api("feishu", Token), 123, "x", &["unknown error", "open.feishu.cn"], &["weixin"]);
}

#[test]
fn only_a_refused_secret_asks_for_another_one() {
    let asks = |call, code| Failure::refused(call, "wx1", code, String::new()).asks_for_secret();
    assert!(asks(api("mp", StableToken), 40001) && asks(api("mp", Token), 40125) && asks(api("wecom", Token), 40091));
    assert!(asks(api("component", AuthorizerToken), 61023) && asks(api("feishu", Token), 10014));
    for (call, code) in [
        (api("mp", Ticket), 40001),
        (api("wecom", Ticket), 40001),
        (api("component", AuthorizerToken), 40001),
        (api("mp", Token), 40243),
        (api("mp", Token), 40164),
    ] {
        assert!(!asks(call, code), "{call:?} {code}");
    }
}
