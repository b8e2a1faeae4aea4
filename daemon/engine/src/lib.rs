//! One io_uring reactor per core: sockets, timers, disk, mailboxes.
//!
//! An event-driven loop without futures. A thread makes a [`Core`], gives it listeners and files,
//! and runs it with a [`Handler`]; the handler is told of [`Event`]s and calls the core. All
//! unsafe code of the daemon is here.
//!
//! *Guarantees*: memory named in a request belongs to the core until the request's completion. A
//! handle or completion of an object that is gone finds nothing. A paused connection loses no
//! byte.
//!
//! *Limits*: [`Config`] and [`limits`]; nothing else grows.
//!
//! *Failure*: [`StartError`] names the setting to change. A failing connection, datagram or disk
//! request is an event of its own. What the kernel does not give back at the end is leaked.
//!
//! *Not here*: mail.
//!
//! ```
//! use engine::{Config, Core, Event, Handler, Probe, mailbox};
//!
//! struct Echo;
//!
//! impl Handler<()> for Echo {
//!     fn event(&mut self, core: &mut Core<()>, event: Event<'_, ()>) {
//!         match event {
//!             Event::Received { conn, bytes } => {
//!                 if core.send(conn, bytes).is_err() {
//!                     core.abort(conn);
//!                 }
//!             }
//!             Event::Eof { conn } => core.close(conn),
//!             Event::Mail(()) => core.stop(),
//!             _ => {}
//!         }
//!     }
//!
//!     fn turn_end(&mut self, _core: &mut Core<()>) {}
//! }
//!
//! let probe = Probe::detect()?;
//! let (sender, receiver) = mailbox(16)?;
//! type Failure = Box<dyn std::error::Error + Send + Sync>;
//! let thread = std::thread::spawn(move || -> Result<(), Failure> {
//!     let mut core = Core::new(Config::default(), &probe, receiver)?;
//!     core.listen(([127, 0, 0, 1], 0).into(), 0)?;
//!     Ok(core.run(&mut Echo)?)
//! });
//! sender.post(()).expect("the mailbox is empty");
//! thread.join().expect("no panic").expect("a core");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(unsafe_code, reason = "this crate is where the daemon's unsafe code lives")]

pub mod limits;

mod clock;
mod handle;
mod wheel;

mod address;
mod socket;

pub mod host;
pub mod map;
pub mod storage;

mod probe;
mod trial;

mod config;

mod ring;

mod buffers;
mod disk_buffer;
mod mailbox;

mod event;
mod link;

mod reactor;

pub use clock::{now_us, wall_us};
pub use config::{Config, DiskClass};
pub use disk_buffer::{DiskBuffer, DiskBytes};
pub use event::Event;
pub use handle::{Conn, File, Listener, Timer, Udp};
pub use mailbox::{MailboxReceiver, MailboxSender, mailbox};
pub use probe::{Probe, StartError};
pub use reactor::{Core, DiskRefused, Handler, Heartbeat, SendRefused, Stats};
pub use trial::{Trial, trial};
