//! The registry of tables, as Ethereum sees it: names, addresses, and the call that changes a table.

use std::fmt;

use serde_json::Value;

/// The first bytes of the hash of `mutate(address,uint256,string)`, by which the contract knows the method.
const MUTATE: &str = "377af0da";
/// Bytes of a word, to whose multiples all values of a call are filled up.
const WORD_BYTES: usize = 32;

/// The name of a table: a prefix, the number of the chain that it is on, and the number that it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    name: String,
    /// Number of the chain.
    pub chain: u64,
    /// Number of the table on the chain.
    pub id: u64,
}

/// The address of an account or a contract: 40 hexadecimal digits after `0x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainAddress(String);

impl TableName {
    /// Tells users, where a name is refused, which names of tables are allowed.
    pub const ALLOWED: &'static str = "PREFIX_CHAIN_NUMBER, such as anode_8453_12, of a-z A-Z 0-9 _";

    /// Reads a name; `None` if it is none.
    pub fn parse(text: &str) -> Option<TableName> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if text.len() > 64
            || !text.bytes().all(is_fine)
            || text.starts_with(|first: char| first.is_ascii_digit())
        {
            return None;
        }
        let (rest, id) = text.rsplit_once('_')?;
        let chain = rest.rsplit_once('_').map_or(rest, |(_, chain)| chain);
        Some(TableName { name: text.into(), chain: chain.parse().ok()?, id: id.parse().ok()? })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

impl ChainAddress {
    /// Tells users, where an address is refused, how addresses are written.
    pub const ALLOWED: &'static str = "0x and 40 hexadecimal digits";

    /// Reads an address; `None` if it is none.
    pub fn parse(text: &str) -> Option<ChainAddress> {
        let digits = text.strip_prefix("0x")?;
        let is_address = digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_address.then(|| ChainAddress(digits.to_ascii_lowercase()))
    }
}

impl fmt::Display for ChainAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "0x{}", self.0)
    }
}

/// The data of a transaction that lets an account change a table by a statement, in hexadecimal.
pub fn call_data(caller: &ChainAddress, table: u64, statement: &str) -> String {
    use fmt::Write as _;
    // The account, the number, the place of the text behind these three words, and the length of the text.
    let mut data =
        format!("0x{MUTATE}{:0>64}{table:064x}{:064x}{:064x}", caller.0, 3 * WORD_BYTES, statement.len());
    for byte in statement.bytes() {
        // Writing to a text cannot fail.
        let _ = write!(data, "{byte:02x}");
    }
    let filling = statement.len().next_multiple_of(WORD_BYTES) - statement.len();
    data.push_str(&"00".repeat(filling));
    data
}

/// Reads a number as Ethereum writes it: hexadecimal after `0x`.
pub fn quantity(value: &Value) -> Option<u128> {
    u128::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// A number and a quarter more: what a transaction may use of gas, if it was estimated to use this.
pub fn with_reserve(estimated: &Value) -> Option<String> {
    let gas = quantity(estimated)?;
    Some(format!("{:#x}", gas.checked_add(gas / 4)?))
}

/// Returns whether a text is the hash of a transaction.
pub fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_have_a_chain_and_a_number() {
        let name = TableName::parse("my_table_80001_7").expect("a name");
        assert_eq!((name.chain, name.id, name.to_string().as_str()), (80_001, 7, "my_table_80001_7"));
        assert_eq!(TableName::parse("_1_2").map(|name| (name.chain, name.id)), Some((1, 2)));
        for bad in ["", "t", "t_1", "t_x_1", "t_1_x", "t-1_1_1", "1_1_1", "t_1_1; DROP"] {
            assert_eq!(TableName::parse(bad), None, "{bad}");
        }
        assert_eq!(TableName::parse(&format!("{}_1_1", "t".repeat(61))), None);
    }

    #[test]
    fn addresses_have_forty_digits() {
        let text = "0xF39fd6e51aad88F6F4ce6aB8827279cffFb92266";
        let address = ChainAddress::parse(text).expect("an address");
        assert_eq!(address.to_string(), text.to_ascii_lowercase());
        for bad in ["", "0x", &text[2..], &text[..41], &text.replace('F', "g")] {
            assert_eq!(ChainAddress::parse(bad), None, "{bad}");
        }
    }

    /// The layout is that of Ethereum's interface for contracts: three words, and a text behind them with its length.
    #[test]
    fn a_call_is_laid_out_in_words() {
        let caller = ChainAddress::parse(&format!("0x{}", "ab".repeat(20))).expect("an address");
        let data = call_data(&caller, 2, "SELECT 1");
        let words: Vec<&str> = (0..5).map(|at| &data[10 + 64 * at..74 + 64 * at]).collect();
        assert_eq!(&data[..10], "0x377af0da");
        assert_eq!(words[0], format!("{}{}", "0".repeat(24), "ab".repeat(20)));
        assert_eq!(words[1], format!("{}2", "0".repeat(63)));
        assert_eq!(words[2], format!("{}60", "0".repeat(62)));
        assert_eq!(words[3], format!("{}8", "0".repeat(63)));
        assert_eq!(words[4], format!("53454c4543542031{}", "0".repeat(48)));
        assert_eq!(data.len(), 10 + 5 * 64);
        assert_eq!(call_data(&caller, 2, &"x".repeat(32)).len(), 10 + 5 * 64, "nothing is filled up");
    }

    #[test]
    fn numbers_are_hexadecimal() {
        assert_eq!(quantity(&json!("0x7a69")), Some(31_337));
        assert_eq!(with_reserve(&json!("0x64")).as_deref(), Some("0x7d"));
        for bad in [json!(1), json!("7a"), json!("0x"), json!("0xg"), json!(format!("0x{}", "f".repeat(33)))]
        {
            assert_eq!(quantity(&bad), None, "{bad}");
        }
        assert_eq!(with_reserve(&json!(format!("0x{}", "f".repeat(32)))), None);
        assert!(is_hash(&format!("0x{}", "0a".repeat(32))) && !is_hash("0x12") && !is_hash(&"0".repeat(66)));
    }
}
