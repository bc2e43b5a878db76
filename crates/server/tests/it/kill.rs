//! Kill -9 in the middle of submissions, again and again: what was answered 200 is counted, in one window, once.

use crate::crashmeter::{Crashmeter, Project, number_in};
use crate::receivers::graphite::Graphite;
use crate::receivers::influx::Influx;
use crate::receivers::{Series, VISIBLE, now_s};
use crate::wait;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How often the server is killed.
const KILLS: u64 = 24;
/// Connections that submit at one time.
const SENDERS: u64 = 8;
/// Reports that may be begun between one start of the server and the next: more than are answered before the kill.
const BURST: u64 = 400;

/// What became of one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Answered 200, with this number.
    Answered(u64),
    /// No answer came; it may be kept or not.
    Unknown,
}

/// The traffic between the thread that kills and those that send.
#[derive(Default)]
struct Traffic {
    /// Reports that may still be begun, and whether there will be no more.
    allowance: Mutex<(u64, bool)>,
    changed: Condvar,
    answered: AtomicU64,
    begun: AtomicU64,
}

#[test]
fn every_answered_report_is_counted_in_one_window_and_none_twice() {
    let (graphite, influx) = (Graphite::shared(), Influx::shared());
    influx.create_database("killed");
    let mut server = Crashmeter::start();
    let project = server.project("kill");
    // One series a report, gone from the store as soon as its window has passed, beside the sum of all.
    let by_report = json!({"query": {"group": ["key"], "fold": {"_tx": [["unique"]]}}, "zero_for": 1, "series_budget": 5_000});
    project.metric("each", "report", by_report);
    project.metric("sum", "reports", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    project.store("each", json!({"adapter": "influxdb", "period": 1, "sets": ["each"], "url": influx.url(), "db": "killed"}));
    let sum =
        json!({"adapter": "graphite", "period": 1, "sets": ["sum"], "prefix": "killed", "host": "127.0.0.1", "port": graphite.line_port()});
    let first = project.store("sum", sum)["first_window_start"].as_u64().expect("the first window");
    wait::until_second(first);

    let traffic = Traffic::default();
    let fates = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (traffic, project) = (&traffic, &project);
                scope.spawn(move || send(sender, project, traffic))
            })
            .collect();
        for round in 0..KILLS {
            kill_in_the_middle(&mut server, &traffic, round);
        }
        traffic.allow(0, true);
        senders.into_iter().flat_map(|sender| sender.join().expect("the sender ends well")).collect::<BTreeMap<_, _>>()
    });

    let last = now_s() + 1;
    project.settle("each", last);
    project.settle("sum", last);
    let unknown = fates.values().filter(|fate| **fate == Fate::Unknown).count() as u64;
    assert!(unknown >= KILLS, "only {unknown} reports were cut off by {KILLS} kills: they did not come in the middle");
    let numbers: Vec<u64> = fates.values().filter_map(|fate| if let Fate::Answered(tx) = fate { Some(*tx) } else { None }).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "two reports were given one number");

    let counted = check_each(&influx.read("killed", "crashmeter.kill.each.report", "tx_unique"), &fates);
    wait::until("the sum of all windows is the number of reports", VISIBLE, || {
        let windows = graphite.render("killed.kill.sum.reports.tx_unique", first, last + 1);
        let sum: f64 = windows.iter().flat_map(|series| &series.samples).map(|(_, value)| value).sum();
        if sum == counted as f64 { Ok(()) } else { Err(format!("{sum}, not {counted}")) }
    });
    project.assert_all_delivered("each", last);
    project.assert_all_delivered("sum", last);
}

