//! Carbon with one-second retention, and Graphite-Web to read it.

use super::{Series, Shared, text_map};
use crate::http;
use crate::process::{Process, free_port, loopback, program, repository};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A Carbon and the Graphite-Web that reads its files and keeps its tags.
pub(crate) struct Graphite {
    carbon: Option<Process>,
    _web: Process,
    line_port: u16,
    web_port: u16,
    folder: TempDir,
}

impl Graphite {
    /// The one that tests share.
    pub(crate) fn shared() -> Arc<Graphite> {
        static SHARED: Shared<Graphite> = Shared::new();
        SHARED.get(|| {
            let mut graphite = Graphite::start_without_carbon();
            graphite.start_carbon();
            graphite
        })
    }

    /// A Graphite whose Carbon is down: its port refuses.
    pub(crate) fn start_without_carbon() -> Graphite {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (line_port, query_port, web_port) = (free_port(), free_port(), free_port());
        configure(folder.path(), line_port, query_port, web_port);
        let mut command = program("/usr/bin/python3");
        command.arg(repository("tests/receivers/graphite_web.py")).arg(web_port.to_string()).arg(folder.path());
        let mut web = Process::start("graphite-web", command, folder.path());
        web.wait_until_ready(|| http::get(&format!("{}/metrics/find?query=*", loopback(web_port))).is_ok_and(|reply| reply.status == 200));
        Graphite { carbon: None, _web: web, line_port, web_port, folder }
    }

    /// Starts Carbon on the same port and folder as before.
    pub(crate) fn start_carbon(&mut self) {
        let mut command = program("/usr/bin/carbon-cache");
        // Without --debug it would leave the process that we watch.
        command.arg("--config").arg(self.folder.path().join("carbon.conf")).args(["--debug", "start"]);
        let mut carbon = Process::start("carbon", command, self.folder.path());
        carbon.wait_until_ready(|| TcpStream::connect(("127.0.0.1", self.line_port)).is_ok());
        self.carbon = Some(carbon);
    }

    /// Stops Carbon after it has written what it holds.
    pub(crate) fn stop_carbon(&mut self) {
        self.carbon.take().expect("Carbon runs").terminate();
    }

    /// The port for lines of plain text.
    pub(crate) fn line_port(&self) -> u16 {
        self.line_port
    }

    /// The series of a target such as `a.b.*` or `seriesByTag('name=m')` with the points in `[from_s, until_s)` that have a value.
    pub(crate) fn render(&self, target: &str, from_s: u64, until_s: u64) -> Vec<Series> {
        // Graphite's own range leaves out its beginning and includes its end.
        let (from, until) = ((from_s - 1).to_string(), (until_s - 1).to_string());
        let pairs =
            [("target", target), ("from", &from), ("until", &until), ("format", "json"), ("noNullPoints", "true"), ("noCache", "true")];
        let reply = http::get(&http::with_query(&format!("{}/render", loopback(self.web_port)), &pairs)).expect("Graphite-Web answers");
        let series = reply.expect(200).json();
        let series = series.as_array().expect("render gives a list");
        let points = |series: &serde_json::Value| {
            let points = series["datapoints"].as_array().expect("a series has points");
            points.iter().map(|point| (point[1].as_u64().expect("whole seconds") * 1_000, point[0].as_f64().expect("a number"))).collect()
        };
        series.iter().map(|series| Series { labels: text_map(&series["tags"]), samples: points(series) }).collect()
    }
}

/// Writes the settings of both programs. `MAX_CREATES_PER_MINUTE` is 50 by default, which silently loses new series; a tag batch of
/// one keeps a bad tag from hiding the good ones behind it (carbon's own carbon.conf explains both).
fn configure(folder: &Path, line_port: u16, query_port: u16, web_port: u16) {
    let root = folder.display();
    for name in ["whisper", "log", "run"] {
        fs::create_dir(folder.join(name)).expect("a new folder");
    }
    let carbon = format!(
        "[cache]
STORAGE_DIR = {root}
CONF_DIR = {root}
LOG_DIR = {root}/log
PID_DIR = {root}/run
LOCAL_DATA_DIR = {root}/whisper
USER =
MAX_CACHE_SIZE = inf
MAX_UPDATES_PER_SECOND = 10000
MAX_CREATES_PER_MINUTE = inf
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {line_port}
PICKLE_RECEIVER_PORT = 0
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {query_port}
ENABLE_TAGS = True
GRAPHITE_URL = {web}
TAG_UPDATE_INTERVAL = 1
TAG_BATCH_SIZE = 1
",
        web = loopback(web_port)
    );
    let web = format!(
        "SECRET_KEY = 'for tests on loopback'
ALLOWED_HOSTS = ['127.0.0.1']
TIME_ZONE = 'UTC'
LOG_DIR = '{root}/log'
INDEX_FILE = '{root}/index'
STORAGE_DIR = '{root}'
STANDARD_DIRS = ['{root}/whisper']
CARBONLINK_HOSTS = ['127.0.0.1:{query_port}:a']
DATABASES = {{'default': {{'NAME': '{root}/graphite.db', 'ENGINE': 'django.db.backends.sqlite3', 'OPTIONS': {{'timeout': 20}}}}}}
"
    );
    let files =
        [("carbon.conf", carbon), ("local_settings.py", web), ("storage-schemas.conf", "[all]\npattern = .*\nretentions = 1s:1h\n".into())];
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("a new file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receivers::{VISIBLE, labels, now_s};
    use crate::wait;
    use std::io::Write;

    fn send(port: u16, lines: &str) {
        TcpStream::connect(("127.0.0.1", port)).and_then(|mut carbon| carbon.write_all(lines.as_bytes())).expect("Carbon takes lines");
    }

    #[test]
    fn what_is_written_by_hand_is_read_back_also_after_a_restart() {
        let mut graphite = Graphite::start_without_carbon();
        graphite.start_carbon();
        let start = now_s() - 5;
        send(graphite.line_port(), &format!("rig.path 1.5 {start}\nrig.path 2.5 {}\nrig.tagged;app=a;env=prod 7 {start}\n", start + 1));
        let tagged =
            Series { labels: labels([("name", "rig.tagged"), ("app", "a"), ("env", "prod")]), samples: vec![(start * 1_000, 7.0)] };
        let expect_all = |graphite: &Graphite| {
            wait::until("both layouts are readable", VISIBLE, || {
                let path = graphite.render("rig.path", start, start + 2);
                let by_tag = graphite.render("seriesByTag('name=rig.tagged')", start, start + 2);
                let samples = path.first().map(|series| series.samples.clone());
                let good = samples == Some(vec![(start * 1_000, 1.5), ((start + 1) * 1_000, 2.5)]) && by_tag == [tagged.clone()];
                if good { Ok(()) } else { Err(format!("{path:?} {by_tag:?}")) }
            });
        };
        expect_all(&graphite);
        assert_eq!(graphite.render("rig.path", start + 1, start + 2)[0].samples, [((start + 1) * 1_000, 2.5)], "the range is half open");
        graphite.stop_carbon();
        assert!(TcpStream::connect(("127.0.0.1", graphite.line_port())).is_err(), "a stopped Carbon refuses");
        graphite.start_carbon();
        expect_all(&graphite);
    }
}
