package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sslstream/sslstream"
)

// patience is for what must happen at some time.
const patience = 20 * time.Second

// running is a fleet in processes of its own, and what they print.
type running struct {
	t       *testing.T
	mu      sync.Mutex
	lines   []string
	address string
	options *sslstream.ClientOptions
}

func startFleet(t *testing.T) *running {
	program := filepath.Join(t.TempDir(), "fleet")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(program, "-address", "127.0.0.1:0", "-period", "2s")
	cmd.Env = append(os.Environ(), "FLEET_KEY=")
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	f := &running{t: t}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			f.mu.Lock()
			f.lines = append(f.lines, lines.Text())
			f.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-read
		assert.NoError(t, cmd.Wait(), "the fleet ends in order")
		if t.Failed() {
			t.Log(strings.Join(f.lines, "\n"))
		}
	})
	f.address = f.await(0, `clients may connect to (.*)`)
	pem, err := os.ReadFile(f.await(0, `roots in (.*)`))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	f.options = &sslstream.ClientOptions{TargetHost: serverName, CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots}}
	for i := range 3 {
		f.await(0, fmt.Sprintf(`server-%d: listening on .*`, i+1))
	}
	return f
}

// printed is how many lines there are.
func (f *running) printed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lines)
}

// await waits for a line after the first so many, and returns what the pattern's group matched in it.
func (f *running) await(after int, pattern string) string {
	f.t.Helper()
	re := regexp.MustCompile("^" + pattern + "$")
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		lines := f.lines[after:]
		f.mu.Unlock()
		for _, line := range lines {
			if m := re.FindStringSubmatch(line); m != nil {
				return m[len(m)-1]
			}
		}
	}
	require.FailNow(f.t, "not printed: "+pattern)
	return ""
}

// last returns what the pattern's group matched in the newest line that it matches.
func (f *running) last(pattern string) string {
	re := regexp.MustCompile("^" + pattern + "$")
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.lines) - 1; i >= 0; i-- {
		if m := re.FindStringSubmatch(f.lines[i]); m != nil {
			return m[1]
		}
	}
	return ""
}

// kill ends a process of the fleet without notice.
func (f *running) kill(name string) {
	f.t.Helper()
	pid, err := strconv.Atoi(f.last(name + `: process (\d+)`))
	require.NoError(f.t, err)
	require.NoError(f.t, syscall.Kill(pid, syscall.SIGKILL))
}

// session is a client's connection.
type session struct {
	*sslstream.Stream
	lines   *bufio.Reader
	server  string
	resumed bool
}

