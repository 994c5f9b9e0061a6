//! The client's commands.

use std::io;
use std::path::{Path, PathBuf};

use super::args::{ClientCommand, Common, FromTo};
use super::exit::Exit;
use super::expiry;
use super::output::{Output, complain, is_broken_pipe, long_line};
use super::tls_dir::{Ambiguous, Layout};
use super::{about, administration, messages, set, sync, transfer, tree};
use crate::client::tree::TreeError;
use crate::client::{Client, ClientError, Options};
use crate::escape::Escaped;
use crate::path::{Prefix, RemotePath};
use crate::protocol::{Conditions, ErrorCode, FileInfo, ListEntry};
use crate::tls::client::{Files, OwnFiles};

/// Why a command did not end well.
pub(super) enum Failure {
    /// A request failed; the text says what was tried.
    Request(String, ClientError),
    /// The same of a tree, altogether.
    Tree(String, Box<TreeError>),
    /// Standard output failed.
    Output(io::Error),
    /// The command line does not fit.
    Usage(String),
    /// The answer is no.
    Refused(Exit),
}

pub(super) type Outcome = Result<(), Failure>;

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs a client command to its exit code.
pub(super) fn run(command: ClientCommand, output: Output) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"), None);
            return Exit::Failed;
        }
    };
    let outcome = runtime.block_on(async {
        let client = connect(command.common(), output)?.compressing(command.compresses());
        let outcome = Box::pin(dispatch(&client, command, output)).await;
        client.close().await;
        outcome
    });
    match outcome {
        Ok(()) => Exit::Done,
        Err(Failure::Output(error)) if is_broken_pipe(&error) => Exit::Done,
        Err(Failure::Output(error)) => {
            complain(&format!("cannot write to standard output: {error}"), None);
            Exit::Failed
        }
        Err(Failure::Usage(text)) => {
            complain(&text, None);
            Exit::Usage
        }
        Err(Failure::Refused(exit)) => exit,
        Err(Failure::Request(what, error)) => output.failure(&what, &error),
        Err(Failure::Tree(what, error)) => output.tree_failure(&what, &error),
    }
}

async fn dispatch(client: &Client, command: ClientCommand, output: Output) -> Outcome {
    match command {
        ClientCommand::Put(flags) if flags.recursive => {
            Box::pin(tree::put(client, *flags, output)).await
        }
        ClientCommand::Put(flags) => {
            let conditions = tree::plain_conditions(&flags)?;
            let pairs = transfer::pairs(flags.paths)?;
            let is_set = flags.atomic;
            let flags = transfer::PutFlags {
                conditions,
                n_streams: Some(flags.streams.n_streams),
                delta: flags.delta,
            };
            if is_set {
                return set::put(client, pairs, &flags, output).await;
            }
            transfer::put(client, pairs, &flags, output).await
        }
        ClientCommand::Get(flags) if flags.recursive => tree::get(client, *flags, output).await,
        ClientCommand::Get(flags) => {
            tree::no_tree(flags.filters.is_given || flags.run.dry_run)?;
            let remote = remote_path(&flags.remote)?;
            transfer::get(client, &flags, &remote, output).await
        }
        ClientCommand::Append(flags) => transfer::append(client, flags, output).await,
        ClientCommand::Cat { remote, .. } => transfer::cat(client, &remote).await,
        ClientCommand::Ls(flags) if flags.recursive => tree::list(client, *flags, output).await,
        ClientCommand::Ls(flags) => {
            tree::no_tree(flags.filters.is_given)?;
            list(client, &flags.remote, flags.long, output).await
        }
        ClientCommand::Stat { remote, .. } => stat(client, &remote, output).await,
        ClientCommand::Rm(flags) if flags.recursive => tree::remove(client, *flags, output).await,
        ClientCommand::Rm(flags) => {
            tree::no_tree(flags.filters.is_given)?;
            let remote = flags.remote.iter().map(|path| remote_path(path));
            let remote = remote.collect::<Result<Vec<_>, _>>()?;
            remove(client, &remote, flags.if_version, output).await
        }
        ClientCommand::Sync(flags) => sync::run(client, *flags, output).await,
        ClientCommand::Mv(from_to) => {
            let (to, conditions) = target(&from_to)?;
            let moved = client.rename(&from_to.from, &to, conditions).await;
            let moved = moved.map_err(request("mv", from_to.from.as_str()))?;
            Ok(output.note(
                &moved,
                &format!("{} -> {}", from_to.from, described(&moved)),
            )?)
        }
        ClientCommand::Cp(from_to) => {
            let (to, conditions) = target(&from_to)?;
            let copied = client.copy(&from_to.from, &to, conditions).await;
            let copied = copied.map_err(request("cp", from_to.from.as_str()))?;
            Ok(output.note(
                &copied,
                &format!("{} -> {}", from_to.from, described(&copied)),
            )?)
        }
        ClientCommand::Ping { common } => about::ping(client, &common, output).await,
        ClientCommand::Whoami { .. } => about::whoami(client, output).await,
        ClientCommand::Can { action, on, .. } => about::can(client, &action, &on, output).await,
        ClientCommand::Message(command) => messages::run(client, command, output).await,
        ClientCommand::Admin(command) => administration::run(client, &command, output).await,
    }
}

