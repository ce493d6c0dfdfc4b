//! What a Redis refused, in our own words: whose fault it is and what to do.
//!
//! Pure. Nothing of the server's text gets out: it may name keys, and keys may hold secrets.

use std::fmt;

use crate::descriptors;

/// Why a Redis could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Unreachable,
    Timeout,
    Dropped,
    Tls,
    NoPassword,
    Password,
    PasswordUnreadable,
    Files,
    /// This process has used up its file descriptors. That passes, and says nothing about any server.
    NoDescriptor,
    Permission,
    Database,
    ReadOnly,
    Full,
    Disk,
    Busy,
    Cluster,
    /// The sentinels know none of that name.
    NoMaster,
    /// A sentinel or a cluster has named a server that the password is not for.
    Untrusted,
    Protocol,
    Other,
}

impl Fault {
    /// Every one there is, for those who have words for each.
    pub const ALL: [Fault; 20] = [
        Fault::Unreachable,
        Fault::Timeout,
        Fault::Dropped,
        Fault::Tls,
        Fault::NoPassword,
        Fault::Password,
        Fault::PasswordUnreadable,
        Fault::Files,
        Fault::NoDescriptor,
        Fault::Permission,
        Fault::Database,
        Fault::ReadOnly,
        Fault::Full,
        Fault::Disk,
        Fault::Busy,
        Fault::Cluster,
        Fault::NoMaster,
        Fault::Untrusted,
        Fault::Protocol,
        Fault::Other,
    ];

    /// By the code that a server's error begins with.
    pub fn of_code(code: &str) -> Option<Fault> {
        Some(match code {
            "NOAUTH" => Fault::NoPassword,
            "WRONGPASS" => Fault::Password,
            "NOPERM" => Fault::Permission,
            "READONLY" => Fault::ReadOnly,
            "OOM" => Fault::Full,
            "MISCONF" | "NOREPLICAS" => Fault::Disk,
            "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" => Fault::Busy,
            "MOVED" | "ASK" | "CROSSSLOT" => Fault::Cluster,
            "DENIED" => Fault::Unreachable,
            _ => return None,
        })
    }

    /// By the text of an error without a code of its own; older servers have several such.
    pub fn of_text(text: &str) -> Option<Fault> {
        let first = text.split(|c: char| !c.is_ascii_uppercase()).next().unwrap_or_default();
        let has = |part: &str| text.contains(part);
        Fault::of_code(first).or_else(|| match () {
            () if has("invalid password") || has("without any password") || has("invalid username") => {
                Some(Fault::Password)
            }
            () if has("operation not permitted") || has("Authentication required") => Some(Fault::NoPassword),
            () if has("DB index") || has("invalid DB") || has("SELECT is not allowed") => Some(Fault::Database),
            () if has("maxmemory") => Some(Fault::Full),
            () if has("max number of clients") => Some(Fault::Busy),
            () if has("unknown command") => Some(Fault::Protocol),
            () => None,
        })
    }

    /// By an error in the two parts that it comes in.
    pub fn of_server(code: &str, details: Option<&str>) -> Fault {
        let details = details.unwrap_or_default();
        Fault::of_code(code).or_else(|| Fault::of_text(details)).unwrap_or(Fault::Other)
    }

