//! The audit over a real database: what is sound balances, and whatever is falsified behind the catalog's back is named.

use catalog::{
    Attempt, BackfillDraft, BackfilledWindow, Catalog, MetricDraft, SealedMetric, SealedWindow, SecretEdits, Settled, Slot, StoreDraft,
    StoreId, StoreSettings, WindowFacts, audit,
};
use model::{Aggregate, AggregateOp, PathTemplate, Period, ProjectId, Query, Stamp, Window};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;

struct Fixture {
    folder: tempfile::TempDir,
    catalog: Catalog,
    project: ProjectId,
    push: StoreId,
    pull: StoreId,
}

fn at(seconds: u64) -> impl Fn() -> Stamp {
    move || Stamp::from_secs(seconds)
}

fn period() -> Period {
    Period::new(10).expect("legal")
}

fn window(start: u64) -> Window {
    Window::new(start, period()).expect("on the grid")
}

fn put_store(catalog: &Catalog, project: ProjectId, name: &str, adapter: &str, stamp: u64) -> StoreId {
    let settings = StoreSettings {
        adapter: adapter.into(),
        period: period(),
        sets: vec!["s".into()],
        prefix: "p".into(),
        template: PathTemplate::default(),
        label_names: BTreeMap::new(),
        labels: BTreeMap::new(),
        horizon_secs: 1_000,
        enabled: true,
        fields: serde_json::Map::new(),
    };
    let draft = StoreDraft { settings, secrets: SecretEdits::new(), pull: adapter == "prometheus" };
    catalog.put_store(project, name, &draft, None, "test", &at(stamp)).expect("saved");
    catalog.snapshot().store(project, name).expect("there").id
}

fn outcome(catalog: &Catalog, matched: u64) -> Vec<SealedMetric> {
    let one = |revision| SealedMetric { revision, failure: None, matched, own: matched - 1, folded: 1, left_out: 0, series: Vec::new() };
    catalog.snapshot().metrics.iter().map(|metric| one(metric.newest().id)).collect()
}

/// Two sealed windows, a gap, a window that is refused and expired in part, and one that is open; a pull store read once; a
/// backfilled window before all of them; and a store that was deleted.
fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path()).expect("a new catalog");
    let (project, _) = catalog.create_project("shooter", "test", &at(100)).expect("made");
    let aggregates = vec![Aggregate { op: AggregateOp::Count, attribute: "_tx".into() }];
    let draft = MetricDraft { query: Query { aggregates, ..Query::default() }, zero_for: None, series_budget: 10 };
    catalog.put_metric(project, "s", "m", &draft, None, "test", &at(105)).expect("saved");
    let push = put_store(&catalog, project, "push", "graphite", 110);
    let pull = put_store(&catalog, project, "pull", "prometheus", 110);
    let gone = put_store(&catalog, project, "gone", "graphite", 110);
    let seal = |start, stores: &[StoreId]| {
        let facts = WindowFacts { coverage: 1.0, accepted: 5, refused: vec![("busy".into(), 2)] };
        let due = stores.iter().map(|store| (*store, 10)).collect();
        let sealed = SealedWindow { project, window: window(start), facts, metrics: outcome(&catalog, 4), states: Vec::new(), due };
        catalog.seal(&sealed, Stamp::from_secs(start + 11)).expect("sealed");
    };
    seal(110, &[push, gone]);
    seal(120, &[push, gone]);
    catalog.record_gap(project, window(130), 150).expect("recorded");
    catalog.delete_store(project, "gone", "test", &at(155)).expect("deleted");
    seal(150, &[push, gone]);
    seal(160, &[push]);
    let attempt = Attempt { window_start: 110, at: 121, outcome: "ok".into(), text: String::new(), points: 10, bytes: 1, millis: 1 };
    catalog.record_attempt(push, window(110), &attempt, &Settled { sent: 10, ..Settled::default() }).expect("recorded");
    let partly = Settled {
        sent: 3,
        refused: 4,
        refused_for: vec![("too long".into(), 3)],
        excluded: 2,
        excluded_for: vec![("not finite".into(), 2)],
        ..Settled::default()
    };
    catalog.record_attempt(push, window(120), &attempt, &partly).expect("recorded");
    catalog.expire(push, window(120), 1, "older than the horizon").expect("recorded");
    catalog.record_read(pull, window(120), Stamp::from_secs(131), "somebody", 9).expect("recorded");

    let draft = BackfillDraft { period: period(), since: 80, until: 110, sets: vec!["s".into()] };
    catalog.start_backfill(project, "push", &draft, "test", &at(170)).expect("begun");
    for start in [80, 90] {
        let backfill = catalog.running_backfills().expect("read").pop().expect("under way");
        let facts = Some(WindowFacts { coverage: 1.0, accepted: 4, refused: Vec::new() });
        let metrics = outcome(&catalog, 3);
        let filled = BackfilledWindow { project, window: window(start), facts, metrics, states: Vec::new(), due: 7 };
        assert!(catalog.seal_backfilled(&backfill, &filled, Stamp::from_secs(171)).expect("sealed"));
        assert!(!catalog.seal_backfilled(&backfill, &filled, Stamp::from_secs(171)).expect("nothing done"), "no window twice");
    }
    let slot = Slot { window: window(80), backfill: 1 };
    catalog.record_attempt(push, slot, &attempt, &Settled { confirmed: 7, ..Settled::default() }).expect("recorded");
    Fixture { folder, catalog, project, push, pull }
}

