//! The definition of an archive: what is kept, where, and how often.

use serde_json::Value;

use super::tableland::{ChainAddress, TableName};
use crate::extend::definition::BadField;
use crate::extend::fields::{DefinitionFields, bad_field};
use crate::extend::secret::SecretName;
use crate::record::Pattern;

/// Shortest and longest time between two archives, in microseconds.
const EVERY_US: std::ops::RangeInclusive<u64> = 1_000_000..=(30 * 24 * 3_600_000_000);
/// Time between two archives where a definition says nothing, in microseconds: an hour.
const EVERY_US_DEFAULT: u64 = 3_600_000_000;
/// Most archives that a definition may ask to keep.
const KEEP_CEILING: u64 = 100_000;
/// Most archives from a full one up to the next.
const CHAIN_CEILING: u64 = 1_000;
/// Archives from a full one up to the next where a definition says nothing. A restore reads that many at most.
const CHAIN_DEFAULT: u64 = 24;
/// Longest prefix of the names of objects, in bytes.
const PREFIX_BYTES_MAX: usize = 256;
/// The region that servers other than Amazon's expect where a definition says nothing.
const REGION_DEFAULT: &str = "us-east-1";

/// What the address of a server may be.
const ADDRESS: &str = "http:// or https:// with a host and perhaps a port, without a path or a password";

/// An archive: which records are written where, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveDefinition {
    /// Pattern of the sources that are kept.
    pub pattern: Pattern,
    /// Time between two archives, in microseconds.
    pub every_us: u64,
    /// Number of archives that are kept besides those that they need; `None` keeps all.
    pub keep: Option<usize>,
    /// Number of archives from a full one up to the next.
    pub full_every: usize,
    /// The place where archives are written.
    pub place: ArchivePlace,
}

/// A place for archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePlace {
    /// A bucket of a server with the interface of S3.
    S3(S3Place),
    /// A node of IPFS, by the RPC of Kubo.
    Ipfs(IpfsPlace),
    /// A table of Tableland.
    Tableland(TablelandPlace),
}

/// A bucket, and how to enter it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Place {
    /// Address of the server, without a path.
    pub endpoint: String,
    /// Name of the bucket.
    pub bucket: String,
    /// What the names of all objects begin with: empty, or ended by a slash.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// Secret with the id of the key.
    pub access_key_id: SecretName,
    /// Secret with the key itself.
    pub secret_access_key: SecretName,
    /// Secret with the token of a session, if keys are given out for a time.
    pub session_token: Option<SecretName>,
}

/// A node of IPFS, and how to enter it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpfsPlace {
    /// Address of the RPC, without a path.
    pub api: String,
    /// Secret with the value of the header `Authorization`, if the node asks for one.
    pub authorization: Option<SecretName>,
}

/// A table of Tableland, who reads it, and who signs what changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablelandPlace {
    /// Address of a validator, without a path.
    pub api: String,
    /// Address of the signer, which takes `eth_sendTransaction`, without a path.
    pub rpc: String,
    /// Contract with the registry of tables on the chain of the table.
    pub registry: ChainAddress,
    /// Account that may change the table, for which the signer signs.
    pub from: ChainAddress,
    /// Name of the table.
    pub table: TableName,
    /// What the names of all folders begin with: empty, or ended by a slash.
    pub prefix: String,
    /// Secret with the value of the header `Authorization`, if the signer asks for one.
    pub authorization: Option<SecretName>,
}

impl ArchiveDefinition {
    /// Reads a definition, and names the field that is wrong.
    pub fn read(body: &Value) -> Result<ArchiveDefinition, BadField> {
        let mut fields = DefinitionFields::of(body)?;
        const KINDS: &str = "\"s3\", \"ipfs\" or \"tableland\"";
        let kind = fields.required("kind", KINDS)?;
        let place = match kind {
            "s3" => ArchivePlace::S3(S3Place::read(&mut fields)?),
            "ipfs" => ArchivePlace::Ipfs(IpfsPlace::read(&mut fields)?),
            "tableland" => ArchivePlace::Tableland(TablelandPlace::read(&mut fields)?),
            _ => return Err(BadField::new("kind", Value::from(kind).to_string(), KINDS)),
        };
        let every_us = fields.duration_us("every", EVERY_US)?.unwrap_or(EVERY_US_DEFAULT);
        let keep = fields.number("keep", 1..=KEEP_CEILING)?;
        let full_every = fields.number("full_every", 1..=CHAIN_CEILING)?.unwrap_or(CHAIN_DEFAULT);
        let pattern = match fields.patterns("pattern", 1)?.and_then(|mut list| list.pop()) {
            Some(pattern) => pattern,
            None => {
                Pattern::parse("**").map_err(|error| BadField::new("pattern", "**", error.to_string()))?
            }
        };
        fields.finish()?;
        // A chain that is longer than what is kept would keep more than that for long.
        let full_every = keep.map_or(full_every, |keep| full_every.min(keep));
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(ArchiveDefinition {
            pattern,
            every_us,
            keep: keep.map(count),
            full_every: count(full_every),
            place,
        })
    }

