//! Every class of answer, for every adapter that pushes, through the real delivery task over a real socket: what state the store is in
//! then, what becomes of its points, and that nothing is lost once it is well again.

use crate::store::{Answer, FakeStore};
use crate::{World, until};
use catalog::{StoreDraft, StoreId, StoreSettings};
use export::Phase;
use model::{AggregateOp, PathTemplate, Period, Secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The settings of a store at a base URL.
type Fields = fn(&str) -> Value;

/// The adapters that speak HTTP, with how one of their stores is set up at a base URL.
const ADAPTERS: [(&str, Fields); 6] = [
    ("circonus_push", |base| json!({"url": format!("{base}/module/httptrap/id/secret")})),
    ("datadog", |base| json!({"url": base, "api_key": "0".repeat(32)})),
    ("grafana", |base| json!({"url": format!("{base}/metrics"), "api_key": "key"})),
    ("influxdb", |base| json!({"url": format!("{base}/write?db=x")})),
    ("influxdb", |base| json!({"url": format!("{base}/api/v2/write?org=o&bucket=b"), "token": "token"})),
    ("remote_write", |base| json!({"url": format!("{base}/api/v1/write")})),
];

/// What a well store says.
fn well(adapter: &str, body: &[u8]) -> Answer {
    let pieces = || match serde_json::from_slice(body).expect("JSON") {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        other => panic!("{other}"),
    };
    match adapter {
        "circonus_push" => Answer::Body(200, "", format!("{{ \"stats\": {} }}", pieces())),
        "datadog" => Answer::Body(202, "", "{\"errors\":[]}".to_owned()),
        "grafana" => Answer::Body(200, "", format!("{{\"Invalid\":0,\"Published\":{}}}", pieces())),
        _ => Answer::Status(204, ""),
    }
}

/// What becomes of points whose first answers are such.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is tried again, after at least so many seconds.
    Again(u64),
    /// A person is asked for; a probe goes out once a minute.
    Attention,
    /// Refused for good, with the store's words.
    Refused,
}

/// A fault, and what the table of design.md 4 makes of it.
struct Fault {
    answer: fn() -> Answer,
    /// A part of the reason that people are shown.
    shown: &'static str,
    fate: Fate,
}

