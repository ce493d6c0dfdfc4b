//! The repository's own scripts, on machines whose tools differ.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{program, run, write};

/// A folder with these programs, to be found first.
fn programs(programs: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in programs {
        let path = write(folder.path(), name, text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a build and a run of valgrind would say: so many percent of the baseline's instructions.
fn counting(percent: u32) -> tempfile::TempDir {
    let valgrind = format!(
        "#!/bin/bash\nset -- \"${{@: -2}}\"\ncount=$(sed -n \"s/^$1 //p\" benches/cycles/baseline)\n\
         echo \"==1== Collected : $((count * $2 * {percent} / 100))\"\n"
    );
    programs(&[("cargo", "#!/bin/sh\necho '{\"executable\":\"/nowhere/cycles-0123\"}'\n"), ("valgrind", &valgrind)])
}

/// Every awk there is, and none of them in particular.
#[test]
#[ignore = "needs bash"]
fn the_comparison_of_instructions_is_the_same_whichever_awk_there_is() {
    for awk in ["gawk", "mawk", "busybox", "original-awk"] {
        let Some(awk) = find(awk) else { continue };
        for (percent, well) in [(100, true), (103, true), (110, false)] {
            let folder = counting(percent);
            symlink(&awk, folder.path().join("awk")).unwrap();
            let path = std::env::join_paths(
                std::iter::once(folder.path().to_owned())
                    .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
            );
            let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cycles/check");
            let (status, said) = run(program("bash").arg(check).env("PATH", path.unwrap()));
            assert_eq!(status.success(), well, "{}: {said}", awk.display());
            assert!(said.contains("cycles: get: ") && said.contains(" in the baseline"), "{said}");
            assert!(!said.contains("no baseline"), "{said}");
        }
    }
}
