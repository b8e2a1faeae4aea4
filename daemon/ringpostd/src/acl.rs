//! Whether a recipient is taken: facts in, a verdict or the missing fact out.
//!
//! *Guarantees.* Pure: the same facts give the same verdict, in whatever order they are found. A
//! recipient elsewhere is taken from relay networks only, so no config without one is an open
//! relay. Nothing is taken that every way to the recipient is known to refuse, so nothing has to
//! be bounced for it later.
//! *Not here.* Where facts come from (`inbound`), rates (`standing`), syntax (`smtp`).

use crate::config::Standing;
use crate::events::Reason;

/// What the way to a recipient takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carries {
    /// SMTPUTF8, for certain.
    pub utf8: bool,
    /// BINARYMIME, for certain.
    pub binary: bool,
    /// The largest message one of the hosts takes; `None`: no limit is known.
    pub octets_max: Option<u64>,
}

/// Where mail for a domain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To hosts that carry this.
    Hosts(Carries),
    /// To this node again.
    Ourselves,
    /// Nowhere: the domain says so (RFC 7505).
    NullMx,
    /// Nowhere: no such domain, or it has no host.
    NoHost,
    /// No route of the config leads there.
    NoRoute,
    /// Not to be found out now.
    Trouble,
}

/// What is known when a recipient is named.
#[derive(Debug, Clone, Copy)]
pub struct RcptFacts {
    /// How it stands among our recipients.
    pub standing: Standing,
    /// It is `postmaster`, at a domain of ours or without one.
    pub postmaster: bool,
    /// The client is in a relay network.
    pub may_relay: bool,
    /// The client is listed, and may be refused for it; once that is known.
    pub listed: Option<bool>,
    /// Where its mail goes, once that is known.
    pub way: Option<Way>,
    /// MAIL said SMTPUTF8, or the address is not ASCII.
    pub utf8: bool,
    /// MAIL said BODY=BINARYMIME.
    pub binary: bool,
    /// MAIL said SIZE.
    pub octets: Option<u64>,
}

/// A fact that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Whether the client is listed.
    Listed,
    /// Where mail for the recipient's domain goes.
    Way,
}

/// What becomes of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Accept,
    /// It is refused.
    Refuse(Reason),
    /// Find this out and ask again.
    Missing(Fact),
}

/// Is this recipient taken?
#[must_use]
pub fn rcpt(facts: &RcptFacts) -> Verdict {
    match facts.standing {
        Standing::Foreign if !facts.may_relay => return Verdict::Refuse(Reason::RelayDenied),
        Standing::Unknown if !facts.postmaster => {
            return Verdict::Refuse(Reason::UnknownRecipient);
        }
        Standing::Known | Standing::Unknown | Standing::Foreign => {}
    }
    // Postmaster can always be told of a mistake.
    match facts.listed {
        _ if facts.postmaster || facts.may_relay => {}
        None => return Verdict::Missing(Fact::Listed),
        Some(true) => return Verdict::Refuse(Reason::Listed),
        Some(false) => {}
    }
    match facts.way {
        None => Verdict::Missing(Fact::Way),
        Some(Way::Hosts(carries)) => fits(facts, carries),
        Some(Way::Ourselves) => Verdict::Refuse(Reason::RouteLoop),
        Some(Way::NullMx) => Verdict::Refuse(Reason::NullMx),
        Some(Way::NoHost) => Verdict::Refuse(Reason::NoHost),
        Some(Way::NoRoute) => Verdict::Refuse(Reason::NoRoute),
        Some(Way::Trouble) => Verdict::Refuse(Reason::DnsTrouble),
    }
}

/// In doubt about SMTPUTF8 and BINARYMIME the sender hears it now; a bounce would come too late.
fn fits(facts: &RcptFacts, carries: Carries) -> Verdict {
    if facts.utf8 && !carries.utf8 {
        return Verdict::Refuse(Reason::Utf8Behind);
    }
    if facts.binary && !carries.binary {
        return Verdict::Refuse(Reason::BinaryBehind);
    }
    match (facts.octets, carries.octets_max) {
        (Some(octets), Some(most)) if octets > most => Verdict::Refuse(Reason::SizeBehind),
        _ => Verdict::Accept,
    }
}

