//! Who takes part. Where a machine has more to run than processors, a thread that is descheduled while it holds a piece lets the
//! others wait for milliseconds, and the more threads there are the more often the caller itself is descheduled. A worker that costs
//! more than it brings sits out, parked, so that the processor it shared is free; after a while it may come back. Each time it
//! fails again the while gets longer, so that beside a neighbour that never sleeps it costs a few milliseconds in half a second.
//!
//! What a worker brings is the time that its pieces took. What it costs is the time the caller waited for
//! pieces it held, and, of the worker that came last, the time the caller was descheduled, beyond what it also is when it works
//! alone. A machine that is disturbed now and then, or all the time whatever we do, therefore keeps its workers.
//!
//! Time is a parameter: nothing here reads a clock.

use std::time::{Duration, Instant};

/// How long a worker sits out for the first time.
const FIRST_TERM: Duration = Duration::from_millis(10);
/// The longest term.
const LAST_TERM: Duration = Duration::from_millis(500);
/// A worker that was back for this long, and for twice its last term, before it failed again starts with the first term.
const CLEAN: Duration = Duration::from_millis(100);
/// The caller waits for at least this long before somebody is late: longer than waking a thread takes or an interrupt lasts.
const PATIENCE: Duration = Duration::from_micros(400);
/// A worker may take this many times as long as the longest piece of the caller: processors differ, and so do pieces.
const SLOWER: u32 = 8;
/// Time alone that is remembered at full weight.
const REMEMBERED: Duration = Duration::from_millis(200);
/// What a worker is taken to have brought at least: one slice of the scheduler may hit anybody.
const CREDIT: Duration = Duration::from_millis(24);
/// A worker costs too much when it costs this part of what it brings: two that share the memory do less than twice the work.
const TOO_MUCH: u32 = 3;

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
    /// What it brought and cost lately.
    brought: Duration,
    cost: Duration,
}

/// The workers of a crew, by index.
#[derive(Debug)]
pub(super) struct Attendance {
    records: Vec<Record>,
    absent: usize,
    /// Nobody comes back before.
    next: Option<Instant>,
    /// How long the caller lately worked alone, and how long of that it was descheduled.
    alone: Duration,
    lost_alone: Duration,
}

impl Attendance {
    /// Everybody takes part.
    pub(super) fn new(workers: usize) -> Attendance {
        let zero = Duration::ZERO;
        let record = Record { until: None, term: FIRST_TERM, back: None, brought: CREDIT, cost: zero };
        Attendance { records: vec![record; workers], absent: 0, next: None, alone: zero, lost_alone: zero }
    }

    /// Number of workers that take part.
    pub(super) fn present(&self) -> usize {
        self.records.len() - self.absent
    }

    /// The last worker that takes part.
    pub(super) fn last_present(&self) -> Option<usize> {
        self.records.iter().rposition(|record| record.until.is_none())
    }

    /// The worker computed pieces for `time`.
    pub(super) fn brought(&mut self, worker: usize, time: Duration) {
        self.records[worker].brought += time;
    }

    /// The caller worked alone for `wall`, and was descheduled for `lost` of it.
    pub(super) fn alone(&mut self, wall: Duration, lost: Duration) {
        if self.alone > REMEMBERED {
            self.alone /= 2;
            self.lost_alone /= 2;
        }
        self.alone += wall;
        self.lost_alone += lost;
    }

    /// Of a time `wall` with workers the caller was descheduled for `lost`: the last worker is charged with what it would not
    /// have lost alone.
    pub(super) fn descheduled(&mut self, wall: Duration, lost: Duration) {
        let share = match self.alone.is_zero() {
            true => 0.0,
            false => (self.lost_alone.as_secs_f64() / self.alone.as_secs_f64()).clamp(0.0, 1.0),
        };
        if let Some(worker) = self.last_present() {
            self.cost(worker, lost.saturating_sub(wall.mul_f64(share)));
        }
    }

    /// The caller lost `time` by the worker.
    pub(super) fn cost(&mut self, worker: usize, time: Duration) {
        self.records[worker].cost += time;
    }

    /// Sends out the workers that cost too much, through `out`; remembers less and less of what was.
    pub(super) fn judge(&mut self, now: Instant, mut out: impl FnMut(usize)) {
        for worker in 0..self.records.len() {
            let record = &mut self.records[worker];
            if record.until.is_some() {
                continue;
            }
            if TOO_MUCH * record.cost > record.brought {
                self.send_out(worker, now);
                out(worker);
            } else {
                record.brought -= record.brought / 32;
                record.cost -= record.cost / 32;
                // A worker that has nothing to do is as good as one that comes.
                record.brought = record.brought.max(CREDIT);
            }
        }
    }

