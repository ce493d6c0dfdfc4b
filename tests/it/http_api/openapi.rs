//! The description of the API is true: schemathesis sends what it allows and what it does not, and judges the answers.

use std::path::Path;

use serde_json::Value;

use super::{API_HEADER, HttpNode, credential};
use crate::support::{APPID, Wechat, program, run_checked, wait_for, write};

fn schemathesis(http: &HttpNode, more: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = root.join("target/python/schemathesis");
    assert!(packages.join("schemathesis").is_dir(), "tests/run installs schemathesis below target/python");
    let mut command = program("python3");
    command.arg("-m").arg("schemathesis.cli").arg("run").args(more);
    command.arg(format!("http://{}/v1/openapi.json", http.address));
    command.env("PYTHONPATH", packages).env("no_proxy", "*").current_dir(http.node.folder.path());
    run_checked(&mut command)
}

#[test]
#[ignore = "needs python3"]
fn schemathesis_finds_nothing_wrong() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let http = HttpNode::start_in(folder, &wechat, "requests_per_s = 100000", "", "tickets = [\"jsapi\"]");
    http.token(&[API_HEADER]);
    wait_for("all", || (http.get("/readyz?strict", &[]).status == 200).then_some(()));
    // Most names that it invents are not there; with these it gets to the answers.
    let config =
        format!("[parameters]\n\"path.app\" = \"{APPID}\"\n\"path.type\" = \"access_token\"\n\"query.wait_s\" = 0\n");
    write(http.node.folder.path(), "schemathesis.toml", &config);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance,unsupported_method,negative_data_rejection";
    let common = ["--checks", checks, "--max-examples", "10", "--seed", "1", "--exclude-path", "/v1/events"];
    let said = schemathesis(&http, &common);
    assert!(said.contains("No issues found"), "{said}");
}

#[test]
fn every_route_under_v1_is_described_and_the_other_way_round() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    http.token(&[API_HEADER]);
    wait_for("all", || (http.get("/readyz?strict", &[]).status == 200).then_some(()));
    let description = http.get("/v1/openapi.json", &[]).json();
    let paths = description["paths"].as_object().unwrap();
    for (path, methods) in paths {
        let path = path.replace("{app}", APPID).replace("{type}", "access_token");
        let path = if path.ends_with("/jssdk") { path + "?url=https://a.example/" } else { path };
        for method in methods.as_object().unwrap().keys() {
            if path != "/v1/events" {
                let answer = http.ask(&method.to_uppercase(), &path, &[API_HEADER], "");
                assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
            }
        }
    }
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http_api/routes.rs")).unwrap();
    let routes = source.split("\"/v1/").skip(1).map(|rest| format!("/v1/{}", rest.split('"').next().unwrap()));
    let undescribed: Vec<String> =
        routes.filter(|route| !paths.contains_key(route) && route != "/v1/openapi.json").collect();
    assert!(undescribed.is_empty(), "{undescribed:?}");
}

#[test]
fn what_is_answered_has_the_fields_described_and_no_others() {
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "");
    http.token(&[API_HEADER]);
    let description = http.get("/v1/openapi.json", &[]).json();
    let fields = |schema: &str| -> Vec<String> {
        description["components"]["schemas"][schema]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let shown = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(shown(&http.shown("access_token", &[])), fields("Credential"));
    assert_eq!(shown(&http.get("/v1/status", &[]).json()), fields("Status"));
    assert_eq!(shown(&http.get(&credential("access_token", ""), &[API_HEADER]).json()), fields("Value"));
    let all = http.get("/v1/credentials", &[API_HEADER]).json();
    assert_eq!((shown(&all), shown(&all["credentials"][0])), (fields("Credentials"), fields("Followed")));
}
