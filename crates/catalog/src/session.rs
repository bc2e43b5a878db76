//! Sessions: what a login opens. A session's token works like an API token of the user's role until it has not been used for
//! 12 hours, is 7 days old, or the user logs out, is disabled or gets another password.
//!
//! Open sessions are kept in memory beside the snapshot, so that a request looks its own up without the database; only tokens'
//! hashes are kept. When each was last used is written at most once a minute: after a crash it lies so far behind.

use crate::config::UserId;
use crate::edit::{Now, write_audit};
use crate::secrets::random_bytes;
use crate::token::token_hash;
use crate::user::{ProvedUser, Role};
use crate::{Catalog, CatalogError, Guess, TooManyGuesses};
use model::{Secret, Stamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// Without a request for so long, a session ends; in microseconds (reliability 5.3).
const IDLE: u64 = 12 * 3_600_000_000;
/// However much it is used, a session ends at this age, in microseconds.
const LONGEST: u64 = 7 * 86_400_000_000;
/// The last use is written again after this, in microseconds.
const WRITE_EVERY: u64 = 60_000_000;
/// Most sessions of one user; a further login ends the one unused for longest.
const PER_USER: usize = 100;

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No such user, a wrong password, a disabled user: which of them is not told.
    #[error("the user or the password is wrong")]
    Wrong,
    /// The password was not even looked at.
    #[error(transparent)]
    TooMany(TooManyGuesses),
    /// It failed on our side.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// A session just opened.
#[derive(Clone, Debug)]
pub struct Session {
    /// 64 lower-case hex digits; kept nowhere.
    pub token: Secret,
    /// Whose it is.
    pub user: String,
    /// What it may do.
    pub role: Role,
    /// When it ends at the latest.
    pub expires: Stamp,
}

/// What a presented session token gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAccess {
    /// The SHA-256 of the token's text.
    pub hash: [u8; 32],
    /// Whose it is.
    pub user: String,
    /// What the user may do now.
    pub role: Role,
    /// When it ends at the latest.
    pub expires: Stamp,
    /// The caller is asked to have this use written: `write_session_use`.
    pub write_due: bool,
}

/// An open session; times in microseconds of the service clock.
pub(crate) struct OpenSession {
    user: UserId,
    created: u64,
    used: AtomicU64,
    written: AtomicU64,
}

impl OpenSession {
    fn is_open(&self, now: u64) -> bool {
        now < self.created + LONGEST && now < self.used.load(Ordering::Relaxed) + IDLE
    }
}

/// By the SHA-256 of their tokens.
pub(crate) type OpenSessions = HashMap<[u8; 32], OpenSession>;

