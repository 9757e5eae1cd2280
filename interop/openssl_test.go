package interop_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const installOpenSSL = "apt-get install openssl"

// build compiles an example.
func build(t *testing.T, example string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), example)
	out, err := exec.Command("go", "build", "-o", exe, "../examples/"+example).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return exe
}

// TestExampleServerWithOpenSSL has openssl s_client talk to examples/server.
func TestExampleServerWithOpenSSL(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	server := build(t, "server")
	p := newPKI(t)
	for _, v := range versions {
		for _, mutual := range []bool{false, true} {
			name := v.name
			if mutual {
				name += "/mutual"
			}
			t.Run(name, func(t *testing.T) {
				port := freePort(t)
				serverArgs := []string{"-address", "127.0.0.1:" + port, "-cert", p.serverFile, "-key", p.serverKey, "-once"}
				clientArgs := []string{"s_client", "-connect", "127.0.0.1:" + port, v.openssl, "-servername", serverName, "-CAfile", p.caFile, "-verify_return_error", "-verify_hostname", serverName}
				if mutual {
					serverArgs = append(serverArgs, "-client-ca", p.caFile)
					clientArgs = append(clientArgs, "-cert", p.clientFile, "-key", p.clientKey, "-cert_chain", p.clientFile)
				}
				s := start(t, server, serverArgs...)
				s.shows("Waiting for a client")
				c := start(t, openssl, clientArgs...)
				c.shows("Verify return code: 0 (ok)")
				c.say("Hello from OpenSSL.<EOF>")
				c.shows("Hello from the server.<EOF>")
				assert.NoError(t, c.ends(), "s_client ends when the server's close_notify comes")
				assert.NoError(t, s.ends())
				s.shows("Received: Hello from OpenSSL.\n")
				s.shows("Protocol: " + v.protocol.String())
				s.shows("ended the session in an orderly way: true")
				s.shows("Can read: true, write true")
				if mutual {
					c.shows("Acceptable client certificate CA names")
					s.shows("Is mutually authenticated: true")
					s.shows("Remote cert was issued to CN=client.example")
				} else {
					s.shows("Is mutually authenticated: false")
					s.shows("Remote certificate is null.")
				}
			})
		}
	}
	for _, v := range versions {
		t.Run("with a client that has more than "+v.name, func(t *testing.T) {
			port := freePort(t)
			s := start(t, server, "-address", "127.0.0.1:"+port, "-cert", p.serverFile, "-key", p.serverKey, "-protocols", v.protocol.String(), "-once")
			s.shows("Waiting for a client")
			c := start(t, openssl, "s_client", "-connect", "127.0.0.1:"+port, "-servername", serverName, "-CAfile", p.caFile)
			c.shows("Verify return code: 0 (ok)")
			c.say("Hello from OpenSSL.<EOF>")
			s.shows("Protocol: " + v.protocol.String())
			assert.NoError(t, s.ends())
			assert.NoError(t, c.ends())
		})
	}
	t.Run("without the certificate that is required", func(t *testing.T) {
		port := freePort(t)
		s := start(t, server, "-address", "127.0.0.1:"+port, "-cert", p.serverFile, "-key", p.serverKey, "-client-ca", p.caFile, "-once")
		s.shows("Waiting for a client")
		c := start(t, openssl, "s_client", "-connect", "127.0.0.1:"+port, "-servername", serverName, "-CAfile", p.caFile)
		c.shows("alert bad certificate")
		assert.Error(t, s.ends())
		s.shows("RemoteCertificateNotAvailable")
	})
}

