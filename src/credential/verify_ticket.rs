//! Verify tickets that are received: reads one from a text, and passes it to the refresher.
//!
//! Pure. Never shows any part of a ticket.

mod forms;
mod php;

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::id::CredentialId;
use crate::secret::Secret;

/// WeChat's tickets have 95 bytes; its page on the push names no limit.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 1024;
/// The largest text that is read: a ticket or its message.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// How many tickets may wait for the refresher. Each component gets one in ten minutes.
const TICKETS_MAX: usize = 256;

/// What to write instead of a refused text.
const WRITE: &str = "write the ticket alone, as ticket@@@..., or the decrypted XML message that it came in";

/// Why a text is not a verify ticket, or could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketFault {
    #[error("is empty")]
    Empty,
    #[error("is too short or too long for a verify ticket; {}", WRITE)]
    Size,
    #[error("has characters a verify ticket cannot have; {}", WRITE)]
    Characters,
    /// In a form that is unknown or incomplete, or that has several tickets.
    #[error("{0}; {WRITE}")]
    Form(&'static str),
    #[error(
        "is a push that is still encrypted (Encrypt); it must be decrypted first, with the component's EncodingAESKey; {}",
        WRITE
    )]
    Encrypted,
    /// Another kind of WeChat's values.
    #[error("is {0}, not a verify ticket; {WRITE}")]
    OtherValue(&'static str),
    #[error("is of component {of}, and this is {this}; give each component a file of its own")]
    OtherComponent { of: String, this: String },
    #[error("is for a component that is not configured")]
    UnknownComponent,
    #[error("cannot be taken now; hand it in again")]
    Busy,
}

/// Reads the ticket of this component from a text: the bare ticket, the decrypted message of WeChat's push, or one of
/// the other forms in which programs keep it (`forms`). A ticket that names another component is refused. A bare ticket
/// that is cut off cannot be told from a complete one; in every other form the end is checked.
pub fn parse(component: &str, text: &str) -> Result<Secret, TicketFault> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
    if text.is_empty() {
        return Err(TicketFault::Empty);
    }
    let found = forms::unwrap(text)?;
    match found.appid {
        Some(of) if of != component => {
            // It comes from outside and is logged.
            let is_id = of.len() <= 64 && of.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let of = if is_id { of } else { "with an unusual id".to_owned() };
            Err(TicketFault::OtherComponent { of, this: component.to_owned() })
        }
        _ => judge(found.ticket),
    }
}

/// Checks a bare ticket. WeChat has no page about its characters: those seen are `ticket@@@` and letters, digits, `-`
/// and `_`. All characters are accepted that are no quotes or separators and have no special meaning in the usual
/// forms.
fn judge(ticket: String) -> Result<Secret, TicketFault> {
    let stem = ticket.trim_end_matches('=');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"@_-.~+/!#$*^|".contains(&byte);
    let prefix = ticket.split_once("@@@").map(|(prefix, _)| prefix);
    if ticket.is_empty() {
        Err(TicketFault::Empty)
    } else if !stem.bytes().all(fits) {
        Err(TicketFault::Characters)
    } else if !(BYTES_MIN..=BYTES_MAX).contains(&ticket.len()) {
        Err(TicketFault::Size)
    } else if prefix == Some("refreshtoken") {
        Err(TicketFault::OtherValue("a refresh token"))
    } else if prefix.is_some_and(|prefix| prefix != "ticket") {
        Err(TicketFault::OtherValue("another of WeChat's values"))
    } else if prefix.is_none() && !ticket.bytes().any(|byte| byte.is_ascii_digit()) {
        // Such as a name without its value.
        Err(TicketFault::OtherValue("a word"))
    } else if ticket.len() == 32 && ticket.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Err(TicketFault::OtherValue("32 hex digits, as an AppSecret is"))
    } else {
        Ok(Secret::new(ticket))
    }
}

pub struct ReceivedTicket {
    pub id: CredentialId,
    pub ticket: Secret,
    pub from_file: bool,
}

pub struct TicketInbox {
    components: HashMap<String, CredentialId>,
    received_tickets: mpsc::Sender<ReceivedTicket>,
}

impl TicketInbox {
    /// For these components. The receiver is for the refresher.
    pub fn new(components: HashMap<String, CredentialId>) -> (TicketInbox, mpsc::Receiver<ReceivedTicket>) {
        let (received_tickets, receiver) = mpsc::channel(TICKETS_MAX);
        (TicketInbox { components, received_tickets }, receiver)
    }

