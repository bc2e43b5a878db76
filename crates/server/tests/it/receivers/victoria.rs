//! VictoriaMetrics: takes InfluxDB's v1 and v2 paths and Graphite lines, and gives back exactly what it has.

use super::prometheus::number;
use super::{Series, Shared, text_map};
use crate::http;
use crate::process::{Process, free_port, loopback, program};
use std::sync::Arc;
use tempfile::TempDir;

/// A running VictoriaMetrics.
pub(crate) struct Victoria {
    _process: Process,
    port: u16,
    graphite_port: u16,
    _folder: TempDir,
}

impl Victoria {
    /// The one that tests share.
    pub(crate) fn shared() -> Arc<Victoria> {
        static SHARED: Shared<Victoria> = Shared::new();
        SHARED.get(Victoria::start)
    }

    fn start() -> Victoria {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, graphite_port) = (free_port(), free_port());
        let mut command = program("/usr/bin/victoria-metrics");
        command
            .arg(format!("-storageDataPath={}", folder.path().join("data").display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .arg(format!("-graphiteListenAddr=127.0.0.1:{graphite_port}"))
            // By default queries leave out the last 30 s.
            .args(["-search.latencyOffset=0s", "-retentionPeriod=12", "-memory.allowedBytes=128MB"]);
        let mut process = Process::start("victoria-metrics", command, folder.path());
        process.wait_until_ready(|| http::get(&format!("{}/health", loopback(port))).is_ok_and(|reply| reply.status == 200));
        Victoria { _process: process, port, graphite_port, _folder: folder }
    }

    /// The base address of the HTTP API.
    pub(crate) fn url(&self) -> String {
        loopback(self.port)
    }

    /// The port for Graphite's lines of plain text.
    pub(crate) fn graphite_port(&self) -> u16 {
        self.graphite_port
    }

    /// The one number that a query answers with at a time; nothing when there is none.
    pub(crate) fn number(&self, query: &str, at_s: f64) -> Option<f64> {
        let url = http::with_query(&format!("{}/api/v1/query", self.url()), &[("query", query), ("time", &at_s.to_string())]);
        number(&http::get(&url).expect("VictoriaMetrics answers").expect(200).json()["data"])
    }

    /// Every stored sample of the series that match, such as `{__name__=~"crash.*"}`; a sample written twice is there twice.
    pub(crate) fn export(&self, matching: &str) -> Vec<Series> {
        let url = http::with_query(&format!("{}/api/v1/export", self.url()), &[("match[]", matching)]);
        let reply = http::get(&url).expect("VictoriaMetrics answers").expect(200);
        let series = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
            let times = line["timestamps"].as_array().expect("a series has times");
            let values = line["values"].as_array().expect("a series has values");
            let sample =
                |(time, value): (&serde_json::Value, &serde_json::Value)| (time.as_u64().expect("ms"), value.as_f64().expect("a number"));
            Series { labels: text_map(&line["metric"]), samples: times.iter().zip(values).map(sample).collect() }
        };
        reply.body.lines().map(series).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receivers::{VISIBLE, labels, now_s};
    use crate::wait;
    use std::io::Write;
    use std::net::TcpStream;

    #[test]
    fn what_is_written_by_hand_through_each_door_is_read_back() {
        let victoria = Victoria::shared();
        let now = now_s() - 10;
        let v2 = format!("{}/api/v2/write?org=o&bucket=b&precision=s", victoria.url());
        http::call("POST", &v2, &[], format!("rig_v2,app=a count=3 {now}\nrig_v2,app=a count=4 {}\n", now + 1))
            .expect("an answer")
            .expect(204);
        let line = format!("rig_line;app=b 5 {now}\n");
        TcpStream::connect(("127.0.0.1", victoria.graphite_port()))
            .and_then(|mut port| port.write_all(line.as_bytes()))
            .expect("lines are taken");
        let expected = [
            Series { labels: labels([("__name__", "rig_line"), ("app", "b")]), samples: vec![(now * 1_000, 5.0)] },
            Series {
                labels: labels([("__name__", "rig_v2_count"), ("app", "a")]),
                samples: vec![(now * 1_000, 3.0), ((now + 1) * 1_000, 4.0)],
            },
        ];
        wait::until("both are stored", VISIBLE, || {
            let mut found = victoria.export("{__name__=~\"rig_.*\"}");
            found.sort_by_key(|series| series.labels["__name__"].clone());
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
}
