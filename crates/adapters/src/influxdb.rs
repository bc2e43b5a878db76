//! InfluxDB 1, 2 and 3: line protocol over HTTP. Every value is a float, because the first write fixes a field's type.
//!
//! Wire facts: metric-stores 6, proven against 1.6.7 and the parser of version 3.

mod endpoint;
mod reply;
mod rows;

use crate::description::{Description, Direction, Field, Kind};
use crate::fields::Fields;
use crate::frame::{self, Frame, Frames};
use crate::gzip::gzip;
use crate::names::{self, Clean, Name, Names, Plain, Speller};
use crate::number;
use crate::outgoing::{HeaderText, HttpRequest, Outgoing};
use crate::payload::{Packer, Payload};
use crate::push::{Encoded, Excluded, Push};
use crate::reply::{Reply, Verdict};
use crate::snippet::{self, About, Snippet};
use crate::spelt::Spelt;
use crate::walk::Walk;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use endpoint::{Endpoint, Flavour};
use model::{Batch, Label, Secret, Shape, Window};
use rows::Rows;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

pub(crate) static DESCRIPTION: Description = Description {
    name: "influxdb",
    title: "InfluxDB",
    direction: Direction::Push,
    summary: "Writes one line per series and window, with one field per aggregate, to InfluxDB 1, 2 or 3.",
    fields: &[
        Field {
            required: true,
            example: "https://influx.example.com:8086/write?db=crashes",
            ..Field::optional("url", Kind::Url, "the server's write URL (/write, /api/v2/write or /api/v3/write_lp), or only its base URL")
        },
        Field::optional("username", Kind::Text, "user name, for InfluxDB 1"),
        Field::optional("password", Kind::Secret, "password of that user"),
        Field::optional("token", Kind::Secret, "API token, for InfluxDB 2 and 3; instead of user name and password"),
        Field { example: "crashes", ..Field::optional("db", Kind::Text, "database, for InfluxDB 1 and 3, where the URL does not name it") },
        Field { example: "acme", ..Field::optional("org", Kind::Text, "organisation, for InfluxDB 2, where the URL does not name it") },
        Field { example: "crashes", ..Field::optional("bucket", Kind::Text, "bucket, for InfluxDB 2, where the URL does not name it") },
    ],
    takes_old_points: true,
    max_age_secs: None,
};

/// Lines and bytes of one request, as the vendor advises (metric-stores 6.4).
const LINES_MAX: usize = 5_000;
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bodies above this size are compressed (metric-stores 6.4).
const GZIP_ABOVE_BYTES: usize = 1_024;
/// Longest measurement with tags that versions 1 and 2 take (metric-stores 6.2).
const KEY_BYTES_MAX: usize = 65_535;

/// An InfluxDB store's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct InfluxDb {
    endpoint: Endpoint,
    login: Login,
}

/// What it shows to the server.
#[derive(Clone, Debug, PartialEq)]
enum Login {
    None,
    Password { username: String, password: Secret },
    Token(Secret),
}

impl InfluxDb {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<InfluxDb, Vec<model::Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let (username, password, token) = (fields.text("username"), fields.secret("password"), fields.secret("token"));
        let login = match (username, password, token) {
            (None, None, None) => Login::None,
            (None, None, Some(token)) => Login::Token(token),
            (Some(username), Some(password), None) if !username.contains(':') => Login::Password { username, password },
            (Some(_), Some(_), None) => {
                fields.fault("username", "must not hold a colon: HTTP ends a user name there");
                Login::None
            }
            (Some(_), None, None) => {
                fields.fault("password", "is missing; it belongs to the user name");
                Login::None
            }
            (None, Some(_), None) => {
                fields.fault("username", "is missing; it belongs to the password");
                Login::None
            }
            (_, _, Some(_)) => {
                fields.fault("token", "cannot stand beside a user name and password; give one or the other");
                Login::None
            }
        };
        let endpoint = Endpoint::read(&mut fields);
        if matches!(login, Login::Password { .. }) && endpoint.as_ref().is_some_and(|endpoint| endpoint.flavour == Flavour::V3) {
            fields.fault("username", "is not taken by InfluxDB 3; give a token");
        }
        let store = endpoint.map(|endpoint| InfluxDb { endpoint, login });
        fields.finish(store)
    }

    fn authorization(&self) -> Option<Secret> {
        match (&self.login, self.endpoint.flavour) {
            (Login::None, _) => None,
            (Login::Token(token), Flavour::V3) => Some(Secret::new(format!("Bearer {}", token.reveal()))),
            (Login::Token(token), _) => Some(Secret::new(format!("Token {}", token.reveal()))),
            // The version 2 path of InfluxDB 1.8 takes the pair in place of a token.
            (Login::Password { username, password }, Flavour::V2) => Some(Secret::new(format!("Token {username}:{}", password.reveal()))),
            (Login::Password { username, password }, _) => {
                Some(Secret::new(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal())))))
            }
        }
    }
}

