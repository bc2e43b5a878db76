//! The catalog over a real database: revisions, seals, the ledger, secrets, restarts.

use catalog::{
    Attempt, AuditFilter, Catalog, CatalogError, Edit, IssueEdit, MetricDraft, PULL_OVERLAP_SECS, Scope, SealedCell, SealedMetric,
    SealedSeries, SealedWindow, Settled, StoreDraft, StoreId, StoreSettings, ViewDraft, WindowFacts, token_hash,
};
use model::{Aggregate, AggregateOp, Label, PathTemplate, Period, ProjectId, Query, Secret, Stamp, Window};
use std::collections::BTreeMap;

struct Fixture {
    folder: tempfile::TempDir,
    catalog: Catalog,
    project: ProjectId,
}

fn at(seconds: u64) -> impl Fn() -> Stamp {
    move || Stamp::from_secs(seconds)
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path()).expect("a new catalog");
    let (project, _) = catalog.create_project("shooter", "test", &at(100)).expect("made");
    Fixture { folder, catalog, project }
}

fn draft(attribute: &str) -> MetricDraft {
    let aggregates = vec![Aggregate { op: AggregateOp::Max, attribute: attribute.into() }];
    MetricDraft { query: Query { aggregates, ..Query::default() }, zero_for: None, series_budget: 10 }
}

fn store_draft(period: u32, secrets: &[(&str, Option<&str>)]) -> StoreDraft {
    let settings = StoreSettings {
        adapter: "graphite".into(),
        period: Period::new(period).expect("legal"),
        sets: vec!["errors".into()],
        prefix: "crashmeter".into(),
        template: PathTemplate::default(),
        label_names: BTreeMap::new(),
        labels: BTreeMap::new(),
        horizon_secs: 1_000,
        enabled: true,
        fields: serde_json::Map::new(),
    };
    let secrets = secrets.iter().map(|(name, text)| ((*name).to_owned(), text.map(Secret::new))).collect();
    StoreDraft { settings, secrets, pull: false }
}

fn window(start: u64) -> Window {
    Window::new(start, Period::new(10).expect("legal")).expect("on the grid")
}

fn sealed(fixture: &Fixture, start: u64, due: &[(StoreId, u64)]) -> SealedWindow {
    let snapshot = fixture.catalog.snapshot();
    let metrics = snapshot.metrics.iter().map(|metric| SealedMetric {
        revision: metric.newest().id,
        failure: None,
        matched: 3,
        own: 3,
        folded: 0,
        left_out: 0,
        series: vec![SealedSeries { key: vec![Label::Missing], live: true, cells: vec![SealedCell { value: Some(1.5), counter: None }] }],
    });
    SealedWindow {
        project: fixture.project,
        window: window(start),
        facts: WindowFacts { coverage: 0.5, accepted: 3, refused: vec![("busy".into(), 2)] },
        metrics: metrics.collect(),
        states: snapshot.metrics.iter().map(|metric| (metric.id, vec![1, 2, 3])).collect(),
        due: due.to_vec(),
    }
}

fn store(fixture: &Fixture) -> StoreId {
    fixture.catalog.put_store(fixture.project, "g", &store_draft(10, &[]), None, "test", &at(110)).expect("saved");
    fixture.catalog.snapshot().store(fixture.project, "g").expect("there").id
}

#[test]
fn a_revision_governs_windows_from_its_stamp_on() {
    let f = fixture();
    f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "test", &at(150)).expect("saved");
    assert_eq!(
        f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "test", &at(160)).expect("saved"),
        1,
        "saving the same changes nothing"
    );
    assert_eq!(f.catalog.put_metric(f.project, "errors", "m", &draft("b"), Some(1), "test", &at(171)).expect("saved"), 2);
    let stale = f.catalog.put_metric(f.project, "errors", "m", &draft("c"), Some(1), "test", &at(172));
    assert!(matches!(stale, Err(CatalogError::Changed { expected: 1, found: 2 })));
    f.catalog.delete_metric(f.project, "errors", "m", "test", &at(185)).expect("deleted");
    let snapshot = f.catalog.snapshot();
    let sets = ["errors".to_owned()];
    let revision = |start| snapshot.metrics_due(f.project, window(start), &sets).map(|(_, revision)| revision.number).collect::<Vec<_>>();
    assert_eq!([140, 150, 170, 180, 190].map(revision), [vec![], vec![1], vec![1], vec![2], vec![]]);
}

