//! The policy as tables: what is open, what each option opens, and the texts people type.

use super::*;

fn policy(allowed: &[&str], own: &[&str]) -> EgressPolicy {
    EgressPolicy {
        allowed: allowed.iter().map(|net| net.parse().expect("a network")).collect(),
        own: own.iter().map(|at| at.parse().expect("an address")).collect(),
    }
}

fn refused(policy: &EgressPolicy, ip: &str, port: u16) -> Option<String> {
    policy.judge(ip.parse().expect("an address"), port).err().map(|refusal| refusal.to_string())
}

#[test]
fn what_is_closed_opens_only_where_it_is_listed() {
    let some = policy(&["127.0.0.0/8", "10.1.0.0/16", "fd12::/16", "100.64.0.0/10"], &[]);
    for (ip, open) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("::ffff:127.0.0.1", true),
        ("64:ff9b::a01:203", true),
        ("10.1.255.255", true),
        ("10.2.0.0", false),
        ("192.168.1.1", false),
        ("fd12::1", true),
        ("fd13::1", false),
        ("100.100.1.1", true),
        ("100.100.100.200", false),
        ("::1", false),
        ("8.8.8.8", true),
    ] {
        assert_eq!(refused(&some, ip, 80).is_none(), open, "{ip}");
    }
}

#[test]
fn listing_everything_opens_no_place_that_is_never_open() {
    let all = policy(&["0.0.0.0/0", "::/0"], &[]);
    for ip in [
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "192.0.2.1",
        "198.18.0.1",
        "240.0.0.1",
        "168.63.129.16",
        "::ffff:169.254.1.1",
        "2002:a9fe:a9fe::",
    ] {
        let text = refused(&all, ip, 80).unwrap_or_else(|| panic!("{ip} is open"));
        assert!(!text.contains("--allow-egress"), "no option mends {ip}: {text}");
    }
    assert_eq!(refused(&all, "::1", 80), None);
}

#[test]
fn ports_of_other_services_are_denied_whatever_the_address() {
    let all = policy(&["0.0.0.0/0", "::/0"], &[]);
    for (port, open) in
        [(0, false), (22, false), (25, false), (6379, false), (80, true), (443, true), (2003, true), (8086, true), (65_535, true)]
    {
        for ip in ["8.8.8.8", "127.0.0.1", "::1"] {
            assert_eq!(refused(&all, ip, port).is_none(), open, "{ip} {port}");
        }
    }
}

#[test]
fn a_refusal_names_the_mend() {
    let none = policy(&[], &[]);
    for (ip, mend) in [
        ("127.0.0.1", "127.0.0.1 is a loopback address: start with --allow-egress 127.0.0.0/8, or the part of it that you need"),
        (
            "::ffff:10.0.0.1",
            "::ffff:10.0.0.1 (that is 10.0.0.1) is a private address: start with --allow-egress 10.0.0.0/8, or the part of it that you need",
        ),
        ("169.254.169.254", "169.254.169.254 is a link-local or cloud metadata address, and nothing is ever sent there"),
    ] {
        assert_eq!(refused(&none, ip, 80).as_deref(), Some(mend));
    }
}

#[test]
fn the_server_does_not_send_to_itself() {
    let everywhere = policy(&["127.0.0.0/8", "::1/128", "10.0.0.0/8"], &["0.0.0.0:6098"]);
    let here = policy(&["127.0.0.0/8", "::1/128"], &["127.0.0.1:6098", "[::1]:7000"]);
    for (policy, ip, port, own) in [
        (&here, "127.0.0.1", 6098, true),
        (&here, "::ffff:127.0.0.1", 6098, true),
        (&here, "127.0.0.1", 6099, false),
        (&here, "::1", 6098, false),
        (&here, "::1", 7000, true),
        (&everywhere, "127.0.0.2", 6098, true),
        (&everywhere, "::1", 6098, true),
        (&everywhere, "10.0.0.1", 6098, false),
    ] {
        assert_eq!(refused(policy, ip, port).is_some(), own, "{ip} {port}");
    }
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    for (local, peer, own) in
        [("10.0.0.1", "10.0.0.1:6098", true), ("10.0.0.1", "10.0.0.2:6098", false), ("10.0.0.1", "10.0.0.1:80", false)]
    {
        assert_eq!(everywhere.is_own(local.parse().expect("an address"), at(peer)), own, "{local} {peer}");
    }
}

/// Reads the text as the server does and tells the first fault: none, one of the reader, or one of the policy.
fn fault(text: &str) -> Option<String> {
    match Url::parse(text) {
        Err(_) => Some("unreadable".to_owned()),
        Ok(url) => policy(&[], &[]).check_url(&url).into_iter().next().map(|problem| {
            assert_eq!(problem.field, "url");
            problem.detail
        }),
    }
}

