//! The relay of one core: reads, conversations with next hops, what became of each message.

use smtp::dsn;
use smtp::reply::Enhanced;
use spool::disk::AlignedBuffer;
use spool::id::TransactionId;
use spool::log::{Log, OpenKind, Part, ReadData, ReadError};
use spool::message::{Envelope, Recipient, flags, notify};
use spool::received;
use spool::record::{RecipientResult, RecipientState as State};

use ringpostd::queue::{Outcome, Work};
use ringpostd::retry::Retry;

use super::common::{Common, Job, UNSORTED, destination};
use super::core::CoreSim;
use super::hop::{Fate, Link};
use super::plan::{Hops, Planted};

impl CoreSim {
    pub(super) fn begin_due(&mut self, common: &mut Common) {
        let room = 64usize.saturating_sub(self.jobs.len());
        let mut works = Vec::new();
        self.queue.next_ready(common.now_us, room, &mut works);
        for work in works {
            self.begin(common, work);
        }
    }

    fn begin(&mut self, common: &mut Common, work: Work) {
        let id = self.names[usize::try_from(work.message).expect("an index")];
        if self.log.get(id).is_none() {
            return self.leave(common, &work, id, Outcome::Done);
        }
        let mut job = Job {
            work,
            id,
            envelope: None,
            header: Vec::new(),
            body: Vec::new(),
            stored: None,
            chunks: 0,
            sent: Vec::new(),
            link: None,
            next_us: u64::MAX,
            rounds: 0,
        };
        let fresh = self.fresh.get(&id).map(|(e, c)| (e.clone(), c.clone()));
        let number = self.next_job;
        self.next_job += 1;
        if let Some((envelope, content)) = fresh {
            (job.header, job.body) = (content.header, content.body);
            job.envelope = Some(envelope);
            self.jobs.insert(number, job);
            self.route(common, number);
        } else {
            self.jobs.insert(number, job);
            self.ask(common, number, Part::Message);
        }
    }

    fn ask(&mut self, common: &mut Common, number: u64, part: Part) {
        let token = common.token();
        let id = self.jobs[&number].id;
        match self.log.read(id, part, token) {
            Ok(()) => {
                self.reads.insert(token, number);
            }
            Err(ReadError::Unknown) => {
                let job = self.jobs.remove(&number).expect("a job");
                self.leave(common, &job.work, id, Outcome::Done);
            }
            Err(ReadError::Damaged) => {
                let job = self.jobs.remove(&number).expect("a job");
                assert!(common.truth.any_harm, "{id} misses a chunk");
                self.give_up_harmed(common, id, &job.work);
            }
            Err(_) => self.put_off(common, number),
        }
    }

    fn put_off(&mut self, common: &mut Common, number: u64) {
        let job = self.jobs.remove(&number).expect("a job");
        let outcome = Outcome::Later {
            due_us: common.now_us + 200_000,
            expires_us: self.expires_us(common, job.id),
        };
        self.leave(common, &job.work, job.id, outcome);
    }

    fn leave(&mut self, common: &mut Common, work: &Work, id: TransactionId, outcome: Outcome) {
        let random = common.random.next_u64();
        self.queue.finished(work.handle, common.now_us, outcome, &self.wall, random);
        if outcome == Outcome::Done {
            self.fresh.remove(&id);
            if let Some(handles) = self.handles.get_mut(&id) {
                handles.retain(|h| *h != work.handle);
            }
        }
    }