#[test]
fn what_was_deleted_in_the_first_window_of_a_new_grid_is_known_until_that_is_sealed() {
    let f = fixture();
    f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "test", &at(110)).expect("saved");
    store(&f);
    f.catalog.put_store(f.project, "h", &store_draft(60, &[]), None, "test", &at(111)).expect("saved");
    // Replaced before its first window: it makes no grid, and holds up nothing.
    f.catalog.put_store(f.project, "i", &store_draft(3_600, &[]), None, "test", &at(112)).expect("saved");
    f.catalog.delete_store(f.project, "i", "test", &at(113)).expect("deleted");
    f.catalog.delete_metric(f.project, "errors", "m", "test", &at(125)).expect("deleted");
    // The short grid is ahead of the long one, of which no window has ended yet.
    for start in [120, 130, 140] {
        f.catalog.seal(&sealed(&f, start, &[]), Stamp::from_secs(start + 10)).expect("sealed");
    }
    let again = Catalog::open(f.folder.path()).expect("opens again");
    let long = Window::new(120, Period::new(60).expect("legal")).expect("on the grid");
    assert_eq!(again.snapshot().metrics_due(f.project, long, &["errors".to_owned()]).count(), 1);
    f.catalog.seal(&SealedWindow { window: long, ..sealed(&f, 120, &[]) }, Stamp::from_secs(180)).expect("sealed");
    for start in [150, 160, 170] {
        f.catalog.seal(&sealed(&f, start, &[]), Stamp::from_secs(start + 10)).expect("sealed");
    }
    let last = Catalog::open(f.folder.path()).expect("opens again");
    assert_eq!(last.snapshot().metrics.len(), 0, "it governs nothing any more");
}

#[test]
fn a_change_is_stamped_after_everything_sealed_and_changed_before() {
    let f = fixture();
    f.catalog.seal(&sealed(&f, 500, &[]), Stamp::from_secs(511)).expect("sealed");
    assert_eq!(f.catalog.floor().expect("read"), Stamp::from_secs(510));
    f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "test", &at(7)).expect("saved although the clock is behind");
    assert_eq!(f.catalog.snapshot().metrics[0].newest().begins, Stamp::from_secs(510));
}

#[test]
fn a_window_is_sealed_once_and_in_order_and_all_or_nothing() {
    let f = fixture();
    let store = store(&f);
    f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "test", &at(111)).expect("saved");
    f.catalog.seal(&sealed(&f, 200, &[(store, 4)]), Stamp::from_secs(211)).expect("sealed");
    for start in [200, 190] {
        assert!(f.catalog.seal(&sealed(&f, start, &[(store, 4)]), Stamp::from_secs(212)).is_err(), "{start}");
    }
    // A seal that fails half-way leaves nothing: here the store of a delivery does not exist.
    let mut broken = sealed(&f, 210, &[(store, 4)]);
    broken.metrics[0].revision = catalog::RevisionId(999);
    assert!(f.catalog.seal(&broken, Stamp::from_secs(221)).is_err());
    assert_eq!(f.catalog.sealed_end(f.project, window(0).period()).expect("read"), Some(210));
    assert_eq!(f.catalog.window_facts(f.project, window(210)).expect("read"), None);
    assert_eq!(f.catalog.ledger(store).expect("read").due, 4);
    f.catalog.record_gap(f.project, window(210), 250).expect("recorded");
    assert!(f.catalog.seal(&sealed(&f, 240, &[]), Stamp::from_secs(251)).is_err(), "inside the gap");
    f.catalog.seal(&sealed(&f, 250, &[]), Stamp::from_secs(261)).expect("after the gap");
    assert_eq!(f.catalog.newest_sealed(f.project, window(0).period()).expect("read"), Some(window(250)));
}

