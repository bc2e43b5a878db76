//! Datadog: series as JSON over HTTP, version 2 of the API, or version 1 for intakes that know no other. What can be added up is a
//! count with its interval, everything else a gauge. The answer comes before the points are checked, so they are sent, never
//! confirmed.
//!
//! Wire facts: metric-stores 2.

mod endpoint;
mod metadata;
mod reply;
pub(crate) mod tag;

use crate::base_url;
use crate::description::{Description, Direction, Field, Kind, Preset};
use crate::fields::Fields;
use crate::frame::{Frame, Frames};
use crate::gzip::gzip;
use crate::names::{self, Name, Names, Speller};
use crate::number;
use crate::outgoing::{HeaderText, HttpRequest, Outgoing};
use crate::payload::{Packer, Payload};
use crate::push::{Encoded, Excluded, Probe, Push};
use crate::reply::{Reply, Verdict};
use crate::snippet::{self, About, Snippet};
use crate::spelt::{self, Spelt};
use endpoint::Endpoint;
use model::{Batch, Problem, Secret, Shape};
use serde_json::{Map, Value, json};

pub(crate) static DESCRIPTION: Description = Description {
    name: "datadog",
    title: "Datadog",
    direction: Direction::Push,
    summary: "Sends one series per name and tags to Datadog's metrics intake: a count with its interval, or a gauge.",
    fields: &[
        Field {
            default: Some(Preset::Text(endpoint::SITES[0])),
            choices: &endpoint::SITES,
            ..Field::optional("site", Kind::Choice, "the site your Datadog account is on; a key works on its own site only")
        },
        Field {
            example: "https://api.datadoghq.com",
            ..Field::optional("url", Kind::Url, "base URL of a proxy or compatible intake; taken in place of the site")
        },
        Field {
            required: true,
            aliases: &["DD_CLIENT_API_KEY"],
            ..Field::optional("api_key", Kind::Secret, "an API key of the account (32 hexadecimal digits), not an application key")
        },
        Field::optional("app_key", Kind::Secret, "an application key; needed only to set units and descriptions of the metrics"),
        Field {
            default: Some(Preset::Text("v2")),
            choices: &["v2", "v1"],
            ..Field::optional("version", Kind::Choice, "version of the series API; v1 for compatible intakes without v2")
        },
    ],
    takes_old_points: false,
    max_age_secs: Some(3_600),
};

/// Bytes of one body before compression, and of one on the wire: 90 % of what version 2 takes (metric-stores 2.7). Version 1 takes more,
/// but then a failure would make us send more again.
const BODY_BYTES_MAX: usize = 5_242_880 / 10 * 9;
const WIRE_BYTES_MAX: usize = 512_000 / 10 * 9;
/// Bodies above this size are compressed.
const GZIP_ABOVE_BYTES: usize = 1_024;
/// Longest name of a metric, in characters; all of them are ASCII (metric-stores 2.7).
const NAME_BYTES_MAX: usize = 200;

/// A Datadog store's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Datadog {
    endpoint: Endpoint,
    api_key: Secret,
    app_key: Option<Secret>,
    version: Version,
}

/// Which series API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Datadog {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<Datadog, Vec<Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let (api_key, app_key) = (fields.secret("api_key"), fields.secret("app_key"));
        let version = if fields.choice("version") == "v1" { Version::V1 } else { Version::V2 };
        let endpoint = Endpoint::read(&mut fields);
        let store = endpoint.zip(api_key).map(|(endpoint, api_key)| Datadog { endpoint, api_key, app_key, version });
        fields.finish(store)
    }

    fn key_header(&self) -> (&'static str, HeaderText) {
        ("dd-api-key", HeaderText::Secret(self.api_key.clone()))
    }

    /// Appends what of a series follows its name and tags: kind, interval and the one point.
    fn write_point(&self, shape: Shape, interval_secs: u32, time_secs: u64, value: f64, out: &mut Vec<u8>) {
        let additive = shape == Shape::Additive;
        let kind = match (self.version, additive) {
            (Version::V2, true) => "1",
            (Version::V2, false) => "3",
            (Version::V1, true) => "\"count\"",
            (Version::V1, false) => "\"gauge\"",
        };
        out.extend_from_slice(format!(",\"type\":{kind}").as_bytes());
        if additive {
            out.extend_from_slice(format!(",\"interval\":{interval_secs}").as_bytes());
        }
        let (before, between, after) = match self.version {
            Version::V2 => ("{\"timestamp\":", ",\"value\":", "}"),
            Version::V1 => ("[", ",", "]"),
        };
        out.extend_from_slice(format!(",\"points\":[{before}{time_secs}{between}").as_bytes());
        number::push(out, value);
        out.extend_from_slice(format!("{after}]").as_bytes());
    }
}

