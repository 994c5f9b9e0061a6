//! put, get and cat.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tempfile::NamedTempFile;

use super::file_args::{AppendFlags, ByteRange, GetFlags};
use super::files::{Failure, Outcome, described, destination, request};
use super::output::{Output, is_broken_pipe};
use super::progress::{self, Bar, Watched};
use crate::client::file::{open_regular, persist, temporary_beside};
use crate::client::{Client, ClientError, Delta, Observer, PutOptions, TransferOptions};
use crate::path::RemotePath;
use crate::protocol::{Conditions, ErrorCode, FileInfo};

/// The name of standard input and output.
pub(super) const STANDARD: &str = "-";

/// How often it is looked for the end of a file that changes meanwhile.
const LOOKS_MAX: usize = 8;

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

/// How files are put.
pub(super) struct PutFlags {
    pub(super) conditions: Conditions,
    pub(super) n_streams: Option<usize>,
    pub(super) delta: Delta,
}

impl PutFlags {
    /// With somebody who follows the file.
    pub(super) fn options(&self, observer: Arc<dyn Observer>) -> TransferOptions {
        TransferOptions {
            conditions: self.conditions,
            n_streams: self.n_streams,
            delta: self.delta,
            observer: Some(observer),
            ..TransferOptions::default()
        }
    }
}

pub(super) async fn put(
    client: &Client,
    pairs: Vec<(String, RemotePath)>,
    flags: &PutFlags,
    output: Output,
) -> Outcome {
    for (local, remote) in pairs {
        let file = put_one(client, &local, &remote, flags, output).await;
        let file = file.map_err(request("put", &local))?;
        output.note(&file, &format!("{local} -> {}", described(&file)))?;
    }
    Ok(())
}

async fn put_one(
    client: &Client,
    local: &str,
    remote: &RemotePath,
    flags: &PutFlags,
    output: Output,
) -> Result<FileInfo, ClientError> {
    let conditions = flags.conditions;
    if local == STANDARD {
        let bar = progress::bar(output, local, None);
        let source = Watched::new(io::stdin(), &bar);
        let options = PutOptions {
            size: None,
            conditions,
            request_id: None,
            attributes: None,
        };
        let put = client.put(remote, source, options).await;
        bar.finish_and_clear();
        return put;
    }
    let bar = Arc::new(Bar::new(output, local));
    let options = flags.options(bar.clone());
    let put = client.put_file(Path::new(local), remote, options).await;
    bar.finish();
    put
}

pub(super) async fn get(
    client: &Client,
    flags: &GetFlags,
    remote: &RemotePath,
    output: Output,
) -> Outcome {
    let failed = || request("get", remote.as_str());
    if flags.wait {
        let version_min = flags.min_version.unwrap_or(0);
        let waited = client.wait_for(remote, version_min, flags.timeout).await;
        waited.map_err(failed())?;
    }
    let local = flags.local.clone();
    let local = local.unwrap_or_else(|| PathBuf::from(remote.file_name()));
    let is_standard = local.as_os_str() == STANDARD;
    if is_standard && flags.range.is_none() && flags.version.is_none() {
        return cat(client, std::slice::from_ref(remote)).await;
    }
    let is_directory = local.is_dir() || local.as_os_str().as_encoded_bytes().ends_with(b"/");
    let local = if is_directory {
        local.join(remote.file_name())
    } else {
        local
    };
    if is_standard || flags.range.is_some() {
        let mut n_looks = 1;
        loop {
            match get_range(client, flags, remote, &local, output).await {
                // The end that was looked for is by now the end of another version.
                Err(Failure::Request(_, error))
                    if error.code() == Some(ErrorCode::Changed)
                        && flags.version.is_none()
                        && n_looks < LOOKS_MAX =>
                {
                    n_looks += 1;
                }
                got => return got,
            }
        }
    }
    let bar = Arc::new(Bar::new(output, remote.as_str()));
    let options = TransferOptions {
        conditions: Conditions {
            if_version: flags.version,
            ..Conditions::default()
        },
        n_streams: Some(flags.streams.n_streams),
        observer: Some(bar.clone()),
        ..TransferOptions::default()
    };
    let file = client.get_file(remote, &local, options).await;
    bar.finish();
    let file = file.map_err(request("get", remote.as_str()))?;
    let mut object = serde_json::to_value(&file).unwrap_or_default();
    object["local"] = json!(local.display().to_string());
    Ok(output.note(
        &object,
        &format!("{} -> {}", described(&file), local.display()),
    )?)
}

/// Some bytes of a file, or all of one version to standard output.
async fn get_range(
    client: &Client,
    flags: &GetFlags,
    remote: &RemotePath,
    local: &Path,
    output: Output,
) -> Outcome {
    let failed = || request("get", remote.as_str());
    let mut version = flags.version;
    let range = match flags.range {
        None => (0, None),
        Some(ByteRange::From(offset, length)) => (offset, length),
        Some(ByteRange::Last(n)) => {
            // How long it is, of the version that the bytes are then asked of.
            let nothing = client.get_range(remote, (0, Some(0)), version, io::sink());
            let (file, _) = nothing.await.map_err(failed())?;
            version = file.version;
            (file.size.saturating_sub(n), Some(n))
        }
    };
    if local.as_os_str() == STANDARD {
        let got = client
            .get_range(remote, range, version, StandardOutput)
            .await;
        got.map_err(to_output("get", remote.as_str()))?;
        return Ok(());
    }
    let get = async |sink| client.get_range(remote, range, version, sink).await;
    let file = save(local, remote.as_str(), output, get).await;
    let file = file.map_err(failed())?;
    Ok(output.note(
        &file,
        &format!("some of {} -> {}", described(&file), local.display()),
    )?)
}

pub(super) async fn append(client: &Client, flags: AppendFlags, output: Output) -> Outcome {
    let failed = || request("append", flags.remote.as_str());
    let if_size = match flags.if_size {
        Some(size) => size,
        None => match client.stat(&flags.remote).await {
            Ok(file) => file.size,
            Err(error) if error.code() == Some(ErrorCode::NotFound) => 0,
            Err(error) => return Err(failed()(error)),
        },
    };
    let appended = if flags.local == STANDARD {
        client
            .append(&flags.remote, io::stdin(), if_size, None)
            .await
    } else {
        let opened = open_regular(Path::new(&flags.local)).map_err(ClientError::Source);
        let (file, size) = opened.map_err(request("append", &flags.local))?;
        client
            .append(&flags.remote, file, if_size, Some(size))
            .await
    };
    let file = appended.map_err(failed())?;
    Ok(output.note(&file, &format!("{} -> {}", flags.local, described(&file)))?)
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
        let got = client.get_onward(path, StandardOutput).await;
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
