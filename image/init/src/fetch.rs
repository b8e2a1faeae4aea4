//! A file from a disk or from the operator's own web server.
//!
//! *Limits*: so many octets as the caller says, `FETCH_STEP` for each step of a transfer.
//! *Failure*: what the server said.
//! *Not here*: TLS: what is fetched is signed, and nothing in it is secret.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};

use crate::limits::FETCH_STEP;

/// Lines of a reply's header that are read, and octets of one.
const HEADER_LINES_MAX: usize = 100;
const HEADER_LINE_MAX: u64 = 8 << 10;

/// Reads a file of at most so many octets. A place is a path or `http://HOST[:PORT]/PATH`.
///
/// # Errors
/// Why it is not there, or that it is too long.
pub(crate) fn fetch(place: &str, most: u64) -> Result<Vec<u8>, String> {
    let read = match place.strip_prefix("http://") {
        Some(rest) => over_http(rest, most),
        None if place.contains("://") => Err("only http:// and paths are known".to_owned()),
        None => File::open(place).map_err(|e| e.to_string()).and_then(|file| whole(file, most)),
    };
    read.map_err(|why| format!("{place}: {why}"))
}

fn whole(from: impl Read, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > most { Err(format!("more than {most} octets")) } else { Ok(bytes) }
}

fn over_http(rest: &str, most: u64) -> Result<Vec<u8>, String> {
    let (host, path) = rest.split_once('/').ok_or("no path behind the host")?;
    if rest.bytes().any(|octet| octet <= b' ' || octet >= 127) {
        return Err("no address of a file".to_owned());
    }
    let target = if host.ends_with(']') || !host.contains(':') {
        format!("{host}:80")
    } else {
        host.to_owned()
    };
    let fail = |error: std::io::Error| error.to_string();
    let mut addresses = target.to_socket_addrs().map_err(fail)?;
    let address = addresses.next().ok_or("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, FETCH_STEP).map_err(fail)?;
    stream.set_read_timeout(Some(FETCH_STEP)).map_err(fail)?;
    stream.set_write_timeout(Some(FETCH_STEP)).map_err(fail)?;
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(fail)?;
    let mut reply = BufReader::new(stream);
    let length = header(&mut reply)?;
    let bytes = whole(reply, most)?;
    match length {
        Some(length) if length != bytes.len() as u64 => {
            Err(format!("{} octets of {length} came", bytes.len()))
        }
        _ => Ok(bytes),
    }
}

/// Reads the header; the length it announces.
fn header(reply: &mut impl std::io::BufRead) -> Result<Option<u64>, String> {
    let mut length = None;
    for n in 0..HEADER_LINES_MAX {
        let mut line = Vec::new();
        let mut part = Read::take(&mut *reply, HEADER_LINE_MAX);
        part.read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if n == 0 {
            let mut words = text.split(' ');
            let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
            if !is_http || words.next() != Some("200") {
                return Err(format!("the server says {text:?}"));
            }
        } else if text.is_empty() {
            return Ok(length);
        } else if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    Err("a header without an end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn from(reply: &'static [u8], most: u64) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut octet = [0];
                stream.read_exact(&mut octet).unwrap();
                asked.push(octet[0]);
            }
            assert!(asked.starts_with(b"GET /a/file HTTP/1.0\r\n"));
            let _ = stream.write_all(reply);
        });
        let got = fetch(&format!("http://{address}/a/file"), most);
        server.join().unwrap();
        got
    }

    #[test]
    fn a_file_is_fetched_whole_or_not_at_all() {
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(from(good, 3).unwrap(), b"abc");
        assert!(from(good, 2).unwrap_err().contains("more than 2"));
        let short = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc";
        assert!(from(short, 9).unwrap_err().contains("3 octets of 4"));
        assert!(from(b"HTTP/1.1 404 Not Found\r\n\r\n", 9).unwrap_err().contains("404"));
        assert!(from(b"220 mx ESMTP\r\n", 9).is_err());
        assert!(from(b"", 9).is_err());
    }

    #[test]
    fn other_ways_are_refused() {
        for place in ["https://192.0.2.1/x", "http://192.0.2.1", "http://a b/c", "/no/such/file"] {
            assert!(fetch(place, 9).is_err(), "{place}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(bytes: Vec<u8>) {
            let _ = header(&mut &bytes[..]);
        }
    }
}
