//! Users, logins and sessions over a real database: who gets in, for how long, and what ends it.

use catalog::{Catalog, CatalogError, LoginError, Role, Session, UserEdit, token_hash};
use model::{Secret, Stamp};
use std::time::{Duration, Instant};

const HOUR: u64 = 3_600;

fn at(seconds: u64) -> impl Fn() -> Stamp {
    move || Stamp::from_secs(seconds)
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

/// A catalog with the administrator `root` and the viewer `ann`.
fn fixture() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path()).expect("a new catalog");
    catalog.create_user("root", Role::Admin, &secret("root-password"), "test", &at(100)).expect("made");
    catalog.create_user("ann", Role::Viewer, &secret("ann-password"), "test", &at(100)).expect("made");
    (folder, catalog)
}

fn login(catalog: &Catalog, name: &str, password: &str, seconds: u64) -> Result<Session, LoginError> {
    let guess = catalog.admit(name, Stamp::from_secs(seconds))?;
    catalog.login(guess, &secret(password), &at(seconds))
}

fn enter(catalog: &Catalog, name: &str, seconds: u64) -> [u8; 32] {
    let session = login(catalog, name, &format!("{name}-password"), seconds).expect("the right password");
    token_hash(session.token.reveal())
}

/// Whose a session is and what it may do, if it is open.
fn who(catalog: &Catalog, session: &[u8; 32], seconds: u64) -> Option<(String, Role)> {
    catalog.session(session, Stamp::from_secs(seconds)).map(|access| (access.user, access.role))
}

