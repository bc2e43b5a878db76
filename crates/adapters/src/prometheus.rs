//! Prometheus: a page in the text format 0.0.4 or, when asked for, OpenMetrics 1.0. It carries no timestamps, because they would
//! take the staleness markers away (metric-stores 5.5).
//!
//! One malformed line fails the whole scrape, so nothing reaches the page but through the alphabets below.

use crate::description::{Description, Direction, Field, Kind};
use crate::fields::Fields;
use crate::frame::{Frame, Frames};
use crate::names::{self, Clean, Name, Names, Plain, Speller};
use crate::number;
use crate::pull::{Accept, Credentials, Pull, Rendered};
use crate::push::Excluded;
use crate::room;
use crate::snippet::{self, About, Snippet};
use crate::spelt::{self, Spelt};
use crate::walk::Walk;
use model::{Counter, Label, Page, PageSeries, Period, Problem, Shape};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

pub(crate) static DESCRIPTION: Description = Description {
    name: "prometheus",
    title: "Prometheus",
    direction: Direction::Pull,
    summary: "Serves the newest window as a page that Prometheus, VictoriaMetrics or an agent scrapes.",
    fields: &[
        Field { generated: true, ..Field::optional("url", Kind::Url, "the secret address to scrape; made when the store is saved") },
        Field::optional("username", Kind::Text, "user name that the scraper must show, beside the address"),
        Field::optional("password", Kind::Secret, "password of that user"),
        Field::optional("bearer", Kind::Secret, "token that the scraper must show instead of user name and password"),
    ],
    takes_old_points: true,
    max_age_secs: None,
};

/// The exact type that Prometheus 3 demands (metric-stores 5.2).
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Ends of a name that other tools take for a part of a histogram, summary or counter (metric-stores 5.5).
const TAKEN_ENDS: [&str; 6] = ["_total", "_count", "_sum", "_bucket", "_created", "_info"];
/// Labels with a meaning of their own in histograms and summaries.
const TAKEN_LABELS: [&str; 2] = ["le", "quantile"];
/// Longest help text, in characters.
const HELP_CHARS_MAX: usize = 300;
/// Longest that a scraper should wait, in seconds.
const SCRAPE_TIMEOUT_SECS: u32 = 10;

/// The last part of the discovery document's address.
const DISCOVERY_NAME: &str = "http-sd.json";

/// A Prometheus store's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Prometheus {
    credentials: Credentials,
}

impl Prometheus {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<Prometheus, Vec<Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let credentials = Credentials::read(&mut fields);
        fields.finish(credentials.map(|credentials| Prometheus { credentials }))
    }

    /// What to paste into `scrape_configs`, with a word in angle brackets where the password or token goes.
    pub fn scrape_config(&self, url: &str, period: Period, job: &str) -> String {
        self.scrape_config_of(url, period, job, |field, _| format!("<{field}>"))
    }

    /// The same with the real password or token, for those who may see them.
    pub fn scrape_config_with_credentials(&self, url: &str, period: Period, job: &str) -> String {
        self.scrape_config_of(url, period, job, |_, secret| secret.to_owned())
    }

    fn scrape_config_of(&self, url: &str, period: Period, job: &str, show: impl Fn(&str, &str) -> String) -> String {
        let (scheme, target, path) = parts(url);
        let login = match &self.credentials {
            Credentials::None => String::new(),
            Credentials::Basic { username, password } => {
                let (username, password) = (quoted(username), quoted(&show("password", password.reveal())));
                format!("  basic_auth:\n    username: {username}\n    password: {password}\n")
            }
            Credentials::Bearer(token) => {
                format!("  authorization:\n    type: Bearer\n    credentials: {}\n", quoted(&show("bearer", token.reveal())))
            }
        };
        format!(
            "- job_name: {}\n  scheme: {}\n  metrics_path: {}\n  scrape_interval: {}s\n  scrape_timeout: {}s\n  honor_timestamps: false\n{login}  static_configs:\n    - targets: [{}]\n",
            quoted(job),
            quoted(scheme),
            quoted(path),
            period.secs(),
            period.secs().min(SCRAPE_TIMEOUT_SECS),
            quoted(target),
        )
    }
}

