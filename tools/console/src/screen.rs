//! `live --screen`: one screen of figures on a vt100, as fast as its line.
//!
//! *Guarantees*: only cells that changed are sent, and three orders: go there, go right, clear.
//! No colour, no query, no octet above 126; the last column stays empty. It
//! uses at most half of the line's speed.
//! *Limits*: 24 lines of 79 columns, whatever the terminal has.

use std::io;
use std::time::{Duration, Instant};

use control::{Reply, Request, Status, Tops, TopsBy, TopsFilter};
use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::{Position, Rect, Size};
use ratatui::style::Style;
use ratatui::symbols::border::Set;
use ratatui::widgets::{Block, Borders, Widget};
use ratatui::{Terminal, TerminalOptions, Viewport};

use crate::exit::{Exit, Trouble};
use crate::figures::{Samples, commit_ms, reasons, samples, sum};
use crate::socket::Socket;
use crate::text::{fit, size, span};
use crate::tty::{self, Mode};

const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;
/// Columns that are written.
const COLUMNS: usize = 79;
/// Octets of the first screen and of one after it; tests hold them.
#[cfg(test)]
const FIRST_OCTETS_MAX: usize = 1_300;
#[cfg(test)]
const UPDATE_OCTETS_MAX: usize = 460;
/// One in which each name's counts have changed.
#[cfg(test)]
const RANKING_OCTETS_MAX: usize = 600;
/// Cores that are shown.
const CORES: usize = 7;
/// Reasons that are shown.
const REASONS: usize = 6;
/// Bits a second from which on a line is quick.
const QUICK_BAUD: u32 = 38_400;
const LINES: Set<'static> = Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// A vt100 that is only told.
struct Vt100 {
    out: Vec<u8>,
    at: Option<(u16, u16)>,
    /// Octets that left since this was last set to 0.
    sent: usize,
    print: fn(&str),
}

impl Vt100 {
    fn go(&mut self, x: u16, y: u16) {
        match self.at {
            Some(at) if at == (x, y) => {}
            Some((old, line)) if line == y && old < x => {
                self.out.extend_from_slice(format!("\x1b[{}C", x - old).as_bytes());
            }
            _ => self.out.extend_from_slice(format!("\x1b[{};{}H", y + 1, x + 1).as_bytes()),
        }
        self.at = Some((x, y));
    }
}

impl Backend for Vt100 {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        for (x, y, cell) in content {
            self.go(x, y);
            let octet = cell.symbol().bytes().next().filter(|o| (b' '..=b'~').contains(o));
            self.out.push(octet.unwrap_or(b'?'));
            self.at = Some((x + 1, y)).filter(|(x, _)| *x < WIDTH);
        }
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(self.at.unwrap_or_default().into())
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let position = position.into();
        self.go(position.x, position.y);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.out.extend_from_slice(b"\x1b[H\x1b[2J");
        self.at = Some((0, 0));
        Ok(())
    }

    fn clear_region(&mut self, _: ClearType) -> io::Result<()> {
        self.clear()
    }

    fn size(&self) -> io::Result<Size> {
        Ok(Size::new(WIDTH, HEIGHT))
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        let columns_rows = Size::new(WIDTH, HEIGHT);
        Ok(WindowSize { columns_rows, pixels: Size::new(0, 0) })
    }

    /// What was gathered leaves in one write.
    fn flush(&mut self) -> io::Result<()> {
        (self.print)(&String::from_utf8_lossy(&self.out));
        self.sent += self.out.len();
        self.out.clear();
        Ok(())
    }
}

/// Which screen, how often.
pub(crate) struct Of {
    /// Seconds between two; else as the line is.
    pub(crate) every_s: Option<u64>,
    /// So many, then the end.
    pub(crate) count: Option<u64>,
    /// The line's speed.
    pub(crate) baud: Option<u32>,
    /// By client, next hop or domain, in the place of the reasons.
    pub(crate) by: Option<TopsFilter>,
}

