//! Checks a configuration document by the very rules of the API's own edits, and writes the configuration there is as one.

use super::FORMAT;
use super::secret::placeholder;
use super::suggestion::hint;
use super::yaml::child;
use crate::app::App;
use crate::reply::Refusal;
use crate::routes::metric_sets::{self, NewMetric, SERIES_BUDGET};
use crate::routes::metric_stores::{self, HORIZON_SECS, PREFIX};
use crate::routes::projects::check_name;
use catalog::{Metric, MetricDraft, Project, Snapshot, Store, StoreDraft};
use model::{PathTemplate, Problem, grammar};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;

/// Keys of the document, a project, a set and a metric.
pub(crate) const DOCUMENT_KEYS: [&str; 2] = ["crashmeter", "projects"];
pub(crate) const PROJECT_KEYS: [&str; 2] = ["metric_sets", "metric_stores"];
pub(crate) const SET_KEYS: [&str; 1] = ["metrics"];
pub(crate) const METRIC_KEYS: [&str; 3] = ["query", "zero_for", "series_budget"];

/// A checked document.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) projects: Vec<WantedProject>,
    /// What a person should know, each with its field.
    pub(crate) warnings: Vec<Problem>,
}

/// A project as the document has it.
#[derive(Debug)]
pub(crate) struct WantedProject {
    pub(crate) name: String,
    /// The project of that name, if there is one.
    pub(crate) known: Option<Project>,
    pub(crate) sets: Vec<String>,
    pub(crate) metrics: Vec<WantedMetric>,
    pub(crate) stores: Vec<(String, StoreDraft)>,
}

/// A metric as the document has it.
#[derive(Debug)]
pub(crate) struct WantedMetric {
    pub(crate) set: String,
    pub(crate) name: String,
    pub(crate) draft: MetricDraft,
}

/// Whether a project may be edited, or made, by whoever asks; else the refusal.
pub(crate) type Open<'a> = &'a dyn Fn(&str) -> Result<Option<Project>, Refusal>;

/// Checks a whole document, or names every fault found.
pub(crate) fn check(app: &App, snapshot: &Snapshot, open: Open<'_>, document: &Json) -> Result<Wanted, Vec<Problem>> {
    let mut checker = Checker { app, snapshot, problems: Vec::new(), wanted: Wanted::default() };
    let empty = Map::new();
    let root = checker.map("", Some(document)).unwrap_or(&empty);
    checker.known_keys("", root, &DOCUMENT_KEYS);
    if root.get("crashmeter").and_then(Json::as_u64) != Some(FORMAT) {
        checker.problem("crashmeter", format!("must be {FORMAT}: the version of this format"));
    }
    if root.get("projects").is_none_or(Json::is_null) {
        checker.problem("projects", "is missing: a map of projects by name");
    }
    for (name, project) in checker.map("projects", root.get("projects")).into_iter().flatten() {
        checker.project(name, project, open);
    }
    if checker.problems.is_empty() { Ok(checker.wanted) } else { Err(checker.problems) }
}

struct Checker<'a> {
    app: &'a App,
    snapshot: &'a Snapshot,
    problems: Vec<Problem>,
    wanted: Wanted,
}