#[test]
fn what_is_sealed_between_two_looks_at_one_moment_is_in_neither() {
    let f = fixture();
    let store = store(&f);
    let period = window(0).period();
    let look = || (f.catalog.backlog(store).expect("read").0, f.catalog.newest_sealed(f.project, period).expect("read"));
    let seen = f.catalog.at_one_moment(|| {
        let before = look();
        // Writers do not wait for a reader.
        f.catalog.seal(&sealed(&f, 200, &[(store, 4)]), Stamp::from_secs(211)).expect("sealed");
        Ok([before, look()])
    });
    assert_eq!(seen.expect("looked"), [(0, None), (0, None)]);
    assert_eq!(look(), (1, Some(window(200))), "and the next look sees it");
}

#[test]
fn what_is_sealed_reads_back_after_a_restart() {
    let f = fixture();
    f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "test", &at(111)).expect("saved");
    let one = sealed(&f, 200, &[]);
    f.catalog.seal(&one, Stamp::from_secs(211)).expect("sealed");
    f.catalog.record_downtime(Stamp::from_secs(1), Stamp::from_secs(5)).expect("recorded");
    let metric = f.catalog.snapshot().metrics[0].id;
    drop(f.catalog);
    let again = Catalog::open(f.folder.path()).expect("opens again");
    assert_eq!(again.sealed_metric(one.metrics[0].revision, window(200)).expect("read"), Some(one.metrics[0].clone()));
    assert_eq!(again.window_facts(f.project, window(200)).expect("read"), Some(one.facts));
    assert_eq!(again.series_state(metric, window(0).period()).expect("read"), Some(vec![1, 2, 3]));
    assert_eq!(again.downtimes(Stamp::from_secs(4)).expect("read"), [(Stamp::from_secs(1), Stamp::from_secs(5))]);
    assert_eq!(again.downtimes(Stamp::from_secs(5)).expect("read"), []);
    assert_eq!(again.snapshot().metrics.len(), 1);
}

#[test]
fn the_ledger_adds_up_through_attempts_expiry_and_deletion() {
    let f = fixture();
    let store = store(&f);
    for start in [200, 210, 220] {
        f.catalog.seal(&sealed(&f, start, &[(store, 10)]), Stamp::from_secs(start + 11)).expect("sealed");
    }
    let ledger = || f.catalog.ledger(store).expect("read");
    assert_eq!((ledger().due, ledger().open, ledger().imbalance()), (30, 30, 0));
    let open = f.catalog.oldest_open(store, None).expect("read").expect("one is open");
    assert_eq!((open.window, open.points.open, open.payload), (window(200), 10, None));
    f.catalog.keep_payload(store, window(200), &Settled { excluded: 2, payload: Some(vec![9]), ..Settled::default() }).expect("kept");
    let attempt =
        Attempt { window_start: 200, at: 215, outcome: "partial".into(), text: "two refused".into(), points: 8, bytes: 99, millis: 3 };
    let settled = Settled { confirmed: 4, refused: 2, payload: Some(vec![8]), note: Some("two refused".into()), ..Settled::default() };
    f.catalog.record_attempt(store, window(200), &attempt, &settled).expect("recorded");
    let open = f.catalog.oldest_open(store, None).expect("read").expect("still open");
    assert_eq!((open.points.open, open.payload), (2, Some(vec![8])));
    // More than is open can never be settled.
    f.catalog.record_attempt(store, window(200), &attempt, &Settled { sent: 3, ..Settled::default() }).expect("nothing is changed");
    assert_eq!(ledger().sent, 0);
    f.catalog.record_attempt(store, window(200), &attempt, &Settled { sent: 2, ..Settled::default() }).expect("recorded");
    f.catalog.expire(store, window(210), 10, "too old").expect("recorded");
    assert_eq!(f.catalog.oldest_open(store, None).expect("read").map(|open| open.window), Some(window(220)));
    assert_eq!(f.catalog.oldest_open(store, Some(window(220).into())).expect("read").map(|open| open.window), None);
    f.catalog.delete_store(f.project, "g", "test", &at(400)).expect("deleted");
    let end = ledger();
    let parts = (end.confirmed, end.sent, end.refused, end.excluded, end.open, end.expired, end.cancelled);
    assert_eq!((parts, end.due, end.imbalance()), ((4, 2, 2, 2, 0, 10, 10), 30, 0));
    // An answer that comes after the deletion settles nothing any more, and a window sealed after it owes nothing.
    f.catalog.record_attempt(store, window(220), &attempt, &Settled { confirmed: 10, ..Settled::default() }).expect("nothing is changed");
    f.catalog.seal(&sealed(&f, 230, &[(store, 5)]), Stamp::from_secs(500)).expect("sealed");
    assert_eq!((ledger().confirmed, ledger().cancelled, ledger().imbalance()), (4, 15, 0));
    assert_eq!(f.catalog.deliveries(store, 0, u64::MAX >> 1, 10).expect("read").len(), 4);
}