/// What stands on the screen.
struct Facts {
    tops: Option<(&'static str, Box<Tops>)>,
    status: Box<Status>,
    before: Samples,
    now: Samples,
    seconds: f64,
    octets: usize,
    every: Duration,
}

/// Between two screens: as asked, or 2 s, 5 s on slow lines; and never more than half of the line.
fn pause(asked_s: Option<u64>, baud: Option<u32>, octets: usize) -> Duration {
    let slow = baud.is_some_and(|baud| baud < QUICK_BAUD);
    let wanted = Duration::from_secs(asked_s.unwrap_or(if slow { 5 } else { 2 }));
    let Some(baud) = baud else { return wanted };
    let bits = u64::try_from(octets).unwrap_or(u64::MAX).saturating_mul(2 * 10 * 1000);
    wanted.max(Duration::from_millis(bits / u64::from(baud.max(1))))
}

fn alien() -> Trouble {
    Trouble::new(Exit::Protocol, "the daemon answered something else", "")
}

/// Who it is, where it goes: counts with their name.
fn tops(
    socket: &mut Socket,
    by: Option<TopsFilter>,
) -> Result<Option<(&'static str, Box<Tops>)>, Trouble> {
    let Some(filter) = by else { return Ok(None) };
    let name = TopsBy::ALL.iter().find(|(by, _)| *by == filter.by).map_or("", |(_, name)| name);
    let (_, Reply::Tops(tops)) = socket.ask(&Request::Tops(filter))? else { return Err(alien()) };
    Ok(Some((name, tops)))
}

fn ask(socket: &mut Socket) -> Result<(Box<Status>, Samples), Trouble> {
    let (_, Reply::Status(status)) = socket.ask(&Request::Status)? else { return Err(alien()) };
    let (_, Reply::Metrics(page)) = socket.ask(&Request::Metrics)? else { return Err(alien()) };
    Ok((status, samples(&page.text)))
}

/// Draws until `q`, or so many times.
pub(crate) fn show(socket: &mut Socket, of: &Of) -> Result<Exit, Trouble> {
    let broken = |error: io::Error| Trouble::new(Exit::Refused, format!("screen: {error}"), "");
    let viewport = Viewport::Fixed(Rect::new(0, 0, WIDTH, HEIGHT));
    let backend = Vt100 { out: Vec::new(), at: None, sent: 0, print: tty::print };
    let mut terminal =
        Terminal::with_options(backend, TerminalOptions { viewport }).map_err(broken)?;
    let mode = Mode::now();
    if let Some(mode) = &mode {
        mode.keys();
    }
    terminal.clear().map_err(broken)?;
    let (_, mut before) = ask(socket)?;
    let mut since = Instant::now();
    let (mut octets, mut drawn) = (0, 0);
    loop {
        let (status, now) = ask(socket)?;
        let tops = tops(socket, of.by)?;
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        since = Instant::now();
        let every = pause(of.every_s, of.baud, octets);
        let facts = Facts { tops, status, before, now, seconds, octets, every };
        terminal.draw(|frame| draw(frame.buffer_mut(), &facts)).map_err(broken)?;
        octets = std::mem::take(&mut terminal.backend_mut().sent);
        drawn += 1;
        before = facts.now;
        let ends = of.count.is_some_and(|count| drawn >= count);
        if ends || !wait(&mut terminal, pause(of.every_s, of.baud, octets)).map_err(broken)? {
            break;
        }
    }
    drop(mode);
    tty::print(&format!("\x1b[{HEIGHT};1H\n"));
    Ok(Exit::Fine)
}

/// Waits for the next screen; false if somebody wants no more.
fn wait(terminal: &mut Terminal<Vt100>, pause: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        let left = pause.saturating_sub(begun.elapsed());
        match tty::key(Some(left)) {
            Some(b'q' | b'Q' | 3 | 4) => return Ok(false),
            // ctrl-L: something else has written on the screen.
            Some(12) => {
                terminal.clear()?;
                return Ok(true);
            }
            Some(_) => {}
            // A line that has ended is readable, and says nothing.
            None => return Ok(begun.elapsed() >= pause),
        }
    }
}

/// A line of text.
fn put(to: &mut Buffer, row: &mut u16, text: &str) {
    if *row < HEIGHT - 1 {
        to.set_string(0, *row, fit(text, COLUMNS), Style::default());
    }
    *row += 1;
}

/// A line with a heading.
fn rule(to: &mut Buffer, row: &mut u16, title: &str) {
    let block = Block::new().borders(Borders::TOP).border_set(LINES).title(format!(" {title} "));
    block.render(Rect::new(0, *row, WIDTH - 1, 1), to);
    *row += 1;
}

/// Clients, next hops or domains, the busiest first.
fn ranking(to: &mut Buffer, row: &mut u16, name: &str, tops: &Tops) {
    rule(to, row, &format!("by {name}, last {}", span(tops.seconds)));
    put(to, row, "   conn    acc    ref   sent    def");
    for top in tops.rows.iter() {
        let counts = [top.connected, top.accepted, top.refused, top.relayed, top.deferred];
        let counts: String = counts.iter().map(|count| format!("{count:>7}")).collect();
        put(to, row, &format!("{counts} {}", &*top.name));
    }
}

