//! The flags that client libraries mark a serialized value with. Pure.

/// The library that reads a key, because each marks a serialized value in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ClientLibrary {
    /// PHP's extension memcached.
    #[default]
    Memcached,
    /// PHP's extension memcache.
    Memcache,
    /// The package memcached of Node.js, given objects and not texts.
    NodeMemcached,
}

impl ClientLibrary {
    pub const WORDS: [(&str, ClientLibrary); 3] = [
        ("memcached", ClientLibrary::Memcached),
        ("memcache", ClientLibrary::Memcache),
        ("node-memcached", ClientLibrary::NodeMemcached),
    ];

    /// Its mark of a value that `serialize()` wrote.
    pub fn serialized_flags(self) -> u32 {
        if self == ClientLibrary::Memcache { 1 } else { 4 }
    }

    /// Its mark of an object in JSON; in PHP that is a string like any.
    pub fn object_flags(self) -> u32 {
        if self == ClientLibrary::NodeMemcached { 2 } else { 0 }
    }
}
