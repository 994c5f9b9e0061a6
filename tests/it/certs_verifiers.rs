//! Every kind of certificate that is issued, in the eyes of others: openssl, Python and curl, each as
//! strict as it can be, the latter two against the real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::certs::{certs, ok};
use crate::harness::{Server, Setup, gen_certs, text};

const GRANTS: &str = r#"
[[trust]]
ca = "ca.pem"
trust_domain = "test.internal"
also_servers = true

[[grant]]
to = "spiffe://test.internal/**"
allow = ["list", "read"]
on = "/**"
"#;

/// What each server is reached by in these tests.
const HOSTS: [&str; 4] = ["--host", "localhost", "--host", "127.0.0.1"];

struct Issued {
    _scratch: TempDir,
    dir: PathBuf,
}

/// The pairs of each side, without the ends of their names.
const SERVERS: [&str; 4] = ["server", "servers/web", "peers/node", "far/server"];
const CLIENTS: [(&str, &str); 6] = [
    ("clients/dev", "client/dev"),
    ("clients/renewed", "client/renewed"),
    ("clients/kept", "client/kept"),
    ("clients/again", "client/again"),
    ("far/clients/carol", "client/carol"),
    ("peers/node", "peer/node"),
];

impl Issued {
    /// One of each kind.
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let dir = scratch.path().join("certs");
        gen_certs(&dir, &["dev"]);
        let issued = Self {
            _scratch: scratch,
            dir,
        };
        issued.issue();
        fs::write(issued.dir.join("policy.toml"), GRANTS).unwrap();
        issued
    }

    fn issue(&self) {
        let with_hosts = |words: &[&'static str]| [words, &HOSTS[..]].concat();
        ok(&self.dir, &with_hosts(&["add", "--server", "web"]));
        ok(&self.dir, &with_hosts(&["add", "--peer", "node"]));
        for name in ["renewed", "kept", "again"] {
            ok(&self.dir, &["add", "--client", name]);
        }
        ok(&self.dir, &["renew", "renewed"]);
        ok(&self.dir, &["renew", "kept", "--reuse-key"]);
        ok(&self.dir, &["add", "--client", "again", "--again"]);
        self.sign();
    }

    /// A client's and a server's key that are made elsewhere.
    fn sign(&self) {
        let far = self.dir.join("far");
        let request = |words: &[&str]| {
            let mut all = vec!["request"];
            all.extend(words);
            ok(&far, &all);
        };
        request(&["--client", "carol"]);
        request(&[&["--server"][..], &HOSTS].concat());
        let signed = |csr: &str, words: &[&str]| {
            let out = far.join(csr).with_extension("pem");
            let csr = far.join(csr);
            let (out, csr) = (out.to_str().unwrap(), csr.to_str().unwrap());
            ok(&self.dir, &[&["sign", csr, "--out", out], words].concat());
        };
        signed("clients/carol.csr", &["--client", "carol"]);
        signed("server.csr", &[&["--server"][..], &HOSTS].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&self.dir)
            .output()
            .unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        said
    }

    fn serve(&self, pair: &str) -> Server {
        let file = |end: &str| self.dir.join(format!("{pair}{end}")).display().to_string();
        let (certificate, key) = (file(".pem"), file("-key.pem"));
        let words = ["--cert", &certificate, "--key", &key];
        Server::start_with(Setup {
            certs: Some(self.dir.clone()),
            arguments: words.map(str::to_owned).to_vec(),
            ..Setup::default()
        })
    }

    #[track_caller]
    fn pass(&self) {
        self.openssl();
        self.pyca();
        // Every client at one server, and one client at every server.
        for (n, server) in SERVERS.into_iter().enumerate() {
            let running = self.serve(server);
            let n_clients = if n == 0 { CLIENTS.len() } else { 1 };
            for (client, identity) in CLIENTS.into_iter().take(n_clients) {
                self.python(&running, client, identity);
                self.curl(&running, client);
            }
        }
    }

    fn openssl(&self) {
        let purposes = [
            ("sslserver", SERVERS.to_vec()),
            ("sslclient", {
                CLIENTS.iter().map(|(pair, _)| *pair).collect()
            }),
        ];
        for (purpose, pairs) in purposes {
            for pair in pairs {
                let file = format!("{pair}.pem");
                let strict = ["verify", "-x509_strict", "-crl_check", "-CAfile", "ca.pem"];
                let more = ["-CRLfile", "ca.crl", "-purpose", purpose, &file];
                self.run("openssl", &[&strict[..], &more].concat());
            }
        }
        let own = ["verify", "-x509_strict", "-check_ss_sig", "-CAfile"];
        self.run("openssl", &[&own[..], &["ca.pem", "ca.pem"]].concat());
    }

    /// The strictest reader of DER, where it is installed.
    fn pyca(&self) {
        let script = "
import sys
try:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
except ImportError:
    sys.exit(0)
for name in sys.argv[1:]:
    text = open(name, 'rb').read()
    for one in x509.load_pem_x509_certificates(text):
        extensions = one.extensions
        assert one.version == x509.Version.v3, name
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        assert extensions.get_extension_for_class(x509.BasicConstraints).critical, name
        assert extensions.get_extension_for_class(x509.KeyUsage).critical, name
        if one.subject != one.issuer:
            extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
            extensions.get_extension_for_class(x509.SubjectAlternativeName)
            key = load_pem_private_key(open(name[:-4] + '-key.pem', 'rb').read(), None)
            assert key.public_key() == one.public_key(), name
        assert 0 < one.serial_number < 2 ** 159, name
for text in open('ca.crl', 'rb').read().split(b'-----END X509 CRL-----\\n')[:-1]:
    one = x509.load_pem_x509_crl(text + b'-----END X509 CRL-----\\n')
    one.extensions.get_extension_for_class(x509.CRLNumber)
    one.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
";
        let clients = CLIENTS.iter().map(|(pair, _)| pair);
        let pairs = SERVERS.iter().chain(clients).chain(&["ca"]);
        let files: Vec<String> = pairs.map(|pair| format!("{pair}.pem")).collect();
        let mut words = vec!["-c", script];
        words.extend(files.iter().map(String::as_str));
        self.run("python3", &words);
    }

    /// A default context, with what newer versions of Python set by themselves.
    fn python(&self, server: &Server, client: &str, identity: &str) {
        let script = "
import json, socket, ssl, sys
port, pair = sys.argv[1:]
context = ssl.create_default_context(cafile='ca.pem')
context.verify_flags |= ssl.VERIFY_X509_STRICT | getattr(ssl, 'VERIFY_X509_PARTIAL_CHAIN', 0)
context.load_cert_chain(pair + '.pem', pair + '-key.pem')
context.set_alpn_protocols(['fsvc/1'])
for name in ['localhost', '127.0.0.1']:
    plain = socket.create_connection(('127.0.0.1', int(port)), 20)
    with context.wrap_socket(plain, server_hostname=name) as tls:
        whole = tls.makefile('rb')
        head = whole.read(5)
        hello = json.loads(whole.read(int.from_bytes(head[1:], 'big')))
        print(hello['hello']['identity'] if 'hello' in hello else hello)
";
        let port = server.address.rsplit(':').next().unwrap();
        let said = self.run("python3", &["-c", script, port, client]);
        let line = format!("spiffe://test.internal/{identity}\n");
        assert_eq!(said, line.repeat(2), "{client}");
    }

    /// No protocol is agreed on, so that the server's first words are that; by then both sides have
    /// verified each other.
    fn curl(&self, server: &Server, client: &str) {
        let (certificate, key) = (format!("{client}.pem"), format!("{client}-key.pem"));
        let port = server.address.rsplit(':').next().unwrap();
        let url = format!("https://localhost:{port}/");
        let mut words = vec!["-sS", "--no-alpn", "--http0.9", "--max-time", "20"];
        words.extend(["--ipv4", "--tlsv1.3", "--cacert", "ca.pem"]);
        words.extend(["--cert", &certificate, "--key", &key, "--output", "-", &url]);
        let said = self.run("curl", &words);
        assert!(said.contains("\"unsupported\""), "{client}: {said}");
    }
}

#[test]
fn each_kind_passes_with_each_other() {
    Issued::new().pass();
}

/// The CAs of a change of CAs, and what each signed.
#[test]
fn each_kind_passes_while_the_ca_is_changed() {
    let issued = Issued::new();
    let step = |words: &[&str]| ok(&issued.dir, &[&["rotate-ca"], words].concat());
    step(&["start"]);
    issued.pass();
    step(&["promote", "--now"]);
    ok(&issued.dir, &["renew", "--all"]);
    issued.pass();
}

/// What a verifier is for: it says no where it should.
#[test]
fn what_was_revoked_passes_nowhere() {
    let issued = Issued::new();
    ok(&issued.dir, &["revoke", "--all-of", "kept"]);
    let crl_check = ["verify", "-x509_strict", "-crl_check", "-CAfile", "ca.pem"];
    let output = Command::new("openssl")
        .args(crl_check)
        .args(["-CRLfile", "ca.crl", "clients/kept.pem"])
        .current_dir(&issued.dir)
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("certificate revoked"));
    issued.pyca();
    let server = issued.serve("server");
    issued.python(&server, "clients/renewed", "client/renewed");
    let output = server.client("kept", &["whoami"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(certs(Path::new(&issued.dir), &["list"]).status.success());
}
