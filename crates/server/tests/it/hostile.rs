//! Hostile inputs at the running server, by the numbers of `docs/hostile-inputs.md`, which names the test of each. The rest of them is
//! tested where the part is that they are aimed at.

use crate::crashmeter::{Crashmeter, Project};
use crate::http;
use crate::wait;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Sends bytes as they are and reads what comes back, until the server has said something whole or closes.
fn raw(server: &Crashmeter, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    for part in parts {
        // It may be refused and closed in the middle.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let (mut reply, mut piece) = (Vec::new(), [0; 4_096]);
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        reply.extend_from_slice(&piece[..length]);
        if reply.len() > 100_000 || reply.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&reply).into_owned()
}

fn path(project: &Project) -> String {
    format!("/{}", project.submission_url.splitn(4, '/').nth(3).expect("a path"))
}

fn post(project: &Project, headers: &str) -> Vec<u8> {
    format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n", path(project)).into_bytes()
}

/// The next good report is taken, and no other was.
fn assert_healthy(project: &Project, number: u64) {
    let reply = project.submit(&json!({"uuid": format!("{number:032x}"), "attributes": {}})).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let query = json!({"query": {"fold": {"_tx": [["count"]]}}, "from": 0, "to": 4_000_000_000u64});
    assert_eq!(project.ask("POST", "query", query).expect(200).json()["matched"], number);
}

#[test]
fn n002_framing_that_contradicts_itself_counts_nothing() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let body: &[u8] = br#"{"attributes":{}}"#;
    for headers in
        ["Content-Length: 17\r\nContent-Length: 5\r\n", "Content-Length: -1\r\n", "Content-Length: 17, 5\r\n", "Content-Length: 0x11\r\n"]
    {
        let reply = raw(&server, &[&post(&project, headers), body]);
        assert!(reply.starts_with("HTTP/1.1 400"), "{headers}: {reply}");
    }
    // Two ways to say how long it is: one of them counts, and what is left over is no second request.
    let both = post(&project, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    let reply = raw(&server, &[&both, b"2\r\n{}\r\n0\r\n\r\nGET /api/v1/tokens HTTP/1.1\r\nHost: x\r\n\r\n"]);
    assert!(!reply.contains("scope"), "{reply}");
    // Shorter than it says.
    let stream = TcpStream::connect(server.url().trim_start_matches("http://")).expect("connects");
    (&stream).write_all(&[post(&project, "Content-Length: 100\r\n"), body.to_vec()].concat()).expect("sent");
    drop(stream);
    let taken = project.ask("POST", "query", json!({"query": {"fold": {"_tx": [["count"]]}}})).expect(200).json();
    let before = taken["matched"].as_u64().expect("a count");
    assert!(before <= 1, "only the chunked body was whole: {taken}");
    assert_healthy(&project, before + 1);
}

#[test]
fn n003_n005_chunks_and_headers_without_measure_are_refused() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let chunked = post(&project, "Transfer-Encoding: chunked\r\n");
    let many: Vec<u8> = (0..100_000).flat_map(|n| format!("X-{n}: y\r\n").into_bytes()).collect();
    let long = [b"X-Long: ".to_vec(), vec![b'x'; 2 << 20], b"\r\n".to_vec()].concat();
    let start = format!("POST {} HTTP/1.1\r\nHost: x\r\n", path(&project)).into_bytes();
    let cases: [(&str, Vec<&[u8]>); 7] = [
        ("a chunk of 2^64 - 1", vec![&chunked, b"FFFFFFFFFFFFFFFF\r\n{"]),
        ("a chunk of more digits", vec![&chunked, b"1FFFFFFFFFFFFFFFFF\r\n{"]),
        ("a chunk of no number", vec![&chunked, b"zz\r\n{}"]),
        ("a hundred thousand headers", vec![&start, &many, b"\r\n"]),
        ("a header of 2 MiB", vec![&start, &long, b"\r\n"]),
        ("a NUL in a header's name", vec![&start, b"X\0Y: z\r\n\r\n"]),
        ("a line end in a header's name", vec![&start, b"X\rY: z\r\n\r\n"]),
    ];
    for (what, parts) in cases {
        let reply = raw(&server, &parts);
        let status = reply.get(9..12).unwrap_or("").to_owned();
        assert!(reply.is_empty() || ["400", "408", "413", "431"].contains(&status.as_str()), "{what}: {reply}");
    }
    // The extension of a chunk that never ends.
    let extension = [b"1;".to_vec(), vec![b'x'; 1 << 20]].concat();
    let reply = raw(&server, &[&chunked, &extension]);
    assert!(!reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_healthy(&project, 1);
}

