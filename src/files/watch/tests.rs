use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;

/// Takes whatever does not begin with "bad".
struct Notes {
    paths: Vec<PathBuf>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl WatchedFiles for Notes {
    fn name(&self) -> String {
        "the notes in".to_owned()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    fn bytes_max(&self) -> usize {
        100
    }

    fn apply(&mut self, contents: &[FileContent], _at_start: bool) -> Result<(), NotApplied> {
        let text: String = contents.iter().map(|content| String::from_utf8_lossy(content).into_owned()).collect();
        match text.starts_with("bad") {
            true => Err(NotApplied::Bad("its first word is bad".to_owned())),
            false => {
                self.taken.lock().push(text);
                Ok(())
            }
        }
    }
}

/// A watched file, looked at by hand.
struct Site {
    folder: TempDir,
    file: File,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Site {
    fn new(names: &[&str]) -> Site {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "old").unwrap();
        }
        let paths = names.iter().map(|name| folder.path().join(name)).collect();
        let taken = Arc::default();
        let file = File::new(Box::new(Notes { paths, taken: Arc::clone(&taken) }));
        let mut site = Site { folder, file, taken };
        site.settle();
        assert_eq!(site.taken(), ["old".repeat(names.len())]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn settle(&mut self) {
        self.file.check();
        self.file.check();
    }

    /// What was taken since the last call.
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.taken.lock())
    }

    /// Every file looks as if nobody had touched it for long.
    #[expect(clippy::disallowed_methods, reason = "the times of files are those of the wall clock")]
    fn age(&self, name: &str) {
        let file = fs::File::options().append(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::now() - 2 * 60 * YOUNG).unwrap();
    }
}

#[test]
fn what_is_written_in_place_renamed_over_or_behind_another_link_is_taken_once() {
    let mut site = Site::new(&["file"]);
    site.write("file", "in place");
    site.settle();
    site.settle();
    assert_eq!(site.taken(), ["in place"]);

    site.write("new", "renamed");
    fs::rename(site.path("new"), site.path("file")).unwrap();
    site.settle();
    site.settle();
    assert_eq!(site.taken(), ["renamed"]);

    // As ln -sfn does it.
    site.write("target", "linked");
    symlink("target", site.path("link")).unwrap();
    fs::rename(site.path("link"), site.path("file")).unwrap();
    site.settle();
    site.settle();
    assert_eq!(site.taken(), ["linked"]);
}

/// Secrets and config maps of Kubernetes: the file is a link through `..data`, and that is what changes.
#[test]
fn a_folder_behind_a_link_that_is_swapped_is_found() {
    let mut site = Site::new(&["file"]);
    for (version, text) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(site.path(version)).unwrap();
        site.write(&format!("{version}/file"), text);
    }
    symlink("..1", site.path("..data")).unwrap();
    fs::remove_file(site.path("file")).unwrap();
    symlink("..data/file", site.path("file")).unwrap();
    site.settle();
    assert!(site.taken().is_empty(), "the same content in another place is no change");
    symlink("..2", site.path("..data_tmp")).unwrap();
    fs::rename(site.path("..data_tmp"), site.path("..data")).unwrap();
    site.settle();
    assert_eq!(site.taken(), ["new"]);
}

#[test]
fn a_file_that_is_being_written_is_not_taken_before_it_is_whole() {
    let mut site = Site::new(&["file"]);
    for part in ["one ", "one two ", "one two three"] {
        site.write("file", part);
        site.file.check();
        assert!(site.file.candidate.is_some() && site.taken().is_empty(), "{part}");
    }
    site.file.check();
    assert_eq!(site.taken(), ["one two three"]);
}

