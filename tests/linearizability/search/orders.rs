//! The search through orders.

use std::collections::HashSet;

use super::steps::{ABSENT, State, Steps};

/// The head of the list of events.
const HEAD: usize = 0;

/// A search under way.
pub(super) struct Orders<'s, 'a> {
    steps: &'s mut Steps<'a>,
    events: Events,
    placed: Placed,
    /// The choices that may be taken back.
    choices: Vec<Choice>,
    state: State,
    tried: HashSet<Box<[u64]>>,
    states_max: usize,
    /// A step of which the dead ends are kept.
    watched: Option<usize>,
    dead_ends: Vec<State>,
}

/// A step that was placed though others might have been.
struct Choice {
    step: usize,
    /// How things stood before.
    state: State,
    placed: usize,
}

impl<'s, 'a> Orders<'s, 'a> {
    pub(super) fn new(steps: &'s mut Steps<'a>, states_max: usize) -> Self {
        Orders {
            events: Events::of(steps),
            placed: Placed::none_of(steps),
            choices: Vec::new(),
            state: ABSENT,
            tried: HashSet::new(),
            states_max,
            watched: None,
            dead_ends: Vec::new(),
            steps,
        }
    }

    /// Whether there is a legal order; `None` when the search gave up.
    pub(super) fn search(&mut self) -> Option<bool> {
        self.place_what_only_sees();
        let mut last = None;
        while !self.events.is_empty() {
            let Some((step, state)) = self.candidate_after(last) else {
                self.note_dead_end();
                last = Some(match self.take_back() {
                    Some(step) => step,
                    None => return Some(false),
                });
                continue;
            };
            self.choose(step, state);
            last = if self.tried.insert(self.position()) { None } else { self.take_back() };
            if self.tried.len() > self.states_max {
                return None;
            }
        }
        Some(true)
    }

    /// The states in which `step` was what nothing could be placed before and did not fit.
    pub(super) fn states_before(mut self, step: usize) -> Vec<State> {
        self.watched = Some(step);
        self.search();
        self.dead_ends
    }

    /// The next step to try after `last`: those of known outcome first.
    fn candidate_after(&mut self, last: Option<usize>) -> Option<(usize, State)> {
        let known = self.steps.known;
        if last.is_none_or(|last| last < known) {
            let mut event = self.events.next[last.map_or(HEAD, Events::call)];
            while let Some(step) = Events::called(event) {
                if let Some(state) = self.steps.take(step, self.state) {
                    return Some((step, state));
                }
                event = self.events.next[event];
            }
        }
        let first = last.map_or(known, |last| known.max(last + 1));
        if first == self.steps.all.len() {
            return None;
        }
        let deadline = self.steps.all[self.first_returned()].operation.returned_or_never();
        let mut unknown = first..self.steps.all.len();
        unknown.find_map(|step| Some((step, self.take_unknown(step, deadline)?)))
    }

    /// The state that a step of unknown outcome leads to, where trying it makes sense; what was
    /// not placed before `deadline` comes too late.
    fn take_unknown(&mut self, step: usize, deadline: u64) -> Option<State> {
        let twin = self.steps.all[step].twin;
        let useless = self.placed.has(step) || twin.is_some_and(|twin| !self.placed.has(twin));
        if useless || deadline < self.steps.all[step].operation.invoked {
            return None;
        }
        self.steps.take(step, self.state).filter(|state| *state != self.state)
    }

    /// The step, of those left, that returned first.
    fn first_returned(&self) -> usize {
        let mut event = self.events.next[HEAD];
        while Events::called(event).is_some() {
            event = self.events.next[event];
        }
        Events::returned(event)
    }

    fn choose(&mut self, step: usize, state: State) {
        let choice = Choice { step, state: self.state, placed: self.placed.order.len() };
        self.choices.push(choice);
        self.place(step);
        self.state = state;
        self.place_what_only_sees();
    }

    /// Undoes the last choice, and says what it was.
    fn take_back(&mut self) -> Option<usize> {
        let choice = self.choices.pop()?;
        while self.placed.order.len() > choice.placed {
            self.lift();
        }
        self.state = choice.state;
        Some(choice.step)
    }

    fn place_what_only_sees(&mut self) {
        // Placing a step may let its return go that hid later calls behind it, and those calls
        // come after it in the list: one pass finds all.
        let mut event = self.events.next[HEAD];
        while let Some(step) = Events::called(event) {
            event = self.events.next[event];
            if self.steps.only_sees(step) && self.steps.take(step, self.state).is_some() {
                if event == Events::return_of(step) {
                    event = self.events.next[event];
                }
                self.place(step);
            }
        }
    }

    fn place(&mut self, step: usize) {
        self.placed.push(step);
        if step < self.steps.known {
            self.events.remove(step);
        }
    }

