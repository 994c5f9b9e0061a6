//! A connection with one buffer: what both sides read and write through where they only count.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{Anyhow, Target};

const BUFFER_SIZE: usize = 128 << 10;
const HEADER_SIZE: usize = 5;

/// A stream, and what was read of it and not used yet.
pub(crate) struct Wire<IO> {
    io: IO,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self {
            io,
            buffer: vec![0; BUFFER_SIZE],
            start: 0,
            end: 0,
        }
    }

    pub(crate) fn into_stream(self) -> IO {
        self.io
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn used(&mut self, n: usize) {
        self.start += n;
    }

    /// Reads more behind what is there.
    pub(crate) async fn fill(&mut self) -> Anyhow<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end > self.buffer.len() / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        let n = self.io.read(&mut self.buffer[self.end..]).await?;
        if n == 0 {
            return Err("the server closed the connection".into());
        }
        self.end += n;
        Ok(())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Anyhow<()> {
        self.io.write_all(bytes).await?;
        Ok(self.io.flush().await?)
    }
}

pub(crate) async fn tcp(target: &Target) -> Anyhow<TcpStream> {
    let stream = TcpStream::connect(&target.server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) async fn tls(target: &Target, stream: TcpStream) -> Anyhow<TlsStream<TcpStream>> {
    let host = target.server.rsplit_once(':').map_or("", |(host, _)| host);
    let name = host.to_owned().try_into()?;
    let stream = target.connector.connect(name, stream).await?;
    let version = stream.get_ref().1.protocol_version();
    if version != Some(rustls::ProtocolVersion::TLSv1_3) {
        return Err(format!("TLS 1.3 was asked for, and {version:?} spoken").into());
    }
    Ok(stream)
}

/// A subscriber of fsvc that reads bare frames.
pub(crate) struct Frames(Wire<TlsStream<TcpStream>>);

impl Frames {
    /// Connects, and subscribes to a topic from now on.
    pub(crate) async fn subscribe(target: &Target, topic: &str) -> Anyhow<Self> {
        let stream = tls(target, tcp(target).await?).await?;
        let mut frames = Self(Wire::new(stream));
        frames.next().await?;
        let request = format!(r#"{{"id":1,"op":"subscribe","topics":["{topic}"]}}"#);
        let mut frame = vec![b'M'];
        frame.extend_from_slice(&u32::try_from(request.len())?.to_be_bytes());
        frame.extend_from_slice(request.as_bytes());
        frames.0.send(&frame).await?;
        frames.next().await?;
        Ok(frames)
    }

    /// Reads frames until `n` payloads were among them; every one of them must come.
    pub(crate) async fn count(mut self, n: usize) -> Anyhow<()> {
        let mut left = n;
        while left > 0 {
            if self.next().await? == b'D' {
                left -= 1;
            }
        }
        Ok(())
    }

    /// Passes over one frame and gives its kind; an error or a gap is the end.
    async fn next(&mut self) -> Anyhow<u8> {
        loop {
            let bytes = self.0.bytes();
            if let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() {
                let [kind, size @ ..] = *header;
                let size = u32::from_be_bytes(size) as usize;
                if let Some(content) = rest.get(..size) {
                    if kind == b'M' && (content.starts_with(b"{\"lost") || is_error(content)) {
                        return Err(String::from_utf8_lossy(content).into());
                    }
                    self.0.used(HEADER_SIZE + size);
                    return Ok(kind);
                }
            }
            self.0.fill().await?;
        }
    }
}

fn is_error(content: &[u8]) -> bool {
    content.starts_with(b"{\"error") || content.starts_with(b"{\"id\":1,\"error")
}
