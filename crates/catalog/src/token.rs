//! Tokens: who may do what. Kept as hashes; only submission tokens, which ship inside applications, can be shown again.

use crate::edit::Now;
use crate::secrets::random_bytes;
use crate::{Catalog, CatalogError};
use model::{ProjectId, Secret, Stamp};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// What a token may do. Each scope of people's tokens includes the ones before it; `submit` stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send reports into one project, nothing else. Counts as public.
    Submit,
    /// Read and query.
    Query,
    /// Also change metric sets and stores.
    Edit,
    /// Also projects, tokens and everything else.
    Admin,
}

impl Scope {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Submit => "submit",
            Scope::Query => "query",
            Scope::Edit => "edit",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(word: &str) -> Result<Scope, String> {
        [Scope::Submit, Scope::Query, Scope::Edit, Scope::Admin]
            .into_iter()
            .find(|scope| scope.name() == word)
            .ok_or_else(|| format!("{word:?} is not a scope; there are submit, query, edit and admin"))
    }
}

/// What a presented token gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The token's number.
    pub id: i64,
    /// What it may do.
    pub scope: Scope,
    /// In which project; `None` in every one.
    pub project: Option<ProjectId>,
}

/// A token as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct TokenSummary {
    /// Its number.
    pub id: i64,
    /// What it may do.
    pub scope: Scope,
    /// Its project's name.
    pub project: Option<String>,
    /// When it was made, Unix seconds.
    pub created: u64,
    /// The text of a submission token; other tokens are shown once, when made.
    pub token: Option<String>,
}

/// The hash under which a token or a pull secret is kept.
pub fn token_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// SHA-256 of some bytes.
pub fn content_hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Catalog {
    /// Makes a token and returns its text.
    pub fn create_token(&self, scope: Scope, project: Option<ProjectId>, actor: &str, now: Now<'_>) -> Result<Secret, CatalogError> {
        if scope == Scope::Submit && project.is_none() {
            return Err(CatalogError::Missing("project named for the submission token".into()));
        }
        self.change(actor, now, |change| {
            change.audit(project, "create token", scope.name());
            self.insert_token(change.transaction, scope, project, change.stamp)
        })
    }

    /// Takes a token out of use.
    pub fn revoke_token(&self, id: i64, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            let sql = "UPDATE token SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL RETURNING project";
            let revoked = change.transaction.query_row(sql, params![id, change.stamp.micros() as i64], |row| row.get(0)).optional()?;
            let project: Option<u32> = revoked.ok_or_else(|| CatalogError::Missing(format!("token {id}")))?;
            change.audit(project.map(ProjectId), "revoke token", &id.to_string());
            Ok(())
        })
    }

    /// All live tokens, of one project or of all.
    pub fn tokens(&self, project: Option<ProjectId>) -> Result<Vec<TokenSummary>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT token.id, token.scope, project.name, token.created, token.shown, token.project FROM token LEFT JOIN project ON project.id = token.project
             WHERE token.revoked IS NULL AND project.deleted IS NULL AND (?1 IS NULL OR token.project = ?1) ORDER BY token.id",
        )?;
        let mut rows = statement.query([project.map(|project| project.0)])?;
        let mut tokens = Vec::new();
        while let Some(row) = rows.next()? {
            let shown: Option<Vec<u8>> = row.get(4)?;
            let project: Option<u32> = row.get(5)?;
            let token = match (shown, project) {
                (Some(shown), Some(project)) => Some(self.cipher.decrypt(&shown, &token_place(ProjectId(project)))?),
                _ => None,
            };
            tokens.push(TokenSummary {
                id: row.get(0)?,
                scope: row.get::<_, String>(1)?.parse().map_err(|_| CatalogError::Damaged("token scope"))?,
                project: row.get(2)?,
                created: row.get::<_, i64>(3)?.unsigned_abs() / 1_000_000,
                token,
            });
        }
        Ok(tokens)
    }

    pub(crate) fn insert_token(
        &self,
        transaction: &Transaction<'_>,
        scope: Scope,
        project: Option<ProjectId>,
        stamp: Stamp,
    ) -> Result<Secret, CatalogError> {
        let digits = hex::encode(random_bytes::<32>());
        // SDKs cut exactly 64 hex digits out of the submission URL; the other kinds carry their name so that leaks can be found.
        let (text, shown) = match (scope, project) {
            (Scope::Submit, Some(project)) => {
                let shown = self.cipher.encrypt(&digits, &token_place(project));
                (digits, Some(shown))
            }
            _ => (format!("crashmeter_{scope}_{digits}"), None),
        };
        transaction.execute(
            "INSERT INTO token (scope, project, hash, shown, created) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![scope.name(), project.map(|project| project.0), token_hash(&text), shown, stamp.micros() as i64],
        )?;
        Ok(Secret::new(text))
    }
}

fn token_place(project: ProjectId) -> String {
    format!("token shown project={}", project.0)
}
