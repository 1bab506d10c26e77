//! Where the nodes of a local cluster listen and keep their data.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;

/// Ports between two nodes, so that addresses are easy to remember.
const PORT_STEP: u16 = 10;

/// One node's addresses and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) client: SocketAddr,
    pub(super) peer: SocketAddr,
    /// Its directory; `data` and `log` lie in it.
    pub(super) directory: PathBuf,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
}

/// A local cluster's nodes; the first founds it.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) directory: PathBuf,
    pub(super) places: Vec<Place>,
}

impl Layout {
    /// # Errors
    /// When the ports would go beyond the last one.
    pub(super) fn new(directory: PathBuf, nodes: u16, base_port: u16) -> Result<Self, Failure> {
        let places: Option<Vec<Place>> =
            (0..nodes).map(|index| place(&directory, index, base_port)).collect();
        let places = places.ok_or_else(|| {
            Failure::usage(format!("{nodes} nodes from port {base_port} on go beyond port 65535"))
        })?;
        Ok(Layout { directory, places })
    }

    /// The peer address that a node joins by; none for the founder.
    pub(super) fn seed_of(&self, place: &Place) -> Option<SocketAddr> {
        let founder = self.places.first()?;
        (founder != place).then_some(founder.peer)
    }

    /// # Errors
    /// When one of the ports is in use, before anything has been started.
    pub(super) fn check_ports(&self) -> Result<(), Failure> {
        for place in &self.places {
            for address in [place.client, place.peer] {
                TcpListener::bind(address).map_err(|error| busy(address, "TCP", &error))?;
            }
            UdpSocket::bind(place.peer).map_err(|error| busy(place.peer, "UDP", &error))?;
        }
        Ok(())
    }

    /// Deletes the nodes that an earlier run left, and nothing else.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        for directory in self.found()? {
            fs::remove_dir_all(&directory).map_err(|error| cannot("delete", &directory, &error))?;
        }
        Ok(())
    }

    /// Makes the directories, and refuses what cannot go on as a cluster.
    ///
    /// # Errors
    /// When they cannot be made, or an earlier run had more nodes or lost its founder.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        let found = self.found()?;
        let known = |directory: &PathBuf| self.places.iter().any(|p| p.directory == *directory);
        let advice = "start it as it was, or add --fresh to begin anew";
        if let Some(more) = found.iter().find(|directory| !known(directory)) {
            let message = format!("{} is of an earlier, larger cluster; {advice}", more.display());
            return Err(Failure::usage(message));
        }
        let founder = self.places.first().map(|place| &place.directory);
        if !found.is_empty() && founder.is_some_and(|founder| !found.contains(founder)) {
            let directory = self.directory.display();
            let message = format!("{directory} has nodes but not the one that founded them");
            return Err(Failure::usage(format!("{message}; {advice}")));
        }
        for place in &self.places {
            let made = fs::create_dir_all(&place.directory);
            made.map_err(|error| cannot("make", &place.directory, &error))?;
        }
        Ok(())
    }

    /// Deletes everything, for temporary clusters.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(cannot("delete", &self.directory, &error))
            }
            _ => Ok(()),
        }
    }

    /// Directories of nodes that an earlier run left.
    fn found(&self) -> Result<Vec<PathBuf>, Failure> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(cannot("read", &self.directory, &error)),
        };
        let is_node = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix("node-").is_some_and(|number| number.parse::<u16>().is_ok())
        };
        Ok(entries.flatten().map(|entry| entry.path()).filter(is_node).collect())
    }
}

fn place(directory: &Path, index: u16, base_port: u16) -> Option<Place> {
    let port = base_port.checked_add(index.checked_mul(PORT_STEP)?)?;
    let name = format!("node-{}", index + 1);
    let directory = directory.join(&name);
    Some(Place {
        name,
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, port.checked_add(1)?)),
        data: directory.join("data"),
        log: directory.join("log"),
        directory,
    })
}

fn busy(address: SocketAddr, protocol: &str, error: &io::Error) -> Failure {
    let advice = "stop what listens there, or give another --base-port";
    Failure::failed(format!("cannot use {address} ({protocol}): {error}; {advice}"))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(directory: &Path, nodes: u16) -> Layout {
        Layout::new(directory.to_owned(), nodes, 7400).expect("fits")
    }

    #[test]
    fn addresses_are_regular_and_only_the_founder_has_no_seed() {
        let layout = layout(Path::new("d"), 3);
        let clients: Vec<u16> = layout.places.iter().map(|place| place.client.port()).collect();
        let peers: Vec<u16> = layout.places.iter().map(|place| place.peer.port()).collect();
        assert_eq!((clients, peers), (vec![7400, 7410, 7420], vec![7401, 7411, 7421]));
        let seeds: Vec<Option<u16>> =
            layout.places.iter().map(|place| layout.seed_of(place).map(|a| a.port())).collect();
        assert_eq!(seeds, [None, Some(7401), Some(7401)]);
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        assert!(Layout::new(PathBuf::from("d"), 2, 65_530).is_err());
        assert!(Layout::new(PathBuf::from("d"), 2, 65_520).is_ok());
    }

    #[test]
    fn a_busy_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let layout = Layout::new(PathBuf::from("d"), 1, port).expect("fits");
        let error = layout.check_ports().err().map(|failure| failure.to_string());
        assert!(error.is_some_and(|text| text.contains(&format!("127.0.0.1:{port} (TCP)"))));
    }

    #[test]
    fn an_earlier_cluster_goes_on_grows_or_is_cleared_but_never_shrinks() {
        let directory = tempfile::tempdir().expect("a directory");
        layout(directory.path(), 2).prepare().expect("new");
        layout(directory.path(), 2).prepare().expect("the same again");
        layout(directory.path(), 3).prepare().expect("one more");
        let error = layout(directory.path(), 2).prepare().err().map(|f| f.to_string());
        assert!(error.is_some_and(|text| text.contains("node-3") && text.contains("--fresh")));
        fs::write(directory.path().join("notes"), "kept").expect("written");
        layout(directory.path(), 2).clear().expect("cleared");
        layout(directory.path(), 2).prepare().expect("begins anew");
        assert!(directory.path().join("notes").exists());
    }

    #[test]
    fn nodes_without_their_founder_do_not_found_a_second_cluster() {
        let directory = tempfile::tempdir().expect("a directory");
        layout(directory.path(), 3).prepare().expect("new");
        fs::remove_dir_all(directory.path().join("node-1")).expect("removed");
        let error = layout(directory.path(), 3).prepare().err().map(|f| f.to_string());
        assert!(error.is_some_and(|text| text.contains("not the one that founded")));
    }
}
