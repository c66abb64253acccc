//! DNS for guests: the names of their own VPC are answered here, everything else is asked of the host's resolvers.
//!
//! Assumes that the port is known (the switch wrote its address). This file is the pure half: what a query asks, whether
//! it is about us, and how an answer looks; sockets are in [`super::services`]. Promises that no bytes can make it
//! panic, that its answers are no larger than a question and one record, and that a VPC's names and addresses are told
//! to nobody outside that VPC.
//!
//! Names: `ip-10-0-1-5.DOMAIN` with the DOMAIN that DHCP gave, for every address in use in the VPC, and back
//! (`5.1.0.10.in-addr.arpa`). Only the question is parsed (RFC 1035 §4.1.2); the rest of a query is passed on unread.

use std::net::Ipv4Addr;

use super::view::{PortView, View};

/// How long a name of ours may be remembered, seconds.
const TTL: u32 = 60;
/// The largest query that is looked at: what fits a packet.
const QUERY_LIMIT: usize = 1500;
/// The largest answer sent by UDP: anything more would be fragments, which are not passed on. The client asks again by TCP.
pub const UDP_LIMIT: usize = 1232;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// What to do with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it so.
    Answer(Vec<u8>),
    /// Ask the host's resolvers.
    Forward,
    /// It is not a query.
    Drop,
}

/// The question of a query.
struct Question {
    /// Its name in lower case, labels separated by dots, without the last one.
    name: String,
    kind: u16,
    class: u16,
    /// Where it ends in the message.
    end: usize,
}

/// What to do with a query from this port.
#[must_use]
pub fn judge(of: PortView<'_>, view: &View, query: &[u8]) -> Verdict {
    let Some(question) = parse(query) else { return Verdict::Drop };
    if question.class != CLASS_IN {
        return Verdict::Forward;
    }
    let domain = of.port.dhcp.domain.to_ascii_lowercase();
    let domain = domain.trim_end_matches('.');
    let has = |address| view.has_address(of.vpc.id, address);
    if let Some(host) = below(&question.name, domain) {
        let found = address_of(host).filter(|address| has(*address));
        return Verdict::Answer(match found {
            Some(address) if matches!(question.kind, TYPE_A | TYPE_ANY) => {
                record(query, &question, TYPE_A, &address.octets())
            }
            // The domain itself is there, with nothing to say.
            Some(_) => reply(query, &question, NO_ERROR),
            None if host.is_empty() => reply(query, &question, NO_ERROR),
            None => reply(query, &question, NO_SUCH_NAME),
        });
    }
    if let Some(address) = reverse(&question.name)
        && of.vpc.cidr_blocks.iter().any(|block| block.contains(&address))
    {
        let name = format!("{}.{domain}", host_name(address));
        return Verdict::Answer(match encode_name(&name) {
            Some(name) if has(address) && matches!(question.kind, TYPE_PTR | TYPE_ANY) => {
                record(query, &question, TYPE_PTR, &name)
            }
            _ if has(address) => reply(query, &question, NO_ERROR),
            _ => reply(query, &question, NO_SUCH_NAME),
        });
    }
    Verdict::Forward
}

/// "I could not find out": for a query that no resolver answered.
#[must_use]
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    Some(reply(query, &parse(query)?, SERVER_FAILURE))
}

/// A query with another id, to be asked of a resolver.
#[must_use]
pub fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
    message
}

/// Whether this is the answer to that query as it was sent: same id, a reply, the same question.
#[must_use]
pub fn answers(query: &[u8], answer: &[u8]) -> bool {
    let Some(question) = parse(query) else { return false };
    answer.len() >= question.end
        && answer[..2] == query[..2]
        && answer[2] & 0x80 != 0
        && answer[4..6] == [0, 1]
        && answer[HEADER..question.end].eq_ignore_ascii_case(&query[HEADER..question.end])
}

/// An answer as it fits UDP: whole, or only the question with "truncated" set.
#[must_use]
pub fn fit_udp(answer: Vec<u8>) -> Vec<u8> {
    if answer.len() <= UDP_LIMIT {
        return answer;
    }
    let mut short = answer;
    let end = end_of_question(&short).unwrap_or(HEADER);
    short.truncate(end);
    short[2] |= 0x02;
    short[6..HEADER].fill(0);
    short
}

