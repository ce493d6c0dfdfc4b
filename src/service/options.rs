//! The settings of what requests are answered with.

/// What a client's write to a managed key is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RefuseWith {
    /// `NOT_STORED` (`EXISTS` to a cas): silent in PHP, the connection stays.
    #[default]
    NotStored,
    /// `CLIENT_ERROR managed key`: PHP raises a notice.
    ClientError,
}

impl RefuseWith {
    /// Each with its word in the configuration.
    pub const WORDS: &[(&str, RefuseWith)] =
        &[("not_stored", RefuseWith::NotStored), ("client_error", RefuseWith::ClientError)];

    /// As the configuration spells it.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, of)| *of == self).map_or("not_stored", |(word, _)| word)
    }
}
