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
use model::{Page, Problem};
use serde_json::{Map, Value};

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
}
