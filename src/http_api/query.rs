//! Parameters of a URL. A parameter that is given twice is an error, so that none can hide behind another.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::http::Uri;

use super::problem::Problem;

/// The parameters of one request.
pub struct QueryParams(BTreeMap<String, String>);

impl QueryParams {
    /// The parameters of the URL. Others than the `known` ones are an error.
    pub fn of(uri: &Uri, known: &[&str]) -> Result<QueryParams, Problem> {
        let mut params = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(Problem::bad("the URL has a parameter that is not known here"));
            }
            if params.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Problem::bad("the URL gives a parameter twice"));
            }
        }
        Ok(QueryParams(params))
    }

    /// A parameter as it is.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that is there or not: without a value, or with `1` or `true`.
    pub fn switch(&self, name: &'static str) -> Result<bool, Problem> {
        match self.text(name) {
            None => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(Problem::bad(format!("the parameter {name} takes no value but 1 or true"))),
        }
    }

    /// A parameter that says yes or no, and none if it is not there. Without a value it is yes.
    pub fn choice(&self, name: &'static str) -> Result<Option<bool>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some("" | "1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(_) => Err(Problem::bad(format!("the parameter {name} takes no value but 0 or 1"))),
        }
    }

    /// A parameter that must be a number.
    pub fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, Problem> {
        let fault = |_| Problem::bad(format!("the parameter {name} is not a number in its range"));
        self.text(name).map(|text| text.parse().map_err(fault)).transpose()
    }
}
