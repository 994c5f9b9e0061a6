//! `fsvc gen-certs`.
use super::args::GenCerts;
use super::exit::Exit;
pub(super) fn run(_: &GenCerts) -> Exit {
    Exit::Failed
}
