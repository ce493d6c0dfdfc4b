//! `tokencached demo`: everything it tells people to type works as it says.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use tokencached::cli::{self, CliCommand};
use tokencached::texts::Language;

use crate::support::{Client, Node, needs, program, run_checked, signal, tokencached, wait_for};

mod cluster;

/// The shell commands that are shown: indented by two, going on where they are indented further.
fn commands(printed: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut open = false;
    for line in printed.lines() {
        if let Some(command) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) {
            commands.push(command.to_owned());
            open = true;
        } else if open && line.starts_with("    ") {
            let last = commands.last_mut().unwrap();
            last.push('\n');
            last.push_str(line);
        } else {
            open = false;
        }
    }
    commands
}

/// A running demo and what it has printed.
struct Demo {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Demo {
    fn start() -> Demo {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let child = tokencached()
            .args(["demo", "-p", "0", "--lifetime", "3s"])
            .stdin(Stdio::null())
            .stdout(file("printed"))
            .stderr(file("log"))
            .spawn()
            .unwrap();
        let mut demo = Demo { child, folder, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        wait_for("the demo to say everything", || demo.printed().contains("/sandbox/calls\n").then_some(()));
        let printed = demo.printed();
        let address = printed.split("memcached clients on ").nth(1).unwrap().split(',').next().unwrap();
        demo.address = address.parse().unwrap();
        let mut client = Client::connect(demo.address);
        wait_for("both tokens", || client.get("access_token").and(client.get("wx2222222222222222")));
        demo
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("printed")).unwrap()
    }

    fn commands(&self) -> Vec<String> {
        commands(&self.printed())
    }

    /// The one command that contains this.
    #[track_caller]
    fn command(&self, part: &str) -> String {
        let commands = self.commands();
        let mut found = commands.iter().filter(|command| command.contains(part));
        let command = found.next().unwrap_or_else(|| panic!("no {part} in {commands:#?}"));
        command.clone()
    }

    /// Runs it as a person would, in a shell.
    #[track_caller]
    fn type_in(&self, part: &str) -> String {
        needs("nc, curl");
        run_checked(program("sh").arg("-c").arg(self.command(part)).env("no_proxy", "*"))
    }

