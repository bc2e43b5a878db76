//! What one sender may take of the server: its pace, its share of the room, and what is left of the disk. Others are served as before.

use crate::crashmeter::{Crashmeter, Project};
use crate::http::{self, Reply};
use crate::wait;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn send(project: &Project, number: u64) -> Reply {
    project.submit(&json!({"uuid": format!("{number:032x}"), "attributes": {"kind": "x"}})).expect("the server answers")
}

/// Refusals by reason as the audit counts them, for a project that ends with nothing missing.
fn refused(project: &Project, reason: &str) -> Value {
    let audit = project.ask("GET", "audit", Value::Null).expect(200).json();
    assert_eq!(audit["balances"], true, "{audit}");
    audit["intake"].as_object().expect("by project").values().next().expect("one").get("refused").expect("counted")[reason].clone()
}

#[test]
fn a_token_above_its_pace_is_told_when_to_come_back_and_no_other_is() {
    let server = Crashmeter::start_with(&["--disk-reserve", "0", "--rate", "1"]);
    let (loud, quiet) = (server.project("loud"), server.project("quiet"));
    let replies: Vec<Reply> = (0..40).map(|number| send(&loud, number)).collect();
    let taken = replies.iter().filter(|reply| reply.status == 200).count();
    assert!((10..40).contains(&taken), "{taken} of a burst of ten");
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.status, 429, "{}", reply.body);
        assert_eq!(reply.header("Retry-After"), "1");
        assert!(reply.body.contains("more reports a second"), "{}", reply.body);
    }
    assert_eq!(refused(&loud, "over_rate"), 40 - taken);
    assert_eq!(send(&quiet, 1).status, 200);
    wait::until("the pace allows one again", Duration::from_secs(10), || {
        let reply = send(&loud, 1_000);
        if reply.status == 200 { Ok(()) } else { Err(reply.body) }
    });
    let page = http::get(&format!("{}/metrics", server.url())).expect("a page").body;
    assert!(page.contains("crashmeter_submissions_refused_total{reason=\"over_rate\"}"), "{page}");
}

/// A submission that stops in the middle of its body: the server holds what has come.
fn stuck(server: &Crashmeter, project: &Project, bytes: usize) -> TcpStream {
    let address = server.url().trim_start_matches("http://").to_owned();
    let path = project.submission_url.split_once(&address).expect("a URL of this server").1.to_owned();
    let mut stream = TcpStream::connect(&address).expect("connects");
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", 60 << 20);
    stream.write_all(head.as_bytes()).expect("sent");
    // It may be refused in the middle.
    let _ = stream.write_all(&vec![b' '; bytes]);
    stream
}

#[test]
fn a_project_that_takes_its_share_of_the_room_leaves_room_for_others() {
    let server = Crashmeter::start();
    let (greedy, other) = (server.project("greedy"), server.project("other"));
    let mut held = vec![stuck(&server, &greedy, 30 << 20), stuck(&server, &greedy, 30 << 20)];
    // 120 MiB of 256 are taken: 40 more would be above what is left.
    wait::until("one more is refused", Duration::from_secs(20), || {
        let mut third = stuck(&server, &greedy, 20 << 20);
        third.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
        let mut reply = [0; 512];
        let length = third.read(&mut reply).unwrap_or(0);
        let text = String::from_utf8_lossy(&reply[..length]).into_owned();
        if text.starts_with("HTTP/1.1 429") && text.contains("retry-after: 5") {
            return Ok(());
        }
        // While bytes were still on their way one of those before may have been refused in its place: this one stands for it.
        held.push(third);
        Err(text)
    });
    assert!(refused(&greedy, "over_share").as_u64() >= Some(1));
    for number in 0..20 {
        assert_eq!(send(&other, number).status, 200);
    }
    drop(held);
    wait::until("the room is free again", Duration::from_secs(10), || {
        let large = json!({"attributes": {}, "annotations": {"a": "x".repeat(8 << 20)}});
        let reply = greedy.submit(&large).expect("the server answers");
        if reply.status == 200 { Ok(()) } else { Err(reply.body) }
    });
}

#[test]
fn reports_are_refused_while_the_disk_is_nearly_full_and_all_else_goes_on() {
    // More than any disk has.
    let mut server = Crashmeter::start_with(&["--disk-reserve", "4000000T"]);
    let project = server.project("full");
    let reply = send(&project, 1);
    assert_eq!(reply.status, 507, "{}", reply.body);
    assert!(reply.body.contains("disk is full"), "{}", reply.body);
    assert_eq!(refused(&project, "disk_full"), 1);
    // Windows are sealed, settings changed, reports read.
    project.metric("all", "count", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    let store = json!({"adapter": "prometheus", "period": 1, "sets": ["all"]});
    let first = project.store("prom", store)["first_window_start"].as_u64().expect("the first window");
    project.settle("prom", first + 1);
    assert!(server.log().contains("reports are refused"));
    server.kill();
    server.set_options(&["--disk-reserve", "1M"]);
    server.resume();
    assert_eq!(send(&project, 1).status, 200);
    assert!(server.data().join("ballast").exists());
}
