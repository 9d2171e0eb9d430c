//! The same shapes by the kernel's own `sch_netem`, where it has it: the commands of `tc` for one node.
//!
//! Each receiver gets a class of its own beneath an HTB, a netem beneath that, and a filter by the receiver's
//! address. A change of shape replaces the netem alone, so nothing else is disturbed.

use std::net::Ipv4Addr;

use super::shape::{Shape, Spread};

/// Packets that a netem holds at most; the default of 1,000 would drop at high rates and long delays.
const LIMIT: u32 = 50_000;

/// Returns the arguments of `tc` that prepare `device` for links to `receivers`.
pub fn prepare(device: &str, receivers: &[Ipv4Addr]) -> Vec<String> {
    let mut commands = vec![format!("qdisc replace dev {device} root handle 1: htb default 0 r2q 1000")];
    for (index, receiver) in receivers.iter().enumerate() {
        let class = index + 10;
        commands.push(format!(
            "class replace dev {device} parent 1: classid 1:{class} htb rate 10gbit quantum 60000"
        ));
        commands.push(format!(
            "filter add dev {device} parent 1: protocol ip prio 1 u32 match ip dst {receiver}/32 flowid 1:{class}"
        ));
    }
    commands
}

/// Returns the arguments of `tc` that give the link to the receiver with this index its shape.
pub fn shape(device: &str, index: usize, shape: &Shape) -> String {
    let class = index + 10;
    format!(
        "qdisc replace dev {device} parent 1:{class} handle {class}: netem limit {LIMIT}{}",
        options(shape)
    )
}

fn options(shape: &Shape) -> String {
    if shape.is_cut {
        return " loss 100%".to_owned();
    }
    let mut text = String::new();
    let micros = |time: std::time::Duration| time.as_micros();
    if !shape.delay.is_zero() || !shape.jitter.is_zero() {
        text += &format!(" delay {}us", micros(shape.delay));
        if !shape.jitter.is_zero() {
            text += &format!(" {}us", micros(shape.jitter));
            text += match shape.spread {
                Spread::Uniform => "",
                Spread::Normal => " distribution normal",
                Spread::Pareto => " distribution pareto",
                Spread::Paretonormal => " distribution paretonormal",
            };
        }
    }
    match shape.bursts {
        // One netem has one model of loss. Independent loss becomes loss in the good and the bad state.
        Some(bursts) => {
            let with = |loss: f64| 100.0 - (100.0 - loss) * (100.0 - shape.loss) / 100.0;
            let (bad, good) = (with(bursts.loss_bad), with(bursts.loss_good));
            text += &format!(" loss gemodel {}% {}% {bad}% {good}%", bursts.begin, bursts.end);
        }
        None if shape.loss > 0.0 => text += &format!(" loss {}%", shape.loss),
        None => {}
    }
    for (name, percent) in
        [("duplicate", shape.duplicate), ("corrupt", shape.corrupt), ("reorder", shape.reorder)]
    {
        if percent > 0.0 {
            text += &format!(" {name} {percent}%");
        }
    }
    if let Some(rate) = shape.rate_bits {
        text += &format!(" rate {rate}bit");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::shape::Bursts;

    #[test]
    fn shapes_become_options_of_netem() {
        let wan = Shape {
            delay: Duration::from_millis(40),
            jitter: Duration::from_millis(5),
            spread: Spread::Normal,
            loss: 1.0,
            rate_bits: Some(20_000_000),
            ..Shape::default()
        };
        assert_eq!(
            shape("eth0", 2, &wan),
            "qdisc replace dev eth0 parent 1:12 handle 12: netem limit 50000 delay 40000us 5000us distribution \
             normal loss 1% rate 20000000bit"
        );
        let bursts = Bursts { begin: 1.0, end: 20.0, loss_bad: 100.0, loss_good: 0.0 };
        let text = options(&Shape { loss: 10.0, bursts: Some(bursts), duplicate: 2.0, ..Shape::default() });
        assert_eq!(text, " loss gemodel 1% 20% 100% 10% duplicate 2%");
        assert_eq!(options(&Shape { is_cut: true, ..wan }), " loss 100%");
        assert_eq!(options(&Shape::default()), "");
    }

    #[test]
    fn every_receiver_has_a_class_and_a_filter() {
        let receivers = [Ipv4Addr::new(10, 1, 2, 130), Ipv4Addr::new(10, 1, 2, 131)];
        let commands = prepare("eth0", &receivers);
        assert_eq!(commands.len(), 5);
        assert!(commands[4].contains("match ip dst 10.1.2.131/32 flowid 1:11"));
    }
}
