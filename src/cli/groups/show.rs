//! Raft groups as people and as programs read them. Pure.

use serde_json::{Value, json};

use crate::cli::groups::view::{GroupView, Picture, SYSTEM, View, group_name};
use crate::cli::output::table;
use crate::proto::v1;

/// Entries that a replica may lack without a word: less than a moment's writes.
const BEHIND_UNREMARKED: u64 = 64;

/// The page of `coterie raft status`.
pub(crate) fn all(picture: &Picture) -> String {
    let row = |group: &GroupView| {
        let best = group.best().map(|view| view.group.clone()).unwrap_or_default();
        vec![
            group_name(group.number),
            leader(picture, group),
            best.term.to_string(),
            best.commit.to_string(),
            best.applied.to_string(),
            replicas(picture, &best),
            notes(picture, group),
        ]
    };
    let header = ["GROUP", "LEADER", "TERM", "COMMIT", "APPLIED", "REPLICAS", "NOTES"];
    let numeric = ["GROUP", "TERM", "COMMIT", "APPLIED"];
    let mut page = table(&header, &numeric, picture.groups.iter().map(row).collect());
    page.push_str(&format!("\n\n{}\n", summary(picture)));
    page.push_str(&unreached(picture));
    page
}

/// The page of `coterie raft status PARTITION`.
pub(crate) fn one(picture: &Picture, group: &GroupView) -> String {
    let best = group.best().map(|view| view.group.clone()).unwrap_or_default();
    let mut page = format!(
        "group {}: {}, term {}, commit {}\n\n",
        group_name(group.number),
        match group.leader_id() {
            Some(leader) => format!("led by {}", picture.name(leader)),
            None => String::from("without a leader"),
        },
        best.term,
        best.commit
    );
    let header = [
        "NODE", "REPLICA", "ROLE", "VOTES", "TERM", "COMMIT", "APPLIED", "LOG", "MATCHED",
        "WAITING", "NOTES",
    ];
    let numeric = ["REPLICA", "TERM", "COMMIT", "APPLIED", "MATCHED", "WAITING"];
    let rows = best.replicas.iter().map(|replica| replica_row(picture, group, replica)).collect();
    page.push_str(&table(&header, &numeric, rows));
    page.push('\n');
    page.push_str(&unreached(picture));
    page
}

fn replica_row(picture: &Picture, group: &GroupView, replica: &v1::GroupReplica) -> Vec<String> {
    let own = group.of(&replica.node_id).map(|view| &view.group);
    let own = own.filter(|own| own.replica == replica.replica);
    let told = |tell: fn(&v1::Group) -> String| own.map_or_else(|| String::from("-"), tell);
    vec![
        picture.name(&replica.node_id),
        replica.replica.to_string(),
        told(|own| own.role.clone()),
        String::from(if replica.voter { "yes" } else { "no" }),
        told(|own| own.term.to_string()),
        told(|own| own.commit.to_string()),
        told(|own| own.applied.to_string()),
        told(|own| format!("{}..{}", own.first_index, own.last_index)),
        replica.matched.map_or_else(|| String::from("-"), |matched| matched.to_string()),
        told(|own| own.waiting.to_string()),
        own.map_or_else(|| String::from("not heard"), |own| installing(own).to_owned()),
    ]
}

fn installing(group: &v1::Group) -> &'static str {
    if group.installing { "takes in a snapshot" } else { "" }
}

fn leader(picture: &Picture, group: &GroupView) -> String {
    group.leader_id().map_or_else(|| String::from("-"), |leader| picture.name(leader))
}

/// The replicas by the names of their nodes; those that do not vote are marked.
fn replicas(picture: &Picture, group: &v1::Group) -> String {
    let name = |replica: &v1::GroupReplica| {
        let name = picture.name(&replica.node_id);
        if replica.voter { name } else { format!("({name})") }
    };
    let mut names: Vec<String> = group.replicas.iter().map(name).collect();
    names.sort_by_key(|name| (name.starts_with('('), name.clone()));
    names.join(" ")
}

/// What is out of the ordinary about a group.
fn notes(picture: &Picture, group: &GroupView) -> String {
    let mut notes = Vec::new();
    if group.leader_id().is_none() {
        notes.push(String::from("no leader"));
    }
    if let Some(leader) = group.leader() {
        let behind = |replica: &v1::GroupReplica| {
            let lacking = leader.group.last_index.saturating_sub(replica.matched?);
            (lacking > BEHIND_UNREMARKED)
                .then(|| format!("{} lacks {lacking} entries", picture.name(&replica.node_id)))
        };
        notes.extend(leader.group.replicas.iter().filter_map(behind));
    }
    let installs = |view: &&View| view.group.installing;
    notes.extend(
        group
            .views
            .iter()
            .filter(installs)
            .map(|view| format!("{} takes in a snapshot", view.asked.name)),
    );
    let waiting: u64 = group.views.iter().map(|view| view.group.waiting).sum();
    if waiting > 0 {
        notes.push(format!("{waiting} waiting"));
    }
    notes.join(", ")
}

