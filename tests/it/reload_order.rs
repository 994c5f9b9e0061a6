//! Files that are replaced in an unlucky order, or for a moment, and signals in a storm: the old set
//! holds until the new one is whole, and nobody's session notices.

use std::fs;

use fsvc::tls::pem::read_certificates;
use rustix::fs::{CWD, Mode, mkfifoat};

use crate::harness::{Server, fsvc, text};
use crate::matrix::{Matrix, Pair};
use crate::raw::Raw;
use crate::reload::{EVERY, n_in_log, until};

const REFUSED: &str = "nothing was read anew";
const HOLDS: &str = "other certificates hold now";
const MISMATCH: &str = "does not belong to";
const N_SIGNALS: usize = 300;

fn new_pair(matrix: &Matrix) -> Pair {
    matrix.ca.server(&["localhost", "127.0.0.1"], |_| {})
}

fn works(server: &Server) {
    let output = server.client("good", &["whoami"]).output().unwrap();
    assert!(output.status.success(), "{}", server.log());
}

#[test]
fn either_file_of_a_pair_may_come_first() {
    let matrix = Matrix::new();
    let server = matrix.serve(&EVERY);
    let mut session = Raw::connect(&server, "good");
    for n in 1..=4 {
        let pair = new_pair(&matrix);
        let is_key_first = n % 2 == 0;
        let write = |is_key: bool| {
            if is_key {
                matrix.write_key("server-key.pem", &pair.key);
            } else {
                matrix.replace("server.pem", &pair.chain);
            }
        };
        write(is_key_first);
        until("the half is told", || n_in_log(&server, MISMATCH) == n);
        works(&server);
        assert_eq!(n_in_log(&server, HOLDS), n - 1);
        write(!is_key_first);
        until("the whole is taken", || n_in_log(&server, HOLDS) == n);
        works(&server);
        session.lives();
    }
    let log = server.log();
    assert_eq!(log.matches(MISMATCH).count(), 4, "{log}");
    assert!(!log.contains("session ended"), "{log}");
}

#[test]
fn a_file_that_is_gone_for_a_moment_is_no_change() {
    let matrix = Matrix::new();
    let server = matrix.serve(&EVERY);
    let mut session = Raw::connect(&server, "good");
    let files = [
        "server.pem",
        "server-key.pem",
        "ca.pem",
        "ca.crl",
        "policy.toml",
    ];
    for file in files {
        let aside = matrix.path("aside");
        let from = server.log().len();
        fs::rename(matrix.path(file), &aside).unwrap();
        until(file, || {
            let log = server.log().split_off(from);
            let mut lines = log.lines().filter(|line| line.contains(REFUSED));
            lines.any(|line| line.contains(file))
        });
        session.lives();
        fs::rename(&aside, matrix.path(file)).unwrap();
        // Taken in silence; what is told next is about the next file.
        until(file, || {
            server.signal("HUP");
            server
                .client("good", &["whoami"])
                .status()
                .unwrap()
                .success()
        });
    }
    assert_eq!(n_in_log(&server, HOLDS), 0, "{}", server.log());
    // A whole new set is still seen after all that.
    let pair = new_pair(&matrix);
    matrix.write_key("server-key.pem", &pair.key);
    matrix.write("server.pem", &pair.chain);
    until("a new pair", || n_in_log(&server, HOLDS) == 1);
    session.lives();
}

/// A pipe would keep whoever reads it waiting for ever.
#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_and_holds_nothing_up() {
    let matrix = Matrix::new();
    let server = matrix.serve(&EVERY);
    let mut session = Raw::connect(&server, "good");
    for file in [
        "server.pem",
        "server-key.pem",
        "ca.pem",
        "ca.crl",
        "policy.toml",
    ] {
        let (path, aside) = (matrix.path(file), matrix.path("aside"));
        let from = server.log().len();
        fs::rename(&path, &aside).unwrap();
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        until(file, || {
            server.signal("HUP");
            let log = server.log().split_off(from);
            let mut lines = log.lines().filter(|line| line.contains(REFUSED));
            lines.any(|line| line.contains(file) && line.contains("no plain file"))
        });
        let mut serve = fsvc();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--tls-dir"]);
        serve
            .arg(matrix.dir())
            .arg("--root")
            .arg(matrix.path("root"));
        let output = serve.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(file) && said.contains("no plain file"),
            "{said}"
        );
        fs::rename(&aside, &path).unwrap();
        session.lives();
    }
    let pair = new_pair(&matrix);
    matrix.write_key("server-key.pem", &pair.key);
    matrix.replace("server.pem", &pair.chain);
    until("a new pair", || n_in_log(&server, HOLDS) == 1);
    session.lives();
}

#[test]
fn a_storm_of_signals_is_one_look_after_another() {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--reload-every", "1h"]);
    let mut session = Raw::connect(&server, "good");
    let pair = new_pair(&matrix);
    for n in 0..N_SIGNALS {
        if n == N_SIGNALS / 2 {
            matrix.write_key("server-key.pem", &pair.key);
            matrix.write("server.pem", &pair.chain);
        }
        server.signal("HUP");
        if n % 50 == 0 {
            session.lives();
            works(&server);
        }
    }
    until("the new pair", || {
        server.signal("HUP");
        n_in_log(&server, HOLDS) == 1
    });
    session.lives();
    let shown = Raw::connect(&server, "good").peer_certificate();
    let wanted = read_certificates(&matrix.path("server.pem")).unwrap();
    assert_eq!(shown, wanted[0].to_vec());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