#[test]
fn n004_n006_whoever_keeps_the_server_waiting_keeps_nobody_else_waiting() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let address = server.url().trim_start_matches("http://").to_owned();
    let waiting: Vec<TcpStream> = (0..500)
        .map(|n| {
            let mut stream = TcpStream::connect(&address).expect("connects");
            let begun = match n % 4 {
                0 => Vec::new(),
                1 => b"POST /".to_vec(),
                2 => post(&project, "Content-Length: 100\r\nExpect: 100-continue\r\n"),
                _ => [post(&project, "Content-Length: 100\r\n"), b"{".to_vec()].concat(),
            };
            stream.write_all(&begun).expect("sent");
            stream
        })
        .collect();
    let reply = raw(&server, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]);
    assert!(!reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_healthy(&project, 1);
    drop(waiting);
    assert_healthy(&project, 2);
}

#[test]
fn n009_a_bomb_without_a_key_is_not_unpacked() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b' '; 120 << 20]).expect("into memory");
    let bomb = encoder.finish().expect("into memory");
    let headers = [("Content-Encoding", "gzip"), ("Content-Type", "application/json")];
    let unknown = project.submission_url.replace(&project.token, &"0".repeat(64));
    let reply = http::call("POST", &unknown, &headers, bomb).expect("an answer");
    assert_eq!(reply.status, 403, "{}", reply.body);
    assert_healthy(&project, 1);
}

#[test]
fn n014_a_million_keys_are_refused_by_their_number() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let keys: String = (0..1_000_000).map(|n| format!("\"k{n}\":0,")).collect();
    let reply = http::call("POST", &project.submission_url, &[], format!("{{\"attributes\":{{{}}}}}", keys.trim_end_matches(',')));
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert!(reply.body.contains("1000"), "{}", reply.body);
    assert_healthy(&project, 1);
}

