//! The command line: `serve`, and what talks to a running server.

pub(crate) mod backup;
mod ledger;

use crate::configuration::command;
use crate::serve::{self, Options};
use crate::{VERSION, demo, logs, memory};
use clap::{Parser, Subcommand};
use ipnet::IpNet;
use reports::Retention;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value as Json, json};
use std::error::Error;
use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use url::Url;

/// Crash reports in, exact time-series metrics out.
#[derive(Parser)]
#[command(name = "crashmeter", version = VERSION, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server in the foreground until Ctrl-C.
    Serve(Serve),
    /// Submit a report (JSON, or a minidump) from a file or standard input.
    Submit {
        /// The project's submission URL (ends in /json).
        #[arg(long, env = "CRASHMETER_SUBMIT_URL", hide_env_values = true)]
        to: Url,
        /// The report; - reads standard input.
        file: PathBuf,
    },
    /// Run an aggregate query and print a table with a bar per group.
    Query {
        #[command(flatten)]
        server: Server,
        project: String,
        /// Group by this attribute; may be repeated.
        #[arg(long = "group", value_name = "ATTRIBUTE")]
        group: Vec<String>,
        /// An aggregate such as unique:guid or max:process.age; without any, reports are counted.
        #[arg(long = "fold", value_name = "OP:ATTRIBUTE")]
        fold: Vec<String>,
        /// A condition such as application,equal,shooter; may be repeated, all must hold.
        #[arg(long = "filter", value_name = "ATTRIBUTE,OP,VALUE")]
        filter: Vec<String>,
        /// How far back, in seconds.
        #[arg(long, default_value_t = 3_600)]
        last: u64,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the exact bytes of a sealed window as a metric store gets them.
    Preview {
        #[command(flatten)]
        server: Server,
        project: String,
        store: String,
        /// The window's start in Unix seconds; by default the newest sealed one.
        #[arg(long)]
        window: Option<u64>,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try a metric store for real: the vendor's own check, or one point; exit code 1 when it is not taken.
    Test {
        #[command(flatten)]
        server: Server,
        project: String,
        store: String,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what to paste on a metric store's side: configuration, queries, a panel, checks, an alert.
    Snippets {
        #[command(flatten)]
        server: Server,
        project: String,
        store: String,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what a configuration file would change; exit code 2 when something.
    Plan {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        file: command::File,
    },
    /// Apply a configuration file: all of it, or nothing.
    Apply {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        file: command::File,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Print the configuration as a file; secrets become the names of environment variables.
    Export {
        #[command(flatten)]
        server: Server,
        /// Only this project.
        #[arg(long)]
        project: Option<String>,
    },
    /// Print the JSON Schema of configuration files.
    Schema,
    /// Check every identity of the ledger over the whole history; exit code 1 when one does not hold.
    Audit(ledger::Audit),
    /// Show which reports make a point of a metric.
    Explain(ledger::Explain),
    /// Fill a store from stored reports for a span before it, or a metric of it, began; or show or cancel that.
    Backfill(ledger::Backfill),
    /// Copy a data folder, whether a server uses it or not.
    Backup(backup::Backup),
    /// Make a new data folder from a backup.
    Restore(backup::Restore),
    /// Make a token: submit (needs --project), query, edit or admin.
    Token {
        #[command(flatten)]
        server: Server,
        scope: String,
        /// The project it is bound to.
        #[arg(long)]
        project: Option<String>,
    },
}

#[derive(Parser)]
struct Serve {
    /// Folder for everything that is kept.
    #[arg(long, env = "CRASHMETER_DATA")]
    data: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:6098", env = "CRASHMETER_LISTEN")]
    listen: String,
    /// The URL under which people and SDKs reach this server.
    #[arg(long, env = "CRASHMETER_PUBLIC_URL", value_parser = http_url)]
    public_url: Option<Url>,
    /// Private network that metric stores may be in, such as 10.1.0.0/16; may be repeated.
    #[arg(long, value_name = "CIDR")]
    allow_egress: Vec<IpNet>,
    /// Name of the universe in submission URLs.
    #[arg(long, default_value = "main", value_parser = universe)]
    universe: String,
    /// Memory for columns of reports, such as 512M or 4G; by default a quarter of the machine's.
    #[arg(long, env = "CRASHMETER_MEMORY", value_parser = memory::size)]
    memory: Option<u64>,
    /// Give up reports older than this many days.
    #[arg(long, value_name = "DAYS", env = "CRASHMETER_RETAIN_DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    retain_days: Option<u64>,
    /// Give up the oldest reports when they take more room on the disk, such as 200G.
    #[arg(long, value_name = "SIZE", env = "CRASHMETER_RETAIN_SIZE", value_parser = memory::size)]
    retain_size: Option<u64>,
    /// Refuse reports when less than this is free on the disk, so that all else goes on; 0 never does. By default 3 % of it, from 1 GiB to 16 GiB.
    #[arg(long, value_name = "SIZE", env = "CRASHMETER_DISK_RESERVE", value_parser = memory::size_or_none)]
    disk_reserve: Option<u64>,
    /// Most reports a second of one submission token, with bursts of ten seconds' worth; above it they are refused with 429.
    #[arg(long, value_name = "REPORTS", env = "CRASHMETER_RATE", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Make a project with metrics and a Prometheus store, and submit realistic reports.
    #[arg(long)]
    demo: bool,
    /// Log as JSON lines even on a terminal.
    #[arg(long)]
    log_json: bool,
    /// What to log, such as info or warn,export=debug.
    #[arg(long, env = "CRASHMETER_LOG")]
    log: Option<String>,
}

/// A running server and how to be let in.
#[derive(Parser)]
pub(crate) struct Server {
    /// The running server.
    #[arg(long, env = "CRASHMETER_URL", default_value = "http://127.0.0.1:6098", value_parser = http_url)]
    url: Url,
    /// A token; by default the one in admin.token of the data folder.
    #[arg(long, env = "CRASHMETER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The server's data folder, to read admin.token from.
    #[arg(long, env = "CRASHMETER_DATA", default_value = "crashmeter-data")]
    data: PathBuf,
}

/// An address that others can be given: `crash.example.com:6098` would be read as a scheme.
fn http_url(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && url.query().is_none());
    url.ok_or_else(|| format!("must be a whole address such as http://{}", text.split("://").last().unwrap_or("crashes.example.com")))
}

/// A piece of every submission URL.
fn universe(text: &str) -> Result<String, String> {
    let legal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if legal { Ok(text.to_owned()) } else { Err("must be letters, digits, - and _".to_owned()) }
}

pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One provider for every TLS connection of the process; a second call only says that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => fail(error.as_ref()),
    }
}

/// The whole chain of causes on one line.
fn fail(error: &dyn Error) -> ExitCode {
    let mut line = format!("crashmeter: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        line += &format!(": {cause}");
        source = cause.source();
    }
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::FAILURE
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(options) => serve(options).await,
        Command::Submit { to, file } => submit(to, file).await,
        Command::Query { server, project, group, fold, filter, last, json } => {
            let body = with_span(json!({"query": query_of(&group, &fold, &filter)?}), last)?;
            let answer = server.ask(Method::POST, &["projects", &project, "query"], Some(body)).await?;
            for warning in answer["warnings"].as_array().into_iter().flatten() {
                let _ = writeln!(std::io::stderr(), "warning: {}", plain(warning.as_str().unwrap_or_default()));
            }
            if json { say(&serde_json::to_string_pretty(&answer)?) } else { say(&table(&answer, group.len())) }
        }
        Command::Preview { server, project, store, window, json } => {
            let (path, window) = (["projects", &project, "metric-stores", &store, "preview"], window.map(|window| window.to_string()));
            let query: Vec<_> = window.as_deref().map(|window| ("window", window)).into_iter().collect();
            let (status, answer) = server.send(Method::GET, &path, &query, None, None).await?;
            if !status.is_success() {
                return Err(server.refusal(status, &answer));
            }
            if json { say(&serde_json::to_string_pretty(&answer)?) } else { say(&preview(&answer)) }
        }
        Command::Test { server, project, store, json } => {
            let answer = server.ask(Method::POST, &["projects", &project, "metric-stores", &store, "test"], None).await?;
            if json {
                say(&serde_json::to_string_pretty(&answer)?)?
            } else {
                say(&tried(&answer))?
            };
            let taken = matches!(answer["outcome"].as_str(), Some("confirmed" | "sent" | "read"));
            Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Snippets { server, project, store, json } => {
            let answer = server.ask(Method::GET, &["projects", &project, "metric-stores", &store, "snippets"], None).await?;
            if json { say(&serde_json::to_string_pretty(&answer)?) } else { say(&snippets(&answer)) }
        }
        Command::Plan { server, file } => command::plan(&server, &file).await,
        Command::Apply { server, file, yes } => command::apply(&server, &file, yes).await,
        Command::Export { server, project } => command::export(&server, project.as_deref()).await,
        Command::Schema => command::print_schema(),
        Command::Audit(audit) => audit.run().await,
        Command::Explain(explain) => explain.run().await,
        Command::Backfill(backfill) => backfill.run().await,
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Token { server, scope, project } => {
            let answer = server.ask(Method::POST, &["tokens"], Some(json!({"scope": scope, "project": project}))).await?;
            say(answer["token"].as_str().unwrap_or_default())
        }
    }
}

/// Prints a text on standard output.
pub(crate) fn say(text: &str) -> Outcome {
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// A test of a store for reading: what became of it, what was sent and what came back.
fn tried(answer: &Json) -> String {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!("{}: {}\n", text(&answer["outcome"]), text(&answer["detail"]));
    let request = &answer["request"];
    if request.is_object() {
        out += &format!("\n{}\n", text(&request["request"]));
        request["headers"].as_array().into_iter().flatten().for_each(|header| out += &format!("{}\n", text(header)));
        let body = text(&request["body"]);
        if !body.is_empty() {
            out += &format!("\n{body}");
        }
    }
    if let Some(status) = answer["reply"]["status"].as_u64() {
        out += &format!("\nthe store answered {status} after {} ms\n{}", answer["took_ms"], text(&answer["reply"]["body"]));
    }
    out
}

/// Texts to paste, each below its heading.
fn snippets(answer: &Json) -> String {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let one = |snippet: &Json| format!("# {}\n\n{}\n", text(&snippet["title"]), text(&snippet["text"]));
    answer.as_array().into_iter().flatten().map(one).collect()
}

async fn serve(options: Serve) -> Outcome {
    let demo = options.demo;
    let filter = options.log.as_deref().unwrap_or(if demo { "warn" } else { "info" });
    logs::start(options.log_json || !std::io::stderr().is_terminal(), filter);
    // A demo leaves nothing behind unless it is told where to.
    let temporary =
        if demo && options.data.is_none() { Some(tempfile::Builder::new().prefix("crashmeter-demo-").tempdir()?) } else { None };
    let data = match (&options.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => PathBuf::from("crashmeter-data"),
    };
    let running = serve::start(Options {
        data,
        listen: options.listen,
        public_url: options.public_url,
        allow_egress: options.allow_egress,
        universe: options.universe,
        memory: options.memory,
        rate: options.rate,
        disk_reserve: options.disk_reserve,
        retention: Retention { secs: options.retain_days.map(|days| days * 86_400), bytes: options.retain_size },
    })
    .await?;
    say(&format!(
        "crashmeter {VERSION} listens on http://{}, reachable as {}\nadmin token: {}",
        running.address,
        running.public_url,
        running.admin_token_path.display()
    ))?;
    if let Some(password) = &running.admin_password {
        say(&format!("first user: admin, password {} (shown this once; PUT /api/v1/me/password changes it)", password.reveal()))?;
    }
    if demo {
        let (address, token_path) = (running.address, running.admin_token_path.clone());
        tokio::spawn(async move {
            if let Err(error) = demo::run(address, &token_path).await {
                fail(error.as_ref());
            }
        });
    }
    running.until_stopped().await?;
    Ok(ExitCode::SUCCESS)
}

async fn submit(to: Url, file: PathBuf) -> Outcome {
    let mut body = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut body)?
    } else {
        fs::File::open(&file)?.read_to_end(&mut body)?
    };
    let to = if body.starts_with(b"MDMP") { Url::parse(&to.as_str().replacen("/json", "/minidump", 1))? } else { to };
    let reply = client()?
        .post(to)
        .header("content-type", "application/octet-stream")
        .body(body)
        .send()
        .await
        .map_err(reqwest::Error::without_url)?;
    let (status, text) = (reply.status(), reply.text().await?);
    if !status.is_success() {
        let said: Json = serde_json::from_str(&text).unwrap_or_default();
        return Err(format!("refused ({status}): {}", said["error"]["message"].as_str().unwrap_or(&text)).into());
    }
    say(&text)
}

