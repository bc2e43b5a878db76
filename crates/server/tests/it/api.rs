//! The HTTP surface as SDKs, scrapers and people meet it: replies, headers, edits, pull pages, attachments, restarts.

use crate::crashmeter::{Crashmeter, SETTLED, number_in};
use crate::http;
use crate::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Head and body of a raw request's answer: what a client library hides.
pub(crate) fn raw(server: &Crashmeter, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).expect("connects");
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_lowercase(), body.to_owned())
}

fn path_of(url: &str) -> &str {
    url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).expect("a path")
}

#[test]
fn a_submission_gets_the_reply_that_sdks_need() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let report = json!({"uuid": "7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01", "timestamp": 1, "attributes": {"a": 1}});
    let first = project.submit(&report).expect("an answer").expect(200).json();
    assert_eq!(first["response"], "ok");
    let rxid = first["_rxid"].as_str().expect("a receipt").to_owned();
    assert_eq!((rxid.len(), number_in(&rxid)), (36, 1));
    let with_sync = http::with_query(&project.submission_url, &[("_mod_sync", "1")]);
    let repeat = http::call("POST", &with_sync, &[], report.to_string()).expect("an answer").expect(200).json();
    assert_eq!(repeat["_rxid"].as_str(), Some(rxid.as_str()), "a repeat is the same report");
    assert_eq!((repeat["object"].as_str(), repeat["unique"].as_bool()), (Some("1"), Some(false)));
    assert_eq!(repeat["fingerprint"].as_str().map(str::len), Some(64));
    let another = http::call(
        "POST",
        &with_sync,
        &[],
        json!({"uuid": "7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a02", "threads": {"t": {"fault": true, "stack": [{"funcName": "f"}]}}}).to_string(),
    );
    assert_eq!(another.expect("an answer").expect(200).json()["unique"], true);
    // Every URL form leads to the same project.
    let base = server.url();
    for (number, url) in (3..).zip([
        format!("{base}/main/{}/json", project.token),
        format!("{base}/post?format=json&token={}", project.token),
        format!("{base}//post?token={}&format=json", project.token),
        format!("{base}/api/post?token={}&format=json&universe=main&project=p", project.token),
        format!("{base}/some/prefix/submit.backtrace.io/main/{}/json", project.token),
    ]) {
        let reply =
            http::call("POST", &url, &[], json!({"uuid": format!("{number:032x}")}).to_string()).expect("an answer").expect(200).json();
        assert_eq!(number_in(reply["_rxid"].as_str().expect("a receipt")), number, "{url}");
    }
}

#[test]
fn browsers_may_report_from_any_origin() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let path = path_of(&project.submission_url).to_owned();
    let preflight = format!(
        "OPTIONS {path} HTTP/1.1\nHost: x\nOrigin: https://game.example\nAccess-Control-Request-Method: POST\nAccess-Control-Request-Headers: content-type\nConnection: close\n\n"
    );
    let (head, body) = raw(&server, &preflight);
    assert!(head.starts_with("http/1.1 204") && body.is_empty(), "{head}");
    for header in
        ["access-control-allow-origin: *", "access-control-allow-methods: post, options", "access-control-allow-headers: content-type"]
    {
        assert!(head.contains(header), "{head}");
    }
    let refused = format!("POST {path} HTTP/1.1\nHost: x\nOrigin: https://game.example\nContent-Length: 1\nConnection: close\n\n{{");
    let (head, _) = raw(&server, &refused);
    assert!(head.starts_with("http/1.1 400") && head.contains("access-control-allow-origin: *"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
}

/// Submissions at the addresses that SDKs are given pass by the table of routes and what it adds to every reply.
#[test]
fn a_submission_is_answered_alike_with_and_without_the_table_of_routes() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let (known, unknown) = (format!("main/{}/json", project.token), format!("main/{}/json", "0".repeat(64)));
    let long = json!({"attributes": {"a": "x".repeat(40_000)}}).to_string();
    for (address, body, status) in
        [(known.as_str(), "{}", 200), (&unknown, "{}", 403), ("main/nothing", "{}", 404), (&known, "{", 400), (&known, &long, 413)]
    {
        let reply = |prefix: &str| {
            let url = format!("{}{prefix}/submit.backtrace.io/{address}", server.url());
            http::call("POST", &url, &[], body).expect("an answer").expect(status)
        };
        let (past, through) = (reply(""), reply("/prefix"));
        for (header, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("content-type", "application/json"),
            ("access-control-allow-origin", if status == 404 { "" } else { "*" }),
        ] {
            assert_eq!((past.header(header), through.header(header)), (value, value), "{header} of {status}");
        }
        let others = |reply: &http::Reply| {
            let headers = reply.headers.iter().filter(|(name, _)| *name != "date").map(|(name, value)| format!("{name}: {value:?}"));
            headers.collect::<BTreeSet<_>>()
        };
        assert_eq!(others(&past), others(&through), "{status}");
    }
}