    pub(super) fn read(
        &mut self,
        common: &mut Common,
        token: u64,
        result: Result<ReadData, ReadError>,
    ) {
        let Some(number) = self.reads.remove(&token) else { return };
        let Some(job) = self.jobs.get_mut(&number) else { return };
        match result {
            Ok(ReadData::Message(stored)) => {
                job.header.clone_from(&stored.header);
                job.stored = Some(stored);
            }
            Ok(ReadData::Chunk(data)) => {
                job.body.extend_from_slice(&data);
                job.chunks += 1;
            }
            Err(ReadError::Unknown) => {
                // Settled, or moved, while it was being read.
                return self.put_off(common, number);
            }
            Err(ReadError::Damaged) => {
                let (id, work) = (job.id, job.work);
                let harmed = common.truth.mail(id).harmed;
                assert!(harmed || common.truth.any_harm, "{id} does not check");
                self.jobs.remove(&number);
                return self.give_up_harmed(common, id, &work);
            }
            Err(ReadError::Busy | ReadError::Disk(_)) => return self.put_off(common, number),
        }
        let Some(stored) = &mut job.stored else { return };
        if job.chunks < stored.chunks {
            let part = Part::Chunk(job.chunks);
            return self.ask(common, number, part);
        }
        let mut stored = job.stored.take().expect("just there");
        job.body.append(&mut stored.tail);
        job.envelope = Some(Box::new(stored.envelope));
        self.route(common, number);
    }

    /// What cannot be read any more is removed by the operator.
    fn give_up_harmed(&mut self, common: &mut Common, id: TransactionId, work: &Work) {
        common.truth.harm(&[id]);
        self.leave(common, work, id, Outcome::Done);
        let _ = self.log.done_all(id, State::Removed, None, common.now_us);
        for r in &mut common.truth.mail_mut(id).rcpts {
            r.settled = r.settled.or(Some(State::Removed));
        }
    }

    fn route(&mut self, common: &mut Common, number: u64) {
        let job = self.jobs.get_mut(&number).expect("a job");
        let (id, work) = (job.id, job.work);
        let Some(live) = self.log.get(id) else {
            self.jobs.remove(&number);
            return self.leave(common, &work, id, Outcome::Done);
        };
        let envelope = job.envelope.as_deref().expect("it was read");
        if work.destination == UNSORTED {
            let envelope = envelope.clone();
            self.jobs.remove(&number);
            self.leave(common, &work, id, Outcome::Done);
            return self.enter(common, id, &envelope, common.now_us);
        }
        let mine: Vec<u16> = (0..live.recipients)
            .filter(|n| live.is_pending(*n))
            .filter(|n| {
                destination(&envelope.recipients[usize::from(*n)].address) == work.destination
            })
            .collect();
        if mine.is_empty() {
            self.jobs.remove(&number);
            return self.leave(common, &work, id, Outcome::Done);
        }
        let age = self.wall.age(common.wall_us, envelope.received_wall_us, work.tries);
        let planted = common.plan.planted == Planted::ClockExpires;
        job.sent.clone_from(&mine);
        if work.expired && (age.may_expire || planted) {
            let fates = mine.iter().map(|_| Fate::Never).collect();
            return self.settle(common, number, fates, &[], false, true);
        }
        self.connect(common, number);
    }

    fn connect(&mut self, common: &mut Common, number: u64) {
        let job = self.jobs.get_mut(&number).expect("a job");
        let envelope = job.envelope.as_deref().expect("it was read");
        let mut content = received::apply(&job.header, envelope);
        content.extend_from_slice(&job.body);
        let recipients = job.sent.iter().map(|n| smtp::client::Recipient {
            address: envelope.recipients[usize::from(*n)].address.clone(),
            ..smtp::client::Recipient::default()
        });
        let out = smtp::client::Envelope {
            sender: envelope.mail.address.clone(),
            body: smtp::command::Body::EightBitMime,
            size: u64::try_from(content.len()).expect("small"),
            recipients: recipients.collect(),
            ..smtp::client::Envelope::default()
        };
        let mut hops = if common.calm { Hops::default() } else { common.plan.hops };
        if hops.one_dead && job.work.destination == 0 {
            hops.down_in = 1;
        }
        let link = Link::open(&common.both, hops, job.id, out, content, common.now_us);
        job.link = Some(Box::new(link));
        job.next_us = common.now_us + 200 + common.random.below(5_000);
    }