impl Push for InfluxDb {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        write_at_once(batch).unwrap_or_else(|| write_with_care(batch))
    }

    fn request(&self, payload: &Payload) -> Outgoing {
        let mut body = payload.body();
        let mut headers = vec![("content-type", HeaderText::Plain("text/plain; charset=utf-8".to_owned()))];
        if body.len() > GZIP_ABOVE_BYTES {
            headers.push(("content-encoding", HeaderText::Plain("gzip".to_owned())));
            body = gzip(&body);
        }
        headers.extend(self.authorization().map(|secret| ("authorization", HeaderText::Secret(secret))));
        Outgoing::Http(HttpRequest { method: "POST", url: self.endpoint.url.clone(), secret_path: false, headers, body, ca_pem: None })
    }

    fn judge(&self, payload: &Payload, reply: &Reply) -> Verdict {
        match reply {
            Reply::Http { status, retry_after, body } => reply::judge(payload, *status, *retry_after, body),
            Reply::Tcp => Verdict::Retry { reason: "the answer is not HTTP".to_owned() },
        }
    }

    fn target(&self) -> String {
        self.endpoint.target()
    }

    fn address(&self) -> (&'static str, String, u16) {
        let url = &self.endpoint.url;
        ("url", url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or_default())
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let batch = about.batch();
        let Some(shown) = snippet::shown_points(&batch) else { return Vec::new() };
        let mut speller = Speller::default();
        let rows = Rows::new(&batch);
        let names = measurements(&rows, &mut speller);
        let mut column = |at: usize| {
            let place = (0..rows.len()).find(|row| rows.points(*row).contains(&(at as u32)))?;
            let (points, labels) = (rows.points(place), rows.raw(place).2);
            let tags = speller.keys(labels, tag_key);
            let aggregates: Vec<&str> = points.iter().map(|&point| batch.points[point as usize].series.aggregate.as_str()).collect();
            let fields = names::distinct(&aggregates, |raw| field_key(raw, &tags));
            let field = fields[points.iter().position(|&point| point as usize == at)?].clone();
            let values: Vec<(String, String)> = tags
                .iter()
                .zip(labels)
                .map(|(key, (_, label))| (key.clone(), speller.value(label, names::VALUE_CHARS_MAX, tag_value).into_owned()))
                .collect();
            Some(Column { policy: self.endpoint.parameter("rp"), measurement: names.of(place).to_owned(), field, tags: values })
        };
        let (Some(metric), Some(up)) = (column(shown.metric), column(shown.up)) else { return Vec::new() };
        let additive = batch.points[shown.metric].shape == Shape::Additive;
        let title = format!("{} {}", metric.measurement, metric.field);
        let every = format!("{}s", about.period_secs());
        let (language, query, up_query, panel, alert) = match self.endpoint.flavour {
            Flavour::V1 => {
                let of = |query: &str| json!({"rawQuery": true, "resultFormat": "time_series", "query": query});
                let up = up.influxql_here(about.silent_secs());
                let panel = of(&metric.influxql(additive, "$timeFilter", "$__interval"));
                ("influxql", metric.influxql(additive, "time > now() - 6h", &every), up.clone(), panel, of(&up))
            }
            Flavour::V2 => {
                let (bucket, of) = (self.endpoint.parameter("bucket"), |query: &str| json!({"query": query}));
                let up = up.flux_here(&bucket, about.silent_secs());
                let panel = of(&metric.flux(&bucket, additive, "start: v.timeRangeStart, stop: v.timeRangeStop", "v.windowPeriod"));
                ("flux", metric.flux(&bucket, additive, "start: -6h", &every), up.clone(), panel, of(&up))
            }
            Flavour::V3 => {
                let of = |query: &str, format: &str| json!({"rawQuery": true, "rawSql": query, "format": format});
                let (up, bin) = (up.sql_here(about.silent_secs()), format!("date_bin(INTERVAL '{} seconds', time)", about.period_secs()));
                let panel = of(&metric.sql(additive, "$__timeFilter(time)", "$__dateBin(time)"), "time_series");
                ("sql", metric.sql(additive, "time > now() - INTERVAL '6 hours'", &bin), up.clone(), panel, of(&up, "table"))
            }
        };
        vec![
            Snippet::new("Query", language, format!("{query}\n")),
            snippet::grafana_panel(about, &title, "influxdb", panel),
            Snippet::new("Check what has arrived", "sh", self.check(&up_query)),
            snippet::grafana_alert(about, alert),
        ]
    }

    fn isolates(&self) -> bool {
        self.endpoint.refuses_whole_bodies()
    }
}

