//! The client's corner that no outside test can reach: how often names are looked up. The rest is in `tests/it/hosts.rs`.

use super::*;
use crate::platform::mp;
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
    let config = ClientOptions { concurrency: 1, ..ClientOptions::at(base_url.clone()) };
    let names = Arc::new(Names::default());
    let client = Client::with_resolver(&config, Some(names.clone())).unwrap();
    let secret = Secret::new("s".into());
    let ask =
        FetchParams { base_url: &base_url, appid: "wx1", secret: &secret, token: "", component: "", force: false };
    for calls in 1..=3 {
        client.fetch(&mp::STABLE, ask, Duration::from_secs(8)).await.unwrap();
        assert_eq!(*names.0.lock(), vec!["api.test"; calls]);
    }
}

/// A resolver that finds the process without a file descriptor.
struct Exhausted;

impl Resolve for Exhausted {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let error = std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        Box::pin(std::future::ready(Err(error.into())))
    }
}

#[tokio::test]
async fn a_call_without_a_file_descriptor_is_our_fault_and_no_hosts() {
    let hosts = vec!["http://a.test".to_owned(), "http://b.test".to_owned()];
    let config = ClientOptions { hosts, ..ClientOptions::at("http://a.test".to_owned()) };
    let client = Client::with_resolver(&config, Some(Arc::new(Exhausted))).unwrap();
    let secret = Secret::new("s".into());
    let ask = FetchParams {
        base_url: "http://a.test",
        appid: "wx1",
        secret: &secret,
        token: "",
        component: "",
        force: false,
    };
    for _ in 0..3 {
        let failure = client.fetch(&mp::STABLE, ask, Duration::from_secs(8)).await.unwrap_err();
        assert_eq!((failure.class, failure.delivery), (Class::Retry, Delivery::NotSent), "{failure}");
        assert!(failure.message.starts_with("a.test: "), "the other host is not tried: {failure}");
        assert!(failure.advice().contains("ulimit -n"), "{}", failure.advice());
    }
    let pick = client.groups["http://a.test"].lock().pick(None, clock::boot_ms()).unwrap();
    assert_eq!(&*pick.base_url, "http://a.test", "no host is avoided for it");
}
