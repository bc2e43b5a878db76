//! InfluxDB 1, 2 and 3: line protocol over HTTP. Every value is a float, because the first write fixes a field's type.
//!
//! Wire facts: metric-stores 6, proven against 1.6.7 and the parser of version 3.

mod endpoint;
mod reply;

use crate::description::{Description, Direction, Field, Kind};
use crate::fields::Fields;
use crate::gzip::gzip;
use crate::names::{self, Clean, Name, Names, Raw, Speller, Spelt};
use crate::number;
use crate::outgoing::{HeaderText, HttpRequest, Outgoing};
use crate::payload::{Packer, Payload};
use crate::push::{Encoded, Excluded, Push};
use crate::reply::{Reply, Verdict};
use crate::snippet::{self, About, Snippet};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use endpoint::{Endpoint, Flavour};
use hashbrown::{DefaultHashBuilder, HashTable};
use model::{Batch, Label, Secret, Shape};
use serde_json::{Map, Value, json};
use std::hash::BuildHasher;

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
        let mut speller = Speller::default();
        let (rows, mut excluded) = rows(batch);
        let all = rows.iter().map(|row| Name { path: row.raw.0, aggregate: "", shape: Shape::Gauge });
        let names = Names::new(all, |name, mark| vec![measurement(name, mark)], &mut speller);
        let series: Vec<Raw<'_>> = rows.iter().map(|row| row.raw).collect();
        let spelt = Spelt::new(&series, |at, labels, out| write_key(names.of(at), labels, &mut speller, out));

        let mut packer = Packer::new(Payload::new(b"", b"", b""), LINES_MAX, BODY_BYTES_MAX);
        let end = format!(" {}\n", batch.window.start_secs());
        let mut line = Vec::new();
        let mut fields = FieldKeys::default();
        for (at, row) in rows.iter().enumerate() {
            match spelt.of(at) {
                Err(reason) => excluded.extend(row.points.iter().map(|&point| Excluded { point, reason })),
                Ok(key) => {
                    line.clear();
                    line.extend_from_slice(key);
                    write_fields(batch, row, fields.of(batch, row, &mut speller), &mut line);
                    line.extend_from_slice(end.as_bytes());
                    packer.push(&line, &row.points);
                }
            }
        }
        excluded.sort_by_key(|excluded| excluded.point);
        Encoded { payloads: packer.finish(), excluded, notes: speller.finish() }
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
        let (rows, _) = rows(&batch);
        let all = rows.iter().map(|row| Name { path: row.raw.0, aggregate: "", shape: Shape::Gauge });
        let names = Names::new(all, |name, mark| vec![measurement(name, mark)], &mut speller);
        let mut column = |at: usize| {
            let place = rows.iter().position(|row| row.points.contains(&(at as u32)))?;
            let row = &rows[place];
            let tags = speller.keys(row.raw.2, tag_key);
            let aggregates: Vec<&str> = row.points.iter().map(|&point| batch.points[point as usize].series.aggregate.as_str()).collect();
            let fields = names::distinct(&aggregates, |raw| field_key(raw, &tags));
            let field = fields[row.points.iter().position(|&point| point as usize == at)?].clone();
            let values: Vec<(String, String)> = tags
                .iter()
                .zip(row.raw.2)
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

/// The points of one line: same path, same labels.
struct Row<'a> {
    raw: Raw<'a>,
    points: Vec<u32>,
}

