//! DNS lists (RFC 5782): what is asked of them about a client, and what their answers are worth.
//!
//! *Guarantees.* Pure but for a few shared words about each zone. An answer with anything in it
//! that no list says (outside 127.0.0.0/8, 127.255.255.x, 127.0.0.1) is trouble of a resolver, and
//! trouble lists nobody. A zone that fails its test points, or lists nearly everybody, is cut off.
//!
//! *Not here.* Asking (`lookup`), what a listing leads to (`xdp`).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::config::{DnsblConfig, Rung};
use crate::dns::{Data, Outcome};

/// Answers of a zone that are looked at together for whether it lists too many.
pub const WINDOW: u32 = 200;
/// A zone that listed too many is not believed for so long.
pub const CUT_US: u64 = 3_600_000_000;
/// How often test points are asked, and how often while a zone is not proven.
pub const TEST_US: u64 = 600_000_000;
/// See [`TEST_US`].
pub const TEST_SOON_US: u64 = 20_000_000;

/// Octets that are quoted of what a list says of a client.
pub const TEXT_OCTETS_MAX: usize = 100;

/// Who listed a client, and how far that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The list, by number.
    pub list: u8,
    /// How far it may go.
    pub ceiling: Rung,
    /// How long that may be believed.
    pub ttl_s: u32,
}

/// What one zone says of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is listed.
    Listed {
        /// How far that goes.
        ceiling: Rung,
        /// Seconds it may be believed.
        ttl_s: u32,
    },
    /// It is not.
    Not,
    /// Nothing is known.
    Trouble,
}

/// The name to ask a zone for.
#[must_use]
pub fn name(address: IpAddr, zone: &str) -> String {
    let mut name = String::with_capacity(72 + zone.len());
    match address.to_canonical() {
        IpAddr::V4(four) => {
            for octet in four.octets().iter().rev() {
                name.push_str(&octet.to_string());
                name.push('.');
            }
        }
        IpAddr::V6(six) => {
            for octet in six.octets().iter().rev() {
                for nibble in [octet & 15, octet >> 4] {
                    name.extend(char::from_digit(nibble.into(), 16));
                    name.push('.');
                }
            }
        }
    }
    name + zone
}

/// Whether an answer can come from a list at all.
const fn is_code(answer: Ipv4Addr) -> bool {
    let [a, b, c, d] = answer.octets();
    a == 127 && !(b == 255 && c == 255) && !(b == 0 && c == 0 && d == 1)
}

/// What an outcome is worth.
#[must_use]
pub fn read(zone: &DnsblConfig, outcome: &Outcome) -> Said {
    let answer = match outcome {
        Outcome::Found(answer) => answer,
        Outcome::NoName { .. } | Outcome::NoData { .. } => return Said::Not,
        Outcome::Failed(_) | Outcome::NeedsTcp(_) => return Said::Trouble,
    };
    let mut highest = None;
    for data in &answer.data {
        let Data::A(code) = *data else { return Said::Trouble };
        if !is_code(code) {
            return Said::Trouble;
        }
        let known = zone.codes.iter().find(|codes| (codes.first..=codes.last).contains(&code));
        // A code that nobody has explained goes no further than the daemon.
        let ceiling = known.map_or(Rung::Refuse, |codes| codes.ceiling);
        highest = highest.max(Some(ceiling.height()));
    }
    match highest {
        Some(height) => {
            Said::Listed { ceiling: Rung::at(height).least(zone.ceiling), ttl_s: answer.ttl_s }
        }
        None => Said::Trouble,
    }
}

