//! Users and logins over HTTP: the first administrator, roles, sessions, guessing, and that no password is ever shown.

use crate::api::raw;
use crate::crashmeter::{Crashmeter, SETTLED};
use crate::http::{self, Reply};
use crate::wait;
use serde_json::{Value, json};
use std::thread;

/// Asks the API with some token.
fn ask(server: &Crashmeter, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    http::call(method, &format!("{}/api/v1/{path}", server.url()), &headers, body).expect("an answer")
}

fn log_in(server: &Crashmeter, user: &str, password: &str) -> Reply {
    let body = json!({"user": user, "password": password}).to_string();
    http::call("POST", &format!("{}/api/v1/login", server.url()), &[("Content-Type", "application/json")], body).expect("an answer")
}

/// A session's token.
fn token(server: &Crashmeter, user: &str, password: &str) -> String {
    log_in(server, user, password).expect(200).json()["token"].as_str().expect("a token").to_owned()
}

fn make_user(server: &Crashmeter, name: &str, role: &str) {
    server.ask("POST", "/api/v1/users", json!({"name": name, "role": role, "password": format!("{name}-password")})).expect(201);
}

/// The password that the first start has printed.
fn printed_password(server: &Crashmeter) -> String {
    let begin = "first user: admin, password ";
    wait::until("the first start prints a password", SETTLED, || if server.log().contains(begin) { Ok(()) } else { Err(server.log()) });
    let log = server.log();
    let rest = log.split_once(begin).expect("found above").1;
    rest.split_once(' ').expect("words after it").0.to_owned()
}

#[test]
fn the_first_start_prints_a_password_once() {
    let mut server = Crashmeter::start();
    let password = printed_password(&server);
    let session = log_in(&server, "admin", &password).expect(200).json();
    let token = session["token"].as_str().expect("a token").to_owned();
    assert!(token.len() == 64 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{token}");
    assert_eq!((session["user"].as_str(), session["role"].as_str()), (Some("admin"), Some("admin")));
    server.kill();
    server.resume();
    let me = ask(&server, &token, "GET", "me", &Value::Null).expect(200).json();
    assert_eq!((&me["user"], &me["expires"]), (&json!("admin"), &session["expires"]), "a session outlives a restart");
    wait::until("the second start says that it listens", SETTLED, || match server.log().matches("admin token: ").count() {
        2 => Ok(()),
        other => Err(format!("{other} starts")),
    });
    assert_eq!(server.log().matches(&password).count(), 1);
    assert_eq!(server.log().matches("first user").count(), 1);
    assert!(!server.keeps(&password) && !server.keeps(&token), "kept as hashes alone");
}

#[test]
fn a_session_may_do_what_its_users_role_may() {
    let server = Crashmeter::start();
    let project = server.project("p");
    for role in ["viewer", "editor", "admin"] {
        make_user(&server, &format!("the-{role}"), role);
    }
    let metric = json!({"query": {"fold": {"_tx": [["count"]]}}});
    let requests = [
        ("GET", "projects/p", Value::Null),
        ("PUT", "projects/p/metric-sets/s/metrics/m", metric),
        ("GET", "users", Value::Null),
        ("GET", "tokens", Value::Null),
        ("POST", "projects", json!({"name": "another"})),
    ];
    for (role, scope, expected) in [
        ("viewer", "query", [200, 403, 403, 403, 403]),
        ("editor", "edit", [200, 200, 403, 403, 403]),
        ("admin", "admin", [200, 200, 200, 200, 201]),
    ] {
        let user = format!("the-{role}");
        let token = token(&server, &user, &format!("{user}-password"));
        let statuses = requests.each_ref().map(|(method, path, body)| ask(&server, &token, method, path, body).status);
        assert_eq!(statuses, expected, "{role}");
        let me = ask(&server, &token, "GET", "me", &Value::Null).expect(200).json();
        assert_eq!(
            [&me["name"], &me["user"], &me["role"], &me["scope"], &me["project"]],
            [&json!(format!("user {user}")), &json!(user), &json!(role), &json!(scope), &Value::Null]
        );
        let submitted = http::call("POST", &format!("{}/main/{token}/json", server.url()), &[], "{}").expect("an answer").status;
        assert!((400..500).contains(&submitted), "a session's token submits nothing: {submitted}");
        ask(&server, &token, "POST", "logout", &Value::Null).expect(204);
        for (method, path) in [("GET", "me"), ("POST", "logout"), ("GET", "projects")] {
            assert_eq!(ask(&server, &token, method, path, &Value::Null).status, 401, "{role} {path}");
        }
    }
    // Tokens for programs say who they are, and have neither a session to end nor a password.
    let made = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "p"})).expect(201).json();
    let bound = made["token"].as_str().expect("a token");
    let me = ask(&server, bound, "GET", "me", &Value::Null).expect(200).json();
    assert_eq!([&me["user"], &me["scope"], &me["project"], &me["expires"]], [&Value::Null, &json!("query"), &json!("p"), &Value::Null]);
    assert_eq!(server.ask("POST", "/api/v1/logout", Value::Null).status, 403);
    assert_eq!(server.ask("PUT", "/api/v1/me/password", json!({"old": "x", "new": "a-new-password"})).status, 403);
    assert_eq!(ask(&server, &project.token, "GET", "me", &Value::Null).status, 403, "a submission token opens nothing");
}

