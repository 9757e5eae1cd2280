package interop_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

// This file has the tools that the TLS libraries come with: what is typed goes to the peer, what the peer says is printed.

// eachWay runs a test for each version, with and without a client certificate.
func eachWay(t *testing.T, test func(t *testing.T, version sslstream.Protocols, mutual bool)) {
	(&echoPeer{}).each(t, func(t *testing.T, version sslstream.Protocols, _ string, mutual bool) { test(t, version, mutual) })
}

// text is what is typed: many records of lines.
var text = strings.Repeat(strings.Repeat("0123456789", 9)+"\n", 1000)

// echoes takes what a client types, sends it back, and ends the session.
func echoes(t *testing.T, client *peer, s *sslstream.Stream) {
	t.Helper()
	typed := make(chan error, 1)
	go func() {
		_, err := io.WriteString(client.stdin, text)
		typed <- err
	}()
	s.SetReadTimeout(patience)
	got := make([]byte, len(text))
	_, err := io.ReadFull(s, got)
	require.NoError(t, err)
	require.NoError(t, <-typed)
	require.Equal(t, text, string(got))
	_, err = s.Write(got)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return strings.Count(client.output(), strings.Repeat("0123456789", 9)) >= 1000 }, patience, 10*time.Millisecond)
}

func (p *pki) clientOptions(version sslstream.Protocols, mutual bool) *sslstream.ClientOptions {
	opts := &sslstream.ClientOptions{TargetHost: serverName, EnabledProtocols: version, CertificateChainPolicy: p.trust()}
	if mutual {
		opts.ClientCertificates = []tls.Certificate{p.client}
	}
	return opts
}

func (p *pki) serverOptions(version sslstream.Protocols, mutual bool) *sslstream.ServerOptions {
	return &sslstream.ServerOptions{ServerCertificate: &p.server, EnabledProtocols: version, CertificateChainPolicy: p.trust(), ClientCertificateRequired: mutual}
}

// checkServer is what our server must say of a session with a tool.
func checkServer(t *testing.T, s *sslstream.Stream, version sslstream.Protocols, mutual bool) {
	t.Helper()
	assert.Equal(t, version, s.Protocol())
	assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
	assert.Equal(t, serverName, s.TargetHostName())
	if mutual {
		assert.Equal(t, "client.example", s.RemoteCertificate().Subject.CommonName)
	}
}

func TestOpenSSLClient(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		opts := p.serverOptions(version, mutual)
		sessions := filepath.Join(t.TempDir(), "session")
		for round := range 2 {
			port, conn := accept(t)
			args := []string{"s_client", "-connect", "127.0.0.1:" + port, "-servername", serverName, "-CAfile", p.caFile, "-verify_return_error", "-sess_out", sessions}
			if mutual {
				args = append(args, "-cert", p.clientFile, "-key", p.clientKey, "-cert_chain", p.clientFile)
			}
			if round == 1 {
				args = append(args, "-sess_in", sessions)
			}
			client := start(t, openssl, args...)
			s := sslstream.New(conn())
			require.NoError(t, s.AuthenticateAsServer(testContext(t), opts))
			checkServer(t, s, version, mutual)
			assert.Equal(t, round == 1, s.ConnectionState().DidResume)
			echoes(t, client, s)
			client.shows(map[int]string{0: "New, ", 1: "Reused, "}[round] + map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "TLSv1.2", sslstream.ProtocolTLS13: "TLSv1.3"}[version])
			client.shows("Cipher is " + opensslName(s.NegotiatedCipherSuite()))
			require.NoError(t, s.Close())
			assert.NoError(t, client.ends(), "our close_notify ends it")
		}
	})
}

func TestOpenSSLServer(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		port := freePort(t)
		args := []string{"s_server", "-accept", "127.0.0.1:" + port, "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-naccept", "2", "-rev"}
		if mutual {
			args = append(args, "-Verify", "3", "-verify_return_error", "-CAfile", p.caFile)
		}
		server := start(t, openssl, args...)
		server.shows("ACCEPT")
		opts := p.clientOptions(version, mutual)
		for round := range 2 {
			s := sslstream.New(dial(t, port))
			require.NoError(t, s.AuthenticateAsClient(testContext(t), opts))
			assert.Equal(t, version, s.Protocol())
			assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
			assert.Equal(t, round == 1, s.ConnectionState().DidResume)
			_, err := io.WriteString(s, "drawer\n")
			require.NoError(t, err)
			assert.Equal(t, "reward", readLine(t, s))
			server.showsTimes("Ciphersuite: "+opensslName(s.NegotiatedCipherSuite()), round+1)
			if mutual {
				server.showsTimes("Peer certificate: O = sslstream tests, CN = client.example", 1)
			}
			require.NoError(t, s.CloseWrite())
			_, err = io.Copy(io.Discard, s)
			assert.NoError(t, err)
			assert.True(t, s.ReceivedCloseNotify())
			require.NoError(t, s.Close())
		}
		assert.NoError(t, server.ends())
		server.shows(" 1 session cache hits")
	})
}

