//! The token that connections bring, where a node wants one: from an option, from a file, or from the environment.

use std::path::Path;
use std::sync::Arc;

/// A token that connections bring. Its text is shown nowhere.
#[derive(Clone)]
pub struct Bearer(pub Arc<str>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(…)")
    }
}

/// clap converts arguments with this. The check comes later, so that no error repeats a token.
impl From<String> for Bearer {
    fn from(text: String) -> Bearer {
        Bearer(text.into())
    }
}

/// Returns the token, or `None` if there is none. Errors do not repeat it.
pub fn read(token: Option<&str>, file: Option<&Path>) -> Result<Option<Bearer>, String> {
    let given = match (token, file) {
        (Some(token), _) => Some(token.to_owned()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path);
            let unread =
                |error| format!("--token-file {}: must be a readable file ({error})", path.display());
            Some(text.map_err(unread)?)
        }
        (None, None) => std::env::var("ANODE_TOKEN").ok().filter(|text| !text.is_empty()),
    };
    let Some(text) = given else { return Ok(None) };
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("--token: the token must be printable ASCII without spaces".into());
    }
    Ok(Some(Bearer(text.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_repeat_the_token() {
        assert_eq!(
            read(Some("abc"), None).expect("fine").map(|token| token.0.to_string()),
            Some("abc".into())
        );
        let error = read(Some("my secret"), None).expect_err("a space");
        assert!(!error.contains("secret"), "{error}");
        assert!(read(None, Some(Path::new("/no/such/file"))).is_err());
    }
}
