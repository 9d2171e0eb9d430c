//! One small parser for each kind of value. The error of each tells what is allowed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::raw::Text;
use super::suggest::nearest;
use super::{ConfigError, FRAME_BYTES_CEILING, HostPort, TlsFiles, WORKERS_MAX, canonical};
use crate::limits::RECORD_BYTES_CEILING;
use crate::record::NodeName;

/// Longest name of a cluster or zone, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Most records that may be kept per source.
const HISTORY_MAX: usize = 1_000_000;
/// Least number of bytes of a frame that are not the record's data: those of a protobuf publish with a source
/// of one letter. A JSON publish needs more.
const FRAME_OVERHEAD_BYTES_MIN: usize = 9;
/// Smallest `--max-frame-bytes`, in bytes.
const FRAME_BYTES_FLOOR: usize = 1024;
/// Value of `--max-record-bytes` if it is not given and frames are large enough, in bytes.
const RECORD_BYTES_DEFAULT: usize = 65_536;
/// Number of frames of the largest size that the memory for clients must have room for.
const CLIENT_MEMORY_FRAMES_MIN: usize = 8;
/// Least default of `--max-client-memory`, in bytes.
const CLIENT_MEMORY_BYTES_MIN: usize = 64 << 20;

pub(super) fn address(flag: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map(canonical).map_err(|_| {
        ConfigError::new(flag, text, "IP:PORT, for example 127.0.0.1:7070 or [::1]:7070; port 0: any free")
    })
}

pub(super) fn advertise(flag: &str, text: &str) -> Result<HostPort, ConfigError> {
    let allowed = "HOST, HOST:PORT or [IPV6]:PORT that others can reach";
    let error = || ConfigError::new(flag, text, allowed);
    // The value is a host without a port, with or without brackets. The port is then the one that is bound.
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = match bare.parse::<IpAddr>() {
        Ok(ip) => HostPort { host: ip.to_canonical().to_string(), port: 0 },
        Err(_) if !text.contains(':') && is_host(text) => HostPort { host: text.into(), port: 0 },
        Err(_) => host_port(text).filter(|parsed| parsed.port > 0).ok_or_else(error)?,
    };
    match parsed.host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => Err(error()),
        _ => Ok(parsed),
    }
}

pub(super) fn hosts(flag: &str, text: &str) -> Result<Vec<HostPort>, ConfigError> {
    let allowed = "HOST:PORT[,HOST:PORT…], port 1 to 65535, IPv6 in brackets";
    let mut targets = Vec::new();
    // No text at all stands for no hosts, as an environment variable that is set to nothing. One comma may
    // end the list. Any other empty entry is most likely a variable of a script that was not set.
    let list = text.strip_suffix(',').filter(|list| !list.is_empty()).unwrap_or(text);
    for part in list.split(',').filter(|_| !text.is_empty()).map(str::trim) {
        let shown = if part.is_empty() { text } else { part };
        let target = host_port(part).filter(|target| target.port > 0);
        let target = target.ok_or_else(|| ConfigError::new(flag, shown, allowed))?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

pub(super) fn host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    // Rust would parse `+7` as a number, which is not a valid port.
    let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok()).flatten()?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_canonical().to_string(),
        None if is_host(host) => host.into(),
        None => return None,
    };
    Some(HostPort { host, port })
}

/// Returns whether the text has the form of a DNS name or an IPv4 address. Whether the name exists is found
/// out when it is resolved.
pub(super) fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

pub(super) fn name(flag: &str, text: &str, bytes_min: usize) -> Result<String, ConfigError> {
    let is_blank = |c: char| c.is_control() || c.is_whitespace();
    if (bytes_min..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(is_blank) {
        return Ok(text.into());
    }
    let allowed = format!("{bytes_min} to {NAME_BYTES_MAX} bytes without white space or control characters");
    Err(ConfigError::new(flag, text, allowed))
}

pub(super) fn node_name(text: &str) -> Result<NodeName, ConfigError> {
    NodeName::parse(text)
        .map_err(|_| ConfigError::new("node-name", text, "1 to 63 characters of A-Z a-z 0-9 . _ -"))
}

pub(super) fn directory(flag: &str, text: &str) -> Result<PathBuf, ConfigError> {
    match text.is_empty() || text.contains('\0') {
        true => {
            Err(ConfigError::new(flag, text, "the path of a directory, which is made if it is not there"))
        }
        false => Ok(text.into()),
    }
}

/// A directory that must be there, if one is given.
pub(super) fn folder(flag: &str, given: Option<&Text>) -> Result<Option<PathBuf>, ConfigError> {
    let Some(Text(text)) = given else { return Ok(None) };
    match Path::new(text).is_dir() {
        true => Ok(Some(text.into())),
        false => Err(ConfigError::new(flag, text.as_str(), "the path of a directory that is there")),
    }
}

/// Checks which files of TLS are given: certificate, key, and authority of clients. The first two belong together, and
/// the third needs both.
pub(super) fn tls([cert, key, client_ca]: [Option<&str>; 3]) -> Result<Option<TlsFiles>, ConfigError> {
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (file("tls-cert", cert)?, file("tls-key", key)?),
        (Some(cert), None) => {
            let allowed =
                format!("the file of the private key of the certificate, since --tls-cert is {cert}");
            return Err(ConfigError::new("tls-key", "", allowed));
        }
        (None, Some(key)) => {
            let allowed = format!("the file of the certificate of the private key, since --tls-key is {key}");
            return Err(ConfigError::new("tls-cert", "", allowed));
        }
        (None, None) => {
            return match client_ca {
                None => Ok(None),
                Some(given) => {
                    let allowed = "nothing, unless --tls-cert and --tls-key are given too";
                    Err(ConfigError::new("tls-client-ca", given, allowed))
                }
            };
        }
    };
    let client_ca = client_ca.map(|given| file("tls-client-ca", given)).transpose()?;
    Ok(Some(TlsFiles { cert, key, client_ca }))
}

