package interop_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// This file has the classic pair, SslTcpServer and SslTcpClient: each of Mono's against the other of ours in examples/.

func TestClassicServerOfMono(t *testing.T) {
	mono := need(t, "mono", installMono)
	server, client := compiled(t, "SslTcpServer"), build(t, "client")
	p := newPFX(t)
	for _, mutual := range []bool{false, true} {
		t.Run(map[bool]string{false: "server only", true: "mutual"}[mutual], func(t *testing.T) {
			port := freePort(t)
			s := start(t, mono, server, port, p.serverFile+".pfx", map[bool]string{false: "false", true: "true"}[mutual])
			s.shows("Waiting for a client")
			args := []string{"-address", "127.0.0.1:" + port, "-host", serverName, "-ca", p.caFile}
			if mutual {
				args = append(args, "-cert", p.clientFile, "-key", p.clientKey)
			}
			c := start(t, client, args...)
			assert.NoError(t, c.ends())
			assert.NoError(t, s.ends())
			c.shows("Server says: Hello from the server.\n")
			c.shows("Protocol: TLS12\n")
			c.shows("Remote cert was issued to CN=" + serverName)
			s.shows("Received: Hello from the client.<EOF>\n")
			if mutual {
				s.shows("Client certificate: CN=client.example, O=sslstream tests, RemoteCertificateChainErrors\n")
				s.shows("Protocol: Tls12, authenticated True, as server True, mutually True\n")
				c.shows("Is mutually authenticated: true")
			} else {
				s.shows("Protocol: Tls12, authenticated True, as server True, mutually False\n")
				c.shows("Is mutually authenticated: false")
			}
		})
	}
	t.Run("a client without the certificate that is required", func(t *testing.T) {
		port := freePort(t)
		s := start(t, mono, server, port, p.serverFile+".pfx", "true")
		s.shows("Waiting for a client")
		c := start(t, client, "-address", "127.0.0.1:"+port, "-host", serverName, "-ca", p.caFile)
		assert.Error(t, c.ends())
		assert.Error(t, s.ends())
	})
	t.Run("a client that does not trust the server", func(t *testing.T) {
		port := freePort(t)
		s := start(t, mono, server, port, p.serverFile+".pfx", "false")
		s.shows("Waiting for a client")
		c := start(t, client, "-address", "127.0.0.1:"+port, "-host", "other.example", "-ca", p.caFile)
		assert.Error(t, c.ends())
		c.shows("Certificate error: RemoteCertificateNameMismatch\n")
		assert.Error(t, s.ends())
	})
}

func TestClassicClientOfMono(t *testing.T) {
	mono := need(t, "mono", installMono)
	client, server := compiled(t, "SslTcpClient"), build(t, "server")
	p := newPFX(t)
	for _, mutual := range []bool{false, true} {
		t.Run(map[bool]string{false: "server only", true: "mutual"}[mutual], func(t *testing.T) {
			port := freePort(t)
			serverArgs := []string{"-address", "127.0.0.1:" + port, "-cert", p.serverFile, "-key", p.serverKey, "-once"}
			clientArgs := []string{client, port, serverName}
			if mutual {
				serverArgs, clientArgs = append(serverArgs, "-client-ca", p.caFile), append(clientArgs, p.clientFile+".pfx")
			}
			s := start(t, server, serverArgs...)
			s.shows("Waiting for a client")
			c := start(t, mono, clientArgs...)
			assert.NoError(t, c.ends())
			assert.NoError(t, s.ends())
			c.shows("Certificate error: RemoteCertificateChainErrors\n")
			c.shows("Server says: Hello from the server.<EOF>\n")
			s.shows("Received: Hello from the client.\n")
			s.shows("ended the session in an orderly way: false") // which is Mono's way
			if mutual {
				c.shows("Client is selecting a local certificate for " + serverName + ".\n")
				c.shows("Protocol: Tls12, authenticated True, as server False, mutually True\n")
				s.shows("Is mutually authenticated: true")
				s.shows("Remote cert was issued to CN=client.example")
			} else {
				c.shows("Protocol: Tls12, authenticated True, as server False, mutually False\n")
				s.shows("Is mutually authenticated: false")
			}
		})
	}
	t.Run("that refuses the server", func(t *testing.T) {
		port := freePort(t)
		s := start(t, server, "-address", "127.0.0.1:"+port, "-cert", p.clientFile, "-key", p.clientKey, "-once")
		s.shows("Waiting for a client")
		c := start(t, mono, client, port, serverName)
		assert.Error(t, c.ends())
		c.shows("Certificate error: RemoteCertificateChainErrors\n")
		assert.Error(t, s.ends())
	})
}