impl Server {
    async fn ask(&self, method: Method, path: &[&str], body: Option<Json>) -> Result<Json, Box<dyn Error>> {
        let (status, answer) = self.send(method, path, &[], body, None).await?;
        if status.is_success() { Ok(answer) } else { Err(self.refusal(status, &answer)) }
    }

    /// A refusal as an error: its first fault.
    pub(crate) fn refusal(&self, status: StatusCode, answer: &Json) -> Box<dyn Error> {
        let (field, detail) = (answer["field"].as_str().unwrap_or(""), answer["detail"].as_str().unwrap_or(""));
        if field.is_empty() { format!("{detail} ({status})") } else { format!("{field}: {detail} ({status})") }.into()
    }

    /// Asks the server; `version` becomes an `If-Match`. An answer that is not JSON becomes the detail of one.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Json>,
        version: Option<u64>,
    ) -> Result<(StatusCode, Json), Box<dyn Error>> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => {
                let path = self.data.join("admin.token");
                fs::read_to_string(&path).map_err(|error| format!("give --token, or --data of the server ({}: {error})", path.display()))?
            }
        };
        let mut url = self.url.clone();
        url.path_segments_mut().map_err(|()| "the server's URL cannot have a path")?.pop_if_empty().extend(["api", "v1"]).extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request: RequestBuilder = client()?.request(method, url).bearer_auth(token.trim());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        if let Some(version) = version {
            request = request.header("if-match", format!("\"{version}\""));
        }
        let reply = request.send().await?;
        let (status, text) = (reply.status(), reply.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or_else(|_| json!({ "detail": text }))))
    }
}

