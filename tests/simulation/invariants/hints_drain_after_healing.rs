//! Once faults stop, every hint reaches its primary: none is left.
//!
//! Rests on: hinted handoff delivers to every returned node (Dynamo, section 4.6).

use crate::history::Evidence;

pub(crate) const NAME: &str = "hints_drain_after_healing";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let left = evidence.hints_left.iter();
    left.map(|kept| format!("after healing, {kept}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::story::evidence;

    #[test]
    fn it_fails_exactly_when_hints_are_left() {
        let mut evidence = evidence(Vec::new());
        assert!(check(&evidence).is_empty());
        evidence.hints_left.push("n1 keeps 1 byte for n2".to_owned());
        assert_eq!(check(&evidence).len(), 1);
    }
}