#[test]
fn a_window_set_aside_comes_after_the_others() {
    let f = fixture();
    let store = store(&f);
    for start in [200, 210] {
        f.catalog.seal(&sealed(&f, start, &[(store, 1)]), Stamp::from_secs(start + 11)).expect("sealed");
    }
    f.catalog.set_aside(store, window(200)).expect("recorded");
    assert_eq!(f.catalog.oldest_open(store, None).expect("read").map(|open| open.window), Some(window(210)));
}

#[test]
fn of_each_store_the_last_thousand_attempts_are_kept_whatever_others_do_between() {
    let f = fixture();
    let (one, attempt) = (store(&f), |at| Attempt {
        window_start: 200,
        at,
        outcome: "retry".into(),
        text: "HTTP 503".into(),
        points: 1,
        bytes: 1,
        millis: 1,
    });
    f.catalog.put_store(f.project, "h", &store_draft(10, &[]), None, "test", &at(130)).expect("saved");
    let other = f.catalog.snapshot().store(f.project, "h").expect("there").id;
    // Attempts are numbered over all stores: of this order one store never gets a number that ends in 00.
    for n in 0..1_100 {
        for store in [one, other] {
            f.catalog.record_attempt(store, window(200), &attempt(n), &Settled::default()).expect("recorded");
        }
    }
    for store in [one, other] {
        let kept: Vec<u64> = f.catalog.attempts(store, 5_000).expect("read").iter().map(|attempt| attempt.at).collect();
        assert_eq!((kept.len(), kept[0], kept[999]), (1_000, 1_099, 100));
    }
}

#[test]
fn tokens_are_kept_as_hashes_and_secrets_encrypted() {
    let f = fixture();
    let token = f.catalog.create_token(Scope::Query, None, "test", &at(120)).expect("made");
    f.catalog.put_store(f.project, "g", &store_draft(10, &[("password", Some("hunter2-secret"))]), None, "test", &at(130)).expect("saved");
    let snapshot = f.catalog.snapshot();
    assert_eq!(snapshot.tokens[&token_hash(token.reveal())].scope, Scope::Query);
    assert_eq!(snapshot.store(f.project, "g").expect("there").secrets["password"].reveal(), "hunter2-secret");
    // Left out: kept. None: cleared.
    f.catalog.put_store(f.project, "g", &store_draft(20, &[]), Some(1), "test", &at(140)).expect("saved");
    assert_eq!(f.catalog.snapshot().store(f.project, "g").expect("there").secrets.len(), 1);
    f.catalog.put_store(f.project, "g", &store_draft(20, &[("password", None)]), None, "test", &at(150)).expect("saved");
    assert_eq!(f.catalog.snapshot().store(f.project, "g").expect("there").secrets.len(), 0);
    let id = snapshot.tokens[&token_hash(token.reveal())].id;
    f.catalog.revoke_token(id, "test", &at(160)).expect("revoked");
    assert!(!f.catalog.snapshot().tokens.contains_key(&token_hash(token.reveal())));
    drop(f.catalog);
    for entry in std::fs::read_dir(f.folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("readable");
        for secret in ["hunter2-secret", token.reveal()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "a secret is on the disk in clear");
        }
    }
}

