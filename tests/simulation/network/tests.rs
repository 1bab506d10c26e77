use coterie::protocol::message::{RequestId, WriteReply};

use super::*;

/// Notes what arrives.
#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<String>>,
}

impl Listener {
    fn heard(&self) -> Vec<String> {
        self.heard.lock().clone()
    }
}

impl Inbox for Listener {
    fn on_messages(&self, from: NodeId, messages: Vec<Message>) {
        self.heard.lock().extend(messages.iter().map(|_| format!("message from {}", from.0)));
    }

    fn on_connected(&self, peer: NodeId) {
        self.heard.lock().push(format!("up {}", peer.0));
    }

    fn on_disconnected(&self, peer: NodeId) {
        self.heard.lock().push(format!("down {}", peer.0));
    }
}

struct Pair {
    agenda: Arc<Agenda>,
    network: Arc<Network>,
    listeners: [Arc<Listener>; 2],
    ends: [Arc<dyn Transport>; 2],
}

fn hello() -> Message {
    let (request, outcome) = (RequestId(1), Ok(None));
    Message::WriteReply(WriteReply { request, outcome })
}

/// Machines 0 and 1 with nodes 10 and 11, connected.
async fn connected_pair() -> Pair {
    let agenda = Agenda::start();
    let trace = Arc::new(Trace::new(false));
    let network = Network::new(agenda.clone(), trace, 2, Dice::new(1));
    let listeners = [Arc::<Listener>::default(), Arc::<Listener>::default()];
    let ends = [0, 1].map(|machine| {
        network.plug(machine, NodeId(10 + machine as u64), listeners[machine].clone())
    });
    ends[0].set_peers(&[(NodeId(11), "10.0.0.2:1".parse().unwrap())]);
    agenda.sleep(Duration::from_secs(1)).await;
    Pair { agenda, network, listeners, ends }
}

#[tokio::test(start_paused = true)]
async fn a_message_reaches_a_connected_peer_in_order() {
    let pair = connected_pair().await;
    assert!(pair.ends[1].is_connected(NodeId(10)));
    pair.ends[0].send(NodeId(11), Class::Client, hello()).unwrap();
    pair.agenda.sleep(Duration::from_millis(10)).await;
    assert_eq!(pair.listeners[1].heard(), ["up 10", "message from 10"]);
}

#[tokio::test(start_paused = true)]
async fn a_blocked_peer_swallows_messages_until_the_break_is_noticed() {
    let pair = connected_pair().await;
    pair.network.set_blocked(0, 1, true);
    assert!(pair.ends[0].send(NodeId(11), Class::Client, hello()).is_ok(), "not yet noticed");
    pair.agenda.sleep(Duration::from_secs(5)).await;
    let refused = pair.ends[0].send(NodeId(11), Class::Client, hello());
    assert_eq!(refused, Err(SendError::NotConnected { to: NodeId(11) }));
    pair.network.set_blocked(0, 1, false);
    pair.agenda.sleep(Duration::from_secs(1)).await;
    assert_eq!(pair.listeners[1].heard(), ["up 10", "down 10", "up 10"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_process_is_noticed_and_its_transport_is_dead() {
    let pair = connected_pair().await;
    pair.network.unplug(1);
    pair.agenda.sleep(Duration::from_secs(5)).await;
    assert_eq!(pair.listeners[0].heard(), ["up 11", "down 11"]);
    assert!(pair.ends[1].send(NodeId(10), Class::Client, hello()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_paused_machine_hears_everything_when_it_resumes() {
    let pair = connected_pair().await;
    pair.network.set_paused(1, true);
    pair.ends[0].send(NodeId(11), Class::Client, hello()).unwrap();
    pair.agenda.sleep(Duration::from_millis(100)).await;
    assert_eq!(pair.listeners[1].heard(), ["up 10"]);
    pair.network.set_paused(1, false);
    assert_eq!(pair.listeners[1].heard(), ["up 10", "message from 10"]);
}

#[tokio::test(start_paused = true)]
async fn lost_and_repeated_messages_are_lost_and_repeated() {
    let pair = connected_pair().await;
    let weather = |loss_per_mille, repeat_per_mille| Weather {
        loss_per_mille,
        repeat_per_mille,
        ..Weather::default()
    };
    for (set, arrived) in [(weather(1000, 0), 1), (weather(0, 1000), 3)] {
        pair.network.set_weather(set);
        pair.ends[0].send(NodeId(11), Class::Client, hello()).unwrap();
        pair.agenda.sleep(Duration::from_millis(10)).await;
        assert_eq!(pair.listeners[1].heard().len(), arrived);
    }
}
