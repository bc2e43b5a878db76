//! Hours of the real sealer, the real deliveries and the real catalog in seconds: the time is made up, so are the stores and all that
//! goes wrong, from one seed. Whatever happened, at the end the accounts agree.
//!
//! The reports come from the twin; the log under the real ones has crash states of its own, in `reports`. A seed gives the same plan
//! again, the same faults at the same moments; what happens within one moment may come in another order.

use crate::twin::Twin;
use adapters::{Outgoing, Reply};
use catalog::{Catalog, Metric, MetricDraft, SecretEdits, Snapshot, Store, StoreDraft, StoreSettings};
use export::send::{Door, Failure, Network, Sending};
use export::{Export, SourceStopped};
use model::{Aggregate, AggregateOp, Label, Period, ProjectId, Query, Stamp, Window};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Seeds tried anew in each run of the tests; `CRASHMETER_SEEDS` asks for more.
const FRESH: u64 = 300;
/// Seeds that have found something once.
/// 274818121330: a metric deleted in the first window of a new grid was forgotten by a restart before that window was sealed.
const KEPT: &[u64] = &[274_818_121_330];
/// Runs this one seed, and tells what it does.
const SEED: &str = "CRASHMETER_SEED";
/// Names of what a plan is about.
const SETS: [&str; 2] = ["one", "two"];
const METRICS: [&str; 3] = ["all", "kinds", "poison"];
const STORES: [&str; 3] = ["a", "b", "c"];
/// A store is at most so long in one mood.
const MOOD_SECS: u64 = 40;
/// So long at most until everything is delivered once nothing goes wrong any more: a store may have asked for ten minutes.
const HEALED_SECS: u64 = 900;

/// Numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 up to, not including, `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// How a store takes what comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Fine,
    /// Takes it and answers after a time, perhaps after the deadline.
    Slow(u64),
    /// Cannot be reached.
    Down,
    /// Takes it, and the answer is lost.
    Vanishes,
    /// The request is lost on its way.
    Loses,
    /// Asks to be left alone.
    Busy(Option<u64>),
    Faulty,
    /// Does not know us.
    Denies,
    /// Takes so many lines at once.
    Small(usize),
    /// Takes no body in which there is a metric called poison.
    Picky,
    /// The status cannot be read, or is no status of an API.
    Odd(u16),
}

impl Mood {
    fn any(seeded: &mut Seeded) -> Mood {
        match seeded.below(14) {
            0..=2 => Mood::Fine,
            3 => Mood::Slow(seeded.below(40)),
            4 => Mood::Down,
            5 | 6 => Mood::Vanishes,
            7 => Mood::Loses,
            8 => Mood::Busy([None, Some(0), Some(7), Some(1_000_000_000)][seeded.below(4) as usize]),
            9 => Mood::Faulty,
            10 => Mood::Denies,
            11 => Mood::Small(1 + seeded.below(6) as usize),
            12 => Mood::Picky,
            _ => Mood::Odd(*seeded.one(&[&302, &404, &418, &500])),
        }
    }
}

/// A line of InfluxDB's protocol without its values, and the names of the values.
type Place = (String, String, u64);

/// What each place has to say, by the period of the store.
type Expected = BTreeMap<(Period, Place), f64>;

/// A made-up store: what it is like, and what it was given.
struct MadeUp {
    mood: Mood,
    /// Value by place: `(series, field, second)`. The last one stands.
    values: BTreeMap<Place, String>,
    /// The bytes of each set of places.
    bodies: HashMap<Vec<Place>, Vec<u8>>,
    /// Ends of windows in the order in which each came for the first time.
    order: Vec<u64>,
    seen: BTreeSet<u64>,
    /// What no store may see.
    faults: Vec<String>,
}

