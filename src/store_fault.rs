//! What can be wrong with a store that values are written to: a Redis, a database, a file, a command.
//!
//! Pure. Never holds text from the store itself: that may quote values, and keys may contain secrets.

use std::borrow::Cow;
use std::fmt;

/// Why a store could not be used, for the log. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// One word for statistics and logs.
    pub class: &'static str,
    /// What is wrong: "it is out of memory".
    pub what: Cow<'static, str>,
    pub advice: Cow<'static, str>,
    pub scope: StoreFaultScope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFaultScope {
    /// The whole connection: nothing can be written until it is opened again.
    Backend,
    /// The whole connection, because this process has no file descriptor left. That usually passes soon.
    Descriptors,
    /// One entry; others may still be written.
    Entry,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StoreFault {
    pub fn of_entry(
        class: &'static str,
        what: impl Into<Cow<'static, str>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> StoreFault {
        StoreFault { class, what: what.into(), advice: advice.into(), scope: StoreFaultScope::Entry }
    }

    /// True if nothing can be written until the store is opened again.
    pub fn is_about_the_connection(&self) -> bool {
        self.scope != StoreFaultScope::Entry
    }

    /// Where the fault must be fixed: in the `configuration`, the `target` (the store), the `network`, the `upstream`
    /// that gave the value, or this `server`.
    pub fn responsible(&self) -> &'static str {
        match self.class {
            "cluster" | "database" | "file" | "files" | "folder" | "format" | "link" | "master" | "not_found"
            | "password" | "permission" | "protocol" | "readonly" | "syntax" | "table" | "tls" | "untrusted" => {
                "configuration"
            }
            "value" => "upstream",
            "unreachable" => "network",
            "descriptors" | "resources" => "server",
            _ => "target",
        }
    }
}

/// The faults of one kind of store, a row each: its class, its scope, what is wrong and what to do about it.
#[cfg(any(feature = "redis", feature = "sql"))]
macro_rules! store_faults {
    (
        $(#[$about:meta])*
        $faults:ident { $($(#[$note:meta])* $name:ident $class:literal $scope:ident $what:literal : $advice:expr;)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $faults {
            $($(#[$note])* $name,)*
        }

        impl $faults {
            #[allow(dead_code, reason = "only the tests of some stores go through all")]
            pub const ALL: &[$faults] = &[$($faults::$name),*];

            fn row(self) -> (&'static str, $crate::store_fault::StoreFaultScope, &'static str, &'static str) {
                match self {
                    $($faults::$name => ($class, $crate::store_fault::StoreFaultScope::$scope, $what, $advice),)*
                }
            }
        }

        impl std::fmt::Display for $faults {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.row().2)
            }
        }

        impl From<$faults> for $crate::store_fault::StoreFault {
            fn from(fault: $faults) -> $crate::store_fault::StoreFault {
                let (class, scope, what, advice) = fault.row();
                $crate::store_fault::StoreFault { class, what: what.into(), advice: advice.into(), scope }
            }
        }
    };
}
#[cfg(any(feature = "redis", feature = "sql"))]
pub(crate) use store_faults;
