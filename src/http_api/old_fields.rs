//! Fields of the JSON API that had another name before. Each is given by both names, so that programs written for the
//! old ones go on working; the description marks the old ones as deprecated. Pure.

use serde_json::Value;

/// The old and the new name. `docs/en/http-api.md` has the same table.
pub const RENAMED: &[(&str, &str)] = &[
    ("checks", "verifications"),
    ("kept", "enabled"),
    ("kind", "type"),
    ("last_check", "last_verification"),
    ("own-bug", "internal"),
    ("passive_refreshes", "reports"),
    ("rival", "foreign"),
    ("rival_writes", "foreign_writes"),
    ("shared_state", "cluster"),
    ("side_connections", "http_connections"),
];

/// What the counts of a credential's calls had by another name, as [`with_old_fields`] takes it.
pub const OLD_OUTCOMES: &[&str] = &["own-bug"];

/// An object with these old names beside the new ones that it has.
pub fn with_old_fields(mut object: Value, old_names: &[&str]) -> Value {
    if let Value::Object(fields) = &mut object {
        for (old, new) in RENAMED.iter().filter(|(old, _)| old_names.contains(old)) {
            if let Some(value) = fields.get(*new).cloned() {
                fields.insert((*old).to_owned(), value);
            }
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_old_names_that_are_asked_for_are_added_and_only_beside_a_new_one() {
        let object = json!({ "type": "access_token", "verifications": 2, "app": "wx1" });
        let both = json!({ "type": "access_token", "kind": "access_token", "verifications": 2, "app": "wx1" });
        assert_eq!(with_old_fields(object.clone(), &["kind", "rival"]), both);
        assert_eq!(with_old_fields(object.clone(), &[]), object);
        assert_eq!(with_old_fields(json!(null), &["kind"]), json!(null));
    }
}
