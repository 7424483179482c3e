//! Filter expressions over columns: `n_genes_by_counts >= 200 & pct_counts_mt < 10 & sample in ['a', 'b']`.
//!
//! Grammar, loosest first: `a | b`, `a & b`, `!a`, `x < y` (also `<= > >= == !=`, chains `200 <= x <= 500`), `x in [..]`, `(..)`, a column, a number, a text in quotes.
//! `or`, `and`, `not` and `~` are taken too; a column whose name is not a word stands in backticks. A missing value makes a comparison false, but `!=` true, as in pandas.

use std::fmt;

use cellmill_matrix::{Column, Error, Place, Result};
use serde::{Deserialize, Serialize};

/// A parsed filter expression. It is stored and shipped as the text that the user wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    text: String,
    root: Term,
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Or(Box<Term>, Box<Term>),
    And(Box<Term>, Box<Term>),
    Not(Box<Term>),
    Compare(Box<Term>, Comparison, Box<Term>),
    In(Box<Term>, Vec<Term>),
    Column(String),
    Number(f64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

#[derive(Clone, Debug)]
enum Value {
    Number(f64),
    Text(String),
    Missing,
}

impl Expression {
    /// Parses an expression.
    pub fn parse(text: &str) -> Result<Self> {
        let tokens = tokens(text)?;
        let mut parser = Parser { text, tokens: &tokens, at: 0, parts: 0 };
        let root = parser.or()?;
        match parser.peek() {
            None => Ok(Expression { text: text.to_string(), root }),
            Some(token) => Err(syntax(text, format!("'{token}' after the end"))),
        }
    }

    /// Names of the columns that it asks for, in order of appearance, each once.
    pub fn columns(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.root.names(&mut names);
        names
    }

    /// The truth of the expression for `n` rows. `column` finds a column by name; a name it doesn't know is an error that lists `known`.
    pub fn evaluate<'a>(
        &self,
        n: usize,
        column: impl Fn(&str) -> Option<&'a Column>,
        known: &[String],
        place: &Place,
    ) -> Result<Vec<bool>> {
        let mut bound = Vec::new();
        for name in self.columns() {
            let found = column(&name).ok_or_else(|| Error::missing(place.clone(), &name, known.iter().cloned()))?;
            bound.push((name, found));
        }
        (0..n).map(|row| self.root.truth(row, &bound).map_err(|what| syntax(&self.text, what))).collect()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Expression {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Expression::parse(&text)
    }
}

impl From<Expression> for String {
    fn from(e: Expression) -> String {
        e.text
    }
}

impl Term {
    fn names(&self, into: &mut Vec<String>) {
        match self {
            Term::Or(a, b) | Term::And(a, b) | Term::Compare(a, _, b) => {
                a.names(into);
                b.names(into);
            }
            Term::Not(a) => a.names(into),
            Term::In(a, list) => {
                a.names(into);
                list.iter().for_each(|t| t.names(into));
            }
            Term::Column(name) if !into.contains(name) => into.push(name.clone()),
            Term::Column(_) | Term::Number(_) | Term::Text(_) => {}
        }
    }

    fn truth(&self, row: usize, columns: &[(String, &Column)]) -> Result<bool, String> {
        Ok(match self {
            Term::Or(a, b) => a.truth(row, columns)? || b.truth(row, columns)?,
            Term::And(a, b) => a.truth(row, columns)? && b.truth(row, columns)?,
            Term::Not(a) => !a.truth(row, columns)?,
            Term::Compare(a, how, b) => match (a.place(b, row, columns)?, b.place(a, row, columns)?) {
                // Of ordered categories the order decides, not the alphabet.
                (Some((a, b)), _) | (None, Some((b, a))) => how.holds(&a, &b)?,
                (None, None) => how.holds(&a.value(row, columns), &b.value(row, columns))?,
            },
            Term::In(a, list) => {
                let value = a.value(row, columns);
                list.iter()
                    .try_fold(false, |found, t| Ok::<_, String>(found || Comparison::Equal.holds(&value, &t.value(row, columns))?))?
            }
            Term::Column(name) => match self.value(row, columns) {
                Value::Number(x) => x != 0.0,
                Value::Missing => false,
                Value::Text(_) => return Err(format!("'{name}' holds text, so it needs a comparison such as {name} == '…'")),
            },
            Term::Number(x) => return Err(format!("{x} stands where a condition is needed")),
            Term::Text(s) => return Err(format!("'{s}' stands where a condition is needed")),
        })
    }

    /// If this is a column of ordered categories, and the other a text: their places among the categories.
    fn place(&self, other: &Term, row: usize, columns: &[(String, &Column)]) -> Result<Option<(Value, Value)>, String> {
        let (Term::Column(name), Term::Text(text)) = (self, other) else { return Ok(None) };
        let Some((_, Column::Categorical { codes, categories, ordered: true })) = columns.iter().find(|(n, _)| n == name) else {
            return Ok(None);
        };
        let at = (0..categories.len()).find(|&at| categories.text(at) == *text);
        let at = at.ok_or_else(|| format!("'{text}' is none of the ordered categories of '{name}'"))?;
        let own = if codes[row] < 0 { Value::Missing } else { Value::Number(f64::from(codes[row])) };
        Ok(Some((own, Value::Number(at as f64))))
    }

    fn value(&self, row: usize, columns: &[(String, &Column)]) -> Value {
        match self {
            Term::Number(x) => Value::Number(*x),
            Term::Text(s) => Value::Text(s.clone()),
            Term::Column(name) => {
                let Some((_, column)) = columns.iter().find(|(n, _)| n == name) else { return Value::Missing };
                match column.number(row) {
                    Some(x) if x.is_nan() => Value::Missing,
                    Some(x) => Value::Number(x),
                    None => column.text(row).map_or(Value::Missing, Value::Text),
                }
            }
            other => Value::Number(f64::from(u8::from(other.truth(row, columns).unwrap_or(false)))),
        }
    }
}

impl Comparison {
    fn holds(self, a: &Value, b: &Value) -> Result<bool, String> {
        use std::cmp::Ordering::*;
        let order = match (a, b) {
            (Value::Missing, _) | (_, Value::Missing) => return Ok(self == Comparison::NotEqual),
            (Value::Number(a), Value::Number(b)) => a.partial_cmp(b).unwrap_or(Equal),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Text(t), Value::Number(x)) | (Value::Number(x), Value::Text(t)) => match (self, t.parse::<f64>()) {
                (Comparison::Equal | Comparison::NotEqual, Ok(y)) => {
                    if *x == y {
                        Equal
                    } else {
                        Less
                    }
                }
                (Comparison::Equal | Comparison::NotEqual, Err(_)) => Less,
                _ => return Err(format!("the text '{t}' is compared with the number {x}")),
            },
        };
        Ok(match self {
            Comparison::Less => order == Less,
            Comparison::LessEqual => order != Greater,
            Comparison::Greater => order == Greater,
            Comparison::GreaterEqual => order != Less,
            Comparison::Equal => order == Equal,
            Comparison::NotEqual => order != Equal,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Number(f64),
    Text(String),
    Mark(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Name(s) | Token::Text(s) => f.write_str(s),
            Token::Number(x) => x.fmt(f),
            Token::Mark(m) => f.write_str(m),
        }
    }
}

const MARKS: [&str; 20] = ["<=", ">=", "==", "!=", "&&", "||", "<", ">", "=", "&", "|", "!", "~", "(", ")", "[", "]", ",", "{", "}"];

fn syntax(text: &str, found: impl Into<String>) -> Error {
    Error::option(
        format!("filter '{text}'"),
        found.into(),
        "a filter reads like: n_genes_by_counts >= 200 & pct_counts_mt < 10 & sample in ['a', 'b']",
    )
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '\'' | '"' | '`' => {
                let inner = &rest[first.len_utf8()..];
                let end = inner.find(first).ok_or_else(|| syntax(text, format!("a {first} that is never closed")))?;
                let s = inner[..end].to_string();
                (if first == '`' { Token::Name(s) } else { Token::Text(s) }, end + 2)
            }
            c if c.is_ascii_digit() || c == '.' || (c == '-' && rest[1..].starts_with(|d: char| d.is_ascii_digit() || d == '.')) => {
                let mut end = 1;
                let bytes = rest.as_bytes();
                while end < bytes.len() {
                    let c = bytes[end];
                    let sign = (c == b'-' || c == b'+') && matches!(bytes[end - 1], b'e' | b'E');
                    if !(c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'_') || sign) {
                        break;
                    }
                    end += 1;
                }
                let x = rest[..end].replace('_', "").parse().map_err(|_| syntax(text, format!("'{}' is not a number", &rest[..end])))?;
                (Token::Number(x), end)
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':'))).unwrap_or(rest.len());
                (Token::Name(rest[..end].to_string()), end)
            }
            _ => {
                let mark = MARKS.iter().find(|m| rest.starts_with(**m)).ok_or_else(|| syntax(text, format!("the sign '{first}'")))?;
                (Token::Mark(mark), mark.len())
            }
        };
        out.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(out)
}

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    /// Conditions, brackets and negations so far.
    parts: usize,
}

