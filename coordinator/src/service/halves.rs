//! Chunks split up by halves: a buddy allocator of page runs.

use std::collections::BTreeSet;

use wire::limits::{CHUNK, PAGE};

/// Pages of a chunk.
pub(super) const CHUNK_PAGES: u32 = (CHUNK / PAGE) as u32;
/// Order of a whole chunk: `PAGE << ORDERS == CHUNK`.
pub(super) const ORDERS: usize = 9;

/// The order of the smallest run of at least `bytes`.
#[must_use]
pub(super) fn order_of(bytes: u64) -> usize {
    let pages = bytes.div_ceil(PAGE).max(1).next_power_of_two();
    (pages.trailing_zeros() as usize).min(ORDERS)
}

/// Free parts of split chunks, by order: numbers of their first pages.
#[derive(Debug, Default)]
pub(super) struct Halves {
    free: [BTreeSet<u32>; ORDERS],
}

impl Halves {
    /// Takes a run of `PAGE << order` bytes from what is free.
    #[must_use]
    pub(super) fn take(&mut self, order: usize) -> Option<u32> {
        let mut orders = (order..ORDERS).zip(self.free.iter_mut().skip(order));
        let (from, page) = orders.find_map(|(from, free)| Some((from, free.pop_first()?)))?;
        self.split(page, from, order);
        Some(page)
    }

    /// Takes a run of `PAGE << order` bytes from the start of a whole chunk.
    #[must_use]
    pub(super) fn take_from(&mut self, chunk: u32, order: usize) -> u32 {
        let page = chunk * CHUNK_PAGES;
        self.split(page, ORDERS, order);
        page
    }

    /// Frees the upper halves of the run at `page`.
    fn split(&mut self, page: u32, from: usize, order: usize) {
        for (order, free) in (order..from).zip(self.free.iter_mut().skip(order)) {
            free.insert(page + (1 << order));
        }
    }

    /// Gives a run back; the chunk that is whole again by it.
    #[must_use]
    pub(super) fn give(&mut self, page: u32, order: usize) -> Option<u32> {
        let mut page = page;
        for (order, free) in (order..ORDERS).zip(self.free.iter_mut().skip(order)) {
            let buddy = page ^ (1 << order);
            if !free.remove(&buddy) {
                free.insert(page);
                return None;
            }
            page = page.min(buddy);
        }
        Some(page / CHUNK_PAGES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_chunk_do_not_overlap_and_make_it_whole_again() {
        let mut halves = Halves::default();
        let orders = [0, 3, 8, 0, 1];
        let mut runs = vec![(halves.take_from(7, orders[0]), orders[0])];
        for &order in &orders[1..] {
            runs.push((halves.take(order).unwrap(), order));
        }
        let mut spans: Vec<_> = runs
            .iter()
            .map(|&(page, o)| (page, page + (1 << o)))
            .collect();
        spans.sort_unstable();
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert!(spans.iter().all(|span| span.0 / CHUNK_PAGES == 7));
        assert_eq!(halves.take(8), None);
        let whole: Vec<_> = runs
            .into_iter()
            .filter_map(|(page, order)| halves.give(page, order))
            .collect();
        assert_eq!(whole, [7]);
    }

    #[test]
    fn the_order_is_that_of_the_smallest_run_that_holds_the_bytes() {
        let orders = [0, 1, PAGE, PAGE + 1, CHUNK / 2, CHUNK].map(order_of);
        assert_eq!(orders, [0, 0, 0, 1, 8, 9]);
    }
}
