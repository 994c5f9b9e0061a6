//! Peers that speak no TLS to the TLS port: each is answered in its own language.
//!
//! The first byte decides; nothing that follows it is obeyed. Whatever is read and written here is
//! bounded, and ends within the handshake's time.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::escape::Escaped;
use crate::socket::Socket;

/// How long the first line is waited for once it has begun.
const LINE_TIMEOUT: Duration = Duration::from_millis(500);
/// How much of it is read.
const LINE_SIZE_MAX: usize = 256;
/// How much of it is shown.
const SHOWN_MAX: usize = 80;

/// TLS content types (RFC 8446, 5.1): from `change_cipher_spec` to heartbeat.
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x18;
/// From here on it is an SSL 2 hello, or noise that TLS refuses by itself.
const NOT_ASCII: u8 = 0x80;

/// A fatal TLS alert, `unexpected_message`: all that is left to say to a peer of no known language.
const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 10];

const HTTP_METHODS: [&str; 10] = [
    "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "TRACE ", "CONNECT ", "PRI ",
];

/// What a peer spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Language {
    Http,
    Json,
    Ssh,
    /// The PROXY protocol, of either version.
    Proxy,
    Other,
}

impl Language {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "plain HTTP",
            Self::Json => "plain JSON",
            Self::Ssh => "SSH",
            Self::Proxy => "the PROXY protocol",
            Self::Other => "no TLS",
        }
    }

    fn of(line: &[u8]) -> Self {
        let is_http = HTTP_METHODS
            .iter()
            .any(|method| line.starts_with(method.as_bytes()));
        match line {
            [b'{', ..] => Self::Json,
            _ if is_http => Self::Http,
            _ if line.starts_with(b"SSH-") => Self::Ssh,
            _ if line.starts_with(b"PROXY ") || line.starts_with(b"\r\n") => Self::Proxy,
            _ => Self::Other,
        }
    }
}

/// Whether this first byte is for TLS to judge.
pub(super) fn is_tls(first: u8) -> bool {
    TLS_RECORDS.contains(&first) || first >= NOT_ASCII
}

/// Reads the first line and answers; what was spoken, and the line, escaped and cut. The caller
/// holds the deadline, and drains.
///
/// # Errors
/// The socket failed.
pub(super) async fn answer(socket: &mut Socket) -> io::Result<(Language, String)> {
    let mut line = Vec::with_capacity(LINE_SIZE_MAX);
    // A peer that stops in the middle of its line is judged by what there is.
    if let Ok(read) = timeout(LINE_TIMEOUT, read_line(socket, &mut line)).await {
        read?;
    }
    let language = Language::of(&line);
    let answer = match language {
        Language::Http => http(),
        Language::Json => json().into_bytes(),
        Language::Ssh | Language::Proxy | Language::Other => ALERT.to_vec(),
    };
    socket.write_all(&answer).await?;
    socket.flush().await?;
    Ok((language, shown(&line)))
}

/// What the log says of it, and what to do about it.
pub(super) fn describe(language: Language, line: &str) -> (String, &'static str) {
    let hint = match language {
        Language::Http => {
            "fsvc is no web server; is a health check or a proxy set to http for this port?"
        }
        Language::Json => {
            "the messages are the right ones, but inside of TLS 1.3: PROTOCOL.md says how"
        }
        Language::Ssh => "is sftp meant? this is the port of fsvc",
        Language::Proxy => "fsvc takes no PROXY header: switch it off in what stands between",
        Language::Other => "is something else configured for this port? fsvc speaks TLS 1.3 only",
    };
    (
        format!(
            "refused a peer that spoke {} to the TLS port (\"{line}\")",
            language.name()
        ),
        hint,
    )
}

async fn read_line(socket: &mut Socket, line: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; LINE_SIZE_MAX];
    while line.len() < LINE_SIZE_MAX {
        let n = socket
            .read(&mut buffer[..LINE_SIZE_MAX - line.len()])
            .await?;
        line.extend_from_slice(&buffer[..n]);
        let is_known = line.starts_with(b"{") || line.starts_with(b"\0");
        if n == 0 || is_known || buffer[..n].contains(&b'\n') {
            break;
        }
    }
    Ok(())
}

fn shown(line: &[u8]) -> String {
    let end = line
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(line.len())
        .min(SHOWN_MAX);
    let text = String::from_utf8_lossy(&line[..end]);
    Escaped::new(text.trim_end()).to_string()
}

fn http() -> Vec<u8> {
    let body = "This is fsvc: files and messages over TLS 1.3 with client certificates, not HTTP.\n\
                Connect with its own client: fsvc ls --server HOST:PORT --as NAME\n\
                A certificate comes from the operator of this server: fsvc gen-certs --client NAME\n\
                To write a client of your own, see PROTOCOL.md; to find what is wrong: fsvc explain TLS14\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    [head, body.to_owned()].concat().into_bytes()
}

fn json() -> String {
    let message = "this port takes JSON inside of TLS 1.3 only, from clients with a certificate; see PROTOCOL.md, or \
                   connect with: fsvc ls --server HOST:PORT --as NAME";
    let error = serde_json::json!({"error": {"code": "tls_required", "message": message}});
    format!("{error}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart_by_their_first_bytes() {
        for (line, expected) in [
            (&b"GET / HTTP/1.1"[..], Language::Http),
            (b"PRI * HTTP/2.0\r\n", Language::Http),
            (b"GETTING", Language::Other),
            (b"{\"id\":1}", Language::Json),
            (b"SSH-2.0-x\r\n", Language::Ssh),
            (b"PROXY TCP4 1 2 3 4\r\n", Language::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n", Language::Proxy),
            (b"", Language::Other),
            (b"hello", Language::Other),
        ] {
            assert_eq!(Language::of(line), expected, "{line:?}");
        }
        assert!(is_tls(0x16) && is_tls(0x80) && !is_tls(b'G') && !is_tls(b'{') && !is_tls(0));
    }

    #[test]
    fn a_line_is_shown_escaped_and_cut() {
        assert_eq!(shown(b"GET / \x1b[2J\r\nHost: x"), "GET / \\u{1b}[2J");
        assert!(shown(&[b'a'; 300]).len() <= SHOWN_MAX);
        assert!(
            String::from_utf8(http())
                .unwrap()
                .starts_with("HTTP/1.1 400 ")
        );
        assert_eq!(json().lines().count(), 1);
    }
}
