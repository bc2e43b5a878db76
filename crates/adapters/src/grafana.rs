//! Grafana's hosted Graphite: metrics as a JSON array over HTTP. The answer counts what was kept and says which elements were not.
//!
//! Wire facts: metric-stores 4, proven against the public gateway of metrictank.

mod endpoint;
mod reply;

use crate::base_url;
use crate::description::{Description, Direction, Field, Kind};
use crate::fields::Fields;
use crate::frame::{Frame, Frames};
use crate::graphite::{self, is_path_char, tag_key};
use crate::names::{self, Clean, Name, Names, Plain, Speller};
use crate::number;
use crate::outgoing::{HeaderText, HttpRequest, Outgoing};
use crate::payload::{Packer, Payload};
use crate::push::{Encoded, Excluded, Probe, Push};
use crate::reply::{Reply, Verdict};
use crate::snippet::{self, About, Snippet};
use crate::spelt::{self, Spelt};
use model::{Batch, Problem, Secret, Shape};
use serde_json::{Map, Value};
use url::Url;

pub(crate) static DESCRIPTION: Description = Description {
    name: "grafana",
    title: "Grafana (hosted Graphite)",
    direction: Direction::Push,
    summary: "Sends one tagged metric per series and window to a hosted Graphite of Grafana.",
    fields: &[
        Field {
            required: true,
            example: "https://graphite-us-central1.grafana.net/metrics",
            ..Field::optional("url", Kind::Url, "URL of the Graphite instance, as its details page shows it; ends in /metrics or /graphite")
        },
        Field {
            example: "12345",
            ..Field::optional("instance_id", Kind::Text, "instance ID or user of a shared instance; empty for a dedicated instance")
        },
        Field { required: true, ..Field::optional("api_key", Kind::Secret, "API key or token that may write metrics") },
    ],
    takes_old_points: false,
    max_age_secs: Some(3_600),
};

/// Metrics and bytes of one request (metric-stores 4.4).
const METRICS_MAX: usize = 5_000;
const BODY_BYTES_MAX: usize = 1 << 20;

/// A Grafana store's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Grafana {
    /// Complete: ends in `/metrics`.
    url: Url,
    /// `instance:key`, or the key alone.
    login: Secret,
    /// Whether it is the former.
    shared: bool,
}

impl Grafana {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<Grafana, Vec<Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let (url, instance, key) = (endpoint::read(&mut fields), fields.text("instance_id"), fields.secret("api_key"));
        match (&instance, &url) {
            // It goes into a header, where a colon ends it.
            (Some(id), _) if !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) => {
                fields.fault("instance_id", "must hold letters, digits, _, - and . only");
            }
            (None, Some(url)) if endpoint::is_shared(url) => {
                fields.fault("instance_id", "is missing; this host is shared, and the instance's details page shows the ID");
            }
            _ => {}
        }
        let login = key.map(|key| match &instance {
            Some(id) => Secret::new(format!("{id}:{}", key.reveal())),
            None => key,
        });
        let store = url.zip(login).map(|(url, login)| Grafana { url, login, shared: instance.is_some() });
        fields.finish(store)
    }

    fn post(&self, body: Vec<u8>) -> Outgoing {
        let login = Secret::new(format!("Bearer {}", self.login.reveal()));
        // Not compressed: a gzip body is read as JSON and refused (metric-stores 4.2).
        Outgoing::Http(HttpRequest::json("POST", self.url.clone(), vec![("authorization", HeaderText::Secret(login))], body))
    }
}

impl Push for Grafana {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let mut speller = Speller::default();
        // Every metric is a gauge: a type is a part of a series' identity here, not of its meaning.
        let all = batch.points.iter().map(|point| Name::of(&point.series, Shape::Gauge));
        let names = Names::new(all, |name, mark| vec![metric_name(name, mark)], &mut speller);
        let raw = |at: usize| spelt::raw(&batch.points[at].series);
        let mut frames = Frames::default();
        let spelt = Spelt::new(batch.points.len(), raw, |at, labels, out| {
            let frame = frames.of(names.place(at), labels, || frame(names.of(at), &speller.keys(labels, tag_key)));
            frame.write(labels, out, |_, label, out| speller.write(label, names::VALUE_CHARS_MAX, &PLAIN, tag_value, write_json, out));
            Ok(())
        });

