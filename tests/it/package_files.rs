//! What the packages bring: their unit, their configuration, and what their scripts know of the program's files. Whole
//! installations are tried by `deploy/try-packages`.

use std::path::{Path, PathBuf};

use tokencached::credential::grants::{GrantName, GrantType, SavedGrant};
use tokencached::credential::state::{FileStore, Snapshot, StateStore};

use crate::support::{program, run, tokencached, write};

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/package").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(packaged(name)).unwrap()
}

/// The settings of a unit, in its order.
fn settings(unit: &str) -> Vec<(&str, &str)> {
    unit.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect()
}

/// CentOS 7 has systemd 219. It says so of each setting that it does not know, at every start.
#[test]
fn the_unit_of_the_packages_has_only_settings_of_systemd_219() {
    let known = "Description Documentation Wants After Type User Group ExecStartPre ExecStart ExecReload Restart RestartSec \
                 RestartPreventExitStatus TimeoutStopSec WatchdogSec Environment RuntimeDirectory RuntimeDirectoryMode UMask \
                 LimitNOFILE LimitCORE NoNewPrivileges CapabilityBoundingSet ProtectSystem ProtectHome PrivateTmp \
                 PrivateDevices RestrictAddressFamilies SystemCallArchitectures WantedBy";
    let unit = text("tokencached.service");
    for (key, value) in settings(&unit) {
        assert!(known.split(' ').any(|word| word == key), "{key}={value}");
    }
    assert!(unit.contains("\nProtectSystem=full\n"), "it takes no \"strict\" before systemd 231");
}

/// The two units differ in how they are installed, not in when the service is restarted.
#[test]
fn the_unit_of_the_packages_restarts_as_the_other_one() {
    let (packaged, other) = (text("tokencached.service"), text("../tokencached.service"));
    for key in [
        "Type",
        "ExecReload",
        "Restart",
        "RestartSec",
        "RestartPreventExitStatus",
        "TimeoutStopSec",
        "WatchdogSec",
        "UMask",
    ] {
        let of =
            |unit: &str| settings(unit).into_iter().find(|(name, _)| *name == key).map(|(_, value)| value.to_owned());
        assert!(of(&packaged).is_some() && of(&packaged) == of(&other), "{key}");
    }
}

/// As it is shipped, and with its example of an app switched on.
#[test]
fn the_configuration_of_the_packages_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let check = |config: &str| {
        let file = write(folder.path(), "c.toml", config);
        run(tokencached().args(["check", "--quiet", "--config"]).arg(file)).1
    };
    let shipped = text("tokencached.toml");
    assert!(check(&shipped).ends_with("configuration good: no apps; 1 warning\n"));
    let secret = write(folder.path(), "secret", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let on = shipped.replace("# [[app]]", "[[app]]").replace("# appid", "appid").replace("# aliases", "aliases");
    let on = on.replace("# secret_file = \"/etc/tokencached/secrets/wx0123456789abcdef\"", "secret_file = \"secret\"");
    let said = check(&on.replace("# [http]", "[http]").replace("# listen", "listen"));
    assert!(said.ends_with("configuration good: 1 app; no warnings\n"), "{said}");
}

/// A package's script for folders of a test: `etc`, `state`, and `bin`, where programs stand that are not to be run in earnest.
fn script_in(folder: &Path, name: &str) -> std::process::Command {
    let at = |name: &str| folder.join(name).display().to_string();
    let script = text(&format!("scripts/{name}")).replace("/etc/tokencached", &at("etc"));
    let script = script.replace("/var/lib/tokencached", &at("state")).replace("/run/systemd/system", &at("none"));
    for name in ["etc", "state", "bin"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let stand_in = write(&folder.join("bin"), "systemctl", "#!/bin/sh\n");
    std::fs::set_permissions(stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = program("sh");
    command.arg(write(folder, name, &script)).env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", at("bin")));
    command
}

/// root runs the scripts, and the folder of the state belongs to the server's user.
#[test]
#[ignore = "needs sh"]
fn removal_writes_through_no_link_of_the_servers_user() {
    let folder = tempfile::tempdir().unwrap();
    let victim = write(folder.path(), "victim", "root's");
    let removes = |mut command: std::process::Command| assert!(run(command.arg("remove")).0.success());
    let prerm = script_in(folder.path(), "prerm");
    for parent in ["state", "etc"] {
        std::os::unix::fs::symlink(&victim, folder.path().join(parent).join(".removed")).unwrap();
    }
    removes(prerm);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "root's");
    std::fs::remove_file(folder.path().join("etc/.removed")).unwrap();
    removes(script_in(folder.path(), "prerm"));
    assert!(folder.path().join("etc/.removed").exists(), "postinst looks for it");
}

/// dash's echo makes an escape of a backslash, and a process gives itself its name.
#[test]
#[ignore = "needs dash"]
fn no_name_of_a_process_or_file_is_more_than_text() {
    let named = r"\033[2J\n";
    let functions = |name: &str, last: &str| {
        let script = text(&format!("scripts/{name}"));
        script[..script.find(last).unwrap()].to_owned()
    };
    let said = |script: String, call: &str| run(program("dash").arg("-c").arg(format!("{script}\n{call}\n"))).1;
    let note = format!("note: the address 127.0.0.1:1 is in use by {named} (process 7): a server that starts now ends");
    let check = format!("check() {{ printf '%s\\n' '{note}'; }}; say \"$(obstacle)\"");
    let about_port = said(functions("postinst", "start_at_first() {"), &check);
    assert!(about_port.contains(&format!("is in use by {named} (process 7): edit")), "{about_port}");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &format!("{named}\x1b[2J"), "");
    let find = format!("STATE='{}'; say \"$(find_refresh_tokens)\"", folder.path().display());
    let about_file = said(functions("postrm", "purge_state() {"), &find);
    assert!(about_file.ends_with(&format!("/{named}?[2J\n")), "{about_file}");
}

/// Purge takes the state away unless there may be refresh tokens in it.
#[test]
#[ignore = "needs sh"]
fn purge_knows_a_state_with_refresh_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let script = text("scripts/postrm");
    let start = script.find("is_without_refresh_tokens() {").unwrap();
    let function = &script[start..start + script[start..].find("\n}\n").unwrap() + 3];
    let is_purged = |path: &Path| {
        run(program("sh").arg("-c").arg(format!("{function}is_without_refresh_tokens \"$1\"")).arg("-").arg(path))
            .0
            .success()
    };
    let path = folder.path().join("state.json");
    let store = FileStore::new(&path);
    store.save(&Snapshot::default()).unwrap();
    assert!(is_purged(&path));
    let (component, authorizer, base) = ("wxcomponent".into(), "wx1".into(), String::new());
    let name = GrantName { what: GrantType::RefreshToken, component, authorizer, base };
    let grant = SavedGrant { name, value: "refreshtoken@@@R".into(), configured: None, wanted_unix_ms: 7 };
    store.save(&Snapshot { grants: vec![grant], ..Snapshot::default() }).unwrap();
    assert!(!is_purged(&path));
    for damaged in ["", "{}", "{\"format\":\"tokencached-state\",\"version\":9,\"payload\":{}}"] {
        std::fs::write(&path, damaged).unwrap();
        assert!(!is_purged(&path), "{damaged}");
    }
}
