//! Hosts that a password may be sent to: addresses, networks, names, and all names of a domain.

use super::fault::Problem;
use super::value::{Given, Reading, Value, kind, quoted, text};
use crate::redis_client::options::TrustedHost;

/// A list, or one text with commas.
pub(super) fn trusted_hosts(value: &Value) -> Reading<Vec<TrustedHost>> {
    let remedy = "Write a list such as [\"10.0.0.0/24\", \"redis-2.example.com\", \"*.db.example.com\"].";
    let read = |given: &str| {
        let what = || Problem::new(format!("{} is no address, network or host", quoted(given)), remedy);
        TrustedHost::parse(given).ok_or_else(what)
    };
    let hosts: Vec<TrustedHost> = match value {
        Value::List(items) => items.iter().map(|Given { value, .. }| read(text(value)?)).collect::<Reading<_>>()?,
        Value::Text(list) => {
            list.split(',').filter(|host| !host.trim().is_empty()).map(read).collect::<Reading<_>>()?
        }
        other => return Err(Problem::new(format!("{} is not a host", kind(other)), remedy)),
    };
    if hosts.is_empty() {
        return Err(Problem::new("no host is given", remedy));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_read_as_people_write_them_and_are_written_so() {
        for text in ["10.0.0.0/24", "10.0.0.1/32", "fd00::/8", "redis-2", "a.example.com", "*.example.com"] {
            assert_eq!(TrustedHost::parse(text).map(|host| host.text()).as_deref(), Some(text));
        }
        assert_eq!(TrustedHost::parse("10.0.0.1"), TrustedHost::parse("10.0.0.1/32"));
        for wrong in ["", "*", "*example.com", "10.0.0.0/33", "10.0.0.0/x", "a b", "http://a", "a..b", "fd00::/129"] {
            assert_eq!(TrustedHost::parse(wrong), None, "{wrong}");
        }
        let all = TrustedHost::parse("0.0.0.0/0").unwrap();
        assert!(all.covers("198.51.100.9") && !all.covers("2001:db8::1") && !all.covers("name"));
    }
}
