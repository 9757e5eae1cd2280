package main

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream/internal/testpki"
)

// build compiles the shim.
func build(t *testing.T) string {
	t.Helper()
	shim := filepath.Join(t.TempDir(), "shim")
	out, err := exec.Command("go", "build", "-o", shim, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return shim
}

const makeRunner = "make one with 'go test -c -o runner .' in BoringSSL's ssl/test/runner, and leave it there"

// findRunner is the runner's absolute path, as it is started in another directory than ours: that of its keys, without which it panics.
func findRunner(path string) (string, error) {
	runner, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for _, need := range []string{filepath.Base(runner), "channel_id_key.pem", "ecdsa_p256_key.pem", "ed25519_key.pem"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(runner), need)); err != nil {
			return "", fmt.Errorf("BOGO_RUNNER does not name a runner beside its keys: %w; %s", err, makeRunner)
		}
	}
	return runner, nil
}

// disabled are the tests of config.json, by patterns, with what they fail for.
func disabled(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("config.json")
	require.NoError(t, err)
	var config struct{ DisabledTests map[string]string }
	require.NoError(t, json.Unmarshal(data, &config))
	return config.DisabledTests
}

// TestSuite runs BoringSSL's tests where BOGO_RUNNER names their runner. config.json says which tests fail and why. They are run too, so that
// none is left out for nothing.
func TestSuite(t *testing.T) {
	if os.Getenv("BOGO_RUNNER") == "" {
		t.Skip("BOGO_RUNNER names no runner: " + makeRunner)
	}
	runner, err := findRunner(os.Getenv("BOGO_RUNNER"))
	require.NoError(t, err)
	config, err := filepath.Abs("config.json")
	require.NoError(t, err)
	results := filepath.Join(t.TempDir(), "results.json")
	cmd := exec.Command(runner, "-shim-path", build(t), "-shim-config", config, "-include-disabled", "-allow-unimplemented", "-loose-errors", "-pipe", "-json-output", results)
	cmd.Dir = filepath.Dir(runner)
	out, runErr := cmd.CombinedOutput() // which is an error where a test fails, as those of config.json do
	data, err := os.ReadFile(results)
	require.NoError(t, err, "%v: %s", runErr, out)
	var all struct {
		Tests map[string]struct {
			Actual string `json:"actual"`
		} `json:"tests"`
	}
	require.NoError(t, json.Unmarshal(data, &all))
	patterns := disabled(t)
	counts, leftOut, fails := map[string]int{}, map[string]int{}, map[string]bool{}
	for name, result := range all.Tests {
		expected := false
		for pattern := range patterns {
			match, err := filepath.Match(pattern, name)
			require.NoError(t, err, pattern)
			if match {
				expected = true
				fails[pattern] = fails[pattern] || result.Actual == "FAIL"
			}
		}
		if expected {
			leftOut[result.Actual]++
			continue
		}
		counts[result.Actual]++
		if result.Actual == "FAIL" {
			t.Error(name)
		}
	}
	for pattern, fails := range fails {
		assert.True(t, fails, "config.json leaves out %s, which does not fail", pattern)
	}
	t.Logf("%d tests: %v; of config.json: %v", len(all.Tests), counts, leftOut)
	assert.Greater(t, counts["PASS"], 1000)
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func TestRunnerIsBesideItsKeys(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"runner", "channel_id_key.pem", "ecdsa_p256_key.pem", "ed25519_key.pem"} {
		_, err := findRunner("runner")
		assert.ErrorContains(t, err, name)
		assert.ErrorContains(t, err, makeRunner)
		require.NoError(t, os.WriteFile(name, nil, 0o600))
	}
	runner, err := findRunner("runner")
	require.NoError(t, err)
	assert.True(t, filepath.IsAbs(runner))
}

