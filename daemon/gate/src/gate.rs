//! The gate: one loaded filter, its attachments, its lists.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use ebpf_common::config::{CONFIG_BYTES, Config, FLAG_TAGGED};
use ebpf_common::count::{COUNTERS, COUNTERS_ROWS, Event, REASONS_ROWS};
use ebpf_common::entry::Action;
use ebpf_common::limits::SPREAD_CLASSES;
use ebpf_common::set::{Set, TABLES, Table};
use ebpf_common::text::TEXT_ROW_BYTES;

use crate::bans::{Bans, words};
use crate::inner::Inner;
use crate::kernel::Way;
use crate::kernel::{self, Facts, Forwarding, monotonic_s};
use crate::limits::{EVENTS_MAX, KEY_LIFE_S, LAYOUT};
use crate::map::{Map, sums};
use crate::object::{Object, chain};
use crate::problem::{Problem, call};
use crate::settings::Settings;
use crate::status::Status;
use crate::sys;

/// Outer maps, in the order of [`TABLES`].
const OUTER: [&str; 6] = ["HOSTS4", "HOSTS6", "NETWORKS4", "NETWORKS6", "ALLOWED4", "ALLOWED6"];

/// The slot that no program reads: a store to it waits for all running programs.
const SLOT_FENCE: u32 = 2;

/// The filter on one interface.
#[derive(Debug)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// In the driver, before the kernel makes a packet of the frame; else generic, and slower.
    pub native: bool,
    /// Detached with this descriptor, unless a file in the folder of pins holds the link too.
    link: FdLink,
    pinned: Option<PathBuf>,
}

/// What the mail process is lent.
#[derive(Debug)]
pub struct Descriptors {
    /// Bans of IPv4 hosts.
    pub bans4: OwnedFd,
    /// Bans of IPv6 networks of 64 bits.
    pub bans6: OwnedFd,
    /// For [`crate::Accepting`].
    pub accepting: OwnedFd,
}

/// What the filter does with a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trial {
    /// 1 drop, 2 pass, 3 sent back.
    pub verdict: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Nanoseconds a run.
    pub run_ns: u32,
}

/// Runs the filter over frames that nobody sent.
#[derive(Debug)]
pub struct Prober {
    program: OwnedFd,
}

/// A loaded filter.
#[derive(Debug)]
pub struct Gate {
    facts: Facts,
    forwarding: Forwarding,
    object: Object,
    pins: Option<PathBuf>,
    config: Config,
    config_map: Map<4, CONFIG_BYTES>,
    outer: [OwnedFd; 6],
    lists: Option<(Inner, [u32; 6])>,
    attached: Vec<Attachment>,
    notes: Vec<String>,
    key_since_s: u32,
    cpus: usize,
}

impl Gate {
    /// Loads the filter. `pins` is a folder on a bpf file system: with it, maps and bans of an
    /// earlier gate are taken over, and attachments can outlive this one.
    ///
    /// # Errors
    /// No privilege, no support, or a folder that is no bpf file system.
    pub fn load(pins: Option<&Path>) -> Result<Self, Problem> {
        let facts = Facts::read()?;
        let maps = pins.map(|pins| pins.join(format!("maps-{LAYOUT}")));
        if let Some(maps) = &maps {
            fs::create_dir_all(maps).map_err(call("the folder of pins"))?;
        }
        let object = Object::load(facts, maps.as_deref())?;
        let config_map = Map::new(object.map("CONFIG")?);
        let [a, b, c, d, e, f] = OUTER.map(|name| object.map(name));
        let mut gate = Self {
            facts,
            forwarding: Forwarding::open(),
            object,
            pins: pins.map(Path::to_path_buf),
            config: Config::new(),
            config_map,
            outer: [a?, b?, c?, d?, e?, f?],
            lists: None,
            attached: Vec::new(),
            notes: Vec::new(),
            key_since_s: monotonic_s(),
            cpus: aya::util::nr_cpus().map_err(|(_, error)| call("number of CPUs")(error))?,
        };
        // The lists of an earlier gate stay in force until the first swap.
        let before = gate.config_map.get(&[0; 4]).map_err(call("config"))?;
        if let Some(before) = before {
            let at = std::mem::offset_of!(Config, generation);
            let octets = before[at..at + 4].try_into().expect("four octets");
            gate.config.generation = u32::from_ne_bytes(octets);
        }
        gate.config.keys = [random()?, random()?];
        Ok(gate)
    }

