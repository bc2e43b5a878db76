//! The real sealer and the real delivery tasks over a naive source of reports and stores that fail, stall and lie.

mod faults;
mod simulation;
mod store;
mod twin;

use catalog::{BackfillDraft, Catalog, MetricDraft, SecretEdits, StoreDraft, StoreId, StoreSettings};
use export::egress::EgressPolicy;
use export::send::Door;
use export::{Export, Phase};
use model::{Aggregate, AggregateOp, Period, ProjectId, Query, Stamp, Window};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Answer, FakeStore};
use twin::Twin;

/// One running export over a catalog in `folder`.
struct World {
    folder: tempfile::TempDir,
    twin: Arc<Twin>,
    project: ProjectId,
    catalog: Arc<Catalog>,
    export: Option<(Export<Twin>, tokio::task::JoinHandle<export::SourceStopped>)>,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let twin = Arc::new(Twin::new());
        let catalog = Arc::new(Catalog::open(folder.path()).expect("opens"));
        let project = catalog.create_project("p", "test", &|| twin.time()).expect("made").0;
        World { folder, twin, project, catalog, export: None }
    }

    fn start(&mut self) {
        let policy = EgressPolicy { allowed: vec!["127.0.0.0/8".parse().expect("a network")], own: vec![] };
        self.export = Some(Export::start(self.twin.clone(), self.catalog.clone(), Door::new(policy)));
    }

    /// Ends everything in the middle of whatever it does, and opens the catalog anew.
    async fn crash(&mut self) {
        if let Some((export, sealer)) = self.export.take() {
            sealer.abort();
            drop(export);
            let _ = sealer.await;
        }
        self.catalog = Arc::new(Catalog::open(self.folder.path()).expect("opens again"));
        self.start();
    }

    fn put_metric(&self, name: &str, group: &[&str], aggregates: &[(AggregateOp, &str)]) {
        let query = Query {
            group: group.iter().map(|&one| one.to_owned()).collect(),
            aggregates: aggregates.iter().map(|&(op, attribute)| Aggregate { op, attribute: attribute.to_owned() }).collect(),
            ..Query::default()
        };
        let draft = MetricDraft { query, zero_for: None, series_budget: 1_000 };
        self.catalog.put_metric(self.project, "s", name, &draft, None, "test", &|| self.twin.time()).expect("saved");
    }

    fn put_influx(&self, name: &str, url: &str) -> StoreId {
        self.put_influx_with(1, &["s"], name, url)
    }

    fn put_influx_with(&self, period: u32, sets: &[&str], name: &str, url: &str) -> StoreId {
        let fields = json!({"url": format!("{url}/write?db=x")}).as_object().expect("an object").clone();
        let settings = StoreSettings {
            adapter: "influxdb".into(),
            period: Period::new(period).expect("legal"),
            sets: sets.iter().map(|&set| set.to_owned()).collect(),
            prefix: "t".into(),
            template: model::PathTemplate::default(),
            label_names: BTreeMap::new(),
            labels: BTreeMap::new(),
            horizon_secs: 1_000_000,
            enabled: true,
            fields,
        };
        let draft = StoreDraft { settings, secrets: SecretEdits::new(), pull: false };
        self.catalog.put_store(self.project, name, &draft, None, "test", &|| self.twin.time()).expect("saved");
        self.catalog.snapshot().store(self.project, name).expect("there").id
    }

    fn sealed_until(&self) -> u64 {
        self.catalog.sealed_end(self.project, Period::new(1).expect("legal")).expect("read").unwrap_or(0)
    }
}

