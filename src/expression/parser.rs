//! From the text of an expression to the tree that is evaluated.
//!
//! The parser descends into parentheses, brackets, arguments and the parts of a condition, and counts how deep it is.
//! The tree that it makes is bounded in depth as well, because a chain such as `a.b.c` or `1 + 2 + 3` nests without
//! any parentheses. So neither reading, evaluating nor freeing an expression takes much of the stack.

use super::dialect::{Dialect, Variable};
use super::error::BadExpression;
use super::lexer::{Lexeme, LexemeKind, Lexer};
use super::literals::{number, quoted};
use super::macros::{loop_kind, wrong_count};
use super::names::{NAMESPACES, function};
use super::node::{BinaryOperator, Constant, ExpressionNode, Logic, LoopKind, LoopNode};
use super::regexes::{BoundedRegex, REGEXES_MAX};
use super::value::KINDS;

/// How deep an expression may be nested.
pub(super) const DEPTH_MAX: usize = 64;

/// Bytes that a part of the tree holds, at most, besides texts and regular expressions.
const NODE_BYTES: usize = 2 * size_of::<ExpressionNode>();

/// An expression that was read.
pub(super) struct Parsed {
    pub(super) root: ExpressionNode,
    /// Number of the parts of the tree.
    pub(super) parts: usize,
    /// Whether its work may grow with the data, and not with the text of the expression alone.
    pub(super) is_intricate: bool,
    /// Number of values that macros name at one time.
    pub(super) locals: usize,
    pub(super) held_bytes: usize,
}

/// Reads an expression.
pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Parsed, BadExpression> {
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut parser = Parser {
        text,
        dialect,
        lexer,
        next,
        nesting: 0,
        locals: Vec::new(),
        locals_max: 0,
        regexes: 0,
        held_bytes: 0,
        parts: 0,
        is_intricate: false,
    };
    let root = parser.expression()?;
    match parser.next.kind {
        LexemeKind::End => {
            let Parser { locals_max: locals, held_bytes, parts, is_intricate, .. } = parser;
            Ok(Parsed { root: root.node, parts, is_intricate, locals, held_bytes })
        }
        _ => Err(parser.unexpected("an operator")),
    }
}

/// A part of the tree, and how deep it is.
struct Deep {
    node: ExpressionNode,
    depth: usize,
}

struct Parser<'t> {
    text: &'t str,
    dialect: Dialect,
    lexer: Lexer<'t>,
    next: Lexeme<'t>,
    nesting: usize,
    /// Names of the values of the macros around this place.
    locals: Vec<&'t str>,
    locals_max: usize,
    regexes: usize,
    held_bytes: usize,
    parts: usize,
    is_intricate: bool,
}

type Read<T> = Result<T, BadExpression>;

impl<'t> Parser<'t> {
    fn error(&self, at: usize, message: impl Into<String>) -> BadExpression {
        BadExpression::new(self.text, at, message)
    }

    fn unexpected(&self, wanted: &str) -> BadExpression {
        let message = match self.next.kind {
            LexemeKind::End => format!("the expression ends where {wanted} is expected"),
            _ => format!("{:?} stands where {wanted} is expected", self.next.text),
        };
        self.error(self.next.at, message)
    }

