//! What a figure is: its name in `stats` and in `/metrics`, its type, its help text, and how it is read. Each figure
//! has one row in a table; `stats`, `/metrics` and the status page show what the tables have.
//!
//! Never writes an answer.

use std::borrow::Cow;
use std::fmt::{Display, Formatter, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The present value of a figure, in its unit.
pub enum FigureValue<'f> {
    /// There is no value now, and so no line in `stats`.
    Absent,
    Text(Cow<'f, str>),
    /// A count, bytes or whole seconds.
    Number(u64),
    /// Shown in `stats` in whole seconds.
    Milliseconds(u64),
    /// Shown in `stats` in seconds, such as `0.012345`.
    Microseconds(u64),
}

impl FigureValue<'_> {
    /// The value for `/metrics`, times in seconds. `None` if it is not a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            FigureValue::Absent | FigureValue::Text(_) => None,
            FigureValue::Number(number) => Some(*number as f64),
            FigureValue::Milliseconds(ms) => Some(*ms as f64 / 1e3),
            FigureValue::Microseconds(us) => Some(*us as f64 / 1e6),
        }
    }
}

impl Display for FigureValue<'_> {
    /// The value for `stats`.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            FigureValue::Absent => Ok(()),
            FigureValue::Text(text) => f.write_str(text),
            FigureValue::Number(number) => number.fmt(f),
            FigureValue::Milliseconds(ms) => (ms / 1000).fmt(f),
            FigureValue::Microseconds(us) => write!(f, "{}.{:06}", us / 1_000_000, us % 1_000_000),
        }
    }
}

macro_rules! figure_values {
    ($($from:ty: $value:ident => $read:expr),* $(,)?) => {
        $(impl<'f> From<$from> for FigureValue<'f> { fn from($value: $from) -> Self { $read } })*
    };
}

figure_values! {
    u64: number => FigureValue::Number(number),
    &'f u64: number => FigureValue::Number(*number),
    &'f u32: number => FigureValue::Number(u64::from(*number)),
    usize: number => FigureValue::Number(number as u64),
    &'f AtomicU64: number => FigureValue::Number(number.load(Relaxed)),
    &'f Arc<AtomicU64>: number => FigureValue::from(&**number),
    bool: is_on => FigureValue::Number(u64::from(is_on)),
    &'f AtomicBool: is_on => FigureValue::from(is_on.load(Relaxed)),
    &'f str: text => FigureValue::Text(text.into()),
    &'f &'static str: text => FigureValue::Text((*text).into()),
    &'f String: text => FigureValue::Text(text.into()),
    String: text => FigureValue::Text(text.into()),
}

impl<'f, V: Into<FigureValue<'f>>> From<Option<V>> for FigureValue<'f> {
    fn from(value: Option<V>) -> Self {
        value.map_or(FigureValue::Absent, V::into)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    Counter,
    Gauge,
    Info,
    Histogram,
}

/// A metric as `/metrics` describes it.
#[derive(Clone, Copy)]
pub struct Metric<'m> {
    /// Without `_total` or `_info` at its end.
    pub name: &'m str,
    pub metric_type: MetricType,
    pub help: &'m str,
}

impl<'m> Metric<'m> {
    pub const fn counter(name: &'m str, help: &'m str) -> Metric<'m> {
        Metric { name, metric_type: MetricType::Counter, help }
    }

    pub const fn gauge(name: &'m str, help: &'m str) -> Metric<'m> {
        Metric { name, metric_type: MetricType::Gauge, help }
    }

    pub const fn info(name: &'m str, help: &'m str) -> Metric<'m> {
        Metric { name, metric_type: MetricType::Info, help }
    }
}

/// A figure that is read from a `T`, such as a sample of a sink.
pub struct Figure<T> {
    /// The name in `stats`, without the name of the credential, sink or class before it.
    pub name: &'static str,
    pub metric: Option<Metric<'static>>,
    pub read: for<'f> fn(&'f T) -> FigureValue<'f>,
}

impl<T> Figure<T> {
    /// False for a figure of `/metrics` alone: its name is the name of its metric.
    pub fn is_in_stats(&self) -> bool {
        self.metric.is_none_or(|metric| metric.name != self.name)
    }
}

/// A table of figures. A row begins with the name in `stats`. Without `=` the figure is the field of that name in the
/// part that stands before the rows; `= expression` reads it in another way; `= absent` is for a figure of memcached's
/// that does not exist here, and is always 0. After `=>` come type, name and help text of the metric, if there is one.
macro_rules! figures {
    (|$of:ident| $($part:ident: $(
        $name:ident $(= $read:expr)? $(=> $metric_type:ident $metric:ident $help:literal)?
    ),+;)+) => {
        &[$($($crate::stats::Figure {
            name: stringify!($name),
            metric: figures!(@metric $($metric_type $metric $help)?),
            read: |$of| figures!(@read $of $part $name $($read)?),
        }),+),+]
    };
    (@metric) => { None };
    (@metric $type:ident $name:ident $help:literal) => {
        Some($crate::stats::Metric::$type(stringify!($name), $help))
    };
    (@read $of:ident absent $name:ident) => {{
        let _ = $of;
        $crate::stats::FigureValue::Number(0)
    }};
    (@read $of:ident $part:ident $name:ident) => { $crate::stats::FigureValue::from(&$of.$part.$name) };
    (@read $of:ident $part:ident $name:ident $read:expr) => {{
        let _ = $of;
        $crate::stats::FigureValue::from($read)
    }};
}
pub(crate) use figures;

/// The figures with these names, in the order of the names.
pub fn by_names<'t, T>(table: &'t [Figure<T>], names: &'static str) -> impl Iterator<Item = &'t Figure<T>> {
    names.split_whitespace().filter_map(|name| table.iter().find(|figure| figure.name == name))
}
