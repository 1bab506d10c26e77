//! What several nodes say of the same Raft groups, put together. Pure.

use std::collections::BTreeMap;

use crate::proto::v1;

/// The number by which the system group goes in messages.
pub(crate) const SYSTEM: u32 = 65_535;

/// A node that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) node_id: String,
    pub(crate) name: String,
    /// Where clients reach it.
    pub(crate) address: String,
}

/// What a node said of one group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) asked: Asked,
    pub(crate) group: v1::Group,
}

/// One group, as all say that were asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupView {
    pub(crate) number: u32,
    /// By the node's name.
    pub(crate) views: Vec<View>,
}

/// What was learned of the groups of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Picture {
    /// Names of all members, by id.
    pub(crate) names: BTreeMap<String, String>,
    /// By number.
    pub(crate) groups: Vec<GroupView>,
    /// Members that did not answer, each with the reason.
    pub(crate) unreached: Vec<(String, String)>,
}

impl Picture {
    /// Puts the answers together.
    pub(crate) fn new(
        names: BTreeMap<String, String>,
        answers: Vec<(Asked, Vec<v1::Group>)>,
        unreached: Vec<(String, String)>,
    ) -> Picture {
        let mut groups: BTreeMap<u32, Vec<View>> = BTreeMap::new();
        for (asked, said) in answers {
            for group in said {
                let view = View { asked: asked.clone(), group };
                groups.entry(view.group.group).or_default().push(view);
            }
        }
        let groups = groups.into_iter().map(|(number, mut views)| {
            views.sort_by(|one, other| one.asked.name.cmp(&other.asked.name));
            GroupView { number, views }
        });
        Picture { names, groups: groups.collect(), unreached }
    }

    /// A node's name, or its id while no name is known.
    pub(crate) fn name(&self, node_id: &str) -> String {
        self.names.get(node_id).cloned().unwrap_or_else(|| node_id.to_owned())
    }

    /// One group.
    pub(crate) fn group(&self, number: u32) -> Option<&GroupView> {
        self.groups.iter().find(|group| group.number == number)
    }
}

impl GroupView {
    /// The view of the node that leads: of two that think so, the one with the higher term does.
    pub(crate) fn leader(&self) -> Option<&View> {
        let latest = self.views.iter().map(|view| view.group.term).max()?;
        let leads = |view: &&View| view.group.role == "leader" && view.group.term == latest;
        self.views.iter().find(leads)
    }

    /// The view that knows most: the leader's, or else that of the highest term and commit index.
    pub(crate) fn best(&self) -> Option<&View> {
        let most = || self.views.iter().max_by_key(|view| (view.group.term, view.group.commit));
        self.leader().or_else(most)
    }

    /// The id of the node that leads, by its own word or by what the others have heard.
    pub(crate) fn leader_id(&self) -> Option<&str> {
        let best = self.best()?;
        Some(best.group.leader.as_str()).filter(|leader| !leader.is_empty())
    }

    /// What the node itself said.
    pub(crate) fn of(&self, node_id: &str) -> Option<&View> {
        self.views.iter().find(|view| view.asked.node_id == node_id)
    }
}

/// A group as people name it.
pub(crate) fn group_name(number: u32) -> String {
    if number == SYSTEM { String::from("system") } else { number.to_string() }
}

/// A group as people name it, for flags: `system`, or a partition's number.
///
/// # Errors
/// When it is neither.
pub(crate) fn parse_group(text: &str) -> Result<u32, String> {
    if text == "system" {
        return Ok(SYSTEM);
    }
    let number = text.parse().ok().filter(|number| *number < SYSTEM);
    number.ok_or_else(|| String::from("give a partition's number, or system"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What node `n{number}` says.
    pub(crate) fn said(number: u32, role: &str, term: u64, leader: &str) -> (Asked, v1::Group) {
        let asked = Asked {
            node_id: format!("id{number}"),
            name: format!("n{number}"),
            address: format!("127.0.0.1:{number}"),
        };
        let replica = |number: u64| v1::GroupReplica {
            replica: number,
            node_id: format!("id{number}"),
            voter: number < 3,
            matched: (role == "leader" && number > 1).then_some(90),
        };
        let group = v1::Group {
            group: 7,
            replica: u64::from(number),
            role: role.to_owned(),
            term,
            leader: leader.to_owned(),
            commit: 100,
            applied: 99,
            first_index: 1,
            last_index: 101,
            replicas: (1..=3).map(replica).collect(),
            ..v1::Group::default()
        };
        (asked, group)
    }

    pub(crate) fn picture(all: Vec<(Asked, v1::Group)>) -> Picture {
        let names = (1..=3).map(|n| (format!("id{n}"), format!("n{n}"))).collect();
        let answers = all.into_iter().map(|(asked, group)| (asked, vec![group])).collect();
        Picture::new(names, answers, Vec::new())
    }

    #[test]
    fn of_two_that_claim_to_lead_the_higher_term_counts() {
        let all = vec![said(1, "leader", 4, "id1"), said(2, "leader", 5, "id2")];
        let picture = picture(all);
        let group = picture.group(7).expect("told of");
        assert_eq!(group.leader().map(|view| view.asked.name.as_str()), Some("n2"));
        assert_eq!(group.leader_id(), Some("id2"));
    }

    #[test]
    fn a_leader_of_an_older_term_is_none() {
        let all = vec![said(1, "leader", 4, "id1"), said(2, "candidate", 5, "")];
        let picture = picture(all);
        let group = picture.group(7).expect("told of");
        assert_eq!((group.leader(), group.leader_id()), (None, None));
        assert_eq!(group.best().map(|view| view.asked.name.as_str()), Some("n2"));
    }

    #[test]
    fn followers_name_a_leader_that_was_not_asked() {
        let picture = picture(vec![said(2, "follower", 5, "id1")]);
        let group = picture.group(7).expect("told of");
        assert_eq!((group.leader(), group.leader_id()), (None, Some("id1")));
        assert_eq!(picture.name("id1"), "n1");
        assert_eq!(picture.name("unheard-of"), "unheard-of");
    }

    #[test]
    fn groups_are_numbers_or_the_system_group() {
        assert_eq!((parse_group("system"), parse_group("7")), (Ok(SYSTEM), Ok(7)));
        for wrong in ["", "-1", "65535", "x"] {
            assert!(parse_group(wrong).is_err(), "{wrong}");
        }
        assert_eq!((group_name(SYSTEM).as_str(), group_name(7).as_str()), ("system", "7"));
    }
}