impl MadeUp {
    fn new() -> MadeUp {
        MadeUp {
            mood: Mood::Fine,
            values: BTreeMap::new(),
            bodies: HashMap::new(),
            order: Vec::new(),
            seen: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    /// A body on its way: the same places come in the same bytes, windows one after the other.
    fn see(&mut self, body: &[u8]) -> Vec<(Place, String)> {
        let read: Vec<(Place, String)> = std::str::from_utf8(body).expect("text").lines().flat_map(read_line).collect();
        let mut places: Vec<Place> = read.iter().map(|(place, _)| place.clone()).collect();
        places.sort();
        if *self.bodies.entry(places).or_insert_with(|| body.to_vec()) != body {
            self.faults.push(format!("a body came again in other bytes: {}", String::from_utf8_lossy(body)));
        }
        for ((_, _, second), _) in &read {
            if self.seen.insert(*second) {
                self.order.push(*second);
            }
        }
        read
    }

    fn take(&mut self, read: Vec<(Place, String)>) {
        for (place, value) in read {
            if let Some(old) = self.values.insert(place.clone(), value.clone())
                && old != value
            {
                self.faults.push(format!("{place:?} was {old} and became {value}"));
            }
        }
    }
}

/// `series field=value,field=value second`; names of a plan hold no blanks, commas and equals signs.
fn read_line(line: &str) -> Vec<(Place, String)> {
    let mut parts = line.rsplitn(3, ' ');
    let (second, fields, series) = (parts.next(), parts.next(), parts.next());
    let second: u64 = second.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no time: {line}"));
    let series = series.unwrap_or_else(|| panic!("no series: {line}"));
    let field = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or_else(|| panic!("no value: {line}"));
        ((series.to_owned(), name.to_owned(), second), value.to_owned())
    };
    fields.unwrap_or_default().split(',').map(field).collect()
}

/// All stores of a plan, by host.
#[derive(Clone)]
struct World(Arc<Mutex<HashMap<String, MadeUp>>>);

impl World {
    fn with<T>(&self, host: &str, act: impl FnOnce(&mut MadeUp) -> T) -> T {
        act(self.0.lock().expect("no panic while held").entry(host.to_owned()).or_insert_with(MadeUp::new))
    }
}

/// A body as it was before it was compressed, if it was.
fn inflated(body: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    match flate2::read::GzDecoder::new(body).read_to_end(&mut inflated) {
        Ok(_) => inflated,
        Err(_) => body.to_vec(),
    }
}

impl Network for World {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> Sending<'a> {
        Box::pin(async move {
            let Outgoing::Http(request) = outgoing else { panic!("only InfluxDB is simulated") };
            let host = request.url.host_str().expect("a host").to_owned();
            let body = inflated(&request.body);
            let mood = self.with(&host, |store| store.mood);
            let read = || self.with(&host, |store| store.see(&body));
            let take = || {
                let read = read();
                self.with(&host, |store| store.take(read));
            };
            let answer = |status, retry_after| Ok(Reply::Http { status, retry_after, body: Vec::new() });
            tokio::time::sleep(Duration::from_millis(3)).await;
            let lines = body.iter().filter(|byte| **byte == b'\n').count();
            match mood {
                Mood::Fine => take(),
                Mood::Slow(secs) => {
                    take();
                    tokio::time::sleep(Duration::from_secs(secs)).await;
                }
                Mood::Down => return Err(Failure::Connect("made up".to_owned())),
                Mood::Vanishes => {
                    take();
                    return Err(Failure::Broken("made up".to_owned()));
                }
                Mood::Loses => {
                    read();
                    return Err(Failure::Broken("made up".to_owned()));
                }
                Mood::Busy(after) => {
                    read();
                    return answer(429, after);
                }
                Mood::Faulty => {
                    read();
                    return answer(503, None);
                }
                Mood::Denies => {
                    read();
                    return answer(401, None);
                }
                Mood::Small(most) if lines > most => {
                    read();
                    return answer(413, None);
                }
                Mood::Picky if body.windows(6).any(|part| part == b"poison") => {
                    read();
                    return answer(400, None);
                }
                Mood::Small(_) | Mood::Picky => take(),
                Mood::Odd(status) => {
                    read();
                    return answer(status, None);
                }
            }
            answer(204, None)
        })
    }
}

