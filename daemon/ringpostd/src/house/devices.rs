//! The spool's superblocks while the daemon runs: members of a mirror put out and taken in.
//!
//! *Guarantees*: a core acknowledges nothing on fewer copies before the generation that says so is
//! durable on every other member.
//! *Failure*: when that cannot be written, the core that asked answers 451 and asks again.

use crate::events::{Alarm, Note};
use crate::post::ToCore;

use super::House;

/// What is known of a member that does not count.
#[derive(Debug, Default)]
pub(super) struct Absent {
    /// Cores that have copied all they have to it.
    filled: Vec<(usize, u16)>,
    /// Members put out in this life.
    pub(super) out: Vec<u16>,
    /// Members that were filled in this life.
    pub(super) back: Vec<u16>,
}

impl House {
    /// A core's log wants a member put out.
    pub(super) fn member_fails(&self, core: usize, member: u16) {
        if self.absent.borrow().out.contains(&member) {
            // Another core asked before.
            return self.tell_all(move || ToCore::MemberOut(member));
        }
        let done = random().map_err(|error| error.to_string()).and_then(|id| {
            let done = self.set.borrow_mut().put_out(member, id);
            done.map_err(|error| error.to_string())
        });
        match done {
            Ok(device) => {
                // The cores have descriptors of their own.
                drop(device);
                let mut absent = self.absent.borrow_mut();
                absent.filled.retain(|(_, m)| *m != member);
                absent.back.retain(|m| *m != member);
                absent.out.push(member);
                self.tell_all(move || ToCore::MemberOut(member));
            }
            Err(error) => {
                let text = format!("device {member} cannot be put out: {error}");
                self.journal.borrow_mut().alarm(Alarm::Device, &text);
                let _ = self.mailboxes[core].post(ToCore::MemberStays);
            }
        }
    }

    /// A core has copied all it has to a member.
    pub(super) fn member_filled(&self, core: usize, member: u16) {
        let all = {
            let mut absent = self.absent.borrow_mut();
            if !absent.filled.contains(&(core, member)) {
                absent.filled.push((core, member));
            }
            absent.filled.iter().filter(|(_, m)| *m == member).count()
        };
        if all < self.mailboxes.len() || !self.set.borrow().joining_numbers().contains(&member) {
            return;
        }
        let done = random().map_err(|error| error.to_string()).and_then(|id| {
            let done = self.set.borrow_mut().take_in(member, id);
            done.map_err(|error| error.to_string())
        });
        match done {
            Ok(()) => {
                self.absent.borrow_mut().back.push(member);
                self.note(Note::Recovered, &format!("device {member} is filled and counts again"));
                self.tell_all(move || ToCore::MemberIn(member));
            }
            Err(error) => {
                let text = format!("device {member} is filled, but cannot be taken in: {error}");
                self.journal.borrow_mut().alarm(Alarm::Device, &text);
            }
        }
    }

    /// What the operator should know of members, beside what was known at start.
    pub(super) fn device_alarms(&self, lines: &mut Vec<String>) {
        let absent = self.absent.borrow();
        for member in &absent.back {
            lines.retain(|line| !line.starts_with(&format!("device {member} of the spool is ")));
        }
        for member in &absent.out {
            lines.retain(|line| !line.starts_with(&format!("device {member} of the spool is ")));
            lines.push(format!("device {member} of the spool is out: mail has one copy only"));
        }
    }
}

fn random() -> Result<u128, getrandom::Error> {
    let mut octets = [0; 16];
    getrandom::fill(&mut octets)?;
    Ok(u128::from_ne_bytes(octets))
}
