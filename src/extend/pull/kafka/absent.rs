//! Stands in for Kafka in programs that were built without it.

use serde_json::Value;

use super::KafkaPull;
use crate::extend::pull::definition::PullDefinition;
use crate::extend::pull::feed::Feed;

/// Says that this program cannot read from Kafka. No node gets here, because none runs what it [cannot](KafkaPull::cannot).
pub(in crate::extend::pull) async fn run(
    _: &PullDefinition,
    settings: &KafkaPull,
    feed: &Feed,
    _: Option<&Value>,
    _: bool,
) {
    settings.cannot().into_iter().for_each(|why| feed.fail(why));
}
