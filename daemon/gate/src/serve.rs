//! The gate's loop: one request, one answer, until the mail process is gone.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use ebpf_common::set::Set;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::gate::Gate;
use crate::kernel::monotonic_s;
use crate::limits::SET_BYTES_MAX;
use crate::problem::{Problem, call};
use crate::wire::{Answer, Request, receive};

/// How often the gate looks whether the cookies' key is old.
const TURN_MS: u16 = 60_000;

/// Serves the other end of the socket pair; returns when it is closed. What is attached then is
/// detached with `gate`, unless it is pinned.
///
/// # Errors
/// Of the socket. What goes wrong with a request is its answer.
pub fn serve(socket: &OwnedFd, gate: &mut Gate) -> Result<(), Problem> {
    loop {
        let mut wait = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, PollTimeout::from(TURN_MS)) {
            Ok(0) | Err(nix::Error::EINTR) => {
                gate.renew_key(monotonic_s())?;
                continue;
            }
            Ok(_) => {}
            Err(error) => return Err(call("waiting for the mail process")(error.into())),
        }
        let (octets, beside) = receive(socket.as_fd())?;
        if octets.is_empty() {
            return Ok(());
        }
        let answer = Request::read(&octets, beside).and_then(|request| done(gate, request));
        let answer = answer.unwrap_or_else(|problem| Answer::Failed(problem.to_string()));
        answer.send(socket.as_fd())?;
        gate.renew_key(monotonic_s())?;
    }
}

/// Answers every request with why there is no filter, until the mail process is gone.
///
/// # Errors
/// Of the socket.
pub fn refuse(socket: &OwnedFd, why: &Problem) -> Result<(), Problem> {
    while !receive(socket.as_fd())?.0.is_empty() {
        Answer::Failed(why.to_string()).send(socket.as_fd())?;
    }
    Ok(())
}

fn done(gate: &mut Gate, request: Request) -> Result<Answer, Problem> {
    match request {
        Request::Attach(settings) => gate.attach(&settings).map(|()| Answer::Done),
        Request::Detach => gate.detach().map(|()| Answer::Done),
        Request::Swap(file) => {
            // A copy: nobody can change it between the check and the use.
            let octets = whole(file)?;
            gate.swap(&Set::read(&octets)?).map(|()| Answer::Done)
        }
        Request::Descriptors => gate.descriptors().map(Answer::Descriptors),
        Request::Status(address) => {
            let mut status = gate.status(address)?;
            status.events = gate.events();
            Ok(Answer::Status(Box::new(status)))
        }
    }
}

fn whole(file: OwnedFd) -> Result<Vec<u8>, Problem> {
    let mut file = File::from(file);
    std::io::Seek::rewind(&mut file).map_err(call("reading a set"))?;
    let mut octets = Vec::new();
    let read = Read::by_ref(&mut file).take(SET_BYTES_MAX + 1).read_to_end(&mut octets);
    if read.map_err(call("reading a set"))? as u64 > SET_BYTES_MAX {
        return Err(Problem::Wire("a set that is too long"));
    }
    Ok(octets)
}
