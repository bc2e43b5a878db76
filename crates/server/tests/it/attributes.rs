//! Attribute settings over HTTP: who may declare what, faults by field, revisions, and personal attributes.

use crate::crashmeter::{Crashmeter, Project};
use crate::http::{self, Reply};
use serde_json::{Value, json};

fn put(project: &Project, attribute: &str, body: Value) -> Reply {
    project.ask("PUT", &format!("attribute-settings/{attribute}"), body)
}

#[test]
fn a_declaration_is_checked_saved_and_listed() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let other = server.project("q");
    for (body, fields) in [
        (json!({"type": "string"}), vec!["type"]),
        (json!({"type": "text", "format": "feet"}), vec!["type", "format"]),
        (json!({"type": "dictionary", "format": "bytes"}), vec!["format"]),
        (json!({"format": "bytes"}), vec!["format"]),
        (json!({"type": "uuid", "non_negative": true, "description": "x".repeat(1_001)}), vec!["description", "non_negative"]),
        (json!({"unit": "feet"}), vec!["unit"]),
        (json!({"type": 5}), vec!["type"]),
    ] {
        let refused = put(&project, "memory", body).expect(422).json();
        let several: Vec<&str> = refused["problems"].as_array().expect("a list").iter().filter_map(|one| one["field"].as_str()).collect();
        assert_eq!(if several.is_empty() { vec![refused["field"].as_str().expect("a field")] } else { several }, fields, "{refused}");
    }
    let body = json!({"type": "uint64", "format": "bytes", "description": "heap", "non_negative": true});
    let shown = put(&project, "memory", body).expect(200).json();
    let expected = json!({"attribute": "memory", "type": "uint64", "format": "bytes", "description": "heap", "personal": false, "non_negative": true, "revision": 1});
    assert_eq!(shown, expected);
    let plain = put(&project, "app.version", json!({})).expect(200).json();
    assert_eq!([&plain["attribute"], &plain["type"], &plain["format"]], [&json!("application.version"), &Value::Null, &json!("none")]);
    let list = |project: &Project| project.ask("GET", "attribute-settings", Value::Null).expect(200).json();
    assert_eq!(list(&project), json!([plain, expected]));
    assert_eq!(list(&other), json!([]));
    // A name may hold what a path may not.
    assert_eq!(put(&project, "a%2Fb%20c", json!({})).expect(200).json()["attribute"], "a/b c");
    // Each edit says which revision it is of.
    let with = |method: &str, revision: &str, body: Value| {
        let authorization = server.authorization();
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json"), ("If-Match", revision)];
        let url = format!("{}/api/v1/projects/p/attribute-settings/release", server.url());
        http::call(method, &url, &headers, body.to_string()).expect("an answer").status
    };
    let edit = json!({"description": "the release"});
    assert_eq!(["\"0\"", "\"1\"", "\"1\"", "x"].map(|revision| with("PUT", revision, edit.clone())), [412, 200, 412, 412]);
    assert_eq!(["\"1\"", "\"2\"", "\"2\""].map(|revision| with("DELETE", revision, Value::Null)), [412, 204, 404]);
    // Viewers read them.
    let made = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "p"})).expect(201).json();
    let authorization = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let ask = |method: &str, path: &str| {
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        http::call(method, &format!("{}/api/v1/projects/{path}", server.url()), &headers, "{}").expect("an answer").status
    };
    assert_eq!(ask("GET", "p/attribute-settings"), 200);
    assert_eq!(ask("GET", "q/attribute-settings"), 404);
    assert_eq!(["PUT", "DELETE"].map(|method| ask(method, "p/attribute-settings/memory")), [403, 403]);
}

#[test]
fn a_personal_attribute_is_counted_but_never_a_label() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let grouped = |by: &str| json!({"query": {"group": [by], "fold": {"user.email": [["unique"]]}}});
    project.metric("s", "by-email", grouped("user.email"));
    let refused = put(&project, "user.email", json!({"personal": true})).expect(409).json();
    assert_eq!(refused["field"], "personal");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("s/by-email")), "{refused}");
    project.metric("s", "by-email", grouped("error.type"));
    put(&project, "user.email", json!({"personal": true})).expect(200);
    put(&project, "release", json!({"personal": true})).expect(200);
    for by in ["user.email", "app.version"] {
        let refused = project.ask("PUT", "metric-sets/s/metrics/again", grouped(by)).expect(422).json();
        assert_eq!(refused["field"], "query.group", "{by}");
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("personal")), "{refused}");
    }
    assert_eq!(project.ask("GET", "metric-sets/s/metrics/again", Value::Null).status, 404, "nothing was saved");
    project.metric("s", "counted", grouped("error.type"));
}
