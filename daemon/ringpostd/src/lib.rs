//! The mail exchanger daemon.
//!
//! *Not here.* Grammar (`smtp`), the log (`spool`), the ring (`engine`): this crate joins them.
//! The order of the modules is the layer order: a module uses only those above it.

pub mod limits;
pub mod feeds;
pub mod config;
pub mod health;
pub mod events;
pub mod metrics;
pub mod maillog;
pub mod tls;
pub mod dns;
pub mod spf;
pub mod standing;
pub mod dnsbl;
pub mod xdp;
pub mod acl;
pub mod recorder;
pub mod rules;
pub mod retry;
pub mod route;
pub mod post;
pub mod ways;
pub mod lookup;
pub mod desk;
pub mod inbound;
pub mod queue;
pub mod outbound;
pub mod tally;
pub mod relay;
pub mod admin;
pub mod takein;
pub mod shard;
pub mod house;
pub mod cage;
pub mod boot;
pub mod supervise;
