//! ESMTP parameters of MAIL and RCPT: SIZE, BODY, SMTPUTF8, RET, ENVID; NOTIFY, ORCPT.

use super::{Offers, Wrong, decimal};
use crate::address;
use crate::limits::{ENVID_MAX, ORCPT_MAX, PARAMETERS_MAX};
use crate::reply;

/// BODY (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    /// 7BIT, also when nothing was said.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBitMime,
    /// BINARYMIME.
    BinaryMime,
}

/// RET (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole message comes back.
    Full,
    /// Only its header.
    Hdrs,
}

/// What MAIL said beside the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailParameters<'a> {
    /// SIZE in octets, as declared.
    pub size: Option<u64>,
    /// BODY.
    pub body: Body,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, still xtext (RFC 3461 4).
    pub envid: Option<&'a [u8]>,
}

/// NOTIFY (RFC 3461 4.1): all false is NEVER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify {
    /// Tell the sender of success.
    pub success: bool,
    /// Tell of failure.
    pub failure: bool,
    /// Tell of delay.
    pub delay: bool,
}

impl Notify {
    /// NEVER.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
}

/// What RCPT said beside the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RcptParameters<'a> {
    /// NOTIFY; none leaves it to us (failure, and delay).
    pub notify: Option<Notify>,
    /// ORCPT, `type;address`, still xtext.
    pub orcpt: Option<&'a [u8]>,
}

type Parameter<'a> = (&'a [u8], Option<&'a [u8]>);

/// `keyword[=value]` words (RFC 5321 4.1.2 esmtp-param).
fn words(text: &[u8]) -> impl Iterator<Item = Result<Parameter<'_>, Wrong>> {
    text.split(|&c| c == b' ').filter(|word| !word.is_empty()).enumerate().map(|(n, word)| {
        if n >= PARAMETERS_MAX {
            return Err(Wrong::Reply(&reply::PARAMETER));
        }
        let equals = word.iter().position(|&c| c == b'=');
        let (key, value) = equals.map_or((word, None), |at| (&word[..at], Some(&word[at + 1..])));
        let plain = key.iter().all(|&c| c.is_ascii_alphanumeric() || c == b'-');
        if key.is_empty() || key[0] == b'-' || !plain || value.is_some_and(<[u8]>::is_empty) {
            return Err(Wrong::Reply(&reply::VALUE));
        }
        Ok((key, value))
    })
}

/// Takes `seen`'s bit; a second time is a fault.
fn once(seen: &mut u8, bit: u8) -> Result<(), Wrong> {
    if *seen & bit != 0 {
        return Err(Wrong::Reply(&reply::TWICE));
    }
    *seen |= bit;
    Ok(())
}

const BAD: Wrong = Wrong::Reply(&reply::VALUE);

impl<'a> MailParameters<'a> {
    pub(super) fn parse(text: &'a [u8], offers: &Offers) -> Result<Self, Wrong> {
        let mut this = Self::default();
        let mut seen = 0;
        for word in words(text) {
            this.take(word?, offers, &mut seen)?;
        }
        Ok(this)
    }

    fn take(
        &mut self,
        (key, value): Parameter<'a>,
        offers: &Offers,
        seen: &mut u8,
    ) -> Result<(), Wrong> {
        let is = |name: &[u8]| key.eq_ignore_ascii_case(name);
        if let (true, Some(limit)) = (is(b"SIZE"), offers.size) {
            once(seen, 1)?;
            let size = value.and_then(decimal).ok_or(BAD)?;
            if limit != 0 && size > limit {
                return Err(Wrong::Reply(&reply::SIZE));
            }
            self.size = Some(size);
        } else if is(b"BODY") && offers.eight_bit_mime {
            once(seen, 2)?;
            self.body = match value.ok_or(BAD)?.to_ascii_uppercase().as_slice() {
                b"7BIT" => Body::SevenBit,
                b"8BITMIME" => Body::EightBitMime,
                b"BINARYMIME" if offers.chunking && offers.binary_mime => Body::BinaryMime,
                b"BINARYMIME" => return Err(Wrong::Reply(&reply::PARAMETER)),
                _ => return Err(BAD),
            };
        } else if is(b"SMTPUTF8") && offers.smtputf8 {
            once(seen, 4)?;
            if value.is_some() {
                return Err(BAD);
            }
            self.smtputf8 = true;
        } else if is(b"RET") && offers.dsn {
            once(seen, 8)?;
            self.ret = Some(match value.ok_or(BAD)?.to_ascii_uppercase().as_slice() {
                b"FULL" => Ret::Full,
                b"HDRS" => Ret::Hdrs,
                _ => return Err(BAD),
            });
        } else if is(b"ENVID") && offers.dsn {
            once(seen, 16)?;
            let value = value.filter(|v| v.len() <= ENVID_MAX && is_xtext(v)).ok_or(BAD)?;
            self.envid = Some(value);
        } else {
            return Err(Wrong::Reply(&reply::PARAMETER));
        }
        Ok(())
    }
}

impl<'a> RcptParameters<'a> {
    pub(super) fn parse(text: &'a [u8], offers: &Offers, utf8: bool) -> Result<Self, Wrong> {
        let mut this = Self::default();
        let mut seen = 0;
        for word in words(text) {
            let (key, value) = word?;
            if key.eq_ignore_ascii_case(b"NOTIFY") && offers.dsn {
                once(&mut seen, 1)?;
                this.notify = Some(notify(value.ok_or(BAD)?)?);
            } else if key.eq_ignore_ascii_case(b"ORCPT") && offers.dsn {
                once(&mut seen, 2)?;
                let value = value.filter(|v| is_orcpt(v, utf8)).ok_or(BAD)?;
                this.orcpt = Some(value);
            } else {
                return Err(Wrong::Reply(&reply::PARAMETER));
            }
        }
        Ok(this)
    }
}

