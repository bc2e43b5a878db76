//! `plan`, `apply`, `export` and `schema`: reads the file, fills its secrets in, asks the server, prints what it says.

use super::secret::{self, Sources};
use super::yaml::{self, Document};
use super::{document, schema};
use crate::cli::{Outcome, Server, say};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value as Json, json};
use std::error::Error;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `plan`'s exit code when there is something to do.
const SOMETHING_TO_DO: u8 = 2;

/// A configuration file and how it is meant.
#[derive(clap::Args)]
pub(crate) struct File {
    /// The configuration file; - reads standard input.
    file: PathBuf,
    /// Remove metric sets, metrics and stores that the file does not have from the projects it names.
    #[arg(long)]
    prune: bool,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

/// Prints what a file would change. Exit code 0: nothing; 2: something.
pub(crate) async fn plan(server: &Server, file: &File) -> Outcome {
    let (document, request) = file.read()?;
    let plan = file.ask(server, "plan", &document, &request, None).await?;
    say(&if file.json { serde_json::to_string_pretty(&plan)? } else { written(&plan) })?;
    Ok(if nothing_to_do(&plan) { ExitCode::SUCCESS } else { ExitCode::from(SOMETHING_TO_DO) })
}

/// Shows the plan, asks unless told to go on, and makes the changes: all or none.
pub(crate) async fn apply(server: &Server, file: &File, yes: bool) -> Outcome {
    let (document, request) = file.read()?;
    let plan = file.ask(server, "plan", &document, &request, None).await?;
    if !file.json {
        say(&written(&plan))?;
    }
    if nothing_to_do(&plan) {
        return if file.json { say(&serde_json::to_string_pretty(&plan)?) } else { Ok(ExitCode::SUCCESS) };
    }
    if !yes && !agreed(file)? {
        say("nothing was changed")?;
        return Ok(ExitCode::FAILURE);
    }
    let applied = file.ask(server, "apply", &document, &request, plan["version"].as_u64()).await?;
    if file.json {
        return say(&serde_json::to_string_pretty(&applied)?);
    }
    let urls = applied["submission_urls"].as_object().into_iter().flatten();
    let urls: String = urls.map(|(name, url)| format!("\nsubmission URL of {name}: {}", url.as_str().unwrap_or_default())).collect();
    say(&format!("applied{urls}"))
}

/// Prints the configuration as a file that `plan` and `apply` take.
pub(crate) async fn export(server: &Server, project: Option<&str>) -> Outcome {
    let query: Vec<_> = project.map(|project| ("project", project)).into_iter().collect();
    let (status, answer) = server.send(Method::GET, &["configuration"], &query, None, None).await?;
    if status != StatusCode::OK {
        return Err(server.refusal(status, &answer));
    }
    say(&file_of(&answer))
}

/// Prints the format's JSON Schema.
pub(crate) fn print_schema() -> Outcome {
    say(&serde_json::to_string_pretty(&schema::schema())?)
}

impl File {
    /// The document with its places, and the same with its secrets filled in.
    fn read(&self) -> Result<(Document, Json), Box<dyn Error>> {
        let mut text = String::new();
        let mut bytes: Box<dyn Read> = if self.file.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(&self.file).map_err(|error| format!("{}: {error}", self.name()))?)
        };
        // One byte more than is allowed, so that too much is seen.
        let most = yaml::TEXT_BYTES_MAX as u64 + 1;
        bytes.by_ref().take(most).read_to_string(&mut text).map_err(|error| format!("{}: {error}", self.name()))?;
        let document = yaml::read(&text).map_err(|fault| format!("{}:{}: {}", self.name(), fault.place, fault.detail))?;
        let mut filled = document.json.clone();
        let variable = |name: &str| std::env::var(name).ok();
        let folder = self.file.parent().filter(|_| self.file.as_os_str() != "-").unwrap_or(Path::new("."));
        let problems = secret::fill(&mut filled, &Sources { variable: &variable, folder });
        let faults: Vec<Json> = problems.into_iter().map(|problem| json!(problem)).collect();
        if !faults.is_empty() {
            return Err(self.faults(&document, &faults).into());
        }
        Ok((document, filled))
    }

    async fn ask(
        &self,
        server: &Server,
        what: &str,
        document: &Document,
        filled: &Json,
        version: Option<u64>,
    ) -> Result<Json, Box<dyn Error>> {
        let body = json!({"document": filled, "prune": self.prune});
        let (status, mut answer) = server.send(Method::POST, &[what], &[], Some(body), version).await?;
        if status == StatusCode::OK {
            for warning in answer["warnings"].as_array_mut().into_iter().flatten() {
                warning["place"] = json!(document.place(warning["field"].as_str().unwrap_or_default()).to_string());
            }
            return Ok(answer);
        }
        if status != StatusCode::UNPROCESSABLE_ENTITY {
            return Err(server.refusal(status, &answer));
        }
        let several = answer["problems"].as_array().filter(|problems| !problems.is_empty()).cloned();
        Err(self.faults(document, &several.unwrap_or_else(|| vec![answer])).into())
    }

    /// Every fault with its place in the file, in the order of the file.
    fn faults(&self, document: &Document, faults: &[Json]) -> String {
        let mut lines: Vec<(usize, usize, String)> = Vec::new();
        for fault in faults {
            let (field, detail) = (fault["field"].as_str().unwrap_or_default(), fault["detail"].as_str().unwrap_or_default());
            let place = document.place(field);
            lines.push((place.line, place.column, format!("\n{}:{place}: {field}: {detail}", self.name())));
        }
        lines.sort();
        let text: String = lines.into_iter().map(|(.., line)| line).collect();
        format!("{} of the file cannot be taken, and nothing was changed:{text}", counted(faults.len() as u64, "part"))
    }

    fn name(&self) -> String {
        if self.file.as_os_str() == "-" { "standard input".to_owned() } else { self.file.display().to_string() }
    }
}

