//! put, get and cat.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::NamedTempFile;

use super::files::{Failure, Outcome, described, destination, request};
use super::output::{Output, is_broken_pipe};
use super::progress::{self, Watched};
use crate::client::file::{open_regular, persist, temporary_beside};
use crate::client::{Client, ClientError, PutOptions, SMALL_SIZE_MAX};
use crate::path::RemotePath;
use crate::protocol::{Conditions, FileInfo};

/// The name of standard input and output.
pub(super) const STANDARD: &str = "-";

/// Each local file with the name that it is to have.
pub(super) fn pairs(mut paths: Vec<String>) -> Result<Vec<(String, RemotePath)>, Failure> {
    let remote = paths.pop().unwrap_or_default();
    if paths.len() > 1 && !remote.ends_with('/') {
        let text = format!(
            "{} files cannot become one: end {remote} in / to make it a directory",
            paths.len()
        );
        return Err(Failure::Usage(text));
    }
    // Every name is checked before the first byte is sent.
    let mut pairs = Vec::with_capacity(paths.len());
    for local in paths {
        let name = Path::new(&local)
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if local == STANDARD && remote.ends_with('/') {
            return Err(Failure::Usage(
                "standard input has no name of its own: give the whole remote path".to_owned(),
            ));
        }
        let remote = destination(&remote, name)?;
        pairs.push((local, remote));
    }
    Ok(pairs)
}

pub(super) async fn put(
    client: &Client,
    pairs: Vec<(String, RemotePath)>,
    conditions: Conditions,
    output: Output,
) -> Outcome {
    for (local, remote) in pairs {
        let file = put_one(client, &local, &remote, conditions, output).await;
        let file = file.map_err(request("put", &local))?;
        output.note(&file, &format!("{local} -> {}", described(&file)))?;
    }
    Ok(())
}

async fn put_one(
    client: &Client,
    local: &str,
    remote: &RemotePath,
    conditions: Conditions,
    output: Output,
) -> Result<FileInfo, ClientError> {
    if local == STANDARD {
        let bar = progress::bar(output, local, None);
        let source = Watched::new(io::stdin(), &bar);
        let put = client
            .put(
                remote,
                source,
                PutOptions {
                    size: None,
                    conditions,
                },
            )
            .await;
        bar.finish_and_clear();
        return put;
    }
    let (file, size) = open_regular(Path::new(local)).map_err(ClientError::Source)?;
    if size <= SMALL_SIZE_MAX {
        let content = read_whole(file, size).map_err(ClientError::Source)?;
        return client.put_bytes(remote, content, conditions).await;
    }
    let bar = progress::bar(output, local, Some(size));
    let options = PutOptions {
        size: Some(size),
        conditions,
    };
    let put = client.put(remote, Watched::new(file, &bar), options).await;
    bar.finish_and_clear();
    put
}

/// A small file, if it is still as large as it was.
fn read_whole(file: File, size: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let n = file.take(size + 1).read_to_end(&mut content)?;
    if n as u64 != size {
        return Err(io::Error::other(format!(
            "it had {size} bytes and has {n} now: it is being written"
        )));
    }
    Ok(content)
}

pub(super) async fn get(
    client: &Client,
    remote: &RemotePath,
    local: Option<PathBuf>,
    output: Output,
) -> Outcome {
    let local = local.unwrap_or_else(|| PathBuf::from(remote.file_name()));
    if local.as_os_str() == STANDARD {
        return cat(client, std::slice::from_ref(remote)).await;
    }
    let is_directory = local.is_dir() || local.as_os_str().as_encoded_bytes().ends_with(b"/");
    let local = if is_directory {
        local.join(remote.file_name())
    } else {
        local
    };
    let get = async |sink| client.get(remote, sink).await;
    let file = save(&local, remote.as_str(), output, get).await;
    let file = file.map_err(request("get", remote.as_str()))?;
    let mut object = serde_json::to_value(&file).unwrap_or_default();
    object["local"] = json!(local.display().to_string());
    Ok(output.note(
        &object,
        &format!("{} -> {}", described(&file), local.display()),
    )?)
}

/// What `receive` writes, into a file that has its name when all of it is good.
pub(super) async fn save<T>(
    local: &Path,
    name: &str,
    output: Output,
    receive: impl AsyncFnOnce(Partial) -> Result<(T, Partial), ClientError>,
) -> Result<T, ClientError> {
    let temporary = temporary_beside(local).map_err(ClientError::Sink)?;
    let bar = progress::bar(output, name, None);
    let received = receive(Watched::new(temporary, &bar)).await;
    bar.finish_and_clear();
    let (answer, sink) = received?;
    persist(sink.inner, local).map_err(ClientError::Sink)?;
    Ok(answer)
}

/// A file that is not whole.
type Partial = Watched<NamedTempFile>;

pub(super) async fn cat(client: &Client, remote: &[RemotePath]) -> Outcome {
    for path in remote {
        let got = client.get(path, StandardOutput).await;
        got.map_err(to_output("get", path.as_str()))?;
    }
    Ok(())
}

/// A request that writes to standard output: when nobody reads that any more, it is done.
pub(super) fn to_output(command: &str, what: &str) -> impl FnOnce(ClientError) -> Failure {
    let failed = request(command, what);
    move |error| match error {
        ClientError::Sink(error) if is_broken_pipe(&error) => Failure::Output(error),
        error => failed(error),
    }
}

/// Standard output, past the line buffer.
pub(super) struct StandardOutput;

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}
