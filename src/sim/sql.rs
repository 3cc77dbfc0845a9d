//! The SQL that the simulated server knows: tokens into statements. Pure; what they do is `eval`'s.

use super::cockroach;
use super::database::Dialect;
use super::fault::Fault;
use super::lexer::{self, Token};
use super::own;
use super::statement::{Expr, Insert, Item, Parsed, Select, Statement};
use super::value::{Type, Value};

const COMPARISONS: [&str; 7] = ["=", "<", ">", "<=", ">=", "<>", "!="];
/// Functions that are called without parentheses.
const BARE: [&str; 6] =
    ["current_user", "session_user", "current_catalog", "current_timestamp", "current_role", "user"];

/// Reads a query text.
pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Vec<Parsed>, Fault> {
    let read = |(source, tokens): lexer::Piece<'_>| match recognise(source, &tokens, dialect)? {
        Some(statement) => Ok(Parsed { statement, parameters: Vec::new() }),
        None => {
            let mut parser = Parser { tokens: &tokens, parameters: Vec::new(), depth: 0 };
            let statement = parser.statement()?;
            parser.end()?;
            let parameters = parser.parameters.iter().map(|kind| kind.unwrap_or(Type::Text)).collect();
            Ok(Parsed { statement, parameters })
        }
    };
    lexer::split(text)?.into_iter().map(read).collect()
}

