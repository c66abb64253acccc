//! "Time exceeded": what the router of a subnet tells an instance whose packet had no hop left to live. No flow can make such a
//! packet, which quotes another; the agent does. So `traceroute` in a guest shows the router.
//!
//! Assumes frames that the switch has sent to [`service::EXPIRED_MAC`], as the guest sent them but for the Ethernet addresses.
//! Promises what the switch gives to that guest as from its router: an ICMP error of at most 576 bytes (RFC 1812 §4.3.2.3) with
//! right checksums. Nothing about what is itself an error, or no whole header.

use std::net::Ipv4Addr;

use gon_net::service;
use gon_types::MacAddr;

use super::quote::{ETHERNET, ICMP, ICMP_HEADER, LEAST_HEADER, LEAST_QUOTE, header_of, sum, word};

/// The largest datagram that everybody takes.
const MOST: usize = 576;
/// "Internetwork control" (RFC 1812 §4.3.2.5).
const PRECEDENCE: u8 = 0xc0;

/// By which address the sender of a frame is known.
#[must_use]
pub fn sender_of(frame: &[u8]) -> Option<Ipv4Addr> {
    frame.get(8..12).map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3]))
}

/// The frame that tells it; `None` if it is not to be told.
#[must_use]
pub fn tell(frame: &[u8]) -> Option<Vec<u8>> {
    let sender = sender_of(frame)?;
    let packet = frame.get(ETHERNET..)?;
    let packet = packet.get(..usize::from(word(packet, 2)?))?;
    let start = header_of(packet)?;
    let later = word(packet, 6)? & 0x1fff != 0;
    let kind = packet.get(start).copied()?;
    if later
        || packet.len() < start + LEAST_QUOTE
        || (packet[9] == ICMP && service::ICMP_ERRORS.contains(&kind))
    {
        return None;
    }
    let quote = &packet[..packet.len().min(MOST - LEAST_HEADER - ICMP_HEADER)];
    let mut icmp = [&[service::TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0], quote].concat();
    let checksum = !sum(&icmp, 0);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let length = u16::try_from(LEAST_HEADER + icmp.len()).ok()?.to_be_bytes();
    let mut header = [&[0x45, PRECEDENCE][..], &length, &[0, 0, 0, 0, 64, ICMP, 0, 0]].concat();
    header.extend([service::ROUTER.octets(), sender.octets()].concat());
    let checksum = !sum(&header, 0);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let ethernet = [&MacAddr::ROUTER.0[..], &service::EXPIRED_MAC.0, &[8, 0]].concat();
    Some([ethernet, header, icmp].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let known = service::link_local(16).octets();
        let ethernet = [&service::EXPIRED_MAC.0[..], &[0, 0], &known, &[8, 0]].concat();
        let header =
            [&[0x45, 0][..], &length, &[0, 7, 0, 0, 1, protocol, 0, 0, 10, 0, 1, 5, 8, 8, 8, 8]].concat();
        [&ethernet[..], &header, payload].concat()
    }

    #[test]
    fn the_sender_is_told_what_it_sent() {
        for (payload, quoted) in [(vec![7; 8], 28), (vec![7; 40], 60), (vec![7; 1400], 548)] {
            let mut sent = frame(17, &payload);
            // Padding is not quoted.
            sent.extend([0xaa; 9]);
            assert_eq!(sender_of(&sent), Some(service::link_local(16)));
            let told = tell(&sent).unwrap();
            assert_eq!(told[..6], MacAddr::ROUTER.0);
            assert_eq!(told[26..30], service::ROUTER.octets());
            assert_eq!(told[30..34], service::link_local(16).octets());
            assert_eq!((told[34], told[35]), (11, 0));
            assert_eq!((sum(&told[14..34], 0), sum(&told[34..], 0)), (0xffff, 0xffff));
            assert_eq!(told[42..], sent[14..14 + quoted]);
            assert!(told.len() - 14 <= MOST);
        }
    }

    #[test]
    fn errors_and_noise_are_told_nothing() {
        let good = frame(ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
        assert!(tell(&good).is_some());
        for kind in service::ICMP_ERRORS {
            assert!(tell(&frame(ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0])).is_none());
        }
        let mut later = good.clone();
        later[21] = 1;
        assert!(tell(&later).is_none());
        for length in 0..good.len() {
            assert!(tell(&good[..length]).is_none(), "{length}");
        }
        for at in 0..good.len() {
            for byte in [0, 1, 0x0f, 0x40, 0x4f, 0x7f, 0xff] {
                let mut noise = good.clone();
                noise[at] = byte;
                let _ = tell(&noise);
            }
        }
    }
}
