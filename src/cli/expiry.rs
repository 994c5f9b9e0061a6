//! A certificate near its end: said once a day, and what happens to its files while a command runs.
//!
//! Words for people only. A program reads `expires_at` of `whoami`, and what failed as it failed.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::json;

use super::output::{Output, complain, seconds};
use crate::client::{CertificateNews, Client, Renewal};
use crate::escape::Escaped;

/// Between two warnings about one certificate.
const SILENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// What is said of clocks goes by this name, and that of a certificate by its file's.
const CLOCKS: &str = "clocks";

/// Says that a certificate is near its end, unless that was said today; `state` is where it is written
/// down. Blocks.
pub(super) fn warn(client: &Client, state: Option<&Path>, output: Output) {
    let now = Timestamp::now();
    let Some(renewal) = client.renewal().filter(|renewal| is_due(renewal, now)) else {
        return;
    };
    if output.is_json() || output.is_quiet() || !begins_silence(&renewal.certificate, state) {
        return;
    }
    let left = renewal.expires_at.duration_since(now);
    let left = match (left.as_hours() / 24, left.as_hours()) {
        (0, 0) => format!("{} minutes", left.as_mins()),
        (0, hours) => format!("{hours} hours"),
        (days, _) => format!("{days} days"),
    };
    let text = format!(
        "your certificate ({}) expires {}, in {left}",
        renewal.certificate.display(),
        seconds(renewal.expires_at)
    );
    complain(&text, Some(&renewal.hint));
}

/// Whether it is to be renewed. One that is over is no warning but an error.
fn is_due(renewal: &Renewal, now: Timestamp) -> bool {
    renewal.renew_after <= now && now < renewal.expires_at
}

/// Whether nothing was said for long; from now on something was. What cannot be written down is said.
fn begins_silence(certificate: &Path, state: Option<&Path>) -> bool {
    let Some(place) = state.map(|state| state.join("fsvc/expiry")) else {
        return true;
    };
    let path = mark(&place, certificate);
    let said = fs::metadata(&path).and_then(|metadata| metadata.modified());
    let age = said.map(|said| SystemTime::now().duration_since(said));
    if matches!(age, Ok(Ok(age)) if age < SILENCE) {
        return false;
    }
    if fs::create_dir_all(&place).is_ok() {
        let _ = fs::write(path, "");
    }
    true
}

fn mark(place: &Path, certificate: &Path) -> PathBuf {
    let whole = fs::canonicalize(certificate).unwrap_or_else(|_| certificate.to_owned());
    // Two names that fall together cost a warning, no more.
    let mut hasher = DefaultHasher::new();
    whole.hash(&mut hasher);
    place.join(format!("{:016x}", hasher.finish()))
}

/// Shows what happens to the certificate files from now on, and once a day that clocks differ.
pub(super) fn follow(client: &Client, state: Option<PathBuf>, output: Output) {
    if output.is_quiet() {
        // What is not told here is not logged either.
        return client.on_certificates(|_| {});
    }
    client.on_certificates(move |news| {
        let is_skew = matches!(news, CertificateNews::ClocksDiffer { .. });
        let is_said = || !begins_silence(Path::new(CLOCKS), state.as_deref());
        if is_skew && (output.is_json() || is_said()) {
            return;
        }
        let (event, text, hint) = words(news);
        if output.is_json() {
            let object = json!({"certificate": {"event": event, "message": text, "hint": hint}});
            output.aside(&object, "");
        } else {
            complain(&text, hint.as_deref());
        }
    });
}

fn words(news: &CertificateNews) -> (&'static str, String, Option<String>) {
    match news {
        CertificateNews::Changed {
            certificate,
            expires_at,
        } => {
            let which = certificate
                .as_ref()
                .map_or_else(String::new, |path| format!(": {}", path.display()));
            let until = expires_at.map_or_else(String::new, |time| {
                format!(", valid until {}", seconds(time))
            });
            let text = format!("new certificate files are in use{which}{until}");
            ("changed", text, None)
        }
        CertificateNews::Unusable { reason, hint } => {
            let text = format!(
                "new certificate files cannot be used, the ones before still are: {}",
                Escaped::new(reason)
            );
            ("unusable", text, hint.clone())
        }
        CertificateNews::NotTaken { reason } => {
            let text = format!(
                "the server does not take the new certificate files; what runs stays on its connection: {}",
                Escaped::new(reason)
            );
            ("not_taken", text, None)
        }
        CertificateNews::Waiting {
            reason,
            hint,
            at_most,
        } => {
            let text = format!(
                "new certificate files are waited for, {} s at most: {}",
                at_most.as_secs(),
                Escaped::new(reason)
            );
            ("waiting", text, hint.clone())
        }
        CertificateNews::ClocksDiffer { server, own } => {
            let text = format!(
                "the clocks differ: the server's says {}, this machine's {}",
                seconds(*server),
                seconds(*own)
            );
            let hint = "certificates begin and end by both clocks: set the wrong one";
            ("clocks_differ", text, Some(hint.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_given_once_a_day_for_each_certificate() {
        let place = tempfile::tempdir().unwrap();
        let state = Some(place.path());
        let (one, other) = (Path::new("/c/one.pem"), Path::new("/c/other.pem"));
        assert!(begins_silence(one, state));
        assert!(!begins_silence(one, state));
        assert!(begins_silence(other, state));
        let path = mark(&place.path().join("fsvc/expiry"), one);
        let yesterday = SystemTime::now() - SILENCE - Duration::from_secs(1);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(yesterday).unwrap();
        assert!(begins_silence(one, state));
        assert!(!begins_silence(one, state));
        assert!(begins_silence(one, None) && begins_silence(one, None));
    }
}
