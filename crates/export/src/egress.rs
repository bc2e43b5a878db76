//! Which addresses, ports and URLs a metric store may have. Pure policy: it opens nothing and resolves nothing.
//!
//! Users type store URLs, so without this a member could have the server knock at places only the server can reach. Texts are
//! checked when a store is saved; what is judged before every connect is the address that is then used.

mod address;

use address::Place;
use ipnet::IpNet;
use model::Problem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use url::{Host, Url};

/// Longest host name (RFC 1035 section 3.1, as text without the final dot).
const HOST_BYTES_MAX: usize = 253;
/// Longest part of a host name between dots (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Ports no metric store listens at, with what does. Most of these servers act on lines of text, and a metric's name or label
/// is text that a user can choose; the rest are the doors of machines and clusters. The browsers' list of bad ports
/// (fetch.spec.whatwg.org section 2.9) has the same reason.
const DENIED_PORTS: [(u16, &str); 25] = [
    (0, "nothing"),
    (21, "FTP"),
    (22, "SSH"),
    (23, "Telnet"),
    (25, "SMTP"),
    (53, "DNS"),
    (110, "POP3"),
    (111, "RPC"),
    (139, "NetBIOS"),
    (143, "IMAP"),
    (389, "LDAP"),
    (445, "SMB"),
    (465, "SMTP"),
    (587, "SMTP"),
    (636, "LDAP"),
    (2375, "Docker"),
    (2376, "Docker"),
    (2379, "etcd"),
    (3306, "MySQL"),
    (3389, "remote desktop"),
    (5432, "PostgreSQL"),
    (6379, "Redis"),
    (10250, "the Kubernetes kubelet"),
    (11211, "memcached"),
    (27017, "MongoDB"),
];

/// What the operator allows beyond the public internet, and where this server itself listens.
#[derive(Clone, Debug, Default)]
pub struct EgressPolicy {
    /// From `--allow-egress`: opens loopback, private, carrier-grade NAT and unique local addresses, and nothing else.
    pub allowed: Vec<IpNet>,
    /// The server's own listen addresses, never connected to; an unspecified one stands for every address of the machine.
    pub own: Vec<SocketAddr>,
}

/// Why nothing is sent to an address, with the mend where there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl EgressPolicy {
    /// Whether a connection to `ip` at `port` may be opened. Forms that carry an IPv4 address are judged by that address.
    ///
    /// # Errors
    /// A sentence that names the address, what it is, and the option that would open it.
    pub fn judge(&self, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        judge_port(port)?;
        self.judge_place(ip, port)
    }

    fn judge_place(&self, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        let inner = address::unwrapped(ip);
        let shown = if inner == ip { ip.to_string() } else { format!("{ip} (that is {inner})") };
        if self.own.iter().any(|own| own.port() == port && listens_at(own.ip(), inner)) {
            return Err(Refusal(format!("{shown} port {port} is this server itself")));
        }
        match address::place(inner) {
            Place::Public => Ok(()),
            Place::Closed { .. } if self.allowed.iter().any(|net| net.contains(&inner)) => Ok(()),
            Place::Closed { what, block } => {
                Err(Refusal(format!("{shown} is {what}: start with --allow-egress {block}, or the part of it that you need")))
            }
            Place::Never(what) => Err(Refusal(format!("{shown} is {what}, and nothing is ever sent there"))),
        }
    }

    /// Whether a connection that is open has come out at this server's own listener. Only a machine that connects to itself
    /// has the same address at both ends, so this finds what `judge` cannot know: the addresses of the machine.
    pub(crate) fn is_own(&self, local: IpAddr, peer: SocketAddr) -> bool {
        address::unwrapped(local) == address::unwrapped(peer.ip())
            && self.own.iter().any(|own| own.port() == peer.port() && own.ip().is_unspecified())
    }

    /// Everything wrong with a store's URL; the field is `url`. A literal address is judged at once, a name when it is used.
    pub fn check_url(&self, url: &Url) -> Vec<Problem> {
        let mut faults = Vec::new();
        if !matches!(url.scheme(), "http" | "https") {
            return vec![Problem::new("url", "must begin with https:// or http://")];
        }
        if !url.username().is_empty() || url.password().is_some() {
            faults.push("must not hold a user name or password; put them into their own fields".to_owned());
        }
        if url.fragment().is_some() {
            faults.push("must not hold a fragment; leave out # and what follows".to_owned());
        }
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) => {
                faults.extend(judge_port(port).err().map(|refusal| refusal.to_string()));
                faults.extend(self.host_fault(&host.to_owned(), port));
            }
            _ => faults.push("must name a host".to_owned()),
        }
        faults.into_iter().map(|fault| Problem::new("url", fault)).collect()
    }

    /// Everything wrong with a store's host and port; the fields are `host` and `port`.
    pub fn check_host(&self, host: &str, port: u16) -> Vec<Problem> {
        let host_fault = match read_host(host) {
            Ok(host) => self.host_fault(&host, port),
            Err(fault) => Some(fault),
        };
        let port_fault = judge_port(port).err().map(|refusal| refusal.to_string());
        [("host", host_fault), ("port", port_fault)].into_iter().filter_map(|(field, fault)| Some(Problem::new(field, fault?))).collect()
    }

    /// What is wrong with a host whatever it resolves to later. A denied port is left to `judge_port`.
    fn host_fault(&self, host: &Host, port: u16) -> Option<String> {
        let ip = match host {
            Host::Ipv4(ip) => IpAddr::V4(*ip),
            Host::Ipv6(ip) => IpAddr::V6(*ip),
            Host::Domain(name) if is_localhost(name) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Host::Domain(name) => return domain_fault(name),
        };
        self.judge_place(ip, port).err().map(|refusal| refusal.to_string())
    }
}

fn judge_port(port: u16) -> Result<(), Refusal> {
    match DENIED_PORTS.iter().find(|(denied, _)| *denied == port) {
        Some((_, service)) => Err(Refusal(format!("port {port} is where {service} listens, and no metrics are sent there"))),
        None => Ok(()),
    }
}

/// Reads a host field: a name, an IPv4 address in any spelling, or an IPv6 address with or without brackets. The same parser
/// as for URLs, so that what is checked is what is used.
///
/// # Errors
/// What is wrong with the text, to follow the field's name.
pub(crate) fn read_host(text: &str) -> Result<Host, String> {
    if let Ok(ip) = text.parse() {
        return Ok(Host::Ipv6(ip));
    }
    Host::parse(text).map_err(|_| "must be a host name or an address alone, without scheme, port or path".to_owned())
}

/// `localhost` in all its forms: RFC 6761 section 6.3 has it lead to loopback without asking anybody.
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn domain_fault(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > HOST_BYTES_MAX {
        return Some(format!("must name a host of at most {HOST_BYTES_MAX} bytes"));
    }
    let bad = name.split('.').any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX);
    bad.then(|| format!("must name a host whose parts between dots are 1 to {LABEL_BYTES_MAX} bytes long"))
}

/// Whether a listener bound to `own` is reached at `ip`, as far as addresses alone tell.
fn listens_at(own: IpAddr, ip: IpAddr) -> bool {
    let own = address::unwrapped(own);
    own == ip || (own.is_unspecified() && ip.is_loopback())
}

#[cfg(test)]
mod tests {
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
}
