//! The configuration API beside a model of a page: any sequence of edits of two projects, each answer compared with what the model
//! says, and nothing of the one project ever in an answer about the other.

use crate::crashmeter::{Crashmeter, Project};
use crate::http;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

const SETS: [&str; 2] = ["crashes", "a b"];
const METRICS: [&str; 2] = ["all", "x/y"];
const STORES: [&str; 2] = ["prom", "pr\u{f6}m"];

/// One edit; numbers choose among the names.
#[derive(Clone, Debug)]
enum Edit {
    PutSet(usize),
    DeleteSet(usize),
    /// Set, metric, which query, and the revision it claims to edit: none, the true one, or another.
    PutMetric(usize, usize, usize, Claim),
    DeleteMetric(usize, usize),
    /// Store, period, which sets, and the revision it claims.
    PutStore(usize, u32, usize, Claim),
    DeleteStore(usize),
    Pause(usize, bool),
    /// Ends the server and starts it again.
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Claim {
    None,
    True,
    Other,
}

fn edit() -> impl Strategy<Value = Edit> {
    let claim = || prop_oneof![3 => Just(Claim::None), 2 => Just(Claim::True), 1 => Just(Claim::Other)];
    prop_oneof![
        1 => (0..2usize).prop_map(Edit::PutSet),
        1 => (0..2usize).prop_map(Edit::DeleteSet),
        5 => (0..2usize, 0..2usize, 0..3usize, claim()).prop_map(|(set, metric, query, claim)| Edit::PutMetric(set, metric, query, claim)),
        2 => (0..2usize, 0..2usize).prop_map(|(set, metric)| Edit::DeleteMetric(set, metric)),
        4 => (0..2usize, prop::sample::select(vec![1, 60, 3_600]), 0..4usize, claim())
            .prop_map(|(store, period, sets, claim)| Edit::PutStore(store, period, sets, claim)),
        1 => (0..2usize).prop_map(Edit::DeleteStore),
        2 => (0..2usize, any::<bool>()).prop_map(|(store, paused)| Edit::Pause(store, paused)),
        1 => Just(Edit::Restart),
    ]
}

/// What a store is, as far as the model goes.
#[derive(Clone, Debug, PartialEq)]
struct Store {
    period: u32,
    sets: Vec<String>,
    revision: u64,
    paused: bool,
}

/// What there is in a project.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    sets: BTreeSet<String>,
    /// By set and name: which query, and the revision.
    metrics: BTreeMap<(String, String), (usize, u64)>,
    stores: BTreeMap<String, Store>,
}

fn query(which: usize) -> Value {
    [
        json!({"fold": {"_tx": [["count"]]}}),
        json!({"group": ["kind"], "fold": {"_tx": [["unique"]]}}),
        json!({"filter": [{"kind": [["equal", "crash"]]}], "fold": {"age": [["max"]]}}),
    ][which]
        .clone()
}

/// The status of an edit that claims a revision, and whether it is made.
fn judged(claim: Claim, revision: u64) -> (Option<u64>, bool) {
    match claim {
        Claim::None => (None, true),
        Claim::True => (Some(revision), true),
        Claim::Other => (Some(revision + 1), false),
    }
}

impl Model {
    /// Makes the edit; what the server has to answer, and what is asked of it: method, address, body, claimed revision.
    fn edit(&mut self, edit: &Edit) -> (u16, &'static str, Vec<&'static str>, Value, Option<u64>) {
        let there = |is: bool, status: u16| if is { status } else { 404 };
        match edit {
            Edit::PutSet(set) => {
                self.sets.insert(SETS[*set].to_owned());
                (204, "PUT", vec!["metric-sets", SETS[*set]], Value::Null, None)
            }
            Edit::DeleteSet(set) => {
                let was = self.sets.remove(SETS[*set]);
                self.metrics.retain(|(of, _), _| of != SETS[*set]);
                (there(was, 204), "DELETE", vec!["metric-sets", SETS[*set]], Value::Null, None)
            }
            Edit::PutMetric(set, metric, which, claim) => {
                let key = (SETS[*set].to_owned(), METRICS[*metric].to_owned());
                let (old, revision) = self.metrics.get(&key).map_or((None, 0), |(query, revision)| (Some(*query), *revision));
                let (claimed, made) = judged(*claim, revision);
                // A slash would be another address.
                let legal = !METRICS[*metric].contains('/');
                if made && legal {
                    self.sets.insert(key.0.clone());
                    self.metrics.insert(key, (*which, revision + u64::from(old != Some(*which))));
                }
                let status = if !legal {
                    422
                } else if made {
                    200
                } else {
                    412
                };
                let address = vec!["metric-sets", SETS[*set], "metrics", METRICS[*metric]];
                (status, "PUT", address, json!({"query": query(*which)}), claimed)
            }
            Edit::DeleteMetric(set, metric) => {
                let was = self.metrics.remove(&(SETS[*set].to_owned(), METRICS[*metric].to_owned())).is_some();
                (there(was, 204), "DELETE", vec!["metric-sets", SETS[*set], "metrics", METRICS[*metric]], Value::Null, None)
            }
            Edit::PutStore(store, period, sets, claim) => {
                let sets: Vec<String> =
                    SETS.iter().enumerate().filter(|(at, _)| sets >> at & 1 == 1).map(|(_, set)| (*set).to_owned()).collect();
                let old = self.stores.get(STORES[*store]).cloned();
                let revision = old.as_ref().map_or(0, |old| old.revision);
                let (claimed, made) = judged(*claim, revision);
                if made {
                    let same = old.as_ref().is_some_and(|old| (old.period, &old.sets) == (*period, &sets));
                    let paused = old.is_some_and(|old| old.paused);
                    let new = Store { period: *period, sets: sets.clone(), revision: revision + u64::from(!same), paused };
                    self.stores.insert(STORES[*store].to_owned(), new);
                }
                let body = json!({"adapter": "graphite", "host": "127.0.0.1", "port": 9, "period": period, "sets": sets});
                (if made { 200 } else { 412 }, "PUT", vec!["metric-stores", STORES[*store]], body, claimed)
            }
            Edit::DeleteStore(store) => {
                let was = self.stores.remove(STORES[*store]).is_some();
                (there(was, 204), "DELETE", vec!["metric-stores", STORES[*store]], Value::Null, None)
            }
            Edit::Pause(store, paused) => {
                let found = self.stores.get_mut(STORES[*store]);
                let was = found.is_some();
                found.into_iter().for_each(|store| store.paused = *paused);
                let action = if *paused { "pause" } else { "resume" };
                (there(was, 204), "POST", vec!["metric-stores", STORES[*store], action], Value::Null, None)
            }
            Edit::Restart => unreachable!("no request"),
        }
    }

