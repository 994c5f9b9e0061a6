//! Certificates that no library makes: a good one is taken apart, changed, and signed again.

use std::time::SystemTime;

use fsvc::tls::pem::read_certificates;

use crate::matrix::{Ca, Matrix, Pair};

/// One value of DER: what is in it, all of it, and what is behind it.
pub struct Value<'a> {
    pub content: &'a [u8],
    pub whole: &'a [u8],
    pub rest: &'a [u8],
}

/// Takes the first value apart.
pub fn first(der: &[u8]) -> Value<'_> {
    let (length, head) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let n = usize::from(long & 0x7f);
            let length = der[2..2 + n]
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, 2 + n)
        }
    };
    Value {
        content: &der[head..head + length],
        whole: &der[..head + length],
        rest: &der[head + length..],
    }
}

/// The values in a sequence.
pub fn each(mut content: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let value = first(content);
        found.push(value.whole.to_vec());
        content = value.rest;
    }
    found
}

pub fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let bytes = length.to_be_bytes();
    let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(7)..];
    let head = if length < 0x80 {
        vec![tag, bytes[0]]
    } else {
        [&[tag, 0x80 | u8::try_from(bytes.len()).unwrap()], bytes].concat()
    };
    [&head, content].concat()
}

pub const SEQUENCE: u8 = 0x30;
pub const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
/// Where things stand in the part that is signed.
pub const SERIAL: usize = 1;
pub const SUBJECT: usize = 5;
pub const KEY: usize = 6;
pub const EXTENSIONS: usize = 7;

/// A public key of RSA with this modulus.
pub fn rsa_key(modulus: &[u8]) -> Vec<u8> {
    let rsa = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let numbers = [wrap(INTEGER, modulus), wrap(INTEGER, &[1, 0, 1])].concat();
    let bits = [&[0], &wrap(SEQUENCE, &numbers)[..]].concat();
    wrap(
        SEQUENCE,
        &[wrap(SEQUENCE, &rsa), wrap(BIT_STRING, &bits)].concat(),
    )
}

/// A certificate's signed part, value by value.
pub fn signed_part(certificate: &[u8]) -> Vec<Vec<u8>> {
    let parts = each(first(certificate).content);
    each(first(&parts[0]).content)
}

/// A certificate of these values, signed by this CA.
pub fn certificate(ca: &Ca, like: &[u8], values: &[Vec<u8>]) -> Vec<u8> {
    let part = wrap(SEQUENCE, &values.concat());
    sign(ca, like, &part)
}

/// A certificate around these bytes, whatever they are.
pub fn sign(ca: &Ca, like: &[u8], part: &[u8]) -> Vec<u8> {
    let algorithm = &each(first(like).content)[1];
    let signature = wrap(BIT_STRING, &[&[0], &ca.sign(part)[..]].concat());
    wrap(SEQUENCE, &[part, algorithm, &signature].concat())
}

/// The extensions of a certificate, each whole.
pub fn extensions(values: &[Vec<u8>]) -> Vec<Vec<u8>> {
    each(first(first(&values[EXTENSIONS]).content).content)
}

pub fn with_extensions(values: &[Vec<u8>], extensions: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut values = values.to_vec();
    values[EXTENSIONS] = wrap(0xa3, &wrap(SEQUENCE, &extensions.concat()));
    values
}

pub fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// The bytes of a pair's own certificate.
pub fn bytes(matrix: &Matrix, pair: &Pair) -> Vec<u8> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let name = format!("bytes-{now}.pem");
    matrix.write(&name, &pair.chain);
    read_certificates(&matrix.path(&name)).unwrap()[0].to_vec()
}

/// The pair with its certificate changed value by value.
pub fn changed(matrix: &Matrix, pair: &Pair, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Pair {
    let der = bytes(matrix, pair);
    let mut values = signed_part(&der);
    change(&mut values);
    Pair {
        chain: pem(&certificate(&matrix.ca, &der, &values)),
        ..pair.clone()
    }
}
