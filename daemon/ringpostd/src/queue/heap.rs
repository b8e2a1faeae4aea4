//! A binary heap of indices whose owners know their place in it, so that any can be taken out.

/// The values that the indices of a heap stand for.
pub(super) trait Places {
    /// Smallest first.
    fn key(&self, id: u32) -> u64;
    /// Where `id` stands.
    fn place(&self, id: u32) -> usize;
    /// `id` stands at `place` from now on.
    fn set_place(&mut self, id: u32, place: u32);
}

/// Four octets an index.
#[derive(Debug, Default)]
pub(super) struct Heap(Vec<u32>);

impl Heap {
    pub(super) fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, id: u32, places: &mut impl Places) {
        self.0.push(id);
        self.up(self.0.len() - 1, places);
    }

    pub(super) fn remove(&mut self, id: u32, places: &mut impl Places) {
        let place = places.place(id);
        assert_eq!(self.0.get(place), Some(&id), "an index knows its place");
        let last = self.0.pop().expect("it holds at least `id`");
        if last != id {
            self.0[place] = last;
            self.update(last, place, places);
        }
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
    }

    /// The key of `id` changed.
    pub(super) fn moved(&mut self, id: u32, places: &mut impl Places) {
        let place = places.place(id);
        assert_eq!(self.0.get(place), Some(&id), "an index knows its place");
        self.update(id, place, places);
    }

    fn update(&mut self, id: u32, place: usize, places: &mut impl Places) {
        self.up(place, places);
        self.down(places.place(id), places);
    }

    fn up(&mut self, mut place: usize, places: &mut impl Places) {
        let id = self.0[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if places.key(self.0[parent]) <= places.key(id) {
                break;
            }
            self.put(place, self.0[parent], places);
            place = parent;
        }
        self.put(place, id, places);
    }

    fn down(&mut self, mut place: usize, places: &mut impl Places) {
        let id = self.0[place];
        loop {
            let left = 2 * place + 1;
            let Some(&first) = self.0.get(left) else { break };
            let (mut child, mut least) = (left, first);
            if let Some(&right) = self.0.get(left + 1)
                && places.key(right) < places.key(first)
            {
                (child, least) = (left + 1, right);
            }
            if places.key(id) <= places.key(least) {
                break;
            }
            self.put(place, least, places);
            place = child;
        }
        self.put(place, id, places);
    }

    fn put(&mut self, place: usize, id: u32, places: &mut impl Places) {
        self.0[place] = id;
        places.set_place(id, u32::try_from(place).expect("fewer entries than u32 can count"));
    }
}
