//! Verify tickets on their way in: which texts are one, and where they are handed in.
//!
//! Pure. Never echoes any part of one.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::table::CredentialId;
use crate::secret::Secret;

/// WeChat's have 95 bytes; the page on the push gives no bound.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 1024;
/// The largest text that is looked at: a ticket, or the message it comes in.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Tickets under way at once: one each ten minutes comes, for each component.
const ARRIVALS_MAX: usize = 256;

/// Why a text is not a verify ticket, or could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketFault {
    #[error("is empty")]
    Empty,
    #[error("is too short or too long for a verify ticket")]
    Size,
    #[error("has characters a verify ticket cannot have")]
    Characters,
    #[error("is a message without a whole ComponentVerifyTicket")]
    Message,
    #[error("is for a component that is not configured")]
    UnknownComponent,
    #[error("cannot be taken now; hand it in again")]
    Busy,
}

/// The ticket in a text: the bare ticket, or the decrypted message of WeChat's push as XML. A message that is cut off
/// has no end and is refused; a ticket that is cut off cannot be told from a whole one.
pub fn parse(text: &str) -> Result<Secret, TicketFault> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
    let ticket = if text.starts_with('<') { of_message(text).ok_or(TicketFault::Message)? } else { text };
    match ticket {
        "" => Err(TicketFault::Empty),
        _ if !ticket.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) => Err(TicketFault::Characters),
        _ if !(BYTES_MIN..=BYTES_MAX).contains(&ticket.len()) => Err(TicketFault::Size),
        _ => Ok(Secret::new(ticket.to_owned())),
    }
}

fn of_message(xml: &str) -> Option<&str> {
    xml.strip_suffix("</xml>")?;
    let (_, rest) = xml.split_once("<ComponentVerifyTicket>")?;
    let (ticket, _) = rest.split_once("</ComponentVerifyTicket>")?;
    let ticket = ticket.trim();
    match ticket.strip_prefix("<![CDATA[") {
        Some(rest) => rest.strip_suffix("]]>").map(str::trim),
        None => Some(ticket),
    }
}

/// A ticket for the refresher.
pub struct Arrival {
    pub id: CredentialId,
    pub ticket: Secret,
    pub from_file: bool,
}

/// Where tickets are handed in.
pub struct Inbox {
    components: HashMap<String, CredentialId>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Inbox {
    /// For these components. The receiver is the refresher's.
    pub fn new(components: HashMap<String, CredentialId>) -> (Inbox, mpsc::Receiver<Arrival>) {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
        (Inbox { components, arrivals }, receiver)
    }

    /// Takes a text that should be that component's ticket.
    pub fn hand_in(&self, component: &str, text: &str, from_file: bool) -> Result<(), TicketFault> {
        let id = *self.components.get(component).ok_or(TicketFault::UnknownComponent)?;
        let arrival = Arrival { id, ticket: parse(text)?, from_file };
        self.arrivals.try_send(arrival).map_err(|_| TicketFault::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &str = "ticket@@@0123456789abcdef-_";

    fn read(text: &str) -> Result<String, TicketFault> {
        parse(text).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_bare_ticket_is_taken_with_an_editors_line_break() {
        for text in [TICKET.to_owned(), format!("{TICKET}\n"), format!("\u{feff} {TICKET}\r\n")] {
            assert_eq!(read(&text).as_deref(), Ok(TICKET));
        }
    }

    #[test]
    fn the_message_it_came_in_is_taken_too() {
        for inner in [format!("<![CDATA[{TICKET}]]>"), TICKET.to_owned()] {
            let xml = format!(
                "<xml><AppId>wx1</AppId><CreateTime>1413192605</CreateTime>\n\
                 <InfoType>component_verify_ticket</InfoType>\n<ComponentVerifyTicket>{inner}</ComponentVerifyTicket></xml>\n"
            );
            assert_eq!(read(&xml).as_deref(), Ok(TICKET));
            for cut in 1..xml.trim_end().len() {
                assert!(read(&xml[..cut]).is_err(), "{}", &xml[..cut]);
            }
        }
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
            ("<xml><Encrypt>abc</Encrypt></xml>", TicketFault::Message),
            ("<html>502</html>", TicketFault::Message),
            (&"a".repeat(BYTES_MAX + 1), TicketFault::Size),
        ];
        for (text, fault) in cases {
            assert_eq!(read(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn a_ticket_goes_to_its_component() {
        let (inbox, mut arrivals) = Inbox::new(HashMap::from([("wxc".to_owned(), 7)]));
        assert_eq!(inbox.hand_in("wxother", TICKET, false), Err(TicketFault::UnknownComponent));
        assert_eq!(inbox.hand_in("wxc", "", false), Err(TicketFault::Empty));
        assert_eq!(inbox.hand_in("wxc", TICKET, true), Ok(()));
        let arrival = arrivals.try_recv().unwrap();
        assert_eq!((arrival.id, arrival.ticket.expose(), arrival.from_file), (7, TICKET, true));
        drop(arrivals);
        assert_eq!(inbox.hand_in("wxc", TICKET, false), Err(TicketFault::Busy));
    }
}