/// No proxy from the environment, no redirects: a token goes to the server that was named.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()
}

fn with_span(mut body: Json, last_secs: u64) -> Result<Json, Box<dyn Error>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    // A second ahead, so that what was sent just now is in it.
    body["to"] = json!(now + 1);
    body["from"] = json!((now + 1).saturating_sub(last_secs));
    Ok(body)
}

fn query_of(group: &[String], fold: &[String], filter: &[String]) -> Result<Json, Box<dyn Error>> {
    let mut conditions = json!({});
    for one in filter {
        let mut parts = one.splitn(3, ',');
        let (Some(attribute), Some(operator)) = (parts.next(), parts.next()) else {
            return Err(format!("--filter {one}: must be ATTRIBUTE,OP,VALUE").into());
        };
        let term = match parts.next() {
            Some(value) => json!([operator, value]),
            None => json!([operator]),
        };
        match conditions[attribute].as_array_mut() {
            Some(terms) => terms.push(term),
            None => conditions[attribute] = json!([term]),
        }
    }
    let mut folds = json!({});
    let counted = ["count:_tx".to_owned()];
    for one in if fold.is_empty() { &counted[..] } else { fold } {
        let (op, attribute) = one.split_once(':').ok_or_else(|| format!("--fold {one}: must be OP:ATTRIBUTE, such as unique:guid"))?;
        match folds[attribute].as_array_mut() {
            Some(ops) => ops.push(json!([op])),
            None => folds[attribute] = json!([[op]]),
        }
    }
    Ok(json!({"filter": [conditions], "group": group, "fold": folds}))
}