#[test]
fn guessing_is_slowed_down_and_answered_alike() {
    let server = Crashmeter::start();
    make_user(&server, "ann", "viewer");
    let session = token(&server, "ann", "ann-password");
    let mut told = Vec::new();
    for (user, password) in [("ann", "not-it-at-all"), ("nobody", "not-it-at-all"), ("", ""), ("a\u{0}b", "x")] {
        let mut refused = log_in(&server, user, password).expect(401).json();
        refused["request_id"] = Value::Null;
        told.push(refused);
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    // All at one time, so that none waits for another's outcome: nine more are looked at.
    let statuses: Vec<u16> = thread::scope(|scope| {
        let guesses: Vec<_> = (0..20).map(|_| scope.spawn(|| log_in(&server, "Ann", "not-it-at-all").status)).collect();
        guesses.into_iter().map(|guess| guess.join().expect("an answer")).collect()
    });
    let count = |status| statuses.iter().filter(|have| **have == status).count();
    assert_eq!((count(401), count(429)), (9, 11), "{statuses:?}");
    let body = r#"{"user": "ann", "password": "ann-password"}"#;
    let request = format!(
        "POST /api/v1/login HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: {}\nConnection: close\n\n{body}",
        body.len()
    );
    let (head, _) = raw(&server, &request);
    let wait_secs = head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse::<u64>().ok());
    assert!(head.starts_with("http/1.1 429") && wait_secs.is_some_and(|secs| (1..=60).contains(&secs)), "{head}");
    // Whoever is in stays in, and others get in.
    ask(&server, &session, "GET", "me", &Value::Null).expect(200);
    log_in(&server, "admin", &printed_password(&server)).expect(200);
}

