//! The event stream of a project: says that something of it has changed, and of what kind; whoever listens then asks the API again, and
//! is answered by its rules.
//!
//! A stream looks at a few counters from time to time and tells what has moved since it last told. So there is no queue: to a slow reader
//! any number of changes become one, and nobody who causes a change waits for those who listen.

use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use catalog::{MetricId, Scope, Snapshot, StoreId};
use export::{Metadata, Phase};
use futures_util::stream;
use model::ProjectId;
use serde_json::json;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// From look to look: so late is an event at most, and so many a second at most.
const LOOK: Duration = Duration::from_millis(250);
/// A comment is sent after so long a silence, so that proxies keep the connection and a reader that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Streams of all projects at one time.
const STREAMS: usize = 256;
/// Streams of one project at one time: a few projects cannot have them all.
const OF_ONE_PROJECT: usize = 64;

/// How many streams each project has open.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<ProjectId, usize>>);

/// A place among the streams; given back when it is dropped.
struct Seat {
    streams: Arc<Streams>,
    project: ProjectId,
}

impl Streams {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<ProjectId, usize>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(self: &Arc<Streams>, project: ProjectId) -> Option<Seat> {
        self.with(|open| {
            let of_project = open.get(&project).copied().unwrap_or_default();
            if of_project >= OF_ONE_PROJECT || open.values().sum::<usize>() >= STREAMS {
                return None;
            }
            open.insert(project, of_project + 1);
            Some(Seat { streams: self.clone(), project })
        })
    }

    /// Streams of all projects.
    pub(crate) fn open(&self) -> usize {
        self.with(|open| open.values().sum())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.streams.with(|open| {
            if let Some(count) = open.get_mut(&self.project) {
                *count -= 1;
            }
            open.retain(|_, count| *count > 0);
        });
    }
}

/// What of a project is compared from look to look. Nothing of another project is in it.
#[derive(PartialEq)]
struct Seen {
    accepted: u64,
    refused: u64,
    configuration: Arc<Configuration>,
    ledger: u64,
    /// What each push store's task does: it changes a moment after what the task has recorded.
    tasks: Vec<(StoreId, Phase, Metadata)>,
}

/// What a project has: its sets, and the newest revision of every metric and store.
#[derive(PartialEq, Eq)]
struct Configuration {
    sets: Vec<String>,
    metrics: Vec<(MetricId, u32)>,
    stores: Vec<(StoreId, u32, bool)>,
}

impl Configuration {
    fn of(snapshot: &Snapshot, project: ProjectId) -> Configuration {
        let metrics = snapshot.metrics.iter().filter(|metric| metric.project == project && metric.deleted.is_none());
        let stores = snapshot.stores.iter().filter(|store| store.project == project && store.deleted.is_none());
        Configuration {
            sets: snapshot.projects.iter().filter(|one| one.id == project).flat_map(|one| one.sets.clone()).collect(),
            metrics: metrics.map(|metric| (metric.id, metric.newest().number)).collect(),
            stores: stores.map(|store| (store.id, store.newest().number, store.paused)).collect(),
        }
    }
}

/// What happened to a project between two looks.
fn topics(before: &Seen, after: &Seen) -> Vec<&'static str> {
    let moved = [
        ("reports", before.accepted != after.accepted),
        ("refusals", before.refused != after.refused),
        ("configuration", before.configuration != after.configuration),
        ("stores", before.ledger != after.ledger || before.tasks != after.tasks),
    ];
    moved.into_iter().filter(|(_, moved)| *moved).map(|(topic, _)| topic).collect()
}

/// One open stream.
struct Listener {
    app: Arc<App>,
    caller: Caller,
    project: ProjectId,
    /// Version of the snapshot that the configuration below was taken from.
    version: u64,
    configuration: Arc<Configuration>,
    /// `None` before the first event.
    seen: Option<Seen>,
    _seat: Seat,
}

