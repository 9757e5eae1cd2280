// Package examples_test runs the examples that need no peer; interop runs the others.
package examples_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func run(t *testing.T, example string) string {
	t.Helper()
	out, err := exec.Command("go", "run", "./"+example).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func TestQuickstart(t *testing.T) {
	out := run(t, "quickstart")
	for _, line := range []string{
		"Protocol: TLS13",
		"Cipher: ",
		"Hash: ",
		"Key exchange: ",
		"Is mutually authenticated: true",
		"Can read: true, write true",
		"Certificate revocation list checked: false",
		"Local cert was issued to CN=client.example",
		"Remote cert was issued to CN=server.example",
		`The server says: you said "Hello from the client." (orderly end: true)`,
		"Refused: RemoteCertificateNameMismatch|RemoteCertificateChainErrors",
		"PartialChain (its issuer CN=Quickstart Root is missing)",
		"the client refused: alert 42, bad certificate",
	} {
		assert.Contains(t, out, line)
	}
}

func TestStartTLS(t *testing.T) {
	out := run(t, "starttls")
	for _, line := range []string{
		"Protocol: TLS13",
		"Is encrypted: true",
		"Can timeout: true",
		"Local certificate is null.",
		"Remote cert was issued to CN=mail.example",
		"S: 250 heard in secret: the password is swordfish",
		"S: 221 heard in plain text: goodbye",
	} {
		assert.Contains(t, out, line)
	}
}

// TestClientCertificateNeedsItsKey: half a pair is an error, not a client without a certificate.
func TestClientCertificateNeedsItsKey(t *testing.T) {
	for _, flag := range []string{"-cert", "-key"} {
		out, err := exec.Command("go", "run", "./client", flag, "some.pem").CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "client: -cert and -key belong together", flag)
	}
}