/// What a list says of a client (TXT), as it may stand in a reply: one line of printable ASCII.
#[must_use]
pub fn text(outcome: &Outcome) -> Option<Box<str>> {
    let Outcome::Found(answer) = outcome else { return None };
    let octets = answer.data.iter().find_map(|data| match data {
        Data::Txt(octets) => Some(octets),
        _ => None,
    })?;
    let shown = |octet: &u8| if octet.is_ascii_graphic() { char::from(*octet) } else { ' ' };
    let text: String = octets.iter().take(4 * TEXT_OCTETS_MAX).map(shown).collect();
    let mut line = String::with_capacity(TEXT_OCTETS_MAX);
    for word in text.split_ascii_whitespace() {
        if line.len() + 1 + word.len() > TEXT_OCTETS_MAX {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    (!line.is_empty()).then(|| line.into())
}

/// How a zone is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Its test points have not been asked yet.
    Unproven = 0,
    /// It counts.
    Proven = 1,
    /// Its test points say that it is broken, or not a list.
    Failed = 2,
    /// It listed nearly everybody.
    TooMany = 3,
}

/// A zone and what all cores know of it.
#[derive(Debug)]
pub struct Zone {
    /// Its keys.
    pub config: DnsblConfig,
    /// Its number among the lists.
    pub number: u8,
    state: AtomicU8,
    cut_us: AtomicU64,
    answers: AtomicU32,
    listed: AtomicU32,
}

impl Zone {
    /// How it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            1 => State::Proven,
            2 => State::Failed,
            3 => State::TooMany,
            _ => State::Unproven,
        }
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Takes the outcome of a question about a client.
    pub fn take(&self, outcome: &Outcome, now_us: u64) -> Said {
        let said = read(&self.config, outcome);
        if said != Said::Trouble {
            self.count(matches!(said, Said::Listed { .. }), now_us);
        }
        if self.state() == State::Proven { said } else { Said::Trouble }
    }

    fn count(&self, listed: bool, now_us: u64) {
        let listed =
            self.listed.fetch_add(u32::from(listed), Ordering::Relaxed) + u32::from(listed);
        let answers = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        if answers < WINDOW {
            return;
        }
        self.answers.store(0, Ordering::Relaxed);
        self.listed.store(0, Ordering::Relaxed);
        let share = u64::from(listed) * 100;
        if !self.config.allow
            && share > u64::from(self.config.listed_percent_max) * u64::from(answers)
        {
            self.cut_us.store(now_us, Ordering::Relaxed);
            self.set(State::TooMany);
        }
    }

    /// Takes the outcomes for 127.0.0.2 and 127.0.0.1. Trouble says nothing.
    pub fn tested(&self, listed: &Outcome, unlisted: &Outcome, now_us: u64) {
        let cut = self.state() == State::TooMany;
        if cut && now_us.saturating_sub(self.cut_us.load(Ordering::Relaxed)) < CUT_US {
            return;
        }
        match (points(&self.config, listed), points(&self.config, unlisted)) {
            (Some(true), Some(false)) => self.set(State::Proven),
            // What no list says in the place of an answer is as bad as a wrong answer.
            (Some(_), Some(_)) => self.set(State::Failed),
            _ => {}
        }
    }
}

/// What a test point says; `None` if nobody answered.
fn points(zone: &DnsblConfig, outcome: &Outcome) -> Option<bool> {
    match (read(zone, outcome), outcome) {
        (Said::Listed { .. }, _) => Some(true),
        (Said::Not, _) => Some(false),
        // An answer outside the codes: whichever point it is about, the zone fails.
        (Said::Trouble, Outcome::Found(answer)) => {
            let about_one = answer.data.iter().all(|data| *data == Data::A(Ipv4Addr::LOCALHOST));
            Some(about_one)
        }
        (Said::Trouble, _) => None,
    }
}

/// Every zone of a config.
#[derive(Debug, Default)]
pub struct Zones {
    zones: Box<[Zone]>,
    weight: u32,
}

