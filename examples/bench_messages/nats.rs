//! As much of a NATS client as the load needs: <https://docs.nats.io/reference/reference-protocols>.

use std::io::Write;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::wire::{self, Wire};
use crate::{Anyhow, Target};

const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\"lang\":\"bench\",\
    \"version\":\"0\",\"protocol\":1,\"headers\":true,\"no_responders\":true}\r\nPING\r\n";

/// A connection to a NATS server.
pub(crate) struct Nats {
    wire: Wire<TlsStream<TcpStream>>,
    outgoing: Vec<u8>,
}

/// What a server sends, without what is passed over.
enum Op {
    /// A message: its payload ends this many bytes from here, and is this long.
    Message {
        end: usize,
        size: usize,
    },
    Pong {
        end: usize,
    },
}

impl Nats {
    pub(crate) async fn connect(target: &Target) -> Anyhow<Self> {
        let mut plain = Wire::new(wire::tcp(target).await?);
        while !plain.bytes().ends_with(b"\r\n") {
            plain.fill().await?;
        }
        if !plain.bytes().starts_with(b"INFO ") {
            return Err("this is no NATS server".into());
        }
        let stream = wire::tls(target, plain.into_stream()).await?;
        let mut nats = Self {
            wire: Wire::new(stream),
            outgoing: Vec::new(),
        };
        nats.wire.send(CONNECT).await?;
        nats.pong().await?;
        Ok(nats)
    }

    /// Subscribes, and waits until the server knows.
    pub(crate) async fn subscribe(&mut self, subject: &str) -> Anyhow<()> {
        let subscribe = format!("SUB {subject} 1\r\n");
        self.wire.send(subscribe.as_bytes()).await?;
        self.settle().await
    }

    /// Puts a message behind what waits to be sent.
    pub(crate) fn queue(&mut self, subject: &str, reply: &str, payload: &[u8]) -> Anyhow<()> {
        let out = &mut self.outgoing;
        write!(out, "PUB {subject} {reply} {}\r\n", payload.len())?;
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    pub(crate) async fn flush(&mut self) -> Anyhow<()> {
        self.wire.send(&self.outgoing).await?;
        self.outgoing.clear();
        Ok(())
    }

    /// Waits until the server has done all that was sent.
    pub(crate) async fn settle(&mut self) -> Anyhow<()> {
        self.wire.send(b"PING\r\n").await?;
        self.pong().await
    }

    /// Waits for a message, and gives `look` its payload and that of each that came with it.
    pub(crate) async fn receive(
        &mut self,
        mut look: impl FnMut(&[u8]) -> Anyhow<()>,
    ) -> Anyhow<usize> {
        let mut n = 0;
        loop {
            while let Some(op) = self.parse().await? {
                if let Op::Message { end, size } = op {
                    look(&self.wire.bytes()[end - size..end])?;
                    self.wire.used(end + 2);
                    n += 1;
                } else if let Op::Pong { end } = op {
                    self.wire.used(end);
                }
            }
            if n > 0 {
                return Ok(n);
            }
            self.wire.fill().await?;
        }
    }

    async fn pong(&mut self) -> Anyhow<()> {
        loop {
            match self.parse().await? {
                Some(Op::Pong { end }) => {
                    self.wire.used(end);
                    return Ok(());
                }
                Some(Op::Message { .. }) => return Err("a message that nobody waits for".into()),
                None => self.wire.fill().await?,
            }
        }
    }

    /// What stands next in the buffer, if it is whole. Pings are answered.
    async fn parse(&mut self) -> Anyhow<Option<Op>> {
        loop {
            let bytes = self.wire.bytes();
            let Some(line_end) = bytes.iter().position(|byte| *byte == b'\n') else {
                return Ok(None);
            };
            let line = &bytes[..line_end];
            let end = line_end + 1;
            if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
                let size = last_number(line);
                let end = end + size;
                return Ok((bytes.len() >= end + 2).then_some(Op::Message { end, size }));
            }
            if line.starts_with(b"PONG") {
                return Ok(Some(Op::Pong { end }));
            }
            if line.starts_with(b"-ERR") {
                return Err(String::from_utf8_lossy(line).into());
            }
            let is_ping = line.starts_with(b"PING");
            self.wire.used(end);
            if is_ping {
                self.wire.send(b"PONG\r\n").await?;
            }
        }
    }
}

/// The number at the end of a line: the size of what follows it.
fn last_number(line: &[u8]) -> usize {
    let line = line.trim_ascii_end();
    let start = line
        .iter()
        .rposition(|byte| *byte == b' ')
        .map_or(0, |at| at + 1);
    line[start..]
        .iter()
        .fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
