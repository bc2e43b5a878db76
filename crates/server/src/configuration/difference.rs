//! What a checked document would change: pure, from the configuration there is and the one that is wanted to changes that people
//! read and edits that the catalog makes.

use super::document::{Wanted, WantedProject};
use crate::forecast::Beyond;
use crate::routes::metric_stores::settings_of;
use catalog::{Edit, Metric, MetricDraft, SecretEdits, Snapshot, Store, StoreDraft, StoreRevision, StoreSettings};
use model::{Stamp, grammar};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// All changes, in the order in which they are made.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) changes: Vec<Change>,
    pub(crate) edits: Vec<Edit>,
    /// What is configured in the named projects, is not in the document, and stays.
    pub(crate) left_alone: Vec<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Change {
    pub(crate) action: Action,
    pub(crate) kind: Kind,
    pub(crate) project: String,
    /// `set`, `set/metric` or `store`; empty for the project itself.
    pub(crate) name: String,
    /// Of something changed: each field that differs.
    pub(crate) fields: Vec<FieldChange>,
    /// Metric stores that the change reaches, with their adapters.
    pub(crate) targets: Vec<String>,
    /// When it takes effect, store by store: with these windows.
    pub(crate) first_windows: Vec<FirstWindow>,
    /// Whether some of it takes effect at once, for windows already sealed too: addresses and secrets.
    pub(crate) at_once: bool,
    /// Series before and after, where it is about metrics or their stores; only in a plan.
    pub(crate) series: Option<SeriesChange>,
    /// The metrics whose series it is about, by set and name.
    #[serde(skip)]
    pub(crate) metrics: Vec<(String, String)>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Add,
    Change,
    Remove,
}

/// To what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Project,
    MetricSet,
    Metric,
    MetricStore,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FieldChange {
    pub(crate) field: String,
    /// Null where it was not set; always null for a secret.
    #[schema(value_type = Object)]
    pub(crate) old: Json,
    /// Likewise.
    #[schema(value_type = Object)]
    pub(crate) new: Json,
    /// Secrets are never shown: only that they change.
    pub(crate) secret: bool,
}

/// The window with which a change takes effect in a store, were it applied now.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FirstWindow {
    pub(crate) store: String,
    /// Its first second.
    pub(crate) start: u64,
    /// When its points come: its end.
    pub(crate) end: u64,
    /// Seconds before it without any window, where the old and the new period have no near boundary in common.
    pub(crate) gap_secs: u64,
}

/// Series of a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct SeriesChange {
    /// In the newest sealed window.
    pub(crate) now: u64,
    /// After the change, by the groups that reports had within `zero_for`; null when they cannot be counted.
    pub(crate) forecast: Option<u64>,
    /// What would be folded into `__other__`, by metric.
    pub(crate) over_budget: BTreeMap<String, Beyond>,
}

/// The configuration of one project, as far as a document can set it.
struct State<'a> {
    metrics: BTreeMap<(&'a str, &'a str), MetricDraft>,
    stores: BTreeMap<&'a str, &'a StoreSettings>,
}

/// Compares the configuration with what is wanted. `prune` removes what the document does not have, in the projects it names.
pub(crate) fn difference(snapshot: &Snapshot, wanted: &Wanted, prune: bool, now: Stamp) -> Difference {
    let mut difference = Difference::default();
    for project in &wanted.projects {
        difference.project(snapshot, project, prune, now);
    }
    difference
}

/// A metric's newest revision as a draft.
pub(crate) fn draft_of(metric: &Metric) -> MetricDraft {
    let newest = metric.newest();
    MetricDraft { query: newest.query.clone(), zero_for: newest.zero_for, series_budget: newest.series_budget }
}

impl State<'_> {
    /// What is configured now.
    fn before<'a>(metrics: &[&'a Metric], stores: &[&'a Store]) -> State<'a> {
        State {
            metrics: metrics.iter().map(|metric| ((metric.set.as_str(), metric.name.as_str()), draft_of(metric))).collect(),
            stores: stores.iter().map(|store| (store.name.as_str(), &store.newest().settings)).collect(),
        }
    }

    /// Stores that get a set's points.
    fn targets(&self, set: &str) -> Vec<&str> {
        let attached = self.stores.iter().filter(|(_, settings)| settings.enabled && settings.sets.iter().any(|one| one == set));
        attached.map(|(name, _)| *name).collect()
    }

    fn titles(&self, stores: &[&str]) -> Vec<String> {
        stores.iter().filter_map(|name| Some(format!("{name} ({})", self.stores.get(name)?.adapter))).collect()
    }

    fn metrics_of(&self, sets: &[String]) -> Vec<(String, String)> {
        let of_sets = self.metrics.keys().filter(|(set, _)| sets.iter().any(|one| one == set));
        of_sets.map(|(set, name)| ((*set).to_owned(), (*name).to_owned())).collect()
    }
}

