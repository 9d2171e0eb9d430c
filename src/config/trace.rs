//! The settings of traces: which records are traced, and where the traces are sent.

use super::raw::{Raw, Text};
use super::values::host_port;
use super::{ConfigError, HostPort};

/// Path of the receiver's traces, if the URL has none. OTLP fixes it.
const PATH_DEFAULT: &str = "/v1/traces";

/// The settings of a node that traces records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// Greatest checksum of a record that is traced. Checksums are evenly distributed over all 64-bit numbers and are the
    /// same on every node, so this bound is the share of records that are traced.
    pub checksum_max: u64,
    /// Where the traces are sent.
    pub endpoint: TraceEndpoint,
}

/// A receiver of OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEndpoint {
    /// Whether the receiver speaks TLS.
    pub is_tls: bool,
    /// Host and port of the receiver.
    pub host: HostPort,
    /// The path that traces are posted to.
    pub path: String,
}

impl std::fmt::Display for TraceEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.host, self.path)
    }
}

/// Checks the settings. Returns `None` if no record is to be traced.
pub(super) fn check(raw: &Raw) -> Result<Option<TraceConfig>, ConfigError> {
    let rate = Text::of(&raw.trace_sample).unwrap_or("0");
    let checksum_max = checksum_max(rate)?;
    let endpoint = Text::of(&raw.trace_endpoint).map(endpoint).transpose()?;
    match (checksum_max, endpoint) {
        (None, _) => Ok(None),
        (Some(checksum_max), Some(endpoint)) => Ok(Some(TraceConfig { checksum_max, endpoint })),
        (Some(_), None) => {
            let allowed = format!(
                "the URL of a receiver of OTLP over HTTP, such as http://127.0.0.1:4318, since --trace-sample is {rate}"
            );
            Err(ConfigError::new("trace-endpoint", "", allowed))
        }
    }
}

/// Parses the share of records that are traced. Returns the greatest checksum of these; `None` if there are none.
fn checksum_max(text: &str) -> Result<Option<u64>, ConfigError> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let rate = text.parse::<f64>().ok().filter(|rate| is_decimal && (0.0..=1.0).contains(rate));
    let Some(rate) = rate else {
        let allowed = "a share of all records, from 0 (none) to 1 (all), such as 0.001";
        return Err(ConfigError::new("trace-sample", text, allowed));
    };
    // The conversion of a float to a whole number is bounded by the greatest one.
    Ok((rate > 0.0).then_some((rate * u64::MAX as f64) as u64))
}

fn endpoint(text: &str) -> Result<TraceEndpoint, ConfigError> {
    let parsed = text.split_once("://").and_then(|(scheme, rest)| {
        let (is_tls, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = host_port(authority).or_else(|| host_port(&format!("{authority}:{port}")))?;
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"'));
        let path = if matches!(path, "" | "/") { PATH_DEFAULT } else { path };
        (host.port > 0 && is_path).then(|| TraceEndpoint { is_tls, host, path: path.to_owned() })
    });
    parsed.ok_or_else(|| {
        let allowed =
            "http://HOST[:PORT][/PATH] or https://… of a receiver of OTLP; without a path, /v1/traces";
        ConfigError::new("trace-endpoint", text, allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(rate: Option<&str>, url: Option<&str>) -> Result<Option<TraceConfig>, ConfigError> {
        let raw =
            Raw { trace_sample: rate.map(Text::from), trace_endpoint: url.map(Text::from), ..Raw::default() };
        check(&raw)
    }

    #[test]
    fn nothing_is_traced_unless_a_share_is_given() {
        let url = Some("http://127.0.0.1:4318");
        assert_eq!(checked(None, None), Ok(None));
        assert_eq!(checked(None, url), Ok(None));
        assert_eq!(checked(Some("0"), url), Ok(None));
        assert_eq!(checked(Some("0.0"), None), Ok(None));
        let error = checked(Some("0.5"), None).expect_err("no endpoint");
        assert_eq!(error.field, "--trace-endpoint");
        for bad in ["", "-0.1", "1.01", "2", "half", "NaN", "inf", "1e-3", "50%", "+1", "."] {
            assert_eq!(checked(Some(bad), url).expect_err(bad).field, "--trace-sample", "{bad}");
        }
    }

    #[test]
    fn a_share_is_a_bound_of_checksums() {
        let bound = |rate| checked(Some(rate), Some("http://c")).expect("valid").expect("on").checksum_max;
        assert_eq!(bound("1"), u64::MAX);
        assert_eq!(bound("0.5"), u64::MAX / 2 + 1);
        assert!(bound("0.000001") < u64::MAX / 900_000);
    }

    #[test]
    fn an_endpoint_is_a_url() {
        let shown = |url| {
            let config = checked(Some("1"), Some(url)).map_err(|error| error.field)?;
            Ok(config.map(|config| config.endpoint.to_string()).unwrap_or_default())
        };
        assert_eq!(shown("http://localhost:4318"), Ok("http://localhost:4318/v1/traces".into()));
        assert_eq!(shown("http://localhost:4318/"), Ok("http://localhost:4318/v1/traces".into()));
        assert_eq!(shown("HTTPS://otel.example/x?y=1"), Ok("https://otel.example:443/x?y=1".into()));
        assert_eq!(shown("http://[::1]"), Ok("http://[::1]:80/v1/traces".into()));
        for bad in
            ["", "localhost:4318", "grpc://a:4317", "http://", "http://a:0", "http://a b", "http://a/ b"]
        {
            assert_eq!(shown(bad), Err("--trace-endpoint".to_owned()), "{bad}");
        }
    }
}