impl Push for Datadog {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let mut speller = Speller::default();
        let names = metric_names(batch, &mut speller);
        let raw = |at: usize| spelt::raw(&batch.points[at].series);
        let mut frames = Frames::default();
        let spelt = Spelt::new(batch.points.len(), raw, |at, labels, out| {
            let keys = speller.keys(labels, tag::key);
            let frame = frames.of(names.place(at), labels, || frame(names.of(at), &keys));
            frame.write(labels, out, |at, label, out| tag::write(&keys[at], label, &mut speller, out));
            Ok(())
        });

        // One series a line, for people who read a preview.
        let mut packer = Packer::new(Payload::new(b"{\"series\":[\n", b",\n", b"\n]}\n"), usize::MAX, BODY_BYTES_MAX);
        let (interval_secs, time_secs) = (batch.window.period().secs(), DESCRIPTION.time_secs(batch.window));
        let mut excluded = Vec::new();
        for (at, point) in batch.points.iter().enumerate() {
            let text = if point.value.is_finite() { spelt.of(at) } else { Err(number::NOT_FINITE) };
            match text {
                Err(reason) => excluded.push(Excluded { point: at as u32, reason }),
                Ok(text) => packer.push(&[at as u32], |piece| {
                    piece.push(b'{');
                    piece.extend_from_slice(text);
                    self.write_point(point.shape, interval_secs, time_secs, point.value, piece);
                    piece.push(b'}');
                }),
            }
        }
        let mut payloads = Vec::new();
        packer.finish().into_iter().for_each(|payload| push_fitting(payload, &mut payloads));
        Encoded { payloads, excluded, notes: speller.finish() }
    }

    fn request(&self, payload: &Payload) -> Outgoing {
        let (body, compressed) = wire_body(payload);
        let mut headers = Vec::new();
        if compressed {
            headers.push(("content-encoding", HeaderText::Plain("gzip".to_owned())));
        }
        headers.push(self.key_header());
        let path = if self.version == Version::V1 { "/api/v1/series" } else { "/api/v2/series" };
        Outgoing::Http(HttpRequest::json("POST", self.endpoint.at(path), headers, body))
    }

    fn judge(&self, payload: &Payload, reply: &Reply) -> Verdict {
        reply::judge(payload, reply)
    }

    fn target(&self) -> String {
        base_url::target(&self.endpoint.base)
    }

    fn address(&self) -> (&'static str, String, u16) {
        let (host, port) = base_url::host_and_port(&self.endpoint.base);
        (self.endpoint.field, host, port)
    }

    // A body that breaks the schema is refused as a whole, and of two points with one time the later replaces the earlier
    // (metric-stores 1.3).
    fn isolates(&self) -> bool {
        true
    }

    fn confirms(&self) -> bool {
        false
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let batch = about.batch();
        let Some(shown) = snippet::shown_points(&batch) else { return Vec::new() };
        let mut speller = Speller::default();
        let names = metric_names(&batch, &mut speller);
        let (metric, up) = (&batch.points[shown.metric], &batch.points[shown.up]);
        let keys = speller.keys(&metric.series.labels, tag::key);
        let by = if keys.is_empty() { String::new() } else { format!(" by {{{}}}", keys.join(",")) };
        let query = match metric.shape {
            Shape::Additive => format!("sum:{}{{*}}{by}.as_count()", names.of(shown.metric)),
            Shape::Gauge | Shape::Health => format!("avg:{}{{*}}{by}", names.of(shown.metric)),
        };
        let keys = speller.keys(&up.series.labels, tag::key);
        let scope: Vec<String> = keys.iter().zip(&up.series.labels).map(|(key, (_, label))| tag::text(key, label, &mut speller)).collect();
        let minutes = about.silent_secs().div_ceil(60);
        let widget = json!({
            "title": metric.series.path.iter().skip(1).map(String::as_str).collect::<Vec<_>>().join(" / "),
            "type": "timeseries",
            "requests": [{
                "formulas": [{"formula": "query1"}],
                "queries": [{"data_source": "metrics", "name": "query1", "query": query}],
                "response_format": "timeseries",
                "display_type": "bars",
            }],
        });
        let monitor = json!({
            "name": format!("{} ({})", snippet::SILENT, about.store),
            "type": "query alert",
            "query": format!("max(last_{}m):max:{}{{{}}} < 1", minutes.max(5), names.of(shown.up), scope.join(",")),
            "message": format!("No window has reached the store {} for {minutes} minutes. @YOUR-TEAM", about.store),
            "options": {"thresholds": {"critical": 1}, "on_missing_data": "show_and_notify_no_data", "require_full_window": false},
        });
        let check = format!("curl -sS -H \"DD-API-KEY: $DD_API_KEY\" {}\n", snippet::shell(self.endpoint.at("/api/v1/validate").as_str()));
        vec![
            Snippet::new("Datadog query", "datadog", format!("{query}\n")),
            Snippet::new("Dashboard widget (Edit, JSON)", "json", snippet::pretty(&json!({"definition": widget}))),
            Snippet::new("Check the API key (nothing is written)", "sh", check),
            Snippet::new("Alert: Crashmeter is silent (monitor)", "json", snippet::pretty(&monitor)),
        ]
    }

    fn probe(&self) -> Option<Probe> {
        let request = HttpRequest::json("GET", self.endpoint.at("/api/v1/validate"), vec![self.key_header()], Vec::new());
        Some(Probe { outgoing: Outgoing::Http(request), judge: reply::judge_check })
    }

    fn metadata(&self, batch: &Batch) -> Vec<Outgoing> {
        let Some(app_key) = &self.app_key else { return Vec::new() };
        let names = metric_names(batch, &mut Speller::default());
        let request = |(name, body): (String, Vec<u8>)| {
            let headers = vec![self.key_header(), ("dd-application-key", HeaderText::Secret(app_key.clone()))];
            Outgoing::Http(HttpRequest::json("PUT", self.endpoint.at(&format!("/api/v1/metrics/{name}")), headers, body))
        };
        metadata::bodies(batch, &names).into_iter().map(request).collect()
    }
}

