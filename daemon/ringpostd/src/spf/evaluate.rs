//! `check_host()` (RFC 7208 4).

use std::net::IpAddr;

use super::macros::{self, Values};
use super::record::{self, Mechanism, Record, What};
use super::{
    Answer, Answers, Input, LOOKUPS_MAX, NAMES_MAX, Need, Report, Step, VOIDS_MAX, Verdict,
};
use crate::dns::{Kind, Question};

/// Why it does not simply go on.
enum Stop {
    /// Something must be asked first.
    Need(Need),
    /// The verdict is an error; why.
    Error(Verdict, String),
}

type Outcome<T> = Result<T, Stop>;

struct Evaluation<'a> {
    input: &'a Input,
    sender: String,
    receiver: &'a str,
    now_s: u64,
    answers: &'a Answers,
    steps: Vec<Step>,
    lookups: u32,
    voids: u32,
    /// How many `include`s deep.
    includes: u32,
    /// Of the record whose `-` term matched.
    exp: Option<(String, String)>,
}

/// The verdict, or what must be asked of the DNS before there is one. `receiver` and `now_s` are
/// for explanations.
///
/// # Errors
/// What to put into `answers`.
pub fn evaluate(
    input: &Input,
    answers: &Answers,
    receiver: &str,
    now_s: u64,
) -> Result<Report, Need> {
    let sender = match input.from.rsplit_once('@') {
        _ if input.from.is_empty() => format!("postmaster@{}", input.helo),
        Some(("", domain)) => format!("postmaster@{domain}"),
        Some(_) => input.from.clone(),
        None => format!("postmaster@{}", input.from),
    };
    let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase();
    let mut evaluation = Evaluation {
        input,
        sender,
        receiver,
        now_s,
        answers,
        steps: Vec::new(),
        lookups: 0,
        voids: 0,
        includes: 0,
        exp: None,
    };
    let (verdict, why) = match evaluation.check(&domain, 0) {
        Ok((verdict, why)) => (verdict, why),
        Err(Stop::Error(verdict, why)) => (verdict, why),
        Err(Stop::Need(need)) => return Err(need),
    };
    let explanation = match verdict {
        Verdict::Fail => evaluation.explanation()?,
        _ => String::new(),
    };
    let Evaluation { steps, lookups, voids, .. } = evaluation;
    Ok(Report { verdict, domain, steps, why, explanation, lookups, voids })
}