/// Waits for a condition, at most a quarter of a minute.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(15), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_window_equals_a_naive_evaluation_through_crashes_and_edits() {
    let mut world = World::new();
    let store = FakeStore::start(|_, _| Answer::Status(204, ""));
    world.put_metric("all", &[], &[(AggregateOp::Count, "_tx"), (AggregateOp::Sum, "n"), (AggregateOp::Unique, "user")]);
    world.put_metric("by", &["kind"], &[(AggregateOp::Unique, "_tx"), (AggregateOp::Max, "n"), (AggregateOp::Mean, "n")]);
    let id = world.put_influx("a", store.url());
    world.start();
    let begin = world.twin.time();
    for round in 0..6 {
        world.twin.submit(40);
        let want = world.sealed_until().max(begin.secs()) + 8;
        until("windows sealed", || world.sealed_until() >= want).await;
        match round {
            1 => world.put_metric("by", &["kind"], &[(AggregateOp::Unique, "user"), (AggregateOp::Max, "n")]),
            2 => world.put_metric("by", &["user"], &[(AggregateOp::Count, "_tx")]),
            _ => {}
        }
        world.crash().await;
    }
    until("everything delivered", || world.catalog.backlog(id).expect("read").0 == 0).await;

    let snapshot = world.catalog.snapshot();
    let period = Period::new(1).expect("legal");
    let (mut window, mut windows, mut counted) = (period.first_window_from(begin).next(), 0, 0);
    let sets = ["s".to_owned()];
    let end = world.sealed_until();
    while window.end_secs() <= end {
        for (metric, revision) in snapshot.metrics_due(world.project, window, &sets) {
            let sealed = world
                .catalog
                .sealed_metric(revision.id, window)
                .expect("read")
                .unwrap_or_else(|| panic!("{} is not sealed in {window}", metric.name));
            let expected = world.twin.evaluate_naively(window, &revision.query);
            assert_eq!(sealed.matched, world.twin.count(window));
            assert_eq!((sealed.own, sealed.folded), (sealed.matched, 0));
            for one in sealed.series.iter().filter(|one| one.live) {
                let key: Vec<Option<String>> =
                    one.key.iter().map(|label| if let model::Label::Text(text) = label { Some(text.clone()) } else { None }).collect();
                for (at, cell) in one.cells.iter().enumerate() {
                    let zero = revision.query.aggregates[at].op.zero_when_empty().then_some(0.0);
                    assert_eq!(cell.value, expected.get(&key).map_or(zero, |values| values[at]), "{} {key:?} in {window}", metric.name);
                }
            }
            for key in expected.keys() {
                assert!(sealed.series.iter().any(|one| {
                    one.live
                        && one
                            .key
                            .iter()
                            .map(|label| if let model::Label::Text(text) = label { Some(text.clone()) } else { None })
                            .eq(key.iter().cloned())
                }));
            }
            if metric.name == "all" {
                counted += sealed.matched;
            }
        }
        windows += 1;
        window = window.next();
    }
    assert!(windows >= 40, "{windows} windows");
    assert_eq!(counted, world.twin.count_between(period.first_window_from(begin).next().start(), Stamp::from_secs(end)));
    let ledger = world.catalog.ledger(id).expect("read");
    assert_eq!((ledger.confirmed, ledger.imbalance()), (ledger.due, 0));
    // The store has each window at least once, and what it got twice it got in the same bytes.
    let received = store.received();
    let mut by_window: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for body in &received {
        assert_eq!(*by_window.entry(body.time).or_insert(&body.bytes), body.bytes.as_slice(), "a resend has the first bytes");
    }
    assert!(by_window.len() as u64 >= windows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_down_gets_every_window_in_order_and_another_never_notices() {
    let mut world = World::new();
    // Down in every way there is: refusing, resetting, saying so; some bytes arrive without an answer.
    let down = FakeStore::start(|n, _| match n {
        0..=3 => Answer::Status(503, "Retry-After: 0\r\n"),
        4 | 5 => Answer::Reset,
        6 => Answer::Status(500, ""),
        _ => Answer::Status(204, ""),
    });
    let healthy = FakeStore::start(|_, _| Answer::Status(204, ""));
    world.put_metric("all", &[], &[(AggregateOp::Count, "_tx")]);
    let (down_id, healthy_id) = (world.put_influx("down", down.url()), world.put_influx("healthy", healthy.url()));
    world.start();
    let begin = world.sealed_until().max(world.twin.time().secs());
    until("the healthy store is up to date while the other is not", || {
        world.twin.submit(1);
        world.sealed_until() > begin + 30
            && world.catalog.backlog(healthy_id).expect("read").0 <= 25
            && world.catalog.backlog(down_id).expect("read").0 >= 10
    })
    .await;
    until("the backlog is drained", || {
        world.export.as_ref().expect("running").0.send_now(down_id);
        world.catalog.backlog(down_id).expect("read").0 <= 20 && down.received().len() > 40
    })
    .await;
    let accepted: Vec<u64> = down.accepted().iter().map(|body| body.time).collect();
    assert!(accepted.windows(2).all(|pair| pair[0] < pair[1]), "oldest first, each once: {accepted:?}");
    assert!(accepted.windows(2).all(|pair| pair[0] + 1 == pair[1]), "none is missing: {accepted:?}");
    let first = down.received()[0].clone();
    assert!(down.received().iter().filter(|body| body.time == first.time).count() >= 7, "the first window was tried again and again");
    assert!(down.received().iter().filter(|body| body.time == first.time).all(|body| body.bytes == first.bytes), "with the same bytes");
    let ledger = world.catalog.ledger(down_id).expect("read");
    assert_eq!((ledger.refused, ledger.expired, ledger.imbalance()), (0, 0, 0));
    assert!(world.catalog.attempts(down_id, 1_000).expect("read").iter().any(|attempt| attempt.outcome == "throttle"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_needs_a_person_pauses_and_resumes_by_itself_with_nothing_lost() {
    let mut world = World::new();
    let store = FakeStore::start(|n, _| if n < 2 { Answer::Status(401, "") } else { Answer::Status(204, "") });
    world.put_metric("all", &[], &[(AggregateOp::Count, "_tx")]);
    let id = world.put_influx("a", store.url());
    world.start();
    let phase = |world: &World| world.export.as_ref().expect("running").0.phase(id);
    until("it needs attention", || matches!(phase(&world), Phase::NeedsAttention { .. })).await;
    let Phase::NeedsAttention { reason, .. } = phase(&world) else { unreachable!("just looked") };
    assert!(reason.contains("401"), "{reason}");
    assert!(world.catalog.ledger(id).expect("read").open > 0);
    until("probes are made until it answers", || {
        world.export.as_ref().expect("running").0.send_now(id);
        store.accepted().len() > 5
    })
    .await;
    let accepted: Vec<u64> = store.accepted().iter().map(|body| body.time).collect();
    assert_eq!(accepted[0], store.received()[0].time, "the window that was refused came first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_is_halved_and_a_refused_body_is_counted_and_passed() {
    let mut world = World::new();
    // Takes at most two lines at a time, and never the metric called poison.
    let store = FakeStore::start(|_, body| match body.iter().filter(|&&byte| byte == b'\n').count() {
        lines if lines > 2 => Answer::Status(413, ""),
        _ if body.windows(6).any(|window| window == b"poison") => Answer::Status(400, ""),
        _ => Answer::Status(204, ""),
    });
    for name in ["a", "b", "c", "poison", "d"] {
        world.put_metric(name, &[], &[(AggregateOp::Count, "_tx")]);
    }
    let id = world.put_influx("a", store.url());
    world.start();
    until("some windows are settled", || {
        let deliveries = world.catalog.deliveries(id, 0, u64::MAX >> 1, 1_000).expect("read");
        deliveries.iter().filter(|delivery| delivery.points.open == 0).count() >= 3
    })
    .await;
    for delivery in world.catalog.deliveries(id, 0, u64::MAX >> 1, 1_000).expect("read").iter().filter(|delivery| delivery.points.open == 0)
    {
        assert!(delivery.points.refused >= 1 && delivery.points.confirmed >= 8, "{delivery:?}");
        assert_eq!(delivery.points.imbalance(), 0);
        assert!(delivery.note.as_ref().is_some_and(|note| note.contains("400")), "{delivery:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downtime_is_a_gap_and_a_partial_window_says_its_coverage() {
    let mut world = World::new();
    let store = FakeStore::start(|_, _| Answer::Status(204, ""));
    world.put_metric("all", &[], &[(AggregateOp::Count, "_tx")]);
    let id = world.put_influx("a", store.url());
    // Down from the middle of one window to the middle of a later one.
    let now = world.twin.time();
    let (since, until_stamp) =
        (Stamp::from_micros((now.secs() + 2) * 1_000_000 + 250_000), Stamp::from_micros((now.secs() + 6) * 1_000_000 + 500_000));
    world.catalog.record_downtime(since, until_stamp).expect("recorded");
    world.start();
    until("sealed beyond", || world.sealed_until() > until_stamp.secs() + 2).await;
    let period = Period::new(1).expect("legal");
    let facts = |start| world.catalog.window_facts(world.project, Window::new(start, period).expect("on the grid")).expect("read");
    assert!((facts(since.secs()).expect("sealed").coverage - 0.25).abs() < 1e-9);
    assert!((facts(until_stamp.secs()).expect("sealed").coverage - 0.5).abs() < 1e-9);
    for start in since.secs() + 1..until_stamp.secs() {
        assert_eq!(facts(start), None, "a window without any acceptance is a gap");
    }
    until("delivered", || store.accepted().iter().any(|body| body.time == until_stamp.secs() + 1)).await;
    let times: Vec<u64> = store.accepted().iter().map(|body| body.time).collect();
    assert!(!times.contains(&(since.secs() + 1)), "no point says 0 for a time when nobody listened");
    assert_eq!(world.catalog.ledger(id).expect("read").imbalance(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_says_nothing_of_reports_that_retention_took() {
    let mut world = World::new();
    let store = FakeStore::start(|_, _| Answer::Status(204, ""));
    world.put_metric("all", &[], &[(AggregateOp::Count, "_tx")]);
    world.start();
    let begun = world.twin.time().secs() + 1;
    until("some seconds have passed", || {
        world.twin.submit(1);
        world.twin.time().secs() > begun + 8
    })
    .await;
    // From the middle of a window on there are reports.
    world.twin.give_up(Stamp::from_micros((begun + 3) * 1_000_000 + 500_000));
    world.put_influx("a", store.url());
    let draft = BackfillDraft { period: Period::new(1).expect("legal"), since: begun, until: begun + 6, sets: vec!["s".to_owned()] };
    let id = world.catalog.start_backfill(world.project, "a", &draft, "test", &|| world.twin.time()).expect("begun");
    let told = |world: &World| world.catalog.backfill(id).expect("read").expect("there");
    until("it is filled and sent", || {
        world.twin.submit(1);
        told(&world).ended.is_some() && told(&world).open_points == 0
    })
    .await;
    assert_eq!((told(&world).windows, told(&world).passed_over), (2, 4));
    let times: Vec<u64> = store.accepted().iter().map(|body| body.time).filter(|time| *time < begun + 6).collect();
    assert!(!times.is_empty() && times.iter().all(|time| [begun + 4, begun + 5].contains(time)), "{begun}: {times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_last_through_edits_and_restarts_and_are_born_anew_when_a_period_comes_back() {
    let mut world = World::new();
    let store = FakeStore::start(|_, _| Answer::Status(204, ""));
    world.put_metric("all", &[], &[(AggregateOp::Count, "_tx")]);
    world.put_influx("a", store.url());
    world.start();
    // The newest counter of a grid: when it was born, and what it has counted.
    let counter = |world: &World, period: u32| {
        let window = world.catalog.newest_sealed(world.project, Period::new(period).expect("legal")).expect("read")?;
        let snapshot = world.catalog.snapshot();
        let sealed = world.catalog.sealed_metric(snapshot.metrics[0].newest().id, window).expect("read")?;
        let counter = sealed.series[0].cells[0].counter.expect("a count has one");
        Some((window, counter.created, counter.total))
    };
    let later = |world: &World, windows: u64| {
        let (period, since) = (Period::new(1).expect("legal"), world.twin.time().secs());
        move |world: &World| {
            world.catalog.newest_sealed(world.project, period).expect("read").is_some_and(|newest| newest.start_secs() >= since + windows)
        }
    };
    until("a first window", || counter(&world, 1).is_some()).await;
    world.twin.submit(10);
    let reached = later(&world, 5);
    until("some windows", || reached(&world)).await;
    let (_, born, total) = counter(&world, 1).expect("sealed");
    assert_eq!(total, 10.0);

    // An edit of the store, one of the query's filter, and a restart change nothing.
    world.put_influx("a", &format!("{}/", store.url()));
    world.crash().await;
    world.twin.submit(3);
    let reached = later(&world, 4);
    until("some more windows", || reached(&world)).await;
    let (_, same, grown) = counter(&world, 1).expect("sealed");
    assert_eq!((same, grown), (born, total + 3.0));

    // Another period and back: both are new births.
    let changed = world.twin.time();
    world.put_influx_with(2, &["s"], "a", store.url());
    until("the other grid", || counter(&world, 2).is_some()).await;
    let (_, other, _) = counter(&world, 2).expect("sealed");
    assert!(other >= changed);
    let back = world.twin.time();
    world.put_influx("a", store.url());
    world.crash().await;
    let reached = later(&world, 6);
    until("the old grid again", || reached(&world)).await;
    world.twin.submit(2);
    let reached = later(&world, 3);
    until("with reports", || reached(&world)).await;
    let (_, again, counted) = counter(&world, 1).expect("sealed");
    assert!(again >= back, "born at {again:?}, before the change back at {back:?}");
    assert_eq!(counted, 2.0, "only what was counted since");

    // Away and back once more without a restart between: the sealer's own memory knows it too.
    world.put_influx_with(2, &["s"], "a", store.url());
    let since = world.twin.time().secs();
    until("the other grid", || counter(&world, 2).is_some_and(|(window, ..)| window.start_secs() > since)).await;
    world.put_influx("a", store.url());
    let reached = later(&world, 5);
    until("the old grid again", || reached(&world)).await;
    let (_, third, total) = counter(&world, 1).expect("sealed");
    assert_eq!((third > again, total), (true, 0.0));

    // Likewise where the set was detached for a while.
    world.put_influx_with(1, &[], "a", store.url());
    let since = world.twin.time().secs();
    until("windows without the metric", || world.sealed_until() > since + 3).await;
    world.put_influx("a", store.url());
    let reached = later(&world, 3);
    until("windows with it", || reached(&world)).await;
    assert!(counter(&world, 1).expect("sealed").1 > third);
}
