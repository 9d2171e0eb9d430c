//! The name of a client that has shown a certificate.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// Tag of a set in DER.
const SET: u8 = 0x31;
/// Tag of a sequence in DER.
const SEQUENCE: u8 = 0x30;
/// Tag of an object identifier in DER.
const IDENTIFIER: u8 = 0x06;
/// Tags of the kinds of text that are read as UTF-8: UTF8String, PrintableString and IA5String. The
/// latter two are parts of ASCII.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
/// The object identifier of a common name (2.5.4.3).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Returns the name in a certificate that was verified: its first DNS name, else the common name of its
/// subject; `None` if it has neither.
pub fn name_in(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let dns_name = certificate.valid_dns_names().next().map(str::to_owned);
    dns_name.or_else(|| common_name(certificate.subject())).filter(|name| !name.is_empty())
}

/// Returns the last common name in a subject, which is the most specific one.
fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some((SET, mut set)) = next(&mut subject) {
        while let Some((SEQUENCE, mut attribute)) = next(&mut set) {
            let kind = next(&mut attribute);
            let value = next(&mut attribute);
            if let (Some((IDENTIFIER, COMMON_NAME)), Some((tag, text))) = (kind, value)
                && TEXTS.contains(&tag)
            {
                found = str::from_utf8(text).ok().map(str::to_owned).or(found);
            }
        }
    }
    found
}

/// Takes the next element of DER off `bytes`. Returns its tag and its content; `None` at the end, and where the
/// bytes are not DER.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk().map(|(two, rest)| (usize::from(u16::from_be_bytes(*two)), rest))?,
        _ => return None,
    };
    let content = rest.get(..length)?;
    *bytes = rest.get(length..)?;
    Some((tag, content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn name(common: &[DnValue], sans: &[SanType]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "somebody");
        for common in common {
            params.distinguished_name.push(DnType::CommonName, common.clone());
        }
        params.subject_alt_names = sans.to_vec();
        let key = KeyPair::generate().expect("key");
        name_in(params.self_signed(&key).expect("certificate").der())
    }

    #[test]
    fn the_first_dns_name_goes_before_the_common_name() {
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("name"));
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let text = |text: &str| DnValue::Utf8String(text.into());
        assert_eq!(name(&[text("Zoë")], &[]).as_deref(), Some("Zoë"));
        assert_eq!(name(&[text("x")], std::slice::from_ref(&address)).as_deref(), Some("x"));
        assert_eq!(name(&[text("x")], &[address, dns("a.b"), dns("c")]).as_deref(), Some("a.b"));
        assert_eq!(name(&[], &[]), None);
        assert_eq!(name(&[text("")], &[]), None);
        let printable = DnValue::PrintableString("sensors".try_into().expect("text"));
        assert_eq!(name(&[printable], &[]).as_deref(), Some("sensors"));
        let long = "n".repeat(300);
        assert_eq!(name(&[text(&long)], &[]), Some(long));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = common_name(&bytes);
        }
    }
}
