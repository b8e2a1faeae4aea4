//! Keeps messages as files of a Maildir folder.
//!
//! *Guarantees*: a file appears in `new` whole or not at all; `Return-Path` and one `Delivered-To`
//! line per recipient stand before the content, which is kept octet by octet.
//!
//! *Not here*: fsync; the folder survives the process, not the machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::session::Message;

/// A Maildir folder being filled.
#[derive(Debug)]
pub(super) struct Maildir {
    path: PathBuf,
    unique: String,
    count: u64,
}

impl Maildir {
    /// Makes the folder if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(path.join(part))?;
        }
        let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let unique = format!("{}.P{}", since_epoch.as_micros(), std::process::id());
        Ok(Self { path: path.to_path_buf(), unique, count: 0 })
    }

    pub(super) fn keep(&mut self, message: &Message) -> io::Result<()> {
        self.count += 1;
        let name = format!("{}Q{}.sink", self.unique, self.count);
        let mut text = b"Return-Path: <".to_vec();
        text.extend_from_slice(&message.from);
        text.extend_from_slice(b">\r\n");
        for to in &message.recipients {
            text.extend_from_slice(b"Delivered-To: ");
            text.extend_from_slice(to);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(&message.content);
        let temporary = self.path.join("tmp").join(&name);
        fs::write(&temporary, text)?;
        fs::rename(temporary, self.path.join("new").join(name))
    }
}