/// The one question of a message that is a query; `None` for anything else.
fn parse(query: &[u8]) -> Option<Question> {
    if query.len() > QUERY_LIMIT || query.len() < HEADER {
        return None;
    }
    let is_query = query[2] & 0xf8 == 0;
    if !is_query || query[4..6] != [0, 1] {
        return None;
    }
    let end = end_of_question(query)?;
    let mut name = String::new();
    let mut at = HEADER;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        if !name.is_empty() {
            name.push('.');
        }
        // A dot or anything odd inside a label must not look like a name of ours.
        for byte in &query[at + 1..at + 1 + length] {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(*byte)),
                b'A'..=b'Z' => name.push(char::from(byte.to_ascii_lowercase())),
                _ => name.push('?'),
            }
        }
        at += 1 + length;
    }
    let word = |at: usize| u16::from_be_bytes([query[at], query[at + 1]]);
    Some(Question { name, kind: word(end - 4), class: word(end - 2), end })
}

/// Where the first question ends; `None` if it is cut, too long, or its name is compressed (there is nothing before
/// it to point to).
fn end_of_question(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        match length {
            0 => break,
            1..=63 if at - HEADER < 255 => {}
            _ => return None,
        }
    }
    (at + 4 <= message.len()).then_some(at + 4)
}

/// What stands before `.domain`; empty for the domain itself, `None` for other names.
fn below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    if domain.is_empty() {
        return None;
    }
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

/// `ip-10-0-1-5` as an address.
fn address_of(host: &str) -> Option<Ipv4Addr> {
    let text = host.strip_prefix("ip-")?.replace('-', ".");
    let address: Ipv4Addr = text.parse().ok()?;
    // Only the way we write it ourselves.
    (host_name(address) == host).then_some(address)
}

fn host_name(address: Ipv4Addr) -> String {
    format!("ip-{}", address.to_string().replace('.', "-"))
}

/// `5.1.0.10.in-addr.arpa` as 10.0.1.5.
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

/// The question again, with a verdict: authoritative, recursion available.
fn reply(query: &[u8], question: &Question, code: u8) -> Vec<u8> {
    let mut bytes = query[..question.end].to_vec();
    bytes[2] = 0x84 | (query[2] & 0x01);
    bytes[3] = 0x80 | code;
    bytes[6..HEADER].fill(0);
    bytes
}

