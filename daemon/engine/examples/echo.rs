//! Measures the engine against itself: a server core and a client core, each on its processor.
//!
//! `echo [seconds] [connections]` prints, for 64-byte exchanges and for connections of one
//! exchange each (closed by the server, as after QUIT), the rate and the processor time of the
//! server's thread and of the kernel workers it caused.

use engine::{Config, Conn, Core, Event, Handler, Probe, host, mailbox};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{env, error, fs, sync::mpsc, thread};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Echo,
    /// The server closes after each exchange and waits for the client's FIN.
    Close,
    /// The same without waiting.
    Finish,
}

struct Server(Mode, Arc<AtomicBool>);

impl Handler<()> for Server {
    fn event(&mut self, core: &mut Core<()>, event: Event<'_, ()>) {
        match event {
            Event::Received { conn, bytes } => {
                let _ = core.send(conn, bytes);
                match self.0 {
                    Mode::Echo => {}
                    Mode::Close => core.close(conn),
                    Mode::Finish => core.finish(conn),
                }
            }
            Event::Eof { conn } => core.close(conn),
            _ => {}
        }
    }

    fn turn_end(&mut self, core: &mut Core<()>) {
        if self.1.load(Ordering::Relaxed) {
            core.stop();
        }
    }
}

struct Client {
    mode: Mode,
    peer: SocketAddr,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Client {
    fn dial(&self, core: &mut Core<()>) {
        core.connect(self.peer, None, u64::MAX).map(drop).expect("slots are configured");
    }

    fn ping(core: &mut Core<()>, conn: Conn) {
        core.send(conn, &[7; 64]).expect("64 bytes fit");
    }
}

impl Handler<()> for Client {
    fn event(&mut self, core: &mut Core<()>, event: Event<'_, ()>) {
        match event {
            Event::Connected { conn, result: Ok(()) } => Self::ping(core, conn),
            Event::Received { conn, .. } if self.mode == Mode::Echo => {
                self.done.fetch_add(1, Ordering::Relaxed);
                Self::ping(core, conn);
            }
            Event::Eof { conn } => core.close(conn),
            Event::Closed { .. } => {
                self.done.fetch_add(1, Ordering::Relaxed);
                self.dial(core);
            }
            _ => {}
        }
    }

    fn turn_end(&mut self, core: &mut Core<()>) {
        if self.stop.load(Ordering::Relaxed) {
            core.stop();
        }
    }
}

/// Nanoseconds of processor time of the threads whose name starts with `name`.
fn cpu_ns(name: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs is mounted").flatten();
    let times = tasks.filter_map(|task| {
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        comm.starts_with(name).then(|| stat.split(' ').next()?.parse::<u64>().ok())?
    });
    times.sum()
}

fn measure(mode: Mode, seconds: u64, connections: u32) -> Result<(), Box<dyn error::Error>> {
    let probe = Probe::detect()?;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let (tell, told) = mpsc::channel();
    let (server_probe, server_stop) = (probe.clone(), Arc::clone(&stop));
    let server = thread::Builder::new().name("server".into()).spawn(move || {
        host::pin_to_cpu(0).expect("there is a processor 0");
        let (_, mail) = mailbox(1).expect("an eventfd");
        let mut core = Core::new(Config::default(), &server_probe, mail).expect("a core");
        let listener = core.listen(([127, 0, 0, 1], 0).into(), 0).expect("a port");
        tell.send(core.listener_address(listener).expect("it listens")).expect("main waits");
        core.run(&mut Server(mode, server_stop)).expect("the ring works");
    })?;
    let peer = told.recv()?;
    let (client_done, client_stop) = (Arc::clone(&done), Arc::clone(&stop));
    let client = thread::Builder::new().name("client".into()).spawn(move || {
        host::pin_to_cpu(1).expect("there is a processor 1");
        let (_, mail) = mailbox(1).expect("an eventfd");
        let config = Config { outgoing_max: 2 * connections, ..Config::default() };
        let mut core = Core::new(config, &probe, mail).expect("a core");
        let mut client = Client { mode, peer, done: client_done, stop: client_stop };
        for _ in 0..connections {
            client.dial(&mut core);
        }
        core.run(&mut client).expect("the ring works");
    })?;
    let read =
        || (engine::now_us(), done.load(Ordering::Relaxed), cpu_ns("server"), cpu_ns("iou-wrk"));
    thread::sleep(std::time::Duration::from_millis(200));
    let before = read();
    thread::sleep(std::time::Duration::from_secs(seconds));
    let after = read();
    stop.store(true, Ordering::Relaxed);
    server.join().map_err(|_| "server")?;
    client.join().map_err(|_| "client")?;
    let (time, count) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{}: {} a second; ns each: server {}, all kernel workers {}",
        match mode {
            Mode::Echo => "echo",
            Mode::Close => "once, close",
            Mode::Finish => "once, finish",
        },
        count * 1_000_000 / time,
        (after.2 - before.2) / count.max(1),
        (after.3.saturating_sub(before.3)) / count.max(1),
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn error::Error>> {
    let mut arguments = env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let connections = arguments.next().map_or(Ok(64), |text| text.parse())?;
    for mode in [Mode::Echo, Mode::Close, Mode::Finish] {
        measure(mode, seconds, connections)?;
    }
    Ok(())
}