impl Prometheus {
    /// An entry of `scrape_configs` that asks where to scrape, and how often. It shows the same login to both addresses.
    fn discovery_config(&self, url: &str, about: &About<'_>, job: &str) -> String {
        let entry = match about.reveal {
            true => self.scrape_config_with_credentials(url, about.page.window.period(), job),
            false => self.scrape_config(url, about.page.window.period(), job),
        };
        let login: String = entry
            .lines()
            .skip_while(|line| !is_login(line))
            .take_while(|line| !line.starts_with("  static_configs"))
            .map(|line| format!("{line}\n"))
            .collect();
        let inner: String = login.lines().map(|line| format!("    {line}\n")).collect();
        format!("- job_name: {}\n  honor_timestamps: false\n{login}  http_sd_configs:\n    - url: {}\n{inner}", quoted(job), quoted(url))
    }
}

fn is_login(line: &str) -> bool {
    line.starts_with("  basic_auth") || line.starts_with("  authorization")
}

/// An entry of a list below a key.
fn indented(entry: &str) -> String {
    entry.lines().map(|line| format!("  {line}\n")).collect()
}

/// A query in PromQL, a panel of another, and the alert, for those who keep samples under Prometheus' names.
pub(crate) fn promql(
    about: &About<'_>,
    queries: &[String; 2],
    metric: &PageSeries,
    up_name: &str,
    up: &PageSeries,
    speller: &mut Speller,
) -> Vec<Snippet> {
    let keys = speller.keys(&metric.series.labels, label_name);
    let [query, panel] = queries.clone().map(|query| match (metric.shape, keys.is_empty()) {
        (Shape::Additive, true) => format!("sum({query})"),
        (Shape::Additive, false) => format!("sum by ({}) ({query})", keys.join(", ")),
        (Shape::Gauge | Shape::Health, _) => query,
    });
    let keys = speller.keys(&up.series.labels, label_name);
    let matchers = keys.iter().zip(&up.series.labels).map(|(key, (_, label))| {
        let value = speller.value(label, names::VALUE_CHARS_MAX, label_value);
        format!("{key}={}", Value::from(value.as_ref()))
    });
    let matchers = matchers.collect::<Vec<_>>().join(", ");
    let title = metric.series.path.iter().skip(1).chain([&metric.series.aggregate]).map(String::as_str).collect::<Vec<_>>().join(" / ");
    let summary = format!("No window of the store {} has been seen for {} s.", about.store, about.silent_secs());
    let rule = format!(
        "groups:\n  - name: crashmeter\n    rules:\n      - alert: CrashmeterSilent\n        expr: absent({up_name}{{{matchers}}} == 1)\n        for: {}s\n        labels:\n          severity: page\n        annotations:\n          summary: {}\n",
        about.silent_secs(),
        quoted(&summary),
    );
    vec![
        Snippet::new("PromQL query", "promql", format!("{query}\n")),
        snippet::grafana_panel(about, &title, "prometheus", json!({"expr": panel})),
        Snippet::new("Alert rule: Crashmeter is silent", "yaml", rule),
    ]
}

