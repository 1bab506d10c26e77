//! Looks at keys of keyspaces that join copies: every read of a run, and the last one of each key,
//! beside all that was asked about that key.

use coterie::node::request::Receipt;
use coterie::types::NodeId;

use crate::history::{Evidence, Sight};
use crate::merging::{Call, Errand, Finally, Told, Values};

/// One look.
pub(crate) struct Look<'e, E, T> {
    pub(crate) read: &'e T,
    pub(crate) sight: Sight<'e>,
    /// What was asked about the key.
    pub(crate) calls: Vec<&'e Call<E>>,
    /// What the reader had seen of it, and said so.
    seen: Option<&'e Values>,
}

/// Judges all looks: at the end, and while the run went on those of which `told` knows.
pub(crate) fn judge_all<'e, E: Errand, T>(
    (evidence, calls): (&'e Evidence, &'e [Call<E>]),
    finally: &'e Finally<T>,
    told: impl Fn(&'e Told) -> Option<(&'e T, &'e Receipt)>,
    judge: impl Fn(&Look<'e, E, T>) -> Vec<String>,
) -> Vec<String> {
    let of_key = |key| calls.iter().filter(|it| it.key == key).collect();
    let mut wrong = Vec::new();
    for (key, read) in finally {
        let (sight, calls) = (Sight::last(evidence), of_key(*key));
        let problems = match read {
            Err(why) => vec![format!("cannot be read at ALL: {why}")],
            Ok(read) => judge(&Look { read, sight, calls, seen: None }),
        };
        wrong.extend(problems.into_iter().map(|it| format!("{}-{key}, finally: {it}", E::KEY)));
    }
    for call in calls {
        let Some((read, receipt)) = told(&call.told) else { continue };
        let (key, began, ended) = (call.key, call.invoked, call.answered);
        let sight = Sight { evidence, began, ended, receipt: Some(receipt) };
        let problems = judge(&Look { read, sight, calls: of_key(key), seen: call.seen.as_ref() });
        wrong.extend(problems.into_iter().map(|it| format!("{}-{key}, {began}: {it}", E::KEY)));
    }
    wrong
}

/// An errand that may put a value under a key, beside others, until it is taken away.
pub(crate) trait Puts: Errand {
    /// The value that it puts there.
    fn puts(&self) -> Option<&str>;

    /// Whether a change, once it is made, must have taken away what was put there.
    fn takes(change: &Call<Self>, put: &Call<Self>, sight: Sight<'_>) -> bool;

    /// Whether a change may take away a value that may be there from that place on.
    fn may_take(change: &Call<Self>, value: &str, since: u64) -> bool;
}

/// What is wrong with values: those stand that were put there and not taken away.
pub(crate) fn judge_values<E: Puts>(look: &Look<'_, E, Values>) -> Vec<String> {
    let mut wrong = Vec::new();
    for value in look.read {
        let put = look.put(value).filter(|it| it.may_exist() && it.invoked < look.sight.ended);
        let Some(put) = put else {
            wrong.push(format!("{value} stands, and nobody put it there"));
            continue;
        };
        let took = |it: &&&Call<E>| E::takes(it, put, look.sight) && it.is_seen(look.sight);
        if let Some(Call { errand, invoked, .. }) = look.calls.iter().find(took) {
            wrong.push(format!("{value} stands, and was taken away by {errand:?} at {invoked}"));
        }
    }
    for call in look.calls.iter().filter(|it| it.is_seen(look.sight)) {
        let lost = call.errand.puts().filter(|value| look.lacks(value));
        wrong.extend(lost.map(|value| format!("{value} was acknowledged, and is gone")));
    }
    let lost = look.seen.into_iter().flatten().filter(|value| look.lacks(value));
    wrong.extend(lost.map(|value| format!("{value} was seen before, and is gone")));
    wrong
}

impl<'e, E: Puts> Look<'e, E, Values> {
    /// The errand that puts a value there; there is one at most.
    fn put(&self, value: &str) -> Option<&'e Call<E>> {
        self.calls.iter().copied().find(|it| it.errand.puts() == Some(value))
    }

    /// Whether a value is gone that nothing took away that may have happened.
    fn lacks(&self, value: &str) -> bool {
        let since = self.put(value).map_or(0, |it| it.invoked);
        let may_exist = |it: &&&Call<E>| it.may_exist() && it.invoked < self.sight.ended;
        let mut changes = self.calls.iter().filter(may_exist);
        !self.read.contains(value) && !changes.any(|it| E::may_take(it, value, since))
    }
}

/// What a test of a judge has its calls told: two of three replicas.
pub(crate) fn receipt() -> Receipt {
    let acknowledged = vec![NodeId(1), NodeId(2)];
    Receipt { required: 2, replicas: 3, acknowledged, ..Receipt::default() }
}

/// The values of a text, for the same.
pub(crate) fn values(text: &str) -> Values {
    text.split_whitespace().map(str::to_owned).collect()
}