#[test]
fn administrators_make_and_change_users() {
    let server = Crashmeter::start();
    server.project("p");
    let users = |method: &str, rest: &str, body: Value| server.ask(method, &format!("/api/v1/users{rest}"), body);
    for (body, fields) in [
        (json!({"name": "Ann", "role": "viewer", "password": "long-enough"}), vec!["name"]),
        (json!({"name": "ann", "role": "query", "password": "long-enough"}), vec!["role"]),
        (json!({"name": "ann", "password": "long-enough"}), vec!["role"]),
        (json!({"name": "ann", "role": "viewer", "password": "x".repeat(1_025)}), vec!["password"]),
        (json!({"name": "", "role": "", "password": "nine-byte"}), vec!["name", "role", "password"]),
    ] {
        let refused = users("POST", "", body).expect(422).json();
        let several: Vec<&str> = refused["problems"].as_array().expect("a list").iter().filter_map(|one| one["field"].as_str()).collect();
        assert_eq!(if several.is_empty() { vec![refused["field"].as_str().expect("a field")] } else { several }, fields, "{refused}");
    }
    let made = users("POST", "", json!({"name": "ann", "role": "viewer", "password": "x".repeat(1_024)})).expect(201).json();
    assert_eq!([&made["name"], &made["role"], &made["disabled"]], [&json!("ann"), &json!("viewer"), &json!(false)]);
    assert_eq!(users("POST", "", json!({"name": "ann", "role": "admin", "password": "ten-bytes!"})).status, 409);
    let session = token(&server, "ann", &"x".repeat(1_024));
    let me = |token: &str| ask(&server, token, "GET", "me", &Value::Null);
    assert_eq!(users("PUT", "/ann", json!({"role": "editor"})).expect(200).json()["role"], "editor");
    assert_eq!(me(&session).expect(200).json()["scope"], "edit", "a role counts at once");
    for (body, field) in [(json!({"role": "root"}), "role"), (json!({"password": "short"}), "password")] {
        assert_eq!(users("PUT", "/ann", body).expect(422).json()["field"], field);
    }
    users("PUT", "/ann", json!({"password": "ten-bytes!"})).expect(200);
    assert_eq!(me(&session).status, 401, "a new password ends what the old one opened");
    let session = token(&server, "ann", "ten-bytes!");
    assert_eq!(users("PUT", "/ann", json!({"disabled": true})).expect(200).json()["disabled"], true);
    assert_eq!((me(&session).status, log_in(&server, "ann", "ten-bytes!").status), (401, 401));
    users("PUT", "/ann", json!({"disabled": false})).expect(200);
    assert_eq!(me(&session).status, 401);
    // The administrator of the first start is the last one.
    for (method, body) in [("PUT", json!({"role": "viewer"})), ("PUT", json!({"disabled": true})), ("DELETE", Value::Null)] {
        assert_eq!(users(method, "/admin", body).status, 409, "{method}");
    }
    users("PUT", "/ann", json!({"role": "admin"})).expect(200);
    users("DELETE", "/admin", Value::Null).expect(204);
    let listed = users("GET", "", Value::Null).expect(200).json();
    assert_eq!(listed.as_array().expect("a list").iter().map(|user| user["name"].clone()).collect::<Vec<_>>(), ["ann"]);
    for (method, body) in [("PUT", json!({})), ("DELETE", Value::Null)] {
        assert_eq!(users(method, "/nobody", body).status, 404, "{method}");
    }
    let made = server.ask("POST", "/api/v1/tokens", json!({"scope": "admin", "project": "p"})).expect(201).json();
    let bound = made["token"].as_str().expect("a token");
    assert_eq!(ask(&server, bound, "GET", "users", &Value::Null).status, 403, "users are not one project's");
}

#[test]
fn users_change_their_own_password_with_the_old_one() {
    let server = Crashmeter::start();
    make_user(&server, "ann", "viewer");
    let [asking, other] = [0, 0].map(|_| token(&server, "ann", "ann-password"));
    let change = |old: &str, new: &str| ask(&server, &asking, "PUT", "me/password", &json!({"old": old, "new": new}));
    assert_eq!(change("not-the-old", "a-new-password").expect(422).json()["field"], "old");
    assert_eq!(change("ann-password", "short").expect(422).json()["field"], "new");
    change("ann-password", "a-new-password").expect(204);
    let status = |token: &str| ask(&server, token, "GET", "me", &Value::Null).status;
    assert_eq!((status(&asking), status(&other)), (200, 401));
    assert_eq!([log_in(&server, "ann", "ann-password").status, log_in(&server, "ann", "a-new-password").status], [401, 200]);
}

#[test]
fn no_password_and_no_session_is_shown_or_logged() {
    let server = Crashmeter::start();
    let url = format!("{}/api/v1", server.url());
    let canary = "canary-31415926";
    server.ask("POST", "/api/v1/users", json!({"name": "ann", "role": "viewer", "password": canary})).expect(201);
    let session = token(&server, "ann", canary);
    let authorization = format!("Bearer {session}");
    let authorised = [("Content-Type", "application/json"), ("Authorization", authorization.as_str())];
    let mut answers = vec![
        log_in(&server, "ann", &format!("{canary}-not")).expect(401).body,
        ask(&server, &session, "GET", "me", &Value::Null).expect(200).body,
        server.ask("GET", "/api/v1/users", Value::Null).expect(200).body,
        server.ask("PUT", "/api/v1/users/ann", json!({"role": "editor"})).expect(200).body,
    ];
    // Bodies of a wrong form, which a careless refusal would quote.
    for body in [
        format!("\"{canary}\""),
        format!("{{\"user\": \"ann\", \"password\": [\"{canary}\"]}}"),
        "{\"user\": \"ann\", \"password\": 31415926}".to_owned(),
        format!("{{\"user\": \"ann\", \"{canary}\": 1}}"),
        format!("{{\"old\": {{\"{canary}\": 1}}, \"new\": \"{canary}\"}}"),
        format!("{{\"user\": \"ann\", \"password\": \"{canary}"),
    ] {
        for (method, path) in [("POST", "login"), ("POST", "users"), ("PUT", "users/ann"), ("PUT", "me/password")] {
            let reply = http::call(method, &format!("{url}/{path}"), &authorised, body.clone()).expect("an answer");
            assert!(matches!(reply.status, 400 | 403 | 422), "{method} {path} {body}: {}", reply.status);
            answers.push(reply.body);
        }
    }
    let log = server.log();
    assert!(log.contains("refused"), "refusals are logged: {log}");
    for text in answers.iter().chain([&log]) {
        assert!(!text.contains("31415926") && !text.contains(&session) && !text.contains("argon2"), "{text}");
    }
    assert!(!server.keeps(canary) && !server.keeps(&session));
}

