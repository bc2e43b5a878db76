//! Around queries: who may ask and how a refusal reads, objects, login, configuration, `describe`.

use super::{Client, RECORDED, decode, recorded_reports};
use crate::crashmeter::Crashmeter;
use crate::http;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn faults_are_told_as_clients_know_them() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    server.project("other");
    project.submit(&json!({"uuid": "1", "attributes": {"a": 1}})).expect("an answer").expect(200);
    let made = |scope: &str, project: Option<&str>| {
        let made = server.ask("POST", "/api/v1/tokens", json!({"scope": scope, "project": project})).expect(201).json();
        made["token"].as_str().expect("a token").to_owned()
    };
    let (reader, bound) = (made("query", None), made("edit", Some("shooter")));
    let count = json!({"fold": {"_tx": [["unique"]]}}).to_string();
    let ask = |path: &str, parameters: &[(&str, &str)], header: &str, body: &str| {
        let url = http::with_query(&format!("{}{path}", server.url()), parameters);
        let headers = if header.is_empty() { vec![] } else { vec![("X-Coroner-Token", header)] };
        http::call("POST", &url, &headers, body).expect("an answer").expect(200).json()
    };
    let (here, query) = (("project", "shooter"), "/api/query");
    for (name, reply, message) in [
        ("no token", ask(query, &[here], "", &count), "invalid token"),
        ("a wrong one", ask(query, &[here, ("token", "x")], "", &count), "invalid token"),
        ("one with a line break", ask(query, &[here, ("token", "a\nb")], "", &count), "invalid token"),
        ("one that submits", ask(query, &[here, ("token", &project.token)], "", &count), "invalid token"),
        ("one that submits, in the header", ask(query, &[here], &project.token, &count), "invalid token"),
        ("another universe", ask(query, &[here, ("universe", "u")], &reader, &count), "no such universe 'u'"),
        ("another project", ask(query, &[("project", "nosuch")], &reader, &count), "no such project 'nosuch'"),
        ("a hidden project", ask(query, &[("project", "other")], &bound, &count), "no such project 'other'"),
        ("no body", ask(query, &[here], &reader, ""), "empty body"),
        ("half a body", ask(query, &[here], &reader, "{"), "the body is not JSON"),
        ("an unknown table", ask(query, &[here, ("table", "metrics")], &reader, &count), "invalid parameter 'table'"),
        ("an unknown column", ask(query, &[here], &reader, r#"{"filter":[{"b":[["is-set"]]}]}"#), "Filter column not found"),
        ("a change by a reader", ask(query, &[here], &reader, r#"{"set":{"a":2}}"#), "this needs a token of scope edit"),
        ("a fixed column", ask(query, &[here], &bound, r#"{"set":{"_tx":2}}"#), "invalid parameter 'set'"),
        ("a deletion by a reader", ask("/api/delete", &[here], &reader, r#"{"objects":["1"]}"#), "this needs a token of scope edit"),
        (
            "an issue by a reader",
            ask("/api/issue", &[here], &reader, r#"{"fingerprint":[],"state":"x"}"#),
            "this needs a token of scope edit",
        ),
        ("alerts", ask("/api/alerts/alert", &[here], &reader, "{}"), "this server has no alerts"),
    ] {
        assert!(decode::fault(&reply).starts_with(message), "{name}: {reply}");
    }
    assert_eq!(ask(query, &[here], &reader, "")["error"]["code"], 32_769);
    for (parameters, header) in
        [(vec![here, ("token", reader.as_str())], ""), (vec![here], reader.as_str()), (vec![here, ("universe", "main")], bound.as_str())]
    {
        assert_eq!(decode::aggregation(&ask(query, &parameters, header, &count), false).groups[0].count, 1);
    }
    let long = format!("{{\"select\": [\"{}\"]}}", "x".repeat(100_000));
    assert!(decode::fault(&ask(query, &[here], &reader, &long)).len() < 2_000, "a refusal quotes only so much");
    // Of a body beyond the bound the rest is not read, so the client may find the connection closed before it has the answer.
    let large = format!("{{\"x\": \"{}\"}}", "x".repeat(2 << 20));
    let url = http::with_query(&format!("{}{query}", server.url()), &[here, ("token", &reader)]);
    if let Ok(reply) = http::call("POST", &url, &[], large) {
        assert!(decode::fault(&reply.json()).starts_with("the body cannot be read"), "{}", reply.body);
    }
    assert_eq!(decode::aggregation(&ask(query, &[here], &reader, &count), false).groups[0].count, 1);
    let log = server.log();
    assert!(log.contains("invalid token"), "{log}");
    for secret in [&reader, &bound, &project.token] {
        assert!(!log.contains(secret.as_str()), "a token is in the log");
    }
}

#[test]
fn objects_are_fetched_in_every_form() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    let threads = json!({"m": {"stack": [{"funcName": "assert"}]}});
    let report = json!({"uuid": format!("{:032x}", 1), "mainThread": "m", "threads": threads, "annotations": {"deep": [1]}, "attributes": {"level": "one"}});
    project.submit(&report).expect("an answer").expect(200);
    let client = Client::of(&server, "shooter");
    let late = |name: &str, content: &str| {
        let url = client.url("/api/post", &[("object", "1"), ("attachment_name", name)]);
        http::call("POST", &url, &[], content).expect("an answer").expect(200).json()
    };
    assert_eq!(late("log.txt", "first")["attachment_id"], "1");
    late("a \"b\".html", "<script>");
    late("log.txt", "second");

    let raw = client.get("/api/get", &[("object", "1"), ("resource", "raw")]).expect(200);
    assert_eq!((raw.json(), raw.header("content-disposition")), (report.clone(), "attachment; filename=\"1.json\""));
    assert_eq!(client.get("/api/get", &[("object", "1")]).body, raw.body);
    let rxid = client.cell(json!([{"_tx": [["equal", 1]]}]), "_rxid", "head");
    let processed = client.get("/api/get", &[("object", rxid.as_str().expect("text")), ("resource", "json.gz")]).expect(200).json();
    assert_eq!((&processed["threads"], &processed["annotations"]), (&report["threads"], &report["annotations"]));
    assert_eq!((&processed["attributes"]["level"], &processed["attributes"]["_tx"]), (&json!("one"), &json!(1)));
    let text = client.get("/api/get", &[("object", "1"), ("resource", "txt.gz")]).expect(200).body;
    assert!(text.contains("#0 assert") && text.contains("level: one") && text.contains("attachment 2"), "{text}");
    let head = raw_head(&client.url("/api/get", &[("object", "1"), ("resource", "json.gz")]));
    assert!(head.contains("content-encoding: gzip"), "{head}");

    let listed = client.get("/api/list", &[("object", "1")]).expect(200).json();
    let shown = |one: &Value| json!([one["id"], one["name"], one["size"]]);
    let shown: Vec<Value> = listed["attachments"].as_array().expect("a list").iter().map(shown).collect();
    assert_eq!(json!(shown), json!([[1, "log.txt", 5], [2, "a \"b\".html", 8], [3, "log.txt", 6]]));
    assert_eq!(client.get("/api/get", &[("object", "1"), ("attachment_id", "1")]).body, "first");
    assert_eq!(client.get("/api/get", &[("object", "1"), ("attachment_name", "log.txt")]).body, "second", "the newest of a name");
    let page = client.get("/api/get", &[("object", "1"), ("attachment_id", "2"), ("attachment_inline", "1")]).expect(200);
    assert!(page.header("content-disposition").starts_with("attachment; "), "a stranger's page is never shown");
    assert_eq!((page.header("x-content-type-options"), page.body.as_str()), ("nosniff", "<script>"));
    for (more, status) in [
        (vec![("object", "63")], 404),
        (vec![("object", "x")], 404),
        (vec![("object", "1"), ("attachment_id", "9")], 404),
        (vec![("object", "1"), ("resource", "pdb")], 404),
        (vec![("object", "1"), ("project", "nosuch")], 404),
        (vec![("object", "1"), ("token", "x")], 403),
        (vec![("object", "1"), ("token", &project.token)], 403),
    ] {
        let refused = client.get("/api/get", &more);
        assert_eq!(refused.status, status, "{more:?}: {}", refused.body);
        decode::fault(&refused.json());
    }
    assert!(decode::fault(&client.get("/api/list", &[("object", "63")]).expect(200).json()).starts_with("no such object"));
}

#[test]
fn a_dump_is_fetched_as_it_was_sent() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    let url = project.submission_url.replace("/json", "/minidump");
    http::call("POST", &url, &[], "MDMP and more").expect("an answer").expect(200);
    let client = Client::of(&server, "shooter");
    let raw = client.get("/api/get", &[("object", "1"), ("resource", "raw")]).expect(200);
    assert_eq!((raw.body.as_str(), raw.header("content-disposition")), ("MDMP and more", "attachment; filename=\"1.dmp\""));
    let processed = client.get("/api/get", &[("object", "1"), ("resource", "json.gz")]).expect(200).json();
    assert_eq!(processed["attributes"]["classifiers"], "minidump");
}

/// The head of an answer as it comes over the wire, in small letters: the client library takes the compression away.
fn raw_head(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut stream = TcpStream::connect(host).expect("connects");
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).split_once("\r\n\r\n").expect("a head").0.to_lowercase()
}

#[test]
fn objects_are_changed_and_deleted() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    for n in 1..=12 {
        let level = if n == 1 { "one" } else { "two" };
        project.submit(&json!({"uuid": format!("{n:032x}"), "attributes": {"level": level}})).expect("an answer").expect(200);
    }
    let client = Client::of(&server, "shooter");
    let two = json!([{"level": [["equal", "two"]]}]);
    assert_eq!(client.cell(two.clone(), "_tx", "unique"), json!(11));
    let modify =
        |object: &str, body: Value| client.post("/api/post", &[("object", object), ("format", "json"), ("resource", "_kv")], &body);
    let changed = modify("c", json!({"level": "three", "new": 7}));
    assert_eq!((&changed["response"], &changed["object"]), (&json!("ok"), &json!("c")));
    assert_eq!(client.cell(two, "_tx", "unique"), json!(10));
    assert_eq!(client.cell(json!([{"level": [["equal", "three"]]}]), "new", "head"), json!("7"));
    for (object, body) in
        [("63", json!({"level": "x"})), ("c", json!({"_tx": 5})), ("c", json!({})), ("c", json!([])), ("x", json!({"level": "x"}))]
    {
        decode::fault(&modify(object, body));
    }
    client.query(&json!({"filter": [{"_tx": [["at-most", "0x3"]]}], "limit": 1, "set": {"level": null, "reason": "oom"}}));
    assert_eq!(client.cell(json!([{"level": [["is-not-set"]]}]), "reason", "count"), json!(3), "a change is of all that pass");
    assert_eq!(client.get("/api/get", &[("object", "1"), ("resource", "json.gz")]).json()["attributes"]["reason"], "oom");

    let delete = |body: Value| client.post("/api/delete", &[], &body);
    assert!(decode::fault(&delete(json!({"objects": ["2", "63"]}))).contains("nothing was deleted"));
    assert!(decode::fault(&delete(json!({"objects": [{"id": "1", "attachment_id": "1"}]}))).contains("attachments"));
    for wrong in [
        json!({"any": 1}),
        json!({"objects": "1"}),
        json!({"objects": ["1"], "query": {}}),
        json!({"objects": [7]}),
        json!({"objects": ["xyz"]}),
        json!({"query": []}),
    ] {
        assert!(decode::fault(&delete(wrong.clone())).starts_with("invalid parameter 'objects'"), "{wrong}");
    }
    assert_eq!(client.cell(json!([]), "_tx", "unique"), json!(12));
    let by_name = json!({"universe": "main", "project": "shooter", "objects": ["2", {"id": "c"}], "subsets": ["physical"]});
    assert_eq!(delete(by_name)["deleted"], 2);
    assert_eq!(delete(json!({"query": {"filter": [{"_tx": [["greater-than", 9]]}]}}))["deleted"], 2);
    assert_eq!(client.cell(json!([{"_deleted": [["equal", "0"]]}]), "_tx", "unique"), json!(8));
    assert_eq!(client.get("/api/get", &[("object", "2")]).status, 404);
    let left = decode::selection(&client.query(&json!({"select": ["object"]})));
    assert_eq!(left.rows.iter().map(|(tx, _)| *tx).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn morgue_can_log_in() {
    let server = Crashmeter::start();
    server.project("shooter");
    let client = Client::of(&server, "shooter");
    let login = |form: &str| {
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let reply = http::call("POST", &format!("{}/api/login", server.url()), &headers, form).expect("an answer").expect(200);
        assert_eq!(reply.header("content-type"), "application/json");
        reply.json()
    };
    let port: u64 = server.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    for one in serde_json::from_str::<Vec<Value>>(RECORDED).expect("JSON").iter().filter(|one| one["path"] == "/api/login") {
        let form = one["body"].as_str().expect("a form");
        let reply = login(&form.replace("TOKEN", &client.token));
        if one["name"] != "morgue-login-token" {
            assert!(decode::fault(&reply).starts_with("invalid credentials"), "{reply}");
            continue;
        }
        assert_eq!(reply["token"], client.token.as_str());
        assert_eq!(reply["endpoints"]["post"][0], json!({"protocol": "http", "port": port}));
        assert_eq!(reply["universes"].as_object().expect("an object").keys().collect::<Vec<_>>(), ["main"]);
        assert!(reply["uid"].is_number() && reply["user"]["uid"].is_number() && reply["universe"]["id"].is_number());
    }
    assert_eq!(decode::fault(&login("token=wrong")), "invalid token");
    // By name and password: what the token may do is what the user's role says, until the user logs out.
    let user = json!({"name": "ann", "role": "viewer", "password": "correct horse battery"});
    server.ask("POST", "/api/v1/users", user).expect(201);
    let opened = login("username=ann&password=correct+horse+battery");
    assert_eq!(opened["user"]["username"], "ann");
    let ann = Client { token: opened["token"].as_str().expect("a token").to_owned(), ..Client::of(&server, "shooter") };
    assert!(decode::aggregation(&ann.query(&json!({"fold": {"_tx": [["count"]]}})), false).groups.is_empty());
    assert!(decode::fault(&ann.query(&json!({"set": {"a": "b"}}))).contains("scope edit"));
    assert_eq!(ann.get("/api/logout", &[]).json()["response"], "ok");
    assert_eq!(decode::fault(&ann.query(&json!({}))), "invalid token");
    assert_eq!(client.get("/api/is_configured", &[]).body, "1");
    let config = client.get("/api/config", &[]).json();
    assert_eq!((&config["services"], config.get("token")), (&json!([]), None));
    assert_eq!(client.get("/api/logout", &[]).json()["response"], "ok");
}

#[test]
fn morgue_can_read_and_change_the_configuration() {
    let server = Crashmeter::start();
    server.project("shooter");
    let client = Client::of(&server, "shooter");
    let bpg = |client: &Client, actions: Value| client.post("/api/bpg", &[], &json!({ "actions": actions }))["results"].clone();
    let schema = bpg(&client, json!([{"action": "schema", "model": "configuration"}]))[0]["result"].clone();
    let types: Vec<&String> = schema.as_object().expect("an object").keys().collect();
    // `morgue` asks for everything at one time, and checks each field against the schema.
    let gets: Vec<Value> = types.iter().map(|name| json!({"action": "get", "type": format!("configuration/{name}")})).collect();
    let results = bpg(&client, json!(gets));
    for (name, result) in types.iter().zip(results.as_array().expect("a result a type")) {
        assert_eq!(result["text"], "success");
        for (field, value) in result["result"].as_array().expect("a list").iter().flat_map(|object| object.as_object().expect("an object"))
        {
            let fits = match schema[name.as_str()][field]["type"].as_str().expect(field) {
                "integer" => value.is_number() || value.is_null(),
                _ => value.is_string(),
            };
            assert!(fits, "{name}.{field}: {value}");
        }
    }
    let one = |action: Value| bpg(&client, json!([action]))[0].clone();
    let get = |kind: &str| one(json!({"action": "get", "type": format!("configuration/{kind}")}))["result"].clone();
    let project = json!({"pid": 0, "name": "second", "owner": 1, "universe": 1, "deleted": 0});
    let made = one(json!({"action": "create", "type": "configuration/project", "object": project}));
    let pid = made["result"]["pid"].clone();
    assert_eq!((&made["text"], get("project").as_array().map(Vec::len)), (&json!("success"), Some(2)));

    let token = |object: Value| one(json!({"action": "create", "type": "configuration/api_token", "object": object}));
    let reader = token(json!({"id": "0000", "project": pid, "owner": 1, "capabilities": "query:post object:get"}));
    let reader = reader["result"]["id"].as_str().expect("a token").to_owned();
    let other = Client { token: reader.clone(), project: "second", base: server.url() };
    assert_eq!(decode::aggregation(&other.query(&json!({})), false).initial, (0, 0));
    assert_eq!(bpg(&other, json!([{"action": "get", "type": "configuration/api_token"}]))[0]["result"], json!([]));
    assert_ne!(bpg(&other, json!([{"action": "create", "type": "configuration/project", "object": {"name": "x"}}]))[0]["text"], "success");
    let submits = token(json!({"id": "0000", "project": pid, "owner": 1, "capabilities": "error:post"}))["result"]["id"].clone();
    assert!(get("token").as_array().expect("a list").iter().any(|token| token["id"] == submits));
    assert!(!get("api_token").to_string().contains(&reader), "shown once only");
    assert_eq!(one(json!({"action": "delete", "type": "configuration/api_token", "key": {"id": reader}}))["text"], "success");
    assert_eq!(decode::fault(&other.query(&json!({}))), "invalid token");

    let view = json!({"id": 0, "name": "mine", "project": pid, "owner": 1, "queries": "[{}]", "payload": "{}"});
    let id = one(json!({"action": "create", "type": "configuration/query", "object": view}))["result"]["id"].clone();
    let rename = json!({"action": "modify", "type": "configuration/query", "key": {"id": id}, "fields": {"name": "ours"}});
    assert_eq!(one(rename)["text"], "success");
    assert_eq!(get("query"), json!([{"id": id, "name": "ours", "project": pid, "owner": 1, "queries": "[{}]", "payload": "{}"}]));
    assert_eq!(one(json!({"action": "delete", "type": "configuration/query", "key": {"id": id}}))["text"], "success");
    assert_eq!(get("query"), json!([]));

    let declared = json!({"project": pid, "name": "score", "type": "uint64", "format": "milliseconds", "description": "how long"});
    let admin = Client { token: client.token.clone(), project: "second", base: server.url() };
    let described = || {
        let columns = admin.post("/api/query", &[], &json!({"action": "describe"}))["describe"].clone();
        let score = columns.as_array().expect("a list").iter().find(|column| column["name"] == "score").cloned();
        score.map(|score| json!([score["type"], score["format"], score["description"], score["custom"]]))
    };
    assert_eq!(described(), None);
    assert_eq!(one(json!({"action": "create", "type": "configuration/attribute", "object": declared}))["text"], "success");
    assert_eq!((get("attribute"), described()), (json!([declared]), Some(json!(["uint64", "milliseconds", "how long", true]))));
    let key = json!({"project": pid, "name": "score"});
    let modify = |fields: Value| one(json!({"action": "modify", "type": "configuration/attribute", "key": key, "fields": fields}));
    assert_eq!(modify(json!({"format": "seconds"}))["text"], "success");
    assert_eq!(described(), Some(json!(["uint64", "seconds", "how long", true])));
    assert_ne!(modify(json!({"format": "semver"}))["text"], "success", "a format must suit the type");
    assert_eq!(one(json!({"action": "delete", "type": "configuration/attribute", "key": key}))["text"], "success");
    assert_eq!((get("attribute"), described()), (json!([]), None));
    for refused in [
        json!({"action": "delete", "type": "configuration/query", "key": {"id": id}}),
        json!({"action": "create", "type": "configuration/project", "object": {"name": "second"}}),
        json!({"action": "create", "type": "configuration/project", "object": {"name": "a/b"}}),
        json!({"action": "create", "type": "configuration/api_token", "object": {"project": pid, "capabilities": "error:post query:post"}}),
        json!({"action": "create", "type": "configuration/api_token", "object": {"project": 77, "capabilities": "error:post"}}),
        json!({"action": "create", "type": "configuration/scrubber", "object": {}}),
        json!({"action": "get", "type": "configuration/nosuch"}),
        json!({"action": "dance", "type": "configuration/project"}),
    ] {
        let outcome = one(refused.clone());
        assert!(outcome["text"].as_str().is_some_and(|text| text != "success"), "{refused}: {outcome}");
    }
}

#[test]
fn describe_offers_only_what_is_answered() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    let plain = recorded_reports(&project);
    let client = Client::of(&server, "shooter");
    let described = client.post("/api/query", &[], &json!({"action": "describe"}));
    let column = |name: &str| {
        let column = described["describe"].as_array().expect("a list").iter().find(|column| column["name"] == name);
        column.unwrap_or_else(|| panic!("{name} is not described")).clone()
    };
    for (name, kind, format, custom) in [
        ("process.age", "uint64", "seconds", false),
        ("is.beta", "bitmap", "none", true),
        ("client.ip", "uint64", "none", true),
        ("hostname", "dictionary", "hostname", false),
        ("guid", "uuid", "uuid", false),
        ("fingerprint;issues;state", "dictionary", "none", false),
    ] {
        let column = column(name);
        assert_eq!((&column["type"], &column["format"], &column["custom"]), (&json!(kind), &json!(format), &json!(custom)), "{name}");
    }
    for name in plain.rows[1].keys() {
        let column = column(name);
        assert_eq!(column["statistics"]["used"], true, "{name}");
        let folds: Vec<Value> = column["aggregate"].as_array().expect("a list").iter().map(|op| json!([op])).collect();
        decode::aggregation(&client.query(&json!({"fold": {name.as_str(): folds}})), false);
        for op in column["filter"].as_array().expect("a list") {
            decode::aggregation(&client.query(&json!({"filter": [{name.as_str(): [[op, "1"]]}]})), false);
        }
    }
    assert_eq!(column("error.message")["statistics"]["used"], true);
    assert_eq!(column("cpu.count")["statistics"]["used"], false);
    let issues = client.post("/api/query", &[("action", "describe"), ("table", "issues")], &json!({}));
    let names: Vec<&Value> = issues["describe"].as_array().expect("a list").iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["assignee", "fingerprint", "id", "last_modified", "state", "tags", "ticket"]);
}
