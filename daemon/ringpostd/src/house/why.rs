//! Why: what the recorders of all cores, the queue, the hints, the standing orders and the log
//! files know of one id, address or client, in one answer.

use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use control::limits::STORY_LINES_MAX;
use control::{
    Failure, FailureCode, List, LogFilter, QueueEntry, QueueFilter, QueueMessage, RecipientState,
    Reply, Request, Story, StoryLine, Text, WhyFilter, XdpLine,
};
use hints::{Kind, client_key};

use super::limits::LOG_SEARCHES_MAX;
use super::{House, questions};
use crate::config::Network;
use crate::events::Reason;
use crate::inbound::rehearsal::PLAYED_ID;
use crate::metrics::Counter;
use crate::recorder::{Wanted, advice};

/// Waiting messages that are told of an address.
const QUEUED_MAX: u16 = 20;
const SECOND_US: u64 = 1_000_000;

fn line(source: &str, id: &str, what: &str, text: &str) -> StoryLine {
    StoryLine {
        source: Text::cut(source),
        id: Text::cut(id),
        what: Text::cut(what),
        text: Text::cut(text),
        ..StoryLine::default()
    }
}

/// Eight hexadecimal digits, as the filter's refusals carry them.
fn is_filter_id(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|octet| octet.is_ascii_hexdigit())
}

/// The address, where the network is but one.
fn single(network: &Network) -> Option<String> {
    let address = network.address();
    let whole = if address.is_ipv4() { 32 } else { 128 };
    (network.prefix() == whole).then(|| address.to_string())
}

fn of_filter(of: &XdpLine) -> StoryLine {
    line("xdp", "", "listed", &format!("{}: {}", &*of.name, &*of.value))
}

impl House {
    pub(super) async fn why(self: &Rc<Self>, mut filter: WhyFilter) -> Reply {
        if is_filter_id(&filter.what) {
            match self.of_filter_id(&filter.what).await {
                Ok(address) => filter.what = address,
                Err(reply) => return self.of_lapsed(&filter.what).await.unwrap_or(*reply),
            }
        }
        if filter.what.trim().starts_with(PLAYED_ID) {
            let message = "a played session leaves nothing behind";
            let advice = "play it again: each check's verdict stands beside its replies";
            return Reply::Failure(Failure::new(FailureCode::Refused, message, advice));
        }
        let Some(wanted) = Wanted::parse(&filter.what) else {
            let message = "this is no id, no mail address, no IP address and no network";
            let advice = "an id stands in every reply and every log line";
            return Reply::Failure(Failure::new(FailureCode::Refused, message, advice));
        };
        let parts = match self.questions.ask(Request::Why(filter.clone())).await {
            Ok(parts) => parts,
            Err(failure) => return Reply::Failure(failure),
        };
        let (mut lines, mut left_out, mut sums) = (Vec::new(), 0, Vec::new());
        for (core, part) in parts.into_iter().enumerate() {
            match part {
                Some(Reply::Story(story)) => {
                    lines.extend(story.lines.iter().cloned());
                    left_out += story.left_out;
                }
                Some(Reply::Failure(failure)) => sums.push(failure.message.to_string()),
                _ => sums.push(format!("core {core} does not answer")),
            }
        }
        lines.sort_by_key(|line| line.at_us);
        let recorded = !lines.is_empty();
        if filter.after_us == 0 {
            let mut logged = None;
            if filter.logs || !recorded {
                logged = self.logged(&wanted, &mut sums).await;
            }
            let searched = logged.is_some();
            let mut logged = logged.unwrap_or_default();
            logged.append(&mut lines);
            lines = logged;
            lines.extend(self.listed(&wanted).await);
            self.queued(&wanted, &mut lines, &mut sums).await;
            self.hinted(&wanted, &mut lines);
            conclude(&lines, &mut sums);
            if lines.is_empty() {
                self.unknown(searched, &mut sums).await;
            }
        }
        if lines.len() > STORY_LINES_MAX {
            let many = lines.len() - STORY_LINES_MAX;
            left_out += many as u64;
            lines.drain(..many);
        }
        Reply::Story(Box::new(Story {
            about: filter.what,
            sums: List::cut(sums.iter().map(|sum| Text::cut(sum))),
            lines: List::cut(lines),
            left_out,
            next: None,
        }))
    }

    /// The client that an entry of the filter's tables is about, whose number the filter's own 554
    /// carries; else the whole answer.
    async fn of_filter_id(
        self: &Rc<Self>,
        id: &str,
    ) -> Result<Text<{ control::limits::ADDRESS_OCTETS_MAX }>, Box<Reply>> {
        let page = match self.look_up(id, engine::wall_us()).await {
            Reply::Xdp(page) => page,
            other => return Err(Box::new(other)),
        };
        let address = page.lines.iter().find(|line| *line.name == *"address");
        address.map(|address| Text::cut(&address.value)).ok_or_else(|| {
            let (about, lines) = (Text::cut(id), List::cut(page.lines.iter().map(of_filter)));
            Box::new(Reply::Story(Box::new(Story { about, lines, ..Story::default() })))
        })
    }

