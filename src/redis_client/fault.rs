//! The classes of errors of a Redis, each with a text and advice.
//!
//! Pure. Never passes on the server's own text: it may name keys, and keys may hold secrets.

use crate::descriptors;
use crate::store_fault::{StoreFaultScope, store_faults};

store_faults! {
    /// Why a Redis could not be used.
    RedisFault {
        Unreachable "unreachable" Backend "it cannot be reached":
            "see that the Redis runs, that url is right and that no firewall is between";
        Timeout "timeout" Backend "it did not answer in time":
            "the Redis or the network is slow: see its slowlog, or raise timeout_ms";
        Dropped "dropped" Backend "it closed the connection":
            "nothing, if it passes: the Redis was restarted or closes idle connections";
        Tls "tls" Backend "there is no trust in its certificate, or it does not speak TLS":
            "see that the Redis speaks TLS on this port, that ca_file is the authority of its certificate \
             and that the certificate names the host in url; give cert_file and key_file if it asks for them";
        NoPassword "password" Backend "it wants a password":
            "this Redis wants a password: give password_file, and user if it has ACLs";
        Password "password" Backend "it refuses our user or password":
            "the Redis refuses the user or the password: put the right one into password_file";
        PasswordUnreadable "password" Backend "the password cannot be read":
            "see that the file in password_file is there and that this process may read it";
        Files "files" Backend "a certificate or key of ours cannot be used":
            "see that ca_file, cert_file and key_file are good PEM files that this process may read";
        /// This process is out of file descriptors. That passes, and says nothing about any server.
        NoDescriptor "descriptors" Descriptors "this process has no file descriptor left for it":
            descriptors::REMEDY;
        Permission "permission" Entry "its ACL forbids what is needed":
            "the user's ACL is too narrow: allow +get +set +del +eval +multi +exec +ping +select and these keys";
        Database "database" Backend "it has no such database":
            "the Redis has no database of that number: lower db, or raise databases in redis.conf";
        ReadOnly "readonly" Backend "it is a read-only replica":
            "this is a replica: url must name the master, or an address that follows it";
        Full "memory" Entry "it is out of memory":
            "the Redis is full and evicts nothing: raise its maxmemory or choose another maxmemory-policy";
        Disk "disk" Entry "it takes no writes":
            "the Redis refuses writes because it cannot save to its disk or lacks replicas: see its log";
        Busy "busy" Backend "it is busy":
            "nothing, if it passes: the Redis is loading, failing over, running a script or out of connections";
        Cluster "cluster" Entry "it is a cluster node that does not have these keys":
            "this is a cluster: name a proxy or a Redis of its own in url, or the one node that has the keys, with \
             one {hash tag} in all of an app's keys";
        NoMaster "master" Backend "its sentinels know no master of that name":
            "see that url ends in the name that `sentinel monitor` gives the master";
        /// A sentinel or a cluster named a server that must not get the password.
        Untrusted "untrusted" Backend "its master is said to be on a host that the password may not be sent to":
            "if that server is yours, add it to trusted_hosts; if it is not, find out who answers for the sentinels \
             or the Redis, or has changed what they say";
        Protocol "protocol" Backend "it does not answer as a Redis does":
            "see that it is a Redis 2.6.12 or newer, or one that is compatible, that listens there; sentinels want \
             redis+sentinel:// before them";
        Other "other" Entry "it refused":
            "see the Redis' own log";
    }
}

impl RedisFault {
    pub fn advice(self) -> &'static str {
        self.row().3
    }

    /// True if a new connection may help.
    pub fn is_about_the_connection(self) -> bool {
        self.row().1 != StoreFaultScope::Entry
    }

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
