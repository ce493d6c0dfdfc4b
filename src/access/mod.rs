//! Who may do what: the rights of a client, the table of users who log in with a password, and the HTTP API's keys.
//!
//! Pure: reads no files, opens no sockets, decides nothing about connections. No password is kept or shown.

mod api_keys;
mod certificates;
mod rights;
mod users;

pub use api_keys::{ApiKey, ApiKeyDigest, ApiKeys, ApiKeysFault, HttpRights};
pub use certificates::{CertificateMatcher, CertificateName, rights_of};
pub use rights::{HOW_TO_WRITE_RIGHTS, ManagedApps, Rights};
pub use users::{Users, UsersFault};

use std::fmt;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// A SHA-256.
type Digest = [u8; 32];

/// What belongs to each of several passwords or keys. `Debug` shows a count and nothing else.
pub struct DigestTable<T>(Vec<(Digest, T)>);

impl<T> DigestTable<T> {
    /// What belongs to this digest. Looks at every one, always, and takes the same time whatever is given.
    fn find_digest(&self, given: &Digest) -> Option<&T> {
        let (mut found, mut at) = (Choice::from(0), 0_u32);
        for (index, (digest, _)) in (0_u32..).zip(&self.0) {
            let equal = digest.ct_eq(given);
            at.conditional_assign(&index, equal);
            found |= equal;
        }
        let (_, one) = self.0.get(at as usize)?;
        bool::from(found).then_some(one)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl<T> Default for DigestTable<T> {
    fn default() -> DigestTable<T> {
        DigestTable(Vec::new())
    }
}

impl<T> fmt::Debug for DigestTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DigestTable({})", self.0.len())
    }
}