fn check(folder: &Path) -> catalog::Audit {
    audit(folder, None, &|adapter| adapter != "prometheus").expect("readable")
}

#[test]
fn what_is_sound_balances_and_its_accounts_are_told() {
    let f = fixture();
    let found = check(f.folder.path());
    assert_eq!((found.balances, found.imbalances, &found.told), (true, 0, &Vec::new()));
    let project = &found.projects[0];
    let grid = &project.grids[0];
    assert_eq!((grid.from, grid.to, grid.windows, grid.gaps, grid.gap_seconds), (80, 170, 6, 1, 20));
    assert_eq!((grid.accepted, grid.refused["busy"]), (4 * 5 + 2 * 4, 8));
    assert_eq!((grid.metrics_sealed, grid.matched, grid.own, grid.folded), (6, 22, 16, 6));
    let store = |name: &str| project.stores.iter().find(|store| store.store == name).expect("audited");
    let push = store("push").push.expect("a push store");
    assert_eq!((push.windows, push.attempts, push.points.due), (6, 3, 54));
    let points = push.points;
    assert_eq!((points.confirmed, points.sent, points.refused, points.excluded, points.expired, points.open), (7, 13, 4, 2, 1, 27));
    assert_eq!(store("gone").push.expect("a push store").points.cancelled, 30);
    let pull = store("pull").pull.expect("a pull store");
    assert_eq!((pull.sealed, pull.current, pull.read, pull.unread), (4, 1, 1, 2));
    assert_eq!(f.catalog.ledger(f.push).expect("read"), points, "the sums kept are the same");
    let refused = f.catalog.deliveries(f.push, 120, 130, 1).expect("read").remove(0).reasons;
    let refused: Vec<_> = refused.iter().map(|one| (one.fate.as_str(), one.reason.as_str(), one.points)).collect();
    let expected = [
        ("excluded", "not finite", 2),
        ("expired", "older than the horizon", 1),
        ("refused", "not named by the store", 1),
        ("refused", "too long", 3),
    ];
    assert_eq!(refused, expected);
    let outcomes = f.catalog.snapshot().metrics[0].id;
    let outcomes = f.catalog.metric_outcomes(f.project, outcomes, period(), (110, 200), 10).expect("read");
    let outcomes: Vec<_> = outcomes.iter().map(|one| (one.start, one.end, one.outcome.as_str(), one.matched)).collect();
    let expected =
        [(110, 120, "sealed", 4), (120, 130, "sealed", 4), (130, 150, "gap", 0), (150, 160, "sealed", 4), (160, 170, "sealed", 4)];
    assert_eq!(outcomes, expected);
    assert_ne!(f.push, f.pull);
}

