//! The examples of `docs/clients/rust.md`, a function for each: `guides.py` checks that they are the same, and runs them.

use anode_client::{AnodeError, Client};

async fn acknowledged(c: &Client) -> Result<(), AnodeError> {
    use std::collections::HashMap;

    use anode_client::{Data, Level};

    let ack = c.publish("hall/1/temp", 21.5).ack(Level::Stored).await?; // it survives a power cut
    println!("{} {}", ack.level, ack.outcome);
    let door = Data::json(&HashMap::from([("open", true)]))?;
    let ack = c.publish("hall/1/door", door).ack(Level::Replicated).ttl_ms(60_000).await?;
    println!("held by {}", ack.nodes.unwrap_or(0)); // every live node
    let ack = c.publish("hall/1/temp", 20.0).ts(1).await?; // older than what is there
    println!("{}", ack.outcome);
    c.publish("hall/1/photo", vec![0x89u8, 0x50]).await?; // bytes
    c.delete("hall/1/door").await?;
    Ok(())
}

async fn news(c: &Client) -> Result<(), AnodeError> {
    c.publish("hall/1/temp", 21.5).await?;
    let mut records = c.subscribe("hall/*/temp").on_eos(|| println!("that was the state")).start();
    while let Some(r) = records.next().await.transpose()? {
        let what = if r.snapshot { "state" } else { "news" };
        println!("{} {} {what}", r.source, r.data.parse::<f64>()?);
        if !r.snapshot {
            break;
        }
        c.publish("hall/1/temp", 23.5).await?;
    }
    Ok(())
}

async fn copy(c: &Client) -> Result<(), AnodeError> {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    c.publish("hall/1/door", "open").await?;
    let values = Arc::new(Mutex::new(HashMap::new()));
    let old = values.clone();
    let records = c.subscribe("hall/*/temp").and("hall/*/door");
    let mut records = records.on_reset(move || old.lock().unwrap().clear()).start();
    while let Some(r) = records.next().await.transpose()? {
        let mut values = values.lock().unwrap();
        if r.deleted {
            values.remove(&r.source);
        } else {
            values.insert(r.source, r.data);
        }
        if values.len() == 2 {
            break;
        }
    }
    println!("{} values", values.lock().unwrap().len());
    Ok(())
}

async fn filtered(c: &Client) -> Result<(), AnodeError> {
    c.publish("hall/2/temp", 26.5).await?;
    let mut records = c.subscribe("hall/*/temp").filter("data > 25.0").start();
    while let Some(r) = records.next().await.transpose()? {
        if r.gone {
            println!("{} has cooled down", r.source);
            break;
        }
        println!("{} is hot", r.source);
        c.publish(r.source, 24.5).await?;
    }
    Ok(())
}

async fn every_record(c: &Client) -> Result<(), AnodeError> {
    use anode_client::Mode;

    c.publish("line/1/count", 0).await?;
    let mut records = c.subscribe("line/1/count").mode(Mode::All).start();
    while let Some(r) = records.next().await.transpose()? {
        let count = r.data.parse::<i32>()?;
        println!("{count}");
        if r.snapshot {
            for n in 1..=3 {
                c.publish("line/1/count", n).await?;
            }
        }
        if count == 3 {
            break;
        }
    }
    Ok(())
}

async fn reading(c: &Client) -> Result<(), AnodeError> {
    if let Some(r) = c.get("hall/1/temp").await? {
        println!("{}", r.data.parse::<f64>()?);
    }
    for r in c.list("hall/*/temp").all().await? {
        println!("{} {}", r.source, r.data.parse::<f64>()?);
    }
    let mut past = c.history("line/1/count", None, None); // the newest first
    while let Some(r) = past.next().await.transpose()? {
        println!("{}", r.data.parse::<i32>()?);
    }
    Ok(())
}

async fn many(c: &Client) -> Result<(), AnodeError> {
    use anode_client::Level;
    use tokio::task::JoinSet;

    let mut publishes = JoinSet::new();
    for n in 0..5_000 {
        publishes.spawn(c.publish(format!("bulk/{n}"), n).ack(Level::Stored).into_future());
    }
    let acks = publishes.join_all().await;
    println!("{} are stored", acks.iter().filter(|ack| ack.is_ok()).count());
    let mut total = 0;
    let mut records = c.list("bulk/*");
    while let Some(r) = records.next().await.transpose()? {
        total += r.data.parse::<i32>()?;
    }
    println!("{total}");
    Ok(())
}

async fn refused(c: &Client) -> Result<(), AnodeError> {
    match c.publish("hall//temp", 21.5).await {
        Ok(ack) => println!("{}", ack.outcome),
        Err(error) => println!("{} {}", error.code, if error.temporary { "may pass" } else { "stays" }),
    }
    Ok(())
}

async fn settings() -> Result<(), AnodeError> {
    use std::time::Duration;

    // The first URL that answers is taken.
    let c = anode_client::connect(["ws://127.0.0.1:7070", "ws://127.0.0.1:7071"])
        .on_error(|error| eprintln!("going on after {error}"))
        .on_reset(|| eprintln!("what was held is out of date"))
        .publish_timeout(Duration::from_secs(10))
        .await?;
    println!("{}", c.publish("hall/1/temp", 21.5).await?.outcome);
    c.close().await;
    Ok(())
}

async fn closed() -> Result<(), AnodeError> {
    let c = anode_client::connect(["wss://127.0.0.1:7070"])
        .ca("secrets/ca.crt")
        .token_file("secrets/clients.token")
        .await?;
    println!("{}", c.publish("hall/1/temp", 21.5).await?.outcome);
    c.close().await;
    Ok(())
}

async fn fresh_token() -> Result<(), AnodeError> {
    let fresh = || async {
        println!("a fresh token is needed");
        std::fs::read_to_string("secrets/clients.token").map(|token| token.trim().to_owned())
    };
    let c = anode_client::connect(["wss://127.0.0.1:7070"]).ca("secrets/ca.crt").token_with(fresh).await?;
    println!("{}", c.publish("hall/1/temp", 21.5).await?.outcome);
    c.close().await;
    Ok(())
}

/// Runs the example that the first argument names.
#[tokio::main]
async fn main() -> Result<(), AnodeError> {
    let name = std::env::args().nth(1).unwrap_or_default();
    match name.as_str() {
        "settings" => return settings().await,
        "closed" => return closed().await,
        "fresh_token" => return fresh_token().await,
        _ => {}
    }
    let c = &anode_client::connect(["ws://127.0.0.1:7070"]).await?;
    match name.as_str() {
        "acknowledged" => acknowledged(c).await,
        "news" => news(c).await,
        "copy" => copy(c).await,
        "filtered" => filtered(c).await,
        "every_record" => every_record(c).await,
        "reading" => reading(c).await,
        "many" => many(c).await,
        "refused" => refused(c).await,
        _ => panic!("there is no example {name:?}"),
    }
}
