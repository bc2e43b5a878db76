//! `backup` and `restore`: a data folder copied while a server may be using it, and made into a data folder again. How the catalog
//! and the reports are copied is theirs to know; this orders the steps and marks what is whole.
//!
//! The catalog is copied first and the reports after it, so that the reports of every window that it holds are there; windows that
//! were sealed in between are sealed once more from the same reports, with the same values.

use super::{Outcome, say};
use clap::Args;
use serde_json::json;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// In a backup this says that it is whole; in a data folder, that a restore has not finished. A server starts on neither.
pub(crate) const MARK: &str = "backup.json";
const KEY: &str = "catalog.key";

/// Copy a data folder, whether a server uses it or not.
#[derive(Args)]
pub(super) struct Backup {
    /// The data folder.
    #[arg(long, env = "CRASHMETER_DATA", default_value = "crashmeter-data")]
    data: PathBuf,
    /// Where to; a folder that does not exist yet, best on the same file system: closed files are linked then, and take no room.
    #[arg(long)]
    to: PathBuf,
    /// Copy catalog.key too, which opens the stores' secrets; without it, keep it somewhere else.
    #[arg(long)]
    with_key: bool,
}

impl Backup {
    pub(super) fn run(&self) -> Outcome {
        let catalog = self.data.join("catalog.sqlite");
        if !catalog.is_file() {
            return Err(format!("there is no {}; --data must name a server's data folder", catalog.display()).into());
        }
        make_empty(&self.to)?;
        catalog::backup::copy(&self.data, &self.to)?;
        set_private(&self.to.join("catalog.sqlite"))?;
        if self.with_key && self.data.join(KEY).exists() {
            copy_file(&self.data.join(KEY), &self.to.join(KEY))?;
        }
        let copied = reports::copy(&self.data.join("reports"), &self.to.join("reports"))?;
        let mark = json!({"format": 1, "program": crate::VERSION, "with_key": self.with_key});
        write_mark(&self.to, &mark.to_string())?;
        say(&format!(
            "{}: catalog, and {} files of reports with {} bytes, {} of them shared with {}",
            self.to.display(),
            copied.files,
            copied.bytes,
            copied.linked,
            self.data.display()
        ))?;
        if !self.with_key && catalog::backup::needs_key(&self.to)? {
            say(&format!("{KEY} is not in it: the stores' secrets open only with the one in {}; keep it apart", self.data.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Make a new data folder from a backup.
#[derive(Args)]
pub(super) struct Restore {
    /// The backup.
    #[arg(long)]
    from: PathBuf,
    /// The data folder to make; it may not exist yet.
    #[arg(long, env = "CRASHMETER_DATA", default_value = "crashmeter-data")]
    data: PathBuf,
    /// The catalog.key that belongs to it, when it is not in the backup.
    #[arg(long)]
    key: Option<PathBuf>,
}

impl Restore {
    pub(super) fn run(&self) -> Outcome {
        let mark = fs::read_to_string(self.from.join(MARK)).map_err(|error| {
            format!("{} is no finished backup ({MARK}: {error}); give --from a folder that `backup` has made", self.from.display())
        })?;
        let key = self.key.clone().or_else(|| Some(self.from.join(KEY)).filter(|key| key.exists()));
        if key.is_none() && catalog::backup::needs_key(&self.from)? {
            return Err(
                format!("the backup holds secrets of stores and not the key that opens them; give --key the {KEY} of that server").into()
            );
        }
        make_empty(&self.data)?;
        // It says that the folder is not whole until the end.
        write_mark(&self.data, &mark)?;
        copy_all(&self.from, &self.data)?;
        if let Some(key) = key {
            copy_file(&key, &self.data.join(KEY))?;
        }
        catalog::backup::begin_counters_anew(&self.data, &export::without_counters)?;
        fs::remove_file(self.data.join(MARK))?;
        File::open(&self.data)?.sync_all()?;
        say(&format!("{} is ready; running totals of pull stores begin anew, so that no scraper counts them twice", self.data.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn make_empty(folder: &Path) -> Result<(), Box<dyn Error>> {
    if let Ok(mut entries) = fs::read_dir(folder) {
        let is_empty = entries.next().is_none();
        let fault = || format!("{} is not empty; name a folder that does not exist yet", folder.display()).into();
        return if is_empty { Ok(()) } else { Err(fault()) };
    }
    Ok(fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?)
}

fn set_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    File::open(path)?.sync_all()
}

/// A copy that nobody else may read; durable when it returns.
fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    std::io::copy(&mut File::open(from)?, &mut file)?;
    file.sync_all()
}

/// Everything but the mark. Never links: a server writes to what is restored, and the backup must stay as it is.
fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(&to)?;
            copy_all(&entry.path(), &to)?;
        } else if entry.file_name() != MARK && entry.file_name() != KEY {
            copy_file(&entry.path(), &to)?;
        }
    }
    File::open(to)?.sync_all()
}

fn write_mark(folder: &Path, text: &str) -> std::io::Result<()> {
    let path = folder.join(MARK);
    fs::write(&path, format!("{text}\n"))?;
    File::open(&path)?.sync_all()?;
    File::open(folder)?.sync_all()
}