impl Difference {
    fn project(&mut self, snapshot: &Snapshot, wanted: &WantedProject, prune: bool, now: Stamp) {
        let id = wanted.known.as_ref().map(|known| known.id);
        let known_sets: &[String] = wanted.known.as_ref().map_or(&[], |known| &known.sets);
        let metrics: Vec<&Metric> =
            snapshot.metrics.iter().filter(|metric| Some(metric.project) == id && metric.deleted.is_none()).collect();
        let stores: Vec<&Store> = snapshot.stores.iter().filter(|store| Some(store.project) == id && store.deleted.is_none()).collect();
        let before = State::before(&metrics, &stores);
        let mut after = State::before(&metrics, &stores);
        if prune {
            after
                .metrics
                .retain(|(set, name), _| wanted.metrics.iter().any(|metric| (metric.set.as_str(), metric.name.as_str()) == (*set, *name)));
            after.stores.retain(|name, _| wanted.stores.iter().any(|(store, _)| store == name));
        }
        after.metrics.extend(wanted.metrics.iter().map(|metric| ((metric.set.as_str(), metric.name.as_str()), metric.draft.clone())));
        after.stores.extend(wanted.stores.iter().map(|(name, draft)| (name.as_str(), &draft.settings)));

        let first_window = |name: &str| {
            let known = stores.iter().find(|store| store.name == name);
            let settings = after.stores.get(name).or_else(|| before.stores.get(name)).expect("a store before or after");
            first_window(known.copied(), name, settings, now)
        };
        let project = &wanted.name;
        if wanted.known.is_none() {
            self.push(Change::new(Action::Add, Kind::Project, project, ""), Edit::CreateProject { project: project.clone() });
        }
        for set in wanted.sets.iter().filter(|set| !known_sets.contains(set)) {
            self.push(Change::new(Action::Add, Kind::MetricSet, project, set), Edit::PutSet { project: project.clone(), set: set.clone() });
        }
        for metric in &wanted.metrics {
            let place = (metric.set.as_str(), metric.name.as_str());
            let (action, fields) = match before.metrics.get(&place) {
                None => (Action::Add, Vec::new()),
                Some(old) => (Action::Change, metric_fields(old, &metric.draft)),
            };
            if action == Action::Change && fields.is_empty() {
                continue;
            }
            let targets = after.targets(&metric.set);
            let change = Change {
                fields,
                targets: after.titles(&targets),
                first_windows: targets.iter().map(|store| first_window(store)).collect(),
                metrics: vec![(metric.set.clone(), metric.name.clone())],
                ..Change::new(action, Kind::Metric, project, &format!("{}/{}", metric.set, metric.name))
            };
            let (set, name, draft) = (metric.set.clone(), metric.name.clone(), metric.draft.clone());
            self.push(change, Edit::PutMetric { project: project.clone(), set, metric: name, draft });
        }
        for (name, draft) in &wanted.stores {
            let known = stores.iter().find(|store| store.name == *name);
            let secrets = changed_secrets(known.copied(), draft);
            let (action, fields) = match known {
                None => (Action::Add, Vec::new()),
                Some(known) => (Action::Change, store_fields(&known.newest().settings, &draft.settings, &secrets)),
            };
            if action == Action::Change && fields.is_empty() {
                continue;
            }
            let grid = |field: &FieldChange| !field.secret;
            let change = Change {
                targets: after.titles(&[name]),
                first_windows: if known.is_none() || fields.iter().any(grid) { vec![first_window(name)] } else { Vec::new() },
                at_once: known.is_some() && fields.iter().any(|field| applies_at_once(&draft.settings, field)),
                metrics: after.metrics_of(&draft.settings.sets),
                fields,
                ..Change::new(action, Kind::MetricStore, project, name)
            };
            let draft = StoreDraft { secrets, ..draft.clone() };
            self.push(change, Edit::PutStore { project: project.clone(), store: name.clone(), draft });
        }
        self.surplus(wanted, known_sets, &before, &after, prune, &first_window);
    }

