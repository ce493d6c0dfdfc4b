//! The forms in which receivers of WeChat's pushes store a verify ticket: the message as XML or JSON, a quoted text,
//! `name=value`, and the files of PHP's caches. A known and complete form is taken off; everything else is refused.
//!
//! Pure. No error quotes any part of a text, except an appid.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{TicketFault, php};

/// How deep values may be nested; PHP's caches need three levels.
const DEPTH_MAX: usize = 4;
const NO_JSON: TicketFault = TicketFault::Form("is JSON without one whole component_verify_ticket");
const NO_XML: TicketFault = TicketFault::Form("is XML or HTML without one whole ComponentVerifyTicket");
const NO_PAIR: TicketFault = TicketFault::Form("is name=value without one whole component_verify_ticket");
const NO_PHP: TicketFault = TicketFault::Form("is PHP without one whole ticket in it");
const NO_CACHE: TicketFault = TicketFault::Form("is a cache's file without one whole verify ticket in it");
const OTHER_PUSH: TicketFault = TicketFault::Form("is a push of another type than component_verify_ticket");

/// What should be a ticket, and whose it is if the text says so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundTicket {
    pub ticket: String,
    pub appid: Option<String>,
}

impl FoundTicket {
    fn bare(ticket: &str) -> FoundTicket {
        FoundTicket { ticket: ticket.trim().to_owned(), appid: None }
    }
}

/// Takes the form off a trimmed text.
pub(super) fn unwrap(text: &str) -> Result<FoundTicket, TicketFault> {
    match text.as_bytes().first() {
        _ if text.starts_with("<?php") => of_php_file(text),
        Some(b'<') => of_xml(text),
        Some(b'{' | b'[') => of_value(&serde_json::from_str(text).map_err(|_| NO_JSON)?, DEPTH_MAX, &NO_JSON),
        Some(b'"' | b'\'') => unquote(text).map(FoundTicket::bare).ok_or(TicketFault::Characters),
        _ => match of_cache(text) {
            Some(found) => found,
            None => of_pairs(text).unwrap_or_else(|| Ok(FoundTicket::bare(text))),
        },
    }
}

/// A text in quotes of one kind, with nothing to escape in it but JSON's `\/`.
fn unquote(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inside.contains(['"', '\'', '\\'])).then_some(inside)
}

/// The message of a push, decrypted.
fn of_xml(xml: &str) -> Result<FoundTicket, TicketFault> {
    let root = xml.split_once("<xml>").filter(|(before, _)| before.trim().is_empty() || before.starts_with("<?xml"));
    let inside = root.and_then(|(_, rest)| rest.strip_suffix("</xml>"));
    let Some(ticket) = inside.and_then(|inside| element(inside, "ComponentVerifyTicket")) else {
        return Err(if xml.contains("<Encrypt>") { TicketFault::Encrypted } else { NO_XML });
    };
    let inside = inside.unwrap_or_default();
    if inside.contains("<InfoType>") && element(inside, "InfoType") != Some("component_verify_ticket") {
        return Err(OTHER_PUSH);
    }
    let appid = match inside.contains("<AppId>") {
        true => Some(element(inside, "AppId").ok_or(NO_XML)?.to_owned()),
        false => None,
    };
    Ok(FoundTicket { appid, ..FoundTicket::bare(ticket) })
}

/// The content of the one element of that name.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (_, rest) = xml.split_once(&open)?;
    let (content, after) = rest.split_once(&close)?;
    if content.contains(&open) || after.contains(&open) || after.contains(&close) {
        return None;
    }
    let content = content.trim();
    match content.strip_prefix("<![CDATA[") {
        Some(rest) => rest.strip_suffix("]]>").map(str::trim),
        None => Some(content),
    }
}

/// `fault`: that of the form, if there is no ticket.
fn of_value(value: &Value, depth: usize, fault: &TicketFault) -> Result<FoundTicket, TicketFault> {
    let Some(deeper) = depth.checked_sub(1) else { return Err(fault.clone()) };
    match value {
        Value::String(text) => Ok(FoundTicket::bare(text)),
        Value::Object(fields) => of_fields(fields, deeper, fault),
        // A list of numbers and a value: an expiry and the ticket.
        Value::Array(items) => {
            let mut items = items.iter().filter(|item| item.is_string() || item.is_object() || item.is_array());
            match (items.next(), items.next()) {
                (Some(item), None) => of_value(item, deeper, fault),
                _ => Err(fault.clone()),
            }
        }
        _ => Err(fault.clone()),
    }
}