pub(super) fn file(flag: &str, text: &str) -> Result<PathBuf, ConfigError> {
    match text.is_empty() || text.contains('\0') {
        true => Err(ConfigError::new(flag, text, "the path of a file")),
        false => Ok(text.into()),
    }
}

pub(super) fn choice<T: Copy>(flag: &str, text: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let meant = nearest(text, names.iter().copied());
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
            Err(ConfigError::new(flag, text, names.join(", ") + &meant))
        }
    }
}

pub(super) fn count(flag: &str, text: &str, range: RangeInclusive<usize>) -> Result<usize, ConfigError> {
    whole(text).and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n)).ok_or_else(|| {
        ConfigError::new(flag, text, format!("whole numbers from {} to {}", range.start(), range.end()))
    })
}

pub(super) fn history(text: &str) -> Result<NonZeroU32, ConfigError> {
    let count = count("history", text, 1..=HISTORY_MAX)?;
    Ok(u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
}

pub(super) fn workers(text: &str) -> Result<NonZeroUsize, ConfigError> {
    let count = count("workers", text, 1..=WORKERS_MAX)?;
    Ok(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))
}

pub(super) fn size(flag: &str, text: &str, range: RangeInclusive<usize>) -> Result<usize, ConfigError> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let scaled = with_unit(text, &UNITS).and_then(|bytes| usize::try_from(bytes).ok());
    scaled.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (from, to) = range.clone().into_inner();
        let allowed = format!("{from} to {to} bytes, plain or with KiB, MiB or GiB (4MiB)");
        ConfigError::new(flag, text, allowed)
    })
}

/// Checks the limits of one record's data and of a whole frame, in bytes. A record of the largest size must
/// fit into a frame: otherwise clients would be promised a size that no record of theirs can ever have. So the
/// default for records is smaller where frames are small.
pub(super) fn record_and_frame(record: Option<&str>, frame: &str) -> Result<(usize, usize), ConfigError> {
    let frame_bytes = size("max-frame-bytes", frame, FRAME_BYTES_FLOOR..=FRAME_BYTES_CEILING)?;
    let fit_bytes = frame_bytes - FRAME_OVERHEAD_BYTES_MIN;
    let Some(record) = record else { return Ok((RECORD_BYTES_DEFAULT.min(fit_bytes), frame_bytes)) };
    let record_bytes = size("max-record-bytes", record, 1..=RECORD_BYTES_CEILING)?;
    if record_bytes > fit_bytes {
        let allowed = format!(
            "at most {fit_bytes}, since a record is sent in one frame and --max-frame-bytes is {frame_bytes}"
        );
        return Err(ConfigError::new("max-record-bytes", record, allowed));
    }
    Ok((record_bytes, frame_bytes))
}

/// Checks the limit of the memory that clients may make a node hold, in bytes. It must be enough for a few
/// clients with frames of the largest size. `machine` is the memory of this machine, of which the default is a
/// quarter.
pub(super) fn client_memory(
    given: Option<&str>,
    machine: u64,
    frame_bytes: usize,
) -> Result<usize, ConfigError> {
    let least = CLIENT_MEMORY_FRAMES_MIN * frame_bytes;
    let quarter = usize::try_from(machine / 4).unwrap_or(usize::MAX >> 8);
    let Some(given) = given else { return Ok(quarter.max(CLIENT_MEMORY_BYTES_MIN).max(least)) };
    let bytes = size("max-client-memory", given, 1..=usize::MAX >> 8)?;
    if bytes < least {
        let allowed = format!(
            "at least {least} bytes, which is {CLIENT_MEMORY_FRAMES_MIN} frames, since --max-frame-bytes is {frame_bytes}"
        );
        return Err(ConfigError::new("max-client-memory", given, allowed));
    }
    Ok(bytes)
}

pub(super) fn duration_us(flag: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 24 * 3_600_000_000)];
    with_unit(text, &UNITS).filter(|us| range.contains(us)).ok_or_else(|| {
        let (from, to) = (range.start() / 1_000_000, range.end() / 1_000_000);
        ConfigError::new(flag, text, format!("{from}s to {to}s, with a unit of ms, s, m, h or d (24h)"))
    })
}

/// Parses a whole number that is followed by one of `units`, and multiplies it by the value of the unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    whole(number)?.checked_mul(*scale)
}

fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
