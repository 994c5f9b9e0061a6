//! `fsvc certs add`, `renew`, `revoke`, `list`, `show`.

use std::path::Path;

use jiff::Timestamp;

use super::ca::{self, end};
use super::exit::Exit;
use super::life_args::{AddFlags, CertsCommand, RenewFlags, RevokeFlags};
use crate::pki::{self, AddOptions, RenewOptions, Target, Which, Window};

/// Of all, those are renewed that are in the last third of their life.
const USUAL_PERCENT: i32 = 33;

/// Does what the command says, and says what was done.
pub(super) fn run(command: &CertsCommand) -> Exit {
    let now = Timestamp::now();
    match command {
        CertsCommand::Add(flags) => add(flags, now),
        CertsCommand::Renew(flags) => renew(flags, now),
        CertsCommand::Revoke(flags) => revoke(flags, now),
        CertsCommand::List(flags) => {
            let listed = pki::list(&flags.place.dir, flags.expiring, now);
            end(
                flags.place.pair(),
                "certs list",
                listed,
                pki::ListReport::render,
            )
        }
        CertsCommand::Show(flags) => {
            let shown = pki::show(&flags.file, flags.ca.as_deref(), now);
            end(
                (flags.json, Path::new("")),
                "certs show",
                shown,
                pki::ShowReport::render,
            )
        }
        CertsCommand::Check(flags) => super::check::run(flags, now),
        CertsCommand::Ca(command) => ca::run(command),
    }
}

fn add(flags: &AddFlags, now: Timestamp) -> Exit {
    let options = AddOptions {
        dir: &flags.place.dir,
        holder: flags.holder.holder(),
        days: flags.days,
        again: flags.again,
    };
    let added = pki::add(&options, now);
    end(
        flags.place.pair(),
        "certs add",
        added,
        pki::AddReport::render,
    )
}

fn renew(flags: &RenewFlags, now: Timestamp) -> Exit {
    // Whoever names one wants it now.
    let usual = flags.all.then_some(Window::Share(USUAL_PERCENT));
    let options = RenewOptions {
        dir: &flags.place.dir,
        which: flags.name.as_deref().map_or(Which::All, Which::Name),
        window: flags.window.or(usual),
        reuse_key: flags.reuse_key,
        days: flags.days,
        revoke_old_after: flags.revoke_old_after,
    };
    let renewed = pki::renew(&options, now);
    let is_whole = renewed
        .as_ref()
        .is_ok_and(|report| report.failed.is_empty());
    let exit = end(
        flags.place.pair(),
        "certs renew",
        renewed,
        pki::RenewReport::render,
    );
    match exit {
        Exit::Done if !is_whole => Exit::Failed,
        exit => exit,
    }
}

fn revoke(flags: &RevokeFlags, now: Timestamp) -> Exit {
    let target = match (&flags.name, &flags.all_of, &flags.cert) {
        (Some(name), ..) => Target::Name(name),
        (_, Some(name), _) => Target::AllOf(name),
        (.., Some(path)) => Target::Certificate(path),
        _ => Target::Serial(flags.serial.as_deref().unwrap_or_default()),
    };
    let revoked = pki::revoke(&flags.place.dir, target, flags.reason, now);
    end(
        flags.place.pair(),
        "certs revoke",
        revoked,
        pki::RevokeReport::render,
    )
}
