//! InfluxDB 1.x, open or with users.

use super::{Series, Shared, text_map};
use crate::http::{self, Reply};
use crate::process::{Process, free_port, loopback, program};
use serde_json::Value;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

/// Who may write and read.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// Only [`USER`] with [`PASSWORD`].
    Users,
}

/// The user of [`Access::Users`], who may do everything.
pub(crate) const USER: &str = "writer";
/// That user's password.
pub(crate) const PASSWORD: &str = "correct-horse";

/// A running InfluxDB.
pub(crate) struct Influx {
    process: Option<Process>,
    port: u16,
    access: Access,
    folder: TempDir,
}

impl Influx {
    /// The open one that tests share.
    pub(crate) fn shared() -> Arc<Influx> {
        static SHARED: Shared<Influx> = Shared::new();
        SHARED.get(|| Influx::start(Access::Open))
    }

    /// Starts one; with [`Access::Users`] its user exists.
    pub(crate) fn start(access: Access) -> Influx {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, backup_port) = (free_port(), free_port());
        let root = folder.path().display();
        let auth = matches!(access, Access::Users);
        let config = format!(
            "reporting-disabled = true
bind-address = \"127.0.0.1:{backup_port}\"
[meta]
  dir = \"{root}/meta\"
[data]
  dir = \"{root}/data\"
  wal-dir = \"{root}/wal\"
[monitor]
  store-enabled = false
[http]
  bind-address = \"127.0.0.1:{port}\"
  log-enabled = false
  auth-enabled = {auth}
"
        );
        fs::write(folder.path().join("influx.conf"), config).expect("a new file");
        let mut influx = Influx { process: None, port, access, folder };
        influx.resume();
        if auth {
            influx.query("", &format!("CREATE USER {USER} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES"));
        }
        influx
    }

    /// Starts the program again on the same port and folder.
    pub(crate) fn resume(&mut self) {
        let mut command = program("/usr/bin/influxd");
        command.arg("run").arg("-config").arg(self.folder.path().join("influx.conf"));
        let mut process = Process::start("influxd", command, self.folder.path());
        process.wait_until_ready(|| http::get(&format!("{}/ping", self.url())).is_ok_and(|reply| reply.status == 204));
        self.process = Some(process);
    }

    /// Takes it down; its port refuses until [`Influx::resume`].
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("InfluxDB runs").terminate();
    }

    /// The base address.
    pub(crate) fn url(&self) -> String {
        loopback(self.port)
    }

    /// Makes a database.
    pub(crate) fn create_database(&self, name: &str) {
        self.query("", &format!("CREATE DATABASE {name}"));
    }

    /// Every point of one field, by series, oldest first; nothing when the measurement does not exist.
    pub(crate) fn read(&self, database: &str, measurement: &str, field: &str) -> Vec<Series> {
        let answer = self.query(database, &format!("SELECT \"{field}\" FROM \"{measurement}\" GROUP BY *"));
        let Some(series) = answer["results"][0]["series"].as_array() else { return Vec::new() };
        let sample = |row: &Value| (row[0].as_u64().expect("a time in ms"), row[1].as_f64().expect("a number"));
        series
            .iter()
            .map(|series| Series {
                labels: series.get("tags").map(text_map).unwrap_or_default(),
                samples: series["values"].as_array().expect("a series has values").iter().map(sample).collect(),
            })
            .collect()
    }

    /// The one number that a statement answers with; nothing when there is none.
    pub(crate) fn number(&self, database: &str, statement: &str) -> Option<f64> {
        self.query(database, statement)["results"][0]["series"][0]["values"][0][1].as_f64()
    }

    /// Writes lines by hand, with this user and password where given.
    pub(crate) fn write(&self, database: &str, lines: &str, user: Option<(&str, &str)>) -> Reply {
        let url = http::with_query(&format!("{}/write", self.url()), &[("db", database), ("precision", "s")]);
        let auth = user.map(|(user, password)| http::basic(user, password));
        let headers = auth.as_deref().map(|auth| ("Authorization", auth));
        http::call("POST", &url, headers.as_slice(), lines).expect("InfluxDB answers")
    }

    fn query(&self, database: &str, statement: &str) -> Value {
        let url = http::with_query(&format!("{}/query", self.url()), &[("db", database), ("epoch", "ms"), ("q", statement)]);
        let auth = http::basic(USER, PASSWORD);
        let headers: &[_] = if matches!(self.access, Access::Users) { &[("Authorization", auth.as_str())] } else { &[] };
        let answer = http::call("POST", &url, headers, "").expect("InfluxDB answers").expect(200).json();
        assert!(answer["results"][0].get("error").is_none(), "{statement}: {answer}");
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receivers::labels;

    #[test]
    fn what_is_written_by_hand_is_read_back_also_after_a_restart() {
        let mut influx = Influx::start(Access::Open);
        influx.create_database("rig");
        influx.write("rig", "m,app=a count=3 1700000000\nm,app=a count=4 1700000001\nm,app=b count=5 1700000000\n", None).expect(204);
        let expected = [
            Series { labels: labels([("app", "a")]), samples: vec![(1_700_000_000_000, 3.0), (1_700_000_001_000, 4.0)] },
            Series { labels: labels([("app", "b")]), samples: vec![(1_700_000_000_000, 5.0)] },
        ];
        assert_eq!(influx.read("rig", "m", "count"), expected);
        assert!(influx.read("rig", "absent", "count").is_empty());
        influx.write("nowhere", "m count=1 1700000000\n", None).expect(404);
        influx.stop();
        assert!(http::get(&influx.url()).is_err(), "a stopped InfluxDB refuses");
        influx.resume();
        assert_eq!(influx.read("rig", "m", "count"), expected);
    }

    #[test]
    fn with_users_only_the_right_password_writes() {
        let influx = Influx::start(Access::Users);
        influx.create_database("rig");
        influx.write("rig", "m count=1 1700000000\n", None).expect(401);
        influx.write("rig", "m count=1 1700000000\n", Some((USER, "wrong"))).expect(401);
        assert!(influx.read("rig", "m", "count").is_empty());
        influx.write("rig", "m count=1 1700000000\n", Some((USER, PASSWORD))).expect(204);
        assert_eq!(influx.read("rig", "m", "count"), [Series { labels: labels([]), samples: vec![(1_700_000_000_000, 1.0)] }]);
    }
}