/// Asks on the terminal; without one, nobody can agree.
fn agreed(file: &File) -> Result<bool, Box<dyn Error>> {
    if file.file.as_os_str() == "-" || file.json || !std::io::stdin().is_terminal() {
        return Err("nobody is there to be asked; give --yes to apply".into());
    }
    write!(std::io::stderr(), "Apply? [y/N] ")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn nothing_to_do(plan: &Json) -> bool {
    plan["changes"].as_array().is_none_or(Vec::is_empty)
}

/// A plan for people.
fn written(plan: &Json) -> String {
    let mut text = String::new();
    for warning in list(&plan["warnings"]) {
        text += &format!("warning: {}: {} ({})\n", said(&warning["place"]), said(&warning["detail"]), said(&warning["field"]));
    }
    let mut project = "";
    for change in list(&plan["changes"]) {
        if change["project"] != project {
            project = change["project"].as_str().unwrap_or_default();
            text += &format!("project {}\n", printable(project));
        }
        text += &change_text(change);
    }
    let left = list(&plan["left_alone"]).map(said).collect::<Vec<_>>();
    if !left.is_empty() {
        text += &format!("not in the file and left alone (--prune removes them): {}\n", left.join(", "));
    }
    let summary = &plan["summary"];
    if nothing_to_do(plan) {
        return text + "nothing to do";
    }
    text + &format!(
        "{} to add, {} to change, {} to remove: {}, {} expected, in {}",
        summary["added"],
        summary["changed"],
        summary["removed"],
        counted(summary["series_now"].as_u64().unwrap_or(0), "series"),
        summary["series_forecast"].as_u64().map_or("cannot be counted how many are".to_owned(), |number| number.to_string()),
        counted(summary["targets"].as_u64().unwrap_or(0), "target")
    )
}

fn change_text(change: &Json) -> String {
    let sign = match change["action"].as_str() {
        Some("add") => '+',
        Some("remove") => '-',
        _ => '~',
    };
    let kind = said(&change["kind"]).replace('_', " ");
    let name = if change["kind"] == "project" { said(&change["project"]) } else { said(&change["name"]) };
    let mut text = format!("  {sign} {kind} {name}");
    if let Some(now) = change["series"]["now"].as_u64() {
        let forecast = change["series"]["forecast"]
            .as_u64()
            .map_or("how many to expect cannot be counted".to_owned(), |number| format!("{number} expected"));
        text += &format!(": {}, {forecast}", counted(now, "series"));
    }
    let targets: Vec<String> = list(&change["targets"]).map(said).collect();
    if change["kind"] == "metric" {
        text += &if targets.is_empty() { ", in no metric store".to_owned() } else { format!(", in {}", targets.join(", ")) };
    }
    text.push('\n');
    for field in list(&change["fields"]) {
        let name = said(&field["field"]);
        text += &if field["secret"] == json!(true) {
            format!("      {name}: changed\n")
        } else {
            format!("      {name}: {} -> {}\n", value(&field["old"]), value(&field["new"]))
        };
    }
    for (metric, beyond) in change["series"]["over_budget"].as_object().into_iter().flatten() {
        let samples: Vec<String> = list(&beyond["samples"]).map(said).collect();
        text += &format!(
            "      over its budget: {} of {} are folded into __other__; {} has values such as {}\n",
            counted(beyond["groups"].as_u64().unwrap_or(0), "group"),
            printable(metric),
            said(&beyond["attribute"]),
            samples.join(", ")
        );
    }
    for window in list(&change["first_windows"]) {
        let until = if change["action"] == "remove" { "the last window ends" } else { "first window begins" };
        text += &format!("      {}: {until} {}", said(&window["store"]), time(&window["start"]));
        if change["action"] != "remove" {
            text += &format!(", first point {}", time(&window["end"]));
        }
        if let Some(seconds) = window["gap_secs"].as_u64().filter(|seconds| *seconds > 0) {
            text += &format!("; no points for {seconds} s before it, as the periods have no near boundary in common");
        }
        text.push('\n');
    }
    if change["at_once"] == json!(true) {
        text += match change["action"].as_str() {
            Some("remove") => "      at once: what it was still owed is cancelled\n",
            _ => "      at once for address and secrets, also for what waits to be sent\n",
        };
    }
    text
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}

/// A text of the server's without characters that could steer a terminal.
fn said(value: &Json) -> String {
    printable(value.as_str().unwrap_or_default())
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn value(value: &Json) -> String {
    if value.is_null() { "(not set)".to_owned() } else { printable(&value.to_string()) }
}

fn time(seconds: &Json) -> String {
    let time = seconds.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| seconds.to_string(), |time| time.to_string())
}

fn counted(count: u64, one: &str) -> String {
    let plural = if count == 1 || one.ends_with('s') { "" } else { "s" };
    format!("{count} {one}{plural}")
}

/// A document as the text of a file.
fn file_of(document: &Json) -> String {
    let mut variables = Vec::new();
    for project in document["projects"].as_object().into_iter().flat_map(|map| map.values()) {
        for store in project["metric_stores"].as_object().into_iter().flat_map(|map| map.values()) {
            variables.extend(store.as_object().into_iter().flatten().filter_map(|(_, value)| secret::placeholder(value.as_str()?)));
        }
    }
    let mut text = "# Configuration of a Crashmeter server: `crashmeter plan FILE`, `crashmeter apply FILE`.\n".to_owned();
    if !variables.is_empty() {
        text += "# Secrets are not exported. Before plan and apply, set these in the environment, or write {file: PATH} instead:\n";
        text.extend(variables.iter().map(|name| format!("#   {name}\n")));
    }
    debug_assert_eq!(document::DOCUMENT_KEYS[0], "crashmeter");
    text + &yaml::write(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_changes_and_when() {
        let plan = json!({
            "version": 7,
            "warnings": [{"field": "projects.p.metric_sets.s.metrics.m", "detail": "no report has had x", "place": "5:9"}],
            "changes": [
                {"action": "add", "kind": "metric", "project": "p", "name": "s/m", "fields": [], "targets": ["influx (influxdb)"],
                 "first_windows": [{"store": "influx", "start": 1_763_900_040, "end": 1_763_900_100, "gap_secs": 0}], "at_once": false,
                 "series": {"now": 0, "forecast": 11, "over_budget": {"s/m": {"groups": 3, "attribute": "user", "samples": ["a", "b\u{1b}[0m"]}}}},
                {"action": "change", "kind": "metric_store", "project": "p", "name": "influx", "targets": ["influx (influxdb)"],
                 "fields": [{"field": "period", "old": 7, "new": 11, "secret": false}, {"field": "db", "old": null, "new": "x", "secret": false},
                            {"field": "password", "old": null, "new": null, "secret": true}],
                 "first_windows": [{"store": "influx", "start": 66, "end": 77, "gap_secs": 10}], "at_once": true,
                 "series": {"now": 1, "forecast": null, "over_budget": {}}},
                {"action": "remove", "kind": "metric", "project": "q", "name": "s/old", "fields": [], "targets": [], "first_windows": [],
                 "at_once": false, "series": {"now": 4, "forecast": 0, "over_budget": {}}},
            ],
            "left_alone": ["metric store p/other"],
            "summary": {"added": 1, "changed": 1, "removed": 1, "series_now": 5, "series_forecast": null, "targets": 1},
        });
        assert_eq!(
            written(&plan),
            "warning: 5:9: no report has had x (projects.p.metric_sets.s.metrics.m)\n\
             project p\n\
             \x20 + metric s/m: 0 series, 11 expected, in influx (influxdb)\n\
             \x20     over its budget: 3 groups of s/m are folded into __other__; user has values such as a, b [0m\n\
             \x20     influx: first window begins 2025-11-23T12:14:00Z, first point 2025-11-23T12:15:00Z\n\
             \x20 ~ metric store influx: 1 series, how many to expect cannot be counted\n\
             \x20     period: 7 -> 11\n\
             \x20     db: (not set) -> \"x\"\n\
             \x20     password: changed\n\
             \x20     influx: first window begins 1970-01-01T00:01:06Z, first point 1970-01-01T00:01:17Z; no points for 10 s before it, as the periods have no near boundary in common\n\
             \x20     at once for address and secrets, also for what waits to be sent\n\
             project q\n\
             \x20 - metric s/old: 4 series, 0 expected, in no metric store\n\
             not in the file and left alone (--prune removes them): metric store p/other\n\
             1 to add, 1 to change, 1 to remove: 5 series, cannot be counted how many are expected, in 1 target"
        );
        assert_eq!(written(&json!({"changes": []})), "nothing to do");
    }

    #[test]
    fn an_exported_file_names_the_secrets_it_needs() {
        let document = json!({"crashmeter": 1, "projects": {"p": {"metric_sets": {}, "metric_stores": {
            "i": {"adapter": "influxdb", "period": 60, "password": "${P_I_PASSWORD}"}}}}});
        let text = file_of(&document);
        assert!(text.contains("#   P_I_PASSWORD\n"), "{text}");
        assert!(text.contains("\n        password: \"${P_I_PASSWORD}\"\n"), "{text}");
        assert_eq!(yaml::read(&text).expect("legal").json, document);
        assert!(!file_of(&json!({"crashmeter": 1, "projects": {}})).contains("Secrets"));
    }
}