#[test]
fn urls_that_are_not_for_stores_are_refused_when_saved() {
    let loopback = "a loopback address";
    let long = format!("https://{}/", ["a".repeat(50).as_str(); 6].join("."));
    for (text, part) in [
        ("http://127.1", loopback),
        ("http://2130706433", loopback),
        ("http://0x7f.1", loopback),
        ("http://0177.0.0.1", loopback),
        ("http://127.0.0.1.", loopback),
        ("http://0", "an unspecified address"),
        ("http://[::]", "an unspecified address"),
        ("http://[::1]", loopback),
        ("http://[::ffff:127.0.0.1]", loopback),
        ("http://[::127.0.0.1]", loopback),
        ("http://[64:ff9b::a9fe:a9fe]", "metadata"),
        ("http://[2002:7f00:1::]", loopback),
        ("http://[fe80::1%25eth0]", "unreadable"),
        ("http://localhost.", loopback),
        ("http://LOCALHOST", loopback),
        ("http://x.localhost", loopback),
        ("http://\u{24db}ocalhost", loopback),
        ("http://127\u{3002}0\u{3002}0\u{3002}1", loopback),
        ("http://a..b", "between dots"),
        ("http://a.b..", "between dots"),
        ("http://.", "between dots"),
        (long.as_str(), "253"),
        ("http://good@evil", "user name"),
        ("http://:secret@evil", "user name"),
        ("http://evil#@good", "fragment"),
        ("http://good%00.evil", "unreadable"),
        ("http://go od", "unreadable"),
        ("file:///etc/passwd", "https://"),
        ("gopher://evil", "https://"),
        ("ftp://evil", "https://"),
        ("unix:/run/x", "https://"),
        ("data:text/plain,x", "https://"),
        ("jar:http://evil!/", "https://"),
        ("evil", "unreadable"),
        ("http://", "unreadable"),
        ("http://good:22", "SSH"),
        ("http://good:25", "SMTP"),
        ("http://good:6379", "Redis"),
        ("http://good:0", "port 0"),
        ("http://good:65536", "unreadable"),
        ("http://good:-1", "unreadable"),
        ("http://good: 80", "unreadable"),
    ] {
        let found = fault(text).unwrap_or_else(|| panic!("{text} is let through"));
        assert!(found.contains(part), "{text}: {found}");
        assert!(!found.contains("secret"), "{found}");
    }
}

#[test]
fn what_the_parser_reads_is_what_is_checked() {
    for (text, host) in [
        ("HTTPS://Good.Example/x?y=1", "good.example"),
        ("http://good\\@evil", "good"),
        ("http:/\\evil", "evil"),
        ("ht\ntp://go\tod", "good"),
        ("http://b\u{fc}cher.example", "xn--bcher-kva.example"),
        ("http://good.example.", "good.example."),
        ("http://metadata.google.internal", "metadata.google.internal"),
        ("http://8.8.8.8:8086", "8.8.8.8"),
        ("http://[2606:4700::1111]", "[2606:4700::1111]"),
    ] {
        assert_eq!(fault(text), None, "{text}");
        assert_eq!(Url::parse(text).expect("a URL").host_str(), Some(host), "{text}");
    }
}

#[test]
fn host_fields_are_read_like_hosts_in_urls() {
    let none = policy(&[], &[]);
    for (host, port, expected) in [
        ("carbon.example", 2003, None),
        ("8.8.8.8", 2003, None),
        ("2606:4700::1111", 2003, None),
        ("[2606:4700::1111]", 2003, None),
        ("b\u{fc}cher.example", 2003, None),
        ("", 2003, Some("host")),
        (" carbon", 2003, Some("host")),
        ("car bon", 2003, Some("host")),
        ("carbon\n", 2003, Some("host")),
        ("car\tbon", 2003, Some("host")),
        ("carbon\0", 2003, Some("host")),
        ("carbon:2003", 2003, Some("host")),
        ("http://carbon", 2003, Some("host")),
        ("user@carbon", 2003, Some("host")),
        ("carbon/x", 2003, Some("host")),
        ("a..b", 2003, Some("host")),
        ("127.1", 2003, Some("host")),
        ("0x7f000001", 2003, Some("host")),
        ("::1", 2003, Some("host")),
        ("fe80::1%eth0", 2003, Some("host")),
        ("localhost", 2003, Some("host")),
        ("carbon.example", 25, Some("port")),
        ("carbon.example", 0, Some("port")),
    ] {
        let fields: Vec<String> = none.check_host(host, port).into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields.first().map(String::as_str), expected, "{host:?} {port}");
    }
}