#[test]
fn a_cancelled_backfill_owes_nothing_and_still_balances() {
    let f = fixture();
    f.catalog.cancel_backfill(f.project, "push", "test", &at(180)).expect("cancelled");
    let backfill = f.catalog.backfills(f.push, 1).expect("read").remove(0);
    assert_eq!((backfill.outcome.as_deref(), backfill.windows, backfill.open_points), (Some("cancelled"), 2, 0));
    assert_eq!(f.catalog.ledger(f.push).expect("read").cancelled, 7);
    assert_eq!(check(f.folder.path()).told, Vec::<String>::new());
}

#[test]
fn every_imbalance_that_is_planted_is_named() {
    for (plant, named) in [
        ("UPDATE delivery SET sent = sent + 1 WHERE start = 110", "window 110 of 10 s: 10 points due"),
        ("UPDATE delivery SET due = due - 1, sent = sent - 1 WHERE start = 110", "the sums kept are"),
        ("UPDATE delivery SET attempts = 0 WHERE start = 110", "the sums kept are"),
        ("DELETE FROM delivery WHERE start = 120", "window 120: sealed without its delivery"),
        ("UPDATE ledger_total SET confirmed = confirmed + 1", "the sums kept are"),
        ("DELETE FROM ledger_total", "the sums kept are"),
        ("UPDATE delivery_reason SET points = 9 WHERE fate = 'refused' AND reason = 'too long'", "4 points refused, but 10 with a reason"),
        ("DELETE FROM delivery_reason WHERE fate = 'expired'", "1 points expired, but 0 with a reason"),
        ("UPDATE delivery SET cancelled = 0, open = due WHERE cancelled > 0", "points open, though the store is deleted"),
        ("DELETE FROM gap", "neither a window nor a gap from 130 to 150"),
        ("UPDATE gap SET until = 140", "neither a window nor a gap from 140 to 150"),
        ("UPDATE gap SET until = 160", "overlaps what ends at 160"),
        ("UPDATE gap SET until = 145", "is not on the grid"),
        ("DELETE FROM sealed_window WHERE start = 120", "neither a window nor a gap from 120 to 130"),
        ("UPDATE position SET sealed_end = 180", "neither a window nor a gap from 170 to 180"),
        ("UPDATE position SET sealed_end = 160", "the position 160 is before the end 170"),
        ("UPDATE sealed_metric SET own = own + 1 WHERE start = 150", "window 150: 4 reports matched, but own 4 + folded 1"),
        ("UPDATE sealed_metric SET matched = 9, own = 8 WHERE start = 150", "window 150: 9 reports matched of 5 accepted"),
        ("DELETE FROM sealed_metric WHERE start = 150", "window 150: sealed without its outcome"),
        ("UPDATE sealed_metric SET start = 140 WHERE start = 150", "sealed in window 140, which is not a sealed window"),
        ("UPDATE sealed_metric SET backfill = 0 WHERE start = 90", "window 90: sealed by revision 1, which was not in force"),
        ("UPDATE delivery SET backfill = 0 WHERE start = 90", "window 90: has its delivery though it was not due"),
        ("UPDATE pull_read SET windows_read = 9", "9 windows read"),
        ("UPDATE pull_read SET start = 500", "the last Some(500)"),
    ] {
        let f = fixture();
        let other = Connection::open(f.folder.path().join("catalog.sqlite")).expect("opens");
        other.execute_batch("PRAGMA ignore_check_constraints = 1; PRAGMA foreign_keys = 0").expect("set");
        assert!(other.execute(plant, []).expect(plant) > 0, "{plant} changes nothing");
        let found = check(f.folder.path());
        assert!(!found.balances && found.told.iter().any(|told| told.contains(named)), "{plant}: {:?}", found.told);
    }
}