pub(crate) fn load(connection: &Connection) -> Result<OpenSessions, CatalogError> {
    let mut statement = connection.prepare("SELECT hash, user, created, used FROM session")?;
    let rows = statement.query_map([], |row| {
        let n = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
        let session = OpenSession { user: UserId(row.get(1)?), created: n(2)?, used: n(3)?.into(), written: n(3)?.into() };
        Ok((row.get(0)?, session))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Catalog {
    /// Opens a session for whoever proves to be the user of the guess. Blocks for the time that hashing takes (see `password`).
    pub fn login(&self, guess: Guess, password: &Secret, now: Now<'_>) -> Result<Session, LoginError> {
        let proved = self.prove(&guess, password)?;
        let session = self.open_session(&guess.name, &proved, now)?.ok_or(LoginError::Wrong)?;
        self.was_right(&guess);
        Ok(session)
    }

    /// `None` when the user may no longer log in, or not with the password that was proved: it may have changed while it was hashed.
    fn open_session(&self, user: &str, proved: &ProvedUser, now: Now<'_>) -> Result<Option<Session>, CatalogError> {
        let token = Secret::new(hex::encode(random_bytes::<32>()));
        let hash = token_hash(token.reveal());
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        let Some(role) = role_of(&transaction, proved)? else { return Ok(None) };
        let stamp = now();
        let at = stamp.micros();
        let ended = self.make_room(&transaction, proved.id, at)?;
        let sql = "INSERT INTO session (hash, user, created, used) VALUES (?1, ?2, ?3, ?3)";
        transaction.execute(sql, params![hash, proved.id.0, at as i64])?;
        write_audit(&transaction, stamp, &format!("user {user}"), None, "log in", user)?;
        transaction.commit()?;
        // The writer's lock still covers this: a session is never in memory alone, nor in the database alone.
        let mut sessions = self.sessions_mut();
        sessions.retain(|hash, _| !ended.contains(hash));
        sessions.insert(hash, OpenSession { user: proved.id, created: at, used: at.into(), written: at.into() });
        Ok(Some(Session { token, user: user.to_owned(), role, expires: Stamp::from_micros(at + LONGEST) }))
    }

    /// Whose a session is and what it may do, by the SHA-256 of its token. Reads memory alone.
    pub fn session(&self, hash: &[u8; 32], now: Stamp) -> Option<SessionAccess> {
        let now = now.micros();
        let sessions = self.sessions();
        let session = sessions.get(hash).filter(|session| session.is_open(now))?;
        let snapshot = self.snapshot.borrow();
        let user = snapshot.users.iter().find(|user| user.id == session.user && user.disabled.is_none())?;
        session.used.fetch_max(now, Ordering::Relaxed);
        let written = session.written.load(Ordering::Relaxed);
        // Of several requests at one time one is asked to write.
        let write_due =
            now >= written + WRITE_EVERY && session.written.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let expires = Stamp::from_micros(session.created + LONGEST);
        Some(SessionAccess { hash: *hash, user: user.name.clone(), role: user.role, expires, write_due })
    }

    /// Whether a session is still open, without counting as a use of it.
    pub fn is_session_open(&self, hash: &[u8; 32], now: Stamp) -> bool {
        let sessions = self.sessions();
        let Some(session) = sessions.get(hash).filter(|session| session.is_open(now.micros())) else { return false };
        self.snapshot.borrow().users.iter().any(|user| user.id == session.user && user.disabled.is_none())
    }

    /// Writes when a session was last used.
    pub fn write_session_use(&self, hash: &[u8; 32]) -> Result<(), CatalogError> {
        let used = self.sessions().get(hash).map(|session| session.used.load(Ordering::Relaxed));
        if let Some(used) = used {
            self.write().execute("UPDATE session SET used = max(used, ?2) WHERE hash = ?1", params![hash, used as i64])?;
        }
        Ok(())
    }

    /// Ends a session; returns whether there was one.
    pub fn logout(&self, hash: &[u8; 32], now: Now<'_>) -> Result<bool, CatalogError> {
        let Some(access) = self.session(hash, now()) else { return Ok(false) };
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        let ended = transaction.execute("DELETE FROM session WHERE hash = ?1", [hash])? == 1;
        if ended {
            write_audit(&transaction, now(), &format!("user {}", access.user), None, "log out", &access.user)?;
        }
        transaction.commit()?;
        self.sessions_mut().remove(hash);
        Ok(ended)
    }

    /// Ends a user's sessions, in memory even if the change they belong to should fail: they then come back with a restart.
    pub(crate) fn end_sessions(&self, transaction: &Transaction<'_>, user: UserId, but: Option<&[u8; 32]>) -> Result<(), CatalogError> {
        transaction.execute("DELETE FROM session WHERE user = ?1 AND hash IS NOT ?2", params![user.0, but])?;
        self.sessions_mut().retain(|hash, session| session.user != user || Some(hash) == but);
        Ok(())
    }

    /// Deletes what has ended from the database, and so many of the user's own that one more may be opened. Returns their hashes.
    fn make_room(&self, transaction: &Transaction<'_>, user: UserId, now: u64) -> Result<HashSet<[u8; 32]>, CatalogError> {
        let sessions = self.sessions();
        let mut ended: HashSet<[u8; 32]> = sessions.iter().filter(|(_, session)| !session.is_open(now)).map(|(hash, _)| *hash).collect();
        let mut own: Vec<_> = sessions
            .iter()
            .filter(|(_, session)| session.user == user && session.is_open(now))
            .map(|(hash, session)| (session.used.load(Ordering::Relaxed), *hash))
            .collect();
        own.sort_unstable();
        let too_many = (own.len() + 1).saturating_sub(PER_USER);
        ended.extend(own.iter().take(too_many).map(|(_, hash)| *hash));
        let mut delete = transaction.prepare_cached("DELETE FROM session WHERE hash = ?1")?;
        for hash in &ended {
            delete.execute([hash])?;
        }
        Ok(ended)
    }

    fn sessions(&self) -> RwLockReadGuard<'_, OpenSessions> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions_mut(&self) -> RwLockWriteGuard<'_, OpenSessions> {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The role of a user who may still log in with the password that was proved.
fn role_of(transaction: &Transaction<'_>, proved: &ProvedUser) -> Result<Option<Role>, CatalogError> {
    let sql = "SELECT role FROM user WHERE id = ?1 AND hash = ?2 AND disabled IS NULL AND deleted IS NULL";
    let role: Option<String> = transaction.query_row(sql, params![proved.id.0, proved.hash], |row| row.get(0)).optional()?;
    role.map(|word| word.parse().map_err(|_| CatalogError::Damaged("user's role"))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserEdit;

    #[test]
    fn a_session_ends_idle_or_old() {
        let session = |created: u64, used: u64| OpenSession { user: UserId(1), created, used: used.into(), written: used.into() };
        let hour = 3_600_000_000;
        for (created, used, now, open) in [
            (0, 0, 12 * hour - 1, true),
            (0, 0, 12 * hour, false),
            (0, 11 * hour, 12 * hour, true),
            (0, 160 * hour, 168 * hour - 1, true),
            (0, 168 * hour - 1, 168 * hour, false),
            (5 * hour, 5 * hour, 17 * hour - 1, true),
        ] {
            assert_eq!(session(created, used).is_open(now), open, "made {created}, used {used}, now {now}");
        }
    }

    #[test]
    fn what_changes_while_a_password_is_hashed_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path()).expect("a new catalog");
        let now = || Stamp::from_secs(100);
        let password = Secret::new("some-password");
        for name in ["root", "ann"] {
            catalog.create_user(name, Role::Admin, &password, "test", &now).expect("made");
        }
        let prove = || {
            let guess = catalog.admit("ann", now()).expect("the first guesses");
            catalog.prove(&guess, &password).expect("the right password")
        };
        let opens = |proved: &ProvedUser| catalog.open_session("ann", proved, &now).expect("no fault").is_some();
        let proved = prove();
        assert!(opens(&proved));
        catalog.edit_user("ann", &UserEdit { disabled: Some(true), ..UserEdit::default() }, "test", &now).expect("disabled");
        assert!(!opens(&proved));
        catalog.edit_user("ann", &UserEdit { disabled: Some(false), ..UserEdit::default() }, "test", &now).expect("enabled");
        assert!(opens(&proved));
        catalog.edit_user("ann", &UserEdit { password: Some(password.clone()), ..UserEdit::default() }, "test", &now).expect("changed");
        assert!(!opens(&proved), "a new password is another one, also where it is spelt the same");
        let proved = prove();
        catalog.delete_user("ann", "test", &now).expect("deleted");
        assert!(!opens(&proved));
        assert!(catalog.sessions().is_empty());
    }
}
