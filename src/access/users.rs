//! Users and passwords, from a file as `memcached -Y` reads it: a line `user:password` for each.
//!
//! Keeps a digest in place of a password. A comparison takes the same time whoever is asked for and however much
//! of the password is right.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Digest, DigestTable, Rights};

/// Everybody who may log in, a line of the file each, with their rights.
pub type Users = DigestTable<Arc<Rights>>;

/// What is wrong with the file; never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersFault {
    #[error("line {0} has no colon: write user:password")]
    NoColon(usize),
    #[error("line {0} has no name before the colon: write user:password")]
    NoName(usize),
    #[error("it has no user")]
    Empty,
}

impl Users {
    /// Reads the text of a file. `rights_of` says what a user may do, or `None` for one who may not log in.
    ///
    /// As in memcached a password goes from the first colon to the end of the line, and a user may have several lines.
    pub fn parse(text: &[u8], rights_of: impl Fn(&[u8]) -> Option<Arc<Rights>>) -> Result<Users, UsersFault> {
        let mut users = Vec::new();
        let mut has_user = false;
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let colon = memchr::memchr(b':', line).ok_or(UsersFault::NoColon(index + 1))?;
            let (name, password) = (&line[..colon], &line[colon + 1..]);
            if name.is_empty() {
                return Err(UsersFault::NoName(index + 1));
            }
            has_user = true;
            // memcached reads an empty password and can never be told it; SASL could tell it.
            if let Some(rights) = rights_of(name).filter(|_| !password.is_empty()) {
                users.push((digest(name, password), rights));
            }
        }
        if has_user { Ok(DigestTable(users)) } else { Err(UsersFault::Empty) }
    }

    /// The rights of a user who knows the password.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<Rights>> {
        self.find_digest(&digest(name, password)).cloned()
    }
}

/// The length goes in front, so that no colon can move from the password to the name.
fn digest(name: &[u8], password: &[u8]) -> Digest {
    let digest =
        Sha256::new().chain_update((name.len() as u64).to_be_bytes()).chain_update(name).chain_update(password);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Users {
        Users::parse(text.as_bytes(), |_| Some(Arc::new(Rights::ALL))).unwrap()
    }

    #[test]
    fn a_file_reads_as_memcached_reads_it() {
        let users = users("alice:secret\r\nbob:pa:ss word\ncarol:\n\nalice:other");
        let right = |name: &str, password: &str| users.authenticate(name.as_bytes(), password.as_bytes()).is_some();
        assert!(right("alice", "secret") && right("alice", "other") && right("bob", "pa:ss word"));
        for (name, password) in
            [("alice", "secre"), ("alice", "secrett"), ("alice", ""), ("bob:pa", "ss word"), ("carol", ""), ("", "")]
        {
            assert!(!right(name, password), "{name} {password}");
        }
    }

    #[test]
    fn a_fault_names_the_line_and_quotes_nothing() {
        let fault = |text: &str| Users::parse(text.as_bytes(), |_| Some(Arc::new(Rights::ALL))).unwrap_err();
        assert_eq!(fault("a:b\nsecret\n"), UsersFault::NoColon(2));
        assert_eq!(fault(":b"), UsersFault::NoName(1));
        assert_eq!(fault("\n\r\n"), UsersFault::Empty);
        assert!(!fault("a:b\nsecret\n").to_string().contains("secret"));
    }

    #[test]
    fn each_user_has_rights_of_their_own_and_some_have_none() {
        let few = Arc::new(Rights::of_words(["ordinary"]).unwrap());
        let rights_of = |name: &[u8]| match name {
            b"few" => Some(few.clone()),
            b"all" => Some(Arc::new(Rights::ALL)),
            _ => None,
        };
        let users = Users::parse(b"few:1\nall:2\nnobody:3\n", rights_of).unwrap();
        assert_eq!(users.authenticate(b"few", b"1").as_deref(), Some(&*few));
        assert_eq!(users.authenticate(b"all", b"2").as_deref(), Some(&Rights::ALL));
        assert_eq!(users.authenticate(b"nobody", b"3"), None);
    }

    #[test]
    fn debug_shows_a_count() {
        assert_eq!(format!("{:?}", users("alice:secret\n")), "DigestTable(1)");
    }
}
