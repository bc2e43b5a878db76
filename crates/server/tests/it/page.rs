//! The web page as the binary serves it: files, headers, and sessions that a browser keeps as a cookie. What happens in the page is
//! tested in a browser (`web/e2e`).

use crate::api::raw;
use crate::crashmeter::Crashmeter;
use crate::http::{self, Reply};
use serde_json::json;

fn ask(url: &str, headers: &[(&str, &str)]) -> Reply {
    http::call("GET", url, headers, "").expect("an answer")
}

#[test]
fn every_page_has_an_address_and_every_file_a_name_of_its_content() {
    let server = Crashmeter::start();
    let base = server.url();
    let page = http::get(&base).expect("an answer").expect(200);
    let policy = page.header("content-security-policy");
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!((page.header("cache-control"), page.header("x-content-type-options")), ("no-cache", "nosniff"));
    assert!(page.header("content-type").starts_with("text/html"));
    for address in ["/login", "/p/game/explore?g=error.type", "/p/game/settings/metric-export/stores/prom", "/system", "/audit-log"] {
        assert_eq!(http::get(&format!("{base}{address}")).expect("an answer").expect(200).body, page.body, "{address}");
    }
    let files: Vec<&str> = page.body.split('"').filter(|piece| piece.starts_with("/assets/")).collect();
    assert!(files.iter().any(|file| file.ends_with(".js")) && files.iter().any(|file| file.ends_with(".css")), "{}", page.body);
    for file in files {
        let url = format!("{base}{file}");
        let plain = ask(&url, &[("Accept-Encoding", "identity")]).expect(200);
        assert_eq!(plain.header("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!((plain.header("vary"), plain.header("content-encoding")), ("Accept-Encoding", ""));
        let known = ask(&url, &[("If-None-Match", plain.header("etag"))]);
        assert_eq!(known.status, 304, "{file}");
        if file.ends_with(".svg") {
            continue; // too small to be worth packing
        }
        for encoding in ["gzip", "br"] {
            let asked = format!("HEAD {file} HTTP/1.1\nHost: page\nAccept-Encoding: {encoding}\nConnection: close\n\n");
            let (head, _) = raw(&server, &asked);
            assert!(head.contains(&format!("content-encoding: {encoding}\r\n")), "{file}: {head}");
        }
    }
    // What is no page is told as such, so that a mistyped address of the API is never taken for an answer.
    for (address, kind) in [("/assets/none.js", "text/plain"), ("/api/v1/nothing", "application/problem+json")] {
        let missing = http::get(&format!("{base}{address}")).expect("an answer").expect(404);
        assert!(missing.header("content-type").starts_with(kind) && !missing.body.contains("<html"), "{address}: {}", missing.body);
    }
}

#[test]
fn a_cookie_is_taken_from_our_own_page_only() {
    let server = Crashmeter::start();
    let base = server.url();
    server.ask("POST", "/api/v1/users", json!({"name": "eve", "role": "editor", "password": "eve's password"})).expect(201);
    let credentials = json!({"user": "eve", "password": "eve's password", "cookie": true}).to_string();
    let login = http::call("POST", &format!("{base}/api/v1/login"), &[("Content-Type", "application/json")], credentials);
    let login = login.expect("an answer").expect(200);
    assert!(login.json()["token"].is_null(), "no script may read it: {}", login.body);
    let set = login.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().expect("a pair").to_owned();
    let me = |headers: &[(&str, &str)]| {
        let all: Vec<(&str, &str)> = headers.iter().copied().chain([("Cookie", cookie.as_str())]).collect();
        http::call("GET", &format!("{base}/api/v1/me"), &all, "").expect("an answer")
    };
    let ours = ("X-Crashmeter-Page", "1");
    assert_eq!(me(&[ours]).expect(200).json()["user"], "eve");
    assert_eq!(me(&[ours, ("Origin", &base)]).status, 200);
    assert_eq!(me(&[]).status, 403, "what a form of another site can send");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", &format!("{base}.evil.example")] {
        assert_eq!(me(&[ours, ("Origin", origin)]).status, 403, "{origin}");
    }
    // A token given by hand counts before a cookie, and needs no page.
    let both = me(&[("Authorization", &server.authorization())]).expect(200).json();
    assert_eq!(both["scope"], "admin");

    let logout = http::call("POST", &format!("{base}/api/v1/logout"), &[ours, ("Cookie", &cookie)], "").expect("an answer");
    assert!(logout.status < 300 && logout.header("set-cookie").contains("Max-Age=0"), "{logout:?}");
    assert_eq!(me(&[ours]).status, 401);
}

/// No. 54 of the hostile inputs: the router and whoever authorises see the same path.
#[test]
fn tricks_with_paths_reach_neither_more_nor_less() {
    let server = Crashmeter::start();
    server.project("p");
    let authorization = server.authorization();
    let ask = |path: &str| raw(&server, &format!("GET {path} HTTP/1.1\nHost: page\nAuthorization: {authorization}\nConnection: close\n\n"));
    let (_, listed) = ask("/api/v1/tokens");
    assert!(listed.contains("submit"), "{listed}");
    for path in [
        "//api/v1/tokens",
        "/API/v1/tokens",
        "/api/v1/tokens;x",
        "/api/v1/tokens.",
        "/api/v1/tokens/",
        "/p/p/../../api/v1/tokens",
        "/p/p/%2e%2e/%2e%2e/api/v1/tokens",
        "/api/v1/%74okens/..",
        "/api\\v1\\tokens",
        "/api/v1/projects/p%2f..%2f..%2ftokens",
        "/api/v1/tokens%00",
        "/assets/../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/Cargo.toml",
    ] {
        let (head, body) = ask(path);
        assert!(!body.contains("\"scope\"") && !body.contains("root:") && !body.contains("[workspace]"), "{path}: {head}\n{body}");
    }
}
