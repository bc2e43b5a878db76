//! What people see of a store's wire before anything is sent: drafts of what is not saved, tests of a store, texts to paste. Through the
//! real program, against an endpoint that answers as it is told and keeps what it got.

use crate::crashmeter::{Crashmeter, Project};
use crate::http;
use crate::process::{free_port, loopback};
use crate::receivers::capture::Capture;
use crate::receivers::datadog::{self, Datadog};
use crate::receivers::graphite::Graphite;
use crate::receivers::{VISIBLE, now_s, parsers};
use crate::relay::Relay;
use crate::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn influx(url: &str) -> Value {
    json!({"adapter": "influxdb", "period": 60, "sets": [], "url": url, "db": "crashes", "username": "writer", "password": "hunter2-pw"})
}

fn try_out(project: &Project, store: &Value) -> Value {
    project.ask("POST", "test", json!({ "store": store })).expect(200).json()
}

#[test]
fn a_test_tells_what_the_store_says_of_one_point() {
    let server = Crashmeter::start();
    let project = server.project("game");
    for (status, body, outcome, reason) in [
        (204, "", "confirmed", "took the point"),
        (401, r#"{"error":"authorization failed"}"#, "misconfigured", "authorization failed"),
        (404, r#"{"error":"database not found: \"crashes\""}"#, "misconfigured", "database not found"),
        (429, "slow down", "throttled", "slow down"),
        (503, "starting", "throttled", "starting"),
        (500, "oh", "unavailable", "oh"),
    ] {
        let endpoint = Capture::always(status, body);
        let told = try_out(&project, &influx(&endpoint.url("/write")));
        assert_eq!(
            (&told["outcome"], &told["kind"], &told["reply"]["status"]),
            (&json!(outcome), &json!("canary"), &json!(status)),
            "{told}"
        );
        assert!(told["detail"].as_str().expect("words").contains(reason), "{told}");
        assert!(!told.to_string().contains("hunter2-pw"), "{told}");
        let request = endpoint.got().swap_remove(0);
        let (head, sent) = (&request.head, request.text());
        assert!(head.starts_with("POST /write?db=crashes&precision=s "), "{head}");
        assert_eq!(Some(sent.as_str()), told["request"]["body"].as_str(), "what is shown is what went out");
        assert!(sent.starts_with("crashmeter.game.health,store=unnamed test=1 "), "{sent}");
    }
    let told = try_out(&project, &influx(&loopback(free_port())));
    assert_eq!((&told["outcome"], &told["reply"]), (&json!("unreachable"), &Value::Null), "{told}");
    // The vendor's own check is taken where there is one: nothing is written.
    let endpoint = Capture::always(200, r#"{"valid":true}"#);
    let told =
        try_out(&project, &json!({"adapter": "datadog", "period": 60, "sets": [], "url": endpoint.url(""), "api_key": "a".repeat(32)}));
    assert_eq!((&told["kind"], &told["outcome"]), (&json!("check"), &json!("confirmed")), "{told}");
    assert!(endpoint.got()[0].head.starts_with("GET /api/v1/validate "));
    // A fault names the field of the store, and the store alone may be tried that has none.
    let refused = project.ask("POST", "test", json!({"store": {"adapter": "influxdb", "period": 60, "sets": []}})).expect(422).json();
    assert_eq!(refused["field"], "store.url", "{refused}");
    assert!(!server.log().contains("hunter2-pw"));
}

#[test]
fn a_saved_store_is_tried_with_its_own_secrets() {
    let server = Crashmeter::start();
    let project = server.project("game");
    let endpoint = Capture::always(204, "");
    project.metric("errors", "all", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    project.store("influx", influx(&endpoint.url("/write")));
    assert_eq!(project.ask("POST", "metric-stores/influx/test", Value::Null).expect(200).json()["outcome"], "confirmed");
    // A body under its name keeps the password, as a PUT would; another host needs it again.
    let mut edit = influx(&endpoint.url("/write"));
    edit.as_object_mut().expect("an object").remove("password");
    edit["name"] = json!("influx");
    assert_eq!(try_out(&project, &edit)["outcome"], "confirmed");
    let shown: Vec<String> = endpoint.got().into_iter().map(|request| request.head.to_ascii_lowercase()).collect();
    let login = http::basic("writer", "hunter2-pw").to_ascii_lowercase();
    assert!(shown.len() == 2 && shown.iter().all(|head| head.contains(&login)), "{shown:?}");
    edit["url"] = json!(Capture::always(204, "").url("/write"));
    let refused = project.ask("POST", "test", json!({ "store": edit })).expect(422).json();
    assert_eq!(refused["field"], "store.password", "{refused}");
    // Nothing of all this is in the ledger.
    assert_eq!(project.ledger("influx")["windows"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_page_is_tried_by_whether_it_is_read() {
    let server = Crashmeter::start();
    let project = server.project("game");
    let store = project.store("pulled", json!({"adapter": "circonus_pull", "period": 1, "sets": []}));
    let test = || project.ask("POST", "metric-stores/pulled/test", Value::Null).expect(200).json();
    assert_eq!((&test()["kind"], &test()["outcome"]), (&json!("page"), &json!("never-read")));
    let login = http::basic(store["username"].as_str().expect("made"), store["password"].as_str().expect("made"));
    let url = store["url"].as_str().expect("shown to editors");
    wait::until("the page is read", VISIBLE, || {
        let reply = http::call("GET", url, &[("Authorization", &login)], "").expect("an answer");
        if reply.status == 200 && test()["outcome"] == "read" { Ok(()) } else { Err(format!("{} {}", reply.status, test())) }
    });
}

#[test]
fn a_draft_is_what_is_sent_once_it_is_saved() {
    let server = Crashmeter::start();
    let project = server.project("game");
    let endpoint = Capture::always(204, "");
    let mut store = influx(&endpoint.url("/write"));
    store["period"] = json!(2);
    store["sets"] = json!(["errors"]);
    store["template"] = json!("{metric}.of.{set}");
    store["label_names"] = json!({"error.type": "kind"});
    store["labels"] = json!({"env": "test"});
    let metric = json!({"query": {"group": ["error.type"], "fold": {"_tx": [["unique"]]}}});
    // One report, then a draft of the window that it fell into, then the same for good: only the times may differ.
    let report = json!({"timestamp": now_s(), "attributes": {"error.type": "Boom, \"loud\""}});
    let at = project.submit(&report).expect("a reply").expect(200).json()["_rxid"].as_str().map(|rxid| project.report(rxid));
    let second = at.expect("a receipt")["attributes"]["timestamp.received"].as_u64().expect("stamped");
    // Windows without reports have passed by then: they would show nothing.
    wait::until_second(second / 2 * 2 + 6);
    let named = |store: &Value| {
        let mut store = store.clone();
        store["name"] = json!("later");
        store
    };
    let ask = json!({"metric": metric, "set": "errors", "name": "by-type", "store": named(&store)});
    let draft = project.ask("POST", "preview", ask).expect(200).json();
    assert_eq!(draft["store"]["window_start"], json!(second / 2 * 2), "{draft}");
    let body = draft["store"]["requests"][0]["body"].as_str().expect("a body").to_owned();
    let line = body.lines().find(|line| line.starts_with("by-type.of.errors")).unwrap_or_else(|| panic!("{body}"));
    let expected = format!("by-type.of.errors,env=test,kind=Boom\\,\\ \"loud\" tx_unique=1 {}", second / 2 * 2);
    assert_eq!(line, expected, "{body}");
    assert!(!draft.to_string().contains("hunter2-pw"));

    project.metric("errors", "by-type", metric);
    project.store("later", store);
    wait::until("a window has the second report", VISIBLE, || {
        project.submit(&report).expect("a reply").expect(200);
        match endpoint.got().iter().find(|request| request.text().contains("by-type.of.errors")) {
            Some(_) => Ok(()),
            None => Err(format!("{:?}", endpoint.got().len())),
        }
    });
    let request = endpoint.got().into_iter().find(|request| request.text().contains("by-type.of.errors")).expect("sent");
    let (head, sent) = (&request.head, request.text());
    let sent_line = sent.lines().find(|line| line.starts_with("by-type.of.errors")).expect("the same series");
    let key = |line: &str| line.rsplit_once(" tx_unique=").map(|(key, _)| key.to_owned());
    assert_eq!(key(sent_line), key(line), "{sent}");
    // The same window, asked for once it is sealed, is what the endpoint got.
    let window: u64 = sent_line.rsplit(' ').next().and_then(|time| time.parse().ok()).expect("a time");
    let sealed = project.ask("GET", &format!("metric-stores/later/preview?window={window}"), Value::Null).expect(200).json();
    assert_eq!(sealed["requests"][0]["body"].as_str(), Some(sent.as_str()));
    let request = sealed["requests"][0]["request"].as_str().expect("a request line");
    assert!(head.starts_with("POST /write?db=crashes&precision=s ") && request.ends_with("/write?db=crashes&precision=s"), "{request}");
    project.ask("GET", "metric-stores/later/preview?window=7", Value::Null).expect(422);
}

#[test]
fn texts_to_paste_are_taken_by_the_tools_they_are_for() {
    let server = Crashmeter::start();
    let project = server.project("game");
    project.metric("errors", "by-type", json!({"query": {"group": ["error.type"], "fold": {"_tx": [["unique"]]}}}));
    let body = json!({"adapter": "prometheus", "period": 60, "sets": ["errors"], "username": "scraper", "password": "s3cret: #"});
    let store = project.ask("PUT", "metric-stores/scraped%20%22twice%22", body).expect(200).json();
    let url = store["url"].as_str().expect("shown to editors");
    let texts = |authorization: &str| -> Vec<Value> {
        let address = format!("{}/api/v1/projects/game/metric-stores/scraped%20%22twice%22/snippets", server.url());
        let reply = http::call("GET", &address, &[("Authorization", authorization)], "").expect("an answer").expect(200).json();
        reply.as_array().expect("a list").clone()
    };
    let mut judged = 0;
    for text in texts(&server.authorization()) {
        let (title, text) = (text["title"].as_str().expect("a title"), text["text"].as_str().expect("a text"));
        if title.starts_with("scrape_configs") {
            parsers::promtool_config(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(text.contains("s3cret: #"), "{text}");
            judged += 1;
        } else if title.starts_with("Alert") {
            parsers::promtool_rules(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            judged += 1;
        }
    }
    assert_eq!(judged, 3);
    // Who may only look sees neither address nor password.
    let token = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "game"})).expect(201).json();
    let viewer = format!("Bearer {}", token["token"].as_str().expect("shown once"));
    let seen = json!(texts(&viewer)).to_string();
    let secret = url.split('/').nth(4).expect("the secret part");
    assert!(!seen.contains(secret) && !seen.contains("s3cret"), "{seen}");
    // Discovery wants the same credentials as the page, and names it.
    let discovery = url.replace("/metrics", "/http-sd.json");
    http::get(&discovery).expect("an answer").expect(401);
    let login = http::basic("scraper", "s3cret: #");
    let found = http::call("GET", &discovery, &[("Authorization", &login)], "").expect("an answer").expect(200);
    assert!(found.header("content-type").starts_with("application/json"));
    let labels = &found.json()[0]["labels"];
    assert_eq!((&labels["__metrics_path__"], &labels["__scrape_interval__"]), (&json!(format!("/pull/{secret}/metrics")), &json!("60s")));
    http::get(&url.replace("/metrics", "/http-sd.xml")).expect("an answer").expect(404);
}

/// Whatever goes out is what a person is shown of the window, byte for byte, for every adapter that pushes.
#[test]
fn the_preview_of_a_window_is_the_body_that_a_store_got() {
    let server = Crashmeter::start();
    let project = server.project("game");
    project.metric("errors", "by-type", json!({"query": {"group": ["error.type"], "fold": {"_tx": [["unique"]], "n": [["mean"]]}}}));
    let line_port = free_port();
    let graphite = Graphite::shared();
    let relay = Relay::start(line_port, graphite.line_port());
    let (circonus, grafana) = (Capture::circonus(), Capture::grafana());
    let (datadog, influx, remote) = (Capture::always(202, "{\"errors\":[]}"), Capture::always(204, ""), Capture::always(204, ""));
    let captures = [
        ("circonus_push", json!({"url": circonus.url("/trap/secret")}), &circonus),
        ("grafana", json!({"url": grafana.url("/metrics"), "api_key": "k3y-of-a-store"}), &grafana),
        ("datadog", json!({"url": datadog.url(""), "api_key": "k3y-of-a-store"}), &datadog),
        ("influxdb", json!({"url": influx.url("/write?db=x"), "username": "u", "password": "k3y-of-a-store"}), &influx),
        ("remote_write", json!({"url": remote.url("/api/v1/write"), "bearer": "k3y-of-a-store"}), &remote),
    ];
    let save = |adapter: &str, fields: &Value| {
        let mut body = json!({"adapter": adapter, "period": 1, "sets": ["errors"]});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        project.store(adapter, body)["first_window_start"].as_u64().expect("the first window")
    };
    for (adapter, fields, _) in &captures {
        save(adapter, fields);
    }
    let first = save("graphite", &json!({"host": "127.0.0.1", "port": line_port}));
    wait::until_second(first);
    let mut last = 0;
    for kind in ["Crash", "Hang \"up\"", "Crash", "\u{1F980}", ""] {
        let report = json!({"attributes": {"error.type": kind, "n": 0.1}});
        let rxid = project.submit(&report).expect("a reply").expect(200).json()["_rxid"].as_str().map(str::to_owned).expect("a receipt");
        last = project.report(&rxid)["attributes"]["timestamp.received"].as_u64().expect("stamped");
    }
    let shown = |adapter: &str| -> Vec<String> {
        let seen = project.ask("GET", &format!("metric-stores/{adapter}/preview?window={last}"), Value::Null).expect(200);
        assert!(!seen.body.contains("k3y-of-a-store"), "{}", seen.body);
        let requests = seen.json()["requests"].as_array().expect("requests").clone();
        requests.iter().map(|request| request["body"].as_str().expect("a body").to_owned()).collect()
    };
    for (adapter, _, capture) in &captures {
        project.settle(adapter, last);
        let previewed = shown(adapter);
        assert!(!previewed.is_empty(), "{adapter}");
        let bodies: Vec<String> = capture.got().iter().map(|request| readable(adapter, &request.body)).collect();
        for body in previewed {
            assert_eq!(bodies.iter().filter(|got| **got == body).count(), 1, "{adapter} was sent the previewed body once:\n{body}");
        }
    }
    project.settle("graphite", last);
    let lines = relay.lines();
    for line in shown("graphite").iter().flat_map(|body| body.lines()) {
        assert_eq!(lines.iter().filter(|got| *got == line).count(), 1, "{line}");
    }
    assert!(!server.log().contains("k3y-of-a-store"));
}

/// Both versions of the series API, by Datadog's own documents and by the models of its own client: counts, gauges, metadata, the check
/// of the key, hostile names and values, extreme numbers.
#[test]
fn datadogs_documents_and_models_take_whatever_is_sent() {
    let datadog = Datadog::shared();
    let server = Crashmeter::start();
    let project = server.project("game");
    let query = json!({"group": ["error.type"], "fold": {"_tx": [["unique"]], "n": [["sum"], ["max"], ["mean"]]}});
    project.metric("Errors%20%26%20%22users%22", "by%20%F0%9F%A6%80%20type", json!({ "query": query }));
    for version in ["v1", "v2"] {
        let name = format!("datadog-{version}");
        let key = format!("{version}-key-of-a-store");
        let fields = json!({
            "adapter": "datadog", "period": 1, "sets": ["Errors & \"users\""], "url": datadog.url(), "version": version,
            "api_key": key, "app_key": "application-key"
        });
        let told = try_out(&project, &fields);
        assert_eq!((&told["outcome"], &told["kind"]), (&json!("confirmed"), &json!("check")), "{told}");
        let first = project.store(&name, fields)["first_window_start"].as_u64().expect("the first window");
        wait::until_second(first);
        let mut last = 0;
        for (kind, n) in
            [("Crash", 0.1), ("a:b,c|d", 1e308), ("\u{1F980}\u{202E}", -0.0), ("", 5e-324), ("\"}]}\n", 9_007_199_254_740_993.0)]
        {
            let report = json!({"attributes": {"error.type": kind, "n": n}});
            let rxid =
                project.submit(&report).expect("a reply").expect(200).json()["_rxid"].as_str().map(str::to_owned).expect("a receipt");
            last = project.report(&rxid)["attributes"]["timestamp.received"].as_u64().expect("stamped");
        }
        project.settle(&name, last);
        project.assert_all_delivered(&name, last);
        let got = datadog.got(&key);
        let path = format!("POST /api/{version}/series ");
        let bodies: Vec<String> = got.iter().filter(|request| request.head.starts_with(&path)).map(|request| request.text()).collect();
        let series: u64 = bodies.iter().map(|body| datadog::models(version, body).unwrap_or_else(|why| panic!("{why}: {body}"))).sum();
        let ledger = project.ledger(&name);
        let sent: u64 = ledger["windows"].as_array().expect("windows").iter().filter_map(|window| window["sent"].as_u64()).sum();
        assert!(series >= sent && sent > 0, "every point is in a body that the models take: {series} {ledger}");
        let names: BTreeSet<String> = bodies.iter().flat_map(|body| metric_names(body)).collect();
        wait::until("units and descriptions are set", VISIBLE, || match &project.status(&name)["metadata"] {
            metadata if metadata["told"] == names.len() && metadata["failure"].is_null() => Ok(()),
            metadata => Err(format!("{metadata} of {names:?}")),
        });
        let told = datadog.got(&key).into_iter().filter(|request| request.head.starts_with("PUT /api/v1/metrics/"));
        assert_eq!(told.count(), names.len(), "each metric is told once");
        assert!(got.iter().any(|request| request.head.contains("content-encoding: gzip")), "larger bodies are packed");
    }
}

#[test]
fn what_a_store_says_against_units_is_told_and_stops_no_points() {
    let endpoint = Capture::answering(|request| match request.head.starts_with("PUT ") {
        true => (403, r#"{"errors":["Forbidden"]}"#.to_owned()),
        false => (202, r#"{"errors":[]}"#.to_owned()),
    });
    let server = Crashmeter::start();
    let project = server.project("game");
    project.metric("errors", "all", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    let fields = json!({
        "adapter": "datadog", "period": 1, "sets": ["errors"], "url": endpoint.url(""), "api_key": "key", "app_key": "wr0ng-application-key"
    });
    let first = project.store("datadog", fields)["first_window_start"].as_u64().expect("the first window");
    project.settle("datadog", first + 1);
    wait::until("the refusal is told", VISIBLE, || match project.status("datadog")["metadata"]["failure"].as_str() {
        Some("HTTP 403: {\"errors\":[\"Forbidden\"]}") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    project.assert_all_delivered("datadog", first + 1);
    assert!(!server.log().contains("wr0ng-application-key"));
}

fn metric_names(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).expect("JSON");
    body["series"].as_array().expect("series").iter().map(|series| series["metric"].as_str().expect("a name").to_owned()).collect()
}

/// A captured body as a preview shows it.
fn readable(adapter: &str, body: &[u8]) -> String {
    match adapter {
        "remote_write" => adapters::dump(&snap::raw::Decoder::new().decompress_vec(body).expect("Snappy")),
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}
