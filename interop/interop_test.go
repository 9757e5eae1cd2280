// Package interop_test holds the tests against TLS stacks that others wrote. A peer that is not installed skips its tests
// and says what to install; with INTEROP=all it fails them.
package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// patience is for whatever a peer does: machines are slow that do much else besides, and who succeeds does not wait for it.
const patience = time.Minute

// need skips, or fails with INTEROP=all, where the program is not installed; install says how to get it. INTEROP=none skips all.
func need(t *testing.T, program, install string) string {
	t.Helper()
	if os.Getenv("INTEROP") == "none" {
		t.Skip("INTEROP=none: no peers")
	}
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("INTEROP") == "all" {
		t.Fatalf("%s is not installed: %s", program, install)
	}
	t.Skipf("%s is not installed: %s", program, install)
	return ""
}

// needRoot skips, or fails with INTEROP=all, where a peer that needs root cannot have it.
func needRoot(t *testing.T, program string) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("INTEROP") == "all" {
		t.Fatalf("%s runs as root only", program)
	}
	t.Skipf("%s runs as root only", program)
}

// peer is a program that runs beside a test.
type peer struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	stop  os.Signal // that ends it with the test; what is left of it then is killed
	done  chan struct{}
	err   error // valid once done is closed

	mu  sync.Mutex
	out bytes.Buffer
}

func (p *peer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// output is what the peer has printed so far, on both streams.
func (p *peer) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start runs a program until the test ends, or until it ends by itself.
func start(t *testing.T, program string, args ...string) *peer {
	t.Helper()
	return startCmd(t, exec.Command(program, args...))
}

// startCmd is start for a command.
func startCmd(t *testing.T, cmd *exec.Cmd) *peer {
	t.Helper()
	p := &peer{t: t, cmd: cmd, stop: os.Kill, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = patience // for what its children hold open
	ownGroup(cmd)
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if p.stop != os.Kill {
			p.cmd.Process.Signal(p.stop)
			select {
			case <-p.done:
			case <-time.After(patience):
				t.Errorf("%s does not stop", program(cmd))
			}
		}
		killGroup(p.cmd)
		<-p.done
		if t.Failed() {
			t.Logf("%s printed:\n%s", strings.Join(cmd.Args, " "), p.output())
		}
	})
	return p
}

func program(cmd *exec.Cmd) string { return filepath.Base(cmd.Path) }

// say types a line.
func (p *peer) say(line string) {
	p.t.Helper()
	_, err := io.WriteString(p.stdin, line+"\n")
	require.NoError(p.t, err)
}

// shows waits until the peer has printed the text.
func (p *peer) shows(text string) {
	p.t.Helper()
	p.showsTimes(text, 1)
}

// showsTimes waits until the peer has printed the text that often. OpenSSL 3.2 prints names with other spaces than before.
func (p *peer) showsTimes(text string, times int) {
	p.t.Helper()
	unspaced := func(s string) string { return strings.ReplaceAll(s, " = ", "=") }
	require.Eventually(p.t, func() bool { return strings.Count(unspaced(p.output()), unspaced(text)) >= times }, patience, 5*time.Millisecond, "the peer does not print %q", text)
}

// ends waits until the peer has ended by itself, and returns its error.
func (p *peer) ends() error {
	p.t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.t.Fatal("the peer does not end")
		return nil
	}
}

// ports are handed out once each, from where systems take none for those who ask for any.
var ports struct {
	sync.Mutex
	last int
}

// freePort is a port on loopback that nobody listens on now, and that nobody is given who does not ask for it.
func freePort(t *testing.T) string {
	t.Helper()
	const first, count = 18_000, 14_000
	ports.Lock()
	defer ports.Unlock()
	if ports.last == 0 {
		ports.last = rand.IntN(count)
	}
	for range count {
		ports.last = (ports.last + 1) % count
		port := strconv.Itoa(first + ports.last)
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// dial connects as soon as somebody listens.
func dial(t *testing.T, port string) net.Conn {
	t.Helper()
	var conn net.Conn
	require.Eventually(t, func() bool {
		var err error
		conn, err = net.Dial("tcp", "127.0.0.1:"+port)
		return err == nil
	}, patience, 10*time.Millisecond, "nobody listens on %s", port)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// accept takes one connection for a server of ours.
func accept(t *testing.T) (port string, conn func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	_, port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port, func() net.Conn {
		l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
		c, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// pki is what both sides show and trust.
type pki struct {
	root           *testpki.Authority
	server, client tls.Certificate

	caFile                string
	serverFile, serverKey string
	clientFile, clientKey string
}

const serverName = "server.example"

func newPKI(t *testing.T, key ...testpki.Option) *pki {
	p := &pki{root: testpki.Root(t, "Interop Root")}
	intermediate := p.root.Intermediate(t, "Interop Intermediate")
	p.server = intermediate.Issue(t, serverName, append(key, testpki.IP("127.0.0.1"), testpki.EKU(x509.ExtKeyUsageServerAuth))...)
	p.client = intermediate.Issue(t, "client.example", append(key, testpki.EKU(x509.ExtKeyUsageClientAuth))...)
	p.caFile = testpki.CAFile(t, p.root)
	p.serverFile, p.serverKey = testpki.Files(t, p.server)
	p.clientFile, p.clientKey = testpki.Files(t, p.client)
	return p
}

func (p *pki) trust() *sslstream.ChainPolicy {
	return &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(p.root)}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// readLine reads a line of the peer's.
func readLine(t *testing.T, s *sslstream.Stream) string {
	t.Helper()
	s.SetReadTimeout(patience)
	line, err := bufio.NewReader(s).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

var versions = []struct {
	name     string
	protocol sslstream.Protocols
	openssl  string
}{{"TLS12", sslstream.ProtocolTLS12, "-tls1_2"}, {"TLS13", sslstream.ProtocolTLS13, "-tls1_3"}}
