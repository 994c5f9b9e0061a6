//! put --atomic: several files that become visible in one step.
//!
//! Each is staged for itself; nothing is to be seen of them before the one commit.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::files::{Failure, Outcome, request};
use super::output::Output;
use super::progress::{self, Watched};
use super::transfer::STANDARD;
use crate::client::file::{attributes, open_regular};
use crate::client::{Client, ClientError, MEMBERS_MAX};
use crate::path::RemotePath;
use crate::protocol::{Attributes, Conditions, Member, Staged};

pub(super) async fn put(
    client: &Client,
    pairs: Vec<(String, RemotePath)>,
    conditions: Conditions,
    output: Output,
) -> Outcome {
    check(&pairs)?;
    let mut members = Vec::with_capacity(pairs.len());
    for (local, remote) in pairs {
        let staged = stage(client, &local, output).await;
        let (staged, attributes) = staged.map_err(request("put", &local))?;
        members.push(Member {
            path: remote,
            staged: Some(staged.staged),
            remove: false,
            if_absent: conditions.if_absent,
            if_version: conditions.if_version,
            digest: None,
            attributes,
        });
    }
    let committed = client.commit(&members).await;
    let committed = committed.map_err(request("put", "--atomic"))?;
    let text = format!(
        "{} files -> version {}",
        committed.n_members, committed.sequence
    );
    Ok(output.note(&committed, &text)?)
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

/// Stages a file; says what the server is to keep with it.
async fn stage(
    client: &Client,
    local: &str,
    output: Output,
) -> Result<(Staged, Option<Attributes>), ClientError> {
    if local == STANDARD {
        let bar = progress::bar(output, local, None);
        let staged = client.stage(Watched::new(io::stdin(), &bar), None).await;
        bar.finish_and_clear();
        return Ok((staged?, None));
    }
    let (file, size) = open_regular(Path::new(local)).map_err(ClientError::Source)?;
    let attributes = attributes(&file).map_err(ClientError::Source)?;
    let bar = progress::bar(output, local, Some(size));
    let staged = client.stage(Watched::new(file, &bar), Some(size)).await;
    bar.finish_and_clear();
    Ok((staged?, Some(attributes)))
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
