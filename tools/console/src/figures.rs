//! Samples of the metrics page, and what two of them in a row say.

use std::collections::HashMap;

/// Values by name with labels.
pub(crate) type Samples = HashMap<String, f64>;

/// What a metrics page says.
pub(crate) fn samples(page: &str) -> Samples {
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        (!line.starts_with('#')).then_some(())?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    page.lines().filter_map(sample).collect()
}

/// Over all labels.
pub(crate) fn sum(samples: &Samples, name: &str) -> f64 {
    let here = |key: &&String| key.split('{').next() == Some(name);
    samples.iter().filter(|(key, _)| here(key)).map(|(_, value)| value).sum()
}

/// A quantile of the time of a commit, in ms with one digit; `-` while there is none.
pub(crate) fn commit_ms(now: &Samples, quantile: &str) -> String {
    let key = format!("ringpost_phase_seconds{{phase=\"commit\",quantile=\"{quantile}\"}}");
    now.get(&key)
        .filter(|value| value.is_finite())
        .map_or_else(|| "-".to_owned(), |seconds| format!("{:.1}", seconds * 1000.0))
}

/// What was refused and deferred since, the most first: how many, and why.
pub(crate) fn reasons(before: &Samples, now: &Samples) -> Vec<(f64, String)> {
    let names = ["ringpost_refused_total{", "ringpost_recipients_deferred_total{"];
    let mut grown: Vec<(f64, String)> = now
        .iter()
        .filter(|(key, _)| names.iter().any(|name| key.starts_with(name)))
        .map(|(key, value)| (value - before.get(key).unwrap_or(&0.0), key))
        .filter(|(grown, _)| *grown > 0.0)
        .map(|(grown, key)| (grown, key.trim_start_matches("ringpost_").to_owned()))
        .collect();
    grown.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_over_labels() {
        let page = "# HELP x y\nx_total{core=\"0\"} 3\nx_total{core=\"1\"} 4\nx_totals 9\n";
        assert!((sum(&samples(page), "x_total") - 7.0).abs() < 1e-9);
    }
}
