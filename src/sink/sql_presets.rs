//! The database tables that well-known classes keep their tokens in, by the table's name. Data only.
//!
//! Taken from the sources of those classes. Beside each stands why a class that finds our row never fetches a token by
//! itself.

use super::options::SqlPlan;
use super::sql_statement::{SqlDialect, SqlStatement};
use crate::invalid_value::InvalidValue;
use crate::platform::CredentialName;

/// The table of one class, and the statements for it. `{prefix}` is the prefix of the site's tables, `{name}` what the class
/// calls a type of credential.
pub struct SqlPreset {
    pub name: &'static str,
    types: &'static [(CredentialName, &'static str)],
    write: &'static str,
    insert: Option<&'static str>,
    read: &'static str,
    retract: &'static str,
}

impl SqlPreset {
    pub fn plans(&self, prefix: &str, dialect: SqlDialect) -> Result<Vec<SqlPlan>, InvalidValue> {
        let plan = |(of, name): &(CredentialName, &str)| {
            let parse =
                |text: &str| SqlStatement::parse(&text.replace("{prefix}", prefix).replace("{name}", name), dialect);
            Ok(SqlPlan {
                of: Some(*of),
                write: vec![parse(self.write)?],
                insert: self.insert.map(parse).transpose()?,
                read: Some(parse(self.read)?),
                retract: Some(parse(self.retract)?),
            })
        };
        self.types.iter().map(plan).collect()
    }
}

pub const SQL_PRESETS: &[SqlPreset] = &[
    // "More than 3600 s since `expire`?" is what the class asks, so that is when it was fetched, by the class's own constant.
    SqlPreset {
        name: "wx_token",
        types: &[
            (CredentialName::AccessToken, "access_token"),
            (CredentialName::JsapiTicket, "jsapi_ticket"),
            (CredentialName::WxCardTicket, "cardapi_ticket"),
        ],
        write: "UPDATE {prefix}wx_token SET expire = {expires_at-3600}, value = {value} WHERE type = '{name}'",
        insert: Some(
            "INSERT INTO {prefix}wx_token (id, type, expire, value) SELECT COALESCE(MAX(id), 0) + 1, '{name}', \
             {expires_at-3600}, {value} FROM {prefix}wx_token",
        ),
        // The time is for whoever takes over what the class has fetched.
        read: "SELECT value, CAST(expire AS CHAR(16)) FROM {prefix}wx_token WHERE type = '{name}'",
        retract: "UPDATE {prefix}wx_token SET expire = {expires_at-3600} WHERE type = '{name}' AND value = {value}",
    },
    // It asks WeChat at each use whether the token has ended (42001), and fetches one where there is none. The row has the
    // app's secret in it too, so it is never one that we could insert.
    SqlPreset {
        name: "SWX_Config",
        types: &[(CredentialName::AccessToken, "")],
        write: "UPDATE {prefix}SWX_Config SET access_token = {value} WHERE AppID = {appid}",
        insert: None,
        read: "SELECT access_token FROM {prefix}SWX_Config WHERE AppID = {appid}",
        retract: "UPDATE {prefix}SWX_Config SET access_token = '' WHERE AppID = {appid} AND access_token = {value}",
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
