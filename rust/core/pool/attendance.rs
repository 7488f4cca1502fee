//! Who takes part. A worker that was descheduled while it held a piece makes the caller wait for milliseconds, where a piece takes
//! microseconds: the machine has more to run than processors. Such a worker sits out, parked, so that the processor it shared is
//! free and the rest goes on at its own speed; after a while it may come back. Every time that it is late again the while gets
//! longer, so beside a neighbour that never sleeps a worker costs one wait in half a second.
//!
//! Time is a parameter: nothing here reads a clock.

use std::time::{Duration, Instant};

/// How long a worker sits out for the first time.
const FIRST_TERM: Duration = Duration::from_millis(10);
/// The longest term.
const LAST_TERM: Duration = Duration::from_millis(500);
/// A worker that was back for this long, and for twice its last term, before it was late again starts with the first term.
const CLEAN: Duration = Duration::from_millis(100);
/// The caller waits for at least this long before somebody is late: longer than waking a thread takes or an interrupt lasts.
const PATIENCE: Duration = Duration::from_micros(400);
/// A worker may take this many times as long as the longest piece of the caller: processors differ, and so do pieces.
const SLOWER: u32 = 8;

/// How long the caller waits for the others, after pieces of at most `longest`, before somebody is late.
pub(super) fn patience(longest: Duration) -> Duration {
    PATIENCE.max(longest.saturating_mul(SLOWER))
}

#[derive(Clone, Copy, Debug)]
struct Record {
    /// Sits out until then.
    until: Option<Instant>,
    /// How long it sat out last.
    term: Duration,
    /// When that ended.
    back: Option<Instant>,
}

/// The workers of a crew, by index.
#[derive(Debug)]
pub(super) struct Attendance {
    records: Vec<Record>,
    absent: usize,
    /// Nobody comes back before.
    next: Option<Instant>,
}

impl Attendance {
    /// Everybody takes part.
    pub(super) fn new(workers: usize) -> Attendance {
        let record = Record { until: None, term: FIRST_TERM, back: None };
        Attendance { records: vec![record; workers], absent: 0, next: None }
    }

    /// Number of workers that take part.
    pub(super) fn present(&self) -> usize {
        self.records.len() - self.absent
    }

    /// Whether the worker takes part.
    pub(super) fn is_present(&self, worker: usize) -> bool {
        self.records[worker].until.is_none()
    }

    /// The worker was late: it sits out from `now` on.
    pub(super) fn late(&mut self, worker: usize, now: Instant) {
        let record = &mut self.records[worker];
        if record.until.is_some() {
            return;
        }
        record.term = match record.back {
            Some(back) if now.saturating_duration_since(back) < CLEAN.max(2 * record.term) => {
                (2 * record.term).min(LAST_TERM)
            }
            _ => FIRST_TERM,
        };
        let until = now + record.term;
        record.until = Some(until);
        self.absent += 1;
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
    }

    /// Calls `back` for every worker whose term is over.
    pub(super) fn come_back(&mut self, now: Instant, mut back: impl FnMut(usize)) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = None;
        for (worker, record) in self.records.iter_mut().enumerate() {
            match record.until {
                Some(until) if until <= now => {
                    (record.until, record.back) = (None, Some(now));
                    self.absent -= 1;
                    back(worker);
                }
                Some(until) => self.next = Some(self.next.map_or(until, |next| next.min(until))),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn back(attendance: &mut Attendance, now: Instant) -> Vec<usize> {
        let mut list = Vec::new();
        attendance.come_back(now, |worker| list.push(worker));
        list
    }

    #[test]
    fn only_the_late_one_sits_out() {
        let start = Instant::now();
        let mut attendance = Attendance::new(3);
        attendance.late(1, start);
        assert_eq!(attendance.present(), 2);
        assert_eq!([0, 1, 2].map(|worker| attendance.is_present(worker)), [true, false, true]);
        // Late while out, as when a piece of before ends at last: nothing changes.
        attendance.late(1, start + 5 * MS);
        assert_eq!(back(&mut attendance, start + 10 * MS - Duration::from_nanos(1)), []);
        assert_eq!(back(&mut attendance, start + 10 * MS), [1]);
        assert_eq!(attendance.present(), 3);
        assert_eq!(back(&mut attendance, start + 11 * MS), []);
    }

    #[test]
    fn terms_double_up_to_the_last_and_start_again_after_a_clean_time() {
        let mut now = Instant::now();
        let mut attendance = Attendance::new(1);
        for term in [10, 20, 40, 80, 160, 320, 500, 500] {
            attendance.late(0, now);
            assert_eq!(back(&mut attendance, now + term * MS - Duration::from_nanos(1)), [], "{term} ms");
            now += term * MS;
            assert_eq!(back(&mut attendance, now), [0], "{term} ms");
            now += 4 * MS;
        }
        // Twice the last term without lateness.
        now += 996 * MS;
        attendance.late(0, now);
        assert_eq!(back(&mut attendance, now + 10 * MS), [0]);
    }

    #[test]
    fn workers_come_back_each_in_its_time() {
        let start = Instant::now();
        let mut attendance = Attendance::new(4);
        attendance.late(0, start);
        attendance.late(2, start + 3 * MS);
        attendance.late(3, start + 3 * MS);
        assert_eq!(attendance.present(), 1);
        assert_eq!(back(&mut attendance, start + 10 * MS), [0]);
        assert_eq!(back(&mut attendance, start + 12 * MS), []);
        assert_eq!(back(&mut attendance, start + 50 * MS), [2, 3]);
        assert_eq!(attendance.present(), 4);
    }

    #[test]
    fn long_pieces_ask_for_patience() {
        assert_eq!(patience(Duration::ZERO), PATIENCE);
        assert_eq!(patience(Duration::from_micros(10)), PATIENCE);
        assert_eq!(patience(MS), 8 * MS);
        assert!(patience(Duration::MAX) >= Duration::MAX);
    }
}