// TestExampleClientWithOpenSSL has examples/client talk to openssl s_server.
func TestExampleClientWithOpenSSL(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	client := build(t, "client")
	p := newPKI(t)
	for _, v := range versions {
		for _, mutual := range []bool{false, true} {
			name := v.name
			if mutual {
				name += "/mutual"
			}
			t.Run(name, func(t *testing.T) {
				port := freePort(t)
				serverArgs := []string{"s_server", "-accept", "127.0.0.1:" + port, v.openssl, "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-naccept", "1"}
				clientArgs := []string{"-address", "127.0.0.1:" + port, "-host", serverName, "-ca", p.caFile}
				if mutual {
					serverArgs = append(serverArgs, "-Verify", "3", "-verify_return_error", "-CAfile", p.caFile)
					clientArgs = append(clientArgs, "-cert", p.clientFile, "-key", p.clientKey)
				}
				s := start(t, openssl, serverArgs...)
				s.shows("ACCEPT")
				c := start(t, client, clientArgs...)
				s.shows("Hello from the client.<EOF>")
				s.say("Hello from OpenSSL.<EOF>")
				c.shows("Server says: Hello from OpenSSL.\n")
				assert.NoError(t, c.ends())
				c.shows("Protocol: " + v.protocol.String())
				c.shows("ended the session in an orderly way: true")
				c.shows("Remote cert was issued to CN=" + serverName)
				if mutual {
					c.shows("Is mutually authenticated: true")
				} else {
					c.shows("Is mutually authenticated: false")
					c.shows("Local certificate is null.")
				}
			})
		}
	}
	for _, v := range versions {
		t.Run("with a server that has more than "+v.name, func(t *testing.T) {
			port := freePort(t)
			s := start(t, openssl, "s_server", "-accept", "127.0.0.1:"+port, "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-naccept", "1")
			s.shows("ACCEPT")
			c := start(t, client, "-address", "127.0.0.1:"+port, "-host", serverName, "-ca", p.caFile, "-protocols", v.protocol.String())
			c.shows("Protocol: " + v.protocol.String())
			s.shows("Hello from the client.<EOF>")
			s.say("Hello from OpenSSL.<EOF>")
			assert.NoError(t, c.ends())
		})
	}
	t.Run("a client that does not trust the server", func(t *testing.T) {
		port := freePort(t)
		s := start(t, openssl, "s_server", "-accept", "127.0.0.1:"+port, "-cert", p.serverFile, "-key", p.serverKey, "-naccept", "1")
		s.shows("ACCEPT")
		other := testpki.CAFile(t, testpki.Root(t, "Another Root"))
		c := start(t, client, "-address", "127.0.0.1:"+port, "-host", "other.example", "-ca", other)
		assert.Error(t, c.ends())
		c.shows("Certificate error: RemoteCertificateNameMismatch|RemoteCertificateChainErrors")
		c.shows("Chain element 0: CN=" + serverName)
		c.shows("PartialChain: its issuer CN=Interop Intermediate")
		s.shows("alert bad certificate")
	})
}

// TestSuiteThatOnlyOthersChoose negotiates the one suite that two ends of crypto/tls never agree on.
func TestSuiteThatOnlyOthersChoose(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	port := freePort(t)
	s := start(t, openssl, "s_server", "-accept", "127.0.0.1:"+port, "-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-naccept", "1")
	s.shows("ACCEPT")
	stream := sslstream.New(dial(t, port))
	defer stream.Close()
	require.NoError(t, stream.AuthenticateAsClient(testContext(t), &sslstream.ClientOptions{
		TargetHost: serverName, CertificateChainPolicy: p.trust(), CipherSuites: []uint16{tls.TLS_AES_256_GCM_SHA384},
	}))
	assert.Equal(t, tls.TLS_AES_256_GCM_SHA384, stream.NegotiatedCipherSuite())
	assert.Equal(t, sslstream.CipherAlgorithmAES256, stream.CipherAlgorithm())
	assert.Equal(t, 256, stream.CipherStrength())
	assert.Equal(t, sslstream.HashAlgorithmSHA384, stream.HashAlgorithm())
	assert.Equal(t, 384, stream.HashStrength())
}

