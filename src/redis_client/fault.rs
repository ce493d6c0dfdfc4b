//! The classes of errors of a Redis, each with a text and advice.
//!
//! Pure. Never passes on the server's own text: it may name keys, and keys may hold secrets.

use crate::descriptors;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisFault {
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it did not answer in time")]
    Timeout,
    #[error("it closed the connection")]
    Dropped,
    #[error("there is no trust in its certificate, or it does not speak TLS")]
    Tls,
    #[error("it wants a password")]
    NoPassword,
    #[error("it refuses our user or password")]
    Password,
    #[error("the password cannot be read")]
    PasswordUnreadable,
    #[error("a certificate or key of ours cannot be used")]
    Files,
    /// This process is out of file descriptors. That passes, and says nothing about any server.
    #[error("this process has no file descriptor left for it")]
    NoDescriptor,
    #[error("its ACL forbids what is needed")]
    Permission,
    #[error("it has no such database")]
    Database,
    #[error("it is a read-only replica")]
    ReadOnly,
    #[error("it is out of memory")]
    Full,
    #[error("it takes no writes")]
    Disk,
    #[error("it is busy")]
    Busy,
    #[error("it is a cluster node that does not have these keys")]
    Cluster,
    #[error("its sentinels know no master of that name")]
    NoMaster,
    /// A sentinel or a cluster named a server that must not get the password.
    #[error("its master is said to be on a host that the password may not be sent to")]
    Untrusted,
    #[error("it does not answer as a Redis does")]
    Protocol,
    #[error("it refused")]
    Other,
}

impl RedisFault {
    /// All faults, each with one word for statistics and logs.
    pub const ALL: [(RedisFault, &str); 20] = [
        (RedisFault::Unreachable, "unreachable"),
        (RedisFault::Timeout, "timeout"),
        (RedisFault::Dropped, "dropped"),
        (RedisFault::Tls, "tls"),
        (RedisFault::NoPassword, "password"),
        (RedisFault::Password, "password"),
        (RedisFault::PasswordUnreadable, "password"),
        (RedisFault::Files, "files"),
        (RedisFault::NoDescriptor, "descriptors"),
        (RedisFault::Permission, "permission"),
        (RedisFault::Database, "database"),
        (RedisFault::ReadOnly, "readonly"),
        (RedisFault::Full, "memory"),
        (RedisFault::Disk, "disk"),
        (RedisFault::Busy, "busy"),
        (RedisFault::Cluster, "cluster"),
        (RedisFault::NoMaster, "master"),
        (RedisFault::Untrusted, "untrusted"),
        (RedisFault::Protocol, "protocol"),
        (RedisFault::Other, "other"),
    ];

    /// By the code at the beginning of a server's error.
    pub fn of_code(code: &str) -> Option<RedisFault> {
        Some(match code {
            "NOAUTH" => RedisFault::NoPassword,
            "WRONGPASS" => RedisFault::Password,
            "NOPERM" => RedisFault::Permission,
            "READONLY" => RedisFault::ReadOnly,
            "OOM" => RedisFault::Full,
            "MISCONF" | "NOREPLICAS" => RedisFault::Disk,
            "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" => RedisFault::Busy,
            "MOVED" | "ASK" | "CROSSSLOT" => RedisFault::Cluster,
            "DENIED" => RedisFault::Unreachable,
            _ => return None,
        })
    }

    /// By the text of an error that has no code of its own, as in older servers.
    pub fn of_text(text: &str) -> Option<RedisFault> {
        let first = text.split(|c: char| !c.is_ascii_uppercase()).next().unwrap_or_default();
        let has = |part: &str| text.contains(part);
        RedisFault::of_code(first).or_else(|| match () {
            () if has("invalid password") || has("without any password") || has("invalid username") => {
                Some(RedisFault::Password)
            }
            () if has("operation not permitted") || has("Authentication required") => Some(RedisFault::NoPassword),
            () if has("DB index") || has("invalid DB") || has("SELECT is not allowed") => Some(RedisFault::Database),
            () if has("maxmemory") => Some(RedisFault::Full),
            () if has("max number of clients") => Some(RedisFault::Busy),
            () if has("unknown command") => Some(RedisFault::Protocol),
            () => None,
        })
    }

