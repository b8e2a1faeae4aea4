//! The admin socket: who may speak, and one request and one reply at a time.
//!
//! *Guarantees*: the kernel says who the peer is; root, the daemon's own user and the users of the
//! config may speak. A socket that somebody answers on is never replaced.
//! *Limits*: `CONSOLES_MAX` connections; one frame of input each; replies have a time limit.
//! *Not here*: what requests do.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use control::limits::REQUEST_OCTETS_MAX;
use control::{Decoder, Failure, FailureCode, Reply, Request, read_request, write_reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::config::AdminConfig;

use super::limits::{CONSOLE_IDLE, WRITE_WAIT};
use super::state::Caller;

const READ_OCTETS: usize = 4 << 10;

/// The listening socket; its name goes away with it.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
    inode: Option<u64>,
    uids: Vec<u32>,
}

impl Console {
    /// Listens, within the runtime.
    ///
    /// # Errors
    /// Somebody answers there already, or the file system says no; with the path.
    pub(super) fn open(config: &AdminConfig) -> io::Result<Option<Self>> {
        let Some(path) = config.socket.clone() else { return Ok(None) };
        let name = |error: io::Error| {
            let text = format!("admin socket {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(name)?;
        }
        remove_stale(&path).map_err(name)?;
        let listener = UnixListener::bind(&path).map_err(name)?;
        // Whoever connects before the mode is set is asked who he is like anybody else.
        let mode = if config.uids.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(name)?;
        let inode = fs::symlink_metadata(&path).ok().map(|meta| meta.ino());
        let own = nix::unistd::geteuid().as_raw();
        let uids = [0, own].into_iter().chain(config.uids.iter().copied()).collect();
        Ok(Some(Self { listener, path, inode, uids }))
    }

    /// The next console.
    ///
    /// # Errors
    /// What `accept` says.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Who the peer is, if it may speak.
    #[must_use]
    pub(super) fn admits(&self, stream: &UnixStream) -> Option<Caller> {
        let peer = stream.peer_cred().ok()?;
        let caller = Caller { uid: peer.uid(), pid: peer.pid(), ..Caller::default() };
        self.uids.contains(&caller.uid).then_some(caller)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Only our own: a successor may have made a new one.
        let there = fs::symlink_metadata(&self.path).ok().map(|meta| meta.ino());
        if there.is_some() && there == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "is there and is no socket"));
    }
    match BlockingStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers there")),
    }
}

/// Serves one console until it ends, is idle too long, does not take a reply, or breaks the rules.
pub(super) async fn serve(mut stream: UnixStream, ask: impl AsyncFn(Request) -> Reply) {
    let mut decoder = Decoder::new(REQUEST_OCTETS_MAX);
    let mut octets = vec![0; READ_OCTETS];
    loop {
        match decoder.pop() {
            Ok(Some(frame)) => {
                let reply = match read_request(&frame) {
                    Ok(request) => ask(request).await,
                    Err(bad) => Reply::Failure(Failure::from(&bad)),
                };
                if !write(&mut stream, &reply).await {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(long) => {
                let failure = Failure::new(FailureCode::Malformed, &long.to_string(), "");
                write(&mut stream, &Reply::Failure(failure)).await;
                return;
            }
        }
        match timeout(CONSOLE_IDLE, stream.read(&mut octets)).await {
            Ok(Ok(count)) if count > 0 => decoder.push(&octets[..count]),
            _ => return,
        }
    }
}

/// Says one thing and closes.
pub(super) async fn turn_away(
    mut stream: UnixStream,
    code: FailureCode,
    message: &str,
    advice: &str,
) {
    write(&mut stream, &Reply::Failure(Failure::new(code, message, advice))).await;
}

async fn write(stream: &mut UnixStream, reply: &Reply) -> bool {
    let octets = write_reply(reply);
    matches!(timeout(WRITE_WAIT, stream.write_all(&octets)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{Text, read_reply, write_request};

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    fn config(name: &str) -> AdminConfig {
        let path = std::env::temp_dir().join(format!("console-{name}-{}", std::process::id()));
        AdminConfig { socket: Some(path), uids: Vec::new(), state: None }
    }

    #[test]
    fn a_socket_in_use_is_kept_and_a_stale_one_replaced() {
        run(async {
            let config = config("stale");
            let path = config.socket.clone().unwrap();
            let first = Console::open(&config).unwrap().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            let error = Console::open(&config).unwrap_err();
            assert!(error.to_string().contains("another daemon"), "{error}");
            drop(first);
            assert!(!path.exists());
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "left behind by a killed daemon");
            drop(Console::open(&config).unwrap().unwrap());
            fs::write(&path, "a file").unwrap();
            assert!(Console::open(&config).is_err());
            fs::remove_file(&path).unwrap();
        });
    }

    #[test]
    fn requests_are_answered_in_order_and_noise_closes() {
        run(async {
            let config = config("serve");
            let console = Console::open(&config).unwrap().unwrap();
            let client = UnixStream::connect(config.socket.as_ref().unwrap()).await.unwrap();
            let server = console.accept().await.unwrap();
            assert!(console.admits(&server).is_some());
            let echo = async |request: Request| Reply::Done { message: Text::cut(request.name()) };
            let talk = async {
                let mut client = client;
                let requests = [Request::Version, Request::Ledger].map(|r| write_request(&r));
                for request in requests {
                    client.write_all(&request.unwrap()).await.unwrap();
                }
                client.write_all(&[0xff; 64]).await.unwrap();
                let mut octets = Vec::new();
                client.read_to_end(&mut octets).await.unwrap();
                let mut decoder = Decoder::new(control::limits::REPLY_OCTETS_MAX);
                decoder.push(&octets);
                for name in ["version", "ledger"] {
                    let reply = read_reply(&decoder.pop().unwrap().unwrap()).unwrap();
                    assert_eq!(reply, Reply::Done { message: Text::cut(name) });
                }
                let reply = read_reply(&decoder.pop().unwrap().unwrap()).unwrap();
                assert!(matches!(reply, Reply::Failure(_)));
            };
            tokio::join!(serve(server, echo), talk);
        });
    }
}
