//! Prometheus remote write 1.0: a protobuf `WriteRequest`, compressed by Snappy, to Prometheus itself, VictoriaMetrics, Mimir and
//! their kind. Names and labels are those of the Prometheus page; its counters are for those who read.
//!
//! Wire facts: metric-stores 5.8, proven against Prometheus 2.42 and VictoriaMetrics 1.79.

use crate::description::{Description, Direction, Field, Kind};
use crate::fields::Fields;
use crate::names::{self, Name, Names, Speller};
use crate::number;
use crate::outgoing::{self, HeaderText, HttpRequest, Outgoing};
use crate::payload::{Packer, Payload};
use crate::prometheus;
use crate::pull::Credentials;
use crate::push::{Encoded, Excluded, Push};
use crate::reply::{self, Reply, Verdict};
use crate::snippet::{self, About, Snippet};
use crate::spelt::{self, Spelt};
use model::{Batch, Label, PageSeries, Problem, Shape};
use serde_json::{Map, Value};
use url::Url;

pub(crate) static DESCRIPTION: Description = Description {
    name: "remote_write",
    title: "Prometheus remote write",
    direction: Direction::Push,
    summary: "Sends one sample per series and window to Prometheus, VictoriaMetrics, Mimir or another receiver of remote write 1.0.",
    fields: &[
        Field {
            required: true,
            example: "https://prometheus.example.com/api/v1/write",
            ..Field::optional("url", Kind::Url, "the receiver's write URL, with its path")
        },
        Field::optional("username", Kind::Text, "user name to show to the receiver"),
        Field::optional("password", Kind::Secret, "password of that user"),
        Field::optional("bearer", Kind::Secret, "token to show instead of user name and password"),
    ],
    // Prometheus goes by its newest sample, up to about an hour behind it, others take any age: the answer tells what is too old.
    takes_old_points: false,
    max_age_secs: None,
};

/// Series of one request: Prometheus' own default for `max_samples_per_send`.
const SERIES_MAX: usize = 2_000;
const BODY_BYTES_MAX: usize = 1 << 20;

/// Tags of the messages' fields: number * 8 + wire type (2 has a length, 1 is eight bytes, 0 a varint).
mod tag {
    /// `WriteRequest.timeseries`
    pub(super) const SERIES: u8 = 0x0a;
    /// `TimeSeries.labels`
    pub(super) const LABEL: u8 = 0x0a;
    /// `TimeSeries.samples`
    pub(super) const SAMPLE: u8 = 0x12;
    /// `Label.name`
    pub(super) const NAME: u8 = 0x0a;
    /// `Label.value`
    pub(super) const VALUE: u8 = 0x12;
    /// `Sample.value`
    pub(super) const NUMBER: u8 = 0x09;
    /// `Sample.timestamp`
    pub(super) const MILLIS: u8 = 0x10;
}

/// A remote-write receiver's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteWrite {
    url: Url,
    credentials: Credentials,
}

impl RemoteWrite {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<RemoteWrite, Vec<Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let credentials = Credentials::read(&mut fields);
        let url = fields.url("url");
        if url.as_ref().is_some_and(|url| url.path() == "/") {
            fields.fault("url", "has no path; receivers take remote write at one, for Prometheus /api/v1/write");
        }
        fields.finish(url.zip(credentials).map(|(url, credentials)| RemoteWrite { url, credentials }))
    }
}

impl Push for RemoteWrite {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let mut speller = Speller::default();
        let all = batch.points.iter().map(|point| Name::of(&point.series, point.shape));
        let names = Names::new(all, prometheus::claims, &mut speller);
        let raw = |at: usize| spelt::raw(&batch.points[at].series);
        let spelt = Spelt::new(batch.points.len(), raw, |at, labels, out| {
            let end = if batch.points[at].shape == Shape::Health { "" } else { "_window" };
            write_labels(&format!("{}{end}", names.of(at)), labels, &mut speller, out);
            Ok(())
        });

        let mut packer = Packer::new(Payload::new(b"", b"", b""), SERIES_MAX, BODY_BYTES_MAX);
        let mut excluded = Vec::new();
        let millis = DESCRIPTION.time_secs(batch.window) * 1_000;
        for (at, point) in batch.points.iter().enumerate() {
            match if point.value.is_finite() { spelt.of(at) } else { Err(number::NOT_FINITE) } {
                Err(reason) => excluded.push(Excluded { point: at as u32, reason }),
                Ok(labels) => packer.push(&[at as u32], |message| {
                    let sample = sample(point.value, millis);
                    write_head(tag::SERIES, labels.len() + 2 + sample.len(), message);
                    message.extend_from_slice(labels);
                    write_text(tag::SAMPLE, &sample, message);
                }),
            }
        }
        Encoded { payloads: packer.finish(), excluded, notes: speller.finish() }
    }

    fn request(&self, payload: &Payload) -> Outgoing {
        let plain = |name, text: &str| (name, HeaderText::Plain(text.to_owned()));
        let mut headers = vec![
            plain("content-type", "application/x-protobuf"),
            plain("content-encoding", "snappy"),
            plain("x-prometheus-remote-write-version", "0.1.0"),
        ];
        headers.extend(self.credentials.header().map(|secret| ("authorization", HeaderText::Secret(secret))));
        let body = snap::raw::Encoder::new().compress_vec(&payload.body()).expect("a body below the 4 GiB that Snappy takes");
        Outgoing::Http(HttpRequest { method: "POST", url: self.url.clone(), secret_path: false, headers, body, ca_pem: None })
    }

    fn judge(&self, payload: &Payload, reply: &Reply) -> Verdict {
        match reply {
            Reply::Http { status, retry_after, body } => judge(payload.points().count() as u64, *status, *retry_after, body),
            Reply::Tcp => Verdict::Retry { reason: "the answer is not HTTP".to_owned() },
        }
    }

    fn target(&self) -> String {
        outgoing::target(&self.url)
    }

    fn address(&self) -> (&'static str, String, u16) {
        ("url", self.url.host_str().unwrap_or_default().to_owned(), self.url.port_or_known_default().unwrap_or_default())
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let with_values: Vec<&PageSeries> = about.page.series.iter().filter(|one| one.value.is_some()).collect();
        let series = || with_values.iter().map(|one| (&one.series, one.shape));
        let Some(shown) = snippet::shown(series()) else { return Vec::new() };
        let mut speller = Speller::default();
        let names = Names::new(series().map(|(one, shape)| Name::of(one, shape)), prometheus::claims, &mut speller);
        let (metric, up) = (with_values[shown.metric], with_values[shown.up]);
        // Each window is one sample here, so that samples may be added up.
        let name = names.of(shown.metric);
        let queries = match metric.shape {
            Shape::Additive => ["1h", "$__interval"].map(|span| format!("sum_over_time({name}_window[{span}])")),
            Shape::Gauge => [(); 2].map(|()| format!("{name}_window")),
            Shape::Health => [(); 2].map(|()| name.to_owned()),
        };
        prometheus::promql(about, &queries, metric, names.of(shown.up), up, &mut speller)
    }

    /// One series out of order makes Prometheus refuse the whole body; the same sample again is taken.
    fn isolates(&self) -> bool {
        true
    }
}

