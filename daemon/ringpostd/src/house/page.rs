//! The Prometheus page and the health page over HTTP: GET or HEAD of `/metrics` and `/health`, one
//! request a connection.
//!
//! *Limits*: `PAGES_MAX` connections, 8 KiB of request, `PAGE_WAIT` for all of it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::limits::{PAGE_REQUEST_OCTETS_MAX, PAGE_WAIT};

const READ_OCTETS: usize = 1 << 10;
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Page { body: bool },
    Health { body: bool },
    Status(&'static str),
}

/// Serves one connection.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    page: impl FnOnce() -> String,
    health: impl FnOnce() -> Result<(), &'static str>,
) {
    // Whoever is slower than that is cut.
    let _ = timeout(PAGE_WAIT, exchange(stream, page, health)).await;
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    page: impl FnOnce() -> String,
    health: impl FnOnce() -> Result<(), &'static str>,
) {
    let Some(request) = read(&mut stream).await else { return };
    let (status, body, with_body) = match judge(&request) {
        Verdict::Page { body } => ("200 OK", page(), body),
        Verdict::Health { body } => match health() {
            Ok(()) => ("200 OK", "takes mail\n".to_owned(), body),
            Err(why) => ("503 Service Unavailable", format!("{why}\n"), body),
        },
        Verdict::Status(status) => (status, format!("{status}\n"), true),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\nConnection: close\r\n\
         \r\n",
        body.len()
    );
    let mut octets = head.into_bytes();
    if with_body {
        octets.extend_from_slice(body.as_bytes());
    }
    // The peer is gone: nobody misses the rest.
    if stream.write_all(&octets).await.is_ok() && stream.shutdown().await.is_ok() {
        // Unread octets would make the kernel reset what was sent.
        let mut rest = [0; READ_OCTETS];
        let mut left = PAGE_REQUEST_OCTETS_MAX;
        while let Ok(count) = stream.read(&mut rest).await {
            left = left.saturating_sub(count.max(1));
            if count == 0 || left == 0 {
                return;
            }
        }
    }
}

/// Octets up to the empty line, or as many as are taken.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut octets = [0; READ_OCTETS];
    while !ended(&request) && request.len() < PAGE_REQUEST_OCTETS_MAX {
        let count = stream.read(&mut octets).await.ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&octets[..count]);
    }
    Some(request)
}

fn ended(request: &[u8]) -> bool {
    request.windows(4).any(|four| four == b"\r\n\r\n")
        || request.windows(2).any(|two| two == b"\n\n")
}

fn judge(request: &[u8]) -> Verdict {
    if !ended(request) {
        return Verdict::Status("431 Request Header Fields Too Large");
    }
    let line = request.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line.trim_ascii_end()) else {
        return Verdict::Status("400 Bad Request");
    };
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!((words.next(), words.next()), (Some("HTTP/1.0" | "HTTP/1.1"), None)) {
        return Verdict::Status("400 Bad Request");
    }
    match (method, path.split('?').next().unwrap_or_default()) {
        ("GET", "/metrics") => Verdict::Page { body: true },
        ("HEAD", "/metrics") => Verdict::Page { body: false },
        ("GET", "/health") => Verdict::Health { body: true },
        ("HEAD", "/health") => Verdict::Health { body: false },
        ("GET" | "HEAD", _) => Verdict::Status("404 Not Found"),
        _ => Verdict::Status("405 Method Not Allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_is_served() {
        let says = |request: &[u8]| match judge(request) {
            Verdict::Page { body } => if body { "page" } else { "head" }.to_owned(),
            Verdict::Health { body } => if body { "health" } else { "head" }.to_owned(),
            Verdict::Status(status) => status[..3].to_owned(),
        };
        assert_eq!(says(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "page");
        assert_eq!(says(b"GET /metrics?x=1 HTTP/1.0\n\n"), "page");
        assert_eq!(says(b"HEAD /metrics HTTP/1.0\r\n\r\n"), "head");
        assert_eq!(says(b"GET /health HTTP/1.0\r\n\r\n"), "health");
        assert_eq!(says(b"GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(says(b"POST /metrics HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(says(b"EHLO x\r\n\r\n"), "400");
        assert_eq!(says(b"GET /metrics\r\n\r\n"), "400");
        assert_eq!(says(&[b'a'; 9000]), "431");
        assert_eq!(says(b"\xff\xfe\r\n\r\n"), "400");
    }

    #[test]
    fn a_client_gets_the_page_and_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64);
            let talk = async {
                client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
                let mut octets = Vec::new();
                client.read_to_end(&mut octets).await.unwrap();
                drop(client);
                String::from_utf8(octets).unwrap()
            };
            let ((), text) = tokio::join!(serve(server, || "a 1\n".to_owned(), || Ok(())), talk);
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert!(text.contains("Content-Length: 4\r\n") && text.ends_with("\r\n\r\na 1\n"));
        });
    }
}