/// Scheme, host with port, and path of a URL.
fn parts(url: &str) -> (&str, &str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (target, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (scheme, target, path)
}

/// A JSON string is a YAML string too.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl Pull for Prometheus {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn page_name(&self) -> &'static str {
        "metrics"
    }

    fn render(&self, page: &Page, accept: &Accept) -> Rendered {
        let format = Format::wanted(accept);
        render_at_once(page, format).unwrap_or_else(|| render_with_care(page, format))
    }

    fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The document for Prometheus' HTTP discovery (<https://prometheus.io/docs/prometheus/latest/http_sd/>): where the page is and how
    /// often to read it. Labels that begin with `__` steer the scrape and are not kept.
    fn discovery(&self, url: &str, period: Period, store: &str) -> Option<(&'static str, Value)> {
        let (scheme, target, path) = parts(url);
        let document = json!([{
            "targets": [target],
            "labels": {
                "__scheme__": scheme,
                "__metrics_path__": path,
                "__scrape_interval__": format!("{}s", period.secs()),
                "__scrape_timeout__": format!("{}s", period.secs().min(SCRAPE_TIMEOUT_SECS)),
                "crashmeter_store": store,
            },
        }]);
        Some((DISCOVERY_NAME, document))
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let (url, period) = (about.url_or_words(self.page_name()), about.page.window.period());
        let job = format!("crashmeter-{}", about.store);
        let entry = match about.reveal {
            true => self.scrape_config_with_credentials(&url, period, &job),
            false => self.scrape_config(&url, period, &job),
        };
        let discovery = url.strip_suffix(self.page_name()).map(|start| format!("{start}{DISCOVERY_NAME}")).unwrap_or_default();
        let login = match &self.credentials {
            Credentials::None => "",
            Credentials::Basic { .. } => " -u \"$CRASHMETER_USER:$CRASHMETER_PASSWORD\"",
            Credentials::Bearer(_) => " -H \"Authorization: Bearer $CRASHMETER_TOKEN\"",
        };
        let mut snippets = vec![
            Snippet::new("scrape_configs", "yaml", format!("scrape_configs:\n{}", indented(&entry))),
            Snippet::new(
                "scrape_configs by HTTP discovery: follows period and address by itself",
                "yaml",
                format!("scrape_configs:\n{}", indented(&self.discovery_config(&discovery, about, &job))),
            ),
            Snippet::new("Read the page as Prometheus does", "sh", format!("curl -sS{login} {}\n", snippet::shell(&url))),
        ];
        let series = || about.page.series.iter().map(|one| (&one.series, one.shape));
        if let Some(shown) = snippet::shown(series()) {
            let mut speller = Speller::default();
            let names = Names::new(series().map(|(one, shape)| Name::of(one, shape)), claims, &mut speller);
            let (metric, up) = (&about.page.series[shown.metric], &about.page.series[shown.up]);
            let name = names.of(shown.metric);
            let queries = match metric.shape {
                // A panel whose steps are longer than a window would pass windows over if it showed the gauge alone.
                Shape::Additive => [format!("increase({name}_total[1h])"), format!("sum_over_time({name}_window[$__interval])")],
                Shape::Gauge => [(); 2].map(|()| format!("{name}_window")),
                Shape::Health => [(); 2].map(|()| name.to_owned()),
            };
            snippets.extend(promql(about, &queries, metric, names.of(shown.up), up, &mut speller));
        }
        snippets
    }
}

/// A page in one walk. `None` where series are written alike or one is left out: then they are written with care.
pub(crate) fn render_at_once(page: &Page, format: Format) -> Option<Rendered> {
    let (families, speller) = lines_at_once(page, format)?;
    Some(finish(families, format, Vec::new(), speller))
}

fn lines_at_once(page: &Page, format: Format) -> Option<(Vec<Family>, Speller)> {
    let (mut walk, mut speller, mut families) = (Walk::new(page.series.len()), Speller::default(), Vec::<Family>::new());
    for (at, one) in page.series.iter().enumerate() {
        checked(one).ok()?;
        let (name, labels) = (Name::of(&one.series, one.shape), &one.series.labels);
        let place = walk.place(name, claims);
        if place == families.len() {
            families.push(Family::new(walk.name(place), name, format, page.window.period()));
        }
        families[place].push(one, |out| {
            let start = out.len();
            let frame = walk.frame(place, labels, |_| frame("", &speller.keys(labels, label_name)));
            write_labels(frame, labels, &mut speller, out);
            walk.wrote(place, &out[start..]);
        });
        if at == page.series.len() / 16 {
            make_room(&mut families, page, at + 1, &walk);
        }
    }
    walk.all_differ().then_some((families, speller))
}

