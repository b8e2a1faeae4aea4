//! Keys of receiving: listeners, TLS, policy, limits, time limits.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::names::{HostName, Mailbox};
use crate::config::network::Network;
use crate::config::section::Default::{Optional, Required};
use crate::config::section::{default, section};
use crate::config::value::{FREE, Rate, Seconds, Size, choice, within};
use crate::limits;

choice! {
    /// TLS on a listener.
    ListenerTls {
        /// no TLS
        None = "none",
        /// offered after EHLO
        Starttls = "starttls",
        /// from the first octet
        Implicit = "implicit",
    }
}

choice! {
    /// PROXY protocol on a listener.
    Proxy {
        /// the client is who connects
        Off = "off",
        /// every connection opens with a PROXY header, version 1 or 2
        Require = "require",
    }
}

section! {
    /// An address on which mail is received.
    "listener" Many Reload pub struct ListenerConfig {
        /// IP address to listen on; `"::"` takes IPv4 as well.
        address: IpAddr = Required, FREE;
        /// TCP port; 0 lets the kernel choose.
        port: u16 = default("25"), within(0, u16::MAX as u64, "");
        /// TLS on this listener.
        tls: ListenerTls = default("\"starttls\""), FREE;
        /// Whether mail is taken over TLS only; others hear 530 (not for a public MX, RFC 3207 4).
        tls_required: bool = default("false"), FREE;
        /// Whether a proxy tells who the client is.
        proxy: Proxy = default("\"off\""), FREE;
        /// Networks of the proxies; a connection from elsewhere is closed.
        proxy_peers: Vec<Network> = default("[]"), FREE;
        /// Sessions open at once on this listener; without it those of the node.
        sessions_max: Option<u32> = Optional, within(1, limits::SESSIONS_MAX, "sessions");
    }
}

impl ListenerConfig {
    /// Address and port.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

choice! {
    /// A version of TLS.
    TlsVersion {
        /// RFC 5246
        Tls12 = "1.2",
        /// RFC 8446
        Tls13 = "1.3",
    }
}

section! {
    /// TLS of the listeners.
    "tls" One Reload pub(in crate::config) struct TlsKeys {
        /// The oldest version that is spoken.
        version_min: TlsVersion = default("\"1.2\""), FREE;
    }
}

section! {
    /// A certificate with its key; a name may have two, one with an ECDSA and one with an RSA key.
    "tls.certificate" Many Reload pub struct CertificateConfig {
        /// Names it is shown for (SNI); without names it is shown to all whom no other fits.
        names: Vec<HostName> = default("[]"), FREE;
        /// Local addresses it is shown on to clients that name no host.
        local_addresses: Vec<IpAddr> = default("[]"), FREE;
        /// PEM file with the certificate, then its intermediates.
        certificate: PathBuf = Required, FREE;
        /// PEM file with the private key.
        key: PathBuf = Required, FREE;
        /// Whether both files are made at the first start, self-signed, if they are missing.
        self_signed: bool = default("false"), FREE;
    }
}

choice! {
    /// What happens to a line end that is not CRLF.
    BareNewline {
        /// the message is refused
        Refuse = "refuse",
        /// it becomes CRLF, and never ends a command or a message
        Normalise = "normalise",
    }
}

choice! {
    /// What happens to a client that speaks before the greeting.
    EarlyTalker {
        /// it hears 554
        Refuse = "refuse",
        /// it is noted in the log
        Note = "note",
    }
}

section! {
    /// Which mail is taken.
    "policy" One Reload pub struct PolicyConfig {
        /// Domains whose mail is taken from anybody.
        relay_domains: Vec<HostName> = default("[]"), FREE;
        /// File of their recipients, one a line: address, domain, or `*@domain`; `#` for comments.
        recipients_file: Option<PathBuf> = Optional, FREE;
        /// Whether every recipient of the relay domains is taken, without a file.
        any_recipient: bool = default("false"), FREE;
        /// Where mail to `postmaster` without a domain goes; without it the first relay domain's.
        postmaster: Option<Mailbox> = Optional, FREE;
        /// Networks whose hosts may send to every domain that has a route.
        relay_networks: Vec<Network> = default("[]"), FREE;
        /// The greatest message that is taken.
        size_max: Size = default("\"50 MiB\""),
            within(limits::SIZE_MIN, limits::SIZE_MAX, "octets");
        /// Recipients of one message; further ones hear 452.
        rcpt_max: u32 = default("1000"), within(limits::RCPT_MIN, limits::RCPT_MAX, "recipients");
        /// Messages of one session; further ones hear 421.
        messages_max: u32 = default("1000"), within(1, 1_000_000, "messages");
        /// Refused commands of one session, after which it hears 421 and is closed.
        errors_max: u32 = default("20"), within(1, 10_000, "commands");
        /// Commands of one session that do no work (NOOP, RSET, EHLO, VRFY), before 421.
        idle_commands_max: u32 = default("100"), within(1, 100_000, "commands");
        /// What happens to line ends that are not CRLF.
        bare_newline: BareNewline = default("\"refuse\""), FREE;
        /// What happens to clients that speak before the greeting.
        early_talker: EarlyTalker = default("\"refuse\""), FREE;
        /// How long the greeting waits for such clients.
        greet_delay_s: Seconds = default("0"), within(0, 60_000, "s");
        /// Received lines of one message; with more it is refused as a loop (RFC 5321 6.3).
        received_max: u32 = default("100"), within(10, 1_000, "lines");
    }
}

section! {
    /// What one client may do; a client is an IPv4 address or an IPv6 /64.
    "limits" One Reload pub struct LimitsConfig {
        /// Sessions of one client open at once.
        connections_max: u32 = default("50"), within(1, limits::SESSIONS_MAX, "sessions");
        /// Connections of one client.
        connection_rate: Rate = default("\"600 per minute\""), FREE;
        /// Messages of one client.
        message_rate: Rate = default("\"off\""), FREE;
        /// Recipients of one client.
        recipient_rate: Rate = default("\"off\""), FREE;
        /// Networks for which none of these limits holds.
        exempt_networks: Vec<Network> = default("[\"127.0.0.0/8\", \"::1\"]"), FREE;
    }
}

section! {
    /// How long a client may take.
    "timeouts.in" One Reload pub struct TimeoutsIn {
        /// For the PROXY header.
        proxy_s: Seconds = default("5"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For a command (RFC 5321 4.5.3.2.7: at least 300).
        command_s: Seconds = default("300"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the TLS handshake.
        starttls_s: Seconds = default("60"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// Between two blocks of a message.
        data_s: Seconds = default("180"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For an answer of our own (policy, next hop), before the client hears 451.
        answer_s: Seconds = default("30"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For taking what we sent, and for closing after QUIT or 421.
        close_s: Seconds = default("10"), within(limits::WAIT_MS_MIN, limits::HOUR_MS, "s");
        /// For the whole session; it ends with 421 after the command in progress.
        session_s: Seconds = default("3600"), within(limits::WAIT_MS_MIN, limits::DAY_MS, "s");
        /// For open sessions when the node stops; then they hear 421.
        drain_s: Seconds = default("10"), within(0, limits::HOUR_MS, "s");
    }
}