/// Does a message of this size, now that it is known, still fit all its ways? `octets_max` are
/// those of the recipients that were taken.
#[must_use]
pub fn message(octets: u64, octets_max: impl IntoIterator<Item = Option<u64>>) -> Verdict {
    if octets_max.into_iter().flatten().any(|most| octets > most) {
        return Verdict::Refuse(Reason::SizeBehind);
    }
    Verdict::Accept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Carries = Carries { utf8: true, binary: true, octets_max: None };
    const OURS: RcptFacts = RcptFacts {
        standing: Standing::Known,
        postmaster: false,
        may_relay: false,
        listed: Some(false),
        way: Some(Way::Hosts(ALL)),
        utf8: false,
        binary: false,
        octets: None,
    };

    #[test]
    fn the_table() {
        let few = Carries { utf8: false, binary: false, octets_max: Some(1000) };
        let to_few = RcptFacts { way: Some(Way::Hosts(few)), ..OURS };
        let foreign = RcptFacts { standing: Standing::Foreign, ..OURS };
        let unknown = RcptFacts { standing: Standing::Unknown, ..OURS };
        for (facts, verdict) in [
            (OURS, Verdict::Accept),
            (foreign, Verdict::Refuse(Reason::RelayDenied)),
            (RcptFacts { way: None, ..foreign }, Verdict::Refuse(Reason::RelayDenied)),
            (RcptFacts { may_relay: true, ..foreign }, Verdict::Accept),
            (RcptFacts { postmaster: true, ..foreign }, Verdict::Refuse(Reason::RelayDenied)),
            (unknown, Verdict::Refuse(Reason::UnknownRecipient)),
            (RcptFacts { may_relay: true, ..unknown }, Verdict::Refuse(Reason::UnknownRecipient)),
            (RcptFacts { postmaster: true, ..unknown }, Verdict::Accept),
            (RcptFacts { way: None, ..OURS }, Verdict::Missing(Fact::Way)),
            (RcptFacts { way: Some(Way::Ourselves), ..OURS }, Verdict::Refuse(Reason::RouteLoop)),
            (RcptFacts { way: Some(Way::NullMx), ..OURS }, Verdict::Refuse(Reason::NullMx)),
            (RcptFacts { way: Some(Way::Trouble), ..OURS }, Verdict::Refuse(Reason::DnsTrouble)),
            (RcptFacts { listed: None, way: None, ..OURS }, Verdict::Missing(Fact::Listed)),
            (RcptFacts { listed: Some(true), way: None, ..OURS }, Verdict::Refuse(Reason::Listed)),
            (RcptFacts { listed: Some(true), postmaster: true, ..OURS }, Verdict::Accept),
            (RcptFacts { listed: Some(true), may_relay: true, ..OURS }, Verdict::Accept),
            (
                RcptFacts { listed: Some(true), ..unknown },
                Verdict::Refuse(Reason::UnknownRecipient),
            ),
            (RcptFacts { utf8: true, ..OURS }, Verdict::Accept),
            (RcptFacts { utf8: true, ..to_few }, Verdict::Refuse(Reason::Utf8Behind)),
            (RcptFacts { binary: true, ..to_few }, Verdict::Refuse(Reason::BinaryBehind)),
            (RcptFacts { octets: Some(1000), ..to_few }, Verdict::Accept),
            (RcptFacts { octets: Some(1001), ..to_few }, Verdict::Refuse(Reason::SizeBehind)),
        ] {
            assert_eq!(rcpt(&facts), verdict, "{facts:?}");
        }
        assert_eq!(message(1001, [None, Some(1000)]), Verdict::Refuse(Reason::SizeBehind));
        assert_eq!(message(1000, [None, Some(1000)]), Verdict::Accept);
    }

    fn any_facts() -> impl Strategy<Value = RcptFacts> {
        let standing =
            prop_oneof![Just(Standing::Known), Just(Standing::Unknown), Just(Standing::Foreign)];
        let carries = (any::<bool>(), any::<bool>(), any::<Option<u64>>());
        let way = prop_oneof![
            carries.prop_map(|(utf8, binary, octets_max)| Way::Hosts(Carries {
                utf8,
                binary,
                octets_max
            })),
            Just(Way::Ourselves),
            Just(Way::NullMx),
            Just(Way::NoHost),
            Just(Way::NoRoute),
            Just(Way::Trouble),
        ];
        let flags = any::<(bool, bool, bool, bool, Option<u64>, Option<bool>)>();
        (standing, proptest::option::of(way), flags).prop_map(|(standing, way, flags)| {
            let (postmaster, may_relay, utf8, binary, octets, listed) = flags;
            RcptFacts { standing, postmaster, may_relay, listed, way, utf8, binary, octets }
        })
    }

    proptest! {
        #[test]
        fn nobody_relays_without_a_relay_network(facts in any_facts()) {
            let facts = RcptFacts { standing: Standing::Foreign, may_relay: false, ..facts };
            prop_assert_eq!(rcpt(&facts), Verdict::Refuse(Reason::RelayDenied));
        }

        #[test]
        fn a_fact_that_comes_late_changes_only_what_was_missing(facts in any_facts()) {
            for less in [
                RcptFacts { way: None, ..facts },
                RcptFacts { listed: None, ..facts },
                RcptFacts { way: None, listed: None, ..facts },
            ] {
                let before = rcpt(&less);
                if !matches!(before, Verdict::Missing(_)) {
                    prop_assert_eq!(rcpt(&facts), before);
                }
            }
            if facts.way.is_some() && facts.listed.is_some() {
                prop_assert!(!matches!(rcpt(&facts), Verdict::Missing(_)));
            }
        }
    }
}
