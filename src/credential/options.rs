//! The settings of what is kept current: which apps, how their platforms are reached, what is shared and what is kept.

use std::path::PathBuf;

use super::App;
use crate::cluster;
use crate::platform::ClientOptions;

/// Apps, and what their credentials need.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The state file; `None` keeps tokens in memory only.
    pub state_path: Option<PathBuf>,
    /// What other nodes it has, and how they are reached; none: it is alone.
    pub cluster: Option<cluster::Options>,
    pub upstream: ClientOptions,
    pub apps: Vec<App>,
}
