//! Secrets of a configuration file: `${NAME}` from the environment or `{file: PATH}`, only in secret fields. Nothing here repeats
//! what it has read.

use super::yaml::child;
use adapters::description;
use model::Problem;
use serde_json::{Map, Value as Json};
use std::path::Path;

/// Longest secret file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where secrets come from.
pub(crate) struct Sources<'a> {
    /// A variable of the environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The folder that paths of secret files begin at: the configuration file's own.
    pub(crate) folder: &'a Path,
}

/// The name in a text that is `${NAME}` as a whole.
pub(crate) fn placeholder(text: &str) -> Option<&str> {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|name| !name.contains(['$', '{', '}']))
}

/// Puts every secret of a document in its place, or names what stands in the way.
pub(crate) fn fill(document: &mut Json, sources: &Sources<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (project, value) in map(document.get_mut("projects")) {
        for (name, store) in map(value.get_mut("metric_stores")) {
            if let Some(store) = store.as_object_mut() {
                fill_store(&format!("projects.{project}.metric_stores.{name}"), store, sources, &mut problems);
            }
        }
    }
    problems
}

fn map(value: Option<&mut Json>) -> impl Iterator<Item = (&String, &mut Json)> {
    value.and_then(Json::as_object_mut).into_iter().flatten()
}

fn fill_store(path: &str, store: &mut Map<String, Json>, sources: &Sources<'_>, problems: &mut Vec<Problem>) {
    let adapter = store.get("adapter").and_then(Json::as_str).unwrap_or_default();
    let Some(description) = description(adapter) else {
        // The server names the adapters there are; one that only it knows cannot be filled in by this program.
        let known: Vec<&str> = adapters::descriptions().iter().map(|one| one.name).collect();
        let mut detail = super::suggestion::hint(adapter, &known);
        if !store.contains_key("adapter") {
            detail = format!("is missing; there are {}", known.join(", "));
        }
        return problems.push(Problem::new(child(path, "adapter"), detail));
    };
    for (name, value) in store {
        let field = child(path, name);
        if description.field(name).is_some_and(adapters::Field::is_secret) {
            match read(value, sources) {
                Ok(Some(secret)) => *value = Json::from(secret),
                Ok(None) => {}
                Err(detail) => problems.push(Problem::new(field, detail)),
            }
        } else {
            refuse_placeholders(&field, value, problems);
        }
    }
}

/// A secret's text; `None` for null, which clears it.
fn read(value: &Json, sources: &Sources<'_>) -> Result<Option<String>, String> {
    let secret = match value {
        Json::Null => return Ok(None),
        Json::String(text) => {
            let name = placeholder(text).filter(|name| is_variable(name)).ok_or(
                "is a secret: write ${NAME}, which is read from the environment, or {file: PATH}, so that this file can be shown to others",
            )?;
            (sources.variable)(name).ok_or_else(|| format!("needs the environment variable {name}, which is not set"))?
        }
        Json::Object(map) => match (map.get("file").and_then(Json::as_str), map.len()) {
            (Some(path), 1) => read_file(&sources.folder.join(path)).map_err(|detail| format!("cannot be read from {path}: {detail}"))?,
            _ => return Err("must be ${NAME} or {file: PATH}".to_owned()),
        },
        _ => return Err("must be ${NAME} or {file: PATH}".to_owned()),
    };
    if secret.is_empty() { Err("is empty where it is read from; write null to clear it".to_owned()) } else { Ok(Some(secret)) }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A file's text without the line end that editors put at its end.
fn read_file(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("it is {length} bytes long"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// What looks like a secret's place but is none would be taken as it is, and be shown to everybody.
fn refuse_placeholders(field: &str, value: &Json, problems: &mut Vec<Problem>) {
    match value {
        Json::String(text) if placeholder(text).is_some_and(is_variable) => {
            problems.push(Problem::new(field, format!("{text} is only filled in where the field is a secret")));
        }
        Json::Object(map) => map.iter().for_each(|(name, value)| refuse_placeholders(&child(field, name), value, problems)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(store: Json) -> (Json, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "from-a-file\r\n").expect("written");
        std::fs::write(folder.path().join("empty"), "\n").expect("written");
        std::fs::write(folder.path().join("large"), "x".repeat(FILE_BYTES_MAX as usize + 1)).expect("written");
        let variable = |name: &str| match name {
            "A" => Some("from-the-environment".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut document = json!({"projects": {"p": {"metric_stores": {"s": store}}}});
        let problems = fill(&mut document, &Sources { variable: &variable, folder: folder.path() });
        (document["projects"]["p"]["metric_stores"]["s"].take(), problems.iter().map(|one| one.field.clone()).collect())
    }

    #[test]
    fn secrets_come_from_the_environment_and_from_files() {
        let (store, problems) = filled(json!({"adapter": "influxdb", "password": "${A}", "token": {"file": "token"}, "url": "http://h"}));
        assert_eq!(problems, [""; 0]);
        assert_eq!(store, json!({"adapter": "influxdb", "password": "from-the-environment", "token": "from-a-file", "url": "http://h"}));
        assert_eq!(filled(json!({"adapter": "influxdb", "password": null})), (json!({"adapter": "influxdb", "password": null}), vec![]));
    }

    #[test]
    fn what_cannot_be_filled_in_is_named_by_its_field() {
        for value in [
            json!("plain"),
            json!("${NOT_SET}"),
            json!("${A} and more"),
            json!("${A}${A}"),
            json!("${a-b}"),
            json!("${}"),
            json!("${EMPTY}"),
            json!({"file": "nowhere"}),
            json!({"file": "empty"}),
            json!({"file": "large"}),
            json!({"file": "token", "more": 1}),
            json!({"env": "A"}),
            json!(5),
        ] {
            let (_, problems) = filled(json!({"adapter": "influxdb", "password": value}));
            assert_eq!(problems, ["projects.p.metric_stores.s.password"], "{value}");
        }
        let (store, problems) =
            filled(json!({"adapter": "influxdb", "url": "${A}", "db": "x${A}", "labels": {"a": "${A}"}, "prefix": "${A}"}));
        let at = |field: &str| format!("projects.p.metric_stores.s.{field}");
        assert_eq!(problems, [at("url"), at("labels.a"), at("prefix")]);
        assert!(!store.to_string().contains("from-the-environment"), "only secrets are filled in");
        assert_eq!(filled(json!({"adapter": "influx"})).1, [at("adapter")]);
        assert_eq!(filled(json!({"period": 60})).1, [at("adapter")]);
    }
}
