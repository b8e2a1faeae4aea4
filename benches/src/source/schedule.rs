//! When messages and sessions of a source begin, and what time does to those that stand.

use std::time::Duration;

use super::options::Pace;
use super::session::Step;
use super::{Source, TICK_NS};
use crate::floor::ring::Net;
use crate::limits::{IDLE_CONNECTING_MAX, OPEN_LOOP_WAITING_MAX, SOURCE_TICK_MS};

impl Source<'_> {
    /// Open loop: moves messages whose time has come to the waiting ones, and starts them.
    fn arrivals(&mut self, net: &mut Net, now: u64, rate: f64, duration: Duration) -> u64 {
        let at = |number: u64| {
            let due = Duration::from_secs_f64(number as f64 / rate);
            u64::try_from(due.as_nanos()).unwrap_or(u64::MAX)
        };
        let due_so_far = self.begun + self.waiting.len() as u64;
        let mut number = due_so_far;
        let mut due = at(number);
        while due <= now
            && u128::from(due) < duration.as_nanos()
            && !self.stopping
            && self.waiting.len() < OPEN_LOOP_WAITING_MAX
        {
            self.waiting.push_back(due);
            number += 1;
            due = at(number);
        }
        while !self.waiting.is_empty() {
            let Some(conn) = self.resting.pop() else { break };
            if net.is_open(conn) && self.session(conn).step == Step::Rest {
                self.next_message(net, conn, now);
            }
        }
        due
    }

    /// Opens what is missing and says when to look again.
    pub(super) fn start_sessions(&mut self, net: &mut Net, now: u64) -> u64 {
        let mut look_again = u64::MAX;
        let wanted = match self.options.pace {
            Pace::Open { rate, duration } => {
                look_again = self.arrivals(net, now, rate, duration);
                let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
                let missing = waiting.saturating_sub(self.connecting);
                self.options.sessions.min(self.live.saturating_add(missing))
            }
            Pace::Idle(_) => {
                let room = IDLE_CONNECTING_MAX.saturating_sub(self.connecting);
                self.options.sessions.min(self.live + room)
            }
            Pace::Total(total) => {
                let left = u32::try_from(total - self.begun.min(total)).unwrap_or(u32::MAX);
                self.options.sessions.min(self.live.saturating_add(left))
            }
            Pace::For(_) => self.options.sessions,
        };
        if self.live < wanted && self.more(now) {
            if now < self.reconnect_at {
                look_again = look_again.min(self.reconnect_at);
            } else {
                for _ in self.live..wanted {
                    self.open(net, now);
                }
            }
        }
        look_again
    }

    /// Time-outs, slow clients, progress, idle sessions that have stood long enough.
    pub(super) fn tick(&mut self, net: &mut Net, now: u64) {
        self.tick_at = now + TICK_NS;
        let timeout = u64::try_from(self.options.timeout.as_nanos()).unwrap_or(u64::MAX);
        let piece = self.options.slow.map_or(0, |(_, octets_per_s)| {
            (u64::from(octets_per_s) * SOURCE_TICK_MS / 1000).max(1)
        });
        for index in 0..self.sessions.len() {
            let Some(conn) = net.conn(index) else { continue };
            let (step, since) = (self.sessions[index].step, self.sessions[index].since);
            match step {
                Step::Closed => {}
                Step::Rest if self.stopping || !self.more(now) => self.quit(net, conn, now),
                Step::Rest => {}
                Step::End if now.saturating_sub(since) > timeout => {
                    self.drop_session(net, conn, now, "not closed");
                }
                _ if now.saturating_sub(since) > timeout => {
                    self.drop_session(net, conn, now, "time-out");
                }
                _ => {}
            }
            if let Some(trickle) = &mut self.sessions[index].slow
                && !trickle.is_empty()
            {
                let octets = trickle.len().min(usize::try_from(piece).unwrap_or(usize::MAX));
                net.out(conn).extend(trickle.drain(..octets));
                self.sessions[index].since = now;
            }
        }
        if self.options.progress && now >= self.progress_at {
            self.progress_at += 1_000_000_000;
            let acked = self.record.acked - self.progress_acked;
            self.progress_acked = self.record.acked;
            eprint!(
                "\r{:>4} s {:>8} messages/s {:>6} sessions {:>5} failures ",
                now / 1_000_000_000,
                acked,
                self.live,
                self.record.failures
            );
        }
    }
}