    /// One word for statistics and logs.
    pub fn class(self) -> &'static str {
        match self {
            Fault::Unreachable => "unreachable",
            Fault::Timeout => "timeout",
            Fault::Dropped => "dropped",
            Fault::Tls => "tls",
            Fault::NoPassword | Fault::Password | Fault::PasswordUnreadable => "password",
            Fault::Files => "files",
            Fault::NoDescriptor => "descriptors",
            Fault::Permission => "permission",
            Fault::Database => "database",
            Fault::ReadOnly => "readonly",
            Fault::Full => "memory",
            Fault::Disk => "disk",
            Fault::Busy => "busy",
            Fault::Cluster => "cluster",
            Fault::NoMaster => "master",
            Fault::Untrusted => "untrusted",
            Fault::Protocol => "protocol",
            Fault::Other => "other",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Fault::Unreachable => "see that the Redis runs, that url is right and that no firewall is between",
            Fault::Timeout => "the Redis or the network is slow: see its slowlog, or raise timeout_ms",
            Fault::Dropped => "nothing, if it passes: the Redis was restarted or closes idle connections",
            Fault::Tls => {
                "see that the Redis speaks TLS on this port, that ca_file is the authority of its certificate \
                           and that the certificate names the host in url; give cert_file and key_file if it asks for them"
            }
            Fault::NoPassword => "this Redis wants a password: give password_file, and user if it has ACLs",
            Fault::Password => "the Redis refuses the user or the password: put the right one into password_file",
            Fault::PasswordUnreadable => {
                "see that the file in password_file is there and that this process may read it"
            }
            Fault::Files => "see that ca_file, cert_file and key_file are good PEM files that this process may read",
            Fault::NoDescriptor => descriptors::REMEDY,
            Fault::Permission => {
                "the user's ACL is too narrow: allow +get +set +del +eval +multi +exec +ping +select and \
                                  these keys"
            }
            Fault::Database => "the Redis has no database of that number: lower db, or raise databases in redis.conf",
            Fault::ReadOnly => "this is a replica: url must name the master, or an address that follows it",
            Fault::Full => {
                "the Redis is full and evicts nothing: raise its maxmemory or choose another maxmemory-policy"
            }
            Fault::Disk => "the Redis refuses writes because it cannot save to its disk or lacks replicas: see its log",
            Fault::Busy => {
                "nothing, if it passes: the Redis is loading, failing over, running a script or out of \
                            connections"
            }
            Fault::Cluster => {
                "this is a cluster: name a proxy or a Redis of its own in url, or the one node that has \
                               the keys, with one {hash tag} in all of an app's keys"
            }
            Fault::NoMaster => "see that url ends in the name that `sentinel monitor` gives the master",
            Fault::Untrusted => {
                "if that server is yours, add it to trusted_hosts; if it is not, find out who answers for the sentinels \
                 or the Redis, or has changed what they say"
            }
            Fault::Protocol => {
                "see that it is a Redis 2.6.12 or newer, or one that is compatible, that listens there; \
                                sentinels want redis+sentinel:// before them"
            }
            Fault::Other => "see the Redis' own log",
        }
    }

    /// A new connection may help; otherwise this one is as good as any.
    pub fn is_about_the_connection(self) -> bool {
        !matches!(self, Fault::Permission | Fault::Full | Fault::Disk | Fault::Other | Fault::Cluster)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Unreachable => "it cannot be reached",
            Fault::Timeout => "it did not answer in time",
            Fault::Dropped => "it closed the connection",
            Fault::Tls => "there is no trust in its certificate, or it does not speak TLS",
            Fault::NoPassword => "it wants a password",
            Fault::Password => "it refuses our user or password",
            Fault::PasswordUnreadable => "the password cannot be read",
            Fault::Files => "a certificate or key of ours cannot be used",
            Fault::NoDescriptor => "this process has no file descriptor left for it",
            Fault::Permission => "its ACL forbids what is needed",
            Fault::Database => "it has no such database",
            Fault::ReadOnly => "it is a read-only replica",
            Fault::Full => "it is out of memory",
            Fault::Disk => "it takes no writes",
            Fault::Busy => "it is busy",
            Fault::NoMaster => "its sentinels know no master of that name",
            Fault::Untrusted => "its master is said to be on a host that the password may not be sent to",
            Fault::Cluster => "it is a cluster node that does not have these keys",
            Fault::Protocol => "it does not answer as a Redis does",
            Fault::Other => "it refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_errors_are_told_apart() {
        for (text, fault) in [
            ("NOAUTH Authentication required.", Fault::NoPassword),
            ("WRONGPASS invalid username-password pair or user is disabled.", Fault::Password),
            ("ERR invalid password", Fault::Password),
            ("ERR AUTH <password> called without any password configured for the default user.", Fault::Password),
            ("READONLY You can't write against a read only replica.", Fault::ReadOnly),
            ("OOM command not allowed when used memory > 'maxmemory'.", Fault::Full),
            ("LOADING Redis is loading the dataset in memory", Fault::Busy),
            ("MOVED 3999 127.0.0.1:6381", Fault::Cluster),
            ("CROSSSLOT Keys in request don't hash to the same slot", Fault::Cluster),
            ("ERR DB index is out of range", Fault::Database),
            ("ERR SELECT is not allowed in cluster mode", Fault::Database),
            ("MISCONF Redis is configured to save RDB snapshots", Fault::Disk),
            ("NOPERM this user has no permissions to access one of the keys", Fault::Permission),
        ] {
            assert_eq!(Fault::of_text(text), Some(fault), "{text}");
        }
        assert_eq!(Fault::of_text("ERR something new"), None);
    }
}