/// Every address below a project, with every method, as the description of the API has them.
fn addresses(server: &Crashmeter) -> Vec<(String, String)> {
    let document = http::get(&format!("{}/api/openapi.json", server.url())).expect("an answer").expect(200).json();
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut found = Vec::new();
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            if path.contains("/projects/{project}") {
                found.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    assert!(found.len() > 25, "{found:?}");
    found
}

#[test]
fn n026_n055_a_project_is_not_there_for_those_of_another() {
    let server = Crashmeter::start();
    let (own, other) = (server.project("own"), server.project("canary-project"));
    let receipt = other.submit(&json!({"attributes": {"secret": "canary-value"}})).expect("an answer").expect(200).json();
    other.metric("canary-set", "canary-metric", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    other.store("canary-store", json!({"adapter": "prometheus", "period": 60, "sets": ["canary-set"]}));
    own.metric("set", "metric", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    let token = |scope: &str| {
        let made = server.ask("POST", "/api/v1/tokens", json!({"scope": scope, "project": "own"})).expect(201).json();
        format!("Bearer {}", made["token"].as_str().expect("a token"))
    };
    let names = [
        ("{set}", "canary-set"),
        ("{metric}", "canary-metric"),
        ("{store}", "canary-store"),
        ("{attribute}", "secret"),
        ("{report}", receipt["_rxid"].as_str().expect("a receipt")),
        ("{rxid}", receipt["_rxid"].as_str().expect("a receipt")),
        ("{tx}", "1"),
    ];
    for authorization in [token("query"), token("edit")] {
        for (method, pattern) in addresses(&server) {
            let at = |project: &str| {
                let mut path = pattern.replace("{project}", project);
                names.iter().for_each(|(name, value)| path = path.replace(name, value));
                // What is left names nothing of the other project.
                let path = path.replace(['{', '}'], "");
                let body = if method == "GET" || method == "DELETE" { "" } else { "{}" };
                let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
                let reply = http::call(&method, &format!("{}{path}", server.url()), &headers, body).expect("an answer");
                let mut told = serde_json::from_str(&reply.body).unwrap_or_else(|_| json!(reply.body));
                told["request_id"] = Value::Null;
                (reply.status, told.to_string().replace(project, "PROJECT"))
            };
            let (there, nowhere) = (at("canary-project"), at("nowhere-project"));
            assert_eq!(there, nowhere, "{method} {pattern}: a project of others is told from one that is not there");
            assert!(there.0 >= 400 && !there.1.contains("canary-value"), "{method} {pattern}: {there:?}");
        }
        // What has no project in its address says nothing of others either.
        for path in ["/api/v1/projects", "/api/v1/audit", "/api/v1/me"] {
            let reply = http::call("GET", &format!("{}{path}", server.url()), &[("Authorization", &authorization)], "").expect("an answer");
            assert!(!reply.body.contains("canary"), "{path}: {}", reply.body);
        }
    }
    // A key of one and a project of the other: the key alone decides, or nothing is taken.
    let url = own.submission_url.replace("/json", "/json?project=canary-project");
    let reply = http::call("POST", &url, &[("Content-Type", "application/json")], r#"{"attributes":{}}"#).expect("an answer");
    let query = json!({"query": {"fold": {"_tx": [["count"]]}}});
    assert_eq!(other.ask("POST", "query", query).expect(200).json()["matched"], 1, "{}", reply.body);
}

#[test]
fn n058_to_n062_queries_out_of_measure_are_answered_or_refused_at_their_field() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project
        .submit(&json!({"attributes": {"text": "x".repeat(30_000), "n": 5, "flag": true, "a\".\"b": "odd"}}))
        .expect("an answer")
        .expect(200);
    let count = json!({"_tx": [["count"]]});
    let deep = format!(r#"{{"query":{{"filter":[{{"a":{}1{}}}],"fold":{{"_tx":[["count"]]}}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let address = format!("{}/api/v1/projects/p/query", server.url());
    let headers = [("Authorization", server.authorization()), ("Content-Type", "application/json".to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let reply = http::call("POST", &address, &headers, deep).expect("an answer");
    assert!([400, 422].contains(&reply.status), "{}", reply.body);
    let names: Vec<String> = (0..50).map(|n| format!("a{n}")).collect();
    let many: Vec<Value> = (0..30_000).map(|n| json!({"a": [["equal", n]]})).collect();
    for (what, body, statuses) in [
        ("30,000 alternatives", json!({"query": {"filter": many, "fold": count}}), &[422][..]),
        ("50 groups", json!({"query": {"group": names, "fold": count}}), &[200, 422]),
        ("a limit of 2^63", json!({"query": {"fold": count}, "limit": 1u64 << 63}), &[422]),
        ("an offset below 0", json!({"query": {"fold": count}, "offset": -1}), &[422]),
        ("sums of text, least of booleans", json!({"query": {"fold": {"text": [["sum"], ["min"]], "flag": [["min"]]}}}), &[200]),
        ("a reversed time frame", json!({"query": {"fold": count}, "from": 2_000, "to": 1_000}), &[422]),
        ("a time frame of all time", json!({"query": {"fold": count}, "from": 0, "to": u64::MAX}), &[200, 422]),
        ("too many steps", json!({"query": {"fold": count}, "from": 0, "to": 4_000_000_000u64, "series": {"step": 1}}), &[422]),
        ("a step of nothing", json!({"query": {"fold": count}, "series": {"step": 0}}), &[422]),
        (
            "a pattern that cannot be bounded",
            json!({"query": {"filter": [{"a": [["regular-expression", "a{1000}{1000}{1000}"]]}], "fold": count}}),
            &[422],
        ),
        (
            "a pattern that looks around",
            json!({"query": {"filter": [{"a": [["regular-expression", "(?=a)(b)\\1"]]}], "fold": count}}),
            &[422],
        ),
        (
            "a pattern that others loop on",
            json!({"query": {"filter": [{"text": [["regular-expression", "(x*)*y"]]}], "fold": count}}),
            &[200],
        ),
    ] {
        let began = Instant::now();
        let reply = project.ask("POST", "query", body);
        assert!(statuses.contains(&reply.status), "{what}: {} {}", reply.status, &reply.body[..reply.body.len().min(500)]);
        assert!(began.elapsed() < Duration::from_secs(20), "{what} took {:?}", began.elapsed());
    }
    for name in ["\"; drop table report", "' or 1=1", "a\".\"b", "%", "_", "a\0b", "$.x", "a;b"] {
        let body = json!({"query": {"group": [name], "filter": [{name: [["is-set"]]}], "fold": {name: [["unique"]]}}});
        let answer = project.ask("POST", "query", body).expect(200).json();
        assert_eq!(answer["matched"], u64::from(name == "a\".\"b"), "{name}: {answer}");
    }
}

#[test]
fn n083_n084_n089_a_pull_page_opens_to_its_own_secret_and_login_alone() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    let store = json!({"adapter": "prometheus", "period": 1, "sets": ["s"], "username": "u", "password": "right:password"});
    let url = project.store("prom", store)["url"].as_str().expect("a URL").to_owned();
    let ask = |method: &str, url: &str, headers: &[(&str, &str)]| http::call(method, url, headers, "").expect("an answer");
    let right = http::basic("u", "right:password");
    wait::until("the page is there", Duration::from_secs(20), || {
        let status = ask("GET", &url, &[("Authorization", &right)]).status;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    });
    let secret = url.rsplit('/').nth(1).expect("the secret").to_owned();
    let flipped = {
        let mut bytes = secret.clone().into_bytes();
        bytes[0] = if bytes[0] == b'0' { b'1' } else { b'0' };
        String::from_utf8(bytes).expect("text")
    };
    for wrong in [&flipped, &secret[1..], &secret.to_uppercase(), &format!("{secret}0"), &project.token] {
        let wrong = url.replace(&secret, wrong);
        assert!(wrong == url || ask("GET", &wrong, &[("Authorization", &right)]).status == 404, "{wrong}");
    }
    let long = format!("Basic {}", "A".repeat(60_000));
    let no_colon = "Basic dQ==";
    let admin = server.authorization();
    for wrong in [
        "",
        "Basic",
        "Basic !!!",
        no_colon,
        &http::basic("u", ""),
        &http::basic("U", "right:password"),
        "Digest username=\"u\"",
        &long,
        &admin,
    ] {
        let reply = ask("GET", &url, &[("Authorization", wrong)]);
        assert!([400, 401, 431].contains(&reply.status), "{}: {}", &wrong[..wrong.len().min(40)], reply.status);
    }
    for method in ["POST", "PUT", "DELETE", "TRACE"] {
        let status = ask(method, &url, &[("Authorization", &right)]).status;
        assert!([404, 405].contains(&status), "{method}: {status}");
    }
    // One kind of key is no other kind of key.
    let as_api = format!("Bearer {secret}");
    assert_eq!(ask("GET", &format!("{}/api/v1/projects", server.url()), &[("Authorization", &as_api)]).status, 401);
    let submit = format!("{}/post?format=json&token={secret}", server.url());
    assert_eq!(ask("POST", &submit, &[]).status, 403);
}

#[test]
fn n102_a_stop_does_not_wait_for_a_store_that_hangs() {
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = hanging.local_addr().expect("bound");
    let mut server = Crashmeter::start();
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    let store = json!({"adapter": "influxdb", "period": 1, "sets": ["s"], "url": format!("http://{address}/write?db=x")});
    project.store("hangs", store);
    // It takes the request, and says nothing.
    let (_request, _) = hanging.accept().expect("a request");
    let began = Instant::now();
    server.terminate();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    server.resume();
    assert_healthy(&project, 1);
}

#[test]
fn n090_n092_configuration_out_of_measure_is_refused_at_its_field() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let metric = json!({"query": {"fold": {"_tx": [["count"]]}}});
    project.metric("s", "m", metric.clone());
    for period in [json!(0), json!(-1), json!(1u64 << 31), json!(0.5), json!(1_000_000_000), json!(null), json!("a minute"), json!([60])] {
        let store = json!({"adapter": "prometheus", "period": period, "sets": ["s"]});
        let refused = project.ask("PUT", "metric-stores/prom", store).expect(422).json();
        assert_eq!(refused["field"], "period", "{period}: {refused}");
    }
    for (field, body) in [
        ("colour", json!({"adapter": "prometheus", "period": 60, "sets": ["s"], "colour": "red"})),
        ("sets", json!({"adapter": "prometheus", "period": 60, "sets": {"s": 1}})),
        ("horizon", json!({"adapter": "graphite", "host": "h", "period": 60, "sets": ["s"], "horizon": 59})),
        ("adapter", json!({"adapter": null, "period": 60})),
        ("enabled", json!({"adapter": "prometheus", "period": 60, "sets": ["s"], "enabled": "yes"})),
    ] {
        let refused = project.ask("PUT", "metric-stores/prom", body).expect(422).json();
        let told = format!("{} {}", refused["field"], refused["problems"]);
        assert!(told.contains(field), "{field}: {refused}");
    }
    let large = format!(
        "PUT /api/v1/projects/p/metric-sets/s/metrics/large HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        server.authorization(),
        100 << 20
    );
    let reply = raw(&server, &[large.as_bytes(), &vec![b' '; 8 << 20]]);
    // Whoever goes on sending may never see it.
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 413"), "{reply}");
    // Names that differ in nothing but case are two names; a name is what it is.
    project.metric("s", "M", metric);
    let set = project.ask("GET", "metric-sets/s", Value::Null).expect(200).json();
    assert_eq!(set["metrics"].as_array().expect("a list").len(), 2, "{set}");
}

/// A figure of `/metrics`.
fn figure(server: &Crashmeter, name: &str) -> f64 {
    let page = http::get(&format!("{}/metrics", server.url())).expect("an answer").body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("there is no {name}: {page}")).parse().expect("a number")
}

#[test]
fn n064_a_thousand_previews_at_once_are_answered_or_sent_away_and_windows_are_sealed_on_time() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    project.store("pull", json!({"adapter": "prometheus", "period": 1, "sets": ["s"]}));
    let preview = json!({"metric": {"query": {"group": ["kind"], "fold": {"_tx": [["count"]]}}}, "set": "s", "name": "other", "period": 1});
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..1_000).map(|_| scope.spawn(|| project.ask("POST", "preview", preview.clone()).status)).collect();
        asked.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert!(statuses.contains(&200));
    assert!(figure(&server, "crashmeter_seal_lag_seconds") < 5.0);
    assert_healthy(&project, 1);
}

#[test]
fn n091_ten_thousand_metrics_in_a_set_and_two_stores_with_one_target() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let metric = |n: u32| json!({"query": {"filter": [{"n": [["equal", n % 100]]}], "fold": {"_tx": [["count"]]}}});
    let metrics: serde_json::Map<String, Value> = (0..10_000).map(|n| (format!("m{n}"), metric(n))).collect();
    let document = json!({"crashmeter": 1, "projects": {"p": {"metric_sets": {"all": {"metrics": metrics}}}}});
    let applied = server.ask("POST", "/api/v1/apply", json!({"document": document}));
    assert_eq!(applied.status, 200, "{:.300}", applied.body);
    for n in 0..100 {
        assert_eq!(project.submit(&json!({"attributes": {"n": n}})).expect("an answer").status, 200);
    }
    for name in ["one", "two"] {
        let store = project.store(name, json!({"adapter": "prometheus", "period": "10s", "sets": ["all"]}));
        let url = store["url"].as_str().expect("a pull URL").to_owned();
        wait::until("a window of all metrics", crate::crashmeter::SETTLED, || {
            let page = http::get(&url).expect("an answer").body;
            let series = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
            if series >= 10_000 { Ok(()) } else { Err(format!("{series} series: {page:.500}")) }
        });
    }
    assert_eq!(figure(&server, "crashmeter_metrics_failed_total"), 0.0);
}