#[test]
fn administrators_read_who_changed_what() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    for (name, role) in [("ann", "admin"), ("ed", "editor")] {
        make_user(&server, name, role);
    }
    let [ann, ed] = ["ann", "ed"].map(|name| token(&server, name, &format!("{name}-password")));
    let canary = "canary-27182818";
    let metric = json!({"query": {"fold": {"_tx": [["count"]]}}});
    ask(&server, &ed, "PUT", "projects/shooter/metric-sets/errors/metrics/all", &metric).expect(200);
    let store = json!({"adapter": "datadog", "period": 60, "sets": ["errors"], "site": "datadoghq.eu", "api_key": canary});
    ask(&server, &ed, "PUT", "projects/shooter/metric-stores/dog", &store).expect(200);
    let made = ask(&server, &ann, "POST", "tokens", &json!({"scope": "query", "project": "shooter"})).expect(201).json();
    let bound = made["token"].as_str().expect("a token");
    let refused = ask(&server, &ed, "PUT", "projects/shooter/metric-sets/errors/metrics/bad", &json!({"query": 1}));
    assert_eq!(refused.status, 422);

    let log = |query: &str| ask(&server, &ann, "GET", &format!("audit-log{query}"), &Value::Null);
    let whole = log("").expect(200);
    for secret in [canary, bound, &ann, &ed, &project.token, "ann-password", "argon2"] {
        assert!(!whole.body.contains(secret), "{}", whole.body);
    }
    let told = |page: &Value| -> Vec<String> {
        let entries = page["entries"].as_array().expect("a list").iter();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        entries.map(|one| ["actor", "project", "action", "subject"].map(|name| text(one, name)).join("|")).collect()
    };
    let whole = whole.json();
    let expected = [
        "user ann|shooter|create token|query",
        "user ed|shooter|put metric store|dog",
        "user ed|shooter|put metric|errors/all",
        "user ed|-|log in|ed",
        "user ann|-|log in|ann",
    ];
    assert_eq!(told(&whole)[..5], expected);
    assert!(told(&whole).iter().any(|one| one.ends_with("|shooter|create project|shooter")), "{whole}");
    assert_eq!(whole["next_before"], Value::Null);
    assert!(whole["entries"].as_array().expect("a list").windows(2).all(|two| two[0]["at"].as_u64() >= two[1]["at"].as_u64()), "{whole}");

    // Page by page, and in part.
    let (mut paged, mut before) = (Vec::new(), String::new());
    loop {
        let page = log(&format!("?limit=2{before}")).expect(200).json();
        assert!(told(&page).len() <= 2);
        paged.extend(told(&page));
        let Some(next) = page["next_before"].as_u64() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(paged, told(&whole));
    assert_eq!(told(&log("?actor=user%20ed").expect(200).json()), expected[1..4]);
    assert_eq!(told(&log("?actor=user%20ed&project=shooter").expect(200).json()), expected[1..3]);
    for (query, field) in [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("before=-1", "before")] {
        assert_eq!(log(&format!("?{query}")).expect(422).json()["field"], field, "{query}");
    }
    log("?project=none").expect(404);

    // It is of the whole server: for nobody who may see or change a part.
    assert_eq!(ask(&server, &ed, "GET", "audit-log", &Value::Null).status, 403);
    let made = server.ask("POST", "/api/v1/tokens", json!({"scope": "admin", "project": "shooter"})).expect(201).json();
    assert_eq!(ask(&server, made["token"].as_str().expect("a token"), "GET", "audit-log", &Value::Null).status, 403);
}