#[test]
fn a_swapped_ciphertext_and_a_newer_database_are_refused() {
    let f = fixture();
    for name in ["a", "b"] {
        f.catalog.put_store(f.project, name, &store_draft(10, &[("password", Some("x"))]), None, "test", &at(130)).expect("saved");
    }
    drop(f.catalog);
    let path = f.folder.path().join("catalog.sqlite");
    let connection = rusqlite::Connection::open(&path).expect("opens");
    connection
        .execute("UPDATE store_secret SET sealed = (SELECT sealed FROM store_secret WHERE store = 1) WHERE store = 2", [])
        .expect("swapped");
    assert!(matches!(Catalog::open(f.folder.path()), Err(CatalogError::Undecipherable { .. })));
    connection.pragma_update(None, "user_version", 99).expect("set");
    assert!(matches!(Catalog::open(f.folder.path()), Err(CatalogError::Newer { found: 99, .. })));
}

#[test]
fn an_issue_keeps_what_an_edit_leaves_out() {
    let f = fixture();
    let edit = |fingerprints: &[&str], edit: IssueEdit, seconds| {
        let fingerprints: Vec<String> = fingerprints.iter().map(|&text| text.to_owned()).collect();
        f.catalog.edit_issues(f.project, &fingerprints, &edit, "test", &at(seconds)).expect("saved");
    };
    let text = |text: &str| Some(Some(text.to_owned()));
    edit(&["a", "b"], IssueEdit { tags: text("x y"), ..IssueEdit::default() }, 200);
    edit(&["b"], IssueEdit { state: text("resolved"), ticket: text("https://t/1"), assignee: text("ann"), tags: None }, 300);
    edit(&["b"], IssueEdit { ticket: Some(None), ..IssueEdit::default() }, 400);
    let again = Catalog::open(f.folder.path()).expect("opens again");
    let shown = |issue: &catalog::Issue| {
        let texts = [Some(issue.state.clone()), issue.tags.clone(), issue.ticket.clone(), issue.assignee.clone()];
        (issue.fingerprint.clone(), texts.map(Option::unwrap_or_default), issue.modified.secs())
    };
    let issues: Vec<_> = again.issues(f.project).expect("read").iter().map(shown).collect();
    let texts = |texts: [&str; 4]| texts.map(str::to_owned);
    let expected = [("a".to_owned(), texts(["open", "x y", "", ""]), 200), ("b".to_owned(), texts(["resolved", "x y", "", "ann"]), 400)];
    assert_eq!(issues, expected);
    assert!(again.issues(ProjectId(99)).expect("read").is_empty());
    edit(&["b"], IssueEdit { state: Some(None), ..IssueEdit::default() }, 500);
    assert_eq!(f.catalog.issues(f.project).expect("read")[1].state, catalog::OPEN);
}

