//! Nodes are killed, frozen and cut off at random under load, one or two at once.
//!
//! While every partition keeps two of its three primaries, no request at QUORUM fails on a node
//! that is not struck. Else errors must be honest. In the end nothing acknowledged is missing.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use coterie::proto::v1::Level;

use crate::compose::{Compose, NODES};
use crate::crew::{Crew, Footing};
use crate::dice::Dice;
use crate::faults::{Event, Fault, plan};
use crate::harness::{PATIENCE, wait_until};

/// Faults of a run unless the environment says otherwise: two to three minutes.
const EVENTS: usize = 10;
/// Writes that must succeed before, during and after a fault that quorums survive.
const WRITES: u64 = 200;
/// Attempts that must be answered while quorums may be out of reach.
const ANSWERS: u64 = 20;
/// Exit codes of the command line: nothing was attempted, and outcome unknown.
const EXIT_CODES: [i32; 2] = [4, 5];

const TEST: &str = "chaos::nothing_acknowledged_is_lost_when_containers_are_struck_at_random";

#[test]
#[ignore = "needs Docker: run with cargo test --test containers -- --ignored"]
fn nothing_acknowledged_is_lost_when_containers_are_struck_at_random() {
    let (seed, events) = (setting("COTERIE_CHAOS_SEED"), setting("COTERIE_CHAOS_EVENTS"));
    let seed = seed.unwrap_or_else(seed_of_the_moment);
    let events = events.map_or(EVENTS, |events| usize::try_from(events).expect("few"));
    eprintln!(
        "to replay: COTERIE_CHAOS_SEED={seed} COTERIE_CHAOS_EVENTS={events} cargo test \
         --test containers {TEST} -- --exact --ignored --nocapture"
    );
    let mut dice = Dice::new(seed);
    let mut compose = Compose::start();
    let mut crew = Crew::hire(&compose.cluster.nodes, &dice);
    crew.start();
    for (number, event) in (1..).zip(plan(&mut dice, events)) {
        survive(&mut compose, &crew, &event, &format!("event {number}: {}", describe(&event)));
    }
    crew.stop();
    crew.check("at the end");
    compose.wait_hints_drained();
    crew.read_back(dice.index(NODES), Level::Quorum, "at the end");
    crew.read_back(dice.index(NODES), Level::All, "at the end");
    check_no_warnings(&compose);
}

/// One event from its beginning to the state in which nothing is left of it.
fn survive(compose: &mut Compose, crew: &Crew, event: &Event, what: &str) {
    let (started, before) = (Instant::now(), crew.acknowledged());
    let victims: Vec<usize> = event.iter().map(|(node, _)| *node).collect();
    let sound = Compose::spares_quorums(&victims);
    crew.wait_acknowledged(WRITES, &format!("before {what}"));
    expect_of_all(crew, &victims, if sound { Footing::Sound } else { Footing::Short });
    event.iter().for_each(|&(node, fault)| fault.strike(compose, node));
    wait_seen_down(compose, &victims, what);
    if sound {
        crew.wait_acknowledged(WRITES, &format!("during {what}"));
    } else {
        crew.wait_answered(ANSWERS, &format!("during {what}"));
    }
    check_lonely(compose, event);
    event.iter().for_each(|&(node, fault)| fault.heal(compose, node));
    compose.cluster.wait_formed();
    victims.iter().for_each(|&node| crew.reconnect_to(node));
    wait_reaches_all(compose, &victims);
    expect_of_all(crew, &[], Footing::Sound);
    crew.wait_acknowledged(WRITES, &format!("after {what}"));
    compose.wait_hints_drained();
    crew.check(what);
    let writes = crew.acknowledged() - before;
    eprintln!("{what}: {writes} writes acknowledged in {:.1?}", started.elapsed());
}

/// Gossip is heard again before a stream that the cut left half-open is noticed to be dead: what is
/// under way on it is lost then, which its error says truly. Enough keys lie on all other nodes.
fn wait_reaches_all(compose: &Compose, victims: &[usize]) {
    for &victim in victims {
        let node = &compose.cluster.nodes[victim];
        wait_until("a victim reaches all others", PATIENCE, || {
            for number in 0..16 {
                let path = format!("/kv/healed-{number}?level=all");
                let reply = node.try_http("PUT", &path, &[], b"{\"value\":\"v\"}");
                let reply = reply.map_err(|error| error.to_string())?;
                if reply.status != 200 {
                    return Err(reply.text());
                }
            }
            Ok(())
        });
    }
}

/// Nothing is expected of the victims, and that of all others.
fn expect_of_all(crew: &Crew, victims: &[usize], others: Footing) {
    for node in 0..NODES {
        let struck = victims.contains(&node);
        crew.expect(node, if struck { Footing::Affected } else { others });
    }
}

fn wait_seen_down(compose: &Compose, victims: &[usize], what: &str) {
    let nodes = &compose.cluster.nodes;
    let witnesses: Vec<_> = (0..NODES).filter(|node| !victims.contains(node)).collect();
    wait_until(&format!("the others see it: {what}"), PATIENCE, || {
        for &witness in &witnesses {
            for &victim in victims {
                let seen = nodes[witness].member(&nodes[victim].spec.name)?;
                if seen["state"] == "up" {
                    return Err(format!("{} sees {seen}", nodes[witness].spec.name));
                }
            }
        }
        Ok(())
    });
}

/// A node that is cut off must not say that a quorum has taken a write.
fn check_lonely(compose: &Compose, event: &Event) {
    for &(node, fault) in event {
        if fault == Fault::Disconnect {
            let output = compose.exec(node, &["put", "lonely", "value", "--level", "quorum"]);
            let code = output.status.code().unwrap_or_default();
            let name = compose.name(node);
            assert!(EXIT_CODES.contains(&code), "{name}, cut off, answered {output:?}");
        }
    }
}

/// None of it damages anything, so there is nothing to warn of, but that a node which was struck a
/// moment ago, or has a busy machine, is slow.
fn check_no_warnings(compose: &Compose) {
    for node in &compose.cluster.nodes {
        let status = node.status().expect("a status");
        let warnings = status["warnings"].as_array().expect("a list").iter();
        let of_damage: Vec<_> =
            warnings.filter(|text| !text.to_string().contains(" is slow: ")).collect();
        assert!(of_damage.is_empty(), "{}: {of_damage:?}", node.spec.name);
    }
}

fn describe(event: &Event) -> String {
    let one = |(node, fault): &(usize, Fault)| format!("{fault:?} n{}", node + 1);
    event.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn setting(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn seed_of_the_moment() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::from(since.subsec_nanos()) ^ u64::from(std::process::id()) << 32
}
