//! Connections over loopback: the ways bytes come and go, and the ways a connection ends.

mod harness;

use engine::Config;
use harness::{Echo, start};
use std::io::{Read, Write};
use std::net::Shutdown;

#[test]
fn bytes_come_back_and_the_slot_is_freed() {
    let core = start(Config::default(), Echo::default);
    for _ in 0..3 {
        let mut client = core.connect();
        client.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut back).unwrap(), 0);
    }
    core.until(|core, echo| echo.closed == 3 && core.connections() == (0, 0));
}