/// The lines of a batch in the order of their first points, and the points that have no place in one.
fn rows(batch: &Batch) -> (Vec<Row<'_>>, Vec<Excluded>) {
    let (mut rows, mut excluded) = (Vec::<Row<'_>>::new(), Vec::new());
    let hasher = DefaultHashBuilder::default();
    let mut known: HashTable<u32> = HashTable::with_capacity(batch.points.len());
    for (at, point) in batch.points.iter().enumerate() {
        let number = at as u32;
        if !point.value.is_finite() {
            excluded.push(Excluded { point: number, reason: number::NOT_FINITE });
            continue;
        }
        let raw: Raw<'_> = (&point.series.path, "", &point.series.labels);
        let place = match rows.last() {
            Some(last) if last.raw == raw => rows.len() - 1,
            _ => {
                let (is_same, hash) =
                    (|place: &u32| rows[*place as usize].raw == raw, |place: &u32| hasher.hash_one(rows[*place as usize].raw));
                *known.entry(hasher.hash_one(raw), is_same, hash).or_insert(rows.len() as u32).get() as usize
            }
        };
        if place == rows.len() {
            rows.push(Row { raw, points: Vec::new() });
        }
        let row = &mut rows[place];
        if row.points.iter().any(|&other| batch.points[other as usize].series.aggregate == point.series.aggregate) {
            excluded.push(Excluded { point: number, reason: names::TWIN });
        } else {
            row.points.push(number);
        }
    }
    (rows, excluded)
}

/// Path nodes with dots between them. A leading `#` would make the line a comment, a leading `_` is kept for the system.
fn measurement(name: &Name<'_>, mark: &str) -> String {
    let nodes = name.path.iter().map(|node| names::node(node, is_name_char)).collect::<Vec<_>>().join(".");
    let rest = nodes.trim_start_matches(['_', '#']);
    format!("{}{mark}", if rest.is_empty() { &nodes } else { rest })
}

/// Appends what identifies a line: measurement and tags, sorted by their names.
fn write_key(measurement: &str, labels: &[(String, Label)], speller: &mut Speller, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    escape(measurement, MEASUREMENT_SPECIAL, out);
    let keys = speller.keys(labels, tag_key);
    let mut tags: Vec<(&String, &Label)> = keys.iter().zip(labels).map(|(key, (_, label))| (key, label)).collect();
    tags.sort_by_key(|(key, _)| *key);
    for (key, label) in tags {
        out.push(b',');
        escape(key, TAG_SPECIAL, out);
        out.push(b'=');
        escape(&speller.value(label, names::VALUE_CHARS_MAX, tag_value), TAG_SPECIAL, out);
    }
    if out.len() - start <= KEY_BYTES_MAX { Ok(()) } else { Err("its measurement and tags are longer than 64 KiB") }
}

/// The field keys of a row. Most rows have those of the row before: same aggregates beside same tags.
#[derive(Default)]
struct FieldKeys<'a> {
    aggregates: Vec<&'a str>,
    tags: Vec<&'a str>,
    keys: Vec<String>,
}

impl<'a> FieldKeys<'a> {
    fn of(&mut self, batch: &'a Batch, row: &Row<'a>, speller: &mut Speller) -> &[String] {
        let aggregates = || row.points.iter().map(|&point| batch.points[point as usize].series.aggregate.as_str());
        let tags = || row.raw.2.iter().map(|(name, _)| name.as_str());
        if !(aggregates().eq(self.aggregates.iter().copied()) && tags().eq(self.tags.iter().copied())) {
            self.aggregates = aggregates().collect();
            self.tags = tags().collect();
            let spelt = speller.keys(row.raw.2, tag_key);
            self.keys = names::distinct(&self.aggregates, |raw| field_key(raw, &spelt));
        }
        &self.keys
    }
}

/// Appends ` field=value,...`. A value without `i` is a float in every version, also where it is whole.
fn write_fields(batch: &Batch, row: &Row<'_>, keys: &[String], out: &mut Vec<u8>) {
    for (at, (key, &point)) in keys.iter().zip(&row.points).enumerate() {
        out.push(if at == 0 { b' ' } else { b',' });
        escape(key, TAG_SPECIAL, out);
        out.push(b'=');
        number::push(out, batch.points[point as usize].value);
    }
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

/// A tag's value. There is no escape for a backslash: before a delimiter or at the end it would swallow what follows.
fn tag_value(raw: &str) -> Clean<'_> {
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