/// The audit rows so far, as actor, action and subject.
fn audit(folder: &tempfile::TempDir) -> Vec<[String; 3]> {
    let connection = rusqlite::Connection::open(folder.path().join("catalog.sqlite")).expect("opens");
    let mut statement = connection.prepare("SELECT actor, action, subject FROM audit ORDER BY id").expect("a table");
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

/// The sessions in the database.
fn kept(folder: &tempfile::TempDir) -> Vec<[u8; 32]> {
    let connection = rusqlite::Connection::open(folder.path().join("catalog.sqlite")).expect("opens");
    let mut statement = connection.prepare("SELECT hash FROM session").expect("a table");
    statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("hashes")
}

#[test]
fn the_right_password_opens_a_session_of_the_users_role() {
    let (_folder, catalog) = fixture();
    let session = login(&catalog, "ANN", "ann-password", 200).expect("the case of a name does not matter");
    assert_eq!((session.user.as_str(), session.role, session.expires), ("ann", Role::Viewer, Stamp::from_secs(200 + 7 * 24 * HOUR)));
    let token = session.token.reveal();
    assert!(token.len() == 64 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{token}");
    let access = catalog.session(&token_hash(token), Stamp::from_secs(201)).expect("open");
    assert_eq!((access.user.as_str(), access.role, access.expires), ("ann", Role::Viewer, session.expires));
    let second = login(&catalog, "ann", "ann-password", 200).expect("logs in again");
    assert!(second.token != session.token, "each login has a session of its own");
    assert!(!catalog.snapshot().tokens.contains_key(&token_hash(token)), "it is no API token");
}

#[test]
fn whoever_is_not_let_in_is_told_the_same_in_the_same_time() {
    let (_folder, catalog) = fixture();
    catalog.create_user("off", Role::Admin, &secret("off-password"), "test", &at(100)).expect("made");
    catalog.edit_user("off", &UserEdit { disabled: Some(true), ..UserEdit::default() }, "test", &at(110)).expect("disabled");
    let mut least = [("ann", Duration::MAX), ("off", Duration::MAX), ("nobody", Duration::MAX)];
    for second in 0..4 {
        for (name, least) in &mut least {
            let begin = Instant::now();
            let refused = login(&catalog, name, "off-password", 200 + second).expect_err("not let in");
            *least = begin.elapsed().min(*least);
            assert!(matches!(refused, LoginError::Wrong), "{name}: {refused:?}");
            assert_eq!(refused.to_string(), "the user or the password is wrong");
        }
    }
    // Hashing takes a hundred times what else there is to do; whoever is spared it shows.
    for (name, duration) in least {
        assert!(duration * 4 > least[0].1, "{name} is refused in {duration:?}, a wrong password in {:?}", least[0].1);
    }
}

#[test]
fn guessing_is_slowed_down_per_name_whoever_it_is_of() {
    let (_folder, catalog) = fixture();
    for name in ["ann", "nobody"] {
        for _ in 0..10 {
            assert!(matches!(login(&catalog, name, "wrong-password", 200), Err(LoginError::Wrong)));
        }
        let Err(LoginError::TooMany(refused)) = login(&catalog, &name.to_uppercase(), "ann-password", 210) else {
            panic!("{name}: an eleventh guess");
        };
        assert_eq!(refused.wait_secs, 50);
    }
    // Right ones are not counted, however many.
    for _ in 0..12 {
        enter(&catalog, "root", 210);
    }
    enter(&catalog, "ann", 260);
    // Leave that nobody used counts too: many requests at one time are no way around.
    let held: Vec<_> = (0..9).map(|_| catalog.admit("root", Stamp::from_secs(300)).expect("nine more")).collect();
    drop(held);
    assert!(catalog.admit("root", Stamp::from_secs(300)).is_ok() && catalog.admit("root", Stamp::from_secs(300)).is_err());
}

#[test]
fn a_session_ends_unused_or_old_or_by_logging_out() {
    let (folder, catalog) = fixture();
    let idle = enter(&catalog, "ann", 1_000);
    let [busy, out] = [0, 0].map(|_| enter(&catalog, "ann", 1_000));
    assert!(catalog.logout(&out, &at(1_100)).expect("logged out"));
    assert!(!catalog.logout(&out, &at(1_100)).expect("nothing to do"));
    assert_eq!(who(&catalog, &out, 1_100), None);
    for hour in (6..168).step_by(6) {
        assert!(who(&catalog, &busy, 1_000 + hour * HOUR).is_some(), "{hour} h");
    }
    assert_eq!(who(&catalog, &idle, 1_000 + 12 * HOUR), None);
    assert_eq!(who(&catalog, &busy, 1_000 + 168 * HOUR), None);
    // The next login clears away what has ended, and nothing else.
    let new = enter(&catalog, "ann", 1_000 + 168 * HOUR);
    assert_eq!(kept(&folder), [new]);
}

#[test]
fn a_session_outlives_a_restart_and_its_use_is_written_once_a_minute() {
    let (folder, catalog) = fixture();
    let session = enter(&catalog, "ann", 1_000);
    let due = |second| catalog.session(&session, Stamp::from_secs(second)).expect("open").write_due;
    assert_eq!([1_001, 1_059, 1_060, 1_061, 1_119, 1_120].map(due), [false, false, true, false, false, true]);
    catalog.session(&session, Stamp::from_secs(1_000 + 10 * HOUR)).expect("open");
    catalog.write_session_use(&session).expect("written");
    let out = enter(&catalog, "ann", 1_000);
    catalog.logout(&out, &at(1_001)).expect("logged out");
    drop(catalog);
    let again = Catalog::open(folder.path()).expect("opens again");
    assert_eq!(who(&again, &out, 1_002), None);
    assert_eq!(who(&again, &session, 1_000 + 21 * HOUR), Some(("ann".into(), Role::Viewer)), "used in its tenth hour");
    drop(again);
    let again = Catalog::open(folder.path()).expect("opens again");
    assert_eq!(who(&again, &session, 1_000 + 22 * HOUR), None, "what was not written is forgotten");
    again.write_session_use(&[7; 32]).expect("no session, nothing to write");
}

#[test]
fn a_role_counts_at_once_and_a_new_password_or_disabling_ends_sessions() {
    let (folder, catalog) = fixture();
    let session = enter(&catalog, "ann", 200);
    let edit = |edit: UserEdit, second| catalog.edit_user("ann", &edit, "test", &at(second)).expect("changed");
    edit(UserEdit { role: Some(Role::Editor), ..UserEdit::default() }, 210);
    assert_eq!(who(&catalog, &session, 211), Some(("ann".into(), Role::Editor)));
    edit(UserEdit { password: Some(secret("ann-password-2")), ..UserEdit::default() }, 220);
    assert_eq!(who(&catalog, &session, 221), None);
    assert!(matches!(login(&catalog, "ann", "ann-password", 222), Err(LoginError::Wrong)));
    let session = token_hash(login(&catalog, "ann", "ann-password-2", 223).expect("the new one").token.reveal());
    edit(UserEdit { disabled: Some(true), ..UserEdit::default() }, 230);
    edit(UserEdit { disabled: Some(true), ..UserEdit::default() }, 231);
    let ann = catalog.snapshot().users.iter().find(|user| user.name == "ann").cloned().expect("there");
    assert_eq!(ann.disabled, Some(Stamp::from_secs(230)), "since when it first was");
    assert_eq!(who(&catalog, &session, 232), None);
    assert!(matches!(login(&catalog, "ann", "ann-password-2", 233), Err(LoginError::Wrong)));
    edit(UserEdit { disabled: Some(false), ..UserEdit::default() }, 240);
    assert_eq!(who(&catalog, &session, 241), None, "it does not come back");
    let session = token_hash(login(&catalog, "ann", "ann-password-2", 242).expect("again").token.reveal());
    assert_eq!(kept(&folder), [session], "those before are gone for good");
    catalog.delete_user("ann", "test", &at(250)).expect("deleted");
    assert_eq!(who(&catalog, &session, 251), None);
    assert!(kept(&folder).is_empty());
    // The name may be given again, to somebody else.
    catalog.create_user("ann", Role::Admin, &secret("another-ann"), "test", &at(260)).expect("made");
    assert_eq!(who(&catalog, &session, 261), None);
    drop(catalog);
    let again = Catalog::open(folder.path()).expect("opens again");
    assert_eq!(who(&again, &session, 262), None);
    let rows = audit(&folder).into_iter().skip(2).map(|[actor, action, subject]| format!("{actor}: {action} {subject}"));
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [
            "user ann: log in ann",
            "test: set role ann editor",
            "test: set password ann",
            "user ann: log in ann",
            "test: disable user ann",
            "test: disable user ann",
            "test: enable user ann",
            "user ann: log in ann",
            "test: delete user ann",
            "test: create user ann admin",
        ]
    );
}

#[test]
fn the_last_administrator_stays() {
    let (_folder, catalog) = fixture();
    let demote = UserEdit { role: Some(Role::Editor), ..UserEdit::default() };
    let disable = UserEdit { disabled: Some(true), ..UserEdit::default() };
    let refused = |outcome: Result<(), CatalogError>| matches!(outcome, Err(CatalogError::LastAdmin(name)) if name == "root");
    let session = enter(&catalog, "root", 200);
    for edit in [&demote, &disable] {
        assert!(refused(catalog.edit_user("root", edit, "test", &at(210))), "{edit:?}");
    }
    assert!(refused(catalog.delete_user("root", "test", &at(210))));
    assert_eq!(who(&catalog, &session, 211), Some(("root".into(), Role::Admin)), "nothing has changed");
    // A disabled administrator is none.
    catalog.create_user("second", Role::Admin, &secret("second-password"), "test", &at(220)).expect("made");
    catalog.edit_user("second", &disable, "test", &at(221)).expect("another is there");
    assert!(refused(catalog.edit_user("root", &demote, "test", &at(222))));
    catalog.edit_user("second", &UserEdit { disabled: Some(false), ..UserEdit::default() }, "test", &at(223)).expect("enabled");
    catalog.delete_user("root", "test", &at(224)).expect("another is there");
    assert!(matches!(catalog.delete_user("second", "test", &at(225)), Err(CatalogError::LastAdmin(_))));
}

#[test]
fn a_user_changes_their_own_password_with_the_old_one() {
    let (folder, catalog) = fixture();
    let [asking, other] = [0, 0].map(|_| enter(&catalog, "ann", 200));
    let root = enter(&catalog, "root", 200);
    let change = |old: &str, new: &str, second| {
        let guess = catalog.admit("ann", Stamp::from_secs(second))?;
        catalog.change_password(guess, &secret(old), &secret(new), &asking, &at(second))
    };
    assert!(matches!(change("not-the-old", "ann-password-2", 210), Err(LoginError::Wrong)));
    assert_eq!(who(&catalog, &other, 211), Some(("ann".into(), Role::Viewer)));
    change("ann-password", "ann-password-2", 220).expect("changed");
    assert!(who(&catalog, &asking, 221).is_some() && who(&catalog, &root, 221).is_some());
    assert_eq!(who(&catalog, &other, 221), None, "whoever else knew the old one is out");
    let mut left = [asking, root];
    left.sort_unstable();
    assert_eq!(kept(&folder), left);
    assert!(login(&catalog, "ann", "ann-password-2", 222).is_ok() && login(&catalog, "ann", "ann-password", 222).is_err());
    // Trying old passwords is guessing like any other, but for the right one.
    drop([0; 9].map(|_| catalog.admit("ann", Stamp::from_secs(1_000)).expect("ten at once")));
    change("ann-password-2", "ann-password-3", 1_000).expect("changed");
    assert!(catalog.admit("ann", Stamp::from_secs(1_000)).is_ok());
    let guesses = (0..20).filter(|_| matches!(change("not-the-old", "x", 2_000), Err(LoginError::Wrong))).count();
    assert!(guesses <= 10, "{guesses}");
}

#[test]
fn the_first_start_makes_an_administrator_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path()).expect("a new catalog");
    let password = catalog.create_first_user("first start", &at(100)).expect("made").expect("there was none");
    assert!(catalog.create_first_user("first start", &at(101)).expect("nothing to do").is_none());
    let session = login(&catalog, "admin", password.reveal(), 102).expect("it is the password");
    assert_eq!(session.role, Role::Admin);
    catalog.create_user("second", Role::Admin, &secret("second-password"), "test", &at(103)).expect("made");
    catalog.delete_user("admin", "test", &at(104)).expect("deleted");
    drop(catalog);
    let again = Catalog::open(folder.path()).expect("opens again");
    assert!(again.create_first_user("first start", &at(105)).expect("nothing to do").is_none(), "a deleted one does not come back");
    assert!(matches!(again.create_user("second", Role::Viewer, &password, "test", &at(106)), Err(CatalogError::Exists(_))));
}

