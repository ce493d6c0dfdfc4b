//! What the names in a client's certificate are good for.
//!
//! Judges names, never certificates: whoever calls has verified the signature.

use std::fmt;
use std::str::FromStr;

use super::Rights;
use crate::invalid_value::{InvalidValue, quoted};

/// A name a certificate carries: of its subject, or one of its alternative names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    CommonName(String),
    /// Lower case.
    Dns(String),
    Uri(String),
}

impl CertificateName {
    /// A host name; case does not matter in one.
    pub fn dns(name: &str) -> CertificateName {
        CertificateName::Dns(name.to_ascii_lowercase())
    }
}

/// Which certificates a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateMatcher {
    /// Whatever no other rule is about.
    Any,
    Named(CertificateName),
}

impl FromStr for CertificateMatcher {
    type Err = InvalidValue;

    /// `cn:billing`, `dns:web-1.internal`, `uri:spiffe://shop/web`, or `*`.
    fn from_str(text: &str) -> Result<CertificateMatcher, InvalidValue> {
        let wrong = || {
            let remedy = "Write \"cn:NAME\", \"dns:HOST\", \"uri:URI\", or \"*\" for all others.";
            InvalidValue::new(format!("{} is not a name of a certificate", quoted(text)), remedy)
        };
        let name = |name: &str| if name.is_empty() { Err(wrong()) } else { Ok(name.to_owned()) };
        match text.split_once(':') {
            None if text == "*" => Ok(CertificateMatcher::Any),
            Some(("cn", rest)) => Ok(CertificateMatcher::Named(CertificateName::CommonName(name(rest)?))),
            Some(("dns", rest)) => Ok(CertificateMatcher::Named(CertificateName::dns(&name(rest)?))),
            Some(("uri", rest)) => Ok(CertificateMatcher::Named(CertificateName::Uri(name(rest)?))),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for CertificateMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateMatcher::Any => f.write_str("*"),
            CertificateMatcher::Named(CertificateName::CommonName(name)) => write!(f, "cn:{name}"),
            CertificateMatcher::Named(CertificateName::Dns(name)) => write!(f, "dns:{name}"),
            CertificateMatcher::Named(CertificateName::Uri(name)) => write!(f, "uri:{name}"),
        }
    }
}

/// What the rules give to the bearer of these names: the first rule about one of them, then the one about anybody.
/// Without any rule a certificate that was verified is good for everything; with rules an unknown one for nothing.
pub fn rights_of(names: &[CertificateName], rules: &[(CertificateMatcher, Rights)]) -> Option<Rights> {
    if rules.is_empty() {
        return Some(Rights::ALL);
    }
    let about =
        |matcher: &CertificateMatcher| matches!(matcher, CertificateMatcher::Named(name) if names.contains(name));
    let rule = rules.iter().find(|(matcher, _)| about(matcher));
    let rule = rule.or_else(|| rules.iter().find(|(matcher, _)| *matcher == CertificateMatcher::Any));
    rule.map(|(_, rights)| rights.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_and_print_alike() {
        for text in ["cn:billing", "dns:web-1.internal", "uri:spiffe://shop/web", "*"] {
            assert_eq!(text.parse::<CertificateMatcher>().map(|matcher| matcher.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "billing", "cn:", "dns:", "email:a@b", "**"] {
            let wrong = text.parse::<CertificateMatcher>().unwrap_err().what;
            assert_eq!(wrong, format!("{text:?} is not a name of a certificate"));
        }
    }

    #[test]
    fn the_first_rule_about_a_name_counts_and_a_stranger_gets_nothing() {
        let rights = |word: &str| Rights::of_words([word]).unwrap();
        let mut rules =
            vec![("cn:a".parse().unwrap(), rights("ordinary")), ("dns:A.example".parse().unwrap(), rights("managed"))];
        let (cn, dns) = (CertificateName::CommonName("a".into()), CertificateName::dns("a.EXAMPLE"));
        assert_eq!(rights_of(&[dns.clone(), cn.clone()], &rules), Some(rights("ordinary")));
        assert_eq!(rights_of(std::slice::from_ref(&dns), &rules), Some(rights("managed")));
        // A host name is not a common name.
        assert_eq!(rights_of(&[CertificateName::dns("a")], &rules), None);
        assert_eq!(rights_of(&[], &rules), None);
        assert_eq!(rights_of(&[], &[]), Some(Rights::ALL));
        rules.insert(0, (CertificateMatcher::Any, rights("app:wx")));
        assert_eq!(rights_of(&[], &rules), Some(rights("app:wx")));
        assert_eq!(rights_of(&[cn], &rules), Some(rights("ordinary")), "anybody is whoever no other rule is about");
    }
}
