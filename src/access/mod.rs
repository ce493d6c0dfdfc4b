//! Who may do what: the rights of a client, the table of users who log in with a password, and the side port's keys.
//!
//! Pure: reads no files, opens no sockets, decides nothing about connections. No password is kept or shown.

mod certificates;
mod keys;
mod rights;
mod users;

pub use certificates::{CertificateName, NotAName, Whose, rights_of};
pub use keys::{Key, KeyDigest, KeyFault, Keys, SideRights};
pub use rights::{Managed, Rights};
pub use users::{UserFault, Users};