/// What only one kind of server knows.
fn recognise(source: &str, tokens: &[Token], dialect: Dialect) -> Result<Option<Statement>, Fault> {
    match dialect {
        Dialect::Postgres => Ok(own::recognise(source).map(Statement::Own)),
        Dialect::Cockroach | Dialect::CockroachSystem => {
            let system = dialect == Dialect::CockroachSystem;
            cockroach::sql::recognise(tokens, system).map(|known| known.map(Statement::Cockroach))
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    parameters: Vec<Option<Type>>,
    /// Expressions inside of expressions.
    depth: usize,
}

impl Parser<'_> {
    fn statement(&mut self) -> Result<Statement, Fault> {
        let first = self.word()?;
        let accept = |parser: &mut Self, statement| {
            parser.tokens = &[];
            Ok(statement)
        };
        match first.as_str() {
            "select" => self.select(),
            "insert" => self.insert(),
            "begin" | "start" => accept(self, Statement::Begin),
            "commit" | "end" => accept(self, Statement::Commit),
            "rollback" | "abort" => accept(self, Statement::Rollback),
            "set" => self.set(),
            "reset" => Ok(Statement::Set { name: self.word()?, value: None }),
            "show" => self.show(),
            "alter" => self.alter_system(),
            "discard" => accept(self, Statement::Accepted("DISCARD ALL")),
            "deallocate" => accept(self, Statement::Accepted("DEALLOCATE")),
            "checkpoint" => Ok(Statement::Accepted("CHECKPOINT")),
            "identify_system" => Ok(Statement::IdentifySystem),
            "timeline_history" => Ok(Statement::TimelineHistory(self.number()?)),
            _ => Err(Fault::NotSupported(first.to_uppercase())),
        }
    }

    fn select(&mut self) -> Result<Statement, Fault> {
        let items = self.items()?;
        let mut select = Select { items, from_table: false, filter: None, descending: false, limit: None };
        if self.take_word("from") {
            self.table()?;
            select.from_table = true;
        }
        if self.take_word("where") {
            self.column_id()?;
            let comparison =
                COMPARISONS.into_iter().find(|symbol| self.take(symbol)).ok_or_else(|| self.unexpected())?;
            select.filter = Some((comparison, self.integer()?));
        }
        if self.take_word("order") {
            self.expect_word("by")?;
            self.column_id()?;
            select.descending = self.take_word("desc");
            self.take_word("asc");
        }
        if self.take_word("limit") {
            select.limit = Some(self.integer()?);
        }
        let uses_table = select.items.iter().any(|item| matches!(item.expr, Expr::Id | Expr::At));
        match uses_table && !select.from_table {
            true => Err(Fault::NoColumn("id".into())),
            false => Ok(Statement::Select(select)),
        }
    }

    fn insert(&mut self) -> Result<Statement, Fault> {
        self.expect_word("into")?;
        self.table()?;
        if self.take("(") {
            self.column_id()?;
            self.expect(")")?;
        }
        self.expect_word("values")?;
        let mut insert = Insert { ids: Vec::new(), or_nothing: false, returning: Vec::new() };
        loop {
            self.expect("(")?;
            insert.ids.push(self.integer()?);
            self.expect(")")?;
            if !self.take(",") {
                break;
            }
        }
        if self.take_word("on") {
            self.expect_word("conflict")?;
            if self.take("(") {
                self.column_id()?;
                self.expect(")")?;
            }
            self.expect_word("do")?;
            self.expect_word("nothing")?;
            insert.or_nothing = true;
        }
        if self.take_word("returning") {
            insert.returning = self.items()?;
        }
        Ok(Statement::Insert(insert))
    }

    fn set(&mut self) -> Result<Statement, Fault> {
        let _ = self.take_word("session") || self.take_word("local");
        let mut name = self.word()?;
        while self.take(".") {
            name = format!("{name}.{}", self.word()?);
        }
        if !self.take("=") && !self.take_word("to") {
            // SET TRANSACTION, SET TIME ZONE and the like.
            self.tokens = &[];
            return Ok(Statement::Accepted("SET"));
        }
        Ok(Statement::Set { name, value: self.setting()? })
    }

    fn show(&mut self) -> Result<Statement, Fault> {
        let mut name = self.word()?;
        if name == "transaction" && self.take_word("isolation") {
            self.expect_word("level")?;
            name = "transaction_isolation".into();
        }
        Ok(Statement::Show(name))
    }

    fn alter_system(&mut self) -> Result<Statement, Fault> {
        if !self.take_word("system") {
            return Err(Fault::NotSupported("ALTER".into()));
        }
        if self.take_word("reset") {
            return Ok(Statement::AlterSystem { name: self.word()?, value: None });
        }
        self.expect_word("set")?;
        let name = self.word()?;
        if !self.take("=") {
            self.expect_word("to")?;
        }
        Ok(Statement::AlterSystem { name, value: self.setting()? })
    }

    fn setting(&mut self) -> Result<Option<String>, Fault> {
        let value = match self.next()? {
            Token::Text(text) => text,
            Token::Number(number) => number.to_string(),
            Token::Word(word) if word == "default" => return Ok(None),
            Token::Word(word) => word,
            other => return Err(unexpected(&other)),
        };
        Ok(Some(value))
    }

    fn items(&mut self) -> Result<Vec<Item>, Fault> {
        let mut items = Vec::new();
        loop {
            if self.take("*") {
                items.push(Item { expr: Expr::Id, name: "id".into() });
                items.push(Item { expr: Expr::At, name: "at".into() });
            } else {
                let expr = self.expr()?;
                let name = if self.take_word("as") { self.word()? } else { name_of(&expr) };
                items.push(Item { expr, name });
            }
            if !self.take(",") {
                return Ok(items);
            }
        }
    }

    fn integer(&mut self) -> Result<Expr, Fault> {
        let expr = self.expr()?;
        if let Expr::Parameter(number) = expr
            && let Some(kind) = self.parameters.get_mut(number)
        {
            kind.get_or_insert(Type::Int8);
        }
        Ok(expr)
    }

    fn expr(&mut self) -> Result<Expr, Fault> {
        const DEEPEST: usize = 50;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Fault::TooDeep);
        }
        let expr = self.primary();
        self.depth -= 1;
        self.casts(expr?)
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        Ok(match self.next()? {
            Token::Number(number) => Expr::Value(Value::Int(number)),
            Token::Text(text) => Expr::Value(Value::Text(text)),
            Token::Parameter(number) => self.parameter(number)?,
            Token::Symbol("-") => Expr::Value(Value::Int(-self.number()?)),
            Token::Symbol("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                inner
            }
            Token::Word(word) => self.named(word)?,
            other => return Err(unexpected(&other)),
        })
    }

    fn casts(&mut self, mut expr: Expr) -> Result<Expr, Fault> {
        while self.take("::") {
            let kind = self.kind()?;
            if let Expr::Parameter(number) = expr
                && let Some(known) = self.parameters.get_mut(number)
            {
                known.get_or_insert(kind);
            }
            expr = Expr::Cast(Box::new(expr), kind);
        }
        Ok(expr)
    }

    fn named(&mut self, mut word: String) -> Result<Expr, Fault> {
        match word.as_str() {
            "true" => return Ok(Expr::Value(Value::Bool(true))),
            "false" => return Ok(Expr::Value(Value::Bool(false))),
            "null" => return Ok(Expr::Value(Value::Null)),
            "not" => return Ok(Expr::Not(Box::new(self.expr()?))),
            "id" => return Ok(Expr::Id),
            "at" => return Ok(Expr::At),
            bare if BARE.contains(&bare) => return Ok(Expr::Call(word, Vec::new())),
            _ => {}
        }
        if matches!(word.as_str(), "pg_catalog" | "crdb_internal") && self.take(".") {
            word = self.word()?;
        }
        // A column of a table that is not known here.
        if self.tokens.first() == Some(&Token::Symbol(".")) {
            return Err(Fault::NotSupported(word));
        }
        if !self.take("(") {
            return Err(Fault::NoColumn(word));
        }
        let mut arguments = Vec::new();
        if self.take("*") {
            self.expect(")")?;
            return Ok(Expr::Call(word, arguments));
        }
        while !self.take(")") {
            // `name => value`
            if let [Token::Word(_), Token::Symbol("=>"), rest @ ..] = self.tokens {
                self.tokens = rest;
            }
            arguments.push(self.expr()?);
            self.take(",");
        }
        Ok(Expr::Call(word, arguments))
    }

    fn parameter(&mut self, number: usize) -> Result<Expr, Fault> {
        const MOST: usize = 1_000;
        if !(1..=MOST).contains(&number) {
            return Err(Fault::NoParameter(number));
        }
        if self.parameters.len() < number {
            self.parameters.resize(number, None);
        }
        Ok(Expr::Parameter(number - 1))
    }

    fn kind(&mut self) -> Result<Type, Fault> {
        let name = self.word()?;
        Type::named(&name).ok_or(Fault::NotSupported(name))
    }

    fn table(&mut self) -> Result<(), Fault> {
        let mut name = self.word()?;
        if name == "public" && self.take(".") {
            name = self.word()?;
        }
        if name == "commits" { Ok(()) } else { Err(Fault::NoTable(name)) }
    }

    fn column_id(&mut self) -> Result<(), Fault> {
        let name = self.word()?;
        if name == "id" { Ok(()) } else { Err(Fault::NotSupported(name)) }
    }

    fn end(&self) -> Result<(), Fault> {
        if self.tokens.is_empty() { Ok(()) } else { Err(self.unexpected()) }
    }

    fn next(&mut self) -> Result<Token, Fault> {
        let (first, rest) = self.tokens.split_first().ok_or(Fault::SyntaxAtEnd)?;
        self.tokens = rest;
        Ok(first.clone())
    }

    fn word(&mut self) -> Result<String, Fault> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => Err(unexpected(&other)),
        }
    }

    fn number(&mut self) -> Result<i64, Fault> {
        match self.next()? {
            Token::Number(number) => Ok(number),
            other => Err(unexpected(&other)),
        }
    }

    fn take(&mut self, symbol: &str) -> bool {
        self.take_if(|token| matches!(token, Token::Symbol(found) if *found == symbol))
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take_if(|token| matches!(token, Token::Word(found) if found == word))
    }

    fn take_if(&mut self, is: impl Fn(&Token) -> bool) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if is(first) => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_word(&mut self, word: &str) -> Result<(), Fault> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A token where another one should be: words may be SQL that is not known here.
    fn unexpected(&self) -> Fault {
        self.tokens.first().map_or(Fault::SyntaxAtEnd, unexpected)
    }
}