fn record(query: &[u8], question: &Question, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = reply(query, question, NO_ERROR);
    bytes[7] = 1;
    // The name of the question, by pointer.
    bytes.extend_from_slice(&[0xc0, HEADER as u8]);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    bytes.extend_from_slice(&TTL.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The IPv4 addresses of `nameserver` lines (resolv.conf(5)); at most three, as everywhere.
#[must_use]
pub fn resolvers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use gon_net::service::link_local;

    use super::*;
    use crate::network::samples;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(encode_name(name).unwrap());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        bytes
    }

    fn ask(query: &[u8]) -> Verdict {
        let mut document =
            samples::document(1, vec![samples::port(16, "10.0.1.5"), samples::port(17, "10.0.1.6")]);
        // A neighbour VPC's address must not be told.
        let mut foreign = document.addresses[1].clone();
        foreign.vpc = gon_types::id::VpcId::new();
        foreign.private_ip = Ipv4Addr::new(10, 0, 1, 7);
        document.addresses.push(foreign);
        let view = View::new(document);
        judge(view.port_at(link_local(16)).unwrap(), &view, query)
    }

    fn answered(query: &[u8]) -> (u8, Vec<u8>) {
        let Verdict::Answer(bytes) = ask(query) else { panic!("not answered here") };
        assert!(answers(query, &bytes));
        assert_eq!(bytes[7], u8::from(bytes.len() > query.len()));
        (bytes[3] & 0x0f, bytes[query.len()..].to_vec())
    }

    #[test]
    fn names_and_addresses_of_the_vpc_are_answered() {
        let mut a = vec![0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
        a.extend_from_slice(&[10, 0, 1, 6]);
        assert_eq!(answered(&query("ip-10-0-1-6.gon-1.compute.internal", TYPE_A)), (NO_ERROR, a.clone()));
        assert_eq!(answered(&query("IP-10-0-1-6.Gon-1.Compute.INTERNAL", TYPE_A)), (NO_ERROR, a));
        assert_eq!(answered(&query("ip-10-0-1-6.gon-1.compute.internal", 28)), (NO_ERROR, vec![]));
        assert_eq!(answered(&query("gon-1.compute.internal", TYPE_A)), (NO_ERROR, vec![]));
        for name in ["ip-10-0-1-7", "ip-010-0-1-6", "ip-10-0-1", "ip-10-0-1-6-7", "x", "a.ip-10-0-1-6"] {
            let name = format!("{name}.gon-1.compute.internal");
            assert_eq!(answered(&query(&name, TYPE_A)), (NO_SUCH_NAME, vec![]), "{name}");
        }
        let (code, record) = answered(&query("6.1.0.10.in-addr.arpa", TYPE_PTR));
        assert_eq!(code, NO_ERROR);
        assert!(record.ends_with(&encode_name("ip-10-0-1-6.gon-1.compute.internal").unwrap()));
        assert_eq!(answered(&query("7.1.0.10.in-addr.arpa", TYPE_PTR)), (NO_SUCH_NAME, vec![]));
    }

    #[test]
    fn everything_else_is_passed_on() {
        for name in ["example.com", "evilgon-1.compute.internal", "8.8.8.8.in-addr.arpa", "internal"] {
            assert_eq!(ask(&query(name, TYPE_A)), Verdict::Forward, "{name}");
        }
        // A label with a dot inside is not two labels.
        let mut odd = query("x", TYPE_A);
        odd.splice(HEADER..HEADER + 3, [b"\x22ip-10-0-1-6.gon-1.compute.internal".as_slice(), &[0]].concat());
        assert_eq!(ask(&odd), Verdict::Forward);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = query("ip-10-0-1-6.gon-1.compute.internal", TYPE_A);
        for end in 0..good.len() {
            assert_eq!(ask(&good[..end]), Verdict::Drop);
            assert_eq!(failure(&good[..end]), None);
            assert!(!answers(&good, &good[..end]));
            let _ = fit_udp(good[..end].to_vec());
        }
        for at in 0..good.len() {
            for byte in [0, 1, 63, 64, 0x7f, 0x80, 0xc0, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = ask(&bad);
            }
        }
        let mut long = good[..HEADER].to_vec();
        long.extend([1, b'a'].repeat(200));
        long.extend([0, 0, 1, 0, 1]);
        assert_eq!(ask(&long), Verdict::Drop);
        assert_eq!(ask(&[good, vec![0; 2000]].concat()), Verdict::Drop);
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let asked = query("example.com", TYPE_A);
        let mut answer = with_id(&asked, 0x1234);
        assert!(!answers(&asked, &answer), "a query is no answer");
        answer[2] |= 0x80;
        assert!(answers(&asked, &answer));
        assert!(!answers(&asked, &with_id(&answer, 0x1235)));
        let mut other = query("example.org", TYPE_A);
        other[2] |= 0x80;
        assert!(!answers(&asked, &other));
        let failed = failure(&asked).unwrap();
        assert!(answers(&asked, &failed));
        assert_eq!(failed[3] & 0x0f, SERVER_FAILURE);
    }

    #[test]
    fn a_large_answer_is_cut_to_its_question() {
        let mut answer = query("example.com", TYPE_A);
        let end = answer.len();
        answer[2] |= 0x80;
        answer[7] = 40;
        assert_eq!(fit_udp(answer.clone()), answer);
        answer.resize(2000, 1);
        let short = fit_udp(answer);
        assert_eq!(short.len(), end);
        assert_eq!((short[2] & 0x02, short[7]), (2, 0));
    }

    #[test]
    fn resolvers_are_read_from_the_hosts_file() {
        let text =
            "# x\nsearch a\nnameserver 10.0.0.2\n nameserver\t127.0.0.53\nnameserver fe80::1\nnameserver";
        assert_eq!(resolvers(text), [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 53)]);
        assert!(resolvers("").is_empty());
    }
}