impl Zones {
    /// Of the config; `first` is the number of the first, `weight` what listings must weigh.
    /// Zones that `old` has with the same keys keep what is known of them.
    #[must_use]
    pub fn new(config: &[DnsblConfig], first: u8, weight: u32, old: Option<&Self>) -> Self {
        let known = |config: &DnsblConfig| {
            let zones = old.into_iter().flat_map(|old| old.zones.iter());
            zones.filter(|zone| zone.config == *config).map(Zone::state).next()
        };
        let zone = |(number, config): (u8, &DnsblConfig)| {
            let state = if config.tested { State::Unproven } else { State::Proven };
            Zone {
                config: config.clone(),
                number,
                state: AtomicU8::new(known(config).unwrap_or(state) as u8),
                cut_us: AtomicU64::new(0),
                answers: AtomicU32::new(0),
                listed: AtomicU32::new(0),
            }
        };
        Self { zones: (first..).zip(config).map(zone).collect(), weight }
    }

    /// In the order of the config.
    #[must_use]
    pub fn all(&self) -> &[Zone] {
        &self.zones
    }
}

/// The questions about one client, all open at once.
#[derive(Debug, Clone, Default)]
pub struct Inquiry {
    open: usize,
    allowed: bool,
    /// Who listed it, how far, for how long, with what weight.
    listed: Vec<(Finding, u32)>,
    /// What lists say of it.
    texts: Vec<(u8, Box<str>)>,
}

impl Inquiry {
    /// With so many questions open.
    #[must_use]
    pub fn new(open: usize) -> Self {
        Self { open, ..Self::default() }
    }

    /// Takes what a zone says; true when that was the last.
    pub fn take(&mut self, zone: &Zone, said: Said) -> bool {
        if let Said::Listed { ceiling, ttl_s } = said {
            if zone.config.allow {
                self.allowed = true;
            } else {
                let finding = Finding { list: zone.number, ceiling, ttl_s };
                self.listed.push((finding, zone.config.weight));
            }
        }
        self.open = self.open.saturating_sub(1);
        self.open == 0
    }

    /// One more question is open.
    pub const fn more(&mut self) {
        self.open += 1;
    }

    /// Takes what a list says of the client, if anything; true when that was the last.
    pub fn take_text(&mut self, list: u8, text: Option<Box<str>>) -> bool {
        self.texts.extend(text.map(|text| (list, text)));
        self.open = self.open.saturating_sub(1);
        self.open == 0
    }

    /// What a list says of the client.
    pub fn text_of(&mut self, list: u8) -> Option<Box<str>> {
        let at = self.texts.iter().position(|(of, _)| *of == list)?;
        Some(self.texts.swap_remove(at).1)
    }

    /// What they say together: the highest rung to which zones of enough weight go.
    #[must_use]
    pub fn verdict(&self, zones: &Zones) -> Judged {
        if self.allowed {
            return Judged::Allowed;
        }
        for height in (0..4).rev() {
            let high = || self.listed.iter().filter(|(f, _)| f.ceiling.height() >= height);
            let weight: u32 = high().map(|(_, weight)| *weight).fold(0, u32::saturating_add);
            let heaviest = high().max_by_key(|(_, weight)| *weight);
            if let Some((finding, _)) = heaviest.filter(|_| weight >= zones.weight) {
                let ttl_s = high().map(|(f, _)| f.ttl_s).min().unwrap_or(0);
                return Judged::Listed(Finding { ceiling: Rung::at(height), ttl_s, ..*finding });
            }
        }
        Judged::Unlisted
    }
}

