//! Progress: a bar on a terminal, events for a program.

use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::output::{Output, complain};
use crate::client::{ClientError, Observer};
use crate::escape::{Escaped, with_causes};

const TICK: Duration = Duration::from_millis(200);
/// Between two events for a program.
const EVENT_PERIOD: Duration = Duration::from_secs(1);

/// A bar for one body; hidden where nobody watches. Without a size it counts.
pub(super) fn bar(output: Output, name: &str, size: Option<u64>) -> ProgressBar {
    if !output.shows_progress() {
        return ProgressBar::hidden();
    }
    let template = match size {
        Some(_) => "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{msg} {bytes} {bytes_per_sec}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_style(style);
    bar.set_message(Escaped::new(name).to_string());
    bar.enable_steady_tick(TICK);
    bar
}

/// What a person or a program sees of a transfer while it runs.
pub(super) struct Bar {
    output: Output,
    name: String,
    shown: ProgressBar,
    state: Mutex<Moved>,
}

struct Moved {
    size: u64,
    expected: u64,
    n_retries: u64,
    began: Instant,
    told: Instant,
}

impl Bar {
    pub(super) fn new(output: Output, name: &str) -> Self {
        let now = Instant::now();
        let state = Moved {
            size: 0,
            expected: 0,
            n_retries: 0,
            began: now,
            told: now,
        };
        Self {
            output,
            name: name.to_owned(),
            shown: bar(output, name, Some(0)),
            state: Mutex::new(state),
        }
    }

    pub(super) fn finish(&self) {
        self.shown.finish_and_clear();
    }

    fn state(&self) -> MutexGuard<'_, Moved> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Moved {
    fn event(&self, name: &str) -> serde_json::Value {
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = self.size.saturating_mul(1_000) / elapsed_ms.max(1);
        let left = self.expected.saturating_sub(self.size);
        json!({"progress": {
            "name": name,
            "size": self.size,
            "expected": self.expected,
            "rate": rate,
            "eta": left.checked_div(rate),
            "n_retries": self.n_retries,
        }})
    }
}

impl Observer for Bar {
    fn expect(&self, size: u64) {
        self.state().expected = size;
        self.shown.set_length(size);
    }

    fn moved(&self, size: u64) {
        self.shown.inc(size);
        let mut state = self.state();
        state.size += size;
        if self.output.is_json() && state.told.elapsed() >= EVENT_PERIOD {
            state.told = Instant::now();
            let _ = writeln!(io::stderr(), "{}", state.event(&self.name));
        }
    }

    fn begin_again(&self) {
        self.state().size = 0;
        self.shown.set_position(0);
    }

    fn interrupted(&self, why: &ClientError) {
        let n_retries = {
            let mut state = self.state();
            state.n_retries += 1;
            state.n_retries
        };
        let why = with_causes(why);
        if self.output.is_json() {
            let event =
                json!({"retry": {"name": self.name, "n_retries": n_retries, "message": why}});
            let _ = writeln!(io::stderr(), "{event}");
        } else if !self.output.is_quiet() {
            self.shown
                .suspend(|| complain(&format!("{why}; trying again"), None));
        }
    }
}

/// A source or sink that a bar watches.
pub(super) struct Watched<T> {
    pub(super) inner: T,
    bar: ProgressBar,
}

impl<T> Watched<T> {
    pub(super) fn new(inner: T, bar: &ProgressBar) -> Self {
        Self {
            inner,
            bar: bar.clone(),
        }
    }
}

impl<T: Read> Read for Watched<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bar.inc(n as u64);
        Ok(n)
    }
}

impl<T: Write> Write for Watched<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.bar.inc(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
