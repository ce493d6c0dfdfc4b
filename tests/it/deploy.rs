//! What `deploy/` has for containers: every setting it names exists; the chart is rendered by Helm's own library and judged
//! by Kubernetes's schemas, compose files by the rules of compose; and with what they set a server starts.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokencached::config::schema::SECTIONS;

use crate::support::{needs, program, run, run_checked, tokencached, write};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder of `deploy/`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What that script says to these arguments: the JSON, or what is wrong.
pub fn judged(arguments: &[&str]) -> Result<Value, String> {
    needs("python3");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = root.join("target/python/deploy");
    assert!(
        packages.join("yaml").is_dir(),
        "tests/run installs tests/python/requirements-deploy.txt below target/python"
    );
    let mut command = program("python3");
    command.arg(root.join("tests/python/deploy.py")).args(arguments);
    let (status, said) = run(command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1"));
    if !status.success() {
        return Err(said);
    }
    let line = said.lines().find(|line| line.starts_with(['[', '{'])).unwrap_or_else(|| panic!("{said}"));
    Ok(serde_json::from_str(line).unwrap())
}

#[track_caller]
fn rendered(values: &Value) -> Vec<Value> {
    let folder = deploy("helm/tokencached");
    let all =
        judged(&["chart", folder.to_str().unwrap(), &values.to_string()]).unwrap_or_else(|fault| panic!("{fault}"));
    all.as_array().unwrap().clone()
}

/// The words of that form in a text.
fn words<'t>(text: &'t str, begin: &'t str) -> impl Iterator<Item = &'t str> {
    text.match_indices(begin).map(move |(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn every_variable_that_is_set_for_a_container_exists() {
    let known: Vec<String> = SECTIONS
        .iter()
        .flat_map(|section| section.settings().filter_map(|setting| section.variable(setting)))
        .collect();
    let mut paths = vec![deploy("image")];
    paths.extend(["helm", "compose", "1panel"].iter().flat_map(|folder| files(&deploy(folder))));
    let mut found = 0;
    for path in paths.iter().filter(|path| path.extension().is_none_or(|extension| extension != "png")) {
        let text = text(path);
        for variable in words(&text, "TOKENCACHED_").filter(|variable| !variable.ends_with('_')) {
            assert!(known.iter().any(|name| name == variable), "{}: {variable}", path.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn every_key_that_the_chart_writes_for_an_app_exists() {
    let app = SECTIONS.iter().find(|section| section.name == "app").unwrap();
    let template = text(&deploy("helm/tokencached/templates/configmap.yaml"));
    let keys: Vec<&str> =
        template.lines().filter_map(|line| line.trim().split_once(" = {{")).map(|(key, _)| key).collect();
    assert!(keys.len() >= 6 && keys.iter().all(|key| app.find(key).is_some()), "{keys:?}");
}

/// Whatever the chart, the compose files and the image are called, it is this version.
#[test]
fn the_version_is_that_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = text(&deploy("helm/tokencached/Chart.yaml"));
    assert!(
        chart.contains(&format!("\nversion: {version}\n")) && chart.contains(&format!("\nappVersion: \"{version}\""))
    );
    for file in ["compose/compose.yaml".to_owned(), format!("1panel/tokencached/{version}/docker-compose.yml")] {
        assert!(text(&deploy(&file)).contains(&format!("image: tokencached:{version}\n")), "{file}");
    }
}

/// The variables and files of a rendered chart, with what Kubernetes would put in their place, judged by the server's own
/// `check`, once as the server starts and once as the probes ask.
#[track_caller]
fn is_accepted(documents: &[Value], secrets: &[(&str, &str)]) {
    let of_kind = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let here = |text: &str| {
        let path = folder.path().display().to_string();
        text.replace("/etc/tokencached", &path).replace("/var/lib/tokencached", &path)
    };
    for (file, secret) in secrets {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, secret).unwrap();
    }
    let config = of_kind("ConfigMap")["data"]["tokencached.toml"].as_str().unwrap();
    write(folder.path(), "tokencached.toml", &here(config));
    let container = &of_kind("StatefulSet")["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().unwrap().iter().map(|variable| {
        let value = variable["value"].as_str().unwrap_or("demo-tokencached-0");
        (variable["name"].as_str().unwrap().to_owned(), here(value))
    });
    let variables: Vec<_> = variables.collect();
    let arguments = container["args"].as_array().unwrap().iter().map(|argument| here(argument.as_str().unwrap()));
    let arguments: Vec<String> = arguments.skip(1).collect();
    for arguments in [&arguments[..], &[]] {
        let said = run_checked(tokencached().arg("check").args(arguments).envs(variables.iter().cloned()));
        assert!(said.contains("configuration good") && !said.contains("is not known"), "{said}");
    }
}

fn apps() -> Value {
    json!([{ "appid": "wx0123456789abcdef", "endpoint": "token", "aliases": ["access_token"] }, { "appid": "wx2" }])
}

const SECRETS: [(&str, &str); 2] = [("secrets/wx0123456789abcdef", "5ec4e7"), ("secrets/wx2", "5ec4e8")];

#[test]
#[ignore = "needs python3"]
fn one_node_of_the_chart() {
    let values = json!({ "apps": apps(), "appSecrets": "wechat", "auth": { "allowUnauthenticated": true } });
    let documents = rendered(&values);
    is_accepted(&documents, &SECRETS);
    let kinds: Vec<&str> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    for kind in ["ConfigMap", "StatefulSet", "NetworkPolicy"] {
        assert_eq!(kinds.iter().filter(|known| **known == kind).count(), 1, "{kinds:?}");
    }
    assert!(!kinds.contains(&"PodDisruptionBudget") && !kinds.contains(&"ServiceMonitor"), "{kinds:?}");
    let set = &documents.iter().find(|document| document["kind"] == "StatefulSet").unwrap()["spec"];
    let (pod, container) = (&set["template"]["spec"], &set["template"]["spec"]["containers"][0]);
    assert_eq!((&set["minReadySeconds"], &pod["securityContext"]["runAsUser"]), (&json!(10), &json!(65532)));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["readinessProbe"]["exec"]["command"], json!(["/usr/bin/tokencached", "health", "--ready"]));
}

#[test]
#[ignore = "needs python3"]
fn several_nodes_of_the_chart_followers_and_everything_that_can_be_switched_on() {
    let values = json!({
        "replicas": 3, "apps": apps(), "appSecrets": "wechat", "auth": { "existingSecret": "users" },
        "redis": { "url": "redis://redis:6379", "existingSecret": "redis", "password": true },
        "http": { "keysSecret": "keys" }, "serviceMonitor": { "enabled": true, "keySecret": "metrics" },
        "networkPolicy": {
            "extraClients": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }],
            "httpClients": [{ "namespaceSelector": { "matchLabels": { "name": "monitoring" } } }],
        },
        "persistence": { "enabled": false }, "extraEnv": { "TOKENCACHED_LOG_JSON": "true" },
        "extraConfig": "[[sink]]\nurl = \"redis://site\"\nkeys = [\"{type}:{appid}\"]\n",
    });
    let documents = rendered(&values);
    let count = |kind: &str| documents.iter().filter(|document| document["kind"] == kind).count();
    assert_eq!((count("PodDisruptionBudget"), count("ServiceMonitor"), count("Service")), (1, 1, 2));
    let secrets = [
        &SECRETS[..],
        &[
            ("auth/users", "web:password\n"),
            ("http/keys", "prometheus 0123456789abcdef0123456789abcdef status\n"),
            ("redis/secret", "0123456789abcdef0123456789abcdef"),
            ("redis/password", "a-password"),
        ],
    ];
    is_accepted(&documents, &secrets.concat());

    let follow = json!({ "urls": ["http://leader-0:2130", "http://leader-1:2130"], "existingSecret": "leader" });
    let values = json!({ "replicas": 2, "apps": apps(), "follow": follow, "auth": { "allowUnauthenticated": true } });
    is_accepted(&rendered(&values), &[("leader/key", "0123456789abcdef0123456789abcdef")]);
}

#[test]
#[ignore = "needs python3"]
fn values_that_would_not_do_are_refused_with_a_sentence() {
    let folder = deploy("helm/tokencached");
    let open = json!({ "allowUnauthenticated": true });
    for (values, part) in [
        (json!({}), "who may connect?"),
        (json!({ "auth": open, "replicas": 2 }), "have to share their tokens"),
        (json!({ "auth": open, "apps": apps() }), "appSecrets is missing"),
        (json!({ "auth": open, "redis": { "url": "redis://redis" } }), "redis.existingSecret is missing"),
        (json!({ "auth": open, "serviceMonitor": { "enabled": true } }), "serviceMonitor needs"),
        (json!({ "auth": open, "replcias": 2 }), "replcias"),
        (json!({ "auth": open, "apps": [{ "endpoint": "token" }] }), "appid"),
        (json!({ "auth": open, "memory": "lots" }), "memory"),
        // An empty selector is one that every pod fits.
        (json!({ "auth": open, "networkPolicy": { "clientLabels": { "tokencached-client": null } } }), "every pod"),
        (
            json!({ "auth": open, "networkPolicy": { "enabled": false }, "service": { "type": "NodePort" } }),
            "from outside of the cluster",
        ),
        // It would stand in the pod's description.
        (json!({ "auth": open, "redis": { "url": "redis://:word@redis", "existingSecret": "redis" } }), "pattern"),
    ] {
        let fault = judged(&["chart", folder.to_str().unwrap(), &values.to_string()]).map(drop).unwrap_err();
        assert!(fault.contains(part), "{values}: {fault}");
    }
}

/// What keeps strangers and the program itself in bounds.
#[track_caller]
fn is_confined(service: &Value) {
    assert_eq!((&service["read_only"], &service["cap_drop"]), (&json!(true), &json!(["ALL"])), "{service}");
    assert!(service["security_opt"][0].as_str().unwrap().starts_with("no-new-privileges"), "{service}");
    let ports = service["ports"].as_array().cloned().unwrap_or_default();
    assert!(ports.iter().all(|port| port.as_str().unwrap().starts_with("127.0.0.1:")), "{service}");
    if service["image"].as_str().is_some_and(|image| image.starts_with("tokencached:")) {
        assert_eq!(service["healthcheck"]["test"], json!(["CMD", "/usr/bin/tokencached", "health"]));
    }
}

#[test]
#[ignore = "needs python3"]
fn the_compose_file_is_one_and_its_containers_are_confined() {
    let document = judged(&["compose", deploy("compose/compose.yaml").to_str().unwrap()]).unwrap();
    let services = document["services"].as_object().unwrap();
    assert_eq!(services.len(), 4);
    services.values().for_each(is_confined);
    assert_eq!(document["networks"]["store"]["internal"], true);
    // Nothing but the page has a port on the machine, and only the nodes are with the Redis.
    let with_ports: Vec<&String> =
        services.iter().filter(|(_, of)| !of["ports"].is_null()).map(|(name, _)| name).collect();
    assert_eq!(with_ports, ["php"]);
    assert_eq!(services["php"]["networks"], json!(["site"]));
}

/// Killed when dropped.
#[cfg(feature = "redis")]
struct Process(std::process::Child);

#[cfg(feature = "redis")]
impl Process {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(feature = "redis")]
impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The processes of the compose file, without containers around them: the nodes with its variables and files, a Redis, and
/// the page.
#[cfg(feature = "redis")]
#[test]
#[ignore = "needs python3, redis-server and php"]
fn the_page_of_the_compose_file_has_a_token_and_keeps_it_when_a_node_is_killed() {
    use crate::support::redis::Redis;
    use crate::support::{APPID, SECRET, Wechat, free_port};

    let document = judged(&["compose", deploy("compose/compose.yaml").to_str().unwrap()]).unwrap();
    let (wechat, (_redis, redis_port)) = (Wechat::start(), Redis::on_tcp(&[]));
    let folder = tempfile::tempdir().unwrap();
    let here = |text: &str| text.replace("/run/secrets", &folder.path().display().to_string());
    write(folder.path(), "wechat", SECRET);
    write(folder.path(), "state", "0123456789abcdef0123456789abcdef");
    let config = write(folder.path(), "tokencached.toml", &here(&text(&deploy("compose/tokencached.toml"))));
    let mut nodes = Vec::new();
    for name in ["node-1", "node-2"] {
        let (port, http) = (free_port(), free_port());
        let variables = document["services"][name]["environment"].as_object().unwrap().iter().map(|(name, value)| {
            let value = here(value.as_str().unwrap()).replace("redis:6379", &format!("127.0.0.1:{redis_port}"));
            (name.clone(), value.replace("127.0.0.1:2130", &format!("127.0.0.1:{http}")))
        });
        let of_the_image = [
            // The image says 0.0.0.0, which is a network of its own there, and everybody's here.
            ("TOKENCACHED_SERVER_LISTEN", format!("127.0.0.1:{port}")),
            ("TOKENCACHED_STATE_PATH", folder.path().join(name).display().to_string()),
            ("TOKENCACHED_UPSTREAM_BASE_URL", wechat.base_url()),
        ];
        let variables = variables.chain(of_the_image.map(|(name, value)| (name.to_owned(), value)));
        let variables: Vec<_> = variables.collect();
        let mut serve = tokencached();
        let serve = serve.arg("serve").arg("--config").arg(&config).envs(variables.iter().cloned());
        let child = Process(serve.spawn().unwrap());
        let mut health = tokencached();
        health.args(["health", "--ready", "--wait", "30s", "--config"]).arg(&config).envs(variables);
        let said = run_checked(&mut health);
        assert!(said.contains("readyz says \"ready\""), "{said}");
        nodes.push((child, port));
    }
    let servers: Vec<String> = nodes.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    let page = || {
        let mut php = program("php");
        php.arg(deploy("compose/php/index.php")).env("APPID", APPID).env("MEMCACHED", servers.join(","));
        run(&mut php).1
    };
    let said = page();
    assert!(said.starts_with("a token of ") && !said.contains(SECRET), "{said}");
    nodes[0].0.end();
    assert_eq!(page(), said);
}

#[test]
#[ignore = "needs python3"]
fn the_entry_of_1panel_asks_for_what_its_compose_file_uses() {
    let folder = deploy("1panel/tokencached").join(env!("CARGO_PKG_VERSION"));
    let form = judged(&["yaml", folder.join("data.yml").to_str().unwrap()]).unwrap();
    let fields = form["additionalProperties"]["formFields"].as_array().unwrap().clone();
    let mut variables = vec!["CONTAINER_NAME=tokencached-abcd".to_owned()];
    let compose = folder.join("docker-compose.yml");
    for field in &fields {
        let name = field["envKey"].as_str().unwrap();
        assert!(text(&compose).contains(&format!("${{{name}}}")), "{name} is asked for and not used");
        for language in ["en", "zh", "zh-Hant", "ja"] {
            assert!(field["label"][language].is_string(), "{name} has no label in {language}");
        }
        assert_eq!((&field["label"]["en"], &field["label"]["zh"]), (&field["labelEn"], &field["labelZh"]));
        let given = field["default"].as_i64().map_or("typed".to_owned(), |number| number.to_string());
        variables.push(format!("{name}={given}"));
    }
    let arguments = ["compose", compose.to_str().unwrap()].into_iter().chain(variables.iter().map(String::as_str));
    let document = judged(&arguments.collect::<Vec<_>>()).unwrap();
    let service = &document["services"]["tokencached"];
    is_confined(service);
    assert_eq!(service["ports"], json!(["127.0.0.1:11211:11211"]));
    assert_eq!(service["environment"]["TOKENCACHED_SERVER_MEMORY"], "64MiB");
    let secret = fields.iter().find(|field| field["envKey"] == "WECHAT_SECRET").unwrap();
    assert_eq!(secret["type"], "password");
    let entry = judged(&["yaml", deploy("1panel/tokencached/data.yml").to_str().unwrap()]).unwrap();
    assert_eq!(entry["additionalProperties"]["key"], "tokencached");
    let logo = fs::read(deploy("1panel/tokencached/logo.png")).unwrap();
    assert!(logo.starts_with(b"\x89PNG") && logo.len() < 10_000);
}
