//! Content under way: DATA, chunks, refused chunks, and the end of a message.

use super::{Asked, Closed, End, Host, Phase, Question, Refused, Server, Stage};
use crate::data::{Event, Flow, Sink};
use crate::reply::{self, Reply};

/// Lends the host what the scanner finds, and remembers whether it wants a pause.
struct Lend<'a, H> {
    host: &'a mut H,
    not_now: bool,
}

impl<H: Host> Sink for Lend<'_, H> {
    fn header(&mut self, octets: &[u8]) -> Flow {
        let flow = self.host.header(octets);
        self.not_now |= flow == Flow::NotNow;
        flow
    }

    fn body(&mut self, octets: &[u8]) -> Flow {
        let flow = self.host.body(octets);
        self.not_now |= flow == Flow::NotNow;
        flow
    }
}

impl Server {
    /// Content of DATA.
    pub(super) fn data(&mut self, input: &[u8], host: &mut impl Host) -> usize {
        let (used, event) = self.scan(input, host);
        if self.is_closed() {
            return used;
        }
        match event {
            Event::Bare if self.refused.is_none() => self.bare(host),
            Event::End => {
                self.phase = Phase::Ending;
                self.settle(host);
            }
            Event::HeaderEnd => self.header_end(host),
            Event::Bare | Event::More | Event::NotNow => {}
        }
        used
    }

    /// Content of a chunk.
    pub(super) fn chunk(
        &mut self,
        input: &[u8],
        left: u64,
        last: bool,
        host: &mut impl Host,
    ) -> usize {
        let n = usize::try_from(left).map_or(input.len(), |left| input.len().min(left));
        let (used, event) = self.scan(&input[..n], host);
        let left = left - used as u64;
        match self.phase {
            // A limit was broken: the rest is passed over.
            Phase::Skip { .. } => self.phase = Phase::Skip { left, last },
            Phase::Chunk { .. } => self.phase = Phase::Chunk { left, last },
            _ => return used,
        }
        match event {
            Event::Bare if self.refused.is_none() => self.bare(host),
            Event::HeaderEnd if self.refused.is_none() => self.header_end(host),
            _ => {}
        }
        self.settle(host);
        used
    }

    /// Octets of a refused chunk.
    pub(super) fn skip(
        &mut self,
        input: &[u8],
        left: u64,
        last: bool,
        host: &mut impl Host,
    ) -> usize {
        let n = usize::try_from(left).map_or(input.len(), |left| input.len().min(left));
        self.phase = Phase::Skip { left: left - n as u64, last };
        self.progress(n);
        self.give_up(host);
        self.settle(host);
        n
    }

    fn scan(&mut self, input: &[u8], host: &mut impl Host) -> (usize, Event) {
        let mut lend = Lend { host, not_now: false };
        let (used, event) = self.scanner.feed(input, &mut lend);
        self.paused |= lend.not_now && event != Event::End;
        self.progress(used);
        if self.refused.is_some() {
            self.give_up(host);
            return (used, event);
        }
        let facts = self.scanner.facts();
        let over = if facts.header_octets > self.settings.header_max {
            Some(&reply::HEADER_LARGE)
        } else if self.too_large(facts.octets) {
            Some(&reply::SIZE)
        } else {
            None
        };
        // What is over a limit is refused for that, however it goes on: the cut must not matter.
        if let Some(over) = over {
            self.refuse_content(Refused::Fixed(over), host);
            self.give_up(host);
        }
        (used, event)
    }

    fn progress(&mut self, octets: usize) {
        self.mark_us = self.now_us;
        self.transferred = self.transferred.saturating_add(octets as u64);
        self.consumed = self.consumed.saturating_add(octets as u64);
    }

    /// Ends the session if what is read for nothing has no end.
    fn give_up(&mut self, host: &mut impl Host) {
        let size_max = self.offers.size.unwrap_or(0);
        if self.consumed > size_max.saturating_add(self.settings.swallow_max) {
            if let Some(refused) = self.refused.take() {
                self.say(&refused, host);
            }
            self.close(Closed::TooLarge, host);
        }
    }

    fn bare(&mut self, host: &mut impl Host) {
        let why = Closed::FramingError;
        self.refuse_and_close(Stage::Data, &reply::BARE_CONTENT, b"", why, host);
    }

    /// The rest of this content is read and dropped; the refusal is said at its end.
    pub(super) fn refuse_content(&mut self, refused: Refused, host: &mut impl Host) {
        let close = matches!(&refused, Refused::Host(refusal) if refusal.close);
        if close {
            return self.say(&refused, host);
        }
        // Told now, while the host still has what came of it; said at the end.
        if self.owed_end {
            self.tell(&refused, host);
            self.told = true;
        }
        self.refused = Some(refused);
        self.scanner.discard();
        self.paused = false;
        if let Phase::Chunk { left, last } = self.phase {
            self.phase = Phase::Skip { left, last };
        }
        // Whatever the host keeps of it may go now.
        if std::mem::take(&mut self.owed_end) {
            host.done(End::Refused);
        }
    }

