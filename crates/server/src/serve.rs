//! Starting and stopping the server: open the catalog, then the log at or after what the catalog has sealed, then the doors.
//!
//! Stopping is the same as crashing: open requests may end, nothing is drained, nothing needs to be.

use crate::app::{App, Parts};
use crate::disk;
use crate::intake::Intake;
use crate::source::Source;
use crate::{http, memory, routes};
use catalog::{Catalog, Scope};
use export::Export;
use export::egress::EgressPolicy;
use export::send::Door;
use ipnet::IpNet;
use model::{Secret, Stamp};
use reports::{RealDisk, Reports, Retention, Settings, SystemClock};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use url::Url;

/// How the audit log names who made the first token and the first user.
const FIRST_START: &str = "first start";

/// Why the server cannot start or go on, in words for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("cannot make the data folder {}", .0.display())]
    Folder(PathBuf, #[source] std::io::Error),
    #[error("{} is a backup, or a restore that has not finished: make a data folder of a backup with `crashmeter restore`", .0.display())]
    Backup(PathBuf),
    #[error("cannot open the catalog")]
    Catalog(#[from] catalog::CatalogError),
    #[error("cannot open the reports")]
    Reports(#[from] reports::OpenError),
    #[error("cannot listen on {0}; is another server running there?")]
    Listen(String, #[source] std::io::Error),
    #[error("cannot write {}", .0.display())]
    Token(PathBuf, #[source] std::io::Error),
    #[error("the report log has stopped after a failed write; nothing acknowledged is lost, see the log above")]
    LogStopped,
}

/// How to serve.
pub(crate) struct Options {
    pub(crate) data: PathBuf,
    pub(crate) listen: String,
    pub(crate) public_url: Option<Url>,
    pub(crate) allow_egress: Vec<IpNet>,
    pub(crate) universe: String,
    /// Bytes of columns kept in memory; by default a quarter of the machine's.
    pub(crate) memory: Option<u64>,
    pub(crate) retention: Retention,
    /// Reports a second of one submission token.
    pub(crate) rate: Option<u32>,
    /// Bytes kept free on the disk.
    pub(crate) disk_reserve: Option<u64>,
}

/// A server that answers.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) public_url: Url,
    pub(crate) admin_token_path: PathBuf,
    /// Of the user `admin`, when this start has made it: to be shown once.
    pub(crate) admin_password: Option<Secret>,
    pub(crate) app: Arc<App>,
    stop: watch::Sender<bool>,
    connections: tokio::task::JoinHandle<()>,
    sealer: tokio::task::JoinHandle<export::SourceStopped>,
    _lock: reports::FolderLock,
}

/// Opens everything and begins to answer.
pub(crate) async fn start(options: Options) -> Result<Running, ServeError> {
    let data = options.data.clone();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(|error| ServeError::Folder(data.clone(), error))?;
    // Before anything is touched: a second process changes nothing.
    let lock = reports::lock_folder(&data)?;
    if data.join(crate::cli::backup::MARK).exists() {
        return Err(ServeError::Backup(data));
    }
    // On a full disk the ballast goes now, so that what follows has room.
    let disk = Arc::new(disk::Room::open(&data, options.disk_reserve).map_err(|error| ServeError::Folder(data.clone(), error))?);
    watch(disk.clone()).map_err(|error| ServeError::Folder(data.clone(), error))?;
    let catalog = Arc::new(Catalog::open(&data)?);
    let memory_bytes = options.memory.map_or_else(memory::share, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let settings = Settings { memory_bytes, retention: options.retention, ..Settings::default() };
    let opened = Reports::open(&data.join("reports"), Arc::new(RealDisk), Arc::new(SystemClock), catalog.floor()?, settings);
    let (reports, recovery) = opened?;
    let reports = Arc::new(reports);
    // From the beginning of time, when this is the first start: nobody counted before it.
    catalog.record_downtime(recovery.last_durable, recovery.started)?;
    let down_seconds = if recovery.last_durable == Stamp::ZERO { 0 } else { recovery.started.since(recovery.last_durable) / 1_000_000 };
    tracing::info!(
        reports = recovery.reports,
        torn_bytes = recovery.torn_bytes,
        damaged = recovery.damaged.len(),
        missing_commits = recovery.missing_commits,
        down_seconds,
        "log opened"
    );

    let listener = TcpListener::bind(&options.listen).await.map_err(|error| ServeError::Listen(options.listen.clone(), error))?;
    let address = listener.local_addr().map_err(|error| ServeError::Listen(options.listen.clone(), error))?;
    let public_url = options.public_url.unwrap_or_else(|| {
        // "Every address" is none that a client could be given.
        let shown = if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() };
        Url::parse(&format!("http://{shown}")).expect("an address makes a URL")
    });
    let egress = EgressPolicy { allowed: options.allow_egress, own: vec![address] };
    let intake = Arc::new(Intake::default());
    let source = Arc::new(Source { reports: reports.clone(), intake: intake.clone() });
    let (export, sealer) = Export::start(source, catalog.clone(), Door::new(egress.clone()));
    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(App::new(Parts {
        catalog,
        reports,
        export,
        intake,
        public_url: public_url.clone(),
        universe: options.universe,
        egress,
        rate: options.rate,
        disk,
        stopping: stopping.clone(),
    }));
    let admin_token_path = data.join("admin.token");
    write_admin_token(&app, &admin_token_path).await?;
    let admin_password = app.catalog(|app, now| app.catalog.create_first_user(FIRST_START, now)).await?;
    let connections = tokio::spawn(http::serve(listener, routes::Door::new(app.clone()), stopping));
    Ok(Running { address, public_url, admin_token_path, admin_password, app, stop, connections, sealer, _lock: lock })
}

impl Running {
    /// Serves until the process is told to stop, or has to.
    pub(crate) async fn until_stopped(self) -> Result<(), ServeError> {
        let told = async {
            let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
                _ => return std::future::pending().await,
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let outcome = tokio::select! {
            () = told => Ok(()),
            () = self.app.reports.stopped() => Err(ServeError::LogStopped),
            _ = self.sealer => Err(ServeError::LogStopped),
        };
        self.stop.send_replace(true);
        if self.connections.await.is_err() {
            tracing::error!("the listener ended by a panic");
        }
        outcome
    }
}

/// Looks after the room on the disk for as long as the process lives.
fn watch(disk: Arc<disk::Room>) -> std::io::Result<()> {
    let look = move || {
        loop {
            std::thread::sleep(disk::EVERY);
            disk.look();
        }
    };
    std::thread::Builder::new().name("disk".into()).spawn(look).map(drop)
}

/// The first start makes an admin token, for this machine's administrator alone to read.
async fn write_admin_token(app: &Arc<App>, path: &Path) -> Result<(), ServeError> {
    if path.exists() {
        return Ok(());
    }
    let token = app.catalog(|app, now| app.catalog.create_token(Scope::Admin, None, FIRST_START, now)).await?;
    let fault = |error| ServeError::Token(path.to_owned(), error);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
    writeln!(file, "{}", token.reveal()).and_then(|()| file.sync_all()).map_err(fault)
}
