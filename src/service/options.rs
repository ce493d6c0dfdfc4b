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
