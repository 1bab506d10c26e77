//! An image with the program under test and what it needs to run, made without pulling anything.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::docker::{printed, try_docker};

/// Where the program lies in the image, as in the image for users.
pub(crate) const PROGRAM: &str = "/usr/local/bin/coterie";
/// The user `nonroot` of the image for users.
const USER: &str = "65532";
/// Libraries that older versions of glibc load when they resolve names; `ldd` does not show them.
const NAME_SERVICES: [&str; 2] = ["libnss_files.so.2", "libnss_dns.so.2"];

/// An image that is removed when dropped.
pub(crate) struct Image {
    pub(crate) tag: String,
}

impl Image {
    /// Builds it.
    pub(crate) fn build(tag: &str) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        fill(root.path());
        let image = Image { tag: tag.to_owned() };
        import(&root, tag);
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        try_docker(&["rmi", "--force", &self.tag]);
    }
}

/// Lays out the file system of the image.
fn fill(root: &Path) {
    for directory in ["data", "tmp"] {
        fs::create_dir(root.join(directory)).expect("a directory");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_coterie"));
    let copy = add(root, program, Path::new(PROGRAM));
    // Saves space only, so that it may be missing or fail.
    let _ = Command::new("strip").arg(copy).stderr(Stdio::null()).status();
    for library in libraries(program) {
        add(root, &library, &library);
    }
}

/// The loader and the shared libraries of a program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    let listed = printed("ldd", listed);
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let mut libraries: Vec<PathBuf> = words.map(PathBuf::from).collect();
    let libc = libraries.iter().find(|path| path.file_name() == Some(OsStr::new("libc.so.6")));
    let beside = libc.and_then(|libc| libc.parent()).map(Path::to_owned);
    let services = beside.iter().flat_map(|dir| NAME_SERVICES.map(|name| dir.join(name)));
    libraries.extend(services.filter(|path| path.exists()));
    libraries
}

fn add(root: &Path, file: &Path, to: &Path) -> PathBuf {
    let copy = root.join(to.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(copy.parent().expect("a directory")).expect("directories");
    fs::copy(file, &copy).unwrap_or_else(|error| panic!("copying {}: {error}", file.display()));
    copy
}

fn import(root: &TempDir, tag: &str) {
    let owner = [format!("--owner={USER}"), format!("--group={USER}")];
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root.path()).args(owner).args(["-cf", "-", "."]);
    let mut tar = tar.stdout(Stdio::piped()).spawn().expect("tar");
    let stream = tar.stdout.take().expect("a pipe");
    let mut import = Command::new("docker");
    import.args(["import", "--change", &format!("ENTRYPOINT [\"{PROGRAM}\"]")]);
    import.args(["--change", "CMD [\"serve\"]", "--change", &format!("USER {USER}:{USER}")]);
    let output = import.args(["-", tag]).stdin(stream).output().expect("the docker command");
    assert!(tar.wait().expect("a child of ours").success(), "tar failed");
    printed("docker import", output);
}