/// Lets a burst of reports begin at a moment of the window that differs from round to round, and kills the server while some of
/// them are answered, some are under way and some have not begun.
fn kill_in_the_middle(server: &mut Crashmeter, traffic: &Traffic, round: u64) {
    // Spreads the moments over the window, its end and the seal after it included.
    let offset = Duration::from_millis(round * 370 % 1_000);
    std::thread::sleep(offset);
    let (answered, begun) = (traffic.answered.load(Ordering::SeqCst), traffic.begun.load(Ordering::SeqCst));
    traffic.allow(BURST, false);
    let enough = 1 + round * 7 % (BURST / 2);
    // Looked at closely: on a fast disk the whole burst takes a few hundredths of a second.
    let began = Instant::now();
    while traffic.answered.load(Ordering::SeqCst) - answered < enough {
        assert!(began.elapsed() < Duration::from_secs(20), "fewer than {enough} reports were answered");
        std::thread::sleep(Duration::from_micros(500));
    }
    server.kill();
    // What was not begun before the kill meets a closed port; let it, so that the next burst is a new one.
    wait::until("the burst is over", Duration::from_secs(20), || {
        let now = traffic.begun.load(Ordering::SeqCst) - begun;
        if now == BURST { Ok(()) } else { Err(format!("{now} of {BURST}")) }
    });
    server.resume();
}

impl Traffic {
    fn allow(&self, more: u64, end: bool) {
        let mut allowance = self.allowance.lock().expect("nobody panics with the lock");
        *allowance = (allowance.0 + more, end);
        self.changed.notify_all();
    }

    /// Waits for the leave to begin a report; false when there will be no more.
    fn begin(&self) -> bool {
        let allowance = self.allowance.lock().expect("nobody panics with the lock");
        let mut allowance = self.changed.wait_while(allowance, |(left, end)| *left == 0 && !*end).expect("nobody panics with the lock");
        if allowance.0 == 0 {
            return false;
        }
        allowance.0 -= 1;
        self.begun.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// Sends reports until there is no leave for more. Every other sender does what an SDK with an offline store does: it sends a
/// report that got no answer again, under the same id, until it gets one.
fn send(sender: u64, project: &Project, traffic: &Traffic) -> BTreeMap<String, Fate> {
    let insists = sender.is_multiple_of(2);
    let (mut fates, mut unanswered) = (BTreeMap::new(), None);
    while traffic.begin() {
        let key = unanswered.take().unwrap_or_else(|| format!("{sender}-{}", fates.len()));
        let uuid = uuid(sender, &key);
        let report = json!({"uuid": uuid, "timestamp": now_s(), "attributes": {"key": key}});
        let fate = match project.submit(&report) {
            Ok(reply) => {
                let reply = reply.expect(200).json();
                traffic.answered.fetch_add(1, Ordering::SeqCst);
                Fate::Answered(number_in(reply["_rxid"].as_str().expect("a receipt")))
            }
            Err(_) => {
                unanswered = insists.then(|| key.clone());
                Fate::Unknown
            }
        };
        fates.insert(key, fate);
    }
    fates
}

fn uuid(sender: u64, key: &str) -> String {
    let n: u64 = key.split('-').nth(1).and_then(|n| n.parse().ok()).expect("a key is sender and number");
    format!("{sender:08x}-0000-4000-8000-{n:012x}")
}

/// Holds the store's account against the senders': how many reports the store has in all.
fn check_each(series: &[Series], fates: &BTreeMap<String, Fate>) -> u64 {
    let mut stored: BTreeMap<&str, Vec<(u64, f64)>> = BTreeMap::new();
    for one in series {
        let windows = one.samples.iter().filter(|(_, value)| *value != 0.0);
        stored.entry(one.labels["key"].as_str()).or_default().extend(windows);
    }
    for (key, fate) in fates {
        let windows = stored.get(key.as_str()).map_or(&[][..], Vec::as_slice);
        match (fate, windows) {
            (_, [(_, 1.0)]) | (Fate::Unknown, []) => {}
            _ => panic!("report {key} is {fate:?}, and the store counts it in these windows: {windows:?}"),
        }
    }
    let strangers: Vec<_> = stored.keys().filter(|key| !fates.contains_key(**key)).collect();
    assert!(strangers.is_empty(), "the store counts reports that nobody sent: {strangers:?}");
    stored.values().map(|windows| windows.len() as u64).sum()
}
