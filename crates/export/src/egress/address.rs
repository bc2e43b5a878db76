//! What an IP address stands for: a public machine, a place the operator may open, or one that is never connected to.
//!
//! Ranges are those of the IANA special-purpose registries (RFC 6890 and its updates). IPv6 forms that carry an IPv4 address
//! are unwrapped first, because the packet ends at the inner address whatever the outer one looks like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is at an address, as far as egress is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A unicast address of the public internet.
    Public,
    /// Inside the operator's own house: only with an `--allow-egress` that covers it.
    Closed {
        /// In words, with its article.
        what: &'static str,
        /// The whole range, to name in the mend.
        block: &'static str,
    },
    /// Never, whatever the operator allows; in words, with its article.
    Never(&'static str),
}

/// What stands at `ip`, which must be unwrapped.
pub(super) fn place(ip: IpAddr) -> Place {
    match ip {
        IpAddr::V4(ip) => place_v4(ip),
        IpAddr::V6(ip) => place_v6(ip),
    }
}

/// The IPv4 address inside a mapped, compatible, NAT64, 6to4 or Teredo address; any other address as it is.
pub(super) fn unwrapped(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let inner = match v6.segments() {
        // `::` and `::1` look like compatible addresses and are not.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return ip,
        // Compatible (RFC 4291 2.5.5.1), mapped (2.5.5.2), NAT64 (RFC 6052), NAT64 for local use (RFC 8215). The last prefix is
        // a /48 whose other layouts cannot be told apart; those stay wrapped and are refused as reserved.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0 | 1, 0, 0, 0, high, low] => [high, low],
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => [high, low],
        // Teredo (RFC 4380 section 4): the client's address, inverted.
        [0x2001, 0, .., high, low] => [!high, !low],
        _ => return ip,
    };
    IpAddr::V4(Ipv4Addr::from(u32::from(inner[0]) << 16 | u32::from(inner[1])))
}

