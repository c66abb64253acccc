//! ICMP errors between guests and the outside, in which the quoted packet bears the guest's other address: rewritten here,
//! because no flow can (`gon_net`'s stage `requote`).
//!
//! Assumes frames that the switch has sent to [`service::QUOTE_MAC`]: from that address too if a guest has sent the error,
//! with its public address as the source already; from the router's if it comes from outside. Promises of what is given
//! back: a whole ICMP error whose quote is a packet of, or to, a public address of this node; everything outside the quote as
//! it was; all checksums right, which were right before.

use std::net::Ipv4Addr;

use gon_net::service;
use gon_types::MacAddr;

pub(super) const ETHERNET: usize = 14;
/// Of an IPv4 header without options.
pub(super) const LEAST_HEADER: usize = 20;
pub(super) const ICMP_HEADER: usize = 8;
/// What is always quoted behind the quoted header (RFC 792).
pub(super) const LEAST_QUOTE: usize = 8;
/// Where the addresses are in an IPv4 header.
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
/// The sum over what has a right checksum in it.
const WHOLE: u16 = 0xffff;
pub(super) const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The public address of this node that a frame is about, if it can be one: for those who keep count.
#[must_use]
pub fn public_of(frame: &[u8]) -> Option<Ipv4Addr> {
    address(frame, ETHERNET + if leaves(frame) { SOURCE } else { DESTINATION })
}

/// Whether it comes from a guest.
fn leaves(frame: &[u8]) -> bool {
    frame.get(6..12) == Some(&service::QUOTE_MAC.0)
}

/// Translates the quote of an error and turns the frame round. `private` knows the private address behind each public one of this
/// node. False if it is not to go on.
#[must_use]
pub fn translate(frame: &mut [u8], private: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>) -> bool {
    let leaves = leaves(frame);
    let done = packet(frame).is_some_and(|packet| rewrite(packet, leaves, private).is_some());
    if done {
        frame[..6].copy_from_slice(&MacAddr::ROUTER.0);
        frame[6..12].copy_from_slice(&service::QUOTE_MAC.0);
    }
    done
}

/// The packet in a frame, without the padding behind it.
fn packet(frame: &mut [u8]) -> Option<&mut [u8]> {
    let packet = frame.get_mut(ETHERNET..)?;
    let length = usize::from(word(packet, 2)?);
    packet.get_mut(..length)
}

fn rewrite(packet: &mut [u8], leaves: bool, private: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>) -> Option<()> {
    let start = header_of(packet)?;
    let fragment = word(packet, 6)? & 0x3fff != 0;
    if packet[9] != ICMP || fragment {
        return None;
    }
    let (from, to) = (address(packet, SOURCE)?, address(packet, DESTINATION)?);
    let icmp = packet.get_mut(start..)?;
    if icmp.len() < ICMP_HEADER || !service::ICMP_ERRORS.contains(&icmp[0]) || sum(icmp, 0) != WHOLE {
        return None;
    }
    let quote = &mut icmp[ICMP_HEADER..];
    let header = header_of(quote)?;
    if quote.len() < header + LEAST_QUOTE || sum(&quote[..header], 0) != WHOLE {
        return None;
    }
    if leaves {
        // The guest has received what is quoted.
        replace(quote, header, DESTINATION, private(from)?, from)?;
    }
    match private(to) {
        // The guest, or its neighbour on this node, has sent what is quoted.
        Some(private) => replace(quote, header, SOURCE, to, private)?,
        None if leaves => {}
        None => return None,
    }
    icmp[2..4].copy_from_slice(&[0, 0]);
    let checksum = !sum(icmp, 0);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Replaces an address of the quoted packet, provided that it is the one it must be.
fn replace(quote: &mut [u8], header: usize, at: usize, old: Ipv4Addr, new: Ipv4Addr) -> Option<()> {
    if address(quote, at)? != old {
        return None;
    }
    quote[at..at + 4].copy_from_slice(&new.octets());
    mend(quote, 10, old, new);
    // The quoted packet's own checksum covers its addresses, too. It may lie beyond what is quoted.
    let first = word(quote, 6)? & 0x1fff == 0;
    match quote[9] {
        TCP if first => mend(quote, header + 16, old, new),
        UDP if first && word(quote, header + 6) != Some(0) => mend(quote, header + 6, old, new),
        _ => {}
    }
    Some(())
}

/// The length of an IPv4 header, if there is one.
pub(super) fn header_of(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let length = usize::from(first & 15) * 4;
    (first >> 4 == 4 && length >= LEAST_HEADER && packet.len() >= length).then_some(length)
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    packet.get(at..at + 4).map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3]))
}

