//! From real SDKs to real stores: what was submitted, window by window, against what each store holds by its own account.

use crate::crashmeter::{Crashmeter, Project};
use crate::expected::{self, AGGREGATES, Counted, Points};
use crate::receivers::graphite::Graphite;
use crate::receivers::influx::{self, Access, Influx};
use crate::receivers::victoria::Victoria;
use crate::receivers::{Series, VISIBLE, now_s};
use crate::sdk::{Client, Kind, Report, Sdk};
use crate::wait;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// Seconds over which each SDK sends.
const SECONDS: u64 = 5;
/// Reports that each SDK sends in a second. Together they make every combination of kind, version and user.
const EACH_SECOND: u64 = 3;
/// What the tests group by; the last reports have none of them.
const VERSIONS: [Option<&str>; 3] = [Some("1.0"), Some("2.0.1"), None];

/// A report that an SDK sent and saw confirmed, between these two seconds.
struct Sent {
    client: Client,
    report: Report,
    rxid: String,
    from_s: u64,
    to_s: u64,
}

/// A store under test: how it is configured and how it is read.
struct Target {
    name: &'static str,
    settings: Value,
    /// Gives the series of one metric and aggregate by group, as this store spells the group.
    read: Box<Reader>,
    /// How this store spells a value.
    spell: fn(&str) -> String,
    /// By what share of a value it may be off.
    tolerance: f64,
}

type Reader = dyn Fn(&str, &str) -> Points;

/// VictoriaMetrics keeps about twelve significant digits; the others keep every bit.
const VICTORIA_TOLERANCE: f64 = 1e-11;

#[test]
fn what_sdks_submit_is_what_every_push_store_holds() {
    let server = Crashmeter::start();
    let project = server.project("ProjectX");
    project.metric("errors", "all", json!({"query": {"fold": expected::fold()}}));
    project.metric("errors", "by-version", json!({"query": {"group": ["game.version"], "fold": expected::fold()}}));
    let (graphite, victoria) = (Graphite::shared(), Victoria::shared());
    let (open, guarded) = (Influx::shared(), Arc::new(Influx::start(Access::Users)));
    let targets = [
        tagged_graphite(&graphite),
        path_graphite(&graphite),
        influxdb("influx-open", &open, json!({})),
        influxdb("influx-users", &guarded, json!({"username": influx::USER, "password": influx::PASSWORD})),
        victoria_v2(&victoria),
        victoria_lines(&victoria),
    ];
    let firsts = targets.each_ref().map(|target| {
        let saved = project.store(target.name, target.settings.clone());
        saved["first_window_start"].as_u64().expect("the answer names the first window")
    });

    let sent = send_from_all_sdks(&project, firsts.into_iter().max().expect("there are stores") + 1);
    let counted: Vec<Counted> = sent.iter().map(|one| check_kept(&project, one)).collect();
    // Two windows more, in which nothing came: the groups go on with zeros.
    let last = counted.iter().map(|one| one.second).max().expect("reports were sent") + 2;

    for (target, first) in targets.iter().zip(firsts) {
        project.settle(target.name, last);
        for (metric, grouped) in [("all", false), ("by-version", true)] {
            for aggregate in AGGREGATES {
                let mut expected = expected::points(&counted, aggregate, grouped, first, last);
                if grouped {
                    expected = expected.into_iter().map(|(group, series)| ((target.spell)(&group), series)).collect();
                }
                wait::until(&format!("{}: {metric} {aggregate}", target.name), VISIBLE, || {
                    let found = up_to((target.read)(metric, aggregate), last);
                    expected::difference(&found, &expected, target.tolerance).map_or(Ok(()), Err)
                });
            }
        }
        project.assert_all_delivered(target.name, last);
    }
}

/// Lets every SDK send for some seconds, all of them at the same time, from the start of `first_s` on.
fn send_from_all_sdks(project: &Project, first_s: u64) -> Vec<Sent> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("state.txt");
    std::fs::write(&file, "level 7, 3 lives left\n").expect("a new file");
    std::thread::scope(|scope| {
        let senders = Client::ALL.map(|client| {
            let file = &file;
            scope.spawn(move || {
                // The older way to configure an SDK names host and token apart; one of the three takes it.
                let host = project.submission_url.split("/submit.backtrace.io").next().expect("a first part");
                let mut sdk = match client {
                    Client::NodeLegacy => Sdk::start(client, host, Some(&project.token)),
                    _ => Sdk::start(client, &project.submission_url, None),
                };
                let mut sent = Vec::new();
                for second in 0..SECONDS {
                    wait::until_second(first_s + second);
                    for within in 0..EACH_SECOND {
                        let report = report(second * EACH_SECOND + within, file);
                        let from_s = now_s();
                        let rxid = sdk.send(&report).unwrap_or_else(|detail| panic!("{client:?} failed: {detail}"));
                        sent.push(Sent { client, report, rxid, from_s, to_s: now_s() });
                    }
                }
                sent
            })
        });
        senders.into_iter().flat_map(|sender| sender.join().expect("the sender ends well")).collect()
    })
}

/// The `n`-th report of an SDK: error, message and error with attachment in turn, each with another version and user.
fn report(n: u64, file: &Path) -> Report {
    let mut attributes = Map::new();
    if let Some(version) = VERSIONS[(n / 3 % 3) as usize] {
        attributes.insert("game.version".into(), json!(version));
    }
    attributes.insert("user".into(), json!(format!("user-{}", n % 4)));
    attributes.insert("score".into(), json!(n * n));
    let (kind, attachments) = match n % 3 {
        0 => (Kind::Error, vec![]),
        1 => (Kind::Message, vec![]),
        _ => (Kind::Error, vec![file.to_owned()]),
    };
    Report { kind, text: format!("report {n}"), classifier: "LevelError".into(), attributes, attachments }
}

