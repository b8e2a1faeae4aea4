//! Keys of relaying: routes, retry, time limits, resolver.

use std::net::SocketAddr;

use crate::config::names::{Host, RouteDomain, Word};
use crate::config::section::Default::{Optional, Required};
use crate::config::section::{default, section};
use crate::config::value::{FREE, Seconds, choice, within};
use crate::limits;

choice! {
    /// TLS towards a next hop.
    RouteTls {
        /// used where it is offered, whatever the certificate
        May = "may",
        /// mail waits until it is offered
        Must = "must",
        /// not used
        Never = "never",
    }
}

choice! {
    /// Whether mail of a route is thrown away.
    Discard {
        /// it is relayed
        Off = "off",
        /// it is taken, kept durably, then thrown away: a black hole, or a measure of the log
        Logged = "logged",
        /// it is taken and thrown away without being kept: for measurements only
        AtOnce = "at_once",
    }
}

section! {
    /// Where mail for some domains goes: to the hosts named, or to the domain's MX.
    "route" Many Reload pub(in crate::config) struct RouteKeys {
        /// Name in the log (`R=`); without it the first domain, or `default` for `"*"`.
        name: Option<Word> = Optional, FREE;
        /// Domains; `"*"` is every domain no other route names.
        domains: Vec<RouteDomain> = Required, FREE;
        /// Whether the hosts are looked up as the domain's MX.
        mx: bool = default("false"), FREE;
        /// Whether the mail is thrown away instead; it stands in no host's log but ours.
        discard: Discard = default("\"off\""), FREE;
        /// TLS towards the hosts.
        tls: RouteTls = default("\"may\""), FREE;
        /// Connections to one host at once, by all cores.
        connections_max: u32 = default("20"),
            within(1, limits::BACKEND_CONNECTIONS_MAX, "connections");
    }
}

section! {
    /// A host of a route.
    "route.hosts" Many Reload pub struct RouteHost {
        /// Name or address.
        host: Host = Required, FREE;
        /// TCP port.
        port: u16 = default("25"), within(1, u16::MAX as u64, "");
        /// Share of the mail among hosts of one priority.
        weight: u32 = default("1"), within(1, 1_000, "");
        /// Hosts of the lowest number are tried first, the others when those fail.
        priority: u32 = default("0"), within(0, 65_535, "");
    }
}

section! {
    /// A host for mail that has waited so long: a fallback server that keeps what the hosts of the
    /// route do not take. Hosts of one age are one tier; `ringpost queue fallback` goes there now.
    "route.fallback" Many Reload pub struct RouteFallback {
        /// Age of the mail from which on it goes there.
        after_s: Seconds = default("21600"), within(limits::WAIT_MS_MIN, 30 * limits::DAY_MS, "s");
        /// Name or address.
        host: Host = Required, FREE;
        /// TCP port.
        port: u16 = default("25"), within(1, u16::MAX as u64, "");
    }
}

section! {
    /// When mail that could not be relayed is tried again, and when it is given up.
    "retry" One Reload pub struct RetryConfig {
        /// Wait after the first failure.
        first_s: Seconds = default("300"), within(limits::WAIT_MS_MIN, limits::DAY_MS, "s");
        /// Each further wait is so much longer.
        factor: f64 = default("1.5"), within(1_000, 100_000, "");
        /// The longest wait.
        max_s: Seconds = default("7200"), within(limits::WAIT_MS_MIN, 7 * limits::DAY_MS, "s");
        /// Part of each wait that is left to chance.
        jitter: f64 = default("0.1"), within(0, 900, "");
        /// Age at which mail is returned to its sender.
        expire_s: Seconds = default("432000"),
            within(limits::WAIT_MS_MIN, 30 * limits::DAY_MS, "s");
        /// Age at which the sender is told of the delay; 0 is never.
        delay_warning_s: Seconds = default("14400"), within(0, 30 * limits::DAY_MS, "s");
    }
}

section! {
    /// How long a next hop may take (the least of RFC 5321 4.5.3.2 by default).
    "timeouts.out" One Reload pub struct TimeoutsOut {
        /// For the TCP connection.
        connect_s: Seconds = default("30"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the greeting.
        banner_s: Seconds = default("300"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the answer to EHLO or HELO.
        ehlo_s: Seconds = default("300"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the answer to STARTTLS and the handshake.
        starttls_s: Seconds = default("60"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the answer to MAIL.
        mail_s: Seconds = default("300"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the answer to RCPT.
        rcpt_s: Seconds = default("300"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the 354 after DATA.
        data_s: Seconds = default("120"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For taking a block of the message.
        block_s: Seconds = default("180"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the answer to the final dot; a shorter time makes duplicates.
        dot_s: Seconds = default("600"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the answer to RSET.
        rset_s: Seconds = default("20"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the answer to QUIT.
        quit_s: Seconds = default("5"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// A connection without work is kept so long for the next message.
        idle_s: Seconds = default("5"), within(0, limits::HOUR_MS, "s");
    }
}

section! {
    /// The DNS servers that are asked.
    "resolver" One Reload pub struct ResolverConfig {
        /// Address and port of each; without any those of `/etc/resolv.conf`.
        servers: Vec<SocketAddr> = default("[]"), FREE;
        /// For one answer.
        timeout_s: Seconds = default("2"), within(limits::WAIT_MS_MIN, 60_000, "s");
        /// Times a question is asked before the look-up fails.
        attempts: u32 = default("3"), within(1, 10, "times");
    }
}
