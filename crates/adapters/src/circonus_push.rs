//! Circonus, pushed: a PUT of JSON to the check's submission URL (HTTPTrap). The URL is the credential, so it is a secret.
//!
//! Wire facts: metric-stores 7.1 to 7.4.

mod reply;

use crate::circonus::{self, Layout};
use crate::description::{Description, Direction, Field, Kind, Preset};
use crate::fields::Fields;
use crate::names::Speller;
use crate::number;
use crate::outgoing::{HeaderText, HttpRequest, Outgoing, SecretUrl};
use crate::payload::{Packer, Payload};
use crate::push::{Encoded, Excluded, Push};
use crate::reply::{Reply, Verdict};
use crate::snippet::{self, About, Snippet};
use model::{Batch, Problem};
use serde_json::{Map, Value, json};

pub(crate) static DESCRIPTION: Description = Description {
    name: "circonus_push",
    title: "Circonus (push)",
    direction: Direction::Push,
    summary: "Sends one metric per series and window to an HTTPTrap check.",
    fields: &[
        Field {
            required: true,
            example: "https://trap.noit.circonus.net/module/httptrap/0a1b2c3d-0000-4000-8000-0123456789ab/mysecret",
            ..Field::optional(
                "url",
                Kind::SecretUrl,
                "the check's whole Data Submission URL; whoever has it can write, so it is kept secret",
            )
        },
        Field::optional(
            "ca_pem",
            Kind::Certificates,
            "certificates to trust beside the machine's own, for a broker with a private authority",
        ),
        Field {
            default: Some(Preset::Text("stream_tags")),
            choices: &["stream_tags", "path"],
            ..Field::optional(
                "layout",
                Kind::Choice,
                "stream_tags writes group-by attributes as tags of the name; path writes their values as nodes, for accounts without tags",
            )
        },
    ],
    takes_old_points: true,
    max_age_secs: None,
};

/// Metrics and bytes of one request. No limit is documented; this is what the vendor's own library stays below (metric-stores 7.4).
const METRICS_MAX: usize = 1_000;
const BODY_BYTES_MAX: usize = 1 << 20;

/// A Circonus check's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct CirconusPush {
    url: SecretUrl,
    ca_pem: Option<String>,
    layout: Layout,
}

impl CirconusPush {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<CirconusPush, Vec<Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let url = fields.url("url");
        if url.as_ref().is_some_and(|url| url.path() == "/") {
            fields.fault("url", "names no check; paste the whole Data Submission URL, with all that follows the host");
        }
        let ca_pem = fields.certificates("ca_pem");
        let layout = if fields.choice("layout") == "path" { Layout::Path } else { Layout::StreamTags };
        fields.finish(url.map(|url| CirconusPush { url: SecretUrl(url), ca_pem, layout }))
    }
}

impl Push for CirconusPush {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let mut speller = Speller::default();
        let spelt = circonus::spell(batch.points.iter().map(|point| &point.series), self.layout, &mut speller);
        let mut packer = Packer::new(Payload::new(b"{\n", b",\n", b"\n}\n"), METRICS_MAX, BODY_BYTES_MAX);
        let mut excluded = Vec::new();
        let end = format!(",\"_ts\":{}}}", batch.window.start_secs() * 1_000);
        for (at, point) in batch.points.iter().enumerate() {
            let name = if point.value.is_finite() { spelt.of(at) } else { Err(number::NOT_FINITE) };
            match name {
                Err(reason) => excluded.push(Excluded { point: at as u32, reason }),
                Ok(name) => packer.push(&[at as u32], |metric| {
                    circonus::write_json_name(name, metric);
                    metric.extend_from_slice(if survives_the_type(point.value) {
                        b":{\"_type\":\"n\",\"_value\":"
                    } else {
                        b":{\"_value\":"
                    });
                    circonus::write_number(point.value, metric);
                    metric.extend_from_slice(end.as_bytes());
                }),
            }
        }
        Encoded { payloads: packer.finish(), excluded, notes: speller.finish() }
    }

    fn request(&self, payload: &Payload) -> Outgoing {
        let headers = ["content-type", "accept"].map(|name| (name, HeaderText::Plain("application/json".to_owned())));
        Outgoing::Http(HttpRequest {
            method: "PUT",
            url: self.url.0.clone(),
            secret_path: true,
            headers: headers.into(),
            body: payload.body(),
            ca_pem: self.ca_pem.clone(),
        })
    }

    fn judge(&self, payload: &Payload, reply: &Reply) -> Verdict {
        match reply {
            Reply::Http { status, retry_after, body } => reply::judge(payload.points().count() as u64, *status, *retry_after, body),
            Reply::Tcp => Verdict::Retry { reason: "the answer is not HTTP".to_owned() },
        }
    }

    fn target(&self) -> String {
        self.url.target()
    }

    fn address(&self) -> (&'static str, String, u16) {
        let url = &self.url.0;
        ("url", url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or_default())
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let batch = about.batch();
        let Some(shown) = snippet::shown_points(&batch) else { return Vec::new() };
        let spelt = circonus::spell(batch.points.iter().map(|point| &point.series), self.layout, &mut Speller::default());
        let (Ok(metric), Ok(up)) = (spelt.of(shown.metric), spelt.of(shown.up)) else { return Vec::new() };
        let test = json!({snippet::test_series(circonus::text(up), "|ST["): {"_type": "n", "_value": 1.0}});
        let check = format!(
            "curl -sS -i -X PUT -H 'Content-Type: application/json' -d {} \"$CIRCONUS_SUBMISSION_URL\"\n",
            snippet::shell(&test.to_string())
        );
        let mut snippets = circonus::queries(about, circonus::text(metric), circonus::text(up));
        snippets.insert(1, Snippet::new("Check the way to the broker", "sh", check));
        snippets
    }

    /// A refused body is taken up to its fault, and what comes again overwrites.
    fn isolates(&self) -> bool {
        true
    }
}

/// Whether the broker keeps the value when its type is given: it writes a typed number anew with six digits (`%g` at the end of
/// `httptrap_yajl_cb_end_map`). Without a type it reads the number's own text, and takes one with a fraction for a double as well.
fn survives_the_type(value: f64) -> bool {
    format!("{value:.5e}").parse() == Ok(value)
}
