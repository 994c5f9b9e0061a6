//! put --atomic: several files that become visible in one step.
//!
//! Each is staged for itself; nothing is to be seen of them before the one commit.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::files::{Failure, Outcome, request};
use super::output::Output;
use super::progress::{self, Bar, Watched};
use super::transfer::{PutFlags, STANDARD};
use crate::client::{Client, ClientError, MEMBERS_MAX, Observer, SetError, SetFile};
use crate::path::RemotePath;
use crate::protocol::Member;

pub(super) async fn put(
    client: &Client,
    pairs: Vec<(String, RemotePath)>,
    flags: &PutFlags,
    output: Output,
) -> Outcome {
    check(&pairs)?;
    let (mut files, mut others) = (Vec::new(), Vec::new());
    let shown = Arc::new(Mutex::new(None));
    for (local, remote) in pairs {
        if local == STANDARD {
            let staged = stage_input(client, remote, flags, output).await;
            others.push(staged.map_err(request("put", STANDARD))?);
            continue;
        }
        let turn = Turn {
            output,
            name: local.clone(),
            bar: OnceLock::new(),
            shown: Arc::clone(&shown),
        };
        files.push(SetFile {
            options: flags.options(Arc::new(turn)),
            local: PathBuf::from(local),
            remote,
        });
    }
    let committed = client.put_set(&files, &others).await;
    show(&shown, None);
    let committed = committed.map_err(|error| match error {
        SetError::File { local, source } => request("put", &local.to_string_lossy())(source),
        SetError::Commit(source) => request("put", "--atomic")(source),
    })?;
    let text = format!(
        "{} files -> version {}",
        committed.n_members, committed.sequence
    );
    Ok(output.note(&committed, &text)?)
}

/// The bar that is to be seen.
type Shown = Mutex<Option<Arc<Bar>>>;

/// A file whose bar is to be seen from when its turn comes until that of the next.
struct Turn {
    output: Output,
    name: String,
    bar: OnceLock<Arc<Bar>>,
    shown: Arc<Shown>,
}

impl Turn {
    fn bar(&self) -> &Bar {
        self.bar.get_or_init(|| {
            show(&self.shown, None);
            let bar = Arc::new(Bar::new(self.output, &self.name));
            show(&self.shown, Some(Arc::clone(&bar)));
            bar
        })
    }
}

/// Shows a bar in the place of the one before, or none.
fn show(shown: &Shown, bar: Option<Arc<Bar>>) {
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = std::mem::replace(&mut *shown, bar) {
        before.finish();
    }
}

impl Observer for Turn {
    fn expect(&self, size: u64) {
        self.bar().expect(size);
    }

    fn moved(&self, size: u64) {
        self.bar().moved(size);
    }

    fn begin_again(&self) {
        self.bar().begin_again();
    }

    fn interrupted(&self, why: &ClientError) {
        self.bar().interrupted(why);
    }
}

/// What the server would refuse is refused before the first byte is sent.
fn check(pairs: &[(String, RemotePath)]) -> Result<(), Failure> {
    if pairs.len() > MEMBERS_MAX {
        let text = format!("{} files in one set, at most {MEMBERS_MAX}", pairs.len());
        return Err(Failure::Usage(text));
    }
    let mut names = BTreeSet::new();
    match pairs.iter().find(|(_, remote)| !names.insert(remote)) {
        Some((_, remote)) => Err(Failure::Usage(format!(
            "two of the files would be {remote}"
        ))),
        None => Ok(()),
    }
}

/// What comes from standard input is staged at once: it cannot be read twice.
async fn stage_input(
    client: &Client,
    remote: RemotePath,
    flags: &PutFlags,
    output: Output,
) -> Result<Member, ClientError> {
    let bar = progress::bar(output, STANDARD, None);
    let staged = client.stage(Watched::new(io::stdin(), &bar), None).await;
    bar.finish_and_clear();
    let staged = staged?;
    Ok(Member {
        path: remote,
        staged: Some(staged.staged),
        remove: false,
        if_absent: flags.conditions.if_absent,
        if_version: flags.conditions.if_version,
        digest: Some(staged.digest),
        attributes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_each_file_once() {
        let pair = |local: &str, remote: &str| (local.to_owned(), remote.parse().unwrap());
        assert!(check(&[pair("a", "/a"), pair("b", "/b")]).is_ok());
        assert!(check(&[pair("x/a", "/a"), pair("y/a", "/a")]).is_err());
        assert!(check(&vec![pair("a", "/a"); MEMBERS_MAX + 1]).is_err());
    }
}
