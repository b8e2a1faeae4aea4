//! Numbers for destinations: small, dense, used again once nobody knows them any more.

use std::collections::HashMap;
use std::sync::Arc;

use super::DESTINATIONS_MAX;

/// Names and numbers of the destinations that a queue knows.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashMap<Arc<[u8]>, u32>,
    names: Vec<Option<Arc<[u8]>>>,
    free: Vec<u32>,
}

impl Names {
    /// The number of `name`. None when [`DESTINATIONS_MAX`] are in use: sweep, or defer.
    pub fn intern(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.names.len()).ok()?;
                if number >= DESTINATIONS_MAX {
                    return None;
                }
                self.names.push(None);
                number
            }
        };
        let name: Arc<[u8]> = name.into();
        self.names[number as usize] = Some(Arc::clone(&name));
        self.numbers.insert(name, number);
        Some(number)
    }

    /// The number of `name`, if it has one.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The name of `number`.
    #[must_use]
    pub fn name(&self, number: u32) -> Option<&[u8]> {
        self.names.get(number as usize)?.as_deref()
    }

    /// All numbers in use, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0u32..).zip(&self.names).filter_map(|(number, name)| Some((number, name.as_deref()?)))
    }

    /// Takes back the numbers that `forgotten` (see [`super::Queue::forgotten`]) says yes to.
    pub fn sweep(&mut self, forgotten: impl Fn(u32) -> bool) {
        for (number, place) in (0u32..).zip(&mut self.names) {
            if place.is_some() && forgotten(number) {
                if let Some(name) = place.take() {
                    self.numbers.remove(&name);
                }
                self.free.push(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut names = Names::default();
        assert_eq!(names.intern(b"a"), Some(0));
        assert_eq!(names.intern(b"b"), Some(1));
        assert_eq!(names.intern(b"a"), Some(0));
        names.sweep(|n| n == 0);
        assert_eq!((names.find(b"a"), names.name(0), names.name(1)), (None, None, Some(&b"b"[..])));
        assert_eq!(names.intern(b"c"), Some(0));
        assert_eq!(names.iter().collect::<Vec<_>>(), [(0, &b"c"[..]), (1, &b"b"[..])]);
    }
}
