//! Prometheus, scraping what a test's configuration names.

use super::{Series, text_map};
use crate::http;
use crate::process::{Process, free_port, loopback, program};
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

/// A running Prometheus.
pub(crate) struct Prometheus {
    _process: Process,
    port: u16,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one with this configuration file.
    pub(crate) fn start(config: &str) -> Prometheus {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("prometheus.yml"), config).expect("a new file");
        let port = free_port();
        let mut command = program("/usr/bin/prometheus");
        command
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.enable-lifecycle", "--web.enable-remote-write-receiver"]);
        let mut process = Process::start("prometheus", command, folder.path());
        process.wait_until_ready(|| http::get(&format!("{}/-/ready", loopback(port))).is_ok_and(|reply| reply.status == 200));
        Prometheus { _process: process, port, folder }
    }

    /// Goes on with another configuration.
    pub(crate) fn reload(&self, config: &str) {
        fs::write(self.folder.path().join("prometheus.yml"), config).expect("the file can be replaced");
        http::call("POST", &format!("{}/-/reload", loopback(self.port)), &[], "").expect("Prometheus answers").expect(200);
    }

    /// The samples as they were scraped, of every series that a selector such as `{job="crashes"}` matches, of the last hour.
    pub(crate) fn samples(&self, selector: &str) -> Vec<Series> {
        let answer = self.api("query", &[("query", &format!("{selector}[1h]"))]);
        let sample = |pair: &Value| {
            let seconds = pair[0].as_f64().expect("seconds");
            let value = pair[1].as_str().and_then(|text| text.parse().ok()).expect("a number as text");
            ((seconds * 1_000.0).round() as u64, value)
        };
        let series = |series: &Value| Series {
            labels: text_map(&series["metric"]),
            samples: series["values"].as_array().expect("a series has values").iter().map(sample).collect(),
        };
        answer["result"].as_array().expect("a matrix").iter().map(series).collect()
    }

    /// Where it takes remote write.
    pub(crate) fn write_url(&self) -> String {
        format!("{}/api/v1/write", loopback(self.port))
    }

    /// The one number that a query answers with at a time; nothing when there is none.
    pub(crate) fn number(&self, query: &str, at_s: f64) -> Option<f64> {
        number(&self.api("query", &[("query", query), ("time", &at_s.to_string())]))
    }

    /// Why the last scrape of a job failed: empty when it did not, nothing before the first.
    pub(crate) fn scrape_error(&self, job: &str) -> Option<String> {
        let answer = self.api("targets", &[]);
        let targets = answer["activeTargets"].as_array().expect("a list of targets");
        let target = targets.iter().find(|target| target["labels"]["job"] == job)?;
        (target["health"] != "unknown").then(|| target["lastError"].as_str().expect("a text").to_owned())
    }

    fn api(&self, path: &str, pairs: &[(&str, &str)]) -> Value {
        let url = http::with_query(&format!("{}/api/v1/{path}", loopback(self.port)), pairs);
        http::get(&url).expect("Prometheus answers").expect(200).json()["data"].clone()
    }
}

/// The value of an answer with one series.
pub(crate) fn number(answer: &Value) -> Option<f64> {
    let series = answer["result"].as_array().expect("a vector");
    assert!(series.len() < 2, "one number was asked for: {answer}");
    series.first()?["value"][1].as_str()?.parse().ok()
}

/// One job of a configuration: where to scrape, every second.
pub(crate) struct Job<'a> {
    /// Its name, which becomes the label `job`.
    pub(crate) name: &'a str,
    /// The whole address of the page.
    pub(crate) url: &'a str,
    /// Further lines for the job, indented by two blanks.
    pub(crate) extra: &'a str,
}

/// A configuration file that scrapes these jobs once a second.
pub(crate) fn scrape_config(jobs: &[Job]) -> String {
    let mut config = String::from("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n");
    for job in jobs {
        let url = url::Url::parse(job.url).unwrap_or_else(|error| panic!("{} is no URL: {error}", job.url));
        let host = format!("{}:{}", url.host_str().expect("a host"), url.port_or_known_default().expect("a port"));
        config += &format!("- job_name: {}\n  scheme: {}\n  metrics_path: {}\n", job.name, url.scheme(), url.path());
        config += &format!("  static_configs: [{{targets: ['{host}']}}]\n{}", job.extra);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receivers::VISIBLE;
    use crate::receivers::pushgateway::Pushgateway;
    use crate::wait;

    #[test]
    fn a_page_is_scraped_and_a_bad_target_is_named() {
        let page = Pushgateway::start();
        page.push("rig", "# TYPE rig_value gauge\nrig_value{app=\"a\"} 2.5\n").expect("a good page is taken");
        let prometheus = Prometheus::start(&scrape_config(&[]));
        let (good, bad) = (page.metrics_url(), loopback(free_port()) + "/metrics");
        let jobs = [Job { name: "good", url: &good, extra: "  honor_labels: true\n" }, Job { name: "bad", url: &bad, extra: "" }];
        prometheus.reload(&scrape_config(&jobs));
        let series = wait::until("two samples are scraped", VISIBLE, || {
            let found = prometheus.samples("rig_value");
            if found.first().is_some_and(|series| series.samples.len() >= 2) { Ok(found) } else { Err(format!("{found:?}")) }
        });
        assert_eq!((series.len(), series[0].labels["app"].as_str()), (1, "a"));
        assert!(series[0].samples.iter().all(|(_, value)| *value == 2.5), "{series:?}");
        assert_eq!(prometheus.scrape_error("good").as_deref(), Some(""));
        let error = wait::until("the bad target was tried", VISIBLE, || prometheus.scrape_error("bad").ok_or("not yet".into()));
        assert!(error.contains("connection refused"), "{error}");
    }
}