    /// A ban of the filter that is no more stands in the log files.
    async fn of_lapsed(&self, id: &str) -> Option<Reply> {
        let part = format!(", id {id}");
        let (lines, mut sums) =
            self.in_log_files(move |folder| logfiles::about(folder, &part)).await.ok()?;
        if lines.is_empty() {
            return None;
        }
        sums.push("No ban and no list has this id any more; the log files had it.".to_owned());
        Some(Reply::Story(Box::new(Story {
            about: Text::cut(id),
            sums: List::cut(sums.iter().map(|sum| Text::cut(sum))),
            lines: List::cut(lines),
            ..Story::default()
        })))
    }

    /// What lists, bans and the filter have of one client.
    async fn listed(self: &Rc<Self>, wanted: &Wanted) -> Vec<StoryLine> {
        let Wanted::Network(network) = wanted else { return Vec::new() };
        let Some(address) = single(network) else { return Vec::new() };
        let Reply::Xdp(page) = self.look_up(&address, engine::wall_us()).await else {
            return Vec::new();
        };
        let telling = |line: &&XdpLine| {
            *line.name != *"address" && (&*line.name, &*line.value) != ("ban", "none")
        };
        page.lines.iter().filter(telling).map(of_filter).collect()
    }

    /// Asks the log files, beside this thread.
    async fn in_log_files<T: Default + Send + 'static>(
        &self,
        ask: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if self.searches.get() >= LOG_SEARCHES_MAX {
            let advice = "ask again in a few seconds";
            return Err(Failure::new(FailureCode::Busy, "too many searches at once", advice));
        }
        self.searches.set(self.searches.get() + 1);
        let folder = self.orders.borrow().config.log.dir.clone();
        let found = tokio::task::spawn_blocking(move || ask(&folder)).await;
        self.searches.set(self.searches.get() - 1);
        Ok(found.unwrap_or_default())
    }

    /// Lines of the log files.
    pub(super) async fn log_grep(&self, filter: LogFilter) -> Reply {
        let search = move |folder: &Path| logfiles::search::search(folder, &filter);
        match self.in_log_files(search).await {
            Ok(story) => Reply::Story(Box::new(story)),
            Err(failure) => Reply::Failure(failure),
        }
    }

    /// What the log files have; `None` where they were not searched, which is said: it is no
    /// "unknown".
    async fn logged(&self, wanted: &Wanted, sums: &mut Vec<String>) -> Option<Vec<StoryLine>> {
        let part = match wanted {
            Wanted::Id(id) => Some(id.clone()),
            Wanted::Address(address) => Some(address.clone()),
            Wanted::Network(network) => single(network),
        };
        let Some(part) = part else {
            let said = "The log files are not searched for a network: `ringpost log grep` finds \
                        the beginning of its addresses.";
            sums.push(said.to_owned());
            return None;
        };
        match self.in_log_files(move |folder| logfiles::about(folder, &part)).await {
            Ok((lines, said)) => {
                sums.extend(said);
                Some(lines)
            }
            Err(failure) => {
                sums.push(format!("The log files were not searched: {}.", &*failure.message));
                None
            }
        }
    }

    /// Where it was looked for in vain, how far back that goes, and what may be missing.
    async fn unknown(&self, logs: bool, sums: &mut Vec<String>) {
        let mut places = "the last events of each core, the queue".to_owned();
        if logs {
            let reach = self.in_log_files(logfiles::reach).await;
            let reach = reach.unwrap_or_else(|failure| failure.message.to_string());
            places.push_str(&format!(", the log files ({reach})"));
        }
        sums.push(format!("Searched: {places}."));
        let lost: u64 =
            self.views.borrow().iter().map(|view| view.counter(Counter::LogLinesLost)).sum();
        if lost > 0 {
            sums.push(format!(
                "{lost} lines about refused mail were dropped since the start: it came faster \
                 than the log could be written."
            ));
        }
    }

    async fn queued(&self, wanted: &Wanted, lines: &mut Vec<StoryLine>, sums: &mut Vec<String>) {
        match wanted {
            Wanted::Id(id) => {
                let ask = Request::QueueShow { id: Text::cut(id) };
                if let Ok(parts) = self.questions.ask(ask).await
                    && let Reply::Message(message) = questions::message(parts)
                {
                    told_message(&message, lines, sums);
                }
            }
            Wanted::Address(address) => {
                for sender in [false, true] {
                    let text = Some(Text::cut(address));
                    let mut filter =
                        QueueFilter { count_max: QUEUED_MAX, ..QueueFilter::default() };
                    *(if sender { &mut filter.sender } else { &mut filter.recipient }) = text;
                    if let Reply::Queue(page) = self.queue_list(filter).await {
                        lines.extend(page.messages.iter().map(waiting));
                    }
                }
            }
            Wanted::Network(_) => {}
        }
    }

    /// What is remembered of a client, and what the operator ordered.
    fn hinted(&self, wanted: &Wanted, lines: &mut Vec<StoryLine>) {
        let Wanted::Network(network) = wanted else { return };
        let wall_us = engine::wall_us();
        let rules = Arc::clone(&self.orders.borrow().rules);
        let address: IpAddr = network.address();
        let touched = |l: &&crate::rules::Listed| {
            l.network.contains(address) || network.contains(l.network.address())
        };
        for listed in rules.listed.iter().filter(touched) {
            let verb = if listed.allow { "let in past every limit" } else { "turned away" };
            let until = match listed.until_s {
                0 => "until it is taken back".to_owned(),
                until => {
                    let left = until.saturating_sub(wall_us / SECOND_US);
                    format!("for {left} s more")
                }
            };
            let text = format!("{} is {verb} {until}: {}", listed.text, listed.why);
            lines.push(line("rules", "", "listed", &text));
        }
        let key = client_key(address);
        if let Some(standing) = self.hints.standing(key.as_ref(), wall_us) {
            let score = standing.score_milli_at(wall_us);
            let text = format!("score of its offences {}.{:03}", score / 1000, score % 1000);
            lines.push(line("hints", "", "standing", &text));
        }
        let note = crate::standing::note_key(key.as_ref());
        if let Some(note) = self.hints.note(&note, wall_us) {
            let text = format!("the daemon fell over {} times in its sessions", note.count);
            lines.push(line("hints", "", Kind::Note.name(), &text));
        }
    }
}