    /// The reason why this node cannot write or read the archive; `None` if it can.
    pub fn lack(&self) -> Option<String> {
        match &self.place {
            ArchivePlace::S3(place) => {
                let both = [&place.access_key_id, &place.secret_access_key];
                both.into_iter().chain(&place.session_token).find_map(SecretName::lack)
            }
            ArchivePlace::Ipfs(place) => place.authorization.as_ref().and_then(SecretName::lack),
            ArchivePlace::Tableland(place) => place.authorization.as_ref().and_then(SecretName::lack),
        }
    }
}

impl S3Place {
    fn read(fields: &mut DefinitionFields<'_>) -> Result<S3Place, BadField> {
        const BUCKET: &str = "3 to 63 of a-z 0-9 . -";
        const REGION: &str = "1 to 64 of a-z 0-9 -";
        let is_of = |text: &str, further: &[u8]| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || further.contains(&byte))
        };
        let bad = |name: &str, text: &str, allowed: &str| Err(bad_field(name, &Value::from(text), allowed));
        let region = fields.text("region", REGION)?.unwrap_or(REGION_DEFAULT);
        if region.len() > 64 || !is_of(region, b"-") {
            return bad("region", region, REGION);
        }
        let endpoint = match address(fields, "endpoint")? {
            Some(endpoint) => endpoint,
            None => format!("https://s3.{region}.amazonaws.com"),
        };
        let bucket = fields.required("bucket", BUCKET)?;
        if !(3..=63).contains(&bucket.len()) || !is_of(bucket, b".-") {
            return bad("bucket", bucket, BUCKET);
        }
        let prefix = prefix(fields)?;
        let access_key_id = secret(fields, "access_key_id", Some("env:AWS_ACCESS_KEY_ID"))?;
        let secret_access_key = secret(fields, "secret_access_key", Some("env:AWS_SECRET_ACCESS_KEY"))?;
        let missing = |name: &str| BadField::new(name, "missing", SecretName::ALLOWED);
        Ok(S3Place {
            endpoint,
            bucket: bucket.into(),
            prefix,
            region: region.into(),
            access_key_id: access_key_id.ok_or_else(|| missing("access_key_id"))?,
            secret_access_key: secret_access_key.ok_or_else(|| missing("secret_access_key"))?,
            session_token: secret(fields, "session_token", None)?,
        })
    }
}

impl IpfsPlace {
    fn read(fields: &mut DefinitionFields<'_>) -> Result<IpfsPlace, BadField> {
        let api = address(fields, "api")?.unwrap_or_else(|| "http://127.0.0.1:5001".into());
        Ok(IpfsPlace { api, authorization: secret(fields, "authorization", None)? })
    }
}

impl TablelandPlace {
    fn read(fields: &mut DefinitionFields<'_>) -> Result<TablelandPlace, BadField> {
        let missing = |name: &str, allowed: &str| BadField::new(name, "missing", allowed);
        let api = address(fields, "api")?.ok_or_else(|| missing("api", ADDRESS))?;
        let rpc = address(fields, "rpc")?.ok_or_else(|| missing("rpc", ADDRESS))?;
        let registry = chain_address(fields, "registry")?;
        let from = chain_address(fields, "from")?;
        let table = fields.required("table", TableName::ALLOWED)?;
        let name = TableName::parse(table);
        let table = name.ok_or_else(|| bad_field("table", &Value::from(table), TableName::ALLOWED))?;
        let prefix = prefix(fields)?;
        let authorization = secret(fields, "authorization", None)?;
        Ok(TablelandPlace { api, rpc, registry, from, table, prefix, authorization })
    }
}

/// Reads the address of an account or a contract.
fn chain_address(fields: &mut DefinitionFields<'_>, name: &'static str) -> Result<ChainAddress, BadField> {
    let text = fields.required(name, ChainAddress::ALLOWED)?;
    let bad = || bad_field(name, &Value::from(text), ChainAddress::ALLOWED);
    ChainAddress::parse(text).ok_or_else(bad)
}

/// Reads what the names of objects begin with: nothing, or a path that ends with a slash.
fn prefix(fields: &mut DefinitionFields<'_>) -> Result<String, BadField> {
    const PREFIX: &str = "up to 256 of A-Z a-z 0-9 . _ - /, without empty segments, . and ..";
    let text = fields.value("prefix").map_or(Some(""), Value::as_str);
    let text = text.ok_or_else(|| BadField::new("prefix", "no text", PREFIX))?.trim_end_matches('/');
    let is_segment = |text: &str| {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !matches!(text, "" | "." | "..") && text.bytes().all(is_fine)
    };
    if text.len() > PREFIX_BYTES_MAX || !(text.is_empty() || text.split('/').all(is_segment)) {
        return Err(bad_field("prefix", &Value::from(text), PREFIX));
    }
    Ok(if text.is_empty() { String::new() } else { format!("{text}/") })
}

