//! Messages: how a doorbell is written, what counts as one, and who notices that one is missing.

use std::collections::HashMap;

use gon_proto::Doorbell;
use gon_proto::doorbell::{Envelope, LONGEST, Subject, VERSION};
use serde::Deserialize;
use uuid::Uuid;

/// So many senders are remembered; there are a handful at a time, and a new one whenever a process starts.
const SENDERS: usize = 1024;

/// Why a message is no doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Poison {
    #[error("it has {0} bytes")]
    TooLong(usize),
    #[error("it has version {0}")]
    Version(u64),
    #[error("it is no envelope")]
    Malformed,
}

/// Writes one.
pub(super) fn write(envelope: &Envelope) -> Vec<u8> {
    // Numbers, ids and a word: there is nothing in it that JSON cannot say.
    serde_json::to_vec(envelope).unwrap_or_default()
}

/// Reads one.
pub(super) fn read(bytes: &[u8]) -> Result<Envelope, Poison> {
    if bytes.len() > LONGEST {
        return Err(Poison::TooLong(bytes.len()));
    }
    match serde_json::from_slice::<Envelope>(bytes) {
        Ok(envelope) if envelope.v == VERSION => Ok(envelope),
        Ok(envelope) => Err(Poison::Version(envelope.v.into())),
        Err(_) => Err(other_version(bytes).map_or(Poison::Malformed, Poison::Version)),
    }
}

fn other_version(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u64,
    }
    let version = serde_json::from_slice::<Versioned>(bytes).ok()?.v;
    (version != u64::from(VERSION)).then_some(version)
}

/// Numbers what one sender sends.
#[derive(Debug)]
pub(super) struct Sender {
    from: Uuid,
    sent: [u64; Subject::ALL.len()],
}

impl Sender {
    pub(super) fn new() -> Self {
        Self { from: Uuid::now_v7(), sent: [0; Subject::ALL.len()] }
    }

    /// The next envelope. One that is made and not sent is a gap, which its receivers take for a loss.
    pub(super) fn envelope(&mut self, doorbell: Doorbell) -> Envelope {
        let seq = &mut self.sent[doorbell.subject as usize];
        *seq += 1;
        Envelope { v: VERSION, from: self.from, seq: *seq, subject: doorbell.subject, id: doorbell.id }
    }
}

/// What one subscriber has heard of each sender.
#[derive(Debug, Default)]
pub(super) struct Heard(HashMap<(Uuid, Subject), u64>);

impl Heard {
    /// Takes note of an envelope; false if others before it did not come. What comes again or late is no loss.
    pub(super) fn note(&mut self, envelope: &Envelope) -> bool {
        if self.0.len() >= SENDERS {
            // Those that still send look like new ones, which costs a look at everything.
            self.0.clear();
        }
        let last = self.0.entry((envelope.from, envelope.subject)).or_default();
        let complete = envelope.seq <= last.saturating_add(1);
        *last = envelope.seq.max(*last);
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut sender = Sender::new();
        for subject in Subject::ALL {
            let id = Uuid::now_v7();
            let envelope = sender.envelope(Doorbell { subject, id });
            assert_eq!(read(&write(&envelope)), Ok(envelope));
            assert_eq!((envelope.v, envelope.seq, envelope.subject, envelope.id), (1, 1, subject, id));
            assert!(
                String::from_utf8(write(&envelope)).unwrap().contains(&format!("\"{}\"", subject.as_str()))
            );
        }
    }

    #[test]
    fn the_format_is_the_documented_one() {
        let text = r#"{"v":1,"from":"0196f0c2-6c1e-7cc3-98c4-dc0c0c07398f","seq":17,"subject":"vpc","id":"0196f0c2-6c1e-7d11-8a7f-2f1d8f5a9b10"}"#;
        let envelope = read(text.as_bytes()).unwrap();
        assert_eq!((envelope.seq, envelope.subject), (17, Subject::Vpc));
        assert_eq!(write(&envelope), text.as_bytes());
    }

    #[test]
    fn poison_is_recognised() {
        let good = write(&Sender::new().envelope(Doorbell { subject: Subject::Vpc, id: Uuid::now_v7() }));
        let good = String::from_utf8(good).unwrap();
        assert_eq!(read(b""), Err(Poison::Malformed));
        assert_eq!(read(b"\xff\xfe{"), Err(Poison::Malformed));
        assert_eq!(read(good.replace("vpc", "planet").as_bytes()), Err(Poison::Malformed));
        assert_eq!(read(good.replace("{", "{\"more\":1,").as_bytes()), Err(Poison::Malformed));
        assert_eq!(read(good.replace("\"seq\":1", "\"seq\":-1").as_bytes()), Err(Poison::Malformed));
        assert_eq!(read(good.replace("\"v\":1", "\"v\":2").as_bytes()), Err(Poison::Version(2)));
        assert_eq!(read(b"{\"v\":3,\"anything\":[]}"), Err(Poison::Version(3)));
        assert_eq!(read(&vec![b' '; LONGEST + 1]), Err(Poison::TooLong(LONGEST + 1)));
        assert_eq!(read("[".repeat(60_000).as_bytes()), Err(Poison::Malformed), "no stack is deep enough");
    }

    #[test]
    fn a_gap_is_noticed_and_nothing_else_is_one() {
        let (mut sender, mut other, mut heard) = (Sender::new(), Sender::new(), Heard::default());
        let mut next = |subject| sender.envelope(Doorbell { subject, id: Uuid::nil() });
        let [one, two, _lost, four, five] = [(); 5].map(|()| next(Subject::Vpc));
        assert!(heard.note(&one) && heard.note(&two) && heard.note(&one));
        assert!(!heard.note(&four), "three is missing");
        assert!(heard.note(&five) && heard.note(&four), "once");
        assert!(heard.note(&next(Subject::Node)), "another subject counts by itself");
        assert!(heard.note(&other.envelope(Doorbell { subject: Subject::Vpc, id: Uuid::nil() })));
        // The beginning counts, too: a sender that starts at two has rung before.
        assert!(!Heard::default().note(&two));
        for _ in 0..3 * SENDERS {
            heard.note(&Sender::new().envelope(Doorbell { subject: Subject::Vpc, id: Uuid::nil() }));
            assert!(heard.0.len() <= SENDERS);
        }
    }
}
