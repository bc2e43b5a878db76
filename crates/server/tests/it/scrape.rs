//! Prometheus as users run it: it scrapes once a period, and what it then holds is held against what an SDK submitted.

use crate::crashmeter::{Crashmeter, Project};
use crate::expected::{self, AGGREGATES, Counted};
use crate::http;
use crate::receivers::collectd::Collectd;
use crate::receivers::prometheus::{Job, Prometheus, scrape_config};
use crate::receivers::pushgateway::Pushgateway;
use crate::receivers::{Series, VISIBLE, now_s, parsers};
use crate::sdk::{Client, Kind, Report, Sdk};
use crate::wait;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const WINDOW_END: &str = "crashmeter_game_health_window_end_timestamp_seconds";

/// A project with one grouped and one ungrouped metric on a pull store, and that store's address.
fn scraped_project(server: &Crashmeter) -> (Project, String) {
    let project = server.project("game");
    project.metric("errors", "all", json!({"query": {"fold": expected::fold()}}));
    project.metric("errors", "by-type", json!({"query": {"group": ["classifiers"], "fold": expected::fold()}}));
    let store = project.store("scraped", json!({"adapter": "prometheus", "period": 1, "sets": ["errors"]}));
    let url = store["url"].as_str().expect("editors see the address").to_owned();
    wait::until("a first page is served", VISIBLE, || match http::get(&url).expect("the server answers") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(format!("{} {}", reply.status, reply.body)),
    });
    (project, url)
}

fn crash(classifier: &str, n: u64) -> Report {
    let attributes = json!({"user": format!("user-{}", n % 2), "score": n}).as_object().expect("an object").clone();
    Report { kind: Kind::Error, text: format!("crash {n}"), classifier: classifier.into(), attributes, attachments: vec![] }
}

#[test]
fn a_first_crash_of_a_new_type_rises_by_exactly_one_and_every_window_is_right() {
    let server = Crashmeter::start();
    let (project, url) = scraped_project(&server);
    let prometheus = Prometheus::start(&scrape_config(&[Job { name: "crashes", url: &url, extra: "" }]));
    let scraped_from = wait::until("a first scrape is stored", VISIBLE, || match prometheus.samples(WINDOW_END).first() {
        Some(series) => Ok(series.samples[0].1 as u64),
        None => Err("nothing yet".into()),
    });

    let mut sdk = Sdk::start(Client::Node, &project.submission_url, None);
    let mut counted = Vec::new();
    // Twice the same story: the first crash of a type; then, for the second type, others follow it.
    for (n, classifier) in ["FirstError", "SecondError", "SecondError"].into_iter().enumerate() {
        let report = crash(classifier, n as u64 + 1);
        let rxid = sdk.send(&report).expect("the SDK has its confirmation");
        let second = project.report(&rxid)["attributes"]["timestamp.received"].as_u64().expect("every report is stamped");
        let user = report.attributes["user"].as_str().expect("a text").to_owned();
        counted.push(Counted { second, group: classifier.into(), user, score: n as f64 + 1.0 });
        wait::until_second(now_s() + 2);
    }

    // A counter shows its reports from the third window after its birth on.
    let last = counted[2].second + 4;
    let ends = wait::until("Prometheus has the last window", VISIBLE, || {
        let ends = prometheus.samples(WINDOW_END).remove(0).samples;
        if ends.last().is_some_and(|(_, end)| *end as u64 > last) { Ok(ends) } else { Err(format!("{:?}", ends.last())) }
    });
    assert_eq!(prometheus.scrape_error("crashes").as_deref(), Some(""));

    let totals = by_type(prometheus.samples("crashmeter_game_errors_by_type_tx_unique_total"));
    for (classifier, all) in [("FirstError", 1.0), ("SecondError", 2.0)] {
        let values: Vec<f64> = totals[classifier].iter().map(|(_, value)| *value).collect();
        assert_eq!(values.first(), Some(&0.0), "{classifier} is born at 0, where a scraper sees it: {values:?}");
        let rises: f64 = values.windows(2).map(|pair| pair[1] - pair[0]).inspect(|rise| assert!(*rise >= 0.0, "{values:?}")).sum();
        assert_eq!((rises, values.last()), (all, Some(&all)), "{classifier}: {values:?}");
    }
    let first: Vec<f64> = totals["FirstError"].windows(2).map(|pair| pair[1].1 - pair[0].1).filter(|rise| *rise != 0.0).collect();
    assert_eq!(first, [1.0], "one rise between two samples, of exactly 1");

    check_windows(&prometheus, &ends, &counted, scraped_from);
}