#[test]
fn a_view_has_a_name_of_its_own_and_a_number_for_good() {
    let f = fixture();
    let draft = |name: &str| ViewDraft { name: name.into(), queries: "[1]".into(), payload: "{}".into() };
    let first = f.catalog.create_view(f.project, &draft("a"), "test", &at(200)).expect("made");
    assert!(matches!(f.catalog.create_view(f.project, &draft("a"), "test", &at(200)), Err(CatalogError::Exists(_))));
    f.catalog.put_view(f.project, first, &draft("b"), "test", &at(200)).expect("replaced");
    let views = f.catalog.views(f.project).expect("read");
    assert_eq!((views.len(), views[0].id, views[0].name.as_str(), views[0].queries.as_str()), (1, first, "b", "[1]"));
    assert!(matches!(f.catalog.delete_view(ProjectId(99), first, "test", &at(200)), Err(CatalogError::Missing(_))));
    f.catalog.delete_view(f.project, first, "test", &at(200)).expect("deleted");
    assert!(f.catalog.views(f.project).expect("read").is_empty());
    assert!(f.catalog.create_view(f.project, &draft("c"), "test", &at(200)).expect("made") > first);
}

/// The secret of the pull store "p", made at second 110 if need be.
fn pull_secret(f: &Fixture) -> String {
    if f.catalog.snapshot().store(f.project, "p").is_none() {
        let draft = StoreDraft { pull: true, ..store_draft(10, &[]) };
        f.catalog.put_store(f.project, "p", &draft, Some(0), "test", &at(110)).expect("saved");
    }
    let snapshot = f.catalog.snapshot();
    let id = snapshot.store(f.project, "p").expect("there").id;
    snapshot.pull_secret(id).expect("made").reveal().to_owned()
}

/// Whether the page behind each secret is served at a second.
fn served<const N: usize>(f: &Fixture, secrets: [&str; N], second: u64) -> [bool; N] {
    let snapshot = f.catalog.snapshot();
    secrets.map(|secret| snapshot.store_at(secret, Stamp::from_secs(second)).is_some_and(|store| store.name == "p"))
}

#[test]
fn a_rotated_url_is_served_for_an_hour_more() {
    let mut f = fixture();
    let first = pull_secret(&f);
    assert_eq!(served(&f, [&first, "", "unknown"], 200), [true, false, false]);
    f.catalog.rotate_pull_secret(f.project, "p", "test", &at(1_000)).expect("rotated");
    let second = pull_secret(&f);
    let end = 1_000 + PULL_OVERLAP_SECS;
    assert_eq!([served(&f, [&first, &second], end - 1), served(&f, [&first, &second], end)], [[true, true], [false, true]]);
    // A second rotation moves no end that was already set.
    f.catalog.rotate_pull_secret(f.project, "p", "test", &at(2_000)).expect("rotated");
    let third = pull_secret(&f);
    assert_eq!(served(&f, [&first, &second, &third], end), [false, true, true]);
    f.catalog = Catalog::open(f.folder.path()).expect("opened again");
    assert_eq!(served(&f, [&first, &second, &third], end - 1), [true, true, true]);
    assert_eq!(served(&f, [&first, &second, &third], 2_000 + PULL_OVERLAP_SECS), [false, false, true]);
    // What has ended is forgotten with the next rotation.
    f.catalog.rotate_pull_secret(f.project, "p", "test", &at(end)).expect("rotated");
    assert_eq!(f.catalog.snapshot().pulls.len(), 3);
    f.catalog.delete_store(f.project, "p", "test", &at(end)).expect("deleted");
    assert_eq!(served(&f, [&first, &second, &third], end), [false, false, false]);
    assert_eq!(f.catalog.snapshot().pulls.len(), 0);
}

#[test]
fn two_who_make_one_store_at_once_do_not_both_succeed_when_it_must_be_new() {
    let f = fixture();
    pull_secret(&f);
    let draft = StoreDraft { pull: true, ..store_draft(10, &[("password", Some("other"))]) };
    let refused = f.catalog.put_store(f.project, "p", &draft, Some(0), "test", &at(120));
    assert!(matches!(refused, Err(CatalogError::Changed { expected: 0, found: 1 })), "{refused:?}");
    assert!(!f.catalog.snapshot().store(f.project, "p").expect("there").secrets.contains_key("password"));
}

