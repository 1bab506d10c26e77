//! Finds out that the cluster has let this node go, when nobody could tell it.
//!
//! Members close their connections to a node as soon as it is forgotten, so the news may pass by
//! the one whom they are about: it was down when it was removed, or the answer to its own wish to
//! leave was lost with the connection. Whoever keeps no connection with this node is therefore
//! asked, by a call that needs none, whether it still has it in its member set.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::transport::Transport;
use crate::node::env::Env;
use crate::node::members::Members;
use crate::node::tasks::Stop;
use crate::types::NodeId;

/// How often those are asked that keep no connection. Peers dial each other again much faster.
const INTERVAL: Duration = Duration::from_secs(3);

/// Asks members that are not connected.
pub(crate) struct Dismissal {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) members: Arc<Members>,
}

impl Dismissal {
    /// Asks until this node is known to be forgotten, or it stops.
    pub(crate) async fn run(self, mut stop: Stop) {
        let asked = async {
            loop {
                self.env.sleep_until(self.env.now() + INTERVAL).await;
                if self.is_let_go().await {
                    return self.members.on_let_go();
                }
            }
        };
        tokio::select! { biased;
            () = stop.requested() => {}
            () = asked => {}
        }
    }

    async fn is_let_go(&self) -> bool {
        let silent = |(peer, _): &(NodeId, SocketAddr)| !self.transport.is_connected(*peer);
        for (peer, address) in self.members.others().into_iter().filter(silent) {
            if self.transport.is_forgotten_by(peer, address).await {
                return true;
            }
        }
        false
    }
}
