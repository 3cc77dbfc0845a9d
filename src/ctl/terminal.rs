//! Where words go: results to stdout, talk to stderr, questions to whoever sits there. Holds no layout.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{QueueSelector, tcflush};
use serde::Serialize;

use super::CtlError;
use super::render::Paint;

/// The three streams of the process and what may be done with them.
pub(super) struct Terminal {
    out: RefCell<Box<dyn Write>>,
    err: RefCell<Box<dyn Write>>,
    input: RefCell<Box<dyn BufRead>>,
    /// It is the process's own.
    stdin: bool,
    /// Results as JSON.
    pub(super) json: bool,
    /// Colors of stdout.
    pub(super) paint: Paint,
    /// stdout is a terminal: it may be redrawn.
    pub(super) redraws: bool,
    /// stderr is a terminal: progress may be shown.
    pub(super) progress: bool,
    /// Somebody sits there who can answer a question.
    pub(super) interactive: bool,
}

impl Terminal {
    /// Of this process; `NO_COLOR` and `TERM=dumb` respected.
    pub(super) fn of_process(json: bool) -> Self {
        let set = |key: &str| std::env::var_os(key).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        Self {
            out: RefCell::new(Box::new(std::io::stdout())),
            err: RefCell::new(Box::new(std::io::stderr())),
            input: RefCell::new(Box::new(std::io::BufReader::new(std::io::stdin()))),
            stdin: true,
            json,
            paint: fitted(Paint::new(out && !set("NO_COLOR") && !dumb)),
            redraws: out && !dumb,
            progress: err && !dumb,
            interactive: err && std::io::stdin().is_terminal(),
        }
    }

    /// A result: one text, ended by a newline if it has none.
    pub(super) fn result(&self, text: &str) -> std::io::Result<()> {
        let mut out = self.out.borrow_mut();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// A result for machines, on one line.
    pub(super) fn result_json<T: Serialize>(&self, value: &T) -> Result<(), CtlError> {
        let text = serde_json::to_string(value)?;
        Ok(self.result(&text)?)
    }

    /// The colors of stdout, as wide as it is now.
    pub(super) fn fitted(&self) -> Paint {
        fitted(self.paint)
    }

    /// Draws over what was drawn before; what does not fit is cut at the bottom, where the least important stands.
    pub(super) fn redraw(&self, text: &str) -> std::io::Result<()> {
        // The last two lines are the newlines' own: without them the first line would scroll away.
        let rows = size().map_or(usize::MAX, |(_, rows)| rows.saturating_sub(2));
        let fits: Vec<&str> = text.trim_end_matches('\n').lines().take(rows).collect();
        // Home, each line cleared before it is written (after it, its last column would go too), then the rest of the
        // screen: no flicker, as a full clear would make. And no line takes two rows: the counting would be wrong.
        let lines = fits.join("\n\x1b[K");
        self.result(&format!("\x1b[?7l\x1b[H\x1b[K{lines}\n\x1b[J\x1b[?7h"))
    }

    /// Talk: one or more lines on stderr.
    pub(super) fn talk(&self, text: &str) -> std::io::Result<()> {
        let mut err = self.err.borrow_mut();
        writeln!(err, "{}", text.trim_end_matches('\n'))?;
        err.flush()
    }

    /// A problem: on stderr, and as JSON on stdout where JSON is wanted.
    pub(super) fn problem(&self, sentence: &str) -> std::io::Result<()> {
        if self.json {
            let line = serde_json::json!({ "error": sentence });
            self.result(&line.to_string())?;
        }
        self.talk(&format!("proxyctl: {sentence}"))
    }

    /// Asks; only `y` and `yes` are a yes, the end of the input is a no.
    pub(super) fn ask(&self, question: &str) -> std::io::Result<bool> {
        self.put_question(question)?;
        self.hears_yes()
    }

    /// Puts a question to which [`Self::hears_yes`] reads the answer. What was typed before is none.
    pub(super) fn put_question(&self, question: &str) -> std::io::Result<()> {
        if self.stdin {
            let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
        }
        self.put(&format!("{question} [y/N]"))
    }

    /// Is there something to read? Where that cannot be known, yes: reading waits.
    pub(super) fn is_answered(&self) -> bool {
        let stdin = std::io::stdin();
        let mut look = [PollFd::new(&stdin, PollFlags::IN)];
        !self.stdin || poll(&mut look, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the answer.
    pub(super) fn hears_yes(&self) -> std::io::Result<bool> {
        Ok(matches!(self.line()?.to_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for a text; the end of the input is an empty one.
    pub(super) fn ask_for(&self, question: &str) -> std::io::Result<String> {
        self.put(question)?;
        self.line()
    }

    fn put(&self, question: &str) -> std::io::Result<()> {
        let mut err = self.err.borrow_mut();
        write!(err, "{question} ")?;
        err.flush()
    }

    fn line(&self) -> std::io::Result<String> {
        let mut answer = String::new();
        if self.input.borrow_mut().read_line(&mut answer)? == 0 {
            // Nobody has pressed Return.
            self.talk("")?;
        }
        Ok(answer.trim().to_owned())
    }
}

fn fitted(paint: Paint) -> Paint {
    size().map_or(paint, |(columns, _)| paint.within(columns))
}

/// Columns and rows of stdout, where it is a terminal that knows.
fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

#[cfg(test)]
pub(super) mod captured {
    //! A terminal whose words a test can read.

    use super::*;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    pub(in crate::ctl) struct Heard(Rc<RefCell<Vec<u8>>>);

    impl Heard {
        pub(in crate::ctl) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// `answer`: what a person types, `None` = nobody is there.
    pub(in crate::ctl) fn terminal(json: bool, answer: Option<&'static str>) -> (Terminal, Heard, Heard) {
        let (out, err) = (Heard::default(), Heard::default());
        let terminal = Terminal {
            out: RefCell::new(Box::new(out.clone())),
            err: RefCell::new(Box::new(err.clone())),
            input: RefCell::new(Box::new(std::io::Cursor::new(answer.unwrap_or_default()))),
            stdin: false,
            json,
            paint: Paint::new(false),
            redraws: false,
            progress: false,
            interactive: answer.is_some(),
        };
        (terminal, out, err)
    }
}
