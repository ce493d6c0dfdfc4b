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
