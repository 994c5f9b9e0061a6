//! `fsvc certs request`, `sign`, `bundle` and `rotate-ca`.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::ca_args::{
    BundleCommand, CaCommand, HolderFlags, Place, ReasonFlag, RevokeFlags, RotateCommand,
};
use super::certs::{author, fail, print};
use super::certs_show;
use super::exit::Exit;
use crate::pki::{
    self, Holder, ListSource, NewCa, Pick, PkiError, Reason, Renewing, SignOptions, Which,
};

/// Does what the command says, and says what was done.
pub(super) fn run(command: &CaCommand) -> Exit {
    match command {
        CaCommand::Add(flags) => {
            let holder = holder(&flags.holder);
            let made = pki::add(
                &flags.place.dir,
                &holder,
                flags.days,
                flags.again,
                Timestamp::now(),
            );
            end(&flags.place, "certs add", made, pki::RenewReport::render)
        }
        CaCommand::Renew(flags) => {
            let which = match &flags.name {
                Some(name) => Renewing::Name(name),
                None => Renewing::All {
                    left_percent: flags.window,
                },
            };
            let now = Timestamp::now();
            let made = pki::renew(&flags.place.dir, which, flags.days, flags.reuse_key, now);
            end(&flags.place, "certs renew", made, pki::RenewReport::render)
        }
        CaCommand::Revoke(flags) => revoke(flags),
        CaCommand::List(flags) => {
            let now = Timestamp::now();
            let within = flags.expiring.map(SignedDuration::try_from);
            let within = within.and_then(Result::ok);
            let listed = pki::list(&flags.place.dir, within, now);
            end(&flags.place, "certs list", listed, |report| {
                report.render(now)
            })
        }
        CaCommand::Show(flags) => certs_show::show(flags),
        CaCommand::Check(flags) => certs_show::check(flags),
        CaCommand::Request(flags) => {
            let made = pki::request(&flags.place.dir, &holder(&flags.holder), flags.reuse_key);
            end(
                &flags.place,
                "certs request",
                made,
                pki::RequestReport::render,
            )
        }
        CaCommand::Sign(flags) => {
            let options = SignOptions {
                dir: &flags.place.dir,
                request: &flags.request,
                holder: &holder(&flags.holder),
                days: flags.days,
                out: flags.out.as_deref(),
                again: flags.again,
            };
            let signed = pki::sign(&options, Timestamp::now());
            end(&flags.place, "certs sign", signed, pki::SignReport::render)
        }
        CaCommand::Bundle(command) => bundle(command),
        CaCommand::RotateCa(command) => rotate(command),
    }
}

fn revoke(flags: &RevokeFlags) -> Exit {
    let which = match (&flags.name, &flags.serial, &flags.cert) {
        (Some(name), ..) => Which::Name(name),
        (_, Some(serial), _) => Which::Serial(serial),
        (.., Some(file)) => Which::File(file),
        _ => Which::AllOf(flags.all_of.as_deref().unwrap_or_default()),
    };
    let reason = match flags.reason {
        ReasonFlag::Unspecified => Reason::Unspecified,
        ReasonFlag::KeyCompromise => Reason::KeyCompromise,
        ReasonFlag::AffiliationChanged => Reason::AffiliationChanged,
        ReasonFlag::Superseded => Reason::Superseded,
        ReasonFlag::CessationOfOperation => Reason::CessationOfOperation,
    };
    let revoked = pki::revoke(&flags.place.dir, which, reason, Timestamp::now());
    end(
        &flags.place,
        "certs revoke",
        revoked,
        pki::RevokeReport::render,
    )
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
            (place, "certs bundle remove", edited)
        }
    };
    end(place, what, edited, pki::BundleReport::render)
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
    end(place, what, done, pki::RotationReport::render)
}

fn end<T: Serialize>(
    place: &Place,
    what: &str,
    done: Result<T, PkiError>,
    render: impl FnOnce(&T) -> String,
) -> Exit {
    match done {
        Ok(report) if place.json => print(&serde_json::to_string(&report).unwrap_or_default()),
        Ok(report) => print(render(&report).trim_end()),
        Err(error) => fail(what, place.json, &error),
    }
}

fn holder(flags: &HolderFlags) -> Holder {
    match &flags.client {
        Some(name) => Holder::Client(name.clone()),
        None => Holder::Server(flags.host.clone()),
    }
}