#[test]
fn attachments_stay_with_their_report_and_late_ones_join_it() {
    let mut server = Crashmeter::start();
    let project = server.project("p");
    let body = "--x\r\nContent-Disposition: form-data; name=\"upload_file\"; filename=\"upload_file.json\"\r\n\r\n{\"uuid\":\"00000000-0000-0000-0000-000000000001\",\"attributes\":{\"n\":5}}\r\n\
                --x\r\nContent-Disposition: form-data; name=\"attachment_log.txt\"; filename=\"log.txt\"\r\nContent-Type: text/plain\r\n\r\nline\r\n\
                --x\r\nContent-Disposition: form-data; name=\"level\"\r\n\r\nseven\r\n--x--\r\n";
    let reply = http::call("POST", &project.submission_url, &[("Content-Type", "multipart/form-data; boundary=x")], body)
        .expect("an answer")
        .expect(200)
        .json();
    let rxid = reply["_rxid"].as_str().expect("a receipt").to_owned();
    for (object, name) in [(rxid.as_str(), "late.txt"), ("1", "later.txt")] {
        let url = http::with_query(&project.submission_url, &[("object", object), ("attachment_name", name)]);
        let late = http::call("POST", &url, &[], "late data").expect("an answer").expect(200).json();
        assert_eq!(
            (late["response"].as_str(), late["attachment_name"].as_str(), late["object"].as_str()),
            (Some("ok"), Some(name), Some("1"))
        );
    }
    let nowhere = http::with_query(&project.submission_url, &[("object", "77"), ("attachment_name", "x")]);
    assert_eq!(http::call("POST", &nowhere, &[], "x").expect("an answer").status, 404);
    server.kill();
    server.resume();
    let report = project.report(&rxid);
    let attachments: Vec<(u64, &str, u64)> = report["attachments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["id"].as_u64().expect("a number"), one["name"].as_str().expect("a name"), one["size"].as_u64().expect("a size")))
        .collect();
    assert_eq!(attachments, [(1, "log.txt", 4), (2, "late.txt", 9), (3, "later.txt", 9)]);
    assert_eq!((&report["attributes"]["n"], &report["attributes"]["level"]), (&json!(5), &json!("seven")));
    assert_eq!(
        project.submit(&json!({"uuid": "00000000-0000-0000-0000-000000000001"})).expect("an answer").expect(200).json()["_rxid"].as_str(),
        Some(rxid.as_str())
    );
}

#[test]
fn edits_say_which_revision_they_are_of() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    let path = format!("{}/api/v1/projects/p/metric-sets/s/metrics/m", server.url());
    let edit = |revision: &str, op: &str| {
        let authorization = server.authorization();
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json"), ("If-Match", revision)];
        http::call("PUT", &path, &headers, json!({"query": {"fold": {"n": [[op]]}}}).to_string()).expect("an answer").status
    };
    assert_eq!([edit("\"1\"", "max"), edit("\"1\"", "min"), edit("\"2\"", "min"), edit("three", "sum")], [200, 412, 200, 412]);
    let shown = project.ask("GET", "metric-sets/s/metrics/m", Value::Null).expect(200).json();
    assert_eq!((shown["revision"].as_u64(), &shown["query"]["fold"]), (Some(3), &json!({"n": [["min"]]})));
    project.ask("DELETE", "metric-sets/s/metrics/m", Value::Null).expect(204);
    assert_eq!(project.ask("GET", "metric-sets/s/metrics/m", Value::Null).status, 404);
}

