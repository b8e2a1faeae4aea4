//! The name of a client's address, and whether that name leads back to it (RFC 1912 2.1, RFC 8601
//! 3).

use std::net::IpAddr;

use super::answer::{Data, Outcome};
use super::limits::REVERSE_NAMES_MAX;
use super::question::{Kind, Question};

/// What the DNS says of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverse {
    /// This name belongs to the address, both ways.
    Confirmed(Box<str>),
    /// The address claims this name (the first of several); none of its names leads back.
    Unconfirmed(Box<str>),
    /// The address has no name, or none a host can have.
    NoName,
    /// Not known for now; the name, where at least that was said.
    Unknown(Option<Box<str>>),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this; give its outcome to [`ReverseLookup::answer`].
    Ask(Question),
    /// That is it.
    Done(Reverse),
}

/// The questions about one address, one after the other.
#[derive(Debug)]
pub struct ReverseLookup {
    address: IpAddr,
    /// Last first; the one being looked up is at the end.
    names: Vec<Box<str>>,
    first: Option<Box<str>>,
    unsure: bool,
}

impl ReverseLookup {
    /// Begins with the first question.
    #[must_use]
    pub fn new(address: IpAddr) -> (Self, Question) {
        let address = address.to_canonical();
        let lookup = Self { address, names: Vec::new(), first: None, unsure: false };
        (lookup, Question::reverse(address))
    }

    /// Takes the outcome of the question asked last. [`Outcome::NeedsTcp`] counts as not known: ask
    /// the house first where that matters.
    pub fn answer(&mut self, outcome: &Outcome) -> Step {
        if self.first.is_none() {
            return self.named(outcome);
        }
        match outcome {
            Outcome::Found(answer) if answer.data.iter().any(|data| self.is_own(data)) => {
                return Step::Done(match self.names.pop() {
                    Some(name) => Reverse::Confirmed(name),
                    None => Reverse::NoName,
                });
            }
            Outcome::Failed(_) | Outcome::NeedsTcp(_) => self.unsure = true,
            _ => {}
        }
        self.names.pop();
        self.next()
    }

    fn named(&mut self, outcome: &Outcome) -> Step {
        match outcome {
            Outcome::Found(answer) => {
                let names = answer.data.iter().filter_map(|data| match data {
                    Data::Ptr(name) => Some(name.clone()),
                    _ => None,
                });
                self.names = names.take(REVERSE_NAMES_MAX).collect();
                self.names.reverse();
                self.first = self.names.last().cloned();
                if self.first.is_none() { Step::Done(Reverse::NoName) } else { self.next() }
            }
            Outcome::NoName { .. } | Outcome::NoData { .. } => Step::Done(Reverse::NoName),
            Outcome::Failed(super::answer::Failure::Malformed) => Step::Done(Reverse::NoName),
            Outcome::Failed(_) | Outcome::NeedsTcp(_) => Step::Done(Reverse::Unknown(None)),
        }
    }

    fn next(&mut self) -> Step {
        let kind = if self.address.is_ipv4() { Kind::A } else { Kind::Aaaa };
        while let Some(name) = self.names.last() {
            match Question::new(name.as_bytes(), kind) {
                Ok(question) => return Step::Ask(question),
                Err(_) => self.names.pop(),
            };
        }
        Step::Done(match (self.first.take(), self.unsure) {
            (first, true) => Reverse::Unknown(first),
            (Some(first), false) => Reverse::Unconfirmed(first),
            (None, false) => Reverse::NoName,
        })
    }

    fn is_own(&self, data: &Data) -> bool {
        match data {
            Data::A(v4) => self.address == IpAddr::V4(*v4),
            Data::Aaaa(v6) => self.address == IpAddr::V6(*v6).to_canonical(),
            _ => false,
        }
    }
}
