//! The ladder: who is heard, refused, answered, dropped; the same with the XDP filter and without.
//!
//! *Guarantees.* Pure. Who is listed is heard first, and refused at RCPT with its envelope; only
//! who comes again, or stands on a list meant for it, is turned away before. Allow wins. Nothing
//! goes further than its list's ceiling and the mode allow, and every ban has an end.
//!
//! *Not here.* Asking DNS lists (`dnsbl`, `lookup`), the filter itself (`gate`), reading files.

mod fuse;
mod lists;

pub use fuse::Fuse;
pub use lists::{List, Lists, Loaded, OPERATOR, OWN, Order, first_zone};

use hints::ban::Ban;

use crate::config::Rung;
use crate::dnsbl::Finding;

/// The shortest ban.
pub const BAN_S_MIN: u32 = 60;
/// The longest ban for a listing.
pub const BAN_LISTED_S_MAX: u32 = 3_600;
/// How long the first ban for what was seen here lasts.
pub const BAN_OWN_S: u32 = 300;
/// The longest of them.
pub const BAN_OWN_S_MAX: u32 = 86_400;
/// Who is banned again within this time after a ban is banned for longer.
pub const RELAPSE_S: u32 = 86_400;

const _: () = assert!(BAN_LISTED_S_MAX <= ebpf_common::limits::BAN_DNS_S_MAX);
const _: () = assert!(BAN_OWN_S_MAX <= ebpf_common::limits::BAN_LOCAL_S_MAX);

/// What is known of a client when it is to be greeted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Who lists it, as far as that is known now.
    pub finding: Option<Finding>,
    /// The rung of a ban that holds.
    pub ban: Option<Rung>,
    /// The node is nearly out of sessions.
    pub busy: bool,
}

/// Whether it is turned away in the greeting.
#[must_use]
pub fn in_greeting(mode: Rung, standing: &Standing) -> bool {
    let reaches = |rung: Rung, least: Rung| rung.least(mode).height() >= least.height();
    let banned = standing.ban.is_some_and(|rung| reaches(rung, Rung::Answer));
    let listed = standing.finding.is_some_and(|finding| {
        reaches(finding.ceiling, Rung::Drop)
            || (standing.busy && reaches(finding.ceiling, Rung::Refuse))
    });
    banned || listed
}

/// Whether its recipients are refused.
#[must_use]
pub fn at_rcpt(mode: Rung, finding: Option<Finding>) -> bool {
    finding.is_some_and(|finding| finding.ceiling.least(mode).height() >= Rung::Refuse.height())
}

/// How long a ban lasts, in seconds: `first_s`, doubled for each time before, at most `most_s`.
#[must_use]
pub fn life_s(first_s: u32, before: u32, most_s: u32) -> u32 {
    let first = u64::from(first_s.clamp(BAN_S_MIN, most_s));
    let doubled = first.checked_shl(before.min(31)).unwrap_or(u64::MAX);
    u32::try_from(doubled.min(u64::from(most_s))).unwrap_or(most_s)
}