#[test]
fn stored_secrets_are_never_shown_and_go_to_no_other_host() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let url = |host: &str| format!("http://{host}:9/write?db=x");
    let body =
        json!({"adapter": "influxdb", "period": 60, "sets": [], "url": url("127.0.0.1"), "username": "u", "password": "hunter2-canary"});
    let shown = project.store("i", body).to_string();
    let also = [
        project.ask("GET", "metric-stores", Value::Null).body,
        project.ask("GET", "metric-stores/i", Value::Null).body,
        project.ask("GET", "metric-stores/i/status", Value::Null).body,
        http::get(&format!("{}/metrics", server.url())).expect("an answer").body,
    ];
    for text in also.iter().chain([&shown]) {
        assert!(!text.contains("hunter2-canary"), "{text}");
    }
    assert!(shown.contains("\"secrets_set\":[\"password\"]"), "{shown}");
    // Left out, the password is kept; to another host it has to be given again.
    project.store("i", json!({"adapter": "influxdb", "period": 30, "sets": [], "url": url("127.0.0.1"), "username": "u"}));
    let moved = project.ask(
        "PUT",
        "metric-stores/i",
        json!({"adapter": "influxdb", "period": 30, "sets": [], "url": url("127.0.0.2"), "username": "u"}),
    );
    assert_eq!((moved.status, moved.json()["field"].as_str()), (422, Some("password")), "{}", moved.body);
    let cleared = project.store("i", json!({"adapter": "influxdb", "period": 30, "sets": [], "url": url("127.0.0.2"), "password": null}));
    assert_eq!(cleared["secrets_set"], json!([]));
}

#[test]
fn a_key_is_taken_under_the_name_that_the_vendors_users_know() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let body = json!({"adapter": "datadog", "period": 60, "sets": [], "DD_CLIENT_API_KEY": "hunter2-canary"});
    let shown = project.store("d", body);
    assert_eq!(shown["secrets_set"], json!(["api_key"]));
    assert!(!shown.to_string().contains("hunter2-canary"), "{shown}");
    let both = json!({"adapter": "datadog", "period": 60, "sets": [], "DD_CLIENT_API_KEY": "hunter2-canary", "api_key": "k"});
    let refused = project.ask("PUT", "metric-stores/d", both);
    assert_eq!((refused.status, refused.json()["field"].as_str()), (422, Some("DD_CLIENT_API_KEY")), "{}", refused.body);
    assert!(!refused.body.contains("hunter2-canary"), "{}", refused.body);
}

#[test]
fn a_store_read_by_get_can_be_put_back_as_it_is() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project.store("i", json!({"adapter": "influxdb", "period": 60, "sets": ["s"], "url": "http://127.0.0.1:9/write?db=x", "username": "u", "password": "p"}));
    project.store("prometheus", json!({"adapter": "prometheus", "period": 60, "sets": ["s"], "username": "u", "password": "p"}));
    project.store("check", json!({"adapter": "circonus_pull", "period": 60, "sets": ["s"]}));
    project
        .store("trap", json!({"adapter": "circonus_push", "period": 60, "sets": ["s"], "url": "http://127.0.0.1:9/module/httptrap/x/y"}));
    project.store("d", json!({"adapter": "datadog", "period": 60, "sets": ["s"], "site": "datadoghq.eu", "api_key": "k"}));
    for name in ["i", "prometheus", "check", "trap", "d"] {
        let shown = project.ask("GET", &format!("metric-stores/{name}"), Value::Null).expect(200).json();
        let again = project.store(name, shown.clone());
        assert_eq!(again["revision"], shown["revision"], "nothing has changed: {again}");
    }
}

