//! The ledger on the command line: `audit`, `explain` and `backfill`. It asks and prints; what is true is decided by the server, and
//! for a data folder by `catalog`.

use super::{Outcome, Server, say};
use clap::Args;
use reqwest::Method;
use serde_json::{Value as Json, json};
use std::error::Error;
use std::process::ExitCode;

/// What to audit.
#[derive(Args)]
pub(super) struct Audit {
    #[command(flatten)]
    server: Server,
    /// Only this project.
    #[arg(long)]
    project: Option<String>,
    /// Read the data folder itself, whether a server runs on it or not; nothing is written.
    #[arg(long)]
    offline: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) async fn run(self) -> Outcome {
        let answer = if self.offline {
            let mut found = serde_json::to_value(catalog::audit(&self.server.data, None, &adapters::is_push)?)?;
            if let (Some(only), Some(projects)) = (&self.project, found["projects"].as_array_mut()) {
                projects.retain(|project| project["project"] == json!(only));
            }
            found
        } else {
            let path = match &self.project {
                Some(project) => vec!["projects", project, "audit"],
                None => vec!["audit"],
            };
            self.server.ask(Method::GET, &path, None).await?
        };
        if self.json {
            say(&serde_json::to_string_pretty(&answer)?)?
        } else {
            say(&audited(&answer))?
        };
        Ok(if answer["balances"] == json!(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// An audit for reading: the accounts, then what does not hold.
fn audited(answer: &Json) -> String {
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let mut out = String::new();
    for project in list(&answer["projects"]) {
        let name = word(&project["project"]);
        let came = &answer["intake"][&name];
        out += &format!("{name}\n");
        if came.is_object() {
            out += &format!(
                "  since this process started: {} = accepted {} + duplicate {} + refused {}\n",
                count(&came["submissions"], "submission"),
                came["accepted"],
                came["duplicate"],
                came["refused"].as_object().map_or(0, |reasons| reasons.values().filter_map(Json::as_u64).sum::<u64>()),
            );
        }
        for grid in list(&project["grids"]) {
            out += &format!(
                "  windows of {} s: {} sealed, {} ({} s); {} accepted in them; metrics sealed {}, failed {}; matched {} = own {} + folded {}\n",
                grid["period"],
                grid["windows"],
                count(&grid["gaps"], "gap"),
                grid["gap_seconds"],
                count(&grid["accepted"], "report"),
                grid["metrics_sealed"],
                grid["metrics_failed"],
                grid["matched"],
                grid["own"],
                grid["folded"],
            );
        }
        for store in list(&project["stores"]) {
            let deleted = if store["deleted"] == json!(true) { " (deleted)" } else { "" };
            out += &format!("  {}{deleted}: ", word(&store["store"]));
            let (push, pull) = (&store["push"], &store["pull"]);
            if push.is_object() {
                out += &format!("{}, due {} = ", count(&push["windows"], "window"), push["due"]);
                let fates = ["confirmed", "sent", "refused", "excluded", "open", "expired", "cancelled"];
                out += &fates.map(|fate| format!("{fate} {}", push[fate])).join(" + ");
                out += "\n";
            } else {
                out += &format!(
                    "{} sealed = current {} + read {} + unread {}\n",
                    count(&pull["sealed"], "window"),
                    pull["current"],
                    pull["read"],
                    pull["unread"]
                );
            }
            for (reason, points) in store["reasons"].as_object().into_iter().flatten() {
                out += &format!("    {}: {reason}\n", count(points, "point"));
            }
        }
    }
    let told = list(&answer["told"]);
    for imbalance in &told {
        out += &format!("DOES NOT BALANCE: {}\n", word(imbalance));
    }
    let more = answer["imbalances"].as_u64().unwrap_or(0).saturating_sub(told.len() as u64);
    if more > 0 {
        out += &format!("and {more} more\n");
    }
    out + if answer["balances"] == json!(true) { "everything balances" } else { "the ledger does not balance" }
}

/// A point of a metric.
#[derive(Args)]
pub(super) struct Explain {
    #[command(flatten)]
    server: Server,
    project: String,
    set: String,
    metric: String,
    /// The window's first second in Unix time; the timestamp of the point, as the store has it, is its start or its end.
    #[arg(long)]
    window: u64,
    /// The store whose period and label names are meant; by default the first the metric's set is attached to.
    #[arg(long)]
    store: Option<String>,
    /// A label of the point, such as error.type=crash; one for each attribute that the metric is grouped by.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// An attribute that the reports lack.
    #[arg(long, value_name = "ATTRIBUTE")]
    missing: Vec<String>,
    /// The series of all groups beyond the budget.
    #[arg(long)]
    other: bool,
    /// Most reports listed.
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) async fn run(self) -> Outcome {
        let mut asked = vec![("window".to_owned(), self.window.to_string()), ("limit".to_owned(), self.limit.to_string())];
        asked.extend(self.store.iter().map(|store| ("store".to_owned(), store.clone())));
        asked.extend(self.other.then(|| ("other".to_owned(), "true".to_owned())));
        asked.extend(self.missing.iter().map(|attribute| ("missing".to_owned(), attribute.clone())));
        for label in &self.labels {
            let (name, value) = label.split_once('=').ok_or_else(|| format!("--label {label}: must be NAME=VALUE"))?;
            asked.push((name.to_owned(), value.to_owned()));
        }
        let path = ["projects", &self.project, "metric-sets", &self.set, "metrics", &self.metric, "explain"];
        let answer = self.server.get(&path, &asked).await?;
        if self.json { say(&serde_json::to_string_pretty(&answer)?) } else { say(&explained(&answer)) }
    }
}

/// A point for reading: what it says, what it is made of, and the reports.
fn explained(answer: &Json) -> String {
    let mut out = String::new();
    for value in answer["values"].as_array().into_iter().flatten() {
        out += &format!("{} = {} as sealed, {} from the reports\n", word(&value["aggregate"]), value["sealed"], value["reports"]);
    }
    out += &format!("{}\n", word(&answer["detail"]));
    out += &format!("filter: {}\n", answer["filter"]);
    if let Some(except) = answer["except"].as_array() {
        out += &format!("except the {} that have a series of their own\n", count(&json!(except.len()), "group"));
    }
    let numbers: Vec<String> = answer["tx"].as_array().into_iter().flatten().map(Json::to_string).collect();
    out += &format!("reports: {}", numbers.join(" "));
    if answer["next_after"].is_u64() {
        out += " …";
    }
    out
}

/// Windows to fill.
#[derive(Args)]
pub(super) struct Backfill {
    #[command(flatten)]
    server: Server,
    project: String,
    store: String,
    /// First second to fill, Unix time; with --to. Without both, how far the store's backfills have come is shown.
    #[arg(long, requires = "to")]
    from: Option<u64>,
    /// First second after it.
    #[arg(long, requires = "from")]
    to: Option<u64>,
    /// Only this metric set; may be repeated.
    #[arg(long = "set", value_name = "SET", requires = "from")]
    sets: Vec<String>,
    /// End the newest one: what of it is not sent yet is cancelled.
    #[arg(long, conflicts_with = "from")]
    cancel: bool,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

impl Backfill {
    pub(super) async fn run(self) -> Outcome {
        let path = ["projects", &self.project, "metric-stores", &self.store, "backfill"];
        if self.cancel {
            self.server.ask(Method::DELETE, &path, None).await?;
            return say("cancelled");
        }
        let answer = match (self.from, self.to) {
            (Some(from), Some(to)) => {
                let mut body = json!({"from": from, "to": to});
                if !self.sets.is_empty() {
                    body["sets"] = json!(self.sets);
                }
                self.server.ask(Method::POST, &path, Some(body)).await?
            }
            _ => self.server.ask(Method::GET, &path, None).await?,
        };
        if self.json { say(&serde_json::to_string_pretty(&answer)?) } else { say(&filled(&answer)) }
    }
}

/// Backfills for reading, one a line.
fn filled(answer: &Json) -> String {
    let all = answer.as_array().cloned().unwrap_or_else(|| vec![answer.clone()]);
    if all.is_empty() {
        return "no backfill was asked for".to_owned();
    }
    let line = |one: &Json| {
        let state = one["outcome"].as_str().unwrap_or("running").to_owned();
        format!(
            "{} of {} s from {} up to {}: {state}, next {}; {} filled, {} passed over, {} open with {}",
            word(&json!(format!("backfill {}", one["id"]))),
            one["period"],
            one["from"],
            one["to"],
            one["next"],
            count(&one["windows"], "window"),
            one["passed_over"],
            one["open_windows"],
            count(&one["open_points"], "point"),
        )
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Server {
    /// Asks for something with parameters.
    async fn get(&self, path: &[&str], parameters: &[(String, String)]) -> Result<Json, Box<dyn Error>> {
        let parameters: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (status, answer) = self.send(Method::GET, path, &parameters, None, None).await?;
        if status.is_success() { Ok(answer) } else { Err(self.refusal(status, &answer)) }
    }
}

/// A text that goes to a terminal: names come from people, so nothing in them may steer it.
fn word(value: &Json) -> String {
    value.as_str().unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn count(number: &Json, one: &str) -> String {
    format!("{number} {one}{}", if *number == json!(1) { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_reads_as_sums() {
        let answer = json!({
            "balances": false, "imbalances": 2, "told": ["project game: a hole"],
            "projects": [{"project": "game",
                "grids": [{"period": 60, "windows": 3, "gaps": 1, "gap_seconds": 120, "accepted": 7, "metrics_sealed": 3,
                    "metrics_failed": 0, "matched": 7, "own": 6, "folded": 1}],
                "stores": [
                    {"store": "carbon", "deleted": false, "push": {"windows": 3, "due": 9, "confirmed": 0, "sent": 6, "refused": 0,
                        "excluded": 1, "open": 2, "expired": 0, "cancelled": 0, "attempts": 3}, "reasons": {"excluded: not a number": 1}},
                    {"store": "prom", "deleted": true, "pull": {"sealed": 3, "current": 1, "read": 2, "unread": 0}},
                ]}],
            "intake": {"game": {"submissions": 9, "accepted": 7, "duplicate": 1, "refused": {"busy": 1}}},
        });
        assert_eq!(
            audited(&answer),
            "game\n\
             \x20 since this process started: 9 submissions = accepted 7 + duplicate 1 + refused 1\n\
             \x20 windows of 60 s: 3 sealed, 1 gap (120 s); 7 reports accepted in them; metrics sealed 3, failed 0; matched 7 = own 6 + folded 1\n\
             \x20 carbon: 3 windows, due 9 = confirmed 0 + sent 6 + refused 0 + excluded 1 + open 2 + expired 0 + cancelled 0\n\
             \x20   1 point: excluded: not a number\n\
             \x20 prom (deleted): 3 windows sealed = current 1 + read 2 + unread 0\n\
             DOES NOT BALANCE: project game: a hole\n\
             and 1 more\n\
             the ledger does not balance"
        );
    }

    #[test]
    fn a_point_reads_as_its_reports() {
        let answer = json!({"values": [{"aggregate": "count", "sealed": 2.0, "reports": 2.0}], "detail": "2 reports\u{1b}[31m make this point",
            "filter": [{}], "except": null, "tx": [4, 9], "next_after": 9});
        assert_eq!(
            explained(&answer),
            "count = 2.0 as sealed, 2.0 from the reports\n2 reports [31m make this point\nfilter: [{}]\nreports: 4 9 …"
        );
    }

    #[test]
    fn backfills_read_as_lines() {
        assert_eq!(filled(&json!([])), "no backfill was asked for");
        let one = json!({"id": 3, "period": 60, "from": 60, "to": 600, "next": 120, "outcome": null, "windows": 1, "passed_over": 0,
            "open_windows": 1, "open_points": 4});
        assert_eq!(
            filled(&one),
            "backfill 3 of 60 s from 60 up to 600: running, next 120; 1 window filled, 0 passed over, 1 open with 4 points"
        );
    }
}