/// What runs, and what of it was done on purpose.
struct Simulation {
    seeded: Seeded,
    folder: tempfile::TempDir,
    twin: Arc<Twin>,
    world: World,
    project: ProjectId,
    catalog: Arc<Catalog>,
    running: Option<(Export<Twin>, tokio::task::JoinHandle<SourceStopped>)>,
    /// How often a store of each name has been deleted.
    lives: BTreeMap<String, u32>,
    /// Metrics and stores that were deleted: the catalog forgets them once their windows are sealed.
    gone: (Vec<Metric>, Vec<Store>),
    /// Whether to tell what is done, for whoever looks into a seed.
    told: bool,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        // In memory where that is possible: no promise about the disk is tried here.
        let shared = std::path::Path::new("/dev/shm");
        let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.expect("a folder");
        let twin = Arc::new(Twin::simulated());
        let catalog = Arc::new(Catalog::open(folder.path()).expect("opens"));
        let project = catalog.create_project("p", "test", &|| twin.time()).expect("made").0;
        let world = World(Arc::new(Mutex::new(HashMap::new())));
        Simulation {
            seeded: Seeded(seed),
            folder,
            twin,
            world,
            project,
            catalog,
            running: None,
            lives: BTreeMap::new(),
            gone: Default::default(),
            told: std::env::var(SEED).is_ok(),
        }
    }

    #[expect(clippy::print_stdout, reason = "what a seed does is told to whoever asks for it")]
    fn note(&self, what: &str) {
        if self.told {
            println!("{:?}: {what}", self.twin.time());
        }
    }

    /// Where the store of a name is just now.
    fn host(&self, name: &str) -> String {
        format!("{name}{}.test", self.lives.get(name).unwrap_or(&0))
    }

    fn start(&mut self) {
        self.running = Some(Export::start(self.twin.clone(), self.catalog.clone(), Door::to(self.world.clone())));
    }

    /// Ends everything where it stands. What the catalog was asked to do, it does: as if it had been done just before.
    async fn crash(&mut self) {
        if let Some((export, sealer)) = self.running.take() {
            sealer.abort();
            drop(export);
            let _ = sealer.await;
            tokio::task::spawn_blocking(|| ()).await.expect("the work before it is done");
        }
    }

    async fn restart(&mut self) {
        self.crash().await;
        let since = *export::ReportSource::durable_stamp(self.twin.as_ref()).borrow();
        let down = self.seeded.below(8) * 700;
        self.note(&format!("crash, down for {down} ms"));
        tokio::time::sleep(Duration::from_millis(down)).await;
        self.catalog = Arc::new(Catalog::open(self.folder.path()).expect("opens again"));
        self.catalog.record_downtime(since, self.twin.time()).expect("recorded");
        self.start();
    }

    fn put_metric(&mut self) {
        let (set, name) = (self.seeded.one(&SETS), self.seeded.one(&METRICS));
        let aggregates = match self.seeded.below(4) {
            0 => vec![(AggregateOp::Count, "_tx")],
            1 => vec![(AggregateOp::Count, "_tx"), (AggregateOp::Unique, "user")],
            2 => vec![(AggregateOp::Sum, "n"), (AggregateOp::Max, "n")],
            _ => vec![(AggregateOp::Mean, "n"), (AggregateOp::Unique, "user")],
        };
        let query = Query {
            group: if self.seeded.below(2) == 0 { vec![] } else { vec!["kind".to_owned()] },
            aggregates: aggregates.into_iter().map(|(op, attribute)| Aggregate { op, attribute: attribute.to_owned() }).collect(),
            ..Query::default()
        };
        let zero_for = [None, Some(2)][self.seeded.below(2) as usize];
        let draft = MetricDraft { query, zero_for, series_budget: 1_000 };
        let twin = self.twin.clone();
        self.note(&format!("metric {set}/{name}: {:?}", draft.query.aggregates));
        self.catalog.put_metric(self.project, set, name, &draft, None, "test", &|| twin.time()).expect("saved");
    }

    fn put_any_store(&mut self) {
        let name = self.seeded.one(&STORES);
        let period = [1, 2, 5][self.seeded.below(3) as usize];
        let sets = if self.seeded.below(3) == 0 { vec![SETS[0].to_owned()] } else { SETS.map(str::to_owned).to_vec() };
        let horizon_secs = [30, 1_000_000][self.seeded.below(2) as usize];
        let enabled = self.seeded.below(8) > 0;
        self.put_store(name, period, sets, horizon_secs, enabled);
    }

    fn put_store(&self, name: &str, period: u32, sets: Vec<String>, horizon_secs: u64, enabled: bool) {
        let fields = json!({"url": format!("http://{}/write?db=x", self.host(name))}).as_object().expect("an object").clone();
        let settings = StoreSettings {
            adapter: "influxdb".into(),
            period: Period::new(period).expect("legal"),
            sets,
            prefix: "t".into(),
            template: model::PathTemplate::default(),
            label_names: BTreeMap::new(),
            labels: BTreeMap::new(),
            horizon_secs,
            enabled,
            fields,
        };
        self.note(&format!("store {name}: {period} s, sets {:?}, horizon {horizon_secs}, enabled {enabled}", settings.sets));
        let draft = StoreDraft { settings, secrets: SecretEdits::new(), pull: false };
        let twin = self.twin.clone();
        self.catalog.put_store(self.project, name, &draft, None, "test", &|| twin.time()).expect("saved");
    }

    /// Keeps what was just deleted.
    fn remember(&mut self) {
        let snapshot = self.catalog.snapshot();
        let (metrics, stores) = &mut self.gone;
        let is_new = |metric: &&Metric| metric.deleted.is_some() && metrics.iter().all(|one| one.id != metric.id);
        let new: Vec<Metric> = snapshot.metrics.iter().filter(is_new).cloned().collect();
        metrics.extend(new);
        let is_new = |store: &&Store| store.deleted.is_some() && stores.iter().all(|one| one.id != store.id);
        let new: Vec<Store> = snapshot.stores.iter().filter(is_new).cloned().collect();
        stores.extend(new);
    }

    /// The configuration with everything that there ever was.
    fn history(&self) -> Snapshot {
        let mut all = (*self.catalog.snapshot()).clone();
        all.metrics.retain(|metric| metric.deleted.is_none());
        all.stores.retain(|store| store.deleted.is_none());
        all.metrics.extend(self.gone.0.iter().cloned());
        all.stores.extend(self.gone.1.iter().cloned());
        all
    }

    async fn step(&mut self) {
        let twin = self.twin.clone();
        match self.seeded.below(20) {
            0..=6 => {
                let kinds: Vec<String> = (0..self.seeded.below(12)).map(|_| format!("k{}", self.seeded.below(5))).collect();
                twin.submit_kinds(&kinds);
            }
            7..=11 => {
                let (host, mood) = (self.seeded.one(&STORES), Mood::any(&mut self.seeded));
                self.note(&format!("{host} is {mood:?}"));
                self.world.with(&self.host(host), |store| store.mood = mood);
            }
            12 | 13 => self.put_metric(),
            14 => self.put_any_store(),
            15 => {
                let (set, name) = (self.seeded.one(&SETS), self.seeded.one(&METRICS));
                let gone = self.catalog.delete_metric(self.project, set, name, "test", &|| twin.time());
                self.note(&format!("delete {set}/{name}: {}", gone.is_ok()));
                self.remember();
            }
            16 => {
                let name = self.seeded.one(&STORES);
                let paused = self.seeded.below(2) == 0;
                let done = self.catalog.pause_store(self.project, name, paused, "test", &|| twin.time());
                self.note(&format!("{name} paused {paused}: {}", done.is_ok()));
            }
            17 if self.seeded.below(4) == 0 => {
                let name = self.seeded.one(&STORES);
                let done = self.catalog.delete_store(self.project, name, "test", &|| twin.time());
                self.note(&format!("delete store {name}: {}", done.is_ok()));
                self.remember();
                // A new one of this name is another one.
                *self.lives.entry(name.to_owned()).or_default() += 1;
            }
            18 | 19 => self.restart().await,
            _ => {}
        }
        let pause = match self.seeded.below(6) {
            0 => self.seeded.below(MOOD_SECS * 1_000),
            _ => self.seeded.below(2_000),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Nothing goes wrong any more: everything that is due has to arrive, or to be given up by its age.
    async fn heal(&mut self) {
        let twin = self.twin.clone();
        for name in STORES {
            self.world.with(&self.host(name), |store| store.mood = Mood::Fine);
            let _ = self.catalog.pause_store(self.project, name, false, "test", &|| twin.time());
        }
        self.note("healed");
        let begun = twin.time().secs();
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let open: u64 = self.push_stores().iter().map(|store| self.catalog.backlog(store.0).expect("read").0).sum();
            if open <= 3 * STORES.len() as u64 && twin.time().secs() > begun + 20 {
                break;
            }
            assert!(twin.time().secs() < begun + HEALED_SECS, "{open} windows are still open");
        }
        self.crash().await;
    }

    fn push_stores(&self) -> Vec<(catalog::StoreId, String)> {
        let snapshot = self.catalog.snapshot();
        snapshot.stores.iter().filter(|store| store.deleted.is_none()).map(|store| (store.id, store.name.clone())).collect()
    }

    /// The three accounts: windows against the twin, stores against windows, the ledger against itself.
    fn check(&self) -> Figures {
        let audit = catalog::audit(self.folder.path(), None, &adapters::is_push).expect("read");
        assert!(audit.balances, "{:?}", audit.told);
        let snapshot = self.history();
        let mut expected = Expected::new();
        let mut figures = Figures::default();
        let begin = Stamp::from_secs(self.twin_begin());
        for period in [1, 2, 5, 10].map(|secs| Period::new(secs).expect("legal")) {
            let end = self.catalog.sealed_end(self.project, period).expect("read").unwrap_or(0);
            let mut window = period.window_at(begin);
            while window.end_secs() <= end {
                let sets: BTreeSet<String> =
                    snapshot.stores_due(self.project, window).flat_map(|(_, revision)| revision.settings.sets.clone()).collect();
                let is_gap = self.catalog.in_gap(self.project, window).expect("read");
                figures.gaps += u64::from(is_gap);
                for (metric, revision) in snapshot.metrics_due(self.project, window, &sets.into_iter().collect::<Vec<_>>()) {
                    if !is_gap {
                        self.check_window(metric, revision, window, &mut expected);
                        figures.windows += 1;
                    }
                }
                window = window.next();
            }
        }
        for (id, name) in self.push_stores() {
            self.world.with(&self.host(&name), |store| {
                assert_eq!(store.faults, Vec::<String>::new(), "{name}");
                assert!(store.order.is_sorted(), "{name} was given later windows before earlier ones: {:?}", store.order);
                for (place, value) in &store.values {
                    // Health series are not of a metric.
                    if !place.0.contains(".health") {
                        let revision = snapshot.store_by_id(id).and_then(|store| store.in_force(Stamp::from_secs(place.2)));
                        let period = revision.unwrap_or_else(|| panic!("{name} was given {place:?} and was not due it")).settings.period;
                        let wanted = expected
                            .get(&(period, place.clone()))
                            .unwrap_or_else(|| panic!("{name} was given {place:?} = {value}, which nothing sealed says"));
                        assert_eq!(value.trim_end_matches('i').parse::<f64>().as_ref(), Ok(wanted), "{name}: {place:?}");
                    }
                }
                let ledger = self.catalog.ledger(id).expect("read");
                assert_eq!(ledger.imbalance(), 0);
                assert_eq!((ledger.sent, ledger.cancelled), (0, 0), "a store that vouches, and no backfill");
                assert!(
                    store.values.len() as u64 >= ledger.confirmed,
                    "{name} confirmed {} and has {}",
                    ledger.confirmed,
                    store.values.len()
                );
                figures.add(&ledger);
            });
        }
        figures
    }

    fn twin_begin(&self) -> u64 {
        self.catalog.snapshot().projects[0].created.secs()
    }

    /// A sealed metric equals what the plain evaluation of the window gives; notes what a store has to have of it.
    fn check_window(&self, metric: &Metric, revision: &catalog::MetricRevision, window: Window, expected: &mut Expected) {
        let sealed = self.catalog.sealed_metric(revision.id, window).expect("read");
        let sealed = sealed.unwrap_or_else(|| panic!("{}/{} is not sealed in {window}", metric.set, metric.name));
        assert_eq!(sealed.matched, self.twin.count(window), "{}/{} in {window}", metric.set, metric.name);
        let naive = self.twin.evaluate_naively(window, &revision.query);
        let mut keys = BTreeSet::new();
        for one in sealed.series.iter().filter(|one| one.live) {
            let key: Vec<Option<String>> =
                one.key.iter().map(|label| if let Label::Text(text) = label { Some(text.clone()) } else { None }).collect();
            for (aggregate, cell) in revision.query.aggregates.iter().zip(&one.cells) {
                let at = revision.query.aggregates.iter().position(|other| other == aggregate).expect("its own");
                let zero = aggregate.op.zero_when_empty().then_some(0.0);
                let wanted = naive.get(&key).map_or(zero, |values| values[at]);
                assert_eq!(cell.value, wanted, "{}/{} {key:?} in {window}", metric.set, metric.name);
                if let Some(value) = wanted {
                    let label = key.first().map_or_else(String::new, |kind| format!(",kind={}", kind.as_deref().unwrap_or("none")));
                    let op = aggregate.op.name();
                    let field =
                        if aggregate.op == AggregateOp::Count { "count".to_owned() } else { format!("{}_{op}", aggregate.attribute) };
                    let place = (format!("t.p.{}.{}{label}", metric.set, metric.name), field, window.start_secs());
                    expected.insert((window.period(), place), value);
                }
            }
            keys.insert(key);
        }
        for key in naive.keys() {
            assert!(keys.contains(key), "{key:?} is missing in {window}");
        }
    }
}

