//! Sends a message and receives it: `cargo run --example messages` beside a running `fsvc serve`.

use fsvc::client::{Client, Delivery, Options, PublishOptions};
use fsvc::path::Topic;
use fsvc::protocol::Start;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Options::from_directory("localhost:7443", "certs", "dev"))?;
    let topic: Topic = "chat/hall".parse()?;
    // It reconnects and resumes by itself; a cursor would also outlive this program.
    let mut messages = client
        .subscribe(vec!["chat/*".parse()?], Start::default())
        .await?;
    let published = client
        .publish(&topic, "\"hello\"", PublishOptions::default())
        .await?;
    while let Some(delivery) = messages.next().await {
        match delivery? {
            Delivery::Event(message) => {
                let text = String::from_utf8_lossy(&message.payload);
                println!("{}: {text}", message.event.identity);
                if message.event.sequence == published.sequence {
                    break;
                }
            }
            Delivery::Lost(lost) => println!("missed {} to {}", lost.from, lost.to),
            Delivery::CaughtUp(_) => {}
        }
    }
    Ok(())
}
