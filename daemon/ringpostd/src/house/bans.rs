//! Bans as a whole: how many there are, and whether the lists they are for still say so.
//!
//! *Limits*: [`ASKED_MAX`] bans are asked about in one round.
//! *Not here*: the kernel's table (`filter`), bans by hand (`ladder`).

use std::net::IpAddr;

use ::hints::ban::Ban;
use ::hints::{Kind, Value};

use crate::events::{Alarm, Note};
use crate::post::ToCore;
use crate::xdp::first_zone;

use super::House;
use super::filter::client_of;

/// How often the bans are counted.
const COUNT_TICKS: u64 = 10;
/// How often lists are asked again.
const ASK_TICKS: u64 = 15;
/// See the module.
const ASKED_MAX: usize = 200;

impl House {
    /// All bans that hold.
    fn bans(&self, wall_us: u64) -> impl Iterator<Item = (IpAddr, Ban)> {
        let records = self.hints.records(0, wall_us).map(|(_, record)| record);
        records.filter(|record| record.kind == Kind::Ban).filter_map(move |record| {
            match (client_of(record.key.octets()), record.value) {
                (Some(client), Value::Ban(ban)) if ban.holds(wall_us) => Some((client, ban)),
                _ => None,
            }
        })
    }

    /// Called each second.
    pub(super) fn look_at_bans(&self, tick: u64) {
        let wall_us = engine::wall_us();
        if tick.is_multiple_of(COUNT_TICKS) {
            let count = self.bans(wall_us).count();
            self.filter.fuse.counted(u32::try_from(count).unwrap_or(u32::MAX));
            let blown = self.filter.fuse.was_blown();
            if blown && !self.filter.blown.get() {
                self.filter.blown.set(true);
                self.fuse_line().into_iter().for_each(|line| self.alarm(Alarm::Filter, &line));
            } else if !blown && self.filter.blown.replace(false) {
                self.note(Note::Filter, "clients are banned again");
            }
        }
        if tick.is_multiple_of(ASK_TICKS) {
            self.ask_again(wall_us);
        }
    }

    /// What there is to say of the bound on bans, if it holds somebody back.
    pub(super) fn fuse_line(&self) -> Option<String> {
        let percent = self.orders.borrow().config.xdp.banned_percent_max;
        let most = self.filter.fuse.most(percent);
        self.filter.blown.get().then(|| {
            format!(
                "{most} clients are banned, as many as may be of those of the last hour: no more \
                 until some lapse; see [xdp] banned_percent_max and `ringpost xdp top`"
            )
        })
    }

    /// A ban for a DNS list ends with the listing: the list is asked again while it holds.
    fn ask_again(&self, wall_us: u64) {
        let first = first_zone(&self.orders.borrow().config);
        let of_zone = |(client, ban): (IpAddr, Ban)| {
            let list = u8::try_from(ban.list).ok().filter(|list| *list >= first)?;
            Some((client, list))
        };
        let mut bans: Vec<(IpAddr, u8)> = self.bans(wall_us).filter_map(of_zone).collect();
        if bans.is_empty() {
            return;
        }
        let from = self.filter.asked.get() % bans.len();
        bans.rotate_left(from);
        bans.truncate(ASKED_MAX);
        self.filter.asked.set(from + bans.len());
        if let Some(core) = self.mailboxes.first() {
            // A full mailbox loses the round; the next one comes.
            let _ = core.post(ToCore::Recheck(bans));
        }
    }

    /// A list lists a client no more.
    pub(super) fn lifted(&self, client: IpAddr, list: u8) {
        self.unbanned(client);
        let name = self.filter.lists.borrow().name(list).to_owned();
        self.note(Note::Filter, &format!("the ban of {client} is lifted: {name} lists it no more"));
    }
}
