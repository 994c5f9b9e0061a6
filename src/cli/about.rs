//! What the server says about itself, about the client, and about what it may do.

use std::time::Instant;

use serde_json::json;

use super::args::Common;
use super::exit::Exit;
use super::files::{Failure, Outcome, request};
use super::output::{Output, seconds};
use crate::client::Client;
use crate::escape::Escaped;

pub(super) async fn ping(client: &Client, common: &Common, output: Output) -> Outcome {
    let hello = client
        .hello()
        .await
        .map_err(request("ping", &common.server))?;
    let began = Instant::now();
    client
        .ping()
        .await
        .map_err(request("ping", &common.server))?;
    let round_trip_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let object =
        json!({"server": hello.server, "time": hello.time, "round_trip_us": round_trip_us});
    let text = format!(
        "{} at {}: {round_trip_us} µs",
        Escaped::new(&hello.server),
        common.server
    );
    Ok(output.result(&object, &text)?)
}

pub(super) async fn whoami(client: &Client, output: Output) -> Outcome {
    let who = client.whoami().await.map_err(request("whoami", ""))?;
    let mut text = format!(
        "{}\n  serial   {}\n  CA       {}\n  expires  {}",
        Escaped::new(&who.identity),
        Escaped::new(&who.serial),
        Escaped::new(&who.ca),
        seconds(who.expires_at)
    );
    if let Some(n_grants) = who.n_grants {
        text = format!("{text}\n  grants   {n_grants}");
    }
    Ok(output.result(&who, &text)?)
}

pub(super) async fn can(client: &Client, action: &str, on: &str, output: Output) -> Outcome {
    let verdict = client
        .can(action, on)
        .await
        .map_err(request("can", &format!("{action} {on}")))?;
    let word = if verdict.allowed { "yes" } else { "no" };
    output.result(
        &verdict,
        &format!("{word}: {}", Escaped::new(&verdict.reason)),
    )?;
    if verdict.allowed {
        Ok(())
    } else {
        Err(Failure::Refused(Exit::Denied))
    }
}
