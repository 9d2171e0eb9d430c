//! What admins ask for: to put a middleware, to go back to the version before, and to try one.
//!
//! All of this takes up to seconds, so it is called on threads for blocking work.

use std::sync::Arc;

use serde_json::Value;

use super::super::host::ExtendHost;
use super::bounds::MIDDLEWARES_MAX;
use super::build::{RuleBuilder, assembled, module_of};
use super::definition::{MiddlewareDefinition, MiddlewareVersion, RuleText};
use super::keeper::reader;
use super::rule::RecordReader;
use super::telling::{clean, tell_module};
use super::trial::MiddlewareTrial;
use crate::extend::definition::{BadField, Definition};
use crate::extend::json::read_json;
use crate::extend::put::toml_flaw;
use crate::protocol::extension::{ExtensionKind, ExtensionName, MiddlewareBody};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Pattern;

/// What an admin may ask about one middleware.
pub struct MiddlewareAsked<'a> {
    host: &'a dyn ExtendHost,
    name: &'a ExtensionName,
    reader: Arc<dyn RecordReader>,
}

impl<'a> MiddlewareAsked<'a> {
    /// Asks a node about the middleware with this name.
    pub fn new(host: &'a Arc<dyn ExtendHost>, name: &'a ExtensionName) -> MiddlewareAsked<'a> {
        MiddlewareAsked { host: &**host, name, reader: reader(host) }
    }

    /// Checks and compiles what is to be put, and publishes the parts of its module. Returns the JSON text of the
    /// definition that is to be kept; nothing has changed before that is published. `pause` is called while much waits
    /// for the cluster or the store.
    pub fn prepare(&self, body: &MiddlewareBody<'_>, pause: impl Fn()) -> Result<Vec<u8>, Refusal> {
        let (version, module) = read(body)?;
        let held = self.held();
        if held.is_none() && self.count() >= MIDDLEWARES_MAX {
            let message = format!("there are {MIDDLEWARES_MAX} middlewares, which is the most there may be");
            return Err(bad_request(message));
        }
        let module = match (module, &version.rule) {
            (None, RuleText::Wasm(id)) => Some(assembled(self.host, self.name, id).ok_or_else(|| {
                bad_request(format!("wasm: there is no module {} here; allowed: a module as base64", id.hash))
            })?),
            (module, _) => module,
        };
        let built = RuleBuilder::default().build(&version, module.as_deref());
        built.map_err(|error| match version.rule {
            RuleText::Cel(_) => bad_request(format!("cel: {error}; allowed: an expression in CEL")),
            RuleText::Wasm(_) => {
                bad_request(format!("wasm: {error}; allowed: a component of the world in wit/anode.wit"))
            }
        })?;
        if let Some(module) = &module {
            tell_module(self.host, self.name, module, pause)?;
        }
        Ok(MiddlewareDefinition::followed_by(held, version).write().into_bytes())
    }

    /// Returns the JSON text of the definition by which the version before is in force again.
    pub fn roll_back(&self) -> Result<Vec<u8>, Refusal> {
        let held = self.held().ok_or_else(|| self.unknown())?;
        let before = held.rolled_back().ok_or_else(|| {
            bad_request(format!("middleware {} has no version before the one in force", self.name))
        })?;
        if module_of(self.host, self.name, &before.current).is_err() {
            let message = "the module of the version before is not complete at this node";
            return Err(Refusal::new(Code::StoreUnavailable, message));
        }
        Ok(before.write().into_bytes())
    }

    /// Takes away the parts of modules that nobody needs any more.
    pub fn clean(&self) {
        clean(self.host, self.name, self.held().as_ref());
    }

    /// Says what would become of records, of which nothing is published. Returns a JSON array.
    pub fn try_records(&self, text: &[u8]) -> Result<Vec<u8>, Refusal> {
        let held = self.held().ok_or_else(|| self.unknown())?;
        let module = module_of(self.host, self.name, &held.current).map_err(|_| {
            Refusal::new(Code::StoreUnavailable, "the module of the middleware is not complete at this node")
        })?;
        let rule = RuleBuilder::default().build(&held.current, module.as_deref()).map_err(|error| {
            Refusal::new(Code::MiddlewareFailed, format!("middleware {}: {error}", self.name))
        })?;
        MiddlewareTrial { host: self.host, reader: self.reader.clone(), version: &held.current, rule }
            .run(text)
    }

    /// The definition as this node holds it.
    fn held(&self) -> Option<MiddlewareDefinition> {
        let record = self.host.get(&ExtensionKind::Middleware.record_name(self.name))?;
        if !record.is_visible(self.host.now().wall_us) {
            return None;
        }
        MiddlewareDefinition::read(&Definition::of_record(&record)?.body).ok()
    }

    /// Number of all middlewares.
    fn count(&self) -> usize {
        Pattern::parse(ExtensionKind::Middleware.pattern())
            .map_or(0, |pattern| self.host.list(&pattern).len())
    }

    fn unknown(&self) -> Refusal {
        Refusal::new(Code::NotFound, format!("there is no middleware {}", self.name))
    }
}

/// Reads what is to be put. Returns the module, too, if it comes along.
fn read(body: &MiddlewareBody<'_>) -> Result<(MiddlewareVersion, Option<Vec<u8>>), Refusal> {
    let named = |bad: BadField| bad_request(bad.to_string());
    let of_text = |text: &[u8], read: &dyn Fn(&str) -> Result<Value, Refusal>| {
        let text = std::str::from_utf8(text).map_err(|error| bad_request(error.to_string()))?;
        MiddlewareVersion::of_request(&read(text)?).map_err(named)
    };
    match body {
        MiddlewareBody::Json(text) => of_text(text, &read_json),
        MiddlewareBody::Toml(text) => {
            of_text(text, &|text| toml::from_str(text).map_err(|error| bad_request(toml_flaw(text, &error))))
        }
        MiddlewareBody::Module { module, fields } => {
            let version = MiddlewareVersion::of_module(module, fields.iter().cloned()).map_err(named)?;
            Ok((version, Some(module.to_vec())))
        }
    }
}

fn bad_request(message: String) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}