impl Checker<'_> {
    fn problem(&mut self, field: &str, detail: impl Into<String>) {
        self.problems.push(Problem::new(field, detail));
    }

    /// Takes over the faults of a part, each below the part's path.
    fn refused(&mut self, path: &str, refusal: Refusal) {
        for Problem { field, detail } in refusal.into_problems() {
            let field = if field.is_empty() { path.to_owned() } else { child(path, &field) };
            self.problems.push(Problem { field, detail });
        }
    }

    fn warn(&mut self, path: &str, warnings: Vec<String>) {
        self.wanted.warnings.extend(warnings.into_iter().map(|detail| Problem::new(path, detail)));
    }

    /// A map; nothing at all is an empty one.
    fn map<'j>(&mut self, path: &str, value: Option<&'j Json>) -> Option<&'j Map<String, Json>> {
        match value {
            None | Some(Json::Null) => None,
            Some(Json::Object(map)) => Some(map),
            Some(_) => {
                self.problem(path, "must be a map, with a name before each colon");
                None
            }
        }
    }

    fn known_keys(&mut self, path: &str, map: &Map<String, Json>, known: &[&str]) {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            self.problem(&child(path, key), format!("{key} {}", hint(key, known)));
        }
    }

    fn project(&mut self, name: &str, value: &Json, open: Open<'_>) {
        let path = child("projects", name);
        if let Err(refusal) = check_name("", name) {
            return self.refused(&path, refusal);
        }
        let known = match open(name) {
            Ok(known) => known,
            Err(refusal) => return self.refused(&path, refusal),
        };
        let mut wanted = WantedProject { name: name.to_owned(), known, sets: Vec::new(), metrics: Vec::new(), stores: Vec::new() };
        if let Some(map) = self.map(&path, Some(value)) {
            self.known_keys(&path, map, &PROJECT_KEYS);
            let at = child(&path, "metric_sets");
            for (set, value) in self.map(&at, map.get("metric_sets")).into_iter().flatten() {
                self.set(&child(&at, set), set, value, &mut wanted);
            }
            let at = child(&path, "metric_stores");
            for (store, value) in self.map(&at, map.get("metric_stores")).into_iter().flatten() {
                self.store(&child(&at, store), store, value, &mut wanted);
            }
        }
        self.wanted.projects.push(wanted);
    }

    fn set(&mut self, path: &str, name: &str, value: &Json, wanted: &mut WantedProject) {
        if let Err(refusal) = check_name("", name) {
            return self.refused(path, refusal);
        }
        wanted.sets.push(name.to_owned());
        let Some(map) = self.map(path, Some(value)) else { return };
        self.known_keys(path, map, &SET_KEYS);
        let at = child(path, "metrics");
        for (metric, value) in self.map(&at, map.get("metrics")).into_iter().flatten() {
            self.metric(&child(&at, metric), name, metric, value, wanted);
        }
    }

    fn metric(&mut self, path: &str, set: &str, name: &str, value: &Json, wanted: &mut WantedProject) {
        if let Err(refusal) = check_name("", name) {
            return self.refused(path, refusal);
        }
        let Some(map) = self.map(path, Some(value)) else { return self.problem(path, "needs a query") };
        self.known_keys(path, map, &METRIC_KEYS);
        let Some(query) = map.get("query") else { return self.problem(path, "needs a query") };
        let whole = |checker: &mut Self, name: &str| match map.get(name) {
            None | Some(Json::Null) => None,
            Some(value) => {
                let number = value.as_u64();
                if number.is_none() {
                    checker.problem(&child(path, name), "must be a whole number");
                }
                number
            }
        };
        let (zero_for, budget) = (whole(self, "zero_for"), whole(self, "series_budget"));
        let new = NewMetric { query: query.clone(), zero_for, series_budget: budget.map(|n| u32::try_from(n).unwrap_or(u32::MAX)) };
        match metric_sets::check(self.app, wanted.known.as_ref().map(|known| known.id), &new) {
            Err(refusal) => self.refused(path, refusal),
            Ok((draft, warnings)) => {
                self.warn(path, warnings);
                wanted.metrics.push(WantedMetric { set: set.to_owned(), name: name.to_owned(), draft });
            }
        }
    }

    fn store(&mut self, path: &str, name: &str, value: &Json, wanted: &mut WantedProject) {
        if let Err(refusal) = check_name("", name) {
            return self.refused(path, refusal);
        }
        let Some(map) = self.map(path, Some(value)) else { return self.problem(path, "needs an adapter and its fields") };
        let before = self.problems.len();
        let adapters: Vec<&str> = adapters::descriptions().iter().map(|one| one.name).collect();
        let adapter = map.get("adapter").and_then(Json::as_str).unwrap_or_default();
        let Some(description) = adapters::description(adapter) else {
            let detail =
                if adapter.is_empty() { format!("is missing; there are {}", adapters.join(", ")) } else { hint(adapter, &adapters) };
            return self.problem(&child(path, "adapter"), detail);
        };
        self.known_keys(path, map, &metric_stores::keys(description));
        for field in description.fields.iter().filter(|field| field.is_secret()) {
            if map.get(field.name).and_then(Json::as_str).is_some_and(|text| placeholder(text).is_some()) {
                self.problem(&child(path, field.name), "is a placeholder that was not filled in");
            }
        }
        let known = wanted.known.as_ref().and_then(|project| self.snapshot.store(project.id, name));
        let mut sets = wanted.sets.clone();
        sets.extend(wanted.known.iter().flat_map(|project| project.sets.iter().cloned()));
        // What is not known here was named already, with what was perhaps meant.
        let mut body = map.clone();
        body.retain(|key, _| metric_stores::keys(description).contains(&key.as_str()));
        match metric_stores::check(self.app, &sets, known, body) {
            Err(refusal) => self.refused(path, refusal),
            Ok((draft, warnings)) => {
                self.warn(path, warnings);
                if self.problems.len() == before {
                    wanted.stores.push((name.to_owned(), draft));
                }
            }
        }
    }
}

