//! The `[side]` section: the HTTP port for people, monitoring and code that does not speak memcached.

use std::net::SocketAddr;

use super::access::pem;
use super::environment::Environment;
use super::fault::{Fault, Place, Problem};
use super::file::open_to_others;
use super::listen::{self, Spot};
use super::load::Layers;
use super::upstream::ca_file;
use super::value::{Reading, Value, kind, path, quoted, text, word};
use super::{ClientCertificates, Side, Tls, TlsVersion, credentials};
use crate::http_api::options::{MetricsPerCredential, SIDE_PORT};
use crate::network::Network;

/// What the layers say; addresses are looked up later.
pub(super) struct Asked {
    listen: Option<(Vec<Spot>, Place)>,
    keys_place: Place,
    /// The first thing that is said although there is no port.
    idle: Option<Place>,
    side: Side,
}

/// Reads all settings of the section.
pub(super) fn asked(layers: &mut Layers<'_>) -> Asked {
    let default = Side::at(Vec::new());
    let listen = layers.pick_placed("side.listen", |value, _| listen::spots(value));
    let keys = layers.pick_file("side.keys_file", "side.keys_credential", path);
    let keys_place = keys.as_ref().map_or(Place::Default, |(_, place)| place.clone());
    let number = |layers: &mut Layers<'_>, key, range, default: usize| layers.number(key, range, default as u64);
    let side = Side {
        keys_file: keys.map(|(path, _)| path),
        allowed_hosts: layers.pick("side.allowed_hosts", |value, _| hosts(value)).unwrap_or_default(),
        trusted_proxies: layers.pick("side.trusted_proxies", |value, _| networks(value)).unwrap_or_default(),
        tls: tls(layers),
        max_connections: number(layers, "side.max_connections", 1..=100_000, default.max_connections) as usize,
        max_connections_per_peer: number(
            layers,
            "side.max_connections_per_peer",
            1..=100_000,
            default.max_connections_per_peer,
        ) as usize,
        requests_per_s: layers.number("side.requests_per_s", 1..=1_000_000, default.requests_per_s.into()) as u32,
        metrics_per_credential: layers
            .pick("side.metrics_per_credential", |value, _| word(value, MetricsPerCredential::WORDS))
            .unwrap_or(default.metrics_per_credential),
        wechat_expires_in_min_s: layers
            .pick("side.wechat_expires_in_min_s", |value, _| super::value::integer(value, 0..=7_000))
            .and_then(|seconds| u32::try_from(seconds).ok()),
        ..default
    };
    let idle = layers.first_of("side.").filter(|_| listen.is_none());
    Asked { listen, keys_place, idle, side }
}

fn tls(layers: &mut Layers<'_>) -> Option<Tls> {
    let cert = layers.pick_file("side.tls.cert", "side.tls.cert_credential", ca_file).map(|(cert, _)| cert);
    let key = layers.pick_file("side.tls.key", "side.tls.key_credential", pem);
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let min_version = layers.pick("side.tls.min_version", |value, _| word(value, &versions));
    match (cert, key) {
        (Some(cert), key) => Some(Tls {
            key: key.map_or_else(|| cert.clone(), |(key, _)| key),
            cert,
            clients: ClientCertificates::Ignored,
            min_version: min_version.unwrap_or(TlsVersion::Tls12),
        }),
        (None, Some((_, place))) => {
            let problem = Problem::new(
                "side.tls.key: TLS has no certificate of the side port",
                "Give cert under [side.tls], a PEM file.",
            );
            layers.fault(problem.at(&place));
            None
        }
        (None, None) => None,
    }
}

/// The side port, once addresses have been looked up and judged; `None` while it is off.
pub(super) fn complete(
    asked: Asked,
    environment: &dyn Environment,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Option<Side> {
    let Asked { listen, keys_place, idle, side } = asked;
    let Some((spots, place)) = listen else {
        if let Some(place) = idle {
            warnings.push(format!("{place}: [side] has no listen, so the side port stays off"));
        }
        return None;
    };
    let before = faults.len();
    let listen = listen::resolve(&spots, SIDE_PORT, &place, environment, faults);
    if listen.is_empty() && faults.len() == before {
        let remedy = format!("Write listen = [\"127.0.0.1:{SIDE_PORT}\"] in [side], or remove the key.");
        faults.push(Problem::new("side.listen: there is no address", remedy).at(&place));
    }
    let side = Side { listen, ..side };
    judge_keys(&side, &keys_place, environment, faults, warnings);
    judge_addresses(&side, &place, faults, warnings);
    Some(side)
}

/// Other machines need a key.
fn judge_addresses(side: &Side, place: &Place, faults: &mut Vec<Fault>, warnings: &mut Vec<String>) {
    let open: Vec<String> =
        side.listen.iter().filter(|at| !listen::is_loopback(at.ip())).map(SocketAddr::to_string).collect();
    let open = open.join(", ");
    if open.is_empty() {
        return;
    }
    if side.keys_file.is_none() {
        let what = format!("side.listen: {open} can be reached from other machines, and there are no keys");
        let remedy = "Write keys into a file and name it: keys_file = \"...\" in [side]; or listen on 127.0.0.1.";
        faults.push(Problem::new(what, remedy).at(place));
    } else if side.tls.is_none() && side.trusted_proxies.is_empty() {
        warnings
            .push(format!("keys and tokens pass {open} in plain text; [side.tls] would hide them from the network"));
    }
}

/// Judges what the operator should know of the keys' file; the keys themselves were read.
fn judge_keys(
    side: &Side,
    place: &Place,
    environment: &dyn Environment,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) {
    let Some(path) = &side.keys_file else { return };
    if let Err(what) = side.read_keys() {
        let remedy = credentials::remedy_if_denied(environment, path, "keys_credential", None).unwrap_or_else(|| {
            "Write a line with name, key and rights for each key into a file this process can read.".into()
        });
        faults.push(Problem::new(what, remedy).at(place));
    } else if open_to_others(path) {
        warnings.push(format!("others can read the keys in {} (chmod 600)", path.display()));
    }
}

/// A list of texts, or one text with commas.
fn texts<T>(value: &Value, of: impl Fn(&str) -> Reading<T>) -> Reading<Vec<T>> {
    match value {
        Value::Text(text) => text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(of).collect(),
        Value::List(items) => items.iter().map(|item| of(text(&item.value)?)).collect(),
        other => Err(Problem::new(
            format!("{} stands where a list belongs", kind(other)),
            "Write a list: [\"...\", \"...\"].",
        )),
    }
}

/// Names as browsers send them, without a port; case does not matter.
fn hosts(value: &Value) -> Reading<Vec<String>> {
    texts(value, |host| {
        let fits = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
            && (!host.contains(':') || host.starts_with('['));
        let remedy = "Write the name alone, such as \"tokencached.internal\".";
        if fits {
            Ok(host.to_ascii_lowercase())
        } else {
            Err(Problem::new(format!("{} is not a host name", quoted(host)), remedy))
        }
    })
}

fn networks(value: &Value) -> Reading<Vec<Network>> {
    texts(value, |network| {
        let wrong = |()| {
            let remedy = "Write an address like 10.0.0.5 or a network like 10.0.0.0/8.";
            Problem::new(format!("{} is not a network", quoted(network)), remedy)
        };
        network.parse().map_err(wrong)
    })
}
