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
		"Is mutually authenticated: true",
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
	assert.Contains(t, out, "S: 250 heard in secret: the password is swordfish")
	assert.Contains(t, out, "S: 221 heard in plain text: goodbye")
}
