//! The data of a record, converted as far as expressions ask for it.

use std::cell::{Cell, OnceCell};

use super::error::{Failure, Stop};
use super::json;
use super::value::{CelBytes, CelValue};

/// Bytes of paths that are looked up in the text, in multiples of its size, before the whole is converted: to
/// convert all of it takes about three times as long as to pass over it.
const LOOKUPS_BEFORE_WHOLE: u32 = 3;

/// The data of one record, for all expressions that are evaluated over it. A path is looked up in the text. The whole
/// is converted once it is asked for as a whole, or by so many paths that this is cheaper.
#[derive(Debug)]
pub struct ExpressionData<'v> {
    content: Content<'v>,
    /// The whole as a value, once it was converted; `None` if it is no JSON.
    whole: OnceCell<Option<CelValue<'v>>>,
    lookups: Cell<u32>,
}

/// JSON text that was converted as a whole, to be kept and used by many expressions.
#[derive(Clone, Debug)]
pub struct ConvertedData(Option<CelValue<'static>>);

impl ConvertedData {
    /// Converts JSON text.
    pub fn of(text: &str) -> ConvertedData {
        ConvertedData(json::read(text).map(|value| value.owned()))
    }
}

#[derive(Debug)]
enum Content<'v> {
    Json(&'v str),
    Bytes(&'v [u8]),
    Nothing,
}

impl<'v> ExpressionData<'v> {
    /// Data that is JSON text.
    pub fn json(text: &'v str) -> ExpressionData<'v> {
        ExpressionData::of(Content::Json(text))
    }

    /// Data that is a sequence of bytes.
    pub fn bytes(bytes: &'v [u8]) -> ExpressionData<'v> {
        ExpressionData::of(Content::Bytes(bytes))
    }

    /// The data of a deletion, which is null.
    pub fn nothing() -> ExpressionData<'v> {
        ExpressionData::of(Content::Nothing)
    }

    /// Data that was converted before.
    pub fn converted(converted: &'v ConvertedData) -> ExpressionData<'v> {
        let data = ExpressionData::of(Content::Json(""));
        // The cell is empty, so this cannot fail.
        let _ = data.whole.set(converted.0.clone());
        data
    }

    fn of(content: Content<'v>) -> ExpressionData<'v> {
        ExpressionData { content, whole: OnceCell::new(), lookups: Cell::new(0) }
    }

    /// Returns the whole.
    pub(super) fn whole(&self) -> Result<CelValue<'v>, Stop<'v>> {
        match self.content {
            Content::Json(text) => {
                self.whole.get_or_init(|| json::read(text)).clone().ok_or(Failure::BadData.into())
            }
            Content::Bytes(bytes) => Ok(CelValue::Bytes(CelBytes::Borrowed(bytes))),
            Content::Nothing => Ok(CelValue::Null),
        }
    }

    /// Returns what a path leads to, if the whole is not converted and a look at the text is cheaper: `Some(None)` if
    /// the path leads nowhere.
    pub(super) fn look_up(&self, path: &[Box<str>]) -> Result<Option<Option<CelValue<'v>>>, Stop<'v>> {
        let Content::Json(text) = self.content else { return Ok(None) };
        let lookups = self.lookups.get() + 1;
        if self.whole.get().is_some() || lookups > LOOKUPS_BEFORE_WHOLE {
            return Ok(None);
        }
        self.lookups.set(lookups);
        json::read_at(text, path).map(Some).ok_or(Failure::BadData.into())
    }
}
