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

// echoPeer is a program in testdata that echoes as a server and checks the echo as a client, some sessions in a row, the later of
// which it resumes; and that prints what it knows of each. Another stack is another such program.
type echoPeer struct {
	name, program, install string
	run                    func(t *testing.T, program string) []string // the arguments before those that all have
	resumes                func(server bool, version string) bool      // whether its later sessions are resumed
	says                   []string                                    // what it prints of each session besides protocol, echoed and end
	only12                 bool                                        // it has no TLS 1.3
	silent                 bool                                        // it hangs up without a close_notify
	tellsEnds              bool                                        // it tells a close_notify from a connection's end
	pfx                    bool                                        // it reads PKCS#12 files, beside the PEM ones, of RSA keys
}

func always(bool, string) bool { return true }
func never(bool, string) bool  { return false }

var echoPeers = []echoPeer{
	{
		name: "Python", program: "python3", install: "apt-get install python3",
		run:     func(*testing.T, string) []string { return []string{"testdata/peer.py"} },
		resumes: always, says: []string{"cipher", "peer", "resumed", "alpn"}, tellsEnds: true,
	},
	{
		name: "Node", program: "node", install: "apt-get install nodejs",
		run:     func(*testing.T, string) []string { return []string{"testdata/peer.js"} },
		resumes: always, says: []string{"cipher", "resumed", "alpn"}, // and the peer, but where it has forgotten it
	},
	{
		name: "Java", program: "java", install: installJava,
		run: func(t *testing.T, _ string) []string {
			dir := t.TempDir()
			out, err := exec.Command(need(t, "javac", installJava), "-d", dir, "testdata/Peer.java").CombinedOutput()
			require.NoError(t, err, "%s", out)
			return []string{"-Dcom.sun.net.ssl.requireCloseNotify=true", "-cp", dir, "Peer"}
		},
		resumes: func(server bool, version string) bool {
			return server || version == "1.3" // its client throws away TLS 1.2 tickets without a lifetime, such as crypto/tls's
		},
		says: []string{"cipher", "peer", "alpn"}, tellsEnds: true,
	},
	{
		name: "Mono", program: "mono", install: installMono,
		run:     func(t *testing.T, _ string) []string { return []string{compiled(t, "Peer")} },
		resumes: never, says: []string{"peer", "mutual", "encrypted", "signed", "strength"}, only12: true, silent: true, pfx: true,
	},
}

const installJava = "apt-get install openjdk-17-jdk-headless"

// compiled is a C# program of testdata.
func compiled(t *testing.T, name string) (exe string) {
	t.Helper()
	exe = filepath.Join(t.TempDir(), name+".exe")
	out, err := exec.Command(need(t, "mcs", installMono), "-out:"+exe, "testdata/"+name+".cs").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return exe
}

const installMono = "apt-get install mono-mcs mono-runtime libmono-btls-interface4.0-cil"

// pki makes the certificates as the peer can read them.
func (e *echoPeer) pki(t *testing.T) *pki {
	if !e.pfx {
		return newPKI(t)
	}
	return newPFX(t)
}