/// Halves a body until it also fits when compressed: values that hardly compress reach that limit first.
fn push_fitting(payload: Payload, fitting: &mut Vec<Payload>) {
    // Gzip never doubles a body, so a small one need not be tried.
    let fits = payload.body_bytes() <= WIRE_BYTES_MAX / 2 || wire_body(&payload).0.len() <= WIRE_BYTES_MAX;
    match payload.halves().filter(|_| !fits) {
        Some((left, right)) => [left, right].into_iter().for_each(|half| push_fitting(half, fitting)),
        None => fitting.push(payload),
    }
}

/// The body as it goes out, and whether it is compressed.
fn wire_body(payload: &Payload) -> (Vec<u8>, bool) {
    let body = payload.body();
    if body.len() > GZIP_ABOVE_BYTES { (gzip(&body), true) } else { (body, false) }
}

/// The names of a batch's metrics. A metric has one type, so series of different shapes may not share a name.
fn metric_names(batch: &Batch, speller: &mut Speller) -> Names {
    let all = batch.points.iter().map(|point| Name::of(&point.series, point.shape));
    Names::new(all, |name, mark| vec![metric_name(name, mark)], speller)
}

/// Path and aggregate with dots between them, as the vendor's own clean-up would leave it: a letter first, no `_` beside a dot, none
/// twice, none at the end.
fn metric_name(name: &Name<'_>, mark: &str) -> String {
    let nodes = name.path.iter().map(String::as_str).chain([name.aggregate]);
    let nodes = nodes.map(|node| names::node(node, |c| c == '_' || c.is_ascii_alphanumeric()).trim_matches('_').to_owned());
    let mut text = nodes.collect::<Vec<_>>().join(".");
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        text.insert_str(0, "metric.");
    }
    if text.len() + mark.len() <= NAME_BYTES_MAX {
        return text + mark;
    }
    let stem = text[..NAME_BYTES_MAX - names::MARK_CHARS].trim_end_matches(['_', '.']);
    let own = names::mark(format!("{}\0{}", name.path.join("\0"), name.aggregate).as_bytes());
    format!("{stem}{}", if mark.is_empty() { &own } else { mark })
}

/// What identifies a series: name and tags. The store knows no order of tags, so they are sorted; no key holds the `:` behind it, so
/// their values say nothing about that order. Neither they nor their keys hold anything that JSON would escape.
fn frame(name: &str, keys: &[String]) -> Frame {
    let mut frame = Frame::default();
    frame.push(format!("\"metric\":\"{name}\""));
    let mut tags: Vec<(usize, String)> = keys.iter().map(|key| format!("{key}:")).enumerate().collect();
    tags.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
    for (at, (label, start)) in tags.iter().enumerate() {
        frame.push(if at == 0 { ",\"tags\":[\"" } else { "\",\"" });
        frame.push(start);
        frame.gap(*label);
    }
    if !tags.is_empty() {
        frame.push("\"]");
    }
    frame
}
