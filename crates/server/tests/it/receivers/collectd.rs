//! collectd with its curl_json plugin: reads a page of JSON once a second with a user name and a password, and keeps what it read as CSV.

use crate::process::{Process, program};
use std::collections::BTreeMap;
use std::fs;
use tempfile::TempDir;

/// A running collectd.
pub(crate) struct Collectd {
    process: Process,
    folder: TempDir,
}

impl Collectd {
    /// Reads the values at these keys (`object/member`) of a page, each under a short name.
    pub(crate) fn start(url: &str, username: &str, password: &str, keys: &[(&str, &str)]) -> Collectd {
        // It makes no folder below one whose name begins with a dot.
        let folder = tempfile::Builder::new().prefix("collectd-").tempdir().expect("a temporary folder");
        let root = folder.path().display();
        let keys: String = keys
            .iter()
            .map(|(name, key)| {
                let key = key.replace('"', "\\\"");
                format!("    <Key \"{key}\">\n      Type \"gauge\"\n      Instance \"{name}\"\n    </Key>\n")
            })
            .collect();
        let config = format!(
            "Hostname \"rig\"\nInterval 1\nBaseDir \"{root}\"\nPIDFile \"{root}/collectd.pid\"\nTypesDB \"/usr/share/collectd/types.db\"
LoadPlugin logfile
<Plugin logfile>
  LogLevel info
  File STDOUT
</Plugin>
LoadPlugin csv
<Plugin csv>
  DataDir \"{root}/csv\"
  StoreRates false
</Plugin>
LoadPlugin curl_json
<Plugin curl_json>
  <URL \"{url}\">
    Instance \"page\"
    User \"{username}\"
    Password \"{password}\"
{keys}  </URL>
</Plugin>
"
        );
        let file = folder.path().join("collectd.conf");
        fs::write(&file, config).expect("a new file");
        let mut command = program("/usr/sbin/collectd");
        command.arg("-f").arg("-C").arg(&file);
        Collectd { process: Process::start("collectd", command, folder.path()), folder }
    }

    /// What was read so far, by name: seconds of the reading and value.
    pub(crate) fn read(&self) -> BTreeMap<String, Vec<(u64, f64)>> {
        let Ok(files) = fs::read_dir(self.folder.path().join("csv/rig/curl_json-page")) else { return BTreeMap::new() };
        let mut found: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
        for path in files.map(|entry| entry.expect("an entry").path()) {
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            // gauge-NAME-2026-01-31
            let name = file.strip_prefix("gauge-").and_then(|rest| rest.get(..rest.len() - "-2026-01-31".len())).expect("a gauge's file");
            let text = fs::read_to_string(&path).expect("readable");
            let rows = text.lines().skip(1).filter_map(|line| line.split_once(','));
            let rows = rows.filter_map(|(at, value)| Some((at.parse::<f64>().ok()?.round() as u64, value.parse().ok()?)));
            found.entry(name.to_owned()).or_default().extend(rows);
        }
        found
    }

    /// What it says.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
