//! What the user sees while it works: one line that moves on a terminal, nothing in a pipe.

use std::future::Future;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The moving line.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Drawn on stderr when that is a terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// Says what begins; it has no known end.
    pub fn step(&self, phase: &str, what: &str) {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {prefix:9} {msg}") {
            self.bar.set_style(style);
        }
        self.bar.set_prefix(phase.to_owned());
        self.bar.set_message(what.to_owned());
    }

    /// Says what runs, with a bar over the time it takes.
    pub async fn over<T>(&self, phase: &str, what: &str, time: Duration, work: impl Future<Output = T>) -> T {
        let template = "{spinner} {elapsed:>4} {prefix:9} {bar:24} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_prefix(phase.to_owned());
        self.bar.set_message(what.to_owned());
        self.bar.set_length(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let began = std::time::Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = tick.tick() => {
                    self.bar.set_position(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                }
            }
        }
    }

    /// Leaves a line above the moving one.
    pub fn say(&self, text: &str) {
        self.bar.println(text);
    }

    /// Takes the moving line away while `work` writes to the terminal.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// Takes the moving line away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