#[test]
fn what_is_missing_or_bad_is_said_once_and_changes_nothing() {
    let mut site = Site::new(&["file"]);
    for (bad, said) in [("bad", "is not used"), ("", ""), (&"x".repeat(101), "too large")] {
        site.write("file", bad);
        site.settle();
        let now = site.file.logged_fault.clone();
        assert_eq!(now.as_ref().is_some_and(|now| now.contains(said)), !said.is_empty(), "{now:?}");
        site.settle();
        assert_eq!(site.file.logged_fault, now);
    }
    assert_eq!(site.taken(), [""]);
    fs::remove_file(site.path("file")).unwrap();
    site.file.check();
    assert_ne!(site.file.logged_fault.as_deref(), Some("is missing"), "it may be about to be replaced");
    site.file.check();
    assert_eq!(site.file.logged_fault.as_deref(), Some("is missing"));
    // Back as it was: all is well, and nothing has changed.
    site.write("file", "");
    site.settle();
    assert!(site.file.logged_fault.is_none() && site.taken().is_empty());
    fs::remove_file(site.path("file")).unwrap();
    fs::create_dir(site.path("file")).unwrap();
    site.settle();
    assert_eq!(site.file.logged_fault.as_deref(), Some("is not a regular file"));
}

#[test]
fn two_changes_within_a_moment_are_told_apart_and_one_touched_is_none() {
    let mut site = Site::new(&["file"]);
    for text in ["one", "two", "six"] {
        site.write("file", text);
        site.settle();
        assert_eq!(site.taken(), [text], "same size, and the times may be the same");
    }
    site.age("file");
    site.settle();
    assert!(site.taken().is_empty());
}

#[test]
fn files_that_belong_together_are_taken_together() {
    let mut site = Site::new(&["cert", "key"]);
    site.write("cert", "1");
    site.file.check();
    site.write("key", "2");
    site.file.check();
    assert!(site.taken().is_empty());
    site.file.check();
    assert_eq!(site.taken(), ["12"]);
    fs::remove_file(site.path("key")).unwrap();
    site.settle();
    assert_eq!((site.taken(), site.file.logged_fault.as_deref()), (Vec::new(), Some("is missing")));
}

/// Hangs when its file is taken, as a read from a dead disk does.
struct Hanging(Mutex<mpsc::Receiver<()>>, mpsc::Sender<()>);

impl WatchedFiles for Hanging {
    fn name(&self) -> String {
        "what hangs".to_owned()
    }

    /// On a file system of its own.
    fn paths(&self) -> Vec<PathBuf> {
        vec!["/proc/version".into()]
    }

    fn bytes_max(&self) -> usize {
        10_000
    }

    fn apply(&mut self, _contents: &[FileContent], _at_start: bool) -> Result<(), NotApplied> {
        let _ = self.1.send(());
        let _ = self.0.lock().recv();
        Ok(())
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "old").unwrap();
    let taken = Arc::default();
    let notes = Notes { paths: vec![path.clone()], taken: Arc::clone(&taken) };
    let (release, hangs) = mpsc::channel();
    let (tells, begun) = mpsc::channel();
    let hanging = Hanging(Mutex::new(hangs), tells);
    let end = CancellationToken::new();
    let following = tokio::spawn(watch_files(vec![Box::new(hanging), Box::new(notes)], end.clone()));
    tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
    fs::write(&path, "new").unwrap();
    while taken.lock().last().map(String::as_str) != Some("new") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    end.cancel();
    following.await.unwrap();
    drop(release);
}

#[tokio::test]
async fn what_is_added_to_a_running_watch_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "old").unwrap();
    let taken = Arc::<Mutex<Vec<String>>>::default();
    let (more, added) = tokio::sync::mpsc::unbounded_channel();
    let end = CancellationToken::new();
    let following = tokio::spawn(watch_files_and_more(Vec::new(), added, end.clone()));
    let notes: Box<dyn WatchedFiles> = Box::new(Notes { paths: vec![path], taken: Arc::clone(&taken) });
    assert!(more.send(notes).is_ok());
    let until_taken = async {
        while taken.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), until_taken).await.unwrap();
    end.cancel();
    following.await.unwrap();
}