#[test]
fn a_pull_page_is_found_only_by_its_secret_and_is_the_same_for_all_readers() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    let store = project.store("prometheus", json!({"adapter": "prometheus", "period": 60, "sets": ["s"]}));
    let url = store["url"].as_str().expect("a URL").to_owned();
    assert_eq!(http::get(&url).expect("an answer").status, 503, "an empty page would say that all is well");
    let quick = project.store("quick", json!({"adapter": "prometheus", "period": 1, "sets": ["s"], "username": "u", "password": "p"}));
    let quick_url = quick["url"].as_str().expect("a URL").to_owned();
    let authorised = |authorization: &str| http::call("GET", &quick_url, &[("Authorization", authorization)], "").expect("an answer");
    wait::until("a first page", SETTLED, || match authorised(&http::basic("u", "p")).status {
        200 => Ok(()),
        status => Err(format!("status {status}")),
    });
    assert_eq!(http::get(&quick_url).expect("an answer").status, 401);
    assert_eq!(authorised(&http::basic("u", "wrong")).status, 401);
    let secret = quick_url.rsplit('/').nth(1).expect("a secret").to_owned();
    let flipped = if secret.starts_with('0') { "1" } else { "0" };
    for wrong in [
        quick_url.replace(&secret, &format!("{flipped}{}", &secret[1..])),
        quick_url.replace(&secret, &secret.to_uppercase().replace(char::is_numeric, "A")),
        quick_url.replace(&secret, &secret[1..]),
    ] {
        let reply = http::call("GET", &wrong, &[("Authorization", &http::basic("u", "p"))], "").expect("an answer");
        assert_eq!(reply.status, 404, "{wrong}");
    }
    let head = format!("HEAD {} HTTP/1.1\nHost: x\nAuthorization: {}\nConnection: close\n\n", path_of(&quick_url), http::basic("u", "p"));
    let (head, body) = raw(&server, &head);
    assert!(head.starts_with("http/1.1 200") && body.is_empty(), "{head}");
    for header in ["content-type: text/plain; version=0.0.4; charset=utf-8", "cache-control: no-store", "etag: "] {
        assert!(head.contains(header), "{head}");
    }
    let rotated = project.ask("POST", "metric-stores/quick/rotate", Value::Null).expect(200).json();
    let new_url = rotated["url"].as_str().expect("a URL");
    assert_ne!(new_url, quick_url);
    assert_eq!(authorised(&http::basic("u", "p")).status, 200, "the old URL is served for an hour more");
    let new = http::call("GET", new_url, &[("Authorization", &http::basic("u", "p"))], "").expect("an answer");
    assert_eq!(new.status, 200);
    let left = rotated["old_url_until"].as_u64().expect("a second") - crate::receivers::now_s();
    assert!((3_500..=3_600).contains(&left), "{left}");
    project.ask("DELETE", "metric-stores/quick", Value::Null).expect(204);
    assert_eq!(authorised(&http::basic("u", "p")).status, 404, "a deleted store has no page under any address");
}