    /// By the code and the rest of an error.
    pub fn of_server(code: &str, details: Option<&str>) -> RedisFault {
        let details = details.unwrap_or_default();
        RedisFault::of_code(code).or_else(|| RedisFault::of_text(details)).unwrap_or(RedisFault::Other)
    }

    /// One word for statistics and logs.
    pub fn class(self) -> &'static str {
        RedisFault::ALL.iter().find(|(fault, _)| *fault == self).map_or("other", |(_, class)| class)
    }

    pub fn advice(self) -> &'static str {
        match self {
            RedisFault::Unreachable => "see that the Redis runs, that url is right and that no firewall is between",
            RedisFault::Timeout => "the Redis or the network is slow: see its slowlog, or raise timeout_ms",
            RedisFault::Dropped => "nothing, if it passes: the Redis was restarted or closes idle connections",
            RedisFault::Tls => {
                "see that the Redis speaks TLS on this port, that ca_file is the authority of its certificate \
                 and that the certificate names the host in url; give cert_file and key_file if it asks for them"
            }
            RedisFault::NoPassword => "this Redis wants a password: give password_file, and user if it has ACLs",
            RedisFault::Password => "the Redis refuses the user or the password: put the right one into password_file",
            RedisFault::PasswordUnreadable => {
                "see that the file in password_file is there and that this process may read it"
            }
            RedisFault::Files => {
                "see that ca_file, cert_file and key_file are good PEM files that this process may read"
            }
            RedisFault::NoDescriptor => descriptors::REMEDY,
            RedisFault::Permission => {
                "the user's ACL is too narrow: allow +get +set +del +eval +multi +exec +ping +select and these keys"
            }
            RedisFault::Database => {
                "the Redis has no database of that number: lower db, or raise databases in redis.conf"
            }
            RedisFault::ReadOnly => "this is a replica: url must name the master, or an address that follows it",
            RedisFault::Full => {
                "the Redis is full and evicts nothing: raise its maxmemory or choose another maxmemory-policy"
            }
            RedisFault::Disk => {
                "the Redis refuses writes because it cannot save to its disk or lacks replicas: see its log"
            }
            RedisFault::Busy => {
                "nothing, if it passes: the Redis is loading, failing over, running a script or out of connections"
            }
            RedisFault::Cluster => {
                "this is a cluster: name a proxy or a Redis of its own in url, or the one node that has the keys, with \
                 one {hash tag} in all of an app's keys"
            }
            RedisFault::NoMaster => "see that url ends in the name that `sentinel monitor` gives the master",
            RedisFault::Untrusted => {
                "if that server is yours, add it to trusted_hosts; if it is not, find out who answers for the sentinels \
                 or the Redis, or has changed what they say"
            }
            RedisFault::Protocol => {
                "see that it is a Redis 2.6.12 or newer, or one that is compatible, that listens there; sentinels want \
                 redis+sentinel:// before them"
            }
            RedisFault::Other => "see the Redis' own log",
        }
    }

    /// True if a new connection may help.
    pub fn is_about_the_connection(self) -> bool {
        !matches!(
            self,
            RedisFault::Permission | RedisFault::Full | RedisFault::Disk | RedisFault::Other | RedisFault::Cluster
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_errors_are_told_apart() {
        for (text, fault) in [
            ("NOAUTH Authentication required.", RedisFault::NoPassword),
            ("WRONGPASS invalid username-password pair or user is disabled.", RedisFault::Password),
            ("ERR invalid password", RedisFault::Password),
            ("ERR AUTH <password> called without any password configured for the default user.", RedisFault::Password),
            ("READONLY You can't write against a read only replica.", RedisFault::ReadOnly),
            ("OOM command not allowed when used memory > 'maxmemory'.", RedisFault::Full),
            ("LOADING Redis is loading the dataset in memory", RedisFault::Busy),
            ("MOVED 3999 127.0.0.1:6381", RedisFault::Cluster),
            ("CROSSSLOT Keys in request don't hash to the same slot", RedisFault::Cluster),
            ("ERR DB index is out of range", RedisFault::Database),
            ("ERR SELECT is not allowed in cluster mode", RedisFault::Database),
            ("MISCONF Redis is configured to save RDB snapshots", RedisFault::Disk),
            ("NOPERM this user has no permissions to access one of the keys", RedisFault::Permission),
        ] {
            assert_eq!(RedisFault::of_text(text), Some(fault), "{text}");
        }
        assert_eq!(RedisFault::of_text("ERR something new"), None);
    }
}
