//! A small group under random faults, then without: nothing wrong is ever seen, and in the end it
//! serves.

use bytes::Bytes;

use super::group::Group;
use super::{Options, options, target};
use crate::protocol::raft::membership::Target;
use crate::types::LogIndex;

/// Numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.roll(from.len().max(1) as u64);
        from.get(at as usize).copied()
    }
}

struct Storm {
    group: Group,
    dice: Dice,
    proposed: u64,
    tokens: u64,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let options = Options {
            lease_reads: seed.is_multiple_of(2),
            append_bytes_max: 100,
            uncommitted_bytes_max: 2_000,
            ..options()
        };
        let mut group = Group::new(&[1, 2, 3], &[4, 5], options, seed);
        group.clocks_agree = seed.is_multiple_of(2);
        Storm {
            group,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            proposed: 0,
            tokens: 0,
        }
    }

    fn someone(&mut self) -> u64 {
        let numbers = self.group.numbers();
        self.dice.pick(&numbers).unwrap()
    }

    fn someone_leading(&mut self) -> Option<u64> {
        let leading = self.group.leading();
        self.dice.pick(&leading)
    }

    fn step(&mut self) {
        self.work();
        match self.dice.roll(1000) {
            0..=299 => self.group.tick(),
            300..=599 => self.propose(),
            600..=799 => self.read(),
            800..=859 => self.snapshot(),
            860..=889 => self.compact(),
            890..=909 => self.restart(),
            910..=919 => self.cut(),
            920..=934 => self.part(),
            935..=949 => self.group.cut.clear(),
            950..=964 => self.change(),
            965..=974 => self.transfer(),
            975..=984 => self.break_stream(),
            _ => self.pause(),
        }
    }

    /// Some messages arrive, some writes end, some replicas do what there is to do.
    fn work(&mut self) {
        for number in self.group.numbers() {
            match self.dice.roll(4) {
                0 => self.group.poll(number),
                1 => self.group.finish_write(number),
                _ => {}
            }
        }
        (0..self.dice.roll(6)).for_each(|_| self.deliver());
    }

    /// Mostly the oldest message, at times any, at times twice or never.
    fn deliver(&mut self) {
        let count = self.group.network.len() as u64;
        let at = if self.dice.roll(4) == 0 { self.dice.roll(count.max(1)) } else { 0 };
        match self.dice.roll(40) {
            0 => drop(self.group.network.remove(at as usize)),
            1 => {
                let copy = self.group.network.get(at as usize).cloned();
                copy.into_iter().for_each(|message| self.group.deliver(message));
            }
            _ => {
                let taken = self.group.network.remove(at as usize);
                taken.into_iter().for_each(|message| self.group.deliver(message));
            }
        }
    }

    fn propose(&mut self) {
        if let Some(leader) = self.someone_leading() {
            self.proposed += 1;
            let command = Bytes::from(format!("command {}", self.proposed));
            let _ = self.group.raft(leader).propose(command);
        }
    }

    fn read(&mut self) {
        if let Some(leader) = self.someone_leading() {
            self.tokens += 1;
            self.group.ask_for_read(leader, self.tokens);
        }
    }

    /// A snapshot that was asked for arrives, fails, or is forgotten and arrives from elsewhere.
    fn snapshot(&mut self) {
        let wanted = self.group.snapshots.len() as u64;
        if wanted > 0 {
            let at = self.dice.roll(wanted) as usize;
            let (from, to, _) = self.group.snapshots.swap_remove(at);
            let start = self.group.snapshot_of(from).filter(|_| self.dice.roll(4) > 0);
            let through = start.as_ref().map(|start| start.position.index);
            start.into_iter().for_each(|start| self.group.install(to.0, start));
            self.group.raft(from).snapshot_done(to, through);
        } else if self.dice.roll(4) == 0 {
            let (from, to) = (self.someone(), self.someone());
            let start = self.group.snapshot_of(from);
            start.into_iter().for_each(|start| self.group.install(to, start));
        }
    }

    fn compact(&mut self) {
        let number = self.someone();
        self.group.compact(number);
    }

    fn restart(&mut self) {
        let (number, seed) = (self.someone(), self.dice.roll(u64::MAX));
        self.group.restart(number, seed);
        // Whoever asked for a snapshot there has forgotten it, or is told that it failed.
        for (from, to, _) in std::mem::take(&mut self.group.snapshots) {
            self.group.raft(from).snapshot_done(to, None);
        }
    }

    fn cut(&mut self) {
        let pair = (self.someone(), self.someone());
        self.group.cut.insert(pair);
    }

    /// Two sides that do not hear each other, drawn anew.
    fn part(&mut self) {
        let sides = self.dice.roll(32);
        let side = |number: u64| sides >> (number - 1) & 1;
        self.group.cut.clear();
        for from in self.group.numbers() {
            let beyond = |to: &u64| side(*to) != side(from);
            let others = self.group.numbers().into_iter().filter(beyond);
            self.group.cut.extend(others.map(|to| (from, to)));
        }
    }

    fn change(&mut self) {
        let Some(leader) = self.someone_leading() else { return };
        let Target { mut voters, mut learners } = target(&[], &[]);
        for number in 1..=5 {
            let (voter, learner) = (target(&[number], &[]), self.dice.roll(2) == 0);
            match self.dice.roll(3) {
                0 | 1 => voters.extend(voter.voters),
                _ if learner => learners.extend(voter.voters),
                _ => {}
            }
        }
        let expected = self.group.raft(leader).log().membership_index();
        let late = LogIndex(expected.0.saturating_sub(self.dice.roll(8) / 7));
        let _ = self.group.raft(leader).propose_membership(&Target { voters, learners }, late);
    }

    fn transfer(&mut self) {
        let to = self.someone();
        if let Some(leader) = self.someone_leading() {
            let _ = self.group.raft(leader).transfer_leader(super::id(to));
        }
    }

    fn break_stream(&mut self) {
        let (one, other) = (self.someone(), self.someone());
        self.group.raft(one).on_unreachable(super::id(other));
        let between = |from: u64, to: u64| (from, to) == (one, other) || (to, from) == (one, other);
        self.group.network.retain(|message| !between(message.from.0, message.to.0));
    }

    /// Somebody sees nothing for a while, or only the time stands still for it; whoever that
    /// happened to before goes on.
    fn pause(&mut self) {
        let (paused, now) = (self.someone(), self.group.now);
        let freezes = !self.group.clocks_agree && self.dice.roll(2) == 0;
        for number in self.group.numbers() {
            let member = self.group.members.get_mut(&number).unwrap();
            if !member.is_up || member.is_frozen {
                member.raft.tick(now);
            }
            member.is_up = number != paused || freezes;
            member.is_frozen = number == paused && freezes;
        }
    }

    /// The faults are over: the group must serve a write, and everybody must hear of it.
    fn heal(&mut self) {
        self.group.cut.clear();
        for number in self.group.numbers() {
            let member = self.group.members.get_mut(&number).unwrap();
            (member.is_up, member.is_frozen) = (true, false);
        }
        let mut served = None;
        for _ in 0..60 * super::ELECTION {
            self.group.tick();
            self.group.settle();
            while !self.group.snapshots.is_empty() {
                self.snapshot();
                self.group.settle();
            }
            if served.is_none()
                && let &[leader] = self.group.leading().as_slice()
            {
                served = self.group.raft(leader).propose(Bytes::from_static(b"last")).ok();
            }
            let committed = served.and_then(|at| self.group.committed.get(&at.index));
            if served.is_some() && committed.is_none_or(|e| Some(e.position()) != served) {
                served = served.filter(|at| at.index > self.group.last_committed());
            }
        }
        assert!(served.is_some(), "the group does not serve after the faults");
        self.group.check_converged();
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut storm = Storm::new(seed);
    (0..3_000).for_each(|_| storm.step());
    storm.heal();
    (storm.group.committed.len() as u64, storm.group.reads_served)
}

/// `RAFT_SEED=n cargo test protocol::raft::tests::random` runs a single one.
#[test]
fn random_faults_do_no_harm_and_end() {
    if let Some(seed) = std::env::var("RAFT_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let (mut committed, mut reads) = (0, 0);
    for seed in 1..=150 {
        println!("to replay: RAFT_SEED={seed} cargo test protocol::raft::tests::random");
        let (more_committed, more_reads) = run(seed);
        committed += more_committed;
        reads += more_reads;
    }
    println!("{committed} entries committed, {reads} reads served");
    assert!(committed > 150 * 20 && reads > 150 * 5, "{committed} entries, {reads} reads");
}
