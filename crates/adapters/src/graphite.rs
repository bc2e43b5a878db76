//! Graphite: lines of Carbon's plaintext protocol over TCP. The server never answers, so points are sent, never confirmed.
//!
//! Wire facts: metric-stores 3, proven against carbon-cache 1.1.7.

use crate::description::{Description, Direction, Field, Kind, Preset};
use crate::fields::Fields;
use crate::frame::{Frame, Frames};
use crate::names::{self, Clean, Name, Names, Plain, Speller};
use crate::number;
use crate::outgoing::{Outgoing, TcpLines};
use crate::payload::{Packer, Payload};
use crate::push::{Encoded, Excluded, Push};
use crate::reply::{self, Reply, Verdict};
use crate::snippet::{self, About, Snippet};
use crate::spelt::{self, Spelt};
use model::{Batch, Label, Period, Point, Problem, Shape};
use serde_json::{Map, Value, json};

pub(crate) static DESCRIPTION: Description = Description {
    name: "graphite",
    title: "Graphite",
    direction: Direction::Push,
    summary: "Sends one line per series and window to Carbon's plaintext port.",
    fields: &[
        Field {
            required: true,
            example: "graphite.example.com",
            ..Field::optional("host", Kind::Host, "name or address of carbon-cache or a relay")
        },
        Field { default: Some(Preset::Integer(2003)), ..Field::optional("port", Kind::Port, "Carbon's plaintext port") },
        Field {
            default: Some(Preset::Text("tagged")),
            choices: &["tagged", "path"],
            ..Field::optional(
                "layout",
                Kind::Choice,
                "tagged writes group-by attributes as tags (Graphite 1.1 and later); path writes them as nodes of the name",
            )
        },
        Field {
            default: Some(Preset::Flag(false)),
            ..Field::optional("tls", Kind::Bool, "whether a TLS front end stands before Carbon, which itself has none")
        },
        Field {
            example: "60",
            ..Field::optional(
                "step",
                Kind::Integer,
                "seconds of the finest retention in storage-schemas.conf; must not be larger than the period",
            )
        },
    ],
    takes_old_points: true,
    max_age_secs: None,
};

/// Bytes of one connection's worth of lines. Carbon sets no limit; this bounds what a failure makes us send again.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest line. Carbon's line reader drops the connection above 16,384 bytes.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Longest name in the path layout: it becomes a file name, of at most 255 bytes with its suffix (metric-stores 3.3).
const PATH_BYTES_MAX: usize = 230;

/// A Graphite store's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Graphite {
    host: String,
    port: u16,
    layout: Layout,
    tls: bool,
    step_secs: Option<u64>,
}

/// How labels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `prefix.project.set.metric.aggregate;key=value`.
    Tagged,
    /// `prefix.project.set.metric.key.value.aggregate`: the aggregate stays the leaf, so rules like `\.count$` find it.
    Path,
}

impl Graphite {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<Graphite, Vec<Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let host = fields.host("host");
        let port = fields.port("port");
        let layout = if fields.choice("layout") == "path" { Layout::Path } else { Layout::Tagged };
        let tls = fields.flag("tls");
        let step_secs = fields.integer("step");
        let store = host.zip(port).map(|(host, port)| Graphite { host, port, layout, tls, step_secs });
        fields.finish(store)
    }
}

impl Push for Graphite {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let mut speller = Speller::default();
        // Carbon knows no types. In the path layout the aggregate stands behind the labels and is no part of the name.
        let tagged = self.layout == Layout::Tagged;
        let all = batch.points.iter().map(|point| Name::of(&point.series, Shape::Gauge));
        let all = all.map(|name| if tagged { name } else { Name { aggregate: "", ..name } });
        let names = Names::new(all, |name, mark| vec![self.name(name, mark)], &mut speller);
        let raw = |at: usize| spelt::raw(&batch.points[at].series);
        let mut frames = Frames::default();
        let spelt = Spelt::new(batch.points.len(), raw, |at, labels, out| {
            if tagged {
                let frame = frames.of(names.place(at), labels, || tagged_frame(names.of(at), &speller.keys(labels, tag_key)));
                return write_tagged(frame, labels, &mut speller, out);
            }
            write_path(names.of(at), &batch.points[at].series.aggregate, labels, &mut speller, out)
        });

