//! `serve --demo`: a project with metrics and two stores, made through the API as a user would, and a generator that submits
//! realistic reports over HTTP in the real format.

use crate::cli::client;
use reqwest::Client;
use serde_json::{Value as Json, json};
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Seconds between the points of the demo's stores.
const PERIOD_SECS: u64 = 10;
type Fault = Box<dyn Error + Send + Sync>;

const PROJECT: &str = "ProjectX";
const ERRORS_AND_USERS: &str = "ProjectXErrorsAndImpactedUsers";
const BY_VERSION: &str = "ProjectXByVersion";
const STORE: &str = "prometheus";
const CIRCONUS: &str = "circonus";
/// Reports that are there from the start, so that there is something to explore.
const FIRST_REPORTS: u64 = 300;

pub(crate) async fn run(address: SocketAddr, admin_token: &Path) -> Result<(), Fault> {
    let api =
        Api { client: client()?, base: format!("http://{address}/api/v1"), token: std::fs::read_to_string(admin_token)?.trim().to_owned() };
    let submission_url = match api.put("POST", "projects", &json!({"name": PROJECT})).await {
        Ok(project) => project["submission_url"].as_str().unwrap_or_default().to_owned(),
        // A demo on a kept data folder finds its project.
        Err(_) => api.get(&format!("projects/{PROJECT}")).await?["submission_urls"][0].as_str().unwrap_or_default().to_owned(),
    };
    let unique = |attribute: &str| json!([attribute, [["unique"]]]);
    for (set, metric, group, folds) in [
        (ERRORS_AND_USERS, "AllErrors", json!([]), vec![unique("_tx")]),
        (ERRORS_AND_USERS, "ErrorsByTypeWithImpactedUsers", json!(["error.type"]), vec![unique("_tx"), unique("guid")]),
        (ERRORS_AND_USERS, "UsersImpacted", json!([]), vec![unique("guid")]),
        (ERRORS_AND_USERS, "UsersImpactedPerFingerprint", json!(["fingerprint"]), vec![unique("guid")]),
        (BY_VERSION, "ErrorsByVersion", json!(["app.version"]), vec![unique("_tx"), unique("guid")]),
    ] {
        let fold: serde_json::Map<String, Json> =
            folds.into_iter().map(|fold| (fold[0].as_str().unwrap_or_default().to_owned(), fold[1].clone())).collect();
        let body = json!({"query": {"filter": [], "group": group, "fold": fold}});
        api.put("PUT", &format!("projects/{PROJECT}/metric-sets/{set}/metrics/{metric}"), &body).await?;
    }
    let store = json!({"adapter": "prometheus", "period": PERIOD_SECS, "sets": [ERRORS_AND_USERS, BY_VERSION]});
    let store = api.put("PUT", &format!("projects/{PROJECT}/metric-stores/{STORE}"), &store).await?;
    let url = store["url"].as_str().unwrap_or_default().to_owned();
    let circonus = json!({"adapter": "circonus_pull", "period": PERIOD_SECS, "sets": [ERRORS_AND_USERS]});
    let circonus = api.put("PUT", &format!("projects/{PROJECT}/metric-stores/{CIRCONUS}"), &circonus).await?;
    let shown = |field: &str| circonus[field].as_str().unwrap_or_default();
    say(&format!(
        "\nProject {PROJECT} exports {} metrics every {PERIOD_SECS} s; reports are submitted to\n  {submission_url}\n\n\
         Paste this into prometheus.yml:\n\n{}\nOr look at the pages themselves, once the first window is sealed:\n  curl {url}\n  curl -u {}:{} {}\n",
        5,
        store["scrape_config"].as_str().unwrap_or_default(),
        shown("username"),
        shown("password"),
        shown("url"),
    ));

    tokio::spawn(generate(api.client.clone(), submission_url));
    let mut shown = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(PERIOD_SECS / 2)).await;
        let status = api.get(&format!("projects/{PROJECT}/metric-stores/{STORE}/status")).await?;
        let Some(window) = status["newest_sealed_window"].as_u64().filter(|window| *window > shown) else { continue };
        shown = window;
        let page = api.client.get(&url).send().await?.text().await?;
        let value = |name: &str| {
            page.lines().filter(|line| line.starts_with(name)).find_map(|line| line.rsplit_once(' ')).map_or("-", |(_, value)| value)
        };
        let prefix = format!("crashmeter_{PROJECT}_{ERRORS_AND_USERS}");
        say(&format!(
            "window {window} sealed: {} reports, {} users impacted; errors in all (a counter, 0 for its first two windows): {}; {} series on \
             the page",
            value(&format!("{prefix}_AllErrors_tx_unique_window")),
            value(&format!("{prefix}_UsersImpacted_guid_unique_window")),
            value(&format!("{prefix}_AllErrors_tx_unique_total")),
            page.lines().filter(|line| !line.starts_with('#')).count(),
        ));
    }
}

