//! Issues: joined to reports, as a table of their own, changed by both doors.

use super::plain::Plain;
use super::{Client, Dice, compare, decode, random_query, random_reports};
use crate::crashmeter::Crashmeter;
use serde_json::{Value, json};

fn fingerprint(n: u64) -> Value {
    json!(format!("{n:064x}"))
}

/// Says something about the issues of the random reports, and notes it as columns of these.
fn say(client: &Client, plain: &mut Plain) {
    let said = [
        (vec![1, 2], json!({"state": "resolved"})),
        (vec![2, 3], json!({"tags": {"action": "set", "value": "slow network"}})),
        (vec![3], json!({"assignee": "ann", "ticket": {"action": "set", "value": [{"url": "https://t.example/1"}]}})),
    ];
    for (of, mut edit) in said {
        edit["fingerprint"] = of.iter().map(|n| fingerprint(*n)).collect();
        edit["project"] = json!("shooter");
        let reply = client.post("/api/issue", &[], &edit);
        assert_eq!(reply["results"].as_array().map(Vec::len), Some(of.len()), "{reply}");
    }
    for row in &mut plain.rows {
        let n = u64::from_str_radix(row["fingerprint"].as_str().expect("text"), 16).expect("hex digits");
        let mut set = |name: &str, value: &str| row.insert(format!("fingerprint;issues;{name}"), json!(value));
        set("state", if n <= 2 { "resolved" } else { "open" });
        if n == 2 || n == 3 {
            set("tags", "slow network");
        }
        if n == 3 {
            set("assignee", "ann");
            set("ticket", "[{\"url\":\"https://t.example/1\"}]");
        }
    }
}

#[test]
fn columns_of_issues_are_joined_as_plain_code_joins_them() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    let mut dice = Dice(0xfeed);
    let mut plain = random_reports(&project, &mut dice);
    let client = Client::of(&server, "shooter");
    say(&client, &mut plain);
    let joined = ["fingerprint;issues;state", "fingerprint;issues;tags", "fingerprint;issues;assignee", "fingerprint;issues;ticket"];
    let (mut groups, mut rows) = (0, 0);
    for round in 0..250 {
        let (more_groups, more_rows) = compare(&client, &plain, &random_query(&mut dice, &joined), round);
        (groups, rows) = (groups + more_groups, rows + more_rows);
    }
    assert!(groups > 200 && rows > 200, "the requests are not all empty: {groups} {rows}");
}

#[test]
fn issues_are_a_table_that_can_be_asked_and_changed() {
    let mut server = Crashmeter::start();
    let project = server.project("shooter");
    let mut plain = random_reports(&project, &mut Dice(1));
    let client = Client::of(&server, "shooter");
    let states = |client: &Client| {
        let reply = client.query(&json!({"table": "issues", "group": ["state"], "fold": {"id": [["min"]]}}));
        let found = decode::aggregation(&reply, true);
        found.groups.into_iter().map(|group| (group.key, group.count, group.cells[0].1.clone())).collect::<Vec<_>>()
    };
    assert_eq!(states(&client), [(json!("open"), 5, json!(["1"]))]);
    say(&client, &mut plain);
    assert_eq!(states(&client), [(json!("open"), 3, json!(["3"])), (json!("resolved"), 2, json!(["1"]))]);
    // Nothing else of the rows is touched.
    let set = json!({"table": "issues", "filter": [{"tags": [["contains", "network"]]}], "set": {"state": "muted", "ticket": null}});
    assert_eq!(client.query(&set)["response"], json!({"result": "success"}));
    server.kill();
    server.resume();
    let columns = ["fingerprint", "state", "tags", "ticket", "assignee"];
    let order = json!([{"name": "fingerprint"}]);
    let select = json!({"table": "issues", "filter": [{"state": [["not-equal", "open"]]}], "select": columns, "order": order});
    let rows = decode::selection(&client.query(&select)).rows;
    let cells: Vec<[Value; 5]> = rows.iter().map(|(_, row)| columns.map(|name| row[name].clone())).collect();
    let expected = [
        [fingerprint(1), json!("resolved"), json!(null), json!(null), json!(null)],
        [fingerprint(2), json!("muted"), json!("slow network"), json!(null), json!(null)],
        [fingerprint(3), json!("muted"), json!("slow network"), json!(null), json!("ann")],
    ];
    assert_eq!(cells, expected);
    let shown = client.post("/api/issue", &[], &json!({"fingerprint": [fingerprint(3), "nosuch"]}));
    assert_eq!((&shown["results"][0]["state"], &shown["results"][0]["id"]), (&json!("muted"), &json!(3)));
    assert!(shown["results"][0]["blame_last_modified"].as_u64() > Some(0) && shown["results"][1]["error"].is_string(), "{shown}");
    let fixed = client.query(&json!({"table": "issues", "set": {"fingerprint": "x"}}));
    assert!(decode::fault(&fixed).starts_with("invalid parameter 'set'"));
    assert!(decode::fault(&client.query(&json!({"table": "issues", "select": ["hostname"]}))).starts_with("column not found"));
    assert!(decode::fault(&client.query(&json!({"set": {"fingerprint;issues;state": "open"}}))).starts_with("invalid parameter 'set'"));
}
