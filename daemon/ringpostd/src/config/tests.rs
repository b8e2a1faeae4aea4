//! What is wrong with a config is said with its place; what is right comes out as written.

use std::collections::HashMap;
use std::path::PathBuf;

use super::section::Default as KeyDefault;
use super::*;

/// Files by path.
#[derive(Debug, Default)]
struct Named(HashMap<PathBuf, Vec<u8>>);

impl Files for Named {
    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::other("no such file"))
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

/// The least config that is good; tests put lines before, between or behind.
const GOOD: &str = "\
node.hostname = \"mx.example.org\"
spool.places = [\"spool\"]
[policy]
relay_domains = [\"example.org\"]
any_recipient = true
[[listener]]
address = \"127.0.0.1\"
tls = \"none\"
[[route]]
domains = [\"example.org\"]
hosts = [{ host = \"10.0.0.1\" }]
";

fn load(text: &str) -> Result<Loaded, Problems> {
    let files = Named(HashMap::from([
        (PathBuf::from("list"), b"ann@example.org\nbob@other.org\n".to_vec()),
        (PathBuf::from("few"), b"ann@example.org\n".to_vec()),
        (PathBuf::from("a.pem"), Vec::new()),
        (PathBuf::from("a.key"), Vec::new()),
    ]));
    Config::parse("mx.toml", text, &files)
}

/// What is said about `GOOD` with `old` replaced by `new`.
fn said(old: &str, new: &str) -> String {
    assert_eq!(GOOD.matches(old).count(), 1, "{old:?} stands once");
    load(&GOOD.replace(old, new)).unwrap_err().to_string()
}

#[test]
fn the_least_config_is_good_and_has_the_defaults() {
    let config = load(GOOD).unwrap().config;
    assert_eq!(config.node.hostname.as_str(), "mx.example.org");
    assert_eq!(config.listeners[0].socket(), "127.0.0.1:25".parse().unwrap());
    assert_eq!(config.spool.durability, Durability::Fsync);
    assert_eq!(config.timeouts_out.dot_s.us(), 600_000_000);
    assert_eq!(config.limits.connection_rate, Rate { count: 600, period_us: 60_000_000 });
    assert_eq!(config.policy.size_max.octets(), 50 << 20);
    assert_eq!(config.routes[0].name.as_str(), "example.org");
    assert_eq!(config.routes[0].connections_max, 20);
    let NextHop::Hosts(hosts) = &config.routes[0].next_hop else { panic!("hosts") };
    assert_eq!((hosts[0].port, hosts[0].weight, hosts[0].priority), (25, 1, 0));
    assert_eq!(config.recipients.look_up(b"x", b"example.org"), Standing::Known);
    assert_eq!(config.recipients.look_up(b"x", b"example.com"), Standing::Foreign);
}

#[test]
fn without_relay_domains_everything_is_foreign() {
    let text = GOOD
        .replace("relay_domains = [\"example.org\"]", "postmaster = \"me@example.org\"")
        .replace("any_recipient = true\n", "");
    let config = load(&text).unwrap().config;
    assert_eq!(config.recipients.look_up(b"x", b"example.org"), Standing::Foreign);
    assert!(config.policy.relay_networks.is_empty());
}

#[test]
fn every_default_is_within_its_own_bounds() {
    let mut written = 0;
    for section in keys::SECTIONS {
        for key in section.keys {
            written += usize::from(matches!(key.default, KeyDefault::Written(_)));
        }
    }
    // `read_default` panics on a bad one; GOOD reads all sections, but for these two.
    load(GOOD).unwrap();
    let tls = "[[tls.certificate]]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    load(&format!("{GOOD}{tls}")).unwrap();
    assert!(written > 60, "{written}");
}

/// Replace, replacement, what is said.
const VALUES: &[(&str, &str, &str)] = &[
    // Keys and sections.
    (
        "any_recipient = true",
        "any_recipient = true\nrelay_netwroks = []",
        "mx.toml:6:1: [policy] has no key `relay_netwroks`; write `relay_networks`\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\n  colour = 7",
        "mx.toml:9:3: [[listener]] has no key `colour`; write one of `address`, `port`, `tls`, \
         `tls_required`, `proxy`, `proxy_peers`, `sessions_max`\n",
    ),
    (
        "[policy]",
        "[pollicy]\n[policy]",
        "mx.toml:3:2: there is no section `pollicy`; write `policy`\n",
    ),
    (
        "[policy]",
        "[timeouts.inn]\n[policy]",
        "mx.toml:3:11: there is no section `timeouts.inn`; write `in`\n",
    ),
    (
        "[policy]",
        "[tls]\ncertificates = 1\n[policy]",
        "mx.toml:4:1: [tls] has no key `certificates`; write `certificate`\n",
    ),
    (
        "[{ host = \"10.0.0.1\" }]",
        "[{ hots = \"10.0.0.1\" }]",
        "mx.toml:11:10: [[route.hosts]] lacks `host`; write host = a host name or an IP address, \
         like `\"10.0.0.7\"`\n\
         mx.toml:11:12: [[route.hosts]] has no key `hots`; write `host`\n",
    ),
    (
        "node.hostname = \"mx.example.org\"\n",
        "",
        "mx.toml:1:1: [node] lacks `hostname`; write hostname = a host name, like \
         `\"mx1.example.org\"`, in ASCII (`xn--` form)\n",
    ),
    (
        "[policy]",
        "policy = 7\n[nothing]",
        "mx.toml:3:10: `policy` is no section; write [policy]\n\
      mx.toml:4:2: there is no section `nothing`; write one of `node`, `listener`, `tls`, \
      `policy`, `limits`, `timeouts`, `xdp`, `list`, `dnsbl`, `route`, `retry`, `resolver`, \
      `spool`, `hints`, `log`, `admin`, `metrics`, `clock`\n",
    ),
    // Kinds and bounds.
    (
        "tls = \"none\"",
        "tls = \"none\"\nport = \"smtp\"",
        "mx.toml:9:9: `port`: found a string; write a whole number\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\nport = 70000",
        "mx.toml:9:8: `port`: 70000 is out of range; write 0 to 65535\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"maybe\"",
        "mx.toml:8:8: `tls`: \"maybe\" is not known here; write \"none\" or \"starttls\" or \
         \"implicit\"\n",
    ),
    (
        "spool.places = [\"spool\"]",
        "spool = { places = [\"spool\"], segments = 3 }",
        "mx.toml:2:42: `segments`: 3 is out of range; write 4 to 65536 segments\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = true\nsize_max = \"lots\"",
        "mx.toml:6:13: `size_max`: this is no size; write a size, like `\"50 MiB\"` (KiB, MiB, \
         GiB) or a number of octets\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = true\nsize_max = 1000",
        "mx.toml:6:12: `size_max`: 1000 octets is out of range; write 64 KiB to 2 GiB\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = true\nrcpt_max = 99",
        "mx.toml:6:12: `rcpt_max`: 99 is out of range; write 100 to 10000 recipients\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = true\nrelay_networks = [\"10.0.0.1/8\", \"x\"]",
        "mx.toml:6:20: `relay_networks`: \"10.0.0.1/8\" has bits set behind its prefix; write \
         \"10.0.0.0/8\"\n\
         mx.toml:6:34: `relay_networks`: \"x\" is no network; write a network, like \
         `\"10.0.0.0/8\"` or `\"2001:db8::/32\"`\n",
    ),
    (
        "[policy]",
        "[limits]\nmessage_rate = \"5 per week\"\n[policy]",
        "mx.toml:4:17: `message_rate`: this is no rate; write a rate, like `\"60 per minute\"` \
         (second, minute, hour, day) or `\"off\"`\n",
    ),
    (
        "[policy]",
        "[timeouts.out]\ndot_s = 0\n[policy]",
        "mx.toml:4:9: `dot_s`: 0 is out of range; write 0.001 to 3600 s\n",
    ),
    (
        "[policy]",
        "[retry]\njitter = nan\n[policy]",
        "mx.toml:4:10: `jitter`: NaN is out of range; write 0 to 0.9\n",
    ),
    // TOML itself.
    (
        "any_recipient = true",
        "any_recipient = true\nany_recipient = false",
        "mx.toml:6:1: `any_recipient` is written twice; write it once; see mx.toml:5:1 (the \
         first)\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = yes",
        "mx.toml:5:17: text without quotes; write it in double quotes\n",
    ),
];

/// Replace, replacement, what is said; two places each.
const CONTRADICTIONS: &[(&str, &str, &str)] = &[
    (
        "tls = \"none\"",
        "",
        "mx.toml:6:1: `tls` is \"starttls\", but there is no certificate; write \
         [[tls.certificate]] with certificate and key, or tls = \"none\"; see mx.toml:1:1 (no \
         [[tls.certificate]])\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\ntls_required = true",
        "mx.toml:9:1: TLS is required on a listener without TLS; write tls = \"starttls\"; see \
         mx.toml:8:1 (`tls`)\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\nproxy = \"require\"",
        "mx.toml:9:1: a PROXY header is required, but nobody may send one; write proxy_peers = \
         [..] with the networks of the proxies; see mx.toml:6:1 (`proxy_peers` is empty)\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\nproxy_peers = [\"::1\"]",
        "mx.toml:9:1: there are proxies, but no PROXY header is read; write proxy = \"require\"; \
         see mx.toml:6:1 (`proxy` is \"off\")\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\nproxy = \"require\"\nproxy_peers = [\"::/0\"]",
        "mx.toml:10:1: `proxy_peers`: ::/0 lets everybody say who the client is; write the \
         networks of the proxies\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\nsessions_max = 30000",
        "mx.toml:9:1: a listener with 30000 sessions on a node with fewer; write at most 20000; \
         see mx.toml:1:18 (`sessions_max` of the node)\n",
    ),
    (
        "tls = \"none\"",
        "tls = \"none\"\n[[listener]]\naddress = \"127.0.0.1\"\ntls = \"none\"",
        "mx.toml:10:1: two listeners on 127.0.0.1:25; write another port or address; see \
         mx.toml:7:1 (the first)\n",
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1\"\ntls = \"none\"\n",
        "",
        "mx.toml:1:1: there is no [[listener]]; write [[listener]] with address and port\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = true\nrelay_networks = [\"0.0.0.0/0\"]",
        "mx.toml:6:1: `relay_networks`: 0.0.0.0/0 makes an open relay; write your own networks, \
         of /8 or narrower\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = true\nrelay_networks = [\"::ffff:0.0.0.0/96\", \"8000::/1\"]",
        "mx.toml:6:1: `relay_networks`: 0.0.0.0/0 makes an open relay; write your own networks, \
         of /8 or narrower\n\
         mx.toml:6:1: `relay_networks`: 8000::/1 makes an open relay; write your own networks, \
         of /16 or narrower\n",
    ),
    (
        "any_recipient = true",
        "any_recipient = true\nrecipients_file = \"few\"",
        "mx.toml:5:1: every recipient is taken, and a file says which; write one of both; see \
         mx.toml:6:1 (`recipients_file`)\n",
    ),
    (
        "any_recipient = true\n",
        "",
        "mx.toml:4:1: `relay_domains`: nothing says who receives mail there; write \
         recipients_file = \"..\", or any_recipient = true\n",
    ),
    (
        "any_recipient = true",
        "recipients_file = \"gone\"",
        "mx.toml:5:1: `recipients_file`: gone: no such file; write the path of a readable file\n",
    ),
    (
        "any_recipient = true",
        "recipients_file = \"list\"",
        "list:2:1: \"bob@other.org\" is in no relay domain; write its domain into \
         `relay_domains`, or remove the line\n",
    ),
    (
        "relay_domains = [\"example.org\"]",
        "relay_domains = []",
        "mx.toml:4:1: nobody receives the mail to postmaster; write relay_domains = \
         [\"your.domain\"], or postmaster = \"..\"\n",
    ),
    (
        "relay_domains = [\"example.org\"]",
        "relay_domains = [\"example.org\", \"b.org\"]\npostmaster = \"me@c.org\"",
        "mx.toml:4:1: `relay_domains`: b.org has no route; write [[route]] with domains = \
         [\"b.org\"]\n\
         mx.toml:5:1: `postmaster`: c.org has no route; write [[route]] with domains = \
         [\"c.org\"]\n",
    ),
    (
        "hosts = [{ host = \"10.0.0.1\" }]",
        "hosts = [{ host = \"127.0.0.1\" }]",
        "mx.toml:11:12: mail would come back: this is a listener of ours; write the address and \
         port of the server behind; see mx.toml:7:1 (the listener)\n",
    ),
    (
        "hosts = [{ host = \"10.0.0.1\" }]",
        "hosts = [{ host = \"10.0.0.1\" }, { host = \"10.0.0.1\" }]",
        "mx.toml:11:35: 10.0.0.1 port 25 stands twice; write it once, with a weight; see \
         mx.toml:11:12 (the first)\n",
    ),
    (
        "hosts = [{ host = \"10.0.0.1\" }]",
        "",
        "mx.toml:10:1: a route that leads nowhere; write hosts = [{ host = \"..\", port = 25 }], \
         or mx = true\n",
    ),
    (
        "hosts = [{ host = \"10.0.0.1\" }]",
        "hosts = [{ host = \"10.0.0.1\" }]\nmx = true",
        "mx.toml:12:1: a route has hosts and asks for the MX; write one of both; see \
         mx.toml:11:12 (its hosts)\n",
    ),
    (
        "hosts = [{ host = \"10.0.0.1\" }]",
        "hosts = [{ host = \"10.0.0.1\" }]\ndiscard = \"logged\"",
        "mx.toml:12:1: a route has a next hop and discards; write one of both; see mx.toml:10:1 \
         (its domains)\n",
    ),
    (
        "hosts = [{ host = \"10.0.0.1\" }]",
        "mx = true\n[[route]]\nmx = true\ndomains = [\"EXAMPLE.org\"]",
        "mx.toml:14:1: `domains`: example.org has two routes; write it in one of them; see \
         mx.toml:10:1 (the first)\n",
    ),
    (
        "[policy]",
        "[retry]\nfirst_s = 90\nmax_s = 60\nexpire_s = 30\ndelay_warning_s = 30\n[policy]",
        "mx.toml:4:1: the first wait of 90 s is longer than the longest; write at most 60; see \
         mx.toml:5:1 (`max_s`)\n\
         mx.toml:6:1: mail expires after 30 s, before its first retry; write more than 90; see \
         mx.toml:4:1 (`first_s`)\n\
         mx.toml:7:1: the warning comes after the mail has expired; write less than 30, or 0 for \
         none; see mx.toml:6:1 (`expire_s`)\n",
    ),
    (
        "spool.places = [\"spool\"]",
        "spool.places = []",
        "mx.toml:2:7: `places`: a spool without a place; write places = \
         [\"/var/spool/ringpost\"]\n",
    ),
    (
        "spool.places = [\"spool\"]",
        "spool.places = [\"a\", \"b\", \"b\"]\nspool.mirror = true",
        "mx.toml:2:7: `places`: b stands twice; write each place once\n\
         mx.toml:3:7: a mirror needs pairs of places, not 3; write two places, or mirror = false; \
         see mx.toml:2:7 (`places`)\n",
    ),
    (
        "spool.places = [\"spool\"]",
        "spool.places = [\"a\"]\nspool.lone_member = true\nspool.resume_above_percent = 10",
        "mx.toml:3:7: a lone member of no mirror; write mirror = true, or lone_member = false; \
         see mx.toml:2:16 (`mirror`)\n\
         mx.toml:4:7: mail would be taken again before it is refused; write more than 10; see \
         mx.toml:2:16 (`refuse_below_percent`)\n",
    ),
    (
        "[policy]",
        "[log]\ntotal_size = \"100 MiB\"\n[policy]",
        "mx.toml:4:1: 100 MiB is too little for files of 64 MiB; write at least four times \
         `rotate_size`; see mx.toml:3:1 (`rotate_size`)\n",
    ),
    (
        "[policy]",
        "[timeouts.in]\nsession_s = 200\n[policy]",
        "mx.toml:3:1: a command may take 300 s, longer than the session; write at most 200; see \
         mx.toml:4:1 (`session_s`)\n",
    ),
    (
        "[policy]",
        "[limits]\nconnections_max = 30000\n[policy]",
        "mx.toml:4:1: one client may open 30000 sessions, more than the node; write at most \
         20000; see mx.toml:1:18 (`sessions_max` of the node)\n",
    ),
    (
        "[policy]",
        "[admin]\nuids = [1000]\n[policy]",
        "mx.toml:4:1: user ids without a socket; write socket = \"/run/ringpost/admin\"; see \
         mx.toml:3:1 (no `socket`)\n",
    ),
    (
        "[policy]",
        "[[tls.certificate]]\ncertificate = \"a.pem\"\nkey = \"b.key\"\n\
         [[tls.certificate]]\ncertificate = \"b.pem\"\nkey = \"a.pem\"\n[policy]",
        "mx.toml:5:1: `key`: there is no file b.key; write its path, or self_signed = true to \
         have one made\n\
         mx.toml:7:1: `certificate`: there is no file b.pem; write its path, or self_signed = \
         true to have one made\n\
         mx.toml:8:1: `key`: a.pem is used twice; write a key of its own; see mx.toml:4:1 (the \
         first)\n",
    ),
];

/// Compares all rows of a table, and says all that differ.
fn check(table: &[(&str, &str, &str)]) {
    let mut wrong = String::new();
    for (old, new, message) in table {
        let said = said(old, new);
        if said != *message {
            wrong.push_str(&format!("{new}\n  expected {message}  found    {said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn wrong_keys_and_values_are_named_with_their_place() {
    check(VALUES);
}

#[test]
fn contradictions_name_both_places() {
    check(CONTRADICTIONS);
}

#[test]
fn all_problems_are_said_at_once_but_not_endlessly() {
    let lines: String = (0..70).map(|n| format!("k{n} = 1\n")).collect();
    let text = GOOD.replace("[policy]\n", &format!("[policy]\n{lines}"));
    let said = load(&text).unwrap_err().to_string();
    assert_eq!(said.lines().count(), limits::CONFIG_PROBLEMS_MAX + 1);
    assert!(said.ends_with("and 20 more\n"), "{said}");
}

#[test]
fn what_is_worth_saying_is_a_warning() {
    let text = GOOD
        .replace("any_recipient = true", "recipients_file = \"few\"")
        .replace("[policy]", "[metrics]\nlisten = \"0.0.0.0:80\"\n[policy]")
        .replace("[\"spool\"]", "[\"spool\"]\nspool.durability = \"none\"")
        .replace("= [\"example.org\"]", "= [\"example.org\", \"b.org\"]");
    let loaded = load(&text).unwrap();
    assert_eq!(loaded.config.recipients.len(), 1);
    assert_eq!(
        loaded.warnings.to_string(),
        "mx.toml:3:7: durability is \"none\": a crash of the machine loses mail answered 250\n\
         mx.toml:5:1: the metrics page on 0.0.0.0:80 tells everybody who can reach it\n\
         mx.toml:8:1: the file names nobody in b.org: only postmaster is taken\n"
    );
}

#[test]
fn a_reload_says_what_needs_a_restart() {
    let old = load(GOOD).unwrap().config;
    let same = load(&GOOD.replace("[policy]", "[log]\nsubject = true\n[policy]")).unwrap().config;
    assert!(old.needs_restart(&same).is_empty());
    let new = GOOD.replace("[\"spool\"]", "[\"other\"]\nnode.id = 2");
    assert_eq!(old.needs_restart(&load(&new).unwrap().config), ["node", "spool"]);
}

/// The top of the tree.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_example_is_good() {
    let path = tree().join("docs/examples/mx.toml");
    let loaded = Config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let config = loaded.config;
    assert_eq!(config.listeners[0].socket(), "127.0.0.1:2525".parse().unwrap());
    assert_eq!(config.retry.first_s.us(), 2_000_000);
    assert_eq!(config.recipients.look_up(b"anybody", b"example.org"), Standing::Known);
    assert_eq!(config.recipients.look_up(b"anybody", b"example.com"), Standing::Foreign);
    assert_eq!((config.spool.segments, config.spool.segment_mib), (8, 16));
    assert!(config.tls.certificates[0].self_signed);
    let kept = [&config.spool.places[0], &config.hints.file, &config.log.dir];
    assert!(kept.iter().all(|path| path.starts_with("var")));
}

#[test]
fn the_docs_are_fresh() {
    let path = tree().join("docs/config.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    if page != config_page() {
        let write = std::env::var_os("RINGPOST_WRITE_DOCS").is_some();
        if write {
            std::fs::write(&path, config_page()).unwrap();
        }
        assert!(write, "docs/config.md is stale: run this test with RINGPOST_WRITE_DOCS=1");
    }
}
