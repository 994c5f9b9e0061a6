//! What is wrong with the files themselves; the server is a real and good one.

use super::servers::borrowing;
use super::{Desk, Told, good};
use crate::matrix::Matrix;

pub fn mixed(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let desk = good(&matrix);
    desk.write_key(&matrix.ca.client(|_| {}).key);
    let words = [
        "case-key.pem: does not belong to ",
        "case.pem",
        "public key has sha256",
        "replaced last",
    ];
    told.at(&desk, &server.address, &words);
    // Half of the server's pair was replaced under it: it goes on, and will not start again.
    matrix.write_key("server-key.pem", &matrix.ca.client(|_| {}).key);
    let words = [
        "server-key.pem does not belong to ",
        "server.pem",
        "takes you for",
    ];
    told.by(matrix.dir(), &["--connect", &server.address], 2, &words);
    // A server that shows what is not its own.
    let port = borrowing(&matrix);
    let words = [
        "signed with another key than the one in it",
        "of one pair together",
    ];
    told.at(&good(&matrix), &format!("localhost:{port}"), &words);
}

pub fn something_else(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let pair = matrix.ca.client(|_| {});
    let desk = Desk::new(&matrix.ca.pem, &pair);
    let body = "-----BEGIN X-----\nMIIB\n-----END X-----\n";
    let holding = |what: &str| body.replace('X', what).into_bytes();
    for (content, words) in [
        (pair.chain.clone().into_bytes(), "found CERTIFICATE"),
        (holding("ENCRYPTED PRIVATE KEY"), "ENCRYPTED PRIVATE KEY"),
        (holding("CERTIFICATE REQUEST"), "CERTIFICATE REQUEST"),
        (holding("OPENSSH PRIVATE KEY"), "OPENSSH PRIVATE KEY"),
        (vec![], "is empty"),
        (vec![0x30, 0x82, 1, 1, 2], "DER"),
    ] {
        desk.write("clients/case-key.pem", content);
        told.at(&desk, &server.address, &["case-key.pem", words]);
    }
    let desk = good(&matrix);
    desk.write("clients/case.pem", &pair.key);
    told.at(&desk, &server.address, &["case.pem", "found PRIVATE KEY"]);
    let desk = good(&matrix);
    desk.write("ca.pem", "nothing\n");
    told.at(&desk, &server.address, &["ca.pem", "no PEM"]);
}

/// Everything is open to root: what cannot be read is what is not there, or is no file.
pub fn closed_or_open(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let at = ["--connect", server.address.as_str()];
    let desk = good(&matrix);
    desk.chmod("clients/case-key.pem", 0o644);
    let words = [
        "can be read by others (mode 0644)",
        "chmod 600 ",
        "takes you for",
    ];
    told.at(&desk, &server.address, &words);
    let desk = good(&matrix);
    let key = desk.dir.path().join("clients/case-key.pem");
    std::fs::remove_file(&key).unwrap();
    told.by(desk.dir.path(), &at, 3, &["case-key.pem"]);
    std::fs::create_dir(&key).unwrap();
    told.by(desk.dir.path(), &at, 3, &["case-key.pem"]);
    let desk = good(&matrix);
    let nobody = ["--connect", &server.address, "--as", "nobody"];
    told.by(
        desk.dir.path(),
        &nobody,
        3,
        &["nobody.pem: is missing", "certs add --client"],
    );
    std::fs::remove_file(desk.dir.path().join("ca.pem")).unwrap();
    told.by(desk.dir.path(), &at, 3, &["ca.pem"]);
}