/// What a plan came to.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    windows: u64,
    gaps: u64,
    due: u64,
    confirmed: u64,
    refused: u64,
    expired: u64,
}

impl Figures {
    fn add(&mut self, ledger: &catalog::Ledger) {
        self.due += ledger.due;
        self.confirmed += ledger.confirmed;
        self.refused += ledger.refused;
        self.expired += ledger.expired;
    }
}

/// A runtime whose time goes as fast as nobody waits for anything real.
fn made_up_time() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // One thread for the catalog's work, so that it is done in the order in which it was asked for.
    runtime.enable_time().start_paused(true).max_blocking_threads(1).build().expect("a runtime")
}

/// Runs a plan; what it came to.
fn run(seed: u64) -> Figures {
    made_up_time().block_on(async {
        let mut simulation = Simulation::new(seed);
        simulation.put_metric();
        simulation.put_any_store();
        simulation.start();
        for _ in 0..20 + simulation.seeded.below(40) {
            simulation.step().await;
        }
        simulation.heal().await;
        simulation.check()
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "how much was tried is a figure for docs/reliability.md")]
fn whatever_goes_wrong_the_accounts_agree() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match number(SEED) {
        Some(seed) => vec![seed],
        None => {
            let first = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
            let fresh = number("CRASHMETER_SEEDS").unwrap_or(FRESH);
            KEPT.iter().copied().chain((0..fresh).map(|at| first.wrapping_add(at) % 1_000_000_000_000)).collect()
        }
    };
    let (mut sum, count) = (Figures::default(), seeds.len());
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let figures = outcome.unwrap_or_else(|_| panic!("seed {seed}; run it again with {SEED}={seed}"));
        sum.windows += figures.windows;
        sum.gaps += figures.gaps;
        sum.due += figures.due;
        sum.confirmed += figures.confirmed;
        sum.refused += figures.refused;
        sum.expired += figures.expired;
    }
    println!("{count} seeds: {sum:?}");
    // Plans in which nothing goes wrong would prove nothing.
    if count > 100 {
        assert!(sum.confirmed > 0 && sum.refused > 0 && sum.expired > 0 && sum.gaps > 0, "{sum:?}");
    }
}

