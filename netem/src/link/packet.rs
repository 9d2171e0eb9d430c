//! Reading and changing IPv4 packets, with all checksums made right again. A damaged packet with a wrong checksum
//! would be dropped by the kernel, and the node would never see the damage.

use std::net::Ipv4Addr;

use anode_loadgen::random::Random;

const HEADER_BYTES_MIN: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Returns the addresses of sender and receiver of an IPv4 packet.
pub fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    header_bytes(packet)?;
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    Some((address(12), address(16)))
}

/// Writes another address of the sender or the receiver into a packet.
pub fn rewrite(packet: &mut [u8], sender: Option<Ipv4Addr>, receiver: Option<Ipv4Addr>) {
    if header_bytes(packet).is_none() {
        return;
    }
    for (at, address) in [(12, sender), (16, receiver)] {
        if let Some(address) = address {
            packet[at..at + 4].copy_from_slice(&address.octets());
        }
    }
    mend_checksums(packet);
}

/// Changes one bit of what a packet of UDP or TCP carries, and makes the checksums right. Returns whether the
/// packet carries anything.
pub fn corrupt(packet: &mut [u8], random: &mut Random) -> bool {
    let Some(begin) = payload_begin(packet) else { return false };
    if begin >= packet.len() {
        return false;
    }
    let bit = random.next_u64() as usize % ((packet.len() - begin) * 8);
    packet[begin + bit / 8] ^= 1 << (bit % 8);
    mend_checksums(packet);
    true
}

/// Returns the length of the header if these are the bytes of one whole IPv4 packet.
fn header_bytes(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let bytes = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && bytes >= HEADER_BYTES_MIN && packet.len() >= bytes).then_some(bytes)
}

fn is_fragment(packet: &[u8]) -> bool {
    // The flag "more fragments", and the offset of this one.
    u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0
}

/// Returns the place of the checksum in the header of UDP or TCP, counted from the begin of that header.
fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        PROTOCOL_TCP => Some(16),
        PROTOCOL_UDP => Some(6),
        _ => None,
    }
}

fn payload_begin(packet: &[u8]) -> Option<usize> {
    let header = header_bytes(packet)?;
    if is_fragment(packet) {
        return None;
    }
    match packet[9] {
        PROTOCOL_UDP => Some(header + 8),
        PROTOCOL_TCP => Some(header + usize::from(*packet.get(header + 12)? >> 4) * 4),
        _ => None,
    }
}

fn mend_checksums(packet: &mut [u8]) {
    let Some(header) = header_bytes(packet) else { return };
    packet[10..12].fill(0);
    let sum = checksum(sum_of(&packet[..header], 0));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let protocol = packet[9];
    let Some(at) = checksum_at(protocol).map(|at| header + at) else { return };
    if is_fragment(packet) || packet.len() < at + 2 {
        return;
    }
    packet[at..at + 2].fill(0);
    let length = (packet.len() - header) as u32;
    let pseudo = sum_of(&packet[12..20], u32::from(protocol) + length);
    let sum = checksum(sum_of(&packet[header..], pseudo));
    // In UDP, zero means that there is no checksum.
    let sum = if sum == 0 && protocol == PROTOCOL_UDP { 0xffff } else { sum };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn sum_of(bytes: &[u8], begin: u32) -> u32 {
    let mut sum = begin;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    sum
}

fn checksum(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a datagram with right checksums.
    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, PROTOCOL_UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend_from_slice(&[0x1f, 0x0a, 0x1f, 0x0a, 0, 8 + payload.len() as u8, 0, 0]);
        packet.extend_from_slice(payload);
        packet[3] = packet.len() as u8;
        mend_checksums(&mut packet);
        packet
    }

    /// Returns whether the sums of header and datagram come out as the kernel checks them.
    fn is_sound(packet: &[u8]) -> bool {
        let pseudo = sum_of(&packet[12..20], u32::from(packet[9]) + (packet.len() - 20) as u32);
        checksum(sum_of(&packet[..20], 0)) == 0 && checksum(sum_of(&packet[20..], pseudo)) == 0
    }

    #[test]
    fn one_bit_changes_and_the_checksums_hold() {
        let mut random = Random::new(3, 0);
        for length in [1, 2, 33, 64] {
            let before = datagram(&vec![0xa5; length]);
            assert!(is_sound(&before));
            let mut after = before.clone();
            assert!(corrupt(&mut after, &mut random));
            assert!(is_sound(&after));
            let flipped: u32 = before[28..].iter().zip(&after[28..]).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(flipped, 1);
            assert_eq!(before[..10], after[..10]);
        }
        assert!(!corrupt(&mut datagram(&[]), &mut random));
    }

    #[test]
    fn addresses_are_read_and_rewritten() {
        let mut packet = datagram(b"abc");
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(addresses(&packet), Some((a, b)));
        let outside = Ipv4Addr::new(192, 168, 7, 9);
        rewrite(&mut packet, Some(outside), None);
        assert_eq!(addresses(&packet), Some((outside, b)));
        assert!(is_sound(&packet));
    }

    #[test]
    fn what_is_no_packet_is_left_alone() {
        for bytes in [&[][..], &[0x45; 10], &[0x60; 60], &[0x41; 40]] {
            let mut bytes = bytes.to_vec();
            let before = bytes.clone();
            assert_eq!(addresses(&bytes), None);
            rewrite(&mut bytes, Some(Ipv4Addr::LOCALHOST), None);
            assert!(!corrupt(&mut bytes, &mut Random::new(0, 0)));
            assert_eq!(bytes, before);
        }
    }
}
