//! Updates the page of figures: new results of a command replace its earlier ones.

use std::path::Path;

use anode_loadgen::Outcome;

/// Puts `text` between `<!-- NAME -->` and `<!-- /NAME -->` of the page. If the page has no such marks, text
/// and marks are added at its end.
pub fn replace(page: &Path, name: &str, text: &str) -> Outcome<()> {
    let old = std::fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))?;
    Ok(std::fs::write(page, replaced(&old, name, text))?)
}

fn replaced(old: &str, name: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let section = format!("{begin}\n\n{}\n\n{end}", text.trim());
    let found = old.find(&begin).zip(old.find(&end));
    match found {
        Some((from, to)) if from < to => {
            format!("{}{section}{}", &old[..from], &old[to + end.len()..])
        }
        _ => format!("{}\n\n{section}\n", old.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_what_surrounds_it_stays() {
        let page = replaced("# Page\n", "a", "one");
        assert_eq!(page, "# Page\n\n<!-- a -->\n\none\n\n<!-- /a -->\n");
        let page = replaced(&format!("{page}after\n"), "a", "two\n");
        assert_eq!(page, "# Page\n\n<!-- a -->\n\ntwo\n\n<!-- /a -->\nafter\n");
    }
}
