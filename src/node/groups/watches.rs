//! Serves those who watch what this node's groups apply: each waits until something came, or until
//! its time is up, and then asks again.
//!
//! Nobody is waited for: an answer is handed over and forgotten, and whoever does not ask in time
//! for what came behind its position hears that it is gone.

use std::collections::BTreeMap;

use crate::config::HistoryLimits;
use crate::node::groups::driver::ticks;
use crate::node::groups::group::Group;
use crate::node::groups::waiting::{Answer, Asker};
use crate::protocol::message::{ForwardRefusal, Told};
use crate::protocol::watch::history::History;
use crate::protocol::watch::{WatchAsk, WatchPage, Watched};
use crate::types::{GroupId, LogIndex, Row};

/// Watches that may wait for groups of this node, each counted once for every group; beyond that
/// they are refused. Some 20 MiB, and as many as 256 watches of a prefix at the default Q.
const WAITING_MAX: usize = 65_536;

/// Who watches, and what is kept for them.
pub(crate) struct Watches {
    history: History,
    queues: BTreeMap<GroupId, Queue>,
    waiting: usize,
}

/// Those who wait for one group.
#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// How far the group had come when they were last looked at; `None` since somebody joined them.
    looked_at: Option<LogIndex>,
    /// The first tick at which somebody's time is up.
    until: u64,
}

/// One watch that waits for one group.
struct Waiting {
    watched: Watched,
    /// Nothing up to here concerns it that it has not seen.
    after: LogIndex,
    bytes_max: usize,
    /// The tick at which it hears that nothing came.
    until: u64,
    asker: Asker,
}

impl Watches {
    pub(crate) fn new(limits: HistoryLimits) -> Watches {
        Watches { history: History::new(limits), queues: BTreeMap::new(), waiting: 0 }
    }

    /// Takes a question, unless too many wait. It is answered by the pass that follows, or later.
    pub(crate) fn wait(
        &mut self,
        group: GroupId,
        ask: WatchAsk,
        asker: Asker,
        now: u64,
    ) -> Option<(Asker, Answer)> {
        if self.waiting >= WAITING_MAX {
            return Some((asker, Err(ForwardRefusal::Overloaded)));
        }
        let WatchAsk { watched, after, bytes_max, wait } = ask;
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let until = now.saturating_add(ticks(wait));
        let queue = self.queues.entry(group).or_default();
        queue.waiting.push(Waiting { watched, after, bytes_max, until, asker });
        queue.looked_at = None;
        self.waiting += 1;
        None
    }

    /// A group is about to apply something.
    pub(crate) fn follow(&mut self, group: &Group) {
        if group.id != GroupId::SYSTEM {
            self.history.follow(group.id, group.machine.applied().position.index);
        }
    }

    /// A group has applied these entries: keeps them, and answers those whom they concern, those
    /// whose time is up, and all whom this replica has nothing to tell.
    pub(crate) fn serve(
        &mut self,
        group: &Group,
        applied: &[(LogIndex, Vec<Row>)],
        now: u64,
    ) -> Vec<(Asker, Answer)> {
        if group.id == GroupId::SYSTEM {
            return self.dismiss(group.id);
        }
        for (index, rows) in applied {
            self.history.note(group.id, *index, rows);
        }
        self.history.advance(group.id, group.machine.applied().position.index);
        // One that follows nobody would say that nothing came, whatever came.
        let follows = group.raft.leader().is_some() && !group.is_installing();
        self.answer(group.id, follows, now)
    }