/// The table of metric-stores 5.8.
fn judge(points: u64, status: u16, retry_after: Option<u64>, body: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(body);
    let reason = reply::reason(status, body);
    match status {
        // All samples of a body have one time, so all are too old: halving it would find no poison.
        400 if text.contains("out of bounds") || text.contains("too old") => {
            Verdict::Partial { refused: Vec::new(), unnamed: points, reason }
        }
        // Such an address does not take remote write, whatever is sent.
        405 | 415 => Verdict::Config { reason: format!("{reason}; give the URL of a receiver of remote write 1.0") },
        // Prometheus calls a body that it can never take an error of its own.
        500 if text.contains("invalid sample") => Verdict::Drop { reason },
        _ => reply::judge_http(status, retry_after, body),
    }
}

/// Appends what identifies a series: its labels, sorted by name, the name itself among them.
fn write_labels(name: &str, labels: &[(String, Label)], speller: &mut Speller, out: &mut Vec<u8>) {
    let keys = speller.keys(labels, prometheus::label_name);
    let values = labels.iter().map(|(_, label)| speller.value(label, names::VALUE_CHARS_MAX, prometheus::label_value));
    let mut pairs: Vec<_> = keys.iter().map(String::as_str).zip(values).collect();
    pairs.push(("__name__", name.into()));
    pairs.sort_by_key(|(key, _)| *key);
    for (key, value) in pairs {
        let mut label = Vec::with_capacity(key.len() + value.len() + 8);
        write_text(tag::NAME, key.as_bytes(), &mut label);
        write_text(tag::VALUE, value.as_bytes(), &mut label);
        write_text(tag::LABEL, &label, out);
    }
}

/// One `Sample`. A field that is zero is left out, as protobuf does.
fn sample(value: f64, millis: u64) -> Vec<u8> {
    let mut sample = Vec::with_capacity(16);
    if value != 0.0 {
        sample.push(tag::NUMBER);
        sample.extend_from_slice(&value.to_le_bytes());
    }
    sample.push(tag::MILLIS);
    write_varint(millis, &mut sample);
    sample
}

/// Appends a field of text, bytes or a message.
fn write_text(tag: u8, text: &[u8], out: &mut Vec<u8>) {
    write_head(tag, text.len(), out);
    out.extend_from_slice(text);
}

fn write_head(tag: u8, length: usize, out: &mut Vec<u8>) {
    out.push(tag);
    write_varint(length as u64, out);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_are_varints() {
        for (number, bytes) in [
            (0, &[0x00][..]),
            (1, &[0x01]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Vec::new();
            write_varint(number, &mut out);
            assert_eq!(out, bytes, "{number}");
        }
    }

    #[test]
    fn the_receivers_table() {
        let word = |verdict: Verdict| match verdict {
            Verdict::Accepted { confirmed: true } => "confirmed",
            Verdict::Accepted { confirmed: false } => "sent",
            Verdict::Partial { refused, unnamed: 7, .. } if refused.is_empty() => "all lost",
            Verdict::Partial { .. } => "partial",
            Verdict::Drop { .. } => "drop",
            Verdict::Split => "split",
            Verdict::Throttle { .. } => "throttle",
            Verdict::Retry { .. } => "retry",
            Verdict::Config { .. } => "config",
        };
        for (status, body, expected) in [
            (204, "", "confirmed"),
            (200, "", "confirmed"),
            (202, "", "confirmed"),
            (302, "", "config"),
            (400, "out of order sample", "drop"),
            (400, "duplicate sample for timestamp", "drop"),
            (400, "out of bounds", "all lost"),
            (400, "too old sample", "all lost"),
            (400, "snappy: corrupt input", "drop"),
            (401, "", "config"),
            (403, "", "config"),
            (404, "remote write receiver needs to be enabled with --web.enable-remote-write-receiver", "config"),
            (405, "", "config"),
            (408, "", "retry"),
            (413, "", "split"),
            (415, "", "config"),
            (422, "", "drop"),
            (429, "", "throttle"),
            (500, "label name \"a\" is not unique: invalid sample", "drop"),
            (500, "", "retry"),
            (502, "", "retry"),
            (503, "", "throttle"),
        ] {
            assert_eq!(word(judge(7, status, None, body.as_bytes())), expected, "{status} {body}");
        }
    }
}
