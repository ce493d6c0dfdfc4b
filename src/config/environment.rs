//! Environment variables -> settings.

use super::fault::Fault;
use super::file::Document;
use super::old_names::OldNames;
use super::schema::SECTIONS;
pub use crate::environment::{Environment, ProcessEnvironment};
use crate::invalid_value::{InvalidValue, closest};
use crate::raw_value::{Given, Place, RawValue};

/// `TOKENCACHED_SERVER_LISTEN` and its like. An empty variable counts as not set: compose files write those.
pub(super) fn variables(
    document: &mut Document,
    environment: &dyn Environment,
    old_names: &mut OldNames,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) {
    let mut known: Vec<String> = Vec::new();
    for section in SECTIONS.iter().filter(|section| !section.is_list) {
        for setting in section.settings() {
            let (new, old) = (section.variable(setting).unwrap_or_default(), section.old_variable(setting));
            let is_set = |name: &String| environment.get(name).is_some_and(|value| !value.is_empty());
            match old.as_ref().filter(|old| is_set(old)) {
                // A unit may set the one and a drop-in the other: a start has to come of that.
                Some(old) if is_set(&new) => warnings
                    .push(format!("environment {old} is not used: it is the old name of {new}, which is set too")),
                Some(old) => old_names.used(old.clone(), new.clone(), &Place::Environment(old.clone())),
                None => {}
            }
            let name = if is_set(&new) { Some(&new) } else { old.as_ref().filter(|old| is_set(old)) };
            if let Some((name, value)) = name.and_then(|name| Some((name, environment.get(name)?))) {
                let place = Place::Environment(name.clone());
                match value.into_string() {
                    Ok(text) => {
                        document.one_mut(section).put(setting.key, Given { value: RawValue::Text(text), place })
                    }
                    Err(_) => {
                        let problem =
                            InvalidValue::new("the value is not valid UTF-8", "Set the variable to valid UTF-8.");
                        faults.push(problem.at(&place));
                    }
                }
            }
            known.push(new);
            known.extend(old);
        }
    }
    warnings.extend(unknown_variables(environment, &known));
}

/// Warnings, not faults: whoever starts the process does not always own all of its environment.
fn unknown_variables(environment: &dyn Environment, known: &[String]) -> Vec<String> {
    let is_ours = |name: &&String| {
        let rest = name.strip_prefix("TOKENCACHED_").unwrap_or_default();
        // Those that Kubernetes sets for a service called `tokencached-server`.
        let of_kubernetes = rest.ends_with("_PORT") || rest.contains("_PORT_") || rest.contains("_SERVICE_");
        let begins =
            |section: &str| rest.strip_prefix(&section.to_uppercase()).is_some_and(|rest| rest.starts_with('_'));
        let sections = SECTIONS.iter().filter(|section| !section.is_list);
        let of_section =
            sections.flat_map(|section| [section.name, section.old_name]).any(|name| !name.is_empty() && begins(name));
        of_section && !known.contains(name) && !of_kubernetes
    };
    let names = environment.names();
    let mut unknown: Vec<&String> = names.iter().filter(is_ours).collect();
    unknown.sort();
    let warning = |name| match closest(name, known.iter().map(String::as_str)) {
        Some(close) => format!("environment {name} is not known and ignored; did you mean {close}?"),
        None => format!("environment {name} is not known and ignored"),
    };
    unknown.into_iter().map(|name: &String| warning(name)).collect()
}