fn place_v4(ip: Ipv4Addr) -> Place {
    use Place::*;
    match ip.octets() {
        // Azure's WireServer, Alibaba Cloud's and Oracle's metadata: credentials at addresses outside 169.254.0.0/16.
        [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => Never("a cloud metadata address"),
        [169, 254, ..] => Never("a link-local or cloud metadata address"),
        [10, ..] => Closed { what: "a private address", block: "10.0.0.0/8" },
        [172, 16..=31, ..] => Closed { what: "a private address", block: "172.16.0.0/12" },
        [192, 168, ..] => Closed { what: "a private address", block: "192.168.0.0/16" },
        [100, 64..=127, ..] => Closed { what: "a carrier-grade NAT address", block: "100.64.0.0/10" },
        [127, ..] => Closed { what: "a loopback address", block: "127.0.0.0/8" },
        [0, ..] => Never("an unspecified address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Never("a documentation address"),
        [198, 18 | 19, ..] => Never("a benchmarking address"),
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Never("a reserved address"),
        [224..=239, ..] => Never("a multicast address"),
        _ => Public,
    }
}

fn place_v6(ip: Ipv6Addr) -> Place {
    use Place::*;
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Never("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Closed { what: "a loopback address", block: "::1/128" },
        // Amazon keeps all instance services under fd00:ec2::/32; then Google Cloud, Oracle Cloud and Scaleway.
        [0xfd00, 0xec2, ..]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => Never("a cloud metadata address"),
        [0xfc00..=0xfdff, ..] => Closed { what: "a unique local address", block: "fc00::/7" },
        [0xfe80..=0xfebf, ..] => Never("a link-local address"),
        [0xfec0..=0xfeff, ..] => Never("a site-local address"),
        [0xff00..=0xffff, ..] => Never("a multicast address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Never("a documentation address"),
        // 2001::/23 is kept for protocols; what is public in it is not a machine that takes metrics.
        [0x2001, 0..=0x01ff, ..] => Never("a reserved address"),
        [0x2000..=0x3fff, ..] => Public,
        _ => Never("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;

    /// The registries as text, first match wins: `+` public, `?` closed, `-` never. The oracle reads this and bits, not octets.
    const REGISTRY: &str = "
        168.63.129.16/32 -  100.100.100.200/32 -  169.254.0.0/16 -  0.0.0.0/8 -  10.0.0.0/8 ?  100.64.0.0/10 ?  127.0.0.0/8 ?
        172.16.0.0/12 ?  192.168.0.0/16 ?  192.0.0.0/24 -  192.0.2.0/24 -  192.88.99.0/24 -  198.18.0.0/15 -  198.51.100.0/24 -
        203.0.113.0/24 -  224.0.0.0/4 -  240.0.0.0/4 -  0.0.0.0/0 +
        ::1/128 ?  fd00:ec2::/32 -  fd20:ce::254/128 -  fd00:c1::a9fe:a9fe/128 -  fd00:42::42/128 -  fc00::/7 ?
        2001:db8::/32 -  2001::/23 -  3fff::/20 -  2000::/3 +  ::/0 -";

    /// Prefix, its length, how far the inner address is from the right, and whether it is inverted.
    const WRAPPERS: [(&str, u32, u32, bool); 6] = [
        ("::ffff:0:0", 96, 0, false),
        ("::", 96, 0, false),
        ("64:ff9b::", 96, 0, false),
        ("64:ff9b:1::", 96, 0, false),
        ("2002::", 16, 80, false),
        ("2001::", 32, 0, true),
    ];

    fn bits(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().expect("a prefix").to_bits()
    }

    fn oracle(ip: IpAddr) -> char {
        let mut ip = ip;
        if let IpAddr::V6(v6) = ip {
            for (prefix, length, shift, inverted) in WRAPPERS {
                if v6.to_bits() >> (128 - length) == bits(prefix) >> (128 - length) && v6.to_bits() > 1 {
                    let inner = (v6.to_bits() >> shift) as u32;
                    ip = IpAddr::V4(Ipv4Addr::from_bits(if inverted { !inner } else { inner }));
                    break;
                }
            }
        }
        let words: Vec<&str> = REGISTRY.split_whitespace().collect();
        let found = words.chunks(2).find(|row| row[0].parse::<IpNet>().expect("a network").contains(&ip));
        found.and_then(|row| row[1].chars().next()).expect("the registry ends with all addresses")
    }

    fn ours(ip: IpAddr) -> char {
        match place(unwrapped(ip)) {
            Place::Public => '+',
            Place::Closed { block, .. } => {
                assert!(block.parse::<IpNet>().expect("a network").contains(&unwrapped(ip)), "{ip} is not in {block}");
                '?'
            }
            Place::Never(_) => '-',
        }
    }

    /// An address in or one beside a registered range.
    fn near(v4: bool) -> impl Strategy<Value = IpAddr> {
        let nets: Vec<IpNet> = REGISTRY.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let nets: Vec<IpNet> = nets.into_iter().filter(|net| matches!(net, IpNet::V4(_)) == v4).collect();
        (prop::sample::select(nets), any::<u128>(), 0..5u8).prop_map(|(net, random, which)| match net {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let inside = first | (random as u32 & (last - first));
                let choices = [first, last, inside, first.wrapping_sub(1), last.wrapping_add(1)];
                IpAddr::V4(Ipv4Addr::from_bits(choices[usize::from(which)]))
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let inside = first | (random & (last - first));
                let choices = [first, last, inside, first.wrapping_sub(1), last.wrapping_add(1)];
                IpAddr::V6(Ipv6Addr::from_bits(choices[usize::from(which)]))
            }
        })
    }

    fn wrapped() -> impl Strategy<Value = IpAddr> {
        let inner = prop_oneof![near(true), any::<Ipv4Addr>().prop_map(IpAddr::V4)];
        (inner, prop::sample::select(WRAPPERS.to_vec()), any::<u128>()).prop_map(|(ip, (prefix, length, shift, inverted), random)| {
            let IpAddr::V4(v4) = ip else { unreachable!("asked for IPv4") };
            let inner = if inverted { !v4.to_bits() } else { v4.to_bits() };
            let rest = random & (u128::MAX >> length) & !(u128::from(u32::MAX) << shift);
            IpAddr::V6(Ipv6Addr::from_bits(bits(prefix) | u128::from(inner) << shift | rest))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn every_address_is_where_the_registries_say(
            ip in prop_oneof![near(true), near(false), wrapped(), any::<Ipv4Addr>().prop_map(IpAddr::V4), any::<Ipv6Addr>().prop_map(IpAddr::V6)]
        ) {
            prop_assert_eq!(ours(ip), oracle(ip), "{}", ip);
        }
    }

    #[test]
    fn addresses_that_slipped_through_the_guards_of_others() {
        for (text, expected) in [
            ("127.0.0.1", '?'),
            ("0.0.0.0", '-'),
            ("::", '-'),
            ("::1", '?'),
            ("::ffff:127.0.0.1", '?'),
            ("::ffff:169.254.169.254", '-'),
            ("::ffff:10.0.0.1", '?'),
            ("::127.0.0.1", '?'),
            ("::169.254.169.254", '-'),
            ("64:ff9b::a9fe:a9fe", '-'),
            ("64:ff9b::7f00:1", '?'),
            ("64:ff9b::808:808", '+'),
            ("64:ff9b:1::7f00:1", '?'),
            ("64:ff9b:1::a9fe:a9fe", '-'),
            // Loopback in the /48 layout of RFC 6052, a public address where the /96 layout would look.
            ("64:ff9b:1:7f00:0:100:808:808", '-'),
            ("2002:7f00:1::", '?'),
            ("2002:a9fe:a9fe::1", '-'),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", '?'),
            ("2001:0:4136:e378:8000:63bf:5601:5601", '-'),
            ("fe80::1", '-'),
            ("fec0::1", '-'),
            ("fd00:ec2::254", '-'),
            ("fd12:3456::1", '?'),
            ("169.254.169.254", '-'),
            ("100.100.100.200", '-'),
            ("168.63.129.16", '-'),
            ("100.64.0.1", '?'),
            ("198.18.0.1", '-'),
            ("255.255.255.255", '-'),
            ("ff02::1", '-'),
            ("2001:db8::1", '-'),
            ("8.8.8.8", '+'),
            ("172.32.0.1", '+'),
            ("2606:4700::1111", '+'),
            ("4000::1", '-'),
        ] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!((ours(ip), oracle(ip)), (expected, expected), "{text}");
        }
    }
}
