//! Reads what S3 answers in XML: the names of objects, and errors. The answers have a fixed form without attributes that
//! matter, so their elements are found by name.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// One page of the names of objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct S3Page {
    /// Names and sizes in bytes of objects.
    pub objects: Vec<(String, u64)>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<String>,
}

/// Reads the answer to `ListObjectsV2` with `encoding-type=url`. Returns `None` if it is no such answer.
pub fn read_s3_page(text: &str) -> Option<S3Page> {
    let all = element(text, "ListBucketResult")?;
    let mut page = S3Page::default();
    let mut rest = all;
    while let Some((content, after)) = next_element(rest, "Contents") {
        let key = unescape(element(content, "Key")?);
        let key = percent_decode_str(&key).decode_utf8().ok()?.into_owned();
        let size = element(content, "Size")?.trim().parse().ok()?;
        page.objects.push((key, size));
        rest = after;
    }
    if element(all, "IsTruncated").is_some_and(|text| text.trim() == "true") {
        // A page that goes on and does not say where cannot be used.
        page.next = Some(unescape(element(all, "NextContinuationToken")?).into_owned());
    }
    Some(page)
}

/// Reads the code and the message of an error.
pub fn read_s3_error(text: &str) -> Option<String> {
    let error = element(text, "Error")?;
    let code = unescape(element(error, "Code")?).into_owned();
    let message = element(error, "Message").map(unescape).unwrap_or_default();
    Some(if message.is_empty() { code } else { format!("{code}: {message}") })
}

/// The content of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    next_element(text, name).map(|(content, _)| content)
}

/// The content of the first element of this name, and what follows the element.
fn next_element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut from = 0;
    loop {
        let start = from + text.get(from..)?.find(&format!("<{name}"))? + 1 + name.len();
        let rest = text.get(start..)?;
        // Attributes may follow the name, and another name may begin with this one.
        let open = rest.find('>')?;
        let head = rest.get(..open)?;
        if head.ends_with('/') || !(head.is_empty() || head.starts_with(char::is_whitespace)) {
            from = start;
            continue;
        }
        let content = rest.get(open + 1..)?;
        let end = format!("</{name}>");
        let at = content.find(&end)?;
        return Some((content.get(..at)?, content.get(at + end.len()..)?));
    }
}

fn unescape(text: &str) -> Cow<'_, str> {
    const ENTITIES: [(&str, &str); 6] =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    // The ampersand comes last, so that what it makes is not taken for an entity.
    Cow::Owned(ENTITIES.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages() {
        let text = "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <KeyCount>2</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b==</NextContinuationToken>\
            <Contents><Key>x%2Fmanifest.json</Key><Size>12</Size></Contents>\
            <Contents><Size>0</Size><Key>y</Key></Contents></ListBucketResult>";
        let objects = vec![("x/manifest.json".to_owned(), 12), ("y".to_owned(), 0)];
        assert_eq!(read_s3_page(text), Some(S3Page { objects, next: Some("a&b==".into()) }));
        let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        assert_eq!(read_s3_page(empty), Some(S3Page::default()));
        for bad in ["", "<ListBucketResult>", "<ListBucketResult><Contents></Contents></ListBucketResult>"] {
            assert_eq!(read_s3_page(bad), None, "{bad}");
        }
        let lost = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert_eq!(read_s3_page(lost), None, "it goes on, and nobody knows where");
    }

    #[test]
    fn errors() {
        let text =
            "<Error><Code>NoSuchBucket</Code><Message>The &quot;b&quot; is not there</Message></Error>";
        assert_eq!(read_s3_error(text), Some("NoSuchBucket: The \"b\" is not there".into()));
        assert_eq!(read_s3_error("<Error><Code>X</Code></Error>"), Some("X".into()));
        assert_eq!(read_s3_error("<html>"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(<[A-Za-z/]{0,20}>?|Contents|Key|[a-z&;%]{0,4}){0,30}") {
            let _ = (read_s3_page(&text), read_s3_error(&text));
        }
    }
}
