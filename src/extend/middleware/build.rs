//! Making a rule of a definition: the expressions are compiled, and the module is put together and compiled.

use std::sync::Arc;

use bytes::Bytes;

use super::super::host::ExtendHost;
use super::cel::{CelRule, WhenRule};
use super::definition::{MiddlewareVersion, RuleText};
use super::parts::ModuleId;
use super::rule::MiddlewareRule;
#[cfg(feature = "wasm")]
use super::wasm::WasmEngine;
use crate::protocol::extension::ExtensionName;
use crate::record::Payload;

/// Parts of a module have not come yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete;

/// What compiles definitions. The engine for WebAssembly is made when the first module comes.
#[derive(Default)]
pub struct RuleBuilder {
    #[cfg(feature = "wasm")]
    engine: parking_lot::Mutex<std::sync::Weak<WasmEngine>>,
}

impl RuleBuilder {
    /// Makes the rule of a version whose module, if it has one, is given. Takes up to seconds.
    pub fn build(
        &self,
        version: &MiddlewareVersion,
        module: Option<&[u8]>,
    ) -> Result<Arc<dyn MiddlewareRule>, String> {
        let rule: Arc<dyn MiddlewareRule> = match (&version.rule, module) {
            (RuleText::Cel(text), _) => Arc::new(CelRule::compile(text)?),
            (RuleText::Wasm(_), Some(module)) => self.build_module(module)?,
            (RuleText::Wasm(_), None) => return Err("its module is missing".into()),
        };
        match &version.when {
            Some(when) => Ok(Arc::new(WhenRule::new(when, rule)?)),
            None => Ok(rule),
        }
    }

    #[cfg(feature = "wasm")]
    fn build_module(&self, module: &[u8]) -> Result<Arc<dyn MiddlewareRule>, String> {
        let engine = {
            let mut held = self.engine.lock();
            match held.upgrade() {
                Some(engine) => engine,
                None => {
                    let engine = WasmEngine::new()?;
                    *held = Arc::downgrade(&engine);
                    engine
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Arc::new(engine.compile(module, threads + 1)?))
    }

    #[cfg(not(feature = "wasm"))]
    #[allow(clippy::unused_self)]
    fn build_module(&self, _: &[u8]) -> Result<Arc<dyn MiddlewareRule>, String> {
        Err("this program was built without WebAssembly (the feature wasm)".into())
    }
}

/// The module of a version, if it has one, put together from the records with its parts. `Err`: parts are missing here.
pub fn module_of(
    host: &dyn ExtendHost,
    name: &ExtensionName,
    version: &MiddlewareVersion,
) -> Result<Option<Vec<u8>>, Incomplete> {
    match &version.rule {
        RuleText::Cel(_) => Ok(None),
        RuleText::Wasm(module) => assembled(host, name, module).map(Some).ok_or(Incomplete),
    }
}

/// Puts a module together; `None` if parts are missing here.
pub fn assembled(host: &dyn ExtendHost, name: &ExtensionName, module: &ModuleId) -> Option<Vec<u8>> {
    module.assemble(|part| -> Option<Bytes> {
        let record = host.get(&module.part_name(name.as_str(), part))?;
        match &record.payload {
            Payload::Binary(bytes) => Some(bytes.clone()),
            Payload::Json(_) | Payload::Deleted => None,
        }
    })
}