fn draw(to: &mut Buffer, facts: &Facts) {
    let status = &facts.status;
    let rate =
        |name: &str| (sum(&facts.now, name) - sum(&facts.before, name)).max(0.0) / facts.seconds;
    let gauge = |name: &str| sum(&facts.now, name);
    let mut row = 0;
    let up = span(status.uptime_s);
    put(to, &mut row, &format!("ringpost {} up {up}", &*status.version));
    let alarm = status.alarms.first().map_or_else(String::new, |a| format!("ALARM {}", &**a));
    put(to, &mut row, &alarm);
    let per_second = [
        ("connections", "ringpost_connections_total"),
        ("accepted", "ringpost_messages_accepted_total"),
        ("refused", "ringpost_refused_total"),
        ("relayed", "ringpost_recipients_relayed_total"),
        ("deferred", "ringpost_recipients_deferred_total"),
        ("listed", "ringpost_xdp_total"),
    ];
    rule(to, &mut row, "a second");
    let heads: String = per_second.iter().map(|(head, _)| format!("{head:>12}")).collect();
    put(to, &mut row, &heads);
    let values: String =
        per_second.iter().map(|(_, name)| format!("{:>12.0}", rate(name))).collect();
    put(to, &mut row, &values);
    rule(to, &mut row, "now");
    let now = format!(
        "sessions {:<8.0} next hops {:<8.0} queue {:<8} oldest {:<8} free {}",
        gauge("ringpost_sessions"),
        gauge("ringpost_hop_connections"),
        status.queued_messages,
        span(status.oldest_s),
        size(status.spool_free_octets),
    );
    put(to, &mut row, &now);
    let (half, most) = (commit_ms(&facts.now, "0.5"), commit_ms(&facts.now, "0.99"));
    put(to, &mut row, &format!("commit ms  p50 {half:<8} p99 {most}"));
    rule(to, &mut row, "cores: sessions, outbound, accepted, queued, turned");
    for core in status.cores.iter().take(CORES) {
        let line = format!(
            "{:>4} {:>8} {:>8} {:>12} {:>10} {:>6}ms",
            core.core, core.sessions, core.outbound, core.accepted, core.queued, core.turned_ms
        );
        put(to, &mut row, &line);
    }
    match &facts.tops {
        Some((name, tops)) => ranking(to, &mut row, name, tops),
        None => {
            rule(to, &mut row, "refused and deferred since the last screen");
            for (count, what) in reasons(&facts.before, &facts.now).iter().take(REASONS) {
                put(to, &mut row, &format!("{count:>10.0} {what}"));
            }
        }
    }
    let (every, octets) = (facts.every.as_secs(), facts.octets);
    let foot = format!("q ends, ctrl-L draws anew; every {every} s; {octets} octets");
    to.set_string(0, HEIGHT - 1, fit(&foot, COLUMNS), Style::default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{Core, List, Text, Top};

    fn facts(n: u32, with_tops: bool) -> Facts {
        let core = |core| Core { core, sessions: 10 * n, accepted: 1000, ..Core::default() };
        let cores = List::cut([0, 1].map(core));
        let status = Status { cores, uptime_s: 3 * u64::from(n), ..Status::default() };
        let page = |n: u32| {
            let name = "ringpost_refused_total{reason=\"dnsbl\"}";
            samples(&format!("{name} {n}\nringpost_messages_accepted_total {}\n", n * 7))
        };
        let every = Duration::from_secs(5);
        let (before, now) = (page(n), page(n + n));
        let rows = (0..40).map(|m| Top {
            name: Text::cut(&format!("192.0.2.{m}")),
            accepted: u64::from(m * n),
            ..Top::default()
        });
        let rows = List::cut(rows);
        let tops = Tops { seconds: 60, rows, left_out: 0 };
        let tops = with_tops.then(|| ("peer", Box::new(tops)));
        Facts { tops, status: Box::new(status), before, now, seconds: 1.0, octets: 400, every }
    }

    /// Octets of the first screen and of an update, as the line gets them.
    #[test]
    fn screens_keep_to_their_budget_and_to_seven_bits() {
        for (with_tops, update_max) in [(false, UPDATE_OCTETS_MAX), (true, RANKING_OCTETS_MAX)] {
            let viewport = Viewport::Fixed(Rect::new(0, 0, WIDTH, HEIGHT));
            let print = |text: &str| assert!(text.is_ascii());
            let backend = Vt100 { out: Vec::new(), at: None, sent: 0, print };
            let options = TerminalOptions { viewport };
            let mut terminal = Terminal::with_options(backend, options).unwrap();
            let mut buffer = Buffer::empty(Rect::new(0, 0, WIDTH, HEIGHT));
            draw(&mut buffer, &facts(1, with_tops));
            for y in 0..HEIGHT {
                assert_eq!(buffer[(WIDTH - 1, y)].symbol(), " ", "the last column stays empty");
            }
            let mut sizes = Vec::new();
            for n in [1, 2, 2] {
                terminal.draw(|frame| draw(frame.buffer_mut(), &facts(n, with_tops))).unwrap();
                sizes.push(std::mem::take(&mut terminal.backend_mut().sent));
            }
            assert!(sizes[0] <= FIRST_OCTETS_MAX, "{sizes:?}");
            assert!(sizes[1] <= update_max, "{sizes:?}");
            assert_eq!(sizes[2], 0, "what is the same is not sent");
        }
    }

    #[test]
    fn the_pause_fits_the_line() {
        let s = Duration::from_secs;
        assert_eq!(pause(None, Some(9_600), 400), s(5));
        assert_eq!(pause(None, Some(115_200), 400), s(2));
        assert_eq!(pause(Some(1), None, 1 << 20), s(1));
        assert_eq!(pause(Some(1), Some(9_600), 4_800), s(10), "half of the line");
    }
}