fn notify(value: &[u8]) -> Result<Notify, Wrong> {
    let mut this = Notify::NEVER;
    if value.eq_ignore_ascii_case(b"NEVER") {
        return Ok(this);
    }
    for word in value.split(|&c| c == b',') {
        let flag = match word.to_ascii_uppercase().as_slice() {
            b"SUCCESS" => &mut this.success,
            b"FAILURE" => &mut this.failure,
            b"DELAY" => &mut this.delay,
            _ => return Err(BAD),
        };
        if std::mem::replace(flag, true) {
            return Err(Wrong::Reply(&reply::TWICE));
        }
    }
    Ok(this)
}

/// xtext (RFC 3461 4): printable, without `+` and `=` but for `+` and two upper-case hex digits.
#[must_use]
pub fn is_xtext(text: &[u8]) -> bool {
    let hex = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(c));
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        match octet {
            b'+' if hex(text.get(at + 1)) && hex(text.get(at + 2)) => at += 3,
            b'+' | b'=' => return false,
            0x21..=0x7e => at += 1,
            _ => return false,
        }
    }
    true
}

/// Appends what an xtext stands for, control octets included: never into a command or header.
pub fn decode_xtext(text: &[u8], out: &mut Vec<u8>) {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        let pair = text.get(at + 1..at + 3).and_then(|p| Some(digit(p[0])? << 4 | digit(p[1])?));
        match pair {
            Some(value) if octet == b'+' => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(octet);
                at += 1;
            }
        }
    }
}

/// `type;xtext`; with SMTPUTF8 also UTF-8 behind the semicolon (RFC 6533 3).
fn is_orcpt(text: &[u8], utf8: bool) -> bool {
    let Some(at) = text.iter().position(|&c| c == b';') else { return false };
    let (kind, value) = (&text[..at], &text[at + 1..]);
    let atom = |c: &u8| c.is_ascii_alphanumeric() || *c == b'-';
    if text.len() > ORCPT_MAX || kind.is_empty() || !kind.iter().all(atom) || value.is_empty() {
        return false;
    }
    if kind.eq_ignore_ascii_case(b"utf-8") && utf8 {
        return address::octets(value, true).is_ok() && !value.contains(&b'=');
    }
    is_xtext(value)
}

#[cfg(test)]
mod tests {
    use super::super::tests::ALL;
    use super::*;

    fn mail(text: &str) -> Result<MailParameters<'_>, Wrong> {
        MailParameters::parse(text.as_bytes(), &ALL)
    }

    fn rcpt(text: &str) -> Result<RcptParameters<'_>, Wrong> {
        RcptParameters::parse(text.as_bytes(), &ALL, false)
    }

    #[test]
    fn mail_parameters() {
        let all = mail("size=10 BODY=binarymime SMTPUTF8 RET=hdrs ENVID=a+2Bb").expect("all known");
        assert_eq!(all.size, Some(10));
        assert_eq!((all.body, all.ret), (Body::BinaryMime, Some(Ret::Hdrs)));
        assert_eq!(all.envid, Some(&b"a+2Bb"[..]));
        assert_eq!(mail("SIZE=1001"), Err(Wrong::Reply(&reply::SIZE)));
        assert_eq!(mail("SIZE=1 SIZE=1"), Err(Wrong::Reply(&reply::TWICE)));
        for text in ["SIZE", "SIZE=", "SIZE=-1", "BODY=9", "SMTPUTF8=x", "RET=x", "ENVID=a=b", "=x"]
        {
            assert_eq!(mail(text), Err(BAD), "{text}");
        }
        for text in ["REQUIRETLS", "BY=1;R", "MT-PRIORITY=3", "AUTH=<>", "X=1", "HOLDFOR=1"] {
            assert_eq!(mail(text), Err(Wrong::Reply(&reply::PARAMETER)), "{text}");
        }
        let bare = Offers { eight_bit_mime: false, smtputf8: false, dsn: false, ..ALL };
        for text in ["BODY=7BIT", "SMTPUTF8", "RET=FULL", "ENVID=x"] {
            let parsed = MailParameters::parse(text.as_bytes(), &bare);
            assert_eq!(parsed, Err(Wrong::Reply(&reply::PARAMETER)), "{text}");
        }
    }

    #[test]
    fn rcpt_parameters() {
        let all = rcpt("NOTIFY=success,DELAY ORCPT=rfc822;a+40b.org").expect("all known");
        assert_eq!(all.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(rcpt("NOTIFY=NEVER").expect("known").notify, Some(Notify::NEVER));
        for text in
            ["NOTIFY=NEVER,DELAY", "NOTIFY=", "NOTIFY", "ORCPT=x", "ORCPT=;x", "ORCPT=a;b+4x"]
        {
            assert_eq!(rcpt(text), Err(BAD), "{text}");
        }
        assert_eq!(rcpt("SIZE=1"), Err(Wrong::Reply(&reply::PARAMETER)));
        let mut out = Vec::new();
        decode_xtext(b"a+2Bb+", &mut out);
        assert_eq!(out, b"a+b+");
    }
}