/// A table with a bar for the first aggregate when there are groups.
fn table(answer: &Json, groups: usize) -> String {
    let columns: Vec<String> = answer["columns"].as_array().into_iter().flatten().map(cell).collect();
    let rows: Vec<Vec<String>> =
        answer["rows"].as_array().into_iter().flatten().map(|row| row.as_array().into_iter().flatten().map(cell).collect()).collect();
    let width = |at: usize| rows.iter().map(|row| &row[at]).chain([&columns[at]]).map(|text| text.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let largest = rows.iter().filter_map(|row| row.get(groups)?.parse::<f64>().ok()).fold(0.0, f64::max);
    let line = |cells: &[String], bar: &str| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (text, width))| if at < groups { format!("{text:<width$}") } else { format!("{text:>width$}") })
            .collect();
        format!("{}  {bar}\n", padded.join("  "))
    };
    let mut text = line(&columns, "");
    for row in &rows {
        let share = row
            .get(groups)
            .and_then(|value| value.parse::<f64>().ok())
            .map_or(0.0, |value| if largest > 0.0 { value / largest } else { 0.0 });
        let bar = if groups > 0 { "█".repeat((share * 30.0).round() as usize) } else { String::new() };
        text += &line(row, &bar);
    }
    let counted = |count: &Json, one: &str| format!("{count} {one}{}", if *count == json!(1) { "" } else { "s" });
    text += &format!("\n{} in {}", counted(&answer["matched"], "report"), counted(&answer["groups"], "group"));
    if answer["truncated"] == json!(true) {
        text += &format!("; the first {} are shown", rows.len());
    }
    text
}

