//! A comparison as one HTML page that needs nothing else: plots, tables, how it was measured.

use std::fmt::Write as _;

use super::plan::{Role, Run};
use super::report::{Report, ServerNote, Worth};
use super::svg::{Bar, Line, bars, colour, escape, legend, lines, short};
use crate::limits::{BUSY_LOAD_AVERAGE, FLOOR_NAME};
use crate::source::report::CURVE;
use crate::stats::Median;

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1f2328;--dim:#656d76;--grid:#d8dee4;--bg:#fff;--soft:#f6f8fa}\
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--dim:#8d96a0;--grid:#30363d;--bg:#0d1117;\
--soft:#161b22}}\
body{font:15px/1.5 system-ui,'DejaVu Sans',sans-serif;color:var(--fg);background:var(--bg);\
max-width:1340px;margin:2rem auto;padding:0 1.2rem}\
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin:2.2rem 0 .2rem;\
border-top:1px solid var(--grid);padding-top:1.2rem}h3{font-size:1rem;margin:.4rem 0}\
p.dim,figcaption{color:var(--dim);margin:.2rem 0}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:1.4rem}\
figure{margin:0}svg{width:100%;height:auto;font:12px system-ui,'DejaVu Sans',sans-serif}\
svg text{fill:var(--fg)}svg .axis{fill:var(--dim)}svg .grid{stroke:var(--grid)}\
svg .mark{stroke:var(--fg);stroke-dasharray:4 3}svg polyline{fill:none;stroke-width:2}\
.legend{margin:.2rem 0;font-size:13px}.legend span{margin-right:1em;white-space:nowrap}\
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13.5px;margin:.6rem 0}\
td,th{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--grid);\
white-space:nowrap}td:first-child,th:first-child,.text{text-align:left;white-space:normal}\
th{color:var(--dim);font-weight:500}\
small{color:var(--dim)}.bad{color:#d1242f;font-weight:600}.wide{overflow-x:auto}\
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}.tiles div{background:var(--soft);\
border-radius:8px;padding:.7rem 1rem;min-width:150px}.tiles b{display:block;font-size:1.5rem}";

/// Parts of our cost, each the difference between two servers: name in the plan, its part.
const PARTS: [(&str, &str); 4] = [
    (FLOOR_NAME, "the floor"),
    ("ringpost-discard", "+ policy, log lines"),
    ("ringpost", "+ durable log"),
    ("ringpost-relay", "+ relay"),
];

/// The page.
pub fn html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><title>{0}</title>\
         <style>{STYLE}</style><h1>{0}</h1><p class=dim>{1}</p>",
        escape(&report.title),
        escape(&report.machine_text())
    );
    if report.machine.load_average.into_iter().any(|load| load > BUSY_LOAD_AVERAGE) {
        page.push_str(
            "<p class=bad>Somebody else was at work: times and rates are worth little.</p>",
        );
    }
    if report.interrupted {
        page.push_str("<p class=bad>Ended early: what was measured until then.</p>");
    }
    page.push_str(&tiles(report));
    let mut families: Vec<&str> = Vec::new();
    for run in &report.runs {
        let of_family = report.runs.iter().filter(|other| other.family == run.family).count();
        if of_family > 1 {
            if !families.contains(&&run.family[..]) {
                families.push(&run.family);
                sweep(&mut page, report, &run.family);
            }
        } else {
            section(&mut page, report, run);
        }
    }
    about(&mut page, report);
    page + "</html>\n"
}

fn colour_of(report: &Report, server: &str) -> &'static str {
    colour(report.servers.iter().position(|note| note.name == server).unwrap_or(0))
}

fn mark(note: &ServerNote) -> &'static str {
    if note.durable == Some(false) && note.role != Role::Bound { " (not durable)" } else { "" }
}

/// The ratios that matter, large.
fn tiles(report: &Report) -> String {
    let mut text = String::from("<div class=tiles>");
    // What only shows how fast the source is has no place among the large figures.
    for ratio in report.ratios.iter().filter(|ratio| ratio.worth != Worth::ClientLimited) {
        let single = report.runs.iter().filter(|run| run.name == ratio.run);
        if single.clone().any(|run| run.name != run.family) {
            continue;
        }
        let what = match (&ratio.other[..], &ratio.what[..]) {
            (FLOOR_NAME, _) => "floor CPU / our CPU".to_owned(),
            (other, "cpu") => format!("less CPU a message than {other}"),
            (other, _) => format!("the rate of {other}"),
        };
        let worth = serde_json::to_value(ratio.worth).unwrap_or_default();
        let worth = worth.as_str().filter(|word| *word != "counts").unwrap_or_default();
        let value = ratio.value.value;
        let value = if ratio.other == FLOOR_NAME {
            format!("{:.0} %", value * 100.0)
        } else {
            format!("{} x", short(value))
        };
        let _ = write!(
            text,
            "<div><small>{} &middot; {}</small><b>{value}</b>{}<br><small>{} to {} {worth}</small>\
             </div>",
            escape(&ratio.run),
            escape(&ratio.ours),
            escape(&what),
            short(ratio.value.least),
            short(ratio.value.most)
        );
    }
    text + "</div>"
}

