//! The database tables that well-known classes keep their tokens in, by the table's name. Data only.
//!
//! Taken from the sources of those classes. Beside each stands why a class that finds our row never fetches a token by
//! itself.

use super::options::SqlPlan;
use super::sql_statement::{SqlDialect, SqlStatement};
use crate::invalid_value::InvalidValue;
use crate::platform::CredentialName;

/// The table of one class.
pub struct SqlPreset {
    pub name: &'static str,
    rows: &'static [Row],
}

/// The statements for one type of credential. `{prefix}` is the prefix of the site's tables.
struct Row {
    of: CredentialName,
    write: &'static str,
    insert: Option<&'static str>,
    read: &'static str,
    retract: &'static str,
}

impl SqlPreset {
    pub fn plans(&self, prefix: &str, dialect: SqlDialect) -> Result<Vec<SqlPlan>, InvalidValue> {
        let parse = |text: &str| SqlStatement::parse(&text.replace("{prefix}", prefix), dialect);
        let plan = |row: &Row| {
            Ok(SqlPlan {
                of: Some(row.of),
                write: vec![parse(row.write)?],
                insert: row.insert.map(parse).transpose()?,
                read: Some(parse(row.read)?),
                retract: Some(parse(row.retract)?),
            })
        };
        self.rows.iter().map(plan).collect()
    }
}

/// A row of `wx_token`. "More than 3600 s since `expire`?" is what the class asks, so that is when it was fetched, by the
/// class's own constant.
macro_rules! wx_token {
    ($of:expr, $type:literal) => {
        Row {
            of: $of,
            write: concat!(
                "UPDATE {prefix}wx_token SET expire = {expires_at-3600}, value = {value} WHERE type = '",
                $type,
                "'"
            ),
            insert: Some(concat!(
                "INSERT INTO {prefix}wx_token (id, type, expire, value) SELECT COALESCE(MAX(id), 0) + 1, '",
                $type,
                "', {expires_at-3600}, {value} FROM {prefix}wx_token"
            )),
            // The time is for whoever takes over what the class has fetched.
            read: concat!("SELECT value, CAST(expire AS CHAR(16)) FROM {prefix}wx_token WHERE type = '", $type, "'"),
            retract: concat!(
                "UPDATE {prefix}wx_token SET expire = {expires_at-3600} WHERE type = '",
                $type,
                "' AND value = {value}"
            ),
        }
    };
}

/// All presets of statements.
pub const SQL_PRESETS: &[SqlPreset] = &[
    SqlPreset {
        name: "wx_token",
        rows: &[
            wx_token!(CredentialName::AccessToken, "access_token"),
            wx_token!(CredentialName::JsapiTicket, "jsapi_ticket"),
            wx_token!(CredentialName::WxCardTicket, "cardapi_ticket"),
        ],
    },
    SqlPreset {
        name: "SWX_Config",
        // It asks WeChat at each use whether the token has ended (42001), and fetches one where there is none. The row
        // has the app's secret in it too, so it is never one that we could insert.
        rows: &[Row {
            of: CredentialName::AccessToken,
            write: "UPDATE {prefix}SWX_Config SET access_token = {value} WHERE AppID = {appid}",
            insert: None,
            read: "SELECT access_token FROM {prefix}SWX_Config WHERE AppID = {appid}",
            retract: "UPDATE {prefix}SWX_Config SET access_token = '' WHERE AppID = {appid} AND access_token = {value}",
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_good_sql_for_every_database() {
        for preset in SQL_PRESETS {
            for dialect in [SqlDialect::MySql, SqlDialect::Postgres, SqlDialect::Sqlite] {
                let plans = preset.plans("pre_", dialect).unwrap();
                assert!(!plans.is_empty());
                for statement in plans.iter().flat_map(|plan| &plan.write) {
                    assert!(statement.text.contains(&format!("pre_{}", preset.name)), "{}", statement.text);
                }
            }
        }
    }
}
