//! Files are cut short when nobody copies to or from them. A write that is under
//! way would else publish bytes whose pages are gone, so that the file shows zeros
//! in their place.
//!
//! As for a move (`FILE_MOVING`) no new copy starts from the first attempt on;
//! when those that are under way have ended, the file can be cut.

use std::time::{Duration, Instant};

use wire::protocol::moving;

use super::records::{Hazard, Records};

/// Who asks for a cut asks every millisecond; after this it has died or was stopped.
const ASKS: Duration = Duration::from_millis(200);

/// A file that somebody wants to cut.
pub(super) struct Cut {
    /// Copies that were under way at the first attempt.
    under_way: Vec<Hazard>,
    /// When it was attempted last.
    asked: Instant,
}

impl Records {
    /// Whether nobody copies to or from the file, so that it can be cut. None starts
    /// until [`Records::let_go`], which must follow at once if so.
    pub(super) fn hold_still(&mut self, record: u32) -> bool {
        let known = self.cuts.remove(&record);
        let mut under_way = known.map_or_else(
            || {
                moving::hold(&self.shared.file(record).flags);
                self.hazards(record)
            },
            |cut| cut.under_way,
        );
        under_way.retain(|hazard| self.is_under_way(hazard));
        let is_still = under_way.is_empty();
        if !is_still {
            let asked = Instant::now();
            self.cuts.insert(record, Cut { under_way, asked });
        }
        is_still
    }

    /// Lets copies start again.
    pub(super) fn let_go(&mut self, record: u32) {
        self.cuts.remove(&record);
        moving::let_go(&self.shared.file(record).flags, false);
        self.shared.wake_file(record);
    }

    /// Whether somebody waits to cut the file.
    pub(super) fn awaits_cut(&self, record: u32) -> bool {
        self.cuts.contains_key(&record)
    }

    /// Lets go of the files that nobody asks for any more.
    pub(super) fn forget_cuts(&mut self, now: Instant) {
        let old = self.cuts.iter();
        let old = old.filter(|(_, cut)| now.duration_since(cut.asked) > ASKS);
        let old: Vec<u32> = old.map(|(record, _)| *record).collect();
        old.into_iter().for_each(|record| self.let_go(record));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::SeqCst;

    use wire::layout::FILE_MOVING;
    use wire::limits::CHUNK;

    use super::super::arena::Arena;
    use super::super::names::Attr;
    use super::super::shm::Shared;
    use super::*;

    fn records_with_a_writer() -> (Records, u32) {
        let shared = Arc::new(Shared::create(2 * CHUNK, 2, 1).unwrap());
        let arena = Arc::new(Arena::new(Arc::clone(&shared)));
        let mut records = Records::new(Arc::clone(&shared), arena);
        records.process_end = 1;
        let file = records.create(1, &Attr::default()).unwrap();
        shared.process(0).generation.store(1, SeqCst);
        let slot = &shared.record(0).threads[2].hazard;
        slot.store((4 << 32) | u64::from(file + 1), SeqCst);
        (records, file)
    }

    fn is_closed(records: &Records, file: u32) -> bool {
        records.shared.file(file).flags.load(SeqCst) & FILE_MOVING != 0
    }

    #[test]
    fn a_file_is_cut_after_the_writes_that_are_under_way_and_before_later_ones() {
        let (mut records, file) = records_with_a_writer();
        assert!(!records.hold_still(file));
        assert!(!records.hold_still(file));
        assert!(is_closed(&records, file));
        let slot = &records.shared.record(0).threads[2].hazard;
        slot.store((5 << 32) | u64::from(file + 1), SeqCst);
        assert!(records.hold_still(file));
        assert!(is_closed(&records, file));
        records.let_go(file);
        assert!(!is_closed(&records, file));
    }

    #[test]
    fn a_file_is_not_closed_for_ever_by_somebody_who_died_before_the_cut() {
        let (mut records, file) = records_with_a_writer();
        assert!(!records.hold_still(file));
        records.forget_cuts(Instant::now());
        assert!(is_closed(&records, file));
        records.forget_cuts(Instant::now() + 2 * ASKS);
        assert!(!is_closed(&records, file));
    }
}
