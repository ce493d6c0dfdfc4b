//! The container image of `deploy/image`: the same bytes twice, nothing in it but what the server needs, and run by a real
//! container runtime as that user, with a root that cannot be written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tokencached::sandbox::Verdict;

use crate::support::{APPID, Client, SECRET, Wechat, as_root, free_port, program, run, run_checked, wait_for};

const USER: u32 = 65532;

/// One image for all tests; it takes seconds to make.
fn image() -> &'static Path {
    static IMAGE: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        make(&folder)
    });
    &IMAGE
}

/// Makes the image in that folder. The libraries are those of the packages that `tests/run` has downloaded.
fn make(folder: &Path) -> PathBuf {
    let binary = folder.join("tokencached");
    if !binary.exists() {
        run_checked(program("strip").arg("-o").arg(&binary).arg(env!("CARGO_BIN_EXE_tokencached")));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = program("bash");
    command.arg(root.join("deploy/image")).arg(&binary).arg(folder).env("LIBC_PACKAGES", root.join("target/libc"));
    let said = run_checked(&mut command);
    PathBuf::from(said.lines().find(|line| line.ends_with(".image.tar")).unwrap())
}

/// The image laid out as a runtime wants it.
fn unpack(image: &Path, folder: &Path) -> PathBuf {
    let (layout, bundle) = (folder.join("layout"), folder.join("bundle"));
    fs::create_dir(&layout).unwrap();
    run_checked(program("tar").arg("-xf").arg(image).arg("-C").arg(&layout));
    let of_layout = format!("{}:{}", layout.display(), env!("CARGO_PKG_VERSION"));
    run_checked(program("umoci").args(["unpack", "--image", &of_layout]).arg(&bundle));
    bundle
}

/// What is to be run: the image's own words, with these variables, no capability, a root that cannot be written, a volume,
/// and this network.
fn configure(bundle: &Path, volume: &Path, variables: &[String]) {
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(config["process"]["user"]["uid"], USER);
    config["root"]["readonly"] = json!(true);
    config["process"]["terminal"] = json!(false);
    config["process"]["capabilities"] = json!({});
    let environment = config["process"]["env"].as_array_mut().unwrap();
    environment.extend(variables.iter().map(|variable| json!(variable)));
    let linux = config["linux"].as_object_mut().unwrap();
    linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
    linux.remove("resources");
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    let at = mounts.iter_mut().find(|mount| mount["destination"] == "/var/lib/tokencached").unwrap();
    *at = json!({ "destination": "/var/lib/tokencached", "type": "none", "source": volume, "options": ["bind", "rw"] });
    fs::write(&path, config.to_string()).unwrap();
}

struct Container {
    child: Child,
    state: PathBuf,
    name: String,
}

impl Container {
    fn start(folder: &Path, bundle: &Path) -> Container {
        let state = folder.join("state-of-runc");
        let name = format!("tokencached-test-{}", std::process::id());
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = program("runc");
        command.arg("--root").arg(&state).arg("run").arg("--bundle").arg(bundle).arg(&name);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Container { child, state, name }
    }

    fn runc(&self, arguments: &[&str]) -> Command {
        let mut command = program("runc");
        command.arg("--root").arg(&self.state).args(arguments);
        command
    }

    fn health(&self) -> (Option<i32>, String) {
        let (status, said) = run(&mut self.runc(&["exec", &self.name, "/usr/bin/tokencached", "health"]));
        (status.code(), said)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.runc(&["delete", "--force", &self.name]).output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs runc, umoci, strip and root"]
fn the_image_runs_as_its_user_with_a_root_that_cannot_be_written() {
    as_root();
    let folder = tempfile::tempdir().unwrap();
    let bundle = unpack(image(), folder.path());
    let volume = folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    std::os::unix::fs::chown(&volume, Some(USER), Some(USER)).unwrap();
    let (wechat, port) = (Wechat::start(), free_port());
    let variables = [
        format!("WECHAT_APPID={APPID}"),
        format!("WECHAT_SECRET={SECRET}"),
        format!("TOKENCACHED_UPSTREAM_BASE_URL={}", wechat.base_url()),
        format!("TOKENCACHED_SERVER_LISTEN=0.0.0.0:{port}"),
        "TOKENCACHED_SERVER_ALLOW_UNAUTHENTICATED=true".to_owned(),
    ];
    configure(&bundle, &volume, &variables);
    let mut container = Container::start(folder.path(), &bundle);
    let log = || fs::read_to_string(folder.path().join("log")).unwrap();
    wait_for("the server", || {
        assert!(container.child.try_wait().unwrap().is_none(), "{}", log());
        log().contains("ready").then_some(())
    });
    assert_eq!(container.health(), (Some(0), format!("healthy: 0.0.0.0:{port} answers\n")));
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    let token = String::from_utf8(client.get("access_token").unwrap()).unwrap();
    assert_eq!(wechat.judge(&token), Verdict::Accepted);

    // SIGTERM is that of the image's StopSignal. The state is on the volume, and the next container goes on with it.
    run_checked(&mut container.runc(&["kill", &container.name, "TERM"]));
    let status = wait_for("the end of the container", || container.child.try_wait().unwrap());
    assert!(status.success(), "{status}: {}", log());
    let state = fs::metadata(volume.join("state.json")).unwrap();
    assert_eq!((state.uid(), state.mode() & 0o777), (USER, 0o600));
    assert!(!log().contains(SECRET) && !log().contains("Read-only file system"), "{}", log());
    drop(container);
    let container = Container::start(folder.path(), &bundle);
    wait_for("the next server", || log().contains("1 of 1 tokens restored").then_some(()));
    drop(container);
}

#[test]
#[ignore = "needs runc, umoci, strip and root"]
fn without_a_word_about_strangers_the_container_does_not_start() {
    as_root();
    let folder = tempfile::tempdir().unwrap();
    let bundle = unpack(image(), folder.path());
    configure(&bundle, folder.path(), &[]);
    let mut container = Container::start(folder.path(), &bundle);
    let status = wait_for("the end of the container", || container.child.try_wait().unwrap());
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(status.code() == Some(78) && log.contains("TOKENCACHED_SERVER_ALLOW_UNAUTHENTICATED=true"), "{log}");
}

/// And nobody could open a shell in it.
#[test]
#[ignore = "needs umoci, skopeo and strip"]
fn the_image_is_the_same_twice_and_holds_only_what_the_server_needs() {
    let folder = tempfile::tempdir().unwrap();
    let image = image();
    fs::copy(image.with_file_name("tokencached"), folder.path().join("tokencached")).unwrap();
    assert!(fs::read(image).unwrap() == fs::read(make(folder.path())).unwrap(), "two images of one binary differ");
    let bundle = unpack(image, folder.path());
    let found = run_checked(
        program("find").arg(bundle.join("rootfs")).args(["-type", "f", "-perm", "-u+x", "-printf", "%f\\n"]),
    );
    let mut programs: Vec<&str> = found.lines().filter(|name| !name.contains(".so")).collect();
    programs.sort_unstable();
    assert_eq!(programs, ["tokencached"]);
    let user = format!("\"User\":\"{USER}:{USER}\"");
    for kind in ["oci-archive", "docker-archive"] {
        let from = format!("{kind}:{}", image.display());
        let said = run_checked(program("skopeo").args(["inspect", "--config", "--raw", &from]));
        for part in
            [&user, "\"TOKENCACHED_SERVER_LISTEN=0.0.0.0:11211\"", "[\"CMD\",\"/usr/bin/tokencached\",\"health\"]"]
        {
            assert!(said.contains(part), "{kind}: {part} in {said}");
        }
        assert!(!said.contains("ALLOW_UNAUTHENTICATED"), "{said}");
    }
}