/// Makes room in each family for those of the series behind `written` that are likely its own.
fn make_room(families: &mut [Family], page: &Page, written: usize, walk: &Walk<'_>) {
    let bytes = families.iter().map(Family::bytes).sum();
    let mut rooms = vec![0; families.len()];
    for (at, bytes) in room::expected(bytes, written, page.series.len(), |at| &page.series[at].series.labels) {
        let one = &page.series[at];
        if let Some(place) = walk.known(&Name::of(&one.series, one.shape)) {
            rooms[place] += bytes;
        }
    }
    families.iter_mut().zip(rooms).for_each(|(family, bytes)| family.reserve(bytes));
}

/// The same for every page: series that are written alike get one more label.
pub(crate) fn render_with_care(page: &Page, format: Format) -> Rendered {
    let mut speller = Speller::default();
    let all = page.series.iter().map(|one| Name::of(&one.series, one.shape));
    let names = Names::new(all, claims, &mut speller);
    let raw = |at: usize| spelt::raw(&page.series[at].series);
    let mut frames = Frames::default();
    let spelt = Spelt::new(page.series.len(), raw, |at, labels, out| {
        let frame = frames.of(names.place(at), labels, || frame(names.of(at), &speller.keys(labels, label_name)));
        write_labels(frame, labels, &mut speller, out);
        Ok(())
    });

    let (mut families, mut excluded) = (Vec::<Family>::new(), Vec::new());
    for (at, one) in page.series.iter().enumerate() {
        let (place, base) = (names.place(at), names.of(at));
        if place == families.len() {
            families.push(Family::new(base, Name::of(&one.series, one.shape), format, page.window.period()));
        }
        match checked(one).and(spelt.of(at)) {
            Ok(text) => families[place].push(one, |out| out.extend_from_slice(&text[base.len()..])),
            Err(reason) => excluded.push(Excluded { point: at as u32, reason }),
        }
    }
    finish(families, format, excluded, speller)
}

fn finish(families: Vec<Family>, format: Format, excluded: Vec<Excluded>, speller: Speller) -> Rendered {
    let samples = families.iter().map(|family| family.samples).sum();
    // The lines of a page's greatest family need not be moved where it is the first.
    let mut body = Vec::new();
    for lines in families.into_iter().flat_map(|family| [family.gauges, family.counters]) {
        if body.is_empty() {
            body = lines;
        } else {
            body.extend_from_slice(&lines);
        }
    }
    if format == Format::OpenMetrics {
        body.extend_from_slice(b"# EOF\n");
    }
    Rendered { content_type: format.content_type(), samples, body, excluded, notes: speller.finish() }
}

/// The two formats of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    /// OpenMetrics only for a reader who names it and likes it better. Anything else gets 0.0.4; nobody gets a 406.
    fn wanted(accept: &Accept) -> Format {
        let open =
            accept.weight(|range| range.kind == "application/openmetrics-text" && matches!(range.version.as_deref(), None | Some("1.0.0")));
        let text = accept.weight(|range| match range.kind.as_str() {
            "text/plain" => matches!(range.version.as_deref(), None | Some("0.0.4")),
            kind => matches!(kind, "text/*" | "*/*"),
        });
        if open > text { Format::OpenMetrics } else { Format::Text }
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Text => TEXT,
            Format::OpenMetrics => OPEN_METRICS,
        }
    }
}

/// All lines of one metric and aggregate: the gauge of the window, and the counter where there is one.
struct Family {
    shape: Shape,
    format: Format,
    /// What lines begin with.
    gauge: String,
    total: String,
    created: String,
    gauges: Vec<u8>,
    counters: Vec<u8>,
    samples: u64,
}