#[test]
fn n094_odd_environments_change_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let before = "umask 000; unset HOME XDG_CACHE_HOME; export TZ=':no/such zone' LANG=tr_TR.UTF-8 LC_ALL=xx RUST_BACKTRACE=nonsense";
    let mut server = Crashmeter::start_after(before);
    let project = server.project("p");
    assert_healthy(&project, 1);
    for start in 0..2 {
        for secret in ["admin.token", "catalog.key", "catalog.sqlite"] {
            let mode = std::fs::metadata(server.data().join(secret)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{secret} has mode {mode:o} at start {start}");
        }
        server.kill();
        server.resume();
    }
    assert_healthy(&project, 2);
    // Letters have one other case, whatever the language of the machine.
    let query = json!({"query": {"filter": [{"kind": [["regular-expression", "title", {"case_insensitive": true}]]}], "fold": {"_tx": [["count"]]}}});
    project.submit(&json!({"attributes": {"kind": "TITLE"}})).expect("an answer");
    let answer = project.ask("POST", "query", query);
    assert!(answer.status == 422 || answer.json()["matched"] == 1, "{}", answer.body);
}

#[test]
fn n097_few_descriptors_and_a_stopped_process_lose_nothing() {
    let server = Crashmeter::start_after("ulimit -n 64");
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    project.store("pull", json!({"adapter": "prometheus", "period": 1, "sets": ["s"]}));
    assert_healthy(&project, 1);
    let address = server.url().trim_start_matches("http://").to_owned();
    // More than it has descriptors; those that it has not taken yet wait with the kernel.
    let held: Vec<TcpStream> = (0..120).map(|_| TcpStream::connect(&address).expect("the kernel takes it")).collect();
    drop(held);
    wait::until("it answers again", crate::crashmeter::SETTLED, || match http::get(&format!("{}/readyz", server.url())) {
        Ok(reply) if reply.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_healthy(&project, 2);
    let sealed = || project.status("pull")["newest_sealed_window"].as_u64();
    wait::until("a window", crate::crashmeter::SETTLED, || sealed().map(drop).ok_or_else(String::new));
    let before = sealed().expect("there is one");
    // Long enough for windows to be missed, if it could miss any.
    server.frozen(|| std::thread::sleep(Duration::from_secs(4)));
    wait::until("all windows since", crate::crashmeter::SETTLED, || {
        if sealed().is_some_and(|newest| newest >= before + 4) { Ok(()) } else { Err(format!("{:?}", sealed())) }
    });
    assert_eq!(figure(&server, "crashmeter_gaps_total"), 0.0);
    assert_healthy(&project, 3);
}
