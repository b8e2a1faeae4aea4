//! `ringpost spool`: a spool that no daemon holds.
//!
//! *Guarantees*: everything but `repair --yes` only reads. What holds the lock is left alone.
//!
//! *Failure*: a place that is not a spool, of another version or cut short is named with the byte
//! where it is seen, and not touched.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::spool::disk::Device;
use ::spool::file::{Durability, FileDevice, OpenError};
use ::spool::id::TransactionId;
use ::spool::live::Live;
use ::spool::log::StoredMessage;
use ::spool::offline::{Offline, ShowError, heal};
use ::spool::received;
use ::spool::record::RecipientState;
use ::spool::recovery::{Options, Report, recover, release};
use ::spool::rehearse::Rehearsal;
use ::spool::set::{Set, SetError, read_superblock};
use ::spool::survey::{Damage, DamageKind};
use clap::ArgMatches;
use serde_json::{Value, json};

use crate::audit;
use crate::exit::{Exit, Trouble};
use crate::page::{Align, Column, Page};
use crate::socket::maintenance;
use crate::text::{size, wall};

/// The log in a place that is a folder, as the daemon names it.
const FILE: &str = "ringpost.spool";

/// How often, and after which time, a spool that is held is looked at again.
const BUSY_LOOKS: u32 = 100;
const BUSY_LOOK_EVERY: Duration = Duration::from_millis(10);

const COLUMNS: [Column; 5] = [
    ("id", 24, Align::Left),
    ("received", 20, Align::Left),
    ("size", 6, Align::Right),
    ("left/all", 9, Align::Right),
    ("state", 10, Align::Left),
];

fn refused(message: impl Into<String>, advice: &str) -> Trouble {
    Trouble::new(Exit::Refused, message, advice)
}

fn set_trouble(error: &SetError) -> Trouble {
    refused(error.to_string(), spool::advice::on(&error.problem))
}

fn path_of(place: &str) -> PathBuf {
    let path = Path::new(place);
    if path.is_dir() { path.join(FILE) } else { path.to_owned() }
}

fn device(place: &str) -> Result<FileDevice, Trouble> {
    let path = path_of(place);
    let named = |error: &OpenError| format!("{}: {error}", path.display());
    // The lock of a writer says that no daemon is at it; who may only read looks without.
    let open = || match FileDevice::open(&path, Durability::Full, true) {
        Err(OpenError::NoDirect) => FileDevice::open(&path, Durability::None, true),
        other => other,
    };
    // After a kill the kernel may need a moment to end requests and close files.
    let mut locked = open();
    for _ in 0..BUSY_LOOKS {
        if !matches!(locked, Err(OpenError::Busy)) {
            break;
        }
        std::thread::sleep(BUSY_LOOK_EVERY);
        locked = open();
    }
    match locked {
        Ok(device) => Ok(device),
        Err(error @ OpenError::Busy) => {
            Err(refused(named(&error), "Stop the daemon, or ask it: ringpost queue list."))
        }
        Err(OpenError::Io(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            FileDevice::open(&path, Durability::None, false).map_err(|e| refused(named(&e), ""))
        }
        Err(error) => Err(refused(named(&error), "Name the devices or folders of the spool.")),
    }
}

fn set_of<D: Device>(m: &ArgMatches, of: impl Fn(FileDevice) -> D) -> Result<Set<D>, Trouble> {
    let mut devices = Vec::new();
    for place in m.get_many::<String>("PLACE").into_iter().flatten() {
        devices.push(of(device(place)?));
    }
    let mut node = 0;
    if let Some(first) = devices.first_mut() {
        node = read_superblock(first).map_err(|e| set_trouble(&e))?.node;
    }
    Set::open(devices, node, m.get_flag("degraded")).map_err(|e| set_trouble(&e))
}

fn open(m: &ArgMatches) -> Result<Offline<FileDevice>, Trouble> {
    Offline::open(set_of(m, |device| device)?).map_err(|e| set_trouble(&e))
}

fn id(m: &ArgMatches) -> Result<TransactionId, Trouble> {
    let text = m.get_one::<String>("ID").map_or("", String::as_str);
    let wrong = |_| Trouble::new(Exit::Usage, format!("{text:?} is no id"), "As spool list says.");
    text.parse().map_err(wrong)
}

fn state(live: &Live) -> &'static str {
    match (live.is_held(), live.is_generated(), live.tries) {
        (true, ..) => "held",
        (_, true, _) => "report",
        (_, _, 0) => "new",
        _ => "deferred",
    }
}

