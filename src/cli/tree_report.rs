//! What is said while a tree is moved, and the counts at the end.
//!
//! Names come from another machine or from a folder that others write in: they are escaped.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::exit::Exit;
use super::files::{Failure, Outcome};
use super::output::{Output, line_out};
use crate::client::tree::{Happened, Progress, Reporter, Summary};
use crate::escape::{Escaped, with_causes};

/// Between two progress events.
const EVENT_PAUSE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

/// Says what happens to a tree.
pub(super) struct Report {
    output: Output,
    is_dry: bool,
    began: Instant,
    bar: ProgressBar,
    last_event: Mutex<Option<Instant>>,
}

impl Report {
    pub(super) fn open(output: Output, is_dry: bool) -> Arc<dyn Reporter> {
        let bar = if output.shows_progress() && !is_dry {
            let style =
                ProgressStyle::with_template("{msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
            let bar = ProgressBar::new(0);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        Arc::new(Self {
            output,
            is_dry,
            began: Instant::now(),
            bar,
            last_event: Mutex::new(None),
        })
    }

    fn progress(&self, progress: Progress) {
        if self.output.is_json() {
            let mut last = self
                .last_event
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < EVENT_PAUSE) {
                return;
            }
            let since = last.replace(Instant::now());
            drop(last);
            // The first event waits for something to say.
            if since.is_some() || self.began.elapsed() >= EVENT_PAUSE {
                self.event(progress);
            }
            return;
        }
        self.bar.set_length(progress.bytes_planned);
        self.bar.set_position(progress.bytes_done);
        let more = if progress.is_planned { "" } else { "+" };
        self.bar.set_message(format!(
            "{}/{}{more} files, {} the same, {} retries,",
            progress.n_done, progress.n_planned, progress.n_same, progress.n_retries
        ));
    }

    fn event(&self, progress: Progress) {
        let seconds = self.began.elapsed().as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate for people"
        )]
        let rate = (progress.bytes_done as f64 / seconds) as u64;
        let left = progress.bytes_planned.saturating_sub(progress.bytes_done);
        let eta = left.checked_div(rate).filter(|_| progress.is_planned);
        let mut object = json!(progress);
        object["bytes_per_second"] = json!(rate);
        object["eta_seconds"] = json!(eta);
        self.output.aside(&json!({ "progress": object }), "");
    }
}

impl Reporter for Report {
    fn happened(&self, what: &Happened<'_>) {
        match what {
            Happened::Done { action, path, size } if self.is_dry => {
                let object = json!({"plan": {"action": action, "path": path, "size": size}});
                let text = format!("{action:6} {} ({size} bytes)", Escaped::whole(path));
                // Whoever stopped reading a plan needs no more of it.
                let _ = self.output.result(&object, &text);
            }
            Happened::Done { .. } => {}
            Happened::Passed { path, why } => self.bar.suspend(|| {
                let object = json!({"passed": {"path": path, "reason": why}});
                let text = format!("passed over {}: {why}", Escaped::whole(path));
                self.output.aside(&object, &text);
            }),
            Happened::Failed { path, error } => {
                self.bar.suspend(|| self.output.tree_fault(path, error));
            }
            Happened::Again { error } => self.bar.suspend(|| {
                let text = with_causes(*error);
                let object = json!({"retry": {"message": text, "code": error.code()}});
                self.output.aside(&object, &format!("{text}; trying again"));
            }),
            Happened::Stopped { error } => self.bar.suspend(|| {
                let text = with_causes(*error);
                let object = json!({"retry": {"message": text, "code": error.code()}});
                self.output
                    .aside(&object, &format!("{text}; beginning again"));
            }),
            Happened::Watching { summary } => self.bar.suspend(|| {
                let object = json!({"summary": summary});
                self.output
                    .aside(&object, &format!("up to date: {}", counts(summary)));
            }),
            Happened::Progress(progress) => self.progress(*progress),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The last line; a command with failures has failed.
pub(super) fn conclude(summary: &Summary, output: Output) -> Outcome {
    if output.is_json() {
        line_out(&json!({ "summary": summary }).to_string())?;
    } else {
        output.aside(&(), &counts(summary));
    }
    if summary.n_failed > 0 {
        return Err(Failure::Refused(Exit::Failed));
    }
    Ok(())
}

fn counts(summary: &Summary) -> String {
    let would = if summary.dry_run { "would be " } else { "" };
    let mut text = format!(
        "{} files ({}) {would}moved, {} the same",
        summary.n_moved,
        ByteSize::b(summary.bytes_moved),
        summary.n_same
    );
    let mut also = |n: u64, what: &str| {
        if n > 0 {
            let _ = write!(text, ", {n} {what}");
        }
    };
    also(summary.n_deleted, &format!("{would}deleted"));
    also(summary.n_passed, "passed over");
    also(summary.n_retries, "retries");
    also(summary.n_failed, "failed");
    if let Some(sequence) = summary.sequence {
        let _ = write!(text, ", in one step as version {sequence}");
    }
    text
}
