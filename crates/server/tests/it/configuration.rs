//! Configuration as code with the real program: the file of the docs, its faults, its secrets, and what becomes of series.

use crate::crashmeter::{Crashmeter, SETTLED};
use crate::http;
use crate::process::program;
use crate::wait;
use serde_json::{Value, json};
use std::fs;
use std::process::Output;
use tempfile::TempDir;

const SECRET: &str = "hunter2-canary";

/// A folder of configuration files and a server to apply them to.
struct Desk {
    server: Crashmeter,
    folder: TempDir,
}

/// What a command printed and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Desk {
        Desk { server: Crashmeter::start(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("written");
    }

    /// Runs `crashmeter` in the folder as the administrator; `INFLUX_PASSWORD` is in the environment.
    fn run(&self, arguments: &[&str]) -> Said {
        let mut command = program(env!("CARGO_BIN_EXE_crashmeter"));
        command.current_dir(self.folder.path()).args(arguments);
        if arguments[0] != "schema" {
            let token = self.server.authorization();
            command.args(["--url", &self.server.url(), "--token", token.trim_start_matches("Bearer ")]);
        }
        command.env("INFLUX_PASSWORD", SECRET).env("SHOOTER_INFLUX_PASSWORD", SECRET).stdin(std::process::Stdio::null());
        let Output { status, stdout, stderr } = command.output().expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let said = Said { code: status.code().expect("it ended by itself"), out: text(stdout), err: text(stderr) };
        assert!(!said.out.contains(SECRET) && !said.err.contains(SECRET), "a secret is shown: {said:?}");
        said
    }

    /// Writes a file, applies it, and gives what was printed.
    fn apply(&self, text: &str) -> String {
        self.write("c.yaml", text);
        let said = self.run(&["apply", "c.yaml", "--yes"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    }

    fn version(&self) -> String {
        let authorization = self.server.authorization();
        let plan = http::call(
            "POST",
            &format!("{}/api/v1/plan", self.server.url()),
            &[("Authorization", &authorization), ("Content-Type", "application/json")],
            json!({"document": {"crashmeter": 1, "projects": {}}}).to_string(),
        );
        plan.expect("an answer").expect(200).json()["version"].to_string()
    }
}

/// The example of the docs.
fn example() -> &'static str {
    let page = include_str!("../../../../docs/configuration-as-code.md");
    page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example")
}

/// One project with one metric and one store.
fn small(query: &str, store: &str) -> String {
    format!(
        "crashmeter: 1\nprojects:\n  p:\n    metric_sets:\n      s:\n        metrics:\n          m:\n            {query}\n    metric_stores:\n      graphite:\n        adapter: graphite\n        host: 127.0.0.1\n        sets: [s]\n        {store}\n"
    )
}

#[test]
fn the_example_of_the_docs_is_applied_once_and_then_changes_nothing() {
    let desk = Desk::new();
    desk.write("crashmeter.yaml", example());
    let plan = desk.run(&["plan", "crashmeter.yaml"]);
    assert_eq!(plan.code, 2, "{plan:?}");
    for line in [
        "+ project shooter\n",
        "+ metric set errors\n",
        "+ metric errors/by-type: 0 series, 0 expected, in influx (influxdb), prometheus (prometheus)\n",
        "+ metric errors/all: 0 series, 1 expected, in influx (influxdb), prometheus (prometheus)\n",
        "+ metric store influx: 0 series, 1 expected\n",
        "6 to add, 0 to change, 0 to remove: 0 series, 1 expected, in 2 targets",
    ] {
        assert!(plan.out.contains(line), "{line} is missing in {}", plan.out);
    }
    assert_eq!(plan.out.matches("first point 2").count(), 6, "two metrics in two stores, and the stores: {}", plan.out);
    assert_eq!(desk.server.ask("GET", "/api/v1/projects", Value::Null).expect(200).json(), json!([]), "a plan changes nothing");

    let applied = desk.run(&["apply", "crashmeter.yaml"]);
    assert_eq!(applied.code, 1, "nobody agreed: {applied:?}");
    assert_eq!(desk.server.ask("GET", "/api/v1/projects", Value::Null).expect(200).json(), json!([]));
    let applied = desk.run(&["apply", "crashmeter.yaml", "--yes"]);
    assert_eq!(applied.code, 0, "{applied:?}");
    assert!(applied.out.contains("submission URL of shooter: http://"), "{applied:?}");
    let store = desk.server.ask("GET", "/api/v1/projects/shooter/metric-stores/influx", Value::Null).expect(200).json();
    assert_eq!(
        (&store["period"], &store["sets"], &store["username"], &store["secrets_set"]),
        (&json!(60), &json!(["errors"]), &json!("crashmeter"), &json!(["password"]))
    );
    let metric = desk.server.ask("GET", "/api/v1/projects/shooter/metric-sets/errors/metrics/by-type", Value::Null).expect(200).json();
    assert_eq!(
        (&metric["zero_for"], &metric["series_budget"], &metric["query"]["group"]),
        (&json!(7200), &json!(200), &json!(["error.type"]))
    );

    let before = desk.version();
    for _ in 0..2 {
        let again = desk.run(&["apply", "crashmeter.yaml", "--yes", "--prune"]);
        assert_eq!((again.code, again.out.trim()), (0, "nothing to do"), "{again:?}");
    }
    assert_eq!(desk.run(&["plan", "crashmeter.yaml"]).code, 0);
    assert_eq!(desk.version(), before, "applying the same changes nothing at all");

    // What is exported is the same configuration again.
    let exported = desk.run(&["export"]);
    assert!(exported.out.contains("#   SHOOTER_INFLUX_PASSWORD\n"), "{}", exported.out);
    desk.write("exported.yaml", &exported.out);
    let plan = desk.run(&["plan", "exported.yaml", "--prune"]);
    assert_eq!((plan.code, plan.out.trim()), (0, "nothing to do"), "{}\n{plan:?}", exported.out);
    let schema: Value = serde_json::from_str(&desk.run(&["schema"]).out).expect("JSON");
    assert_eq!(http::get(&format!("{}/api/v1/schema", desk.server.url())).expect("an answer").expect(200).json(), schema);
}

#[test]
fn every_fault_is_named_with_its_line_and_nothing_is_changed() {
    let desk = Desk::new();
    let text = "crashmeter: 1
projects:
  p:
    metric_set: {}
    metric_sets:
      s:
        metrics:
          good:
            query: {fold: {_tx: [[count]]}}
          bad:
            query:
              fold:
                error.type: [[first]]
          worse:
            query:
              fold: {_tx: [[range]]}
            zero_for: 1h
    metric_stores:
      a:
        adapter: graphit
        period: 60
      b:
        adapter: graphite
        host: 127.0.0.1
        prot: 2003
        period: 0
      c:
        adapter: graphite
        period: 60
        host: 169.254.169.254
      d:
        adapter: influxdb
        period: 60
        url: http://127.0.0.1:9/write?db=x
        token: plain
";
    // What this program can see by itself it says first, all of it.
    desk.write("bad.yaml", text);
    let said = desk.run(&["apply", "bad.yaml", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    let lines: Vec<&str> = said.err.lines().filter(|line| line.starts_with("bad.yaml:")).collect();
    assert_eq!(lines.len(), 2, "{}", said.err);
    assert!(
        lines[0].starts_with("bad.yaml:20:9: projects.p.metric_stores.a.adapter: is not known here; did you mean graphite?"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("bad.yaml:35:9: projects.p.metric_stores.d.token: is a secret"), "{lines:?}");

    desk.write("bad.yaml", &text.replace("graphit\n", "graphite\n").replace("plain", "${INFLUX_PASSWORD}"));
    let said = desk.run(&["apply", "bad.yaml", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    let lines: Vec<&str> = said.err.lines().filter(|line| line.starts_with("bad.yaml:")).collect();
    for (place, words) in [
        ("4:5", "did you mean metric_sets?"),
        ("13:17", "is text"),
        ("16:28", "is not one number per group"),
        ("17:13", "must be a whole number"),
        ("19:7", "projects.p.metric_stores.a.host: is missing"),
        ("25:9", "did you mean port?"),
        ("26:9", "must be whole seconds"),
        ("30:9", "projects.p.metric_stores.c.host"),
    ] {
        let line = lines.iter().find(|line| line.starts_with(&format!("bad.yaml:{place}:")));
        assert!(line.is_some_and(|line| line.contains(words)), "{place} {words}: {}", said.err);
    }
    assert_eq!(lines.len(), 8, "{}", said.err);
    for empty in ["", "# nothing\n", "projects: {}\n", "crashmeter: 2\nprojects: {}\n", "crashmeter: 1\n", "[]\n"] {
        desk.write("empty.yaml", empty);
        let said = desk.run(&["plan", "empty.yaml"]);
        assert!(said.code == 1 && said.err.contains("empty.yaml:1:1: "), "{empty}: {said:?}");
    }
    let twice = text.replace("      b:\n", "      a:\n");
    desk.write("twice.yaml", &twice);
    let said = desk.run(&["plan", "twice.yaml"]);
    assert!(said.code == 1 && said.err.contains("twice.yaml:22:7: the key a is here twice; the first is in line 19"), "{said:?}");
    assert_eq!(desk.server.ask("GET", "/api/v1/projects", Value::Null).expect(200).json(), json!([]));
}

#[test]
fn a_plan_shows_each_field_and_removes_only_what_it_may() {
    let desk = Desk::new();
    let other = desk.server.project("other");
    other.metric("kept", "m", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    desk.apply(&small("query: {fold: {_tx: [[count]]}, group: [kind]}", "period: 7"));
    let project = |rest: &str| desk.server.ask("GET", &format!("/api/v1/projects/p/{rest}"), Value::Null);
    let revision = |rest: &str| project(rest).expect(200).json()["revision"].clone();

    desk.write(
        "c.yaml",
        &small("query: {fold: {_tx: [[count]]}, group: [host]}\n            series_budget: 5", "period: 11\n        port: 2004"),
    );
    let plan = desk.run(&["plan", "c.yaml"]);
    for line in [
        "~ metric s/m: ",
        "query.group: [\"kind\"] -> [\"host\"]\n",
        "series_budget: 1000 -> 5\n",
        "~ metric store graphite: ",
        "period: 7 -> 11\n",
        "port: (not set) -> 2004\n",
        "at once for address and secrets",
        "0 to add, 2 to change, 0 to remove",
    ] {
        assert!(plan.out.contains(line), "{line} is missing in {}", plan.out);
    }
    assert_eq!(plan.out.matches("->").count(), 4, "nothing else differs: {}", plan.out);
    assert_eq!((revision("metric-sets/s/metrics/m"), revision("metric-stores/graphite")), (json!(1), json!(1)));
    assert_eq!(desk.run(&["apply", "c.yaml", "--yes"]).code, 0);
    assert_eq!((revision("metric-sets/s/metrics/m"), revision("metric-stores/graphite")), (json!(2), json!(2)));

    // The file no longer has the store, the set and its metric; the other project is not in it at all.
    desk.write("c.yaml", "crashmeter: 1\nprojects:\n  p:\n");
    let plan = desk.run(&["plan", "c.yaml"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(
        plan.out.contains("left alone (--prune removes them): metric p/s/m, metric set p/s, metric store p/graphite\n"),
        "{}",
        plan.out
    );
    let plan = desk.run(&["plan", "c.yaml", "--prune"]);
    assert!(plan.code == 2 && plan.out.contains("0 to add, 0 to change, 3 to remove"), "{plan:?}");
    assert_eq!(desk.run(&["apply", "c.yaml", "--prune", "--yes"]).code, 0);
    assert_eq!((project("metric-sets").json(), project("metric-stores").json()), (json!([]), json!([])));
    assert_eq!(other.ask("GET", "metric-sets/kept/metrics/m", Value::Null).status, 200);
}

#[test]
fn secrets_are_compared_and_a_plan_that_is_too_old_is_refused() {
    let desk = Desk::new();
    desk.server.project("p");
    let document = |password: Value, period: u64| {
        let store = json!({"adapter": "influxdb", "period": period, "sets": [], "url": "http://127.0.0.1:9/write?db=x", "username": "u", "password": password});
        json!({"document": {"crashmeter": 1, "projects": {"p": {"metric_stores": {"i": store}}}}})
    };
    let ask = |what: &str, body: &Value, version: &Value| {
        let (authorization, version) = (desk.server.authorization(), format!("\"{version}\""));
        let mut headers = vec![("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        if version != "\"null\"" {
            headers.push(("If-Match", &version));
        }
        let reply = http::call("POST", &format!("{}/api/v1/{what}", desk.server.url()), &headers, body.to_string()).expect("an answer");
        assert!(!reply.body.contains("canary"), "{}", reply.body);
        reply
    };
    let first = document(json!("canary-1"), 60);
    let version = ask("plan", &first, &Value::Null).expect(200).json()["version"].clone();
    ask("apply", &first, &version).expect(200);
    assert_eq!(ask("plan", &first, &Value::Null).expect(200).json()["changes"], json!([]), "the same secret is no change");

    let second = document(json!("canary-2"), 60);
    let plan = ask("plan", &second, &Value::Null).expect(200).json();
    assert_eq!(plan["changes"][0]["fields"], json!([{"field": "password", "old": null, "new": null, "secret": true}]));
    assert_eq!((&plan["changes"][0]["at_once"], &plan["changes"][0]["first_windows"]), (&json!(true), &json!([])));
    // Somebody else edits in between.
    desk.server.ask("PUT", "/api/v1/projects/p/metric-sets/new", Value::Null).expect(204);
    assert_eq!(ask("apply", &second, &plan["version"]).status, 412);
    assert_eq!(ask("plan", &second, &Value::Null).expect(200).json()["changes"].as_array().map(Vec::len), Some(1), "nothing was changed");
    ask("apply", &second, &Value::Null).expect(200);
    assert_eq!(ask("plan", &second, &Value::Null).expect(200).json()["changes"], json!([]));
    assert_eq!(ask("plan", &document(json!("${NAME}"), 60), &Value::Null).status, 422, "a placeholder is no secret");
    let cleared = ask("plan", &document(Value::Null, 60), &Value::Null);
    assert_eq!((cleared.status, cleared.json()["field"].as_str()), (422, Some("projects.p.metric_stores.i.password")), "{}", cleared.body);
    let exported = desk.server.ask("GET", "/api/v1/configuration?project=p", Value::Null).expect(200);
    assert_eq!(exported.json()["projects"]["p"]["metric_stores"]["i"]["password"], "${P_I_PASSWORD}");

    // A token bound to a project edits that one, and neither sees nor makes another.
    let bound = desk.server.ask("POST", "/api/v1/tokens", json!({"scope": "edit", "project": "p"})).expect(201).json();
    let bound = format!("Bearer {}", bound["token"].as_str().expect("a token"));
    let as_bound = |what: &str, body: &Value| {
        let headers = [("Authorization", bound.as_str()), ("Content-Type", "application/json")];
        http::call("POST", &format!("{}/api/v1/{what}", desk.server.url()), &headers, body.to_string()).expect("an answer").status
    };
    assert_eq!(as_bound("apply", &document(json!("canary-3"), 30)), 200);
    desk.server.project("q");
    for project in ["q", "nobody"] {
        let body = json!({"document": {"crashmeter": 1, "projects": {project: {}}}});
        assert_eq!(as_bound("plan", &body), 422, "{project}");
    }
}

#[test]
fn series_are_forecast_and_what_is_folded_is_told() {
    let desk = Desk::new();
    let project = desk.server.project("p");
    for (number, kind) in ["a", "a", "a", "b", "b", "c", "d"].into_iter().enumerate() {
        let report = json!({"uuid": format!("{number:032x}"), "attributes": {"kind": kind}});
        project.submit(&report).expect("an answer").expect(200);
    }
    let by_kind = json!({"fold": {"_tx": [["count"]], "n": [["max"]]}, "group": ["kind"]});
    let preview = |body: Value| project.ask("POST", "preview", body);
    let answer = preview(json!({"metric": {"query": by_kind, "series_budget": 2}, "period": "1m"})).expect(200).json();
    let series = &answer["series"];
    assert_eq!(
        json!([
            series["forecast"],
            series["groups_within_zero_for"],
            series["groups_last_day"],
            series["zero_for"],
            series["values_each"],
            series["over_budget"]
        ]),
        json!([3, 4, 4, 3600, 2, true])
    );
    assert_eq!(series["beyond"], json!({"groups": 2, "reports": 2, "attribute": "kind", "samples": ["c", "d"]}));
    let (start, point) = (answer["first_window_start"].as_u64().expect("a second"), answer["first_point"].as_u64().expect("a second"));
    assert_eq!((start % 60, point - start), (0, 60));
    let filtered = json!({"filter": [{"kind": [["equal", "a"]]}], "fold": {"_tx": [["count"]]}, "group": ["kind"]});
    let answer = preview(json!({"metric": {"query": filtered}})).expect(200).json();
    assert_eq!((&answer["series"]["forecast"], &answer["series"]["beyond"]), (&json!(1), &Value::Null));
    let refused = preview(json!({"metric": {"query": {"fold": {}}}}));
    assert_eq!((refused.status, refused.json()["field"].as_str()), (422, Some("metric.query.fold")));
    assert_eq!(preview(json!({"metric": {"query": by_kind}, "period": 0})).json()["field"], "period");

    desk.write("c.yaml", &small("query: {fold: {_tx: [[count]]}, group: [kind]}\n            series_budget: 2", "period: 1"));
    let plan = desk.run(&["plan", "c.yaml"]);
    assert!(plan.out.contains("+ metric s/m: 0 series, 3 expected, in graphite (graphite)\n"), "{}", plan.out);
    assert!(
        plan.out.contains("over its budget: 2 groups of s/m are folded into __other__; kind has values such as c, d\n"),
        "{}",
        plan.out
    );
    assert_eq!(desk.run(&["apply", "c.yaml", "--yes"]).code, 0);
    let mut number = 100;
    let over = wait::until("something is folded", SETTLED, || {
        for kind in ["x", "y", "z"] {
            number += 1;
            let report = json!({"uuid": format!("{number:032x}"), "attributes": {"kind": kind}});
            project.submit(&report).expect("an answer").expect(200);
        }
        let status = project.status("graphite");
        let over = status["over_budget"].as_array().expect("a list").first().cloned();
        over.filter(|over| over["attribute"] == "kind").ok_or(status.to_string())
    });
    assert_eq!((&over["set"], &over["metric"], &over["series_budget"]), (&json!("s"), &json!("m"), &json!(2)));
    let samples = over["samples"].as_array().expect("a list");
    assert!(!samples.is_empty() && samples.iter().all(|one| ["x", "y", "z"].contains(&one.as_str().expect("text"))), "{over}");
    assert!(over["detail"].as_str().is_some_and(|text| text.starts_with("metric s/m: ") && text.contains("kind")), "{over}");
    // Three live series are there now: two with seats and the rest.
    let plan = wait::until("a window is sealed with them", SETTLED, || {
        desk.write("c.yaml", &small("query: {fold: {_tx: [[count]]}, group: [kind]}\n            series_budget: 9", "period: 1"));
        let plan = desk.run(&["plan", "c.yaml"]);
        if plan.out.contains("~ metric s/m: 3 series, 7 expected") { Ok(plan) } else { Err(plan.out) }
    });
    assert_eq!(plan.code, 2);
}
