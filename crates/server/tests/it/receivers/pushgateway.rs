//! Prometheus' Pushgateway, used as a strict parser of pages: it refuses doubles and split families that a scrape lets pass.

use crate::http;
use crate::process::{Process, free_port, loopback, program};
use tempfile::TempDir;

/// A running Pushgateway.
pub(crate) struct Pushgateway {
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl Pushgateway {
    /// Starts one; it takes a tenth of a second, so it is not shared.
    pub(crate) fn start() -> Pushgateway {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let mut command = program("/usr/bin/prometheus-pushgateway");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::start("pushgateway", command, folder.path());
        process.wait_until_ready(|| http::get(&format!("{}/-/ready", loopback(port))).is_ok_and(|reply| reply.status == 200));
        Pushgateway { _process: process, port, _folder: folder }
    }

    /// Pushes a page in the text format; the error is the parser's reason.
    pub(crate) fn push(&self, job: &str, page: &str) -> Result<(), String> {
        let url = format!("{}/metrics/job/{job}", loopback(self.port));
        let reply = http::call("PUT", &url, &[], page).expect("the Pushgateway answers");
        if reply.status == 200 { Ok(()) } else { Err(reply.body) }
    }

    /// Where the pushed pages can be scraped.
    pub(crate) fn metrics_url(&self) -> String {
        format!("{}/metrics", loopback(self.port))
    }
}

#[test]
fn it_takes_good_pages_and_refuses_doubles() {
    let gateway = Pushgateway::start();
    gateway.push("rig", "# HELP a Text.\n# TYPE a gauge\na{l=\"v\"} 1\na{l=\"w\"} 2\n").expect("a good page is taken");
    assert!(http::get(&gateway.metrics_url()).expect("an answer").body.contains("a{instance=\"\",job=\"rig\",l=\"w\"} 2"));
    for bad in ["a{l=\"v\"} 1\na{l=\"v\"} 2\n", "a{l=\"v\",l=\"v\"} 1\n", "a 1", "a-b 1\n"] {
        assert!(gateway.push("rig", bad).is_err(), "{bad:?} is refused");
    }
}