    fn answer(&mut self, group: GroupId, follows: bool, now: u64) -> Vec<(Asker, Answer)> {
        let through = self.history.through(group);
        let Some(queue) = self.queues.get_mut(&group) else { return Vec::new() };
        let is_as_before = queue.looked_at.is_some() && queue.looked_at == through;
        if is_as_before && follows && now < queue.until {
            return Vec::new();
        }
        let (mut answers, mut staying) = (Vec::new(), Vec::new());
        for waiting in std::mem::take(&mut queue.waiting) {
            self.waiting -= 1;
            let Waiting { watched, after, bytes_max, until, asker } = waiting;
            let page = self.history.page(group, after, &watched, bytes_max);
            match judge(page, until <= now, follows) {
                Verdict::Answer(answer) => answers.push((asker, answer)),
                Verdict::Stay { through } if !asker.is_gone() => {
                    staying.push(Waiting { watched, after: through, bytes_max, until, asker });
                }
                Verdict::Stay { .. } => {}
            }
        }
        self.waiting += staying.len();
        queue.until = staying.iter().map(|waiting| waiting.until).min().unwrap_or(u64::MAX);
        queue.looked_at = through;
        queue.waiting = staying;
        if queue.waiting.is_empty() {
            self.queues.remove(&group);
        }
        answers
    }

    /// The first tick at which somebody's time is up.
    pub(crate) fn deadline(&self, group: GroupId) -> u64 {
        self.queues.get(&group).map_or(u64::MAX, |queue| queue.until)
    }

    /// A group is gone from here; those who wait for it are to be told.
    pub(crate) fn dismiss(&mut self, group: GroupId) -> Vec<(Asker, Answer)> {
        self.history.forget(group);
        let waiting = self.queues.remove(&group).unwrap_or_default().waiting;
        self.waiting -= waiting.len();
        let refused = |waiting: Waiting| (waiting.asker, Err(ForwardRefusal::NotReplica));
        waiting.into_iter().map(refused).collect()
    }

    /// What is kept of all groups.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// How many wait, each counted once for every group.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }
}

/// What becomes of one that waits.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Answer(Answer),
    Stay { through: LogIndex },
}

