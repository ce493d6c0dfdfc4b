//! What packages are made of: manual pages and completions that name the whole command line, files that exist, and the
//! options of `deploy/build`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{program, run, run_checked, tokencached};

/// The long flags that `--help` of a command names, and the commands themselves.
fn words_of_help(help: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut flags, mut commands) = (BTreeSet::new(), BTreeSet::new());
    let mut in_commands = false;
    for line in help.lines() {
        if !line.starts_with(' ') {
            in_commands = line == "Commands:";
        }
        let word = line.split_whitespace().find(|word| !word.starts_with('-') || word.starts_with("--")).unwrap_or("");
        if let Some(flag) = word.strip_prefix("--").filter(|_| line.trim_start().starts_with('-')) {
            flags.insert(flag.trim_end_matches('.').to_owned());
        } else if in_commands && line.starts_with("  ") && !word.is_empty() && word != "help" {
            commands.insert(word.to_owned());
        }
    }
    (flags, commands)
}

fn help_of(command: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    words_of_help(&run_checked(tokencached().args([command, "--help"].iter().filter(|word| !word.is_empty()))))
}

#[test]
fn every_command_has_a_manual_page_that_names_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    run_checked(tokencached().args(["generate", "man"]).arg(folder.path()));
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap().replace("\\-", "-");
    let whole = page("tokencached.1");
    let (flags, commands) = help_of("");
    assert!(flags.len() > 20 && commands.contains("demo"), "{flags:?} {commands:?}");
    assert!(flags.iter().all(|flag| whole.contains(&format!("--{flag}"))), "{whole}");
    for command in &commands {
        assert!(whole.contains(&format!("tokencached-{command}(1)")), "{command}: {whole}");
        let page = page(&format!("tokencached-{command}.1"));
        for flag in help_of(command).0 {
            assert!(page.contains(&format!("--{flag}")), "{command} --{flag}: {page}");
        }
    }
    let pages = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(pages, commands.len() + 1, "hidden commands have no page");
    assert!(whole.contains(".SH EXIT CODES\n.nf\n") && whole.contains("  78   the configuration"), "{whole}");
}

#[test]
fn the_completions_of_each_shell_name_every_command_and_flag() {
    let (flags, commands) = help_of("");
    for shell in ["bash", "zsh", "fish"] {
        let text = run_checked(tokencached().args(["generate", "completions", shell]));
        let missing: Vec<_> = flags.iter().filter(|flag| !text.contains(flag.as_str())).collect();
        assert!(missing.is_empty(), "{shell}: {missing:?}");
        for command in &commands {
            assert!(text.contains(command), "{shell}: {command}");
            assert!(help_of(command).0.iter().all(|flag| text.contains(flag)), "{shell}: {command}");
        }
        for hidden in ["generate", "tied"] {
            assert!(!text.contains(hidden), "{shell}: {hidden}");
        }
    }
}

#[test]
#[ignore = "needs bash, zsh and fish"]
fn the_shells_can_read_their_completions() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let file = folder.path().join(shell);
        std::fs::write(&file, run_checked(tokencached().args(["generate", "completions", shell]))).unwrap();
        run_checked(program(shell).arg(check).arg(&file));
    }
}

/// What the recipes take from the project itself; what is below `target` is built first.
#[test]
fn every_file_that_the_packages_take_is_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recipe = std::fs::read_to_string(top.join("deploy/package/nfpm.yaml")).unwrap();
    let spec = std::fs::read_to_string(top.join("deploy/package/tokencached.spec")).unwrap();
    let named = recipe.lines().filter_map(|line| {
        let (key, value) = line.trim().trim_start_matches("- ").split_once(": ")?;
        ["src", "postinstall", "preremove", "postremove"].contains(&key).then_some(value)
    });
    let named: Vec<_> = named.filter(|path| !path.starts_with("target/package-stage/")).collect();
    assert!(named.len() > 5, "{named:?}");
    let put: Vec<_> = spec.lines().filter_map(|line| line.strip_prefix("put ")?.split(' ').nth(1)).collect();
    assert!(put.len() > 5, "{put:?}");
    for path in named.into_iter().chain(put.into_iter().filter(|path| !path.starts_with("$stage/"))) {
        assert!(top.join(path).is_file(), "{path}");
    }
}

/// Wrong words end before anything is installed or compiled.
#[test]
#[ignore = "needs bash"]
fn the_build_of_packages_refuses_what_it_does_not_know() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/build");
    for (arguments, said) in [
        (&["--arch", "sparc"][..], "no such --arch: sparc"),
        (&["--libc", "bionic"], "no such --libc: bionic"),
        (&["--only", "deb,msi"], "no such kind with --libc gnu: msi"),
        (&["--libc", "musl", "--only", "rpm"], "no such kind with --libc musl: rpm"),
        (&["--features", "redis,nosql"], "no such feature: nosql"),
        (&["--out"], "--out needs a value"),
        (&["now"], "usage: deploy/build"),
    ] {
        let (status, text) = run(program("bash").arg(&script).args(arguments));
        assert!(!status.success() && text.contains(said), "{arguments:?}: {text}");
    }
}
