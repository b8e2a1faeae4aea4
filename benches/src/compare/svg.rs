//! Plots as SVG text: lines over an axis, horizontal bars of parts.
//!
//! *Not here*: anything that runs in a browser; the page works without scripts.

use std::fmt::Write as _;

/// Width of a plot, and of the margin left of it.
const WIDTH: f64 = 620.0;
const LEFT: f64 = 64.0;
const HEIGHT: f64 = 320.0;
const BOTTOM: f64 = 46.0;
const TOP: f64 = 14.0;
const BAR: f64 = 22.0;
const BAR_LEFT: f64 = 150.0;

/// One colour for each name, the same in every plot.
const COLOURS: [&str; 10] = [
    "#8a8f98", "#1f6feb", "#d1242f", "#1a7f37", "#bf8700", "#8250df", "#0a7ea4", "#e16f24",
    "#953800", "#57606a",
];

/// The colour of the n-th name.
pub(super) fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

/// Text that is safe between tags.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number as a person writes it.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        format!("{:.1}M", value / 1e6)
    } else if size >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else if size >= 1e3 {
        format!("{:.1}k", value / 1e3)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 || value == 0.0 {
        format!("{value:.1}").trim_end_matches(".0").to_owned()
    } else {
        format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// A named line in a colour.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) colour: &'static str,
    /// Position from 0 to 1 on the x axis, and value.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over a logarithmic y axis. `ticks` are positions from 0 to 1 on the x axis with a label.
pub(super) fn lines(x: &str, y: &str, ticks: &[(f64, String)], lines: &[Line<'_>]) -> String {
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1.max(1e-9));
    let least = values().fold(f64::INFINITY, f64::min).log10().floor();
    let most = values().fold(0.0, f64::max).log10().ceil().max(least + 1.0);
    let (right, low) = (WIDTH - 18.0, HEIGHT - BOTTOM);
    let at_x = |position: f64| LEFT + position * (right - LEFT);
    let at_y = |value: f64| low - (value.max(1e-9).log10() - least) / (most - least) * (low - TOP);
    let mut svg = open(WIDTH, HEIGHT);
    for (position, label) in ticks {
        let at = at_x(*position);
        let _ = write!(
            svg,
            "<line class=grid x1={at:.1} x2={at:.1} y1={TOP} y2={low} />\
             <text x={at:.1} y={:.1} text-anchor=middle>{}</text>",
            low + 16.0,
            escape(label)
        );
    }
    let mut power = least;
    while power <= most {
        let at = at_y(10f64.powf(power));
        let _ = write!(
            svg,
            "<line class=grid x1={LEFT} x2={right} y1={at:.1} y2={at:.1} />\
             <text x={:.1} y={:.1} text-anchor=end>{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(10f64.powf(power))
        );
        power += 1.0;
    }
    for line in lines {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|&(position, value)| format!("{:.1},{:.1}", at_x(position), at_y(value)))
            .collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" stroke=\"{}\"><title>{}</title></polyline>",
            points.join(" "),
            line.colour,
            escape(line.name)
        );
        for (&(position, value), _) in line.points.iter().zip(&points) {
            let _ = write!(
                svg,
                "<circle cx={:.1} cy={:.1} r=2.6 fill=\"{}\"><title>{}: {}</title></circle>",
                at_x(position),
                at_y(value),
                line.colour,
                escape(line.name),
                short(value)
            );
        }
    }
    let _ = write!(
        svg,
        "<text class=axis x={:.1} y={:.1} text-anchor=middle>{}</text>\
         <text class=axis transform=\"translate(14 {:.1}) rotate(-90)\" \
         text-anchor=middle>{}</text>\
         </svg>",
        f64::midpoint(LEFT, right),
        HEIGHT - 8.0,
        escape(x),
        f64::midpoint(TOP, low),
        escape(y)
    );
    legend(lines.iter().map(|line| (line.name, line.colour))) + &svg
}

/// One horizontal bar.
pub(super) struct Bar<'a> {
    pub(super) name: &'a str,
    /// Value and colour of each part.
    pub(super) parts: Vec<(f64, &'static str)>,
    /// What stands behind it.
    pub(super) note: String,
}

/// Horizontal bars of parts from zero; `mark` is a line across all.
pub(super) fn bars(bars: &[Bar<'_>], mark: Option<(f64, &str)>) -> String {
    let sum = |bar: &Bar<'_>| bar.parts.iter().map(|part| part.0.max(0.0)).sum::<f64>();
    let most = bars.iter().map(sum).fold(mark.map_or(0.0, |mark| mark.0), f64::max).max(1e-9);
    let height = bars.len() as f64 * (BAR + 8.0) + 22.0;
    let scale = (WIDTH - BAR_LEFT - 150.0) / most;
    let mut svg = open(WIDTH, height);
    for (row, bar) in bars.iter().enumerate() {
        let top = row as f64 * (BAR + 8.0) + 6.0;
        let _ = write!(
            svg,
            "<text x={:.1} y={:.1} text-anchor=end>{}</text>",
            BAR_LEFT - 8.0,
            top + 15.0,
            escape(bar.name)
        );
        let mut left = BAR_LEFT;
        for &(value, colour) in &bar.parts {
            let width = value.max(0.0) * scale;
            let _ = write!(
                svg,
                "<rect x={left:.1} y={top:.1} width={width:.1} height={BAR} fill=\"{colour}\">\
                 <title>{}</title></rect>",
                short(value)
            );
            left += width;
        }
        let _ = write!(
            svg,
            "<text x={:.1} y={:.1}>{}</text>",
            left + 6.0,
            top + 15.0,
            escape(&bar.note)
        );
    }
    if let Some((value, label)) = mark {
        let at = BAR_LEFT + value * scale;
        let _ = write!(
            svg,
            "<line class=mark x1={at:.1} x2={at:.1} y1=0 y2={:.1} />\
             <text x={at:.1} y={:.1} text-anchor=middle>{}</text>",
            height - 16.0,
            height - 3.0,
            escape(label)
        );
    }
    svg + "</svg>"
}

/// Names beside their colours.
pub(super) fn legend<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let entries: Vec<String> = names
        .map(|(name, colour)| {
            format!("<span><i style=\"background:{colour}\"></i>{}</span>", escape(name))
        })
        .collect();
    format!("<p class=legend>{}</p>", entries.concat())
}

fn open(width: f64, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {width} {height}\" role=img>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1.0, "1"),
            (12.34, "12.3"),
            (640.0, "640"),
            (1500.0, "1.5k"),
            (15_200.0, "15k"),
            (2e6, "2.0M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn plots_stay_in_their_frame_and_escape_names() {
        let points = vec![(0.0, 10.0), (1.0, 999.0)];
        let line = Line { name: "<b>", colour: colour(1), points };
        let svg = lines("x", "y", &[(0.0, "0".to_owned())], &[line]);
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>") && !svg.contains("NaN"), "{svg}");
        let ys: Vec<f64> = svg
            .split("cy=")
            .skip(1)
            .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(
            ys.len() == 2 && ys.iter().all(|y| (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(y))
        );
        let bar = Bar { name: "a", parts: vec![(2.0, "red"), (1.0, "blue")], note: "3".to_owned() };
        let svg = bars(&[bar], Some((1.0, "floor")));
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("floor") && svg.ends_with("</svg>"));
    }
}