impl InfluxDb {
    /// A command that asks the server the query; passwords and tokens stand in the environment.
    fn check(&self, query: &str) -> String {
        let login = match (&self.login, self.endpoint.flavour) {
            (Login::None, _) => String::new(),
            (Login::Token(_), Flavour::V3) => " -H \"Authorization: Bearer $INFLUX_TOKEN\"".to_owned(),
            (Login::Token(_), _) => " -H \"Authorization: Token $INFLUX_TOKEN\"".to_owned(),
            (Login::Password { username, .. }, Flavour::V2) => {
                format!(" -H 'Authorization: Token '{}\":$INFLUX_PASSWORD\"", snippet::shell(username))
            }
            (Login::Password { username, .. }, _) => format!(" -u {}\":$INFLUX_PASSWORD\"", snippet::shell(username)),
        };
        let given = |name: &str, value: &str| format!("--data-urlencode {}", snippet::shell(&format!("{name}={value}")));
        let in_db = || format!("{} {}", given("db", &self.endpoint.parameter("db")), given("q", query));
        let (path, asked) = match self.endpoint.flavour {
            Flavour::V1 => ("/query", in_db()),
            Flavour::V2 => ("/api/v2/query", format!("-H 'Content-Type: application/vnd.flux' --data-binary {}", snippet::shell(query))),
            Flavour::V3 => ("/api/v3/query_sql", in_db()),
        };
        let (method, mut url) = (if self.endpoint.flavour == Flavour::V2 { "-X POST" } else { "-G" }, self.endpoint.asking(path));
        if self.endpoint.flavour == Flavour::V2 {
            url.query_pairs_mut().append_pair("org", &self.endpoint.parameter("org"));
        }
        format!("curl -sS {method}{login} {asked} {}\n", snippet::shell(url.as_str()))
    }
}

/// A value as queries name it.
struct Column {
    policy: String,
    measurement: String,
    field: String,
    tags: Vec<(String, String)>,
}

impl Column {
    fn tag_names(&self) -> impl Iterator<Item = String> {
        self.tags.iter().map(|(name, _)| quoted(name))
    }

    /// One point an interval and series. Only what may be added up is added up.
    fn influxql(&self, additive: bool, when: &str, every: &str) -> String {
        let (field, fold) = (quoted(&self.field), if additive { "sum" } else { "last" });
        let group: Vec<String> = [format!("time({every})")].into_iter().chain(self.tag_names()).collect();
        format!("SELECT {fold}({field}) FROM {} WHERE {when} GROUP BY {} fill(none)", self.influxql_source(), group.join(", "))
    }

    /// The measurement, in the retention policy that is written to where it is not the database's own.
    fn influxql_source(&self) -> String {
        let policy = if self.policy.is_empty() { String::new() } else { format!("{}.", quoted(&self.policy)) };
        format!("{policy}{}", quoted(&self.measurement))
    }