// TestRenegotiation has openssl ask for the client's certificate in the middle of a session.
func TestRenegotiation(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	for _, allow := range []bool{true, false} {
		t.Run(map[bool]string{true: "allowed", false: "not allowed"}[allow], func(t *testing.T) {
			port := freePort(t)
			s := start(t, openssl, "s_server", "-accept", "127.0.0.1:"+port, "-tls1_2", "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-CAfile", p.caFile, "-naccept", "1")
			s.shows("ACCEPT")
			stream := sslstream.New(dial(t, port))
			defer stream.Close()
			require.NoError(t, stream.AuthenticateAsClient(testContext(t), &sslstream.ClientOptions{
				TargetHost: serverName, CertificateChainPolicy: p.trust(), AllowRenegotiation: allow, ClientCertificates: []tls.Certificate{p.client},
				Require: &sslstream.Requirements{ForwardSecrecy: true},
			}))
			assert.Nil(t, stream.LocalCertificate())
			s.shows("CIPHER is")
			s.say("R") // renegotiate, and ask for a certificate
			if !allow {
				stream.SetReadTimeout(2 * time.Second)
				_, err := stream.Read(make([]byte, 1))
				assert.Error(t, err)
				s.shows("no renegotiation")
				return
			}
			read := make(chan string, 1)
			go func() { read <- readLine(t, stream) }()
			s.shows("CN = client.example")
			s.say("after the renegotiation")
			assert.Equal(t, "after the renegotiation", <-read)
			assert.True(t, stream.LocalCertificate().Equal(p.client.Leaf))
			assert.True(t, stream.IsMutuallyAuthenticated())
			_, err := io.WriteString(stream, "still alive\n")
			require.NoError(t, err)
			s.shows("still alive")
		})
	}
}

// TestRenegotiationDuringWrite has a Write begin in the middle of a renegotiation, which is Read's to finish.
func TestRenegotiationDuringWrite(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	for name, over := range map[string]func(net.Conn) io.ReadWriteCloser{
		"socket":    func(c net.Conn) io.ReadWriteCloser { return c },
		"no socket": func(c net.Conn) io.ReadWriteCloser { return struct{ net.Conn }{c} },
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			s := start(t, openssl, "s_server", "-accept", "127.0.0.1:"+port, "-tls1_2", "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-CAfile", p.caFile, "-naccept", "1")
			s.shows("ACCEPT")
			stream := sslstream.New(over(dial(t, port)))
			defer stream.Close()
			written := make(chan error, 1)
			require.NoError(t, stream.AuthenticateAsClient(testContext(t), &sslstream.ClientOptions{
				TargetHost: serverName, CertificateChainPolicy: p.trust(), AllowRenegotiation: true,
				LocalCertificateSelectionCallback: func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
					go func() {
						_, err := io.WriteString(stream, "written meanwhile\n")
						written <- err
					}()
					time.Sleep(50 * time.Millisecond) // it gets as far as it can
					return &p.client, nil
				},
			}))
			s.shows("CIPHER is")
			s.say("R")
			read := make(chan string, 1)
			go func() { read <- readLine(t, stream) }()
			s.shows("written meanwhile")
			require.NoError(t, <-written)
			s.say("after the renegotiation")
			assert.Equal(t, "after the renegotiation", <-read)
			assert.True(t, stream.LocalCertificate().Equal(p.client.Leaf))
		})
	}
}

// TestKeyUpdate has openssl ask for new keys, both its own and ours.
func TestKeyUpdate(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	port, conn := accept(t)
	c := start(t, openssl, "s_client", "-connect", "127.0.0.1:"+port, "-tls1_3", "-servername", serverName, "-CAfile", p.caFile)
	stream := sslstream.New(conn())
	defer stream.Close()
	require.NoError(t, stream.AuthenticateAsServer(testContext(t), &sslstream.ServerOptions{ServerCertificate: &p.server}))
	for i := range 3 {
		c.say("K") // update, and ask for ours
		c.showsTimes("KEYUPDATE", i+1)
		c.say("after the update")
		assert.Equal(t, "after the update", readLine(t, stream))
		_, err := io.WriteString(stream, "an answer under new keys\n")
		require.NoError(t, err)
		c.showsTimes("an answer under new keys", i+1)
	}
}
