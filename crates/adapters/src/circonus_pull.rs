//! Circonus, pulled: a JSON page that a JSON check reads with a user name and password. It carries no times, because the puller would
//! make a metric of every key but `_type` and `_value`.
//!
//! Wire facts: metric-stores 7.5. The puller does not look at the status, so nothing but the page itself may be JSON.

use crate::circonus::{self, Layout};
use crate::description::{Description, Direction, Field, Kind};
use crate::fields::Fields;
use crate::names::Speller;
use crate::number;
use crate::pull::{Accept, Credentials, Pull, Rendered};
use crate::push::Excluded;
use crate::snippet::{self, About, Snippet};
use model::{Page, Problem};
use serde_json::{Map, Value, json};

pub(crate) static DESCRIPTION: Description = Description {
    name: "circonus_pull",
    title: "Circonus (pull)",
    direction: Direction::Pull,
    summary: "Serves the newest window as a page that a Circonus JSON check reads.",
    fields: &[
        Field { generated: true, ..Field::optional("url", Kind::Url, "the secret address to read; made when the store is saved") },
        Field {
            required: true,
            generated: true,
            ..Field::optional("username", Kind::Text, "user name that the check must show; made when the store is saved")
        },
        Field { required: true, generated: true, ..Field::optional("password", Kind::Secret, "password of that user; made likewise") },
    ],
    takes_old_points: true,
    max_age_secs: None,
};

/// Shortest and longest period of a check, in seconds (<https://docs.circonus.com/circonus/checks/create/>).
const CHECK_PERIOD_SECS: (u64, u64) = (30, 300);

/// What a Circonus JSON check must show.
#[derive(Clone, Debug, PartialEq)]
pub struct CirconusPull {
    credentials: Credentials,
}

impl CirconusPull {
    pub(crate) fn read(given: &Map<String, Value>) -> Result<CirconusPull, Vec<Problem>> {
        let mut fields = Fields::new(&DESCRIPTION, given);
        let login = fields.text("username").zip(fields.secret("password"));
        fields.finish(login.map(|(username, password)| CirconusPull { credentials: Credentials::Basic { username, password } }))
    }
}

impl Pull for CirconusPull {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn page_name(&self) -> &'static str {
        "circonus.json"
    }

    fn render(&self, page: &Page, _accept: &Accept) -> Rendered {
        let mut speller = Speller::default();
        let spelt = circonus::spell(page.series.iter().map(|one| &one.series), Layout::StreamTags, &mut speller);
        let (mut body, mut samples, mut excluded) = (b"{\n".to_vec(), 0, Vec::new());
        for (at, one) in page.series.iter().enumerate() {
            let Some(value) = one.value else { continue };
            match if value.is_finite() { spelt.of(at) } else { Err(number::NOT_FINITE) } {
                Err(reason) => excluded.push(Excluded { point: at as u32, reason }),
                Ok(name) => {
                    body.extend_from_slice(if samples == 0 { b"" } else { b",\n" });
                    circonus::write_json_name(name, &mut body);
                    body.extend_from_slice(b":{\"_type\":\"n\",\"_value\":");
                    circonus::write_number(value, &mut body);
                    body.push(b'}');
                    samples += 1;
                }
            }
        }
        body.extend_from_slice(b"\n}\n");
        Rendered { content_type: "application/json", body, samples, excluded, notes: speller.finish() }
    }

    fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        let series = || about.page.series.iter().map(|one| (&one.series, one.shape));
        let Some(shown) = snippet::shown(series()) else { return Vec::new() };
        let spelt = circonus::spell(series().map(|(one, _)| one), Layout::StreamTags, &mut Speller::default());
        let (Ok(metric), Ok(up)) = (spelt.of(shown.metric), spelt.of(shown.up)) else { return Vec::new() };
        let (username, password) = match &self.credentials {
            Credentials::Basic { username, password } if about.reveal => (username.as_str(), password.reveal()),
            Credentials::Basic { username, .. } => (username.as_str(), "YOUR-PASSWORD"),
            Credentials::None | Credentials::Bearer(_) => ("", ""),
        };
        let url = about.url_or_words(self.page_name());
        let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).split(['/', ':']).next().unwrap_or_default();
        let mut check = json!({
            "type": "json",
            "display_name": format!("crashmeter {}", about.store),
            "target": host,
            "brokers": ["/broker/YOUR-BROKER-ID"],
            "period": about.period_secs().clamp(CHECK_PERIOD_SECS.0, CHECK_PERIOD_SECS.1),
            "timeout": 10,
            "config": {"url": url, "method": "GET", "http_version": "1.1", "auth_method": "Basic", "auth_user": username, "auth_password": password},
            "metric_filters": [["allow", ".", "all metrics"]],
        });
        if check["period"] != json!(about.period_secs()) {
            let (shown, every) = (&check["period"], about.period_secs());
            check["notes"] = json!(format!(
                "Circonus reads every {shown} s and windows are of {every} s: it sees only the newest window at each reading"
            ));
        }
        let curl = format!("curl -sS -u {} {}\n", snippet::shell(&format!("{username}:{password}")), snippet::shell(&url));
        let mut snippets = vec![
            Snippet::new("Check (POST /check_bundle)", "json", snippet::pretty(&check)),
            Snippet::new("Read the page as the broker does", "sh", curl),
        ];
        snippets.extend(circonus::queries(about, circonus::text(metric), circonus::text(up)));
        snippets
    }
}
