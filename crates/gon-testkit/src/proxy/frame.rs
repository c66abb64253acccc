//! Where frames begin and end, for faults that act on frames.

/// Length of the frame that these bytes begin with, its header included; none if too little is there to tell.
pub type Framer = fn(&[u8]) -> Option<usize>;

/// AMQP 0-9-1: the greeting of a client, and frames.
#[must_use]
pub fn amqp(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'A') {
        return Some(8);
    }
    let size = u32::from_be_bytes(bytes.get(3..7)?.try_into().ok()?);
    // Type, channel and size before the payload, one octet after it.
    usize::try_from(size).ok()?.checked_add(8)
}

/// Lines, each with its end.
#[must_use]
pub fn lines(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
}
