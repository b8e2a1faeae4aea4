//! What a sink does wrong on purpose, by stage, share and seed.

use std::str::FromStr;

use crate::source::mail::Random;

/// A point of the dialogue at which a reply is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Stage {
    Banner,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// The reply to the final dot or the last chunk.
    Dot,
    Quit,
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "banner" => Self::Banner,
            "ehlo" => Self::Ehlo,
            "mail" => Self::Mail,
            "rcpt" => Self::Rcpt,
            "data" => Self::Data,
            "dot" => Self::Dot,
            "quit" => Self::Quit,
            _ => return Err(format!("{text}: banner, ehlo, mail, rcpt, data, dot or quit")),
        })
    }
}

/// What happens instead of the plain reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// This code is answered; 421 also closes.
    Code(u16),
    /// The connection is closed without a reply; at `dot` the message is not kept.
    Close,
    /// At `dot`: the message is kept, the connection closed without a reply.
    LoseReply,
    /// The reply comes so many milliseconds later.
    DelayMs(u64),
}

/// An effect at a stage for a share of the replies due there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    stage: Stage,
    effect: Effect,
    per_million: u32,
}

impl FromStr for Fault {
    type Err = String;

    /// `STAGE:EFFECT[:SHARE]`; EFFECT is a code from 400 to 599, `close`, `lose-reply` or `250ms`.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text}: STAGE:EFFECT[:SHARE], such as rcpt:450:0.1");
        let mut parts = text.split(':');
        let stage = parts.next().ok_or_else(form)?.parse()?;
        let effect = match parts.next().ok_or_else(form)? {
            "close" => Effect::Close,
            "lose-reply" if stage == Stage::Dot => Effect::LoseReply,
            other => match other.strip_suffix("ms") {
                Some(ms) => Effect::DelayMs(ms.parse().map_err(|_| form())?),
                None => Effect::Code(other.parse().map_err(|_| form())?),
            },
        };
        if let Effect::Code(code) = effect
            && !(400..600).contains(&code)
        {
            return Err(form());
        }
        let share: f64 = parts.next().map_or(Ok(1.0), str::parse).map_err(|_| form())?;
        if parts.next().is_some() || !(0.0..=1.0).contains(&share) {
            return Err(form());
        }
        // Fits: at most a million.
        let per_million = format!("{:.0}", share * 1e6).parse().map_err(|_| form())?;
        Ok(Self { stage, effect, per_million })
    }
}

/// All faults of a sink and their dice.
#[derive(Debug)]
pub struct Faults {
    faults: Vec<Fault>,
    random: Random,
}

/// What the dice say for one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Instead of the plain reply.
    pub instead: Option<Effect>,
    /// Before any reply.
    pub delay_ms: u64,
}

impl Faults {
    /// Faults in the order in which they are tried; the first that hits counts, delays add up.
    pub fn new(faults: Vec<Fault>, seed: u64) -> Self {
        Self { faults, random: Random::new(seed) }
    }

    /// Throws the dice for a reply due at `stage`.
    pub fn at(&mut self, stage: Stage) -> Verdict {
        let mut verdict = Verdict::default();
        for fault in &self.faults {
            if fault.stage != stage || self.random.below(1_000_000) >= fault.per_million {
                continue;
            }
            match fault.effect {
                Effect::DelayMs(ms) => verdict.delay_ms += ms,
                effect => verdict.instead = verdict.instead.or(Some(effect)),
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_hit_their_share_at_their_stage() {
        let faults = ["rcpt:450:0.25", "dot:lose-reply:0.5", "mail:20ms"];
        let parsed = faults.iter().map(|text| text.parse().unwrap()).collect();
        let mut faults = Faults::new(parsed, 9);
        let hits = |faults: &mut Faults, stage, effect| {
            (0..10_000).filter(|_| faults.at(stage).instead == Some(effect)).count()
        };
        assert!((2300..2700).contains(&hits(&mut faults, Stage::Rcpt, Effect::Code(450))));
        assert!((4800..5200).contains(&hits(&mut faults, Stage::Dot, Effect::LoseReply)));
        assert_eq!(faults.at(Stage::Mail), Verdict { instead: None, delay_ms: 20 });
        assert_eq!(faults.at(Stage::Data), Verdict::default());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "rcpt", "rcpt:200", "rcpt:450:2", "helo:450", "rcpt:lose-reply", "rcpt:450:1:1"]
        {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