/// The ban that follows, if the one that holds is not enough.
#[must_use]
pub fn ban(
    finding: Finding,
    old: Option<Ban>,
    id: u32,
    session: u128,
    wall_us: u64,
) -> Option<Ban> {
    let holds = |old: &Ban| old.holds(wall_us) && old.rung >= u32::from(finding.ceiling.height());
    if finding.ceiling.height() < Rung::Answer.height() || old.as_ref().is_some_and(holds) {
        return None;
    }
    let before = old.map_or(0, |old| old.times);
    let (first_s, most_s) = match finding.list {
        OWN => (BAN_OWN_S, BAN_OWN_S_MAX),
        OPERATOR => (finding.ttl_s, BAN_OWN_S_MAX),
        _ => (finding.ttl_s, BAN_LISTED_S_MAX),
    };
    let life_s = match finding.list {
        OPERATOR => finding.ttl_s.clamp(1, most_s),
        _ => life_s(first_s, before, most_s),
    };
    Some(Ban {
        until_us: wall_us.saturating_add(u64::from(life_s) * 1_000_000),
        since_us: wall_us,
        times: before.saturating_add(1),
        id,
        list: finding.list.into(),
        rung: finding.ceiling.height().into(),
        session,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finding(list: u8, ceiling: Rung) -> Finding {
        Finding { list, ceiling, ttl_s: 300 }
    }

    #[test]
    fn the_ladder_by_mode_and_ceiling() {
        use Rung::{Answer, Count, Drop, Refuse};
        // Mode, ceiling: at RCPT, in the greeting, in the greeting under load.
        for (mode, ceiling, rcpt, greeting, busy) in [
            (Count, Drop, false, false, false),
            (Refuse, Count, false, false, false),
            (Refuse, Answer, true, false, true),
            (Refuse, Drop, true, false, true),
            (Answer, Answer, true, false, true),
            (Answer, Drop, true, false, true),
            (Drop, Answer, true, false, true),
            (Drop, Drop, true, true, true),
        ] {
            let finding = Some(finding(2, ceiling));
            assert_eq!(at_rcpt(mode, finding), rcpt, "{mode:?} {ceiling:?}");
            let standing = Standing { finding, ..Standing::default() };
            assert_eq!(in_greeting(mode, &standing), greeting, "{mode:?} {ceiling:?}");
            let standing = Standing { busy: true, ..standing };
            assert_eq!(in_greeting(mode, &standing), busy, "{mode:?} {ceiling:?}");
        }
        let banned = Standing { ban: Some(Answer), ..Standing::default() };
        assert!(in_greeting(Answer, &banned) && in_greeting(Drop, &banned));
        assert!(!in_greeting(Refuse, &banned) && !in_greeting(Count, &banned));
        assert!(!in_greeting(Drop, &Standing { busy: true, ..Standing::default() }));
    }

    #[test]
    fn bans_double_and_end() {
        let lives: Vec<u32> = (0..8).map(|n| life_s(300, n, BAN_LISTED_S_MAX)).collect();
        assert_eq!(lives, [300, 600, 1200, 2400, 3600, 3600, 3600, 3600]);
        assert_eq!(life_s(1, 0, BAN_LISTED_S_MAX), 60);
        assert_eq!(life_s(86_400, 0, BAN_LISTED_S_MAX), 3600);
        let first = ban(finding(2, Rung::Answer), None, 7, 8, 1_000_000).unwrap();
        assert_eq!((first.until_us, first.times), (301_000_000, 1));
        assert_eq!(ban(finding(2, Rung::Answer), Some(first), 7, 8, 2_000_000), None, "it holds");
        assert!(ban(finding(2, Rung::Drop), Some(first), 7, 8, 2_000_000).is_some());
        let second = ban(finding(2, Rung::Answer), Some(first), 7, 8, 400_000_000).unwrap();
        assert_eq!((second.until_us, second.times), (1_000_000_000, 2));
        assert_eq!(ban(finding(2, Rung::Refuse), None, 7, 8, 1), None, "only refused");
    }

    proptest! {
        #[test]
        fn no_ban_outlives_its_bound(
            list in any::<u8>(), ttl_s in any::<u32>(), times in any::<u32>(), wall in 0_u64..1 << 60,
        ) {
            let finding = Finding { list, ceiling: Rung::Answer, ttl_s };
            let old = Ban { times, ..Ban::default() };
            let ban = ban(finding, Some(old), 0, 0, wall).unwrap();
            let most_s = if list < 2 { BAN_OWN_S_MAX } else { BAN_LISTED_S_MAX };
            let life_us = ban.until_us - wall;
            prop_assert!(life_us <= u64::from(most_s) * 1_000_000 && life_us > 0);
        }
    }
}