fn waiting(entry: &QueueEntry) -> StoryLine {
    let state = match (entry.held, entry.next_s) {
        (true, _) => "held".to_owned(),
        (_, 0) => "due now".to_owned(),
        (_, next) => format!("next try in {next} s"),
    };
    let text = format!(
        "waits in the queue since {} s, {} tries, {state}: <{}> to <{}>: {}",
        entry.age_s, entry.tries, &*entry.sender, &*entry.recipient, &*entry.last
    );
    line("queue", &entry.id, "queued", &text)
}

fn told_message(message: &QueueMessage, lines: &mut Vec<StoryLine>, sums: &mut Vec<String>) {
    let entry = &message.entry;
    let text = format!(
        "received from {} (HELO {}), {} octets from <{}>",
        &*message.client, &*message.helo, entry.size_octets, &*entry.sender
    );
    lines.push(line("queue", &entry.id, "queued", &text));
    for recipient in message.recipients.iter() {
        let state = match recipient.state {
            RecipientState::Pending => "waits",
            RecipientState::Delivered => "was delivered",
            RecipientState::HandedOver => "was handed over",
            RecipientState::Failed => "failed",
            RecipientState::Held => "is held",
            RecipientState::Redirected => "was redirected",
            RecipientState::Removed => "was removed",
            _ => "?",
        };
        let (address, tries) = (&*recipient.address, recipient.tries);
        let moved = recipient.next_hop.strip_prefix('@').map_or_else(String::new, |host| {
            format!(", moved to {host} (`ringpost queue unmove` takes it back)")
        });
        let text = format!("<{address}> {state} after {tries} tries{moved}: {}", &*recipient.last);
        lines.push(line("queue", &entry.id, "recipient", &text));
    }
    let due = match (entry.held, entry.next_s) {
        (true, _) => "it is held: `ringpost queue thaw` lets it go".to_owned(),
        (_, 0) => "it is due now".to_owned(),
        (_, next) => format!("the next try is in {next} s"),
    };
    sums.push(format!("It waits for {} of {} recipients; {due}.", entry.pending, entry.recipients));
}

/// What it comes to: the newest trouble in words, with what can be done.
fn conclude(lines: &[StoryLine], sums: &mut Vec<String>) {
    let trouble = ["refused", "turned-away", "bounced", "deferred", "limit", "tls-failed"];
    let newest = lines.iter().rev().find(|line| trouble.contains(&&*line.what));
    let after_it = |what: &str| {
        newest.is_some_and(|newest| {
            lines.iter().any(|line| {
                *line.what == *what && line.id == newest.id && line.at_us > newest.at_us
            })
        })
    };
    if let Some(newest) = newest {
        let went_on = after_it("completed") || after_it("relayed");
        let begin = if went_on { "The last trouble, over by now" } else { "The last trouble" };
        sums.push(format!("{begin}: {}", &*newest.text));
        let reason = Reason::ALL.iter().find(|reason| reason.label() == &*newest.reason);
        if let Some(advice) = reason.map(|reason| advice(*reason)).filter(|text| !text.is_empty()) {
            sums.push(format!("See: {advice}"));
        }
    }
    let ended = lines
        .iter()
        .rev()
        .find(|line| ["completed", "relayed", "removed", "accepted"].contains(&&*line.what));
    if let Some(ended) = ended {
        sums.push(format!("The last good news: {}", &*ended.text));
    }
}