#[test]
fn six_hours_without_a_store_leave_no_trace_in_it() {
    const PERIOD: u32 = 10;
    const OUTAGE_SECS: u64 = 6 * 3_600;
    made_up_time().block_on(async {
        let mut simulation = Simulation::new(1);
        for _ in 0..8 {
            simulation.put_metric();
        }
        for name in ["a", "b"] {
            simulation.put_store(name, PERIOD, SETS.map(str::to_owned).to_vec(), 1_000_000, true);
        }
        simulation.start();
        let begun = simulation.twin.time().secs();
        simulation.world.with("a0.test", |store| store.mood = Mood::Down);
        while simulation.twin.time().secs() < begun + OUTAGE_SECS {
            simulation.twin.submit_kinds(&["x".to_owned(), "y".to_owned()]);
            tokio::time::sleep(Duration::from_secs(97)).await;
        }
        let waiting: u64 = simulation.push_stores().iter().map(|store| simulation.catalog.backlog(store.0).expect("read").0).sum();
        assert!(waiting >= OUTAGE_SECS / u64::from(PERIOD) - 1, "{waiting} windows wait");
        let healed = simulation.twin.time().secs();
        simulation.heal().await;
        // How long the store takes is made up; beside that there is one wait, until it is tried again.
        let took = simulation.twin.time().secs() - healed;
        assert!(took < 90 + waiting / 20, "{waiting} windows took {took} s");
        simulation.check();
        let of = |host: &str| simulation.world.with(host, |store| store.values.clone());
        let (down, up) = (of("a0.test"), of("b0.test"));
        let last = |values: &BTreeMap<Place, String>| values.keys().map(|place| place.2).max().expect("something was sent");
        let end = last(&down).min(last(&up));
        // Health series carry the store's name.
        let metrics = |values: BTreeMap<Place, String>| -> BTreeMap<Place, String> {
            values.into_iter().filter(|(place, _)| place.2 <= end && !place.0.contains(".health")).collect()
        };
        let (down, up) = (metrics(down), metrics(up));
        assert!(down.len() as u64 > waiting);
        assert_eq!(down, up);
    });
}
