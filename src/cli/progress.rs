//! The progress bar, on a terminal only.

use std::io::{self, Read, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use crate::escape::Escaped;

const TICK: Duration = Duration::from_millis(200);

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
