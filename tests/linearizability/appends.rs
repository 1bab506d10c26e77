//! Append lists whose elements all differ, judged in n log n.
//!
//! The idea is Elle's (Kingsbury and Alvaro 2020, "Elle: Inferring Isolation Anomalies from
//! Experimental Observations", section 4): a read shows not only a value but all writes that led
//! to it, in order. For one list with no other operations this decides linearizability, not
//! only refutes it:
//!
//! Every read must be a prefix of the longest one. That fixes the order of all appends that were
//! read, and puts each read between two of them. An append that nobody read comes after those if
//! it was acknowledged, and is left out if its outcome is unknown. So the operations fall into
//! *places*: place i holds the append of the i-th element and the reads of i elements; the last
//! place holds the appends that nobody read, which no read tells apart. An order exists exactly
//! when no operation of a later place returned before one of an earlier place was invoked, nor a
//! read before the append of its own place. What that means depends on the two operations:
//!
//! | returned first | invoked later, placed earlier | anomaly |
//! |---|---|---|
//! | append | read | lost: an acknowledged element is missing |
//! | read | read | back: an element that was read is missing |
//! | append | append | reordered: the list contradicts real time |
//! | read | append | future: an element was read before it was appended |

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::history::{Operation, by_key};

/// What tells the appends apart.
pub(crate) type Element = u64;

/// An operation on a list, which is empty at first, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListCall {
    Append(Element),
    Read(Vec<Element>),
}

/// What no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// A list holds an element twice.
    Duplicate { element: Element, witness: String },
    /// A list holds an element that nobody appended.
    Phantom { element: Element, witness: String },
    /// Two lists of which neither is the beginning of the other.
    Fork { witness: String },
    /// An acknowledged element is missing from a later read.
    Lost { element: Element, witness: String },
    /// An element that was read is missing from a later read.
    Back { witness: String },
    /// An append that returned before another was invoked stands behind it.
    Reordered { witness: String },
    /// An element was read before it was appended.
    Future { element: Element, witness: String },
    /// The history itself is wrong: an element was appended by two operations.
    NotUnique { element: Element, witness: String },
}

/// What is wrong with each key's list; nothing exactly when the history is linearizable.
pub(crate) fn check(history: &[Operation<ListCall>]) -> Vec<Anomaly> {
    by_key(history).values().flat_map(|operations| check_list(operations)).collect()
}

/// Panics unless every key's list is linearizable.
pub(crate) fn assert_linearizable(history: &[Operation<ListCall>]) {
    let anomalies = check(history);
    let shown: Vec<String> = anomalies.iter().map(Anomaly::to_string).collect();
    assert!(anomalies.is_empty(), "{} anomalies: {}", shown.len(), shown.join("\n"));
}

/// What is wrong with the list of one key.
pub(crate) fn check_list(history: &[&Operation<ListCall>]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let appends = appends(history, &mut anomalies);
    let mut longest: &[Element] = &[];
    if let Some((read, list)) = reads(history).max_by_key(|(_, list)| list.len()) {
        longest = list;
        judge_elements(read, list, &appends, &mut anomalies);
        for (other, list) in reads(history).filter(|(_, list)| !longest.starts_with(list)) {
            judge_elements(other, list, &appends, &mut anomalies);
            anomalies.push(Anomaly::Fork { witness: pair(read, other) });
        }
    }
    // Places make sense only for one order of elements that were appended once.
    if anomalies.is_empty() {
        judge_places(places(history, &appends, longest), &mut anomalies);
    }
    anomalies
}

type Appends<'a> = HashMap<Element, &'a Operation<ListCall>>;

fn appends<'a>(history: &[&'a Operation<ListCall>], anomalies: &mut Vec<Anomaly>) -> Appends<'a> {
    let mut appends = Appends::new();
    for operation in history {
        let ListCall::Append(element) = operation.call else { continue };
        if let Some(other) = appends.insert(element, operation) {
            anomalies.push(Anomaly::NotUnique { element, witness: pair(other, operation) });
        }
    }
    appends
}

/// The reads that were answered.
fn reads<'a>(
    history: &[&'a Operation<ListCall>],
) -> impl Iterator<Item = (&'a Operation<ListCall>, &'a [Element])> {
    history.iter().filter_map(|operation| match &operation.call {
        ListCall::Read(list) if operation.returned.is_some() => Some((*operation, &list[..])),
        _ => None,
    })
}

fn judge_elements(
    read: &Operation<ListCall>,
    list: &[Element],
    appends: &Appends<'_>,
    anomalies: &mut Vec<Anomaly>,
) {
    let mut seen = HashSet::with_capacity(list.len());
    for element in list {
        let (element, witness) = (*element, || format!("\n  {read}"));
        if !seen.insert(element) {
            anomalies.push(Anomaly::Duplicate { element, witness: witness() });
        }
        if !appends.contains_key(&element) {
            anomalies.push(Anomaly::Phantom { element, witness: witness() });
        }
    }
}

