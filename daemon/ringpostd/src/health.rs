//! The door of the machine's own health check: one recipient that nobody else can name.
//!
//! Init gives the daemon a secret word in [`VARIABLE`]. Mail to `<word>.health.invalid` from this
//! very machine is taken and kept like any other, waits in the queue, and is removed by whoever
//! asked for it. The next start throws away what is left of it.
//!
//! *Guarantees.* No such name exists in the DNS (RFC 2606) and every route ends here, so this mail
//! never leaves the machine. Without the word, or from elsewhere, the recipient is a stranger's.
//! *Failure.* A word that is too short to be a secret opens no door.

/// The variable that holds the word.
pub const VARIABLE: &str = "RINGPOSTD_HEALTH";

/// Below it nothing is anybody's.
const ABOVE: &str = ".health.invalid";

/// Letters and digits of a word: at least a secret, at most a label.
const WORD_MIN: usize = 32;
const WORD_MAX: usize = 63;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Door {
    domain: Option<Box<str>>,
}

impl Door {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::new(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn new(word: &str) -> Self {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (WORD_MIN..=WORD_MAX).contains(&word.len()) && word.chars().all(plain);
        Self { domain: fits.then(|| format!("{word}{ABOVE}").into()) }
    }

    /// Whether there is a health check.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.domain.is_some()
    }

    /// Whether this domain, in lower case, is the one that is kept.
    #[must_use]
    pub fn is(&self, domain: &str) -> bool {
        self.domain.as_deref() == Some(domain)
    }
}

/// Whether mail for this domain, in any case, can only be that of a health check.
#[must_use]
pub fn is_below(domain: &str) -> bool {
    let at = domain.len().checked_sub(ABOVE.len());
    let tail = at.and_then(|at| domain.get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(ABOVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_secret_opens_the_door() {
        let word = "0123456789abcdef0123456789abcdef";
        let door = Door::new(word);
        assert!(door.is(&format!("{word}.health.invalid")));
        assert!(!door.is(".health.invalid") && !door.is("x.health.invalid") && !door.is(word));
        for bad in ["", "short", "0123456789ABCDEF0123456789ABCDEF", &"a".repeat(64), &word[1..]] {
            assert_eq!(Door::new(bad), Door::default(), "{bad}");
        }
        assert!(!Door::default().is(""));
    }

    #[test]
    fn everything_below_the_name_is_known() {
        assert!(is_below("a.health.invalid") && is_below("A.Health.INVALID"));
        assert!(!is_below("health.invalid") && !is_below("ahealth.invalid") && !is_below(""));
        assert!(!is_below("health.invalid.example"));
    }
}
