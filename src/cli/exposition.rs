//! Reads metrics of a node from Prometheus' text format, as far as commands show them.

use std::collections::BTreeMap;

/// The samples of one answer of `/metrics`: the value of every series, by its name with labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsText(BTreeMap<String, f64>);

impl MetricsText {
    /// Reads the samples. Lines that are none are skipped.
    pub fn parse(text: &str) -> MetricsText {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        MetricsText(samples.collect())
    }

    /// Returns the value of a series: a name, or a name with its labels as the node writes them.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// Returns the sum of all series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.series(name).map(|(_, value)| value).sum()
    }

    /// Returns the labels and values of all series of a name. Without labels, they are an empty text.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0
            .range(name.to_owned()..)
            .map_while(move |(series, value)| {
                let rest = series.strip_prefix(name)?;
                Some((rest, *value))
            })
            .filter(|(rest, _)| rest.is_empty() || rest.starts_with('{'))
    }

    /// Returns the quantile (0 to 1) of a histogram, in seconds, of what was counted since `before`: the upper bound of
    /// the bucket that it lies in. `None` if nothing was counted. `labels` are those before `le`, with their comma.
    pub fn quantile(&self, before: &MetricsText, (name, labels): (&str, &str), quantile: f64) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let mut counts: Vec<(f64, f64)> = Vec::new();
        for (rest, value) in self.series(&bucket) {
            let Some(bound) = rest.strip_prefix('{').and_then(|rest| rest.strip_prefix(labels)) else {
                continue;
            };
            let Some(bound) = bound.strip_prefix("le=\"").and_then(|rest| rest.strip_suffix("\"}")) else {
                continue;
            };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            counts.push((bound, value - before.get(&format!("{bucket}{rest}")).unwrap_or(0.0)));
        }
        counts.sort_by(|(one, _), (next, _)| one.total_cmp(next));
        let all = counts.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let wanted = all * quantile;
        counts.iter().find(|(_, count)| *count >= wanted).map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP x y\na_total 5\nb{c=\"d\"} 2\nb{c=\"e\"} 3\nbb 9\n\
        h_bucket{l=\"x\",le=\"0.001\"} 10\nh_bucket{l=\"x\",le=\"0.01\"} 10\nh_bucket{l=\"x\",le=\"+Inf\"} 10\n";
    const AFTER: &str = "h_bucket{l=\"x\",le=\"0.001\"} 11\nh_bucket{l=\"x\",le=\"0.01\"} 109\n\
        h_bucket{l=\"x\",le=\"+Inf\"} 110\nh_bucket{l=\"y\",le=\"+Inf\"} 7\n";

    #[test]
    fn samples_and_quantiles() {
        let (before, after) = (MetricsText::parse(BEFORE), MetricsText::parse(AFTER));
        assert_eq!(
            (before.get("a_total"), before.get("b{c=\"e\"}"), before.get("c")),
            (Some(5.0), Some(3.0), None)
        );
        assert_eq!((before.sum("b"), before.sum("z")), (5.0, 0.0));
        let histogram = ("h", "l=\"x\",");
        assert_eq!(after.quantile(&before, histogram, 0.5), Some(0.01));
        assert_eq!(after.quantile(&before, histogram, 1.0), Some(f64::INFINITY));
        assert_eq!(before.quantile(&before, histogram, 0.5), None, "nothing new");
    }
}