/// With `--json`: the answer in one line, as those of the daemon are. False: a page is wanted.
fn as_json(page: &mut Page, m: &ArgMatches, name: &str, with: impl FnOnce() -> Value) -> bool {
    let wanted = m.get_flag("json");
    if wanted {
        page.facts(name, with());
    }
    wanted
}

/// `spool list`.
pub(crate) fn list(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let offline = open(m)?;
    let mut all: Vec<&Live> = offline.list().collect();
    all.sort_unstable_by_key(|live| (live.received_wall_s, live.id));
    let row = |live: &&Live| {
        json!({
            "id": live.id.to_string(),
            "received_wall_s": live.received_wall_s,
            "octets": live.octets,
            "pending": live.pending_count(),
            "recipients": live.recipients,
            "state": state(live),
        })
    };
    let told = || json!({ "messages": all.iter().map(row).collect::<Vec<_>>() });
    if as_json(page, m, "spool-list", told) {
        return Ok(exit_of(&offline.report, &[]));
    }
    if !all.is_empty() {
        page.head(&COLUMNS);
    }
    for live in &all {
        let received = wall(u64::from(live.received_wall_s) * 1_000_000);
        let left = format!("{}/{}", live.pending_count(), live.recipients);
        let (id, size) = (live.id.to_string(), size(live.octets));
        page.row(&COLUMNS, &[id, received, size, left, state(live).to_owned()]);
    }
    page.line(&format!("{} messages.", all.len()));
    Ok(exit_of(&offline.report, &[]))
}

fn read(m: &ArgMatches) -> Result<StoredMessage, Trouble> {
    let (mut offline, id) = (open(m)?, id(m)?);
    offline.show(id).map_err(|error| match error {
        ShowError::Unknown => {
            let message = format!("no message {id} waits in this spool");
            Trouble::new(Exit::NotFound, message, "See: ringpost spool list.")
        }
        ShowError::Damaged { segment, offset } => refused(
            format!(
                "message {id} cannot be read: segment {} of column {}, byte {offset}",
                segment.number(),
                segment.column()
            ),
            "See: ringpost spool verify.",
        ),
    })
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn state_name(state: RecipientState) -> &'static str {
    match state {
        RecipientState::Pending => "pending",
        RecipientState::Delivered => "delivered",
        RecipientState::HandedOver => "handed over",
        RecipientState::Failed => "failed",
        RecipientState::Held => "held",
        RecipientState::Redirected => "redirected",
        RecipientState::Removed => "removed",
        RecipientState::Discarded => "discarded",
    }
}

fn show_json(message: &StoredMessage) -> Value {
    let envelope = &message.envelope;
    let recipient = |r: &::spool::message::Recipient| {
        json!({
            "address": text(&r.address),
            "state": state_name(r.state),
            "tries": r.tries,
            "reply": text(&r.reply),
        })
    };
    json!({
        "id": envelope.id.to_string(),
        "parent": envelope.parent.map(|id| id.to_string()),
        "received_wall_us": envelope.received_wall_us,
        "client": envelope.client.map(|client| client.to_string()),
        "helo": text(&envelope.helo),
        "sender": text(&envelope.mail.address),
        "octets": message.header.len() + message.tail.len(),
        "recipients": envelope.recipients.iter().map(recipient).collect::<Vec<_>>(),
    })
}

/// `spool show`.
pub(crate) fn show(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let message = read(m)?;
    let envelope = &message.envelope;
    if as_json(page, m, "spool-show", || show_json(&message)) {
        return Ok(Exit::Fine);
    }
    page.field("id", &envelope.id.to_string());
    if let Some(parent) = envelope.parent {
        page.field("made from", &parent.to_string());
    }
    page.field("received", &wall(envelope.received_wall_us));
    if let Some(client) = envelope.client {
        page.field("client", &client.to_string());
    }
    page.field("helo", &text(&envelope.helo));
    page.field("sender", &format!("<{}>", text(&envelope.mail.address)));
    let octets = message.header.len() + message.tail.len();
    page.field("size", &format!("{octets} octets as received"));
    for r in &envelope.recipients {
        page.line("");
        page.paragraph(0, &format!("<{}>", text(&r.address)));
        page.paragraph(2, &format!("{}, {} tries", state_name(r.state), r.tries));
        page.paragraph(2, &text(&r.reply));
    }
    Ok(Exit::Fine)
}