    /// What the server says there is.
    fn of(project: &Project) -> Model {
        let mut model = Model::default();
        for set in project.ask("GET", "metric-sets", Value::Null).expect(200).json().as_array().expect("a list") {
            let name = set["name"].as_str().expect("a name").to_owned();
            for metric in set["metrics"].as_array().expect("a list") {
                let which = (0..3).find(|which| {
                    let (saved, sent) = (model::grammar::parse(&metric["query"]), model::grammar::parse(&query(*which)));
                    saved.expect("readable").query == sent.expect("readable").query
                });
                let place = (name.clone(), metric["name"].as_str().expect("a name").to_owned());
                let revision = metric["revision"].as_u64().expect("a number");
                model.metrics.insert(place, (which.unwrap_or_else(|| panic!("another query: {metric}")), revision));
            }
            model.sets.insert(name);
        }
        for store in project.ask("GET", "metric-stores", Value::Null).expect(200).json().as_array().expect("a list") {
            let sets = store["sets"].as_array().expect("a list").iter().map(|set| set.as_str().expect("a name").to_owned()).collect();
            let shown = Store {
                period: store["period"].as_u64().expect("seconds") as u32,
                sets,
                revision: store["revision"].as_u64().expect("a number"),
                paused: store["paused"].as_bool().expect("a truth"),
            };
            model.stores.insert(store["name"].as_str().expect("a name").to_owned(), shown);
        }
        model
    }
}

/// Sends an edit to a project.
fn send(server: &Crashmeter, project: &str, method: &str, address: &[&str], body: &Value, claimed: Option<u64>) -> http::Reply {
    let mut url = url::Url::parse(&server.url()).expect("an address");
    url.path_segments_mut().expect("a base").extend(["api", "v1", "projects", project]).extend(address);
    let authorization = server.authorization();
    let claimed = claimed.map(|revision| format!("\"{revision}\""));
    let mut headers = vec![("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    headers.extend(claimed.as_deref().map(|claimed| ("If-Match", claimed)));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::call(method, url.as_str(), &headers, body).expect("an answer")
}

#[test]
fn any_sequence_of_edits_leaves_what_a_model_says() {
    let server = std::cell::RefCell::new(Crashmeter::start());
    let number = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 24, max_shrink_iters: 40, failure_persistence: None, ..Config::default() });
    let edits = prop::collection::vec((any::<bool>(), edit()), 1..40);
    let outcome = runner.run(&edits, |edits| {
        number.set(number.get() + 1);
        let names = [format!("left-{}", number.get()), format!("right-{}", number.get())];
        let projects = names.each_ref().map(|name| server.borrow().project(name));
        let mut models = [Model::default(), Model::default()];
        for (right, edit) in &edits {
            let at = usize::from(*right);
            if matches!(edit, Edit::Restart) {
                server.borrow_mut().kill();
                server.borrow_mut().resume();
            } else {
                let (status, method, address, body, claimed) = models[at].edit(edit);
                let reply = send(&server.borrow(), &names[at], method, &address, &body, claimed);
                prop_assert_eq!(reply.status, status, "{:?}: {}", edit, reply.body);
                prop_assert!(!reply.body.contains(&names[1 - at]), "{:?} of {} told of the other: {}", edit, names[at], reply.body);
            }
            for (project, model) in projects.iter().zip(&models) {
                prop_assert_eq!(&Model::of(project), model, "after {:?}", edit);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let audit = server.borrow().ask("GET", "/api/v1/audit", Value::Null).expect(200).json();
    assert_eq!(audit["balances"], true, "{}", audit["told"]);
}
