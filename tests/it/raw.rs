//! A client that sends whatever bytes it is given, and reads whatever frames come back.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use fsvc::client::Options;
use fsvc::digest::Digest;
use fsvc::tls::client::configure;
use jiff::Timestamp;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::harness::Server;
use crate::refusals::connect;

pub struct Raw {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Raw {
    /// A greeted connection of a client.
    pub fn connect(server: &Server, name: &str) -> Self {
        Self::connect_with(server, &server.certs().join("ca.pem"), name)
    }

    /// The same of one that has the server's CA from elsewhere.
    pub fn connect_with(server: &Server, ca: &Path, name: &str) -> Self {
        let mut files = Options::from_directory(&server.address, server.certs(), name).files;
        ca.clone_into(&mut files.ca);
        let mut raw = Self {
            stream: connect(
                &server.address,
                configure(&files, Timestamp::now()).unwrap(),
            ),
        };
        assert!(raw.answer()["hello"].is_object());
        raw
    }

    /// Sends bytes as they are. The other end may have closed already.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self
            .stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush());
    }

    /// The next frame; `None` at the end of the stream.
    pub fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        if self.stream.read(&mut header[..1]).ok()? == 0 {
            return None;
        }
        self.stream.read_exact(&mut header[1..]).unwrap();
        let mut content = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
        self.stream.read_exact(&mut content).unwrap();
        Some((header[0], content))
    }

    /// The next frame, if it comes whole before the connection ends, however that does.
    pub fn try_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).ok()?;
        let mut content = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
        self.stream.read_exact(&mut content).ok()?;
        Some((header[0], content))
    }

    /// The next frame, which must be a message.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        let (kind, content) = self.read_frame().expect("an answer");
        assert_eq!(kind, b'M');
        serde_json::from_slice(&content).unwrap()
    }

    /// The body behind an answer, as it comes, and its trailer.
    pub fn read_body(&mut self) -> (Vec<u8>, Value) {
        let mut bytes = Vec::new();
        loop {
            let (kind, frame) = self.read_frame().expect("a body");
            match kind {
                b'D' => bytes.extend(frame),
                b'E' => return (bytes, serde_json::from_slice(&frame).unwrap()),
                kind => panic!("a frame of kind {kind} in a body"),
            }
        }
    }

    #[track_caller]
    pub fn ask(&mut self, request: &str) -> Value {
        self.send(&message(request));
        self.answer()
    }

    /// The connection still answers, in step.
    #[track_caller]
    pub fn lives(&mut self) {
        assert_eq!(
            self.ask(r#"{"id":424242,"op":"ping"}"#),
            json!({"id": 424_242, "ok": {}})
        );
    }

    /// The server has nothing more to say, and closed.
    #[track_caller]
    pub fn ends(&mut self) {
        assert_eq!(self.read_frame(), None);
    }

    /// The certificate that the server showed.
    pub fn peer_certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Whether something can be read now.
    pub fn has_more(&self) -> bool {
        let tcp = &self.stream.sock;
        tcp.set_nonblocking(true).unwrap();
        let peeked = tcp.peek(&mut [0]);
        tcp.set_nonblocking(false).unwrap();
        peeked.is_ok()
    }

    /// Cuts the connection without a word of TLS.
    pub fn cut(self) {
        self.stream.sock.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

pub fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind], &size[..], content].concat()
}

pub fn message(text: &str) -> Vec<u8> {
    frame(b'M', text.as_bytes())
}

/// A whole body: data frames, and the trailer that fits them.
pub fn body(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in content.chunks(1 << 20) {
        bytes.extend(frame(b'D', piece));
    }
    bytes.extend(trailer(content.len(), &Digest::of(content).to_string()));
    bytes
}

pub fn trailer(size: usize, digest: &str) -> Vec<u8> {
    frame(
        b'E',
        json!({"size": size, "digest": digest})
            .to_string()
            .as_bytes(),
    )
}

#[track_caller]
pub fn code(answer: &Value) -> &str {
    answer["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no refusal: {answer}"))
}

/// Every file under a directory, by what it holds; the server's own and its log left out.
pub fn snapshot(root: &Path) -> BTreeMap<String, Digest> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_dir() && !path.ends_with(".fsvc") {
                open.push(path);
            } else if kind.is_file() && !path.ends_with("log") {
                found.insert(
                    path.display().to_string(),
                    Digest::of(&std::fs::read(&path).unwrap()),
                );
            }
        }
    }
    found
}
