//! Content from the caller to the output, by DATA or in BDAT chunks.
//!
//! *Guarantees*: one copy, from the caller's piece into the output; a chunk's size is written into
//! room kept before it.
//!
//! *Limits*: one chunk is under way at a time, and nothing follows it before its reply.

use super::limits::{CHUNK_HEADER_MAX, CHUNK_OCTETS, CONTENT_AHEAD, PIECE_MAX};
use super::machine::{Client, Command};
use super::outcome::Event;
use super::stuff::{end, normalise, stuff};
use super::transaction::{Method, Phase};
use crate::command::Body;

impl Client {
    /// Whether [`Client::put_content`] takes something now. When it turns true again after a
    /// chunk, [`Event::Content`] says so; after a full output, [`Client::consume`] does.
    #[must_use]
    pub fn want_content(&self) -> bool {
        let Some(t) = &self.transaction else { return false };
        t.phase == Phase::Content
            && !t.ended
            && match t.method {
                Method::Data => self.output().len() < CONTENT_AHEAD,
                Method::Bdat => self.expected.is_empty(),
            }
    }

    /// Takes content, header first, in pieces of any size; returns how many octets were taken,
    /// from the front. 0 while content is not wanted, and when a chunk had to be closed first.
    #[must_use]
    pub fn put_content(&mut self, now_us: u64, piece: &[u8]) -> usize {
        if !self.want_content() {
            return 0;
        }
        let piece = &piece[..piece.len().min(PIECE_MAX)];
        let gap = match self.chunk {
            Some(gap) if self.out.len() - gap - CHUNK_HEADER_MAX >= CHUNK_OCTETS => {
                self.close_chunk(now_us, gap, false);
                return 0;
            }
            other => other,
        };
        let Some(t) = &mut self.transaction else { return 0 };
        if t.method == Method::Data {
            stuff(piece, &mut t.lines, &mut self.out);
        } else {
            if gap.is_none() {
                self.chunk = Some(self.out.len());
                self.out.resize(self.out.len() + CHUNK_HEADER_MAX, b' ');
            }
            if t.envelope.body == Body::BinaryMime {
                self.out.extend_from_slice(piece);
            } else {
                normalise(piece, &mut t.lines, &mut self.out);
            }
        }
        self.deadline_us = now_us.saturating_add(self.settings.timeouts.block_us);
        piece.len()
    }

    /// The caller has given all content.
    pub fn end_content(&mut self, now_us: u64) {
        let Some(t) = &mut self.transaction else { return };
        if t.phase != Phase::Content || t.ended {
            return;
        }
        t.ended = true;
        match t.method {
            Method::Data => {
                end(&mut t.lines, &mut self.out);
                t.phase = Phase::Final;
                self.expect(now_us, Command::Dot);
            }
            Method::Bdat if self.expected.is_empty() => self.last_chunk(now_us),
            // The chunk under way is answered first.
            Method::Bdat => {}
        }
    }

    /// 2yz to a chunk that was not the last.
    pub(super) fn chunk_taken(&mut self, now_us: u64) {
        self.deadline_us = now_us.saturating_add(self.settings.timeouts.block_us);
        if self.transaction.as_ref().is_some_and(|t| t.ended) {
            self.last_chunk(now_us);
        } else {
            self.events.push_back(Event::Content);
        }
    }

    /// Forgets a chunk that was not closed.
    pub(super) fn drop_chunk(&mut self) {
        if let Some(gap) = self.chunk.take() {
            self.out.truncate(gap);
        }
    }

    fn last_chunk(&mut self, now_us: u64) {
        let gap = self.chunk.unwrap_or_else(|| {
            let gap = self.out.len();
            self.out.resize(gap + CHUNK_HEADER_MAX, b' ');
            gap
        });
        if let Some(t) = &mut self.transaction {
            t.phase = Phase::Final;
        }
        self.close_chunk(now_us, gap, true);
    }

    /// Writes the command into the room before the chunk, and moves up what stands before it.
    fn close_chunk(&mut self, now_us: u64, gap: usize, last: bool) {
        let size = self.out.len() - gap - CHUNK_HEADER_MAX;
        let header = format!("BDAT {size}{}\r\n", if last { " LAST" } else { "" });
        let spare = CHUNK_HEADER_MAX - header.len();
        self.out[gap + spare..gap + CHUNK_HEADER_MAX].copy_from_slice(header.as_bytes());
        self.out.copy_within(self.out_start..gap, self.out_start + spare);
        self.out_start += spare;
        self.chunk = None;
        self.expect(now_us, if last { Command::LastChunk } else { Command::Chunk });
    }
}
