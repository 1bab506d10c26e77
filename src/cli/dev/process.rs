//! One node of a local cluster: its process, its log, and what it says of itself.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::cli::connection::endpoint;
use crate::cli::dev::LOG_LINES_SHOWN;
use crate::cli::dev::layout::Place;
use crate::cli::failure::Failure;
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;

/// How long a node may take to stop before it is killed; longer than it gives itself.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
/// Variables that would make all nodes alike; what is meant for all goes behind `--`.
const VARIABLES_REMOVED: [&str; 4] =
    ["COTERIE_NAME", "COTERIE_SEEDS", "COTERIE_ADVERTISE", "COTERIE_PEER_ADVERTISE"];
/// Bytes of a log's end that are searched for its last lines.
const LOG_TAIL_BYTES: u64 = 16 << 10;
/// Bytes of a log that are read at a time when it is forwarded.
const LOG_READ_BYTES_MAX: u64 = 256 << 10;

/// A started node. It is killed when dropped.
pub(super) struct NodeProcess {
    pub(super) place: Place,
    /// The command line that starts it, as one would type it.
    pub(super) command: String,
    child: Child,
    log_position: u64,
}

impl NodeProcess {
    /// # Errors
    /// When the process or its log cannot be made.
    pub(super) fn start(
        place: &Place,
        seed: Option<SocketAddr>,
        more: &[String],
    ) -> Result<Self, Failure> {
        let cannot = |what: &str, error: std::io::Error| {
            Failure::failed(format!("cannot {what} {}: {error}", place.name))
        };
        let program = std::env::current_exe().map_err(|error| cannot("start", error))?;
        let log = File::create(&place.log).map_err(|error| cannot("make the log of", error))?;
        let errors = log.try_clone().map_err(|error| cannot("make the log of", error))?;
        let arguments = arguments(place, seed, more);
        let mut command = Command::new(&program);
        command.args(&arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        for variable in VARIABLES_REMOVED {
            command.env_remove(variable);
        }
        // A group of its own, so that the terminal's Ctrl-C reaches only this command.
        command.kill_on_drop(true).process_group(0);
        end_with_parent(&mut command);
        let child = command.spawn().map_err(|error| cannot("start", error))?;
        let command = format!("{} {}", program.display(), arguments.join(" "));
        Ok(NodeProcess { place: place.clone(), command, child, log_position: 0 })
    }

    /// The process id; `None` once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether the node serves and sees so many members up.
    pub(super) async fn sees(&self, count: usize) -> bool {
        let Ok(endpoint) = endpoint(&self.place.client.to_string()) else { return false };
        let Ok(channel) = endpoint.connect().await else { return false };
        let answer = AdminClient::new(channel).status(v1::StatusRequest {}).await;
        answer.is_ok_and(|answer| {
            let status = answer.into_inner();
            let up = status.members.iter().filter(|member| member.state == "up").count();
            status.serving.is_some_and(|serving| serving.ready) && up >= count
        })
    }

    /// How the node died, with the end of its log; `None` while it lives.
    pub(super) fn death(&mut self) -> Option<Failure> {
        let status = self.child.try_wait().ok().flatten()?;
        let lines = self.last_log_lines();
        let log = self.place.log.display();
        let message = format!("{} ended ({}); its log {log} ends", self.place.name, how(status));
        Some(Failure::with_excerpt(message, &lines))
    }

    /// Lines that were logged since the last call.
    pub(super) fn new_log_lines(&mut self) -> Vec<String> {
        let text = read_from(&self.place, self.log_position, LOG_READ_BYTES_MAX);
        // What follows the last line's end is taken next time.
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        self.log_position += complete as u64;
        text[..complete].lines().map(str::to_owned).collect()
    }

    fn last_log_lines(&self) -> Vec<String> {
        let length = fs::metadata(&self.place.log).map_or(0, |log| log.len());
        let text = read_from(&self.place, length.saturating_sub(LOG_TAIL_BYTES), LOG_TAIL_BYTES);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines[from..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Asks the node to stop.
    pub(super) fn terminate(&self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            send_terminate(pid);
        }
    }

    /// Resolves once the node has ended; one that takes too long is killed.
    pub(super) async fn ended(&mut self) {
        let in_time = tokio::time::timeout(STOP_TIME_MAX, self.child.wait()).await;
        if in_time.is_err() {
            // It is killed on drop in any case; nothing more can be done about a failure.
            let _ = self.child.kill().await;
        }
    }
}

fn arguments(place: &Place, seed: Option<SocketAddr>, more: &[String]) -> Vec<String> {
    let mut arguments = vec![
        String::from("serve"),
        format!("--name={}", place.name),
        format!("--data-dir={}", place.data.display()),
        format!("--listen={}", place.client),
        format!("--peer-listen={}", place.peer),
    ];
    arguments.extend(seed.map(|seed| format!("--seeds={seed}")));
    arguments.extend(more.iter().cloned());
    arguments
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A part of a log; what cannot be read reads as nothing, since logs are only shown.
fn read_from(place: &Place, position: u64, bytes_max: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut log = File::open(&place.log)?;
        log.seek(SeekFrom::Start(position))?;
        let mut bytes = Vec::new();
        log.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[allow(unsafe_code, reason = "there is no safe call that sends a signal")]
fn send_terminate(pid: i32) {
    // SAFETY: kill takes no pointers. The pid is of a child that has not been waited for, so it
    // cannot have been given to another process.
    unsafe {
        libc::kill(pid, libc::SIGTERM);
    }
}

/// Has the kernel stop the child when this process ends, however it does.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "what runs between fork and exec cannot be checked")]
fn end_with_parent(command: &mut Command) {
    let parent = i32::try_from(std::process::id()).unwrap_or_default();
    let before_exec = move || {
        // SAFETY: prctl and getppid are system calls that take no pointers here and allocate
        // nothing, as is required between fork and exec.
        let (set, parent_now) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM), libc::getppid()) };
        // The parent may have ended before the request was made.
        if set != 0 || parent_now != parent {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure only makes the two system calls above.
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dev::layout::Layout;

    #[test]
    fn a_node_is_told_its_place_its_seed_and_what_follows() {
        let layout = Layout::new("d".into(), 2, 7400).expect("fits");
        let more = [String::from("--vnodes=8")];
        let joiner = &layout.places[1];
        assert_eq!(
            arguments(joiner, layout.seed_of(joiner), &more).join(" "),
            "serve --name=node-2 --data-dir=d/node-2/data --listen=127.0.0.1:7410 \
             --peer-listen=127.0.0.1:7411 --seeds=127.0.0.1:7401 --vnodes=8"
        );
        assert!(!arguments(&layout.places[0], None, &[]).join(" ").contains("--seeds"));
    }

    #[test]
    fn a_log_is_read_in_parts() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path().to_owned(), 1, 7400).expect("fits");
        layout.prepare().expect("made");
        let place = &layout.places[0];
        fs::write(&place.log, "one\ntwo\nthr").expect("written");
        assert_eq!(read_from(place, 4, 100), "two\nthr");
        assert_eq!(read_from(place, 100, 100), "");
    }
}