    fn advance(&mut self) -> Read<Lexeme<'t>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn is_next(&self, sign: &str) -> bool {
        matches!(self.next.kind, LexemeKind::Sign(next) if next == sign)
    }

    fn takes(&mut self, sign: &str) -> Read<bool> {
        let is_next = self.is_next(sign);
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    fn expect(&mut self, sign: &str) -> Read<()> {
        if self.takes(sign)? { Ok(()) } else { Err(self.unexpected(&format!("{sign:?}"))) }
    }

    /// Makes a part of the tree whose parts are `depth` deep.
    fn deep(&mut self, node: ExpressionNode, depth: usize) -> Read<Deep> {
        self.held_bytes += NODE_BYTES;
        self.parts += 1;
        self.is_intricate |= node.is_intricate();
        let depth = depth + 1;
        if depth > DEPTH_MAX {
            let message = format!("the expression is nested deeper than {DEPTH_MAX} levels here");
            return Err(self.error(self.next.at, message));
        }
        Ok(Deep { node, depth })
    }

    /// Reads a whole expression: a condition with its two outcomes, or what has no `?`.
    fn expression(&mut self) -> Read<Deep> {
        self.nesting += 1;
        if self.nesting > DEPTH_MAX {
            let message = format!("the expression is nested deeper than {DEPTH_MAX} levels here");
            return Err(self.error(self.next.at, message));
        }
        let mut read = self.logic(Logic::Or)?;
        if self.takes("?")? {
            let yes = self.logic(Logic::Or)?;
            self.expect(":")?;
            let no = self.expression()?;
            let depth = read.depth.max(yes.depth).max(no.depth);
            let node = ExpressionNode::Conditional(Box::new([read.node, yes.node, no.node]));
            read = self.deep(node, depth)?;
        }
        self.nesting -= 1;
        Ok(read)
    }

    /// Reads conditions that are joined by `||`, or by `&&`.
    fn logic(&mut self, logic: Logic) -> Read<Deep> {
        let sign = if logic == Logic::Or { "||" } else { "&&" };
        let read = |parser: &mut Self| match logic {
            Logic::Or => parser.logic(Logic::And),
            Logic::And => parser.binary(0),
        };
        let first = read(self)?;
        if !self.is_next(sign) {
            return Ok(first);
        }
        let (mut nodes, mut depth) = (vec![first.node], first.depth);
        while self.takes(sign)? {
            let next = read(self)?;
            depth = depth.max(next.depth);
            nodes.push(next.node);
        }
        self.held_bytes += nodes.len() * NODE_BYTES;
        self.deep(ExpressionNode::Logic(nodes.into(), logic), depth)
    }

    /// Reads operators that bind at least as strongly as `level` says: 0 for comparisons, 1 for sums, 2 for products.
    fn binary(&mut self, level: usize) -> Read<Deep> {
        if level > 2 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operator_of(&self.next, level) {
            self.advance()?;
            let right = self.binary(level + 1)?;
            let depth = left.depth.max(right.depth);
            left = self.deep(ExpressionNode::Binary(operator, Box::new([left.node, right.node])), depth)?;
        }
        Ok(left)
    }

    /// Reads a value with the signs before it.
    fn unary(&mut self) -> Read<Deep> {
        let (mut nots, mut minuses) = (0usize, 0usize);
        let is_not = self.is_next("!");
        while is_not && self.takes("!")? {
            nots += 1;
        }
        while !is_not && self.is_next("-") {
            self.advance()?;
            minuses += 1;
            if self.next.kind == LexemeKind::Number {
                break;
            }
        }
        let read = if minuses > 0 && self.next.kind == LexemeKind::Number {
            minuses -= 1;
            let number = self.number(true)?;
            self.behind(number)?
        } else {
            let primary = self.primary()?;
            self.behind(primary)?
        };
        // Two signs cancel each other, but the value must be one that they can stand before.
        let count = |signs: usize| if signs > 2 { 2 - signs % 2 } else { signs };
        let mut read = read;
        for _ in 0..count(nots) {
            read = self.deep(ExpressionNode::Not(Box::new(read.node)), read.depth)?;
        }
        for _ in 0..count(minuses) {
            read = self.deep(ExpressionNode::Negate(Box::new(read.node)), read.depth)?;
        }
        Ok(read)
    }

    fn number(&mut self, is_negative: bool) -> Read<Deep> {
        let lexeme = self.advance()?;
        let constant = number(lexeme.text, is_negative).map_err(|message| self.error(lexeme.at, message))?;
        self.deep(ExpressionNode::Constant(constant), 0)
    }

    /// Reads the fields, indexes and calls that stand behind a value.
    fn behind(&mut self, mut value: Deep) -> Read<Deep> {
        loop {
            if self.takes(".")? {
                let name = self.field_name()?;
                value = if self.takes("(")? {
                    self.member_call(value, name)?
                } else {
                    self.field(value, name.text)?
                };
            } else if self.takes("[")? {
                let index = self.expression()?;
                self.expect("]")?;
                let depth = value.depth.max(index.depth);
                value = match index.node {
                    ExpressionNode::Constant(Constant::Text(name)) => self.field(value, &name)?,
                    node => self.deep(ExpressionNode::Index(Box::new([value.node, node])), depth)?,
                };
            } else {
                return Ok(value);
            }
        }
    }

    fn field_name(&mut self) -> Read<Lexeme<'t>> {
        match self.next.kind {
            LexemeKind::Name => self.advance(),
            _ => Err(self.unexpected("the name of a field")),
        }
    }

    /// Makes a field of a value. Fields of the data become a path.
    fn field(&mut self, value: Deep, name: &str) -> Read<Deep> {
        self.held_bytes += name.len();
        let name = Box::from(name);
        let node = match value.node {
            ExpressionNode::Variable(Variable::Data) => ExpressionNode::Path(Box::new([name])),
            ExpressionNode::Path(path) => {
                let mut path = path.into_vec();
                path.push(name);
                ExpressionNode::Path(path.into())
            }
            node => ExpressionNode::Field(Box::new(node), name),
        };
        self.deep(node, value.depth)
    }

    /// Reads arguments up to the parenthesis that ends them.
    fn arguments(&mut self, end: &str) -> Read<(Vec<ExpressionNode>, usize)> {
        let (mut nodes, mut depth) = (Vec::new(), 0);
        while !self.is_next(end) {
            let read = self.expression()?;
            depth = depth.max(read.depth);
            nodes.push(read.node);
            if !self.takes(",")? {
                break;
            }
        }
        self.expect(end)?;
        Ok((nodes, depth))
    }

    /// Reads a call behind a point, whose opening parenthesis was taken.
    fn member_call(&mut self, value: Deep, name: Lexeme<'t>) -> Read<Deep> {
        if let Some(kind) = loop_kind(name.text) {
            return self.loop_call(value, kind, name);
        }
        let (mut arguments, depth) = self.arguments(")")?;
        arguments.insert(0, value.node);
        self.call(name, true, arguments, depth.max(value.depth))
    }

    fn call(
        &mut self,
        name: Lexeme<'t>,
        is_member: bool,
        arguments: Vec<ExpressionNode>,
        depth: usize,
    ) -> Read<Deep> {
        self.named_call(name.text, name.at, is_member, arguments, depth)
    }

    fn named_call(
        &mut self,
        name: &str,
        at: usize,
        is_member: bool,
        arguments: Vec<ExpressionNode>,
        depth: usize,
    ) -> Read<Deep> {
        if name == "matches" {
            return self.matches(at, arguments, depth);
        }
        if name == "drop" && !is_member && self.dialect.decides() && arguments.is_empty() {
            return self.deep(ExpressionNode::Drop, depth);
        }
        let found = function(name, is_member, arguments.len(), self.dialect.decides());
        let function = found.map_err(|message| self.error(at, message))?;
        self.deep(ExpressionNode::Call(function, arguments.into()), depth)
    }

    /// Makes a search with a regular expression, which must be known now so that its size is.
    fn matches(&mut self, at: usize, arguments: Vec<ExpressionNode>, depth: usize) -> Read<Deep> {
        let Ok([text, pattern]) = <[ExpressionNode; 2]>::try_from(arguments) else {
            return Err(self.error(at, "matches takes a text and a regular expression"));
        };
        let ExpressionNode::Constant(Constant::Text(pattern)) = pattern else {
            return Err(self.error(at, "the regular expression of matches must be a text in quotes"));
        };
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            return Err(self.error(at, format!("at most {REGEXES_MAX} regular expressions are allowed")));
        }
        let regex = BoundedRegex::compile(&pattern)
            .map_err(|message| self.error(at, format!("the regular expression {pattern:?}: {message}")))?;
        self.held_bytes += regex.held_bytes;
        self.deep(ExpressionNode::Matches(Box::new(text), Box::new(regex)), depth)
    }

    /// Reads a macro, whose opening parenthesis was taken.
    fn loop_call(&mut self, range: Deep, kind: LoopKind, name: Lexeme<'t>) -> Read<Deep> {
        let LexemeKind::Name = self.next.kind else {
            return Err(self.unexpected("the name of the item"));
        };
        let item = self.advance()?;
        let local = self.locals.len();
        self.locals.push(item.text);
        self.locals_max = self.locals_max.max(self.locals.len());
        let mut parts = Vec::new();
        let mut depth = range.depth;
        while self.takes(",")? {
            let part = self.expression()?;
            depth = depth.max(part.depth);
            parts.push(part.node);
        }
        self.expect(")")?;
        self.locals.pop();
        if let Some(right) = wrong_count(kind, parts.len() + 1) {
            let message = format!("{} takes {right} arguments, not {}", name.text, parts.len() + 1);
            return Err(self.error(name.at, message));
        }
        let Some(body) = parts.pop() else { return Err(self.unexpected("an expression")) };
        let (condition, range) = (parts.pop(), range.node);
        self.held_bytes += size_of::<LoopNode>();
        self.deep(ExpressionNode::Loop(Box::new(LoopNode { kind, range, local, condition, body })), depth)
    }

    /// Reads what an expression can begin with.
    fn primary(&mut self) -> Read<Deep> {
        match self.next.kind {
            LexemeKind::Number => self.number(false),
            LexemeKind::Quoted => {
                let lexeme = self.advance()?;
                let read =
                    quoted(lexeme.text).map_err(|(at, message)| self.error(lexeme.at + at, message))?;
                self.held_bytes += lexeme.text.len();
                self.deep(ExpressionNode::Constant(read), 0)
            }
            LexemeKind::Name => self.name(),
            LexemeKind::Sign("(") => {
                self.advance()?;
                let read = self.expression()?;
                self.expect(")")?;
                Ok(read)
            }
            LexemeKind::Sign("[") => {
                self.advance()?;
                let (nodes, depth) = self.arguments("]")?;
                self.deep(ExpressionNode::List(nodes.into()), depth)
            }
            LexemeKind::Sign("{") => self.map(),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn map(&mut self) -> Read<Deep> {
        self.advance()?;
        let (mut entries, mut depth) = (Vec::new(), 0);
        while !self.is_next("}") {
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            depth = depth.max(key.depth).max(value.depth);
            entries.push([key.node, value.node]);
            if !self.takes(",")? {
                break;
            }
        }
        self.expect("}")?;
        self.deep(ExpressionNode::Map(entries.into()), depth)
    }

    /// Reads a name: a word of the language, a variable, or a function that is called.
    fn name(&mut self) -> Read<Deep> {
        let name = self.advance()?;
        let constant = match name.text {
            "true" => Some(Constant::Bool(true)),
            "false" => Some(Constant::Bool(false)),
            "null" => Some(Constant::Null),
            _ => None,
        };
        if let Some(constant) = constant {
            return self.deep(ExpressionNode::Constant(constant), 0);
        }
        if let Some(local) = self.locals.iter().rposition(|local| *local == name.text) {
            return self.deep(ExpressionNode::Local(local), 0);
        }
        if self.is_next("(") {
            self.advance()?;
            if name.text == "has" {
                return self.has(name);
            }
            let (arguments, depth) = self.arguments(")")?;
            return self.call(name, false, arguments, depth);
        }
        if NAMESPACES.contains(&name.text) && self.takes(".")? {
            let member = self.field_name()?;
            self.expect("(")?;
            let (arguments, depth) = self.arguments(")")?;
            let whole = format!("{}.{}", name.text, member.text);
            return self.named_call(&whole, name.at, false, arguments, depth);
        }
        if let Some(variable) = self.dialect.variable(name.text) {
            return self.deep(ExpressionNode::Variable(variable), 0);
        }
        if let Some((_, kind)) = KINDS.iter().find(|(word, _)| *word == name.text) {
            return self.deep(ExpressionNode::Constant(Constant::Type(*kind)), 0);
        }
        let known = self.dialect.variable_names();
        Err(self.error(name.at, format!("there is no variable {:?}; there are {known}", name.text)))
    }

    /// Reads `has(value.field)`, whose opening parenthesis was taken.
    fn has(&mut self, name: Lexeme<'t>) -> Read<Deep> {
        let (arguments, depth) = self.arguments(")")?;
        let wrong = "has() takes one field, as in has(data.temp)";
        let Ok([argument]) = <[ExpressionNode; 1]>::try_from(arguments) else {
            return Err(self.error(name.at, wrong));
        };
        let node = match argument {
            ExpressionNode::Path(path) => ExpressionNode::HasPath(path),
            ExpressionNode::Field(value, field) => ExpressionNode::Has(value, field),
            _ => return Err(self.error(name.at, wrong)),
        };
        self.deep(node, depth)
    }
}

/// Returns the operator that the next sign is, if it binds as `level` says.
fn operator_of(next: &Lexeme<'_>, level: usize) -> Option<BinaryOperator> {
    let operators: &[(&str, BinaryOperator)] = match level {
        0 => &[
            ("==", BinaryOperator::Equal),
            ("!=", BinaryOperator::NotEqual),
            ("<=", BinaryOperator::LessOrEqual),
            (">=", BinaryOperator::GreaterOrEqual),
            ("<", BinaryOperator::Less),
            (">", BinaryOperator::Greater),
            ("in", BinaryOperator::In),
        ],
        1 => &[("+", BinaryOperator::Add), ("-", BinaryOperator::Subtract)],
        _ => &[
            ("*", BinaryOperator::Multiply),
            ("/", BinaryOperator::Divide),
            ("%", BinaryOperator::Remainder),
        ],
    };
    if !matches!(next.kind, LexemeKind::Sign(_) | LexemeKind::Name) {
        return None;
    }
    operators.iter().find(|(sign, _)| *sign == next.text).map(|(_, operator)| *operator)
}