impl Family {
    fn new(base: &str, name: Name<'_>, format: Format, period: Period) -> Family {
        let (shape, shown, ending) = (name.shape, name.shown(), |end: &str| format!("{base}{end}"));
        let gauge = ending(if shape == Shape::Health { "" } else { "_window" });
        let (total, created) = (ending("_total"), ending("_created"));
        let gauges = match shape {
            Shape::Health => head(format, base, "gauge", &shown),
            _ => head(format, &gauge, "gauge", &format!("{shown}, over one window of {} s", period.secs())),
        };
        let counter = if format == Format::OpenMetrics { base } else { &total };
        let counters = match shape {
            Shape::Additive => head(format, counter, "counter", &format!("{shown}, added up over the windows since the counter began")),
            _ => Vec::new(),
        };
        Family { shape, format, gauge, total, created, gauges, counters, samples: 0 }
    }

    fn bytes(&self) -> usize {
        self.gauges.len() + self.counters.len()
    }

    /// Makes room for so many bytes, as far as they go to either kind of line so far.
    fn reserve(&mut self, bytes: usize) {
        let of_gauges = (bytes as u128 * self.gauges.len() as u128 / self.bytes().max(1) as u128) as usize;
        self.gauges.reserve(of_gauges);
        self.counters.reserve(bytes - of_gauges);
    }

    /// Adds the lines of a series whose labels `labels` appends.
    fn push(&mut self, one: &PageSeries, labels: impl FnOnce(&mut Vec<u8>)) {
        let start = self.gauges.len();
        self.gauges.extend_from_slice(self.gauge.as_bytes());
        labels(&mut self.gauges);
        if let (Shape::Additive, Some(Counter { total, created })) = (self.shape, one.counter) {
            let (out, labels) = (&mut self.counters, &self.gauges[start + self.gauge.len()..]);
            [self.total.as_bytes(), labels, b" "].iter().for_each(|part| out.extend_from_slice(part));
            number::push(out, total);
            out.push(b'\n');
            self.samples += 1;
            if self.format == Format::OpenMetrics {
                let (secs, micros) = (created.secs(), created.micros() % 1_000_000);
                [self.created.as_bytes(), labels].iter().for_each(|part| out.extend_from_slice(part));
                out.extend_from_slice(format!(" {secs}.{micros:06}\n").as_bytes());
                self.samples += 1;
            }
        }
        match one.value {
            None => self.gauges.truncate(start),
            Some(value) => {
                self.gauges.push(b' ');
                number::push(&mut self.gauges, value);
                self.gauges.push(b'\n');
                self.samples += 1;
            }
        }
    }
}

/// What stands above the samples of a family.
fn head(format: Format, family: &str, kind: &str, help: &str) -> Vec<u8> {
    let mut text = String::new();
    for c in help.chars().take(HELP_CHARS_MAX) {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' if format == Format::OpenMetrics => text.push_str("\\\""),
            c => text.push(if is_value_char(c) && c != '\n' { c } else { ' ' }),
        }
    }
    format!("# HELP {family} {}\n# TYPE {family} {kind}\n", text.trim()).into_bytes()
}

/// A name and the gauge's name made from it. Counters need no more: what could be called `x_total` or `x_created` beside the counter
/// of `x` is a health series, and those are renamed.
pub(crate) fn claims(name: &Name<'_>, mark: &str) -> Vec<String> {
    let mut base = String::new();
    for node in name.path.iter().map(String::as_str).chain([name.aggregate]) {
        let node = names::node(node, |c| c == '_' || c.is_ascii_alphanumeric());
        let joined = if base.is_empty() || base.ends_with('_') || node.starts_with('_') { "" } else { "_" };
        base.push_str(joined);
        base.push_str(if base.ends_with('_') { node.trim_start_matches('_') } else { &node });
    }
    if base.starts_with(|c: char| c.is_ascii_digit()) {
        base.insert(0, '_');
    }
    let base = format!("{}{mark}", base.trim_end_matches('_'));
    match name.shape {
        Shape::Health if TAKEN_ENDS.iter().any(|end| base.ends_with(end)) => vec![format!("{base}_value")],
        Shape::Health => vec![base],
        Shape::Gauge | Shape::Additive => vec![base.clone(), format!("{base}_window")],
    }
}

