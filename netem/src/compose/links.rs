//! What was done to the network namespaces of the containers, so that only what changes is done again. A container that is
//! started again has a new namespace, in which nothing was done.

use anode_loadgen::Outcome;

use super::containers::Inside;
use super::docker::inside;
use super::firewall;
use super::mapping::LinkTool;
use crate::link::shape::Shape;

/// What was done in the namespace of a container.
#[derive(Clone, Debug)]
struct Done {
    place: Inside,
    text: String,
}

/// The links between the containers.
pub struct Links {
    tool: LinkTool,
    mtu: Option<u32>,
    places: Vec<Option<Inside>>,
    shapes: Vec<Vec<Shape>>,
    done: Vec<Option<Done>>,
    dropped: u64,
}

impl Links {
    /// Makes links to which nothing was done.
    pub fn new(tool: LinkTool, mtu: Option<u32>, nodes: usize) -> Links {
        let shapes = vec![vec![Shape::default(); nodes + 1]; nodes + 1];
        Links { tool, mtu, places: vec![None; nodes], shapes, done: vec![None; nodes], dropped: 0 }
    }

    /// Gives the links new shapes, by sender and receiver. Nothing is done before [`Links::apply`].
    pub fn set(&mut self, shapes: Vec<Vec<Shape>>) {
        if shapes != self.shapes {
            self.shapes = shapes;
            self.places.fill(None);
        }
    }

    /// Does what is to be done in the namespaces of the containers that run, whose places are given by number.
    pub fn apply(&mut self, places: Vec<Option<Inside>>) -> Outcome<()> {
        if self.places == places || matches!(self.tool, LinkTool::Nothing(_)) {
            return Ok(());
        }
        self.places = places;
        for node in 0..self.places.len() {
            if let Some(place) = self.places[node]
                && let Err(error) = self.apply_to(node, place)
                && is_there(place.pid)
            {
                // It is done again at the next call.
                self.places.fill(None);
                return Err(error);
            }
        }
        Ok(())
    }

    fn apply_to(&mut self, node: usize, place: Inside) -> Outcome<()> {
        let last = self.done[node].take().filter(|done| done.place == place);
        let is_new = last.is_none();
        if is_new && let Some(mtu) = self.mtu {
            let device = device(place)?;
            inside(place.pid, &["ip", "link", "set", "dev", &device, "mtu", &mtu.to_string()], None)?;
        }
        let text = self.text(node);
        if last.as_ref().is_some_and(|last| last.text == text) {
            self.done[node] = last;
            return Ok(());
        }
        let is_needed = !is_new || self.is_shaped(node);
        match self.tool {
            LinkTool::Netem if is_needed => {
                let lines = firewall::shapes(&device(place)?, &self.receivers(node), is_new);
                inside(place.pid, &["tc", "-batch", "-"], Some(&lines))?;
            }
            LinkTool::Firewall if is_needed => {
                if !is_new {
                    self.dropped += dropped_at(place);
                }
                inside(place.pid, &["nft", "-f", "-"], Some(&text))?;
            }
            _ => {}
        }
        // Links that were never shaped are new when they are.
        self.done[node] = is_needed.then_some(Done { place, text });
        Ok(())
    }

    /// Returns the text that says what is done for a container.
    fn text(&self, node: usize) -> String {
        match self.tool {
            LinkTool::Firewall => firewall::rules(&self.senders(node)),
            _ => firewall::shapes("", &self.receivers(node), true),
        }
    }

    fn is_shaped(&self, node: usize) -> bool {
        match self.tool {
            LinkTool::Firewall => self.senders(node).iter().any(|(_, shape)| shape.expected_loss() > 0.0),
            _ => self.receivers(node).iter().any(|(_, shape)| !shape.is_perfect()),
        }
    }

    fn senders(&self, node: usize) -> Vec<(std::net::Ipv4Addr, Shape)> {
        let others = self.places.iter().enumerate().filter(|(from, _)| *from != node);
        others.filter_map(|(from, place)| Some(((*place)?.address, self.shapes[from][node]))).collect()
    }

    fn receivers(&self, node: usize) -> Vec<(Option<std::net::Ipv4Addr>, Shape)> {
        let places = self.places.iter().enumerate();
        places.map(|(to, place)| (place.map(|place| place.address), self.shapes[node][to])).collect()
    }

    /// Returns how many packets the firewalls have dropped, without those of namespaces that are gone.
    pub fn dropped(&self) -> Option<u64> {
        let now = self.done.iter().flatten().map(|done| dropped_at(done.place)).sum::<u64>();
        (self.tool == LinkTool::Firewall).then_some(self.dropped + now)
    }
}

fn device(place: Inside) -> Outcome<String> {
    let listing = inside(place.pid, &["ip", "-o", "-4", "addr", "show"], None)?;
    let device = firewall::device(&listing, place.address);
    Ok(device.ok_or_else(|| format!("no device of the container has {}", place.address))?.to_owned())
}

/// Returns how many packets a firewall has dropped since its rules were changed. One that is gone does not tell.
fn dropped_at(place: Inside) -> u64 {
    inside(place.pid, &firewall::list(), None).map_or(0, |listing| firewall::dropped(&listing))
}

fn is_there(pid: u32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}
