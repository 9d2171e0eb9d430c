//! The quick start of the README: `quick_starts.py` checks that it is the same, and runs it.

#[tokio::main]
async fn main() -> Result<(), anode_client::AnodeError> {
    let c = anode_client::connect(["ws://127.0.0.1:7070"]).await?;
    let ack = c.publish("sensors/7/temp", 21.5).await?;
    println!("{} at {}", ack.outcome, ack.ts);
    if let Some(r) = c.subscribe("sensors/**").start().next().await.transpose()? {
        println!("{} = {}", r.source, r.data.parse::<f64>()?);
    }
    Ok(())
}