fn cell(value: &Json) -> String {
    match value {
        Json::Null => "none".to_owned(),
        // Told apart from what is missing.
        Json::String(text) if text.is_empty() || text == "none" => format!("{text:?}"),
        Json::String(text) => plain(text),
        Json::Array(counted) => counted.iter().map(|one| format!("{} {}", cell(&one[0]), one[1])).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A text that goes to a terminal: it comes from clients, so nothing in it may steer it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn preview(answer: &Json) -> String {
    let mut text = format!("window starting {}\n", answer["window_start"]);
    if let Some(body) = answer["body"].as_str() {
        return text + &format!("{} ({} bytes)\n\n{body}", answer["content_type"].as_str().unwrap_or(""), answer["bytes"]);
    }
    for request in answer["requests"].as_array().into_iter().flatten() {
        text += &format!("\n{}\n", request["request"].as_str().unwrap_or(""));
        for header in request["headers"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            text += &format!("{header}\n");
        }
        text += &format!(
            "({} points, {} bytes before compression)\n\n{}",
            request["points"],
            request["bytes"],
            request["body"].as_str().unwrap_or("")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_whole() {
        for (text, legal) in [
            ("http://a:1", true),
            ("https://a/b", true),
            ("a:1", false),
            ("a.example:6098", false),
            ("ftp://a", false),
            ("http://a?b", false),
        ] {
            assert_eq!(http_url(text).is_ok(), legal, "{text}");
        }
        assert!(universe("main-2").is_ok() && universe("a/b").is_err() && universe("").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_a_query() {
        let text = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let query = query_of(&text(&["error.type"]), &text(&["unique:guid", "max:process.age"]), &text(&["a,equal,x,y", "a,is-set"]))
            .expect("legal");
        assert_eq!(
            query,
            json!({"filter": [{"a": [["equal", "x,y"], ["is-set"]]}], "group": ["error.type"], "fold": {"guid": [["unique"]], "process.age": [["max"]]}})
        );
        assert!(model::grammar::parse(&query).is_ok());
        assert!(query_of(&[], &text(&["unique"]), &[]).is_err());
        assert!(query_of(&[], &[], &text(&["a"])).is_err());
    }

    #[test]
    fn a_table_has_a_bar_for_each_group() {
        let answer = json!({"columns": ["kind", "count"], "rows": [["a", 10], [null, 5], ["none", 2], ["", 1]], "matched": 15, "groups": 2, "truncated": false});
        assert_eq!(
            table(&answer, 1),
            "kind    count  \n\
             a          10  ██████████████████████████████\n\
             none        5  ███████████████\n\
             \"none\"      2  ██████\n\
             \"\"          1  ███\n\n\
             15 reports in 2 groups"
        );
    }
}
