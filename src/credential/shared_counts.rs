//! What nodes share besides a value: the calls that all have counted, and how long no node has to call. If anybody
//! could write these, they could do harm, so they are accepted only with a valid seal.
//!
//! The text also has the counts without a seal, for nodes of the version before, which read nothing else. That part is
//! not used here. Pure; never logs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::quota_usage::QuotaUsage;
use crate::cluster::record::{LEASE_MS_MAX, StoreMs};
use crate::cluster::seal::Seal;
use crate::platform::Quota;

/// Counts may exceed this node's quota by this factor: nodes may have other quotas, and count alone without the store.
const QUOTAS_MAX: u64 = 100;

/// What a node has published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedCounts {
    pub calls: QuotaUsage,
    /// No node has to call before, by the store's clock; 0: at any time.
    #[serde(default)]
    pub not_before_ms: StoreMs,
}

/// Why the counts in a record are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountsRejected {
    #[error("it has no seal: a node of an older version has written it, or somebody else")]
    Unsealed,
    #[error("its seal is broken")]
    Broken,
    #[error("it is of a day to come, or more than all nodes may use")]
    Impossible,
}

#[derive(Deserialize)]
struct SealedCounts {
    sealed: Option<String>,
}

impl SharedCounts {
    /// After a call under a lease that was granted at that time. `wait_ms`: how long no node has to call.
    pub fn after_call(calls: &QuotaUsage, granted_ms: StoreMs, wait_ms: u64) -> SharedCounts {
        // The call ends with the lease at the latest.
        let over_ms = granted_ms.saturating_add(LEASE_MS_MAX);
        let not_before_ms = if wait_ms == 0 { 0 } else { over_ms.saturating_add(wait_ms) };
        SharedCounts { calls: calls.clone(), not_before_ms }
    }

    /// The text for a record.
    pub fn to_text(&self, seal: &Seal) -> Option<Arc<str>> {
        let mut text = serde_json::to_value(&self.calls).ok()?;
        let sealed = seal.seal_counts(&serde_json::to_vec(self).ok()?)?;
        text.as_object_mut()?.insert("sealed".to_owned(), serde_json::Value::from(&*sealed));
        Some(text.to_string().into())
    }

    /// Reads what [`SharedCounts::to_text`] has made, if it is possible at that time of the store.
    pub fn from_text(
        text: &str,
        seal: &Seal,
        quota: &Quota,
        store_ms: StoreMs,
    ) -> Result<SharedCounts, CountsRejected> {
        let outer: SealedCounts = serde_json::from_str(text).map_err(|_| CountsRejected::Broken)?;
        let sealed = outer.sealed.ok_or(CountsRejected::Unsealed)?;
        let opened = seal.unseal_counts(&sealed).map_err(|_| CountsRejected::Broken)?;
        let counts: SharedCounts = serde_json::from_slice(&opened).map_err(|_| CountsRejected::Broken)?;
        let most = quota.per_day.map_or(u64::MAX, |per_day| per_day.saturating_mul(QUOTAS_MAX));
        let unix_ms = i64::try_from(store_ms).unwrap_or(i64::MAX);
        match counts.calls.is_possible(unix_ms, most) {
            true => Ok(counts),
            false => Err(CountsRejected::Impossible),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::quota_usage::CallReason;
    use crate::secret::Secret;

    const DAY_MS: u64 = 86_400_000;
    const NOW_MS: u64 = 20_000 * DAY_MS;
    const QUOTA: Quota = Quota { per_day: Some(10), ..Quota::NONE };

    fn seal(tag: &str) -> Seal {
        Seal::new(&Secret::new("one secret, long enough".into()), tag)
    }

    fn counted(times: u64, at_ms: u64) -> QuotaUsage {
        let mut usage = QuotaUsage::default();
        for _ in 0..times {
            usage.try_charge(&Quota::NONE, i64::try_from(at_ms).unwrap(), CallReason::Renewal).unwrap();
        }
        usage
    }

    fn read(text: &str) -> Result<SharedCounts, CountsRejected> {
        SharedCounts::from_text(text, &seal("t1"), &QUOTA, NOW_MS)
    }

    #[test]
    fn what_one_node_has_counted_another_reads_and_so_does_the_version_before() {
        let counts = SharedCounts::after_call(&counted(3, NOW_MS), NOW_MS, 5_000);
        let text = counts.to_text(&seal("t1")).unwrap();
        assert_eq!(read(&text), Ok(counts.clone()));
        assert_eq!(serde_json::from_str::<QuotaUsage>(&text).unwrap(), counts.calls, "the version before reads so");
        assert_eq!(counts.not_before_ms, NOW_MS + LEASE_MS_MAX + 5_000);
    }

    #[test]
    fn counts_without_a_seal_of_ours_are_not_believed() {
        let counts = SharedCounts::after_call(&counted(3, NOW_MS), NOW_MS, 0);
        let plain = serde_json::to_string(&counts.calls).unwrap();
        assert_eq!(read(&plain), Err(CountsRejected::Unsealed));
        assert_eq!(read(&counts.to_text(&seal("t2")).unwrap()), Err(CountsRejected::Broken), "another credential's");
        for rubbish in ["", "{", "[]", "{\"sealed\":1}", "{\"sealed\":\"\"}", "{\"sealed\":\"AAAA\"}"] {
            assert!(read(rubbish).is_err(), "{rubbish}");
        }
    }

    #[test]
    fn counts_that_cannot_be_are_not_believed_under_a_seal_either() {
        let too_many = SharedCounts { calls: counted(1_001, NOW_MS), not_before_ms: 0 };
        assert_eq!(read(&too_many.to_text(&seal("t1")).unwrap()), Err(CountsRejected::Impossible));
        let to_come = SharedCounts { calls: counted(1, NOW_MS + 2 * DAY_MS), not_before_ms: 0 };
        assert_eq!(read(&to_come.to_text(&seal("t1")).unwrap()), Err(CountsRejected::Impossible));
        let long_past = SharedCounts { calls: counted(1_000, NOW_MS - 9 * DAY_MS), not_before_ms: 0 };
        assert!(read(&long_past.to_text(&seal("t1")).unwrap()).is_ok());
    }
}
