//! Puts a file and gets it back: `cargo run --example put_get` beside a running `fsvc serve`.

use fsvc::client::{Client, Options, PutOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Options::from_directory("localhost:7443", "certs", "dev"))?;
    let path = "/docs/hello.txt".parse()?;
    client
        .put(&path, &b"hello"[..], PutOptions::default())
        .await?;
    let (file, content) = client.get(&path, Vec::new()).await?;
    assert_eq!(content, b"hello");
    println!("{} at version {:?}", file.path, file.version);
    Ok(())
}