    pub(super) fn run_jobs(&mut self, common: &mut Common) {
        let mut due: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.link.is_some() && j.next_us <= common.now_us)
            .map(|(n, _)| *n)
            .collect();
        due.sort_unstable();
        for number in due {
            let job = self.jobs.get_mut(&number).expect("a job");
            let link = job.link.as_mut().expect("linked");
            let (truth, moods) = (&mut common.truth, &mut common.moods);
            link.round(job.rounds == 0, truth, &mut common.random, moods, common.now_us);
            job.rounds += 1;
            job.next_us = common.now_us + 100 + common.random.below(2_000);
            assert!(job.rounds < 200, "the conversation about {} does not end", job.id);
            let all = link.fates.len() == job.sent.len();
            if all || link.over {
                let link = job.link.take().expect("linked");
                self.finish(common, number, &link);
            }
        }
    }

    fn finish(&mut self, common: &mut Common, number: u64, link: &Link) {
        let job = &self.jobs[&number];
        let mut fates = vec![Fate::Later; job.sent.len()];
        let mut texts: Vec<Box<str>> = vec![Box::from("451 no answer"); job.sent.len()];
        for (n, fate, text) in &link.fates {
            fates[*n] = *fate;
            texts[*n].clone_from(text);
        }
        for n in &link.unknown {
            common.truth.reply_lost(job.id, job.sent[*n]);
        }
        self.settle(common, number, fates, &texts, link.unreachable, false);
    }

    /// As `relay::settle`: what failed for too long fails, reports, DONEs, the next attempt.
    fn settle(
        &mut self,
        common: &mut Common,
        number: u64,
        mut fates: Vec<Fate>,
        texts: &[Box<str>],
        unreachable: bool,
        expired: bool,
    ) {
        let job = self.jobs.remove(&number).expect("a job");
        let envelope = job.envelope.as_deref().expect("it was read");
        let tries = self.log.get(job.id).map_or(0, |l| l.tries).saturating_add(1);
        let planted = common.plan.planted == Planted::ClockExpires;
        let mut age = self.wall.age(common.wall_us, envelope.received_wall_us, job.work.tries);
        age.may_expire |= planted;
        let random = common.random.next_u64();
        let next = self.schedule.next(u32::from(tries), age, random);
        if next == Retry::Expired || expired {
            common.note_expired(&self.wall, &job, &fates);
            for fate in fates.iter_mut().filter(|f| **f == Fate::Later) {
                *fate = Fate::Never;
            }
        }
        self.write_done(common, &job, envelope, &fates, texts, tries);
        if !fates.contains(&Fate::Later) {
            return self.leave(common, &job.work, job.id, Outcome::Done);
        }
        let wait_us = match next {
            Retry::At(wait_us) => wait_us,
            Retry::Expired => self.schedule.first_us,
        };
        let later = |f: &Fate| *f == Fate::Later;
        let results = results(&job, &fates, texts, envelope, tries, later);
        let next_wall_us = common.wall_us + wait_us;
        let _ = self.log.defer(job.id, next_wall_us, tries, 0, results, common.now_us);
        let outcome = if unreachable && !job.work.expired {
            Outcome::Unreachable
        } else {
            let expires_us = self.expires_us(common, job.id);
            Outcome::Later { due_us: common.now_us + wait_us, expires_us }
        };
        self.leave(common, &job.work, job.id, outcome);
    }

    fn write_done(
        &mut self,
        common: &mut Common,
        job: &Job,
        envelope: &Envelope,
        fates: &[Fate],
        texts: &[Box<str>],
        tries: u16,
    ) {
        let handed = common.random.one_in(16);
        let mut done = results(job, fates, texts, envelope, tries, |f| *f == Fate::Delivered);
        if handed {
            done.iter_mut().for_each(|r| r.state = State::HandedOver);
        }
        let failed = results(job, fates, texts, envelope, tries, |f| *f == Fate::Never);
        if !failed.is_empty() && !self.report(common, job, envelope, &failed) {
            done.extend(failed);
        }
        if done.is_empty() {
            return;
        }
        let token = common.token();
        for r in &done {
            common.truth.asked(job.id, r.recipient, r.state, None);
        }
        let which = done.iter().map(|r| r.recipient).collect();
        common.truth.expect_change(token, job.id, which);
        self.log.done(job.id, done, Some(token), common.now_us).expect("it is there");
    }

    /// The report and the DONE of what it tells of, in one batch. False: nobody is to be told.
    fn report(
        &mut self,
        common: &mut Common,
        job: &Job,
        envelope: &Envelope,
        failed: &[RecipientResult],
    ) -> bool {
        let id = TransactionId { session: self.new_id(), n: 1 };
        let Some(told) = write_report(common, job, envelope, failed, id) else { return false };
        let token = common.token();
        let own = Envelope {
            id,
            parent: Some(job.id),
            received_wall_us: self.wall.for_receipt(common.now_us, common.wall_us),
            recipients: vec![Recipient {
                address: told.recipient.clone(),
                notify: Some(notify::NEVER),
                ..Recipient::default()
            }],
            flags: flags::GENERATED,
            ..Envelope::default()
        };
        let size = u64::try_from(told.content.len()).expect("small");
        let Ok(tx) = self.log.open(OpenKind::Own, id, Some(size), token) else { return true };
        let (header, body) = told.content.split_at(told.header_len);
        self.log.append_header(tx, header).expect("small");
        self.log.append_body(tx, body).expect("small");
        let which: Vec<u16> = failed.iter().map(|r| r.recipient).collect();
        common.truth.handed_over(&own, header, body, Some((job.id, which)), common.now_us);
        let apart = common.plan.planted == Planted::TwoBatches;
        let mut replaces = Vec::new();
        if !apart {
            for r in failed {
                common.truth.asked(job.id, r.recipient, r.state, Some(id));
            }
            let done = Log::<AlignedBuffer>::done_change(job.id, None, failed.to_vec(), Some(id));
            replaces.push(done);
        }
        self.log.commit(tx, &own, replaces).expect("a report fits");
        let later = apart.then(|| (job.id, failed.to_vec()));
        self.reports.insert(token, (Box::new(own), later));
        true
    }
}

