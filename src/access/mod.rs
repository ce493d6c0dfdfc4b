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

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// A SHA-256.
type Digest = [u8; 32];

/// Which of these has this digest. Looks at every one, always, and takes the same time whatever is given.
fn find_by_digest<'a, T>(all: &'a [T], digest_of: impl Fn(&T) -> &Digest, given: &Digest) -> Option<&'a T> {
    let (mut found, mut at) = (Choice::from(0), 0_u32);
    for (index, one) in (0_u32..).zip(all) {
        let equal = digest_of(one).ct_eq(given);
        at.conditional_assign(&index, equal);
        found |= equal;
    }
    let one = all.get(at as usize)?;
    bool::from(found).then_some(one)
}
