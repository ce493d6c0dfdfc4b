//! The client's corner that no outside test can reach: how often names are looked up. The rest is in `tests/it/hosts.rs`.

use super::*;
use crate::kind::mp;
use crate::sandbox::{AppOptions, Options, Sandbox};
use crate::secret::Secret;

/// Every name is this machine; remembers what it was asked.
#[derive(Default)]
struct Names(Mutex<Vec<String>>);

impl Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        self.0.lock().push(name.as_str().to_owned());
        let here: reqwest::dns::Addrs = Box::new(std::iter::once(([127, 0, 0, 1], 0).into()));
        Box::pin(std::future::ready(Ok(here)))
    }
}

#[tokio::test]
async fn every_call_looks_the_name_up_anew() {
    let known = AppOptions { appid: "wx1".into(), secret: "s".into(), ..AppOptions::default() };
    let sandbox = Sandbox::start(Options { apps: vec![known], ..Options::default() }).await.unwrap();
    let base_url = sandbox.base_url().replace("127.0.0.1", "api.test");
    let config = config::Upstream { concurrency: 1, ..config::Upstream::at(base_url.clone()) };
    let names = Arc::new(Names::default());
    let client = Client::with_resolver(&config, Some(names.clone())).unwrap();
    let secret = Secret::new("s".into());
    let ask = Ask { base_url: &base_url, appid: "wx1", secret: &secret, token: "", component: "", force: false };
    for calls in 1..=3 {
        client.fetch(&mp::STABLE, &ask, Duration::from_secs(8)).await.unwrap();
        assert_eq!(*names.0.lock(), vec!["api.test"; calls]);
    }
}
