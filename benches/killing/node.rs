//! A node as a process of its own, at an address that it keeps when it is killed and started again.
//!
//! Knows what it is started with and reads its log; speaks to nobody.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Plan;

/// How long a start may take.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Node {
    pub name: String,
    pub address: SocketAddr,
    binary: std::path::PathBuf,
    folder: TempDir,
    child: Option<Child>,
}

impl Node {
    /// Starts one in a new folder below that of the plan, with these lines in `[state]`, of that app.
    pub fn start(plan: &Plan, name: &str, state: &str, upstream: &str, appid: &str, secret: &str) -> Node {
        let folder = tempfile::tempdir_in(&plan.folder).unwrap();
        let address = own_address();
        let config = format!(
            "[server]\nlisten = [\"{address}\"]\nthreads = 1\n[state]\npath = \"{}/state.json\"\n{state}\n\
             [upstream]\nbase_url = \"{upstream}\"\n[log]\njson = true\n\
             [[app]]\nappid = \"{appid}\"\nsecret = \"{secret}\"\nendpoint = \"token\"\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("tokencached.toml"), config).unwrap();
        let mut node = Node { name: name.to_owned(), address, binary: plan.binary.clone(), folder, child: None };
        node.start_again();
        node
    }

    /// With whatever its folder holds.
    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let config = self.folder.path().join("tokencached.toml");
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(config).env_clear().stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Until it takes connections.
    pub fn wait(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none() && begun.elapsed() < TIMEOUT, "{} does not come up:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The generations that it has fetched itself, the latest last.
    pub fn fetched(&self) -> Vec<u64> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["message"] == "renewed").filter_map(|line| line["generation"].as_u64()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Of this machine, and nobody else's: while the node is down no other process takes its port, and a client that tries to
/// connect meets nobody, itself neither, as it might at an address that it connects from.
fn own_address() -> SocketAddr {
    let ip = Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254));
    SocketAddr::from((ip, 11_211))
}
