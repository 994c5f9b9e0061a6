//! Many connections at a time: whoever is over a limit waits or hears so, others notice nothing.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fsvc::tls::client::configure;
use jiff::Timestamp;

use super::{LIMIT, works};
use crate::harness::text;
use crate::matrix::Matrix;
use crate::refusals::connect;

#[test]
fn a_crowd_that_says_nothing_is_in_nobodys_way() {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--handshake-timeout", "10s"]);
    let silent: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(&server.address).unwrap())
        .collect();
    let began = Instant::now();
    for _ in 0..20 {
        works(&server);
    }
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    drop(silent);
}

#[test]
fn one_identity_has_only_so_many_connections() {
    let matrix = Matrix::new();
    let near = matrix.ca.client_named("spiffe://test.internal/client/near");
    matrix.add("near", &near);
    let server = matrix.serve(&["--connections-per-identity-max", "2"]);
    let config = configure(&matrix.files(Some("good")), Timestamp::now()).unwrap();
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect(&server.address, Arc::clone(&config));
            stream.read_exact(&mut [0; 5]).unwrap();
            stream
        })
        .collect();
    let output = server.client("good", &["whoami"]).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("client/good has 2 connections open, which is the most"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(
        server
            .log()
            .contains("too many connections of one identity")
    );
    assert!(
        server
            .client("near", &["whoami"])
            .output()
            .unwrap()
            .status
            .success()
    );
    drop(held);
    let until = Instant::now() + LIMIT;
    while !server
        .client("good", &["whoami"])
        .output()
        .unwrap()
        .status
        .success()
    {
        assert!(Instant::now() < until, "the places never came back");
    }
}

#[test]
fn over_the_limit_of_connections_the_next_one_waits_its_turn() {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--connections-max", "3"]);
    let config = configure(&matrix.files(Some("good")), Timestamp::now()).unwrap();
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = connect(&server.address, Arc::clone(&config));
            stream.read_exact(&mut [0; 5]).unwrap();
            stream
        })
        .collect();
    let mut impatient = server.client("good", &["whoami", "--connect-timeout", "300ms"]);
    let output = impatient.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stdout));
    assert!(
        text(&output.stderr).contains("said nothing for 300ms"),
        "{}",
        text(&output.stderr)
    );
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            server
                .client("good", &["whoami"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    drop(held);
    for child in waiting {
        assert!(child.wait_with_output().unwrap().status.success());
    }
}
