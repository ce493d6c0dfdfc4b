//! The settings of this folder: apps, how their platforms are reached, the cluster and the state file.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use url::Url;

use super::App;
use crate::cluster;
use crate::environment::Environment;
use crate::platform::client::address;
use crate::platform::{ClientOptions, mp};

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The state file; none: tokens are kept in memory only.
    pub state_path: Option<PathBuf>,
    /// The cluster; none for a single node.
    pub cluster: Option<cluster::Options>,
    pub upstream: ClientOptions,
    pub apps: Vec<App>,
}

impl Options {
    /// A sentence for each address of an API that has a path.
    pub fn path_warnings(&self) -> Vec<String> {
        let upstream = &self.upstream;
        let of_wechat = |setting: &str, url: &str| address::path_warning(setting, url, mp::PLATFORM.calls_begin);
        let of_hosts = upstream.hosts.iter().filter_map(|url| of_wechat("upstream.hosts", url));
        let of_all = of_wechat("upstream.base_url", &upstream.base_url).filter(|_| upstream.hosts.is_empty());
        let own = self.apps.iter().filter(|app| app.component.is_none()).filter_map(|app| {
            let setting = format!("app {}: base_url", app.id());
            address::path_warning(&setting, app.base_url.as_deref()?, app.platform.calls_begin)
        });
        of_all.into_iter().chain(of_hosts).chain(own).collect()
    }

    /// The hosts that are called over https. Plain http is to this machine alone.
    pub fn called_hosts(&self) -> Vec<String> {
        let upstream = &self.upstream;
        let with_secret = self.apps.iter().filter(|app| !app.secret.is_absent());
        let bases: BTreeSet<&str> = with_secret.map(|app| app.base_url(upstream)).collect();
        let groups: HashMap<&str, Vec<&str>> = upstream.host_groups().collect();
        let urls = bases.into_iter().flat_map(|base| groups.get(base).cloned().unwrap_or_else(|| vec![base]));
        let urls = urls.filter_map(|url| Url::parse(url).ok()).filter(|url| url.scheme() == "https");
        urls.filter_map(|url| url.host_str().map(str::to_owned)).collect()
    }
}

/// The state file unless it is set: where the system has such files; none if it has no folder for them.
pub fn default_state_path(environment: &dyn Environment) -> Option<PathBuf> {
    let folder = |name: &str| environment.get(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    // systemd separates several state directories by colons; the first is ours.
    let of_systemd = environment.get("STATE_DIRECTORY").and_then(|folders| {
        let first = folders.to_str()?.split(':').next()?.to_owned();
        Some(PathBuf::from(first)).filter(|folder| folder.is_absolute())
    });
    let own = || folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    let folder = match of_systemd {
        Some(folder) => folder,
        None if environment.is_root() => PathBuf::from("/var/lib/tokencached"),
        None => own()?.join("tokencached"),
    };
    Some(folder.join("state.json"))
}
