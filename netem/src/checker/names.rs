//! Numbers for names, so that millions of observations need little memory.

use std::collections::HashMap;

use super::observation::Name;

/// Names in the order in which they were first seen.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: HashMap<Name, u32>,
    names: Vec<Name>,
}

impl Names {
    /// The number of a name, which gets one if it has none.
    pub(super) fn id(&mut self, name: &Name) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.names.len() as u32;
        self.ids.insert(name.clone(), id);
        self.names.push(name.clone());
        id
    }

    /// The name with a number.
    pub(super) fn name(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or("?", |name| name)
    }

    /// All numbers, each with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.names.iter().enumerate().map(|(id, name)| (id as u32, &**name))
    }
}
