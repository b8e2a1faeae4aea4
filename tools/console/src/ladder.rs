//! `ringpost xdp`: the ladder and its filter.

use clap::{Arg, ArgMatches, value_parser};
use control::{Reply, Request, XdpPage, XdpRequest};

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::row::{self, Row, bounded, flag, option};

/// The rows of this group.
pub(crate) const ROWS: [Row; 7] = [
    Row {
        request: |_| Ok(Request::Xdp(XdpRequest::Status)),
        ..row("xdp status", "Mode, filter, lists, zones, bans, counters")
    },
    Row {
        request: |_| Ok(Request::Xdp(XdpRequest::Top)),
        ..row("xdp top", "Which lists met how many clients in the filter")
    },
    Row {
        arguments: || vec![argument("WHAT", "An address, or the id in a refusal")],
        request: |m| Ok(Request::Xdp(XdpRequest::Look { what: bounded(m, "WHAT")? })),
        example: &["192.0.2.1"],
        ..row("xdp look", "All that is known of an address: lists, ban, who, until when")
    },
    Row {
        arguments: add_arguments,
        request: add,
        example: &["192.0.2.1"],
        ..row("xdp add", "Ban an address")
    },
    Row {
        arguments: address,
        request: |m| Ok(Request::Xdp(XdpRequest::Remove { address: bounded(m, "ADDRESS")? })),
        example: &["192.0.2.1"],
        ..row("xdp remove", "Lift a ban")
    },
    Row {
        arguments: address,
        request: |m| Ok(Request::Xdp(XdpRequest::Simulate { address: bounded(m, "ADDRESS")? })),
        example: &["192.0.2.1"],
        ..row("xdp simulate", "What would happen to this address now")
    },
    Row {
        arguments: || {
            let after = option("after", "N", "Events behind this number");
            vec![
                after.value_parser(value_parser!(u64)).default_value("0"),
                flag("all", "Go on with what happens from now on"),
            ]
        },
        request: |m| {
            let after = m.get_one("after").copied().unwrap_or(0);
            Ok(Request::Xdp(XdpRequest::Tail { after }))
        },
        next: Some(tail_next),
        ..row("xdp tail", "What the filter did last, by sampled events")
    },
];

const fn row(name: &'static str, help: &'static str) -> Row {
    Row { render: show, ..row::row(name, help) }
}

fn argument(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).help(help)
}

fn address() -> Vec<Arg> {
    vec![argument("ADDRESS", "An IPv4 address, or any of an IPv6 /64")]
}

fn add_arguments() -> Vec<Arg> {
    let mut arguments = address();
    let rung = option("rung", "RUNG", "How far it goes").value_parser(["answer", "drop"]);
    arguments.push(rung.default_value("answer"));
    let life = option("seconds", "N", "For how long");
    let life = life.value_parser(value_parser!(u32).range(1..=86_400));
    arguments.push(life.default_value("3600"));
    arguments
}

fn add(m: &ArgMatches) -> Result<Request, Trouble> {
    Ok(Request::Xdp(XdpRequest::Add {
        address: bounded(m, "ADDRESS")?,
        rung: bounded(m, "rung")?,
        life_s: m.get_one("seconds").copied().unwrap_or(3600),
    }))
}

/// For ever: the daemon waits a while for the next event.
fn tail_next(_: Request, reply: &Reply) -> Option<Request> {
    let Reply::Xdp(page) = reply else { return None };
    Some(Request::Xdp(XdpRequest::Tail { after: page.next? }))
}

/// The page.
fn show(page: &mut Page, reply: &Reply) -> Option<Exit> {
    match reply {
        Reply::Xdp(reply) => lines(page, reply),
        Reply::Done { message } => page.paragraph(0, message),
        _ => return None,
    }
    Some(Exit::Fine)
}

fn lines(page: &mut Page, reply: &XdpPage) {
    for line in reply.lines.iter() {
        page.field(&line.name, &line.value);
    }
    if reply.lines.is_empty() && !page.follows && !page.goes_on {
        page.line("Nothing.");
    }
}