    fn lift(&mut self) {
        let step = self.placed.pop();
        if step < self.steps.known {
            self.events.restore(step);
        }
    }

    /// What stands for the placed steps and the state.
    fn position(&self) -> Box<[u64]> {
        let first_left = self.events.first_step().unwrap_or(self.steps.known);
        self.placed.digest(self.state as u64, first_left)
    }

    fn note_dead_end(&mut self) {
        let watched = self.watched.is_some_and(|step| step == self.first_returned());
        if watched && !self.dead_ends.contains(&self.state) {
            self.dead_ends.push(self.state);
        }
    }
}

/// The steps that are placed.
struct Placed {
    /// As bits: those of known outcome, and from a word of their own on those of unknown outcome.
    words: Vec<u64>,
    known: usize,
    /// In order, each with the largest one of known outcome placed so far.
    order: Vec<(usize, usize)>,
}

impl Placed {
    fn none_of(steps: &Steps<'_>) -> Self {
        let unknown = steps.all.len() - steps.known;
        let words = steps.known.div_ceil(64) + unknown.div_ceil(64);
        Placed { words: vec![0; words], known: steps.known, order: Vec::new() }
    }

    fn bit(&self, step: usize) -> (usize, u64) {
        match step.checked_sub(self.known) {
            Some(unknown) => (self.known.div_ceil(64) + unknown / 64, 1 << (unknown % 64)),
            None => (step / 64, 1 << (step % 64)),
        }
    }

    fn has(&self, step: usize) -> bool {
        let (word, bit) = self.bit(step);
        self.words[word] & bit != 0
    }

    fn push(&mut self, step: usize) {
        let (word, bit) = self.bit(step);
        self.words[word] |= bit;
        let largest = self.largest_known();
        self.order.push((step, if step < self.known { largest.max(step) } else { largest }));
    }

    fn pop(&mut self) -> usize {
        let (step, _) = self.order.pop().expect("a step is placed");
        let (word, bit) = self.bit(step);
        self.words[word] &= !bit;
        step
    }

    fn largest_known(&self) -> usize {
        self.order.last().map_or(0, |(_, largest)| *largest)
    }

    /// The same only for the same state and steps, given the first step that is not placed: whole
    /// words before it and behind the largest placed one go without saying, which keeps the
    /// digests of a long history short.
    fn digest(&self, state: u64, first_left: usize) -> Box<[u64]> {
        let full = first_left / 64;
        let behind = (self.largest_known() / 64 + 1).clamp(full, self.known.div_ceil(64));
        let known = &self.words[full..behind];
        let unknown = &self.words[self.known.div_ceil(64)..];
        [state, full as u64].iter().chain(known).chain(unknown).copied().collect()
    }
}

/// Calls and returns of the known steps that are not placed, by time, as a doubly linked list
/// from which a step can be taken and into which it can be put back, in reverse order, at once.
///
/// Event 0 is the head; step i is called at event 2i + 1 and returns at event 2i + 2.
struct Events {
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Events {
    fn of(steps: &Steps<'_>) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.known);
        for (step, known) in steps.all[..steps.known].iter().enumerate() {
            // Calls come before returns of the same time, since equal times overlap.
            times.push((known.operation.invoked, false, Events::call(step)));
            times.push((known.operation.returned_or_never(), true, Events::return_of(step)));
        }
        times.sort_unstable();
        let mut events =
            Events { next: vec![HEAD; times.len() + 1], previous: vec![HEAD; times.len() + 1] };
        let mut last = HEAD;
        for (_, _, event) in times {
            events.next[last] = event;
            events.previous[event] = last;
            last = event;
        }
        events.previous[HEAD] = last;
        events
    }

    fn call(step: usize) -> usize {
        2 * step + 1
    }

    fn return_of(step: usize) -> usize {
        2 * step + 2
    }

    /// The step that an event calls; `None` for a return and for the head.
    fn called(event: usize) -> Option<usize> {
        (event % 2 == 1).then_some(event / 2)
    }

    fn returned(event: usize) -> usize {
        assert!(event != HEAD && event.is_multiple_of(2), "event {event} is no return");
        event / 2 - 1
    }

    fn is_empty(&self) -> bool {
        self.next[HEAD] == HEAD
    }

    /// The step, of those in the list, that was called first.
    fn first_step(&self) -> Option<usize> {
        Events::called(self.next[HEAD])
    }

    fn remove(&mut self, step: usize) {
        for event in [Events::call(step), Events::return_of(step)] {
            let (previous, next) = (self.previous[event], self.next[event]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the last removal that was not undone.
    fn restore(&mut self, step: usize) {
        for event in [Events::return_of(step), Events::call(step)] {
            let (previous, next) = (self.previous[event], self.next[event]);
            self.next[previous] = event;
            self.previous[next] = event;
        }
    }
}
