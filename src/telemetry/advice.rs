//! The `advice` of a line in Chinese, where the configuration asks for it. Changes no other field, and no line without advice.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{MakeVisitor, RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::texts::Language;

const ADVICE: &str = "advice";
/// How the field begins in a line of JSON. A quote within a text is escaped, so that no text has this in it.
const IN_JSON: &str = "\"advice\":";

pub(super) struct ChineseFields;

impl<'writer> FormatFields<'writer> for ChineseFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = DefaultFields::new().make_visitor(writer);
        fields.record(&mut Translating(&mut line));
        line.finish()
    }
}

/// Hands fields on, the advice in Chinese.
struct Translating<'v>(&'v mut dyn Visit);

impl Visit for Translating<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == ADVICE {
            self.0.record_debug(field, &format_args!("{}", Language::Chinese.of(&format!("{value:?}"))));
        } else {
            self.0.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == ADVICE {
            self.0.record_str(field, &Language::Chinese.of(value));
        } else {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }
}

/// A line of JSON as `F` writes it, but for the advice.
pub(super) struct ChineseJson<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for ChineseJson<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&with_chinese_advice(&line).unwrap_or(line))
    }
}

fn with_chinese_advice(line: &str) -> Option<String> {
    let (before, rest) = line.split_once(IN_JSON)?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let advice = values.next()?.ok()?;
    let behind = rest.get(values.byte_offset()..)?;
    let chinese = serde_json::to_string(&*Language::Chinese.of(&advice)).ok()?;
    Some(format!("{before}{IN_JSON}{chinese}{behind}"))
}