/// Reads the address of a server, and takes the slash at its end away.
fn address(fields: &mut DefinitionFields<'_>, name: &'static str) -> Result<Option<String>, BadField> {
    let Some(text) = fields.text(name, ADDRESS)? else { return Ok(None) };
    let is_fine = reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    let shown = if text.contains('@') { "(not shown)" } else { text };
    match is_fine {
        true => Ok(Some(text.trim_end_matches('/').to_owned())),
        false => Err(bad_field(name, &Value::from(shown), ADDRESS)),
    }
}

fn secret(
    fields: &mut DefinitionFields<'_>,
    name: &'static str,
    default: Option<&str>,
) -> Result<Option<SecretName>, BadField> {
    let Some(text) = fields.text(name, SecretName::ALLOWED)?.or(default) else { return Ok(None) };
    let bad = || BadField::new(name, "(not shown)", SecretName::ALLOWED);
    SecretName::parse(text).map(Some).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_have_their_defaults() {
        let archive = ArchiveDefinition::read(&json!({"kind": "ipfs"})).expect("an archive");
        assert_eq!((archive.every_us, archive.keep, archive.full_every), (3_600_000_000, None, 24));
        assert_eq!(archive.pattern.as_str(), "**");
        let ArchivePlace::Ipfs(place) = &archive.place else { panic!("{archive:?}") };
        assert_eq!((place.api.as_str(), archive.lack()), ("http://127.0.0.1:5001", None));
        let body = json!({
            "kind": "s3", "endpoint": "http://127.0.0.1:9/", "bucket": "b-1", "prefix": "a/b/", "every": "24h",
            "keep": 7, "pattern": "sensors/**", "access_key_id": "env:NO_SUCH_VARIABLE_HERE",
        });
        let archive = ArchiveDefinition::read(&body).expect("an archive");
        assert_eq!((archive.keep, archive.full_every), (Some(7), 7));
        let ArchivePlace::S3(place) = &archive.place else { panic!("{archive:?}") };
        assert_eq!((place.endpoint.as_str(), place.prefix.as_str()), ("http://127.0.0.1:9", "a/b/"));
        assert!(archive.lack().is_some_and(|why| why.contains("NO_SUCH_VARIABLE_HERE")));
        let amazon = json!({"kind": "s3", "bucket": "b-1", "region": "eu-west-3"});
        let ArchivePlace::S3(place) = ArchiveDefinition::read(&amazon).expect("an archive").place else {
            panic!("no bucket")
        };
        assert_eq!(place.endpoint, "https://s3.eu-west-3.amazonaws.com");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let with = |field: &str, value: Value| {
            let mut body = json!({"kind": "s3", "bucket": "b-1"});
            body[field] = value;
            ArchiveDefinition::read(&body).map_err(|bad| bad.field)
        };
        assert!(with("every", json!("1s")).is_ok());
        for (field, bad) in [
            ("kind", json!("tape")),
            ("every", json!("1")),
            ("every", json!("40d")),
            ("keep", json!(0)),
            ("full_every", json!("x")),
            ("pattern", json!("a//b")),
            ("bucket", json!("B")),
            ("bucket", json!("a/b")),
            ("prefix", json!("a//b")),
            ("prefix", json!("../b")),
            ("prefix", json!(1)),
            ("region", json!("EU")),
            ("endpoint", json!("http://h/path")),
            ("endpoint", json!("http://u:p@h/")),
            ("access_key_id", json!("AKIA")),
            ("api", json!("http://h/")),
        ] {
            assert_eq!(with(field, bad.clone()).map(|_| ()), Err(field.into()), "{bad}");
        }
        let table = |field: &str, value: Value| {
            let mut body = json!({
                "kind": "tableland", "api": "http://v/", "rpc": "http://s/", "table": "t_1_2",
                "registry": format!("0x{}", "a".repeat(40)), "from": format!("0x{}", "b".repeat(40)),
            });
            body[field] = value;
            ArchiveDefinition::read(&body).map_err(|bad| bad.field)
        };
        assert!(table("prefix", json!("a/b")).is_ok());
        for (field, bad) in [
            ("table", json!("t")),
            ("registry", json!("0x12")),
            ("from", json!(7)),
            ("rpc", json!("http://u:p@h/")),
            ("api", json!("v")),
            ("prefix", json!("a//b")),
            ("bucket", json!("b-1")),
        ] {
            assert_eq!(table(field, bad.clone()).map(|_| ()), Err(field.into()), "{bad}");
        }
        let error = ArchiveDefinition::read(&json!({"bucket": "b-1"})).map_err(|bad| bad.field);
        assert_eq!(error, Err("kind".into()));
    }
}