/// The configuration of some projects as a document. Secrets are placeholders.
pub(crate) fn write<'a>(snapshot: &Snapshot, projects: impl Iterator<Item = &'a Project>) -> Json {
    let mut used = BTreeSet::new();
    let mut all = Map::new();
    for project in projects {
        let mut sets = Map::new();
        for set in &project.sets {
            let of_set = |metric: &&Metric| metric.project == project.id && metric.set == *set && metric.deleted.is_none();
            let metrics = snapshot.metrics.iter().filter(of_set).map(|metric| (metric.name.clone(), metric_of(metric)));
            sets.insert(set.clone(), json!({ "metrics": metrics.collect::<Map<_, _>>() }));
        }
        let live = snapshot.stores.iter().filter(|store| store.project == project.id && store.deleted.is_none());
        let stores: Map<String, Json> = live.map(|store| (store.name.clone(), store_of(&project.name, store, &mut used))).collect();
        all.insert(project.name.clone(), json!({"metric_sets": sets, "metric_stores": stores}));
    }
    json!({"crashmeter": FORMAT, "projects": all})
}

fn metric_of(metric: &Metric) -> Json {
    let newest = metric.newest();
    let mut query = grammar::write(&newest.query);
    let query = query.as_object_mut().expect("a query is written as an object");
    query.retain(|_, part| part.as_array().is_none_or(|list| !list.is_empty()));
    let mut shown = Map::new();
    shown.insert("query".into(), json!(query));
    if let Some(seconds) = newest.zero_for {
        shown.insert("zero_for".into(), json!(seconds));
    }
    if newest.series_budget != SERIES_BUDGET {
        shown.insert("series_budget".into(), json!(newest.series_budget));
    }
    Json::Object(shown)
}

fn store_of(project: &str, store: &Store, used: &mut BTreeSet<String>) -> Json {
    let mut shown = metric_stores::settings_of(&store.newest().settings);
    for (key, usual) in [
        ("prefix", json!(PREFIX)),
        ("template", json!(PathTemplate::USUAL)),
        ("labels", json!({})),
        ("label_names", json!({})),
        ("horizon", json!(HORIZON_SECS)),
        ("enabled", json!(true)),
    ] {
        if shown.get(key) == Some(&usual) {
            shown.remove(key);
        }
    }
    let description = adapters::description(&store.newest().settings.adapter);
    let is_generated = |name: &str| description.and_then(|all| all.field(name)).is_some_and(|field| field.generated);
    // What the server makes is not said, and cannot be.
    for (field, _) in store.adapter_secrets().filter(|(field, _)| !is_generated(field)) {
        shown.insert(field.clone(), json!(format!("${{{}}}", variable(project, &store.name, field, used))));
    }
    Json::Object(shown)
}

/// A name for the environment variable of a secret, such as `SHOOTER_INFLUX_PASSWORD`; never the same for two.
fn variable(project: &str, store: &str, field: &str, used: &mut BTreeSet<String>) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let mut name: String = format!("{project}_{store}_{field}").chars().map(letter).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    let mut unique = name.clone();
    let mut number = 2;
    while !used.insert(unique.clone()) {
        unique = format!("{name}_{number}");
        number += 1;
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_has_a_variable_of_its_own() {
        let mut used = BTreeSet::new();
        let names: Vec<String> =
            [("shooter", "influx", "password"), ("shooter", "in-flux", "token"), ("a", "b_c", "d"), ("a_b", "c", "d"), ("7", "ß", "t")]
                .map(|(project, store, field)| variable(project, store, field, &mut used))
                .into();
        assert_eq!(names, ["SHOOTER_INFLUX_PASSWORD", "SHOOTER_IN_FLUX_TOKEN", "A_B_C_D", "A_B_C_D_2", "_7___T"]);
    }
}
