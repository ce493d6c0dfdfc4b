//! A web server of the site: a script that shows pages one after the other and says what became of each.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::ways::{Script, Way};

/// What the page views have shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub views: u64,
    /// Pages for which there was no token at all.
    pub without: u64,
    pub tokens: HashSet<String>,
    /// When the refusals began that go on now, in milliseconds of the script's clock.
    refused_since: Option<u64>,
    pub stalest: Duration,
}

impl Seen {
    /// A line of the script's: when, the errcode, the end of the token or `-`.
    fn add(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(Ok(at)), Some(errcode), Some(token)) =
            (words.next().map(str::parse::<u64>), words.next(), words.next())
        else {
            panic!("a script says {line:?}");
        };
        self.views += 1;
        if token == "-" {
            self.without += 1;
        } else {
            self.tokens.insert(token.to_owned());
        }
        // A refusal lasts until the first page view that is well.
        if let Some(since) = self.refused_since {
            self.stalest = self.stalest.max(Duration::from_millis(at.saturating_sub(since)));
        }
        self.refused_since = (errcode != "0").then(|| self.refused_since.unwrap_or(at));
    }
}

/// Killed when dropped.
pub(super) struct WebServer {
    name: String,
    child: Child,
    seen: Arc<Mutex<Seen>>,
    log: tempfile::NamedTempFile,
}

impl WebServer {
    pub fn start(way: &Way, variables: &[(&str, String)]) -> WebServer {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = command(way.script);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        match way.script {
            Script::Php(_) | Script::Mono => {}
            Script::Node(_) => drop(command.env("NODE_PATH", root().join("target/node/node_modules"))),
            Script::Python(_, packages) => drop(command.env("PYTHONPATH", root().join("target/python").join(packages))),
        }
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen().unwrap()).spawn();
        let mut child =
            started.unwrap_or_else(|error| panic!("{}: {error}; tests/run installs what is needed", way.name));
        let seen = Arc::<Mutex<Seen>>::default();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Ends with the script.
        std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || output.lines().map_while(Result::ok).for_each(|line| seen.lock().unwrap().add(&line))
        });
        WebServer { name: way.name.to_owned(), child, seen, log }
    }

    pub fn views(&self) -> u64 {
        self.seen.lock().unwrap().views
    }

    /// What has been seen since the last time.
    pub fn take_seen(&mut self) -> Seen {
        let mut seen = self.seen.lock().unwrap();
        let going_on = Seen { refused_since: seen.refused_since, ..Seen::default() };
        std::mem::replace(&mut seen, going_on)
    }

    /// Fails with what the script has said if it has ended.
    pub fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            let said = std::fs::read_to_string(self.log.path()).unwrap_or_default();
            panic!("{}: the script ended with {status}: {said}", self.name);
        }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn command(script: Script) -> Command {
    let folder = root().join("tests/moving");
    let (program, arguments) = match script {
        Script::Php(way) => ("php", vec![folder.join("php/site.php"), folder.join("php").join(way)]),
        Script::Node(way) => ("node", vec![folder.join("node").join(way)]),
        Script::Python(way, _) => ("python3", vec![folder.join("python").join(way)]),
        Script::Mono => ("mono", vec![compiled()]),
    };
    let mut command = crate::support::program(program);
    command.args(arguments);
    command
}

/// The C# program, built once for each run.
fn compiled() -> PathBuf {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = root().join("target/moving-site.exe");
        let mut command = crate::support::program("mcs");
        command.arg(format!("-out:{}", program.display())).arg("-r:System.Data");
        command.arg(root().join("tests/moving/mono/Site.cs"));
        let output = command.output().unwrap_or_else(|error| panic!("mcs: {error}; tests/run installs what is needed"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    });
    PROGRAM.clone()
}

/// Whether this build takes the configuration; what it says if not.
pub(super) fn check(binary: &Path, folder: &Path, config: &str) -> Result<(), String> {
    let file = folder.join("check.toml");
    std::fs::write(&file, config.replace("{folder}", &folder.display().to_string())).unwrap();
    let output = Command::new(binary).args(["check", "--config"]).arg(&file).output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // The first line says how many faults there are, the next which.
    Err(said.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect::<Vec<_>>().join(" "))
}
