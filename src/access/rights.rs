//! Which keys a client may see and change. What it may not see is not there for it.

use crate::invalid_value::{InvalidValue, quoted};

/// What to write in place of something else.
pub const HOW_TO_WRITE_RIGHTS: &str =
    "Write \"all\", \"ordinary\", \"managed\" or \"app:<appid>\", or a list of them; \"read_only\" may be added.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagedApps {
    All,
    None,
    /// Those of these apps, as [`crate::credential::App::id`] names them; sorted.
    Of(Box<[String]>),
}

impl ManagedApps {
    /// The apps that are named one by one.
    pub fn named(&self) -> &[String] {
        match self {
            ManagedApps::Of(apps) => apps,
            ManagedApps::All | ManagedApps::None => &[],
        }
    }
}

/// What a client may do. Compares and prints, so that a configuration can show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    ordinary: bool,
    managed: ManagedApps,
    read_only: bool,
    /// Nothing is forbidden: the one question on the path of every request.
    all: bool,
}

impl Default for Rights {
    fn default() -> Rights {
        Rights::ALL
    }
}

impl Rights {
    /// Everything, and what concerns the whole server.
    pub const ALL: Rights = Rights { ordinary: true, managed: ManagedApps::All, read_only: false, all: true };

    pub fn new(ordinary: bool, managed: ManagedApps, read_only: bool) -> Rights {
        let managed = match managed {
            ManagedApps::Of(apps) => {
                let mut apps = apps.into_vec();
                apps.sort();
                apps.dedup();
                if apps.is_empty() { ManagedApps::None } else { ManagedApps::Of(apps.into()) }
            }
            other => other,
        };
        let all = ordinary && managed == ManagedApps::All && !read_only;
        Rights { ordinary, managed, read_only, all }
    }

    /// Nothing is forbidden, and what concerns the whole server is allowed too.
    #[inline]
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Ordinary keys may be used.
    pub fn ordinary(&self) -> bool {
        self.ordinary
    }

    /// The managed keys of this app may be used.
    pub fn app(&self, id: &str) -> bool {
        let is_named = || self.named_apps().binary_search_by(|app| app.as_str().cmp(id)).is_ok();
        self.managed == ManagedApps::All || is_named()
    }

    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// What both allow: a listener's rights are the most its clients can have.
    pub fn and(&self, other: &Rights) -> Rights {
        let managed = match (&self.managed, &other.managed) {
            (ManagedApps::All, other) | (other, ManagedApps::All) => other.clone(),
            (ManagedApps::None, _) | (_, ManagedApps::None) => ManagedApps::None,
            (ManagedApps::Of(apps), ManagedApps::Of(_)) => {
                ManagedApps::Of(apps.iter().filter(|app| other.app(app)).cloned().collect())
            }
        };
        Rights::new(self.ordinary && other.ordinary, managed, self.read_only || other.read_only)
    }

    /// The words of a configuration that mean this.
    pub fn words(&self) -> Vec<String> {
        let word = match (self.ordinary, &self.managed) {
            (true, ManagedApps::All) => Some("all"),
            (true, _) => Some("ordinary"),
            (false, ManagedApps::All) => Some("managed"),
            (false, _) => None,
        };
        let apps = self.named_apps().iter().map(|app| format!("app:{app}"));
        let read_only = self.read_only.then(|| "read_only".to_owned());
        word.map(str::to_owned).into_iter().chain(apps).chain(read_only).collect()
    }

    /// The rights that words of a configuration mean together; the fault names the word that means nothing.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Rights, InvalidValue> {
        let (mut ordinary, mut read_only, mut all_managed, mut apps) = (false, false, false, Vec::new());
        for word in words {
            match word {
                "all" => (ordinary, all_managed) = (true, true),
                "ordinary" => ordinary = true,
                "managed" => all_managed = true,
                "read_only" => read_only = true,
                _ => match word.strip_prefix("app:").filter(|app| !app.is_empty()) {
                    Some(app) => apps.push(app.to_owned()),
                    None => {
                        return Err(InvalidValue::new(format!("{} is not a right", quoted(word)), HOW_TO_WRITE_RIGHTS));
                    }
                },
            }
        }
        let managed = if all_managed { ManagedApps::All } else { ManagedApps::Of(apps.into()) };
        Ok(Rights::new(ordinary, managed, read_only))
    }

    /// The apps that are named one by one.
    pub fn named_apps(&self) -> &[String] {
        self.managed.named()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(words: &str) -> Rights {
        Rights::of_words(words.split_whitespace()).unwrap()
    }

    #[test]
    fn words_read_and_print_alike() {
        for words in ["all", "ordinary", "managed", "app:a app:b", "ordinary app:a read_only", "all read_only", ""] {
            assert_eq!(rights(words).words().join(" "), words);
        }
        assert_eq!(rights("ordinary managed"), Rights::ALL);
        assert_eq!(rights("managed app:a").words(), ["managed"]);
        for wrong in ["everything", "app:", "All", "app"] {
            assert_eq!(Rights::of_words([wrong]).unwrap_err().what, format!("{wrong:?} is not a right"));
        }
    }

    #[test]
    fn only_everything_is_all() {
        assert!(Rights::ALL.is_all() && rights("all").is_all());
        for words in ["ordinary", "managed", "all read_only", "ordinary app:a"] {
            assert!(!rights(words).is_all(), "{words}");
        }
    }

    #[test]
    fn chosen_apps_and_no_other() {
        let chosen = rights("app:wx2 app:wx1 app:wx2");
        assert!(chosen.app("wx1") && chosen.app("wx2") && !chosen.app("wx") && !chosen.app("wx12"));
        assert!(!chosen.ordinary());
    }

    #[test]
    fn together_two_rights_allow_what_both_allow() {
        let check = |a: &str, b: &str, both: &str| {
            assert_eq!(rights(a).and(&rights(b)), rights(both), "{a} and {b}");
            assert_eq!(rights(b).and(&rights(a)), rights(both), "{b} and {a}");
        };
        check("all", "all", "all");
        check("all", "ordinary", "ordinary");
        check("ordinary", "managed", "");
        check("managed", "ordinary app:a", "app:a");
        check("app:a app:b", "app:b app:c ordinary", "app:b");
        check("app:a", "app:b", "");
        check("all read_only", "ordinary", "ordinary read_only");
    }
}
