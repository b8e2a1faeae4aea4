//! Many clients at once that note, at each 250, how far the disks' logs had come.
//!
//! *Limits*: they connect one after the other. QEMU's user network keeps one connection waiting:
//! of many that come at once some are lost without a word, and wait for a greeting for ever.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use spool::sim::Random;

use super::record;
use crate::daemon::client::{Client, id_of};

/// Lines of a message at most.
const LINES_MAX: u64 = 60;

/// A message that was answered 250.
pub(super) struct Acked {
    pub(super) id: String,
    pub(super) content: Vec<u8>,
    pub(super) session: usize,
    /// Writes in each disk's log when the 250 was there.
    pub(super) at: Vec<u64>,
}

/// Sends from so many sessions until so many messages are acknowledged; in the order of the 250s.
pub(super) fn until_acked(
    mail: SocketAddr,
    logs: &[PathBuf],
    sessions: usize,
    total: usize,
) -> Vec<Acked> {
    let logs: Vec<File> = logs.iter().map(|log| File::open(log).expect("QEMU made it")).collect();
    let clients: Vec<Client> = (0..sessions).map(|_| Client::greeted(mail)).collect();
    let acked = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (session, mut client) in clients.into_iter().enumerate() {
            let (acked, stop, logs) = (&acked, &stop, &logs);
            scope.spawn(move || {
                let mut random = Random::new(u64::try_from(session).expect("small"));
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let content = content(session, n, &mut random);
                    let Some(id) = send(&mut client, &content) else {
                        // A 4xx that closed the session, or not: from the start.
                        client = Client::greeted(mail);
                        continue;
                    };
                    // Held while the logs are looked at: the list is in the order of moments.
                    let mut acked = acked.lock().expect("nobody panics with it");
                    let at = record::lengths(logs);
                    acked.push(Acked { id, content, session, at });
                    if acked.len() >= total {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    acked.into_inner().expect("nobody panicked")
}

fn content(session: usize, n: usize, random: &mut Random) -> Vec<u8> {
    let mut text = format!("Subject: {session}.{n}\r\n\r\n");
    for line in 0..random.below(LINES_MAX) {
        text += &format!("{line} {:016x} of {session}.{n}\r\n", random.next_u64());
    }
    text.into_bytes()
}

/// One message; its id if it was answered 250.
fn send(client: &mut Client, content: &[u8]) -> Option<String> {
    client.send(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
    let replies = [client.reply(), client.reply(), client.reply()];
    if !replies[2].starts_with("354") {
        return None;
    }
    client.send(&[content, b".\r\n"].concat());
    let reply = client.reply();
    reply.starts_with("250").then(|| id_of(&reply).to_owned())
}
