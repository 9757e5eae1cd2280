package interop_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// echoPeer is a program in testdata that echoes as a server and checks the echo as a client, two sessions in a row, the second of
// which it resumes; and that prints what it knows of each. Another stack is another such program.
type echoPeer struct {
	name, program, install string
	run                    func(t *testing.T, program string) []string // the arguments before those that all have
	resumes                func(server bool, version string) bool      // whether its second session is resumed
	only12                 bool                                        // it has no TLS 1.3
	silent                 bool                                        // it hangs up without a close_notify
	pfx                    bool                                        // it reads PKCS#12 files, beside the PEM ones, of RSA keys
}

func always(bool, string) bool { return true }
func never(bool, string) bool  { return false }

var echoPeers = []echoPeer{
	{"Python", "python3", "apt-get install python3", func(*testing.T, string) []string { return []string{"testdata/peer.py"} }, always, false, false, false},
	{"Node", "node", "apt-get install nodejs", func(*testing.T, string) []string { return []string{"testdata/peer.js"} }, always, false, false, false},
	{"Java", "java", "apt-get install openjdk-17-jdk-headless", func(t *testing.T, _ string) []string {
		dir := t.TempDir()
		out, err := exec.Command(need(t, "javac", "apt-get install openjdk-17-jdk-headless"), "-d", dir, "testdata/Peer.java").CombinedOutput()
		require.NoError(t, err, "%s", out)
		return []string{"-cp", dir, "Peer"}
	}, func(server bool, version string) bool {
		return server || version == "1.3" // its client throws away TLS 1.2 tickets without a lifetime, such as crypto/tls's
	}, false, false, false},
	{"Mono", "mono", installMono, func(t *testing.T, _ string) []string {
		exe := filepath.Join(t.TempDir(), "Peer.exe")
		out, err := exec.Command(need(t, "mcs", installMono), "-out:"+exe, "testdata/Peer.cs").CombinedOutput()
		require.NoError(t, err, "%s", out)
		return []string{exe}
	}, never, true, true, true},
}

const installMono = "apt-get install mono-mcs mono-runtime libmono-btls-interface4.0-cil"

// pki makes the certificates as the peer can read them.
func (e *echoPeer) pki(t *testing.T) *pki {
	if !e.pfx {
		return newPKI(t)
	}
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t, testpki.RSA(2048))
	for _, f := range [][2]string{{p.serverFile, p.serverKey}, {p.clientFile, p.clientKey}} {
		out, err := exec.Command(openssl, "pkcs12", "-export", "-in", f[0], "-inkey", f[1], "-out", f[0]+".pfx", "-passout", "pass:password",
			"-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	return p
}

// echoSize is what goes each way: many records.
const echoSize = 300_000

// opensslName is a suite's name in OpenSSL.
func opensslName(suite uint16) string {
	name := tls.CipherSuiteName(suite)
	prefix, rest, tls12 := strings.Cut(name, "_WITH_")
	if !tls12 {
		return name
	}
	rest = strings.NewReplacer("AES_128", "AES128", "AES_256", "AES256", "CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", "_CBC", "").Replace(rest)
	return strings.ReplaceAll(strings.TrimPrefix(prefix, "TLS_")+"-"+rest, "_", "-")
}

// checkReport compares a peer's report of a session with what we say of it.
func checkReport(t *testing.T, report string, s *sslstream.Stream, v sslstream.Protocols, resumed bool) {
	t.Helper()
	said := map[string]string{}
	for _, word := range strings.Fields(report) {
		if k, v, ok := strings.Cut(word, "="); ok {
			said[k] = v
		}
	}
	assert.Equal(t, v, s.Protocol())
	assert.Equal(t, map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "TLSv1.2", sslstream.ProtocolTLS13: "TLSv1.3"}[v], said["protocol"])
	if said["cipher"] != "" {
		assert.Contains(t, []string{tls.CipherSuiteName(s.NegotiatedCipherSuite()), opensslName(s.NegotiatedCipherSuite())}, said["cipher"])
	}
	if said["mutual"] != "" {
		assert.Equal(t, fmt.Sprint(s.IsMutuallyAuthenticated()), strings.ToLower(said["mutual"]))
	}
	if said["alpn"] != "" {
		assert.Equal(t, s.NegotiatedApplicationProtocol(), said["alpn"])
	}
	if peer, ok := said["peer"]; ok {
		local := ""
		if c := s.LocalCertificate(); c != nil {
			local = c.Subject.CommonName
		}
		assert.Equal(t, local, peer)
	}
	if said["resumed"] != "" {
		assert.Equal(t, fmt.Sprint(resumed), said["resumed"])
	}
	assert.Equal(t, resumed, s.ConnectionState().DidResume)
	assert.Equal(t, fmt.Sprint(echoSize), said["echoed"])
}

// reports waits for that many, and returns the last.
func (p *peer) report(times int) string {
	p.t.Helper()
	p.showsTimes("session protocol=", times)
	lines := strings.Split(p.output(), "\n")
	var all []string
	for _, line := range lines[:len(lines)-1] {
		if strings.HasPrefix(line, "session protocol=") {
			all = append(all, line)
		}
	}
	if len(all) < times { // the line is not complete yet
		time.Sleep(50 * time.Millisecond)
		return p.report(times)
	}
	return all[times-1]
}

