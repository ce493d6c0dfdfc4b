//! What names a credential while the process lives.

/// Index of a credential, stable while the process lives.
pub type CredentialId = usize;
