//! Which sidecar is whose: a transfer is found again by what it does, by whom, from where and to where.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Client;
use super::sidecar::{self, Sidecar};

impl Client {
    /// A place where the transfer is remembered, if there is one. Blocks.
    pub(super) fn sidecar(&self, kind: &str, local: &Path, remote: &str) -> Option<Arc<Sidecar>> {
        let (directory, names) = self.names(kind, local, remote)?;
        let names = names.each_ref().map(String::as_str);
        Sidecar::open(directory, &names).map(Arc::new)
    }

    /// Whether a transfer is remembered, or is just being begun: whoever begins one opens its sidecar
    /// before anything else. Blocks.
    pub(super) fn is_remembered(&self, kind: &str, local: &Path, remote: &str) -> bool {
        let path = self.sidecar_path(kind, local, remote);
        path.is_some_and(|path| std::fs::metadata(path).is_ok())
    }

    /// Nobody will go on with the transfer. Blocks.
    pub(super) fn forget_transfer(&self, kind: &str, local: &Path, remote: &str) {
        if let Some(path) = self.sidecar_path(kind, local, remote) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn sidecar_path(&self, kind: &str, local: &Path, remote: &str) -> Option<PathBuf> {
        let (directory, names) = self.names(kind, local, remote)?;
        Some(sidecar::path(
            directory,
            &names.each_ref().map(String::as_str),
        ))
    }

    fn names(&self, kind: &str, local: &Path, remote: &str) -> Option<(&Path, [String; 5])> {
        let options = &self.shared.options;
        let directory = options.resume_directory.as_ref()?;
        let local = std::path::absolute(local).ok()?;
        let own = options.files.own.as_ref()?;
        let names = [
            kind.to_owned(),
            options.server.clone(),
            own.certificate.to_string_lossy().into_owned(),
            local.to_string_lossy().into_owned(),
            remote.to_owned(),
        ];
        Some((directory, names))
    }
}
