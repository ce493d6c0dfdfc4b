//! Who may do what: the rights of a client, and the table of users who log in with a password.
//!
//! Pure: reads no files, opens no sockets, decides nothing about connections. No password is kept or shown.

mod certificates;
mod rights;
mod users;

pub use certificates::{CertificateName, NotAName, Whose, rights_of};
pub use rights::{Managed, Rights};
pub use users::{UserFault, Users};
