//! `machine.toml`: what the machine is told before mail is a subject. Text in, checked values out.
//!
//! *Limits*: at most `NETWORK_ENTRIES_MAX` interfaces, addresses and routes.
//! *Failure*: [`Problem`]: line, column and what is wrong; unknown keys refuse the file.
//! *Not here*: mail (`mx.toml`, which ringpostd reads and checks).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use toml_span::de_helpers::TableHelper;
use toml_span::value::{Value, ValueInner};
use toml_span::{DeserError, ErrorKind};

use crate::limits::{NETWORK_ENTRIES_MAX, NTP_PORT, NTP_SERVERS_MAX};

/// Everything the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The kernel's host name.
    pub(crate) hostname: Option<String>,
    /// Where names are looked up, as `/etc/resolv.conf` will say.
    pub(crate) dns: Vec<IpAddr>,
    /// Where the time is asked for.
    pub(crate) ntp: Vec<SocketAddr>,
    /// Network cards, then bonds, then VLANs: in the order in which they are made.
    pub(crate) links: Vec<Link>,
    /// The serial line of the console program.
    pub(crate) console: Console,
    /// What lies below the spool.
    pub(crate) spool: Spool,
    /// Disks that may be taken for the spool although something is on them.
    pub(crate) wipe: Vec<String>,
    /// Where the health check expects the greeting.
    pub(crate) health: SocketAddr,
}

/// The serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Console {
    /// Its device below `/dev`.
    pub(crate) port: String,
    /// Bits a second.
    pub(crate) speed: u32,
    /// The line has a carrier, and who is logged in is logged out with it.
    pub(crate) carrier: bool,
    /// Seconds without a key after which somebody is logged out; 0: never. Without it, the
    /// console program's own.
    pub(crate) idle_s: Option<u32>,
    /// Seconds after the first wrong password.
    pub(crate) delay_s: Option<u32>,
}

/// What lies below the spool: nothing, for most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spool {
    /// Numbers of the partitions (`/dev/spool/<n>`) that md mirrors.
    pub(crate) md: Vec<u32>,
    /// A file system on that, or on the first partition.
    pub(crate) xfs: bool,
}

impl Default for Console {
    fn default() -> Self {
        let port = "ttyS0".to_owned();
        Self { port, speed: 115_200, carrier: false, idle_s: None, delay_s: None }
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its name from now on.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// Octets of a packet, where it is not the driver's default.
    pub(crate) mtu: Option<u32>,
    /// Its addresses with their prefix lengths.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    /// Where packets for everybody else go.
    pub(crate) gateways: Vec<IpAddr>,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A network card, found by its hardware address.
    Mac([u8; 6]),
    /// A network card, found by its place (`0000:03:00.0`).
    Pci(String),
    /// Several interfaces as one.
    Bond { members: Vec<String>, mode: BondMode },
    /// A tagged part of another.
    Vlan { parent: String, id: u16 },
}

/// How a bond uses its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BondMode {
    /// One works, the others wait.
    ActiveBackup,
    /// IEEE 802.3ad with the switch.
    Lacp,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    line: usize,
    column: usize,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine.toml:{}:{}: {}", self.line, self.column, self.what)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            links: Vec::new(),
            console: Console::default(),
            spool: Spool::default(),
            wipe: Vec::new(),
            health: SocketAddr::from(([127, 0, 0, 1], 25)),
        }
    }
}

/// Reads the file.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn parse(text: &str) -> Result<Settings, Problem> {
    let mut root = toml_span::parse(text).map_err(|error| problem(text, &error))?;
    let read = settings(&mut root);
    read.map_err(|errors| match errors.errors.first() {
        Some(error) => problem(text, error),
        None => Problem { line: 1, column: 1, what: "cannot be read".to_owned() },
    })
}

fn problem(text: &str, error: &toml_span::Error) -> Problem {
    let before = text.get(..error.span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |part| part.chars().count()) + 1;
    Problem { line, column, what: error.to_string() }
}

fn custom(value: &Value<'_>, what: impl Into<String>) -> DeserError {
    let kind = ErrorKind::Custom(what.into().into());
    DeserError::from(toml_span::Error { kind, span: value.span, line_info: None })
}

