//! Users: people who log in with a name and a password. The last administrator stays.

use crate::config::UserId;
use crate::edit::{Change, Now};
use crate::password;
use crate::secrets::random_bytes;
use crate::token::Scope;
use crate::{Catalog, CatalogError, Guess, LoginError};
use model::{Secret, Stamp};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most bytes of a user's name.
const NAME_BYTES: usize = 64;
/// The administrator that the first start makes.
const FIRST: &str = "admin";

/// What a user may do. Each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read and query.
    Viewer,
    /// Also change metric sets, stores and attribute settings.
    Editor,
    /// Also projects, tokens, users and everything else.
    Admin,
}

impl Role {
    const ALL: [Role; 3] = [Role::Viewer, Role::Editor, Role::Admin];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Admin => "admin",
        }
    }

    /// What a token that may do the same is of.
    pub const fn scope(self) -> Scope {
        match self {
            Role::Viewer => Scope::Query,
            Role::Editor => Scope::Edit,
            Role::Admin => Scope::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(word: &str) -> Result<Role, String> {
        let role = Role::ALL.into_iter().find(|role| role.name() == word);
        role.ok_or_else(|| format!("{word:?} is not a role; there are viewer, editor and admin"))
    }
}

/// A user, without the password's hash: that never leaves the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: UserId,
    /// What they log in as.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// When the user was made.
    pub created: Stamp,
    /// Since when they may not log in.
    pub disabled: Option<Stamp>,
}

/// Changes of a user; what is `None` is kept.
#[derive(Clone, Debug, Default)]
pub struct UserEdit {
    /// Another role.
    pub role: Option<Role>,
    /// A new password, checked; it ends the user's sessions.
    pub password: Option<Secret>,
    /// Whether the user is kept from logging in; this ends their sessions too.
    pub disabled: Option<bool>,
}

/// Whether a text may be a user's name; the answer says what would mend it. There is one spelling of each name, so that nobody
/// can be taken for somebody else.
pub fn check_user_name(name: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._@+-".contains(&byte);
    if (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(is_legal) && name != "." && name != ".." {
        return Ok(());
    }
    Err(format!("a user's name has 1 to {NAME_BYTES} lower-case letters, digits and . _ @ + -"))
}

impl Catalog {
    /// Makes a user with a checked name and password.
    pub fn create_user(&self, name: &str, role: Role, password: &Secret, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        // Before the lock is taken: it takes its time.
        let hash = password::hash(password);
        self.change(actor, now, |change| {
            change.audit(None, "create user", &format!("{name} {role}"));
            if find(change, name)?.is_some() {
                return Err(CatalogError::Exists(format!("user called {name:?}")));
            }
            insert(change, name, role, &hash)
        })
    }

    /// Makes the administrator `admin` where there has never been a user, and gives the password: it is kept as a hash alone.
    pub fn create_first_user(&self, actor: &str, now: Now<'_>) -> Result<Option<Secret>, CatalogError> {
        let any: bool = self.read().query_row("SELECT EXISTS (SELECT 1 FROM user)", [], |row| row.get(0))?;
        if any {
            return Ok(None);
        }
        let password = Secret::new(hex::encode(random_bytes::<16>()));
        self.create_user(FIRST, Role::Admin, &password, actor, now)?;
        Ok(Some(password))
    }

    /// Changes a user. A new role counts from the next request on.
    pub fn edit_user(&self, name: &str, edit: &UserEdit, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        let hash = edit.password.as_ref().map(password::hash);
        self.change(actor, now, |change| {
            let user = find(change, name)?.ok_or_else(|| missing(name))?;
            if let Some(role) = edit.role {
                change.audit(None, "set role", &format!("{name} {role}"));
                change.transaction.execute("UPDATE user SET role = ?2 WHERE id = ?1", params![user.0, role.name()])?;
            }
            if let Some(hash) = &hash {
                change.audit(None, "set password", name);
                change.transaction.execute("UPDATE user SET hash = ?2 WHERE id = ?1", params![user.0, hash])?;
            }
            if let Some(disabled) = edit.disabled {
                change.audit(None, if disabled { "disable user" } else { "enable user" }, name);
                let since = disabled.then(|| change.stamp.micros() as i64);
                let sql = "UPDATE user SET disabled = iif(?2 IS NULL, NULL, coalesce(disabled, ?2)) WHERE id = ?1";
                change.transaction.execute(sql, params![user.0, since])?;
            }
            keep_an_admin(change, name)?;
            if hash.is_some() || edit.disabled == Some(true) {
                self.end_sessions(change.transaction, user, None)?;
            }
            Ok(())
        })
    }

    /// Deletes a user and ends their sessions. What the audit log says of them stays.
    pub fn delete_user(&self, name: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(None, "delete user", name);
            let user = find(change, name)?.ok_or_else(|| missing(name))?;
            change.transaction.execute("UPDATE user SET deleted = ?2 WHERE id = ?1", params![user.0, change.stamp.micros() as i64])?;
            keep_an_admin(change, name)?;
            self.end_sessions(change.transaction, user, None)
        })
    }

    /// Changes one's own password, given the old one; the new one is checked. All sessions end but the one that asks, which is
    /// named by its token's hash.
    pub fn change_password(&self, guess: Guess, old: &Secret, new: &Secret, asking: &[u8; 32], now: Now<'_>) -> Result<(), LoginError> {
        let proved = self.prove(&guess, old)?;
        self.replace_password(&guess.name, &proved, &password::hash(new), asking, now)?;
        self.was_right(&guess);
        Ok(())
    }

    /// Counts for the user and the password that were proved, not for what they have become meanwhile.
    fn replace_password(&self, name: &str, proved: &ProvedUser, hash: &str, asking: &[u8; 32], now: Now<'_>) -> Result<(), CatalogError> {
        self.change(&format!("user {name}"), now, |change| {
            change.audit(None, "change own password", name);
            let sql = "UPDATE user SET hash = ?3 WHERE id = ?1 AND hash = ?2 AND disabled IS NULL AND deleted IS NULL";
            if change.transaction.execute(sql, params![proved.id.0, proved.hash, hash])? == 0 {
                return Err(missing(name));
            }
            self.end_sessions(change.transaction, proved.id, Some(asking))
        })
    }

    /// The user of a guess, if the password is right; whether they may log in is asked where it counts, under the lock. Whether there
    /// is such a user shows neither in the answer nor in the time it takes.
    pub(crate) fn prove(&self, guess: &Guess, password: &Secret) -> Result<ProvedUser, LoginError> {
        let found: Option<ProvedUser> = self
            .read()
            .prepare_cached("SELECT id, hash FROM user WHERE name = ?1 AND deleted IS NULL")
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok(ProvedUser { id: UserId(row.get(0)?), hash: row.get(1)? });
                statement.query_row([&guess.name], row).optional()
            })
            .map_err(CatalogError::from)?;
        let is_right = password::is_right(password, found.as_ref().map(|user| user.hash.as_str()))?;
        found.filter(|_| is_right).ok_or(LoginError::Wrong)
    }
}

