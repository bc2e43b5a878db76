//! From real SDKs to real stores: what was submitted, window by window, against what each store holds by its own account.

use crate::crashmeter::{Crashmeter, Project};
use crate::expected::{self, AGGREGATES, Counted, Points};
use crate::receivers::capture::Capture;
use crate::receivers::graphite::Graphite;
use crate::receivers::influx::{self, Access, Influx};
use crate::receivers::prometheus::{Job, Prometheus, scrape_config};
use crate::receivers::relay::CarbonRelay;
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
    /// Asks the store, in its own words, for the errors of the windows from one second to another.
    total: Box<Total>,
    /// How this store spells a value.
    spell: fn(&str) -> String,
    /// By what share of a value it may be off.
    tolerance: f64,
}

type Reader = dyn Fn(&str, &str) -> Points;
type Total = dyn Fn(u64, u64) -> Option<f64>;

/// VictoriaMetrics keeps about twelve significant digits; the others keep every bit.
const VICTORIA_TOLERANCE: f64 = 1e-11;

#[test]
fn what_sdks_submit_is_what_every_push_store_holds() {
    let server = Crashmeter::start();
    let project = server.project("ProjectX");
    project.metric("errors", "all", json!({"query": {"fold": expected::fold()}}));
    project.metric("errors", "by-version", json!({"query": {"group": ["game.version"], "fold": expected::fold()}}));
    let (graphite, victoria) = (Graphite::shared(), Victoria::shared());
    let relay = CarbonRelay::start(graphite.line_port());
    let (open, guarded) = (Influx::shared(), Arc::new(Influx::start(Access::Users)));
    let prometheus = Arc::new(Prometheus::start(&scrape_config(&[])));
    let scraped = project.store("scraped", json!({"adapter": "prometheus", "period": 1, "sets": ["errors"], "prefix": "scraped"}));
    let url = scraped["url"].as_str().expect("editors see the address");
    prometheus.reload(&scrape_config(&[Job { name: "crashes", url, extra: "" }]));
    wait::until("it scrapes", VISIBLE, || match prometheus.samples("scraped_ProjectX_health_up").first() {
        Some(_) => Ok(()),
        None => Err("nothing yet".into()),
    });
    let targets = [
        tagged_graphite("graphite-tagged", graphite.line_port(), &graphite),
        tagged_graphite("graphite-relayed", relay.line_port(), &graphite),
        path_graphite(&graphite),
        remote_write_prometheus(&prometheus),
        remote_write_victoria(&victoria),
        datadog_victoria(&victoria),
        circonus(Capture::circonus()),
        grafana(Capture::grafana()),
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
        // One number, whoever is asked.
        let total = wait::until(&format!("{}: all errors", target.name), VISIBLE, || {
            (target.total)(first, last)
                .filter(|total| *total == counted.len() as f64)
                .ok_or_else(|| format!("{:?}", (target.total)(first, last)))
        });
        assert_eq!(total, counted.len() as f64, "{}", target.name);
    }
    let increase = "sum(max_over_time(scraped_ProjectX_errors_by_version_tx_unique_total[1h]) \
                    - min_over_time(scraped_ProjectX_errors_by_version_tx_unique_total[1h]))";
    wait::until("the scraped counter has risen by all errors", VISIBLE, || match prometheus.number(increase, now_s() as f64) {
        Some(total) if total == counted.len() as f64 => Ok(()),
        other => Err(format!("{other:?} of {}", counted.len())),
    });
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

/// What PromQL adds up over the windows from one second to another: a range that has each of their samples and no other.
fn promql_sum(name: &str, first_s: u64, last_s: u64) -> (String, f64) {
    let range_ms = (last_s - first_s) * 1_000 + 750;
    (format!("sum(sum_over_time({{__name__=\"{name}\"}}[{range_ms}ms]))"), last_s as f64 + 0.5)
}

fn last_value(series: &[Series]) -> Option<f64> {
    Some(series.first()?.samples.last()?.1)
}

fn sum_of(series: &[Series], first_s: u64, last_s: u64) -> Option<f64> {
    let within = series.iter().flat_map(|one| &one.samples).filter(|(at, _)| (first_s * 1_000..=last_s * 1_000).contains(at));
    Some(within.map(|(_, value)| value).sum())
}

fn tagged_graphite(name: &'static str, port: u16, graphite: &Arc<Graphite>) -> Target {
    let (graphite, asked) = (graphite.clone(), graphite.clone());
    let read = move |metric: &str, aggregate: &str| {
        let target = format!("seriesByTag('name={name}.ProjectX.errors.{metric}.{aggregate}')");
        by_label(graphite.render(&target, now_s() - 600, now_s()), "game.version")
    };
    let total = move |first_s, last_s: u64| {
        let target = format!("integral(sumSeries(seriesByTag('name={name}.ProjectX.errors.by-version.tx_unique')))");
        last_value(&asked.render(&target, first_s, last_s + 1))
    };
    let settings = json!({"adapter": "graphite", "period": 1, "sets": ["errors"], "prefix": name, "host": "127.0.0.1", "port": port});
    Target { name, settings, read: Box::new(read), total: Box::new(total), spell: as_sent, tolerance: 0.0 }
}

fn path_graphite(graphite: &Arc<Graphite>) -> Target {
    let (port, graphite, asked) = (graphite.line_port(), graphite.clone(), graphite.clone());
    let read = move |metric: &str, aggregate: &str| {
        let root = format!("path.ProjectX.errors.{metric}");
        let target = if metric == "all" { format!("{root}.{aggregate}") } else { format!("{root}.game_version.*.{aggregate}") };
        let node = |series: &Series| series.labels["name"].split('.').nth(5).unwrap_or_default().to_owned();
        let series = graphite.render(&target, now_s() - 600, now_s());
        // An ungrouped series has its aggregate where the others have their value.
        series.into_iter().map(|one| (if metric == "all" { String::new() } else { node(&one) }, one.samples)).collect()
    };
    let total = move |first_s, last_s: u64| {
        last_value(&asked.render("integral(sumSeries(path.ProjectX.errors.by-version.*.*.tx_unique))", first_s, last_s + 1))
    };
    let settings = json!({"adapter": "graphite", "period": 1, "sets": ["errors"], "prefix": "path", "host": "127.0.0.1", "port": port, "layout": "path"});
    let spell = |value: &str| value.replace('.', "_");
    Target { name: "graphite-path", settings, read: Box::new(read), total: Box::new(total), spell, tolerance: 0.0 }
}

fn influxdb(name: &'static str, influx: &Arc<Influx>, credentials: Value) -> Target {
    influx.create_database("crashes");
    let mut settings = json!({"adapter": "influxdb", "period": 1, "sets": ["errors"], "url": influx.url(), "db": "crashes"});
    settings.as_object_mut().expect("an object").extend(credentials.as_object().expect("an object").clone());
    let (influx, asked) = (influx.clone(), influx.clone());
    let read = move |metric: &str, aggregate: &str| {
        by_label(influx.read("crashes", &format!("crashmeter.ProjectX.errors.{metric}"), aggregate), "game.version")
    };
    let total = move |first_s, last_s| {
        let from = "\"crashmeter.ProjectX.errors.by-version\"";
        asked.number("crashes", &format!("SELECT sum(\"tx_unique\") FROM {from} WHERE time >= {first_s}s AND time <= {last_s}s"))
    };
    Target { name, settings, read: Box::new(read), total: Box::new(total), spell: as_sent, tolerance: 0.0 }
}

/// What VictoriaMetrics holds under a name made of metric and aggregate.
fn in_victoria(
    name: &'static str,
    victoria: &Arc<Victoria>,
    settings: Value,
    label: &'static str,
    series_name: impl Fn(&str, &str) -> String + Copy + 'static,
) -> Target {
    let (victoria, asked) = (victoria.clone(), victoria.clone());
    let read = move |metric: &str, aggregate: &str| {
        by_label(victoria.export(&format!("{{__name__=\"{}\"}}", series_name(metric, aggregate))), label)
    };
    let total = move |first_s, last_s| {
        let (query, at_s) = promql_sum(&series_name("by-version", "tx_unique"), first_s, last_s);
        asked.number(&query, at_s)
    };
    Target { name, settings, read: Box::new(read), total: Box::new(total), spell: as_sent, tolerance: VICTORIA_TOLERANCE }
}

fn victoria_v2(victoria: &Arc<Victoria>) -> Target {
    let settings = json!({"adapter": "influxdb", "period": 1, "sets": ["errors"], "prefix": "v2", "url": victoria.url(), "org": "any", "bucket": "any", "token": "any"});
    in_victoria("victoria-v2", victoria, settings, "game.version", |metric, aggregate| format!("v2.ProjectX.errors.{metric}_{aggregate}"))
}

fn victoria_lines(victoria: &Arc<Victoria>) -> Target {
    let port = victoria.graphite_port();
    let settings = json!({"adapter": "graphite", "period": 1, "sets": ["errors"], "prefix": "lines", "host": "127.0.0.1", "port": port});
    in_victoria("victoria-lines", victoria, settings, "game.version", |metric, aggregate| {
        format!("lines.ProjectX.errors.{metric}.{aggregate}")
    })
}

fn datadog_victoria(victoria: &Arc<Victoria>) -> Target {
    let url = format!("{}/datadog", victoria.url());
    let settings = json!({"adapter": "datadog", "period": 1, "sets": ["errors"], "prefix": "dd", "url": url, "version": "v1", "api_key": "0".repeat(32)});
    in_victoria("datadog-v1", victoria, settings, "game.version", |metric, aggregate| {
        format!("dd.ProjectX.errors.{}.{aggregate}", metric.replace('-', "_"))
    })
}

fn remote_written(metric: &str, aggregate: &str) -> String {
    format!("remote_ProjectX_errors_{}_{aggregate}_window", metric.replace('-', "_"))
}

fn remote_write(url: String) -> Value {
    json!({"adapter": "remote_write", "period": 1, "sets": ["errors"], "prefix": "remote", "url": url})
}

fn remote_write_victoria(victoria: &Arc<Victoria>) -> Target {
    let settings = remote_write(format!("{}/api/v1/write", victoria.url()));
    in_victoria("remote-write-victoria", victoria, settings, "game_version", remote_written)
}

fn remote_write_prometheus(prometheus: &Arc<Prometheus>) -> Target {
    let settings = remote_write(prometheus.write_url());
    let (prometheus, asked) = (prometheus.clone(), prometheus.clone());
    let read = move |metric: &str, aggregate: &str| by_label(prometheus.samples(&remote_written(metric, aggregate)), "game_version");
    let total = move |first_s, last_s| {
        let (query, at_s) = promql_sum(&remote_written("by-version", "tx_unique"), first_s, last_s);
        asked.number(&query, at_s)
    };
    Target { name: "remote-write-prometheus", settings, read: Box::new(read), total: Box::new(total), spell: as_sent, tolerance: 0.0 }
}

/// The broker cannot be had: an endpoint keeps what it is sent and answers as the broker does.
fn circonus(capture: Capture) -> Target {
    let settings = json!({"adapter": "circonus_push", "period": 1, "sets": ["errors"], "url": capture.url("/module/httptrap/id/secret")});
    let capture = Arc::new(capture);
    let asked = capture.clone();
    let name = |metric: &str, aggregate: &str| format!("crashmeter`ProjectX`errors`{metric}`{aggregate}");
    let read = move |metric: &str, aggregate: &str| by_label(capture.circonus_series(&name(metric, aggregate)), "game.version");
    let total = move |first_s, last_s| sum_of(&asked.circonus_series(&name("by-version", "tx_unique")), first_s, last_s);
    Target { name: "circonus", settings, read: Box::new(read), total: Box::new(total), spell: as_sent, tolerance: 0.0 }
}

/// Nor can Grafana's gateway.
fn grafana(capture: Capture) -> Target {
    let settings = json!({"adapter": "grafana", "period": 1, "sets": ["errors"], "url": capture.url("/metrics"), "api_key": "any"});
    let capture = Arc::new(capture);
    let asked = capture.clone();
    let name = |metric: &str, aggregate: &str| format!("crashmeter.ProjectX.errors.{metric}.{aggregate}");
    let read = move |metric: &str, aggregate: &str| by_label(capture.grafana_series(&name(metric, aggregate)), "game.version");
    let total = move |first_s, last_s| sum_of(&asked.grafana_series(&name("by-version", "tx_unique")), first_s, last_s);
    Target { name: "grafana", settings, read: Box::new(read), total: Box::new(total), spell: as_sent, tolerance: 0.0 }
}
