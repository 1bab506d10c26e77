//! A cluster of real etcd processes in a temporary directory.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::{CpuTime, Owned, free_address, until};
use crate::{AnyError, kv};

/// The members; they are killed, and their data deleted, when dropped.
pub(crate) struct Members {
    members: Vec<Member>,
    _directory: TempDir,
}

struct Member {
    client: SocketAddr,
    process: Owned,
}

/// The given program, or the one in `PATH`.
pub(crate) fn program(given: Option<PathBuf>) -> Result<PathBuf, AnyError> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = || env::split_paths(&paths).map(|path| path.join("etcd")).find(|p| p.is_file());
    let absent = "no etcd in PATH: name it with --etcd, or install Debian's etcd-server";
    given.or_else(found).ok_or(absent.into())
}

/// The first line of what the program says of its version.
pub(crate) fn version(program: &Path) -> Result<String, AnyError> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

impl Members {
    /// Starts a cluster and waits until every member serves.
    pub(crate) async fn start(program: &Path, count: usize) -> Result<Self, AnyError> {
        let directory = tempfile::tempdir()?;
        let peers: Vec<SocketAddr> =
            (0..count).map(|_| free_address()).collect::<Result<_, _>>()?;
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(i, peer)| format!("member-{i}=http://{peer}")).collect();
        let mut members = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            members.push(start(program, directory.path(), index, *peer, &cluster.join(","))?);
        }
        let members = Members { members, _directory: directory };
        until("etcd does not serve", async || members.all_serve().await).await?;
        Ok(members)
    }

    async fn all_serve(&self) -> bool {
        for member in &self.members {
            if !kv::answers(member.client).await {
                return false;
            }
        }
        true
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    pub(crate) fn cpu_time(&self) -> Result<CpuTime, AnyError> {
        let times = self.members.iter().map(|member| CpuTime::of(member.process.0.id()));
        Ok(times
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .fold(CpuTime::default(), CpuTime::plus))
    }
}

fn start(
    program: &Path,
    directory: &Path,
    index: usize,
    peer: SocketAddr,
    cluster: &str,
) -> Result<Member, AnyError> {
    let client = free_address()?;
    let mut command = Command::new(program);
    command
        .arg(format!("--name=member-{index}"))
        .arg(format!("--data-dir={}", directory.join(index.to_string()).display()))
        .arg(format!("--listen-client-urls=http://{client}"))
        .arg(format!("--advertise-client-urls=http://{client}"))
        .arg(format!("--listen-peer-urls=http://{peer}"))
        .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
        .arg(format!("--initial-cluster={cluster}"))
        .args(["--logger=zap", "--log-level=error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let started = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(Member { client, process: Owned(started) })
}