fn of_fields(fields: &Map<String, Value>, depth: usize, fault: &TicketFault) -> Result<FoundTicket, TicketFault> {
    let named = |names: &[&str]| -> Vec<&Value> {
        fields.iter().filter(|(name, _)| names.contains(&plain(name).as_str())).map(|(_, value)| value).collect()
    };
    // If it is there under several names, it must be the same.
    let one = |names: &[&str]| -> Result<Option<String>, TicketFault> {
        let texts = named(names).into_iter().map(|value| of_value(value, depth, fault).map(|found| found.ticket));
        let texts = texts.collect::<Result<BTreeSet<String>, _>>()?;
        if texts.len() > 1 { Err(fault.clone()) } else { Ok(texts.into_iter().next()) }
    };
    let appid = one(&["appid", "componentappid"])?;
    if one(&["infotype"])?.is_some_and(|push| push != "component_verify_ticket") {
        return Err(OTHER_PUSH);
    }
    if let Some(ticket) = one(&["componentverifyticket", "verifyticket"])? {
        return Ok(FoundTicket { ticket, appid });
    }
    if fields.keys().any(|name| plain(name) == "encrypt") {
        return Err(TicketFault::Encrypted);
    }
    // XML libraries and caches put these around it.
    match named(&["xml", "data", "value"]).as_slice() {
        [inner] => of_value(inner, depth, fault).map(|found| FoundTicket { appid: found.appid.or(appid), ..found }),
        _ => Err(fault.clone()),
    }
}

/// A name in lower case without `_` and `-`, because programs differ in these.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

/// `component_verify_ticket=...`: as in an environment file, in a query, or one per line. None if it is none of these.
fn of_pairs(text: &str) -> Option<Result<FoundTicket, TicketFault>> {
    // Base64 may end with this.
    let stem = text.trim_end_matches('=');
    if !stem.contains('=') && !plain(stem).ends_with("verifyticket") {
        return None;
    }
    let mut fields = Map::new();
    for pair in text.split(['\n', '&']).map(str::trim).filter(|pair| !pair.is_empty() && !pair.starts_with('#')) {
        let (name, value) = pair.strip_prefix("export ").unwrap_or(pair).split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if !is_name {
            return None;
        }
        let value = unquote(value).unwrap_or(value);
        if fields.insert(name.to_owned(), Value::String(value.to_owned())).is_some() {
            return Some(Err(NO_PAIR));
        }
    }
    let found = of_fields(&fields, DEPTH_MAX, &NO_PAIR);
    Some(found.and_then(|found| if found.ticket.is_empty() { Err(NO_PAIR) } else { Ok(found) }))
}

/// The output of PHP's `serialize`, alone or in the file caches of frameworks. None if it is none of these.
fn of_cache(text: &str) -> Option<Result<FoundTicket, TicketFault>> {
    let serialized = |text: &str| of_value(&php::unserialize(text).ok_or(NO_CACHE)?, DEPTH_MAX, &NO_CACHE);
    let text = text.strip_prefix("think_serialize:").unwrap_or(text);
    if php::is_serialized(text) {
        return Some(serialized(text));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &text[digits..];
    // Laravel: ten digits of a time, and the value.
    if digits == 10 && php::is_serialized(rest) {
        return Some(serialized(rest));
    }
    // Symfony: a line with a time, one with the item's name, and the value.
    let (id, value) = rest.strip_prefix('\n').filter(|_| digits > 0)?.split_once('\n')?;
    let (item, owner) = id.rsplit_once('.').unwrap_or((id, ""));
    if !item.ends_with("verify_ticket") {
        return Some(Err(NO_CACHE));
    }
    Some(serialized(value).map(|found| FoundTicket { appid: Some(owner.to_owned()), ..found }))
}

/// A file of PHP: `return 'ticket';`, or data behind an exit or in a comment, as ThinkPHP writes it.
fn of_php_file(text: &str) -> Result<FoundTicket, TicketFault> {
    match php::of_file(text) {
        Some(php::PhpContent::Value(value)) => of_value(&value, DEPTH_MAX, &NO_PHP),
        // After an exit there is data only, and no second exit.
        Some(php::PhpContent::Text(text)) if !text.starts_with("<?php") => {
            unwrap(text).and_then(|found| if found.ticket.is_empty() { Err(NO_PHP) } else { Ok(found) })
        }
        _ => Err(NO_PHP),
    }
}