        let mut packer = Packer::new(Payload::new(b"", b"", b""), usize::MAX, BODY_BYTES_MAX);
        let mut excluded = Vec::new();
        // The last line too ends in a newline: Carbon loses it otherwise, without a word.
        let end = format!(" {}\n", batch.window.start_secs());
        for (at, point) in batch.points.iter().enumerate() {
            let text = if point.value.is_finite() { spelt.of(at) } else { Err(number::NOT_FINITE) };
            match text {
                Err(reason) => excluded.push(Excluded { point: at as u32, reason }),
                Ok(text) => packer.push(&[at as u32], |line| {
                    line.extend_from_slice(text);
                    line.push(b' ');
                    number::push(line, point.value);
                    line.extend_from_slice(end.as_bytes());
                }),
            }
        }
        Encoded { payloads: packer.finish(), excluded, notes: speller.finish() }
    }

    fn request(&self, payload: &Payload) -> Outgoing {
        Outgoing::Tcp(TcpLines { host: self.host.clone(), port: self.port, tls: self.tls, body: payload.body() })
    }

    fn judge(&self, _payload: &Payload, reply: &Reply) -> Verdict {
        match reply {
            Reply::Tcp => Verdict::Accepted { confirmed: false },
            // Something answered in HTTP: this is not Carbon's port.
            Reply::Http { status, body, .. } => Verdict::Config { reason: reply::reason(*status, body) },
        }
    }

    fn target(&self) -> String {
        let scheme = if self.tls { "tls" } else { "tcp" };
        let host = if self.host.contains(':') && !self.host.starts_with('[') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}", self.port)
    }

    fn address(&self) -> (&'static str, String, u16) {
        ("host", self.host.clone(), self.port)
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let batch = about.batch();
        let Some(shown) = snippet::shown_points(&batch) else { return Vec::new() };
        let encoded = self.encode(&batch);
        // A line is the series, its value and the time.
        let series = |at: usize| {
            let piece = encoded.payloads.iter().flat_map(Payload::pieces).find(|piece| piece.points == [at as u32])?;
            Some(std::str::from_utf8(piece.bytes).ok()?.split(' ').next().unwrap_or_default().to_owned())
        };
        let (Some(metric), Some(up)) = (series(shown.metric), series(shown.up)) else { return Vec::new() };
        let (query, up_query) = match self.layout {
            Layout::Tagged => (by_tag(metric.split(';').take(1)), by_tag(up.split(';'))),
            Layout::Path => (any_value(&metric, &batch.points[shown.metric]), up.clone()),
        };
        let root = metric.split(['.', ';']).next().unwrap_or_default();
        let check = format!(
            "printf '%s 1 %s\\n' {} \"$(date +%s)\" | {}\n",
            snippet::shell(&snippet::test_series(&up, ";")),
            if self.tls {
                format!("openssl s_client -quiet -no_ign_eof -connect {}:{}", self.host, self.port)
            } else {
                format!("nc -w 1 {} {}", self.host, self.port)
            }
        );
        let mut snippets = queries(about, &query, &up_query, &batch.points[shown.metric]);
        snippets.push(Snippet::new("Check the way to Carbon", "sh", check));
        snippets.push(Snippet::new(
            "Keep one point per window (storage-schemas.conf, above the default)",
            "ini",
            format!("[crashmeter]\npattern = ^{root}\\.\nretentions = {}s:90d\n", about.period_secs()),
        ));
        snippets
    }

    fn check_period(&self, period: Period) -> Result<(), Problem> {
        match self.step_secs {
            Some(step) if step > u64::from(period.secs()) => Err(Problem::new(
                "step",
                format!(
                    "is larger than the period of {} s, so Graphite would keep one point in several; use a period of at least {step} s",
                    period.secs()
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// What series of one name have in common: `name;key=value`.
fn tagged_frame(name: &str, keys: &[String]) -> Frame {
    let mut frame = Frame::default();
    frame.push(name);
    for (label, key) in keys.iter().enumerate() {
        [";", key, "="].iter().for_each(|part| frame.push(part));
        frame.gap(label);
    }
    frame
}

/// Appends what identifies a series: everything of its line before the value.
fn write_tagged(frame: &Frame, labels: &[(String, Label)], speller: &mut Speller, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    frame.write(labels, out, |_, label, out| speller.write(label, names::VALUE_CHARS_MAX, &PLAIN, tag_value, names::as_it_is, out));
    if out.len() - start <= LINE_BYTES_MAX { Ok(()) } else { Err("its name and tags are longer than 8 KiB") }
}

/// The same in the path layout.
fn write_path(
    name: &str,
    aggregate: &str,
    labels: &[(String, Label)],
    speller: &mut Speller,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    let keys = speller.keys(labels, path_key);
    for (key, (_, label)) in keys.iter().zip(labels) {
        let value = speller.value(label, names::NAME_CHARS_MAX, path_value);
        [".", key, ".", &value].iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    }
    out.push(b'.');
    out.extend_from_slice(names::node(aggregate, is_path_char).as_bytes());
    if out.len() - start <= PATH_BYTES_MAX {
        Ok(())
    } else {
        Err("its path is longer than 230 bytes; use the tagged layout or shorter names")
    }
}

impl Graphite {
    /// The nodes from the root to the metric, in the tagged layout also the aggregate.
    fn name(&self, name: &Name<'_>, mark: &str) -> String {
        let leaf = (self.layout == Layout::Tagged).then_some(name.aggregate);
        let nodes = name.path.iter().map(String::as_str).chain(leaf).map(|node| names::node(node, is_path_char));
        format!("{}{mark}", nodes.collect::<Vec<_>>().join("."))
    }
}

/// Queries of a Graphite, wherever it stands: the metric, its sum, a panel, and an alert on the series that is always 1.
pub(crate) fn queries(about: &About<'_>, query: &str, up_query: &str, metric: &Point) -> Vec<Snippet> {
    // Zoomed out, Graphite shows averages unless it is told otherwise.
    let whole = format!("consolidateBy({query}, \"{}\")", if metric.shape == Shape::Additive { "sum" } else { "max" });
    let mut snippets = vec![Snippet::new("Graphite query", "graphite", format!("{whole}\n"))];
    if metric.shape == Shape::Additive {
        let total = format!("integralByInterval(sumSeries({query}), \"1d\")\n");
        snippets.push(Snippet::new("Graphite query: total since midnight", "graphite", total));
    }
    let title = metric.series.path.iter().skip(1).chain([&metric.series.aggregate]).map(String::as_str).collect::<Vec<_>>().join(" / ");
    snippets.push(snippet::grafana_panel(about, &title, "graphite", json!({"target": whole})));
    snippets.push(snippet::grafana_alert(about, json!({"target": up_query})));
    snippets
}

/// `seriesByTag("name=...", "key=value", ...)`: the first part is the name, the others are tags.
pub(crate) fn by_tag<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    // `json!` quotes and escapes as Graphite's grammar does.
    let tests = parts.enumerate().map(|(at, part)| json!(if at == 0 { format!("name={part}") } else { part.to_owned() }).to_string());
    format!("seriesByTag({})", tests.collect::<Vec<_>>().join(", "))
}

/// A path with `*` for the values of its labels, which stand before the leaf, each behind its name.
fn any_value(path: &str, point: &Point) -> String {
    let mut nodes: Vec<&str> = path.split('.').collect();
    let leaf = nodes.len() - 1;
    for label in 0..point.series.labels.len() {
        nodes[leaf - 1 - 2 * label] = "*";
    }
    nodes.join(".")
}

/// What Whisper takes as a file name and a target expression as a node (metric-stores 3.3).
pub(crate) fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn path_key(raw: &str) -> String {
    names::node(raw, is_path_char)
}

/// A tag's name. `name` is taken: Carbon keeps the path under it.
pub(crate) fn tag_key(raw: &str) -> String {
    let key = names::node(raw, |c| is_path_char(c) || c == '.');
    if key == "name" { "label_name".to_owned() } else { key }
}

/// What a tag's value may hold anywhere. `~` and `}` are refused only at its ends.
pub(crate) const PLAIN: Plain = Plain::without(b" ;~}");

/// A tag's value (metric-stores 3.2). One bad value would keep the good series behind it from being found, so nothing that any
/// parser on the way could take for a delimiter passes.
pub(crate) fn tag_value(raw: &str) -> Clean<'_> {
    let clean = Clean::replacing(raw, |c| !(c == ';' || c.is_whitespace() || c.is_control()));
    let text = match &clean {
        Clean::Faithful(text) => text.as_ref(),
        Clean::Lossy(text) => text,
    };
    // Carbon takes a line whose name ends in `"}` for OpenMetrics syntax, and refuses a value that begins with `~`.
    match (text.strip_prefix('~'), text.ends_with("\"}")) {
        (None, false) => clean,
        (None, true) => Clean::Lossy(format!("{}_", &text[..text.len() - 1])),
        (Some(rest), false) => Clean::Lossy(format!("_{rest}")),
        (Some(rest), true) => Clean::Lossy(format!("_{}_", &rest[..rest.len() - 1])),
    }
}

/// A value as a node. Version numbers are what people group by most, so `1.2.3` becomes `1_2_3` without a mark; a value that
/// was sent as `1_2_3` gets the mark instead.
fn path_value(raw: &str) -> Clean<'_> {
    if is_version(raw, '.') {
        return Clean::Faithful(raw.replace('.', "_").into());
    }
    match Clean::replacing(raw, is_path_char) {
        Clean::Faithful(text) if is_version(raw, '_') => Clean::Lossy(text.into_owned()),
        clean => clean,
    }
}

/// Numbers with a separator between them, nothing else.
fn is_version(text: &str, separator: char) -> bool {
    text.contains(separator) && text.split(separator).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}
