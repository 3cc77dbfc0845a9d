//! The statements that only CockroachDB knows: virtual clusters, replication, jobs, cluster settings. Pure; what they
//! do is `tenant`'s.

use super::super::fault::Fault;
use super::super::lexer::Token;
use super::super::value::{Column, Type};

/// A statement of CockroachDB's own. Names are of virtual clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) enum Statement {
    /// CREATE TABLE IF NOT EXISTS of the one table there is.
    CreateTable,
    CreateReplica {
        name: String,
        source: String,
        uri: String,
    },
    StartReplication {
        name: String,
        source: String,
        uri: String,
    },
    Drop {
        name: String,
        if_exists: bool,
    },
    /// ALTER VIRTUAL CLUSTER ... COMPLETE REPLICATION; `None` = to the latest replicated time.
    Complete {
        name: String,
        to: Option<String>,
    },
    Pause(String),
    Resume(String),
    StartService(String),
    StopService(String),
    Pick(Pick),
    /// `None` = all of them.
    ShowClusters(Option<String>),
    ShowReplication(String),
    ShowJobs,
    ShowJob {
        id: i64,
        when_complete: bool,
    },
    ShowSetting(String),
    /// `None` = back to the default.
    SetSetting {
        name: String,
        value: Option<String>,
    },
}

/// SELECT ... FROM [SHOW ...] WHERE ... = ... ORDER BY ... LIMIT ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) struct Pick {
    pub(in crate::sim) from: Box<Statement>,
    /// None named = all.
    pub(in crate::sim) columns: Vec<String>,
    /// Column and what it must be, as text.
    pub(in crate::sim) filters: Vec<(String, String)>,
    /// Column, and whether the greatest comes first.
    pub(in crate::sim) order: Option<(String, bool)>,
    pub(in crate::sim) limit: Option<usize>,
}

impl Statement {
    /// Has it no place inside of a transaction?
    pub(in crate::sim) fn stands_alone(&self) -> bool {
        self.columns().is_none() && *self != Statement::CreateTable || matches!(self, Statement::Complete { .. })
    }

    /// The system privilege that it takes; see `Cloud::set_privilege`.
    pub(in crate::sim) fn privilege(&self) -> Option<&'static str> {
        match self {
            Statement::CreateReplica { .. } | Statement::StartReplication { .. } | Statement::Complete { .. } => {
                Some("REPLICATIONDEST")
            }
            Statement::Drop { .. }
            | Statement::Pause(_)
            | Statement::Resume(_)
            | Statement::StopService(_)
            | Statement::ShowClusters(_)
            | Statement::ShowReplication(_) => Some("MANAGEVIRTUALCLUSTER"),
            // No privilege of CockroachDB's: there it is the one above, which lets look as well.
            Statement::StartService(_) => Some("STARTSERVICE"),
            Statement::SetSetting { .. } => Some("MODIFYCLUSTERSETTING"),
            Statement::Pick(pick) => pick.from.privilege(),
            Statement::ShowJobs | Statement::ShowJob { .. } => Some("VIEWJOB"),
            Statement::CreateTable | Statement::ShowSetting(_) => None,
        }
    }

    /// The columns of its rows; `None` = it has none.
    pub(in crate::sim) fn columns(&self) -> Option<Vec<Column>> {
        use Type::{Decimal, Int8, Interval, Text, Time};
        let columns: &[(&str, Type)] = match self {
            Statement::ShowClusters(_) => &[("id", Int8), ("name", Text), ("data_state", Text), ("service_mode", Text)],
            Statement::ShowReplication(_) => &[
                ("id", Int8),
                ("name", Text),
                ("source_tenant_name", Text),
                ("source_cluster_uri", Text),
                ("retained_time", Time),
                ("replicated_time", Time),
                ("replication_lag", Interval),
                ("failover_time", Decimal),
                ("status", Text),
            ],
            Statement::ShowJobs | Statement::ShowJob { .. } => &[
                ("job_id", Int8),
                ("job_type", Text),
                ("description", Text),
                ("status", Text),
                ("running_status", Text),
                ("created", Time),
                ("finished", Time),
                ("fraction_completed", Text),
                ("error", Text),
            ],
            Statement::Pick(pick) => {
                let mut columns = pick.from.columns()?;
                if !pick.columns.is_empty() {
                    let named = |name: &String| columns.iter().find(|column| column.name == *name).cloned();
                    columns = pick.columns.iter().filter_map(named).collect();
                }
                return Some(columns);
            }
            Statement::Complete { .. } => &[("failover_time", Decimal)],
            Statement::ShowSetting(name) => &[(name.as_str(), Text)],
            _ => return None,
        };
        Some(columns.iter().map(|(name, kind)| Column { name: (*name).to_owned(), kind: *kind }).collect())
    }
}