    /// Verb: takes the settings over and attaches where they say; detaches elsewhere.
    ///
    /// # Errors
    /// A setting out of range changes nothing. An interface that cannot be had at all is an
    /// error; the others are attached.
    pub fn attach(&mut self, settings: &Settings) -> Result<(), Problem> {
        let mut config = settings.config(self.facts)?;
        let rows = settings.rows()?;
        self.notes.clear();
        let texts = Map::<4, TEXT_ROW_BYTES>::new(self.object.map("TEXTS")?);
        for (row, text) in rows {
            texts.put(&row.to_ne_bytes(), &text).map_err(call("texts"))?;
        }
        if settings.proxy {
            self.notes.push("the switch hides the clients: the filter stands down".into());
            return self.detach();
        }
        if settings.answer {
            self.forwarding.allow()?;
            let sees = settings.interfaces.iter().all(|name| kernel::sees_tags(name));
            if sees {
                config.flags |= FLAG_TAGGED;
            } else {
                self.notes.push("an interface strips VLAN tags: no answer on tagged ports".into());
            }
        }
        let seen = settings.interfaces.iter().flat_map(|name| kernel::ways(name));
        for way in seen.chain(settings.ways.iter().cloned()) {
            self.way(&way)?;
        }
        config.keys = self.config.keys;
        config.key = self.config.key;
        config.generation = self.config.generation;
        self.config = config;
        self.store_config()?;
        let stays = |a: &Attachment| settings.interfaces.contains(&a.interface);
        for gone in self.attached.extract_if(.., |a| !stays(a)) {
            gone.end();
        }
        let mut result = Ok(());
        for name in &settings.interfaces {
            if self.attached.iter().any(|a| a.interface == *name) {
                continue;
            }
            match self.attach_one(name, settings.keep) {
                Ok(attachment) => self.attached.push(attachment),
                Err(problem) => result = Err(problem),
            }
        }
        result
    }

    fn way(&self, way: &Way) -> Result<(), Problem> {
        let segments = Map::<8, 4>::new(self.object.map("SEGMENTS")?);
        let vlan = way.vlan.unwrap_or(0xffff);
        let key = u64::from(kernel::index(&way.interface)?) << 16 | u64::from(vlan);
        let out = kernel::index(&way.out)?;
        segments.put(&key.to_ne_bytes(), &out.to_ne_bytes()).map_err(call("segments"))
    }

    fn attach_one(&mut self, name: &str, keep: bool) -> Result<Attachment, Problem> {
        let index = kernel::index(name)?;
        let failed = |e: &dyn std::error::Error| Problem::Attach(name.to_owned(), chain(e));
        if let Some(taken) = self.take_over(name) {
            return Ok(taken);
        }
        let program = self.object.program()?;
        let (id, native) = match program.attach_to_if_index(index, XdpMode::Driver) {
            Ok(id) => (id, true),
            Err(native) => {
                let id = program.attach_to_if_index(index, XdpMode::Skb).map_err(|e| failed(&e))?;
                self.notes.push(format!(
                    "{name}: generic mode, several times slower; native mode said: {}",
                    chain(&native)
                ));
                (id, false)
            }
        };
        let link = self.object.program()?.take_link(id).map_err(|e| failed(&e))?;
        // Every kernel since 5.9 makes links; ours begin at 6.1.
        let mut link = FdLink::try_from(link).map_err(|e| failed(&e))?;
        let pinned = self.pin_path(name, native).filter(|_| keep);
        if let Some(path) = &pinned {
            link = link.pin(path).map_err(|e| failed(&e))?.into();
        }
        Ok(Attachment { interface: name.to_owned(), native, link, pinned })
    }

    fn pin_path(&self, name: &str, native: bool) -> Option<PathBuf> {
        let mode = if native { "native" } else { "generic" };
        self.pins.as_ref().map(|pins| pins.join(format!("link-{mode}-{name}")))
    }