#[test]
fn a_user_has_a_hundred_sessions_at_most() {
    let (folder, catalog) = fixture();
    let (other, last) = (enter(&catalog, "root", 1_000), enter(&catalog, "ann", 1_000));
    drop(catalog);
    // Ninety-nine more, without hashing a password for each.
    let connection = rusqlite::Connection::open(folder.path().join("catalog.sqlite")).expect("opens");
    let sql = "INSERT INTO session (hash, user, created, used) SELECT ?1, user, created, used + ?2 FROM session WHERE hash = ?3";
    let mut sessions: Vec<[u8; 32]> = (1..100).map(|byte| [byte; 32]).collect();
    for hash in &sessions {
        connection.execute(sql, (hash, i64::from(hash[0]), last)).expect("a row");
    }
    let catalog = Catalog::open(folder.path()).expect("opens again");
    sessions.push(last);
    // Of the hundred the last is unused for longest, but for this.
    who(&catalog, &last, 1_200).expect("open");
    sessions.push(enter(&catalog, "ann", 1_300));
    for sessions_of in [&catalog, &Catalog::open(folder.path()).expect("opens again")] {
        let ended: Vec<usize> = (0..101).filter(|at| who(sessions_of, &sessions[*at], 1_301).is_none()).collect();
        assert_eq!(ended, [0]);
        assert!(who(sessions_of, &other, 1_301).is_some());
    }
}

#[test]
fn neither_passwords_nor_session_tokens_are_kept_or_shown() {
    let (folder, catalog) = fixture();
    let session = login(&catalog, "ann", "ann-password", 200).expect("logs in");
    let edit = UserEdit { password: Some(secret("ann-password-2")), ..UserEdit::default() };
    let shown = format!("{session:?} {edit:?} {:?}", catalog.snapshot());
    catalog.edit_user("ann", &edit, "test", &at(210)).expect("changed");
    let token = session.token.reveal();
    for text in ["ann-password", "root-password", token, "argon2id"] {
        assert!(!shown.contains(text), "{text} is in {shown}");
    }
    drop(catalog);
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("readable");
        for text in ["ann-password", "root-password", token] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text} is on the disk in clear");
        }
    }
}
