//! What all cores of a simulated node share: the plan, the truth, the clock, what clients send.

use std::sync::Arc;

use ringpostd::queue::Work;
use ringpostd::retry::{Schedule, Wall};
use spool::id::TransactionId;
use spool::log::StoredMessage;
use spool::message::Envelope;
use spool::sim::Random;

use super::hop::{Both, Fate, Link, Moods};
use super::plan::Plan;
use super::session::Script;
use super::truth::Truth;

/// Domains that mail goes to: `d0.example` and so on; the last is where reports go.
pub(super) const DESTINATIONS: u32 = 5;
const _: () = assert!(DESTINATIONS < 10);
pub(super) const UNSORTED: u32 = DESTINATIONS;

/// What all cores share.
pub(super) struct Common {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) truth: Truth,
    pub(super) now_us: u64,
    pub(super) wall_us: u64,
    pub(super) next_token: u64,
    pub(super) no_space: u64,
    pub(super) expired: u64,
    pub(super) moods: Moods,
    pub(super) both: Both,
    pub(super) receiving: Arc<smtp::server::Settings>,
    /// Messages that clients begin, in all and in this life.
    pub(super) begun: u64,
    pub(super) begun_life: u64,
    /// No more faults: the end is near.
    pub(super) calm: bool,
}

impl Common {
    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

/// A delivery under way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) id: TransactionId,
    pub(super) envelope: Option<Box<Envelope>>,
    pub(super) header: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) stored: Option<Box<StoredMessage>>,
    pub(super) chunks: u32,
    pub(super) sent: Vec<u16>,
    pub(super) link: Option<Box<Link>>,
    pub(super) next_us: u64,
    pub(super) rounds: u32,
}

pub(super) fn schedule(plan: &Plan) -> Schedule {
    Schedule {
        first_us: 500_000,
        factor_percent: 200,
        max_us: 8_000_000,
        jitter_percent: 20,
        give_up_us: plan.give_up_us,
    }
}

impl Common {
    pub(super) fn wants_mail(&self) -> bool {
        let enough = self.begun >= self.plan.messages && self.truth.accepted >= 100;
        if self.calm { !enough } else { self.begun_life < 4 * self.plan.messages }
    }

    /// Nothing may expire by a clock that lies.
    pub(super) fn note_expired(&mut self, wall: &Wall, job: &Job, fates: &[Fate]) {
        if !fates.contains(&Fate::Later) && job.link.is_some() {
            return;
        }
        self.expired += 1;
        let mail = self.truth.mail(job.id);
        let true_age = self.now_us.saturating_sub(mail.born_us);
        let age = wall.age(self.wall_us, self.wall_us.saturating_sub(true_age), job.work.tries);
        // A clock in doubt goes on from the newest record, which is as old as the log stood still.
        let early = true_age + 12_000_000 < self.plan.give_up_us;
        assert!(
            !early || (!wall.trusted() && age.may_expire),
            "{} expired after {} s by a clock that was set",
            job.id,
            true_age / 1_000_000
        );
    }

    pub(super) fn script(&mut self) -> Script {
        self.begun += 1;
        self.begun_life += 1;
        let n = self.begun;
        let r = &mut self.random;
        let plan = &self.plan;
        let large = r.one_in(plan.large_in);
        let size = if large { 20_000 + r.below(60_000) } else { r.below(plan.body_max) };
        let size = if r.one_in(70) { 140_000 + r.below(60_000) } else { size };
        let count = 1 + if r.one_in(4) { r.below(4) } else { 0 };
        let recipients = (0..count)
            .map(|k| format!("r{k}.{n}@d{}.example", r.below(u64::from(DESTINATIONS) - 1)))
            .collect();
        let sender = match r.one_in(12) {
            true => String::new(),
            false => format!("s{n}@d{}.example", DESTINATIONS - 1),
        };
        let mut content = format!("Subject: message {n}\r\nMessage-ID: <{n}@sim>\r\n\r\n");
        let line = r.below(NOISE_LINES);
        let size = usize::try_from(size).expect("small");
        while content.len() < size {
            let at = usize::try_from(line).expect("small") * 64;
            let noise = noise();
            let n = (size - content.len()).next_multiple_of(64).min(noise.len() - at);
            content.push_str(&noise[at..at + n]);
        }
        content.push_str(".\r\n..end\r\n");
        Script {
            sender,
            recipients,
            content: content.into_bytes(),
            says_size: r.one_in(2),
            leaves: r.one_in(25),
        }
    }
}

const NOISE_LINES: u64 = 1024;

/// Lines of 62 characters, some with a dot first.
fn noise() -> &'static str {
    static NOISE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NOISE.get_or_init(|| {
        let mut random = Random::new(62);
        let mut out = String::new();
        for _ in 0..4 * NOISE_LINES {
            let dot = random.one_in(9);
            for n in 0..62 {
                let c = b'0' + u8::try_from(random.below(75)).expect("small");
                out.push(if dot && n == 0 { '.' } else { char::from(c) });
            }
            out.push_str("\r\n");
        }
        out
    })
}

/// The number in `x@d3.example`.
pub(super) fn destination(address: &[u8]) -> u32 {
    let at = address.iter().rposition(|b| *b == b'@').expect("an address");
    u32::from(address[at + 2] - b'0')
}