fn section(page: &mut String, report: &Report, run: &Run) {
    let here: Vec<&ServerNote> = report
        .servers
        .iter()
        .filter(|note| report.figure(&run.name, &note.name, "cpu_us").is_some())
        .collect();
    if here.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>{}</h2><p class=dim>{} octets, {} message{} a connection, {} sessions {}</p>\
         <div class=plots>",
        escape(&run.name),
        escape(&run.size),
        run.messages_per_connection,
        if run.messages_per_connection == 1 { "" } else { "s" },
        run.sessions,
        escape(&run.arguments.join(" "))
    );
    figure(page, "Latency of the final dot", &latency(report, run, &here));
    figure(page, "CPU per message, all processes of a server", &cost(report, run, &here));
    figure(page, "Our cost by part: differences of medians", &parts(report, run));
    figure(page, "The floor's CPU over the server's", &of_floor(report, run, &here));
    page.push_str("</div>");
    table(page, report, run, &here);
}

fn figure(page: &mut String, title: &str, plot: &str) {
    if !plot.is_empty() {
        let _ = write!(page, "<figure><h3>{title}</h3>{plot}</figure>");
    }
}

fn latency(report: &Report, run: &Run, here: &[&ServerNote]) -> String {
    // Nines are evenly spaced: 90 %, 99 %, 99.9 %.
    let nines = |quantile: f64| (-(1.0 - quantile.min(0.9997)).log10() / 3.53).min(1.0);
    let plot: Vec<Line<'_>> = here
        .iter()
        .filter_map(|note| {
            let curve = report.curve(&run.name, &note.name)?;
            let points = CURVE.iter().zip(curve).map(|(&q, us)| (nines(q), us)).collect();
            Some(Line { name: &note.name, colour: colour_of(report, &note.name), points })
        })
        .collect();
    if plot.is_empty() {
        return String::new();
    }
    let ticks = [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")];
    let mut ticks: Vec<(f64, String)> =
        ticks.iter().map(|&(q, label)| (nines(q), label.to_owned())).collect();
    ticks.push((1.0, "max".to_owned()));
    lines("share of messages", "microseconds from final dot to 250", &ticks, &plot)
}

/// The kernel's part in a paler colour is behind the program's own.
fn cost(report: &Report, run: &Run, here: &[&ServerNote]) -> String {
    let (own, kernel, journal) = ("#1f6feb", "#8a8f98", "#bf8700");
    let rows: Vec<Bar<'_>> = here
        .iter()
        .filter_map(|note| {
            let of = |figure| report.figure(&run.name, &note.name, figure).map(|m| m.value);
            let cpu = of("cpu_us")?;
            let in_kernel = of("kernel_us").unwrap_or(0.0).min(cpu);
            let parts = vec![
                (cpu - in_kernel, own),
                (in_kernel, kernel),
                (of("journal_us").unwrap_or(0.0), journal),
            ];
            let note_text = format!("{} us{}", short(cpu), mark(note));
            Some(Bar { name: &note.name, parts, note: note_text })
        })
        .collect();
    let names = [("own code", own), ("kernel on its behalf", kernel), ("journal thread", journal)];
    legend(names.into_iter()) + &bars(&rows, None)
}

fn parts(report: &Report, run: &Run) -> String {
    let mut before = 0.0;
    let mut rows = Vec::new();
    for (at, (server, part)) in PARTS.iter().enumerate() {
        let Some(cpu) = report.figure(&run.name, server, "cpu_us") else { continue };
        let note = format!("{} us", short(cpu.value - before));
        let parts = vec![(before, "transparent"), (cpu.value - before, colour(at))];
        rows.push(Bar { name: part, parts, note });
        before = cpu.value;
    }
    if rows.len() > 1 { bars(&rows, None) } else { String::new() }
}

fn of_floor(report: &Report, run: &Run, here: &[&ServerNote]) -> String {
    let Some(floor) = report.figure(&run.name, FLOOR_NAME, "cpu_us") else {
        return String::new();
    };
    let rows: Vec<Bar<'_>> = here
        .iter()
        .filter(|note| note.name != FLOOR_NAME)
        .filter_map(|note| {
            let cpu = report.figure(&run.name, &note.name, "cpu_us")?;
            let ratio = floor.value / cpu.value;
            Some(Bar {
                name: &note.name,
                parts: vec![(ratio, colour_of(report, &note.name))],
                note: format!("{:.3}{}", ratio, mark(note)),
            })
        })
        .collect();
    bars(&rows, Some((1.0, "floor")))
}

fn sweep(page: &mut String, report: &Report, family: &str) {
    let runs: Vec<&Run> = report.runs.iter().filter(|run| run.family == family).collect();
    let most = runs.iter().map(|run| run.sessions).max().unwrap_or(1).max(2);
    let at = |sessions: u32| f64::from(sessions).log2() / f64::from(most).log2();
    let line = |figure: &'static str| -> Vec<Line<'_>> {
        report
            .servers
            .iter()
            .map(|note| Line {
                name: &note.name,
                colour: colour_of(report, &note.name),
                points: runs
                    .iter()
                    .filter_map(|run| {
                        let value = report.figure(&run.name, &note.name, figure)?;
                        Some((at(run.sessions), value.value))
                    })
                    .collect(),
            })
            .filter(|line| !line.points.is_empty())
            .collect()
    };
    let ticks: Vec<(f64, String)> =
        runs.iter().map(|run| (at(run.sessions), run.sessions.to_string())).collect();
    let _ = write!(page, "<h2>{}</h2><div class=plots>", escape(family));
    for (title, y, name) in [
        ("Throughput over sessions", "messages a second", "rate"),
        ("p99 of the final dot over sessions", "microseconds", "dot_p99_us"),
        ("CPU per message over sessions", "microseconds", "cpu_us"),
        ("Flushes per message over sessions", "flushes", "flushes"),
    ] {
        let mut plot = line(name);
        // What never flushes has no place on a logarithmic axis.
        plot.retain(|line| line.points.iter().all(|point| point.1 > 0.0));
        if !plot.is_empty() {
            figure(page, title, &lines("sessions", y, &ticks, &plot));
        }
    }
    page.push_str("</div>");
}

type Column = (&'static str, &'static str, f64, usize);

const COLUMNS: [Column; 10] = [
    ("CPU us/message", "cpu_us", 1.0, 1),
    ("journal us", "journal_us", 1.0, 1),
    ("messages/s", "rate", 1.0, 0),
    ("at next hop/s", "relayed", 1.0, 0),
    ("busy %", "busy", 0.01, 0),
    ("dot p50 us", "dot_p50_us", 1.0, 0),
    ("dot p99 us", "dot_p99_us", 1.0, 0),
    ("flushes", "flushes", 1.0, 3),
    ("KiB written", "written_octets", 1024.0, 1),
    ("MiB anonymous", "anonymous_octets", 1_048_576.0, 0),
];

fn table(page: &mut String, report: &Report, run: &Run, here: &[&ServerNote]) {
    page.push_str("<div class=wide><table><tr><th>server");
    for (title, ..) in COLUMNS {
        let _ = write!(page, "<th>{title}");
    }
    for note in here {
        let _ = write!(page, "<tr><td>{}{}", escape(&note.name), mark(note));
        for (_, figure, unit, digits) in COLUMNS {
            let cell = report.figure(&run.name, &note.name, figure);
            page.push_str(&cell.map_or_else(|| "<td>".to_owned(), |m| cell_text(m, unit, digits)));
        }
    }
    page.push_str("</table></div>");
    let ratios: Vec<String> = report
        .ratios
        .iter()
        .filter(|ratio| ratio.run == run.name)
        .map(|ratio| format!("<li>{}", escape(&ratio.text())))
        .collect();
    if !ratios.is_empty() {
        let _ = write!(page, "<ul>{}</ul>", ratios.concat());
    }
}

fn cell_text(median: Median, unit: f64, digits: usize) -> String {
    let Median { value, least, most } = median;
    format!(
        "<td>{:.digits$}<br><small>{:.digits$}&ndash;{:.digits$}</small>",
        value / unit,
        least / unit,
        most / unit
    )
}

fn about(page: &mut String, report: &Report) {
    page.push_str("<h2>Servers, and how each keeps mail</h2><table>");
    page.push_str(
        "<tr><th>server<th class=text>group<th class=text>how it keeps mail<th>flushes, writes a \
         message at one session",
    );
    for note in &report.servers {
        let seen = note.seen.map_or_else(String::new, |[flushes, writes]| {
            format!("{flushes:.2}, {writes:.2}{}", mark(note))
        });
        let trouble = note.trouble.as_ref().map_or_else(String::new, |why| {
            format!(" <span class=bad>left out: {}</span>", escape(why))
        });
        let account = if note.lost + note.doubled > 0 {
            format!(" <span class=bad>{} not delivered, {} doubled</span>", note.lost, note.doubled)
        } else {
            String::new()
        };
        let _ = write!(
            page,
            "<tr><td>{}<td class=text>{}<td class=text>{}{trouble}{account}<td>{seen}",
            escape(&note.name),
            escape(&note.group),
            escape(&note.sync)
        );
    }
    page.push_str(
        "</table><h2>How it was measured</h2><p>Server and load are pinned to different \
        processors. Servers take turns, another one first in each round; figures are medians of \
        rounds with least and most; ratios are taken round by round. CPU time is that of all of a \
        server's processes, ended ones too. A ratio of rates counts only if both servers kept \
        their processor at least 95 % busy. A server that flushes less than once a message at one \
        session is not durable, and in no ratio.</p>",
    );
    for (when, bare) in [("before", &report.bare), ("at our batch size", &report.bare_batch)] {
        if let Some(bare) = bare {
            let _ = write!(page, "<p>The bare machine {when}: {}.</p>", escape(&bare.text()));
        }
    }
    let plan = serde_json::to_string_pretty(&report.plan).unwrap_or_default();
    let _ =
        write!(page, "<details><summary>The plan</summary><pre>{}</pre></details>", escape(&plan));
}