    /// The values of this very series in the last seconds.
    fn influxql_here(&self, secs: u64) -> String {
        let tests =
            self.tags.iter().map(|(name, value)| format!(" AND {} = '{}'", quoted(name), value.replace('\\', "\\\\").replace('\'', "\\'")));
        let tests: String = tests.collect();
        format!("SELECT {} FROM {} WHERE time > now() - {secs}s{tests}", quoted(&self.field), self.influxql_source())
    }

    fn flux_of(&self, bucket: &str, range: &str) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let (bucket, measurement, field) = (text(bucket), text(&self.measurement), text(&self.field));
        format!(
            "from(bucket: {bucket})\n  |> range({range})\n  |> filter(fn: (r) => r._measurement == {measurement} and r._field == {field})"
        )
    }

    fn flux(&self, bucket: &str, additive: bool, range: &str, every: &str) -> String {
        let (of, fold) = (self.flux_of(bucket, range), if additive { "sum" } else { "last" });
        format!("{of}\n  |> aggregateWindow(every: {every}, fn: {fold}, timeSrc: \"_start\", createEmpty: false)")
    }

    fn flux_here(&self, bucket: &str, secs: u64) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let tests = self.tags.iter().map(|(name, value)| format!("\n  |> filter(fn: (r) => r[{}] == {})", text(name), text(value)));
        format!("{}{}", self.flux_of(bucket, &format!("start: -{secs}s")), tests.collect::<String>())
    }

    fn sql(&self, additive: bool, when: &str, bin: &str) -> String {
        let fold = if additive { "sum" } else { "max" };
        let tags: String = self.tags.iter().map(|(name, _)| format!(", {}", sql_name(name))).collect();
        let group: String = (2..2 + self.tags.len()).map(|at| format!(", {at}")).collect();
        let (field, measurement) = (sql_name(&self.field), sql_name(&self.measurement));
        format!("SELECT {bin} AS time{tags}, {fold}({field}) AS value FROM {measurement} WHERE {when} GROUP BY 1{group} ORDER BY 1")
    }

    fn sql_here(&self, secs: u64) -> String {
        let tests = self.tags.iter().map(|(name, value)| format!(" AND {} = '{}'", sql_name(name), value.replace('\'', "''")));
        let (tests, field) = (tests.collect::<String>(), sql_name(&self.field));
        format!(
            "SELECT time, {field} FROM {} WHERE time > now() - INTERVAL '{secs} seconds'{tests} ORDER BY 1",
            sql_name(&self.measurement)
        )
    }
}

/// A name in InfluxQL. It holds no backslash ([`is_name_char`]).
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\\\""))
}

fn sql_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The lines of a batch in one walk. `None` where points of one line stand apart, lines are written alike, or a point is left out: then
/// they are written with care.
pub(crate) fn write_at_once(batch: &Batch) -> Option<Encoded> {
    let mut walk = Walk::new(batch.points.len());
    let (mut speller, mut fields, mut lines) = (Speller::default(), Fieldset::default(), Lines::new(batch.window));
    let mut numbers = Vec::new();
    for points in batch.points.chunk_by(|one, next| rows::are_one(&one.series, &next.series)) {
        let series = &points[0].series;
        let place = walk.place(Name { path: &series.path, aggregate: "", shape: Shape::Gauge }, claims);
        let starts = fields.of(points.iter().map(|point| point.series.aggregate.as_str()), &series.labels, &mut speller)?;
        let first = numbers.last().map_or(0, |last| last + 1);
        numbers.clear();
        numbers.extend(first..first + points.len() as u32);
        let mut written = Ok(());
        lines.push(&numbers, starts, points.iter().map(|point| point.value), |line| {
            let start = line.len();
            let frame = walk.frame(place, &series.labels, |name| key_frame(name, &speller.keys(&series.labels, tag_key)));
            written = write_key(frame, &series.labels, &mut speller, line);
            walk.wrote(place, &line[start..]);
        });
        if written.is_err() || !points.iter().all(|point| point.value.is_finite()) {
            return None;
        }
    }
    walk.all_differ().then(|| Encoded { payloads: lines.packer.finish(), excluded: Vec::new(), notes: speller.finish() })
}

