//! The statements of SQL that archives need, in the part of the language that Tableland takes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use super::contract::TableName;

/// Bytes of a part. In base64 they are the 1,024 characters that a cell may hold.
pub const PART_BYTES: usize = 768;
/// Longest statement, in bytes. The contract takes 35,000.
const STATEMENT_BYTES_MAX: usize = 34_000;

/// The statements that put an object into a table: as few as its rows fit into, and one for an empty object.
pub fn insert_statements(table: &TableName, key: &str, body: &[u8]) -> Vec<String> {
    let (folder, object) = quoted(key);
    let begin = format!("INSERT INTO {table} (folder, object, part, data) VALUES ");
    let mut statements = vec![begin.clone()];
    for (at, part) in body.chunks(PART_BYTES).chain(body.is_empty().then_some(body)).enumerate() {
        let row = format!("({folder}, {object}, {at}, '{}')", BASE64_STANDARD_NO_PAD.encode(part));
        if statements.last().is_some_and(|last| last.len() + row.len() + 2 > STATEMENT_BYTES_MAX) {
            statements.push(begin.clone());
        }
        if let Some(last) = statements.last_mut() {
            if last.len() > begin.len() {
                last.push_str(", ");
            }
            last.push_str(&row);
        }
    }
    statements
}

/// The statement that reads the parts of an object in their order.
pub fn parts_statement(table: &TableName, key: &str) -> String {
    let (folder, object) = quoted(key);
    format!("SELECT part, data FROM {table} WHERE folder = {folder} AND object = {object} ORDER BY part")
}

/// The statement that takes an object away.
pub fn delete_statement(table: &TableName, key: &str) -> String {
    let (folder, object) = quoted(key);
    format!("DELETE FROM {table} WHERE folder = {folder} AND object = {object}")
}

/// The statement that lists the objects below a prefix, with the number of characters of each. It may name some more,
/// because an underscore in the prefix stands for any character. The column with the folder has no slash at its end, and a prefix
/// has.
pub fn count_statement(table: &TableName, prefix: &str) -> String {
    let prefix = literal(&format!("{prefix}%"));
    format!(
        "SELECT folder, object, SUM(LENGTH(data)) AS characters FROM {table} WHERE folder || '/' LIKE {prefix} \
         GROUP BY folder, object ORDER BY folder, object"
    )
}

/// The folder and the name of an object as literals.
fn quoted(key: &str) -> (String, String) {
    let (folder, object) = key.rsplit_once('/').unwrap_or(("", key));
    (literal(folder), literal(object))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> TableName {
        TableName::parse("anode_31337_2").expect("a name")
    }

    #[test]
    fn statements_name_rows_and_objects() {
        let statements = insert_statements(&table(), "p/nightly/1-a/x.json", b"{}");
        let row = "('p/nightly/1-a', 'x.json', 0, 'e30')";
        assert_eq!(
            statements,
            [format!("INSERT INTO anode_31337_2 (folder, object, part, data) VALUES {row}")]
        );
        assert!(insert_statements(&table(), "a/b", b"")[0].ends_with("VALUES ('a', 'b', 0, '')"));
        let listed = count_statement(&table(), "p/nightly/1-a/");
        assert!(listed.contains("WHERE folder || '/' LIKE 'p/nightly/1-a/%' GROUP BY"), "{listed}");
        let quoted = delete_statement(&table(), "it's/b");
        assert_eq!(quoted, "DELETE FROM anode_31337_2 WHERE folder = 'it''s' AND object = 'b'");
    }

    proptest! {
        /// However large an object is, no statement is too long, and all parts are there once and in order.
        #[test]
        fn statements_are_bounded_and_complete(body in prop::collection::vec(any::<u8>(), 0..80_000)) {
            let statements = insert_statements(&table(), "archives/nightly/0001763800000000-node/data-00000", &body);
            let mut found = Vec::new();
            for statement in &statements {
                prop_assert!(statement.len() <= STATEMENT_BYTES_MAX);
                for row in statement.split("('").skip(1) {
                    let data = row.rsplit('\'').nth(1).expect("the last literal");
                    prop_assert!(data.len() <= 1_024);
                    found.extend(BASE64_STANDARD_NO_PAD.decode(data).expect("base64"));
                }
            }
            prop_assert_eq!(found, body);
        }
    }
}