fn unexpected(token: &Token) -> Fault {
    match token {
        Token::Word(word) => Fault::NotSupported(word.clone()),
        Token::Number(number) => Fault::Syntax(number.to_string()),
        Token::Text(text) => Fault::Syntax(text.clone()),
        Token::Parameter(number) => Fault::Syntax(format!("${number}")),
        Token::Symbol(symbol) => Fault::NotSupported((*symbol).to_owned()),
    }
}

fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Id => "id".into(),
        Expr::At => "at".into(),
        Expr::Call(name, _) => name.clone(),
        Expr::Cast(inner, _) => name_of(inner),
        Expr::Value(_) | Expr::Parameter(_) | Expr::Not(_) => "?column?".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Statement, Fault> {
        let mut parsed = parse(text, Dialect::Postgres)?;
        assert_eq!(parsed.len(), 1, "{text}");
        Ok(parsed.remove(0).statement)
    }

    #[test]
    fn what_a_small_application_says_is_understood() {
        for text in [
            "SELECT 1",
            "select 'a' as b, $1::int8, -5, not true;",
            "SELECT pg_is_in_recovery()",
            "SELECT inet_server_port()::text",
            "SELECT count(*), max(id) FROM commits WHERE id <= 5",
            "SELECT * FROM public.commits WHERE id > $1 ORDER BY id DESC LIMIT 10",
            "INSERT INTO commits (id) VALUES (1), ($1) ON CONFLICT DO NOTHING RETURNING id",
            "insert into commits values (3) on conflict (id) do nothing",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "START TRANSACTION READ ONLY",
            "SET application_name = 'x'",
            "SET SESSION pgpivot.x TO default",
            "SET TRANSACTION READ ONLY",
            "SHOW server_version",
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_promote(wait => false)",
            "IDENTIFY_SYSTEM",
            "TIMELINE_HISTORY 2",
        ] {
            assert!(one(text).is_ok(), "{text}: {:?}", one(text));
        }
    }

    #[test]
    fn what_it_does_not_know_is_refused_by_its_kind() {
        let code = |text: &str| one(text).unwrap_err().code().to_string();
        assert_eq!(code("UPDATE commits SET id = 1"), "0A000");
        assert_eq!(code("SELECT id FROM commits JOIN x USING (id)"), "0A000");
        assert_eq!(code("SELECT 1 + 1"), "0A000");
        assert_eq!(code("SELECT t.oid FROM pg_type t"), "0A000");
        assert_eq!(code("SELECT * FROM users"), "42P01");
        assert_eq!(code("SELECT nonsense"), "42703");
        assert_eq!(code("SELECT id"), "42703");
        assert_eq!(code("SELECT"), "42601");
        assert_eq!(code("INSERT INTO commits (id) VALUES (1"), "42601");
        assert_eq!(code("SELECT $0"), "42P02");
        assert_eq!(code(&format!("SELECT {}", "(".repeat(100_000))), "54001");
    }

    #[test]
    fn parameters_get_their_types_from_where_they_stand() {
        let types = |text: &str| parse(text, Dialect::Postgres).unwrap().remove(0).parameters;
        assert_eq!(types("INSERT INTO commits (id) VALUES ($1)"), [Type::Int8]);
        assert_eq!(types("SELECT count(*) FROM commits WHERE id < $1 LIMIT $2"), [Type::Int8, Type::Int8]);
        assert_eq!(types("SELECT $2::int4, $1"), [Type::Text, Type::Int4]);
    }

    #[test]
    fn several_statements_come_in_one_text() {
        assert_eq!(parse("SET a = 1; SELECT 1;", Dialect::Postgres).unwrap().len(), 2);
        assert_eq!(parse(" ; -- nothing", Dialect::Postgres).unwrap().len(), 0);
    }
}
