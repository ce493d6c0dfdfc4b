//! A request as handlers get it: who asks, what for, by which parameters.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::ExtensionRejection;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::Uri;
use axum::http::request::Parts as Head;
use serde_json::Value;

use super::access_control::Caller;
use super::context::{ApiApp, ApiContext};
use super::problem::Problem;
use crate::credential::table::Credential;

pub type ContextExtractor = State<Arc<ApiContext>>;
pub type CallerExtractor = Extension<Arc<Caller>>;
pub type JsonResult = Result<Json<Value>, Problem>;

/// An admitted request.
pub struct HttpApiCall {
    pub context: Arc<ApiContext>,
    pub caller: Arc<Caller>,
    uri: Uri,
}

impl FromRequestParts<Arc<ApiContext>> for HttpApiCall {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(head: &mut Head, context: &Arc<ApiContext>) -> Result<HttpApiCall, ExtensionRejection> {
        let Extension(caller) = CallerExtractor::from_request_parts(head, context).await?;
        Ok(HttpApiCall { context: context.clone(), caller, uri: head.uri.clone() })
    }
}

impl HttpApiCall {
    /// The parameters of the URL. Others than the `known` ones are an error.
    pub fn params(&self, known: &[&str]) -> Result<QueryParams, Problem> {
        let mut params = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(Problem::bad("the URL has a parameter that is not known here"));
            }
            if params.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Problem::bad("the URL gives a parameter twice"));
            }
        }
        Ok(QueryParams(params))
    }

    /// An app that the caller may see.
    pub fn app(&self, id: &str) -> Result<&ApiApp, Problem> {
        self.caller.require_visible(id)?;
        self.context.app(id).ok_or_else(Problem::not_found)
    }

    /// A credential of such an app, and of this type.
    pub fn credential(&self, id: &str, credential_type: &str) -> Result<&Arc<Credential>, Problem> {
        self.app(id)?.credential(credential_type).ok_or_else(Problem::not_found)
    }
}

/// The parameters of a URL. One that is given twice is an error, so that none can hide behind another.
pub struct QueryParams(BTreeMap<String, String>);

impl QueryParams {
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

    pub fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, Problem> {
        let fault = |_| Problem::bad(format!("the parameter {name} is not a number in its range"));
        self.text(name).map(|text| text.parse().map_err(fault)).transpose()
    }
}