fn results(
    job: &Job,
    fates: &[Fate],
    texts: &[Box<str>],
    envelope: &Envelope,
    tries: u16,
    which: impl Fn(&Fate) -> bool,
) -> Vec<RecipientResult> {
    let null = envelope.mail.address.is_empty();
    let all = job.sent.iter().zip(fates).enumerate().filter(|(_, (_, fate))| which(fate));
    all.map(|(i, (n, fate))| RecipientResult {
        recipient: *n,
        state: match fate {
            Fate::Delivered => State::Delivered,
            Fate::Later => State::Pending,
            Fate::Never if null => State::Discarded,
            Fate::Never => State::Failed,
        },
        reply: texts.get(i).map_or(&b""[..], |t| t.as_bytes()).into(),
        tries,
        ..RecipientResult::default()
    })
    .collect()
}

fn write_report(
    common: &Common,
    job: &Job,
    envelope: &Envelope,
    failed: &[RecipientResult],
    id: TransactionId,
) -> Option<dsn::Notification> {
    let recipients: Vec<dsn::Recipient<'_>> = failed
        .iter()
        .map(|r| dsn::Recipient {
            address: &envelope.recipients[usize::from(r.recipient)].address,
            orcpt: None,
            notify: None,
            action: dsn::Action::Failed,
            enhanced: Enhanced(5, 0, 0),
            remote_mta: None,
            diagnostic: std::str::from_utf8(&r.reply).unwrap_or_default(),
            last_attempt_wall_us: Some(common.wall_us),
            retry_until_wall_us: None,
        })
        .collect();
    dsn::notify(&dsn::Report {
        host: "sim.example",
        id: &id.to_string(),
        wall_us: common.wall_us,
        original: dsn::Original {
            sender: &envelope.mail.address,
            envid: None,
            ret: None,
            smtputf8: false,
            arrival_wall_us: envelope.received_wall_us,
            header: &job.header,
            body: None,
        },
        recipients: &recipients,
    })
}