// gnutlsPriority allows one version.
func gnutlsPriority(v sslstream.Protocols) string {
	return map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "NORMAL:-VERS-ALL:+VERS-TLS1.2", sslstream.ProtocolTLS13: "NORMAL:-VERS-ALL:+VERS-TLS1.3"}[v]
}

// gnutlsDescribes checks how GnuTLS prints the session: by its version and by its cipher.
func gnutlsDescribes(t *testing.T, p *peer, s *sslstream.Stream, times int) {
	t.Helper()
	p.showsTimes("- Description: "+map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "(TLS1.2", sslstream.ProtocolTLS13: "(TLS1.3"}[s.Protocol()], times)
	suite := opensslName(s.NegotiatedCipherSuite())
	for name, cipher := range map[string]string{"AES128-GCM": "AES-128-GCM", "AES_128_GCM": "AES-128-GCM", "AES256-GCM": "AES-256-GCM", "AES_256_GCM": "AES-256-GCM", "CHACHA20": "CHACHA20-POLY1305"} {
		if strings.Contains(suite, name) {
			p.showsTimes("-("+cipher+")\n", times)
			return
		}
	}
	t.Errorf("GnuTLS's name for %s is not known here", suite)
}

func TestGnuTLSClient(t *testing.T) {
	cli := need(t, "gnutls-cli", installGnuTLS)
	p := newPKI(t)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		port, conn := accept(t)
		args := []string{"--x509cafile", p.caFile, "--sni-hostname", serverName, "--verify-hostname", serverName, "--priority", gnutlsPriority(version), "--alpn", "echo", "--resume", "--waitresumption", "-p", port, "127.0.0.1"}
		if mutual {
			args = append([]string{"--x509certfile", p.clientFile, "--x509keyfile", p.clientKey}, args...)
		}
		client := start(t, cli, args...)
		opts := p.serverOptions(version, mutual)
		opts.ApplicationProtocols = []string{"echo"}
		for round := range 2 {
			s := sslstream.New(conn())
			require.NoError(t, s.AuthenticateAsServer(testContext(t), opts))
			checkServer(t, s, version, mutual)
			assert.Equal(t, "echo", s.NegotiatedApplicationProtocol())
			assert.Equal(t, round == 1, s.ConnectionState().DidResume)
			gnutlsDescribes(t, client, s, round+1)
			client.showsTimes("- Application protocol: echo", round+1)
			if round == 0 {
				s.SetReadTimeout(patience)
				_, err := s.Read(make([]byte, 1))
				assert.ErrorIs(t, err, io.EOF)
				assert.True(t, s.ReceivedCloseNotify(), "it disconnects to resume")
				s.Close()
				continue
			}
			client.shows("*** This is a resumed session")
			echoes(t, client, s)
			require.NoError(t, s.Close())
		}
		client.shows("Peer has closed the GnuTLS connection")
		assert.NoError(t, client.ends())
	})
}

func TestGnuTLSServer(t *testing.T) {
	serv := need(t, "gnutls-serv", installGnuTLS)
	if !inNamespace(t) {
		return
	}
	p := newPKI(t)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		port := freePort(t)
		args := []string{"--echo", "-p", port, "--x509certfile", p.serverFile, "--x509keyfile", p.serverKey, "--x509cafile", p.caFile, "--priority", gnutlsPriority(version), "--alpn", "echo"}
		if mutual {
			args = append(args, "--require-client-cert", "--verify-client-cert")
		} else {
			args = append(args, "--disable-client-cert")
		}
		server := start(t, serv, args...)
		server.shows("Echo Server listening")
		opts := p.clientOptions(version, mutual)
		opts.ApplicationProtocols = []string{"echo"}
		for round := range 2 {
			s := sslstream.New(dial(t, port))
			require.NoError(t, s.AuthenticateAsClient(testContext(t), opts))
			assert.Equal(t, version, s.Protocol())
			assert.Equal(t, "echo", s.NegotiatedApplicationProtocol())
			assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
			assert.Equal(t, round == 1, s.ConnectionState().DidResume)
			_, err := io.WriteString(s, "a line for gnutls-serv\n")
			require.NoError(t, err)
			assert.Equal(t, "a line for gnutls-serv", readLine(t, s))
			gnutlsDescribes(t, server, s, round+1)
			if round == 1 {
				server.shows("This is a resumed session")
			}
			if mutual {
				server.shows("CN=client.example")
			}
			require.NoError(t, s.CloseWrite())
			_, err = s.Read(make([]byte, 1))
			assert.ErrorIs(t, err, io.EOF)
			assert.True(t, s.ReceivedCloseNotify())
			s.Close()
		}
	})
}