        // One metric a line, for people who read a preview.
        let mut packer = Packer::new(Payload::new(b"[\n", b",\n", b"\n]\n"), METRICS_MAX, BODY_BYTES_MAX);
        let middle = format!(",\"interval\":{},\"value\":", batch.window.period().secs());
        let end = format!(",\"time\":{},\"mtype\":\"gauge\",\"unit\":\"\"}}", DESCRIPTION.time_secs(batch.window));
        let mut excluded = Vec::new();
        for (at, point) in batch.points.iter().enumerate() {
            let text = if point.value.is_finite() { spelt.of(at) } else { Err(number::NOT_FINITE) };
            match text {
                Err(reason) => excluded.push(Excluded { point: at as u32, reason }),
                Ok(text) => packer.push(&[at as u32], |piece| {
                    piece.push(b'{');
                    piece.extend_from_slice(text);
                    piece.extend_from_slice(middle.as_bytes());
                    number::push(piece, point.value);
                    piece.extend_from_slice(end.as_bytes());
                }),
            }
        }
        Encoded { payloads: packer.finish(), excluded, notes: speller.finish() }
    }

    fn request(&self, payload: &Payload) -> Outgoing {
        self.post(payload.body())
    }

    fn judge(&self, payload: &Payload, reply: &Reply) -> Verdict {
        reply::judge(payload, reply)
    }

    fn target(&self) -> String {
        base_url::target(&self.url)
    }

    fn address(&self) -> (&'static str, String, u16) {
        let (host, port) = base_url::host_and_port(&self.url);
        ("url", host, port)
    }

    // A type error refuses the whole array, and a resend brings the values of before (metric-stores 4.3).
    fn isolates(&self) -> bool {
        true
    }

    // Points behind the newest of their series are refused (metric-stores 4.4).
    fn in_order(&self) -> bool {
        true
    }

    fn has_already(&self, reason: &str) -> bool {
        reply::means_known(reason)
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let batch = about.batch();
        let Some(shown) = snippet::shown_points(&batch) else { return Vec::new() };
        let encoded = self.encode(&batch);
        let series = |at: usize| -> Option<Vec<String>> {
            let piece = encoded.payloads.iter().flat_map(Payload::pieces).find(|piece| piece.points == [at as u32])?;
            let metric: Value = serde_json::from_slice(piece.bytes).ok()?;
            let parts = [&metric["name"]].into_iter().chain(metric["tags"].as_array()?);
            parts.map(|part| part.as_str().map(str::to_owned)).collect()
        };
        let (Some(metric), Some(up)) = (series(shown.metric), series(shown.up)) else { return Vec::new() };
        let (query, up_query) =
            (graphite::by_tag(metric.iter().take(1).map(String::as_str)), graphite::by_tag(up.iter().map(String::as_str)));
        let mut snippets = graphite::queries(about, &query, &up_query, &batch.points[shown.metric]);
        let login = if self.shared { "$GRAFANA_INSTANCE_ID:$GRAFANA_API_KEY" } else { "$GRAFANA_API_KEY" };
        let check = format!(
            "curl -sS -i -X POST -H 'Content-Type: application/json' -H \"Authorization: Bearer {login}\" -d '[]' {}\n",
            snippet::shell(self.url.as_str())
        );
        snippets.push(Snippet::new("Check URL and key (nothing is written)", "sh", check));
        snippets
    }

    fn probe(&self) -> Option<Probe> {
        // An empty array is answered like any other (metric-stores 9, number 25).
        Some(Probe { outgoing: self.post(b"[]".to_vec()), judge: |reply| reply::judge(&Payload::default(), reply) })
    }
}

/// The nodes from the root to the aggregate, spelt as in a Graphite store.
fn metric_name(name: &Name<'_>, mark: &str) -> String {
    let nodes = name.path.iter().map(String::as_str).chain([name.aggregate]).map(|node| names::node(node, is_path_char));
    format!("{}{mark}", nodes.collect::<Vec<_>>().join("."))
}

/// What identifies a series: name and tags. The store knows no order of tags, so they are sorted; no key holds the `=` behind it, so
/// their values say nothing about that order.
fn frame(name: &str, keys: &[String]) -> Frame {
    let mut frame = Frame::default();
    frame.push(format!("\"name\":\"{name}\",\"tags\":["));
    let mut tags: Vec<(usize, String)> = keys.iter().map(|key| format!("{key}=")).enumerate().collect();
    tags.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
    for (at, (label, start)) in tags.iter().enumerate() {
        frame.push(if at == 0 { "\"" } else { ",\"" });
        frame.push(start);
        frame.gap(*label);
        frame.push("\"");
    }
    frame.push("]");
    frame
}

/// Appends a text as JSON has it between quotes.
pub(crate) fn write_json(text: &str, out: &mut Vec<u8>) {
    let quoted = Value::from(text).to_string();
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}

/// What a tag's value may hold anywhere, in JSON too. `~` and blanks are refused only at its ends.
pub(crate) const PLAIN: Plain = Plain::without(b"\"\\;~ ");

/// A tag's value: JSON carries any text, but `;` and a leading `~` are refused, and blanks at the ends do not survive every query.
pub(crate) fn tag_value(raw: &str) -> Clean<'_> {
    let keep = |c: char| c == ' ' || !(c == ';' || c.is_control() || c.is_whitespace());
    if raw.chars().all(keep) && !raw.starts_with(['~', ' ']) && !raw.ends_with(' ') {
        return Clean::Faithful(raw.into());
    }
    let text: String = raw.chars().map(|c| if keep(c) { c } else { '_' }).collect();
    let text = text.trim_matches(' ');
    Clean::Lossy(text.strip_prefix('~').map_or_else(|| text.to_owned(), |rest| format!("_{rest}")))
}