/// Every gauge of every scrape is the value of the very window that the page says it shows.
fn check_windows(prometheus: &Prometheus, ends: &[(u64, f64)], counted: &[Counted], scraped_from: u64) {
    let window_at: BTreeMap<u64, u64> = ends.iter().map(|(at, end)| (*at, *end as u64 - 1)).collect();
    let last = *window_at.values().max().expect("there were scrapes");
    for (metric, grouped) in [("all", false), ("by_type", true)] {
        for aggregate in AGGREGATES {
            let expected = expected::points(counted, aggregate, grouped, scraped_from - 1, last);
            let found = by_type(prometheus.samples(&format!("crashmeter_game_errors_{metric}_{aggregate}_window")));
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{metric} {aggregate}");
            for (group, samples) in found {
                let of_window: BTreeMap<u64, f64> = expected[&group].iter().map(|(ms, value)| (ms / 1_000, *value)).collect();
                for (at, value) in &samples {
                    // The page may be newer than the list of windows read before.
                    let Some(window) = window_at.get(at) else { continue };
                    assert_eq!(of_window.get(window), Some(value), "{metric} {aggregate} {group:?} in window {window}");
                }
                let shown = samples.iter().filter(|(at, _)| window_at.contains_key(at)).count();
                let wanted = window_at.values().filter(|window| of_window.contains_key(window)).count();
                assert_eq!(shown, wanted, "{metric} {aggregate} {group:?}: a scrape that shows such a window has the series");
            }
        }
    }
}

/// Samples by the label `classifiers`; "" for a series without it.
fn by_type(series: Vec<Series>) -> BTreeMap<String, Vec<(u64, f64)>> {
    series.into_iter().map(|one| (one.labels.get("classifiers").cloned().unwrap_or_default(), one.samples)).collect()
}

#[test]
fn strict_parsers_take_every_page() {
    let server = Crashmeter::start();
    let (project, url) = scraped_project(&server);
    let gateway = Pushgateway::start();
    let check = |what: &str| {
        let text = fetch(&url, "text/plain;version=0.0.4");
        parsers::promtool(&text).unwrap_or_else(|reason| panic!("promtool, {what}: {reason}\n{text}"));
        gateway.push("page", &text).unwrap_or_else(|reason| panic!("pushgateway, {what}: {reason}\n{text}"));
        let open_metrics = fetch(&url, "application/openmetrics-text;version=1.0.0");
        parsers::open_metrics(&open_metrics).unwrap_or_else(|reason| panic!("OpenMetrics, {what}: {reason}\n{open_metrics}"));
        text
    };
    check("before any report");

    let hostile = [
        "plain",
        "quote \" backslash \\ end \\",
        "new\nline",
        "tab\tand \u{1F980} and \u{0}",
        "",
        "none",
        "__other__",
        "x{y=\"z\"} 1",
        "\u{202e}abc",
    ];
    for (n, name) in hostile.into_iter().enumerate() {
        let report = json!({
            "uuid": format!("{n:032x}"), "timestamp": now_s(), "classifiers": [name], "attributes": {"user": name, "score": -1.5e300},
        });
        project.submit(&report).expect("the server answers").expect(200);
    }
    let last = now_s();
    wait::until("the hostile values are on the page", VISIBLE, || {
        let page = fetch(&url, "text/plain;version=0.0.4");
        if sample(&page, "crashmeter_game_health_window_end_timestamp_seconds") > Some(last as f64 + 1.0) { Ok(()) } else { Err(page) }
    });
    let page = check("with hostile values");
    let series = page.lines().filter(|line| line.starts_with("crashmeter_game_errors_by_type_tx_unique_total{")).count();
    assert_eq!(series, hostile.len(), "each value has a series of its own:\n{page}");
    wait::until("the counters have begun to show", VISIBLE, || {
        let page = check("while counters rise");
        let sum: f64 = page.lines().filter(|line| line.starts_with("crashmeter_game_errors_by_type_tx_unique_total{")).map(value).sum();
        if sum == hostile.len() as f64 { Ok(()) } else { Err(format!("{sum}")) }
    });
}

fn fetch(url: &str, accept: &str) -> String {
    http::call("GET", url, &[("Accept", accept)], "").expect("the server answers").expect(200).body
}

/// The value of the only series of a name.
fn sample(page: &str, name: &str) -> Option<f64> {
    page.lines().find(|line| line.starts_with(name)).map(value)
}

fn value(line: &str) -> f64 {
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no value: {line}"))
}