/// What all zones say of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Nothing that counts.
    Unlisted,
    /// It is never turned away.
    Allowed,
    /// It is listed.
    Listed(Finding),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Answer, Failure, Question};
    use proptest::prelude::*;

    fn config(more: &str) -> DnsblConfig {
        let text = format!(
            "[node]\nhostname=\"mx.example.org\"\n[spool]\nplaces=[\"./spool\"]\n\
             [[listener]]\naddress=\"127.0.0.1\"\ntls=\"none\"\n\
             [policy]\nrelay_domains=[\"example.org\"]\nany_recipient=true\n\
             [resolver]\nservers=[\"127.0.0.1:53\"]\n\
             [[route]]\ndomains=[\"*\"]\nmx=true\n\
             [[dnsbl]]\nzone=\"bl.example.net\"\n{more}"
        );
        let loaded = crate::config::Config::parse("t", &text, &crate::config::Disk);
        loaded.unwrap_or_else(|p| panic!("{p}")).config.dnsbl[0].clone()
    }

    fn codes() -> DnsblConfig {
        config("codes=[\"127.0.0.2-4=answer\",\"127.0.0.9=drop\",\"127.0.0.10-11=refuse\"]\n")
    }

    fn found(codes: &[Ipv4Addr]) -> Outcome {
        let data = codes.iter().map(|code| Data::A(*code)).collect();
        Outcome::Found(Answer { data, ttl_s: 300, authentic: false })
    }

    fn code(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, last)
    }

    const NO_NAME: Outcome = Outcome::NoName { ttl_s: 60 };

    #[test]
    fn names_are_reversed() {
        assert_eq!(name("192.0.2.99".parse().unwrap(), "bl.x"), "99.2.0.192.bl.x");
        let six = name("2001:db8::1".parse().unwrap(), "bl.x");
        assert!(six.starts_with("1.0.0.0.") && six.ends_with(".8.b.d.0.1.0.0.2.bl.x"), "{six}");
        assert_eq!(name("::ffff:192.0.2.9".parse().unwrap(), "z"), "9.2.0.192.z");
    }

    #[test]
    fn a_code_has_its_ceiling_and_an_unknown_one_stays_with_the_daemon() {
        let ceiling = |zone: &DnsblConfig, list: &[u8]| match read(
            zone,
            &found(&list.iter().map(|l| code(*l)).collect::<Vec<_>>()),
        ) {
            Said::Listed { ceiling, .. } => ceiling,
            other => panic!("{other:?}"),
        };
        let zone = DnsblConfig { ceiling: Rung::Drop, ..codes() };
        assert_eq!(ceiling(&zone, &[3]), Rung::Answer);
        assert_eq!(ceiling(&zone, &[9]), Rung::Drop);
        assert_eq!(ceiling(&zone, &[10, 4]), Rung::Answer);
        assert_eq!(ceiling(&zone, &[77]), Rung::Refuse);
        let zone = DnsblConfig { ceiling: Rung::Refuse, ..codes() };
        assert_eq!(ceiling(&zone, &[9]), Rung::Refuse);
    }

    proptest! {
        /// Whatever a resolver makes up, at whatever position, lists nobody.
        #[test]
        fn no_resolver_error_ever_lists_anybody(
            before in proptest::collection::vec(2_u8..=254, 0..4),
            after in proptest::collection::vec(2_u8..=254, 0..4),
            wrong in prop_oneof![
                any::<u32>().prop_map(Ipv4Addr::from_bits).prop_filter("outside", |a| !a.is_loopback()),
                any::<u8>().prop_map(|d| Ipv4Addr::new(127, 255, 255, d)),
                Just(Ipv4Addr::LOCALHOST),
            ],
        ) {
            let set: Vec<Ipv4Addr> = before.into_iter().map(code)
                .chain([wrong]).chain(after.into_iter().map(code)).collect();
            let zones = Zones::new(&[DnsblConfig { tested: false, ..codes() }], 2, 1, None);
            let zone = &zones.all()[0];
            prop_assert_eq!(read(&zone.config, &found(&set)), Said::Trouble);
            let mut inquiry = Inquiry::new(1);
            let said = zone.take(&found(&set), 0);
            prop_assert!(inquiry.take(zone, said));
            prop_assert_eq!(inquiry.verdict(&zones), Judged::Unlisted);
        }
    }

    proptest! {
        /// The whole space of answers: either every address in it is a code, and then the client is
        /// listed and may be banned, or nothing comes of it, on whatever list it stands.
        #[test]
        fn an_answer_bans_only_if_every_address_in_it_is_a_code(
            set in proptest::collection::vec(
                prop_oneof![
                    3 => any::<[u8; 2]>().prop_map(|[c, d]| Ipv4Addr::new(127, 0, c, d)),
                    1 => any::<[u8; 3]>().prop_map(|[b, c, d]| Ipv4Addr::new(127, b, c, d)),
                    1 => any::<u8>().prop_map(|d| Ipv4Addr::new(127, 255, 255, d)),
                    1 => any::<u32>().prop_map(Ipv4Addr::from_bits),
                    1 => Just(Ipv4Addr::LOCALHOST),
                ],
                0..6,
            ),
            other in proptest::option::of(prop_oneof![
                Just(Data::Ptr("x.example".into())),
                Just(Data::Txt(b"127.0.0.2".as_slice().into())),
                Just(Data::Aaaa(std::net::Ipv6Addr::LOCALHOST)),
            ]),
        ) {
            let right = !set.is_empty() && other.is_none() && set.iter().all(|a| {
                let [x, b, c, d] = a.octets();
                x == 127 && (b, c) != (255, 255) && [b, c, d] != [0, 0, 1]
            });
            let mut data: Vec<Data> = set.into_iter().map(Data::A).collect();
            data.extend(other);
            let outcome = Outcome::Found(Answer { data, ttl_s: 300, authentic: true });
            let all: Vec<crate::config::Codes> =
                vec![crate::config::Codes { first: Ipv4Addr::new(127, 0, 0, 0),
                    last: Ipv4Addr::new(127, 255, 255, 255), ceiling: Rung::Drop }];
            let zone = DnsblConfig { tested: false, ceiling: Rung::Drop, codes: all, ..codes() };
            let zones = Zones::new(&[zone], 2, 1, None);
            let zone = &zones.all()[0];
            let mut inquiry = Inquiry::new(1);
            let said = zone.take(&outcome, 0);
            prop_assert!(inquiry.take(zone, said));
            match inquiry.verdict(&zones) {
                Judged::Listed(finding) => {
                    prop_assert!(right);
                    prop_assert_eq!(finding.ceiling, Rung::Drop);
                }
                Judged::Unlisted => prop_assert!(!right),
                Judged::Allowed => prop_assert!(false, "no list of friends"),
            }
        }

        /// Whatever a list writes about a client, a reply can carry it.
        #[test]
        fn a_text_is_one_short_printable_line(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
            let data = vec![Data::Txt(octets.into())];
            let text = text(&Outcome::Found(Answer { data, ttl_s: 1, authentic: false }));
            if let Some(text) = text {
                prop_assert!(!text.is_empty() && text.len() <= TEXT_OCTETS_MAX);
                prop_assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)));
                prop_assert!(text.trim() == &*text);
            }
        }
    }

    #[test]
    fn a_text_is_quoted_in_words() {
        let said = |octets: &[u8]| {
            let data = vec![Data::Txt(octets.into())];
            text(&Outcome::Found(Answer { data, ttl_s: 1, authentic: false }))
        };
        let see = "see https://bl.example.net/1";
        assert_eq!(said(see.as_bytes()).as_deref(), Some(see));
        assert_eq!(said(b" a\r\n250 ok\0\xff ").as_deref(), Some("a 250 ok"));
        assert_eq!(said(&[b'x'; 300]), None, "no word of it fits");
        assert_eq!(said(b""), None);
        assert_eq!(text(&NO_NAME), None);
    }

    #[test]
    fn failures_list_nobody() {
        let question = Question::new(b"x.bl.example.net", crate::dns::Kind::A).unwrap();
        for outcome in [
            Outcome::Failed(Failure::Timeout),
            Outcome::Failed(Failure::Server(2)),
            Outcome::Failed(Failure::Malformed),
            Outcome::Failed(Failure::Unreachable),
            Outcome::NeedsTcp(question),
            found(&[]),
        ] {
            assert_eq!(read(&codes(), &outcome), Said::Trouble, "{outcome:?}");
        }
        assert_eq!(read(&codes(), &NO_NAME), Said::Not);
    }

    #[test]
    fn a_zone_counts_only_while_its_test_points_are_right() {
        let zones = Zones::new(&[codes()], 2, 1, None);
        let zone = &zones.all()[0];
        assert_eq!(zone.take(&found(&[code(2)]), 0), Said::Trouble, "not proven yet");
        zone.tested(&found(&[code(2)]), &NO_NAME, 0);
        assert!(matches!(zone.take(&found(&[code(2)]), 0), Said::Listed { .. }));
        zone.tested(&Outcome::Failed(Failure::Timeout), &NO_NAME, 0);
        assert_eq!(zone.state(), State::Proven, "silence says nothing");
        for (two, one) in [
            (NO_NAME, NO_NAME),
            (found(&[code(2)]), found(&[code(2)])),
            (found(&[Ipv4Addr::new(127, 255, 255, 254)]), NO_NAME),
            (found(&[code(2)]), found(&[code(1)])),
            (found(&[Ipv4Addr::new(192, 0, 2, 1)]), found(&[Ipv4Addr::new(192, 0, 2, 1)])),
        ] {
            zone.tested(&found(&[code(2)]), &NO_NAME, 0);
            zone.tested(&two, &one, 0);
            assert_eq!(zone.state(), State::Failed, "{two:?} {one:?}");
            assert_eq!(zone.take(&found(&[code(2)]), 0), Said::Trouble);
        }
    }

    #[test]
    fn a_zone_that_lists_everybody_is_cut_off_for_an_hour() {
        let zones = Zones::new(&[DnsblConfig { tested: false, ..codes() }], 2, 1, None);
        let zone = &zones.all()[0];
        for _ in 0..WINDOW {
            let _ = zone.take(&found(&[code(2)]), 5);
        }
        assert_eq!(zone.state(), State::TooMany);
        assert_eq!(zone.take(&found(&[code(2)]), 6), Said::Trouble);
        zone.tested(&found(&[code(2)]), &NO_NAME, CUT_US);
        assert_eq!(zone.state(), State::TooMany);
        zone.tested(&found(&[code(2)]), &NO_NAME, CUT_US + 5);
        assert_eq!(zone.state(), State::Proven);
        let again = Zones::new(&[DnsblConfig { tested: false, ..codes() }], 2, 1, Some(&zones));
        assert_eq!(again.all()[0].state(), State::Proven);
    }

    #[test]
    fn weights_add_up_and_an_allow_zone_wins() {
        let zone = |weight, ceiling| DnsblConfig { weight, ceiling, tested: false, ..codes() };
        let allow = DnsblConfig { allow: true, ..zone(1, Rung::Answer) };
        let config = [zone(6, Rung::Refuse), zone(5, Rung::Answer), zone(5, Rung::Answer), allow];
        let zones = Zones::new(&config, 2, 10, None);
        let judged = |who: &[usize]| {
            let mut inquiry = Inquiry::new(who.len());
            for n in who {
                let zone = &zones.all()[*n];
                inquiry.take(zone, zone.take(&found(&[code(2)]), 0));
            }
            inquiry.verdict(&zones)
        };
        let rung = |judged| match judged {
            Judged::Listed(finding) => Some((finding.ceiling, finding.list)),
            _ => None,
        };
        assert_eq!(judged(&[0]), Judged::Unlisted);
        assert_eq!(rung(judged(&[0, 1])), Some((Rung::Refuse, 2)));
        assert_eq!(rung(judged(&[0, 1, 2])).map(|(rung, _)| rung), Some(Rung::Answer));
        assert_eq!(judged(&[0, 1, 2, 3]), Judged::Allowed);
    }
}
