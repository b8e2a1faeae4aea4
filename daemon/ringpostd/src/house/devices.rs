//! The spool's superblocks while the daemon runs: members of a mirror put out and taken in.
//!
//! *Guarantees*: a core acknowledges nothing on fewer copies before the generation that says so is
//! durable on every other member. A device that is to be filled was emptied before any core writes
//! to it.
//! *Failure*: when that cannot be written, the core that asked answers 451 and asks again.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use control::{Failure, FailureCode, Reply, Text};
use spool::disk::Device as _;
use spool::file::FileDevice;
use spool::set::Blanking;

use crate::config::Config;
use crate::events::{Alarm, Note};
use crate::post::{Joining, ToCore};

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
    /// Members that joined in this life and are being filled.
    filling: Vec<u16>,
    /// Devices that were put out: they are still this process's, should they return.
    held: Vec<FileDevice>,
    /// Devices are being looked for.
    busy: bool,
    /// Mail of a half that went on alone is being taken in: messages done, of how many.
    pub(super) taking: Option<(usize, usize)>,
}

/// A device found at one of the config's places that no member of the set has.
#[derive(Debug)]
pub struct Returned {
    /// The device.
    pub device: FileDevice,
    /// It is one that was put out in this life.
    pub same: bool,
    /// What was done to it before, as the config says.
    pub notes: Vec<String>,
}

/// Looks at the config's places: at those that have none of the devices in use. What is there, one
/// of those that were put out perhaps, or why it cannot be had.
pub type Look = fn(&Config, &[FileDevice], &[FileDevice]) -> Vec<Result<Returned, String>>;

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
                let mut absent = self.absent.borrow_mut();
                absent.held.extend(device);
                absent.filled.retain(|(_, m)| *m != member);
                absent.back.retain(|m| *m != member);
                absent.filling.retain(|m| *m != member);
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
                let mut absent = self.absent.borrow_mut();
                absent.back.push(member);
                absent.filling.retain(|m| *m != member);
                drop(absent);
                self.note(Note::Recovered, &format!("device {member} is filled and counts again"));
                self.tell_all(move || ToCore::MemberIn(member));
            }
            Err(error) => {
                let text = format!("device {member} is filled, but cannot be taken in: {error}");
                self.journal.borrow_mut().alarm(Alarm::Device, &text);
            }
        }
    }

    /// The operator says that devices came back, or new ones in their place: they are emptied and
    /// filled while mail flows.
    pub(super) async fn fill_devices(self: &Rc<Self>) -> Reply {
        let fail = |message: &str, advice: &str| {
            Reply::Failure(Failure::new(FailureCode::Refused, message, advice))
        };
        if !self.may_look() {
            return fail("devices are being looked for", "ask again in a moment");
        }
        let said = self.fill_found().await;
        self.looked();
        match said {
            Ok((begun, refused)) if !begun.is_empty() => {
                let lines = [begun, refused].concat().join("; ");
                Reply::Done { message: Text::cut(&lines) }
            }
            Ok((_, refused)) if !refused.is_empty() => {
                fail(&refused.join("; "), "nothing was changed on it")
            }
            Ok(_) => fail("no device came back", "every device of the config is in use, or gone"),
            Err(error) => fail(&error, ""),
        }
    }

    /// One at a time looks for devices; `looked` follows.
    pub(super) fn may_look(&self) -> bool {
        !std::mem::replace(&mut self.absent.borrow_mut().busy, true)
    }

    pub(super) fn looked(&self) {
        self.absent.borrow_mut().busy = false;
    }

    /// What is being filled, and what cannot be.
    async fn fill_found(self: &Rc<Self>) -> Result<(Vec<String>, Vec<String>), String> {
        let (mut begun, mut refused) = (Vec::new(), Vec::new());
        for returned in self.look_around().await? {
            let done = match returned {
                Ok(Returned { mut device, same, .. }) => {
                    let admitted = self.set.borrow().admit(&mut device);
                    match admitted.map_err(|error| error.to_string()) {
                        Ok(blanking) => self.fill_one(device, same, blanking).await,
                        Err(why) => Err(why),
                    }
                }
                Err(why) => Err(why),
            };
            match done {
                Ok(line) => begun.push(line),
                Err(line) => refused.push(line),
            }
        }
        Ok((begun, refused))
    }

    /// What stands at the config's places and is none of the devices in use, or why not.
    pub(super) async fn look_around(&self) -> Result<Vec<Result<Returned, String>>, String> {
        let twins = |devices: &[&FileDevice]| {
            let twins = devices.iter().map(|device| device.duplicate());
            twins.collect::<io::Result<Vec<_>>>().map_err(|error| error.to_string())
        };
        let (used, held) = {
            let (set, absent) = (self.set.borrow(), self.absent.borrow());
            let used: Vec<_> = set.members.iter().chain(&set.joining).flatten().collect();
            (twins(&used)?, twins(&absent.held.iter().collect::<Vec<_>>())?)
        };
        let (look, orders) = (self.look, Arc::clone(&self.orders.borrow()));
        let found = tokio::task::spawn_blocking(move || look(&orders.config, &used, &held)).await;
        let found = found.map_err(|error| error.to_string())?;
        for note in found.iter().flatten().flat_map(|returned| &returned.notes) {
            self.note(Note::Recovered, note);
        }
        Ok(found)
    }

    /// Empties a device and has it filled.
    pub(super) async fn fill_one(
        self: &Rc<Self>,
        mut device: FileDevice,
        same: bool,
        blanking: Blanking,
    ) -> Result<String, String> {
        let member = blanking.member();
        let emptied = tokio::task::spawn_blocking(move || {
            blanking.write(&mut device).map(|()| device).map_err(|error| error.to_string())
        });
        let device = emptied.await.map_err(|error| error.to_string())??;
        let name = device.name().to_owned();
        let twin = Arc::new(device.duplicate().map_err(|error| error.to_string())?);
        let copies = {
            let mut set = self.set.borrow_mut();
            set.joins(member, device).map_err(|error| error.to_string())?;
            set.superblock.copies
        };
        let column = u8::try_from(member / copies).map_err(|error| error.to_string())?;
        {
            let mut absent = self.absent.borrow_mut();
            absent.filled.retain(|(_, m)| *m != member);
            absent.out.retain(|m| *m != member);
            absent.back.retain(|m| *m != member);
            absent.held.retain(|held| !held.is_at(Path::new(&name)));
            absent.filling.push(member);
        }
        let text = format!("device {member} ({name}) is emptied and being filled");
        self.note(Note::Recovered, &text);
        let joining = Joining { member, column, device: twin, same };
        self.tell_all(move || ToCore::MemberJoins(joining.clone()));
        Ok(text)
    }

    /// What the operator should know of members, beside what was known at start.
    pub(super) fn device_alarms(&self, lines: &mut Vec<String>) {
        let absent = self.absent.borrow();
        if let Some((done, all)) = absent.taking {
            let what = "messages of a half that went on alone are taken in";
            lines.push(format!("spool take-in: {done} of {all} {what}"));
        }
        for member in &absent.back {
            lines.retain(|line| !line.starts_with(&format!("device {member} of the spool is ")));
        }
        for member in &absent.filling {
            lines.retain(|line| !line.starts_with(&format!("device {member} of the spool is ")));
            let what = "is being filled: mail has one copy only";
            lines.push(format!("device {member} of the spool {what}"));
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
