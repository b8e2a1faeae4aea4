//! What the machine does without any mail server: durable writes, bandwidth of a device, TCP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::commit::{self, Commit};
use crate::limits::{BANDWIDTH_BLOCK_OCTETS, BARE_BURST_MS, BARE_EXCHANGE_OCTETS};
use crate::system;

/// Octets of a small commit.
pub const BLOCK_OCTETS: usize = crate::limits::COMMIT_BLOCK_OCTETS;

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bare {
    /// Octets of each durable write.
    pub block_octets: usize,
    /// One durable write after the other, where a folder was given.
    pub commit: Option<Commit>,
    /// Durable writes a second.
    pub commits_per_s: Option<f64>,
    /// Octets a second of large direct writes.
    pub octets_per_s: Option<f64>,
    /// TCP and nothing else: one connection, 4 KiB there, one octet back, end.
    pub tcp: Tcp,
}

/// A bare exchange over TCP on blocking sockets.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Tcp {
    /// CPU microseconds of the receiving thread for each connection.
    pub server_us: f64,
    /// CPU microseconds of the sending thread for each connection.
    pub client_us: f64,
    /// Connections a second, one after the other.
    pub per_s: f64,
}

/// Measures for a second or so.
pub fn measure(folder: Option<&Path>, cpus: [usize; 2], block_octets: usize) -> io::Result<Bare> {
    let time = Duration::from_millis(BARE_BURST_MS);
    let commit = folder.map(|folder| commit::measure_blocks(folder, time, block_octets, true));
    let commit = commit.transpose()?;
    let wide = folder
        .map(|folder| commit::measure_blocks(folder, time, BANDWIDTH_BLOCK_OCTETS, false))
        .transpose()?;
    let per_s = |commit: &Commit| commit.count as f64 / commit.elapsed_s;
    Ok(Bare {
        block_octets,
        commits_per_s: commit.as_ref().map(per_s),
        octets_per_s: wide.as_ref().map(|wide| per_s(wide) * BANDWIDTH_BLOCK_OCTETS as f64),
        commit,
        tcp: tcp(cpus, time)?,
    })
}

fn thread_cpu() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Connections one after the other: sixty-four octets would hide in the cost of the connection.
fn tcp(cpus: [usize; 2], time: Duration) -> io::Result<Tcp> {
    let listener = system::listener(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    let server = std::thread::spawn(move || -> io::Result<Duration> {
        system::pin(cpus[0])?;
        let before = thread_cpu()?;
        let mut octets = vec![0; BARE_EXCHANGE_OCTETS];
        loop {
            let (mut stream, _) = listener.accept()?;
            // An end without a word is the end of all.
            if stream.read_exact(&mut octets).is_err() {
                return Ok(thread_cpu()? - before);
            }
            stream.write_all(b".")?;
        }
    });
    let all = system::cpus()?;
    system::pin(cpus[1])?;
    let measured = exchanges(address, time);
    system::set_cpus(&all)?;
    drop(TcpStream::connect(address)?);
    let server = server.join().map_err(|_| io::Error::other("null TCP: panicked"))??;
    let (count, client, elapsed) = measured?;
    let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
    Ok(Tcp { server_us: us(server), client_us: us(client), per_s: count as f64 / elapsed })
}

fn exchanges(address: SocketAddr, time: Duration) -> io::Result<(u64, Duration, f64)> {
    let (cpu, started) = (thread_cpu()?, Instant::now());
    let (octets, mut answer) = (vec![b'x'; BARE_EXCHANGE_OCTETS], [0]);
    let mut count = 0;
    while started.elapsed() < time {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&octets)?;
        stream.read_exact(&mut answer)?;
        count += 1;
    }
    Ok((count, thread_cpu()? - cpu, started.elapsed().as_secs_f64()))
}

impl Bare {
    /// One line for a person.
    pub fn text(&self) -> String {
        let commit = self.commit.map_or_else(
            || "no place for commits given".to_owned(),
            |commit| {
                format!(
                    "durable writes of {} octets: {:.0}/s, p50 {:.0} us, p99 {:.0} us; \
                     device {:.0} MB/s",
                    self.block_octets,
                    self.commits_per_s.unwrap_or(0.0),
                    commit.p50_us,
                    commit.p99_us,
                    self.octets_per_s.unwrap_or(0.0) / 1e6,
                )
            },
        );
        format!(
            "{commit}; bare TCP connection with 4 KiB: {:.1} us server, {:.1} us client, {:.0}/s",
            self.tcp.server_us, self.tcp.client_us, self.tcp.per_s
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_measured() {
        let folder = std::env::current_exe().unwrap().with_extension("bare");
        std::fs::create_dir_all(&folder).unwrap();
        let bare = measure(Some(&folder), [0, 0], 16_384).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        assert!(bare.commit.unwrap().count > 0 && bare.commits_per_s.unwrap() > 0.0);
        assert!(bare.octets_per_s.unwrap() > 1e5 && bare.tcp.server_us > 0.5, "{bare:?}");
        assert!(bare.text().contains("16384 octets"));
        assert!(measure(None, [0, 0], 4096).unwrap().commit.is_none());
    }
}
