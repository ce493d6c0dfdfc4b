//! An address to listen on, as people write it. Pure.

use std::net::IpAddr;

use crate::invalid_value::{InvalidValue, quoted};

/// A host and perhaps a port, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    pub host: String,
    pub port: Option<u16>,
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, `name`, `name:80`.
pub fn parse(text: &str) -> Result<ListenAddress, InvalidValue> {
    let wrong = || {
        let remedy = "Write an address like 127.0.0.1:11211, [::1]:11211 or localhost.";
        InvalidValue::new(format!("{} is not an address", quoted(text)), remedy)
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let host_fits = host.parse::<IpAddr>().is_ok()
        || (!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)));
    let port = port.map(|port| port.parse::<u16>().map_err(|_| wrong())).transpose()?;
    if host_fits { Ok(ListenAddress { host: host.to_owned(), port }) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_memcached_reads_them() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            assert_eq!(parse(text).ok(), Some(ListenAddress { host: host.into(), port }), "{text}");
        };
        check("127.0.0.1", "127.0.0.1", None);
        check("127.0.0.1:80", "127.0.0.1", Some(80));
        check("::1", "::1", None);
        check("[::1]", "::1", None);
        check("[::1]:80", "::1", Some(80));
        check("localhost", "localhost", None);
        check("cache-1.internal:0", "cache-1.internal", Some(0));
        for text in ["", ":80", "a:b", "a:70000", "[::1", "[::1]80", "1::2::3", "a b", "*"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