    fn token(&self) -> String {
        let said = self.type_in("printf 'get access_token");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(lines[0].starts_with("VALUE access_token 0 ") && lines[2] == "END", "{said}");
        lines[1].to_owned()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs nc, curl"]
fn every_command_it_prints_works() {
    let demo = Demo::start();
    let mut tested = 0;
    for command in demo.commands() {
        let said = match command.split_whitespace().next().unwrap() {
            "printf" | "php" | "curl" => run_checked(program("sh").arg("-c").arg(&command).env("no_proxy", "*")),
            "telnet" => by_hand(&demo, &command),
            other => panic!("{other} is a command nobody has thought of here: {command}"),
        };
        let right = match &command {
            c if c.starts_with("printf 'get") => said.starts_with("VALUE access_token 0 "),
            c if c.starts_with("printf 'delete") => said == "DELETED\r\n",
            c if c.starts_with("php") => {
                let tokens: Vec<&str> = said.lines().collect();
                tokens.len() == 2 && tokens[0] != tokens[1] && tokens.iter().all(|token| token.len() > 100)
            }
            c if c.contains("/cgi-bin/get_api_domain_ip") => said.contains("ip_list"),
            c if c.contains("/sandbox/kill") => said.contains("\"ok\":true"),
            c if c.contains("/sandbox/calls") => said.contains("stable_token") && said.contains("wx2222222222222222"),
            c if c.starts_with("telnet") => said == "as printed",
            _ => false,
        };
        assert!(right, "{command}\nsaid\n{said}");
        tested += 1;
    }
    assert_eq!(tested, 7, "{:#?}", demo.commands());
}

/// What stands under `telnet`, typed into a connection: `->` is followed by the answer to be seen.
fn by_hand(demo: &Demo, session: &str) -> String {
    let mut client = Client::connect(demo.address);
    let lines: Vec<&str> = session.lines().skip(1).map(str::trim).collect();
    assert!(lines.len() >= 7, "{session}");
    for line in &lines {
        let (typed, answer) =
            line.split_once("->").map_or((*line, None), |(typed, answer)| (typed.trim(), Some(answer.trim())));
        client.send(format!("{typed}\r\n"));
        match answer {
            Some(answer) => assert_eq!(client.read_until(b"\r\n"), format!("{answer}\r\n").into_bytes()),
            None if typed.starts_with("set") => {}
            None if typed == "quit" => assert_eq!(client.rest(), b""),
            None => {
                let said = client.read_until(b"END\r\n");
                assert!(said.len() > 100, "{line}: {}", said.escape_ascii());
            }
        }
    }
    "as printed".to_owned()
}

#[test]
fn the_old_name_of_its_http_port_is_read_and_not_shown() {
    for flag in ["--http-port", "--side-port"] {
        let Ok(CliCommand::Demo(demo)) = cli::parse_in(Language::English, ["tokencached", "demo", flag, "7"]) else {
            panic!("{flag}")
        };
        assert_eq!(demo.http_port, Some(7), "{flag}");
    }
    let help = cli::parse_in(Language::English, ["tokencached", "demo", "--help"]).unwrap_err().to_string();
    assert!(help.contains("--http-port") && !help.contains("--side-port"), "{help}");
}

#[test]
#[ignore = "needs curl"]
fn its_status_page_is_where_it_says() {
    let demo = Demo::start();
    let printed = demo.printed();
    let page = printed.split("Status page: ").nth(1).unwrap().lines().next().unwrap();
    let get = |path: &str| run_checked(program("curl").args(["-sS", &format!("{page}{path}")]).env("no_proxy", "*"));
    assert!(get("").contains("<title>tokencached"));
    wait_for("the other two", || get("v1/status").contains("\"fresh\":4").then_some(()));
}

#[test]
#[ignore = "waits for real time"]
fn a_token_is_seen_to_be_renewed() {
    let demo = Demo::start();
    let first = demo.token();
    wait_for("a renewal", || Some(demo.token()).filter(|token| *token != first));
    assert!(!std::fs::read_to_string(demo.folder.path().join("log")).unwrap().contains(&first));
}

#[test]
#[ignore = "needs nc, curl"]
fn a_killed_token_is_replaced_when_a_client_says_so() {
    let demo = Demo::start();
    let first = demo.token();
    demo.type_in("/sandbox/kill");
    assert_eq!(demo.type_in("printf 'delete"), "DELETED\r\n");
    wait_for("another token", || Some(demo.token()).filter(|token| *token != first));
}

#[test]
fn it_ends_when_told_to() {
    let mut demo = Demo::start();
    signal(demo.child.id(), "INT");
    let child = &mut demo.child;
    let status = wait_for("the demo to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

/// What `tokencached sandbox` is given, its port and what it has printed.
struct Alone {
    child: Child,
    folder: tempfile::TempDir,
    url: String,
}

impl Alone {
    fn start(accounts: &[&str]) -> Alone {
        let folder = tempfile::tempdir().unwrap();
        let printed = folder.path().join("printed");
        let child = tokencached()
            .args(["sandbox", "--listen", "127.0.0.1:0", "--lifetime", "1m"])
            .args(accounts)
            .stdin(Stdio::null())
            .stdout(File::create(&printed).unwrap())
            .spawn()
            .unwrap();
        let url = wait_for("the sandbox to say where it is", || {
            let text = std::fs::read_to_string(&printed).ok().filter(|text| text.ends_with("> verify_ticket\n"))?;
            Some(text.split("base_url = \"").nth(1)?.split('"').next()?.to_owned())
        });
        Alone { child, folder, url }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs nc, curl"]
fn the_sandbox_alone_has_an_account_of_every_platform() {
    const S: &str = "0123456789abcdef0123456789abcdef";
    let given = [
        ("--app", format!("wx0123456789abcdef:{S}")),
        ("--wecom", format!("ww0123456789abcdef:{S}")),
        ("--qq", format!("1112223334:{S}")),
        ("--feishu", format!("cli_0123456789abcdef:{S}")),
        ("--component", format!("wxcccccccccccccccc:{S}")),
        ("--authorizer", "wxcccccccccccccccc:wxaaaaaaaaaaaaaaaa:refreshtoken@@@first".to_owned()),
    ];
    let accounts: Vec<&str> = given.iter().flat_map(|(flag, account)| [*flag, account.as_str()]).collect();
    let sandbox = Alone::start(&accounts);
    let printed = std::fs::read_to_string(sandbox.folder.path().join("printed")).unwrap();
    let command = commands(&printed).into_iter().find(|command| command.starts_with("curl")).unwrap();
    needs("nc, curl");
    run_checked(program("sh").args(["-c", &command]).current_dir(sandbox.folder.path()).env("no_proxy", "*"));
    let ticket = sandbox.folder.path().join("verify_ticket");
    let app = |appid: &str, kind: &str| format!("[[app]]\nappid = \"{appid}\"\nkind = \"{kind}\"\nsecret = \"{S}\"\n");
    let config = format!(
        "[state]\npath = \"{{folder}}/state.json\"\n[upstream]\nbase_url = \"{}\"\n{}{}{}{}{}verify_ticket_file = \"{}\"\n\
         [[app.authorizer]]\nappid = \"wxaaaaaaaaaaaaaaaa\"\nrefresh_token = \"refreshtoken@@@first\"\n",
        sandbox.url,
        app("wx0123456789abcdef", "mp"),
        app("ww0123456789abcdef", "wecom"),
        app("1112223334", "qq"),
        app("cli_0123456789abcdef", "feishu"),
        app("wxcccccccccccccccc", "component"),
        ticket.display(),
    );
    let node = Node::start(&config, &[]);
    let mut client = node.connect();
    for id in ["wx0123456789abcdef", "ww0123456789abcdef", "1112223334", "cli_0123456789abcdef", "wxaaaaaaaaaaaaaaaa"] {
        wait_for(id, || client.get(&format!("access_token:{id}")));
    }
    wait_for("the component", || client.get("component_access_token:wxcccccccccccccccc"));
    let unknown = tokencached().args(["sandbox", "--authorizer", "wxc:wxa:r"]).output().unwrap();
    assert!(!unknown.status.success());
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(said.contains("--component") && !said.contains("panicked"), "{said}");
}
