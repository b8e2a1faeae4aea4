//! Keys of what is kept: spool, hints, logs.

use std::path::PathBuf;

use crate::config::names::Serial;
use crate::config::section::Default::{Optional, Required};
use crate::config::section::{default, section};
use crate::config::value::{FREE, Seconds, Size, between, choice, within};
use crate::limits;

choice! {
    /// When a message counts as kept.
    Durability {
        /// when the device says that it is safe from a power cut
        Fsync = "fsync",
        /// at once: a crash of the machine loses mail that was answered 250; for measurements only
        None = "none",
    }
}

section! {
    /// The spool: a log for each core, in segments that are made once and used again.
    "spool" One Restart pub struct SpoolConfig {
        /// Directories or block devices that hold the logs; cores take turns in using them.
        places: Vec<PathBuf> = Required, FREE;
        /// Segments of each core's log; a device has one more.
        segments: u32 = default("64"),
            within(limits::SEGMENTS_MIN, limits::SEGMENTS_MAX, "segments");
        /// Size of one segment.
        segment_mib: u32 = default("64"),
            within(limits::SEGMENT_MIB_MIN, limits::SEGMENT_MIB_MAX, "MiB");
        /// When a message counts as kept and is answered 250.
        durability: Durability = default("\"fsync\""), FREE;
        /// Whether places are pairs (first and second, third and fourth) that hold the same.
        mirror: bool = default("false"), FREE;
        /// Whether one half of a mirror may start alone, with an alarm.
        lone_member: bool = default("false"), FREE;
        /// A device that has not answered a write for so long has failed; clients hear 451.
        commit_wait_s_max: Seconds = default("30"), within(100, limits::HOUR_MS, "s");
        /// Serial numbers of block devices whose content may be erased: a device that bears another
        /// file system, partition table or the like is refused unless it is named here.
        take_serials: Vec<Serial> = default("[]"), FREE;
        /// Whether a start raises a spool of an older format to the newest, which older versions
        /// cannot read; there is no way back. The appliance does it once a version is blessed.
        raise_format: bool = default("false"), FREE;
        /// Free segments below which new mail is answered 452.
        refuse_below_percent: u32 = default("10"), within(1, 90, "%");
        /// Free segments below which new sessions are turned away with 421; 0: never.
        turn_away_below_percent: u32 = default("5"), within(0, 89, "%");
        /// Free segments above which new mail is taken again.
        resume_above_percent: u32 = default("15"), within(2, 95, "%");
    }
}

section! {
    /// The hints: state that may be lost (retry times, rates, health of backends).
    "hints" One Restart pub struct HintsConfig {
        /// File that holds them, best on ramfs or tmpfs; it is made at its full size.
        file: PathBuf = default("\"/run/ringpost/hints\""), FREE;
        /// Size of the file.
        size: Size = default("\"64 MiB\""), within(1 << 20, 64 << 30, "octets");
        /// File to which they are copied at shutdown and by the hour; without it they are not.
        snapshot: Option<PathBuf> = Optional, FREE;
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// as Exim writes them
        Exim = "exim",
        /// one JSON object a line
        Json = "json",
    }
}

section! {
    /// The main log and the reject log.
    "log" One Reload pub struct LogConfig {
        /// Directory of `mainlog` and `rejectlog`.
        dir: PathBuf = default("\"/var/log/ringpost\""), FREE;
        /// How lines look.
        format: LogFormat = default("\"exim\""), FREE;
        /// A file of this size is closed and a new one begun.
        rotate_size: Size = default("\"64 MiB\""), within(64 << 10, 64 << 30, "octets");
        /// A file of this age is closed and a new one begun.
        rotate_age_s: Seconds = default("86400"), within(1_000, 400 * limits::DAY_MS, "s");
        /// All log files together; the oldest are deleted.
        total_size: Size = default("\"1 GiB\""), within(256 << 10, 1 << 46, "octets");
        /// Minutes that the lines' time is ahead of UTC.
        utc_offset_min: i32 = default("0"), between(-840, 840, "min");
        /// Whether the subject stands in the log.
        subject: bool = default("false"), FREE;
    }
}