const installNSS = "apt-get install libnss3-tools"

// nss is a certificate database with the root and one side's certificate.
func nss(t *testing.T, p *pki, name, cert, key string) (dir string) {
	t.Helper()
	openssl := need(t, "openssl", installOpenSSL)
	certutil, pk12util := need(t, "certutil", installNSS), need(t, "pk12util", installNSS)
	dir = t.TempDir()
	p12 := filepath.Join(dir, "own.p12")
	for _, args := range [][]string{
		{certutil, "-N", "-d", "sql:" + dir, "--empty-password"},
		{certutil, "-A", "-d", "sql:" + dir, "-n", "root", "-t", "CT,C,", "-i", p.caFile},
		{openssl, "pkcs12", "-export", "-in", cert, "-inkey", key, "-name", name, "-out", p12, "-passout", "pass:password"},
		{pk12util, "-i", p12, "-d", "sql:" + dir, "-W", "password"},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	return dir
}

// nssRange allows one version.
func nssRange(v sslstream.Protocols) string {
	return map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "tls1.2:tls1.2", sslstream.ProtocolTLS13: "tls1.3:tls1.3"}[v]
}

func TestNSSClient(t *testing.T) {
	tstclnt := need(t, "tstclnt", installNSS)
	p := newPKI(t)
	db := nss(t, p, "client", p.clientFile, p.clientKey)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		port, conn := accept(t)
		args := []string{"-h", "127.0.0.1", "-p", port, "-d", "sql:" + db, "-a", serverName, "-V", nssRange(version)}
		if mutual {
			args = append(args, "-n", "client")
		}
		client := start(t, tstclnt, args...)
		s := sslstream.New(conn())
		require.NoError(t, s.AuthenticateAsServer(testContext(t), p.serverOptions(version, mutual)))
		checkServer(t, s, version, mutual)
		echoes(t, client, s)
		require.NoError(t, s.Close()) // tstclnt stays; ends are in TestNSSClientResumes
	})
}

// nssDescribes checks how NSS's tools print the session.
func nssDescribes(p *peer, s *sslstream.Stream, times int) {
	p.t.Helper()
	minor := map[sslstream.Protocols]int{sslstream.ProtocolTLS12: 3, sslstream.ProtocolTLS13: 4}[s.Protocol()]
	p.showsTimes(fmt.Sprintf("SSL version 3.%d using %d-bit AES-GCM", minor, s.CipherStrength()), times)
	p.showsTimes(fmt.Sprintf("Key Exchange: %d-bit", s.KeyExchangeStrength()), times)
}

// TestNSSClientResumes has strsclnt fetch three times.
func TestNSSClientResumes(t *testing.T) {
	strsclnt := need(t, "strsclnt", installNSS)
	p := newPKI(t)
	db := nss(t, p, "client", p.clientFile, p.clientKey)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		port, conn := accept(t)
		opts := p.serverOptions(version, mutual)
		// It takes the certificate for the address's: whom it trusts is in TestNSSClient.
		args := []string{"-p", port, "-d", "sql:" + db, "-a", serverName, "-V", nssRange(version), "-v", "-u", "-o", "-c", "3", "-t", "1"}
		if mutual {
			args = append(args, "-n", "client")
		}
		client := start(t, strsclnt, append(args, "127.0.0.1")...)
		for round := range 3 {
			s := sslstream.New(conn())
			require.NoError(t, s.AuthenticateAsServer(testContext(t), opts))
			checkServer(t, s, version, mutual)
			assert.Equal(t, round > 0, s.ConnectionState().DidResume)
			s.SetReadTimeout(patience)
			request := make([]byte, len("GET /abc HTTP/1.0\r\n\r\n"))
			_, err := io.ReadFull(s, request)
			require.NoError(t, err)
			_, err = io.WriteString(s, "HTTP/1.0 200 OK\r\n\r\nanswer")
			require.NoError(t, err)
			require.NoError(t, s.CloseWrite())
			_, err = s.Read(request)
			assert.ErrorIs(t, err, io.EOF)
			assert.True(t, s.ReceivedCloseNotify())
			require.NoError(t, s.Close())
			nssDescribes(client, s, 1) // the first time only
		}
		client.ends()
		client.shows("2 cache hits")
	})
}