impl<'a> Evaluation<'a> {
    fn ask(&self, kind: Kind, name: &str) -> Outcome<&'a Answer> {
        let key = (kind, name.to_ascii_lowercase());
        let need = || Stop::Need(Need { kind, name: key.1.clone() });
        self.answers.get(&key).ok_or_else(need)
    }

    /// Records a term asks for; no record is a void look-up.
    fn records(&mut self, kind: Kind, name: &str) -> Outcome<&'a [String]> {
        match self.ask(kind, name)? {
            Answer::Records(records) => Ok(records),
            Answer::Void => {
                self.voids += 1;
                if self.voids > VOIDS_MAX {
                    let why =
                        format!("more than {VOIDS_MAX} names without records, {name} the last");
                    return Err(Stop::Error(Verdict::PermError, why));
                }
                Ok(&[])
            }
            Answer::Temporary => {
                let why = format!("the DNS does not say {kind:?} of {name} now");
                Err(Stop::Error(Verdict::TempError, why))
            }
        }
    }

    fn count_lookup(&mut self, term: &str) -> Outcome<()> {
        self.lookups += 1;
        if self.lookups > LOOKUPS_MAX {
            let why = format!("more than {LOOKUPS_MAX} terms ask the DNS, {term} the last");
            return Err(Stop::Error(Verdict::PermError, why));
        }
        Ok(())
    }

    /// The verdict of a domain's record, and why where no term says it.
    fn check(&mut self, domain: &str, depth: usize) -> Outcome<(Verdict, String)> {
        let Some(text) = self.record_of(domain)? else {
            return Ok((Verdict::None, format!("{domain} has no SPF record")));
        };
        let step = |term: &str, outcome: String| Step {
            depth,
            domain: domain.to_owned(),
            term: term.to_owned(),
            outcome,
        };
        self.steps.push(step(&text, "the record".to_owned()));
        let record = match record::parse(&text) {
            Ok(record) => record,
            Err(why) => return Err(Stop::Error(Verdict::PermError, format!("{domain}: {why}"))),
        };
        for mechanism in &record.mechanisms {
            let place = self.steps.len();
            self.steps.push(step(&mechanism.text, "not evaluated".to_owned()));
            let matched = self.matches(mechanism, domain, depth);
            let outcome = match &matched {
                Ok((true, seen)) => format!("match, {}{seen}", mechanism.verdict.name()),
                Ok((false, seen)) => format!("no match{seen}"),
                Err(Stop::Error(verdict, why)) => format!("{}: {why}", verdict.name()),
                Err(Stop::Need(_)) => String::new(),
            };
            self.steps[place].outcome = outcome;
            if matched?.0 {
                // An `include` hides it (RFC 7208 6.2).
                if let Some(exp) = record.exp.as_ref().filter(|_| self.includes == 0) {
                    self.exp = Some((exp.clone(), domain.to_owned()));
                }
                return Ok((mechanism.verdict, String::new()));
            }
        }
        self.redirected(&record, domain, depth)
    }

    fn redirected(
        &mut self,
        record: &Record,
        domain: &str,
        depth: usize,
    ) -> Outcome<(Verdict, String)> {
        let all = record.mechanisms.iter().any(|mechanism| mechanism.what == What::All);
        let Some(redirect) = record.redirect.as_ref().filter(|_| !all) else {
            return Ok((Verdict::Neutral, format!("no term of {domain} matches")));
        };
        let term = format!("redirect={redirect}");
        self.count_lookup(&term)?;
        let target = self.name(redirect, domain)?;
        let outcome = format!("goes on with {target}");
        self.steps.push(Step { depth, domain: domain.to_owned(), term, outcome });
        match self.check(&target, depth + 1)? {
            (Verdict::None, why) => {
                Err(Stop::Error(Verdict::PermError, format!("redirect: {why}")))
            }
            other => Ok(other),
        }
    }

    /// The one SPF record of a domain (RFC 7208 4.3 to 4.5).
    fn record_of(&mut self, domain: &str) -> Outcome<Option<String>> {
        if !domain.contains('.') || Question::new(domain.as_bytes(), Kind::Txt).is_err() {
            return Ok(None);
        }
        let texts = match self.ask(Kind::Txt, domain)? {
            Answer::Records(texts) => texts.as_slice(),
            Answer::Void => &[],
            Answer::Temporary => {
                let why = format!("the DNS does not say the record of {domain} now");
                return Err(Stop::Error(Verdict::TempError, why));
            }
        };
        let mut records = texts.iter().filter(|text| record::is_record(text));
        match (records.next(), records.next()) {
            (Some(_), Some(_)) => {
                let why = format!("{domain} has more than one SPF record");
                Err(Stop::Error(Verdict::PermError, why))
            }
            (record, _) => Ok(record.cloned()),
        }
    }

    fn name(&mut self, text: &str, domain: &str) -> Outcome<String> {
        let validated = match macros::wants_name(text) {
            true => self.validated_name(domain)?,
            false => "unknown".to_owned(),
        };
        Ok(macros::name(text, &self.values(domain, &validated)))
    }

    fn values<'v>(&'v self, domain: &'v str, name: &'v str) -> Values<'v> {
        Values {
            ip: self.input.ip.to_canonical(),
            sender: &self.sender,
            domain,
            helo: &self.input.helo,
            name,
            receiver: self.receiver,
            now_s: self.now_s,
        }
    }

    /// A term's name; empty: the domain itself.
    fn target(&mut self, name: &str, domain: &str) -> Outcome<String> {
        if name.is_empty() { Ok(domain.to_owned()) } else { self.name(name, domain) }
    }

    /// Whether it matches, and what was seen, to be said behind that.
    fn matches(
        &mut self,
        mechanism: &Mechanism,
        domain: &str,
        depth: usize,
    ) -> Outcome<(bool, String)> {
        let asks = !matches!(mechanism.what, What::All | What::Ip4(..) | What::Ip6(..));
        if asks {
            self.count_lookup(&mechanism.text)?;
        }
        let ip = self.input.ip.to_canonical();
        match &mechanism.what {
            What::All => Ok((true, String::new())),
            What::Ip4(of, bits) => Ok((covers((*of).into(), *bits, ip), String::new())),
            What::Ip6(of, bits) => Ok((covers((*of).into(), *bits, ip), String::new())),
            What::Include(name) => {
                let target = self.name(name, domain)?;
                self.includes += 1;
                let included = self.check(&target, depth + 1)?.0;
                self.includes -= 1;
                match included {
                    Verdict::None => {
                        let why = format!("included {target} has no SPF record");
                        Err(Stop::Error(Verdict::PermError, why))
                    }
                    verdict => {
                        let seen = format!(" ({target} says {})", verdict.name());
                        Ok((verdict == Verdict::Pass, seen))
                    }
                }
            }
            What::A(name, v4, v6) => {
                let target = self.target(name, domain)?;
                self.has(&target, ip, (*v4, *v6))
            }
            What::Mx(name, v4, v6) => {
                let target = self.target(name, domain)?;
                self.exchanges(&target, ip, (*v4, *v6))
            }
            What::Exists(name) => {
                let target = self.name(name, domain)?;
                let found = self.records(Kind::A, &target)?;
                Ok((!found.is_empty(), format!(" ({target}: {})", listed(found))))
            }
            What::Ptr(name) => {
                let target = self.target(name, domain)?;
                let names = self.validated_names()?;
                let matches = names.iter().any(|name| is_below(name, &target));
                Ok((matches, format!(" ({})", listed(&names))))
            }
        }
    }

    /// Whether an address of a host covers the client.
    fn has(&mut self, host: &str, ip: IpAddr, (v4, v6): (u8, u8)) -> Outcome<(bool, String)> {
        let (kind, bits) = if ip.is_ipv4() { (Kind::A, v4) } else { (Kind::Aaaa, v6) };
        let found = self.records(kind, host)?;
        let matches = found.iter().any(|text| text.parse().is_ok_and(|of| covers(of, bits, ip)));
        Ok((matches, format!(" ({host}: {})", listed(found))))
    }

    fn exchanges(&mut self, domain: &str, ip: IpAddr, bits: (u8, u8)) -> Outcome<(bool, String)> {
        let hosts = self.records(Kind::Mx, domain)?;
        if hosts.len() > NAMES_MAX {
            let why = format!("{domain} has more than {NAMES_MAX} exchangers");
            return Err(Stop::Error(Verdict::PermError, why));
        }
        let mut seen = Vec::new();
        for host in hosts {
            let (matches, text) = self.has(host, ip, bits)?;
            seen.push(text.trim_matches([' ', '(', ')']).to_owned());
            if matches {
                return Ok((true, format!(" ({})", seen.join("; "))));
            }
        }
        Ok((false, format!(" ({})", if seen.is_empty() { "none".into() } else { seen.join("; ") })))
    }

    /// The client's names that lead back to it (RFC 7208 5.5); trouble makes it none.
    fn validated_names(&mut self) -> Outcome<Vec<String>> {
        let ip = self.input.ip.to_canonical();
        let reverse = reverse_name(ip);
        let Answer::Records(names) = self.ask(Kind::Ptr, &reverse)? else { return Ok(Vec::new()) };
        let kind = if ip.is_ipv4() { Kind::A } else { Kind::Aaaa };
        let mut valid = Vec::new();
        for name in names.iter().take(NAMES_MAX) {
            if let Answer::Records(addresses) = self.ask(kind, name)?
                && addresses.iter().any(|text| text.parse() == Ok(ip))
            {
                valid.push(name.clone());
            }
        }
        Ok(valid)
    }

    /// For the macro `p`: the domain itself, then one below it, then any (RFC 7208 7.3).
    fn validated_name(&mut self, domain: &str) -> Outcome<String> {
        let names = self.validated_names()?;
        let best = names
            .iter()
            .find(|name| name.eq_ignore_ascii_case(domain))
            .or_else(|| names.iter().find(|name| is_below(name, domain)))
            .or_else(|| names.first());
        Ok(best.cloned().unwrap_or_else(|| "unknown".to_owned()))
    }

    /// RFC 7208 6.2; trouble makes it empty.
    fn explanation(&mut self) -> Result<String, Need> {
        let Some((exp, domain)) = self.exp.clone() else { return Ok(String::new()) };
        let text = match self.name(&exp, &domain).and_then(|name| self.ask(Kind::Txt, &name)) {
            Err(Stop::Need(need)) => return Err(need),
            Ok(Answer::Records(texts)) if texts.len() == 1 => texts[0].clone(),
            _ => return Ok(String::new()),
        };
        if !macros::is_sound(&text, true) {
            return Ok(String::new());
        }
        let validated = match macros::wants_name(&text) {
            true => match self.validated_name(&domain) {
                Err(Stop::Need(need)) => return Err(need),
                Err(Stop::Error(..)) => return Ok(String::new()),
                Ok(name) => name,
            },
            false => String::new(),
        };
        Ok(macros::expand(&text, true, &self.values(&domain, &validated)))
    }
}

fn listed(records: &[String]) -> String {
    if records.is_empty() { "none".to_owned() } else { records.join(" ") }
}

fn is_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    name == domain || name.strip_suffix(&domain).is_some_and(|front| front.ends_with('.'))
}

fn covers(of: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let same = |a: u128, b: u128, all: u32| {
        let shift = all - u32::from(bits).min(all);
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (of, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

/// The name whose PTR records are an address's names.
fn reverse_name(ip: IpAddr) -> String {
    let octets = "%{ir}";
    let zone = if ip.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
    let values = Values { ip, sender: "", domain: "", helo: "", name: "", receiver: "", now_s: 0 };
    format!("{}.{zone}", macros::expand(octets, false, &values))
}

#[cfg(test)]
mod tests;
