package main

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// TestSuite runs BoringSSL's tests where BOGO_RUNNER names their runner, which is made in BoringSSL's directory ssl/test/runner:
//
//	go test -c -o runner .
//
// It finds its keys beside it. config.json says which tests fail and why.
func TestSuite(t *testing.T) {
	runner := os.Getenv("BOGO_RUNNER")
	if runner == "" {
		t.Skip("BOGO_RUNNER names no runner: make one with 'go test -c -o runner .' in BoringSSL's ssl/test/runner")
	}
	config, err := filepath.Abs("config.json")
	require.NoError(t, err)
	results := filepath.Join(t.TempDir(), "results.json")
	cmd := exec.Command(runner, "-shim-path", build(t), "-shim-config", config, "-allow-unimplemented", "-loose-errors", "-pipe", "-json-output", results)
	cmd.Dir = filepath.Dir(runner)
	out, runErr := cmd.CombinedOutput()
	data, err := os.ReadFile(results)
	require.NoError(t, err, "%s", out)
	var all struct {
		Tests map[string]struct {
			Actual       string `json:"actual"`
			IsUnexpected bool   `json:"is_unexpected"`
		} `json:"tests"`
	}
	require.NoError(t, json.Unmarshal(data, &all))
	counts := map[string]int{}
	for name, result := range all.Tests {
		counts[result.Actual]++
		if result.Actual == "FAIL" {
			t.Error(name)
		}
	}
	t.Logf("%d tests: %v", len(all.Tests), counts)
	require.NoError(t, runErr, "%s", out)
	assert.Greater(t, counts["PASS"], 1000)
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
			args := []string{"-port", port, "-shim-id", "4711", "-resume-count", "1", "-expect-version", "772", "-on-initial-shim-writes-first", "-check-close-notify"}
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
	data, err := os.ReadFile("config.json")
	require.NoError(t, err)
	var config struct{ DisabledTests map[string]string }
	require.NoError(t, json.Unmarshal(data, &config))
	assert.NotEmpty(t, config.DisabledTests)
	for name, reason := range config.DisabledTests {
		assert.Greater(t, len(reason), 15, name)
	}
}