func TestNSSServer(t *testing.T) {
	selfserv := need(t, "selfserv", installNSS)
	for program, install := range map[string]string{"openssl": installOpenSSL, "certutil": installNSS, "pk12util": installNSS} {
		need(t, program, install) // before there is a namespace, where it would be skipped for nobody to see
	}
	if !inNamespace(t) {
		return
	}
	p := newPKI(t)
	db := nss(t, p, "server", p.serverFile, p.serverKey)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		port := freePort(t)
		args := []string{"-p", port, "-d", "sql:" + db, "-n", "server", "-V", nssRange(version), "-v", "-u"}
		if mutual {
			args = append(args, "-r", "-r")
		}
		server := start(t, selfserv, args...)
		opts := p.clientOptions(version, mutual)
		for round := range 2 {
			s := sslstream.New(dial(t, port))
			require.NoError(t, s.AuthenticateAsClient(testContext(t), opts))
			assert.Equal(t, version, s.Protocol())
			assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
			assert.Equal(t, round == 1, s.ConnectionState().DidResume)
			_, err := io.WriteString(s, "GET / HTTP/1.0\r\n\r\n")
			require.NoError(t, err)
			s.SetReadTimeout(patience)
			answer, err := io.ReadAll(s)
			require.NoError(t, err)
			assert.Contains(t, string(answer), "HTTP/1.0 200 OK")
			assert.True(t, s.ReceivedCloseNotify())
			nssDescribes(server, s, 1)
			if mutual {
				server.shows("CN=client.example")
			}
			s.Close()
		}
	})
}

// TestCurl has curl fetch from a Listener.
func TestCurl(t *testing.T) {
	curl := need(t, "curl", "apt-get install curl")
	if version, err := exec.Command(curl, "--version").Output(); err != nil || !strings.Contains(string(version), " OpenSSL/") {
		t.Skipf("this curl has another TLS library than OpenSSL, and prints other things: %s", version)
	}
	p := newPKI(t)
	eachWay(t, func(t *testing.T, version sslstream.Protocols, mutual bool) {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		l := sslstream.NewListener(inner, p.serverOptions(version, mutual))
		seen, resumed := make(chan string, 2), make(chan bool, 2)
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				w.Header().Set("Connection", "close") // so that the next request comes by another session
				w.Write(body)
			}),
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				s := c.(*sslstream.Stream)
				checkServer(t, s, version, mutual)
				resumed <- s.ConnectionState().DidResume
				seen <- map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "TLSv1.2", sslstream.ProtocolTLS13: "TLSv1.3"}[s.Protocol()] + " / " + opensslName(s.NegotiatedCipherSuite())
				return ctx
			},
		}
		go server.Serve(l)
		defer server.Close()
		_, port, err := net.SplitHostPort(inner.Addr().String())
		require.NoError(t, err)
		args := []string{"-sS", "-v", "--cacert", p.caFile, "--resolve", serverName + ":" + port + ":127.0.0.1", "--data-binary", text, "https://" + serverName + ":" + port + "/", "https://" + serverName + ":" + port + "/"}
		if mutual {
			args = append(args, "--cert", p.clientFile, "--key", p.clientKey)
		}
		cmd := exec.Command(curl, args...)
		var verbose strings.Builder
		cmd.Stderr = &verbose
		out, err := cmd.Output()
		require.NoError(t, err, "%s", verbose.String())
		assert.Equal(t, text+text, string(out))
		for _, again := range []bool{false, true} {
			assert.Equal(t, again && version == sslstream.ProtocolTLS13, <-resumed, "curl offers no TLS 1.2 session again")
			assert.Contains(t, verbose.String(), "SSL connection using "+<-seen)
		}
		assert.NotContains(t, strings.ToLower(verbose.String()), "unexpected eof")
		assert.Contains(t, verbose.String(), "subject: O=sslstream tests; CN="+serverName)
	})
}
