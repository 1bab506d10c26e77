//! A node's report as people read it. Pure: protobuf in, text out.

use std::fmt::Write;

use crate::cli::output::table;
use crate::config::units::about_size;
use crate::proto::v1;

/// Characters of the bar of the member with the largest share.
const BAR_WIDTH: usize = 24;

/// The page of `coterie status`.
pub(crate) fn status(status: &v1::StatusResponse) -> String {
    let mut page = heading(status);
    page.push_str("\nMembers\n");
    page.push_str(&indented(&members(&status.members)));
    if !status.hot_keys.is_empty() {
        page.push_str("\nHot keys\n");
        page.push_str(&indented(&hot_keys(&status.hot_keys)));
    }
    if status.concurrent_writes_discarded > 0 {
        let met = status.concurrent_writes_discarded;
        let told =
            format!("{met} times a write met a version that its writer had not seen; one of");
        page.push_str("\nConflicts\n");
        page.push_str(&indented(&format!("{told} the two was discarded")));
    }
    if !status.activities.is_empty() {
        page.push_str("\nIn the background\n");
        page.push_str(&indented(&activities(&status.activities)));
    }
    if !status.warnings.is_empty() {
        page.push_str("\nWarnings\n");
        page.push_str(&indented(&status.warnings.join("\n")));
    }
    page
}

fn heading(status: &v1::StatusResponse) -> String {
    let cluster = if status.cluster_id.is_empty() { "none yet" } else { &status.cluster_id };
    let node = format!("{} ({}), version {}", status.name, status.node_id, status.program_version);
    let ring = status.ring.clone().unwrap_or_default();
    let ring = format!(
        "epoch {}, {} partitions{}, {} virtual nodes, digest {}",
        ring.epoch,
        ring.partitions,
        unsettled(&ring),
        ring.vnodes,
        ring.digest
    );
    let rows = [
        ("Cluster", cluster.to_owned()),
        ("Node", node),
        ("State", serving(status.serving.as_ref())),
        ("Ring", ring),
        ("Replicas", replication(status.replication.as_ref())),
        ("Raft", raft(status)),
    ];
    rows.iter().fold(String::new(), |mut page, (name, text)| {
        let _ = writeln!(page, "{name:<9} {text}");
        page
    })
}

/// How many partitions are on their way, if any are.
fn unsettled(ring: &v1::RingSummary) -> String {
    match ring.unsettled {
        0 => String::new(),
        some => format!(" ({some} on their way)"),
    }
}

fn serving(serving: Option<&v1::Serving>) -> String {
    match serving {
        Some(serving) if serving.ready => String::from("serving"),
        Some(serving) => format!("not serving: {}", serving.reason),
        None => String::from("not known"),
    }
}

fn replication(replication: Option<&v1::ReplicationStatus>) -> String {
    let r = replication.copied().unwrap_or_default();
    let configured = (r.replication_factor, r.read_quorum, r.write_quorum);
    let in_effect = (r.replicas_in_effect, r.read_quorum_in_effect, r.write_quorum_in_effect);
    let show = |(n, r, w): (u32, u32, u32)| format!("N={n} R={r} W={w}");
    if configured == in_effect {
        return show(configured);
    }
    format!(
        "{} in effect, {} configured (fewer members than replicas)",
        show(in_effect),
        show(configured)
    )
}

fn raft(status: &v1::StatusResponse) -> String {
    let raft = status.raft.clone().unwrap_or_default();
    let name_of = |id: &String| {
        let member = status.members.iter().find(|member| member.node_id == *id);
        member.map_or_else(|| id.clone(), |member| member.name.clone())
    };
    let system = match &raft.system_leader {
        id if id.is_empty() => String::from("without a leader"),
        id => format!("led by {}", name_of(id)),
    };
    let mut text =
        format!("system group {system}; {} groups here, {} led here", raft.groups, raft.led);
    if raft.leaderless > 0 {
        text.push_str(&format!(", {} without a leader", raft.leaderless));
    }
    text
}

fn members(members: &[v1::Member]) -> String {
    let header = [
        "NAME",
        "ID",
        "STATE",
        "ZONE",
        "CLIENTS",
        "PEERS",
        "PARTITIONS",
        "REQ/S",
        "HINTS",
        "NOTES",
    ];
    let row = |member: &v1::Member| {
        vec![
            member.name.clone(),
            member.node_id.clone(),
            member.state.clone(),
            or_dash(&member.zone),
            member.client_address.clone(),
            member.peer_address.clone(),
            member.partitions.to_string(),
            member.load_per_second.to_string(),
            about_size(member.hint_bytes),
            notes(member),
        ]
    };
    let numeric = ["PARTITIONS", "REQ/S", "HINTS"];
    table(&header, &numeric, by_name(members).into_iter().map(row).collect())
}