/// Reads a statement if it is one of these. `system`: asked of the virtual cluster that steers.
pub(in crate::sim) fn recognise(tokens: &[Token], system: bool) -> Result<Option<Statement>, Fault> {
    let mut words = Words(tokens);
    if tokens.contains(&Token::Symbol("[")) {
        return words.pick(system).map(|pick| Some(Statement::Pick(pick)));
    }
    let steers = |statement: Statement| match system {
        true => Ok(Some(statement)),
        false => Err(Fault::NotSystem),
    };
    if words.take(&["create", "table"]) {
        return words.create_table(system).map(Some);
    } else if words.take(&["create", "virtual", "cluster"]) {
        words.take(&["if", "not", "exists"]);
        let name = words.name()?;
        words.expect(&["from", "replication", "of"])?;
        let (source, uri) = words.source()?;
        return steers(Statement::CreateReplica { name, source, uri });
    } else if words.take(&["drop", "virtual", "cluster"]) {
        let if_exists = words.take(&["if", "exists"]);
        let name = words.name()?;
        words.take(&["immediate"]);
        words.end()?;
        return steers(Statement::Drop { name, if_exists });
    } else if words.take(&["alter", "virtual", "cluster"]) {
        return words.alter().and_then(steers);
    } else if words.take(&["show", "virtual", "clusters"]) {
        words.end()?;
        return steers(Statement::ShowClusters(None));
    } else if words.take(&["show", "virtual", "cluster"]) {
        let name = words.name()?;
        let replication = words.take(&["with", "replication", "status"]);
        words.end()?;
        return steers(match replication {
            true => Statement::ShowReplication(name),
            false => Statement::ShowClusters(Some(name)),
        });
    } else if words.take(&["show", "jobs"]) {
        words.end()?;
        return Ok(Some(Statement::ShowJobs));
    } else if words.take(&["show", "job"]) {
        let when_complete = words.take(&["when", "complete"]);
        let id = words.number()?;
        words.end()?;
        return Ok(Some(Statement::ShowJob { id, when_complete }));
    }
    if let Some(statement) = words.setting()? {
        return Ok(Some(statement));
    }
    let is = |token: &Token, word: &str| matches!(token, Token::Word(found) if found == word);
    let of_table = |pair: &[Token]| (is(&pair[0], "from") || is(&pair[0], "into")) && is(&pair[1], "commits");
    match system && tokens.windows(2).any(of_table) {
        true => Err(Fault::NoTable("commits".into())),
        false => Ok(None),
    }
}

/// The tokens that are left.
struct Words<'a>(&'a [Token]);