func (f *running) connect(ctx context.Context) (*session, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", f.address)
	if err != nil {
		return nil, err
	}
	s := &session{Stream: sslstream.New(conn)}
	s.lines = bufio.NewReader(s.Stream)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.AuthenticateAsClient(ctx, f.options); err != nil {
		s.Close()
		return nil, err
	}
	s.SetReadTimeout(patience)
	if _, err := fmt.Fscanf(s.lines, "%s resumed=%t\n", &s.server, &s.resumed); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// say has the server repeat a line.
func (s *session) say(line string) error {
	if _, err := io.WriteString(s, line+"\n"); err != nil {
		return err
	}
	heard, err := s.lines.ReadString('\n')
	if err == nil && heard != line+"\n" {
		err = fmt.Errorf("said %q, heard %q", line, heard)
	}
	return err
}

// resumesEverywhere connects until every server has resumed a session that another server began.
func (f *running) resumesEverywhere(when string) {
	f.t.Helper()
	before := ""
	resumed := map[string]bool{}
	for end := time.Now().Add(patience); len(resumed) < 3 && time.Now().Before(end); {
		s, err := f.connect(f.t.Context())
		if !assert.NoError(f.t, err, when) {
			return
		}
		if s.resumed && before != "" && before != s.server {
			resumed[s.server] = true
		}
		before = s.server
		s.Close()
	}
	assert.Len(f.t, resumed, 3, when)
}

// TestFleet kills servers and etcd under load, and puts something else in the place of the keys.
func TestFleet(t *testing.T) {
	f := startFleet(t)
	f.resumesEverywhere("at first")

	// Connections that stay, and tell which of them broke.
	stop := make(chan struct{})
	var staying sync.WaitGroup
	var said atomic.Int64
	broken := make(chan string, 100)
	for range 9 {
		s, err := f.connect(t.Context())
		require.NoError(t, err)
		staying.Go(func() {
			defer s.Close()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.say(strconv.Itoa(i)); err != nil {
					broken <- s.server
					return
				}
				said.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	goesOn := func(when string) {
		t.Helper()
		before := said.Load()
		require.Eventually(t, func() bool { return said.Load() > before+100 }, patience, time.Millisecond, when)
	}
	goesOn("at first")

	mark := f.printed()
	f.kill("server-2")
	f.await(mark, `server-2: ended: .*`)
	goesOn("without a server")
	f.await(mark, `server-2: listening on .*`)
	f.resumesEverywhere("after a server came back")
	for len(broken) > 0 {
		assert.Equal(t, "server-2", <-broken, "nobody's connection breaks but those of the server that was killed")
	}

	mark = f.printed()
	f.kill("etcd")
	f.resumesEverywhere("without etcd, or with one that has just come back")
	goesOn("without etcd")
	f.await(mark, `etcd: listening on .*`)
	f.await(f.printed(), `server-\d: \d keys, the newest made at .*`) // rotation goes on
	f.resumesEverywhere("after etcd came back")

	client, err := clientv3.New(clientv3.Config{Endpoints: []string{f.last(`etcd: listening on (.*)`)}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mark = f.printed()
	_, err = client.Put(ctx, place, "not a ring of keys")
	require.NoError(t, err)
	for i := range 3 {
		f.await(mark, fmt.Sprintf(`server-%d: refusing the value of .* in etcd: it is no sealed ring of keys; .* Going on with the \d keys there are`, i+1))
	}
	f.resumesEverywhere("with something else in etcd")
	_, err = client.Delete(ctx, place)
	require.NoError(t, err)
	f.await(mark, `server-\d: etcd is back`)
	f.await(f.printed(), `server-\d: \d keys, the newest made at .*`)
	f.resumesEverywhere("with new keys")

	close(stop)
	staying.Wait()
	assert.Empty(t, broken)
}

// TestServersGoOnWithoutEtcd has an etcd that stays away.
func TestServersGoOnWithoutEtcd(t *testing.T) {
	address, err := freeAddress()
	require.NoError(t, err)
	store, err := newStore(address, testBox(t))
	require.NoError(t, err)
	defer store.close()
	var log []string
	k := &keeper{
		store: store, period: time.Hour,
		use:  func([][32]byte) error { t.Error("there are no keys to use"); return nil },
		logf: func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) },
	}
	k.sync(t.Context())
	k.sync(t.Context())
	require.Len(t, log, 1, "said once")
	assert.Contains(t, log[0], "lost etcd, going on with the 0 keys there are: ")
}

// TestOneServerRotates has several keepers find at once that it is time.
func TestOneServerRotates(t *testing.T) {
	address, err := freeAddress()
	require.NoError(t, err)
	peer, err := freeAddress()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runEtcd(ctx, t.TempDir(), address, peer) }()
	defer func() { cancel(); assert.NoError(t, <-ended) }()

	box := testBox(t)
	rings := make([]ring, 5)
	var all sync.WaitGroup
	for i := range rings {
		all.Go(func() {
			store, err := newStore(address, box)
			if !assert.NoError(t, err) {
				return
			}
			defer store.close()
			k := &keeper{store: store, period: time.Hour, use: func([][32]byte) error { return nil }, logf: t.Logf}
			for end := time.Now().Add(patience); len(k.current.Keys) == 0 && time.Now().Before(end); {
				k.sync(t.Context())
			}
			rings[i] = k.current
		})
	}
	all.Wait()
	for _, r := range rings {
		require.Len(t, r.Keys, 2)
		assert.True(t, r.equal(rings[0]), "all have the keys that one of them made")
	}
}
