//! Medians with their spread, and what a difference between two of them is worth.

use serde::{Deserialize, Serialize};

/// A median and its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Median {
    /// Median.
    pub value: f64,
    /// Least.
    pub least: f64,
    /// Most.
    pub most: f64,
}

impl Median {
    /// Of some values; those that are no numbers do not count; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let value = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { value, least, most })
    }

    /// Whether the move from `old` is larger than the noise: the spreads have nothing in common.
    pub fn moved_from(&self, old: &Self) -> bool {
        self.least > old.most || self.most < old.least
    }

    /// How often that is seen of `n` and `m` values of the same kind, by chance alone: either all
    /// of the ones are below all of the others, or above.
    pub fn moves_by_chance(n: usize, m: usize) -> f64 {
        let orders = (1..=n).fold(1.0, |orders, i| orders * (m + i) as f64 / i as f64);
        (2.0 / orders).min(1.0)
    }

    /// `12.3 [11.0-14.9]`.
    pub fn text(&self, digits: usize) -> String {
        let Self { value, least, most } = self;
        format!("{value:.digits$} [{least:.digits$}-{most:.digits$}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        let median = |value, least, most| Some(Median { value, least, most });
        assert_eq!(Median::of(vec![]), None);
        assert_eq!(Median::of(vec![f64::NAN]), None);
        assert_eq!(Median::of(vec![3.0, 1.0, f64::INFINITY, 2.0]), median(2.0, 1.0, 3.0));
        assert_eq!(Median::of(vec![4.0, 1.0, 2.0, 3.0]), median(2.5, 1.0, 4.0));
    }

    #[test]
    fn a_move_within_the_spread_is_noise() {
        let old = Median { value: 10.0, least: 9.0, most: 12.0 };
        let new = |value, least, most| Median { value, least, most };
        assert!(!new(11.0, 10.5, 11.5).moved_from(&old), "inside the old spread");
        assert!(!new(13.0, 9.5, 14.0).moved_from(&old), "the old one is inside the new spread");
        assert!(!new(13.0, 11.5, 14.0).moved_from(&old), "the spreads overlap");
        assert!(new(13.0, 12.5, 14.0).moved_from(&old));
        assert!(new(8.0, 7.5, 8.5).moved_from(&old));
        let near = |chance: f64, of: f64| (chance - of).abs() < 1e-9;
        assert!(near(Median::moves_by_chance(1, 1), 1.0));
        assert!(near(Median::moves_by_chance(3, 3), 2.0 / 20.0));
        assert!(near(Median::moves_by_chance(5, 3), 2.0 / 56.0));
    }
}