    /// Puts this program in the place of an earlier gate's, without a moment between.
    fn take_over(&mut self, name: &str) -> Option<Attachment> {
        for native in [true, false] {
            let path = self.pin_path(name, native).filter(|path| path.exists())?;
            let taken = PinnedLink::from_pin(&path).ok().and_then(|pinned| {
                let link = XdpLink::try_from(FdLink::from(pinned)).ok()?;
                let program = self.object.program().ok()?;
                let id = program.attach_to_link(link).ok()?;
                FdLink::try_from(program.take_link(id).ok()?).ok()
            });
            if let Some(link) = taken {
                let (interface, pinned) = (name.to_owned(), Some(path));
                return Some(Attachment { interface, native, link, pinned });
            }
            // Its interface is gone; one of that name came anew.
            let _ = fs::remove_file(&path);
        }
        None
    }

    /// Verb: takes the filter off every interface, pinned or not. Lists and bans stay.
    ///
    /// # Errors
    /// None today.
    pub fn detach(&mut self) -> Result<(), Problem> {
        for attachment in self.attached.drain(..) {
            attachment.end();
        }
        Ok(())
    }

    /// Verb: puts a whole set of lists in force with one store.
    ///
    /// # Errors
    /// The lists in force before stay in force.
    pub fn swap(&mut self, set: &Set<'_>) -> Result<(), Problem> {
        let lists = Inner::build(set)?;
        let generation = self.config.generation.wrapping_add(1);
        for (outer, inner) in self.outer.iter().zip(lists.maps()) {
            sys::map_store(outer.as_fd(), generation & 1, inner).map_err(call("a slot"))?;
        }
        self.config.generation = generation;
        self.store_config()?;
        // Whoever still looks at the old slot has ended when this returns.
        for (outer, inner) in self.outer.iter().zip(lists.maps()).take(1) {
            sys::map_store(outer.as_fd(), SLOT_FENCE, inner).map_err(call("the fence"))?;
            sys::map_delete(outer.as_fd(), &SLOT_FENCE.to_ne_bytes()).map_err(call("the fence"))?;
        }
        let old = generation.wrapping_sub(1) & 1;
        for outer in &self.outer {
            sys::map_delete(outer.as_fd(), &old.to_ne_bytes()).map_err(call("the old slot"))?;
        }
        self.lists = Some((lists, TABLES.map(|table| set.count(table))));
        Ok(())
    }

    fn store_config(&self) -> Result<(), Problem> {
        self.config_map.put(&[0; 4], &self.config.to_octets()).map_err(call("config"))
    }

    /// Verb: the descriptors for the mail process.
    ///
    /// # Errors
    /// Of the system call.
    pub fn descriptors(&self) -> Result<Descriptors, Problem> {
        Ok(Descriptors {
            bans4: self.object.map("BANS4")?,
            bans6: self.object.map("BANS6")?,
            accepting: self.object.map("ACCEPTING")?,
        })
    }

    /// Makes new cookies with a new key once the old one has lived long enough. Cookies of the
    /// last key stay good.
    ///
    /// # Errors
    /// Of the random source or the store.
    pub fn renew_key(&mut self, now_s: u32) -> Result<(), Problem> {
        if now_s.saturating_sub(self.key_since_s) >= KEY_LIFE_S {
            let next = usize::from(self.config.key & 1 ^ 1);
            self.config.keys[next] = random()?;
            self.config.key = u8::from(next == 1);
            self.key_since_s = now_s;
            self.store_config()?;
        }
        Ok(())
    }