/// `is_over`: its time is up. `follows`: this replica hears of what is committed.
fn judge(page: Option<WatchPage>, is_over: bool, follows: bool) -> Verdict {
    match page {
        None => Verdict::Answer(Err(ForwardRefusal::NotReplica)),
        Some(WatchPage::Changed { entries, through }) if entries.is_empty() => {
            match (follows, is_over) {
                (false, _) => Verdict::Answer(Err(ForwardRefusal::NotLeader { leader: None })),
                (true, false) => Verdict::Stay { through },
                (true, true) => {
                    let nothing = WatchPage::Changed { entries, through };
                    Verdict::Answer(Ok(Told::Watched(nothing)))
                }
            }
        }
        Some(page) => Verdict::Answer(Ok(Told::Watched(page))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::protocol::group::stored::Stored;
    use crate::protocol::watch::{Selection, WatchEntry};
    use crate::types::{Key, KeyspaceId, Revision};

    const GROUP: GroupId = GroupId(1);

    /// Watches of a group that has applied ten entries, and follows a leader.
    struct Stage {
        watches: Watches,
        applied: u64,
    }

    impl Stage {
        fn new() -> Stage {
            let limits = HistoryLimits { events_max: 100, bytes_max: 10_000 };
            let mut watches = Watches::new(limits);
            watches.history.follow(GROUP, LogIndex(10));
            Stage { watches, applied: 10 }
        }

        fn wait(&mut self, key: &str, now: u64) -> oneshot::Receiver<Answer> {
            let (sender, receiver) = oneshot::channel();
            let selection = Selection::Key(Key::from(key));
            let watched = Watched { keyspace: KeyspaceId(1), selection };
            let (after, bytes_max) = (LogIndex(10), 1000);
            let ask = WatchAsk { watched, after, bytes_max, wait: Duration::from_secs(1) };
            assert!(self.watches.wait(GROUP, ask, Asker::Own(sender), now).is_none());
            receiver
        }

        fn apply(&mut self, key: &str) {
            self.applied += 1;
            let at = Revision(self.applied);
            let value = Some(Bytes::from_static(b"v"));
            let record = Stored { created: at, modified: at, value }.to_record();
            let row = Row { keyspace: KeyspaceId(1), key: Key::from(key), record };
            self.watches.history.note(GROUP, LogIndex(self.applied), &[row]);
        }

        /// What is answered at a tick, while the group follows a leader or does not.
        fn answered(&mut self, follows: bool, now: u64) -> Vec<Answer> {
            let answers = self.watches.answer(GROUP, follows, now);
            answers.into_iter().map(|(_, answer)| answer).collect()
        }
    }

    fn told(answers: &[Answer]) -> Vec<(usize, u64)> {
        let one = |answer: &Answer| match answer {
            Ok(Told::Watched(WatchPage::Changed { entries, through })) => {
                (entries.len(), through.0)
            }
            other => panic!("{other:?}"),
        };
        answers.iter().map(one).collect()
    }

    #[test]
    fn who_waits_hears_what_concerns_it_or_after_a_while_that_nothing_came() {
        let mut stage = Stage::new();
        let _kept = (stage.wait("a", 100), stage.wait("b", 105));
        assert!(stage.answered(true, 105).is_empty());
        assert_eq!((stage.watches.waiting(), stage.watches.deadline(GROUP)), (2, 120));
        stage.apply("a");
        assert_eq!(told(&stage.answered(true, 106)), [(1, 11)]);
        assert_eq!((stage.watches.waiting(), stage.watches.deadline(GROUP)), (1, 125));
        assert!(stage.answered(true, 124).is_empty());
        assert_eq!(told(&stage.answered(true, 125)), [(0, 11)]);
        assert_eq!((stage.watches.waiting(), stage.watches.deadline(GROUP)), (0, u64::MAX));
    }

    #[test]
    fn who_waits_is_sent_elsewhere_when_the_group_follows_nobody_or_goes() {
        let mut stage = Stage::new();
        let _kept = stage.wait("a", 100);
        assert!(stage.answered(true, 100).is_empty());
        let nobody = ForwardRefusal::NotLeader { leader: None };
        assert_eq!(stage.answered(false, 101), [Err(nobody)]);
        let _kept = stage.wait("a", 102);
        let gone: Vec<Answer> =
            stage.watches.dismiss(GROUP).into_iter().map(|(_, answer)| answer).collect();
        assert_eq!(gone, [Err(ForwardRefusal::NotReplica)]);
        assert_eq!(stage.watches.waiting(), 0);
    }

    #[test]
    fn who_has_gone_away_is_forgotten_and_who_waits_across_a_gap_is_told() {
        let mut stage = Stage::new();
        let kept = stage.wait("a", 100);
        drop(stage.wait("a", 100));
        assert!(stage.answered(true, 100).is_empty());
        assert_eq!(stage.watches.waiting(), 1);
        // A snapshot has brought the replica further.
        stage.watches.history.follow(GROUP, LogIndex(20));
        let gone = WatchPage::Gone { oldest: LogIndex(20) };
        assert_eq!(stage.answered(true, 101), [Ok(Told::Watched(gone))]);
        drop(kept);
    }

    #[test]
    fn a_watch_waits_for_what_concerns_it_where_it_can_be_heard_of() {
        let through = LogIndex(9);
        let entry = WatchEntry { index: through, revision: Revision(9), events: Vec::new() };
        let something = WatchPage::Changed { entries: vec![entry], through };
        let nothing = WatchPage::Changed { entries: Vec::new(), through };
        let gone = WatchPage::Gone { oldest: through };
        let told = |page: &WatchPage| Verdict::Answer(Ok(Told::Watched(page.clone())));
        let refused = |refusal| Verdict::Answer(Err(refusal));
        let cases = [
            (Some(&something), false, true, told(&something)),
            (Some(&something), false, false, told(&something)),
            (Some(&gone), false, true, told(&gone)),
            (Some(&nothing), false, true, Verdict::Stay { through }),
            (Some(&nothing), true, true, told(&nothing)),
            (Some(&nothing), false, false, refused(ForwardRefusal::NotLeader { leader: None })),
            (Some(&nothing), true, false, refused(ForwardRefusal::NotLeader { leader: None })),
            (None, false, true, refused(ForwardRefusal::NotReplica)),
        ];
        for (page, is_over, follows, expected) in cases {
            let judged = judge(page.cloned(), is_over, follows);
            assert_eq!(judged, expected, "{page:?} {is_over} {follows}");
        }
    }
}
