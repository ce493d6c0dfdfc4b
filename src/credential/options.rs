//! The settings of this folder: apps, how their platforms are reached, the cluster and the state file.

use std::path::PathBuf;

use super::App;
use crate::cluster;
use crate::platform::ClientOptions;

/// Apps, and what their credentials need.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The state file; none: tokens are kept in memory only.
    pub state_path: Option<PathBuf>,
    /// The cluster; none for a single node.
    pub cluster: Option<cluster::Options>,
    pub upstream: ClientOptions,
    pub apps: Vec<App>,
}