    /// Verb: numbers and notes; with an address, what every table says of it. Events are apart.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn status(&self, address: Option<IpAddr>) -> Result<Status, Problem> {
        let rows = |name, rows| -> Result<Vec<u64>, Problem> {
            let map = self.object.map(name)?;
            sums(map.as_fd(), rows, self.cpus).map_err(call("counters"))
        };
        let mut counters = rows("COUNTERS", COUNTERS_ROWS)?;
        counters.truncate(COUNTERS.len());
        let mut reasons = Vec::new();
        for (row, count) in (0_u32..).zip(rows("REASONS", REASONS_ROWS)?) {
            if count > 0 {
                let reason = u8::try_from(row / 4).expect("a reason is one octet");
                let action = u8::try_from(row % 4).expect("below four");
                reasons.push((reason, Action::from_number(action), count));
            }
        }
        let mut spread = rows("SPREAD", SPREAD_CLASSES)?;
        spread.sort_unstable_by(|a, b| b.cmp(a));
        let (all, top) = (spread.iter().sum::<u64>(), spread[0] + spread[1]);
        let permille = (top * 1000).checked_div(all).unwrap_or(0);
        Ok(Status {
            attached: self.attached.iter().map(|a| (a.interface.clone(), a.native)).collect(),
            notes: self.notes.clone(),
            generation: self.config.generation,
            records: self.lists.as_ref().map_or([0; 6], |(_, counts)| *counts),
            counters,
            reasons,
            spread_permille: u32::try_from(permille).expect("at most 1000"),
            found: address.map_or(Ok(Vec::new()), |address| self.find(address))?,
            events: Vec::new(),
        })
    }

    fn find(
        &self,
        host: IpAddr,
    ) -> Result<Vec<(u8, ebpf_common::entry::Listing, u32, u32)>, Problem> {
        let lent = self.descriptors()?;
        let bans = Bans::new(lent.bans4, lent.bans6);
        let ban = bans.get(host).map_err(call("bans"))?;
        let mut found: Vec<_> =
            ban.into_iter().map(|ban| (1, ban.listing, ban.hits, ban.last_s)).collect();
        if let Some((lists, _)) = &self.lists {
            let address = words(host.to_canonical());
            for table in TABLES {
                let place = match table {
                    Table::Hosts4 | Table::Hosts6 => 2,
                    Table::Networks4 | Table::Networks6 => 3,
                    Table::Allowed4 | Table::Allowed6 => 4,
                };
                let entry = lists.find(table, &address).map_err(call("lists"))?;
                found.extend(entry.map(|(listing, hits, last_s)| (place, listing, hits, last_s)));
            }
        }
        Ok(found)
    }

    /// Events since the last call, at most [`EVENTS_MAX`].
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < EVENTS_MAX
            && let Some(octets) = self.object.event()
        {
            events.extend(Event::from_octets(&octets));
        }
        events
    }

    /// A handle for trial runs beside this gate.
    ///
    /// # Errors
    /// Of the system call.
    pub fn prober(&mut self) -> Result<Prober, Problem> {
        let program = self.object.program()?.fd().map_err(|e| Problem::Load(chain(&e)))?;
        let program = program.as_fd().try_clone_to_owned().map_err(call("a second handle"))?;
        Ok(Prober { program })
    }

    /// As [`Prober::trial`].
    ///
    /// # Errors
    /// Of the system call.
    pub fn trial(&mut self, frame: &[u8], interface: u32, repeat: u32) -> Result<Trial, Problem> {
        self.prober()?.trial(frame, interface, repeat)
    }
}

impl Prober {
    /// Runs the filter over a frame as received by this interface (0: by none), `repeat` times.
    /// Counters and hits count.
    ///
    /// # Errors
    /// Of the system call; a frame is at least 14 octets.
    pub fn trial(&self, frame: &[u8], interface: u32, repeat: u32) -> Result<Trial, Problem> {
        let mut output = vec![0; frame.len() + 512];
        let ran = sys::test_run(self.program.as_fd(), frame, &mut output, interface, repeat)
            .map_err(call("a trial run"))?;
        output.truncate(ran.bytes);
        Ok(Trial { verdict: ran.verdict, frame: output, run_ns: ran.run_ns })
    }
}

impl Attachment {
    /// Detaches: the file that holds it, then the descriptor.
    fn end(self) {
        if let Some(path) = &self.pinned {
            let _ = fs::remove_file(path);
        }
        drop(self.link);
    }
}

fn random() -> Result<[u64; 2], Problem> {
    let mut octets = [0; 16];
    let mut source = File::open("/dev/urandom").map_err(call("random source"))?;
    source.read_exact(&mut octets).map_err(call("random source"))?;
    let number = u128::from_ne_bytes(octets);
    let low = u64::try_from(number & u128::from(u64::MAX)).expect("masked");
    let high = u64::try_from(number >> 64).expect("shifted");
    Ok([low, high])
}