    /// Takes the content of a file that should be that component's ticket.
    pub fn hand_in(&self, component: &str, text: &str) -> Result<(), TicketFault> {
        let id = *self.components.get(component).ok_or(TicketFault::UnknownComponent)?;
        let received = ReceivedTicket { id, ticket: parse(component, text)?, from_file: true };
        self.received_tickets.try_send(received).map_err(|_| TicketFault::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &str = "ticket@@@0123456789abcdef-_";
    const COMPONENT: &str = "wxc000000000000001";
    const OTHER: &str = "wxc000000000000002";

    fn read(text: &str) -> Result<String, TicketFault> {
        parse(COMPONENT, text).map(|secret| secret.expose().to_owned())
    }

    /// A ticket in every known form that names its owner.
    fn forms(owner: &str) -> Vec<String> {
        let serialized = format!("s:{}:\"{TICKET}\";", TICKET.len());
        let array = format!("a:1:{{s:23:\"component_verify_ticket\";{serialized}}}");
        vec![
            format!("<xml><AppId>{owner}</AppId><ComponentVerifyTicket>{TICKET}</ComponentVerifyTicket></xml>"),
            format!(
                "<?xml version=\"1.0\"?>\n<xml><AppId><![CDATA[{owner}]]></AppId><CreateTime>1413192605</CreateTime>\n\
                 <InfoType><![CDATA[component_verify_ticket]]></InfoType>\n\
                 <ComponentVerifyTicket><![CDATA[{TICKET}]]></ComponentVerifyTicket>\n</xml>"
            ),
            format!("{{\"component_verify_ticket\":\"{TICKET}\",\"component_appid\":\"{owner}\"}}"),
            format!("{{\"xml\":{{\"AppId\":[\"{owner}\"],\"ComponentVerifyTicket\":[\"{TICKET}\"]}}}}"),
            format!("{{\"appid\":\"{owner}\",\"time\":5,\"data\":{{\"ComponentVerifyTicket\":\"{TICKET}\"}}}}"),
            format!("component_appid={owner}&component_verify_ticket={TICKET}"),
            format!("# of the push\nAPPID={owner}\nexport COMPONENT_VERIFY_TICKET=\"{TICKET}\"\n"),
            format!("1700000000\nnamespace:open_platform.verify_ticket.{owner}\n{serialized}"),
            format!("<?php return array (\n  'AppId' => '{owner}',\n  'ComponentVerifyTicket' => '{TICKET}',\n);"),
            format!("<?php exit();?>{{\"AppId\":\"{owner}\",\"ComponentVerifyTicket\":\"{TICKET}\"}}"),
            format!("<?php\n//000000000000\n exit();?>\na:2:{{s:5:\"appid\";s:18:\"{owner}\";{}", &array[5..]),
        ]
    }

    /// The same for forms that do not say whose it is.
    fn nameless() -> Vec<String> {
        let serialized = format!("s:{}:\"{TICKET}\";", TICKET.len());
        vec![
            format!("<xml><ComponentVerifyTicket><![CDATA[{TICKET}]]></ComponentVerifyTicket></xml>\n"),
            format!("\"{TICKET}\"\n"),
            format!("'{TICKET}'"),
            format!("{{\"ComponentVerifyTicket\": \"{TICKET}\"}}"),
            format!("component_verify_ticket={TICKET}"),
            format!("component_verify_ticket = '{TICKET}'\r\n"),
            serialized.clone(),
            format!("think_serialize:{serialized}"),
            format!("1700000000{serialized}"),
            format!("a:3:{{s:4:\"time\";i:1700000000;s:3:\"ttl\";i:6000;s:4:\"data\";{serialized}}}"),
            format!("<?php\n//000000006000\n exit();?>\n{serialized}"),
            format!("<?php\n//000000006000{serialized}\n?>"),
            format!("<?php return '{TICKET}';\n"),
            format!("<?php //a\\cache\n\nreturn [PHP_INT_MAX, '{TICKET}'];\n"),
            format!("<?php\n/* a comment */\nreturn array (\n  0 => 1700000000,\n  1 => '{TICKET}',\n);\n?>"),
        ]
    }

    #[test]
    fn a_bare_ticket_is_taken_with_an_editors_line_break() {
        for text in [TICKET.to_owned(), format!("{TICKET}\n"), format!("\u{feff} {TICKET}\r\n")] {
            assert_eq!(read(&text).as_deref(), Ok(TICKET));
        }
        for ticket in ["0123456789abcdef-_", "dGlja2V0LXRpY2tldA==", "ticket@@@a.b~c+d/e!f"] {
            assert_eq!(read(ticket).as_deref(), Ok(ticket), "no page says how one begins");
        }
    }

    #[test]
    fn what_programs_write_around_a_ticket_is_taken_off() {
        for text in nameless().into_iter().chain(forms(COMPONENT)) {
            assert_eq!(read(&text).as_deref(), Ok(TICKET), "{text}");
        }
    }

    #[test]
    fn a_ticket_of_another_component_is_refused_in_every_form_that_says_so() {
        for text in forms(OTHER) {
            let fault = read(&text).unwrap_err();
            let said = fault.to_string();
            assert!(said.starts_with(&format!("is of component {OTHER}, and this is {COMPONENT}")), "{text}: {said}");
        }
        let said = read(&forms("wx1</b>\n").remove(0)).unwrap_err().to_string();
        assert!(said.starts_with("is of component with an unusual id"), "{said}");
    }

    #[test]
    fn a_form_that_is_cut_off_is_refused() {
        for text in nameless().into_iter().chain(forms(COMPONENT)) {
            let at = text.find(TICKET).unwrap();
            for cut in 1..at + TICKET.len() {
                // In a form without an end mark a cut cannot be noticed.
                let is_marked = !text.starts_with("component_");
                if let Ok(taken) = read(&text[..cut]) {
                    assert!(!is_marked && TICKET.starts_with(&taken), "{}", &text[..cut]);
                }
            }
        }
    }

    #[test]
    fn a_push_that_is_still_encrypted_is_told_to_be_decrypted() {
        let envelope = format!("<xml><AppId>{COMPONENT}</AppId><Encrypt><![CDATA[c2VjcmV0]]></Encrypt></xml>");
        let json = format!("{{\"AppId\":\"{COMPONENT}\",\"Encrypt\":\"c2VjcmV0\"}}");
        for text in [envelope, json] {
            assert_eq!(read(&text), Err(TicketFault::Encrypted));
        }
        assert!(TicketFault::Encrypted.to_string().contains("must be decrypted first"));
    }

    #[test]
    fn nothing_else_is() {
        let cases = [
            ("", TicketFault::Empty),
            (" \n", TicketFault::Empty),
            ("ticket@@@", TicketFault::Size),
            ("ticket@@@0123 456789abcdef", TicketFault::Characters),
            ("ticket@@@0123\0\0\0\0\0\0\0\0\0", TicketFault::Characters),
            ("票据票据票据票据票据票据", TicketFault::Characters),
            ("ticket%40%40%400123456789abcdef", TicketFault::Characters),
            ("\"ticket@@@0123456789abcdef", TicketFault::Characters),
            ("ticket:ticket@@@0123456789abcdef", TicketFault::Characters),
            ("$t['ticket']='ticket@@@0123456789abcdef';", TicketFault::Characters),
            (&"a1".repeat(BYTES_MAX), TicketFault::Size),
        ];
        for (text, fault) in cases {
            assert_eq!(read(text), Err(fault), "{text}");
        }
        for text in [
            "refreshtoken@@@0123456789abcdef",
            "queryauthcode@@@0123456789abcdef",
            "component_verify",
            &"0a".repeat(16),
        ] {
            assert!(matches!(read(text), Err(TicketFault::OtherValue(_))), "{text}");
        }
    }

    #[test]
    fn a_form_without_one_ticket_is_named_and_what_to_write_instead() {
        let two = "ticket@@@fedcba9876543210";
        let cases = [
            ("<html>502</html>".to_owned(), "XML"),
            (format!("<xml><A>{TICKET}</A></xml>"), "XML"),
            ("{}".to_owned(), "JSON"),
            (format!("{{\"jsapi_ticket\":\"{TICKET}\"}}"), "JSON"),
            (format!("[\"{TICKET}\",\"{two}\"]"), "JSON"),
            (format!("{{\"component_verify_ticket\":\"{TICKET}\",\"ComponentVerifyTicket\":\"{two}\"}}"), "JSON"),
            ("{\"component_verify_ticket\":5}".to_owned(), "JSON"),
            ("component_verify_ticket=".to_owned(), "name=value"),
            (format!("jsapi_ticket={TICKET}"), "name=value"),
            (format!("component_verify_ticket={TICKET}&component_verify_ticket={two}"), "name=value"),
            ("<?php\nreturn $ticket;".to_owned(), "PHP"),
            (format!("<?php return \"$a{TICKET}\";"), "PHP"),
            (format!("<?php echo '{TICKET}';"), "PHP"),
            (format!("<?php return ['{TICKET}', '{two}'];"), "PHP"),
            (format!("s:99:\"{TICKET}\";"), "cache"),
            (format!("s:{}:\"{TICKET}\";trailing", TICKET.len()), "cache"),
            (format!("1700000000\nopen_platform.access_token.{COMPONENT}\ns:27:\"{TICKET}\";"), "cache"),
            (
                format!(
                    "<xml><InfoType>authorized</InfoType><ComponentVerifyTicket>{TICKET}</ComponentVerifyTicket></xml>"
                ),
                "another type",
            ),
        ];
        for (text, part) in cases {
            let said = read(&text).map_err(|fault| fault.to_string()).unwrap_err();
            assert!(said.contains(part) && said.contains("write the ticket alone"), "{text}: {said}");
            assert!(!said.contains("0123456789abcdef"), "{said}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,80}|(<\\?php|return|s:|a:|[0-9;:{}\\[\\]'\"=>@\\\\ \n]|ticket@@@){0,40}") {
            let _ = parse(COMPONENT, &text);
        }
    }

    #[test]
    fn a_ticket_goes_to_its_component() {
        let (inbox, mut received_tickets) = TicketInbox::new(HashMap::from([("wxc".to_owned(), 7)]));
        assert_eq!(inbox.hand_in("wxother", TICKET), Err(TicketFault::UnknownComponent));
        assert_eq!(inbox.hand_in("wxc", ""), Err(TicketFault::Empty));
        assert_eq!(inbox.hand_in("wxc", TICKET), Ok(()));
        let received = received_tickets.try_recv().unwrap();
        assert_eq!((received.id, received.ticket.expose(), received.from_file), (7, TICKET, true));
        drop(received_tickets);
        assert_eq!(inbox.hand_in("wxc", TICKET), Err(TicketFault::Busy));
    }
}