fn hot_keys(keys: &[v1::HotKey]) -> String {
    let row = |hot: &v1::HotKey| {
        vec![
            hot.keyspace.clone(),
            // Quoted: a key may hold anything.
            format!("{:?}", hot.key),
            hot.requests_per_second.to_string(),
            format!("{} %", hot.share_percent),
        ]
    };
    let header = ["KEYSPACE", "KEY", "REQ/S", "SHARE"];
    table(&header, &["REQ/S", "SHARE"], keys.iter().map(row).collect())
}

/// The page of `coterie cluster members`.
pub(crate) fn cluster_members(members: &[v1::Member], system: &v1::Group) -> String {
    let header =
        ["NAME", "ID", "STATE", "SYSTEM GROUP", "ZONE", "CLIENTS", "PEERS", "PARTITIONS", "NOTES"];
    let row = |member: &v1::Member| {
        vec![
            member.name.clone(),
            member.node_id.clone(),
            member.state.clone(),
            part(member, system).to_owned(),
            or_dash(&member.zone),
            member.client_address.clone(),
            member.peer_address.clone(),
            member.partitions.to_string(),
            notes(member),
        ]
    };
    table(&header, &["PARTITIONS"], by_name(members).into_iter().map(row).collect())
}

/// A member's part in the system group: `leader`, `voter`, `learner`, or `none` known.
pub(crate) fn part(member: &v1::Member, system: &v1::Group) -> &'static str {
    let own = system.replicas.iter().find(|replica| replica.node_id == member.node_id);
    match own {
        Some(_) if system.leader == member.node_id => "leader",
        Some(replica) if replica.voter => "voter",
        Some(_) => "learner",
        None => "none",
    }
}

fn by_name(members: &[v1::Member]) -> Vec<&v1::Member> {
    let mut members: Vec<&v1::Member> = members.iter().collect();
    members.sort_by_key(|member| (&member.name, &member.node_id));
    members
}

/// What is out of the ordinary about a member.
fn notes(member: &v1::Member) -> String {
    let up = member.state == "up";
    let notes = [
        (member.is_self, "this node"),
        (up && !member.is_self && !member.connected, "no stream"),
        (up && member.slow, "slow"),
        (up && !member.complete, "refilling"),
        (up && !member.agrees, "sees other members"),
    ];
    let holding: Vec<&str> =
        notes.iter().filter(|(holds, _)| *holds).map(|(_, note)| *note).collect();
    holding.join(", ")
}

fn activities(activities: &[v1::Activity]) -> String {
    let row = |a: &v1::Activity| vec![a.name.clone(), a.state.clone(), a.detail.clone()];
    let lines = table(&["", "", ""], &[], activities.iter().map(row).collect());
    lines.lines().skip(1).collect::<Vec<&str>>().join("\n")
}

/// The page of `coterie ring`.
pub(crate) fn ring(ring: &v1::RingResponse) -> String {
    let summary = ring.summary.clone().unwrap_or_default();
    let mut page = format!(
        "epoch {}, {} partitions, {} virtual nodes, digest {}\n\n",
        summary.epoch, summary.partitions, summary.vnodes, summary.digest
    );
    let held: u32 = ring.members.iter().map(|member| member.partitions).sum();
    let most = ring.members.iter().map(|member| member.partitions).max().unwrap_or(0);
    let leads = |member: &v1::Member| {
        let led = |p: &&v1::Partition| p.leader == member.node_id;
        ring.partitions.iter().filter(led).count()
    };
    let row = |member: &v1::Member| {
        vec![
            member.name.clone(),
            member.node_id.clone(),
            member.state.clone(),
            or_dash(&member.zone),
            member.vnodes.to_string(),
            member.partitions.to_string(),
            leads(member).to_string(),
            format!("{:.1} %", percent(member.partitions, held)),
            bar(member.partitions, most),
        ]
    };
    let header = ["NAME", "ID", "STATE", "ZONE", "VNODES", "PARTITIONS", "LEADS", "SHARE", ""];
    let numeric = ["VNODES", "PARTITIONS", "LEADS", "SHARE"];
    page.push_str(&table(&header, &numeric, by_name(&ring.members).into_iter().map(row).collect()));
    page
}

/// The page of `coterie ring KEY`.
pub(crate) fn owners(owners: &v1::OwnersResponse) -> String {
    let row = |(place, owner): (usize, &v1::Owner)| {
        vec![
            (place + 1).to_string(),
            owner.role.clone(),
            owner.name.clone(),
            owner.node_id.clone(),
            owner.state.clone(),
            owner.client_address.clone(),
        ]
    };
    let rows = owners.owners.iter().enumerate().map(row).collect();
    let header = ["#", "ROLE", "NAME", "ID", "STATE", "CLIENTS"];
    format!(
        "key {:?}: token {:016x}, partition {}\n\n{}",
        owners.key,
        owners.token,
        owners.partition,
        table(&header, &["#"], rows)
    )
}

fn percent(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * f64::from(part) / f64::from(whole) }
}

