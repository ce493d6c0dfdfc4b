//! Apps must not have an appid in common, nor claim each other's keys. Pure.

use std::collections::HashMap;

use super::{Alias, App};
use crate::invalid_value::{InvalidValue, quoted};
use crate::platform::CredentialType;
use crate::raw_value::Place;

/// An app, where it was given, and where each of its aliases was.
pub struct PlacedApp<'a> {
    pub app: &'a App,
    pub place: &'a Place,
    pub alias_places: &'a [Place],
}

/// What is wrong, each with its place.
pub fn collisions(apps: &[PlacedApp<'_>]) -> Vec<(InvalidValue, Place)> {
    let mut faults = Vec::new();
    let mut owners: HashMap<String, &PlacedApp<'_>> = HashMap::new();
    for placed in apps {
        let id = placed.app.id();
        if let Some(first) = owners.get(&id) {
            let what = format!("appid {} is given twice, first at {}", quoted(&id), first.place);
            faults.push((InvalidValue::new(what, "Keep one of the two apps."), placed.place.clone()));
        } else {
            owners.insert(id, placed);
        }
    }
    let mut built_in: HashMap<String, (&str, &CredentialType)> = HashMap::new();
    for (id, placed) in &owners {
        for credential_type in placed.app.credential_types() {
            let names = placed.app.built_in_names(credential_type).into_iter();
            built_in.extend(names.map(|name| (name, (id.as_str(), credential_type))));
        }
    }
    let mut claimed: HashMap<&str, (String, &Place, &Alias)> = HashMap::new();
    for placed in apps {
        let own = placed.app.id();
        for (alias, place) in placed.app.aliases.iter().zip(placed.alias_places) {
            let name = alias.name.as_str();
            let what = match (built_in.get(name), owners.get(name), claimed.get(name)) {
                (Some((other, _)), ..) if *other != own => {
                    format!("is the token's own name of the app {}", quoted(other))
                }
                (Some((_, credential_type)), ..) if !alias.of.is(credential_type) => {
                    format!("is the own name of its {}", credential_type.key)
                }
                (_, Some(other), _) if other.app.id() != own => {
                    format!("is the appid of another app, at {}", other.place)
                }
                // The same for every app.
                (_, _, Some((_, _, first))) if alias.view.is_constant() && first.view == alias.view => continue,
                (_, _, Some((other, first, _))) if *other != own => {
                    format!("is claimed by the app {} already, at {first}", quoted(other))
                }
                _ => {
                    claimed.insert(name, (own.clone(), place, alias));
                    continue;
                }
            };
            let what = format!("the alias {} {what}", quoted(alias.redacted_name()));
            let remedy = "Give each name to one app; without an alias its token is at access_token:<appid>.";
            faults.push((InvalidValue::new(what, remedy), place.clone()));
        }
    }
    faults
}
