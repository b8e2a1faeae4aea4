//! What a commit may not do, however well the text reads: open a relay, lock the operator out.
//!
//! *Not here.* What is wrong with any config (`check`): this compares two that are good.

use std::net::IpAddr;

use super::{Config, Network};

/// Bits of a network that count as much of the Internet: narrower ones are somebody's own.
const WIDE_V4: u8 = 16;
const WIDE_V6: u8 = 32;

/// Why `new` may not follow `old`; empty: it may.
#[must_use]
pub fn lockouts(old: &Config, new: &Config) -> Vec<String> {
    let mut why = Vec::new();
    if old.admin.socket.is_some() && new.admin.socket != old.admin.socket {
        why.push("[admin] socket would change: `ringpost` could not reach the daemon".to_owned());
    }
    let fresh: Vec<&Network> = new
        .policy
        .relay_networks
        .iter()
        .filter(|network| !old.policy.relay_networks.contains(network) && !is_private(network))
        .collect();
    for (v4, wide) in [(true, WIDE_V4), (false, WIDE_V6)] {
        // Many halves are as good as a whole: what they come to counts.
        let of_kind = || fresh.iter().filter(|network| network.address().is_ipv4() == v4);
        let covered: u128 = of_kind().map(|network| 1 << (128 - u32::from(network.prefix()))).sum();
        if covered > 1 << (128 - u32::from(wide)) {
            let names: Vec<String> = of_kind().take(5).map(ToString::to_string).collect();
            let names = names.join(", ");
            why.push(format!(
                "relay_networks would open a relay to much of the Internet: {names} are more than \
                 a /{wide} together, not private, and were not there before"
            ));
        }
    }
    why
}

fn is_private(network: &Network) -> bool {
    match network.address() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Disk;

    fn config(policy: &str, admin: &str) -> Config {
        let text = format!(
            "[node]\nhostname=\"mx.example.org\"\n\
             [[listener]]\naddress=\"127.0.0.1\"\nport=2525\ntls=\"none\"\n\
             [policy]\npostmaster=\"p@example.org\"\n{policy}\
             [[route]]\ndomains=[\"example.org\"]\nmx=true\n[spool]\nplaces=[\"./spool\"]\n\
             [admin]\nsocket=\"{admin}\"\n"
        );
        Config::parse("t", &text, &Disk).unwrap().config
    }

    #[test]
    fn a_relay_is_not_opened_in_one_piece_nor_in_many() {
        let old = config("", "/run/a");
        let of = |networks: &str| {
            lockouts(&old, &config(&format!("relay_networks=[{networks}]\n"), "/run/a"))
        };
        assert!(of("\"11.0.0.0/16\"").is_empty());
        assert!(of("\"10.0.0.0/8\", \"fd00::/16\"").is_empty(), "private");
        assert!(of("\"11.0.0.0/15\"")[0].contains("open a relay"));
        assert!(of("\"11.0.0.0/16\", \"11.2.0.0/24\"")[0].contains("open a relay"));
        assert!(of("\"2001:db8::/31\"")[0].contains("open a relay"));
        let wide = config("relay_networks=[\"11.0.0.0/8\"]\n", "/run/a");
        assert!(lockouts(&wide, &wide).is_empty(), "it was there before");
    }

    #[test]
    fn the_socket_stays_where_it_is() {
        let old = config("", "/run/a");
        assert!(lockouts(&old, &config("", "/run/b"))[0].contains("could not reach"));
    }
}