/// Our own figures are a page too.
#[test]
fn strict_parsers_take_our_own_figures() {
    let server = Crashmeter::start();
    let (project, _) = scraped_project(&server);
    project.submit(&Value::Null).expect("the server answers").expect(400);
    let page = http::get(&format!("{}/metrics", server.url())).expect("the server answers").expect(200).body;
    parsers::promtool(&page).unwrap_or_else(|reason| panic!("promtool: {reason}\n{page}"));
    Pushgateway::start().push("own", &page).unwrap_or_else(|reason| panic!("pushgateway: {reason}\n{page}"));
    assert_eq!(sample(&page, "crashmeter_submissions_total{outcome=\"refused\"}"), Some(1.0));
}

#[test]
fn prometheus_finds_a_page_by_discovery_and_shows_its_password() {
    let server = Crashmeter::start();
    let project = server.project("game");
    let body = json!({"adapter": "prometheus", "period": 1, "sets": [], "username": "scraper", "password": "s3cret #1"});
    let store = project.store("scraped", body);
    let url = store["url"].as_str().expect("editors see the address");
    let discovery = url.replace("/metrics", "/http-sd.json");
    let login = "basic_auth: {username: scraper, password: 's3cret #1'}";
    let config = |login: &str| {
        format!(
            "scrape_configs:\n- job_name: found\n  {login}\n  http_sd_configs:\n  - url: '{discovery}'\n    refresh_interval: 1s\n    {login}\n"
        )
    };
    let prometheus = Prometheus::start(&config(login));
    // Its global interval is a minute: that of the document, a second, is what it goes by.
    let series = wait::until("two windows were scraped", VISIBLE, || match prometheus.samples(WINDOW_END).first() {
        Some(series) if series.samples.len() >= 2 => Ok(series.clone()),
        other => Err(format!("{other:?} {:?}", prometheus.scrape_error("found"))),
    });
    assert_eq!(series.labels["crashmeter_store"], "scraped");
    let between = series.samples[1].0 - series.samples[0].0;
    assert!(between < 10_000, "{between} ms from scrape to scrape");
    // With a wrong password neither the document nor the page is given.
    let stranger =
        Prometheus::start(&scrape_config(&[Job { name: "wrong", url, extra: "  basic_auth: {username: scraper, password: no}\n" }]));
    let error = wait::until("the page was tried", VISIBLE, || stranger.scrape_error("wrong").ok_or("not yet".into()));
    assert!(error.contains("401"), "{error}");
    http::get(&discovery).expect("an answer").expect(401);
}

#[test]
fn collectd_reads_a_circonus_page_with_its_password_and_every_reading_is_a_window() {
    let server = Crashmeter::start();
    let project = server.project("game");
    project.metric("errors", "all", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    let store = project.store("circonus", json!({"adapter": "circonus_pull", "period": 1, "sets": ["errors"]}));
    let text = |field: &str| store[field].as_str().expect("made by the server").to_owned();
    let keys = [
        ("errors", "crashmeter`game`errors`all`tx_unique/_value"),
        ("end", "crashmeter`game`health`window_end_timestamp_seconds|ST[store:circonus]/_value"),
        ("up", "crashmeter`game`health`up|ST[store:circonus]/_value"),
    ];
    let collectd = Collectd::start(&text("url"), &text("username"), &text("password"), &keys);
    let mut by_second: BTreeMap<u64, f64> = BTreeMap::new();
    wait::until("ten windows were read, some with reports", VISIBLE, || {
        let rxid =
            project.submit(&json!({"attributes": {"a": 1}})).expect("a reply").expect(200).json()["_rxid"].as_str().map(str::to_owned);
        let kept = project.report(&rxid.expect("a receipt"));
        *by_second.entry(kept["attributes"]["timestamp.received"].as_u64().expect("stamped")).or_default() += 1.0;
        let read = collectd.read();
        let counted = read.get("end").map_or(0, Vec::len);
        if counted >= 10 { Ok(()) } else { Err(format!("{read:?} {}", collectd.log())) }
    });
    let read = collectd.read();
    let ends: BTreeMap<u64, f64> = read["end"].iter().copied().collect();
    let known = *by_second.keys().next_back().expect("reports were sent");
    let mut checked = 0;
    for (at, value) in &read["errors"] {
        let Some(end) = ends.get(at) else { continue };
        let second = *end as u64 - 1;
        if second < known {
            assert_eq!(*value, by_second.get(&second).copied().unwrap_or(0.0), "the window of second {second}");
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} readings: {read:?}");
    assert!(read["up"].iter().all(|(_, value)| *value == 1.0), "{read:?}");
}