fn put_metric(metric: &str, attribute: &str) -> Edit {
    Edit::PutMetric { project: "shooter".into(), set: "errors".into(), metric: metric.into(), draft: draft(attribute) }
}

#[test]
fn many_edits_are_one_change_with_one_stamp_and_one_version() {
    let f = fixture();
    let store = Edit::PutStore { project: "racer".into(), store: "g".into(), draft: store_draft(10, &[("password", Some("x"))]) };
    let edits = [
        Edit::CreateProject { project: "racer".into() },
        Edit::PutSet { project: "racer".into(), set: "empty".into() },
        store,
        put_metric("a", "n"),
        put_metric("b", "n"),
    ];
    let seen = f.catalog.snapshot().version;
    let applied = f.catalog.apply(&edits, seen, "test", &at(150)).expect("applied");
    assert_eq!(applied.projects.iter().map(|(name, token)| (name.as_str(), token.reveal().len())).collect::<Vec<_>>(), [("racer", 64)]);
    let snapshot = f.catalog.snapshot();
    assert_eq!(snapshot.version, seen + 1);
    let racer = snapshot.project("racer").expect("made");
    assert_eq!((racer.sets.as_slice(), racer.created), (&["empty".to_owned()][..], Stamp::from_secs(150)));
    assert_eq!(snapshot.store(racer.id, "g").expect("made").secrets["password"].reveal(), "x");
    let begins: Vec<_> = snapshot.metrics.iter().map(|metric| (metric.name.as_str(), metric.newest().begins)).collect();
    assert_eq!(begins, [("a", Stamp::from_secs(150)), ("b", Stamp::from_secs(150))]);
    let removals = [
        Edit::DeleteMetric { project: "shooter".into(), set: "errors".into(), metric: "a".into() },
        Edit::DeleteSet { project: "racer".into(), set: "empty".into() },
        Edit::DeleteStore { project: "racer".into(), store: "g".into() },
    ];
    f.catalog.apply(&removals, snapshot.version, "test", &at(160)).expect("applied");
    let snapshot = f.catalog.snapshot();
    assert_eq!(snapshot.metrics.iter().filter(|metric| metric.deleted.is_none()).count(), 1);
    assert!(snapshot.store(racer.id, "g").is_none() && snapshot.project("racer").expect("there").sets.is_empty());
}

#[test]
fn of_many_edits_all_are_made_or_none() {
    let f = fixture();
    let seen = f.catalog.snapshot().version;
    for broken in [
        Edit::CreateProject { project: "shooter".into() },
        Edit::PutSet { project: "nobody".into(), set: "s".into() },
        Edit::DeleteMetric { project: "shooter".into(), set: "errors".into(), metric: "nothing".into() },
    ] {
        let edits = [Edit::CreateProject { project: "racer".into() }, put_metric("a", "n"), broken.clone()];
        assert!(f.catalog.apply(&edits, seen, "test", &at(150)).is_err(), "{broken:?}");
        let snapshot = f.catalog.snapshot();
        assert_eq!((snapshot.projects.len(), snapshot.metrics.len(), snapshot.version), (1, 0, seen), "{broken:?}");
    }
    let again = Catalog::open(f.folder.path()).expect("opens beside it");
    assert_eq!((again.snapshot().projects.len(), again.snapshot().metrics.len()), (1, 0));
}

#[test]
fn a_plan_made_before_somebody_elses_change_is_refused_also_after_a_restart() {
    let f = fixture();
    let seen = f.catalog.snapshot().version;
    f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "other", &at(150)).expect("saved");
    assert!(matches!(f.catalog.apply(&[put_metric("m", "b")], seen, "test", &at(151)), Err(CatalogError::Outdated)));
    let now = f.catalog.snapshot().version;
    drop(f.catalog);
    let again = Catalog::open(f.folder.path()).expect("opens again");
    assert_eq!(again.snapshot().version, now);
    assert!(matches!(again.apply(&[put_metric("m", "b")], seen, "test", &at(152)), Err(CatalogError::Outdated)));
    again.apply(&[put_metric("m", "b")], now, "test", &at(152)).expect("applied");
}