/// How many groups there are, and who leads how many.
fn summary(picture: &Picture) -> String {
    let partitions = || picture.groups.iter().filter(|group| group.number != SYSTEM);
    let led_by = |id: &str| partitions().filter(|group| group.leader_id() == Some(id)).count();
    let shares: Vec<String> = picture
        .names
        .iter()
        .map(|(id, name)| (name, led_by(id)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} leads {count}"))
        .collect();
    let leaderless = partitions().filter(|group| group.leader_id().is_none()).count();
    let mut text = format!("{} groups of partitions", partitions().count());
    for share in shares {
        text.push_str(&format!(", {share}"));
    }
    if leaderless > 0 {
        text.push_str(&format!(", {leaderless} without a leader"));
    }
    text
}

fn unreached(picture: &Picture) -> String {
    let line = |(node, reason): &(String, String)| format!("not heard: {node} ({reason})\n");
    picture.unreached.iter().map(line).collect()
}

/// The same for programs.
pub(crate) fn json(picture: &Picture) -> Value {
    let unreached = |(node, reason): &(String, String)| json!({ "name": node, "reason": reason });
    json!({
        "groups": picture.groups.iter().map(group_json).collect::<Vec<Value>>(),
        "not_heard": picture.unreached.iter().map(unreached).collect::<Vec<Value>>(),
    })
}

fn group_json(group: &GroupView) -> Value {
    let best = group.best().map(|view| view.group.clone()).unwrap_or_default();
    let replica = |replica: &v1::GroupReplica| {
        json!({
            "replica": replica.replica,
            "node_id": replica.node_id,
            "voter": replica.voter,
            "matched": replica.matched,
        })
    };
    json!({
        "group": group_name(group.number),
        "leader": group.leader_id(),
        "term": best.term,
        "commit": best.commit,
        "applied": best.applied,
        "replicas": best.replicas.iter().map(replica).collect::<Vec<Value>>(),
        "views": group.views.iter().map(view_json).collect::<Vec<Value>>(),
    })
}

fn view_json(view: &View) -> Value {
    let View { asked, group } = view;
    json!({
        "node_id": asked.node_id,
        "name": asked.name,
        "replica": group.replica,
        "role": group.role,
        "term": group.term,
        "leader": Some(&group.leader).filter(|leader| !leader.is_empty()),
        "commit": group.commit,
        "applied": group.applied,
        "first_index": group.first_index,
        "last_index": group.last_index,
        "waiting": group.waiting,
        "installing": group.installing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::groups::view::tests::{picture, said};

    fn healthy() -> Picture {
        picture(vec![said(1, "leader", 4, "id1"), said(2, "follower", 4, "id1")])
    }

    #[test]
    fn each_group_is_one_line() {
        let page = all(&healthy());
        let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
        assert_eq!(lines[1], "    7  n1         4     100       99  n1 n2 (n3)");
        assert_eq!(lines[3], "1 groups of partitions, n1 leads 1");
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_noted() {
        let mut behind = said(1, "leader", 4, "id1");
        behind.1.last_index = 190;
        behind.1.waiting = 3;
        let mut installing = said(2, "follower", 4, "id1");
        installing.1.installing = true;
        let mut picture = picture(vec![behind, installing]);
        picture.unreached.push((String::from("n3"), String::from("refused")));
        let page = all(&picture);
        for note in [
            "n2 lacks 100 entries, n3 lacks 100 entries, n2 takes in a snapshot, 3 waiting",
            "not heard: n3 (refused)",
        ] {
            assert!(page.contains(note), "{note:?} is not in\n{page}");
        }
    }

    #[test]
    fn a_group_without_a_leader_says_so() {
        let picture = picture(vec![said(2, "follower", 4, "")]);
        let page = all(&picture);
        assert!(page.contains("no leader") && page.contains("1 without a leader"), "{page}");
        let page = one(&picture, &picture.groups[0]);
        assert!(page.starts_with("group 7: without a leader, term 4, commit 100\n"), "{page}");
    }

    #[test]
    fn one_group_is_shown_replica_by_replica() {
        let picture = healthy();
        let page = one(&picture, &picture.groups[0]);
        let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "group 7: led by n1, term 4, commit 100");
        assert!(lines[3].starts_with("n1          1  leader    yes"), "{page}");
        assert!(lines[4].contains("follower  yes") && lines[4].contains("90"), "{page}");
        assert!(lines[5].contains("no") && lines[5].ends_with("not heard"), "{page}");
    }

    #[test]
    fn programs_get_every_view() {
        let value = json(&healthy());
        let group = &value["groups"][0];
        assert_eq!((&group["group"], &group["leader"]), (&json!("7"), &json!("id1")));
        assert_eq!(group["replicas"][1]["matched"], 90);
        assert_eq!(group["views"][1]["role"], "follower");
        assert_eq!(value["not_heard"], json!([]));
    }
}
