//! The one encoder of log lines.
//!
//! Promises that an event is exactly one line, whatever its texts hold: control characters, line separators and
//! characters that turn the direction of text around are written as escapes, in both forms. That a text is cut at
//! [`LONGEST`] bytes. And that what stands between `://` and `@` in a URL is not written: it may be a password.

use std::borrow::Cow;
use std::fmt::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::Level;

/// The longest text of a field, bytes.
pub const LONGEST: usize = 8 << 10;
/// Names that every line has. A field of an event that is called like one of them is written with `field_` before it.
const RESERVED: [&str; 6] = ["time", "level", "service", "node", "target", "message"];

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Json,
    /// For people.
    Human {
        /// Whether the level is coloured.
        colour: bool,
    },
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number or truth value, as JSON has it.
    Bare(String),
}

/// Fields in the order in which they were recorded.
pub type Fields = Vec<(&'static str, Value)>;

/// What a line is made of.
#[derive(Debug)]
pub struct Line<'a> {
    /// When.
    pub time: OffsetDateTime,
    /// How bad.
    pub level: Level,
    /// Which service speaks.
    pub service: &'a str,
    /// On which node.
    pub node: &'a str,
    /// Which module.
    pub target: &'a str,
    /// What happened.
    pub message: &'a str,
    /// Fields of the spans, outermost first, then those of the event. Of fields of one name the last counts.
    pub fields: &'a [(&'static str, Value)],
}

impl Line<'_> {
    /// The line, with its end.
    #[must_use]
    pub fn encode(&self, form: Form) -> String {
        match form {
            Form::Json => self.json(),
            Form::Human { colour } => self.human(colour),
        }
    }

    fn time(&self) -> String {
        self.time.format(&Rfc3339).unwrap_or_default()
    }

    /// Fields whose name no later one has.
    fn counting(&self) -> impl Iterator<Item = &(&'static str, Value)> {
        let fields = self.fields;
        fields
            .iter()
            .enumerate()
            .filter(move |(i, f)| !fields.iter().skip(i + 1).any(|l| l.0 == f.0))
            .map(|f| f.1)
    }

    fn json(&self) -> String {
        let mut line = String::with_capacity(256);
        line.push_str("{\"time\":");
        quote(&mut line, &self.time());
        for (name, text) in [
            ("level", self.level.as_str()),
            ("service", self.service),
            ("node", self.node),
            ("target", self.target),
            ("message", self.message),
        ] {
            let _ = write!(line, ",\"{name}\":");
            quote(&mut line, text);
        }
        for (name, value) in self.counting() {
            line.push(',');
            // Names come from the source; they are quoted all the same.
            let reserved = if RESERVED.contains(name) { "field_" } else { "" };
            quote(&mut line, &format!("{reserved}{name}"));
            line.push(':');
            match value {
                Value::Text(text) => quote(&mut line, text),
                Value::Bare(text) => line.push_str(text),
            }
        }
        line.push_str("}\n");
        line
    }

    fn human(&self, colour: bool) -> String {
        let mut line = String::with_capacity(160);
        let (hours, minutes, seconds, millis) = self.time.time().as_hms_milli();
        let (on, off) = match self.level {
            _ if !colour => ("", ""),
            Level::ERROR => ("\x1b[31m", "\x1b[0m"),
            Level::WARN => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[32m", "\x1b[0m"),
        };
        let level = self.level.as_str();
        let _ = write!(line, "{hours:02}:{minutes:02}:{seconds:02}.{millis:03} {on}{level:5}{off} ");
        plain(&mut line, self.message);
        for (name, value) in self.counting() {
            let _ = write!(line, " {name}=");
            match value {
                Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                    quote(&mut line, text)
                }
                Value::Text(text) => plain(&mut line, text),
                Value::Bare(text) => line.push_str(text),
            }
        }
        line.push('\n');
        line
    }
}

/// Whether a character could make a line look like something that it is not.
fn is_deceitful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

fn plain(line: &mut String, text: &str) {
    for c in fit(text).chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            c if is_deceitful(c) => escape(line, c),
            c => line.push(c),
        }
    }
}

fn quote(line: &mut String, text: &str) {
    line.push('"');
    for c in fit(text).chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            c if is_deceitful(c) => escape(line, c),
            c => line.push(c),
        }
    }
    line.push('"');
}

fn escape(line: &mut String, c: char) {
    // All of them are in the basic plane.
    let _ = write!(line, "\\u{:04x}", u32::from(c));
}

/// The text without what is secret in a URL, and no longer than [`LONGEST`].
fn fit(text: &str) -> Cow<'_, str> {
    let text = if text.contains("://") { Cow::Owned(without_passwords(text)) } else { Cow::Borrowed(text) };
    if text.len() <= LONGEST {
        return text;
    }
    let mut end = LONGEST;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}[…]", text.get(..end).unwrap_or_default()).into()
}

fn without_passwords(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        safe.push_str(before);
        safe.push_str("://");
        let authority = after.find(['/', '?', '#', ' ', '"', '\'', '\n']).unwrap_or(after.len());
        let (place, behind) = after.split_at(authority);
        match place.rsplit_once('@') {
            Some((who, host)) => {
                let (user, secret) = who.split_once(':').map_or((who, ""), |(user, _)| (user, ":***"));
                safe.push_str(&format!("{user}{secret}@{host}"));
            }
            None => safe.push_str(place),
        }
        rest = behind;
    }
    safe.push_str(rest);
    safe
}