/// A user as their password was proved; the hash tells whether it still is the same one.
pub(crate) struct ProvedUser {
    pub(crate) id: UserId,
    pub(crate) hash: String,
}

fn missing(name: &str) -> CatalogError {
    CatalogError::Missing(format!("user {name:?}"))
}

fn find(change: &Change<'_>, name: &str) -> Result<Option<UserId>, CatalogError> {
    let sql = "SELECT id FROM user WHERE name = ?1 AND deleted IS NULL";
    Ok(change.transaction.query_row(sql, [name], |row| row.get(0).map(UserId)).optional()?)
}

fn insert(change: &Change<'_>, name: &str, role: Role, hash: &str) -> Result<(), CatalogError> {
    change.transaction.execute(
        "INSERT INTO user (name, role, hash, created) VALUES (?1, ?2, ?3, ?4)",
        params![name, role.name(), hash, change.stamp.micros() as i64],
    )?;
    Ok(())
}

/// Undoes a change of `name` after which no administrator could log in.
fn keep_an_admin(change: &Change<'_>, name: &str) -> Result<(), CatalogError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user WHERE role = 'admin' AND disabled IS NULL AND deleted IS NULL)";
    let any: bool = change.transaction.query_row(sql, [], |row| row.get(0))?;
    if any { Ok(()) } else { Err(CatalogError::LastAdmin(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for name in ["a", "ann.lee+ops@example.com", "0_-", "...", &"x".repeat(64)] {
            assert_eq!(check_user_name(name), Ok(()), "{name}");
        }
        for name in ["", "Ann", "ann lee", "a/b", "ünal", "a\0", ".", "..", "a\n", &"x".repeat(65)] {
            assert!(check_user_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn roles_are_scopes_under_names_of_their_own() {
        for (word, scope) in [("viewer", Scope::Query), ("editor", Scope::Edit), ("admin", Scope::Admin)] {
            let role: Role = word.parse().expect("a role");
            assert_eq!((role.name(), role.scope()), (word, scope));
        }
        assert!("query".parse::<Role>().is_err() && "Admin".parse::<Role>().is_err());
    }

    #[test]
    fn a_password_set_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path()).expect("a new catalog");
        let now = || Stamp::from_secs(100);
        let password = Secret::new("some-password");
        catalog.create_user("ann", Role::Admin, &password, "test", &now).expect("made");
        let prove = || catalog.prove(&catalog.admit("ann", now()).expect("the first guesses"), &password).expect("the right one");
        let proved = prove();
        let set = UserEdit { password: Some(password.clone()), ..UserEdit::default() };
        catalog.edit_user("ann", &set, "test", &now).expect("set by an administrator");
        let replace = |proved: &ProvedUser| catalog.replace_password("ann", proved, &password::hash(&password), &[0; 32], &now);
        assert!(matches!(replace(&proved), Err(CatalogError::Missing(_))));
        replace(&prove()).expect("nothing has changed meanwhile");
    }
}
