package interop_test

import (
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// inNamespace runs the test again in a network namespace of its own, for servers that listen on every address: nobody outside
// reaches them there. It returns false outside of it, where the test must return.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("INTEROP_NAMESPACE") == t.Name() {
		return true
	}
	const enter = `ip link set lo up && exec "$@"`
	unshare, ip := need(t, "unshare", "apt-get install util-linux"), need(t, "ip", "apt-get install iproute2")
	if out, err := exec.Command(unshare, "-n", ip, "link", "set", "lo", "up").CombinedOutput(); err != nil {
		if os.Getenv("INTEROP") == "all" {
			t.Fatalf("no network namespace can be made: %v: %s", err, out)
		}
		t.Skipf("no network namespace can be made, which needs root: %v", err)
	}
	cmd := exec.Command(unshare, "-n", "sh", "-c", enter, "sh", os.Args[0], "-test.run", "^"+regexp.QuoteMeta(t.Name())+"$", "-test.count", "1", "-test.timeout", "2m", "-test.v")
	cmd.Env = append(os.Environ(), "INTEROP_NAMESPACE="+t.Name())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
	return false
}
