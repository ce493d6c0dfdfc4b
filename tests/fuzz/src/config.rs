//! Any file as the configuration: it is taken or its faults are shown, and the environment's secret is in neither.
//! What is taken is taken again when it is written down as `tokencached check --print` does.

use std::collections::BTreeMap;

use tokencached::cli::Flags;
use tokencached::config::load;

const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e700";

pub fn run(data: &[u8]) {
    thread_local!(static FOLDER: tempfile::TempDir = super::folder());
    FOLDER.with(|folder| {
        let first = match load_text(folder, data) {
            Ok(text) => text,
            Err(faults) => {
                assert!(!faults.trim().is_empty(), "refused without a reason");
                assert!(!faults.contains(SECRET), "{faults}");
                return;
            }
        };
        assert!(!first.contains(SECRET), "{first}");
        // The secrets themselves are not written down.
        if !first.contains("<hidden>") {
            assert_eq!(load_text(folder, first.as_bytes()), Ok(first));
        }
    });
}

fn load_text(folder: &tempfile::TempDir, text: &[u8]) -> Result<String, String> {
    let file = folder.path().join("tokencached.toml");
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("{error}"));
    let home = folder.path().display().to_string();
    let variables = [("HOME", home.as_str()), ("WX_SECRET", SECRET)];
    let environment: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let loaded = load(Some(&file), &environment, &Flags::default()).map_err(|faults| faults.to_string())?;
    assert!(loaded.warnings.iter().all(|warning| !warning.contains(SECRET)), "{:?}", loaded.warnings);
    Ok(loaded.effective())
}
