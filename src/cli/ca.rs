//! `fsvc certs request`, `sign`, `bundle` and `rotate-ca`.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::bound;
use super::ca_args::{BundleCommand, CaCommand, Place, RotateCommand};
use super::certs::{author, fail, print};
use super::exit::Exit;
use crate::pki::{self, ListSource, NewCa, Pick, PkiError, SignOptions};

/// Does what the command says, and says what was done.
pub(super) fn run(command: &CaCommand) -> Exit {
    match command {
        CaCommand::Request(flags) => {
            let made = pki::request(&flags.place.dir, flags.holder.holder(), flags.reuse_key);
            end(
                flags.place.pair(),
                "certs request",
                made,
                pki::RequestReport::render,
            )
        }
        CaCommand::Sign(flags) => {
            let options = SignOptions {
                dir: &flags.place.dir,
                request: &flags.request,
                holder: flags.holder.holder(),
                days: flags.days,
                out: flags.out.as_deref(),
                again: flags.again,
            };
            let signed = pki::sign(&options, Timestamp::now());
            end(
                flags.place.pair(),
                "certs sign",
                signed,
                pki::SignReport::render,
            )
        }
        CaCommand::Bundle(command) => bundle(command),
        CaCommand::RotateCa(command) => rotate(command),
    }
}

fn bundle(command: &BundleCommand) -> Exit {
    let now = Timestamp::now();
    let (place, what, edited) = match command {
        BundleCommand::Add {
            file,
            crl,
            no_crl,
            place,
        } => {
            let lists = match crl {
                Some(path) => ListSource::File(path),
                None if *no_crl => ListSource::None,
                None => ListSource::Unsaid,
            };
            let edited = pki::bundle_add(&place.dir, file, lists, now);
            (place, "certs bundle add", edited)
        }
        BundleCommand::Remove {
            file,
            subject,
            place,
        } => {
            let pick = match (file, subject) {
                (Some(file), _) => Pick::File(file),
                (None, subject) => Pick::Subject(subject.as_deref().unwrap_or_default()),
            };
            let edited = pki::bundle_remove(&place.dir, pick, now);
            let exit = end(
                place.pair(),
                "certs bundle remove",
                edited,
                pki::BundleReport::render,
            );
            return warned(exit, place);
        }
    };
    end(place.pair(), what, edited, pki::BundleReport::render)
}

/// Warns of what servers do not follow, after a CA was taken out.
fn warned(exit: Exit, place: &Place) -> Exit {
    let left = bound::left_over(&place.dir).filter(|_| exit == Exit::Done);
    if let Some(misfit) = left {
        misfit.warn(place.json);
    }
    exit
}

fn rotate(command: &RotateCommand) -> Exit {
    let now = Timestamp::now();
    let (place, what, done) = match command {
        RotateCommand::Start { ca_days, place } => {
            let author = author();
            let new = NewCa {
                author: &author,
                days: *ca_days,
            };
            let done = pki::rotate_start(&place.dir, new, now);
            (place, "certs rotate-ca start", done)
        }
        RotateCommand::Status { place } => {
            let done = pki::rotate_status(&place.dir, now);
            (place, "certs rotate-ca status", done)
        }
        RotateCommand::Promote {
            now: at_once,
            place,
        } => {
            if let Some(misfit) = bound::unbound(&place.dir, now) {
                misfit.refuse("certs rotate-ca promote", place.json);
                return Exit::State;
            }
            let done = pki::rotate_promote(&place.dir, *at_once, now);
            (place, "certs rotate-ca promote", done)
        }
        RotateCommand::Finish { place } => {
            let done = pki::rotate_finish(&place.dir, now);
            (place, "certs rotate-ca finish", done)
        }
        RotateCommand::Rollback { place } => {
            let done = pki::rotate_rollback(&place.dir, now);
            (place, "certs rotate-ca rollback", done)
        }
    };
    let exit = end(place.pair(), what, done, pki::RotationReport::render);
    match command {
        RotateCommand::Finish { .. } | RotateCommand::Rollback { .. } => warned(exit, place),
        _ => exit,
    }
}

/// Says what was done, or why it was not.
pub(super) fn end<T: Serialize>(
    (json, dir): (bool, &Path),
    what: &str,
    done: Result<T, PkiError>,
    render: impl FnOnce(&T) -> String,
) -> Exit {
    match done {
        Ok(report) if json => print(&serde_json::to_string(&report).unwrap_or_default()),
        Ok(report) => print(render(&report).trim_end()),
        Err(error) => fail(what, (json, dir), &error),
    }
}
