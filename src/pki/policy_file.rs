//! The starter policy: one grant for each client.
//!
//! A policy that a person touched is never written again, only told about.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::name::{ClientName, TrustDomain};

const HEADER: &str = "\
# Who may do what. No grant, no right: whatever no grant covers is refused.
#
# to     the name in a client's certificate (fsvc whoami shows it)
# allow  what it may do: list, read, create, replace, delete; publish, subscribe; admin
# on     where: /** is every path, /reports/** is everything below /reports, topic:** is every topic
#
# create without replace may add files but never change one. As long as nobody edits this file,
# fsvc gen-certs --client NAME adds a grant for the new client.
";

/// The grant for one client, as it stands in the file.
pub(super) fn grant(domain: &TrustDomain, client: &ClientName) -> String {
    format!(
        "\n[[grant]]\n{}allow = [\"list\", \"read\", \"create\", \"replace\", \"delete\", \"publish\", \
         \"subscribe\"]\non    = [\"/**\", \"topic:**\"]\n",
        to_line(domain, client)
    )
}

fn to_line(domain: &TrustDomain, client: &ClientName) -> String {
    format!("to    = \"{}\"\n", domain.client(client))
}

/// The policy for these clients, in this order.
pub(super) fn render<'a>(
    domain: &TrustDomain,
    clients: impl IntoIterator<Item = &'a ClientName>,
) -> String {
    let mut text = HEADER.to_owned();
    for client in clients {
        let _ = text.write_str(&grant(domain, client));
    }
    text
}

/// What to do about new clients, given the policy in place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// The whole new text.
    Rewrite(String),
    /// Edited by hand: the grants to add, if nothing there covers them.
    Tell(String),
}

/// What the clients `new`, beside those that were there `before`, ask of the policy `text`.
pub(super) fn extend(
    text: &str,
    domain: &TrustDomain,
    before: &[ClientName],
    new: &[ClientName],
) -> Change {
    let mut named = clients_named(text, domain);
    let is_named = |client: &&ClientName| text.contains(&to_line(domain, client));
    let missing: Vec<&ClientName> = new.iter().filter(|client| !is_named(client)).collect();
    if missing.is_empty() {
        return Change::None;
    }
    let known: BTreeSet<&ClientName> = named.iter().collect();
    // A grant that was taken away from a client must not come back with the next client.
    let untouched = text == render(domain, &named) && before.iter().all(|c| known.contains(c));
    if !untouched {
        let grants: String = missing.iter().map(|c| grant(domain, c)).collect();
        return Change::Tell(grants.trim_start().to_owned());
    }
    named.extend(missing.into_iter().cloned());
    Change::Rewrite(render(domain, &named))
}

fn clients_named(text: &str, domain: &TrustDomain) -> Vec<ClientName> {
    let prefix = format!("to    = \"spiffe://{domain}/client/");
    text.lines()
        .filter_map(|line| line.strip_prefix(&prefix)?.strip_suffix('"')?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<ClientName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(text: &str, before: &[&str], new: &[&str], expected: &Change) {
        let domain = "td".parse().unwrap();
        assert_eq!(
            &extend(text, &domain, &names(before), &names(new)),
            expected
        );
    }

    #[test]
    fn a_policy_grows_only_while_nobody_edited_it() {
        let domain: TrustDomain = "td".parse().unwrap();
        let text = |clients: &[&str]| render(&domain, &names(clients));
        let told = |client: &str| {
            let grant = grant(&domain, &client.parse().unwrap());
            Change::Tell(grant.trim_start().to_owned())
        };
        let dev = text(&["dev"]);

        check(&dev, &["dev"], &[], &Change::None);
        check(&dev, &[], &["dev"], &Change::None);
        let both = Change::Rewrite(text(&["dev", "bob"]));
        check(&dev, &["dev"], &["bob"], &both);
        // An older client whose files were carried away keeps its grant.
        check(&dev, &[], &["bob"], &both);

        check(&format!("{dev}\n"), &["dev"], &["bob"], &told("bob"));
        check(
            &dev.replace("\"delete\"", ""),
            &["dev"],
            &["bob"],
            &told("bob"),
        );
        check("", &["dev"], &["bob"], &told("bob"));
        // Eve's grant was taken out.
        check(&dev, &["dev", "eve"], &["bob"], &told("bob"));
        // Another domain's file.
        check(
            &dev.replace("//td/", "//other/"),
            &["dev"],
            &["bob"],
            &told("bob"),
        );
    }

    #[test]
    fn the_starter_policy_is_toml() {
        let domain: TrustDomain = "td".parse().unwrap();
        let text = render(&domain, &names(&["dev", "bob"]));
        let table: toml::Table = text.parse().unwrap();
        let grants = table["grant"].as_array().unwrap();
        assert_eq!(grants.len(), 2);
        assert_eq!(grants[1]["to"].as_str(), Some("spiffe://td/client/bob"));
        assert_eq!(grants[0]["on"].as_array().unwrap().len(), 2);
        assert_eq!(grants[0]["allow"].as_array().unwrap().len(), 7);
    }
}