#[test]
fn where_a_metric_was_last_sealed_on_a_grid_is_known_over_its_revisions() {
    let f = fixture();
    f.catalog.put_metric(f.project, "errors", "m", &draft("a"), None, "test", &at(111)).expect("saved");
    let metric = f.catalog.snapshot().metrics[0].id;
    let until = |period: u32| f.catalog.metric_sealed_until(metric, Period::new(period).expect("legal")).expect("read");
    assert_eq!(until(10), None);
    f.catalog.seal(&sealed(&f, 200, &[]), Stamp::from_secs(211)).expect("sealed");
    assert_eq!((until(10), until(60)), (Some(210), None));
    f.catalog.put_metric(f.project, "errors", "m", &draft("b"), None, "test", &at(220)).expect("saved");
    assert_eq!(until(10), Some(210), "of the revision before");
    f.catalog.seal(&sealed(&f, 230, &[]), Stamp::from_secs(241)).expect("sealed");
    assert_eq!(until(10), Some(240));
}

#[test]
fn the_audit_log_is_read_newest_first_and_page_by_page() {
    let Fixture { folder: _folder, catalog, project } = fixture();
    let (other, _) = catalog.create_project("racer", "user ann", &at(110)).expect("made");
    catalog.put_metric(project, "errors", "all", &draft("a"), None, "user ann", &at(120)).expect("saved");
    catalog.put_store(project, "g", &store_draft(10, &[("password", Some("canary"))]), None, "token 3", &at(130)).expect("saved");
    catalog.create_token(Scope::Query, Some(other), "user ann", &at(140)).expect("made");
    let tokens = catalog.tokens(Some(other)).expect("listed");
    let queries = tokens.iter().find(|token| token.scope == Scope::Query).expect("made above");
    catalog.revoke_token(queries.id, "user ann", &at(150)).expect("revoked");
    catalog.create_token(Scope::Admin, None, "user ann", &at(160)).expect("made");
    assert!(catalog.delete_metric(project, "errors", "none", "user bob", &at(170)).is_err());

    let read = |filter: &AuditFilter, limit| {
        let entries = catalog.audit_log(filter, limit).expect("read");
        let told = entries.iter().map(|one| {
            assert!(!one.subject.contains("canary"));
            format!("{} {} {}: {} {}", one.at.secs(), one.actor, one.project.as_deref().unwrap_or("-"), one.action, one.subject)
        });
        (told.collect::<Vec<_>>(), entries.last().map(|oldest| oldest.id))
    };
    let all = [
        "160 user ann -: create token admin".to_owned(),
        format!("150 user ann racer: revoke token {}", queries.id),
        "140 user ann racer: create token query".to_owned(),
        "130 token 3 shooter: put metric store g".to_owned(),
        "120 user ann shooter: put metric errors/all".to_owned(),
        "110 user ann racer: create project racer".to_owned(),
        "100 test shooter: create project shooter".to_owned(),
    ];
    assert_eq!(read(&AuditFilter::default(), 100).0, all, "what failed is not in it");
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let (page, oldest) = read(&AuditFilter { before, ..AuditFilter::default() }, 2);
        if page.is_empty() {
            break;
        }
        pages.push(page);
        before = oldest;
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 1]);
    assert_eq!(pages.concat(), all);
    assert_eq!(read(&AuditFilter { project: Some(other), ..AuditFilter::default() }, 100).0, [&all[1..3], &all[5..6]].concat());
    assert_eq!(read(&AuditFilter { actor: Some("token 3".into()), ..AuditFilter::default() }, 100).0, all[3..4]);
    let both = AuditFilter { project: Some(project), actor: Some("user ann".into()), before: None };
    assert_eq!(read(&both, 100).0, all[4..5]);
}