impl Words<'_> {
    fn create_table(&mut self, system: bool) -> Result<Statement, Fault> {
        let known = self.take(&["if", "not", "exists"]) && !system;
        self.take(&["public"]);
        self.take_symbol(".");
        match known && self.take(&["commits"]) {
            true => Ok(Statement::CreateTable),
            false => Err(Fault::NotSupported("CREATE TABLE".into())),
        }
    }

    /// `SELECT a, b FROM [SHOW ...] WHERE a = 'x' AND b = 1`.
    fn pick(&mut self, system: bool) -> Result<Pick, Fault> {
        self.expect(&["select"])?;
        let mut pick = Pick {
            from: Box::new(Statement::ShowJobs),
            columns: Vec::new(),
            filters: Vec::new(),
            order: None,
            limit: None,
        };
        if !self.take_symbol("*") {
            pick.columns.push(self.name()?);
            while self.take_symbol(",") {
                pick.columns.push(self.name()?);
            }
        }
        self.expect(&["from"])?;
        let close = self.0.iter().position(|token| *token == Token::Symbol("]")).ok_or(Fault::SyntaxAtEnd)?;
        if !self.take_symbol("[") {
            return Err(self.unexpected());
        }
        let (inner, rest) = self.0.split_at_checked(close.saturating_sub(1)).ok_or(Fault::SyntaxAtEnd)?;
        // Looked at first: brackets in brackets must not lead anywhere deep.
        let shows = inner.first() == Some(&Token::Word("show".into()));
        let from = if shows { recognise(inner, system)? } else { None };
        *pick.from = from.ok_or_else(|| Fault::NotSupported("a statement in brackets but SHOW".into()))?;
        self.0 = rest;
        self.take_symbol("]");
        if self.take(&["where"]) {
            loop {
                let name = self.name()?;
                if !self.take_symbol("=") {
                    return Err(self.unexpected());
                }
                pick.filters.push((name, self.text()?));
                if !self.take(&["and"]) {
                    break;
                }
            }
        }
        if self.take(&["order", "by"]) {
            let name = self.name()?;
            let descending = self.take(&["desc"]);
            pick.order = Some((name, descending));
        }
        if self.take(&["limit"]) {
            pick.limit = usize::try_from(self.number()?).ok();
        }
        self.end()?;
        Ok(pick)
    }

    fn alter(&mut self) -> Result<Statement, Fault> {
        let name = self.name()?;
        let statement = if self.take(&["complete", "replication", "to", "latest"]) {
            Statement::Complete { name, to: None }
        } else if self.take(&["complete", "replication", "to", "system", "time"]) {
            Statement::Complete { name, to: Some(self.text()?) }
        } else if self.take(&["pause", "replication"]) {
            Statement::Pause(name)
        } else if self.take(&["resume", "replication"]) {
            Statement::Resume(name)
        } else if self.take(&["start", "service", "shared"]) {
            Statement::StartService(name)
        } else if self.take(&["stop", "service"]) {
            Statement::StopService(name)
        } else if self.take(&["start", "replication", "of"]) {
            let (source, uri) = self.source()?;
            return Ok(Statement::StartReplication { name, source, uri });
        } else {
            return Err(self.unexpected());
        };
        self.end()?;
        Ok(statement)
    }

    /// `main ON 'uri'`, to the end.
    fn source(&mut self) -> Result<(String, String), Fault> {
        let source = self.name()?;
        self.expect(&["on"])?;
        let uri = self.text()?;
        self.end()?;
        Ok((source, uri))
    }

    /// SHOW, SET and RESET CLUSTER SETTING.
    fn setting(&mut self) -> Result<Option<Statement>, Fault> {
        let statement = if self.take(&["show", "cluster", "setting"]) {
            Statement::ShowSetting(self.dotted()?)
        } else if self.take(&["reset", "cluster", "setting"]) {
            Statement::SetSetting { name: self.dotted()?, value: None }
        } else if self.take(&["set", "cluster", "setting"]) {
            let name = self.dotted()?;
            if !self.take_symbol("=") {
                self.expect(&["to"])?;
            }
            let value = match self.next()? {
                Token::Text(text) => Some(text.clone()),
                Token::Number(number) => Some(number.to_string()),
                Token::Word(word) if word == "default" => None,
                Token::Word(word) => Some(word.clone()),
                _ => return Err(Fault::Syntax("SET CLUSTER SETTING".into())),
            };
            Statement::SetSetting { name, value }
        } else {
            return Ok(None);
        };
        self.end()?;
        Ok(Some(statement))
    }

    /// Takes these words if they all come next.
    fn take(&mut self, words: &[&str]) -> bool {
        let Some((first, rest)) = self.0.split_at_checked(words.len()) else {
            return false;
        };
        let same = first.iter().zip(words).all(|(token, word)| matches!(token, Token::Word(found) if found == word));
        if same {
            self.0 = rest;
        }
        same
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        match self.0 {
            [Token::Symbol(found), rest @ ..] if *found == symbol => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), Fault> {
        if self.take(words) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn next(&mut self) -> Result<&Token, Fault> {
        let (first, rest) = self.0.split_first().ok_or(Fault::SyntaxAtEnd)?;
        self.0 = rest;
        Ok(first)
    }

    /// A virtual cluster's name, quoted or not.
    fn name(&mut self) -> Result<String, Fault> {
        match self.next()? {
            Token::Word(word) | Token::Text(word) => Ok(word.clone()),
            _ => Err(Fault::Syntax("a virtual cluster's name".into())),
        }
    }

    fn text(&mut self) -> Result<String, Fault> {
        match self.next()? {
            Token::Text(text) => Ok(text.clone()),
            Token::Number(number) => Ok(number.to_string()),
            _ => Err(Fault::Syntax("a text in quotes".into())),
        }
    }

    fn number(&mut self) -> Result<i64, Fault> {
        match self.next()? {
            Token::Number(number) => Ok(*number),
            _ => Err(Fault::Syntax("a job's number".into())),
        }
    }

    fn dotted(&mut self) -> Result<String, Fault> {
        let mut name = self.name()?;
        while self.take_symbol(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    fn end(&self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Fault {
        match self.0.first() {
            None => Fault::SyntaxAtEnd,
            Some(Token::Word(word)) => Fault::NotSupported(word.clone()),
            Some(_) => Fault::Syntax("a virtual cluster's statement".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lexer::split;
    use super::*;

    fn one(text: &str) -> Result<Option<Statement>, Fault> {
        recognise(&split(text).unwrap()[0].1, true)
    }

    #[test]
    fn the_statements_of_a_failover_are_understood_in_any_case_and_quoted() {
        let name = || "main".to_owned();
        let complete = |to: Option<&str>| Ok(Some(Statement::Complete { name: name(), to: to.map(str::to_owned) }));
        assert_eq!(one("ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO LATEST;"), complete(None));
        assert_eq!(
            one("alter virtual cluster \"main\" complete replication to system time '2026-01-01 00:00:00'"),
            complete(Some("2026-01-01 00:00:00"))
        );
        assert_eq!(
            one("CREATE VIRTUAL CLUSTER main FROM REPLICATION OF main ON 'postgres://u:it''s@h:1/?options=x'"),
            Ok(Some(Statement::CreateReplica {
                name: name(),
                source: name(),
                uri: "postgres://u:it's@h:1/?options=x".into()
            }))
        );
        assert_eq!(one("show virtual clusters"), Ok(Some(Statement::ShowClusters(None))));
        assert_eq!(
            one("SHOW VIRTUAL CLUSTER main WITH REPLICATION STATUS"),
            Ok(Some(Statement::ShowReplication(name())))
        );
        assert_eq!(one("SHOW JOB WHEN COMPLETE 12"), Ok(Some(Statement::ShowJob { id: 12, when_complete: true })));
        let setting = |value: Option<&str>| {
            let name = "server.controller.default_target_cluster".to_owned();
            Ok(Some(Statement::SetSetting { name, value: value.map(str::to_owned) }))
        };
        assert_eq!(one("SET CLUSTER SETTING server.controller.default_target_cluster = 'main'"), setting(Some("main")));
        assert_eq!(one("RESET CLUSTER SETTING server.controller.default_target_cluster"), setting(None));
        assert_eq!(one("SELECT 1"), Ok(None));
        let Ok(Some(Statement::Pick(pick))) =
            one("SELECT job_id, status FROM [SHOW JOBS] WHERE job_type = 'X' AND job_id = 5")
        else {
            panic!("a selection from what is shown")
        };
        assert_eq!((*pick.from, pick.columns.len(), pick.filters.len()), (Statement::ShowJobs, 2, 2));
        let Ok(Some(Statement::Pick(newest))) = one("SELECT * FROM [SHOW JOBS] ORDER BY created DESC LIMIT 2") else {
            panic!("a selection of the newest")
        };
        assert_eq!((newest.order, newest.limit), (Some(("created".into(), true)), Some(2)));
    }

    #[test]
    fn what_is_not_its_own_is_refused() {
        assert_eq!(one("ALTER VIRTUAL CLUSTER main RENAME TO x").unwrap_err().code().as_str(), "0A000");
        assert_eq!(one("SELECT count(*) FROM commits").unwrap_err().code().as_str(), "42P01");
        let on_main = recognise(&split("SHOW VIRTUAL CLUSTERS").unwrap()[0].1, false).unwrap_err();
        assert_eq!(on_main.code().as_str(), "42501");
        let deep = format!("{}SHOW JOBS]", "SELECT a FROM [".repeat(50_000));
        assert_eq!(one(&deep).unwrap_err().code().as_str(), "0A000");
        assert_eq!(one("ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO").unwrap_err().code().as_str(), "0A000");
    }
}
