//! Times the pieces of a record's way: `cargo bench -p anode-bench`.

use anode_bench::micro::{RECORDS, WORKS};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn all(criterion: &mut Criterion) {
    for work in &WORKS {
        let mut group = criterion.benchmark_group(work.name);
        group.throughput(Throughput::Elements(RECORDS as u64));
        let mut act = (work.make)();
        group.bench_function("batch", |bencher| bencher.iter(&mut act));
        group.finish();
    }
}

criterion_group!(micro, all);
criterion_main!(micro);
