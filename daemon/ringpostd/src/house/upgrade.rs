//! Another version of the whole image: asked of the machine's init, which is our service manager.
//!
//! *Guarantees*: nothing is checked or written here; init does both, as for the console.
//! *Limits*: `ANSWER_WAIT` until init takes the question, `UPGRADE_WAIT` until it has done it.
//! *Failure*: init's own line. A service manager that is not our init takes no such question, and
//! that is said.

use std::io;
use std::time::Duration;

use control::{Failure, FailureCode, Reply, Text, Upgrade};
use tokio::net::UnixDatagram;

use super::House;
use super::limits::{ANSWER_WAIT, UPGRADE_WAIT};

/// Octets of one answer.
const ANSWER_OCTETS_MAX: usize = 4096;
/// What init says first, and in front of how it ended.
const TAKEN: &str = "taken";
const DONE: &str = "done ";
const REFUSED: &str = "refused ";

fn refuse(message: &str, advice: &str) -> Reply {
    Reply::Failure(Failure::new(FailureCode::Refused, message, advice))
}

fn nobody() -> Reply {
    refuse(
        "no init of the image answers the daemon",
        "only the image is upgraded as a whole; elsewhere replace the program, then restart it",
    )
}

impl House {
    /// Has init check, write and try a version.
    pub(super) async fn upgrade(&self, wanted: Upgrade) -> Reply {
        let place = &*wanted.manifest;
        if place.is_empty() || place.chars().any(char::is_control) {
            return refuse("that is no place of a manifest", "say a path or http://HOST/PATH");
        }
        let flags = [("downgrade", wanted.downgrade), ("later", wanted.later)];
        let mut question = format!("X_RINGPOST_UPGRADE={place}\n");
        for (flag, _) in flags.iter().filter(|(_, wanted)| *wanted) {
            question.push_str(&format!("X_RINGPOST_OPTION=--{flag}\n"));
        }
        let Some(Ok(ear)) = self.notify.ask(&question) else { return nobody() };
        let Ok(ear) = UnixDatagram::from_std(ear) else { return nobody() };
        match hear(&ear, ANSWER_WAIT).await {
            Ok(Some(word)) if word == TAKEN => {}
            _ => return nobody(),
        }
        let told = hear(&ear, UPGRADE_WAIT).await;
        match told.as_ref().map(Option::as_deref) {
            Ok(Some(text)) => answer(text),
            _ => refuse(
                "init does not say how the upgrade ended",
                "the serial line has its words; `ringpost upgrade` again, if the machine stays up",
            ),
        }
    }
}

fn answer(text: &str) -> Reply {
    if let Some(message) = text.strip_prefix(DONE) {
        return Reply::Done { message: Text::cut(message.trim()) };
    }
    refuse(text.strip_prefix(REFUSED).unwrap_or(text).trim(), "nothing was changed")
}

/// The next message, if one comes in time.
async fn hear(ear: &UnixDatagram, wait: Duration) -> io::Result<Option<String>> {
    let mut octets = vec![0; ANSWER_OCTETS_MAX];
    let Ok(got) = tokio::time::timeout(wait, ear.recv(&mut octets)).await else { return Ok(None) };
    let got = got?;
    Ok(Some(String::from_utf8_lossy(octets.get(..got).unwrap_or_default()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_says_is_passed_on_whole() {
        let Reply::Done { message } = answer("done 1.1.0 is written\n") else { panic!("done") };
        assert_eq!(&*message, "1.1.0 is written");
        let Reply::Failure(failure) = answer("refused the signature is not of our key\n") else {
            panic!("refused")
        };
        assert_eq!(&*failure.message, "the signature is not of our key");
        assert!(matches!(answer("anything else"), Reply::Failure(_)));
    }
}