#[test]
fn a_circonus_check_reads_with_credentials_of_our_making() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"group": ["a"], "fold": {"_tx": [["count"]]}}}));
    let slow = project.store("slow", json!({"adapter": "circonus_pull", "period": 3_600, "sets": ["s"]}));
    let store = project.store("check", json!({"adapter": "circonus_pull", "period": 1, "sets": ["s"]}));
    let text = |store: &Value, name: &str| store[name].as_str().expect("a text").to_owned();
    let (url, user, password) = (text(&store, "url"), text(&store, "username"), text(&store, "password"));
    assert!(url.ends_with("/circonus.json") && user.len() >= 16 && password.len() >= 32, "{store}");
    assert!([&user, &password].into_iter().all(|made| made.bytes().all(|b| b.is_ascii_alphanumeric())), "{store}");
    assert_ne!((text(&slow, "username"), text(&slow, "password")), (user.clone(), password.clone()));

    // Whoever only reads sees neither address nor credentials; nobody chooses them.
    let reader = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "p"})).expect(201).json();
    let bearer = format!("Bearer {}", text(&reader, "token"));
    let path = format!("{}/api/v1/projects/p/metric-stores/check", server.url());
    let shown = http::call("GET", &path, &[("Authorization", &bearer)], "").expect("an answer").expect(200).body;
    assert!(![&url, &user, &password].into_iter().any(|secret| shown.contains(secret.as_str())), "{shown}");
    for (field, value) in [("password", json!("chosen")), ("username", json!("chosen")), ("password", Value::Null)] {
        let body = json!({"adapter": "circonus_pull", "period": 1, "sets": ["s"], field: value});
        let refused = project.ask("PUT", "metric-stores/check", body);
        assert_eq!((refused.status, refused.json()["field"].as_str()), (422, Some(field)), "{}", refused.body);
    }
    let edited = project.store("check", json!({"adapter": "circonus_pull", "period": 1, "sets": ["s"], "prefix": "bt"}));
    assert_eq!((text(&edited, "username"), text(&edited, "password"), text(&edited, "url")), (user.clone(), password.clone(), url.clone()));

    // Whatever is no page is no JSON either: the puller looks at nothing else.
    let ask = |url: &str, authorization: &str| http::call("GET", url, &[("Authorization", authorization)], "").expect("an answer");
    let basic = http::basic(&user, &password);
    for (reply, status) in [
        (ask(&text(&slow, "url"), &http::basic(&text(&slow, "username"), &text(&slow, "password"))), 503),
        (ask(&url, &http::basic(&user, "wrong")), 401),
        (ask(&url, &http::basic("wrong", &password)), 401),
        (ask(&url, ""), 401),
        (ask(&url.replace("circonus.json", "metrics"), &basic), 404),
        (ask(&url.replace("circonus.json", "other"), &basic), 404),
        (ask(&url.replace("/pull/", "/pull/0"), &basic), 404),
    ] {
        assert_eq!(reply.status, status, "{}", reply.body);
        assert!(serde_json::from_str::<Value>(&reply.body).is_err(), "{}", reply.body);
    }

    wait::until_second(edited["first_window_start"].as_u64().expect("a second"));
    project.submit(&json!({"uuid": "1", "attributes": {"a": "x y"}})).expect("an answer").expect(200);
    // Its window is shown for a second; after that the group's value is 0.
    let seen = wait::until("the group is on the page", SETTLED, || match ask(&url, &basic) {
        reply if reply.status == 200 && reply.json()["bt`p`s`m`count|ST[a:b\"eCB5\"]"]["_value"].is_f64() => Ok(reply.json()),
        reply => Err(format!("{} {}", reply.status, reply.body)),
    });
    assert_eq!(seen["bt`p`health`up|ST[store:check]"], json!({"_type": "n", "_value": 1.0}));
    let read = wait::until("the read is recorded", SETTLED, || {
        let status = project.status("check");
        if status["last_read"].is_object() { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!((read["status"]["state"].as_str(), read["last_read"]["bytes"].as_u64().is_some()), (Some("read"), true), "{read}");
}

#[test]
fn a_submission_url_is_seen_nowhere() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let body =
        json!({"adapter": "circonus_push", "period": 1, "sets": [], "url": "http://127.0.0.1:9/module/httptrap/id-canary/key-canary"});
    let saved = project.store("trap", body).to_string();
    let failed = wait::until("an attempt has failed", SETTLED, || {
        let status = project.status("trap");
        if status["attempts"][0].is_object() { Ok(status.to_string()) } else { Err(status.to_string()) }
    });
    let preview = project.ask("GET", "metric-stores/trap/preview", Value::Null).expect(200);
    assert_eq!(preview.json()["requests"][0]["request"], "PUT http://127.0.0.1:9/***");
    let also = [
        project.ask("GET", "metric-stores", Value::Null).body,
        project.ask("GET", "metric-stores/trap", Value::Null).body,
        project.ask("GET", "metric-stores/trap/deliveries", Value::Null).body,
        http::get(&format!("{}/metrics", server.url())).expect("an answer").body,
    ];
    for text in also.iter().chain([&saved, &failed, &preview.body]) {
        assert!(!text.contains("canary"), "{text}");
    }
    assert!(saved.contains("\"secrets_set\":[\"url\"]"), "{saved}");
    // Left out, the URL is kept.
    let edited = project.store("trap", json!({"adapter": "circonus_push", "period": 1, "sets": [], "layout": "path"}));
    assert_eq!(edited["layout"], "path");
}

#[test]
fn the_server_tells_how_it_is() {
    let mut server = Crashmeter::start();
    let base = server.url();
    assert_eq!(http::get(&format!("{base}/healthz")).expect("an answer").body, "ok\n");
    assert_eq!(http::get(&format!("{base}/readyz")).expect("an answer").body, "ready\n");
    let openapi = http::get(&format!("{base}/api/openapi.json")).expect("an answer").json();
    assert_eq!(openapi["openapi"], "3.1.0");
    assert!(openapi["paths"]["/api/v1/projects/{project}/metric-stores/{store}/preview"]["get"].is_object());
    let metrics = http::get(&format!("{base}/metrics")).expect("an answer").body;
    for line in ["crashmeter_ledger_imbalance 0", "crashmeter_submissions_refused_total{reason=\"malformed_json\"} 0"] {
        assert!(metrics.lines().any(|have| have == line), "{line} is missing in {metrics}");
    }
    let refused = http::get(&format!("{base}/api/v1/nothing")).expect("an answer");
    assert_eq!(refused.status, 404);
    server.kill();
    server.resume();
    assert_eq!(http::get(&format!("{base}/healthz")).expect("an answer").status, 200);
}
