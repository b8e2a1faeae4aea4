//! Members of a mirror that fail, return, are lost and replaced: what the daemon's house does.

use spool::disk::Member;
use spool::limits::SUPERBLOCK_COPIES;
use spool::set::read_superblock;

use super::core::Ask;
use super::media::Medium;
use super::plan::{Layout, Planted};
use super::world::World;

/// What was asked for, and when it is done.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    asked: Vec<(u64, usize, Ask)>,
    /// Members that come back: when.
    returning: Vec<(u64, Member)>,
    /// Cores that have copied all they have.
    filled: Vec<(usize, Member)>,
    /// The power went while superblocks were written.
    pub(super) cut: bool,
    /// A member was put out in this life, or was being filled.
    pub(super) out: bool,
    pub(super) filling: bool,
    /// A member joined in this life.
    joined: bool,
}

impl World {
    /// Before a start: a member in step is lost for good. What was acknowledged is on the other.
    pub(super) fn lose_member(&mut self) {
        let plan = &self.common.plan;
        if plan.layout != Layout::Mirror || !self.common.random.one_in(plan.lose_in) {
            return;
        }
        let read = |m: &Medium| read_superblock(&mut m.clone()).ok();
        let blocks: Vec<_> = self.media.iter().map(read).collect();
        let newest = blocks.iter().flatten().max_by_key(|b| (b.generation.number, b.sequence));
        let Some(newest) = newest.cloned() else { return };
        let is_in = |n: usize| {
            let block = blocks[n].as_ref();
            block.is_some_and(|b| b.is_in_step_with(&newest))
        };
        let n = usize::try_from(self.common.random.below(2)).expect("small");
        if is_in(0) && is_in(1) {
            self.replace(n);
            self.reached.row("member-lost");
        }
    }

    /// A blank device in the place of a member.
    fn replace(&mut self, n: usize) {
        let bytes = self.media[n].with(|d| d.medium().len());
        let bytes = u64::try_from(bytes).expect("small");
        self.media[n] = Medium::new(&format!("sim{n}"), bytes, &self.fuse);
    }

    /// What logs asked for in this turn, and what is due of it.
    pub(super) fn keep(&mut self) {
        for (n, core) in self.cores.iter_mut().enumerate() {
            for ask in std::mem::take(&mut core.asks) {
                let due = self.common.now_us + self.common.random.below(5_000);
                self.keeper.asked.push((due, n, ask));
            }
        }
        let now_us = self.common.now_us;
        let (due, later) =
            std::mem::take(&mut self.keeper.asked).into_iter().partition(|(t, ..)| *t <= now_us);
        self.keeper.asked = later;
        let due: Vec<(u64, usize, Ask)> = due;
        for (_, n, ask) in due {
            match ask {
                Ask::Out(member) => self.put_out(n, member),
                Ask::Filled(member) => self.filled(n, member),
            }
        }
        let (due, later) =
            std::mem::take(&mut self.keeper.returning).into_iter().partition(|(t, _)| *t <= now_us);
        self.keeper.returning = later;
        let due: Vec<(u64, Member)> = due;
        for (_, member) in due {
            self.joins(member);
        }
    }

    /// The member that was put out is there again, or a blank device in its place.
    fn joins(&mut self, member: Member) {
        let n = usize::from(member);
        // What it still owes might land on top of what it is filled with.
        if self.cores.iter().any(|c| c.disk.owes(member)) {
            return self.keeper.returning.push((self.common.now_us + 1_000, member));
        }
        if self.common.random.one_in(2) {
            self.replace(n);
        }
        let mut medium = self.media[n].clone();
        let Some(set) = &self.set else { return };
        let blanking = set.admit(&mut medium).expect("it was put out");
        assert_eq!(blanking.member(), member);
        let cut = !self.common.calm && self.common.random.one_in(20);
        if cut {
            self.fuse.burn_after(self.common.random.below(10));
            self.reached.row("join-half");
        }
        let done = blanking.write(&mut medium);
        self.fuse.never();
        if done.is_err() {
            // A bad place: it stays out.
            assert!(cut || medium.with(|d| !d.bad.is_empty()), "no faults here");
            self.keeper.cut = cut;
            return self.reached.fault("member-returned", 0);
        }
        let Some(set) = &mut self.set else { return };
        set.joins(member, medium.clone()).expect("its place is free");
        self.reached.fault("member-returned", 1);
        let short = self.cores.iter().filter(|core| core.log.is_scarce()).count();
        self.reached.fault("member-returned-to-a-full-log", u64::try_from(short).expect("small"));
        (self.keeper.out, self.keeper.filling, self.keeper.joined) = (false, true, true);
        self.keeper.filled.retain(|(_, m)| *m != member);
        for core in &mut self.cores {
            core.disk.join(member, medium.clone());
            core.notes.filling.push(member);
            core.log.member_joins(member, 0);
        }
    }

    fn put_out(&mut self, core: usize, member: Member) {
        self.keeper.filled.retain(|(_, m)| *m != member);
        if self.common.plan.planted != Planted::NoGeneration {
            let cut = self.fuse_for_generation();
            let id = u128::from(self.common.random.next_u64());
            let Some(set) = &mut self.set else { return };
            let done = set.put_out(member, id);
            self.fuse.never();
            if done.is_err() {
                assert!(cut, "no faults here");
                self.keeper.cut = true;
                self.reached.row("generation-half");
                return self.cores[core].log.member_stays(self.common.now_us);
            }
        }
        self.reached.fault("member-put-out", 1);
        (self.keeper.out, self.keeper.filling) = (true, false);
        for core in &mut self.cores {
            core.log.member_out(member, self.common.now_us);
        }
        self.keeper.returning.retain(|(_, m)| *m != member);
        if self.common.random.one_in(self.common.plan.return_in) {
            let due = self.common.now_us + 1_000 + self.common.random.below(3_000_000);
            self.keeper.returning.push((due, member));
        }
    }

    fn fuse_for_generation(&mut self) -> bool {
        let cut = !self.common.calm && self.common.random.one_in(20);
        if cut {
            self.fuse.burn_after(self.common.random.below(SUPERBLOCK_COPIES));
        }
        cut
    }

    fn filled(&mut self, core: usize, member: Member) {
        self.keeper.filled.push((core, member));
        if self.keeper.filled.iter().filter(|(_, m)| *m == member).count() < self.cores.len() {
            return;
        }
        let Some(set) = &mut self.set else { return };
        if !set.joining_numbers().contains(&member) {
            return;
        }
        let cut = self.fuse_for_generation();
        let id = u128::from(self.common.random.next_u64());
        let Some(set) = &mut self.set else { return };
        let done = set.take_in(member, id);
        self.fuse.never();
        if done.is_err() {
            assert!(cut, "no faults here");
            self.keeper.cut = true;
            return self.reached.row("generation-half");
        }
        self.reached.fault("member-filled", 1);
        self.keeper.filling = false;
        for core in &mut self.cores {
            core.log.member_in(member);
            core.notes.filling.clear();
        }
    }

    pub(super) fn mirror_at_cut(&mut self) {
        if self.keeper.out {
            self.reached.row("member-out");
        }
        if self.keeper.filling {
            self.reached.row(if self.keeper.joined { "joined" } else { "filling" });
        }
        self.keeper = Keeper::default();
    }
}