    fn send_out(&mut self, worker: usize, now: Instant) {
        let record = &mut self.records[worker];
        record.term = match record.back {
            Some(back) if now.saturating_duration_since(back) < CLEAN.max(2 * record.term) => {
                (2 * record.term).min(LAST_TERM)
            }
            _ => FIRST_TERM,
        };
        let until = now + record.term;
        (record.until, record.brought, record.cost) = (Some(until), CREDIT, Duration::ZERO);
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

/// How long pieces take on a thread that is now and then descheduled in one.
#[derive(Default, Debug)]
pub(super) struct Typical(Duration);

impl Typical {
    /// The part of `time`, measured for one piece, that was spent on it: all, or what is typical when it was far longer.
    pub(super) fn credit(&mut self, time: Duration) -> Duration {
        let credit = if time > patience(self.0) { self.0 } else { time };
        // Slowly enough for a single one, quickly enough for the step from decoding to a long prompt.
        self.0 = (3 * self.0 + time.min(patience(self.0))) / 4;
        credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOBODY: [usize; 0] = [];

    fn back(attendance: &mut Attendance, now: Instant) -> Vec<usize> {
        let mut list = Vec::new();
        attendance.come_back(now, |worker| list.push(worker));
        list
    }

    fn out(attendance: &mut Attendance, now: Instant) -> Vec<usize> {
        let mut list = Vec::new();
        attendance.judge(now, |worker| list.push(worker));
        list
    }

    /// The worker brings nothing and costs 9 ms.
    fn fail(attendance: &mut Attendance, worker: usize, now: Instant) {
        attendance.cost(worker, 9 * MS);
        assert_eq!(out(attendance, now), [worker]);
    }

    #[test]
    fn only_the_one_that_costs_sits_out() {
        let start = Instant::now();
        let mut attendance = Attendance::new(3);
        attendance.brought(0, 3 * MS);
        attendance.brought(2, 3 * MS);
        fail(&mut attendance, 1, start);
        assert_eq!((attendance.present(), attendance.last_present()), (2, Some(2)));
        assert_eq!(back(&mut attendance, start + 10 * MS - Duration::from_nanos(1)), NOBODY);
        assert_eq!(back(&mut attendance, start + 10 * MS), [1]);
        assert_eq!(attendance.present(), 3);
        assert_eq!(back(&mut attendance, start + 11 * MS), NOBODY);
    }

    #[test]
    fn who_brings_more_than_it_costs_stays() {
        let now = Instant::now();
        let mut attendance = Attendance::new(1);
        for _ in 0..100 {
            attendance.brought(0, 10 * MS);
            attendance.cost(0, 3 * MS);
            assert_eq!(out(&mut attendance, now), NOBODY);
        }
        // What was brought long ago does not count for ever.
        (0..30).for_each(|_| assert_eq!(out(&mut attendance, now), NOBODY));
        attendance.cost(0, 9 * MS);
        assert_eq!(out(&mut attendance, now), [0]);
        assert_eq!(attendance.last_present(), None);
    }

    #[test]
    fn what_is_lost_alone_too_is_nobodys_fault() {
        let now = Instant::now();
        let mut attendance = Attendance::new(1);
        attendance.descheduled(24 * MS, 12 * MS);
        assert_eq!(out(&mut attendance, now), [0]);
        (0..50).for_each(|_| attendance.alone(8 * MS, 4 * MS));
        assert_eq!(back(&mut attendance, now + 10 * MS), [0]);
        attendance.descheduled(24 * MS, 14 * MS);
        assert_eq!(out(&mut attendance, now), NOBODY);
        // The neighbour is gone; alone nothing is lost any more.
        (0..200).for_each(|_| attendance.alone(8 * MS, Duration::ZERO));
        attendance.descheduled(24 * MS, 12 * MS);
        assert_eq!(out(&mut attendance, now), [0]);
    }

    #[test]
    fn one_slice_of_the_scheduler_is_forgiven() {
        let now = Instant::now();
        let mut attendance = Attendance::new(1);
        for _ in 0..100 {
            attendance.cost(0, 4 * MS);
            (0..30).for_each(|_| assert_eq!(out(&mut attendance, now), NOBODY));
        }
    }

    #[test]
    fn terms_double_up_to_the_last_and_start_again_after_a_clean_time() {
        let mut now = Instant::now();
        let mut attendance = Attendance::new(1);
        for term in [10, 20, 40, 80, 160, 320, 500, 500] {
            fail(&mut attendance, 0, now);
            assert_eq!(back(&mut attendance, now + term * MS - Duration::from_nanos(1)), NOBODY, "{term} ms");
            now += term * MS;
            assert_eq!(back(&mut attendance, now), [0], "{term} ms");
            now += 4 * MS;
        }
        // Twice the last term without a failure.
        now += 996 * MS;
        fail(&mut attendance, 0, now);
        assert_eq!(back(&mut attendance, now + 10 * MS), [0]);
    }

    #[test]
    fn workers_come_back_each_in_its_time() {
        let start = Instant::now();
        let mut attendance = Attendance::new(4);
        fail(&mut attendance, 0, start);
        fail(&mut attendance, 2, start + 3 * MS);
        fail(&mut attendance, 3, start + 3 * MS);
        assert_eq!((attendance.present(), attendance.last_present()), (1, Some(1)));
        assert_eq!(back(&mut attendance, start + 10 * MS), [0]);
        assert_eq!(back(&mut attendance, start + 12 * MS), NOBODY);
        assert_eq!(back(&mut attendance, start + 50 * MS), [2, 3]);
        assert_eq!(attendance.present(), 4);
    }

    #[test]
    fn a_piece_that_was_interrupted_counts_as_a_typical_one() {
        let mut typical = Typical::default();
        let piece = Duration::from_micros(40);
        for _ in 0..20 {
            assert_eq!(typical.credit(piece), piece);
        }
        let credit = typical.credit(4 * MS);
        assert!(credit <= piece && credit > piece / 2, "{credit:?}");
        // Pieces that are long from now on are believed after a few.
        let believed = (0..20).filter(|_| typical.credit(3 * MS) == 3 * MS).count();
        assert!(believed >= 15, "{believed}");
    }

    #[test]
    fn long_pieces_ask_for_patience() {
        assert_eq!(patience(Duration::ZERO), PATIENCE);
        assert_eq!(patience(Duration::from_micros(10)), PATIENCE);
        assert_eq!(patience(MS), 8 * MS);
        assert_eq!(patience(Duration::MAX), Duration::MAX);
    }
}