func pattern() []byte {
	p := make([]byte, echoSize)
	for i := range p {
		p[i] = byte(i*31 + 7)
	}
	return p
}

// each runs a test for each version, with and without a client certificate.
func (e *echoPeer) each(t *testing.T, test func(t *testing.T, version sslstream.Protocols, number string, mutual bool)) {
	for _, v := range versions {
		if e.only12 && v.protocol != sslstream.ProtocolTLS12 {
			continue
		}
		for _, mutual := range []bool{false, true} {
			name := v.name
			if mutual {
				name += "/mutual"
			}
			t.Run(name, func(t *testing.T) {
				test(t, v.protocol, map[bool]string{true: "1.3", false: "1.2"}[v.protocol == sslstream.ProtocolTLS13], mutual)
			})
		}
	}
}

func (p *pki) arguments(role, port, version string, mutual bool) []string {
	cert, key := p.serverFile, p.serverKey
	if role == "client" {
		cert, key = p.clientFile, p.clientKey
	}
	return []string{role, port, version, p.caFile, cert, key, fmt.Sprint(mutual), fmt.Sprint(echoSize)}
}

// TestServersOfOthers has our client talk to the echo servers.
func TestServersOfOthers(t *testing.T) {
	for _, e := range echoPeers {
		t.Run(e.name, func(t *testing.T) {
			program := need(t, e.program, e.install)
			run := e.run(t, program)
			p := e.pki(t)
			e.each(t, func(t *testing.T, version sslstream.Protocols, number string, mutual bool) {
				port := freePort(t)
				server := start(t, program, append(run, p.arguments("server", port, number, mutual)...)...)
				server.shows("ready")
				opts := &sslstream.ClientOptions{
					TargetHost: serverName, EnabledProtocols: version, CertificateChainPolicy: p.trust(), ApplicationProtocols: []string{"echo"},
				}
				if mutual {
					opts.ClientCertificates = []tls.Certificate{p.client}
				}
				for round := range 2 {
					s := sslstream.New(dial(t, port))
					require.NoError(t, s.AuthenticateAsClient(testContext(t), opts))
					s.SetReadTimeout(patience)
					sent := make(chan error, 1)
					go func() {
						_, err := s.Write(pattern())
						sent <- err
					}()
					got := make([]byte, echoSize)
					_, err := io.ReadFull(s, got)
					require.NoError(t, err)
					require.NoError(t, <-sent)
					require.Equal(t, pattern(), got)
					require.NoError(t, s.CloseWrite())
					_, err = s.Read(make([]byte, 1))
					assert.ErrorIs(t, err, io.EOF)
					assert.Equal(t, !e.silent, s.ReceivedCloseNotify(), "it answers ours")
					report := server.report(round + 1)
					assert.Contains(t, report, "end=close_notify")
					checkReport(t, report, s, version, round == 1 && e.resumes(true, number))
					assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
					assert.Equal(t, serverName, s.RemoteCertificate().Subject.CommonName)
					require.NoError(t, s.Close())
				}
				assert.NoError(t, server.ends())
				if strings.Contains(server.output(), "sni=") {
					assert.Contains(t, server.output(), "sni="+serverName)
				}
			})
		})
	}
}

// TestClientsOfOthers has the echo clients talk to our server.
func TestClientsOfOthers(t *testing.T) {
	for _, e := range echoPeers {
		t.Run(e.name, func(t *testing.T) {
			program := need(t, e.program, e.install)
			run := e.run(t, program)
			p := e.pki(t)
			e.each(t, func(t *testing.T, version sslstream.Protocols, number string, mutual bool) {
				opts := &sslstream.ServerOptions{
					ServerCertificate: &p.server, EnabledProtocols: version, CertificateChainPolicy: p.trust(),
					ClientCertificateRequired: mutual, ApplicationProtocols: []string{"echo"},
				}
				port, conn := accept(t)
				client := start(t, program, append(run, p.arguments("client", port, number, mutual)...)...)
				for round := range 2 {
					s := sslstream.New(conn())
					require.NoError(t, s.AuthenticateAsServer(testContext(t), opts))
					s.SetReadTimeout(patience)
					_, err := io.Copy(s, struct{ io.Reader }{s})
					require.NoError(t, err)
					assert.Equal(t, !e.silent, s.ReceivedCloseNotify())
					if !e.silent {
						require.NoError(t, s.CloseWrite())
					}
					report := client.report(round + 1)
					assert.NotContains(t, report, "Error")
					checkReport(t, report, s, version, round == 1 && e.resumes(false, number))
					assert.Equal(t, serverName, s.TargetHostName())
					assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
					if mutual {
						assert.Equal(t, "client.example", s.RemoteCertificate().Subject.CommonName)
					}
					require.NoError(t, s.Close())
				}
				assert.NoError(t, client.ends())
			})
		})
	}
}
