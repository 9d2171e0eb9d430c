//! Signatures of requests to S3, Signature Version 4 of Amazon: the method, the path, the query, some header fields and
//! the hash of the body are signed with a key that is made anew for every day, region and service.

use ring::{digest, hmac};

/// The algorithm, as the header names it.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The name of the service.
const SERVICE: &str = "s3";

/// Signs requests to S3 with one pair of keys, for one region.
#[derive(Clone)]
pub struct S3Signer {
    /// Public id of the key.
    pub access_key_id: String,
    /// The key itself.
    pub secret_access_key: String,
    /// The region of the bucket.
    pub region: String,
}

/// A request as far as it is signed.
#[derive(Debug)]
pub struct SignedRequest<'a> {
    /// The method in capitals.
    pub method: &'a str,
    /// The path, percent-encoded.
    pub path: &'a str,
    /// The query, percent-encoded, its parameters sorted by name and each with a `=`.
    pub query: &'a str,
    /// Names in small letters and values of all header fields that are signed, sorted by name.
    pub headers: &'a [(&'a str, &'a str)],
    /// Hash of the body in hexadecimal.
    pub body_sha256: &'a str,
    /// The time, from [`amz_date`].
    pub date: &'a str,
}

/// The SHA-256 hash of bytes in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Writes bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes seconds since the Unix epoch as `20130524T000000Z`.
pub fn amz_date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from March 1st of the year 0, so that leap days come last: Howard Hinnant's algorithm.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

impl S3Signer {
    /// The value of the header `Authorization` of a request.
    pub fn authorization(&self, request: &SignedRequest<'_>) -> String {
        let day = request.date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{SERVICE}/aws4_request", self.region);
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String =
            request.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let SignedRequest { method, path, query, body_sha256, date, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{body_sha256}");
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let signature = hex(hmac_sha256(&self.key(day), text.as_bytes()).as_ref());
        let id = &self.access_key_id;
        format!("{ALGORITHM} Credential={id}/{scope},SignedHeaders={names},Signature={signature}")
    }

    fn key(&self, day: &str) -> Vec<u8> {
        let first = format!("AWS4{}", self.secret_access_key).into_bytes();
        let parts = [day, self.region.as_str(), SERVICE, "aws4_request"];
        parts.iter().fold(first, |key, part| hmac_sha256(&key, part.as_bytes()).as_ref().to_vec())
    }
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (1_796_083_199, "20261130T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(amz_date(seconds), text);
        }
    }

    /// The examples of Amazon's documentation.
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let signer = S3Signer {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: "us-east-1".into(),
        };
        let empty = sha256_hex(b"");
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", empty.as_str()),
            ("x-amz-date", "20130524T000000Z"),
        ];
        for (query, signature) in [
            ("lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let request = SignedRequest {
                method: "GET",
                path: "/",
                query,
                headers: &headers,
                body_sha256: &empty,
                date: "20130524T000000Z",
            };
            let authorization = signer.authorization(&request);
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                 SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={signature}"
            );
            assert_eq!(authorization, expected);
        }
    }
}