fn say(text: &str) {
    // Whoever closed the output still wants the server.
    let _ = writeln!(std::io::stdout(), "{text}");
}

struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    async fn get(&self, path: &str) -> Result<Json, Fault> {
        let reply = self.client.get(format!("{}/{path}", self.base)).bearer_auth(&self.token).send().await?;
        Ok(serde_json::from_str(&reply.text().await?)?)
    }

    async fn put(&self, method: &str, path: &str, body: &Json) -> Result<Json, Fault> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let request = self.client.request(method, format!("{}/{path}", self.base)).bearer_auth(&self.token);
        let reply = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let (status, text) = (reply.status(), reply.text().await?);
        if status.is_success() { Ok(serde_json::from_str(&text)?) } else { Err(format!("demo set-up: {text}").into()) }
    }
}

/// Submits a few reports a second for as long as the server runs.
async fn generate(client: Client, url: String) {
    let mut random = Random(u64::from_le_bytes(catalog::random_bytes()) | 1);
    let mut sent_reports = 0;
    loop {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let report = report(&mut random, now);
        let sent = client.post(&url).header("content-type", "application/json").body(report.to_string()).send().await;
        if let Err(error) = sent {
            tracing::warn!(error = &error.without_url() as &dyn Error, "the demo's report was not taken");
        }
        sent_reports += 1;
        if sent_reports > FIRST_REPORTS {
            tokio::time::sleep(Duration::from_millis(60 + random.below(600))).await;
        }
    }
}

/// One crash of a game: a few causes make most of them, new versions crash more, users come back.
fn report(random: &mut Random, now: u64) -> Json {
    const CAUSES: [(&str, &str, &[&str]); 6] = [
        ("TypeError", "Exception", &["loadLevel", "start", "main"]),
        ("OutOfMemoryError", "OOMException", &["decodeTexture", "loadAssets", "loadLevel", "main"]),
        ("SIGSEGV", "Crash", &["renderFrame", "tick", "main"]),
        ("TimeoutError", "Unhandled rejection", &["fetchProfile", "login", "main"]),
        ("Hang", "Hang", &["waitForShader", "renderFrame", "tick", "main"]),
        ("AssertionError", "Unhandled exception", &["checkInventory", "pickUp", "tick", "main"]),
    ];
    let cause = CAUSES[(random.below(6) * random.below(6) / 6) as usize];
    let version = ["2.4.0", "2.4.1", "2.5.0"][random.below(10).saturating_sub(7) as usize % 3];
    let system = ["Windows", "Windows", "Windows", "Linux", "Darwin"][random.below(5) as usize];
    let user = random.below(400);
    let frames: Vec<Json> =
        cause.2.iter().zip(10..).map(|(function, line)| json!({"funcName": function, "library": "game.bin", "line": line})).collect();
    json!({
        "uuid": format!("{:016x}{:016x}", random.next(), random.next()), "timestamp": now - random.below(3),
        "lang": "c++", "langVersion": "20", "agent": "crashmeter-demo", "agentVersion": crate::VERSION, "mainThread": "main",
        "threads": {"main": {"name": "main", "fault": true, "stack": frames}},
        "classifiers": [cause.0],
        "attributes": {
            "application": "shooter", "application.version": version, "error.type": cause.1, "error.message": format!("{} in {}", cause.0, cause.2[0]),
            "guid": format!("{user:08x}-0000-4000-8000-{:012x}", user * 7919), "hostname": format!("pc-{user}"), "uname.sysname": system,
            "process.age": random.below(7_200), "vm.rss.size": 300_000_000 + random.below(4_000_000_000), "beta": random.below(20) == 0,
        },
        "annotations": {"level": {"name": "harbour", "checkpoint": random.below(12)}},
    })
}

/// Enough randomness for sample data (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }
}