fn settings(root: &mut Value<'_>) -> Result<Settings, DeserError> {
    let mut settings = Settings::default();
    let whole = Value::with_span(ValueInner::Boolean(true), root.span);
    let mut table = TableHelper::new(root)?;
    settings.hostname = table.optional("hostname");
    if let Some((_, mut value)) = table.take("dns") {
        settings.dns = list(&mut value, |v| parsed(v, "an IP address"))?;
    }
    if let Some((_, mut value)) = table.take("ntp") {
        settings.ntp = list(&mut value, ntp)?;
        if settings.ntp.len() > NTP_SERVERS_MAX {
            return Err(custom(&value, format!("more than {NTP_SERVERS_MAX} servers")));
        }
    }
    if let Some((_, mut value)) = table.take("spool_disks") {
        settings.wipe = list(&mut value, text_of)?;
    }
    if let Some((_, mut value)) = table.take("health") {
        settings.health = parsed(&mut value, "an address with port")?;
    }
    if let Some((_, mut value)) = table.take("console") {
        settings.console = console(&mut value)?;
    }
    if let Some((_, mut value)) = table.take("spool") {
        settings.spool = spool(&mut value)?;
    }
    for (key, read) in [("link", link as fn(&mut Value<'_>) -> _), ("bond", bond), ("vlan", vlan)] {
        if let Some((_, mut value)) = table.take(key) {
            settings.links.extend(list(&mut value, read)?);
        }
    }
    table.finalize(None)?;
    check(&settings).map_err(|what| custom(&whole, what))?;
    Ok(settings)
}

/// What no single value shows.
fn check(settings: &Settings) -> Result<(), String> {
    let entries: usize =
        settings.links.iter().map(|l| 1 + l.addresses.len() + l.gateways.len()).sum();
    if entries > NETWORK_ENTRIES_MAX {
        return Err(format!("more than {NETWORK_ENTRIES_MAX} interfaces, addresses, gateways"));
    }
    if settings.links.is_empty() {
        return Err("no [[link]]: the machine would have no network".to_owned());
    }
    if settings.links.iter().all(|l| l.addresses.is_empty()) {
        return Err("no interface has an address".to_owned());
    }
    for (n, link) in settings.links.iter().enumerate() {
        let earlier = &settings.links[..n];
        let named = |name: &String| earlier.iter().any(|l| l.name == *name);
        if named(&link.name) {
            return Err(format!("two interfaces are called {}", link.name));
        }
        let needs = match &link.kind {
            Kind::Mac(_) | Kind::Pci(_) => &[][..],
            Kind::Bond { members, .. } => members,
            Kind::Vlan { parent, .. } => std::slice::from_ref(parent),
        };
        if let Some(missing) = needs.iter().find(|name| !named(name)) {
            return Err(format!("{} needs {missing}, which is not there", link.name));
        }
    }
    Ok(())
}

fn list<T>(
    value: &mut Value<'_>,
    mut read: impl FnMut(&mut Value<'_>) -> Result<T, DeserError>,
) -> Result<Vec<T>, DeserError> {
    match value.take() {
        ValueInner::Array(mut items) => items.iter_mut().map(&mut read).collect(),
        _ => Err(custom(value, "expected a list")),
    }
}

fn text_of(value: &mut Value<'_>) -> Result<String, DeserError> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(custom(value, "expected text")),
    }
}

fn parsed<T: std::str::FromStr>(value: &mut Value<'_>, wanted: &str) -> Result<T, DeserError> {
    text_of(value)?.parse().map_err(|_| custom(value, format!("expected {wanted}")))
}

fn console(value: &mut Value<'_>) -> Result<Console, DeserError> {
    let at = Value::with_span(ValueInner::Boolean(true), value.span);
    let mut table = TableHelper::new(value)?;
    let port: Option<String> = table.optional("port");
    let speed: Option<u32> = table.optional("speed");
    let carrier: Option<bool> = table.optional("carrier");
    let idle_s: Option<u32> = table.optional("idle_s");
    let delay_s: Option<u32> = table.optional("delay_s");
    table.finalize(None)?;
    if idle_s.is_some_and(|s| s > DAY_S) || delay_s.is_some_and(|s| !(1..=60).contains(&s)) {
        return Err(custom(&at, "idle_s is at most a day, delay_s 1 to 60"));
    }
    let port = port.unwrap_or_else(|| "ttyS0".to_owned());
    let sane = port.starts_with("tty") && port.chars().all(|c| c.is_ascii_alphanumeric());
    if !sane || port.len() > 16 {
        return Err(custom(&at, "port must be a terminal like \"ttyS0\""));
    }
    let speed = speed.unwrap_or(115_200);
    if !SPEEDS.contains(&speed) {
        return Err(custom(&at, format!("speed must be one of {SPEEDS:?}")));
    }
    Ok(Console { port, speed, carrier: carrier.unwrap_or_default(), idle_s, delay_s })
}

/// Seconds of a day.
const DAY_S: u32 = 86_400;

fn spool(value: &mut Value<'_>) -> Result<Spool, DeserError> {
    let at = Value::with_span(ValueInner::Boolean(true), value.span);
    let mut table = TableHelper::new(value)?;
    let xfs: Option<bool> = table.optional("xfs");
    let md: Option<Vec<u32>> = table.optional("md");
    table.finalize(None)?;
    let md = md.unwrap_or_default();
    let twice = md.iter().enumerate().any(|(n, one)| md[..n].contains(one));
    if md.len() == 1 || md.len() > MD_MAX || twice {
        return Err(custom(&at, "md takes the numbers of 2 to 8 partitions: md = [1, 2]"));
    }
    Ok(Spool { md, xfs: xfs.unwrap_or_default() })
}

/// Members of an array.
const MD_MAX: usize = 8;

/// What serial lines are used with.
pub(crate) const SPEEDS: [u32; 5] = [9_600, 19_200, 38_400, 57_600, 115_200];

fn ntp(value: &mut Value<'_>) -> Result<SocketAddr, DeserError> {
    let text = text_of(value)?;
    let port = |address: IpAddr| SocketAddr::new(address, NTP_PORT);
    let read = text.parse().or_else(|_| text.parse().map(port));
    read.map_err(|_| custom(value, "expected an IP address, with a port or without"))
}

/// The keys that every kind of interface has.
struct Common {
    name: String,
    mtu: Option<u32>,
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
}

fn common(table: &mut TableHelper<'_>, at: &Value<'_>) -> Result<Common, DeserError> {
    let name: String = table.required("name")?;
    let sane = !name.is_empty()
        && name.len() <= 15
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !sane || name == "lo" || name == "all" || name == "default" {
        return Err(custom(at, format!("{name:?} is no name for an interface")));
    }
    let mtu: Option<u32> = table.optional("mtu");
    if mtu.is_some_and(|mtu| !(1280..=65_535).contains(&mtu)) {
        return Err(custom(at, "mtu must be 1280 to 65535"));
    }
    let mut addresses = Vec::new();
    if let Some((_, mut value)) = table.take("addresses") {
        addresses = list(&mut value, network)?;
    }
    let mut gateways = Vec::new();
    if let Some((_, mut value)) = table.take("gateways") {
        gateways = list(&mut value, |v| parsed(v, "an IP address"))?;
    }
    Ok(Common { name, mtu, addresses, gateways })
}

fn network(value: &mut Value<'_>) -> Result<(IpAddr, u8), DeserError> {
    let text = text_of(value)?;
    let read = || {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some((address, length))
    };
    read().ok_or_else(|| custom(value, "expected an address like \"192.0.2.1/24\""))
}

fn made(common: Common, kind: Kind) -> Link {
    let Common { name, mtu, addresses, gateways } = common;
    Link { name, kind, mtu, addresses, gateways }
}

fn link(value: &mut Value<'_>) -> Result<Link, DeserError> {
    let at = Value::with_span(ValueInner::Boolean(true), value.span);
    let mut table = TableHelper::new(value)?;
    let shared = common(&mut table, &at)?;
    let mac: Option<String> = table.optional("mac");
    let pci: Option<String> = table.optional("pci");
    table.finalize(None)?;
    let kind = match (mac, pci) {
        (Some(mac), None) => Kind::Mac(
            mac_of(&mac)
                .ok_or_else(|| custom(&at, "mac must be an address like \"52:54:00:12:34:56\""))?,
        ),
        (None, Some(pci)) if is_pci(&pci) => Kind::Pci(pci),
        (None, Some(_)) => return Err(custom(&at, "pci must be a place like \"0000:03:00.0\"")),
        _ => return Err(custom(&at, "a link is named by either mac or pci")),
    };
    Ok(made(shared, kind))
}

/// A hardware address as text.
pub(crate) fn mac_of(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.trim().split(':');
    for octet in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn is_pci(text: &str) -> bool {
    let hex = |part: &str, len| part.len() == len && part.chars().all(|c| c.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split([':', '.']).collect();
    matches!(parts[..], [a, b, c, d] if hex(a, 4) && hex(b, 2) && hex(c, 2) && hex(d, 1))
}

fn bond(value: &mut Value<'_>) -> Result<Link, DeserError> {
    let at = Value::with_span(ValueInner::Boolean(true), value.span);
    let mut table = TableHelper::new(value)?;
    let shared = common(&mut table, &at)?;
    let mode: Option<String> = table.optional("mode");
    let mut members = Vec::new();
    if let Some((_, mut value)) = table.take("members") {
        members = list(&mut value, text_of)?;
    }
    table.finalize(None)?;
    let mode = match mode.as_deref() {
        None | Some("active-backup") => BondMode::ActiveBackup,
        Some("lacp") => BondMode::Lacp,
        Some(_) => return Err(custom(&at, "mode must be \"active-backup\" or \"lacp\"")),
    };
    if members.is_empty() {
        return Err(custom(&at, "a bond has members"));
    }
    Ok(made(shared, Kind::Bond { members, mode }))
}

fn vlan(value: &mut Value<'_>) -> Result<Link, DeserError> {
    let at = Value::with_span(ValueInner::Boolean(true), value.span);
    let mut table = TableHelper::new(value)?;
    let shared = common(&mut table, &at)?;
    let parent: String = table.required("parent")?;
    let id: u16 = table.required("id")?;
    table.finalize(None)?;
    if !(1..=4094).contains(&id) {
        return Err(custom(&at, "id must be 1 to 4094"));
    }
    Ok(made(shared, Kind::Vlan { parent, id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
hostname = "mx1"
dns = ["192.0.2.53", "2001:db8::53"]
ntp = ["192.0.2.123", "[2001:db8::1]:1123"]
spool_disks = ["S4EVNX0R"]
health = "[::1]:25"
[console]
speed = 9600
carrier = true
idle_s = 0
delay_s = 5
[spool]
md = [1, 2]
xfs = true
[[link]]
name = "a"
mac = "52:54:00:12:34:56"
[[link]]
name = "b"
pci = "0000:03:00.1"
[[bond]]
name = "both"
members = ["a", "b"]
mode = "lacp"
mtu = 9000
[[vlan]]
name = "mail"
parent = "both"
id = 10
addresses = ["192.0.2.25/24", "2001:db8::25/64"]
gateways = ["192.0.2.1"]
"#;

    #[test]
    fn a_whole_file_is_read() {
        let settings = parse(WHOLE).unwrap();
        assert_eq!(settings.hostname.as_deref(), Some("mx1"));
        let console = Console { speed: 9_600, carrier: true, ..Console::default() };
        let console = Console { idle_s: Some(0), delay_s: Some(5), ..console };
        assert_eq!(settings.console, console);
        assert_eq!(settings.spool, Spool { md: vec![1, 2], xfs: true });
        assert_eq!(settings.ntp[0], "192.0.2.123:123".parse().unwrap());
        assert_eq!(settings.ntp[1], "[2001:db8::1]:1123".parse().unwrap());
        assert_eq!(settings.health, "[::1]:25".parse().unwrap());
        let names: Vec<&str> = settings.links.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "both", "mail"]);
        assert_eq!(settings.links[0].kind, Kind::Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(settings.links[3].addresses[1], ("2001:db8::25".parse().unwrap(), 64));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            ("hostname = ", "1:"),
            ("hostname = \"x\"\ncolour = 1\n", "colour"),
            (&WHOLE.replace("/24", "/33"), "192.0.2.1/24"),
            (&WHOLE.replace("\"a\", \"b\"", "\"a\", \"c\""), "both needs c"),
            (&WHOLE.replace("id = 10", "id = 4095"), "1 to 4094"),
            (&WHOLE.replace("52:54:00:12:34:56", "52:54:00:12:34"), "mac must be"),
            (&WHOLE.replace("0000:03:00.1", "eth1"), "pci must be"),
            (&WHOLE.replace("speed = 9600", "speed = 9601"), "speed must be"),
            (&WHOLE.replace("name = \"b\"", "name = \"a\""), "two interfaces"),
            ("hostname = \"x\"\n", "no network"),
            ("ntp = [\"pool.example\"]\n", "an IP address"),
        ];
        for (text, expected) in cases {
            let said = parse(text).expect_err(text).to_string();
            assert!(said.contains(expected), "{said}: no {expected}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_cut_makes_it_panic(at in 0..WHOLE.len()) {
            if let Some(text) = WHOLE.get(..at) {
                let _ = parse(text);
            }
        }
    }
}
