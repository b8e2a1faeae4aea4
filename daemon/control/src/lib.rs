//! Wire types of the admin socket, shared by the daemon and the admin tool; nothing else.
//!
//! *Guarantees*: every length has a bound, checked while decoding; whatever arrives is a value or
//! an error value. An unknown request is [`BadFrame::Unknown`], which becomes a reply by
//! [`Failure::from`].
//!
//! *Limits*: the module [`limits`]. *Not here*: sockets, peer credentials, what a request does.
//!
//! A frame is `u32 length, u16 version` (big-endian; the length counts the version and the payload)
//! and a JSON payload: `{"request": NAME, "with": {..}}` or `{"reply": NAME, "with": {..}}`. One
//! reply follows each request, in order.
#![forbid(unsafe_code)]

pub mod limits;

mod text;

mod ladder;
pub mod octets;

mod acts;

mod story;

mod speaker;

mod hint;

mod request;

mod reply;

mod codec;

mod wire;

pub use acts::{
    Accepting, Act, ConfigAct, ListedBy, LogFilter, QueueAct, Rehearse, Rule, Test, TopsBy,
    TopsFilter, WhyFilter,
};
pub use codec::{Decoder, Frame, TooLong, VERSION};
pub use hint::{Hint, HintField, put_back};
pub use ladder::{XdpLine, XdpPage, XdpRequest};
pub use reply::{
    Core, Failure, FailureCode, HintsPage, Ledger, LogLevel, MetricsPage, QueueEntry, QueueMessage,
    QueuePage, QueueRecipient, RecipientState, Reloaded, Reply, RunState, Status, VersionInfo,
    Waits,
};
pub use request::{HintKey, HintsFilter, Level, QueueFilter, Request, Submit, Upgrade};
pub use speaker::{Role, Speaker};
pub use story::{Backlog, Part, Rows, Story, StoryLine, Summary, Top, Tops};
pub use text::{List, OutOfBounds, Text};
pub use wire::{BadFrame, read_reply, read_request, write_reply, write_request};
