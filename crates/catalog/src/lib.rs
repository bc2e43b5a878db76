//! Everything remembered except reports: projects, users, tokens, metric sets, stores, sealed points, deliveries. The only
//! crate that knows SQLite.
//!
//! One writer connection behind one lock: a configuration change takes its stamp while it holds the lock, so whoever asks for
//! a snapshot under that lock afterwards sees every change stamped earlier. A seal is one transaction.

mod apply;
mod attribute;
mod audit;
mod audit_log;
mod backfill;
pub mod backup;
mod config;
mod delivery;
mod edit;
mod guess;
mod issue;
mod ledger_changes;
mod load;
mod password;
mod schema;
mod seal;
mod secrets;
mod session;
mod token;
mod user;
mod view;

pub use apply::{Applied, Edit};
pub use attribute::{AttributeSetting, AttributeType, Declared, Format};
pub use audit::{Audit, GridAudit, ProjectAudit, PullAccount, StoreAudit, audit};
pub use audit_log::{AuditEntry, AuditFilter};
pub use backfill::{Backfill, BackfillDraft, BackfilledWindow};
pub use config::{
    Metric, MetricId, MetricRevision, Project, PullUrl, RevisionId, Snapshot, Store, StoreId, StoreRevision, StoreSettings, UserId,
};
pub use delivery::{Attempt, Delivery, Ledger, OpenDelivery, PullRead, Reason, Settled, Slot, Total};
pub use edit::{MetricDraft, Now, PULL_OVERLAP_SECS, SecretEdits, StoreDraft};
pub use guess::{Guess, TooManyGuesses};
pub use issue::{Issue, IssueEdit, OPEN};
pub use password::check_password;
pub use seal::{MetricOutcome, SealedCell, SealedMetric, SealedSeries, SealedWindow, SeriesKey, WindowFacts};
pub use secrets::random_bytes;
pub use session::{LoginError, Session, SessionAccess};
pub use token::{Access, Scope, TokenSummary, content_hash, token_hash};
pub use user::{Role, User, UserEdit, check_user_name};
pub use view::{SavedSearch, View, ViewDraft};

use guess::Guesses;
use ledger_changes::LedgerChanges;
use model::ProjectId;
use parking_lot::{ReentrantMutex, ReentrantMutexGuard};
use rusqlite::Connection;
use secrets::Cipher;
use session::OpenSessions;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use tokio::sync::watch;

