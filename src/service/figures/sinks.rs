//! The figures of a sink.

use std::collections::BTreeMap;

use crate::access::Rights;
use crate::clock::Now;
use crate::stats::{Figure, FigureValue, RecentSinkEvents, SinkError, SinkStats, SinkWrite, figures};

/// A sink now, as somebody with these rights may see it.
pub struct SinkSample<'s> {
    pub sink: &'s SinkStats,
    now: Now,
    pub failures: BTreeMap<&'static str, u64>,
    /// 0 if nothing was ever written.
    last_write_unix_ms: i64,
    /// The last write, if these rights allow to see that app.
    write: Option<SinkWrite>,
    error: Option<SinkError>,
}

impl<'s> SinkSample<'s> {
    pub fn of(sink: &'s SinkStats, rights: &Rights, now: Now) -> SinkSample<'s> {
        let RecentSinkEvents { failures, last_error, last_write } = sink.recent().clone();
        let last_write_unix_ms = last_write.as_ref().map_or(0, |write| write.at_unix_ms);
        let write = last_write.filter(|write| rights.app(&write.app));
        SinkSample { sink, now, failures, last_write_unix_ms, write, error: last_error }
    }

    pub const METRICS: &'static str = "connected waiting tokencached_sink_failing writes deletes foreign_writes
        tokencached_sink_last_write_timestamp_seconds";

    pub const FIGURES: &'s [Figure<Self>] = figures! { |of|
        sink:
            type = of.sink.sink_type,
            target = one_line(&of.sink.target),
            connected => gauge tokencached_sink_connected "Whether the sink's target can be used at present.",
            waiting => gauge tokencached_sink_waiting "Credentials that are still to be written to the sink.",
            writes => counter tokencached_sink_writes "Keys, files and rows written, and commands run.",
            deletes => counter tokencached_sink_deletes "Keys, files and rows removed or marked as expired.",
            failures = of.failures.values().sum::<u64>(),
            foreign_writes => counter tokencached_sink_foreign_writes
                "Tokens found in the target that another program had written over ours.",
            // Its former name.
            rival_writes = &of.sink.foreign_writes;
        write:
            tokencached_sink_last_write_timestamp_seconds = of.last_write_at() => gauge
                tokencached_sink_last_write_timestamp_seconds
                "Time of the last write, seconds since 1970; 0 means never.",
            last_write_app = of.write.as_ref().map(|write| &write.app),
            last_write_kind = of.write.as_ref().map(|write| write.credential_type),
            last_write_entry = of.write.as_ref().map(|write| one_line(&write.entry)),
            last_write_s_ago = of.write.as_ref().map(|write| of.s_ago(write.at_unix_ms));
        error:
            tokencached_sink_failing = of.error.is_some() => gauge tokencached_sink_failing
                "Whether a write has failed and not everything has been written since.",
            last_error = of.error.as_ref().map_or("none", |error| error.class),
            last_error_text = of.error.as_ref().map(|error| &*error.what),
            last_error_whose = of.error.as_ref().map(|error| error.responsible),
            last_error_s_ago = of.error.as_ref().map(|error| of.s_ago(error.at_unix_ms)),
            what_to_do = of.error.as_ref().map(|error| &*error.advice);
    };

    fn last_write_at(&self) -> FigureValue<'_> {
        FigureValue::Milliseconds(self.last_write_unix_ms.max(0).cast_unsigned())
    }

    fn s_ago(&self, unix_ms: i64) -> u64 {
        self.now.unix_ms.saturating_sub(unix_ms).max(0).cast_unsigned() / 1000
    }
}

/// A path may have any character in it, an answer's line may not.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}