/// The report is kept as it was sent, and stamped while it was being sent. What counts of it.
fn check_kept(project: &Project, sent: &Sent) -> Counted {
    let client = sent.client;
    let kept = project.report(&sent.rxid);
    let attributes = &kept["attributes"];
    for (name, value) in &sent.report.attributes {
        assert_eq!(&attributes[name], value, "{client:?}: attribute {name}");
    }
    assert_eq!(attributes["error.message"], *sent.report.text, "{client:?}");
    let attached = kept["attachments"].as_array().expect("a list").iter().map(|one| (one["name"].clone(), one["size"].clone()));
    let files = sent.report.attachments.iter().map(|_| (json!("state.txt"), json!(22)));
    assert_eq!(attached.collect::<Vec<_>>(), files.collect::<Vec<_>>(), "{client:?}: {}", sent.report.text);
    let second = attributes["timestamp.received"].as_u64().expect("every report is stamped");
    assert!((sent.from_s..=sent.to_s).contains(&second), "{client:?}: stamped {second}, sent from {} to {}", sent.from_s, sent.to_s);
    Counted {
        second,
        group: sent.report.attributes.get("game.version").and_then(Value::as_str).unwrap_or("none").to_owned(),
        user: sent.report.attributes["user"].as_str().expect("a text").to_owned(),
        score: sent.report.attributes["score"].as_f64().expect("a number"),
    }
}

/// Leaves out what has been sealed since.
fn up_to(mut points: Points, last_s: u64) -> Points {
    points.values_mut().for_each(|series| series.retain(|(at, _)| *at <= last_s * 1_000));
    points.retain(|_, series| !series.is_empty());
    points
}

/// Series by the value of one label; "" for a series without it.
fn by_label(series: Vec<Series>, label: &str) -> Points {
    series.into_iter().map(|one| (one.labels.get(label).cloned().unwrap_or_default(), one.samples)).collect()
}

fn as_sent(value: &str) -> String {
    value.to_owned()
}

fn tagged_graphite(graphite: &Arc<Graphite>) -> Target {
    let (port, graphite) = (graphite.line_port(), graphite.clone());
    let read = move |metric: &str, aggregate: &str| {
        let target = format!("seriesByTag('name=tagged.ProjectX.errors.{metric}.{aggregate}')");
        by_label(graphite.render(&target, now_s() - 600, now_s()), "game.version")
    };
    let settings = json!({"adapter": "graphite", "period": 1, "sets": ["errors"], "prefix": "tagged", "host": "127.0.0.1", "port": port});
    Target { name: "graphite-tagged", settings, read: Box::new(read), spell: as_sent, tolerance: 0.0 }
}

fn path_graphite(graphite: &Arc<Graphite>) -> Target {
    let (port, graphite) = (graphite.line_port(), graphite.clone());
    let read = move |metric: &str, aggregate: &str| {
        let root = format!("path.ProjectX.errors.{metric}");
        let target = if metric == "all" { format!("{root}.{aggregate}") } else { format!("{root}.game_version.*.{aggregate}") };
        let node = |series: &Series| series.labels["name"].split('.').nth(5).unwrap_or_default().to_owned();
        let series = graphite.render(&target, now_s() - 600, now_s());
        // An ungrouped series has its aggregate where the others have their value.
        series.into_iter().map(|one| (if metric == "all" { String::new() } else { node(&one) }, one.samples)).collect()
    };
    let settings = json!({"adapter": "graphite", "period": 1, "sets": ["errors"], "prefix": "path", "host": "127.0.0.1", "port": port, "layout": "path"});
    Target { name: "graphite-path", settings, read: Box::new(read), spell: |value| value.replace('.', "_"), tolerance: 0.0 }
}

fn influxdb(name: &'static str, influx: &Arc<Influx>, credentials: Value) -> Target {
    influx.create_database("crashes");
    let mut settings = json!({"adapter": "influxdb", "period": 1, "sets": ["errors"], "url": influx.url(), "db": "crashes"});
    settings.as_object_mut().expect("an object").extend(credentials.as_object().expect("an object").clone());
    let influx = influx.clone();
    let read = move |metric: &str, aggregate: &str| {
        by_label(influx.read("crashes", &format!("crashmeter.ProjectX.errors.{metric}"), aggregate), "game.version")
    };
    Target { name, settings, read: Box::new(read), spell: as_sent, tolerance: 0.0 }
}

fn victoria_v2(victoria: &Arc<Victoria>) -> Target {
    let settings = json!({"adapter": "influxdb", "period": 1, "sets": ["errors"], "prefix": "v2", "url": victoria.url(), "org": "any", "bucket": "any", "token": "any"});
    let victoria = victoria.clone();
    let read = move |metric: &str, aggregate: &str| {
        by_label(victoria.export(&format!("{{__name__=\"v2.ProjectX.errors.{metric}_{aggregate}\"}}")), "game.version")
    };
    Target { name: "victoria-v2", settings, read: Box::new(read), spell: as_sent, tolerance: VICTORIA_TOLERANCE }
}

fn victoria_lines(victoria: &Arc<Victoria>) -> Target {
    let port = victoria.graphite_port();
    let settings = json!({"adapter": "graphite", "period": 1, "sets": ["errors"], "prefix": "lines", "host": "127.0.0.1", "port": port});
    let victoria = victoria.clone();
    let read = move |metric: &str, aggregate: &str| {
        by_label(victoria.export(&format!("{{__name__=\"lines.ProjectX.errors.{metric}.{aggregate}\"}}")), "game.version")
    };
    Target { name: "victoria-lines", settings, read: Box::new(read), spell: as_sent, tolerance: VICTORIA_TOLERANCE }
}