/// The same for every batch: points are gathered wherever they stand, and lines that are written alike get one more tag.
pub(crate) fn write_with_care(batch: &Batch) -> Encoded {
    let (rows, mut speller, mut frames) = (Rows::new(batch), Speller::default(), Frames::default());
    let names = measurements(&rows, &mut speller);
    let spelt = Spelt::new(
        rows.len(),
        |at| rows.raw(at),
        |at, labels, out| {
            let frame = frames.of(names.place(at), labels, || key_frame(names.of(at), &speller.keys(labels, tag_key)));
            write_key(frame, labels, &mut speller, out)
        },
    );
    let (mut fields, mut lines, mut excluded) = (Fieldset::default(), Lines::new(batch.window), rows.excluded.clone());
    for at in 0..rows.len() {
        let numbers = rows.points(at);
        let points = || numbers.iter().map(|&point| &batch.points[point as usize]);
        let starts = fields.of(points().map(|point| point.series.aggregate.as_str()), rows.raw(at).2, &mut speller);
        match spelt.of(at).and_then(|key| Ok((key, starts.ok_or(names::TWIN)?))) {
            Err(reason) => excluded.extend(numbers.iter().map(|&point| Excluded { point, reason })),
            Ok((key, starts)) => lines.push(numbers, starts, points().map(|point| point.value), |line| line.extend_from_slice(key)),
        }
    }
    excluded.sort_by_key(|excluded| excluded.point);
    Encoded { payloads: lines.packer.finish(), excluded, notes: speller.finish() }
}

fn measurements(rows: &Rows<'_>, speller: &mut Speller) -> Names {
    let all = (0..rows.len()).map(|at| Name { path: rows.raw(at).0, aggregate: "", shape: Shape::Gauge });
    Names::new(all, claims, speller)
}

fn claims(name: &Name<'_>, mark: &str) -> Vec<String> {
    vec![measurement(name, mark)]
}

/// Bodies while they grow.
struct Lines {
    packer: Packer,
    /// Time and end of every line.
    end: String,
}

impl Lines {
    fn new(window: Window) -> Lines {
        Lines { packer: Packer::new(Payload::new(b"", b"", b""), LINES_MAX, BODY_BYTES_MAX), end: format!(" {}\n", window.start_secs()) }
    }

    /// Adds the line of these points: `key` appends what identifies it, `starts` stand before the values.
    fn push(&mut self, points: &[u32], starts: &[Vec<u8>], values: impl Iterator<Item = f64>, key: impl FnOnce(&mut Vec<u8>)) {
        self.packer.push(points, |line| {
            key(line);
            for (start, value) in starts.iter().zip(values) {
                line.extend_from_slice(start);
                number::push(line, value);
            }
            line.extend_from_slice(self.end.as_bytes());
        });
    }
}

/// Appends what identifies a line.
fn write_key(frame: &Frame, labels: &[(String, Label)], speller: &mut Speller, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    frame.write(labels, out, |_, label, out| speller.write(label, names::VALUE_CHARS_MAX, &PLAIN, tag_value, escape_tag, out));
    if out.len() - start <= KEY_BYTES_MAX { Ok(()) } else { Err("its measurement and tags are longer than 64 KiB") }
}

/// Path nodes with dots between them. A leading `#` would make the line a comment, a leading `_` is kept for the system.
fn measurement(name: &Name<'_>, mark: &str) -> String {
    let nodes = name.path.iter().map(|node| names::node(node, is_name_char)).collect::<Vec<_>>().join(".");
    let rest = nodes.trim_start_matches(['_', '#']);
    format!("{}{mark}", if rest.is_empty() { &nodes } else { rest })
}

/// What identifies a line: measurement and tags, sorted by their names.
fn key_frame(measurement: &str, keys: &[String]) -> Frame {
    let (mut frame, mut text) = (Frame::default(), Vec::new());
    escape(measurement, MEASUREMENT_SPECIAL, &mut text);
    let mut tags: Vec<(usize, &String)> = keys.iter().enumerate().collect();
    tags.sort_by_key(|(_, key)| *key);
    for (label, key) in tags {
        text.push(b',');
        escape(key, TAG_SPECIAL, &mut text);
        text.push(b'=');
        frame.push(std::mem::take(&mut text));
        frame.gap(label);
    }
    frame.push(text);
    frame
}