impl Listener {
    fn look(&mut self) -> Seen {
        let snapshot = self.app.catalog.published();
        if snapshot.version != self.version {
            self.version = snapshot.version;
            self.configuration = Arc::new(Configuration::of(&snapshot, self.project));
        }
        let (accepted, refused) = self.app.intake.seen(self.project);
        let export = &self.app.export;
        let tasks = self.configuration.stores.iter().map(|&(id, ..)| (id, export.phase(id), export.metadata(id))).collect();
        Seen { accepted, refused, configuration: self.configuration.clone(), ledger: self.app.catalog.ledger_changes(self.project), tasks }
    }

    /// The next event; `None` when the server stops, or would not let the caller in any more.
    async fn next(&mut self) -> Option<Event> {
        if self.seen.is_none() {
            self.seen = Some(self.look());
            let opened = json!({"version": crate::VERSION, "page": super::web::edition()});
            return Some(Event::default().event("opened").data(opened.to_string()));
        }
        let mut stopping = self.app.stopping.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return None,
            }
            if !self.caller.is_still_welcome(&self.app) {
                return None;
            }
            let after = self.look();
            let topics = self.seen.as_ref().map_or_else(Vec::new, |before| topics(before, &after));
            self.seen = Some(after);
            if !topics.is_empty() {
                return Some(Event::default().event("changed").data(json!({"topics": topics}).to_string()));
            }
        }
    }
}

/// Tells what of a project changes, as server-sent events, until the server stops or the token ends. The first event is `opened` with
/// the server's `version` and the `page` it serves; then `changed` with `topics` out of `reports`, `refusals`, `configuration` and
/// `stores`, at most four a second. What has changed is asked for at its own address.
#[utoipa::path(get, path = "/api/v1/projects/{project}/events", params(("project" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 503, body = crate::reply::ProblemBody)))]
pub(crate) async fn stream(State(app): State<Arc<App>>, caller: Caller, Path(project): Path<String>) -> Result<Response, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    let seat = app.streams.take(project).ok_or_else(|| {
        let detail =
            format!("{OF_ONE_PROJECT} event streams of a project and {STREAMS} in all are open; ask again from time to time instead");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "", detail)
    })?;
    let snapshot = app.catalog.published();
    let (version, configuration) = (snapshot.version, Arc::new(Configuration::of(&snapshot, project)));
    let listener = Listener { app, caller, project, version, configuration, seen: None, _seat: seat };
    let events = stream::unfold(listener, async |mut listener| listener.next().await.map(|event| (Ok::<_, Infallible>(event), listener)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_its_streams_and_all_have_theirs() {
        let streams = Arc::new(Streams::default());
        let take = |project| streams.take(ProjectId(project));
        let mut seats: Vec<Seat> = (0..OF_ONE_PROJECT).map(|_| take(1).expect("a seat")).collect();
        assert!(take(1).is_none());
        seats.extend((OF_ONE_PROJECT..STREAMS).map(|at| take(2 + at as u32 / OF_ONE_PROJECT as u32).expect("a seat")));
        assert!(take(99).is_none() && streams.open() == STREAMS);
        seats.remove(0);
        assert!(take(99).is_some() && take(1).is_some());
        seats.clear();
        assert_eq!(streams.open(), 0);
    }

    #[test]
    fn what_moved_is_told_by_its_name() {
        let configuration = Arc::new(Configuration { sets: vec!["a".into()], metrics: vec![], stores: vec![] });
        let seen = || Seen { accepted: 1, refused: 2, configuration: configuration.clone(), ledger: 3, tasks: vec![] };
        let other = Arc::new(Configuration { sets: vec![], metrics: vec![], stores: vec![] });
        let task = (StoreId(1), Phase::Paused, Metadata::default());
        for (after, expected) in [
            (seen(), vec![]),
            (Seen { accepted: 2, ..seen() }, vec!["reports"]),
            (Seen { refused: 3, ledger: 4, ..seen() }, vec!["refusals", "stores"]),
            (Seen { configuration: other, ..seen() }, vec!["configuration"]),
            (Seen { tasks: vec![task], ..seen() }, vec!["stores"]),
        ] {
            assert_eq!(topics(&seen(), &after), expected);
        }
    }
}