fn bar(part: u32, most: u32) -> String {
    if most == 0 {
        return String::new();
    }
    "█".repeat((part as usize * BAR_WIDTH).div_ceil(most as usize))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { String::from("-") } else { text.to_owned() }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut page, line| {
        let _ = writeln!(page, "  {}", line.trim_end());
        page
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, state: &str, partitions: u32) -> v1::Member {
        v1::Member {
            node_id: format!("{name}-id"),
            name: name.into(),
            state: state.into(),
            connected: true,
            complete: true,
            agrees: true,
            peer_address: "127.0.0.1:7401".into(),
            client_address: "127.0.0.1:7400".into(),
            partitions,
            vnodes: 128,
            ..v1::Member::default()
        }
    }

    #[test]
    fn status_shows_what_differs_from_the_configuration() {
        let replication = v1::ReplicationStatus {
            replication_factor: 3,
            read_quorum: 2,
            write_quorum: 2,
            replicas_in_effect: 1,
            read_quorum_in_effect: 1,
            write_quorum_in_effect: 1,
        };
        let page = status(&v1::StatusResponse {
            name: "a".into(),
            serving: Some(v1::Serving { ready: false, reason: "joining".into() }),
            members: vec![v1::Member { is_self: true, ..member("a", "up", 256) }],
            replication: Some(replication),
            raft: Some(v1::RaftSummary {
                groups: 3,
                led: 2,
                leaderless: 1,
                system_leader: "a-id".into(),
                ..v1::RaftSummary::default()
            }),
            activities: vec![v1::Activity {
                name: "hinted handoff".into(),
                state: "idle".into(),
                detail: "nothing kept".into(),
            }],
            hot_keys: vec![v1::HotKey {
                keyspace: "orders".into(),
                key: "k\n".into(),
                requests_per_second: 700,
                share_percent: 61,
            }],
            warnings: vec!["the disk is full".into()],
            ..v1::StatusResponse::default()
        });
        let expected = [
            "Cluster   none yet",
            "State     not serving: joining",
            "N=1 R=1 W=1 in effect, N=3 R=2 W=2 configured",
            "Raft      system group led by a; 3 groups here, 2 led here, 1 without a leader",
            "this node",
            "orders    \"k\\n\"    700   61 %",
            "hinted handoff  idle  nothing kept",
            "  the disk is full",
        ];
        for text in expected {
            assert!(page.contains(text), "{text:?} is not in\n{page}");
        }
    }

    #[test]
    fn members_have_their_part_in_the_system_group() {
        let replica = |name: &str, voter| v1::GroupReplica {
            node_id: format!("{name}-id"),
            voter,
            ..v1::GroupReplica::default()
        };
        let system = v1::Group {
            leader: "a-id".into(),
            replicas: vec![replica("a", true), replica("b", true), replica("c", false)],
            ..v1::Group::default()
        };
        let parts = ["a", "b", "c", "d"].map(|name| part(&member(name, "up", 1), &system));
        assert_eq!(parts, ["leader", "voter", "learner", "none"]);
        let page = cluster_members(&[member("a", "up", 3)], &system);
        assert!(page.contains("up     leader"), "{page}");
    }

    #[test]
    fn notes_tell_only_what_is_unusual() {
        assert_eq!(notes(&member("a", "up", 1)), "");
        let lone = v1::Member { connected: false, agrees: false, ..member("a", "up", 1) };
        assert_eq!(notes(&lone), "no stream, sees other members");
        let slow = v1::Member { slow: true, ..member("a", "up", 1) };
        assert_eq!(notes(&slow), "slow");
        assert_eq!(notes(&v1::Member { state: "down".into(), ..lone }), "");
    }

    #[test]
    fn the_ring_shows_shares_and_bars() {
        let members = vec![member("a", "up", 30), member("b", "down", 10)];
        let led = |leader: &str| v1::Partition { leader: leader.into(), ..Default::default() };
        let partitions = vec![led("a-id"), led(""), led("a-id")];
        let page = ring(&v1::RingResponse { members, partitions, summary: None });
        assert!(page.contains("     30      2  ") && page.contains("     10      0  "), "{page}");
        assert!(page.contains("75.0 %") && page.contains("25.0 %"), "{page}");
        assert!(page.contains(&bar(30, 30)), "{page}");
        assert_eq!(bar(30, 30).chars().count(), BAR_WIDTH);
        assert_eq!(bar(10, 30).chars().count(), BAR_WIDTH / 3);
        assert_eq!(bar(1, 1000).chars().count(), 1);
    }

    #[test]
    fn owners_are_numbered_in_preference_order() {
        let owner = |name: &str, role: &str| v1::Owner {
            name: name.into(),
            role: role.into(),
            state: "up".into(),
            ..v1::Owner::default()
        };
        let page = owners(&v1::OwnersResponse {
            key: "k".into(),
            token: 255,
            partition: 7,
            owners: vec![owner("a", "primary"), owner("b", "fallback")],
        });
        assert!(page.starts_with("key \"k\": token 00000000000000ff, partition 7\n"), "{page}");
        assert!(page.contains("1  primary   a") && page.contains("2  fallback  b"), "{page}");
    }
}