    /// A chunk is refused before its octets came.
    pub(super) fn refuse_chunk(
        &mut self,
        refused: Refused,
        octets: u64,
        last: bool,
        host: &mut impl Host,
    ) {
        self.transfer_us = self.now_us;
        self.transferred = 0;
        self.consumed = 0;
        self.phase = Phase::Skip { left: octets, last };
        self.refuse_content(refused, host);
        self.settle(host);
    }

    pub(super) fn start_chunk(&mut self, octets: u64, last: bool, host: &mut impl Host) {
        self.transfer_us = self.now_us;
        self.transferred = 0;
        self.consumed = 0;
        self.phase = Phase::Chunk { left: octets, last };
        self.settle(host);
    }

    fn say(&mut self, refused: &Refused, host: &mut impl Host) {
        match refused {
            Refused::Fixed(reply) => reply.write_with_id(host.out(), &self.id),
            Refused::Host(refusal) => reply::write_refusal(host.out(), refusal, &self.id),
        }
        if !std::mem::take(&mut self.told) {
            self.tell(refused, host);
        }
        if matches!(refused, Refused::Host(refusal) if refusal.close) {
            self.close(Closed::Refused, host);
        }
    }

    fn tell(&self, refused: &Refused, host: &mut impl Host) {
        match refused {
            Refused::Fixed(reply) => super::tell_fixed(Stage::Data, reply, b"", host),
            Refused::Host(refusal) => super::tell_by_host(Stage::Data, refusal, b"", host),
        }
    }

    /// What of the rules can be judged from the header section alone.
    fn header_fault(&self) -> Option<&'static Reply> {
        let facts = self.scanner.facts();
        if facts.received >= self.settings.received_max {
            Some(&reply::LOOP)
        } else if facts.header_nul {
            Some(&reply::NUL)
        } else {
            None
        }
    }

    fn fault(&self) -> Option<&'static Reply> {
        let line_max = self.settings.text_line_max;
        let facts = self.scanner.facts();
        let binary = self.envelope.mail().body == crate::command::Body::BinaryMime;
        if line_max != 0 && self.scanner.line_longest() > line_max {
            Some(&reply::TEXT_LINE)
        } else if facts.body_nul && !binary && !self.settings.nul_in_body {
            Some(&reply::NUL)
        } else {
            None
        }
    }

    fn header_end(&mut self, host: &mut impl Host) {
        if self.refused.is_some() {
            return;
        }
        self.header_asked = true;
        if let Some(fault) = self.header_fault() {
            return self.refuse_content(Refused::Fixed(fault), host);
        }
        let token = self.token();
        let facts = self.scanner.facts();
        let answer = host.ask(token, Question::Header { envelope: &self.envelope, facts });
        self.asked_about(token, Asked::Header, answer, host);
    }

    /// Goes as far as it can without input.
    pub(super) fn settle(&mut self, host: &mut impl Host) {
        while !self.blocked() {
            match self.phase {
                Phase::Chunk { left: 0, last } => self.chunk_end(last, host),
                Phase::Skip { left: 0, last } => {
                    self.phase = Phase::Command;
                    self.mark_us = self.now_us;
                    self.chunks_refused = !last;
                    if let Some(refused) = self.refused.take() {
                        self.say(&refused, host);
                    }
                    self.end_transaction(End::Refused, host);
                    return;
                }
                Phase::Ending if !self.header_asked && self.refused.is_none() => {
                    self.header_end(host);
                }
                Phase::Ending => {
                    self.message_end(host);
                    return;
                }
                _ => return,
            }
        }
    }

    fn chunk_end(&mut self, last: bool, host: &mut impl Host) {
        self.mark_us = self.now_us;
        if !last {
            self.phase = Phase::Command;
            reply::CHUNK_OK.write(host.out());
            return;
        }
        self.phase = Phase::Ending;
        let mut lend = Lend { host, not_now: false };
        if self.scanner.finish(&mut lend) == Event::Bare {
            self.bare(host);
        }
    }

    fn message_end(&mut self, host: &mut impl Host) {
        self.phase = Phase::Command;
        self.mark_us = self.now_us;
        let fault = self.fault().map(Refused::Fixed);
        if let Some(refused) = self.refused.take().or(fault) {
            self.say(&refused, host);
            self.end_transaction(End::Refused, host);
            return;
        }
        let token = self.token();
        let facts = self.scanner.facts();
        let answer = host.ask(token, Question::Message { envelope: &self.envelope, facts });
        self.asked_about(token, Asked::Message, answer, host);
    }
}