    /// What the document does not have: removed, or named as left alone.
    fn surplus(
        &mut self,
        wanted: &WantedProject,
        known_sets: &[String],
        before: &State<'_>,
        after: &State<'_>,
        prune: bool,
        first_window: &dyn Fn(&str) -> FirstWindow,
    ) {
        let project = &wanted.name;
        for (set, name) in before.metrics.keys() {
            if wanted.metrics.iter().any(|metric| (metric.set.as_str(), metric.name.as_str()) == (*set, *name)) {
                continue;
            }
            if !prune {
                self.left_alone.push(format!("metric {project}/{set}/{name}"));
                continue;
            }
            let targets = before.targets(set);
            let change = Change {
                targets: before.titles(&targets),
                first_windows: targets.iter().map(|store| first_window(store)).collect(),
                metrics: vec![((*set).to_owned(), (*name).to_owned())],
                ..Change::new(Action::Remove, Kind::Metric, project, &format!("{set}/{name}"))
            };
            let edit = Edit::DeleteMetric { project: project.clone(), set: (*set).to_owned(), metric: (*name).to_owned() };
            self.push(change, edit);
        }
        for set in known_sets.iter().filter(|set| !wanted.sets.contains(set)) {
            if prune {
                let edit = Edit::DeleteSet { project: project.clone(), set: set.clone() };
                self.push(Change::new(Action::Remove, Kind::MetricSet, project, set), edit);
            } else {
                self.left_alone.push(format!("metric set {project}/{set}"));
            }
        }
        for (name, settings) in before.stores.iter().filter(|(name, _)| !wanted.stores.iter().any(|(store, _)| store == *name)) {
            if !prune {
                self.left_alone.push(format!("metric store {project}/{name}"));
                continue;
            }
            debug_assert!(!after.stores.contains_key(name));
            let change = Change {
                targets: before.titles(&[name]),
                at_once: true,
                metrics: before.metrics_of(&settings.sets),
                ..Change::new(Action::Remove, Kind::MetricStore, project, name)
            };
            self.push(change, Edit::DeleteStore { project: project.clone(), store: (*name).to_owned() });
        }
    }

    fn push(&mut self, change: Change, edit: Edit) {
        self.changes.push(change);
        self.edits.push(edit);
    }
}

impl Change {
    fn new(action: Action, kind: Kind, project: &str, name: &str) -> Change {
        Change {
            action,
            kind,
            project: project.to_owned(),
            name: name.to_owned(),
            fields: Vec::new(),
            targets: Vec::new(),
            first_windows: Vec::new(),
            at_once: false,
            series: None,
            metrics: Vec::new(),
        }
    }
}

fn metric_fields(old: &MetricDraft, new: &MetricDraft) -> Vec<FieldChange> {
    let shown = |draft: &MetricDraft| {
        let query = grammar::write(&draft.query);
        let mut fields = Map::new();
        for part in ["filter", "group", "fold"] {
            fields.insert(format!("query.{part}"), query[part].clone());
        }
        fields.insert("zero_for".into(), json!(draft.zero_for));
        fields.insert("series_budget".into(), json!(draft.series_budget));
        fields
    };
    let fields = different(&shown(old), &shown(new));
    // Two queries that are written the same are the same but for what the grammar does not write.
    if fields.is_empty() && old.query != new.query {
        return vec![FieldChange { field: "query".into(), old: Json::Null, new: Json::Null, secret: false }];
    }
    fields
}

fn store_fields(old: &StoreSettings, new: &StoreSettings, secrets: &SecretEdits) -> Vec<FieldChange> {
    let mut fields = different(&settings_of(old), &settings_of(new));
    fields.extend(secrets.keys().map(|field| FieldChange { field: field.clone(), old: Json::Null, new: Json::Null, secret: true }));
    fields
}

fn different(old: &Map<String, Json>, new: &Map<String, Json>) -> Vec<FieldChange> {
    let value = |map: &Map<String, Json>, field: &str| map.get(field).cloned().unwrap_or(Json::Null);
    let names = old.keys().chain(new.keys().filter(|field| !old.contains_key(*field)));
    let changes = names.map(|field| FieldChange { field: field.clone(), old: value(old, field), new: value(new, field), secret: false });
    changes.filter(|change| change.old != change.new).collect()
}

/// The secret edits of a draft that change something.
fn changed_secrets(known: Option<&Store>, draft: &StoreDraft) -> SecretEdits {
    let stored = |field: &str| known.and_then(|known| known.secrets.get(field));
    draft
        .secrets
        .iter()
        .filter(|(field, secret)| stored(field) != secret.as_ref())
        .map(|(field, secret)| (field.clone(), secret.clone()))
        .collect()
}

/// Addresses and secrets serve the backlog too; what shapes points begins with a window.
fn applies_at_once(settings: &StoreSettings, change: &FieldChange) -> bool {
    change.secret || settings.fields.contains_key(&change.field) && matches!(change.field.as_str(), "url" | "host" | "port" | "tls")
}

/// The first window that a store seals with its settings of after, were they saved now.
fn first_window(known: Option<&Store>, name: &str, settings: &StoreSettings, now: Stamp) -> FirstWindow {
    let (from, gap_secs) = match known {
        None => (now, 0),
        Some(known) => {
            let mut store = known.clone();
            if store.newest().settings != *settings {
                let number = store.newest().number + 1;
                store.revisions.push(StoreRevision { number, begins: now, settings: settings.clone() });
            }
            let (from, gap_secs) = store.newest_governs_from();
            (from.max(now), if from > now { gap_secs } else { 0 })
        }
    };
    let window = settings.period.first_window_from(from);
    FirstWindow { store: name.to_owned(), start: window.start_secs(), end: window.end_secs(), gap_secs }
}
