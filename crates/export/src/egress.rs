//! Which addresses, ports and URLs a metric store may have. Pure policy: it opens nothing and resolves nothing.
//!
//! Users type store URLs, so without this a member could have the server knock at places only the server can reach. Texts are
//! checked when a store is saved; what is judged before every connect is the address that is then used.

mod address;
#[cfg(test)]
mod tests;

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
