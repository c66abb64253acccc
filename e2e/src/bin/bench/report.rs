//! The table.

use std::fmt::Write as _;

/// Medians of rounds, with the extremes.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: percentile(&sorted, 0.5),
            min: sorted.first().copied().unwrap_or(f64::NAN),
            max: sorted.last().copied().unwrap_or(f64::NAN),
        }
    }
    fn shown(&self, unit: &str) -> String {
        if (self.max - self.min).abs() < f64::EPSILON {
            format!("{} {unit}", number(self.median))
        } else {
            format!("{} {unit} ({}–{})", number(self.median), number(self.min), number(self.max))
        }
    }
}

/// The value below which the fraction `q` of sorted values lies.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small"
)]
pub fn percentile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v < 0.1 => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}

/// What a figure must be to be good.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Ours divided by the peer's, at least.
    RatioAtLeast(f64),
    /// Ours divided by the peer's, at most.
    RatioAtMost(f64),
    /// Ours, at most.
    AtMost(f64),
    /// For the record.
    None,
}

#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<[String; 6]>,
    notes: Vec<String>,
}

impl Report {
    pub fn add(
        &mut self,
        what: &str,
        unit: &str,
        ours: Spread,
        peer: Option<(&str, Spread)>,
        target: Target,
    ) {
        let ratio = peer.map(|(_, p)| ours.median / p.median);
        let (wanted, good) = match target {
            Target::RatioAtLeast(r) => (format!("≥ {r} ×"), ratio.map(|x| x >= r)),
            Target::RatioAtMost(r) => (format!("≤ {r} ×"), ratio.map(|x| x <= r)),
            Target::AtMost(v) => (format!("≤ {} {unit}", number(v)), Some(ours.median <= v)),
            Target::None => (String::new(), None),
        };
        let mark = match good {
            Some(true) => "✓",
            Some(false) => "✗",
            None => "",
        };
        let row = [
            what.to_owned(),
            ours.shown(unit),
            peer.map(|(name, p)| format!("{name} {}", p.shown(unit))).unwrap_or_default(),
            ratio.map(|r| format!("{} ×", number(r))).unwrap_or_default(),
            wanted,
            mark.to_owned(),
        ];
        eprintln!("{}", row.join(" | "));
        self.rows.push(row);
    }

    /// Something that whoever reads the table must know.
    pub fn note(&mut self, text: String) {
        eprintln!("{text}");
        self.notes.push(text);
    }

    pub fn table(&self) -> String {
        let head = ["figure", "ours", "peer", "ratio", "target", ""].map(str::to_owned);
        let all: Vec<&[String; 6]> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..6).map(width).collect();
        let mut text = String::new();
        for (index, row) in all.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell}{}  ", " ".repeat(width - cell.chars().count()));
            }
            text.push_str(line.trim_end());
            text.push('\n');
            if index == 0 {
                text.push_str(&"─".repeat(widths.iter().sum::<usize>() + 10));
                text.push('\n');
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        text
    }
}
