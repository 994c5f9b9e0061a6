//! What is wrong with the connection: who is at the other end of it, and who is in between.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::servers::ending;
use super::{Told, good};
use crate::matrix::Matrix;
use crate::strange_servers::{listen, tls};

/// How long a proxy of the tests waits on one side before it looks at the other.
const TURN: Duration = Duration::from_millis(20);

pub fn closed(told: Told) {
    let matrix = Matrix::new();
    let words = [
        "closed the connection before its greeting",
        "its log has the reason",
    ];
    let port = listen(drop);
    told.at(&good(&matrix), &format!("localhost:{port}"), &words);
    let pair = matrix.ca.server(&["localhost"], |_| {});
    let port = tls(&matrix, &pair, &["fsvc/1"], b"");
    told.at(&good(&matrix), &format!("localhost:{port}"), &words);
}

/// Two ways to lead a client that speaks TLS to a real server so that this gets plain text.
pub fn plain_text_between(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--handshake-timeout", "1s"]);
    let behind = server.address.clone();
    let port = listen(move |tcp| balance(tcp, TcpStream::connect(&behind).unwrap()));
    let desk = good(&matrix);
    let words = [
        "what reached it is no TLS, and this client sent TLS",
        "set to send the PROXY header",
    ];
    told.at(&desk, &format!("localhost:{port}"), &words);
    assert!(
        server.log().contains("the PROXY protocol"),
        "{}",
        server.log()
    );

    let (behind, config) = (server.address.clone(), ending(&matrix));
    let port = listen(move |tcp| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let upstream = TcpStream::connect(&behind).unwrap();
        // However it ends, both ends see that.
        let _ = unwrap_tls(StreamOwned::new(connection, tcp), upstream);
    });
    let words = [
        "TLS ends at a proxy there, which hands on plain text",
        "pass TLS through",
    ];
    told.at(&desk, &format!("localhost:{port}"), &words);
    assert!(server.log().contains("plain JSON"), "{}", server.log());
}

/// Says who the client is, then hands on what comes as it is.
fn balance(client: TcpStream, mut server: TcpStream) {
    let header = b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 7443\r\n";
    server.write_all(header).unwrap();
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    copy(client.try_clone().unwrap(), server.try_clone().unwrap());
    copy(server, client);
}

/// Ends the client's TLS, and hands on what is inside.
fn unwrap_tls(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    mut server: TcpStream,
) -> io::Result<()> {
    client.sock.set_read_timeout(Some(TURN))?;
    server.set_read_timeout(Some(TURN))?;
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return server.shutdown(Shutdown::Write),
            Ok(n) => server.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match server.read(&mut buffer) {
            Ok(0) => {
                client.conn.send_close_notify();
                client.flush()?;
                return client.sock.shutdown(Shutdown::Write);
            }
            Ok(n) => {
                client.write_all(&buffer[..n])?;
                client.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A server that answers whatever it is sent first with these bytes, and closes.
fn answering(bytes: &'static [u8]) -> u16 {
    listen(|mut tcp| {
        let _ = tcp.read(&mut [0; 4096]);
        let _ = tcp.write_all(bytes);
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    })
}

pub fn no_tls(told: Told) {
    let matrix = Matrix::new();
    let desk = good(&matrix);
    for (answer, shown) in [
        (
            &b"HTTP/1.1\x1b[2J 400 Bad Request\r\n\r\n"[..],
            "HTTP/1.1\\u{1b}[2J",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "SSH-2.0-OpenSSH_"),
    ] {
        let port = answering(answer);
        let words = [
            "answered, but not with TLS",
            &format!("it began with \"{shown}"),
            "listens on 7443",
        ];
        told.at(&desk, &format!("localhost:{port}"), &words);
    }
}

/// A server of openssl's, which ends with the test.
struct OpenSsl {
    child: Child,
    port: String,
}

impl OpenSsl {
    fn serve(matrix: &Matrix, version: &str) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", version, "-cert"]);
        command
            .arg(matrix.path("server.pem"))
            .arg("-key")
            .arg(matrix.path("server-key.pem"));
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let mut ports = lines.map_while(Result::ok).filter_map(|line| {
            let address = line.strip_prefix("ACCEPT ")?;
            Some(address.rsplit_once(':')?.1.to_owned())
        });
        let port = ports.next().expect("openssl listens");
        Self { child, port }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn old_tls(told: Told) {
    let matrix = Matrix::new();
    let openssl = OpenSsl::serve(&matrix, "-tls1_2");
    let words = [
        "does not speak TLS 1.3, and fsvc speaks nothing older",
        "ends TLS, connect past it",
    ];
    told.at(
        &good(&matrix),
        &format!("localhost:{}", openssl.port),
        &words,
    );
}
