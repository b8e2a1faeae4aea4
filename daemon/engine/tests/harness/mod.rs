//! A core on a thread of its own, for tests that talk to it over loopback.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test's way of failing")]

use engine::{Config, Conn, Core, Event, Handler, MailboxSender, Probe, mailbox};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// Mail of the tests' cores: something to do on the core's thread.
pub type Job<H> = Box<dyn FnOnce(&mut Core<Task<H>>, &mut H) + Send>;

/// A job for a handler of this kind.
pub struct Task<H>(pub Job<H>);

impl<H> std::fmt::Debug for Task<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

/// What a test supplies.
pub trait Play: Sized + 'static {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>);
    fn turn_end(&mut self, _core: &mut Core<Task<Self>>) {}
}

struct Runner<H>(H);

impl<H: Play> Handler<Task<H>> for Runner<H> {
    fn event(&mut self, core: &mut Core<Task<H>>, event: Event<'_, Task<H>>) {
        match event {
            Event::Mail(Task(job)) => job(core, &mut self.0),
            other => self.0.event(core, other),
        }
    }

    fn turn_end(&mut self, core: &mut Core<Task<H>>) {
        self.0.turn_end(core);
    }
}

/// A running core.
pub struct Running<H: Play> {
    pub address: SocketAddr,
    sender: MailboxSender<Task<H>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a core that listens on a free port of 127.0.0.1 with tag 1.
pub fn start<H: Play>(config: Config, make: impl FnOnce() -> H + Send + 'static) -> Running<H> {
    let (sender, receiver) = mailbox(64).unwrap();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let probe = Probe::detect().unwrap();
        let mut core = Core::new(config, &probe, receiver).unwrap();
        let listener = core.listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        tell.send(core.listener_address(listener).unwrap()).unwrap();
        core.run(&mut Runner(make())).unwrap();
    });
    Running { address: told.recv().unwrap(), sender, thread: Some(thread) }
}

impl<H: Play> Running<H> {
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    pub fn sender(&self) -> MailboxSender<Task<H>> {
        self.sender.clone()
    }

    /// Runs a job on the core's thread and returns its answer.
    pub fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Core<Task<H>>, &mut H) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = mpsc::channel();
        let job: Job<H> = Box::new(move |core, handler| drop(tell.send(job(core, handler))));
        assert!(self.sender.post(Task(job)).is_ok(), "the mailbox has room");
        told.recv().unwrap()
    }

    /// Asks again until the answer is yes. No time limit: a test that hangs names itself.
    pub fn until(&self, job: impl Fn(&mut Core<Task<H>>, &mut H) -> bool + Send + Clone + 'static) {
        while !self.ask(job.clone()) {
            thread::yield_now();
        }
    }
}

impl<H: Play> Drop for Running<H> {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        self.ask(|core, _| core.stop());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Sends back what it gets; closes at the end of the stream.
#[derive(Debug, Default)]
pub struct Echo {
    pub open: Vec<Conn>,
    pub accepted: u64,
    pub received: u64,
    pub ended: u64,
    pub broken: u64,
    pub closed: u64,
}

impl Play for Echo {
    fn event(&mut self, core: &mut Core<Task<Self>>, event: Event<'_, Task<Self>>) {
        match event {
            Event::Accepted { conn, listener, .. } => {
                assert_eq!(listener, 1);
                self.accepted += 1;
                self.open.push(conn);
            }
            Event::Received { conn, bytes } => {
                self.received += bytes.len() as u64;
                core.send(conn, bytes).unwrap();
            }
            Event::Eof { conn } => {
                self.ended += 1;
                core.close(conn);
            }
            Event::Broken { .. } => self.broken += 1,
            Event::Closed { conn } => {
                self.closed += 1;
                self.open.retain(|open| *open != conn);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}