/// `spool export`: the message as it would be sent, into `ID.eml`, and its envelope, one line for
/// each part as SMTP would say it, into `ID.envelope`.
pub(crate) fn export(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let message = read(m)?;
    let folder = m.get_one::<String>("into").map_or(".", String::as_str);
    let name = Path::new(folder).join(message.envelope.id.to_string());
    let mut content = received::apply(&message.header, &message.envelope);
    content.extend_from_slice(&message.tail);
    let mut envelope = b"MAIL FROM:<".to_vec();
    envelope.extend_from_slice(&message.envelope.mail.address);
    envelope.extend_from_slice(b">\r\n");
    for r in message.envelope.recipients.iter().filter(|r| !r.state.is_final()) {
        envelope.extend_from_slice(b"RCPT TO:<");
        envelope.extend_from_slice(if r.routed.is_empty() { &r.address } else { &r.routed });
        envelope.extend_from_slice(b">\r\n");
    }
    let mut made = Vec::new();
    for (ending, octets) in [("eml", content), ("envelope", envelope)] {
        // The id has dots of its own.
        let path = PathBuf::from(format!("{}.{ending}", name.display()));
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(&octets)?;
            file.sync_all()
        });
        let named = |error: std::io::Error| refused(format!("{}: {error}", path.display()), "");
        written.map_err(named)?;
        made.push(path.display().to_string());
    }
    if !as_json(page, m, "spool-export", || json!({ "files": made })) {
        made.iter().for_each(|path| page.line(path));
    }
    Ok(Exit::Fine)
}

fn what_of(kind: DamageKind) -> &'static str {
    match kind {
        DamageKind::SegmentHeader => "the header of a segment",
        DamageKind::Batch => "a batch",
        DamageKind::Copy => "a batch, which checks on the other copy",
        DamageKind::Message => "a message that cannot be understood",
        DamageKind::Chunks => "a message that misses parts",
    }
}

fn damage_line(damage: &Damage) -> String {
    format!("{} at byte {}: {}", damage.device, damage.offset, what_of(damage.what))
}

fn findings(page: &mut Page, report: &Report) {
    page.field("format", &report.format.number().to_string());
    page.field(
        "segments",
        &format!("{} in use, {} sealed", report.segments_used, report.segments_sealed),
    );
    page.field("messages", &report.messages.to_string());
    page.field("ended", if report.was_running { "without closing" } else { "in order" });
    let ledger = if report.ledger_agrees() { "balances" } else { "DOES NOT BALANCE" };
    page.field("ledger", ledger);
    for damage in &report.damage {
        page.paragraph(0, &damage_line(damage));
    }
}

fn findings_json(report: &Report, more: &[Damage]) -> Value {
    let damage = report.damage.iter().chain(more);
    let damage = damage.map(|found| {
        json!({ "device": found.device, "offset": found.offset, "what": what_of(found.what) })
    });
    json!({
        "format": report.format.number(),
        "segments": report.segments_used,
        "sealed": report.segments_sealed,
        "messages": report.messages,
        "closed": !report.was_running,
        "ledger_balances": report.ledger_agrees(),
        "damage": damage.collect::<Vec<_>>(),
        "to_strike_out": report.struck,
        "to_write_again": report.healed,
    })
}

fn exit_of(report: &Report, damage: &[Damage]) -> Exit {
    let fine = report.damage.is_empty() && damage.is_empty() && report.ledger_agrees();
    if fine { Exit::Fine } else { Exit::Attention }
}

/// `spool verify`: reads every batch of every copy.
pub(crate) fn verify(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let mut offline = open(m)?;
    let damage = offline.verify(&mut |_, _| {}).map_err(|e| set_trouble(&e))?;
    if as_json(page, m, "spool-verify", || findings_json(&offline.report, &damage)) {
        return Ok(exit_of(&offline.report, &damage));
    }
    findings(page, &offline.report);
    for damage in &damage {
        page.paragraph(0, &damage_line(damage));
    }
    let all = damage.len() + offline.report.damage.len();
    page.line(&format!("{all} places are damaged."));
    Ok(exit_of(&offline.report, &damage))
}