/// What stands before the value of each field of a row: ` field=`, then `,field=`. Most rows have the fields of the row before: same
/// aggregates beside same tags.
#[derive(Default)]
struct Fieldset<'a> {
    aggregates: Vec<&'a str>,
    tags: Vec<String>,
    starts: Vec<Vec<u8>>,
    /// Whether an aggregate is there twice.
    repeats: bool,
}

impl<'a> Fieldset<'a> {
    /// `None` when an aggregate is there twice.
    fn of(
        &mut self,
        aggregates: impl Iterator<Item = &'a str> + Clone,
        labels: &[(String, Label)],
        speller: &mut Speller,
    ) -> Option<&[Vec<u8>]> {
        if !(aggregates.clone().eq(self.aggregates.iter().copied()) && frame::have_names(labels, &self.tags)) {
            self.aggregates = aggregates.collect();
            self.tags = labels.iter().map(|(name, _)| name.clone()).collect();
            let tags = speller.keys(labels, tag_key);
            let keys = names::distinct(&self.aggregates, |raw| field_key(raw, &tags));
            self.starts = keys.iter().enumerate().map(|(at, key)| field_start(at, key)).collect();
            self.repeats = self.aggregates.iter().collect::<HashSet<_>>().len() < self.aggregates.len();
        }
        (!self.repeats).then_some(&self.starts)
    }
}

/// A value without `i` is a float in every version, also where it is whole.
fn field_start(at: usize, key: &str) -> Vec<u8> {
    let mut start = vec![if at == 0 { b' ' } else { b',' }];
    escape(key, TAG_SPECIAL, &mut start);
    start.push(b'=');
    start
}

/// What has a backslash before it in names and values of tags and in names of fields, and in measurements
/// (<https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/#special-characters>).
const TAG_SPECIAL: [u8; 3] = *b",= ";
const MEASUREMENT_SPECIAL: [u8; 3] = *b", ,";

fn escape(text: &str, [one, two, three]: [u8; 3], out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr3(one, two, three, rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

pub(crate) fn escape_tag(text: &str, out: &mut Vec<u8>) {
    escape(text, TAG_SPECIAL, out);
}

/// Names never hold a backslash, so no version's escaping rules can disagree about them.
fn is_name_char(c: char) -> bool {
    !c.is_control() && !matches!(c, '\\' | '\u{2028}' | '\u{2029}')
}

/// A tag's name. `time` is refused, and names with a leading `_` are the system's.
fn tag_key(raw: &str) -> String {
    let key = names::node(raw, is_name_char);
    if key.starts_with('_') || key == "time" { format!("label_{}", key.trim_start_matches('_')) } else { key }
}

/// A field's name. `time` is lost without a word, and a field named like a tag of its line reads back under another name.
fn field_key(raw: &str, tags: &[String]) -> String {
    let mut key = names::node(raw, is_name_char);
    if key.starts_with('_') || key == "time" {
        key = format!("value_{}", key.trim_start_matches('_'));
    }
    while tags.contains(&key) || key == names::SERIES_LABEL {
        key.insert_str(0, "value_");
    }
    key
}

/// What a tag's value may hold without an escape.
pub(crate) const PLAIN: Plain = Plain::without(b",= \\");

/// A tag's value. There is no escape for a backslash: before a delimiter or at the end it would swallow what follows.
pub(crate) fn tag_value(raw: &str) -> Clean<'_> {
    if raw.bytes().all(|byte| matches!(byte, b' '..=b'[' | b']'..=b'~')) {
        return Clean::Faithful(raw.into());
    }
    let clean = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}');
    let swallows = |at: usize| raw[at + 1..].chars().next().is_none_or(|next| matches!(next, ',' | '=' | ' ' | '\\'));
    if raw.chars().all(clean) && !raw.match_indices('\\').any(|(at, _)| swallows(at)) {
        return Clean::Faithful(raw.into());
    }
    let text = raw.char_indices().map(|(at, c)| match c {
        '\\' if swallows(at) => '/',
        c if !clean(c) => '_',
        c => c,
    });
    Clean::Lossy(text.collect())
}