// TestShim is a runner of two tests, with crypto/tls: an echo of inverted octets, and a second session.
func TestShim(t *testing.T) {
	shim := build(t)
	cert := testpki.Root(t, "Root").Issue(t, "test", testpki.Valid(-20*365*24*time.Hour, 24*time.Hour))
	certFile, keyFile := testpki.Files(t, cert)
	for _, role := range []string{"client", "server"} {
		t.Run(role, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			_, port, err := net.SplitHostPort(l.Addr().String())
			require.NoError(t, err)
			args := []string{"-port", port, "-shim-id", "4711", "-resume-count", "1", "-expect-version", "772", "-on-initial-shim-writes-first", "-check-close-notify", "-async", "-resumption-delay", "10"}
			if role == "server" {
				args = append(args, "-server", "-cert-file", certFile, "-key-file", keyFile)
			}
			cmd := exec.Command(shim, args...)
			output, err := os.Create(filepath.Join(t.TempDir(), "output"))
			require.NoError(t, err)
			defer output.Close()
			cmd.Stdout, cmd.Stderr = output, output
			require.NoError(t, cmd.Start())
			defer func() {
				cmd.Process.Kill()
				if said, _ := os.ReadFile(output.Name()); t.Failed() {
					t.Logf("the shim printed: %s", said)
				}
			}()
			config := &tls.Config{InsecureSkipVerify: true, ServerName: "test", ClientSessionCache: tls.NewLRUClientSessionCache(1), Certificates: []tls.Certificate{cert}}
			for round := range 2 {
				l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
				conn, err := l.Accept()
				require.NoError(t, err)
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				id := make([]byte, 8)
				_, err = io.ReadFull(conn, id)
				require.NoError(t, err)
				assert.EqualValues(t, 4711, binary.LittleEndian.Uint64(id))
				c := tls.Server(conn, config)
				if role == "server" {
					c = tls.Client(conn, config)
				}
				if round == 0 {
					hello := make([]byte, 5)
					_, err = io.ReadFull(c, hello)
					require.NoError(t, err)
					assert.Equal(t, "hello", string(hello))
				}
				_, err = c.Write([]byte{0, 1, 0xff})
				require.NoError(t, err)
				echo := make([]byte, 3)
				_, err = io.ReadFull(c, echo)
				require.NoError(t, err)
				assert.Equal(t, []byte{0xff, 0xfe, 0}, echo)
				assert.Equal(t, round == 1, c.ConnectionState().DidResume)
				require.NoError(t, c.CloseWrite())
				_, err = c.Read(echo)
				assert.ErrorIs(t, err, io.EOF)
				conn.Close()
			}
			assert.NoError(t, cmd.Wait())
		})
	}
}

func TestFlags(t *testing.T) {
	all, initial, resumed, err := parse([]string{"-server", "-curves", "29", "-curves", "23", "-on-resume-expect-session-miss", "-on-initial-expect-version", "771"})
	require.NoError(t, err)
	assert.True(t, all.is("server") && initial.is("server") && resumed.is("server"))
	curves, err := initial.numbers("curves")
	require.NoError(t, err)
	assert.Equal(t, []int{29, 23}, curves)
	assert.False(t, initial.is("expect-session-miss"))
	assert.True(t, resumed.is("expect-session-miss"))
	assert.Equal(t, "771", initial.text("expect-version"))
	assert.Empty(t, resumed.text("expect-version"))
	_, _, _, err = parse([]string{"-dtls"})
	var u unimplemented
	assert.True(t, errors.As(err, &u))
	_, _, _, err = parse([]string{"-port"})
	assert.ErrorContains(t, err, "-port has no value")

	var exit *exec.ExitError
	require.ErrorAs(t, exec.Command(build(t), "-dtls").Run(), &exit)
	assert.Equal(t, exitUnimplemented, exit.ExitCode())
}

// TestConfigGivesReasons has every test that is expected to fail say why.
func TestConfigGivesReasons(t *testing.T) {
	all := disabled(t)
	assert.NotEmpty(t, all)
	for name, reason := range all {
		assert.Greater(t, len(reason), 15, name)
	}
}

// TestFlagsHaveAnEffect has the shim look at every flag that it accepts, or say why it need not.
func TestFlagsHaveAnEffect(t *testing.T) {
	var code []byte
	for _, file := range []string{"main.go", "options.go", "session.go"} {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		code = append(code, data...)
	}
	for _, name := range append(strings.Fields(switches), strings.Fields(valued)...) {
		assert.Contains(t, string(code), strconv.Quote(name))
	}
	for _, m := range moot {
		assert.NotEmpty(t, m.reason, m.name)
	}
	for _, name := range []string{"implicit-handshake", "peek-then-read", "expect-session-id", "expect-secure-renegotiation"} {
		_, _, _, err := parse([]string{"-" + name})
		var u unimplemented
		assert.ErrorAs(t, err, &u, name)
	}
}
