//! Target of the settings of stores: any JSON is read or refused by field, and nothing that people see depends on a secret.

use crate::source::{first_line, text};
use adapters::{Adapter, Kind, Outgoing, Payload, description};
use model::Period;
use serde_json::{Map, Value};

/// The first line names an adapter; its settings follow as JSON.
pub(crate) fn settings(input: &[u8]) -> String {
    let (line, json) = first_line(input);
    let name = text(line);
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(json) else { return "no JSON".to_owned() };
    let seen = seen(&name, &fields);
    let masked = with_other_secrets(&name, &fields);
    assert_eq!(seen, self::seen(&name, &masked), "what is seen depends on a secret");
    let name = description(&name).map_or("no adapter", |description| description.name);
    format!("{name} {}", seen.lines().next().unwrap_or_default())
}

/// Everything that people may see of a store, or of the faults in its settings; the first line says which.
fn seen(name: &str, fields: &Map<String, Value>) -> String {
    let adapter = match Adapter::parse(name, fields) {
        Ok(adapter) => adapter,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let known = description(name).and_then(|description| description.field(&problems[0].field));
            return format!("refused {}\n{problems:?}", known.map_or("another key", |field| field.name));
        }
    };
    assert_eq!(adapter.name(), name);
    let period = adapter.check_period(Period::new(60).expect("legal"));
    let mut seen = format!("taken, period {}\n{adapter:?} {period:?}", period.is_ok());
    if let Some(push) = adapter.as_push() {
        let (field, host, port) = push.address();
        assert!(adapter.description().field(field).is_some(), "the field {field}");
        seen.push_str(&format!("{} {host} {port}", push.target()));
        for outgoing in [Some(push.request(&Payload::default())), push.probe().map(|probe| probe.outgoing)].into_iter().flatten() {
            seen.push_str(&format!("{outgoing:?}"));
            if let Outgoing::Http(request) = &outgoing {
                assert!(matches!(request.url.scheme(), "http" | "https") && request.url.host().is_some(), "{}", request.masked_url());
                seen.push_str(&request.masked_url());
            }
        }
    }
    if let Some(pull) = adapter.as_pull() {
        seen.push_str(&format!("{} {:?} {}", pull.challenge(), pull.credentials(), pull.authorises(None)));
    }
    seen
}

/// The same settings with other letters and digits in every text that is a secret.
fn with_other_secrets(name: &str, fields: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = fields.clone();
    let secrets = description(name).map_or(&[][..], |description| description.fields).iter().filter(|field| field.kind == Kind::Secret);
    for key in secrets.flat_map(|field| field.aliases.iter().copied().chain([field.name])) {
        if let Some(Value::String(text)) = fields.get_mut(key) {
            *text = text.chars().map(|c| if c.is_ascii_alphanumeric() { 'x' } else { c }).collect();
        }
    }
    fields
}