// newPFX is newPKI with RSA keys, and with PKCS#12 files beside the PEM ones.
func newPFX(t *testing.T) *pki {
	t.Helper()
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

// checkReport compares the peer's report of a session with what we say of it.
func (e *echoPeer) checkReport(t *testing.T, report string, s *sslstream.Stream, v sslstream.Protocols, resumed bool) {
	t.Helper()
	said := map[string]string{}
	for _, word := range strings.Fields(report) {
		if k, v, ok := strings.Cut(word, "="); ok {
			said[k] = v
		}
	}
	for _, property := range e.says {
		assert.Contains(t, said, property)
	}
	assert.Equal(t, v, s.Protocol())
	assert.Equal(t, tlsv(v), said["protocol"])
	assert.Equal(t, fmt.Sprint(echoSize), said["echoed"])
	assert.Equal(t, resumed, s.ConnectionState().DidResume)
	local := ""
	if c := s.LocalCertificate(); c != nil {
		local = c.Subject.CommonName
	}
	for property, ours := range map[string]any{
		"mutual": s.IsMutuallyAuthenticated(), "alpn": s.NegotiatedApplicationProtocol(), "peer": local, "resumed": resumed,
		"encrypted": s.IsEncrypted(), "signed": s.IsSigned(), "strength": s.CipherStrength(),
	} {
		if theirs, ok := said[property]; ok {
			assert.Equal(t, fmt.Sprint(ours), strings.Replace(strings.Replace(theirs, "True", "true", 1), "False", "false", 1), property)
		}
	}
	if suite, ok := said["cipher"]; ok {
		assert.Contains(t, []string{tls.CipherSuiteName(s.NegotiatedCipherSuite()), opensslName(s.NegotiatedCipherSuite())}, suite)
	}
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

func (p *pki) arguments(role, port, version string, mutual bool, sessions int) []string {
	cert, key := p.serverFile, p.serverKey
	if role == "client" {
		cert, key = p.clientFile, p.clientKey
	}
	return []string{role, port, version, p.caFile, cert, key, fmt.Sprint(mutual), fmt.Sprint(echoSize), fmt.Sprint(sessions)}
}

// TestServersOfOthers has our client talk to the echo servers: two sessions that end in an orderly way, and one that is cut.
func TestServersOfOthers(t *testing.T) {
	for _, e := range echoPeers {
		t.Run(e.name, func(t *testing.T) {
			program := need(t, e.program, e.install)
			run := e.run(t, program)
			p := e.pki(t)
			e.each(t, func(t *testing.T, version sslstream.Protocols, number string, mutual bool) {
				port := freePort(t)
				server := start(t, program, append(run, p.arguments("server", port, number, mutual, 3)...)...)
				server.shows("ready")
				opts := &sslstream.ClientOptions{
					TargetHost: serverName, EnabledProtocols: version, CertificateChainPolicy: p.trust(), ApplicationProtocols: []string{"echo"},
				}
				if mutual {
					opts.ClientCertificates = []tls.Certificate{p.client}
				}
				for round := range 3 {
					conn := through(t, port)
					s := sslstream.New(conn)
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
					assert.False(t, conn.records.lastIsAlert())
					orderly := round < 2
					if orderly {
						require.NoError(t, s.CloseWrite())
					} else {
						conn.cut(t)
					}
					_, err = s.Read(make([]byte, 1))
					assert.ErrorIs(t, err, io.EOF)
					assert.Equal(t, orderly && !e.silent, s.ReceivedCloseNotify(), "it answers ours")
					assert.Equal(t, orderly, conn.records.lastIsAlert())
					report := server.report(round + 1)
					if e.tellsEnds {
						assert.Contains(t, report, map[bool]string{true: "end=close_notify", false: "end=eof"}[orderly])
					}
					e.checkReport(t, report, s, version, round > 0 && e.resumes(true, number))
					assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
					assert.Equal(t, serverName, s.RemoteCertificate().Subject.CommonName)
					s.Close()
				}
				assert.NoError(t, server.ends())
				if e.name == "Mono" { // which asks its callback about clients only where it asks for their certificates
					judged := strings.Count(server.output(), "judge ")
					assert.Equal(t, map[bool]int{true: 3, false: 0}[mutual], judged)
					assert.Equal(t, judged, strings.Count(server.output(), "judge CN=client.example, O=sslstream tests RemoteCertificateChainErrors\n"))
				} else { // Node has forgotten it in resumed sessions
					assert.Contains(t, server.output(), "sni="+serverName+"\n")
				}
			})
		})
	}
}

// TestClientsOfOthers has the echo clients talk to our server: one session that they end, and one that we end.
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
				client := start(t, program, append(run, p.arguments("client", port, number, mutual, 2)...)...)
				for round := range 2 {
					s := sslstream.New(conn())
					require.NoError(t, s.AuthenticateAsServer(testContext(t), opts))
					s.SetReadTimeout(patience)
					_, err := io.CopyN(s, struct{ io.Reader }{s}, echoSize)
					require.NoError(t, err)
					if round == 1 {
						require.NoError(t, s.CloseWrite())
					}
					_, err = s.Read(make([]byte, 1))
					assert.ErrorIs(t, err, io.EOF)
					assert.Equal(t, !e.silent, s.ReceivedCloseNotify())
					if round == 0 && !e.silent {
						require.NoError(t, s.CloseWrite())
					}
					report := client.report(round + 1)
					assert.NotContains(t, report, "Error")
					e.checkReport(t, report, s, version, round == 1 && e.resumes(false, number))
					assert.Equal(t, serverName, s.TargetHostName())
					assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
					if mutual {
						assert.Equal(t, "client.example", s.RemoteCertificate().Subject.CommonName)
					}
					s.Close()
				}
				assert.NoError(t, client.ends())
				if e.name == "Mono" {
					assert.Equal(t, 2, strings.Count(client.output(), "judge CN=server.example, O=sslstream tests RemoteCertificateChainErrors\n"))
					assert.Equal(t, when(mutual, "asked"), when(strings.Contains(client.output(), "select server.example\n"), "asked"))
				}
			})
		})
	}
}
