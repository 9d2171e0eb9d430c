//! The text of the metrics, as a scraper reads it.

use super::*;

fn written(metrics: &Metrics) -> String {
    let mut out = String::new();
    metrics.write(&mut out);
    out
}

/// The page shows how often each reason came. Two of middlewares were once shown there without a word.
#[test]
fn the_page_says_what_every_code_means() {
    let page = include_str!("../../web/src/model/refusals.ts");
    let (_, codes) = page.split_once("const CODES").expect("the table");
    let (codes, _) = codes.split_once("\n};").expect("its end");
    for code in CODES {
        assert!(codes.contains(&format!("\n  {}: \"", code.as_str())), "{}", code.as_str());
    }
}

#[test]
fn every_name_of_the_contract_is_there_with_its_head() {
    let text = written(&Metrics::default());
    for name in [
        "anode_records_published_total 0",
        "anode_records_applied_total 0",
        "anode_records_stale_total 0",
        "anode_records_duplicate_total 0",
        "anode_deliveries_total 0",
        "anode_conflated_total 0",
        "anode_members{state=\"alive\"} 0",
        "anode_gossip_datagrams_sent_total 0",
        "anode_gossip_datagrams_received_total 0",
        "anode_gossip_bytes_sent_total 0",
        "anode_gossip_bytes_received_total 0",
        "anode_data_copies_received_total 0",
        "anode_peer_batches_total{merged_by=\"other_worker\"} 0",
        "anode_propagation_seconds_count 0",
        "anode_shards_differing 0",
        "anode_clock_offset_seconds 0",
        "anode_store_pending_records 0",
        "anode_connections{endpoint=\"subscribe\"} 0",
        "anode_connections{endpoint=\"stream\"} 0",
        "anode_sources 0",
    ] {
        assert!(text.contains(&format!("\n{name}\n")), "{name} in\n{text}");
    }
    let heads = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(heads, text.lines().filter(|line| line.starts_with("# HELP ")).count());
}

#[test]
fn histogram_is_cumulative() {
    let metrics = Metrics::default();
    for us in [100, 101, 2_000_000, 90_000_000] {
        metrics.propagation.record_us(us);
    }
    let text = written(&metrics);
    for line in [
        "anode_propagation_seconds_bucket{le=\"0.0001\"} 1\n",
        "anode_propagation_seconds_bucket{le=\"0.00025\"} 2\n",
        "anode_propagation_seconds_bucket{le=\"2.5\"} 3\n",
        "anode_propagation_seconds_bucket{le=\"60\"} 3\n",
        "anode_propagation_seconds_bucket{le=\"+Inf\"} 4\n",
        "anode_propagation_seconds_sum 92.000201\n",
        "anode_propagation_seconds_count 4\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn refusals_by_code_and_offsets_below_zero() {
    let metrics = Metrics::default();
    metrics.refused(Code::TooLarge);
    metrics.clock_offset_us.set(-1_500);
    let text = written(&metrics);
    assert!(text.contains("anode_refusals_total{code=\"too_large\"} 1\n"), "{text}");
    assert!(text.contains("anode_clock_offset_seconds -0.0015\n"), "{text}");
}