/// Why the catalog could not do something.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database file or the disk under it.
    #[error("cannot use the catalog database")]
    Database(#[from] rusqlite::Error),
    /// The database file cannot be made.
    #[error("cannot make {}", path.display())]
    File {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The key file.
    #[error("the key file {} {detail}", path.display())]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong and what would mend it.
        detail: String,
    },
    /// A secret that does not decrypt in its place.
    #[error("the stored secret of {place} cannot be decrypted with this key file")]
    Undecipherable {
        /// Which.
        place: String,
    },
    /// A database of a later program.
    #[error("the catalog has format {found} and this program knows up to {known}; start a newer program")]
    Newer {
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// A database that no server of this version has opened yet.
    #[error("the catalog has format {found} and this program reads {known}; start the server once, which brings it up")]
    Older {
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// What the request names does not exist.
    #[error("there is no {0}")]
    Missing(String),
    /// What the request would make exists.
    #[error("there is already a {0}")]
    Exists(String),
    /// Somebody else changed it since it was read.
    #[error("it was changed meanwhile: this edit is of revision {expected}, the newest is {found}")]
    Changed {
        /// The revision the editor had seen.
        expected: u32,
        /// The newest.
        found: u32,
    },
    /// Without this user nobody could administer by password any more.
    #[error("{0:?} is the last administrator who can log in; make another one first")]
    LastAdmin(String),
    /// A metric that would make labels of what is personal.
    #[error("the attribute {0} is personal and may not become a label: count it with unique, or group by something else")]
    Personal(String),
    /// An attribute to be declared personal that is a label already.
    #[error("the metric {metric} groups by {attribute}, which puts its values into labels; change the metric first")]
    Grouped {
        /// The attribute.
        attribute: String,
        /// The metric, as set/name.
        metric: String,
    },
    /// Something of the configuration was changed since it was read.
    #[error("the configuration was changed meanwhile; look at a new plan")]
    Outdated,
    /// Stored bytes that this program wrote and cannot read.
    #[error("a stored {0} cannot be read")]
    Damaged(&'static str),
}

/// The catalog; share it by `Arc`. Calls block on the disk: from async code go through `spawn_blocking`.
pub struct Catalog {
    folder: PathBuf,
    writer: Mutex<Connection>,
    /// Reentrant, so that [`Catalog::at_one_moment`] holds it over calls that take it themselves.
    reader: ReentrantMutex<Connection>,
    cipher: Cipher,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Not in the snapshot: they come and go without a change of configuration.
    sessions: RwLock<OpenSessions>,
    guesses: Mutex<Guesses>,
    ledger_changes: LedgerChanges,
}

impl Catalog {
    /// Opens or makes `catalog.sqlite` and `catalog.key` in `folder`.
    pub fn open(folder: &Path) -> Result<Catalog, CatalogError> {
        let path = folder.join("catalog.sqlite");
        let mut writer = connect(&path)?;
        schema::migrate(&mut writer)?;
        let cipher = Cipher::open(&folder.join("catalog.key"), !backup::encrypts(&writer)?)?;
        let reader = connect(&path)?;
        let snapshot = watch::Sender::new(Arc::new(load::snapshot(&writer, &cipher, edit::version(&writer)?)?));
        let sessions = RwLock::new(session::load(&writer)?);
        Ok(Catalog {
            folder: folder.to_owned(),
            writer: Mutex::new(writer),
            reader: ReentrantMutex::new(reader),
            cipher,
            snapshot,
            sessions,
            guesses: Mutex::default(),
            ledger_changes: LedgerChanges::default(),
        })
    }

    /// Checks every identity of the ledger, of all projects or one, over a connection of its own. Blocks.
    pub fn audit(&self, only: Option<ProjectId>, is_push: &dyn Fn(&str) -> bool) -> Result<Audit, CatalogError> {
        audit(&self.folder, only, is_push)
    }

    /// The configuration, with every change that was stamped before this call.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let _no_change_in_progress = self.write();
        self.snapshot.borrow().clone()
    }

    /// The configuration as last published, without waiting for a change in progress: for the intake's hot path.
    pub fn published(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Tells of every change of configuration.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    fn write(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a transaction rolled it back; the connection itself stays sound.
        self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read(&self) -> ReentrantMutexGuard<'_, Connection> {
        self.reader.lock()
    }

    /// Runs `look`, whose calls on this catalog all see it as it was at one moment: what is sealed, due and confirmed between
    /// two of them is in neither. Other readers wait meanwhile, writers do not.
    pub fn at_one_moment<T>(&self, look: impl FnOnce() -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        let connection = self.read();
        // Rolls back when it is dropped, which ends a reading transaction as well as a commit does.
        let _moment = connection.unchecked_transaction()?;
        look()
    }
}

/// WAL with `synchronous=FULL`: a commit is on the disk when it returns. SQLite from 3.51.3 on has the WAL-reset bug mended;
/// the bundled one is newer, and a start with an older one is refused.
fn connect(path: &Path) -> Result<Connection, CatalogError> {
    assert!(rusqlite::version_number() >= 3_051_003, "the linked SQLite is older than 3.51.3");
    // For its owner alone, whatever the umask: hashes of passwords and encrypted secrets are in it. SQLite gives its other files the
    // mode of this one.
    let mut options = OpenOptions::new();
    let made = options.create_new(true).write(true).mode(0o600).open(path);
    if let Some(error) = made.err().filter(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        return Err(CatalogError::File { path: path.to_owned(), error });
    }
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON; PRAGMA busy_timeout = 10000;",
    )?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}