/// What identifies a series on the page: name and labels.
fn frame(base: &str, keys: &[String]) -> Frame {
    let mut frame = Frame::default();
    frame.push(base);
    for (label, key) in keys.iter().enumerate() {
        [if label == 0 { "{" } else { "\"," }, key, "=\""].iter().for_each(|part| frame.push(part));
        frame.gap(label);
    }
    if !keys.is_empty() {
        frame.push("\"}");
    }
    frame
}

fn write_labels(frame: &Frame, labels: &[(String, Label)], speller: &mut Speller, out: &mut Vec<u8>) {
    frame.write(labels, out, |_, label, out| speller.write(label, names::VALUE_CHARS_MAX, &PLAIN, label_value, escape, out));
}

/// Appends a label's value as it stands between quotes.
pub(crate) fn escape(value: &str, out: &mut Vec<u8>) {
    let mut rest = value.as_bytes();
    while let Some(at) = memchr::memchr3(b'\\', b'"', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\\' => b"\\\\",
            b'"' => b"\\\"",
            _ => b"\\n",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Whether a series' numbers can be shown.
fn checked(one: &PageSeries) -> Result<(), &'static str> {
    let sound = one.value.is_none_or(f64::is_finite) && one.counter.is_none_or(|counter| counter.total.is_finite());
    match one.counter {
        _ if !sound => Err(number::NOT_FINITE),
        Some(counter) if counter.total < 0.0 => Err("its counter is negative"),
        _ => Ok(()),
    }
}

/// A label's name. A leading `__` is Prometheus' own.
pub(crate) fn label_name(raw: &str) -> String {
    let name = names::node(raw, |c| c == '_' || c.is_ascii_alphanumeric());
    if raw.starts_with("__") || TAKEN_LABELS.contains(&name.as_str()) {
        return format!("label_{}", name.trim_start_matches('_'));
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// What a label's value may hold without an escape.
pub(crate) const PLAIN: Plain = Plain::without(b"\"\\");

/// Any text is legal, but some scanners take control characters for the end of the page.
pub(crate) fn label_value(raw: &str) -> Clean<'_> {
    if raw.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Clean::Faithful(Cow::Borrowed(raw));
    }
    Clean::replacing(raw, is_value_char)
}

fn is_value_char(c: char) -> bool {
    !c.is_control() || matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Label, Series, Stamp, Window};

    #[test]
    fn room_is_made_for_families_that_go_on_and_not_for_more_than_there_is_to_write() {
        let one = |(at, length): (usize, usize)| PageSeries {
            series: Series {
                path: vec!["p".to_owned(), format!("m{}", at / 100)],
                aggregate: "count".to_owned(),
                labels: vec![("label".to_owned(), Label::Text(format!("{at:0length$}")))],
            },
            shape: Shape::Additive,
            value: Some(1.0),
            counter: Some(Counter { total: 1.0, created: Stamp::from_secs(1) }),
        };
        let window = Window::new(1_700_000_040, Period::new(60).expect("legal")).expect("on the grid");
        for (metrics, first, others) in [(16, 40, 40), (16, 900, 4), (1, 40, 40), (3, 40, 40)] {
            let lengths = (0..100 * metrics).map(|at| if at < 100 { first } else { others });
            let page = Page { window, series: lengths.enumerate().map(one).collect() };
            let (families, _) = lines_at_once(&page, Format::Text).expect("all differ");
            let lines = families.iter().flat_map(|family| [&family.gauges, &family.counters]);
            let (length, capacity) = lines.fold((0, 0), |(length, capacity), lines| (length + lines.len(), capacity + lines.capacity()));
            assert!(capacity <= 2 * length, "{metrics} metrics: {capacity} for {length}");
        }
    }
}