async fn list(client: &Client, remote: &Prefix, long: bool, output: Output) -> Outcome {
    let mut after = None;
    loop {
        let page = match client.list(remote, after.take()).await {
            Ok(page) => page,
            Err(error) => return list_file(client, remote, long, error, output).await,
        };
        for entry in &page.entries {
            let name = entry
                .path()
                .strip_prefix(remote.as_str())
                .unwrap_or_else(|| entry.path());
            let text = match entry {
                ListEntry::File(file) if long => long_line(file, name),
                ListEntry::Directory(_) if long => format!(
                    "{:>14}  {:20}  {:>8}  {}",
                    "-",
                    "-",
                    "-",
                    Escaped::whole(name)
                ),
                _ => Escaped::whole(name).to_string(),
            };
            output.result(entry, &text)?;
        }
        if page.n_unnameable > 0 {
            complain(
                &format!(
                    "{} names in {remote} cannot be spelled here and are left out",
                    page.n_unnameable
                ),
                None,
            );
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// The name may be a file's: then that is what is listed.
async fn list_file(
    client: &Client,
    remote: &Prefix,
    long: bool,
    error: ClientError,
    output: Output,
) -> Outcome {
    let failed = |error| Failure::Request(format!("ls {remote}"), error);
    let may_be_file = matches!(
        error.code(),
        Some(ErrorCode::NotFound | ErrorCode::BadRequest | ErrorCode::Denied)
    );
    let Ok(path) = remote.as_str().trim_end_matches('/').parse::<RemotePath>() else {
        return Err(failed(error));
    };
    if !may_be_file {
        return Err(failed(error));
    }
    match client.stat(&path).await {
        Ok(file) => {
            let text = if long {
                long_line(&file, path.as_str())
            } else {
                path.to_string()
            };
            Ok(output.result(&ListEntry::File(file), &text)?)
        }
        Err(_) => Err(failed(error)),
    }
}

async fn stat(client: &Client, remote: &[RemotePath], output: Output) -> Outcome {
    for path in remote {
        let file = client
            .stat(path)
            .await
            .map_err(request("stat", path.as_str()))?;
        let version = file.version.map_or_else(
            || "none (put there by another program)".to_owned(),
            |v| v.to_string(),
        );
        let digest = file
            .digest
            .map_or_else(|| "not known".to_owned(), |digest| digest.to_string());
        let text = format!(
            "{}\n  size      {}\n  modified  {}\n  version   {version}\n  digest    {digest}",
            file.path, file.size, file.modified
        );
        output.result(&file, &text)?;
    }
    Ok(())
}

async fn remove(
    client: &Client,
    remote: &[RemotePath],
    if_version: Option<u64>,
    output: Output,
) -> Outcome {
    for path in remote {
        let removed = client
            .remove(path, if_version)
            .await
            .map_err(request("rm", path.as_str()))?;
        output.note(&removed, &format!("removed {path}"))?;
    }
    Ok(())
}

fn target(from_to: &FromTo) -> Result<(RemotePath, Conditions), Failure> {
    let to = destination(&from_to.to, from_to.from.file_name())?;
    Ok((
        to,
        Conditions {
            if_absent: from_to.if_absent,
            if_version: from_to.if_version,
        },
    ))
}

/// The name of one file.
fn remote_path(text: &str) -> Result<RemotePath, Failure> {
    let wrong = |error| Failure::Usage(format!("{}: {error}", Escaped::new(text)));
    text.parse().map_err(wrong)
}

/// A remote name that ends in a slash is a directory that keeps the file's own name.
pub(super) fn destination(remote: &str, name: &str) -> Result<RemotePath, Failure> {
    let usage = |error| Failure::Usage(format!("{}: {error}", Escaped::new(remote)));
    if remote.ends_with('/') {
        let directory: Prefix = remote.parse().map_err(usage)?;
        return directory.join(name).map_err(usage);
    }
    remote.parse().map_err(usage)
}

pub(super) fn request(command: &str, what: &str) -> impl FnOnce(ClientError) -> Failure {
    let what = format!("{command} {}", Escaped::new(what))
        .trim_end()
        .to_owned();
    move |error| Failure::Request(what, error)
}

/// A file, in a few words.
pub(super) fn described(file: &FileInfo) -> String {
    let version = file
        .version
        .map_or_else(String::new, |version| format!(", version {version}"));
    format!("{} ({} bytes{version})", file.path, file.size)
}

fn connect(common: &Common, output: Output) -> Result<Client, Failure> {
    let own = match (&common.cert, &common.key) {
        (Some(certificate), Some(key)) => OwnFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        _ => own_files(layout(common)?, &common.tls_dir, common.name.as_deref())?,
    };
    let ca = match &common.ca {
        Some(ca) => ca.clone(),
        None => common.tls_dir.join(layout(common)?.ca()),
    };
    let (own, server_id) = (Some(own), common.pinned.server_id());
    let state = state_directory();
    let options = Options {
        server: common.server.clone(),
        files: Files { ca, own, server_id },
        connect_timeout: common.connect_timeout,
        stall_timeout: common.stall_timeout,
        retry_for: common.retry_for,
        resume_directory: state.as_ref().map(|state| state.join("fsvc/transfers")),
    };
    let client = Client::new(options).map_err(request("load certificates", ""))?;
    expiry::warn(&client, state.as_deref(), output);
    expiry::follow(&client, state, output);
    Ok(client)
}

fn layout(common: &Common) -> Result<Layout, Failure> {
    let found = Layout::of(&common.tls_dir);
    found.map_err(|error| Failure::Usage(format!("{error}\nhint: {}", Ambiguous::HINT)))
}

/// Where programs of this user keep what they go on with.
fn state_directory() -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
}

/// The client that was named, or the only one that is there.
pub(super) fn own_files(
    layout: Layout,
    directory: &Path,
    name: Option<&str>,
) -> Result<OwnFiles, Failure> {
    if let Some((certificate, key)) = layout.client() {
        if let Some(name) = name {
            return Err(Failure::Usage(format!(
                "--as {name} names a client in fsvc's own layout; {} has one certificate, {certificate}",
                directory.display()
            )));
        }
        return Ok(OwnFiles {
            certificate: directory.join(certificate),
            key: directory.join(key),
        });
    }
    let clients = directory.join("clients");
    let name = match name {
        Some(name) => name.to_owned(),
        None => only_client(&clients)?,
    };
    Ok(OwnFiles {
        certificate: clients.join(format!("{name}.pem")),
        key: clients.join(format!("{name}-key.pem")),
    })
}

fn only_client(clients: &Path) -> Result<String, Failure> {
    let unreadable = |error| {
        Failure::Usage(format!(
            "no client certificates in {}: {error}; make them with fsvc gen-certs, or name others with --tls-dir, \
             or --ca, --cert and --key",
            clients.display()
        ))
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(clients).map_err(unreadable)? {
        let path: PathBuf = entry.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".pem"));
        names.extend(
            name.filter(|name| !name.ends_with("-key"))
                .map(str::to_owned),
        );
    }
    names.sort();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        [] => Err(Failure::Usage(format!(
            "no client certificate in {}",
            clients.display()
        ))),
        several => Err(Failure::Usage(format!(
            "several clients in {}: {}; say which with --as NAME",
            clients.display(),
            several.join(", ")
        ))),
    }
}