/// Most parts of an expression: what stands in brackets is parsed, and what is joined is evaluated, one inside the other.
const MOST_PARTS: usize = 1000;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// Takes the next token if it is one of these marks or words.
    fn take(&mut self, any: &[&str]) -> Option<String> {
        let found = match self.peek()? {
            Token::Mark(m) => m.to_string(),
            Token::Name(n) => n.to_lowercase(),
            _ => return None,
        };
        any.contains(&found.as_str()).then(|| {
            self.at += 1;
            found
        })
    }

    /// Another part.
    fn part(&mut self) -> Result<()> {
        self.parts += 1;
        match self.parts > MOST_PARTS {
            true => Err(syntax(
                &self.text.chars().take(60).chain(['…']).collect::<String>(),
                format!("more than {MOST_PARTS} conditions and brackets (in [...] takes a list of any length)"),
            )),
            false => Ok(()),
        }
    }

    fn expect(&mut self, mark: &str) -> Result<()> {
        match self.take(&[mark]) {
            Some(_) => Ok(()),
            None => Err(syntax(self.text, format!("'{mark}' is missing"))),
        }
    }

    fn or(&mut self) -> Result<Term> {
        let mut left = self.and()?;
        while self.take(&["|", "||", "or"]).is_some() {
            left = Term::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Term> {
        let mut left = self.not()?;
        while self.take(&["&", "&&", "and"]).is_some() {
            left = Term::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Term> {
        self.part()?;
        if self.take(&["!", "~", "not"]).is_some() {
            return Ok(Term::Not(Box::new(self.not()?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Term> {
        let mut left = self.operand()?;
        let mut whole: Option<Term> = None;
        loop {
            let next = if self.take(&["in"]).is_some() {
                Term::In(Box::new(left.clone()), self.list()?)
            } else if let Some(sign) = self.take(&["<=", ">=", "==", "!=", "<", ">", "="]) {
                let how = match sign.as_str() {
                    "<" => Comparison::Less,
                    "<=" => Comparison::LessEqual,
                    ">" => Comparison::Greater,
                    ">=" => Comparison::GreaterEqual,
                    "!=" => Comparison::NotEqual,
                    _ => Comparison::Equal,
                };
                let right = self.operand()?;
                let compared = Term::Compare(Box::new(left), how, Box::new(right.clone()));
                left = right;
                compared
            } else {
                return Ok(whole.unwrap_or(left));
            };
            if whole.is_some() {
                self.part()?;
            }
            whole = Some(match whole {
                None => next,
                Some(before) => Term::And(Box::new(before), Box::new(next)),
            });
        }
    }

    fn list(&mut self) -> Result<Vec<Term>> {
        let close = match self.take(&["[", "(", "{"]).as_deref() {
            Some("[") => "]",
            Some("(") => ")",
            Some("{") => "}",
            _ => return Err(syntax(self.text, "'in' without a list in brackets")),
        };
        let mut list = vec![self.operand()?];
        while self.take(&[","]).is_some() {
            list.push(self.operand()?);
        }
        self.expect(close)?;
        Ok(list)
    }

    fn operand(&mut self) -> Result<Term> {
        if self.take(&["("]).is_some() {
            let inner = self.or()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let token = self.peek().cloned().ok_or_else(|| syntax(self.text, "it ends where a column or a number is needed"))?;
        self.at += 1;
        Ok(match token {
            Token::Name(n) if n == "True" || n == "true" => Term::Number(1.0),
            Token::Name(n) if n == "False" || n == "false" => Term::Number(0.0),
            Token::Name(n) => Term::Column(n),
            Token::Number(x) => Term::Number(x),
            Token::Text(s) => Term::Text(s),
            Token::Mark(m) => return Err(syntax(self.text, format!("'{m}' where a column or a number is needed"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use cellmill_matrix::Values;

    use super::*;

    fn truth(text: &str) -> Result<Vec<bool>> {
        let genes = Column::Plain(Values::I32(vec![100, 200, 300]));
        let mt = Column::Plain(Values::F32(vec![1.0, f32::NAN, 20.0]));
        let sample = Column::Categorical { codes: vec![0, 1, -1], categories: Values::Str(vec!["a".into(), "b c".into()]), ordered: false };
        let flag = Column::Plain(Values::Bool(vec![true, false, true]));
        let names: Vec<String> = ["n_genes", "pct_counts_mt", "sample", "is ok"].map(String::from).to_vec();
        Expression::parse(text)?.evaluate(
            3,
            |name| match name {
                "n_genes" => Some(&genes),
                "pct_counts_mt" => Some(&mt),
                "sample" => Some(&sample),
                "is ok" => Some(&flag),
                _ => None,
            },
            &names,
            &Place::element("x.zarr", "obs"),
        )
    }

    #[test]
    fn comparisons_bind_tighter_than_and_than_or() {
        assert_eq!(truth("n_genes >= 200 & pct_counts_mt < 30").unwrap(), [false, false, true]);
        assert_eq!(truth("n_genes == 100 | n_genes > 250 and `is ok`").unwrap(), [true, false, true]);
        assert_eq!(truth("!(n_genes >= 200)").unwrap(), [true, false, false]);
        assert_eq!(truth("150 < n_genes <= 2e2").unwrap(), [false, true, false]);
    }

    #[test]
    fn text_and_missing_values_compare_as_in_pandas() {
        assert_eq!(truth("sample == 'b c'").unwrap(), [false, true, false]);
        assert_eq!(truth("sample != 'a'").unwrap(), [false, true, true]);
        assert_eq!(truth("sample in ['a', 'x']").unwrap(), [true, false, false]);
        assert_eq!(truth("pct_counts_mt != 1").unwrap(), [false, true, true]);
        assert_eq!(truth("`is ok` == True").unwrap(), [true, false, true]);
    }

    #[test]
    fn mistakes_are_named() {
        let text = |t: &str| truth(t).unwrap_err().to_string();
        assert_eq!(text("n_gene > 3"), "x.zarr: obs: there is no 'n_gene'; did you mean 'n_genes'?");
        assert!(text("n_genes >").contains("it ends where a column or a number is needed"), "{}", text("n_genes >"));
        assert!(text("n_genes > 3 5").contains("'5' after the end"));
        assert!(text("sample").contains("holds text"));
        assert!(text("sample < 3").contains("is compared with the number"));
        assert!(text("n_genes # 3").contains("the sign '#'"));
    }

    #[test]
    fn ordered_categories_compare_by_their_order() {
        let categories = || Values::Str(vec!["low".into(), "mid".into(), "high".into()]);
        let column = |ordered| Column::Categorical { codes: vec![0, 2, -1, 1], categories: categories(), ordered };
        let truth = |text: &str, ordered| {
            let column = column(ordered);
            let columns = [("level".to_string(), &column)];
            let term = Expression::parse(text).unwrap().root;
            (0..4).map(|row| term.truth(row, &columns)).collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(truth("level < 'high'", true).unwrap(), [true, false, false, true]);
        assert_eq!(truth("'mid' <= level", true).unwrap(), [false, true, false, true]);
        assert_eq!(truth("level != 'mid'", true).unwrap(), [true, true, true, false]);
        assert_eq!(truth("level == 'mid'", false).unwrap(), [false, false, false, true]);
        assert!(truth("level < 'none'", true).unwrap_err().contains("none of the ordered categories"));
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let many = vec!["n_genes == 1"; 20_000].join(" | ");
        for text in [many, "(".repeat(50_000), "!".repeat(50_000), vec!["n_genes"; 3000].join(" < ")] {
            let said = Expression::parse(&text).unwrap_err().to_string();
            assert!(said.contains("more than 1000 conditions") && said.len() < 400, "{said}");
        }
        let ids: Vec<String> = (0..30_000).map(|id| format!("'{id}'")).collect();
        assert_eq!(truth(&format!("sample in [{}]", ids.join(", "))).unwrap(), [false, false, false]);
    }

    #[test]
    fn an_expression_travels_as_its_text() {
        let e = Expression::parse("n_genes >= 200").unwrap();
        let bytes = postcard::to_stdvec(&e).unwrap();
        assert_eq!(postcard::from_bytes::<Expression>(&bytes).unwrap(), e);
    }
}