/// The Internet checksum's sum, one's complement.
pub(super) fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Makes a checksum right again after one address has become another (RFC 1624, equation 3); one that is not there stays so.
fn mend(bytes: &mut [u8], at: usize, old: Ipv4Addr, new: Ipv4Addr) {
    let Some(checksum) = word(bytes, at) else { return };
    let old: Vec<u8> = old.octets().iter().map(|byte| !byte).collect();
    let changed = sum(&[&old[..], &new.octets()].concat(), u32::from(!checksum));
    bytes[at..at + 2].copy_from_slice(&(!changed).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);
    const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    /// Another guest of this node, with the same private address in its VPC.
    const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    fn private(public: Ipv4Addr) -> Option<Ipv4Addr> {
        [PUBLIC, NEIGHBOUR].contains(&public).then_some(PRIVATE)
    }
    fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut header = [&[0x45, 0][..], &length, &[0, 7, 0, 0, 64, protocol, 0, 0]].concat();
        header.extend([from.octets(), to.octets()].concat());
        let checksum = !sum(&header, 0);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        [header, payload.to_vec()].concat()
    }
    /// UDP with its checksum.
    fn udp(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut datagram = vec![0x12, 0x34, 0, 53, 0, 13, 0, 0, b'h', b'e', b'l', b'l', b'o'];
        let pseudo = [&from.octets()[..], &to.octets(), &[0, UDP, 0, 13]].concat();
        let checksum = !sum(&datagram, u32::from(sum(&pseudo, 0)));
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        ipv4(from, to, UDP, &datagram)
    }
    fn error(way: MacAddr, (from, to): (Ipv4Addr, Ipv4Addr), kind: u8, quote: &[u8]) -> Vec<u8> {
        let mut icmp = [&[kind, 4, 0, 0, 0, 0, 5, 120][..], quote].concat();
        let checksum = !sum(&icmp, 0);
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        [&service::QUOTE_MAC.0[..], &way.0, &[8, 0], &ipv4(from, to, ICMP, &icmp)].concat()
    }
    const COMES: MacAddr = MacAddr::ROUTER;
    const LEAVES: MacAddr = service::QUOTE_MAC;

    #[test]
    fn a_quote_is_of_the_packet_as_its_sender_knows_it() {
        for (way, ends, quote, about, wanted) in [
            (COMES, (PEER, PUBLIC), udp(PUBLIC, PEER), PUBLIC, udp(PRIVATE, PEER)),
            (LEAVES, (PUBLIC, PEER), udp(PEER, PRIVATE), PUBLIC, udp(PEER, PUBLIC)),
            // Between two guests here: as if it had left and come again.
            (LEAVES, (PUBLIC, NEIGHBOUR), udp(NEIGHBOUR, PRIVATE), PUBLIC, udp(PRIVATE, PUBLIC)),
        ] {
            let mut frame = error(way, ends, 3, &quote);
            assert_eq!(public_of(&frame), Some(about));
            // Padding stays where it is.
            frame.extend([0xaa; 9]);
            assert!(translate(&mut frame, private));
            // As if it had been about the other packet from the beginning, bit for bit.
            assert_eq!(frame[14..frame.len() - 9], error(way, ends, 3, &wanted)[14..]);
            assert_eq!((&frame[..6], &frame[6..12]), (&MacAddr::ROUTER.0[..], &service::QUOTE_MAC.0[..]));
        }
    }

    #[test]
    fn what_is_not_an_error_about_the_guest_goes_nowhere() {
        let good = error(COMES, (PEER, PUBLIC), 3, &udp(PUBLIC, PEER));
        assert!(translate(&mut good.clone(), private));
        let with = |at: usize, byte: u8| {
            let mut frame = good.clone();
            frame[at] = byte;
            frame
        };
        let broken = {
            let mut quote = udp(PUBLIC, PEER);
            quote[8] ^= 1;
            quote
        };
        for (what, mut frame) in [
            ("another's packet", error(COMES, (PEER, PUBLIC), 3, &udp(NEIGHBOUR, PEER))),
            ("a private quote from outside", error(COMES, (PEER, PUBLIC), 3, &udp(PRIVATE, PEER))),
            ("a public quote from a guest", error(LEAVES, (PUBLIC, PEER), 3, &udp(PEER, PUBLIC))),
            ("from nobody's address", error(LEAVES, (PEER, PUBLIC), 3, &udp(PUBLIC, PRIVATE))),
            ("to nobody", error(COMES, (PUBLIC, PEER), 3, &udp(PEER, PUBLIC))),
            ("an echo", error(COMES, (PEER, PUBLIC), 8, &udp(PUBLIC, PEER))),
            ("a redirect", error(COMES, (PEER, PUBLIC), 5, &udp(PUBLIC, PEER))),
            ("a short quote", error(COMES, (PEER, PUBLIC), 3, &udp(PUBLIC, PEER)[..27])),
            ("no quote", error(COMES, (PEER, PUBLIC), 3, &[])),
            ("a wrong checksum", with(ETHERNET + 22, good[ETHERNET + 22] ^ 1)),
            ("a wrong quoted checksum", error(COMES, (PEER, PUBLIC), 3, &broken)),
            ("a fragment", with(ETHERNET + 6, 0x20)),
            ("TCP", with(ETHERNET + 9, TCP)),
            ("IPv6", with(ETHERNET, 0x65)),
            ("longer than it is", with(ETHERNET + 2, 0xff)),
            ("nothing", vec![]),
        ] {
            let before = frame.clone();
            assert!(!translate(&mut frame, private), "{what}");
            assert_eq!(frame.get(..12), before.get(..12), "{what}");
        }
        for length in 0..good.len() {
            assert!(!translate(&mut good[..length].to_vec(), private), "{length}");
        }
        // Noise in every place is survived.
        for at in 0..good.len() {
            for byte in [0, 1, 0x0f, 0x40, 0x4f, 0x7f, 0xff] {
                let _ = translate(&mut with(at, byte), private);
            }
        }
    }
}
