//! An expression as it is evaluated: a tree in which all names are resolved.

use super::dialect::Variable;
use super::function::Function;
use super::regexes::BoundedRegex;
use super::value::Kind;

/// A part of an expression.
#[derive(Debug)]
pub(super) enum ExpressionNode {
    Constant(Constant),
    Variable(Variable),
    /// A path of fields of the data: `data.room.temp`.
    Path(Box<[Box<str>]>),
    /// A value that a macro names, by its place.
    Local(usize),
    Field(Box<ExpressionNode>, Box<str>),
    Index(Box<[ExpressionNode; 2]>),
    /// Whether a value has a field: `has(data.room)`.
    Has(Box<ExpressionNode>, Box<str>),
    HasPath(Box<[Box<str>]>),
    Not(Box<ExpressionNode>),
    Negate(Box<ExpressionNode>),
    /// All of these, and whether all must be true (`&&`) or one of them (`||`).
    Logic(Box<[ExpressionNode]>, Logic),
    Conditional(Box<[ExpressionNode; 3]>),
    Binary(BinaryOperator, Box<[ExpressionNode; 2]>),
    Call(Function, Box<[ExpressionNode]>),
    Matches(Box<ExpressionNode>, Box<BoundedRegex>),
    List(Box<[ExpressionNode]>),
    Map(Box<[[ExpressionNode; 2]]>),
    Loop(Box<LoopNode>),
    Drop,
}

impl ExpressionNode {
    /// Returns whether the work of this part, without the parts below it, may grow with the data.
    pub(super) fn is_intricate(&self) -> bool {
        match self {
            ExpressionNode::Loop(_) | ExpressionNode::Matches(..) => true,
            ExpressionNode::Call(function, _) => function.is_intricate(),
            ExpressionNode::Binary(BinaryOperator::In, parts) => {
                !matches!(parts[1], ExpressionNode::List(_) | ExpressionNode::Map(_))
            }
            ExpressionNode::Binary(BinaryOperator::Add, parts) => {
                !parts.iter().any(|part| matches!(part, ExpressionNode::Constant(_)))
            }
            _ => false,
        }
    }
}

/// The two operators that join conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
}

/// A macro that takes each item of a list, or each key of a map, in turn.
#[derive(Debug)]
pub(super) struct LoopNode {
    pub(super) kind: LoopKind,
    pub(super) range: ExpressionNode,
    /// The place of the item.
    pub(super) local: usize,
    /// Which items are taken; only of `map` with three arguments.
    pub(super) condition: Option<ExpressionNode>,
    pub(super) body: ExpressionNode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

/// A value that stands in the text of an expression.
#[derive(Debug)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Type(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryOperator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl BinaryOperator {
    /// The operator as it is written.
    pub(super) fn sign(self) -> &'static str {
        match self {
            BinaryOperator::Equal => "==",
            BinaryOperator::NotEqual => "!=",
            BinaryOperator::Less => "<",
            BinaryOperator::LessOrEqual => "<=",
            BinaryOperator::Greater => ">",
            BinaryOperator::GreaterOrEqual => ">=",
            BinaryOperator::In => "in",
            BinaryOperator::Add => "+",
            BinaryOperator::Subtract => "-",
            BinaryOperator::Multiply => "*",
            BinaryOperator::Divide => "/",
            BinaryOperator::Remainder => "%",
        }
    }
}