/// What a repair does, or would do.
struct Repair {
    report: Report,
    healed: Vec<Damage>,
    lost: Vec<Damage>,
}

/// What a start of the daemon mends, and what rotted where no start looks.
fn mend<D: Device>(mut set: Set<D>) -> Result<Repair, Trouble> {
    // A member that is out of step is filled by the daemon, and left alone here.
    set.joining.iter_mut().for_each(|device| *device = None);
    let options = Options {
        cores: set.superblock.cores.max(1),
        pid: std::process::id(),
        wall_us: set.superblock.started_wall_us,
        generation: set.superblock.generation.id.wrapping_add(1),
        raise_format: false,
    };
    let mut done = recover(set, options, &mut |_| {}).map_err(|e| set_trouble(&e))?;
    let healed = heal(&mut done.set, &mut |_, _| {}).map_err(|e| set_trouble(&e))?;
    release(&mut done.set).map_err(|e| set_trouble(&e))?;
    let (healed, lost) = healed.into_iter().partition(|d| d.what == DamageKind::Copy);
    Ok(Repair { report: done.report, healed, lost })
}

impl Repair {
    /// Before it is done: each step of it.
    fn foretell(&self, page: &mut Page) {
        let report = &self.report;
        let steps = [
            ("strike out", report.struck, "batches that were never acknowledged"),
            ("write again", report.healed, "copies of batches that a mirror lacks"),
            ("seal", report.unsealed, "segments that were left open"),
            ("give up", report.unfinished, "segments that an interrupted start was filling"),
            ("put together", report.gathered, "times nearly empty segments in one, to free them"),
            ("heal", self.healed.len(), "batches of sealed segments from the other copy"),
        ];
        for (step, count, what) in steps {
            page.field(step, &format!("{count} {what}"));
        }
    }

    fn json(&self) -> Value {
        let mut all = findings_json(&self.report, &self.lost);
        let more = [
            ("to_seal", self.report.unsealed),
            ("to_give_up", self.report.unfinished),
            ("to_put_together", self.report.gathered),
            ("to_heal", self.healed.len()),
        ];
        for (name, count) in more {
            all[name] = json!(count);
        }
        all
    }
}

/// Whether the kernel refuses every write to a device, as in the maintenance of the appliance.
fn is_read_only(place: &Path) -> bool {
    let Ok(found) = fs::metadata(place) else { return false };
    let number = found.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    found.file_type().is_block_device()
        && fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro"))
            .is_ok_and(|text| text.trim() == "1")
}

/// `spool repair`: what a start of the daemon would mend; does it with `--yes`. First all of it is
/// done in memory, so that what is said is what happens.
pub(crate) fn repair(page: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let rehearsed = mend(set_of(m, Rehearsal::new)?)?;
    let is_json = m.get_flag("json");
    if !is_json {
        findings(page, &rehearsed.report);
        rehearsed.foretell(page);
    }
    if !m.get_flag("yes") {
        if !as_json(page, m, "spool-repair", || rehearsed.json()) {
            rehearsed.lost.iter().for_each(|damage| page.paragraph(0, &damage_line(damage)));
            page.line("Nothing was changed. With --yes this is done.");
        }
        return Ok(exit_of(&rehearsed.report, &rehearsed.lost));
    }
    let places: Vec<&str> =
        m.get_many::<String>("PLACE").into_iter().flatten().map(String::as_str).collect();
    if let Some(place) = places.iter().find(|place| is_read_only(Path::new(place))) {
        let what = format!("{place} is read-only");
        let elsewhere = || refused(&what, "`blockdev --setrw` as root, then again.");
        return Err(maintenance(Exit::Refused, &what).unwrap_or_else(elsewhere));
    }
    audit::write(None, &format!("spool repair --yes {}", places.join(" ")))?;
    let done = mend(set_of(m, |device| device)?)?;
    if !as_json(page, m, "spool-repair", || done.json()) {
        for damage in &done.healed {
            page.paragraph(0, &format!("healed: {}", damage_line(damage)));
        }
        done.lost.iter().for_each(|damage| page.paragraph(0, &damage_line(damage)));
        page.line("Done.");
    }
    Ok(exit_of(&done.report, &done.lost))
}