/// The operations that matter, by place; in a place, appends come first.
fn places<'a>(
    history: &[&'a Operation<ListCall>],
    appends: &Appends<'a>,
    longest: &[Element],
) -> Vec<Vec<&'a Operation<ListCall>>> {
    let read: HashSet<Element> = longest.iter().copied().collect();
    let mut places: Vec<Vec<&Operation<ListCall>>> = vec![Vec::new(); longest.len() + 2];
    for (place, element) in longest.iter().enumerate() {
        places[place + 1].push(appends[element]);
    }
    for operation in history {
        match &operation.call {
            ListCall::Append(element) if read.contains(element) => {}
            _ if operation.returned.is_none() => {}
            ListCall::Append(_) => places[longest.len() + 1].push(operation),
            ListCall::Read(list) => places[list.len()].push(operation),
        }
    }
    places
}

/// Tells what returned too early: one operation of each place, and all appends that nobody read.
fn judge_places(places: Vec<Vec<&Operation<ListCall>>>, anomalies: &mut Vec<Anomaly>) {
    let unread = places.len() - 1;
    // Of all earlier places, what was invoked last.
    let mut latest: Option<&Operation<ListCall>> = None;
    for (at, place) in places.into_iter().enumerate() {
        let early = place.iter().filter_map(|operation| {
            let earlier = latest.into_iter().chain(append_before(operation, &place));
            let earlier = earlier.max_by_key(|earlier| earlier.invoked)?;
            let is_early = operation.returned_or_never() < earlier.invoked;
            is_early.then(|| Anomaly::of(operation, earlier))
        });
        anomalies.extend(early.take(if at == unread { usize::MAX } else { 1 }));
        latest = latest.into_iter().chain(place).max_by_key(|operation| operation.invoked);
    }
}

/// The append that a read of the same place must follow.
fn append_before<'a>(
    operation: &Operation<ListCall>,
    place: &[&'a Operation<ListCall>],
) -> Option<&'a Operation<ListCall>> {
    let is_read = matches!(operation.call, ListCall::Read(_));
    let first = place.first().filter(|first| matches!(first.call, ListCall::Append(_)));
    first.filter(|_| is_read).copied()
}

impl Anomaly {
    /// What it means that `first` returned before `second` was invoked but takes effect later.
    fn of(first: &Operation<ListCall>, second: &Operation<ListCall>) -> Self {
        let witness = pair(first, second);
        match (&first.call, &second.call) {
            (ListCall::Append(element), ListCall::Read(_)) => {
                Anomaly::Lost { element: *element, witness }
            }
            (ListCall::Read(_), ListCall::Read(_)) => Anomaly::Back { witness },
            (ListCall::Append(_), ListCall::Append(_)) => Anomaly::Reordered { witness },
            (ListCall::Read(_), ListCall::Append(element)) => {
                Anomaly::Future { element: *element, witness }
            }
        }
    }
}

/// How an element is written when it is appended to a value of bytes.
pub(crate) fn encoded(element: Element) -> String {
    format!("{element},")
}

/// The elements of a value that [`encoded`] ones were appended to; `Err` says what is none.
pub(crate) fn decoded(value: &[u8]) -> Result<Vec<Element>, String> {
    let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    let whole = text.is_empty() || text.ends_with(',');
    let elements = text.split_terminator(',').map(|element| {
        element.parse().map_err(|_| format!("{element:?} is no element of {text:?}"))
    });
    if whole { elements.collect() } else { Err(format!("the last element of {text:?} is torn")) }
}

fn pair(first: &Operation<ListCall>, second: &Operation<ListCall>) -> String {
    format!("\n  {first}\n  {second}")
}

impl fmt::Display for ListCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListCall::Append(element) => write!(f, "append {element}"),
            ListCall::Read(list) => write!(f, "read {}", shown_list(list)),
        }
    }
}

/// A list for people, who look at its end.
fn shown_list(list: &[Element]) -> String {
    match list.len().checked_sub(10) {
        None | Some(0) => format!("{list:?}"),
        Some(hidden) => format!("[{hidden} more, {:?}]", &list[hidden..]),
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Anomaly::Duplicate { element, witness } => {
                write!(f, "{element} stands twice in a list:{witness}")
            }
            Anomaly::Phantom { element, witness } => {
                write!(f, "nobody appended {element}:{witness}")
            }
            Anomaly::Fork { witness } => write!(f, "neither list begins the other:{witness}"),
            Anomaly::Lost { element, witness } => {
                write!(f, "{element} was acknowledged and is missing later:{witness}")
            }
            Anomaly::Back { witness } => write!(f, "a later read saw less:{witness}"),
            Anomaly::Reordered { witness } => {
                write!(f, "the list contradicts the order in time of:{witness}")
            }
            Anomaly::Future { element, witness } => {
                write!(f, "{element} was read before it was appended:{witness}")
            }
            Anomaly::NotUnique { element, witness } => {
                write!(f, "{element} was appended by two operations:{witness}")
            }
        }
    }
}