const FAULTS: &[(&str, Fault)] = &[
    ("400", Fault { answer: || Answer::Body(400, "", "no good".into()), shown: "no good", fate: Fate::Refused }),
    ("422", Fault { answer: || Answer::Status(422, ""), shown: "422", fate: Fate::Refused }),
    ("401", Fault { answer: || Answer::Body(401, "", "who?".into()), shown: "who?", fate: Fate::Attention }),
    ("403", Fault { answer: || Answer::Status(403, ""), shown: "403", fate: Fate::Attention }),
    ("404", Fault { answer: || Answer::Status(404, ""), shown: "404", fate: Fate::Attention }),
    ("302", Fault { answer: || Answer::Status(302, "Location: http://127.0.0.1:9/\r\n"), shown: "final URL", fate: Fate::Attention }),
    ("408", Fault { answer: || Answer::Status(408, ""), shown: "408", fate: Fate::Again(0) }),
    ("413", Fault { answer: || Answer::Status(413, ""), shown: "too large", fate: Fate::Refused }),
    ("429", Fault { answer: || Answer::Status(429, ""), shown: "429", fate: Fate::Again(0) }),
    ("429 with seconds", Fault { answer: || Answer::Status(429, "Retry-After: 30\r\n"), shown: "429", fate: Fate::Again(30) }),
    ("429 for a year", Fault { answer: || Answer::Status(429, "Retry-After: 31536000\r\n"), shown: "429", fate: Fate::Again(600) }),
    ("503", Fault { answer: || Answer::Status(503, "Retry-After: 20\r\n"), shown: "503", fate: Fate::Again(20) }),
    ("500", Fault { answer: || Answer::Status(500, ""), shown: "500", fate: Fate::Again(0) }),
    ("502", Fault { answer: || Answer::Body(502, "", "<html>bad gateway</html>".into()), shown: "bad gateway", fate: Fate::Again(0) }),
    ("broken off", Fault { answer: || Answer::Reset, shown: "", fate: Fate::Again(0) }),
    ("rubbish", Fault { answer: || Answer::Raw(b"\x16\x03\x01\x02rubbish"), shown: "", fate: Fate::Again(0) }),
    ("cut short", Fault { answer: || Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"), shown: "", fate: Fate::Again(0) }),
];

struct Case {
    name: String,
    id: StoreId,
    fault: &'static Fault,
    store: FakeStore,
    healed: Arc<AtomicBool>,
}

impl World {
    fn put_store(&self, name: &str, adapter: &str, fields: Value) -> StoreId {
        let description = adapters::description(adapter).expect("an adapter");
        let (secret, plain): (Vec<_>, Vec<_>) = fields
            .as_object()
            .expect("an object")
            .clone()
            .into_iter()
            .partition(|(name, _)| description.fields.iter().any(|field| field.name == name && field.is_secret()));
        let settings = StoreSettings {
            adapter: adapter.into(),
            period: Period::new(60).expect("legal"),
            sets: vec!["s".into()],
            prefix: "t".into(),
            template: PathTemplate::default(),
            label_names: BTreeMap::new(),
            labels: BTreeMap::new(),
            horizon_secs: 1_000_000,
            enabled: true,
            fields: plain.into_iter().collect(),
        };
        let secrets = secret.into_iter().map(|(name, value)| (name, Some(Secret::new(value.as_str().expect("text").to_owned())))).collect();
        let draft = StoreDraft { settings, secrets, pull: false };
        self.catalog.put_store(self.project, name, &draft, None, "test", &|| self.twin.time()).expect("saved");
        self.catalog.snapshot().store(self.project, name).expect("there").id
    }

    fn phase(&self, id: StoreId) -> Phase {
        self.export.as_ref().expect("running").0.phase(id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_class_of_answer_has_its_state_its_words_and_its_next_attempt() {
    let mut world = World::new();
    world.put_metric("all", &[], &[(AggregateOp::Count, "_tx"), (AggregateOp::Unique, "user")]);
    world.twin.submit(20);
    let mut cases = Vec::new();
    for (at, (adapter, fields)) in ADAPTERS.iter().enumerate() {
        for (name, fault) in FAULTS {
            let healed = Arc::new(AtomicBool::new(false));
            let (flag, adapter) = (healed.clone(), *adapter);
            let store = FakeStore::start(move |_, body| if flag.load(Ordering::Relaxed) { well(adapter, body) } else { (fault.answer)() });
            let name = format!("{adapter} {at}: {name}");
            let id = world.put_store(&name, adapter, fields(store.url()));
            cases.push(Case { name, id, fault, store, healed });
        }
    }
    world.start();
    let mut faults = Vec::new();
    for case in &cases {
        until(&format!("{} was tried", case.name), || !world.catalog.attempts(case.id, 1).expect("read").is_empty()).await;
        if let Err(fault) = check(&world, case).await {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Looks at the state, heals the store, and looks at the ledger.
async fn check(world: &World, case: &Case) -> Result<(), String> {
    let ledger = || world.catalog.ledger(case.id).expect("read");
    let first = case.store.received()[0].clone();
    let attempt = || world.catalog.attempts(case.id, 1_000).expect("read").into_iter().next_back().expect("an attempt");
    match case.fault.fate {
        Fate::Again(_) | Fate::Attention => {
            let mut seen = None;
            until(&format!("{} says how it stands", case.name), || {
                seen = match world.phase(case.id) {
                    Phase::Retrying { reason, next_attempt } => Some(("retrying", reason, next_attempt)),
                    Phase::Throttled { reason, next_attempt } => Some(("throttled", reason, next_attempt)),
                    Phase::NeedsAttention { reason, next_attempt } => Some(("needs attention", reason, next_attempt)),
                    _ => None,
                };
                seen.is_some()
            })
            .await;
            let (phase, reason, next_attempt) = seen.expect("just seen");
            let expected = match case.fault.fate {
                Fate::Attention => "needs attention",
                _ if matches!(case.fault.shown, "429" | "503") => "throttled",
                // InfluxDB's proxies answer so when it is busy.
                _ if case.fault.shown == "bad gateway" && case.name.starts_with("influxdb") => "throttled",
                _ => "retrying",
            };
            if phase != expected || !reason.contains(case.fault.shown) || reason.is_empty() {
                return Err(format!("{phase}, {reason:?}"));
            }
            let wait = next_attempt.saturating_sub(attempt().at);
            let (least, most) = match case.fault.fate {
                Fate::Again(least) => (least, least.max(60) + 60),
                _ => (60, 120),
            };
            // The clock of these tests runs at twenty times the speed: what passed since the attempt is a part of the wait.
            if !(least..=most + 60).contains(&wait) {
                return Err(format!("the next attempt comes after {wait} s"));
            }
            if ledger().open == 0 || ledger().refused > 0 || ledger().confirmed + ledger().sent > 0 {
                return Err(format!("before it heals: {:?}", ledger()));
            }
            case.healed.store(true, Ordering::Relaxed);
            until(&format!("{} is well", case.name), || {
                world.export.as_ref().expect("running").0.send_now(case.id);
                ledger().confirmed + ledger().sent > 0
            })
            .await;
            let again = case.store.received().into_iter().find(|received| received.accepted).expect("accepted");
            if again.bytes != first.bytes {
                return Err("the bytes changed from one attempt to the next".to_owned());
            }
        }
        Fate::Refused => {
            until(&format!("{} is through with a window", case.name), || ledger().refused > 0 && world.phase(case.id) == Phase::Idle).await;
            let attempts = world.catalog.attempts(case.id, 1_000).expect("read");
            if !attempts.iter().any(|attempt| attempt.text.contains(case.fault.shown)) {
                return Err(format!("{attempts:?}"));
            }
            if ledger().confirmed + ledger().sent > 0 {
                return Err(format!("{:?}", ledger()));
            }
        }
    }
    if ledger().imbalance() != 0 || ledger().expired > 0 {
        return Err(format!("{:?}", ledger()));
    }
    Ok(())
}

/// A body as the store reads it.
fn unpacked(adapter: &str, body: &[u8]) -> Vec<u8> {
    match adapter {
        "remote_write" => snap::raw::Decoder::new().decompress_vec(body).expect("Snappy"),
        _ => body.to_vec(),
    }
}

fn holds(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poison_series_in_a_thousand_never_stops_the_others() {
    let mut world = World::new();
    world.put_metric("by", &["kind"], &[(AggregateOp::Count, "_tx")]);
    let mut stores = Vec::new();
    for (at, (adapter, fields)) in ADAPTERS.iter().enumerate() {
        let adapter = *adapter;
        // InfluxDB 1 takes what it can read of a body and says how much it dropped; the others refuse the body.
        let partial = at == 3;
        let store = FakeStore::start(move |_, body| match holds(&unpacked(adapter, body), "poison") {
            true if partial => Answer::Body(400, "", "{\"error\":\"partial write: field type conflict dropped=1\"}".into()),
            true => Answer::Body(400, "", "poison is not for me".into()),
            false => well(adapter, body),
        });
        stores.push((world.put_store(&format!("{adapter} {at}"), adapter, fields(store.url())), store, partial));
    }
    world.start();
    // Once every store is attached: a thousand groups, one of them poison.
    let kinds: Vec<String> = (0..999).map(|n| format!("kind-{n}")).chain(["poison".to_owned()]).collect();
    let begin = Period::new(60).expect("legal").first_window_from(world.twin.time()).start_secs();
    until("the stores' first window has begun", || world.twin.time().secs() > begin).await;
    world.twin.submit_kinds(&kinds);
    for (id, _store, partial) in &stores {
        let settled = || {
            let mut deliveries = world.catalog.deliveries(*id, 0, u64::MAX >> 1, 1_000).expect("read");
            deliveries.retain(|delivery| delivery.points.due > 1_000 && delivery.points.open == 0);
            deliveries.into_iter().min_by_key(|delivery| delivery.window_start)
        };
        until("the window with the poison is settled", || settled().is_some()).await;
        let delivery = settled().expect("just seen");
        let points = delivery.points;
        // Where only a count of lines comes back, those with most points are taken as refused: here the five of the health line.
        let refused = if *partial { 5 } else { 1 };
        assert_eq!((points.refused, points.confirmed + points.sent), (refused, points.due - refused), "{delivery:?}");
        assert!(delivery.note.as_deref().is_some_and(|note| note.contains("400")), "{delivery:?}");
        // Halving a thousand takes ten steps at most, each with a good and a bad half.
        assert!(delivery.attempts < if *partial { 10 } else { 40 }, "{delivery:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_bomb_is_folded_exactly_and_other_metrics_are_on_time() {
    const VALUES: usize = 100_000;
    const BUDGET: u32 = 1_000;
    let mut world = World::new();
    world.put_metric("bomb", &["kind"], &[(AggregateOp::Unique, "_tx"), (AggregateOp::Unique, "user"), (AggregateOp::Sum, "n")]);
    world.put_metric("calm", &[], &[(AggregateOp::Unique, "_tx")]);
    let store = FakeStore::start(|_, _| Answer::Status(204, ""));
    let id = world.put_store("influx", "influxdb", json!({"url": format!("{}/write?db=x", store.url())}));
    world.start();
    let begin = Period::new(60).expect("legal").first_window_from(world.twin.time()).start_secs();
    until("the first window has begun", || world.twin.time().secs() > begin).await;
    let kinds: Vec<String> = (0..VALUES).map(|n| format!("label-{n}")).collect();
    world.twin.submit_kinds(&kinds);
    let snapshot = world.catalog.snapshot();
    let revision = |name: &str| snapshot.metric(world.project, "s", name).expect("saved").newest().id;
    let (bomb, calm) = (revision("bomb"), revision("calm"));
    let period = Period::new(60).expect("legal");
    let (mut window, mut matched) = (period.first_window_from(model::Stamp::from_secs(begin)), 0);
    let mut folded = 0;
    while matched < VALUES as u64 {
        until("the next window is sealed", || world.catalog.sealed_end(world.project, period).expect("read") >= Some(window.end_secs()))
            .await;
        let sealed = world.catalog.sealed_metric(bomb, window).expect("read").expect("sealed");
        assert_eq!(sealed.failure, None);
        assert!(sealed.series.len() <= BUDGET as usize + 1, "{} series", sealed.series.len());
        assert_eq!((sealed.matched, sealed.own + sealed.folded), (world.twin.count(window), sealed.matched));
        // What is shown of all series together is what was submitted: every report once, the sum to the last bit.
        let total = |at: usize| sealed.series.iter().filter_map(|one| one.cells[at].value).sum::<f64>();
        let plain =
            model::Query { group: Vec::new(), ..snapshot.metric(world.project, "s", "bomb").expect("saved").newest().query.clone() };
        let whole = world.twin.evaluate_naively(window, &plain);
        let whole = |at: usize| whole.get(&Vec::new()).and_then(|values| values[at]).unwrap_or(0.0);
        assert_eq!((total(0), total(2)), (sealed.matched as f64, whole(2)), "{window}");
        let other = sealed.series.iter().find(|one| one.key == [model::Label::Other]);
        if let Some(other) = other {
            assert_eq!(other.cells[0].value, Some(sealed.folded as f64));
            // Seven users share all those reports: distinct values of what is folded are counted once.
            assert!(other.cells[1].value.is_some_and(|users| users <= 7.0), "{:?}", other.cells);
        }
        let other_metric = world.catalog.sealed_metric(calm, window).expect("read").expect("sealed with it");
        assert_eq!(other_metric.matched, sealed.matched);
        (matched, folded) = (matched + sealed.matched, folded + sealed.folded);
        window = window.next();
    }
    assert!(folded >= (VALUES - BUDGET as usize) as u64 / 2, "{folded} were folded");
    let store = world.catalog.snapshot().store_by_id(id).expect("there").clone();
    let told = world.export.as_ref().expect("running").0.over_budget(&store).expect("read");
    assert!(told.iter().any(|(metric, _)| metric.name == "bomb"), "{told:?}");
}
